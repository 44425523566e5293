//! Signals.

use mm::Errno;

use super::time::Timespec;
use super::{Args, Result};
use crate::arch::usercopy::{Plain, copy_from_user, copy_to_user, read_user, write_user};
use crate::arch::{TrapFrame, time};
use crate::errno::{EINTR, ERESTARTNOHAND};
use crate::task::signal::info::{SI_TKILL, SI_USER, SIGINFO_SIZE};
use crate::task::signal::{Action, SIGNAL_COUNT, SigInfo, SigSet, Signal, frame, send};
use crate::task::thread::{Restart, current};
use crate::task::{Process, futex, table, wait};

/// Bytes of the kernel's `sigset_t`.
const SIGSET_SIZE: u64 = 8;

// SAFETY: integers of one size only, hence no padding.
unsafe impl Plain for Action {}

fn check_size(size: u64) -> core::result::Result<(), Errno> {
    if size == SIGSET_SIZE { Ok(()) } else { Err(Errno::EINVAL) }
}

fn signal(number: u64) -> core::result::Result<Signal, Errno> {
    Signal::new(number as u32 as usize).ok_or(Errno::EINVAL)
}

/// A signal to send, or 0, which only asks whether one could.
fn sendable(number: u64) -> core::result::Result<Option<Signal>, Errno> {
    match number as u32 {
        0 => Ok(None),
        _ => signal(number).map(Some),
    }
}

pub fn rt_sigaction(args: &Args) -> Result {
    let [number, new, old, size, ..] = *args;
    check_size(size)?;
    let signal = signal(number)?;
    let new: Option<Action> = if new != 0 { Some(read_user(new as usize)?) } else { None };
    let process = current().process().clone();
    let was = match new {
        Some(_) if SigSet::UNBLOCKABLE.contains(signal) => return Err(Errno::EINVAL),
        Some(action) => send::set_action(&process, signal, action),
        None => process.handlers().get(signal),
    };
    if old != 0 {
        write_user(old as usize, was)?;
    }
    Ok(0)
}

pub fn rt_sigprocmask(args: &Args) -> Result {
    const SIG_BLOCK: u32 = 0;
    const SIG_UNBLOCK: u32 = 1;
    const SIG_SETMASK: u32 = 2;
    let [how, new, old, size, ..] = *args;
    check_size(size)?;
    let was = current().blocked();
    if new != 0 {
        let set = SigSet(read_user(new as usize)?);
        let mask = match how as u32 {
            SIG_BLOCK => was.union(set),
            SIG_UNBLOCK => was.without(set),
            SIG_SETMASK => set,
            _ => return Err(Errno::EINVAL),
        };
        send::set_blocked(mask);
    }
    if old != 0 {
        write_user(old as usize, was.0)?;
    }
    Ok(0)
}

pub fn rt_sigpending(args: &Args) -> Result {
    if args[1] > SIGSET_SIZE {
        return Err(Errno::EINVAL);
    }
    let set = send::pending().intersection(current().blocked());
    copy_to_user(args[0] as usize, &set.0.to_le_bytes()[..args[1] as usize])?;
    Ok(0)
}

pub fn rt_sigreturn(frame: &mut TrapFrame) -> Result {
    frame::pop(frame);
    // What `rax` was is in the frame now, and stays.
    Ok(frame.rax as usize)
}

pub fn sigaltstack(frame: &TrapFrame) -> Result {
    let [new, old, ..] = frame.syscall_args();
    let sp = frame.rsp as usize;
    let setting = frame::alt_stack(sp);
    if new != 0 {
        frame::set_alt_stack(read_user(new as usize)?, sp)?;
    }
    if old != 0 {
        write_user(old as usize, setting)?;
    }
    Ok(0)
}

pub fn pause() -> Result {
    wait::sleep_until(crate::task::NEVER).map_err(|_| ERESTARTNOHAND)?;
    Err(ERESTARTNOHAND)
}

pub fn rt_sigsuspend(args: &Args) -> Result {
    check_size(args[1])?;
    let mask = SigSet(read_user(args[0] as usize)?);
    let thread = current();
    *thread.saved_mask() = Some(thread.blocked());
    send::set_blocked(mask);
    pause()
}

pub fn rt_sigtimedwait(args: &Args) -> Result {
    let [set, info, timeout, size, ..] = *args;
    check_size(size)?;
    let wanted = SigSet(read_user(set as usize)?).without(SigSet::UNBLOCKABLE);
    let deadline = match timeout {
        0 => None,
        address => {
            let duration = Timespec::read(address as usize)?.to_duration()?;
            Some(time::monotonic_ns().saturating_add(duration))
        }
    };
    let thread = current();
    thread.set_waiting_for(wanted);
    let taken = wait::wait_signal(deadline, || send::take(wanted));
    thread.set_waiting_for(SigSet::EMPTY);
    match taken {
        Ok(Some(taken)) => {
            if info != 0 {
                copy_to_user(info as usize, &taken.to_bytes())?;
            }
            Ok(taken.signal.number() as usize)
        }
        Ok(None) => Err(Errno::EAGAIN),
        // Never restarted, whatever the handler says.
        Err(_) => Err(EINTR),
    }
}

