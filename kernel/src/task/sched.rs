//! Which thread runs where: a round-robin, preemptive scheduler with a run
//! queue for each CPU.
//!
//! What always holds, whenever the scheduler's lock is free:
//! - A thread whose state is `RUNNING` runs on a CPU or is in one CPU's run queue
//!   exactly once (`on_queue`); any other thread is neither. Which CPU that is,
//!   or was last, says the thread's `cpu`.
//! - Each run queue has room for every thread that exists: [`Admission`]
//!   reserves it at creation, so waking never allocates.
//! - A CPU's `thread` pointer (see [`arch::cpu`](crate::arch::cpu)) is that of
//!   its `running` thread, of which the scheduler holds a reference.
//!
//! One lock guards all queues. It is held across a switch and released by whoever
//! is switched to ([`finish_switch`]), so that no other CPU can pick a thread that
//! has not yet left its stack.
//!
//! A thread that wakes up goes to the CPU it ran on if that is idle, to another
//! idle one if there is one, and else to where the fewest are. A CPU that has
//! nothing to run takes a waiting thread from the longest queue. Affinity is
//! obeyed always: a thread that may no longer be where it is moves at once.
//!
//! A CPU that becomes idle keeps the address space it has loaded, which the next
//! thread is likely to use. It leaves it when it is asked for a TLB flush
//! nevertheless, or when the last process that uses it lets go of it ([`evict`]).

use core::cell::UnsafeCell;
use core::mem;
use core::sync::atomic::Ordering;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use mm::{CpuSet, Errno, MAX_CPUS};

use super::process::Space;
use super::thread::{Thread, state, try_current};
use super::watchdog;
use crate::arch::context::{self, Context};
use crate::arch::irq::{self, IrqMutex};
use crate::arch::{cpu, paging, time};
use crate::memory::{khugepaged, ksm};

/// Ticks a thread may run while others wait.
const SLICE_TICKS: u32 = 5;
/// The same in nanoseconds.
pub const SLICE_NS: u64 = SLICE_TICKS as u64 * (1_000_000_000 / time::TICKS_PER_SECOND);

static SCHEDULER: IrqMutex<Scheduler> =
    IrqMutex::new(Scheduler { admitted: 0, cpus: [const { CpuSlot::new() }; MAX_CPUS] });

/// The contexts that CPUs have when no thread runs: that of their boot code.
static IDLE: [IdleContext; MAX_CPUS] = [const { IdleContext(UnsafeCell::new(Context::for_boot())) }; MAX_CPUS];

struct IdleContext(UnsafeCell<Context>);

// SAFETY: only the CPU it belongs to touches it, with the scheduler's lock held.
unsafe impl Sync for IdleContext {}

struct Scheduler {
    /// How many threads the queues have room reserved for.
    admitted: usize,
    cpus: [CpuSlot; MAX_CPUS],
}

struct CpuSlot {
    /// Threads that are ready, longest waiting first.
    queue: VecDeque<Arc<Thread>>,
    running: Option<Arc<Thread>>,
    /// The thread this CPU has just left; [`finish_switch`] lets go of it.
    previous: Option<Arc<Thread>>,
    /// The address space whose tables the CPU uses; kept while it is idle.
    space: Option<Arc<Space>>,
    /// One it has just left, likewise.
    previous_space: Option<Arc<Space>>,
    slice: u32,
    /// For how many ticks threads have been waiting, and no other one began.
    waiting: u32,
}

impl CpuSlot {
    const fn new() -> CpuSlot {
        CpuSlot {
            queue: VecDeque::new(),
            running: None,
            previous: None,
            space: None,
            previous_space: None,
            slice: 0,
            waiting: 0,
        }
    }

    fn runs(&self, thread: &Thread) -> bool {
        self.running.as_ref().is_some_and(|running| core::ptr::eq(&**running, thread))
    }

    /// Threads that run or wait here.
    fn load(&self) -> usize {
        self.queue.len() + usize::from(self.running.is_some())
    }
}

/// Room in the run queues for one thread, held as long as the thread exists.
pub struct Admission(());

impl Admission {
    /// Reserves the room.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new() -> Result<Admission, Errno> {
        let mut scheduler = SCHEDULER.lock();
        let wanted = scheduler.admitted + 1;
        for slot in &mut scheduler.cpus[..cpu::count()] {
            let missing = wanted.saturating_sub(slot.queue.len());
            slot.queue.try_reserve(missing).map_err(|_| Errno::ENOMEM)?;
        }
        scheduler.admitted = wanted;
        Ok(Admission(()))
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        SCHEDULER.lock().admitted -= 1;
    }
}

/// The CPUs that `thread` may run on; there is one.
fn allowed(thread: &Thread) -> CpuSet {
    let cpus = CpuSet(thread.affinity().0 & cpu::online().0);
    if cpus.is_empty() { cpu::online() } else { cpus }
}

