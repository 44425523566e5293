//! The processor: everything that is x86-64 rather than kernel.
//!
//! What always holds once [`init`] is through: `GS` points to this CPU's
//! [`cpu::Cpu`] while the kernel runs and to whatever the program chose while
//! it does not; the kernel executes no SSE or x87 instruction, so the FPU
//! registers are always those of the current thread's program; the kernel is
//! never preempted, only interrupted.

pub mod acpi;
mod apic;
pub mod backtrace;
pub mod context;
pub mod cpu;
mod entry;
pub mod fpu;
mod gdt;
pub mod irq;
pub mod paging;
mod pic;
pub mod random;
pub mod shootdown;
pub mod smp;
pub mod stack;
pub mod time;
pub mod trap;
pub mod usercopy;

use core::arch::asm;

use mm::{Errno, PAGE_SIZE, PhysAddr};

use crate::drivers::serial;
pub use trap::TrapFrame;

static BOOT_CPU: cpu::Cpu = cpu::Cpu::new(0);

const BOOT_STACK_SIZE: usize = 512 * 1024;

/// The stack that the first CPU runs on until there are threads, and idles on
/// afterwards. Its first page is not mapped.
#[repr(align(4096))]
struct BootStack(core::cell::UnsafeCell<[u8; PAGE_SIZE + BOOT_STACK_SIZE]>);

// SAFETY: not accessed but as the stack of one CPU.
unsafe impl Sync for BootStack {}

static BOOT_STACK: BootStack = BootStack(core::cell::UnsafeCell::new([0; _]));

/// The page below the boot stack, not to be mapped.
pub fn boot_stack_guard() -> usize {
    BOOT_STACK.0.get() as usize
}

/// The end of the boot stack, if that is where `rsp` points to.
fn boot_stack_top(rsp: usize) -> Option<usize> {
    let start = BOOT_STACK.0.get() as usize + PAGE_SIZE;
    (start..start + BOOT_STACK_SIZE).contains(&rsp).then_some(start + BOOT_STACK_SIZE)
}

/// Leaves the bootloader's page tables and stack for `root` and the boot
/// stack, and calls `entry`.
///
/// # Safety
///
/// `root` maps the kernel where it is, boot stack included, and its direct map.
/// Called once.
pub unsafe fn enter_kernel(root: PhysAddr, entry: extern "C" fn() -> !) -> ! {
    let stack = BOOT_STACK.0.get() as usize + PAGE_SIZE + BOOT_STACK_SIZE;
    // SAFETY: the caller vouches for the tables; nothing on the old stack is used again.
    unsafe {
        asm!("mov cr3, {}", "mov rsp, {}", "xor ebp, ebp", "call {}", "ud2",
            in(reg) root.as_u64(), in(reg) stack, in(reg) entry, options(noreturn));
    }
}

/// Sets up the processor: segments, exceptions, system calls, the FPU.
pub fn init() {
    irq::disable();
    // SAFETY: the first CPU installs its own data, once, with interrupts disabled.
    unsafe { cpu::install(&BOOT_CPU) };
    if paging::enable_pcids() {
        BOOT_CPU.tlb().use_pcids();
    }
    trap::init();
    entry::init();
    fpu::init();
}

/// Sets up interrupt controllers and starts to measure the timers. Interrupts
/// are still disabled.
///
/// # Errors
///
/// `ENOMEM` when there is no memory to map registers.
pub fn init_devices() -> Result<time::Calibration, Errno> {
    pic::init();
    pic::enable(serial::CONSOLE_IRQ);
    apic::init()?;
    Ok(time::Calibration::start())
}

/// Stops this CPU for good.
pub fn halt_forever() -> ! {
    irq::disable();
    loop {
        x86_64::instructions::hlt();
    }
}
