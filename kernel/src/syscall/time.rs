//! Clocks, sleeping, interval timers, and time used.

use core::sync::atomic::Ordering;

use mm::Errno;

use super::{Args, Result};
use crate::arch::time;
use crate::arch::usercopy::{Plain, read_user, write_user};
use crate::errno::{ERESTART_RESTARTBLOCK, ERESTARTNOHAND};
use crate::task::exit::CLOCK_TICK_NS;
use crate::task::process::{TickTimer, Usage};
use crate::task::thread::{Restart, current};
use crate::task::{NEVER, Process, table, wait};

const NS_PER_SECOND: u64 = 1_000_000_000;
const NS_PER_US: u64 = 1000;
const NS_PER_TICK: u64 = NS_PER_SECOND / time::TICKS_PER_SECOND;

/// `struct timespec`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

// SAFETY: integers of one size only, hence no padding.
unsafe impl Plain for Timespec {}

impl Timespec {
    /// That many nanoseconds.
    pub fn from_ns(ns: u64) -> Timespec {
        Timespec { seconds: (ns / NS_PER_SECOND) as i64, nanoseconds: (ns % NS_PER_SECOND) as i64 }
    }

    /// As it stands at user address `address`.
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn read(address: usize) -> core::result::Result<Timespec, Errno> {
        read_user(address)
    }

    /// Stores it at user address `address`.
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn write(self, address: usize) -> core::result::Result<(), Errno> {
        write_user(address, self)
    }

    /// In nanoseconds; more than there are is the same as never.
    ///
    /// # Errors
    /// `EINVAL`: negative, or not a proper fraction.
    pub fn to_duration(self) -> core::result::Result<u64, Errno> {
        if self.seconds < 0 || !(0..NS_PER_SECOND as i64).contains(&self.nanoseconds) {
            return Err(Errno::EINVAL);
        }
        let seconds = (self.seconds as u64).saturating_mul(NS_PER_SECOND);
        Ok(seconds.saturating_add(self.nanoseconds as u64))
    }
}

/// `struct timeval`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Timeval {
    seconds: i64,
    microseconds: i64,
}

// SAFETY: integers of one size only, hence no padding.
unsafe impl Plain for Timeval {}

impl Timeval {
    fn from_ns(ns: u64) -> Timeval {
        Timeval { seconds: (ns / NS_PER_SECOND) as i64, microseconds: (ns % NS_PER_SECOND / NS_PER_US) as i64 }
    }

    fn to_duration(self) -> core::result::Result<u64, Errno> {
        if !(0..1_000_000).contains(&self.microseconds) {
            return Err(Errno::EINVAL);
        }
        let nanoseconds = self.microseconds * NS_PER_US as i64;
        Timespec { seconds: self.seconds, nanoseconds }.to_duration()
    }
}

/// The monotonic time at which the real-time clock shows `moment`.
pub fn realtime_to_monotonic(moment: u64) -> u64 {
    let offset = time::realtime_ns().saturating_sub(time::monotonic_ns());
    moment.saturating_sub(offset)
}

/// A clock that programs can name.
#[derive(Clone, Copy)]
enum Clock {
    Realtime,
    Monotonic,
    ProcessCpu,
    ThreadCpu,
}

impl Clock {
    fn new(id: u64) -> core::result::Result<Clock, Errno> {
        Ok(match id as u32 {
            // CLOCK_REALTIME, _COARSE, _ALARM, CLOCK_TAI
            0 | 5 | 8 | 11 => Clock::Realtime,
            // CLOCK_MONOTONIC, _RAW, _COARSE, CLOCK_BOOTTIME, _ALARM
            1 | 4 | 6 | 7 | 9 => Clock::Monotonic,
            2 => Clock::ProcessCpu,
            3 => Clock::ThreadCpu,
            _ => return Err(Errno::EINVAL),
        })
    }

    fn now(self) -> u64 {
        match self {
            Clock::Realtime => time::realtime_ns(),
            Clock::Monotonic => time::monotonic_ns(),
            Clock::ProcessCpu => {
                let usage = current().process().usage();
                usage.user + usage.system
            }
            Clock::ThreadCpu => current().cpu_time(),
        }
    }
}

pub fn clock_gettime(args: &Args) -> Result {
    let now = match cpu_clock(args[0])? {
        Some(time) => time,
        None => Clock::new(args[0])?.now(),
    };
    Timespec::from_ns(now).write(args[1] as usize)?;
    Ok(0)
}