impl Scheduler {
    /// Enters a thread that is in no queue, and runs nowhere from now on, into
    /// the queue of the CPU that suits it best.
    fn enqueue(&mut self, thread: Arc<Thread>) {
        let at = self.place(&thread);
        let slot = &mut self.cpus[at];
        thread.cpu.store(at, Ordering::Relaxed);
        slot.queue.push_back(thread);
        if slot.running.is_none()
            && at != cpu::id()
            && let Some(idle) = cpu::get(at)
        {
            idle.interrupt();
        }
    }

    fn place(&self, thread: &Thread) -> usize {
        if cpu::count() == 1 {
            return 0;
        }
        let last = thread.cpu.load(Ordering::Relaxed);
        // Least loaded first, and of those the one it ran on.
        let cost = |&at: &usize| (self.cpus[at].load(), at != last);
        allowed(thread).iter().min_by_key(cost).unwrap_or(0)
    }

    /// Takes the next thread for CPU `id` out of its queue or, if it would else
    /// be `idle`, another one's.
    fn pick(&mut self, id: usize, idle: bool) -> Option<Arc<Thread>> {
        let own = self.cpus[id].queue.pop_front();
        if own.is_some() || !idle || cpu::count() == 1 {
            return own;
        }
        let may_run = |thread: &Arc<Thread>| allowed(thread).contains(id);
        let has_one = |at: &usize| self.cpus[*at].queue.iter().any(may_run);
        let from = (0..cpu::count()).filter(has_one).max_by_key(|&at| self.cpus[at].queue.len())?;
        let queue = &mut self.cpus[from].queue;
        queue.remove(queue.iter().position(may_run)?)
    }
}

/// Makes `thread` ready to run if it is in one of the `states`. Says whether
/// it was. May be called from an interrupt handler.
pub fn wake(thread: &Arc<Thread>, states: u32) -> bool {
    let mut scheduler = SCHEDULER.lock();
    // The thread itself may go from one sleep to the next meanwhile.
    let sleeps = |now| (now & states != 0).then_some(state::RUNNING);
    if thread.state.fetch_update(Ordering::SeqCst, Ordering::SeqCst, sleeps).is_err() {
        return false;
    }
    if !thread.on_queue.swap(true, Ordering::Relaxed) {
        scheduler.enqueue(thread.clone());
    }
    true
}

/// Makes `thread` look for return work soon if it runs on another CPU. May be
/// called from an interrupt handler.
pub fn kick(thread: &Thread) {
    if cpu::count() == 1 {
        return;
    }
    let scheduler = SCHEDULER.lock();
    let at = thread.cpu.load(Ordering::Relaxed);
    if at != cpu::id()
        && scheduler.cpus[at].runs(thread)
        && let Some(other) = cpu::get(at)
    {
        other.interrupt();
    }
}

/// Sets the CPUs that `thread` may run on, of which there is at least one. If
/// that is the current thread, it runs on one of them on return.
pub fn set_affinity(thread: &Arc<Thread>, cpus: CpuSet) {
    let mut scheduler = SCHEDULER.lock();
    thread.affinity.store(cpus.0, Ordering::Relaxed);
    let at = thread.cpu.load(Ordering::Relaxed);
    if allowed(thread).contains(at) {
        return;
    }
    let slot = &mut scheduler.cpus[at];
    if slot.runs(thread) {
        drop(scheduler);
        if at != cpu::id() {
            if let Some(other) = cpu::get(at) {
                other.reschedule();
            }
        } else if try_current().is_some_and(|current| core::ptr::eq(&*current, &**thread)) {
            schedule();
        }
    } else if let Some(place) = slot.queue.iter().position(|other| Arc::ptr_eq(other, thread))
        && let Some(thread) = slot.queue.remove(place)
    {
        scheduler.enqueue(thread);
    }
}

/// Nanoseconds of CPU time that `thread` has used so far.
pub fn cpu_time(thread: &Thread) -> u64 {
    let scheduler = SCHEDULER.lock();
    let used = thread.cpu_time.load(Ordering::Relaxed);
    if scheduler.cpus[thread.cpu.load(Ordering::Relaxed)].runs(thread) {
        used + time::monotonic_ns().saturating_sub(thread.running_since.load(Ordering::Relaxed))
    } else {
        used
    }
}

