//! Sending signals, and what that does at once: waking, ending, continuing.

use core::sync::atomic::Ordering;

use alloc::sync::Arc;
use mm::Errno;

use super::action::{Action, Disposition};
use super::info::SI_KERNEL;
use super::{DefaultAction, SigInfo, SigSet, Signal};
use crate::arch::cpu;
use crate::errno::{ERESTART_RESTARTBLOCK, ERESTARTNOHAND, ERESTARTNOINTR, ERESTARTSYS};
use crate::task::exit;
use crate::task::limits::Resource;
use crate::task::process::{ExitStatus, Process, State};
use crate::task::sched;
use crate::task::table;
use crate::task::thread::{Thread, current, state, try_current};

/// Sends a signal to a process: some thread that does not block it takes it.
/// May be called from an interrupt handler.
///
/// # Errors
/// `EAGAIN`: a real-time signal for which there is no room.
pub fn to_process(process: &Arc<Process>, info: SigInfo) -> Result<(), Errno> {
    send(process, None, info)
}

/// Sends a signal to one thread. May be called from an interrupt handler.
///
/// # Errors
/// `EAGAIN`: a real-time signal for which there is no room.
pub fn to_thread(thread: &Arc<Thread>, info: SigInfo) -> Result<(), Errno> {
    send(thread.process(), Some(thread), info)
}

/// Sends a signal to every process of a group. Says whether there was any.
pub fn to_group(group: u32, info: SigInfo) -> bool {
    let mut any = false;
    for process in table::processes(0, |process| process.group() == group) {
        any = true;
        // One of many: a full queue is not the sender's concern.
        let _ = to_process(&process, info);
    }
    any
}

fn send(process: &Arc<Process>, target: Option<&Arc<Thread>>, info: SigInfo) -> Result<(), Errno> {
    let signal = info.signal;
    let action = process.handlers().get(signal);
    if is_protected(process, info, action) {
        return Ok(());
    }
    let mut state = process.state.lock();
    let continued = prepare(&mut state, signal);
    let result = queue(process, &mut state, target, info, action);
    drop(state);
    if continued {
        exit::notify_continued(process);
    }
    result
}

/// Whether the signal would do to the first process what no other process may:
/// the machine ends with it. Only what it has a handler for reaches it from
/// outside, as on Linux; unlike there, it may still end itself.
fn is_protected(process: &Process, info: SigInfo, action: Action) -> bool {
    process.pid() == table::INIT
        // A timer of its own may expire while another process runs.
        && !(info.code == SI_KERNEL && info.signal == Signal::SIGALRM)
        && try_current().is_some_and(|sender| sender.process().pid() != table::INIT)
        && matches!(action.disposition(info.signal), Disposition::Default(_))
}

/// What a signal does even if it is ignored or blocked: stop signals and
/// `SIGCONT` cancel each other. Says whether a stopped process goes on.
fn prepare(state: &mut State, signal: Signal) -> bool {
    if SigSet::STOPS.contains(signal) {
        discard(state, Signal::SIGCONT.set());
    }
    if signal != Signal::SIGCONT {
        return false;
    }
    discard(state, SigSet::STOPS);
    resume(state)
}

/// Lets a stopped (or stopping) process go on.
fn resume(state: &mut State) -> bool {
    if state.stopped.take().is_none() {
        return false;
    }
    state.stopped_threads = 0;
    state.stop_unreported = false;
    state.continue_unreported = true;
    for thread in &state.threads {
        sched::wake(thread, state::STOPPED);
    }
    true
}

fn discard(state: &mut State, unwanted: SigSet) {
    state.pending.discard(unwanted);
    for thread in &state.threads {
        thread.pending.lock().discard(unwanted);
    }
}

fn queue(
    process: &Process,
    state: &mut State,
    target: Option<&Arc<Thread>>,
    info: SigInfo,
    action: Action,
) -> Result<(), Errno> {
    let signal = info.signal;
    if state.threads.is_empty() || state.exiting.is_some() {
        return Ok(());
    }
    let blocked = match target.or(state.threads.first()) {
        Some(thread) => thread.blocked().contains(signal),
        None => false,
    };
    if action.ignores(signal) && !blocked {
        return Ok(());
    }
    let takes = |thread: &&Arc<Thread>| {
        !thread.blocked().contains(signal) || thread.waiting_for.load(Ordering::SeqCst) & signal.set().0 != 0
    };
    let taker = match target {
        Some(thread) => Some(thread).filter(takes),
        None => state.threads.iter().find(takes),
    }
    .cloned();

    // What kills does so at once, wherever the threads are: the status is
    // decided, and no thread returns to user mode.
    if let Some(status) = fatal(signal, action)
        && taker.as_ref().is_some_and(|thread| !thread.blocked().contains(signal))
    {
        begin_exit(process, state, status);
        return Ok(());
    }
    let limit = process.limit(Resource::PendingSignals) as usize;
    match target {
        Some(thread) => thread.pending.lock().push(info, limit)?,
        None => state.pending.push(info, limit)?,
    }
    if let Some(thread) = taker {
        alert(&thread, state::INTERRUPTIBLE);
    }
    Ok(())
}

