//! A simulated machine, so that everything here runs as an ordinary host test.
//!
//! [`SimPlatform`] has RAM (ordinary memory of the process) and CPUs: a thread
//! says with [`set_cpu`] on which one it runs. A program's accesses to memory
//! go through [`SimPlatform::read_user`] and [`SimPlatform::write_user`], which
//! translate addresses as the hardware does: through the page tables in RAM and
//! a TLB per CPU that keeps what it has seen until it is told otherwise. So a
//! flush that is missing is an access that goes to the wrong frame.
//!
//! A CPU gets a page table as by a kernel that knows nothing of PCIDs, by
//! [`SimPlatform::load_root`] or the access itself, or as by one that does:
//! [`SimPlatform::run`]. There are PCIDs after [`SimPlatform::use_pcids`].
//!
//! Freed frames are filled with `0xa5`, which no page-table entry can be: a
//! walk through a freed table panics.

mod mmu;
mod swap;
#[cfg(test)]
mod tests;

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use spin::RelaxStrategy;

use crate::addr::{PAGE_SIZE, page_align_down};
use crate::frame::MAX_ORDER;
use crate::memory::{Memory, PhysRange};
use crate::platform::{CpuSet, MAX_CPUS, PhysAddr, Platform, TlbFlush};
use crate::space::AddressSpace;
use crate::swap::SwapDevice;
use crate::sync::{Relax, SpinLock, SpinLockGuard, rank, thread};
use mmu::Tlb;
pub use mmu::{Access, PageFault};
pub use swap::SimSwap;

/// Where the simulated RAM begins: addresses below are invalid.
const RAM_START: u64 = 0x100_0000;

