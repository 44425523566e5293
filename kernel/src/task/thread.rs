//! A thread: what the scheduler switches between.

use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::ops::Deref;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use alloc::sync::Arc;
use mm::{CpuSet, Errno};

use super::futex;
use super::process::Process;
use super::sched::{self, Admission};
use super::signal::{Pending, SigSet};
use super::timer::TimerSlot;
use crate::arch::context::Context;
use crate::arch::cpu;
use crate::arch::irq::{IrqGuard, IrqMutex};
use crate::memory::try_arc;

/// What a thread is doing, as the scheduler sees it. Values are bits, so that
/// a waker can name several.
pub mod state {
    /// Running, or waiting for a CPU.
    pub const RUNNING: u32 = 0;
    /// Sleeping; a signal ends the sleep.
    pub const INTERRUPTIBLE: u32 = 1;
    /// Sleeping; only what it waits for ends the sleep.
    pub const UNINTERRUPTIBLE: u32 = 2;
    /// Sleeping; only a signal that kills ends the sleep early.
    pub const KILLABLE: u32 = 4;
    /// Stopped by a job-control signal.
    pub const STOPPED: u32 = 8;
    /// Will not run again.
    pub const DEAD: u32 = 16;
    /// Every kind of sleep that an event ends.
    pub const SLEEPING: u32 = INTERRUPTIBLE | UNINTERRUPTIBLE | KILLABLE;
}

/// Longest name of a thread, in bytes, without the terminating NUL.
pub const NAME_MAX: usize = 15;

/// An alternate signal stack.
#[derive(Clone, Copy, Default, Debug)]
pub struct AltStack {
    /// Lowest address.
    pub base: usize,
    /// Bytes; 0 when there is none.
    pub size: usize,
    /// `SS_AUTODISARM`, or 0.
    pub flags: u32,
}

/// What the processor said of a fault.
#[derive(Clone, Copy, Default, Debug)]
pub struct Trap {
    /// Exception vector.
    pub vector: u64,
    /// Error code.
    pub error_code: u64,
    /// `CR2`.
    pub address: u64,
}

/// How a call that was interrupted, and whose arguments are relative to when it
/// began, goes on through `restart_syscall`.
#[derive(Clone, Copy, Default, Debug)]
pub enum Restart {
    /// There is nothing to go on with.
    #[default]
    None,
    /// `nanosleep`, `clock_nanosleep`: until `deadline`, the rest to `remaining`.
    Sleep {
        /// Monotonic nanoseconds.
        deadline: u64,
        /// Where the time left is stored, or 0.
        remaining: usize,
    },
    /// `FUTEX_WAIT` with a timeout.
    Futex {
        /// The futex word.
        address: usize,
        /// What it must hold.
        value: u32,
        /// Which wakers are listened to.
        bitset: u32,
        /// Monotonic nanoseconds.
        deadline: u64,
        /// Whether the key is a private one.
        private: bool,
    },
}

/// One thread.
pub struct Thread {
    tid: AtomicU32,
    process: Arc<Process>,
    name: IrqMutex<[u8; NAME_MAX + 1]>,

    /// One of [`state`]; written by the thread itself and by its waker.
    pub(super) state: AtomicU32,
    /// Running or in a run queue. Guarded by the scheduler's lock.
    pub(super) on_queue: AtomicBool,
    /// The CPU where it runs, whose queue it is in, or where it ran last. Likewise.
    pub(super) cpu: AtomicUsize,
    /// Registers and kernel stack. Touched only by [`super::sched`], which
    /// holds its lock, and by the thread itself.
    context: UnsafeCell<Context>,
    /// Where it may run.
    pub(super) affinity: AtomicU64,
    pub(super) timer: TimerSlot,
    pub(super) futex: futex::Waiter,

    /// A signal may be deliverable, or the process is exiting or stopping:
    /// look before returning to user mode, and do not sleep.
    pub(super) signal_work: AtomicBool,
    pub(super) pending: IrqMutex<Pending>,
    blocked: AtomicU64,
    /// What `blocked` becomes once a handler has been set up, when a call
    /// (`rt_sigsuspend`) has replaced it for its duration.
    pub(super) saved_mask: IrqMutex<Option<SigSet>>,
    pub(super) alt_stack: IrqMutex<AltStack>,
    pub(super) restart: IrqMutex<Restart>,
    /// Signals that `rt_sigtimedwait` waits for, though they are blocked.
    pub(super) waiting_for: AtomicU64,
    /// The last fault, for signal frames.
    pub(super) trap: IrqMutex<Trap>,

