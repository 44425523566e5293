//! Per-CPU data, reached through `GS`, and the registers that belong to a
//! thread but not to its trap frame.

use core::arch::asm;
use core::mem::offset_of;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use super::apic;
use super::gdt::Segments;
use super::shootdown::Mailbox;
use super::trap::RESCHEDULE_VECTOR;
use mm::{CpuSet, CpuTlb, MAX_CPUS};
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
    /// The current thread's turn has ended.
    need_resched: AtomicBool,
    id: usize,
    apic_id: AtomicU32,
    /// What it has loaded of an address space is better left, if it is idle.
    leave_lazy: AtomicBool,
    segments: Segments,
    tlb: CpuTlb,
    mailbox: Mailbox,
}

/// The CPUs that run, by number; numbers without a gap.
static CPUS: [AtomicPtr<Cpu>; MAX_CPUS] = [const { AtomicPtr::new(ptr::null_mut()) }; MAX_CPUS];
static COUNT: AtomicUsize = AtomicUsize::new(1);

/// How many CPUs run.
#[inline]
pub fn count() -> usize {
    COUNT.load(Ordering::Acquire)
}

/// The CPUs that run.
pub fn online() -> CpuSet {
    CpuSet(u64::MAX >> (MAX_CPUS - count().min(MAX_CPUS)))
}

/// The data of CPU `id`, if it runs.
pub fn get(id: usize) -> Option<&'static Cpu> {
    let cpu = CPUS.get(id)?.load(Ordering::Acquire);
    // SAFETY: only ever null or what `install` was given, which lives for `'static`.
    unsafe { cpu.as_ref() }
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
            need_resched: AtomicBool::new(false),
            id,
            apic_id: AtomicU32::new(0),
            leave_lazy: AtomicBool::new(false),
            segments: Segments::new(),
            tlb: CpuTlb::new(),
            mailbox: Mailbox::new(),
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
    #[inline]
    pub fn id(&self) -> usize {
        self.id
    }

    /// Number of its local APIC.
    pub(super) fn apic_id(&self) -> u32 {
        self.apic_id.load(Ordering::Relaxed)
    }

    /// Makes it look for return work soon, or for a thread if it is idle.
    pub fn interrupt(&self) {
        self.return_work.store(true, Ordering::SeqCst);
        apic::send(self.apic_id(), RESCHEDULE_VECTOR);
    }

    /// Makes its current thread let others run soon. This is another CPU.
    pub fn reschedule(&self) {
        self.need_resched.store(true, Ordering::SeqCst);
        self.interrupt();
    }

    /// If it is idle, or when it is, it is to leave the address space it has
    /// loaded. Says whether that was not known yet.
    pub fn ask_to_leave(&self) -> bool {
        !self.leave_lazy.swap(true, Ordering::SeqCst)
    }

    /// Whether [`ask_to_leave`](Self::ask_to_leave) was called since the last time.
    pub fn take_asked_to_leave(&self) -> bool {
        self.leave_lazy.load(Ordering::Relaxed) && self.leave_lazy.swap(false, Ordering::SeqCst)
    }

    /// Its part in flushes of TLBs.
    #[inline]
    pub(super) fn mailbox(&self) -> &Mailbox {
        &self.mailbox
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
    CPUS[cpu.id].store(address as *mut Cpu, Ordering::Release);
    COUNT.fetch_max(cpu.id + 1, Ordering::AcqRel);
    // SAFETY: kernel code uses GS only for per-CPU data, which is what `address` is.
    unsafe {
        Msr::new(MSR_GS_BASE).write(address as u64);
        Msr::new(MSR_KERNEL_GS_BASE).write(0);
    }
}

/// The data of the current CPU. Another one's after the calling thread slept,
/// so not to be kept across that.
#[inline]
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

/// The number of the current CPU.
#[inline]
pub fn id() -> usize {
    let id: usize;
    // SAFETY: reads the `id` field of the `Cpu` that GS points to, which `install`
    // used as an index.
    unsafe {
        asm!("mov {}, gs:[{}]", out(reg) id, const offset_of!(Cpu, id),
            options(nostack, pure, readonly, preserves_flags));
        core::hint::assert_unchecked(id < MAX_CPUS);
    }
    id
}

/// Remembers the number of the current CPU's local APIC.
pub(super) fn set_apic_id(apic_id: u32) {
    current().apic_id.store(apic_id, Ordering::Relaxed);
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

/// Whether [`set_return_work`] was called for the current thread, which is to be
/// switched away from: the caller sees to it that it is again when it goes on.
pub fn take_return_work() -> bool {
    current().return_work.swap(false, Ordering::Acquire)
}

/// Whether the current thread is to let others run.
#[inline]
pub fn need_resched() -> bool {
    current().need_resched.load(Ordering::Relaxed)
}

/// Says whether the current thread is to let others run.
pub fn set_need_resched(value: bool) {
    current().need_resched.store(value, Ordering::Relaxed);
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