thread_local! {
    /// By the numbers of the threads that are on this one of the host.
    static CPUS: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// Says on which CPU the calling thread runs. A thread starts out on CPU 0.
/// On a machine with fewer CPUs it counts modulo their number.
pub fn set_cpu(cpu: usize) {
    CPUS.with_borrow_mut(|cpus| {
        cpus.resize(cpus.len().max(thread() + 1), 0);
        cpus[thread()] = cpu;
    });
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

/// [`memory`], with a swap device that has `slots` slots in use.
///
/// # Panics
///
/// As [`memory`].
pub fn memory_with_swap(cpus: usize, frames: usize, slots: u32) -> Memory<SimPlatform> {
    let memory = memory(cpus, frames);
    memory.platform().swap().set_slots(slots);
    memory.swap_on().expect("too little simulated memory");
    memory
}

/// The simulated machine.
pub struct SimPlatform {
    ram: NonNull<u8>,
    layout: Layout,
    tlbs: Vec<SpinLock<Tlb, { rank::CPU }>>,
    random: AtomicU64,
    flushes: AtomicUsize,
    /// The flushes since recording was begun.
    recorded: Mutex<Option<Vec<(CpuSet, TlbFlush)>>>,
    swap: SimSwap,
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
    /// When there is no CPU or no frame, or there are more CPUs than [`MAX_CPUS`].
    pub fn new(cpus: usize, frames: usize) -> SimPlatform {
        assert!((1..=MAX_CPUS).contains(&cpus) && frames > 0);
        let size = frames * PAGE_SIZE;
        // Enough for the largest block of frames that there can be.
        let align = size.next_power_of_two().min(PAGE_SIZE << MAX_ORDER);
        let layout = Layout::from_size_align(size, align).expect("too many frames");
        // SAFETY: the size is not 0.
        let ram = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        SimPlatform {
            ram,
            layout,
            tlbs: (0..cpus).map(|_| SpinLock::default()).collect(),
            random: AtomicU64::new(1),
            flushes: AtomicUsize::new(0),
            recorded: Mutex::new(None),
            swap: SimSwap::default(),
        }
    }

    /// The swap device. It has no room before [`SimSwap::set_slots`].
    pub fn swap(&self) -> &SimSwap {
        &self.swap
    }

    /// Where the RAM is.
    pub fn ram(&self) -> PhysRange {
        let start = PhysAddr::new(RAM_START);
        PhysRange { start, end: start + self.layout.size() as u64 }
    }

    /// Sets what [`Platform::random`] goes on from.
    pub fn seed(&self, seed: u64) {
        self.random.store(seed, Ordering::Relaxed);
    }

    /// Has all CPUs use PCIDs from now on, before the first one
    /// [runs](Self::run) anything.
    pub fn use_pcids(&self) {
        for cpu in 0..self.tlbs.len() {
            self.tlb(cpu).kernel.use_pcids();
        }
    }

    /// Has `cpu` run programs of an address space, if it does not yet: what its
    /// TLB may keep it keeps. The one that it has run before may still be
    /// active there until that one is [stopped](Self::stop), as it may be for a
    /// moment in a kernel.
    pub fn run(&self, cpu: usize, space: &AddressSpace<'_, SimPlatform>) {
        // With the TLB locked no flush gets in between.
        self.tlb(cpu).enter(space.root(), |tlb| space.enter(cpu, tlb));
    }

    /// Has `cpu` not run programs of an address space any more.
    pub fn stop(&self, cpu: usize, space: &AddressSpace<'_, SimPlatform>) {
        let mut tlb = self.tlb(cpu);
        tlb.leave(space.root());
        space.leave(cpu, &tlb.kernel);
    }

    /// Loads a page table on a CPU, as a context switch without PCIDs does: its
    /// TLB forgets everything.
    pub fn load_root(&self, cpu: usize, root: PhysAddr) {
        self.tlb(cpu).load_root(root);
    }

    /// Translates an address for a user program that runs on `cpu` with the
    /// page table `root`, as for an access of that kind. A CPU that has another
    /// page table loads this one first.
    ///
    /// # Errors
    ///
    /// The page fault that a CPU would raise.
    ///
    /// # Panics
    ///
    /// On page tables that no CPU would accept, or that are not in RAM.
    pub fn translate(&self, cpu: usize, root: PhysAddr, addr: usize, access: Access) -> Result<PhysAddr, PageFault> {
        self.tlb(cpu).translate(self, root, addr, access)
    }

    /// Reads memory as a user program does. `handle` is called for each page
    /// fault, and the access is tried again when it returns `Ok`.
    ///
    /// # Errors
    ///
    /// What `handle` returned.
    ///
    /// # Panics
    ///
    /// When the same access faults for ever, and as [`translate`](Self::translate).
    pub fn read_user<E>(
        &self,
        cpu: usize,
        root: PhysAddr,
        addr: usize,
        buffer: &mut [u8],
        handle: impl FnMut(PageFault) -> Result<(), E>,
    ) -> Result<(), E> {
        let range = addr..addr + buffer.len();
        self.access_user(cpu, root, range, Access::Read, handle, |done, byte| {
            buffer[done] = byte.load(Ordering::Relaxed);
        })
    }

    /// Writes memory as a user program does; see [`read_user`](Self::read_user).
    ///
    /// # Errors
    ///
    /// What `handle` returned.
    ///
    /// # Panics
    ///
    /// As [`read_user`](Self::read_user).
    pub fn write_user<E>(
        &self,
        cpu: usize,
        root: PhysAddr,
        addr: usize,
        data: &[u8],
        handle: impl FnMut(PageFault) -> Result<(), E>,
    ) -> Result<(), E> {
        let range = addr..addr + data.len();
        self.access_user(cpu, root, range, Access::Write, handle, |done, byte| {
            byte.store(data[done], Ordering::Relaxed);
        })
    }

    /// How often [`Platform::flush_tlb`] was called.
    pub fn flushes(&self) -> usize {
        self.flushes.load(Ordering::Relaxed)
    }

    /// Forgets the recorded flushes and records from now on.
    pub fn record_flushes(&self) {
        *lock(&self.recorded) = Some(Vec::new());
    }

    /// The flushes since [`record_flushes`](Self::record_flushes), which ends.
    pub fn take_flushes(&self) -> Vec<(CpuSet, TlbFlush)> {
        lock(&self.recorded).take().unwrap_or_default()
    }

    /// Calls `transfer` for each byte of the range, with the byte's number in it.
    fn access_user<E>(
        &self,
        cpu: usize,
        root: PhysAddr,
        range: Range<usize>,
        access: Access,
        mut handle: impl FnMut(PageFault) -> Result<(), E>,
        mut transfer: impl FnMut(usize, &AtomicU8),
    ) -> Result<(), E> {
        let mut addr = range.start;
        let mut faults = 0;
        while addr < range.end {
            // The TLB stays locked during the access, so that a flush waits
            // for it, as it does for an instruction.
            let mut tlb = self.tlb(cpu);
            match tlb.translate(self, root, addr, access) {
                Ok(phys) => {
                    assert!(self.is_ram(phys), "{phys:?} is not in RAM");
                    let end = range.end.min(page_align_down(addr) + PAGE_SIZE);
                    for byte_addr in addr..end {
                        let byte = self.phys_to_virt(phys + (byte_addr - addr) as u64);
                        // SAFETY: the page is in RAM, which lives as long as `self`.
                        let byte = unsafe { AtomicU8::from_ptr(byte) };
                        transfer(byte_addr - range.start, byte);
                    }
                    addr = end;
                    faults = 0;
                }
                Err(fault) => {
                    drop(tlb);
                    faults += 1;
                    assert!(faults < 1000, "{fault:?} again and again");
                    handle(fault)?;
                }
            }
        }
        Ok(())
    }

    fn tlb(&self, cpu: usize) -> SpinLockGuard<'_, Tlb, { rank::CPU }> {
        self.tlbs[cpu].lock()
    }

    /// Whether the frame that holds a physical address is RAM.
    fn is_ram(&self, phys: PhysAddr) -> bool {
        let ram = self.ram();
        ram.start <= phys && phys < ram.end
    }

    /// The page-table entry at a physical address.
    fn entry(&self, phys: PhysAddr) -> &AtomicU64 {
        assert!(self.is_ram(phys), "a page table at {phys:?} is not in RAM");
        // SAFETY: entries are aligned, and the RAM lives as long as `self`.
        unsafe { AtomicU64::from_ptr(self.phys_to_virt(phys).cast()) }
    }
}

/// Locks a mutex that a failed test may have left poisoned.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for SimPlatform {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with that layout.
        unsafe { dealloc(self.ram.as_ptr(), self.layout) };
    }
}