pub fn kill(args: &Args) -> Result {
    let signal = sendable(args[1])?;
    let caller = current().process().clone();
    let info = signal.map(|signal| SigInfo::user(signal, SI_USER, caller.pid()));
    match args[0] as i32 {
        0 => to_group(caller.group(), info),
        -1 => to_all(&caller, info),
        i32::MIN => Err(Errno::ESRCH),
        pid if pid < 0 => to_group(pid.unsigned_abs(), info),
        pid => {
            let process = table::process(pid as u32).ok_or(Errno::ESRCH)?;
            if let Some(info) = info {
                send::to_process(&process, info)?;
            }
            Ok(0)
        }
    }
}

fn to_group(group: u32, info: Option<SigInfo>) -> Result {
    let any = match info {
        Some(info) => send::to_group(group, info),
        None => table::next_process(0, |process| process.group() == group).is_some(),
    };
    if any { Ok(0) } else { Err(Errno::ESRCH) }
}

/// To every process but the first and the caller.
fn to_all(caller: &Process, info: Option<SigInfo>) -> Result {
    let mut any = false;
    for process in table::processes(table::INIT + 1, |process| process.pid() != caller.pid()) {
        any = true;
        if let Some(info) = info {
            // One of many: a full queue is not the sender's concern.
            let _ = send::to_process(&process, info);
        }
    }
    if any { Ok(0) } else { Err(Errno::ESRCH) }
}

pub fn tkill(args: &Args) -> Result {
    to_thread(None, args[0], args[1])
}

pub fn tgkill(args: &Args) -> Result {
    if args[0] as i32 <= 0 {
        return Err(Errno::EINVAL);
    }
    to_thread(Some(args[0] as u32), args[1], args[2])
}

fn to_thread(pid: Option<u32>, tid: u64, number: u64) -> Result {
    if tid as i32 <= 0 {
        return Err(Errno::EINVAL);
    }
    let signal = sendable(number)?;
    let thread = table::thread(tid as u32).ok_or(Errno::ESRCH)?;
    if pid.is_some_and(|pid| thread.process().pid() != pid) {
        return Err(Errno::ESRCH);
    }
    if let Some(signal) = signal {
        let info = SigInfo::user(signal, SI_TKILL, current().process().pid());
        send::to_thread(&thread, info)?;
    }
    Ok(0)
}

/// Reads the information that a program sends along. It may not claim to come
/// from the kernel or from `tkill`, unless it goes to the sender itself.
fn read_info(address: u64, signal: Signal, to_self: bool) -> core::result::Result<SigInfo, Errno> {
    let mut bytes = [0; SIGINFO_SIZE];
    copy_from_user(&mut bytes, address as usize)?;
    let info = SigInfo::from_bytes(signal, &bytes);
    if (info.code >= 0 || info.code == SI_TKILL) && !to_self {
        return Err(Errno::EPERM);
    }
    Ok(info)
}

pub fn rt_sigqueueinfo(args: &Args) -> Result {
    let [pid, number, info, ..] = *args;
    let to_self = pid as u32 == current().process().pid();
    // The information is read, and checked, even where nothing is sent.
    let signal = sendable(number)?;
    let info = read_info(info, signal.unwrap_or(Signal::SIGHUP), to_self)?;
    if pid as i32 <= 0 {
        return Err(Errno::ESRCH);
    }
    let process = table::process(pid as u32).ok_or(Errno::ESRCH)?;
    if signal.is_some() {
        send::to_process(&process, info)?;
    }
    Ok(0)
}

pub fn rt_tgsigqueueinfo(args: &Args) -> Result {
    let [pid, tid, number, info, ..] = *args;
    if pid as i32 <= 0 || tid as i32 <= 0 {
        return Err(Errno::EINVAL);
    }
    let to_self = tid as u32 == current().tid();
    let signal = sendable(number)?;
    let info = read_info(info, signal.unwrap_or(Signal::SIGHUP), to_self)?;
    let thread = table::thread(tid as u32).ok_or(Errno::ESRCH)?;
    if thread.process().pid() != pid as u32 {
        return Err(Errno::ESRCH);
    }
    if signal.is_some() {
        send::to_thread(&thread, info)?;
    }
    Ok(0)
}

/// Goes on with a call that a signal without a handler interrupted.
pub fn restart_syscall() -> Result {
    match current().take_restart() {
        Restart::None => Err(EINTR),
        Restart::Sleep { deadline, remaining } => super::time::sleep(deadline, Some(remaining)),
        Restart::Futex { address, value, bitset, deadline, private } => {
            futex::wait(address, private, value, bitset, Some(deadline), true)
        }
    }
}

const _: () = assert!(SIGNAL_COUNT == SIGSET_SIZE as usize * 8);
