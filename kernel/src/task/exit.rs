//! The end: of a thread, of a process, and of the machine with the first one.
//!
//! A process ends when its last thread does. It then gives back everything,
//! and only its entry in the table is left, a zombie, until the parent has
//! learnt the status ([`super::reap`]).

use core::sync::atomic::{AtomicBool, Ordering};

use alloc::sync::Arc;

use super::futex;
use super::process::{ExitStatus, Process, Space, State, Usage};
use super::sched;
use super::signal::action::{SA_NOCLDSTOP, SA_NOCLDWAIT, SIG_IGN};
use super::signal::info::{CLD_CONTINUED, CLD_DUMPED, CLD_EXITED, CLD_KILLED, CLD_STOPPED, SI_USER};
use super::signal::{SigInfo, Signal, send};
use super::table::{self, INIT};
use super::thread::{Thread, current};
use super::timer;
use super::watchdog;
use crate::arch::cpu;
use crate::arch::usercopy::write_user;
use crate::drivers::debug_exit;
use crate::fs::poll;

/// Nanoseconds of the clock tick in which times are reported to programs.
pub const CLOCK_TICK_NS: u64 = 10_000_000;

/// Whether `thread` is to exit rather than return to user mode. `state` is its
/// process's, locked.
pub(super) fn must_exit(thread: &Thread, state: &State) -> bool {
    state.exiting.is_some() || state.exec_by.is_some_and(|tid| tid != thread.tid())
}

/// Ends the current process: all its threads exit.
pub fn exit_group(status: ExitStatus) -> ! {
    let status = {
        let thread = current();
        let process = thread.process();
        let mut state = process.state.lock();
        send::begin_exit(process, &mut state, status);
        state.exiting.unwrap_or(status)
    };
    exit_thread(status)
}

/// Ends the current thread. `status` becomes the process's if this is the last
/// one and nothing else was decided.
pub fn exit_thread(status: ExitStatus) -> ! {
    let thread = current().to_arc();
    let process = thread.process().clone();
    release_user_memory(&thread);
    timer::remove_thread(&thread);
    // From here on this thread uses no memory of the process's.
    if process.live.fetch_sub(1, Ordering::AcqRel) == 1 {
        // SAFETY: neither does any other, as the count tells.
        unsafe { release_resources(&process) };
    }
    process.dead_usage.lock().add(&Usage::of_thread(&thread));
    table::remove_thread(thread.tid());

    let (last, stopped, removed) = {
        let mut state = process.state.lock();
        let at = state.threads.iter().position(|other| Arc::ptr_eq(other, &thread));
        let removed = at.map(|at| state.threads.remove(at));
        let last = state.threads.is_empty();
        if last {
            state.final_name = thread.name();
            state.exiting.get_or_insert(status);
        }
        let all_stopped = !last && !state.stop_unreported && state.stopped_threads == state.threads.len();
        let stopped = state.stopped.filter(|_| all_stopped);
        state.stop_unreported |= stopped.is_some();
        (last, stopped, removed)
    };
    drop(removed);
    if let Some(signal) = stopped {
        notify_stopped(&process, signal);
    }
    if last {
        become_zombie(&process);
    } else {
        process.thread_exits.wake_all();
    }
    drop(process);
    drop(thread);
    sched::exit_current()
}

/// What an exiting thread owes others that share its memory.
pub(super) fn release_user_memory(thread: &Thread) {
    futex::release_robust_list(thread);
    let address = thread.clear_child_tid.swap(0, Ordering::Relaxed);
    if address != 0 && write_user(address, 0u32).is_ok() {
        futex::wake_after_exit(address);
    }
}

/// Whether each address space is verified before a process lets go of it.
static VERIFY: AtomicBool = AtomicBool::new(false);

/// From now on each address space is verified before a process lets go of it, at
/// exec and exit. That takes as long as it has pages, and is for tests.
pub(super) fn verify_spaces() {
    VERIFY.store(true, Ordering::Relaxed);
}

/// Drops a process's reference to an address space, which may be the last.
///
/// # Panics
///
/// If address spaces are to be verified, and something does not hold in this one.
pub(super) fn let_go(space: Option<Arc<Space>>) {
    let Some(space) = &space else { return };
    watchdog::hang_now(space);
    if VERIFY.load(Ordering::Relaxed) {
        if cpu::count() == 1 {
            space.verify();
        } else if Arc::strong_count(space) == 1 {
            // Processes that share pages with it go on meanwhile. Those that share
            // all of it, as after `vfork`, would change it: then the last one verifies.
            space.verify_beside_others();
        }
    }
}

