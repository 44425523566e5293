//! A process: an address space, open files, and the threads that share them.
//!
//! Locks, outermost first: the process table's ([`super::table`]), a process's
//! `state`, then the leaves (`space`, a thread's pending queue, the
//! scheduler's). The timers' lock comes before `state`.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use alloc::sync::Arc;
use alloc::vec::Vec;
use mm::Errno;

use super::limits::{Limits, Resource};
use super::signal::{Handlers, Pending, SigSet, Signal};
use super::thread::{NAME_MAX, Thread};
use super::timer::TimerSlot;
use super::wait::WaitQueue;
use crate::arch::irq::IrqMutex;
use crate::fs::{FdTable, File, FsContext};
use crate::memory::{KernelPlatform, try_arc};

/// An address space of this kernel.
pub type Space = mm::AddressSpace<'static, KernelPlatform>;

/// Where the pieces of the initial stack are, for `/proc/PID/cmdline` and
/// friends. Addresses in the process's own space; ends are exclusive.
#[derive(Clone, Copy, Default, Debug)]
pub struct Image {
    /// Argument strings.
    pub args: (usize, usize),
    /// Environment strings.
    pub env: (usize, usize),
    /// What `rsp` was when the program began.
    pub stack: usize,
    /// Code of the program, from its first executable segment to its last.
    pub code: (usize, usize),
    /// Where the auxiliary vector is.
    pub auxv: (usize, usize),
}

/// How a process ended, as `wait4` reports it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitStatus {
    /// By `exit` or `exit_group`, with the low eight bits of the argument.
    Exited(u8),
    /// By a signal; `core`: one whose default is to dump core.
    Killed {
        /// Which.
        signal: Signal,
        /// The core-dump bit.
        core: bool,
    },
}

impl ExitStatus {
    /// The wait status word.
    pub fn word(self) -> u32 {
        match self {
            ExitStatus::Exited(code) => u32::from(code) << 8,
            ExitStatus::Killed { signal, core } => signal.number() | if core { 0x80 } else { 0 },
        }
    }

    /// What a shell would make of it: the code, or 128 plus the signal.
    pub fn shell_code(self) -> i32 {
        match self {
            ExitStatus::Exited(code) => i32::from(code),
            ExitStatus::Killed { signal, .. } => 128 + signal.number() as i32,
        }
    }
}

/// What changes with job control, exit and signals; Linux's `signal_struct`
/// under its `siglock`.
pub struct State {
    /// The threads that have not exited.
    pub threads: Vec<Arc<Thread>>,
    /// Signals for whichever thread takes them.
    pub pending: Pending,
    /// The name of its last thread, once that has exited.
    pub final_name: [u8; NAME_MAX + 1],
    /// The whole process is exiting, with this status.
    pub exiting: Option<ExitStatus>,
    /// The thread that executes exec and waits for the others to be gone.
    pub exec_by: Option<u32>,
    /// The process is stopped, or stopping, by this signal.
    pub stopped: Option<Signal>,
    /// How many of its threads have stopped.
    pub stopped_threads: usize,
    /// It stopped, and no `wait` has reported that yet.
    pub stop_unreported: bool,
    /// It was continued, and no `wait` has reported that yet.
    pub continue_unreported: bool,
}

/// Resources used, as `getrusage` reports them. Times in nanoseconds.
#[derive(Clone, Copy, Default, Debug)]
pub struct Usage {
    /// In user mode.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
    /// Largest resident set, in KiB.
    pub max_rss: u64,
    /// Page faults.
    pub faults: u64,
    /// Switches away because it waited.
    pub voluntary: u64,
    /// Switches away because its turn was over.
    pub involuntary: u64,
}

impl Usage {
    /// Adds what another one used; the largest resident set is the larger.
    pub fn add(&mut self, other: &Usage) {
        self.user += other.user;
        self.system += other.system;
        self.max_rss = self.max_rss.max(other.max_rss);
        self.faults += other.faults;
        self.voluntary += other.voluntary;
        self.involuntary += other.involuntary;
    }

    /// What one thread has used, its share of user time being that of ticks
    /// that found it in user mode.
    pub fn of_thread(thread: &Thread) -> Usage {
        let total = thread.cpu_time();
        let user_ticks = thread.user_ticks.load(Ordering::Relaxed);
        let ticks = user_ticks + thread.kernel_ticks.load(Ordering::Relaxed);
        let user = match ticks {
            0 => total,
            _ => (u128::from(total) * u128::from(user_ticks) / u128::from(ticks)) as u64,
        };
        Usage {
            user,
            system: total - user,
            max_rss: 0,
            faults: 0,
            voluntary: thread.voluntary_switches.load(Ordering::Relaxed),
            involuntary: thread.involuntary_switches.load(Ordering::Relaxed),
        }
    }
}