    /// Where the kernel stores 0 and wakes a futex when the thread exits, or 0.
    pub(super) clear_child_tid: AtomicUsize,
    /// The list of robust futexes it holds, or 0.
    pub(super) robust_list: AtomicUsize,

    /// Nanoseconds it ran, up to `running_since`.
    pub(super) cpu_time: AtomicU64,
    /// When it was last given a CPU.
    pub(super) running_since: AtomicU64,
    /// Timer ticks that found it in user mode, and in the kernel.
    pub(super) user_ticks: AtomicU64,
    pub(super) kernel_ticks: AtomicU64,
    pub(super) voluntary_switches: AtomicU64,
    pub(super) involuntary_switches: AtomicU64,
    _admission: Admission,
}

// SAFETY: `context` is the only part that is not Sync by itself; whoever
// touches it holds the scheduler's lock or is the thread's own code while it
// runs, and the thread runs on one CPU at most.
unsafe impl Sync for Thread {}
// SAFETY: nothing in it belongs to a particular CPU.
unsafe impl Send for Thread {}

impl Thread {
    /// A thread that does not run yet and is in no list.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new(
        tid: u32,
        process: Arc<Process>,
        context: Context,
        name: [u8; NAME_MAX + 1],
        blocked: SigSet,
    ) -> Result<Arc<Thread>, Errno> {
        try_arc(Thread {
            tid: AtomicU32::new(tid),
            process,
            name: IrqMutex::new(name),
            state: AtomicU32::new(state::UNINTERRUPTIBLE),
            on_queue: AtomicBool::new(false),
            cpu: AtomicUsize::new(cpu::id()),
            context: UnsafeCell::new(context),
            affinity: AtomicU64::new(u64::MAX),
            timer: TimerSlot::new(),
            futex: futex::Waiter::new(),
            signal_work: AtomicBool::new(false),
            pending: IrqMutex::new(Pending::new()?),
            blocked: AtomicU64::new(blocked.0),
            saved_mask: IrqMutex::new(None),
            alt_stack: IrqMutex::new(AltStack::default()),
            restart: IrqMutex::new(Restart::None),
            waiting_for: AtomicU64::new(0),
            trap: IrqMutex::new(Trap::default()),
            clear_child_tid: AtomicUsize::new(0),
            robust_list: AtomicUsize::new(0),
            cpu_time: AtomicU64::new(0),
            running_since: AtomicU64::new(0),
            user_ticks: AtomicU64::new(0),
            kernel_ticks: AtomicU64::new(0),
            voluntary_switches: AtomicU64::new(0),
            involuntary_switches: AtomicU64::new(0),
            _admission: Admission::new()?,
        })
    }

    /// Its number.
    pub fn tid(&self) -> u32 {
        self.tid.load(Ordering::Relaxed)
    }

    /// Gives it the process's number, when it is what is left of it at exec.
    pub(super) fn set_tid(&self, tid: u32) {
        self.tid.store(tid, Ordering::Relaxed);
    }

    /// The process it belongs to.
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    /// Its name, NUL-padded.
    pub fn name(&self) -> [u8; NAME_MAX + 1] {
        *self.name.lock()
    }

    /// Sets its name to at most [`NAME_MAX`] bytes of `name`.
    pub fn set_name(&self, name: &[u8]) {
        let mut padded = [0; NAME_MAX + 1];
        for (to, from) in padded[..NAME_MAX].iter_mut().zip(name) {
            *to = *from;
        }
        *self.name.lock() = padded;
    }

    /// What `/proc` calls its state: one letter.
    pub fn state_letter(&self) -> u8 {
        match self.state.load(Ordering::Relaxed) {
            state::RUNNING => b'R',
            state::STOPPED => b'T',
            state::DEAD => b'Z',
            state::UNINTERRUPTIBLE | state::KILLABLE => b'D',
            _ => b'S',
        }
    }

    /// Signals that wait for this thread.
    pub fn pending_signals(&self) -> SigSet {
        self.pending.lock().set()
    }

    /// Signals that are held back.
    pub fn blocked(&self) -> SigSet {
        SigSet(self.blocked.load(Ordering::Relaxed))
    }

    /// Replaces the mask; only for the thread itself (see
    /// [`super::signal::send::set_blocked`], which also looks at what has become deliverable).
    pub(super) fn store_blocked(&self, mask: SigSet) {
        self.blocked.store(mask.without(SigSet::UNBLOCKABLE).0, Ordering::Relaxed);
    }

    /// The CPUs it may run on.
    pub fn affinity(&self) -> CpuSet {
        CpuSet(self.affinity.load(Ordering::Relaxed))
    }

    /// Whether it has to look at its signals before it returns to user mode.
    pub(super) fn has_signal_work(&self) -> bool {
        self.signal_work.load(Ordering::SeqCst)
    }

    /// The mask that comes back when the call that replaced it is over.
    pub fn saved_mask(&self) -> IrqGuard<'_, Option<SigSet>> {
        self.saved_mask.lock()
    }

    /// Signals that it takes although they are blocked.
    pub fn set_waiting_for(&self, signals: SigSet) {
        self.waiting_for.store(signals.0, Ordering::SeqCst);
    }

    /// How an interrupted call goes on; that is known once.
    pub fn take_restart(&self) -> Restart {
        core::mem::take(&mut self.restart.lock())
    }

    /// Says how an interrupted call goes on.
    pub fn set_restart(&self, restart: Restart) {
        *self.restart.lock() = restart;
    }

    /// Where the kernel stores 0 and wakes a futex when the thread exits; 0: nowhere.
    pub fn set_clear_child_tid(&self, address: usize) {
        self.clear_child_tid.store(address, Ordering::Relaxed);
    }

    /// The list of robust futexes it holds; 0: none.
    pub fn robust_list(&self) -> usize {
        self.robust_list.load(Ordering::Relaxed)
    }

    /// Says where the list of its robust futexes is.
    pub fn set_robust_list(&self, address: usize) {
        self.robust_list.store(address, Ordering::Relaxed);
    }

    /// Nanoseconds of CPU time used so far.
    pub fn cpu_time(&self) -> u64 {
        sched::cpu_time(self)
    }

    /// The registers' place, for the scheduler.
    pub(super) fn context(&self) -> *mut Context {
        self.context.get()
    }
}

