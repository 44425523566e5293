//! What the host kernel provides: the one trait an embedder implements.

use core::fmt;

use crate::swap::SwapDevice;

pub use x86_64::PhysAddr;

/// The most CPUs the crate can address; the size of a [`CpuSet`].
pub const MAX_CPUS: usize = 64;

/// A set of CPUs, numbered from 0 as [`Platform::current_cpu`] numbers them.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuSet(pub u64);

impl CpuSet {
    /// No CPU at all.
    pub const EMPTY: CpuSet = CpuSet(0);

    /// The set of exactly one CPU. CPUs from [`MAX_CPUS`] up are in no set.
    pub const fn single(cpu: usize) -> CpuSet {
        if cpu < MAX_CPUS { CpuSet(1 << cpu) } else { CpuSet(0) }
    }

    /// Whether `cpu` is in the set.
    pub const fn contains(self, cpu: usize) -> bool {
        cpu < MAX_CPUS && self.0 & (1 << cpu) != 0
    }

    /// Whether the set has no member.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The members in ascending order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..MAX_CPUS).filter(move |&cpu| self.contains(cpu))
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// One TLB flush, as handed to [`Platform::flush_tlb`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TlbFlush {
    /// The physical address of the top-level table whose translations go: what
    /// `CR3` holds (without PCID bits) where the address space is active.
    pub root: PhysAddr,
    /// The address space's number. Unlike the root it is never used again.
    pub context: u64,
    /// The number of the flush among those of the address space, from 1.
    pub generation: u64,
    /// First address of the range, in bytes, page aligned.
    pub start: usize,
    /// End of the range (exclusive), in bytes, page aligned.
    pub end: usize,
    /// Every translation of the address space goes, and `start..end` is only
    /// what prompted it (the range was over the threshold).
    pub full: bool,
}

/// What `mm` needs from the kernel it is embedded in.
///
/// The crate executes no privileged instruction itself: loading `CR3`,
/// `invlpg` and inter-processor interrupts all happen in here, so the same
/// code runs in a kernel and, over a simulated machine, in an ordinary test.
///
/// An instance is passed by value to [`Memory::new`](crate::Memory::new); the
/// crate keeps no global state, and several instances may live side by side.
///
/// # Safety
///
/// The crate's memory safety rests on these:
///
/// 1. [`phys_to_virt`](Self::phys_to_virt) returns, for every address in the
///    regions given to `Memory::new`, a pointer valid for reads and writes of
///    the rest of that 4 KiB frame, that stays valid and never changes, and
///    distinct frames do not overlap. Frames adjacent in physical memory and
///    in one region are adjacent in virtual memory too.
/// 2. [`flush_tlb`](Self::flush_tlb) returns only when no CPU of `targets` can
///    use a stale translation of the range any more.
/// 3. [`current_cpu`](Self::current_cpu) is smaller than
///    [`cpu_count`](Self::cpu_count), and that is at most [`MAX_CPUS`].
pub unsafe trait Platform: Send + Sync + 'static {
    /// Where the direct map has the byte at physical address `phys`.
    fn phys_to_virt(&self, phys: PhysAddr) -> *mut u8;

    /// The CPU that executes the call, from 0.
    fn current_cpu(&self) -> usize;

    /// How many CPUs there are.
    fn cpu_count(&self) -> usize;

    /// Removes the translations that `flush` names from the TLBs of `targets`
    /// (which may include the calling CPU), paging-structure caches included,
    /// and waits until that has happened. A CPU that has another root loaded
    /// by now has nothing to do: it flushes when it loads this one, at the
    /// latest. [`CpuTlb::flush`](crate::CpuTlb::flush) says what is to be done.
    ///
    /// Called with locks of the crate held, for which others of the targets may
    /// be spinning: a CPU has to answer in the middle of any call into the
    /// crate, that is, make its calls with interrupts enabled.
    fn flush_tlb(&self, targets: CpuSet, flush: TlbFlush);

    /// Called in every turn of a spin loop: a pause, or a yield.
    fn relax(&self);

    /// 64 random bits, for address-space layout randomisation.
    fn random(&self) -> u64;

    /// Where pages go that there is no memory for, if anywhere. The answer is always
    /// the same. It is not used before [`Memory::swap_on`](crate::Memory::swap_on).
    fn swap_device(&self) -> Option<&dyn SwapDevice> {
        None
    }
}