// SAFETY: 1. RAM is one piece of memory, that lives as long as the platform.
// 2. The entries are dropped right here. 3. The modulo sees to that, and `new`
// to the rest.
unsafe impl Platform for SimPlatform {
    fn phys_to_virt(&self, phys: PhysAddr) -> *mut u8 {
        self.ram.as_ptr().wrapping_add(phys.as_u64().wrapping_sub(RAM_START) as usize)
    }

    fn current_cpu(&self) -> usize {
        CPUS.with_borrow(|cpus| cpus.get(thread()).copied().unwrap_or(0)) % self.tlbs.len()
    }

    fn cpu_count(&self) -> usize {
        self.tlbs.len()
    }

    fn flush_tlb(&self, targets: CpuSet, flush: TlbFlush) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        if let Some(recorded) = &mut *lock(&self.recorded) {
            recorded.push((targets, flush));
        }
        for cpu in targets.iter().take_while(|&cpu| cpu < self.tlbs.len()) {
            self.tlb(cpu).flush(flush);
        }
    }

    fn relax(&self) {
        Relax::relax();
    }

    fn random(&self) -> u64 {
        // SplitMix64 (Steele, Lea and Flood, 2014).
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.random.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn swap_device(&self) -> Option<&dyn SwapDevice> {
        Some(&self.swap)
    }
}
