//! Counts of what happens, to tell how well the locking and the TLB's work are spared.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::platform::MAX_CPUS;

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A fault was resolved, or refused, with no more than its VMA locked.
    FaultVmaLocked,
    /// A fault took the mmap lock: no VMA was found without it.
    FaultVmaNotFound,
    /// A fault took the mmap lock: a writer had the VMA.
    FaultVmaBusy,
    /// A fault took the mmap lock: the VMA had changed when it was locked.
    FaultVmaChanged,
    /// A fault took the mmap lock: the VMA needed its first anon_vma.
    FaultFirstWrite,
    /// A shootdown: pages or tables were taken out.
    FlushUnmap,
    /// A shootdown: permissions were taken away.
    FlushProtect,
    /// A shootdown: pages became read-only, to be shared with a child.
    FlushFork,
    /// A shootdown: a page was replaced by a copy.
    FlushCopy,
    /// A shootdown: pages or tables were moved.
    FlushMove,
    /// A shootdown: a huge page was split.
    FlushSplit,
    /// A shootdown: pages were collapsed into a huge one.
    FlushCollapse,
    /// A huge leaf was split into PTEs.
    HugeSplit,
    /// A fault was resolved with a huge page.
    HugeFault,
    /// A fault would have been, had there been one.
    HugeFallback,
    /// Pages were collapsed into a huge one.
    HugeCollapse,
    /// They would have been, had there been one.
    HugeCollapseFailed,
    /// `MREMAP_RELOCATE_ANON`: a mapping was relocated.
    Relocated,
    /// The same: a page in such a mapping.
    RelocatedPage,
    /// The same: a mapping became one with a neighbour without.
    RelocateMerged,
    /// The same: a mapping was not relocated, as it is not private anonymous memory. It
    /// moved as ever or, with the strict flag, did not.
    RelocateNotAnon,
    /// The same: it was not, as it is shared with another process through fork.
    RelocateForked,
    /// The same: it was not, as one of its pages is mapped elsewhere too.
    RelocateShared,
    /// The same: it was not, as one of its pages is pinned.
    RelocatePinned,
    /// The same: it was not, as one of its pages has been merged with others.
    RelocateMergedPage,
    /// A shootdown: a page was evicted.
    FlushReclaim,
    /// A shootdown: a page was merged with an equal one.
    FlushMerge,
    /// A page was loaded from swap.
    SwapIn,
    /// A page was stored in swap.
    SwapOut,
    /// A page that could be dropped was (`MADV_FREE`, `MAP_DROPPABLE`).
    LazyFree,
    /// A shootdown: a page was taken out of page tables, to be moved.
    FlushMigrate,
    /// A page was moved to another frame.
    Migrated,
    /// A page was to be moved to another frame, and could not.
    MigrateFailed,
    /// An allocation found no large enough block, and compacted.
    CompactStall,
    /// Then there was one.
    CompactSuccess,
    /// Then there was none either.
    CompactFail,
    /// Compaction looked whether a frame has a page to move.
    CompactMigrateScanned,
    /// Compaction looked whether a frame is free.
    CompactFreeScanned,
    /// Compaction took a page, or a free frame.
    CompactIsolated,
}

impl Event {
    /// All of them.
    pub const ALL: [Event; 39] = [
        Event::FaultVmaLocked,
        Event::FaultVmaNotFound,
        Event::FaultVmaBusy,
        Event::FaultVmaChanged,
        Event::FaultFirstWrite,
        Event::FlushUnmap,
        Event::FlushProtect,
        Event::FlushFork,
        Event::FlushCopy,
        Event::FlushMove,
        Event::FlushSplit,
        Event::FlushCollapse,
        Event::HugeSplit,
        Event::HugeFault,
        Event::HugeFallback,
        Event::HugeCollapse,
        Event::HugeCollapseFailed,
        Event::Relocated,
        Event::RelocatedPage,
        Event::RelocateMerged,
        Event::RelocateNotAnon,
        Event::RelocateForked,
        Event::RelocateShared,
        Event::RelocatePinned,
        Event::RelocateMergedPage,
        Event::FlushReclaim,
        Event::FlushMerge,
        Event::SwapIn,
        Event::SwapOut,
        Event::LazyFree,
        Event::FlushMigrate,
        Event::Migrated,
        Event::MigrateFailed,
        Event::CompactStall,
        Event::CompactSuccess,
        Event::CompactFail,
        Event::CompactMigrateScanned,
        Event::CompactFreeScanned,
        Event::CompactIsolated,
    ];

