//! Processes and threads.
//!
//! Everything runs as root, with all capabilities; user and group IDs are 0
//! and stay 0.

use alloc::sync::Arc;
use mm::{Errno, TASK_SIZE};

use super::{Args, Result};
use crate::arch::usercopy::{Plain, copy_from_user, read_user, write_user};
use crate::arch::{TrapFrame, cpu};
use crate::elf::stack::Strings;
use crate::task::clone::{self, CLONE_PARENT, CLONE_SETTLS, CLONE_THREAD, Request};
use crate::task::limits::{Limit, Resource};
use crate::task::process::{ExitStatus, Process};
use crate::task::reap::{self, Which};
use crate::task::signal::SIGNAL_COUNT;
use crate::task::thread::{NAME_MAX, Thread, current};
use crate::task::{exec, exit as ending, table, with_space};

/// `AT_FDCWD`: relative to the current directory.
const AT_FDCWD: i32 = -100;

pub fn getpid() -> Result {
    Ok(current().process().pid() as usize)
}

pub fn getppid() -> Result {
    Ok(current().process().parent_pid() as usize)
}

pub fn gettid() -> Result {
    Ok(current().tid() as usize)
}

/// `getuid` and its siblings.
pub fn get_root_id() -> Result {
    Ok(0)
}

/// `getresuid`, `getresgid`.
pub fn get_root_ids(args: &Args) -> Result {
    for &address in &args[..3] {
        write_user(address as usize, 0u32)?;
    }
    Ok(0)
}

