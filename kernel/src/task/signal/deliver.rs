//! Delivering signals: what a thread does about them on its way back to user mode.

use mm::Errno;

use super::action::{Action, Disposition, SA_NODEFER, SA_RESETHAND, SA_RESTART};
use super::{DefaultAction, SigInfo, SigSet, Signal, frame, send};
use crate::arch::trap::NOT_A_SYSCALL;
use crate::arch::{TrapFrame, fpu};
use crate::errno::{ERESTART_RESTARTBLOCK, ERESTARTNOHAND, ERESTARTNOINTR, ERESTARTSYS};
use crate::task::exit;
use crate::task::process::{ExitStatus, Process};
use crate::task::sched;
use crate::task::thread::{current, state};

/// Number of `restart_syscall`.
const RESTART_SYSCALL: u64 = 219;
/// Bytes of the `syscall` instruction.
const SYSCALL_LENGTH: u64 = 2;
/// `SIGTTIN`, `SIGTTOU` and `SIGTSTP` do not stop a process without job control.
const JOB_CONTROL_STOPS: SigSet = SigSet::STOPS.without(Signal::SIGSTOP.set());

/// Deals with everything that is pending: returns when the program may go on,
/// in a handler or where it was.
pub fn deliver(frame: &mut TrapFrame) {
    while let Some(info) = next_signal() {
        let signal = info.signal;
        let handlers = current().process().handlers();
        match handlers.get(signal).disposition(signal) {
            Disposition::Ignore | Disposition::Default(DefaultAction::Continue) => {}
            Disposition::Default(DefaultAction::Stop) => begin_stop(signal),
            Disposition::Default(action) => {
                let core = action == DefaultAction::Core;
                drop(handlers);
                exit::exit_group(ExitStatus::Killed { signal, core });
            }
            Disposition::Handle(action) => {
                if action.flags & SA_RESETHAND != 0 {
                    handlers.reset(signal);
                }
                drop(handlers);
                enter_handler(frame, info, action);
                return;
            }
        }
    }
    // Nothing runs a handler: an interrupted call starts again.
    if let Some(errno) = interrupted_call(frame) {
        let restarts_through = match errno {
            ERESTART_RESTARTBLOCK => RESTART_SYSCALL,
            _ => frame.orig_rax,
        };
        restart(frame, restarts_through);
    }
    let saved = current().saved_mask.lock().take();
    if let Some(mask) = saved {
        send::set_blocked(mask);
    }
}

/// The next signal to act on; exits or stops first if the process does.
fn next_signal() -> Option<SigInfo> {
    loop {
        let thread = current();
        let process = thread.process();
        let mut state = process.state.lock();
        if exit::must_exit(&thread, &state) {
            let status = state.exiting.unwrap_or(ExitStatus::Exited(0));
            drop(state);
            exit::exit_thread(status);
        }
        if let Some(signal) = state.stopped {
            state.stopped_threads += 1;
            let all = state.stopped_threads == state.threads.len();
            if all {
                state.stop_unreported = true;
                state.continue_unreported = false;
            }
            thread.state.store(state::STOPPED, core::sync::atomic::Ordering::SeqCst);
            drop(state);
            if all {
                exit::notify_stopped(process, signal);
            }
            sched::schedule();
            continue;
        }
        let wanted = SigSet(!thread.blocked().0);
        let own = thread.pending.lock().take(wanted);
        let info = own.or_else(|| state.pending.take(wanted));
        send::update_work(&thread, &state);
        return info;
    }
}

/// Makes all threads of the current process stop.
fn begin_stop(signal: Signal) {
    let thread = current();
    let process = thread.process();
    if JOB_CONTROL_STOPS.contains(signal) && is_orphaned_group(process) {
        return;
    }
    let mut state = process.state.lock();
    if state.stopped.is_some() {
        return;
    }
    state.stopped = Some(signal);
    state.stopped_threads = 0;
    for other in &state.threads {
        send::alert(other, state::INTERRUPTIBLE);
    }
}

/// Whether no member of the process's group has a parent in the same session
/// but in another group, who could continue it.
fn is_orphaned_group(process: &Process) -> bool {
    use crate::task::table;
    let group = process.group();
    let session = process.session();
    for member in table::processes(0, |member| member.group() == group) {
        if let Some(parent) = table::process(member.parent_pid())
            && parent.session() == session
            && parent.group() != group
        {
            return false;
        }
    }
    true
}

/// Makes the program go on in its handler.
fn enter_handler(frame: &mut TrapFrame, info: SigInfo, action: Action) {
    if let Some(errno) = interrupted_call(frame) {
        let again = errno == ERESTARTNOINTR || errno == ERESTARTSYS && action.flags & SA_RESTART != 0;
        if again {
            restart(frame, frame.orig_rax);
        } else {
            frame.rax = (-i64::from(Errno::EINTR.0)) as u64;
        }
    }
    let thread = current();
    let signal = info.signal;
    let old_mask = thread.saved_mask.lock().take().unwrap_or(thread.blocked());
    match frame::push(frame, info, &action, old_mask) {
        Ok(()) => {
            frame.orig_rax = NOT_A_SYSCALL;
            let mut mask = thread.blocked().union(SigSet(action.mask));
            if action.flags & SA_NODEFER == 0 {
                mask = mask.union(signal.set());
            }
            send::set_blocked(mask);
            fpu::reset();
        }
        // No room for the frame: the handler for that may have a stack of its
        // own; if this was that handler, there is nothing left to try.
        Err(_) if signal == Signal::SIGSEGV => send::force_default(Signal::SIGSEGV),
        Err(_) => send::force(SigInfo::kernel(Signal::SIGSEGV)),
    }
}

/// The restart code that the system call `frame` returns from ended with, if any.
fn interrupted_call(frame: &TrapFrame) -> Option<Errno> {
    if frame.orig_rax == NOT_A_SYSCALL {
        return None;
    }
    [ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, ERESTART_RESTARTBLOCK]
        .into_iter()
        .find(|errno| frame.rax as i64 == -i64::from(errno.0))
}

/// Makes the program execute its `syscall` instruction again, as call number `number`.
fn restart(frame: &mut TrapFrame, number: u64) {
    frame.rax = number;
    frame.rip -= SYSCALL_LENGTH;
    frame.orig_rax = NOT_A_SYSCALL;
}
