//! Notices that nothing goes on any more, says where every CPU is, and ends the
//! machine. Sleeps until the kernel's option `watchdog` wakes it.
//!
//! It bites when, for so many seconds, a CPU
//! - is in one call, fault or interrupt, and switches to no other thread;
//! - waits for a lock, or for another CPU's TLB, with interrupts disabled, or takes no
//!   timer interrupt at all;
//! - has threads waiting in its queue, and switches to none of them.
//!
//! So wherever there are threads that could run, some call ends, some fault is
//! resolved, some program executes: or else this says why not. What it needs to
//! know costs nothing while all is well: the timer interrupt that finds a CPU in the
//! kernel leaves a mark, which is gone when the CPU returns to a program.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use mm::{CpuSet, MAX_CPUS};

use super::process::Space;
use super::thread::try_current;
use crate::arch::TrapFrame;
use crate::arch::backtrace::Backtrace;
use crate::arch::{cpu, halt_forever, irq, smp, time};
use crate::drivers::debug_exit;
use crate::log::write_line_unlocked;

/// How long it lets things be, in nanoseconds; 0: for ever.
static LIMIT: AtomicU64 = AtomicU64::new(0);
/// It has bitten.
static BITES: AtomicBool = AtomicBool::new(false);
/// The CPUs that have said where they are.
static SAID: AtomicU64 = AtomicU64::new(0);

/// How long is waited for a CPU to say where it is.
const ANSWER_NS: u64 = 2_000_000_000;

/// What is known of one CPU. Times are those of the monotonic clock; 0 is none.
struct Watch {
    /// When a timer interrupt first found it in the kernel, since it was elsewhere.
    in_kernel: AtomicU64,
    /// Its last timer interrupt.
    tick: AtomicU64,
}

static WATCHES: [Watch; MAX_CPUS] =
    [const { Watch { in_kernel: AtomicU64::new(0), tick: AtomicU64::new(0) } }; MAX_CPUS];

/// From now on it bites when nothing happens for `seconds`.
pub fn wake_up(seconds: u64) {
    LIMIT.store(seconds.saturating_mul(1_000_000_000), Ordering::Relaxed);
}

/// This CPU goes on: it returns to a program, or switches to another thread.
#[inline]
pub(super) fn goes_on() {
    WATCHES[cpu::id()].in_kernel.store(0, Ordering::Relaxed);
}

/// A timer interrupt, which has interrupted a program or (not `user`) the kernel.
/// Interrupts are disabled. `waiting`: for how many ticks there have been threads
/// in the queue, and no switch.
pub(super) fn tick(user: bool, waiting: u32) {
    let limit = LIMIT.load(Ordering::Relaxed);
    if limit == 0 {
        return;
    }
    let now = time::monotonic_ns();
    let this = &WATCHES[cpu::id()];
    let last = this.tick.swap(now, Ordering::Relaxed);
    let since = this.in_kernel.load(Ordering::Relaxed);
    if user || try_current().is_none() {
        goes_on();
    } else if since == 0 {
        this.in_kernel.store(now, Ordering::Relaxed);
        // On the way out it is found that this is over.
        cpu::set_return_work();
    }
    if now.saturating_sub(last) > limit / 4 {
        // All the machine has stood still, or only begins.
        this.in_kernel.store(0, Ordering::Relaxed);
        return;
    }
    if since != 0 && now.saturating_sub(since) > limit {
        bite(format_args!("CPU {} does not leave the kernel", cpu::id()));
    }
    if u64::from(waiting) * (1_000_000_000 / time::TICKS_PER_SECOND) > limit {
        bite(format_args!("CPU {} does not switch, and threads wait", cpu::id()));
    }
    for id in cpu::online().iter() {
        let tick = WATCHES[id].tick.load(Ordering::Relaxed);
        if tick != 0 && now.saturating_sub(tick) > limit {
            bite(format_args!("CPU {id} takes no interrupts"));
        }
    }
}

/// This CPU waits with interrupts disabled, which keeps the tick away.
#[cold]
pub fn waits() {
    let limit = LIMIT.load(Ordering::Relaxed);
    if limit == 0 {
        return;
    }
    let tick = WATCHES[cpu::id()].tick.load(Ordering::Relaxed);
    if tick != 0 && time::monotonic_ns().saturating_sub(tick) > limit {
        bite(format_args!("CPU {} waits with interrupts disabled", cpu::id()));
    }
}

/// How this CPU is to hang, to see what happens then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Hang {
    /// Not at all.
    No,
    /// It waits for a lock that it holds.
    Lock,
    /// It waits for a lock that interrupt handlers take, and that it holds.
    InterruptLock,
    /// It does nothing at all, with interrupts disabled.
    Silently,
}

static HANG: AtomicU8 = AtomicU8::new(Hang::No as u8);

/// The next process that gives its address space up hangs.
pub fn hang_later(how: Hang) {
    HANG.store(how as u8, Ordering::Relaxed);
}

/// Hangs if [`hang_later`] was called, over what the current process does to `space`.
pub(super) fn hang_now(space: &Space) {
    let how = HANG.load(Ordering::Relaxed);
    if how == Hang::Lock as u8 {
        space.for_each_vma(|_| {
            let lock = irq::Mutex::new(());
            let _held = lock.lock();
            let _never = lock.lock();
        });
    } else if how == Hang::InterruptLock as u8 {
        let lock = irq::IrqMutex::new(());
        let _held = lock.lock();
        let _never = lock.lock();
    } else if how == Hang::Silently as u8 {
        halt_forever();
    }
}

/// Says where all CPUs are, and ends the machine.
fn bite(reason: fmt::Arguments<'_>) -> ! {
    irq::disable();
    if BITES.swap(true, Ordering::SeqCst) {
        // Another one does, and asks this one too.
        halt_forever();
    }
    write_line_unlocked(format_args!("watchdog: {reason}"));
    let this = cpu::id();
    write_line_unlocked(format_args!("CPU {this}:{}", Backtrace::here()));
    say_locks(this);
    for other in cpu::online().iter().filter(|&id| id != this) {
        smp::ask_where(other);
        let end = time::monotonic_ns() + ANSWER_NS;
        while !CpuSet(SAID.load(Ordering::SeqCst)).contains(other) {
            if time::monotonic_ns() > end {
                write_line_unlocked(format_args!("CPU {other} does not say where it is"));
                break;
            }
            core::hint::spin_loop();
        }
    }
    debug_exit::panic()
}

/// Says which locks of `mm` this CPU holds or waits for, in a build that knows.
fn say_locks(this: usize) {
    mm::locks_held(this, |what, address| {
        write_line_unlocked(format_args!("CPU {this} has, or waits for, the {what} lock at {address:#x}"));
    });
}

/// A non-maskable interrupt at `frame`: if another CPU wants to know where this one
/// is, says so and stops.
pub fn answer(frame: &TrapFrame) {
    if !BITES.load(Ordering::SeqCst) {
        return;
    }
    let this = cpu::id();
    if frame.is_user() {
        write_line_unlocked(format_args!("CPU {this}: in a program at {:#x}", frame.rip));
    } else {
        let stack = Backtrace::from(frame.rsp as usize);
        write_line_unlocked(format_args!("CPU {this}: {:#x}{stack}", frame.rip));
    }
    say_locks(this);
    SAID.fetch_or(CpuSet::single(this).0, Ordering::SeqCst);
    halt_forever()
}