/// Gives back what the process holds: memory, files, children.
///
/// # Safety
///
/// As for [`Process::set_space`].
unsafe fn release_resources(process: &Arc<Process>) {
    timer::remove_process(process);
    // SAFETY: as the caller promises.
    let space = unsafe { process.set_space(None) };
    if let Some(space) = &space {
        let peak = space.stats().peak_rss * mm::PAGE_SIZE / 1024;
        let mut usage = process.dead_usage.lock();
        usage.max_rss = usage.max_rss.max(peak as u64);
    }
    sched::leave_space();
    if let Some(space) = &space {
        sched::evict(space);
    }
    let_go(space);
    process.release();
    drop(process.replace_files(None));
    drop(process.set_context(None));
    drop(process.set_executable(None));
    if process.pid() != INIT {
        orphan_children(process);
    }
}

impl Process {
    /// Lets the parent go on, if it waits for this child to let go of its
    /// memory (vfork).
    pub(super) fn release(&self) {
        self.released.store(true, Ordering::Release);
        self.release.wake_all();
    }
}

/// Gives the children to the nearest ancestor that adopts, or to the first process.
fn orphan_children(process: &Process) {
    let mut to = process.parent_pid();
    while to > INIT {
        match table::process(to) {
            Some(ancestor) if ancestor.subreaper.load(Ordering::Relaxed) && !ancestor.is_exiting() => {
                break;
            }
            Some(ancestor) => to = ancestor.parent_pid(),
            None => to = INIT,
        }
    }
    let to = to.max(INIT);
    let mut zombies = false;
    while let Some(child) = table::reparent_child(process.pid(), to) {
        zombies |= child.is_zombie();
        let signal = child.parent_death_signal.load(Ordering::Relaxed);
        if let Some(signal) = Signal::new(signal as usize) {
            let info = SigInfo::user(signal, SI_USER, process.pid());
            // A real-time signal may find no room; there is no one to tell.
            let _ = send::to_process(&child, info);
        }
    }
    if zombies && let Some(parent) = table::process(to) {
        parent.child_events.wake_all();
    }
}

/// The last thread is gone: tells the parent, or ends the machine.
fn become_zombie(process: &Arc<Process>) {
    let status = process.state.lock().exiting.unwrap_or(ExitStatus::Exited(0));
    if process.pid() == INIT {
        debug_exit::exit(status.shell_code());
    }
    process.zombie.store(true, Ordering::Release);
    poll::changed();
    // Not before: a parent that exits meanwhile either sees the zombie, and tells
    // the next one, or that is seen here.
    let parent = table::parent(process);
    let unwanted = parent.as_ref().is_some_and(|parent| announce(process, parent, status));
    process.announced.store(true, Ordering::Release);
    if unwanted && !process.reaped.swap(true, Ordering::AcqRel) {
        table::remove_process(process);
    }
    if let Some(parent) = parent {
        parent.child_events.wake_all();
    }
}

/// Sends the parent of a zombie the signal for that. Says whether the parent does
/// not want to learn the status.
fn announce(process: &Process, parent: &Arc<Process>, status: ExitStatus) -> bool {
    let signal = process.exit_signal.load(Ordering::Relaxed);
    let action = parent.handlers().get(Signal::SIGCHLD);
    let unwanted =
        signal == Signal::SIGCHLD.number() && (action.handler == SIG_IGN || action.flags & SA_NOCLDWAIT != 0);
    if let Some(signal) = Signal::new(signal as usize)
        && !(unwanted && action.handler == SIG_IGN)
    {
        let (code, detail) = describe(status);
        let info = SigInfo { signal, ..child_info(process, code, detail) };
        // A real-time exit signal may find no room; there is no one to tell.
        let _ = send::to_process(parent, info);
    }
    unwanted
}

/// `si_code` and `si_status` for an exit status.
pub(super) fn describe(status: ExitStatus) -> (i32, i32) {
    match status {
        ExitStatus::Exited(code) => (CLD_EXITED, i32::from(code)),
        ExitStatus::Killed { signal, core: false } => (CLD_KILLED, signal.number() as i32),
        ExitStatus::Killed { signal, core: true } => (CLD_DUMPED, signal.number() as i32),
    }
}

fn child_info(process: &Process, code: i32, status: i32) -> SigInfo {
    let usage = process.usage();
    let ticks = |ns: u64| ns / CLOCK_TICK_NS;
    SigInfo::child(code, process.pid(), status, ticks(usage.user), ticks(usage.system))
}

/// Tells the parent that all threads of `process` have stopped because of `signal`: even if they are to go on
/// already, as the parent has seen it.
pub(super) fn notify_stopped(process: &Process, signal: Signal) {
    notify_job_control(process, CLD_STOPPED, signal.number() as i32);
}

/// Tells the parent that `process` goes on after a stop.
pub(super) fn notify_continued(process: &Process) {
    notify_job_control(process, CLD_CONTINUED, Signal::SIGCONT.number() as i32);
}

fn notify_job_control(process: &Process, code: i32, status: i32) {
    let Some(parent) = table::process(process.parent_pid()) else { return };
    if parent.handlers().get(Signal::SIGCHLD).flags & SA_NOCLDSTOP == 0 {
        // Standard signals always have room.
        let _ = send::to_process(&parent, child_info(process, code, status));
    }
    parent.child_events.wake_all();
}
