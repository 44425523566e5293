//! Processes and threads: scheduling, signals, fork, exec, exit, wait, futexes.
//!
//! A [`Thread`](thread::Thread) is what the scheduler switches between; a
//! [`Process`] is what threads share. The functions here are
//! what the processor's traps and the timer call.

pub mod clone;
pub mod exec;
pub mod exit;
pub mod futex;
mod init;
pub mod limits;
mod oom;
pub mod process;
pub mod reap;
pub mod sched;
pub mod signal;
pub mod table;
pub mod thread;
mod timer;
pub mod wait;
pub mod watchdog;

use core::sync::atomic::Ordering;

use alloc::sync::Arc;
use mm::{Errno, FaultAccess, FaultError};

pub use init::run;
pub use process::{Process, Space};
pub use sched::finish_switch;
pub use thread::current;
pub use timer::{NEVER, alarm, set_alarm};

use crate::arch::trap::PageFaultCode;
use crate::arch::{TrapFrame, cpu, fpu};
use crate::fs::FdTable;
use crate::memory::{khugepaged, ksm, reclaim};
use signal::info::{
    BUS_ADRALN, BUS_ADRERR, FPE_FLTDIV, FPE_FLTINV, FPE_FLTOVF, FPE_FLTRES, FPE_FLTUND, FPE_INTDIV, ILL_ILLOPN,
    SEGV_ACCERR, SEGV_MAPERR, SI_KERNEL, TRAP_TRACE,
};
use signal::{SigInfo, Signal, send};
use thread::{Trap, try_current};

/// Vector of the page-fault exception.
const PAGE_FAULT: u64 = 14;

/// A page fault of a user program: resolves it or raises the signal.
pub fn page_fault(_frame: &mut TrapFrame, addr: usize, code: PageFaultCode) {
    let thread = current();
    let process = thread.process();
    let Err(error) = resolve(process, addr, code) else { return };
    // Whether anything is mapped in the kernel's half is not a program's business.
    let hidden = if addr >= mm::TASK_SIZE { PageFaultCode::PRESENT } else { PageFaultCode::empty() };
    *thread.trap.lock() = Trap { vector: PAGE_FAULT, error_code: (code | hidden).bits(), address: addr as u64 };
    send::force(match error {
        FaultError::NotMapped => SigInfo::fault(Signal::SIGSEGV, SEGV_MAPERR, addr),
        FaultError::AccessDenied => SigInfo::fault(Signal::SIGSEGV, SEGV_ACCERR, addr),
        FaultError::BeyondEnd | FaultError::Unreadable => SigInfo::fault(Signal::SIGBUS, BUS_ADRERR, addr),
        // The access is tried again, if this process is still there then.
        FaultError::OutOfMemory => {
            oom::relieve();
            return;
        }
    });
}

/// A page fault of a user-memory access of the kernel's own ([`crate::arch::usercopy`]),
/// at a user address: whether it was resolved, so that the access can go on.
pub fn kernel_page_fault(addr: usize, code: PageFaultCode) -> bool {
    try_current().is_some_and(|thread| resolve(thread.process(), addr, code).is_ok())
}

fn resolve(process: &Process, addr: usize, code: PageFaultCode) -> Result<(), FaultError> {
    let access =
        FaultAccess { write: code.contains(PageFaultCode::WRITE), execute: code.contains(PageFaultCode::FETCH) };
    if addr >= mm::TASK_SIZE {
        return Err(FaultError::NotMapped);
    }
    // SAFETY: `process` is the current thread's, and resolving a fault ends neither.
    let space = unsafe { process.space_of_current() };
    space.ok_or(FaultError::NotMapped)?.handle_fault(addr, access)
}

