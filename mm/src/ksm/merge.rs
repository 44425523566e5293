//! Having a page's entries map a merged page with the same contents.
//!
//! 1. The page's lock keeps out who would take it to swap, and a reference keeps the frame. As long as
//!    there is that reference, a page that is shared is not written to in place.
//! 2. All its entries are made read-only, and the TLBs flushed. A huge page that it is a part of
//!    is split.
//! 3. Each entry is locked. If it is read-only, TLBs are flushed once more: it may have been made
//!    writable, and read-only again. A page that is [exclusive](crate::Frame::is_exclusive) has no
//!    other entry, so nothing can make it writable now.
//! 4. If nobody but its entries and the caller has a reference to the page, nobody can write to it now.
//!    Who got one to write by, through an entry that allowed that, has it still, or has written. So
//!    the two pages are compared.
//! 5. If they are equal the entry maps the merged page instead, with the TLBs flushed before the
//!    table's lock is released.

use super::KsmNode;
use super::tree::MergedPage;
use crate::frame::Frame;
use crate::paging::{Entry, EntryFlags, Slot};
use crate::rmap::AnonVma;
use crate::slab::Ref;
use crate::space::{ResidentKind, SpaceCore};
use crate::sync::{SpinLockGuard, rank};
use crate::{Event, FrameKind, Memory, OutOfMemory, PAGE_SIZE, Pfn, Platform, VmaFlags};

/// A private page that may be merged, locked, with a reference.
pub(super) struct Candidate<'m, P: Platform> {
    mem: &'m Memory<P>,
    pub(super) pfn: Pfn,
    pub(super) record: &'m Frame,
    lock: Option<SpinLockGuard<'m, (), { rank::FOLIO }>>,
}

/// What is mapped instead of a page.
#[derive(Clone, Copy)]
enum Substitute {
    /// A merged page.
    Merged(Pfn),
    /// The page of zeroes.
    Zero(Pfn),
}

impl<'m, P: Platform> Candidate<'m, P> {
    /// The page in the frame `pfn`, if it is a private one, nobody has its lock, and it is in no swap slot.
    pub(super) fn new(mem: &'m Memory<P>, pfn: Pfn) -> Option<Candidate<'m, P>> {
        let record = mem.frame(pfn);
        if !record.try_get() {
            return None;
        }
        let mut candidate = Candidate { mem, pfn, record, lock: None };
        candidate.lock = record.try_folio_lock();
        let is_private = record.kind() == FrameKind::Anon && !record.is_merged() && !record.is_in_swap_cache();
        (candidate.lock.is_some() && is_private).then_some(candidate)
    }

    /// Whether a VMA maps the page whose pages may be merged.
    pub(super) fn is_mergeable(&self) -> bool {
        let mut found = false;
        AnonVma::walk_page(self.record, |vma, addr| {
            if vma.flags().contains(VmaFlags::MERGEABLE) {
                self.mem.with_mapping(vma, addr, self.pfn, |_, _| found = true);
            }
            !found
        });
        found
    }

    /// Has all entries of the page in mergeable memory map `merged`, the page of `node`, if that is
    /// its equal. Returns whether any does.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`]; nothing has changed.
    pub(super) fn merge(&self, node: Ref<KsmNode>, merged: &MergedPage<'_, P>) -> Result<bool, OutOfMemory> {
        let arena = &self.mem.arenas.ksm_origins;
        let mut spare = Some(arena.alloc(self.mem)?);
        let done = self.replace_by(Substitute::Merged(merged.pfn), |root| {
            if let Some(origin) = spare.take() {
                spare = node.add_origin((root, self.record.index()), origin).err();
            }
        });
        if let Some(unused) = spare {
            arena.free(self.mem, unused);
        }
        Ok(done)
    }

    /// Has all entries of the page in mergeable memory map the page of zeroes, if that is its equal.
    pub(super) fn merge_with_zeroes(&self) -> bool {
        self.replace_by(Substitute::Zero(self.mem.zero_page()), |_| {})
    }

    /// Steps 2 to 5. Calls `found_by` with the root of the family before an entry changes.
    fn replace_by(&self, substitute: Substitute, mut found_by: impl FnMut(Ref<AnonVma>)) -> bool {
        self.write_protect();
        let (Substitute::Merged(other) | Substitute::Zero(other)) = substitute;
        let mut done = false;
        AnonVma::walk_page(self.record, |vma, addr| {
            let takes_zeroes = vma.object().is_none() || matches!(substitute, Substitute::Merged(_));
            self.mem.with_mapping(vma, addr, self.pfn, |slot, core| {
                let entry = slot.get();
                let Some(own) = vma.anon_vma() else { return };
                if entry.is_writable() || entry.is_huge() || !takes_zeroes {
                    return;
                }
                // Once more, now that the entry stays as it is: it may have been made writable, and
                // read-only again.
                self.flush(core, addr);
                let untouched = self.has_no_other_users() && self.mem.pages_equal(self.pfn, other);
                if untouched && vma.flags().contains(VmaFlags::MERGEABLE) {
                    found_by(AnonVma::root(own));
                    self.exchange(slot, core, addr, substitute);
                    done = true;
                }
            });
            self.record.mapcount() != 0
        });
        done
    }

    /// Step 2.
    fn write_protect(&self) {
        AnonVma::walk_page(self.record, |vma, addr| {
            SpaceCore::of(&vma).tables.split_leaf(self.mem, addr);
            self.mem.with_mapping(vma, addr, self.pfn, |slot, core| {
                if !slot.get().is_huge() {
                    slot.update(|entry| entry.without(EntryFlags::WRITE));
                    // Whatever the entry was: who has protected it may not have flushed yet.
                    self.flush(core, addr);
                }
            });
            true
        });
    }

    /// No TLB lets anybody write to the page by this entry, which is locked.
    fn flush(&self, core: Ref<SpaceCore>, addr: usize) {
        core.tables.flush(self.mem, addr, addr + PAGE_SIZE, Event::FlushMerge);
    }

    /// Whether nobody but its entries and this have references to the page.
    fn has_no_other_users(&self) -> bool {
        let mapped = self.record.mapcount();
        // An entry that goes in between is seen by one of the two.
        self.record.refcount() == mapped + 1 && self.record.mapcount() == mapped
    }

    /// Step 5, for one entry, which is locked.
    fn exchange(&self, slot: &Slot<'_>, core: Ref<SpaceCore>, addr: usize, substitute: Substitute) {
        let instead = |entry: Entry| match substitute {
            Substitute::Merged(pfn) => entry.with_pfn(pfn),
            // Dirty tells it from one that was never written to.
            Substitute::Zero(pfn) => entry.with_pfn(pfn).with(EntryFlags::SPECIAL | EntryFlags::DIRTY),
        };
        match substitute {
            Substitute::Merged(pfn) => {
                let merged = self.mem.frame(pfn);
                merged.get();
                merged.inc_mapcount();
            }
            Substitute::Zero(_) => core.resident.sub(ResidentKind::Anon, 1),
        }
        slot.update(instead);
        core.tables.flush(self.mem, addr, addr + PAGE_SIZE, Event::FlushMerge);
        self.record.dec_mapcount();
        let last = self.record.release();
        debug_assert!(!last, "merged without a reference");
    }
}

impl<P: Platform> Drop for Candidate<'_, P> {
    fn drop(&mut self) {
        drop(self.lock.take());
        self.mem.put(self.pfn);
    }
}
