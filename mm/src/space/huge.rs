//! Huge pages: 2 MiB of private anonymous memory that one entry maps.
//!
//! A fault makes one where nothing is mapped yet in the 2 MiB around it, all of them are
//! the VMA's, and it [wants](AddressSpace::wants_huge) them. `MADV_COLLAPSE` makes one of
//! pages that are there already. What there is no large block of memory for stays small.
//!
//! The frames of a huge page are as independent of each other as any; see
//! [`paging::huge`](crate::paging). So it is split where an operation is about a part of
//! it, and by whoever takes single pages out: by a write to a page that is shared (which
//! copies only that), by reclaim, by munmap, mprotect, mremap and madvise. A VMA never
//! ends inside a huge page.

use core::sync::atomic::Ordering;

use super::account::ResidentKind;
use super::clear_refs::tracks_writes;
use super::fault::{Outcome, WRITTEN, page_protection};
use super::{AddressSpace, FaultAccess, FaultError, SpaceError, State};
use crate::HugePages;
use crate::frame::{clear_page, copy_page};
use crate::paging::{Entry, EntryFlags, HUGE_ORDER, HUGE_PAGES, Run};
use crate::rmap::{self, AnonVma};
use crate::slab::Ref;
use crate::vma::Vma;
use crate::{Event, FrameKind, OutOfMemory, PMD_SIZE, PageRange, Platform, VmaFlags};

/// How often a collapse that somebody was in the way of is tried again.
const RETRIES: usize = 8;

/// What came of one attempt to collapse 2 MiB.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attempt {
    /// There is a huge page now, or there was one.
    Done,
    /// The mapping takes none, or has no page there.
    Unsuitable,
    /// A page is in swap.
    Swapped,
    /// Somebody is using one of the pages.
    Busy,
}

