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

/// Where a page is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageState {
    /// In memory, and mapped.
    Mapped(MappedPage),
    /// In swap.
    Swapped {
        /// Its address, in bytes.
        addr: usize,
        /// The number of its slot.
        slot: u32,
    },
}

impl<P: Platform> AddressSpace<'_, P> {
    /// Calls `f` with every page mapped in `range`, in ascending order; otherwise as
    /// [`for_each_page_state`](Self::for_each_page_state).
    pub fn for_each_page(&self, range: PageRange, mut f: impl FnMut(&MappedPage)) {
        self.for_each_page_state(range, |state| match state {
            PageState::Mapped(page) => f(page),
            PageState::Swapped { .. } => {}
        });
    }

    /// Calls `f` with every page in `range` that is mapped or in swap, in ascending order.
    /// Costs nothing for what has no page tables. `f` runs with a page table locked: it
    /// must not touch user memory, nor block.
    pub fn for_each_page_state(&self, range: PageRange, mut f: impl FnMut(&PageState)) {
        let state = self.mmap.read();
        for vma in state.vmas.overlapping(range.start(), range.end()) {
            self.visit_page_states(vma.range().intersect(range), &mut f);
        }
    }

    fn visit_page_states(&self, range: PageRange, f: &mut impl FnMut(&PageState)) {
        self.core.tables.visit_runs(self.mem, range, |run| {
            for (addr, slot) in run.slots() {
                let entry = slot.get().settled();
                if let Some(slot) = entry.swap_slot() {
                    f(&PageState::Swapped { addr, slot });
                }
                if !entry.maps_page() {
                    continue;
                }
                // A huge leaf may begin before the range, and end after it.
                let first = range.start().saturating_sub(addr);
                for offset in (first..slot.size().min(range.end() - addr)).step_by(PAGE_SIZE) {
                    let pfn = Pfn(entry.pfn().0 + offset / PAGE_SIZE);
                    let (kind, sharers) = if entry.is_counted() {
                        let record = self.mem.frame(pfn);
                        (record.kind(), record.sharers() as usize)
                    } else {
                        (FrameKind::Zero, 0)
                    };
                    f(&PageState::Mapped(MappedPage { addr: addr + offset, pfn, kind, sharers }));
                }
            }
        });
    }
}