/// The exit status that `signal` gives the process, if it ends it.
fn fatal(signal: Signal, action: Action) -> Option<ExitStatus> {
    match action.disposition(signal) {
        Disposition::Default(DefaultAction::Terminate) => Some(ExitStatus::Killed { signal, core: false }),
        Disposition::Default(DefaultAction::Core) => Some(ExitStatus::Killed { signal, core: true }),
        _ => None,
    }
}

/// Makes every thread of the process exit, and `status` the process's, unless
/// that was decided before.
pub(in crate::task) fn begin_exit(process: &Process, state: &mut State, status: ExitStatus) {
    if state.exiting.is_some() {
        return;
    }
    state.exiting = Some(status);
    state.stopped = None;
    process.note_exiting(true);
    for thread in &state.threads {
        alert(thread, state::INTERRUPTIBLE | state::KILLABLE | state::STOPPED);
    }
}

/// Makes `thread` look at its signals, and wakes it if it is in one of `states`.
/// Called with the process's `state` locked.
pub(in crate::task) fn alert(thread: &Arc<Thread>, states: u32) {
    thread.signal_work.store(true, Ordering::SeqCst);
    if sched::wake(thread, states) {
        return;
    }
    if try_current().is_some_and(|current| core::ptr::eq(&*current, &**thread)) {
        cpu::set_return_work();
    } else {
        sched::kick(thread);
    }
}

/// Sends the current thread a signal that the instruction it executes has
/// caused. It cannot be ignored or blocked: the process then ends.
pub fn force(info: SigInfo) {
    let thread = current().to_arc();
    let process = thread.process();
    let handlers = process.handlers();
    let state = process.state.lock();
    let signal = info.signal;
    let blocked = thread.blocked();
    if blocked.contains(signal) || handlers.get(signal).ignores(signal) {
        handlers.reset(signal);
        thread.store_blocked(blocked.without(signal.set()));
    }
    // Queued whatever the limit: a standard signal always has room.
    let _ = thread.pending.lock().push(info, usize::MAX);
    alert(&thread, 0);
    drop(state);
}

/// Ends the current process by a signal whose handler cannot be entered.
pub fn force_default(signal: Signal) {
    let thread = current();
    thread.process().handlers().reset(signal);
    thread.store_blocked(thread.blocked().without(signal.set()));
    force(SigInfo::kernel(signal));
}

/// Replaces the current thread's mask of blocked signals, and makes it look at
/// what that lets through.
pub fn set_blocked(mask: SigSet) {
    let thread = current();
    let process = thread.process();
    let state = process.state.lock();
    let newly_blocked = mask.without(thread.blocked());
    thread.store_blocked(mask);
    update_work(&thread, &state);
    // A signal for the whole process that this thread was to take may now be
    // another's.
    let orphaned = state.pending.set().intersection(newly_blocked);
    if !orphaned.is_empty() {
        for other in &state.threads {
            if !orphaned.without(other.blocked()).is_empty() {
                alert(other, state::INTERRUPTIBLE);
            }
        }
    }
}

/// Runs `call` with `mask` as the current thread's blocked signals. When a
/// signal interrupts it, the mask stays until that has been delivered.
///
/// # Errors
/// Those of `call`.
pub fn with_mask(mask: SigSet, call: impl FnOnce() -> Result<usize, Errno>) -> Result<usize, Errno> {
    let thread = current();
    let old = thread.blocked();
    set_blocked(mask);
    let result = call();
    let interrupted =
        matches!(result, Err(Errno::EINTR | ERESTARTSYS | ERESTARTNOINTR | ERESTARTNOHAND | ERESTART_RESTARTBLOCK));
    if interrupted && thread.has_signal_work() {
        *thread.saved_mask.lock() = Some(old);
    } else {
        set_blocked(old);
    }
    result
}

/// Recomputes whether the current thread has to look at its signals. Called
/// with its process's `state` locked.
pub(in crate::task) fn update_work(thread: &Thread, state: &State) {
    let pending = thread.pending.lock().set().union(state.pending.set());
    let work =
        !pending.without(thread.blocked()).is_empty() || state.stopped.is_some() || exit::must_exit(thread, state);
    thread.signal_work.store(work, Ordering::SeqCst);
    if work {
        cpu::set_return_work();
    }
}

/// What is pending for the current thread, its own and the process's.
pub fn pending() -> SigSet {
    let thread = current();
    let state = thread.process().state.lock();
    let own = thread.pending.lock().set();
    own.union(state.pending.set())
}

/// Takes a pending signal of `wanted` out of the current thread's own queue or
/// the process's.
pub fn take(wanted: SigSet) -> Option<SigInfo> {
    let thread = current();
    let mut state = thread.process().state.lock();
    let own = thread.pending.lock().take(wanted);
    let info = own.or_else(|| state.pending.take(wanted));
    update_work(&thread, &state);
    info
}

/// `rt_sigaction`: changes what a process does about a signal, and returns what
/// it did. If it now ignores the signal, what is pending of it goes.
pub fn set_action(process: &Process, signal: Signal, action: Action) -> Action {
    let mut state = process.state.lock();
    let old = process.handlers().set(signal, action);
    if action.ignores(signal) {
        discard(&mut state, signal.set());
    }
    old
}
