//! The settings that Linux has under `/proc/sys/vm`, `/proc/sys/kernel` and `/sys/kernel/mm`.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use super::folios::{Defrag, FOLIO_ORDERS, FolioPolicy, FolioSettings, HugePages};

/// What is done about promising more memory than there is (`vm.overcommit_memory`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Overcommit {
    /// 0: refuse a single request for more than all of memory.
    Heuristic,
    /// 1: refuse nothing.
    Always,
    /// 2: refuse what goes over the commit limit.
    Never,
}

/// The settings, with Linux's defaults. Any of them may change at any time.
#[derive(Debug)]
pub struct Sysctl {
    max_map_count: AtomicUsize,
    overcommit_memory: AtomicU32,
    overcommit_ratio: AtomicUsize,
    mmap_min_addr: AtomicUsize,
    randomize_va_space: AtomicU32,
    folios: FolioSettings,
    ksm_use_zero_pages: AtomicBool,
    ksm_max_page_sharing: AtomicUsize,
}

impl Sysctl {
    pub(super) const fn new() -> Sysctl {
        Sysctl {
            max_map_count: AtomicUsize::new(65530),
            overcommit_memory: AtomicU32::new(0),
            overcommit_ratio: AtomicUsize::new(50),
            mmap_min_addr: AtomicUsize::new(65536),
            randomize_va_space: AtomicU32::new(2),
            folios: FolioSettings::new(),
            ksm_use_zero_pages: AtomicBool::new(false),
            ksm_max_page_sharing: AtomicUsize::new(256),
        }
    }

    /// The most VMAs an address space may have (`vm.max_map_count`).
    #[inline]
    pub fn max_map_count(&self) -> usize {
        self.max_map_count.load(Ordering::Relaxed)
    }

    /// Sets [`max_map_count`](Self::max_map_count).
    pub fn set_max_map_count(&self, count: usize) {
        self.max_map_count.store(count, Ordering::Relaxed);
    }

    /// The overcommit mode (`vm.overcommit_memory`).
    #[inline]
    pub fn overcommit(&self) -> Overcommit {
        match self.overcommit_memory.load(Ordering::Relaxed) {
            1 => Overcommit::Always,
            2 => Overcommit::Never,
            _ => Overcommit::Heuristic,
        }
    }

    /// Sets [`overcommit`](Self::overcommit).
    pub fn set_overcommit(&self, mode: Overcommit) {
        let mode = match mode {
            Overcommit::Heuristic => 0,
            Overcommit::Always => 1,
            Overcommit::Never => 2,
        };
        self.overcommit_memory.store(mode, Ordering::Relaxed);
    }

    /// Per cent of memory that may be promised in mode
    /// [`Never`](Overcommit::Never) (`vm.overcommit_ratio`).
    #[inline]
    pub fn overcommit_ratio(&self) -> usize {
        self.overcommit_ratio.load(Ordering::Relaxed)
    }

    /// Sets [`overcommit_ratio`](Self::overcommit_ratio).
    pub fn set_overcommit_ratio(&self, per_cent: usize) {
        self.overcommit_ratio.store(per_cent, Ordering::Relaxed);
    }

    /// Where faults make huge pages.
    pub fn huge_pages(&self) -> HugePages {
        self.folios.huge_pages()
    }

    /// Sets [`huge_pages`](Self::huge_pages).
    pub fn set_huge_pages(&self, mode: HugePages) {
        self.folios.set_huge_pages(mode);
    }

    /// Where faults make folios of that order; [`Never`](FolioPolicy::Never) for one that is not among
    /// [`FOLIO_ORDERS`].
    pub fn folio_policy(&self, order: u8) -> FolioPolicy {
        self.folios.policy(order)
    }

    /// Sets [`folio_policy`](Self::folio_policy), of one of those orders.
    pub fn set_folio_policy(&self, order: u8, policy: FolioPolicy) {
        self.folios.set_policy(order, policy);
    }

    /// Where faults have memory compacted to make them.
    pub fn defrag(&self) -> Defrag {
        self.folios.defrag()
    }

    /// Sets [`defrag`](Self::defrag).
    pub fn set_defrag(&self, defrag: Defrag) {
        self.folios.set_defrag(defrag);
    }

    /// Whether there are mappings that are to have huge pages.
    #[inline]
    pub fn makes_huge_pages(&self) -> bool {
        self.folios.makes(*FOLIO_ORDERS.end(), true)
    }

    /// Whether there are mappings in which faults make folios that are neither single pages nor huge.
    #[inline(always)]
    pub(crate) fn makes_folios(&self) -> bool {
        self.folios.makes_some()
    }

    /// Whether faults make folios of that order in mappings that are `advised` to be huge, or are not.
    pub(crate) fn makes_folios_of(&self, order: u8, advised: bool) -> bool {
        self.folios.makes(order, advised)
    }

    /// The lowest address that may be mapped, in bytes (`vm.mmap_min_addr`).
    #[inline]
    pub fn mmap_min_addr(&self) -> usize {
        self.mmap_min_addr.load(Ordering::Relaxed)
    }

    /// Sets [`mmap_min_addr`](Self::mmap_min_addr).
    pub fn set_mmap_min_addr(&self, addr: usize) {
        self.mmap_min_addr.store(addr, Ordering::Relaxed);
    }

    /// Whether the layout of new address spaces is randomised: 0 no, 1 all but
    /// the heap, 2 all (`kernel.randomize_va_space`).
    #[inline]
    pub fn randomize_va_space(&self) -> u32 {
        self.randomize_va_space.load(Ordering::Relaxed)
    }

    /// Sets [`randomize_va_space`](Self::randomize_va_space).
    pub fn set_randomize_va_space(&self, mode: u32) {
        self.randomize_va_space.store(mode, Ordering::Relaxed);
    }

    /// Whether pages full of zeroes are merged with the page of zeroes (`use_zero_pages`).
    pub fn ksm_use_zero_pages(&self) -> bool {
        self.ksm_use_zero_pages.load(Ordering::Relaxed)
    }

    /// Sets [`ksm_use_zero_pages`](Self::ksm_use_zero_pages).
    pub fn set_ksm_use_zero_pages(&self, use_them: bool) {
        self.ksm_use_zero_pages.store(use_them, Ordering::Relaxed);
    }

    /// How many entries may come to map one merged page by merging (`max_page_sharing`).
    pub fn ksm_max_page_sharing(&self) -> usize {
        self.ksm_max_page_sharing.load(Ordering::Relaxed)
    }

    /// Sets [`ksm_max_page_sharing`](Self::ksm_max_page_sharing).
    pub fn set_ksm_max_page_sharing(&self, entries: usize) {
        self.ksm_max_page_sharing.store(entries, Ordering::Relaxed);
    }
}
