//! The parts of the crate that `tests/loom` runs by themselves.

use crate::frame::{Frame, FrameKind};
use crate::paging::{CpuTlb, PageTables, RootLoad};
use crate::{CpuSet, Pfn, TlbFlush};

pub use crate::sync::atomic;
pub use crate::sync::vma_lock;

/// What there is beside the page tables of an address space: which CPUs use them, and how often
/// they were flushed.
pub struct Users(PageTables);

impl Users {
    /// Those of an address space that no CPU uses.
    pub fn new() -> Users {
        let tables = PageTables::default();
        tables.start(Pfn(1), 1);
        Users(tables)
    }

    /// A CPU is about to use the address space.
    pub fn enter(&self, cpu: usize, tlb: &CpuTlb) -> RootLoad {
        self.0.enter(cpu, tlb)
    }

    /// A CPU uses it no more.
    pub fn leave(&self, cpu: usize, tlb: &CpuTlb) {
        self.0.leave(cpu, tlb);
    }

    /// A page is to be flushed: by which CPUs, and what they have to know.
    pub fn next_flush(&self, start: usize, end: usize) -> (CpuSet, TlbFlush) {
        self.0.next_flush(start, end, false)
    }

    /// See [`PageTables::mark_stale`].
    pub fn mark_stale(&self) {
        self.0.mark_stale();
    }

    /// See [`PageTables::flush_stale`].
    pub fn flush_stale_by(&self, flush_all: impl FnOnce()) {
        if self.0.is_stale() {
            self.0.settle_stale(flush_all);
        }
    }
}

impl Default for Users {
    fn default() -> Users {
        Users::new()
    }
}

/// The record of a frame.
pub struct Record(Frame);

impl Record {
    /// That of one that has just been taken into use.
    pub fn new(kind: FrameKind) -> Record {
        let record = Record(Frame::new());
        record.claim(kind);
        record
    }

    /// It is free, and taken into use.
    pub fn claim(&self, kind: FrameKind) {
        self.0.claim(kind, 0);
    }

    /// See [`Frame::kind`].
    pub fn kind(&self) -> FrameKind {
        self.0.kind()
    }

    /// Adds a reference, for who has one.
    pub fn get(&self) {
        self.0.get();
    }

    /// Adds a reference if there is one.
    pub fn try_get(&self) -> bool {
        self.0.try_get()
    }

    /// Takes one away, and says whether it was the last.
    pub fn release(&self) -> bool {
        self.0.release()
    }

    /// Makes it a page of `mapping`, as the first fault does, and counts that.
    pub fn map(&self, mapping: usize, index: usize) {
        self.0.map_first(mapping, index);
    }

    /// Whose page it is, and which one, if it is mapped.
    pub fn mapped_as(&self) -> Option<(usize, usize)> {
        (self.0.mapcount() != 0).then(|| (self.0.mapping(), self.0.index()))
    }
}
