//! Which pages are mapped, and how: what `/proc/PID/pagemap` shows.

use super::AddressSpace;
use crate::{FrameKind, PAGE_SIZE, PageRange, Pfn, Platform, VmaFlags};

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
    /// Whether it has been written to since [`ClearRefs::SoftDirty`](super::ClearRefs), as far as
    /// its own entry tells; see [`PageState::SoftDirty`].
    pub soft_dirty: bool,
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
        /// As for a page that is mapped.
        soft_dirty: bool,
    },
    /// These are pages of a mapping that counts as written to as a whole, be they in memory, in
    /// swap or nowhere yet: it is new. Comes before what there is of them.
    SoftDirty(PageRange),
}

impl<P: Platform> AddressSpace<'_, P> {
    /// Calls `f` with every page mapped in `range`, in ascending order; otherwise as
    /// [`for_each_page_state`](Self::for_each_page_state).
    pub fn for_each_page(&self, range: PageRange, mut f: impl FnMut(&MappedPage)) {
        self.for_each_page_state(range, |state| match state {
            PageState::Mapped(page) => f(page),
            PageState::Swapped { .. } | PageState::SoftDirty(_) => {}
        });
    }

    /// Calls `f` with every page in `range` that is mapped or in swap, and with the mappings that
    /// are soft-dirty, in ascending order. Costs nothing for what has no page tables. `f` runs with a page table locked: it
    /// must not touch user memory, nor block.
    pub fn for_each_page_state(&self, range: PageRange, mut f: impl FnMut(&PageState)) {
        let state = self.mmap.read();
        for vma in state.vmas.overlapping(range.start(), range.end()) {
            let part = vma.range().intersect(range);
            if vma.flags().contains(VmaFlags::SOFTDIRTY) {
                f(&PageState::SoftDirty(part));
            }
            self.visit_page_states(part, &mut f);
        }
    }

    fn visit_page_states(&self, range: PageRange, f: &mut impl FnMut(&PageState)) {
        self.core.tables.visit_runs(self.mem, range, |run| {
            for (addr, slot) in run.slots() {
                let entry = slot.get().settled();
                let soft_dirty = entry.is_soft_dirty();
                if let Some(slot) = entry.swap_slot() {
                    f(&PageState::Swapped { addr, slot, soft_dirty });
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
                    f(&PageState::Mapped(MappedPage { addr: addr + offset, pfn, kind, sharers, soft_dirty }));
                }
            }
        });
    }
}
