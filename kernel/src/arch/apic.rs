//! The CPU's local APIC: its timer, the way of the 8259's interrupts to the first
//! CPU, and interrupts from one CPU to another.

use core::sync::atomic::{AtomicUsize, Ordering};

use mm::{Errno, PhysAddr};
use x86_64::registers::model_specific::Msr;

use super::trap::{SPURIOUS_VECTOR, TIMER_VECTOR};
use super::{cpu, irq, paging};

const MSR_APIC_BASE: u32 = 0x1b;
const APIC_BASE_ENABLED: u64 = 1 << 11;
const APIC_BASE_X2APIC: u64 = 1 << 10;
const APIC_BASE_ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// The register at MMIO offset `r` is MSR `0x800 + r / 16` in x2APIC mode.
const MSR_X2APIC: u32 = 0x800;

const ID: u32 = 0x20;
const END_OF_INTERRUPT: u32 = 0xb0;
const SPURIOUS: u32 = 0xf0;
const COMMAND: u32 = 0x300;
/// Where the other half of the command is, but for x2APIC mode.
const COMMAND_DESTINATION: u32 = 0x310;
const LVT_TIMER: u32 = 0x320;
const LVT_LINT0: u32 = 0x350;
const TIMER_INITIAL_COUNT: u32 = 0x380;
const TIMER_CURRENT_COUNT: u32 = 0x390;
const TIMER_DIVIDE: u32 = 0x3e0;

const SOFTWARE_ENABLED: u32 = 1 << 8;
const DELIVER_EXTERNAL: u32 = 0b111 << 8;
const DELIVER_NMI: u32 = 0b100 << 8;
const DELIVER_INIT: u32 = 0b101 << 8;
const DELIVER_STARTUP: u32 = 0b110 << 8;
const ASSERT: u32 = 1 << 14;
const COMMAND_PENDING: u32 = 1 << 12;
const LVT_MASKED: u32 = 1 << 16;
const TIMER_PERIODIC: u32 = 1 << 17;
const DIVIDE_BY_16: u32 = 0b0011;

/// Where the registers are mapped; 0: reached as MSRs (x2APIC mode).
static REGISTERS: AtomicUsize = AtomicUsize::new(0);

fn write(register: u32, value: u32) {
    let base = REGISTERS.load(Ordering::Relaxed);
    if base == 0 {
        // SAFETY: an MSR of the x2APIC, which is what a base of 0 says there is.
        unsafe { Msr::new(MSR_X2APIC + register / 16).write(u64::from(value)) };
    } else {
        // SAFETY: `init` mapped the page of registers there.
        unsafe { ((base + register as usize) as *mut u32).write_volatile(value) };
    }
}

fn read(register: u32) -> u32 {
    let base = REGISTERS.load(Ordering::Relaxed);
    if base == 0 {
        // SAFETY: as in `write`.
        unsafe { Msr::new(MSR_X2APIC + register / 16).read() as u32 }
    } else {
        // SAFETY: as in `write`.
        unsafe { ((base + register as usize) as *const u32).read_volatile() }
    }
}

/// Turns the local APIC on, with 8259 interrupts coming through and the timer
/// counting down from its largest value, silently.
///
/// # Errors
///
/// `ENOMEM` when there is no memory to map its registers.
pub fn init() -> Result<(), Errno> {
    let mut msr = Msr::new(MSR_APIC_BASE);
    // SAFETY: every x86-64 CPU has a local APIC and this MSR.
    let base = unsafe { msr.read() };
    if base & APIC_BASE_X2APIC == 0 {
        let frame = PhysAddr::new_truncate(base & APIC_BASE_ADDRESS);
        // SAFETY: the MSR says that the registers are there.
        REGISTERS.store(unsafe { paging::map_device(frame)? }, Ordering::Relaxed);
        // SAFETY: turns the APIC on where it is.
        unsafe { msr.write(base | APIC_BASE_ENABLED) };
    }
    write(SPURIOUS, SOFTWARE_ENABLED | u32::from(SPURIOUS_VECTOR));
    write(LVT_LINT0, DELIVER_EXTERNAL);
    write(TIMER_DIVIDE, DIVIDE_BY_16);
    write(LVT_TIMER, LVT_MASKED | u32::from(TIMER_VECTOR));
    write(TIMER_INITIAL_COUNT, u32::MAX);
    cpu::set_apic_id(id());
    Ok(())
}