    /// A name, as in `/proc/vmstat`.
    pub fn name(self) -> &'static str {
        match self {
            Event::FaultVmaLocked => "vma_lock_success",
            Event::FaultVmaNotFound => "vma_lock_not_found",
            Event::FaultVmaBusy => "vma_lock_busy",
            Event::FaultVmaChanged => "vma_lock_changed",
            Event::FaultFirstWrite => "vma_lock_first_write",
            Event::FlushUnmap => "tlb_flush_unmap",
            Event::FlushProtect => "tlb_flush_protect",
            Event::FlushFork => "tlb_flush_fork",
            Event::FlushCopy => "tlb_flush_copy",
            Event::FlushMove => "tlb_flush_move",
            Event::FlushSplit => "tlb_flush_split",
            Event::FlushCollapse => "tlb_flush_collapse",
            Event::HugeSplit => "thp_split_pmd",
            Event::HugeFault => "thp_fault_alloc",
            Event::HugeFallback => "thp_fault_fallback",
            Event::HugeCollapse => "thp_collapse_alloc",
            Event::HugeCollapseFailed => "thp_collapse_alloc_failed",
            Event::Relocated => "mremap_relocated",
            Event::RelocatedPage => "mremap_relocated_pages",
            Event::RelocateMerged => "mremap_relocate_merged",
            Event::RelocateNotAnon => "mremap_relocate_fail_not_anon",
            Event::RelocateForked => "mremap_relocate_fail_forked",
            Event::RelocateShared => "mremap_relocate_fail_shared",
            Event::RelocatePinned => "mremap_relocate_fail_pinned",
            Event::RelocateMergedPage => "mremap_relocate_fail_ksm",
            Event::FlushReclaim => "tlb_flush_reclaim",
            Event::FlushMerge => "tlb_flush_merge",
            Event::SwapIn => "pswpin",
            Event::SwapOut => "pswpout",
            Event::LazyFree => "pglazyfreed",
            Event::FlushMigrate => "tlb_flush_migrate",
            Event::Migrated => "pgmigrate_success",
            Event::MigrateFailed => "pgmigrate_fail",
            Event::CompactStall => "compact_stall",
            Event::CompactSuccess => "compact_success",
            Event::CompactFail => "compact_fail",
            Event::CompactMigrateScanned => "compact_migrate_scanned",
            Event::CompactFreeScanned => "compact_free_scanned",
            Event::CompactIsolated => "compact_isolated",
        }
    }
}

/// The counts of one CPU, in cache lines that others only read.
#[repr(align(64))]
struct CpuEvents([AtomicU64; Event::ALL.len()]);

/// The counts of all CPUs.
pub(super) struct Events([CpuEvents; MAX_CPUS]);

impl Events {
    pub(super) const fn new() -> Events {
        Events([const { CpuEvents([const { AtomicU64::new(0) }; Event::ALL.len()]) }; MAX_CPUS])
    }

    #[inline(always)]
    pub(super) fn count(&self, cpu: usize, event: Event, times: u64) {
        let count = &self.0[cpu % MAX_CPUS].0[event as usize];
        count.fetch_add(times, Ordering::Relaxed);
    }

    pub(super) fn sum(&self, event: Event) -> u64 {
        self.0.iter().map(|cpu| cpu.0[event as usize].load(Ordering::Relaxed)).sum()
    }
}
