//! Page faults: making true what a VMA promises, one page at a time.
//!
//! | VMA             | read                          | write |
//! |-----------------|-------------------------------|-------|
//! | private         | the shared zero page          | a zeroed frame, or a copy of what is there |
//! | private, object | the object's page, read-only  | a copy of the object's page |
//! | shared, object  | the object's page             | the object's page |
//!
//! # Locks
//!
//! A fault needs its VMA to stay as it is, and the page tables of its address to
//! stay where they are. The lock of the VMA is enough for both, and is found
//! without the mmap lock (`vma/index.rs`). A fault does not wait for it. It takes
//! the mmap lock for reading instead, and waits for that, where
//!
//! - a writer has the VMA, or it changed while it was looked for;
//! - there seems to be none: a stack may have to grow, or a writer has the tree in
//!   disorder;
//! - the VMA needs its first anon_vma, which is chosen by a look at its neighbours.
//!
//! For the change itself it takes the lock of the one page table. Frames are
//! allocated and filled before that, and the entry is looked at again under it:
//! where another fault was faster, this one starts over.

use super::account::ResidentKind;
use super::clear_refs::{may_be_writable, tracks_writes};
use super::zap::forget_mapping;
use super::{AddressSpace, FaultError};
use crate::frame::{Frame, Frames, copy_page};
use crate::object::{Object, ObjectError, is_part_of};
use crate::paging::{Entry, EntryFlags, Glance, HUGE_PAGES, PteGuard, TlbGather};
use crate::rmap::{self, AnonVma};
use crate::slab::Ref;
use crate::sync::ReaderSlot;
use crate::vma::{Miss, Vma};
use crate::{Event, FrameKind, OwnedFrame, Pfn, Platform, VmaFlags, page_align_down};

/// What the access that faulted wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FaultAccess {
    /// It was a write.
    pub write: bool,
    /// It was an instruction fetch.
    pub execute: bool,
}

impl FaultAccess {
    /// A read.
    pub const READ: FaultAccess = FaultAccess { write: false, execute: false };
    /// A write.
    pub const WRITE: FaultAccess = FaultAccess { write: true, execute: false };
}

/// How one attempt ended that did not fail.
#[derive(PartialEq, Eq)]
pub(super) enum Outcome {
    /// The access will succeed now.
    Done,
    /// The entry changed meanwhile; look again.
    Again,
}

/// Why a fault takes the mmap lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fallback {
    /// No VMA was found.
    NotFound,
    /// The VMA that was found could not be locked.
    Missed(Miss),
    /// It needs its first anon_vma.
    FirstWrite,
}

/// The entry flags by which a page of such a VMA is mapped, without
/// [`WRITE`](EntryFlags::WRITE), which depends on the page as well.
pub(super) fn page_protection(flags: VmaFlags) -> EntryFlags {
    let access = if flags.intersects(VmaFlags::ACCESS) { EntryFlags::PRESENT } else { EntryFlags::PROT_NONE };
    let execute = if flags.contains(VmaFlags::EXEC) { EntryFlags::empty() } else { EntryFlags::NO_EXEC };
    access | execute | EntryFlags::USER
}

/// [`AccessDenied`](FaultError::AccessDenied) unless a VMA with `flags` allows the access to a page that is
/// not mapped yet (Linux's `access_error`): x86-64 page tables cannot allow writing or executing
/// without reading. An instruction fetch counts as a read until the page is there.
#[inline(always)]
pub(super) fn allow(flags: VmaFlags, access: FaultAccess) -> Result<(), FaultError> {
    let allowed = if access.write { flags.contains(VmaFlags::WRITE) } else { flags.intersects(VmaFlags::ACCESS) };
    if allowed { Ok(()) } else { Err(FaultError::AccessDenied) }
}

impl Fallback {
    /// As what it counts.
    fn event(self) -> Event {
        match self {
            Fallback::NotFound => Event::FaultVmaNotFound,
            Fallback::Missed(Miss::Locked) => Event::FaultVmaBusy,
            Fallback::Missed(Miss::Changed) => Event::FaultVmaChanged,
            Fallback::FirstWrite => Event::FaultFirstWrite,
        }
    }
}

/// Whether the access may make it necessary to give the VMA its first anon_vma.
#[inline(always)]
fn is_first_write(vma: Ref<Vma>, access: FaultAccess) -> bool {
    access.write && vma.anon_vma().is_none() && !vma.flags().contains(VmaFlags::SHARED)
}

/// Whether the page that a private VMA's entry maps is known to be that VMA's alone, so that it
/// may be written in place.
#[inline]
pub(super) fn is_exclusive(frames: &Frames, entry: Entry) -> bool {
    if entry.is_special() {
        return false;
    }
    if entry.is_huge() {
        return frames.block(entry.pfn(), HUGE_PAGES).iter().all(Frame::is_exclusive);
    }
    frames.get(entry.pfn()).is_exclusive()
}