/// Turns the local APIC of another than the first CPU on, in the mode of the
/// first one's; only its timer and other CPUs interrupt it.
pub fn init_secondary() {
    let mut msr = Msr::new(MSR_APIC_BASE);
    let x2apic = if REGISTERS.load(Ordering::Relaxed) == 0 { APIC_BASE_X2APIC } else { 0 };
    // SAFETY: as in `init`; the first CPU has that mode, so this one has it too.
    unsafe {
        let base = msr.read();
        msr.write(base | APIC_BASE_ENABLED | x2apic);
    }
    write(SPURIOUS, SOFTWARE_ENABLED | u32::from(SPURIOUS_VECTOR));
    write(LVT_LINT0, LVT_MASKED);
    write(TIMER_DIVIDE, DIVIDE_BY_16);
    cpu::set_apic_id(id());
}

/// The number of this CPU's local APIC.
pub fn id() -> u32 {
    let value = read(ID);
    if REGISTERS.load(Ordering::Relaxed) == 0 { value } else { value >> 24 }
}

/// Whether [`send`] and its kin reach the local APIC with this number.
pub fn is_reachable(id: u32) -> bool {
    const BROADCAST: u32 = 0xff;
    REGISTERS.load(Ordering::Relaxed) == 0 || id < BROADCAST
}

/// Interrupts another CPU.
pub fn send(to: u32, vector: u8) {
    command(to, ASSERT | u32::from(vector));
}

/// Interrupts another CPU even where it keeps interrupts disabled.
pub fn send_nmi(to: u32) {
    command(to, ASSERT | DELIVER_NMI);
}

/// Makes another CPU wait for [`send_startup`].
pub fn send_init(to: u32) {
    command(to, ASSERT | DELIVER_INIT);
}

/// Makes a CPU that has been sent INIT begin in real mode at the start of the
/// frame `page`, which is below 1 MiB.
pub fn send_startup(to: u32, page: u8) {
    command(to, ASSERT | DELIVER_STARTUP | u32::from(page));
}

fn command(to: u32, value: u32) {
    if REGISTERS.load(Ordering::Relaxed) == 0 {
        // An MSR of the x2APIC orders nothing.
        core::sync::atomic::fence(Ordering::SeqCst);
        // SAFETY: as in `write`.
        unsafe { Msr::new(MSR_X2APIC + COMMAND / 16).write(u64::from(to) << 32 | u64::from(value)) };
        return;
    }
    // An interrupt handler may send too.
    let enabled = irq::are_enabled();
    irq::disable();
    while read(COMMAND) & COMMAND_PENDING != 0 {
        core::hint::spin_loop();
    }
    write(COMMAND_DESTINATION, to << 24);
    write(COMMAND, value);
    if enabled {
        irq::enable();
    }
}

/// How far the timer has counted since [`init`].
pub fn timer_count() -> u32 {
    u32::MAX - read(TIMER_CURRENT_COUNT)
}

/// Makes the timer interrupt every `count` of its counts.
pub fn start_timer(count: u32) {
    write(LVT_TIMER, TIMER_PERIODIC | u32::from(TIMER_VECTOR));
    write(TIMER_INITIAL_COUNT, count);
}

/// Lets the next interrupt of the local APIC's own come.
pub fn end_of_interrupt() {
    write(END_OF_INTERRUPT, 0);
}
