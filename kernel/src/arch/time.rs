//! Clocks and the tick.
//!
//! Both clocks count time-stamp counter cycles. How long one is, and a count
//! of the local APIC's timer, is measured against the 8254 timer, whose
//! frequency is fixed: started early in the boot ([`Calibration::start`]) and
//! read late, so that nothing has to wait for it. The counters of all CPUs are
//! taken to run alike and to start together, as those of QEMU's do, and those of
//! every machine whose counters Linux calls stable.

use core::arch::x86_64::_rdtsc;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use x86_64::instructions::port::Port;

use super::apic;

/// Interrupts of the tick timer per second.
pub const TICKS_PER_SECOND: u64 = 250;

const NS_PER_SECOND: u64 = 1_000_000_000;

/// Ticks of the 8254 per second.
const PIT_HZ: u64 = 1_193_182;
/// What its 16-bit counter can measure: 55 ms.
const PIT_MAX: u64 = 0xffff;
/// Below this (5 ms) a measurement is not precise enough.
const PIT_MIN: u64 = PIT_HZ / 200;

/// Cycle count that is time 0 of the monotonic clock.
static START_CYCLES: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds per cycle, times 2^32. Until measured: 1 GHz.
static NS_PER_CYCLE: AtomicU64 = AtomicU64::new(1 << 32);
/// Real time at time 0 of the monotonic clock, in nanoseconds since 1970.
static REAL_TIME_OFFSET: AtomicU64 = AtomicU64::new(0);
/// Counts of a local APIC's timer between two ticks.
static TICK_COUNT: AtomicU32 = AtomicU32::new(0);

fn cycles() -> u64 {
    // SAFETY: every x86-64 CPU has the instruction, and nothing forbids it to the kernel.
    unsafe { _rdtsc() }
}

/// Nanoseconds since the kernel started.
pub fn monotonic_ns() -> u64 {
    let elapsed = cycles().wrapping_sub(START_CYCLES.load(Ordering::Relaxed));
    ((u128::from(elapsed) * u128::from(NS_PER_CYCLE.load(Ordering::Relaxed))) >> 32) as u64
}

/// Nanoseconds since the beginning of 1970, UTC.
pub fn realtime_ns() -> u64 {
    REAL_TIME_OFFSET.load(Ordering::Relaxed) + monotonic_ns()
}

/// A measurement under way.
#[derive(Debug)]
pub struct Calibration {
    cycles: u64,
    timer: u32,
}

impl Calibration {
    /// Starts measuring. The local APIC must be on.
    pub fn start() -> Calibration {
        pit::start();
        Calibration { cycles: cycles(), timer: apic::timer_count() }
    }

    /// Ends the measurement, waiting until it is long enough; from now on both
    /// clocks are right, and the tick runs.
    pub fn finish(mut self) {
        let (pit, cycles, timer) = loop {
            match pit::elapsed() {
                Some(pit) if pit >= PIT_MIN => {
                    break (pit, cycles() - self.cycles, apic::timer_count() - self.timer);
                }
                Some(_) => core::hint::spin_loop(),
                // Too late to tell how much time went by.
                None => self = Calibration::start(),
            }
        };
        let hz = (u128::from(cycles) * u128::from(PIT_HZ) / u128::from(pit)).max(1) as u64;
        NS_PER_CYCLE.store(((u128::from(NS_PER_SECOND) << 32) / u128::from(hz)) as u64, Ordering::Relaxed);
        REAL_TIME_OFFSET.store((rtc::read() * NS_PER_SECOND).saturating_sub(monotonic_ns()), Ordering::Relaxed);
        let timer_hz = u64::from(timer) * PIT_HZ / pit;
        TICK_COUNT.store((timer_hz / TICKS_PER_SECOND).clamp(1, u64::from(u32::MAX)) as u32, Ordering::Relaxed);
        start_tick();
    }
}

/// Starts the tick on this CPU, with the period that was measured on the first one.
pub(super) fn start_tick() {
    apic::start_timer(TICK_COUNT.load(Ordering::Relaxed));
}

/// Makes this moment time 0 of the monotonic clock.
pub fn init() {
    START_CYCLES.store(cycles(), Ordering::Relaxed);
}