/// The CPU-time clock of a process or thread that a negative number names: all
/// but the low three bits, inverted, are its number; bit 2 says thread.
fn cpu_clock(id: u64) -> core::result::Result<Option<u64>, Errno> {
    let id = id as i32;
    if id >= 0 {
        return Ok(None);
    }
    let number = !(id >> 3) as u32;
    let time = match (id & 4 != 0, number) {
        (true, 0) => current().cpu_time(),
        (true, tid) => table::thread(tid).ok_or(Errno::EINVAL)?.cpu_time(),
        (false, 0) => Clock::ProcessCpu.now(),
        (false, pid) => {
            let usage = table::process(pid).ok_or(Errno::EINVAL)?.usage();
            usage.user + usage.system
        }
    };
    Ok(Some(time))
}

pub fn clock_getres(args: &Args) -> Result {
    let coarse = matches!(args[0], 5 | 6);
    if cpu_clock(args[0])?.is_none() {
        Clock::new(args[0])?;
    }
    if args[1] != 0 {
        let resolution = if coarse { NS_PER_TICK } else { 1 };
        Timespec::from_ns(resolution).write(args[1] as usize)?;
    }
    Ok(0)
}

pub fn gettimeofday(args: &Args) -> Result {
    let [now, zone, ..] = *args;
    if now != 0 {
        write_user(now as usize, Timeval::from_ns(time::realtime_ns()))?;
    }
    if zone != 0 {
        // UTC, without daylight saving time.
        write_user(zone as usize, [0u32; 2])?;
    }
    Ok(0)
}

pub fn time(args: &Args) -> Result {
    let now = time::realtime_ns() / NS_PER_SECOND;
    if args[0] != 0 {
        write_user(args[0] as usize, now)?;
    }
    Ok(now as usize)
}

pub fn nanosleep(args: &Args) -> Result {
    let duration = Timespec::read(args[0] as usize)?.to_duration()?;
    sleep(time::monotonic_ns().saturating_add(duration), Some(args[1] as usize))
}

/// Sleeps until `deadline` (monotonic nanoseconds). `remaining`: the sleep was
/// for a duration; what is left of it goes to that address (0: nowhere) when a
/// signal interrupts it, and `restart_syscall` goes on.
pub fn sleep(deadline: u64, remaining: Option<usize>) -> Result {
    if wait::sleep_until(deadline).is_ok() {
        return Ok(0);
    }
    let Some(remaining) = remaining else { return Err(ERESTARTNOHAND) };
    if remaining != 0 {
        let left = deadline.saturating_sub(time::monotonic_ns());
        Timespec::from_ns(left).write(remaining)?;
    }
    current().set_restart(Restart::Sleep { deadline, remaining });
    Err(ERESTART_RESTARTBLOCK)
}

pub fn clock_nanosleep(args: &Args) -> Result {
    const TIMER_ABSTIME: u64 = 1;
    let [id, flags, request, remaining, ..] = *args;
    let clock = Clock::new(id)?;
    let moment = Timespec::read(request as usize)?.to_duration()?;
    let absolute = flags & TIMER_ABSTIME != 0;
    match clock {
        Clock::ThreadCpu => Err(Errno::EINVAL),
        Clock::ProcessCpu => Err(Errno::EOPNOTSUPP),
        Clock::Realtime if absolute => sleep(realtime_to_monotonic(moment), None),
        Clock::Monotonic if absolute => sleep(moment, None),
        _ => {
            let deadline = time::monotonic_ns().saturating_add(moment);
            sleep(deadline, Some(remaining as usize))
        }
    }
}

/// `struct itimerval`: interval, then value.
type IntervalTimer = [i64; 4];

fn interval_timer(interval: u64, value: u64) -> IntervalTimer {
    let (interval, value) = (Timeval::from_ns(interval), Timeval::from_ns(value));
    [interval.seconds, interval.microseconds, value.seconds, value.microseconds]
}

const ITIMER_REAL: u64 = 0;
const ITIMER_VIRTUAL: u64 = 1;
const ITIMER_PROF: u64 = 2;

/// A timer's interval and time left, in nanoseconds.
fn read_timer(process: &Process, which: u64) -> core::result::Result<(u64, u64), Errno> {
    match which {
        ITIMER_REAL => Ok(real_timer(crate::task::alarm(process))),
        ITIMER_VIRTUAL => Ok(tick_timer(process.virtual_timer())),
        ITIMER_PROF => Ok(tick_timer(process.profiling_timer())),
        _ => Err(Errno::EINVAL),
    }
}

