//! What a thread is to the processor while it does not run, and the switch
//! from one to another.

use core::arch::global_asm;
use core::mem::size_of;

use super::cpu;
use super::entry;
use super::fpu::FpuState;
use super::stack::KernelStack;
use super::trap::TrapFrame;

/// A thread's processor state. That of the thread that runs is out of date,
/// but for its kernel stack, until [`switch`] has left it.
#[derive(Debug)]
pub struct Context {
    /// Where the callee-saved registers lie, return address above them.
    rsp: usize,
    fs_base: u64,
    gs_base: u64,
    /// None for the boot code, which runs no program.
    fpu: Option<FpuState>,
    /// None for the stack the CPU booted on.
    stack: Option<KernelStack>,
}

/// The callee-saved registers as `switch_stacks` pushes them.
#[repr(C)]
struct SwitchFrame {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    rbx: u64,
    rbp: u64,
    return_address: usize,
}

impl Context {
    /// The context of the code that calls this, to be filled in when it
    /// switches away: the thread that the boot code becomes.
    pub const fn for_boot() -> Context {
        Context { rsp: 0, fs_base: 0, gs_base: 0, fpu: None, stack: None }
    }

    /// A thread that first calls [`crate::task::finish_switch`] and then
    /// returns to the program with the registers of `frame`, `fpu` and the
    /// thread pointer `fs_base`.
    pub fn for_user(stack: KernelStack, frame: &TrapFrame, fpu: FpuState, fs_base: u64, gs_base: u64) -> Context {
        // Where a system call would have put it.
        let trap_frame = stack.top() - 8 - size_of::<TrapFrame>();
        let rsp = trap_frame - size_of::<SwitchFrame>();
        let switch = SwitchFrame {
            r15: 0,
            r14: 0,
            r13: 0,
            r12: 0,
            rbx: 0,
            rbp: 0,
            return_address: entry::user_thread_start as *const () as usize,
        };
        // SAFETY: both lie inside the stack, which is ours, and nothing runs on it yet.
        unsafe {
            (trap_frame as *mut TrapFrame).write(*frame);
            (rsp as *mut SwitchFrame).write(switch);
        }
        Context { rsp, fs_base, gs_base, fpu: Some(fpu), stack: Some(stack) }
    }
}

/// Leaves the thread whose context is `*prev` for the one whose is `*next`.
/// Returns when something switches back to it.
///
/// # Safety
///
/// Interrupts are disabled. `prev` is the current thread's context; `next`'s
/// thread runs nowhere; both stay valid (and where they are) while their
/// threads may be switched to or from. No reference to either is in use.
pub unsafe fn switch(prev: *mut Context, next: *mut Context) {
    // SAFETY: the caller vouches for both pointers.
    let (prev, next) = unsafe { (&mut *prev, &mut *next) };
    if let Some(fpu) = &mut prev.fpu {
        fpu.save();
        prev.fs_base = cpu::fs_base();
        prev.gs_base = cpu::user_gs_base();
    }
    if let Some(fpu) = &next.fpu {
        fpu.restore();
        cpu::set_fs_base(next.fs_base);
        cpu::set_user_gs_base(next.gs_base);
    }
    if let Some(stack) = &next.stack {
        // SAFETY: it is the next thread's stack, which outlives its running.
        unsafe { cpu::current().set_kernel_stack(stack.top()) };
    }
    // SAFETY: `next.rsp` was made by `for_user` or by an earlier `switch_stacks`.
    unsafe { switch_stacks(&raw mut prev.rsp, next.rsp) };
}

unsafe extern "C" {
    fn switch_stacks(save: *mut usize, load: usize);
}

global_asm!(
    ".global switch_stacks",
    "switch_stacks:",
    "push rbp",
    "push rbx",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov [rdi], rsp",
    "mov rsp, rsi",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbx",
    "pop rbp",
    "ret",
);
