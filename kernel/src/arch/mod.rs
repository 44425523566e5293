//! The processor: everything that is x86-64 rather than kernel.
//!
//! What always holds once [`init`] is through: `GS` points to this CPU's
//! [`cpu::Cpu`] while the kernel runs and to whatever the program chose while
//! it does not; the kernel executes no SSE or x87 instruction, so the FPU
//! registers are always those of the current thread's program; the kernel is
//! never preempted, only interrupted.

pub mod context;
pub mod cpu;
pub mod fpu;
pub mod irq;
pub mod stack;
pub mod time;
pub mod trap;
pub mod usercopy;

pub use trap::TrapFrame;

/// Stops this CPU for good.
pub fn halt_forever() -> ! {
    irq::disable();
    loop {
        x86_64::instructions::hlt();
    }
}
