//! What has been used, and what has been written to, since somebody last asked: what
//! `/proc/PID/clear_refs` does, and how the latter is found out (Linux's soft-dirty pages).
//!
//! A page is soft-dirty if its entry is ([`EntryFlags::SOFT_DIRTY`]), wherever the page is: in memory,
//! in swap, or just being moved. All pages of a VMA are that has [`VmaFlags::SOFTDIRTY`], also those
//! that are nowhere yet. New VMAs have it, and those that merge with such a one; so as long as nobody
//! asks for pages that have been written to, nothing else matters, and none of it costs anything.
//!
//! Clearing takes both away, and with them the right to write from each entry: the next write
//! faults, and finds that it needs no more than that.
//!
//! # What always holds
//!
//! 1. An entry that allows writing is soft-dirty. So no write goes past unnoticed, whichever
//!    way it came to be allowed.
//! 2. Without a write no entry of a VMA that is not `SOFTDIRTY` becomes soft-dirty, but when it
//!    moves to another address or becomes part of a huge page. So who gives access back (mprotect,
//!    swap-in, unmerging) leaves the right to write to a fault, unless the page
//!    [may have it](may_be_writable).
//! 3. When clearing is over no TLB allows a write to a page that is not soft-dirty.
//!
//! Faults may go on meanwhile in VMAs that were not `SOFTDIRTY`: an entry that one of them
//! makes writable is soft-dirty, before it is cleared or after.

use super::{AddressSpace, State};
use crate::paging::{Entry, EntryFlags, Slot, TlbGather};
use crate::{Event, PageRange, Platform, VmaFlags};

/// What is to be as if nothing had happened yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClearRefs {
    /// Uses of pages.
    All,
    /// Those in private anonymous memory.
    Anonymous,
    /// Those in memory that maps an object.
    Mapped,
    /// Writes to pages: none is soft-dirty.
    SoftDirty,
    /// How much was resident: the most that ever was is what is now.
    PeakResident,
}

/// Whether writes to pages of such a VMA are to be noticed, as far as a page has not been written to yet.
#[inline(always)]
pub(super) fn tracks_writes(flags: VmaFlags) -> bool {
    !flags.contains(VmaFlags::SOFTDIRTY)
}

/// Whether the page of `entry`, in such a VMA, may be made writable without a write.
#[inline(always)]
pub(super) fn may_be_writable(flags: VmaFlags, entry: Entry) -> bool {
    entry.is_soft_dirty() || !tracks_writes(flags)
}

impl<P: Platform> AddressSpace<'_, P> {
    /// Forgets what has happened, for what is to be found out from now on.
    pub fn clear_refs(&self, what: ClearRefs) {
        match what {
            ClearRefs::All => self.clear_accessed(|_| true),
            ClearRefs::Anonymous => self.clear_accessed(|is_object| !is_object),
            ClearRefs::Mapped => self.clear_accessed(|is_object| is_object),
            ClearRefs::SoftDirty => self.clear_soft_dirty(&mut self.mmap.write()),
            ClearRefs::PeakResident => self.core.resident.reset_peak(),
        }
    }

    /// No page of the VMAs that `concerns` says of, told whether they map objects, has been used.
    /// As on Linux, TLBs that know better need not tell.
    fn clear_accessed(&self, concerns: impl Fn(bool) -> bool) {
        let state = self.mmap.read();
        for vma in state.vmas.iter().filter(|vma| concerns(vma.object().is_some())) {
            self.core.tables.visit_runs(self.mem, vma.range(), |run| {
                for (_, slot) in run.slots().filter(|(_, slot)| slot.get().maps_page()) {
                    slot.update(|entry| entry.without(EntryFlags::ACCESSED));
                }
            });
        }
    }

    /// No page has been written to.
    fn clear_soft_dirty(&self, state: &mut State) {
        // Flushed when this goes: before the lock does.
        let mut gather = TlbGather::new(self.mem, &self.core.tables, Event::FlushProtect);
        let mut next = state.vmas.find(0);
        while let Some(vma) = next {
            next = vma.next();
            let flags = vma.flags();
            if !tracks_writes(flags) {
                state.vmas.set_flags(vma, flags - VmaFlags::SOFTDIRTY);
            }
            self.core.tables.visit_runs(self.mem, vma.range(), |run| {
                let clear = |stale, (_, slot): (usize, Slot<'_>)| stale | self.clear_entry(&slot);
                if run.slots().fold(false, clear) {
                    gather.changed_range(run.start(), run.end());
                }
            });
        }
    }

    /// The page of an entry, which is locked, has not been written to. Says whether TLBs may allow
    /// more than the entry does now.
    fn clear_entry(&self, slot: &Slot<'_>) -> bool {
        let entry = slot.get();
        if entry.is_soft_dirty() && !self.is_pinned(entry) {
            let old = slot.update(|entry| entry.without(EntryFlags::WRITE | EntryFlags::SOFT_DIRTY));
            return old.is_present() && old.is_writable();
        }
        false
    }

    /// Whether somebody may be writing to a page who does not do that by its entry.
    fn is_pinned(&self, entry: Entry) -> bool {
        self.mem.has_pinned() && entry.is_counted() && entry.pfns().any(|pfn| self.mem.frame(pfn).pins() != 0)
    }

    /// So many bytes from `addr` on have just come there from another address: whoever knew what
    /// was at either of the two does not know it any more.
    #[cold]
    pub(super) fn mark_moved(&self, addr: usize, len: usize) {
        let Some(range) = PageRange::from_len(addr, len) else { return };
        self.core.tables.visit_runs(self.mem, range, |run| {
            for (_, slot) in run.slots() {
                slot.update(|entry| entry.with(EntryFlags::SOFT_DIRTY));
            }
        });
    }
}
