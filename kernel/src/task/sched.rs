//! Which thread runs: a round-robin, preemptive scheduler.
//!
//! What always holds, whenever the scheduler's lock is free:
//! - A thread whose state is `RUNNING` runs on a CPU or is in the run queue
//!   exactly once (`on_queue`); any other thread is neither.
//! - The run queue has room for every thread that exists: [`Admission`]
//!   reserves it at creation, so waking never allocates.
//! - A CPU's `thread` pointer (see [`arch::cpu`](crate::arch::cpu)) is that of
//!   its `running` thread, of which the scheduler holds a reference.
//!
//! The lock is held across a switch and released by whoever is switched to
//! ([`finish_switch`]), so that no other CPU can pick a thread that has not
//! yet left its stack.

use core::cell::UnsafeCell;
use core::mem;
use core::sync::atomic::Ordering;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use mm::{Errno, MAX_CPUS};

use super::process::Space;
use super::thread::{Thread, state, try_current};
use crate::arch::context::{self, Context};
use crate::arch::irq::{self, IrqMutex};
use crate::arch::{cpu, paging, time};

/// Ticks a thread may run while others wait.
const SLICE_TICKS: u32 = 5;
/// The same in nanoseconds.
pub const SLICE_NS: u64 = SLICE_TICKS as u64 * (1_000_000_000 / time::TICKS_PER_SECOND);

static SCHEDULER: IrqMutex<Scheduler> =
    IrqMutex::new(Scheduler { queue: VecDeque::new(), admitted: 0, cpus: [const { CpuSlot::new() }; MAX_CPUS] });

/// The contexts that CPUs have when no thread runs: that of their boot code.
static IDLE: [IdleContext; MAX_CPUS] = [const { IdleContext(UnsafeCell::new(Context::for_boot())) }; MAX_CPUS];

struct IdleContext(UnsafeCell<Context>);

// SAFETY: only the CPU it belongs to touches it, with the scheduler's lock held.
unsafe impl Sync for IdleContext {}

struct Scheduler {
    /// Threads that are ready, longest waiting first.
    queue: VecDeque<Arc<Thread>>,
    /// How many threads the queue has room reserved for.
    admitted: usize,
    cpus: [CpuSlot; MAX_CPUS],
}

struct CpuSlot {
    running: Option<Arc<Thread>>,
    /// The thread this CPU has just left; [`finish_switch`] lets go of it.
    previous: Option<Arc<Thread>>,
    /// The address space whose tables the CPU uses; kept while it is idle.
    space: Option<Arc<Space>>,
    /// One it has just left, likewise.
    previous_space: Option<Arc<Space>>,
    slice: u32,
    need_resched: bool,
}

impl CpuSlot {
    const fn new() -> CpuSlot {
        CpuSlot { running: None, previous: None, space: None, previous_space: None, slice: 0, need_resched: false }
    }
}

/// Room in the run queue for one thread, held as long as the thread exists.
pub struct Admission(());

impl Admission {
    /// Reserves the room.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new() -> Result<Admission, Errno> {
        let mut scheduler = SCHEDULER.lock();
        let missing = (scheduler.admitted + 1).saturating_sub(scheduler.queue.len());
        scheduler.queue.try_reserve(missing).map_err(|_| Errno::ENOMEM)?;
        scheduler.admitted += 1;
        Ok(Admission(()))
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        SCHEDULER.lock().admitted -= 1;
    }
}

/// Makes `thread` ready to run if it is in one of the `states`. Says whether
/// it was. May be called from an interrupt handler.
pub fn wake(thread: &Arc<Thread>, states: u32) -> bool {
    let mut scheduler = SCHEDULER.lock();
    if thread.state.load(Ordering::SeqCst) & states == 0 {
        return false;
    }
    thread.state.store(state::RUNNING, Ordering::SeqCst);
    if !thread.on_queue.swap(true, Ordering::Relaxed) {
        scheduler.queue.push_back(thread.clone());
    }
    true
}