/// Lets another thread run, if one is ready, or if the current one has set its
/// state to other than `RUNNING`, or may not be here any more. Returns when the
/// current thread's turn comes again, and says whether there was a switch. No
/// lock may be held.
pub fn schedule() -> bool {
    let enabled = irq::are_enabled();
    let mut scheduler = SCHEDULER.lock();
    let id = cpu::id();
    cpu::set_need_resched(false);
    let slot = &mut scheduler.cpus[id];
    slot.slice = 0;
    slot.waiting = 0;
    watchdog::goes_on();
    let previous = slot.running.take();
    let goes_on = previous.as_ref().is_some_and(|thread| thread.state.load(Ordering::SeqCst) == state::RUNNING);
    let stays = goes_on && previous.as_ref().is_some_and(|thread| allowed(thread).contains(id));
    let next = scheduler.pick(id, !stays);
    if next.is_none() && (stays || previous.is_none()) {
        scheduler.cpus[id].running = previous;
        return false;
    }

    // What was to be done before this thread returns to user mode still is when
    // it goes on, on whichever CPU.
    let work = cpu::take_return_work();
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
            thread.cpu.store(id, Ordering::Relaxed);
            thread.running_since.store(now, Ordering::Relaxed);
            if let Some(space) = thread.process().space() {
                scheduler.cpus[id].enter_space(space, id);
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
    scheduler.cpus[id].running = next;
    scheduler.cpus[id].previous = previous.clone();
    if let Some(thread) = previous {
        if goes_on {
            thread.involuntary_switches.fetch_add(1, Ordering::Relaxed);
            if stays {
                scheduler.cpus[id].queue.push_back(thread);
            } else {
                scheduler.enqueue(thread);
            }
        } else {
            thread.voluntary_switches.fetch_add(1, Ordering::Relaxed);
            thread.on_queue.store(false, Ordering::Relaxed);
            // `finish_switch` has the last word on it.
            drop(thread);
        }
    }
    mem::forget(scheduler);
    // SAFETY: interrupts are disabled by the lock. Both contexts belong to
    // threads that the slot keeps alive (or to the CPU), `to`'s thread was
    // ready and therefore runs nowhere, and the lock, still held, keeps every
    // other CPU from touching either until `finish_switch`.
    unsafe { context::switch(from, to) };
    finish_switch();
    if work {
        cpu::set_return_work();
    }
    if enabled {
        irq::enable();
    }
    true
}

/// Completes the switch to the thread (or idle loop) that calls this: releases
/// the scheduler's lock and lets go of what was left. Interrupts are disabled
/// before and after.
pub fn finish_switch() {
    // SAFETY: the lock was taken, and its guard forgotten, by the `schedule`
    // that switched to here, on this CPU; only the holder gets here.
    let (previous, space) = unsafe {
        let slot = &mut (*SCHEDULER.as_ptr()).cpus[cpu::id()];
        let left = (slot.previous.take(), slot.previous_space.take());
        SCHEDULER.force_unlock();
        left
    };
    if previous.is_some() || space.is_some() {
        // They may be the last references, and what ends with them takes locks of `mm`.
        irq::enable();
        drop(previous);
        drop(space);
        irq::disable();
    }
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
        let id = cpu::id();
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
        let id = cpu::id();
        let left = scheduler.cpus[id].space.take();
        if let Some(space) = &left {
            paging::load_own();
            space.leave(id, cpu::current().tlb());
        }
        left
    };
    drop(left);
}

/// Makes idle CPUs leave `space`, which the current process has let go of, so
/// that it does not stay for their sake.
pub fn evict(space: &Arc<Space>) {
    const TURNS_BETWEEN_LOOKS: usize = 100;
    while cpu::count() > 1 && !ask_to_leave(space).is_empty() {
        for _ in 0..TURNS_BETWEEN_LOOKS {
            core::hint::spin_loop();
        }
    }
}

/// The other CPUs that have `space` loaded but run no thread that uses it; they
/// have been asked to leave it.
fn ask_to_leave(space: &Arc<Space>) -> CpuSet {
    let scheduler = SCHEDULER.lock();
    let this = cpu::id();
    let is_it = |other: &Arc<Space>| Arc::ptr_eq(other, space);
    let mut holders = CpuSet::EMPTY;
    for id in cpu::online().iter().filter(|&id| id != this) {
        let slot = &scheduler.cpus[id];
        let uses = slot.running.as_ref().is_some_and(|thread| thread.process().has_space(space));
        if slot.space.as_ref().is_some_and(is_it)
            && !uses
            && let Some(cpu) = cpu::get(id)
        {
            holders.0 |= CpuSet::single(id).0;
            if cpu.ask_to_leave() {
                cpu.interrupt();
            }
        }
    }
    holders
}

/// The timer's share: ends the current thread's turn when it has had its slice
/// and others wait. Interrupts are disabled. Returns for how many ticks that has been
/// so in vain.
pub(super) fn tick() -> u32 {
    let mut scheduler = SCHEDULER.lock();
    let slot = &mut scheduler.cpus[cpu::id()];
    slot.slice += 1;
    if !slot.queue.is_empty() && slot.slice >= SLICE_TICKS {
        cpu::set_need_resched(true);
        cpu::set_return_work();
    }
    slot.waiting = if slot.queue.is_empty() { 0 } else { slot.waiting.saturating_add(1) };
    slot.waiting
}

/// Whether the current thread's turn has ended.
#[inline]
pub(super) fn need_resched() -> bool {
    cpu::need_resched()
}

/// `sched_yield`: the turn ends now, if anyone waits.
pub fn yield_now() {
    schedule();
}

/// Runs threads, and waits for interrupts when there is none that could run.
/// To be called once by each CPU's boot code, which becomes its idle loop.
pub fn run() -> ! {
    debug_assert!(try_current().is_none());
    loop {
        irq::disable();
        if schedule() {
            continue;
        }
        if cpu::current().take_asked_to_leave() {
            irq::enable();
            leave_space();
            continue;
        }
        if ksm::is_due() || khugepaged::is_due() {
            irq::enable();
            ksm::scan();
            khugepaged::scan();
            continue;
        }
        irq::wait_for_interrupt();
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
