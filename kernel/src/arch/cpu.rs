//! Per-CPU data, reached through `GS`, and the registers that belong to a
//! thread but not to its trap frame.

use core::arch::asm;
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::gdt::Segments;
use mm::CpuTlb;
use x86_64::registers::model_specific::Msr;

const MSR_FS_BASE: u32 = 0xc000_0100;
pub(super) const MSR_GS_BASE: u32 = 0xc000_0101;
const MSR_KERNEL_GS_BASE: u32 = 0xc000_0102;

/// What one CPU keeps for itself. The assembler of [`super::entry`] knows it
/// by field offset.
#[repr(C)]
pub struct Cpu {
    /// Its own address.
    this: AtomicUsize,
    /// Where system-call entry parks the program's `rsp` for a moment.
    pub(super) user_rsp: AtomicUsize,
    /// Where system calls of the current thread start on its kernel stack: 8
    /// bytes below the top, which leaves a trap frame's end 16-byte aligned.
    pub(super) syscall_stack: AtomicUsize,
    /// The current thread, as [`set_thread`] left it.
    thread: AtomicUsize,
    /// There is something to do before the CPU returns to user mode.
    pub(super) return_work: AtomicBool,
    id: usize,
    segments: Segments,
    tlb: CpuTlb,
}

impl Cpu {
    /// The data of CPU number `id`; not in use before [`install`].
    pub const fn new(id: usize) -> Cpu {
        Cpu {
            this: AtomicUsize::new(0),
            user_rsp: AtomicUsize::new(0),
            syscall_stack: AtomicUsize::new(0),
            thread: AtomicUsize::new(0),
            return_work: AtomicBool::new(false),
            id,
            segments: Segments::new(),
            tlb: CpuTlb::new(),
        }
    }

    /// Sets the stack that traps from user mode, and system calls, start on.
    ///
    /// # Safety
    ///
    /// This is the current CPU. `top` is the top of a kernel stack that stays
    /// while it is set.
    pub(super) unsafe fn set_kernel_stack(&self, top: usize) {
        self.syscall_stack.store(top - 8, Ordering::Relaxed);
        // SAFETY: the caller makes the same promises.
        unsafe { self.segments.set_kernel_stack(top) };
    }

    /// Number of the CPU, from 0.
    pub fn id(&self) -> usize {
        self.id
    }

    /// What its TLB may hold.
    #[inline]
    pub fn tlb(&self) -> &CpuTlb {
        &self.tlb
    }
}

/// Makes `cpu` the data of the CPU that calls this.
///
/// # Safety
///
/// `cpu` is no other CPU's, and has not been installed before. Interrupts are
/// disabled.
pub unsafe fn install(cpu: &'static Cpu) {
    // SAFETY: as the caller promises; GS is set up only below.
    unsafe { cpu.segments.load() };
    let address = core::ptr::from_ref(cpu) as usize;
    cpu.this.store(address, Ordering::Relaxed);
    // SAFETY: kernel code uses GS only for per-CPU data, which is what `address` is.
    unsafe {
        Msr::new(MSR_GS_BASE).write(address as u64);
        Msr::new(MSR_KERNEL_GS_BASE).write(0);
    }
}

/// The data of the current CPU. Another one's after the calling thread slept,
/// so not to be kept across that.
pub fn current() -> &'static Cpu {
    let this: usize;
    // SAFETY: reads the `this` field of the `Cpu` that GS points to.
    unsafe {
        asm!("mov {}, gs:[{}]", out(reg) this, const offset_of!(Cpu, this),
            options(nostack, readonly, preserves_flags));
    }
    // SAFETY: `install` stored the address of a `&'static Cpu` there.
    unsafe { &*(this as *const Cpu) }
}

/// What [`set_thread`] stored last on this CPU; 0 before the first time.
#[inline]
pub fn thread() -> usize {
    let thread: usize;
    // SAFETY: reads the `thread` field of the `Cpu` that GS points to.
    unsafe {
        asm!("mov {}, gs:[{}]", out(reg) thread, const offset_of!(Cpu, thread),
            options(nostack, readonly, preserves_flags));
    }
    thread
}

/// Stores what [`thread`] returns from now on: the scheduler's handle of the
/// current thread.
pub fn set_thread(thread: usize) {
    current().thread.store(thread, Ordering::Relaxed);
}

/// Makes [`crate::task::return_to_user`] run before this CPU executes user
/// code again. To be called by whoever raises a signal for the current thread,
/// wants it to yield, or has switched to a thread for which that may be so.
pub fn set_return_work() {
    current().return_work.store(true, Ordering::Relaxed);
}

/// The program's thread pointer, in `FS`.
pub fn fs_base() -> u64 {
    // SAFETY: the MSR exists on every x86-64 CPU.
    unsafe { Msr::new(MSR_FS_BASE).read() }
}

/// Sets the program's thread pointer. `base` must be canonical; system calls
/// accept only user addresses.
pub fn set_fs_base(base: u64) {
    // SAFETY: the kernel does not use FS.
    unsafe { Msr::new(MSR_FS_BASE).write(base) }
}

/// The `GS` base that the program has while it runs.
pub fn user_gs_base() -> u64 {
    // SAFETY: the MSR exists on every x86-64 CPU.
    unsafe { Msr::new(MSR_KERNEL_GS_BASE).read() }
}

/// Sets the `GS` base that the program has while it runs. `base` must be
/// canonical; system calls accept only user addresses.
pub fn set_user_gs_base(base: u64) {
    // SAFETY: this is the base `swapgs` installs for user mode, not the kernel's own.
    unsafe { Msr::new(MSR_KERNEL_GS_BASE).write(base) }
}