/// Channel 2 of the 8254 interval timer, the one that can be read without interrupts.
mod pit {
    use super::{PIT_MAX, Port};

    const CHANNEL_2: u16 = 0x42;
    const COMMAND: u16 = 0x43;
    const CONTROL: u16 = 0x61;

    const COMMAND_ONE_SHOT_CHANNEL_2: u8 = 0b1011_0000;
    const COMMAND_LATCH_CHANNEL_2: u8 = 0b1000_0000;
    const CONTROL_GATE: u8 = 1 << 0;
    const CONTROL_SPEAKER: u8 = 1 << 1;
    const CONTROL_OUTPUT: u8 = 1 << 5;

    fn write(port: u16, value: u8) {
        // SAFETY: a register of the timer, which touches no memory.
        unsafe { Port::new(port).write(value) }
    }

    fn read(port: u16) -> u8 {
        // SAFETY: as in `write`.
        unsafe { Port::new(port).read() }
    }

    /// Starts counting down from [`PIT_MAX`].
    pub fn start() {
        write(CONTROL, read(CONTROL) & !CONTROL_SPEAKER | CONTROL_GATE);
        write(COMMAND, COMMAND_ONE_SHOT_CHANNEL_2);
        write(CHANNEL_2, PIT_MAX as u8);
        write(CHANNEL_2, (PIT_MAX >> 8) as u8);
    }

    /// Ticks since [`start`], unless the counter has reached 0.
    pub fn elapsed() -> Option<u64> {
        write(COMMAND, COMMAND_LATCH_CHANNEL_2);
        let count = u64::from(read(CHANNEL_2)) | u64::from(read(CHANNEL_2)) << 8;
        if read(CONTROL) & CONTROL_OUTPUT == 0 { Some(PIT_MAX.saturating_sub(count)) } else { None }
    }
}

/// The battery-backed clock.
mod rtc {
    use super::Port;

    const STATUS_A: u8 = 0x0a;
    const STATUS_B: u8 = 0x0b;
    const A_UPDATE_IN_PROGRESS: u8 = 1 << 7;
    const B_24_HOURS: u8 = 1 << 1;
    const B_BINARY: u8 = 1 << 2;
    const PM: u8 = 1 << 7;

    fn register(index: u8) -> u8 {
        // SAFETY: reading a register of the clock touches no memory.
        unsafe {
            Port::new(0x70).write(index);
            Port::new(0x71).read()
        }
    }

    /// Seconds, minutes, hours, day, month, year as the registers have them.
    fn registers() -> [u8; 6] {
        while register(STATUS_A) & A_UPDATE_IN_PROGRESS != 0 {
            core::hint::spin_loop();
        }
        [0x00, 0x02, 0x04, 0x07, 0x08, 0x09].map(register)
    }

    /// Seconds since the beginning of 1970. The clock is taken to be in UTC,
    /// and in the years from 2000 to 2099.
    pub fn read() -> u64 {
        // Read until two agree: an update may begin at any time.
        let mut raw = registers();
        loop {
            let again = registers();
            if again == raw {
                break;
            }
            raw = again;
        }
        let mode = register(STATUS_B);
        let number =
            |value: u8| u64::from(if mode & B_BINARY != 0 { value } else { (value >> 4) * 10 + (value & 0xf) });
        let mut hour = number(raw[2] & !PM);
        if mode & B_24_HOURS == 0 {
            hour = hour % 12 + if raw[2] & PM != 0 { 12 } else { 0 };
        }
        let days = days_since_1970(2000 + number(raw[5]), number(raw[4]), number(raw[3]));
        ((days * 24 + hour) * 60 + number(raw[1])) * 60 + number(raw[0])
    }

    /// Days from 1970-01-01 to a date from 2000 to 2099.
    fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
        const DAYS_BEFORE_MONTH: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        const DAYS_TO_2000: u64 = 10957;
        let years = year - 2000;
        let before = DAYS_BEFORE_MONTH[(month.clamp(1, 12) - 1) as usize];
        // 2000 was a leap year, and so is every fourth one since.
        let leap_days = years.div_ceil(4) + u64::from(years.is_multiple_of(4) && month > 2);
        DAYS_TO_2000 + years * 365 + leap_days + before + day.max(1) - 1
    }
}