/// Interval and time left of a timer with this deadline and interval.
fn real_timer((deadline, interval): (u64, u64)) -> (u64, u64) {
    let left = match deadline {
        NEVER => 0,
        // What is due but has not been delivered yet is not "not set".
        deadline => deadline.saturating_sub(time::monotonic_ns()).max(NS_PER_US),
    };
    (interval, left)
}

fn tick_timer(timer: &TickTimer) -> (u64, u64) {
    let interval = timer.interval.load(Ordering::Relaxed) * NS_PER_TICK;
    (interval, timer.left.load(Ordering::Relaxed) * NS_PER_TICK)
}

pub fn getitimer(args: &Args) -> Result {
    let (interval, value) = read_timer(current().process(), args[0])?;
    write_user(args[1] as usize, interval_timer(interval, value))?;
    Ok(0)
}

pub fn setitimer(args: &Args) -> Result {
    let [which, new, old, ..] = *args;
    let new: IntervalTimer = match new {
        0 => [0; 4],
        address => read_user(address as usize)?,
    };
    let duration = |at: usize| Timeval { seconds: new[at], microseconds: new[at + 1] }.to_duration();
    let (interval, value) = (duration(0)?, duration(2)?);
    let process = current().process().clone();
    let was = match which {
        ITIMER_REAL => real_timer(set_real_timer(&process, interval, value)),
        ITIMER_VIRTUAL => set_tick_timer(process.virtual_timer(), interval, value),
        ITIMER_PROF => set_tick_timer(process.profiling_timer(), interval, value),
        _ => return Err(Errno::EINVAL),
    };
    if old != 0 {
        write_user(old as usize, interval_timer(was.0, was.1))?;
    }
    Ok(0)
}

fn set_real_timer(process: &Process, interval: u64, value: u64) -> (u64, u64) {
    match value {
        0 => crate::task::set_alarm(process, NEVER, 0),
        value => {
            let deadline = time::monotonic_ns().saturating_add(value);
            crate::task::set_alarm(process, deadline, interval)
        }
    }
}

fn set_tick_timer(timer: &TickTimer, interval: u64, value: u64) -> (u64, u64) {
    let was = tick_timer(timer);
    timer.interval.store(interval.div_ceil(NS_PER_TICK), Ordering::Relaxed);
    timer.left.store(value.div_ceil(NS_PER_TICK), Ordering::Relaxed);
    was
}

pub fn alarm(args: &Args) -> Result {
    let value = u64::from(args[0] as u32) * NS_PER_SECOND;
    let (_, left) = real_timer(set_real_timer(current().process(), 0, value));
    // Rounded to the nearest second, but not to "not set".
    let seconds = (left + NS_PER_SECOND / 2) / NS_PER_SECOND;
    Ok(if left > 0 { seconds.max(1) } else { 0 } as usize)
}

pub fn times(args: &Args) -> Result {
    let process = current().process().clone();
    let (own, children) = (process.usage(), process.children_usage());
    let ticks = |ns: u64| ns / CLOCK_TICK_NS;
    if args[0] != 0 {
        let values = [own.user, own.system, children.user, children.system].map(ticks);
        write_user(args[0] as usize, values)?;
    }
    Ok(ticks(time::monotonic_ns()) as usize)
}

pub fn getrusage(args: &Args) -> Result {
    const RUSAGE_SELF: i32 = 0;
    const RUSAGE_CHILDREN: i32 = -1;
    const RUSAGE_THREAD: i32 = 1;
    let thread = current();
    let usage = match args[0] as i32 {
        RUSAGE_SELF => thread.process().usage(),
        RUSAGE_CHILDREN => thread.process().children_usage(),
        RUSAGE_THREAD => Usage::of_thread(&thread),
        _ => return Err(Errno::EINVAL),
    };
    write_usage(args[1] as usize, &usage)?;
    Ok(0)
}

/// Stores `usage` as a `struct rusage` at user address `address`.
pub fn write_usage(address: usize, usage: &Usage) -> core::result::Result<(), Errno> {
    let (user, system) = (Timeval::from_ns(usage.user), Timeval::from_ns(usage.system));
    let mut words = [0i64; 18];
    words[..4].copy_from_slice(&[user.seconds, user.microseconds, system.seconds, system.microseconds]);
    words[4] = usage.max_rss as i64;
    words[6] = usage.faults as i64;
    words[14] = usage.voluntary as i64;
    words[15] = usage.involuntary as i64;
    write_user(address, words)
}
