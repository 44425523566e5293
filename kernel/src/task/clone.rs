//! New threads and processes: `fork`, `vfork`, `clone`, `clone3`.
//!
//! Everything that can fail is done first, on objects nobody else knows of;
//! dropping them undoes it. Only then does the child enter the tables.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use mm::Errno;

use super::process::{Parts, Process};
use super::table::{self, Number};
use super::thread::{Current, Thread, current, state};
use super::{exit, sched, timer};
use crate::arch::context::Context;
use crate::arch::fpu::FpuState;
use crate::arch::stack::KernelStack;
use crate::arch::usercopy::write_user;
use crate::arch::{TrapFrame, cpu};
use crate::memory::try_arc;

/// Share the address space.
pub const CLONE_VM: u64 = 0x100;
/// Share working directory and umask.
pub const CLONE_FS: u64 = 0x200;
/// Share open files.
pub const CLONE_FILES: u64 = 0x400;
/// Share signal handlers.
pub const CLONE_SIGHAND: u64 = 0x800;
/// Wait until the child has let go of the address space.
pub const CLONE_VFORK: u64 = 0x4000;
/// The child's parent is the caller's.
pub const CLONE_PARENT: u64 = 0x8000;
/// The child is a thread of the caller's process.
pub const CLONE_THREAD: u64 = 0x1_0000;
/// Set the child's thread pointer.
pub const CLONE_SETTLS: u64 = 0x8_0000;
/// Store the child's number in the parent.
pub const CLONE_PARENT_SETTID: u64 = 0x10_0000;
/// Clear the child's number in its memory when it exits, and wake a futex there.
pub const CLONE_CHILD_CLEARTID: u64 = 0x20_0000;
/// Store the child's number in the child's memory.
pub const CLONE_CHILD_SETTID: u64 = 0x100_0000;
/// `clone3` only: handlers become defaults.
pub const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
/// New namespaces, of which there is one of each kind only.
const NAMESPACES: u64 =
    0x2_0000 | 0x200_0000 | 0x400_0000 | 0x800_0000 | 0x1000_0000 | 0x2000_0000 | 0x4000_0000 | 0x80;
/// Flags without an effect here: `CLONE_PTRACE`, `CLONE_SYSVSEM`,
/// `CLONE_DETACHED`, `CLONE_UNTRACED`, `CLONE_IO`.
const IGNORED: u64 = 0x2000 | 0x4_0000 | 0x40_0000 | 0x80_0000 | 0x8000_0000;
const KNOWN: u64 = CLONE_VM
    | CLONE_FS
    | CLONE_FILES
    | CLONE_SIGHAND
    | CLONE_VFORK
    | CLONE_PARENT
    | CLONE_THREAD
    | CLONE_SETTLS
    | CLONE_PARENT_SETTID
    | CLONE_CHILD_CLEARTID
    | CLONE_CHILD_SETTID
    | CLONE_CLEAR_SIGHAND
    | IGNORED;

/// What to make.
#[derive(Clone, Copy, Default, Debug)]
pub struct Request {
    /// `CLONE_*`, without the exit signal.
    pub flags: u64,
    /// Sent to the parent when the child ends; 0: none.
    pub exit_signal: u32,
    /// The child's stack pointer, or 0: the caller's.
    pub stack: usize,
    /// For `CLONE_SETTLS`.
    pub tls: u64,
    /// For `CLONE_PARENT_SETTID`.
    pub parent_tid: usize,
    /// For `CLONE_CHILD_SETTID` and `CLONE_CHILD_CLEARTID`.
    pub child_tid: usize,
}

/// Makes a thread or process that goes on where `frame` is. Returns its number.
///
/// # Errors
/// `EINVAL`: flags that contradict each other or are not supported. `EAGAIN`:
/// no number is free. `ENOMEM`. Nothing has changed then.
pub fn clone(frame: &TrapFrame, request: &Request) -> Result<usize, Errno> {
    check(request)?;
    let flags = request.flags;
    let parent = current();
    let number = Number::new()?;
    let pid = number.get();
    let process = match flags & CLONE_THREAD != 0 {
        true => parent.process().clone(),
        false => new_process(&parent, request, pid)?,
    };
    let child = new_thread(frame, &parent, request, pid, process.clone())?;
    timer::add_thread(&child)?;
    if let Err(error) = publish(&parent, request, number, &process, &child) {
        timer::remove_thread(&child);
        return Err(error);
    }
    if flags & CLONE_PARENT_SETTID != 0 {
        // As on Linux, a bad address is the caller's own loss.
        let _ = write_user(request.parent_tid, pid);
    }
    if flags & CLONE_CHILD_SETTID != 0
        && let Some(space) = process.space()
    {
        // Likewise.
        let _ = space.write_bytes(request.child_tid, &pid.to_le_bytes());
    }
    sched::wake(&child, state::UNINTERRUPTIBLE);
    drop(child);
    if flags & CLONE_VFORK != 0 {
        // Only a signal that kills ends this early, and then nobody asks.
        let _ = process.release.wait_killable(|| process.released.load(Ordering::Acquire).then_some(()));
    }
    Ok(pid as usize)
}