/// Lets another thread run, if one is ready, or if the current one has set its
/// state to other than `RUNNING`. Returns when the current thread's turn comes
/// again. No lock may be held.
pub fn schedule() {
    let enabled = irq::are_enabled();
    let mut scheduler = SCHEDULER.lock();
    let id = cpu::current().id();
    let Scheduler { queue, cpus, .. } = &mut *scheduler;
    let slot = &mut cpus[id];
    slot.need_resched = false;
    slot.slice = 0;

    let next = queue.pop_front();
    let previous = slot.running.take();
    if let Some(thread) = &previous {
        if thread.state.load(Ordering::SeqCst) == state::RUNNING {
            if next.is_none() {
                slot.running = previous;
                return;
            }
            thread.involuntary_switches.fetch_add(1, Ordering::Relaxed);
            queue.push_back(thread.clone());
        } else {
            thread.voluntary_switches.fetch_add(1, Ordering::Relaxed);
            thread.on_queue.store(false, Ordering::Relaxed);
        }
    } else if next.is_none() {
        return;
    }

    let now = time::monotonic_ns();
    let from = match &previous {
        Some(thread) => {
            let since = thread.running_since.load(Ordering::Relaxed);
            thread.cpu_time.fetch_add(now.saturating_sub(since), Ordering::Relaxed);
            thread.context()
        }
        None => IDLE[id].0.get(),
    };
    let to = match &next {
        Some(thread) => {
            thread.running_since.store(now, Ordering::Relaxed);
            if let Some(space) = thread.process().space() {
                slot.enter_space(space, id);
            }
            cpu::set_thread(Arc::as_ptr(thread) as usize);
            if thread.has_signal_work() {
                cpu::set_return_work();
            }
            thread.context()
        }
        None => {
            cpu::set_thread(0);
            IDLE[id].0.get()
        }
    };
    slot.previous = previous;
    slot.running = next;
    mem::forget(scheduler);
    // SAFETY: interrupts are disabled by the lock. Both contexts belong to
    // threads that the slot keeps alive (or to the CPU), `to`'s thread was
    // ready and therefore runs nowhere, and the lock, still held, keeps every
    // other CPU from touching either until `finish_switch`.
    unsafe { context::switch(from, to) };
    finish_switch();
    if enabled {
        irq::enable();
    }
}

/// Completes the switch to the thread (or idle loop) that calls this: releases
/// the scheduler's lock and lets go of what was left. Interrupts are disabled
/// before and after.
pub fn finish_switch() {
    // SAFETY: the lock was taken, and its guard forgotten, by the `schedule`
    // that switched to here, on this CPU; only the holder gets here.
    let (previous, space) = unsafe {
        let slot = &mut (*SCHEDULER.as_ptr()).cpus[cpu::current().id()];
        let left = (slot.previous.take(), slot.previous_space.take());
        SCHEDULER.force_unlock();
        left
    };
    drop(previous);
    drop(space);
}

impl CpuSlot {
    /// Makes the CPU use the tables of `space`.
    fn enter_space(&mut self, space: Arc<Space>, id: usize) {
        if self.space.as_ref().is_some_and(|active| Arc::ptr_eq(active, &space)) {
            return;
        }
        let tlb = cpu::current().tlb();
        let load = space.enter(id, tlb);
        // SAFETY: the space shares the kernel's half; the slot keeps it alive
        // while its tables are in use. It says itself what may be kept.
        unsafe { paging::load(load) };
        let previous = self.space.replace(space);
        if let Some(previous) = &previous {
            previous.leave(id, tlb);
        }
        self.previous_space = previous;
    }
}

/// Makes the CPU use the tables of `space`, which the current thread's process
/// has just been given.
pub fn enter_space(space: Arc<Space>) {
    let left = {
        let mut scheduler = SCHEDULER.lock();
        let id = cpu::current().id();
        scheduler.cpus[id].enter_space(space, id);
        scheduler.cpus[id].previous_space.take()
    };
    drop(left);
}

/// Makes the CPU use the kernel's own tables: the current thread's process is
/// about to lose its address space.
pub fn leave_space() {
    let left = {
        let mut scheduler = SCHEDULER.lock();
        let id = cpu::current().id();
        let left = scheduler.cpus[id].space.take();
        if let Some(space) = &left {
            paging::load_own();
            space.leave(id, cpu::current().tlb());
        }
        left
    };
    drop(left);
}

/// The timer's share: ends the current thread's turn when it has had its slice
/// and others wait. Interrupts are disabled.
pub(super) fn tick() {
    let mut scheduler = SCHEDULER.lock();
    let waiting = !scheduler.queue.is_empty();
    let slot = &mut scheduler.cpus[cpu::current().id()];
    slot.slice += 1;
    if waiting && slot.slice >= SLICE_TICKS {
        slot.need_resched = true;
        cpu::set_return_work();
    }
}

/// Whether the current thread's turn has ended.
pub(super) fn need_resched() -> bool {
    SCHEDULER.lock().cpus[cpu::current().id()].need_resched
}

/// `sched_yield`: the turn ends now, if anyone waits.
pub fn yield_now() {
    schedule();
}

/// Whether any thread waits for a CPU.
fn anything_ready() -> bool {
    !SCHEDULER.lock().queue.is_empty()
}

/// Runs threads, and waits for interrupts when there is none that could run.
/// To be called once by each CPU's boot code, which becomes its idle loop.
pub fn run() -> ! {
    debug_assert!(try_current().is_none());
    loop {
        irq::disable();
        if anything_ready() {
            schedule();
        } else {
            irq::wait_for_interrupt();
        }
    }
}

/// Ends the current thread, which has already been taken out of every list.
pub(super) fn exit_current() -> ! {
    irq::disable();
    if let Some(thread) = try_current() {
        thread.state.store(state::DEAD, Ordering::SeqCst);
    }
    loop {
        schedule();
    }
}
