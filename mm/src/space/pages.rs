//! Which pages are mapped, and how: what `/proc/PID/pagemap` shows.

use super::AddressSpace;
use crate::{FrameKind, PAGE_SIZE, PageRange, Pfn, Platform};

/// A page that the page tables map, accessible or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MappedPage {
    /// Its address, in bytes.
    pub addr: usize,
    /// Its frame.
    pub pfn: Pfn,
    /// What the frame is used for: [`FrameKind::Anon`], [`FrameKind::Object`], or
    /// [`FrameKind::Zero`] for the shared page of zeroes, which does not count as resident.
    pub kind: FrameKind,
    /// How many page-table entries map the frame, this one included; 0 for the zero page.
    pub sharers: usize,
}

impl<P: Platform> AddressSpace<'_, P> {
    /// Calls `f` with the address, in bytes, of every page of `range` that is in swap, and
    /// the number of its slot, in ascending order. `f` runs as that of
    /// [`for_each_page`](Self::for_each_page) does.
    pub fn for_each_swapped(&self, range: PageRange, mut f: impl FnMut(usize, u32)) {
        let _state = self.mmap.read();
        self.core.tables.visit_runs(self.mem, range, |run| {
            let entries = run.slots().map(|(addr, slot)| (addr, slot.get()));
            entries.for_each(|(addr, entry)| entry.swap_slot().into_iter().for_each(|slot| f(addr, slot)));
        });
    }

    /// Calls `f` with every page mapped in `range`, in ascending order. Costs nothing
    /// for what has no page tables. `f` runs with a page table locked: it must not
    /// touch user memory, nor block.
    pub fn for_each_page(&self, range: PageRange, mut f: impl FnMut(&MappedPage)) {
        let _state = self.mmap.read();
        self.core.tables.visit_runs(self.mem, range, |run| {
            for (addr, slot) in run.slots() {
                let entry = slot.get();
                if !entry.maps_page() {
                    continue;
                }
                // A huge leaf may begin before the range, and end after it.
                let first = range.start().saturating_sub(addr);
                for offset in (first..slot.size().min(range.end() - addr)).step_by(PAGE_SIZE) {
                    let pfn = Pfn(entry.pfn().0 + offset / PAGE_SIZE);
                    let (kind, sharers) = if entry.is_counted() {
                        let record = self.mem.frame(pfn);
                        (record.kind(), record.mapcount() as usize)
                    } else {
                        (FrameKind::Zero, 0)
                    };
                    f(&MappedPage { addr: addr + offset, pfn, kind, sharers });
                }
            }
        });
    }
}
