//! The settings that Linux has under `/proc/sys/vm`, `/proc/sys/kernel` and `/sys/kernel/mm/ksm`.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

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

/// Where faults make huge pages (`/sys/kernel/mm/transparent_hugepage/enabled`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HugePages {
    /// `always`: wherever they fit, unless the mapping is advised `MADV_NOHUGEPAGE`.
    Always,
    /// `madvise`: in mappings that are advised `MADV_HUGEPAGE`.
    Madvise,
    /// `never`.
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
    huge_pages: AtomicU32,
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
            huge_pages: AtomicU32::new(1),
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
    #[inline]
    pub fn huge_pages(&self) -> HugePages {
        match self.huge_pages.load(Ordering::Relaxed) {
            0 => HugePages::Never,
            1 => HugePages::Madvise,
            _ => HugePages::Always,
        }
    }

    /// Sets [`huge_pages`](Self::huge_pages).
    pub fn set_huge_pages(&self, mode: HugePages) {
        let mode = match mode {
            HugePages::Never => 0,
            HugePages::Madvise => 1,
            HugePages::Always => 2,
        };
        self.huge_pages.store(mode, Ordering::Relaxed);
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
