//! The kernel's memory: the `mm` instance everything draws from, the
//! [`Platform`] it runs on, and the kernel heap.
//!
//! The heap is fallible: nothing that a program can drive may use an
//! allocation that aborts, so boxes and vectors are made with the functions
//! here, which return `ENOMEM`.

pub mod boot;
mod heap;
pub mod khugepaged;
pub mod ksm;
mod pace;
pub mod pins;
pub mod reclaim;
mod zram;

use alloc::sync::Arc;
use alloc::vec::Vec;

use mm::{CpuSet, Errno, InitError, Memory, PhysAddr, Platform, SwapDevice, TlbFlush};

use crate::arch::{cpu, paging, random, shootdown};
use boot::BootRam;

/// Where physical address 0 would be in the direct map.
pub const DIRECT_MAP: usize = 0xffff_8880_0000_0000;

static MEMORY: spin::Once<Memory<KernelPlatform>> = spin::Once::new();

/// The machine's memory.
///
/// # Panics
///
/// Before `main` has taken it into use.
#[inline]
pub fn memory() -> &'static Memory<KernelPlatform> {
    match MEMORY.get() {
        Some(memory) => memory,
        None => panic!("memory is not in use yet"),
    }
}

/// Takes `ram` into use as what [`memory`] returns.
///
/// # Errors
///
/// See [`InitError`].
///
/// # Safety
///
/// The direct map has all of `ram`, no one else uses it from now on, and the
/// kernel's page tables are complete as far as address spaces share them.
pub unsafe fn init(ram: &BootRam) -> Result<(), InitError> {
    mm::track_locks(cpu::id);
    // Made where it is going to be: it is large, and would be copied on the
    // stack more than once.
    // SAFETY: as the caller promises.
    MEMORY.try_call_once(|| unsafe { Memory::new(KernelPlatform, ram.ranges(), Some(paging::root())) })?;
    Ok(())
}

/// This machine, as `mm` sees it.
#[derive(Debug)]
pub struct KernelPlatform;

// SAFETY: 1. the direct map holds all regions handed to `mm`, for good, and is
// linear. 2. a CPU loads an address space as `enter` and `leave` ask for, and
// `flush_tlb` returns when all targets have done what `CpuTlb::flush` says.
// 3. CPUs are numbered from 0 without a gap.
unsafe impl Platform for KernelPlatform {
    #[inline]
    fn phys_to_virt(&self, phys: PhysAddr) -> *mut u8 {
        (DIRECT_MAP + phys.as_u64() as usize) as *mut u8
    }

    #[inline]
    fn current_cpu(&self) -> usize {
        cpu::id()
    }

    #[inline]
    fn cpu_count(&self) -> usize {
        cpu::count()
    }

    #[inline]
    fn flush_tlb(&self, targets: CpuSet, flush: TlbFlush) {
        shootdown::flush_space(targets, flush);
    }

    #[inline]
    fn relax(&self) {
        core::hint::spin_loop();
    }

    fn random(&self) -> u64 {
        random::next_u64()
    }

    fn swap_device(&self) -> Option<&dyn SwapDevice> {
        reclaim::swap_device()
    }
}

/// `value` on the heap, shared.
pub fn try_arc<T>(value: T) -> Result<Arc<T>, Errno> {
    Arc::try_new(value).map_err(|_| Errno::ENOMEM)
}

/// Appends `value`.
pub fn try_push<T>(vec: &mut Vec<T>, value: T) -> Result<(), Errno> {
    vec.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
    vec.push(value);
    Ok(())
}

/// A copy of `slice`.
pub fn try_to_vec<T: Clone>(slice: &[T]) -> Result<Vec<T>, Errno> {
    let mut vec = Vec::new();
    vec.try_reserve_exact(slice.len()).map_err(|_| Errno::ENOMEM)?;
    vec.extend_from_slice(slice);
    Ok(vec)
}

/// `len` times `value`.
pub fn try_filled<T: Clone>(value: T, len: usize) -> Result<Vec<T>, Errno> {
    let mut vec = Vec::new();
    vec.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
    vec.resize(len, value);
    Ok(vec)
}
