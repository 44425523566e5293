//! Deadlines: threads that sleep until one, and processes' real-time interval
//! timers (`setitimer`, `alarm`).
//!
//! One binary heap holds an entry for every thread and every process from the
//! moment it exists until it is gone, with an infinite deadline while nothing
//! is set. So setting a timer never allocates, and the timer interrupt, which
//! only pushes deadlines back, never frees.

use core::sync::atomic::{AtomicUsize, Ordering};

use alloc::sync::Arc;
use alloc::vec::Vec;
use mm::Errno;

use super::process::Process;
use super::sched;
use super::signal::{SigInfo, Signal, send};
use super::thread::{Thread, state};
use crate::arch::irq::IrqMutex;
use crate::arch::time;

/// The deadline of a timer that is not set.
pub const NEVER: u64 = u64::MAX;

static TIMERS: IrqMutex<Timers> = IrqMutex::new(Timers { heap: Vec::new() });

/// Where an owner's entry is in the heap.
pub struct TimerSlot(AtomicUsize);

/// Position of an owner that has no entry.
const NOWHERE: usize = usize::MAX;

impl TimerSlot {
    /// No entry yet.
    pub const fn new() -> TimerSlot {
        TimerSlot(AtomicUsize::new(NOWHERE))
    }
}

#[derive(Clone)]
enum Owner {
    Thread(Arc<Thread>),
    Process(Arc<Process>),
}

impl Owner {
    fn slot(&self) -> &TimerSlot {
        match self {
            Owner::Thread(thread) => &thread.timer,
            Owner::Process(process) => &process.timer,
        }
    }
}

struct Entry {
    /// Monotonic nanoseconds.
    deadline: u64,
    /// What is added to the deadline when it has passed; 0: set once.
    interval: u64,
    owner: Owner,
}

struct Timers {
    /// A heap: no entry's deadline is before that of the entry at half its place.
    heap: Vec<Entry>,
}

impl Timers {
    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.note(a);
        self.note(b);
    }

    fn note(&self, at: usize) {
        self.heap[at].owner.slot().0.store(at, Ordering::Relaxed);
    }

    fn add(&mut self, owner: Owner) -> Result<(), Errno> {
        self.heap.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        self.heap.push(Entry { deadline: NEVER, interval: 0, owner });
        self.note(self.heap.len() - 1);
        Ok(())
    }

    fn remove(&mut self, slot: &TimerSlot) -> Option<Entry> {
        let at = slot.0.swap(NOWHERE, Ordering::Relaxed);
        if at >= self.heap.len() {
            return None;
        }
        let entry = self.heap.swap_remove(at);
        if at < self.heap.len() {
            self.note(at);
            self.restore(at);
        }
        Some(entry)
    }

    /// Sets an entry's timer; returns what it was (deadline, interval).
    fn set(&mut self, slot: &TimerSlot, deadline: u64, interval: u64) -> (u64, u64) {
        let at = slot.0.load(Ordering::Relaxed);
        let Some(entry) = self.heap.get_mut(at) else {
            return (NEVER, 0);
        };
        let old = (entry.deadline, entry.interval);
        entry.deadline = deadline;
        entry.interval = interval;
        self.restore(at);
        old
    }

    /// Moves the entry at `at`, the only one that may be out of place, to where it belongs.
    fn restore(&mut self, mut at: usize) {
        while at > 0 && self.heap[at].deadline < self.heap[(at - 1) / 2].deadline {
            self.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
        loop {
            let mut least = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if child < self.heap.len() && self.heap[child].deadline < self.heap[least].deadline {
                    least = child;
                }
            }
            if least == at {
                return;
            }
            self.swap(at, least);
            at = least;
        }
    }
}

/// Gives a new thread its entry.
///
/// # Errors
/// `ENOMEM`.
pub fn add_thread(thread: &Arc<Thread>) -> Result<(), Errno> {
    TIMERS.lock().add(Owner::Thread(thread.clone()))
}

/// Gives a new process its entry.
///
/// # Errors
/// `ENOMEM`.
pub fn add_process(process: &Arc<Process>) -> Result<(), Errno> {
    TIMERS.lock().add(Owner::Process(process.clone()))
}

/// Takes away the entry of a thread that exits, or was never started.
pub fn remove_thread(thread: &Thread) {
    let entry = TIMERS.lock().remove(&thread.timer);
    drop(entry);
}

/// Takes away the entry of a process that exits, or was never started.
pub fn remove_process(process: &Process) {
    let entry = TIMERS.lock().remove(&process.timer);
    drop(entry);
}

/// Wakes `thread`, if it sleeps, at `deadline` (monotonic nanoseconds).
pub fn set_wakeup(thread: &Thread, deadline: u64) {
    TIMERS.lock().set(&thread.timer, deadline, 0);
}

/// Forgets a thread's deadline.
pub fn cancel_wakeup(thread: &Thread) {
    set_wakeup(thread, NEVER);
}

/// Sets a process's real-time interval timer: `SIGALRM` at `deadline`
/// ([`NEVER`]: not at all), and every `interval` after that unless it is 0.
/// Returns what was set before.
pub fn set_alarm(process: &Process, deadline: u64, interval: u64) -> (u64, u64) {
    TIMERS.lock().set(&process.timer, deadline, interval)
}

/// A process's real-time interval timer: deadline and interval.
pub fn alarm(process: &Process) -> (u64, u64) {
    let timers = TIMERS.lock();
    match timers.heap.get(process.timer.0.load(Ordering::Relaxed)) {
        Some(entry) => (entry.deadline, entry.interval),
        None => (NEVER, 0),
    }
}

/// The timer interrupt's share: does what is due.
pub(super) fn expire() {
    let now = time::monotonic_ns();
    let mut timers = TIMERS.lock();
    while let Some(entry) = timers.heap.first_mut() {
        if entry.deadline > now {
            return;
        }
        entry.deadline = match entry.interval {
            0 => NEVER,
            interval => {
                let missed = (now - entry.deadline) / interval;
                entry.deadline.saturating_add(interval.saturating_mul(missed + 1))
            }
        };
        match &entry.owner {
            Owner::Thread(thread) => {
                sched::wake(thread, state::SLEEPING);
            }
            Owner::Process(process) => {
                // A standard signal always has room.
                let _ = send::to_process(process, SigInfo::kernel(Signal::SIGALRM));
            }
        }
        timers.restore(0);
    }
}