/// The running thread, as its own code sees it.
///
/// Cannot leave the thread, so the thread outlives it.
#[derive(Clone, Copy)]
pub struct Current {
    thread: *const Thread,
    not_send: PhantomData<*mut ()>,
}

impl Current {
    /// Whether an interruptible sleep must end, or a call. Who sends a signal to
    /// a thread that runs makes it look first, and tells its CPU then; a call that
    /// ends in between must not return past the signal, so this tells the CPU too.
    pub fn is_interrupted(self) -> bool {
        let work = self.has_signal_work();
        if work {
            cpu::set_return_work();
        }
        work
    }

    /// A reference that outlives this code, to be given to others.
    pub fn to_arc(self) -> Arc<Thread> {
        // SAFETY: the pointer came from `Arc::as_ptr` (see `sched::install`), and
        // the scheduler holds a reference while the thread runs.
        unsafe {
            Arc::increment_strong_count(self.thread);
            Arc::from_raw(self.thread)
        }
    }
}

impl Deref for Current {
    type Target = Thread;

    fn deref(&self) -> &Thread {
        // SAFETY: the scheduler holds a reference to the thread that runs, and
        // this value is confined to that thread.
        unsafe { &*self.thread }
    }
}

/// The running thread, if the CPU is not idle: for interrupt handlers.
#[inline]
pub fn try_current() -> Option<Current> {
    let thread = cpu::thread() as *const Thread;
    (!thread.is_null()).then_some(Current { thread, not_send: PhantomData })
}

/// The running thread.
///
/// # Panics
/// In code that no thread runs: interrupt handlers of an idle CPU (which use
/// [`try_current`]) and the boot code.
#[inline]
pub fn current() -> Current {
    match try_current() {
        Some(current) => current,
        None => panic!("no thread runs on this CPU"),
    }
}