/// Any other exception of a user program: raises the signal.
#[cold]
pub fn user_exception(frame: &mut TrapFrame, vector: u8, code: u64) {
    let at = frame.rip as usize;
    let kernel = SigInfo::kernel;
    let info = match vector {
        0 => SigInfo::fault(Signal::SIGFPE, FPE_INTDIV, at),
        1 => SigInfo::fault(Signal::SIGTRAP, TRAP_TRACE, at),
        3 => SigInfo { code: SI_KERNEL, ..kernel(Signal::SIGTRAP) },
        6 => SigInfo::fault(Signal::SIGILL, ILL_ILLOPN, at),
        11 | 12 => kernel(Signal::SIGBUS),
        16 | 19 => SigInfo::fault(Signal::SIGFPE, float_code(fpu::pending_exceptions(vector == 19)), at),
        17 => SigInfo::fault(Signal::SIGBUS, BUS_ADRALN, 0),
        // Overflow, bounds, general protection and everything else.
        _ => kernel(Signal::SIGSEGV),
    };
    *current().trap.lock() = Trap { vector: u64::from(vector), error_code: code, address: 0 };
    send::force(info);
}

/// `si_code` of a `SIGFPE` for these floating-point exceptions (Linux's
/// `fpu__exception_code`).
fn float_code(exceptions: u32) -> i32 {
    const INVALID: u32 = 1;
    const DENORMAL: u32 = 2;
    const DIVISION_BY_ZERO: u32 = 4;
    const OVERFLOW: u32 = 8;
    const UNDERFLOW: u32 = 16;
    const INEXACT: u32 = 32;
    if exceptions & INVALID != 0 {
        FPE_FLTINV
    } else if exceptions & DIVISION_BY_ZERO != 0 {
        FPE_FLTDIV
    } else if exceptions & OVERFLOW != 0 {
        FPE_FLTOVF
    } else if exceptions & (UNDERFLOW | DENORMAL) != 0 {
        FPE_FLTUND
    } else if exceptions & INEXACT != 0 {
        FPE_FLTRES
    } else {
        0
    }
}

/// Called by the timer interrupt, with interrupts disabled. `user`: it
/// interrupted a program, not the kernel.
pub fn tick(user: bool) {
    timer::expire();
    watchdog::tick(user, sched::tick());
    let Some(thread) = try_current() else { return };
    let process = thread.process();
    if user {
        thread.user_ticks.fetch_add(1, Ordering::Relaxed);
        if process.virtual_timer().count() {
            // A standard signal always has room.
            let _ = send::to_process(process, SigInfo::kernel(Signal::SIGVTALRM));
        }
    } else {
        thread.kernel_ticks.fetch_add(1, Ordering::Relaxed);
    }
    if process.profiling_timer().count() {
        // Likewise.
        let _ = send::to_process(process, SigInfo::kernel(Signal::SIGPROF));
    }
    if reclaim::is_needed() || ksm::is_due() || khugepaged::is_due() {
        cpu::set_return_work();
    }
}

/// Between the steps of a long system call, with no spin lock held: lets others
/// run if the current thread's turn is over. Says whether the process is to
/// exit, and the call better ends.
pub fn between_steps() -> bool {
    let Some(thread) = try_current() else { return false };
    if sched::need_resched() {
        sched::yield_now();
    }
    thread.process().is_exiting()
}

/// Called on the way back to user mode, interrupts enabled, when
/// [`crate::arch::cpu::set_return_work`] was called since the last time:
/// delivers signals and reschedules.
pub fn return_to_user(frame: &mut TrapFrame) {
    watchdog::goes_on();
    if sched::need_resched() {
        sched::schedule();
    }
    if current().has_signal_work() {
        signal::deliver::deliver(frame);
    }
    reclaim::balance();
    ksm::scan();
    khugepaged::scan();
}

/// The current process's open files.
///
/// # Errors
/// `EBADF`: it is exiting.
pub fn files() -> Result<Arc<FdTable>, Errno> {
    current().process().files().ok_or(Errno::EBADF)
}

/// Does something to the current process's address space. `f` does not end
/// the thread, nor the program.
///
/// # Errors
/// `EFAULT`: the process is exiting; else that of `f`.
#[inline]
pub fn with_space<T, E: Into<Errno>>(f: impl FnOnce(&Space) -> Result<T, E>) -> Result<T, Errno> {
    let thread = current();
    // SAFETY: the process is the current thread's, and a function that is given an
    // address space has no business with exec and exit.
    let space = unsafe { thread.process().space_of_current() };
    f(space.ok_or(Errno::EFAULT)?).map_err(Into::into)
}