impl<P: Platform> AddressSpace<'_, P> {
    /// Whether no huge pages are made, whatever is advised.
    pub fn small_pages_only(&self) -> bool {
        self.small_pages_only.load(Ordering::Relaxed)
    }

    /// Sets [`small_pages_only`](Self::small_pages_only) (`PR_SET_THP_DISABLE`). Children
    /// inherit it. Huge pages that are there stay.
    pub fn set_small_pages_only(&self, only: bool) {
        self.small_pages_only.store(only, Ordering::Relaxed);
    }

    /// Whether faults in `vma` are to make huge pages where there is room.
    fn wants_huge(&self, vma: Ref<Vma>) -> bool {
        let wanted = match self.mem.sysctl().huge_pages() {
            HugePages::Always => true,
            HugePages::Madvise => vma.flags().contains(VmaFlags::HUGEPAGE),
            HugePages::Never => false,
        };
        wanted && takes_huge(vma) && !self.small_pages_only()
    }

    /// A fault at `page`, for which there is not even a page table: maps 2 MiB at once, if
    /// the VMA wants that, has them, and there is such a block of memory. What it needs to
    /// have locked is what [`fault_in`](Self::fault_in) does.
    #[inline(always)]
    pub(super) fn fault_huge(
        &self,
        vma: Ref<Vma>,
        page: usize,
        access: FaultAccess,
    ) -> Result<Option<Outcome>, FaultError> {
        let start = page & !(PMD_SIZE - 1);
        if vma.start() > start || vma.end() - start < PMD_SIZE || !self.wants_huge(vma) {
            return Ok(None);
        }
        self.fault_in_huge(vma, start, access)
    }

    #[cold]
    fn fault_in_huge(&self, vma: Ref<Vma>, start: usize, access: FaultAccess) -> Result<Option<Outcome>, FaultError> {
        // A read, before anything was written: whose page it is could not be said.
        if vma.anon_vma().is_none() {
            return Ok(None);
        }
        let Ok((leaf, spare)) = self.alloc_huge(vma, access.write).and_then(|leaf| match self.mem.alloc_table() {
            Ok(spare) => Ok((leaf, spare)),
            Err(error) => {
                self.put_huge(leaf);
                Err(error)
            }
        }) else {
            self.mem.count(Event::HugeFallback);
            return Ok(None);
        };
        for pfn in leaf.pfns() {
            // SAFETY: the frame is new, so nothing else accesses it.
            unsafe { clear_page(self.mem.page_ptr(pfn)) };
        }
        self.adopt_huge(vma, start, leaf);
        match self.core.tables.install_huge(self.mem, start, leaf, spare) {
            Ok(true) => {
                self.count_resident(ResidentKind::Anon, HUGE_PAGES);
                self.mem.count(Event::HugeFault);
                Ok(Some(Outcome::Done))
            }
            other => {
                leaf.pfns().for_each(|pfn| _ = self.mem.frame(pfn).dec_mapcount());
                self.put_huge(leaf);
                other.map(|_| Some(Outcome::Again)).map_err(FaultError::from)
            }
        }
    }

    /// New frames, with undefined contents and a reference each, and the entry that is to
    /// map them in `vma`: writable if that is, unless nobody has `written` to them and a write
    /// is to be noticed.
    fn alloc_huge(&self, vma: Ref<Vma>, written: bool) -> Result<Entry, OutOfMemory> {
        let first = self.mem.alloc_singly(FrameKind::Anon, HUGE_ORDER)?;
        let flags = vma.flags();
        let writable = flags.contains(VmaFlags::WRITE) && (written || !tracks_writes(flags));
        let written = if writable { WRITTEN } else { EntryFlags::ACCESSED };
        Ok(Entry::leaf(first, page_protection(flags) | EntryFlags::HUGE | written))
    }

    /// Makes the frames that `leaf` is to map at `start` pages of the VMA.
    fn adopt_huge(&self, vma: Ref<Vma>, start: usize, leaf: Entry) {
        let mapping = vma.anon_vma().map_or(0, AnonVma::to_mapping);
        let index = vma.index_of(start);
        let frames = self.mem.frames();
        for (record, index) in frames.block(leaf.pfn(), HUGE_PAGES).iter().zip(index..) {
            record.set_mapping(mapping);
            record.set_index(index);
            record.inc_mapcount();
        }
    }

    /// Puts the references to frames that have not come to be mapped.
    fn put_huge(&self, leaf: Entry) {
        leaf.pfns().for_each(|pfn| self.mem.put(pfn));
    }

    /// Makes a huge page of each aligned 2 MiB in `addr..end` (`MADV_COLLAPSE`).
    ///
    /// # Errors
    ///
    /// As Linux's `madvise_collapse`: `Invalid` where no page is mapped, or memory that
    /// cannot be huge; `OutOfMemory`; `TryAgain` where a page is in use; `NotMapped` if
    /// there was a hole.
    pub(super) fn collapse(&self, addr: usize, end: usize) -> Result<(), SpaceError> {
        let mut result = Ok(());
        let mut at = addr;
        while at < end {
            let (start, stop, fits) = {
                let state = self.mmap.read();
                let Some(vma) = state.vmas.find(at).filter(|vma| vma.start() < end) else {
                    return Err(SpaceError::NotMapped);
                };
                let fits = takes_huge(vma) && has_room(vma) && !self.small_pages_only();
                (vma.start().max(at), vma.end().min(end), fits)
            };
            if start > at {
                result = Err(SpaceError::NotMapped);
            }
            if !fits {
                return Err(SpaceError::Invalid);
            }
            self.collapse_part(PageRange::new(start, stop).ok_or(SpaceError::Invalid)?)?;
            at = stop;
        }
        result
    }

    fn collapse_part(&self, range: PageRange) -> Result<(), SpaceError> {
        let mut result = Ok(());
        let first = range.start().next_multiple_of(PMD_SIZE);
        for start in (first..range.end()).step_by(PMD_SIZE).filter(|start| range.end() - start >= PMD_SIZE) {
            // The last one that failed tells why.
            match self.collapse_one(start) {
                Err(SpaceError::OutOfMemory) => return Err(SpaceError::OutOfMemory),
                one => result = one.and(result),
            }
        }
        result
    }

    fn collapse_one(&self, start: usize) -> Result<(), SpaceError> {
        let range = PageRange::from_len(start, PMD_SIZE).ok_or(SpaceError::Invalid)?;
        for _ in 0..RETRIES {
            match self.mem.reclaiming(|| self.try_collapse(start))? {
                Attempt::Done => return Ok(()),
                Attempt::Unsuitable => return Err(SpaceError::Invalid),
                Attempt::Swapped => self.populate_swapped(range)?,
                Attempt::Busy => self.mem.platform().relax(),
            }
        }
        Err(SpaceError::TryAgain)
    }

    fn try_collapse(&self, start: usize) -> Result<Attempt, SpaceError> {
        let mut state = self.mmap.write();
        let Some(vma) = find_huge(&state, start) else { return Ok(Attempt::Unsuitable) };
        match self.core.tables.lookup(self.mem, start) {
            Some(entry) if entry.is_huge() => return Ok(Attempt::Done),
            _ => {}
        }
        rmap::prepare(self.mem, vma)?;
        let leaf = match self.alloc_huge(vma, true) {
            // As on Linux: one of its parts may be.
            Ok(leaf) => leaf.with(EntryFlags::SOFT_DIRTY),
            Err(error) => {
                self.mem.count(Event::HugeCollapseFailed);
                return Err(error.into());
            }
        };
        // Nobody is to find a page that is being copied: no fault, and no walk from it.
        state.vmas.lock_vma(vma);
        let root = vma.anon_vma().map(AnonVma::root);
        let _walkers_out = root.as_ref().map(|root| root.lock());
        let mut obstacle = Attempt::Unsuitable;
        let collapsed = self.core.tables.collapse(self.mem, start, |run| {
            if let Some(found) = run.entries().find_map(|entry| self.obstacle_to_huge(entry)) {
                obstacle = found;
                return None;
            }
            self.copy_to_huge(run, leaf);
            self.adopt_huge(vma, start, leaf);
            Some(leaf)
        });
        if !collapsed {
            self.put_huge(leaf);
            return Ok(obstacle);
        }
        self.mem.count(Event::HugeCollapse);
        Ok(Attempt::Done)
    }

    /// What about an entry stands in the way of its page becoming a part of a huge one.
    /// No TLB has the page, and nobody else can come to have it.
    fn obstacle_to_huge(&self, entry: Entry) -> Option<Attempt> {
        if !entry.maps_page() {
            return (!entry.is_empty()).then_some(Attempt::Swapped);
        }
        if entry.is_special() {
            return None;
        }
        let record = self.mem.frame(entry.pfn());
        // Who has a reference may be writing by it; but nobody writes to what is shared.
        let own = record.mapcount() + u32::from(record.is_in_swap_cache());
        let is_used = record.mapcount() == 1 && record.refcount() != own;
        is_used.then_some(Attempt::Busy)
    }

    /// Copies the pages of a whole table to the frames of `leaf`, and lets go of them.
    fn copy_to_huge(&self, run: &Run<'_>, leaf: Entry) {
        for (entry, to) in run.entries().zip(leaf.pfns()) {
            let to = self.mem.page_ptr(to);
            if entry.is_counted() {
                // SAFETY: both are whole pages of the direct map, the target is new, and the
                // source is kept by the entry's reference.
                unsafe { copy_page(self.mem.page_ptr(entry.pfn()), to) };
            } else {
                // SAFETY: the frame is new, so nothing else accesses it.
                unsafe { clear_page(to) };
            }
        }
        let mut gone = 0;
        for (_, slot) in run.slots() {
            let entry = slot.take();
            if entry.is_counted() {
                self.mem.frame(entry.pfn()).dec_mapcount();
                self.mem.put(entry.pfn());
                gone += 1;
            }
        }
        self.count_resident(ResidentKind::Anon, HUGE_PAGES);
        self.core.resident.sub(ResidentKind::Anon, gone);
    }
}

/// Whether a VMA's memory can be huge: private and anonymous, and not a stack that grows.
fn takes_huge(vma: Ref<Vma>) -> bool {
    let not = VmaFlags::SHARED | VmaFlags::SPECIAL | VmaFlags::GROWSDOWN | VmaFlags::NOHUGEPAGE;
    vma.object().is_none() && !vma.flags().intersects(not)
}

/// Whether a VMA has an aligned 2 MiB.
fn has_room(vma: Ref<Vma>) -> bool {
    vma.start().next_multiple_of(PMD_SIZE) + PMD_SIZE <= vma.end()
}

/// The VMA that has all of the 2 MiB from `start` on, if they can be a huge page.
fn find_huge(state: &State, start: usize) -> Option<Ref<Vma>> {
    state.vmas.lookup(start).filter(|&vma| vma.end() - start >= PMD_SIZE && takes_huge(vma))
}