/// One process.
pub struct Process {
    pid: u32,
    /// The parent's pid; 0 for the first process.
    pub(super) parent: AtomicU32,
    pub(super) group: AtomicU32,
    pub(super) session: AtomicU32,
    /// Sent to the parent when this process ends; 0: none.
    pub(super) exit_signal: AtomicU32,
    /// Sent to this process when its parent ends; 0: none.
    pub(super) parent_death_signal: AtomicU32,

    space: IrqMutex<Option<Arc<Space>>>,
    files: IrqMutex<Option<Arc<FdTable>>>,
    context: IrqMutex<Option<Arc<FsContext>>>,
    handlers: IrqMutex<Arc<Handlers>>,
    executable: IrqMutex<Option<Arc<File>>>,
    pub(super) image: IrqMutex<Image>,
    pub(super) limits: Limits,

    pub(super) state: IrqMutex<State>,
    /// `state.exiting` is set; readable without the lock.
    exiting: AtomicBool,
    /// Threads that have not begun to exit.
    pub(super) live: AtomicUsize,
    /// No thread is left, and the parent may reap it.
    pub(super) zombie: AtomicBool,
    /// The parent has been sent the signal for that.
    pub(super) announced: AtomicBool,
    /// Someone does reap it.
    pub(super) reaped: AtomicBool,
    /// Threads wait here for a child's state to change.
    pub(super) child_events: WaitQueue,
    /// Woken when a thread has exited, for exec.
    pub(super) thread_exits: WaitQueue,
    /// It has let go of the address space it was created with: exec, or exit.
    pub(super) released: AtomicBool,
    /// The parent waits here for `released` (vfork).
    pub(super) release: WaitQueue,

    pub(super) timer: TimerSlot,
    /// `ITIMER_VIRTUAL` and `ITIMER_PROF`: ticks left, and ticks between; 0: not set.
    virtual_timer: TickTimer,
    profiling_timer: TickTimer,
    /// Monotonic nanoseconds.
    pub(super) started: u64,
    /// Used by threads that have exited.
    pub(super) dead_usage: IrqMutex<Usage>,
    /// Used by children that were waited for.
    pub(super) children_usage: IrqMutex<Usage>,
    pub(super) dumpable: AtomicU32,
    /// It has executed a program since it was forked.
    pub(super) did_exec: AtomicBool,
    pub(super) no_new_privs: AtomicBool,
    pub(super) subreaper: AtomicBool,
}

/// A timer that counts ticks of CPU time.
pub struct TickTimer {
    /// Ticks until the signal; 0: not set.
    pub left: AtomicU64,
    /// Ticks from then on; 0: once.
    pub interval: AtomicU64,
}

impl TickTimer {
    const fn new() -> TickTimer {
        TickTimer { left: AtomicU64::new(0), interval: AtomicU64::new(0) }
    }

    /// One tick has passed: whether the time is up.
    pub fn count(&self) -> bool {
        let next = |left| match left {
            0 => None,
            1 => Some(self.interval.load(Ordering::Relaxed)),
            _ => Some(left - 1),
        };
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) == Ok(1)
    }
}

/// What a new process starts with.
pub struct Parts {
    /// Its number.
    pub pid: u32,
    /// The parent's number.
    pub parent: u32,
    /// Process group.
    pub group: u32,
    /// Session.
    pub session: u32,
    /// Sent to the parent at the end; 0: none.
    pub exit_signal: u32,
    /// Address space.
    pub space: Arc<Space>,
    /// Open files.
    pub files: Arc<FdTable>,
    /// Working directory and umask.
    pub context: Arc<FsContext>,
    /// Signal handlers.
    pub handlers: Arc<Handlers>,
    /// The program's file.
    pub executable: Option<Arc<File>>,
    /// Where the initial stack's pieces are.
    pub image: Image,
    /// Resource limits.
    pub limits: Limits,
}

