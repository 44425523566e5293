//! Processes and threads.

pub mod wait;

use crate::arch::TrapFrame;
use crate::arch::trap::PageFaultCode;

/// A page fault of a user program: resolves it or raises the signal.
pub fn page_fault(_frame: &mut TrapFrame, _addr: usize, _code: PageFaultCode) {}

/// A page fault of a user-memory access of the kernel's own ([`crate::arch::usercopy`]),
/// at a user address: whether it was resolved, so that the access can go on.
pub fn kernel_page_fault(_addr: usize, _code: PageFaultCode) -> bool {
    false
}

/// Any other exception of a user program: raises the signal.
pub fn user_exception(_frame: &mut TrapFrame, _vector: u8, _code: u64) {}

/// Called by the timer interrupt, with interrupts disabled.
pub fn tick() {}

/// Called on the way back to user mode, interrupts enabled, when
/// [`crate::arch::cpu::set_return_work`] was called since the last time:
/// delivers signals and reschedules.
pub fn return_to_user(_frame: &mut TrapFrame) {}

/// First thing on a new thread's stack: completes the switch to it.
pub fn finish_switch() {}

/// Starts the first process from what `fw_cfg` describes, and runs threads ever after.
pub fn run() -> ! {
    crate::drivers::debug_exit::exit(127)
}