/// `setuid` and its siblings: to be root is what one can be, and "unchanged"
/// (all ones) is that too.
pub fn set_root_id(args: &Args) -> Result {
    match args[0] as u32 {
        0 | u32::MAX => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

pub fn getgroups() -> Result {
    Ok(0)
}

pub fn setgroups() -> Result {
    Ok(0)
}

pub fn fork(frame: &TrapFrame) -> Result {
    clone::clone(frame, &clone::fork_request())
}

pub fn vfork(frame: &TrapFrame) -> Result {
    clone::clone(frame, &clone::vfork_request())
}

/// Bits of `clone`'s first argument that are the exit signal.
const EXIT_SIGNAL_MASK: u64 = 0xff;

pub fn clone(frame: &TrapFrame) -> Result {
    let [flags, stack, parent_tid, child_tid, tls, _] = frame.syscall_args();
    clone::clone(
        frame,
        &Request {
            flags: flags & 0xffff_ffff & !EXIT_SIGNAL_MASK,
            exit_signal: (flags & EXIT_SIGNAL_MASK) as u32,
            stack: stack as usize,
            tls,
            parent_tid: parent_tid as usize,
            child_tid: child_tid as usize,
        },
    )
}

pub fn clone3(frame: &TrapFrame) -> Result {
    /// Words of `struct clone_args` that are known.
    const WORDS: usize = 11;
    /// Size of its first version.
    const MINIMUM: usize = 64;
    let [address, size, ..] = frame.syscall_args().map(|arg| arg as usize);
    let words = read_versioned::<WORDS>(address, size, MINIMUM)?;
    let [flags, _pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, _, set_tid, _] = words;
    let bad_stack = (stack == 0) != (stack_size == 0);
    let bad_signal =
        exit_signal > SIGNAL_COUNT as u64 || exit_signal != 0 && flags & (CLONE_THREAD | CLONE_PARENT) != 0;
    if bad_stack || bad_signal || set_tid != 0 || flags & EXIT_SIGNAL_MASK != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & CLONE_SETTLS != 0 && tls >= TASK_SIZE as u64 {
        return Err(Errno::EINVAL);
    }
    let top = stack.checked_add(stack_size).filter(|&top| top <= TASK_SIZE as u64);
    clone::clone(
        frame,
        &Request {
            flags,
            exit_signal: exit_signal as u32,
            stack: top.ok_or(Errno::EINVAL)? as usize,
            tls,
            parent_tid: parent_tid as usize,
            child_tid: child_tid as usize,
        },
    )
}

/// Reads a structure that grows with the ABI: what the program does not pass is
/// 0, and what the kernel does not know must be.
fn read_versioned<const WORDS: usize>(
    address: usize,
    size: usize,
    minimum: usize,
) -> core::result::Result<[u64; WORDS], Errno> {
    if size > mm::PAGE_SIZE {
        return Err(Errno::E2BIG);
    }
    if size < minimum {
        return Err(Errno::EINVAL);
    }
    let mut words = [0; WORDS];
    let known = size.min(WORDS * 8);
    for (at, word) in words.iter_mut().enumerate() {
        let mut bytes = [0; 8];
        let len = known.saturating_sub(at * 8).min(8);
        copy_from_user(&mut bytes[..len], address.wrapping_add(at * 8))?;
        *word = u64::from_le_bytes(bytes);
    }
    for at in known..size {
        if read_user::<u8>(address.wrapping_add(at))? != 0 {
            return Err(Errno::E2BIG);
        }
    }
    Ok(words)
}

pub fn execve(frame: &mut TrapFrame) -> Result {
    let [path, args, env, ..] = frame.syscall_args().map(|arg| arg as usize);
    execute(frame, AT_FDCWD, path, args, env, 0)
}

pub fn execveat(frame: &mut TrapFrame) -> Result {
    let [directory, path, args, env, flags, _] = frame.syscall_args().map(|arg| arg as usize);
    execute(frame, directory as i32, path, args, env, flags as u32)
}

fn execute(frame: &mut TrapFrame, directory: i32, path: usize, args: usize, env: usize, flags: u32) -> Result {
    let (file, path) = super::fs::open_program(directory, path, flags)?;
    let known_as =
        if directory == AT_FDCWD || path.first() == Some(&b'/') { path } else { descriptor_path(directory, &path)? };
    exec::exec(frame, file, &known_as, Strings::User(args), Strings::User(env))?;
    Ok(0)
}

/// What Linux calls a program that was named relative to a descriptor.
fn descriptor_path(descriptor: i32, path: &[u8]) -> core::result::Result<alloc::vec::Vec<u8>, Errno> {
    let mut digits = [0; 10];
    let mut at = digits.len();
    let mut rest = descriptor.unsigned_abs();
    while at == digits.len() || rest != 0 {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
    let mut known_as = alloc::vec::Vec::new();
    for part in [b"/dev/fd/", &digits[at..], separator, path] {
        known_as.try_reserve(part.len()).map_err(|_| Errno::ENOMEM)?;
        known_as.extend_from_slice(part);
    }
    Ok(known_as)
}

pub fn exit(args: &Args) -> Result {
    ending::exit_thread(ExitStatus::Exited(args[0] as u8))
}

pub fn exit_group(args: &Args) -> Result {
    ending::exit_group(ExitStatus::Exited(args[0] as u8))
}

/// The wait options that `wait4` takes.
const WAIT4_OPTIONS: u32 =
    reap::WNOHANG | reap::WSTOPPED | reap::WCONTINUED | reap::WNOTHREAD | reap::WALL | reap::WCLONE;

pub fn wait4(args: &Args) -> Result {
    let [pid, status, options, usage, ..] = *args;
    let options = options as u32;
    if options & !WAIT4_OPTIONS != 0 {
        return Err(Errno::EINVAL);
    }
    let which = match pid as i32 {
        i32::MIN => return Err(Errno::ESRCH),
        -1 => Which::Any,
        0 => Which::Group(current().process().group()),
        pid if pid < 0 => Which::Group(pid.unsigned_abs()),
        pid => Which::Process(pid as u32),
    };
    let Some(report) = reap::wait(which, options | reap::WEXITED)? else { return Ok(0) };
    if status != 0 {
        write_user(status as usize, report.word)?;
    }
    if usage != 0 {
        super::time::write_usage(usage as usize, &report.usage)?;
    }
    Ok(report.pid as usize)
}

pub fn waitid(args: &Args) -> Result {
    const P_ALL: u64 = 0;
    const P_PID: u64 = 1;
    const P_PGID: u64 = 2;
    let [kind, id, info, options, usage, _] = *args;
    let options = options as u32;
    let known = WAIT4_OPTIONS | reap::WEXITED | reap::WNOWAIT;
    let wanted = reap::WEXITED | reap::WSTOPPED | reap::WCONTINUED;
    if options & !known != 0 || options & wanted == 0 {
        return Err(Errno::EINVAL);
    }
    let id = id as u32;
    let which = match kind {
        P_ALL => Which::Any,
        P_PID if id as i32 > 0 => Which::Process(id),
        P_PGID if id == 0 => Which::Group(current().process().group()),
        P_PGID if id as i32 > 0 => Which::Group(id),
        _ => return Err(Errno::EINVAL),
    };
    let report = reap::wait(which, options)?;
    if usage != 0
        && let Some(report) = &report
    {
        super::time::write_usage(usage as usize, &report.usage)?;
    }
    if info != 0 {
        // With nothing to report, si_signo and si_pid are 0.
        let bytes = report.map_or([0; 128], |report| report.info().to_bytes());
        let mut at = info as usize;
        for chunk in bytes[..48].chunks_exact(16) {
            crate::arch::usercopy::copy_to_user(at, chunk)?;
            at = at.wrapping_add(16);
        }
    }
    Ok(0)
}

pub fn set_tid_address(args: &Args) -> Result {
    let thread = current();
    thread.set_clear_child_tid(args[0] as usize);
    Ok(thread.tid() as usize)
}

/// Size of `struct robust_list_head`.
const ROBUST_LIST_HEAD: u64 = 24;

pub fn set_robust_list(args: &Args) -> Result {
    if args[1] != ROBUST_LIST_HEAD {
        return Err(Errno::EINVAL);
    }
    current().set_robust_list(args[0] as usize);
    Ok(0)
}

pub fn get_robust_list(args: &Args) -> Result {
    let head = match args[0] as u32 {
        0 => current().robust_list(),
        tid => table::thread(tid).ok_or(Errno::ESRCH)?.robust_list(),
    };
    write_user(args[2] as usize, ROBUST_LIST_HEAD)?;
    write_user(args[1] as usize, head)?;
    Ok(0)
}

/// The process numbered `pid`, or the current one for 0.
fn process(pid: u64) -> core::result::Result<Arc<Process>, Errno> {
    match pid as i32 {
        0 => Ok(current().process().clone()),
        pid if pid < 0 => Err(Errno::ESRCH),
        pid => table::process(pid as u32).ok_or(Errno::ESRCH),
    }
}

pub fn getpgrp() -> Result {
    Ok(current().process().group() as usize)
}

pub fn getpgid(args: &Args) -> Result {
    Ok(process(args[0])?.group() as usize)
}

pub fn getsid(args: &Args) -> Result {
    Ok(process(args[0])?.session() as usize)
}

pub fn setpgid(args: &Args) -> Result {
    let caller = current();
    let caller = caller.process();
    let target = process(args[0])?;
    let group = match args[1] as i32 {
        0 => target.pid(),
        group if group < 0 => return Err(Errno::EINVAL),
        group => group as u32,
    };
    let is_self = target.pid() == caller.pid();
    if !is_self && target.parent_pid() != caller.pid() {
        return Err(Errno::ESRCH);
    }
    if !is_self && target.did_exec() {
        return Err(Errno::EACCES);
    }
    if target.session() != caller.session() || target.session() == target.pid() {
        return Err(Errno::EPERM);
    }
    if group != target.pid() && !table::group_exists(group, target.session()) {
        return Err(Errno::EPERM);
    }
    table::set_group(&target, group, None);
    Ok(0)
}

pub fn setsid() -> Result {
    let process = current().process().clone();
    let pid = process.pid();
    if process.group() == pid || table::next_process(0, |other| other.group() == pid).is_some() {
        return Err(Errno::EPERM);
    }
    table::set_group(&process, pid, Some(pid));
    Ok(pid as usize)
}

// SAFETY: two integers of one size, hence no padding.
unsafe impl Plain for Limit {}

/// Replaces a limit of `process`, and passes it on to the address space.
fn set_limit(process: &Process, resource: Resource, limit: Limit) -> core::result::Result<Limit, Errno> {
    let old = process.limits().set(resource, limit)?;
    if let Some(space) = process.space() {
        space.set_limits(process.limits().memory());
    }
    Ok(old)
}

pub fn getrlimit(args: &Args) -> Result {
    let resource = Resource::from_number(args[0] as u32)?;
    write_user(args[1] as usize, current().process().limits().get(resource))?;
    Ok(0)
}

pub fn setrlimit(args: &Args) -> Result {
    let resource = Resource::from_number(args[0] as u32)?;
    let limit = read_user(args[1] as usize)?;
    set_limit(current().process(), resource, limit)?;
    Ok(0)
}

pub fn prlimit64(args: &Args) -> Result {
    let [pid, resource, new, old, ..] = *args;
    let resource = Resource::from_number(resource as u32)?;
    let new: Option<Limit> = if new != 0 { Some(read_user(new as usize)?) } else { None };
    let process = process(pid)?;
    let was = match new {
        Some(limit) => set_limit(&process, resource, limit)?,
        None => process.limits().get(resource),
    };
    if old != 0 {
        write_user(old as usize, was)?;
    }
    Ok(0)
}

pub fn arch_prctl(args: &Args) -> Result {
    const ARCH_SET_GS: u64 = 0x1001;
    const ARCH_SET_FS: u64 = 0x1002;
    const ARCH_GET_FS: u64 = 0x1003;
    const ARCH_GET_GS: u64 = 0x1004;
    let [code, value, ..] = *args;
    match code & 0xffff_ffff {
        ARCH_SET_FS | ARCH_SET_GS if value >= TASK_SIZE as u64 => return Err(Errno::EPERM),
        ARCH_SET_FS => cpu::set_fs_base(value),
        ARCH_SET_GS => cpu::set_user_gs_base(value),
        ARCH_GET_FS => write_user(value as usize, cpu::fs_base())?,
        ARCH_GET_GS => write_user(value as usize, cpu::user_gs_base())?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

pub fn prctl(args: &Args) -> Result {
    let [option, value, third, fourth, fifth, _] = *args;
    let thread = current();
    let process = thread.process();
    let rest_is_zero = third == 0 && fourth == 0 && fifth == 0;
    match option {
        // PR_SET_PDEATHSIG, PR_GET_PDEATHSIG
        1 if value <= SIGNAL_COUNT as u64 => process.set_parent_death_signal(value as u32),
        2 => write_user(value as usize, process.parent_death_signal())?,
        // PR_GET_DUMPABLE, PR_SET_DUMPABLE
        3 => return Ok(process.dumpable() as usize),
        4 if value <= 1 => process.set_dumpable(value as u32),
        // PR_SET_NAME, PR_GET_NAME
        15 => set_name(&thread, value as usize)?,
        16 => crate::arch::usercopy::copy_to_user(value as usize, &thread.name())?,
        // PR_CAPBSET_READ
        23 if value <= 40 => return Ok(1),
        // PR_SET_TIMERSLACK, PR_GET_TIMERSLACK: there is none to speak of.
        29 => {}
        30 => return Ok(50_000),
        // PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER
        36 => process.set_subreaper(value != 0),
        37 => write_user(value as usize, u32::from(process.is_subreaper()))?,
        // PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS
        38 if value == 1 && rest_is_zero => process.set_no_new_privs(),
        39 if value == 0 && rest_is_zero => return Ok(usize::from(process.no_new_privs())),
        // PR_SET_THP_DISABLE, PR_GET_THP_DISABLE
        41 if rest_is_zero => with_space(|space| {
            space.set_small_pages_only(value != 0);
            Ok::<_, Errno>(())
        })?,
        42 if value == 0 && rest_is_zero => {
            return with_space(|space| Ok::<_, Errno>(usize::from(space.small_pages_only())));
        }
        // PR_SET_MEMORY_MERGE, PR_GET_MEMORY_MERGE
        67 if rest_is_zero => with_space(|space| space.set_memory_merge(value != 0))?,
        68 if value == 0 && rest_is_zero => {
            return with_space(|space| Ok::<_, Errno>(usize::from(space.memory_merge())));
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// Sets the name from a string that is cut off if it is too long.
fn set_name(thread: &Thread, address: usize) -> core::result::Result<(), Errno> {
    let mut name = [0; NAME_MAX];
    for (at, byte) in name.iter_mut().enumerate() {
        *byte = read_user(address.wrapping_add(at))?;
        if *byte == 0 {
            break;
        }
    }
    thread.set_name(&name);
    Ok(())
}
