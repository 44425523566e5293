//! The CPU's local APIC: its timer, and the way of the 8259's interrupts to it.

use core::sync::atomic::{AtomicUsize, Ordering};

use mm::{Errno, PhysAddr};
use x86_64::registers::model_specific::Msr;

use super::paging;
use super::trap::{SPURIOUS_VECTOR, TIMER_VECTOR};

const MSR_APIC_BASE: u32 = 0x1b;
const APIC_BASE_ENABLED: u64 = 1 << 11;
const APIC_BASE_X2APIC: u64 = 1 << 10;
const APIC_BASE_ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// The register at MMIO offset `r` is MSR `0x800 + r / 16` in x2APIC mode.
const MSR_X2APIC: u32 = 0x800;

const END_OF_INTERRUPT: u32 = 0xb0;
const SPURIOUS: u32 = 0xf0;
const LVT_TIMER: u32 = 0x320;
const LVT_LINT0: u32 = 0x350;
const TIMER_INITIAL_COUNT: u32 = 0x380;
const TIMER_CURRENT_COUNT: u32 = 0x390;
const TIMER_DIVIDE: u32 = 0x3e0;

const SOFTWARE_ENABLED: u32 = 1 << 8;
const DELIVER_EXTERNAL: u32 = 0b111 << 8;
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
    Ok(())
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