impl Process {
    /// A process without a thread, in no table.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new(parts: Parts) -> Result<Arc<Process>, Errno> {
        try_arc(Process {
            pid: parts.pid,
            parent: AtomicU32::new(parts.parent),
            group: AtomicU32::new(parts.group),
            session: AtomicU32::new(parts.session),
            exit_signal: AtomicU32::new(parts.exit_signal),
            parent_death_signal: AtomicU32::new(0),
            space: IrqMutex::new(Some(parts.space)),
            files: IrqMutex::new(Some(parts.files)),
            context: IrqMutex::new(Some(parts.context)),
            handlers: IrqMutex::new(parts.handlers),
            executable: IrqMutex::new(parts.executable),
            image: IrqMutex::new(parts.image),
            limits: parts.limits,
            state: IrqMutex::new(State {
                threads: Vec::new(),
                final_name: [0; NAME_MAX + 1],
                pending: Pending::new()?,
                exiting: None,
                exec_by: None,
                stopped: None,
                stopped_threads: 0,
                stop_unreported: false,
                continue_unreported: false,
            }),
            exiting: AtomicBool::new(false),
            live: AtomicUsize::new(0),
            zombie: AtomicBool::new(false),
            announced: AtomicBool::new(false),
            reaped: AtomicBool::new(false),
            child_events: WaitQueue::new(),
            thread_exits: WaitQueue::new(),
            released: AtomicBool::new(false),
            release: WaitQueue::new(),
            timer: TimerSlot::new(),
            virtual_timer: TickTimer::new(),
            profiling_timer: TickTimer::new(),
            started: crate::arch::time::monotonic_ns(),
            dead_usage: IrqMutex::new(Usage::default()),
            children_usage: IrqMutex::new(Usage::default()),
            dumpable: AtomicU32::new(1),
            did_exec: AtomicBool::new(false),
            no_new_privs: AtomicBool::new(false),
            subreaper: AtomicBool::new(false),
        })
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its parent's number; 0 for the first process.
    pub fn parent_pid(&self) -> u32 {
        self.parent.load(Ordering::Relaxed)
    }

    /// Its process group.
    pub fn group(&self) -> u32 {
        self.group.load(Ordering::Relaxed)
    }

    /// Its session.
    pub fn session(&self) -> u32 {
        self.session.load(Ordering::Relaxed)
    }

    /// Its address space; `None` once it exits.
    pub fn space(&self) -> Option<Arc<Space>> {
        self.space.lock().clone()
    }

    /// Whether `space` is its address space.
    pub(super) fn has_space(&self, space: &Arc<Space>) -> bool {
        self.space.lock().as_ref().is_some_and(|own| Arc::ptr_eq(own, space))
    }

    /// Its address space, without counting a reference, or even taking a lock, as
    /// every page fault and system call on memory asks for it.
    ///
    /// # Safety
    ///
    /// The current thread is one of the process's, and until it has done with the
    /// result it does not exec or exit.
    #[inline]
    pub(super) unsafe fn space_of_current(&self) -> Option<&Space> {
        // SAFETY: only `set_space` writes there, which the current thread does not call
        // meanwhile, and no other one may as long as this one uses its memory.
        unsafe { (*self.space.as_ptr()).as_deref() }
    }

    /// Replaces the address space, and returns the one it had.
    ///
    /// # Safety
    ///
    /// The current thread is one of the process's, and the others have come to an
    /// end, at least so far that they do not use its memory any more.
    pub(super) unsafe fn set_space(&self, space: Option<Arc<Space>>) -> Option<Arc<Space>> {
        core::mem::replace(&mut self.space.lock(), space)
    }

    /// Its open files; `None` once it exits.
    pub fn files(&self) -> Option<Arc<FdTable>> {
        self.files.lock().clone()
    }

    /// Replaces the open files, and returns those it had.
    pub fn replace_files(&self, files: Option<Arc<FdTable>>) -> Option<Arc<FdTable>> {
        core::mem::replace(&mut self.files.lock(), files)
    }

    /// Its working directory and umask; `None` once it exits.
    pub fn context(&self) -> Option<Arc<FsContext>> {
        self.context.lock().clone()
    }

    /// Replaces working directory and umask, and returns those it had.
    pub(super) fn set_context(&self, context: Option<Arc<FsContext>>) -> Option<Arc<FsContext>> {
        core::mem::replace(&mut self.context.lock(), context)
    }

    /// Its signal handlers.
    pub fn handlers(&self) -> Arc<Handlers> {
        self.handlers.lock().clone()
    }

    /// Replaces the signal handlers.
    pub(super) fn set_handlers(&self, handlers: Arc<Handlers>) {
        let old = core::mem::replace(&mut *self.handlers.lock(), handlers);
        drop(old);
    }

    /// The file of the program it executes; `None` once it exits.
    pub fn executable(&self) -> Option<Arc<File>> {
        self.executable.lock().clone()
    }

