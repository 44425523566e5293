//! A simulated machine, so that everything here runs as an ordinary host test.
//!
//! [`SimPlatform`] has RAM (ordinary memory of the process) and CPUs (which a
//! thread says it is, with [`set_cpu`]).

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::addr::PAGE_SIZE;
use crate::memory::{Memory, PhysRange};
use crate::platform::{CpuSet, PhysAddr, Platform, TlbFlush};

/// Where the simulated RAM begins: addresses below are invalid.
const RAM_START: u64 = 0x100_0000;

thread_local! {
    static CPU: Cell<usize> = const { Cell::new(0) };
}

/// Says on which CPU the calling thread runs. A thread starts out on CPU 0.
/// On a machine with fewer CPUs it counts modulo their number.
pub fn set_cpu(cpu: usize) {
    CPU.set(cpu);
}

/// A machine with `frames` frames of RAM, 4 KiB each, and its memory taken into use.
///
/// # Panics
///
/// When that is too little, or the host has no more.
pub fn memory(cpus: usize, frames: usize) -> Memory<SimPlatform> {
    let platform = SimPlatform::new(cpus, frames);
    let ram = platform.ram();
    // SAFETY: the platform owns that memory, lives as long as the `Memory`,
    // and gives it to nobody else.
    unsafe { Memory::new(platform, &[ram], None) }.expect("too little simulated memory")
}

/// The simulated machine.
pub struct SimPlatform {
    ram: NonNull<u8>,
    layout: Layout,
    cpus: usize,
    random: AtomicU64,
}

// SAFETY: the RAM is owned and accessed through raw pointers only, under the
// rules of the code under test; the rest is thread safe.
unsafe impl Send for SimPlatform {}
// SAFETY: as above.
unsafe impl Sync for SimPlatform {}

impl SimPlatform {
    /// A machine with `cpus` CPUs and `frames` frames of zeroed RAM.
    ///
    /// # Panics
    ///
    /// When there is no CPU or no frame.
    pub fn new(cpus: usize, frames: usize) -> SimPlatform {
        assert!(cpus > 0 && frames > 0);
        let layout = Layout::from_size_align(frames * PAGE_SIZE, 1 << 22).expect("too many frames");
        // SAFETY: the size is not 0.
        let ram = NonNull::new(unsafe { alloc_zeroed(layout) })
            .unwrap_or_else(|| handle_alloc_error(layout));
        SimPlatform {
            ram,
            layout,
            cpus,
            random: AtomicU64::new(1),
        }
    }

    /// Where the RAM is.
    pub fn ram(&self) -> PhysRange {
        let start = PhysAddr::new(RAM_START);
        PhysRange {
            start,
            end: start + self.layout.size() as u64,
        }
    }

    /// Sets what [`Platform::random`] goes on from.
    pub fn seed(&self, seed: u64) {
        self.random.store(seed, Ordering::Relaxed);
    }
}

impl Drop for SimPlatform {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with that layout.
        unsafe { dealloc(self.ram.as_ptr(), self.layout) };
    }
}

// SAFETY: 1. RAM is one piece of memory, that lives as long as the platform.
// 2. There is no TLB. 3. The modulo sees to that, and `new` to the rest.
unsafe impl Platform for SimPlatform {
    fn phys_to_virt(&self, phys: PhysAddr) -> *mut u8 {
        self.ram
            .as_ptr()
            .wrapping_add(phys.as_u64().wrapping_sub(RAM_START) as usize)
    }

    fn current_cpu(&self) -> usize {
        CPU.get() % self.cpus
    }

    fn cpu_count(&self) -> usize {
        self.cpus
    }

    fn flush_tlb(&self, _targets: CpuSet, _flush: TlbFlush) {}

    fn relax(&self) {
        std::thread::yield_now();
    }

    fn random(&self) -> u64 {
        // SplitMix64 (Steele, Lea and Flood, 2014).
        let mut z = self
            .random
            .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
            .wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