fn check(request: &Request) -> Result<(), Errno> {
    let flags = request.flags;
    let needs = |flag: u64, needed: u64| flags & flag == 0 || flags & needed == needed;
    // Open files and the working directory belong to the process here, so its
    // threads share them; Linux can give each thread its own.
    let thread_shares = CLONE_SIGHAND | CLONE_FILES | CLONE_FS;
    let valid = flags & (NAMESPACES | !KNOWN) == 0
        && needs(CLONE_THREAD, thread_shares)
        && needs(CLONE_SIGHAND, CLONE_VM)
        && flags & (CLONE_SIGHAND | CLONE_CLEAR_SIGHAND) != CLONE_SIGHAND | CLONE_CLEAR_SIGHAND
        && request.exit_signal as usize <= super::signal::SIGNAL_COUNT
        // The first process's siblings would have nobody to wait for them.
        && (flags & CLONE_PARENT == 0 || current().process().pid() != table::INIT);
    if valid { Ok(()) } else { Err(Errno::EINVAL) }
}

fn new_process(parent: &Current, request: &Request, pid: u32) -> Result<Arc<Process>, Errno> {
    let flags = request.flags;
    let old = parent.process();
    let space = old.space().ok_or(Errno::ESRCH)?;
    let files = old.files().ok_or(Errno::ESRCH)?;
    let context = old.context().ok_or(Errno::ESRCH)?;
    let handlers = old.handlers();
    let handlers = match flags & CLONE_SIGHAND != 0 {
        true => handlers,
        false => handlers.fork()?,
    };
    if flags & CLONE_CLEAR_SIGHAND != 0 {
        handlers.reset_for_exec();
    }
    let (parent_pid, exit_signal) = match flags & CLONE_PARENT != 0 {
        true => (old.parent_pid(), old.exit_signal.load(Ordering::Relaxed)),
        false => (old.pid(), request.exit_signal),
    };
    let process = Process::new(Parts {
        pid,
        parent: parent_pid,
        group: old.group(),
        session: old.session(),
        exit_signal,
        files: if flags & CLONE_FILES != 0 { files } else { files.fork()? },
        context: if flags & CLONE_FS != 0 { context } else { context.fork()? },
        handlers,
        executable: old.executable(),
        image: old.image(),
        limits: old.limits().fork(),
        // Last: the only step that is expensive to undo.
        space: if flags & CLONE_VM != 0 { space } else { try_arc(space.fork()?)? },
    })?;
    process.dumpable.store(old.dumpable.load(Ordering::Relaxed), Ordering::Relaxed);
    process.no_new_privs.store(old.no_new_privs.load(Ordering::Relaxed), Ordering::Relaxed);
    Ok(process)
}

fn new_thread(
    frame: &TrapFrame,
    parent: &Current,
    request: &Request,
    tid: u32,
    process: Arc<Process>,
) -> Result<Arc<Thread>, Errno> {
    let flags = request.flags;
    let mut child_frame = *frame;
    child_frame.rax = 0;
    if request.stack != 0 {
        child_frame.rsp = request.stack as u64;
    }
    let fs_base = if flags & CLONE_SETTLS != 0 { request.tls } else { cpu::fs_base() };
    if fs_base >= mm::TASK_SIZE as u64 {
        return Err(Errno::EPERM);
    }
    let context =
        Context::for_user(KernelStack::new()?, &child_frame, FpuState::capture()?, fs_base, cpu::user_gs_base());
    let child = Thread::new(tid, process, context, parent.name(), parent.blocked())?;
    child.affinity.store(parent.affinity.load(Ordering::Relaxed), Ordering::Relaxed);
    if flags & CLONE_CHILD_CLEARTID != 0 {
        child.clear_child_tid.store(request.child_tid, Ordering::Relaxed);
    }
    // A thread has no alternate stack: two must not use the same one.
    if flags & (CLONE_VM | CLONE_VFORK) != CLONE_VM {
        *child.alt_stack.lock() = *parent.alt_stack.lock();
    }
    Ok(child)
}

/// Enters the child into its process and the tables.
fn publish(
    parent: &Current,
    request: &Request,
    number: Number,
    process: &Arc<Process>,
    child: &Arc<Thread>,
) -> Result<(), Errno> {
    let is_thread = request.flags & CLONE_THREAD != 0;
    if !is_thread {
        timer::add_process(process)?;
    }
    {
        let mut state = process.state.lock();
        if state.threads.try_reserve(1).is_err() {
            drop(state);
            timer::remove_process(process);
            return Err(Errno::ENOMEM);
        }
        // A process that is on its way out gets no new thread, and a signal
        // that must be seen first may want to stop or end it.
        if is_thread && exit::must_exit(parent, &state) {
            return Err(crate::errno::ERESTARTNOINTR);
        }
        state.threads.push(child.clone());
        process.live.fetch_add(1, Ordering::AcqRel);
        if state.stopped.is_some() {
            child.signal_work.store(true, Ordering::SeqCst);
        }
    }
    match is_thread {
        true => table::insert_thread(number, child),
        false => table::insert_process(number, process, child),
    }
    Ok(())
}

/// What `fork` asks for.
pub fn fork_request() -> Request {
    Request { exit_signal: super::signal::Signal::SIGCHLD.number(), ..Request::default() }
}

/// What `vfork` asks for.
pub fn vfork_request() -> Request {
    Request { flags: CLONE_VM | CLONE_VFORK, ..fork_request() }
}