    /// Replaces the program's file, and returns the one it had.
    pub(super) fn set_executable(&self, file: Option<Arc<File>>) -> Option<Arc<File>> {
        core::mem::replace(&mut self.executable.lock(), file)
    }

    /// Where its initial stack's pieces are.
    pub fn image(&self) -> Image {
        *self.image.lock()
    }

    /// The soft limit of `resource`.
    pub fn limit(&self, resource: Resource) -> u64 {
        self.limits.get(resource).soft
    }

    /// All its limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Monotonic nanoseconds at which it was created.
    pub fn started(&self) -> u64 {
        self.started
    }

    /// Numbers of its threads that are `from` or more: the least of them.
    pub fn next_thread(&self, from: u32) -> Option<u32> {
        let state = self.state.lock();
        state.threads.iter().map(|thread| thread.tid()).filter(|&tid| tid >= from).min()
    }

    /// Signals that wait for any of its threads.
    pub fn pending_signals(&self) -> SigSet {
        self.state.lock().pending.set()
    }

    /// How many threads it has.
    pub fn thread_count(&self) -> usize {
        self.state.lock().threads.len()
    }

    /// Its name: that of its first thread, or of the last one that it had.
    pub fn name(&self) -> [u8; NAME_MAX + 1] {
        let state = self.state.lock();
        state.threads.first().map_or(state.final_name, |thread| thread.name())
    }

    /// Its first thread, which gives the process its name and state in `/proc`.
    pub fn leader(&self) -> Option<Arc<Thread>> {
        self.state.lock().threads.first().cloned()
    }

    /// Whether all threads are gone and only the status is left.
    pub fn is_zombie(&self) -> bool {
        self.zombie.load(Ordering::Acquire)
    }

    /// Whether all its threads are to exit.
    pub fn is_exiting(&self) -> bool {
        self.exiting.load(Ordering::Acquire)
    }

    /// Mirrors `state.exiting` and `state.exec_by`; called with `state` locked.
    pub(super) fn note_exiting(&self, exiting: bool) {
        self.exiting.store(exiting, Ordering::Release);
    }

    /// The signal it gets when its parent ends; 0: none.
    pub fn parent_death_signal(&self) -> u32 {
        self.parent_death_signal.load(Ordering::Relaxed)
    }

    /// Sets that signal.
    pub fn set_parent_death_signal(&self, signal: u32) {
        self.parent_death_signal.store(signal, Ordering::Relaxed);
    }

    /// `PR_GET_DUMPABLE`.
    pub fn dumpable(&self) -> u32 {
        self.dumpable.load(Ordering::Relaxed)
    }

    /// `PR_SET_DUMPABLE`.
    pub fn set_dumpable(&self, value: u32) {
        self.dumpable.store(value, Ordering::Relaxed);
    }

    /// Whether orphaned descendants become its children.
    pub fn is_subreaper(&self) -> bool {
        self.subreaper.load(Ordering::Relaxed)
    }

    /// Makes orphaned descendants its children, or not.
    pub fn set_subreaper(&self, value: bool) {
        self.subreaper.store(value, Ordering::Relaxed);
    }

    /// Whether it has executed a program since it was forked.
    pub fn did_exec(&self) -> bool {
        self.did_exec.load(Ordering::Relaxed)
    }

    /// `PR_GET_NO_NEW_PRIVS`.
    pub fn no_new_privs(&self) -> bool {
        self.no_new_privs.load(Ordering::Relaxed)
    }

    /// `PR_SET_NO_NEW_PRIVS`; there is no way back.
    pub fn set_no_new_privs(&self) {
        self.no_new_privs.store(true, Ordering::Relaxed);
    }

    /// `ITIMER_VIRTUAL`.
    pub fn virtual_timer(&self) -> &TickTimer {
        &self.virtual_timer
    }

    /// `ITIMER_PROF`.
    pub fn profiling_timer(&self) -> &TickTimer {
        &self.profiling_timer
    }

    /// What it has used so far.
    pub fn usage(&self) -> Usage {
        let mut usage = *self.dead_usage.lock();
        for thread in &self.state.lock().threads {
            usage.add(&Usage::of_thread(thread));
        }
        if let Some(space) = self.space() {
            let stats = space.stats();
            usage.max_rss = usage.max_rss.max((stats.peak_rss * mm::PAGE_SIZE / 1024) as u64);
        }
        usage
    }

    /// Used by children it has waited for.
    pub fn children_usage(&self) -> Usage {
        *self.children_usage.lock()
    }
}