/// The same with the entry locked, where it is worth finding out that the VMA has the page alone by
/// now (Linux's `wp_can_reuse_anon_folio`).
#[inline(always)]
pub(super) fn make_exclusive(frames: &Frames, entry: Entry) -> bool {
    if entry.is_special() {
        return false;
    }
    if entry.is_huge() {
        return make_huge_exclusive(frames, entry);
    }
    frames.get(entry.pfn()).try_make_exclusive()
}

#[cold]
fn make_huge_exclusive(frames: &Frames, entry: Entry) -> bool {
    frames.block(entry.pfn(), HUGE_PAGES).iter().all(Frame::try_make_exclusive)
}

/// What an entry gets that a write fault makes.
pub(super) const WRITTEN: EntryFlags =
    EntryFlags::WRITE.union(EntryFlags::DIRTY).union(EntryFlags::SOFT_DIRTY).union(EntryFlags::ACCESSED);

impl<P: Platform> AddressSpace<'_, P> {
    /// Resolves a page fault of user mode, or of the kernel on behalf of the
    /// user, at the byte address `addr`. Afterwards the access can be tried again.
    ///
    /// # Errors
    ///
    /// [`FaultError`] says which signal, if any, the access becomes.
    #[inline]
    pub fn handle_fault(&self, addr: usize, access: FaultAccess) -> Result<(), FaultError> {
        self.mem.reclaiming(|| match self.fault_in_vma(addr, access) {
            Ok(result) => {
                self.mem.count(Event::FaultVmaLocked);
                result
            }
            Err(reason) => {
                self.mem.count(reason.event());
                self.fault_in_space(addr, access)
            }
        })
    }

    /// Resolves a fault with the lock of its VMA, if that can be had.
    #[inline]
    pub(super) fn fault_in_vma(&self, addr: usize, access: FaultAccess) -> Result<Result<(), FaultError>, Fallback> {
        let index = self.mmap.index();
        let found = index.find(addr).ok_or(Fallback::NotFound)?;
        // Asked before, which most often saves the locking, and again when it is
        // known that this is the right one.
        if is_first_write(found, access) {
            return Err(Fallback::FirstWrite);
        }
        let vma = index.lock(found, addr, self.id(), || self.reader_slot()).map_err(Fallback::Missed)?;
        if is_first_write(*vma, access) {
            return Err(Fallback::FirstWrite);
        }
        let page = page_align_down(addr);
        if let Err(error) = allow(vma.flags(), access) {
            return Ok(Err(error));
        }
        loop {
            match self.fault_in(*vma, page, access) {
                Ok(Outcome::Again) => {}
                Ok(Outcome::Done) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    /// That of this CPU.
    pub(super) fn reader_slot(&self) -> &ReaderSlot {
        self.core.readers.of(self.mem.platform().current_cpu())
    }

    /// Resolves a fault with the mmap lock.
    #[cold]
    fn fault_in_space(&self, addr: usize, access: FaultAccess) -> Result<(), FaultError> {
        loop {
            let state = self.mmap.read();
            match state.vmas.find(addr) {
                Some(vma) if vma.start() <= addr => {
                    allow(vma.flags(), access)?;
                    if self.fault_in(vma, page_align_down(addr), access)? == Outcome::Done {
                        return Ok(());
                    }
                }
                Some(vma) if vma.flags().contains(VmaFlags::GROWSDOWN) => {
                    drop(state);
                    self.grow_stack(addr)?;
                }
                _ => return Err(FaultError::NotMapped),
            }
        }
    }

    /// Faults in one page of `vma`, with its lock held or the mmap lock in either
    /// mode; only with the mmap lock if it is a private VMA's first write.
    ///
    /// That the VMA [allows](allow) the access the caller has found out, or it is a debugger's:
    /// then a private page that is written to stays one that the program may not write to.
    pub(super) fn fault_in(&self, vma: Ref<Vma>, page: usize, access: FaultAccess) -> Result<Outcome, FaultError> {
        if is_first_write(vma, access) {
            rmap::prepare(self.mem, vma)?;
        }
        let seen = self.core.tables.glance(self.mem, page);
        let entry = seen.entry();
        if !entry.is_empty() {
            return if !entry.maps_page() {
                self.swap_in(vma, page, entry, access)
            } else if access.write && !entry.is_writable() {
                self.fault_read_only(vma, page, seen)
            } else if access.execute && !vma.flags().contains(VmaFlags::EXEC) {
                Err(FaultError::AccessDenied)
            } else {
                // Another CPU was faster, or the TLB was stale.
                Ok(Outcome::Done)
            };
        }
        match vma.object() {
            Some(_) => self.fault_object(vma, page, seen, access),
            None if seen.is_hole()
                && let Some(outcome) = self.fault_huge(vma, page, access)? =>
            {
                Ok(outcome)
            }
            None if access.write => {
                if self.mem.sysctl().makes_folios()
                    && let Some(outcome) = self.fault_in_folio(vma, page)?
                {
                    return Ok(outcome);
                }
                let frame = self.mem.alloc_zeroed(FrameKind::Anon)?;
                self.install_anon(vma, page, seen, frame, || true)
            }
            None => self.fault_zero_page(vma, seen),
        }
    }

    /// Maps a new private frame where nothing is mapped, if `still_right` says so with the
    /// table locked.
    #[inline]
    fn install_anon(
        &self,
        vma: Ref<Vma>,
        page: usize,
        seen: Glance<'_>,
        frame: OwnedFrame,
        still_right: impl FnOnce() -> bool,
    ) -> Result<Outcome, FaultError> {
        let entry = self.adopt(vma, page, &frame);
        let slot = match self.core.tables.lock_seen_alloc(self.mem, seen) {
            Ok(slot) if slot.get().is_empty() && still_right() => slot,
            other => {
                self.disown(frame);
                return other.map(|_| Outcome::Again).map_err(FaultError::from);
            }
        };
        slot.set(entry);
        frame.into_raw();
        self.count_resident(ResidentKind::Anon, 1);
        Ok(Outcome::Done)
    }

    /// Makes a new frame a private page of the VMA, and returns the entry that is to
    /// map it: writable if the VMA is. That is done before the entry's table is locked,
    /// so that others who fault on pages of that table wait less.
    #[inline(always)]
    pub(super) fn adopt(&self, vma: Ref<Vma>, page: usize, frame: &OwnedFrame) -> Entry {
        let flags = vma.flags();
        let mapping = vma.anon_vma().map_or(0, AnonVma::to_mapping);
        self.mem.frame(frame.pfn()).map_first(mapping, vma.index_of(page));
        let written = if flags.contains(VmaFlags::WRITE) { WRITTEN } else { EntryFlags::ACCESSED };
        Entry::leaf(frame.pfn(), page_protection(flags) | written)
    }

    /// Frees a frame that was [adopted](Self::adopt) in vain.
    #[cold]
    fn disown(&self, frame: OwnedFrame) {
        self.mem.frame(frame.pfn()).dec_mapcount();
        self.mem.free(frame);
    }

    /// First read of a private page that nothing is behind.
    fn fault_zero_page(&self, vma: Ref<Vma>, seen: Glance<'_>) -> Result<Outcome, FaultError> {
        let slot = self.core.tables.lock_seen_alloc(self.mem, seen)?;
        if !slot.get().is_empty() {
            return Ok(Outcome::Again);
        }
        let flags = page_protection(vma.flags()) | EntryFlags::SPECIAL | EntryFlags::ACCESSED;
        slot.set(Entry::leaf(self.mem.zero_page(), flags));
        Ok(Outcome::Done)
    }

    /// First access to a page of an object.
    fn fault_object(
        &self,
        vma: Ref<Vma>,
        page: usize,
        seen: Glance<'_>,
        access: FaultAccess,
    ) -> Result<Outcome, FaultError> {
        let (object, pfn) = self.object_page(vma, page)?;
        // What the object loses until then nobody would unmap again.
        let still_right = || is_part_of(self.mem, pfn, object);
        let flags = vma.flags();
        let shared = flags.contains(VmaFlags::SHARED);
        if access.write && !shared {
            let copy = self.copy_of(pfn);
            let outcome = copy.and_then(|copy| self.install_anon(vma, page, seen, copy, still_right));
            self.mem.put(pfn);
            return outcome;
        }
        let slot = match self.core.tables.lock_seen_alloc(self.mem, seen) {
            Ok(slot) if slot.get().is_empty() && still_right() => slot,
            other => {
                self.mem.put(pfn);
                return other.map(|_| Outcome::Again).map_err(FaultError::from);
            }
        };
        // The reference that `object_page` took is the entry's from now on.
        self.mem.frame(pfn).inc_mapcount();
        let writable = shared && flags.contains(VmaFlags::WRITE);
        let written = if writable && (access.write || !tracks_writes(flags)) { WRITTEN } else { EntryFlags::ACCESSED };
        slot.set(Entry::leaf(pfn, page_protection(flags) | written));
        self.count_resident(ResidentKind::Object, 1);
        Ok(Outcome::Done)
    }

    /// A write to a page that is mapped read-only, in a VMA that is writable but for a debugger: a shared
    /// page becomes writable, so does a private one that nobody else has; of
    /// anything else the VMA gets a copy.
    fn fault_read_only(&self, vma: Ref<Vma>, page: usize, seen: Glance<'_>) -> Result<Outcome, FaultError> {
        let Some(slot) = self.core.tables.lock_seen(self.mem, seen) else {
            return Ok(Outcome::Again);
        };
        let old = slot.get();
        if !old.maps_page() || old.is_writable() {
            return Ok(Outcome::Again);
        }
        let flags = vma.flags();
        if flags.contains(VmaFlags::SHARED) || make_exclusive(&self.mem.frames(), old) {
            let denied = if flags.contains(VmaFlags::WRITE) { EntryFlags::empty() } else { EntryFlags::WRITE };
            slot.update(|entry| entry.with(WRITTEN.difference(denied)));
            return Ok(Outcome::Done);
        }
        if old.is_huge() {
            // Only what is written to is copied.
            drop(slot);
            self.core.tables.split_leaf(self.mem, page);
            return Ok(Outcome::Again);
        }
        if old.is_special() {
            drop(slot);
            let frame = self.mem.alloc_zeroed(FrameKind::Anon)?;
            return self.replace(vma, page, old, frame, true);
        }
        self.replace_by_copy(vma, page, slot, true)
    }

    /// Lets an entry map a copy of the page that it maps, and otherwise as [`replace`](Self::replace).
    #[inline(always)]
    pub(super) fn replace_by_copy(
        &self,
        vma: Ref<Vma>,
        page: usize,
        slot: PteGuard<'_>,
        written: bool,
    ) -> Result<Outcome, FaultError> {
        let old = slot.get();
        // The reference keeps the page as it is while it is copied.
        self.mem.get(old.pfn());
        drop(slot);
        let copy = self.copy_of(old.pfn());
        let outcome = copy.and_then(|frame| self.replace(vma, page, old, frame, written));
        self.mem.put(old.pfn());
        outcome
    }

    /// Lets the entry that maps `old` map `frame` instead, because it is to be `written` to, or
    /// only to have a page of its own.
    pub(super) fn replace(
        &self,
        vma: Ref<Vma>,
        page: usize,
        old: Entry,
        frame: OwnedFrame,
        written: bool,
    ) -> Result<Outcome, FaultError> {
        let mut gather = TlbGather::new(self.mem, &self.core.tables, Event::FlushCopy);
        // What the hardware may have set meanwhile does not count as a change.
        let hardware = EntryFlags::ACCESSED | EntryFlags::DIRTY;
        let mut entry = self.adopt(vma, page, &frame);
        if !written && !may_be_writable(vma.flags(), old) {
            entry = entry.without(EntryFlags::WRITE | EntryFlags::SOFT_DIRTY);
        }
        let slot = self.core.tables.lock_pte(self.mem, page);
        let Some(slot) = slot.filter(|slot| slot.get().without(hardware) == old.without(hardware)) else {
            self.disown(frame);
            return Ok(Outcome::Again);
        };
        slot.take();
        gather.changed(page);
        let replaced = forget_mapping(&self.mem.frames(), old).map(|(pfn, kind)| {
            gather.release(pfn);
            kind
        });
        // Until the flush, other CPUs may go on reading the old page; none can
        // have seen the new one written, as that takes the end of this fault.
        slot.set(entry);
        frame.into_raw();
        if replaced != Some(ResidentKind::Anon) {
            replaced.into_iter().for_each(|kind| self.core.resident.sub(kind, 1));
            self.count_resident(ResidentKind::Anon, 1);
        }
        drop(slot);
        Ok(Outcome::Done)
    }

    /// The object behind `page`, and its page there, with a reference.
    fn object_page(&self, vma: Ref<Vma>, page: usize) -> Result<(Ref<Object>, Pfn), FaultError> {
        let Some(object) = vma.object() else {
            return Err(FaultError::NotMapped);
        };
        match object.page(self.mem, vma.index_of(page), true) {
            Ok(Some(pfn)) => Ok((object, pfn)),
            Ok(None) | Err(ObjectError::BeyondEnd | ObjectError::TooLarge) => Err(FaultError::BeyondEnd),
            Err(ObjectError::OutOfMemory) => Err(FaultError::OutOfMemory),
        }
    }

    /// A new private frame with the contents of `pfn`, which the caller has a
    /// reference to.
    #[inline(always)]
    pub(super) fn copy_of(&self, pfn: Pfn) -> Result<OwnedFrame, FaultError> {
        let copy = self.mem.alloc(FrameKind::Anon, 0)?;
        // SAFETY: both are whole pages of the direct map; the new one is owned,
        // the old one is kept by the caller's reference. That others may write
        // to the old one meanwhile makes the copy's bytes theirs or the former ones.
        unsafe { copy_page(self.mem.page_ptr(pfn), self.mem.page_ptr(copy.pfn())) };
        Ok(copy)
    }
}
