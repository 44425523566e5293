//! Advice about pages that are not needed soon, or not at all: `MADV_COLD`,
//! `MADV_PAGEOUT`, `MADV_FREE`.
//!
//! As on Linux, what is mapped elsewhere too is left alone: others may need it.

use super::AddressSpace;
use crate::paging::{Entry, EntryFlags, TlbGather};
use crate::reclaim::{Evictions, Urgency};
use crate::{Event, Frame, PAGE_SIZE, PageRange, Pfn, Platform};

/// Pages that are evicted between two looks at the page tables.
const BATCH: usize = 32;

impl<P: Platform> AddressSpace<'_, P> {
    /// The pages of `range` have not been used lately: reclaim takes them first.
    pub(super) fn make_cold(&self, range: PageRange) {
        self.core.tables.split_ends(self.mem, range);
        self.core.tables.visit_runs(self.mem, range, |run| {
            for (_, slot) in run.slots().filter(|(_, slot)| self.is_own(slot.get())) {
                slot.update(|entry| entry.without(EntryFlags::ACCESSED));
            }
        });
    }

    /// Evicts the pages of `range`, as far as there is room in swap.
    pub(super) fn page_out(&self, range: PageRange) {
        self.core.tables.split_all(self.mem, range);
        let mut evictions = Evictions::new(self.mem);
        let mut at = range.start();
        while let Some(part) = PageRange::new(at, range.end().min(at.saturating_add(BATCH * PAGE_SIZE)))
            && !part.is_empty()
        {
            let (mut pages, mut count) = ([Pfn(0); BATCH], 0);
            self.core.tables.visit_runs(self.mem, part, |run| {
                let own = run.slots().map(|(_, slot)| slot.get()).filter(|&entry| self.is_own(entry));
                for (place, entry) in pages.iter_mut().skip(count).zip(own) {
                    *place = entry.pfn();
                    count += 1;
                }
            });
            // Meanwhile it may have become another page, which is to be evicted as soon
            // as any.
            for &pfn in pages.iter().take(count) {
                if evictions.add(pfn, Urgency::Evict).is_err() {
                    return;
                }
            }
            at = part.end();
        }
    }

    /// The contents of the pages in `range` do not matter until they are written to:
    /// reclaim may drop them.
    pub(super) fn free_lazily(&self, range: PageRange) {
        self.core.tables.split_all(self.mem, range);
        let mut gather = TlbGather::new(self.mem, &self.core.tables, Event::FlushReclaim);
        self.core.tables.visit_runs(self.mem, range, |run| {
            for (addr, slot) in run.slots() {
                let entry = slot.get();
                if entry.swap_slot().is_some() {
                    self.core.forget_absent(self.mem, slot.take());
                } else if self.is_own(entry) {
                    let old = slot.update(|entry| entry.without(EntryFlags::DIRTY | EntryFlags::ACCESSED));
                    // A TLB that knows of a write does not tell of the next.
                    if old.flags().contains(EntryFlags::DIRTY) {
                        gather.changed(addr);
                    }
                    self.mem.frame(entry.pfn()).set_lazy_free(true);
                }
            }
        });
    }

    /// Whether an entry maps a private page that is mapped nowhere else.
    fn is_own(&self, entry: Entry) -> bool {
        let is_own = |record: &Frame| record.is_ordinary_anon() && record.mapcount() == 1;
        entry.is_counted() && entry.pfns().all(|pfn| is_own(self.mem.frame(pfn)))
    }
}
