//! The kernel's memory: the `mm` instance everything draws from, the
//! [`Platform`] it runs on, and the kernel heap.
//!
//! The heap is fallible: nothing that a program can drive may use an
//! allocation that aborts, so boxes and vectors are made with the functions
//! here, which return `ENOMEM`.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use mm::{CpuSet, PhysAddr, Platform, TlbFlush};

use crate::arch;
use mm::Errno;

/// Where physical address 0 would be in the direct map.
pub const DIRECT_MAP: usize = 0xffff_8880_0000_0000;

/// This machine, as `mm` sees it.
#[derive(Debug)]
pub struct KernelPlatform;

// SAFETY: 1. the direct map holds all regions handed to `mm`, for good, and is
// linear. 2. only the calling CPU ever loads an address space, and `flush_tlb`
// has flushed it on return. 3. there is one CPU, number 0.
unsafe impl Platform for KernelPlatform {
    fn phys_to_virt(&self, phys: PhysAddr) -> *mut u8 {
        (DIRECT_MAP + phys.as_u64() as usize) as *mut u8
    }

    fn current_cpu(&self) -> usize {
        0
    }

    fn cpu_count(&self) -> usize {
        1
    }

    fn flush_tlb(&self, _targets: CpuSet, _flush: TlbFlush) {}

    fn relax(&self) {
        core::hint::spin_loop();
    }

    fn random(&self) -> u64 {
        0
    }
}

/// `value` on the heap.
pub fn try_box<T>(value: T) -> Result<Box<T>, Errno> {
    Box::try_new(value).map_err(|_| Errno::ENOMEM)
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

/// Placeholder
struct NoHeap;
// SAFETY: none
unsafe impl core::alloc::GlobalAlloc for NoHeap {
    unsafe fn alloc(&self, _: core::alloc::Layout) -> *mut u8 { core::ptr::null_mut() }
    unsafe fn dealloc(&self, _: *mut u8, _: core::alloc::Layout) {}
}
#[global_allocator]
static HEAP: NoHeap = NoHeap;
