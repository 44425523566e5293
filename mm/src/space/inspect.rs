//! What `/proc/PID/maps`, `smaps`, `status` and `statm` show.

use core::ops::AddAssign;

use super::{AddressSpace, SpaceStats, State};
use crate::object::ObjectName;
use crate::paging::{Entry, EntryFlags};
use crate::slab::Ref;
use crate::vma::Vma;
use crate::{FrameKind, PAGE_SHIFT, PAGE_SIZE, PMD_SIZE, PageRange, Platform, VmaFlags};

/// What a VMA is for, as far as the address space knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VmaKind {
    /// Nothing special.
    Plain,
    /// `[heap]`.
    Heap,
    /// `[stack]`.
    Stack,
}

/// A line of `/proc/PID/maps`.
#[derive(Clone, Copy, Debug)]
pub struct VmaInfo {
    /// First address, in bytes.
    pub start: usize,
    /// End address (exclusive), in bytes.
    pub end: usize,
    /// What it is and may become.
    pub flags: VmaFlags,
    /// Where in the object, in bytes; 0 without one.
    pub offset: u64,
    /// The object's number and name, if there is one.
    pub object: Option<(u64, ObjectName)>,
    /// What it is for.
    pub kind: VmaKind,
    /// Whether it has had private pages.
    pub faulted: bool,
}

impl VmaInfo {
    fn new(state: &State, vma: Ref<Vma>) -> VmaInfo {
        let object = vma.object();
        VmaInfo {
            start: vma.start(),
            end: vma.end(),
            flags: vma.flags(),
            offset: object.map_or(0, |_| (vma.pgoff() as u64) << PAGE_SHIFT),
            object: object.map(|object| (object.id(), object.name())),
            kind: kind_of(state, vma),
            faulted: vma.anon_vma().is_some(),
        }
    }
}

/// What the pages of a VMA amount to, as `/proc/PID/smaps` counts them. In bytes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct VmaPages {
    /// Mapped (`Rss`). Like Linux's, this leaves the shared page of zeroes out.
    pub resident: usize,
    /// The same, each page divided by the number of its mappings (`Pss`).
    pub proportional: usize,
    /// Mapped nowhere else, and not written to through this mapping.
    pub private_clean: usize,
    /// Mapped nowhere else, and written to through this mapping.
    pub private_dirty: usize,
    /// Mapped elsewhere, too, and not written to through this mapping.
    pub shared_clean: usize,
    /// Mapped elsewhere, too, and written to through this mapping.
    pub shared_dirty: usize,
    /// Accessed through this mapping (`Referenced`).
    pub referenced: usize,
    /// Private pages, which belong to no object (`Anonymous`).
    pub anonymous: usize,
    /// Those that have been merged with equal ones (`KSM`), pages of zeroes included.
    pub merged: usize,
    /// Of these, mapped by huge leaves (`AnonHugePages`).
    pub anonymous_huge: usize,
    /// In swap (`Swap`).
    pub swapped: usize,
}

impl AddAssign for VmaPages {
    fn add_assign(&mut self, other: VmaPages) {
        self.resident += other.resident;
        self.proportional += other.proportional;
        self.private_clean += other.private_clean;
        self.private_dirty += other.private_dirty;
        self.shared_clean += other.shared_clean;
        self.shared_dirty += other.shared_dirty;
        self.referenced += other.referenced;
        self.anonymous += other.anonymous;
        self.merged += other.merged;
        self.anonymous_huge += other.anonymous_huge;
        self.swapped += other.swapped;
    }
}

/// Heap and stack are told by where they are (Linux's `vma_is_initial_heap`
/// and `vma_is_initial_stack`).
fn kind_of(state: &State, vma: Ref<Vma>) -> VmaKind {
    if vma.object().is_some() {
        VmaKind::Plain
    } else if vma.start() < state.brk && vma.end() > state.brk_start {
        VmaKind::Heap
    } else if state.stack_top != 0 && vma.contains(state.stack_top - 1) {
        VmaKind::Stack
    } else {
        VmaKind::Plain
    }
}

impl<P: Platform> AddressSpace<'_, P> {
    /// The first VMA that ends after the byte address `addr`: with the end of
    /// the one before as `addr`, a reader goes through all of them without
    /// holding anything up between.
    pub fn next_vma(&self, addr: usize) -> Option<VmaInfo> {
        let state = self.mmap.read();
        state.vmas.find(addr).map(|vma| VmaInfo::new(&state, vma))
    }

    /// Calls `f` with every VMA, in ascending order, as of one moment. `f` must
    /// not touch user memory.
    pub fn for_each_vma(&self, mut f: impl FnMut(&VmaInfo)) {
        let state = self.mmap.read();
        for vma in state.vmas.iter() {
            f(&VmaInfo::new(&state, vma));
        }
    }

    /// Like [`for_each_vma`](Self::for_each_vma), with what is resident of each.
    pub fn for_each_vma_with_pages(&self, mut f: impl FnMut(&VmaInfo, &VmaPages)) {
        let state = self.mmap.read();
        for vma in state.vmas.iter() {
            f(&VmaInfo::new(&state, vma), &self.pages_in(vma.range()));
        }
    }

    /// Counts the pages that are mapped in `range`.
    fn pages_in(&self, range: PageRange) -> VmaPages {
        let mut pages = VmaPages::default();
        self.core.tables.visit_runs(self.mem, range, |run| {
            for (start, slot) in run.slots() {
                for addr in (start..start + slot.size()).step_by(PAGE_SIZE) {
                    self.count_page(slot.get().settled().pte_for(addr), &mut pages);
                }
            }
            if run.is_huge() {
                pages.anonymous_huge += PMD_SIZE;
            }
        });
        pages
    }

    fn count_page(&self, entry: Entry, pages: &mut VmaPages) {
        if entry.swap_slot().is_some() {
            pages.swapped += PAGE_SIZE;
        }
        if self.merged_kind(entry).is_some() {
            pages.merged += PAGE_SIZE;
        }
        if !entry.maps_page() || entry.is_special() {
            return;
        }
        let record = self.mem.frame(entry.pfn());
        let mappings = record.sharers().max(1) as usize;
        let flags = entry.flags();
        pages.resident += PAGE_SIZE;
        pages.proportional += PAGE_SIZE / mappings;
        if flags.contains(EntryFlags::ACCESSED) {
            pages.referenced += PAGE_SIZE;
        }
        if record.kind() == FrameKind::Anon {
            pages.anonymous += PAGE_SIZE;
        }
        *match (mappings, flags.contains(EntryFlags::DIRTY)) {
            (1, false) => &mut pages.private_clean,
            (1, true) => &mut pages.private_dirty,
            (_, false) => &mut pages.shared_clean,
            (_, true) => &mut pages.shared_dirty,
        } += PAGE_SIZE;
    }

    /// Sizes and counts.
    pub fn stats(&self) -> SpaceStats {
        let state = self.mmap.read();
        let totals = state.totals;
        SpaceStats {
            total_vm: totals.total,
            peak_vm: totals.peak,
            data_vm: totals.data,
            stack_vm: totals.stack,
            exec_vm: totals.exec,
            locked_vm: totals.locked,
            rss_anon: self.core.resident.anon(),
            rss_shmem: self.core.resident.object(),
            swapped: self.core.resident.swapped(),
            peak_rss: self.core.resident.peak(),
            tables: self.core.tables.table_pages(),
            vma_count: state.vmas.len(),
            brk_start: state.brk_start,
            brk: state.brk,
        }
    }
}
