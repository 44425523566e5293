//! What `/proc/PID/maps`, `status` and `statm` show.

use super::{AddressSpace, SpaceStats, State};
use crate::object::ObjectName;
use crate::slab::Ref;
use crate::vma::Vma;
use crate::{PAGE_SHIFT, Platform, VmaFlags};

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
            rss_anon: self.resident.anon(),
            rss_shmem: self.resident.object(),
            peak_rss: self.resident.peak(),
            tables: self.tables.table_pages(),
            vma_count: state.vmas.len(),
            brk_start: state.brk_start,
            brk: state.brk,
        }
    }
}
