//! Executing programs: `execve`, and how the first process begins.
//!
//! The new address space is filled while the old one is still in use. Of what goes
//! wrong then, what Linux finds out in time is an error the caller gets; what Linux
//! finds out when the old program is gone kills the process here too. From the moment
//! the other threads are told to go there is no way back.

use core::sync::atomic::Ordering;

use alloc::sync::Arc;
use alloc::vec::Vec;
use mm::Errno;

use super::exit::{let_go, must_exit, release_user_memory};
use super::limits::{Limits, Resource};
use super::process::{Image, Parts, Process, Space};
use super::signal::{Handlers, SigSet, Signal, send};
use super::table::{self, Number};
use super::thread::{AltStack, Current, NAME_MAX, Restart, Thread, current, state, try_current};
use super::{sched, timer};
use crate::arch::context::Context;
use crate::arch::fpu::{self, FpuState};
use crate::arch::stack::KernelStack;
use crate::arch::{TrapFrame, cpu};
use crate::elf::header::parse;
use crate::elf::load::load;
use crate::elf::stack::{StackBuilder, Strings};
use crate::errno::{ELIBBAD, ERESTARTNOINTR};
use crate::fs::dentry::Dentry;
use crate::fs::{self, FdTable, File, FsContext};
use crate::memory::{memory, try_arc, try_filled, try_push, try_to_vec};

/// Scripts whose interpreter is a script, and so on: at most this deep.
const SCRIPT_DEPTH: usize = 5;
/// The line that names a script's interpreter is at most this long.
const SCRIPT_LINE: usize = 256;

/// A program ready to run.
struct Ready {
    space: Arc<Space>,
    image: Image,
    entry: usize,
    file: Arc<File>,
    name: Vec<u8>,
}

/// Why a program does not run.
#[derive(Clone, Copy, Debug)]
pub enum Failure {
    /// `execve` returns this error.
    Refused(Errno),
    /// It cannot be loaded, and whoever executes it is killed by `SIGSEGV`.
    Fatal,
}

impl From<Errno> for Failure {
    fn from(error: Errno) -> Failure {
        Failure::Refused(error)
    }
}

/// What the first line of a script says.
struct Script {
    interpreter: Vec<u8>,
    argument: Option<Vec<u8>>,
}

impl Script {
    /// `None`: not a script.
    fn parse(start: &[u8]) -> Result<Option<Script>, Errno> {
        let Some(line) = start.strip_prefix(b"#!") else { return Ok(None) };
        let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        let end = line.iter().position(|&byte| byte == b'\n' || byte == 0);
        let line = line[..end.unwrap_or(line.len())].trim_ascii();
        let name_end = line.iter().position(is_blank).unwrap_or(line.len());
        // A name that fills the buffer may have been cut off.
        if name_end == 0 || end.is_none() && name_end == line.len() {
            return Err(Errno::ENOEXEC);
        }
        let rest = line[name_end..].trim_ascii();
        Ok(Some(Script {
            interpreter: try_to_vec(&line[..name_end])?,
            argument: if rest.is_empty() { None } else { Some(try_to_vec(rest)?) },
        }))
    }
}

/// Fills a new address space with the program in `file`, known as `path`. Other
/// files are seen from `directory`.
fn prepare(
    mut file: Arc<File>,
    path: &[u8],
    args: Strings<'_>,
    env: Strings<'_>,
    limits: &Limits,
    directory: &Arc<Dentry>,
) -> Result<Ready, Failure> {
    let name = try_to_vec(base_name(path))?;
    // Arguments that take the place of the first `skip` given ones.
    let mut before: Vec<Vec<u8>> = Vec::new();
    let mut skip = 0;
    let mut current_path = try_to_vec(path)?;
    let mut object = file.object().ok_or(Errno::EACCES)?;
    for depth in 0.. {
        let mut start = [0; SCRIPT_LINE];
        let len = object.read(0, &mut start);
        let Some(script) = Script::parse(&start[..len])? else { break };
        if depth == SCRIPT_DEPTH {
            return Err(Errno::ELOOP.into());
        }
        file = fs::open_exec(directory, &script.interpreter)?;
        object = file.object().ok_or(Errno::EACCES)?;
        // The script's own argument 0 goes; the interpreter's line comes first.
        let mut list = Vec::new();
        try_push(&mut list, try_to_vec(&script.interpreter)?)?;
        if let Some(argument) = script.argument {
            try_push(&mut list, argument)?;
        }
        try_push(&mut list, current_path)?;
        for argument in before.into_iter().skip(1) {
            try_push(&mut list, argument)?;
        }
        before = list;
        skip = 1;
        current_path = script.interpreter;
    }
    let mut before_slices = Vec::new();
    for argument in &before {
        try_push(&mut before_slices, argument.as_slice())?;
    }

    let program = parse(&object)?;
    let space = Space::new(memory(), limits.memory()).map_err(Errno::from)?;
    if let Some(old) = try_current().and_then(|thread| thread.process().space()) {
        space.set_memory_merge(old.memory_merge()).map_err(Errno::from)?;
        space.set_small_pages_only(old.small_pages_only());
    }
    let mut stack = StackBuilder::new(&space, limits.get(Resource::Stack).soft, program.executable_stack)?;
    stack.push_strings(path, args, env, &before_slices, skip)?;
    stack.settle()?;
    let interpreter = match program.interpreter {
        None => None,
        Some((offset, size)) => {
            let mut path = try_filled(0u8, size)?;
            if object.read(offset as u64, &mut path) < size {
                return Err(Errno::EIO.into());
            }
            if path.pop() != Some(0) {
                return Err(Errno::ENOEXEC.into());
            }
            let object = fs::open_exec(directory, &path)?.object().ok_or(Errno::EACCES)?;
            Some((parse(&object).map_err(|_| ELIBBAD)?, object))
        }
    };

    // On Linux the old program is gone by now.
    let fatal = |_: Errno| Failure::Fatal;
    let loaded = load(&space, &program, &object, false).map_err(fatal)?;
    let interpreter = match interpreter {
        None => None,
        Some((interpreter, object)) => Some(load(&space, &interpreter, &object, true).map_err(fatal)?),
    };
    space.set_program_end(loaded.end);
    let image = stack.finish(&loaded, program.header_count, interpreter.as_ref()).map_err(fatal)?;
    let entry = interpreter.unwrap_or(loaded).entry;
    Ok(Ready { space: try_arc(space)?, image, entry, file, name })
}

fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}

/// `execve`: makes the current process execute the program in `file`. On
/// success `frame` is that of the program's first instruction.
///
/// # Errors
/// What the checks of the file say (`ENOEXEC`, `EACCES`, `EIO`, `ELOOP`), `E2BIG`,
/// `EFAULT`, `ENOMEM`. The process goes on as it was; unless the program cannot be
/// loaded, when there is a signal that kills it.
pub fn exec(
    frame: &mut TrapFrame,
    file: Arc<File>,
    path: &[u8],
    args: Strings<'_>,
    env: Strings<'_>,
) -> Result<(), Errno> {
    let thread = current();
    let process = thread.process();
    let directory = process.context().ok_or(Errno::ENOENT)?.current();
    let ready = match prepare(file, path, args, env, process.limits(), &directory) {
        Ok(ready) => ready,
        Err(Failure::Refused(error)) => return Err(error),
        Err(Failure::Fatal) => return be_killed(&thread),
    };
    let files = own_files(process)?;
    let handlers = own_handlers(process)?;
    be_alone(&thread)?;

    // From here on the old program is gone.
    release_user_memory(&thread);
    sched::enter_space(ready.space.clone());
    // SAFETY: the process has no other thread (`be_alone`).
    let old = unsafe { process.set_space(Some(ready.space)) };
    if let Some(old) = &old {
        sched::evict(old);
    }
    let_go(old);
    process.release();
    files.close_for_exec();
    drop(process.replace_files(Some(files)));
    handlers.reset_for_exec();
    process.set_handlers(handlers);
    *process.image.lock() = ready.image;
    drop(process.set_executable(Some(ready.file)));
    process.exit_signal.store(Signal::SIGCHLD.number(), Ordering::Relaxed);
    process.dumpable.store(1, Ordering::Relaxed);
    process.did_exec.store(true, Ordering::Relaxed);
    if thread.tid() != process.pid() {
        table::rename_thread(&thread.to_arc(), process.pid());
    }
    thread.set_name(&ready.name);
    *thread.alt_stack.lock() = AltStack::default();
    *thread.restart.lock() = Restart::None;
    fpu::reset();
    cpu::set_fs_base(0);
    cpu::set_user_gs_base(0);
    *frame = TrapFrame::for_program(ready.entry as u64, ready.image.stack as u64);
    // All registers change, not just the result.
    cpu::set_return_work();
    Ok(())
}

/// Sees to it that the process is killed for want of a program.
fn be_killed(thread: &Current) -> Result<(), Errno> {
    let process = thread.process();
    let handlers = own_handlers(process)?;
    be_alone(thread)?;
    process.set_handlers(handlers);
    send::force_default(Signal::SIGSEGV);
    Err(Errno::EFAULT)
}

/// The process's open files, no longer shared with another process.
fn own_files(process: &Process) -> Result<Arc<FdTable>, Errno> {
    let files = process.files().ok_or(Errno::ESRCH)?;
    // The process's reference and this one.
    if Arc::strong_count(&files) > 2 { files.fork() } else { Ok(files) }
}

/// The process's signal handlers, no longer shared with another process.
fn own_handlers(process: &Process) -> Result<Arc<Handlers>, Errno> {
    let handlers = process.handlers();
    if Arc::strong_count(&handlers) > 2 { handlers.fork() } else { Ok(handlers) }
}

/// Ends all other threads of the process, and waits until they are gone.
///
/// # Errors
/// `ERESTARTNOINTR`: another thread does that too, or the process is exiting;
/// this thread will not return to user mode.
fn be_alone(thread: &Current) -> Result<(), Errno> {
    let process = thread.process();
    {
        let mut state = process.state.lock();
        if must_exit(thread, &state) {
            return Err(ERESTARTNOINTR);
        }
        if state.threads.len() == 1 {
            return Ok(());
        }
        state.exec_by = Some(thread.tid());
        process.note_exiting(true);
        for other in state.threads.iter().filter(|other| other.tid() != thread.tid()) {
            send::alert(other, state::INTERRUPTIBLE | state::KILLABLE | state::STOPPED);
        }
    }
    process.thread_exits.wait_uninterruptible(|| (process.state.lock().threads.len() == 1).then_some(()));
    let mut state = process.state.lock();
    state.exec_by = None;
    process.note_exiting(state.exiting.is_some());
    if must_exit(thread, &state) { Err(ERESTARTNOINTR) } else { Ok(()) }
}

/// Starts the first process: the program in `file`, known as `path`.
///
/// # Errors
/// As for [`exec`]; a program that cannot be loaded is [`Failure::Fatal`].
pub fn start_first(
    file: Arc<File>,
    path: &[u8],
    args: Strings<'_>,
    env: Strings<'_>,
    files: Arc<FdTable>,
    context: Arc<FsContext>,
) -> Result<(), Failure> {
    let limits = Limits::initial();
    let ready = prepare(file, path, args, env, &limits, context.root())?;
    let number = Number::new()?;
    let pid = number.get();
    let process = Process::new(Parts {
        pid,
        parent: 0,
        group: pid,
        session: pid,
        exit_signal: 0,
        space: ready.space,
        files,
        context,
        handlers: Handlers::new()?,
        executable: Some(ready.file),
        image: ready.image,
        limits,
    })?;
    let frame = TrapFrame::for_program(ready.entry as u64, ready.image.stack as u64);
    let context = Context::for_user(KernelStack::new()?, &frame, FpuState::new()?, 0, 0);
    let thread = Thread::new(pid, process.clone(), context, [0; NAME_MAX + 1], SigSet::EMPTY)?;
    thread.set_name(&ready.name);
    timer::add_process(&process)?;
    timer::add_thread(&thread)?;
    try_push(&mut process.state.lock().threads, thread.clone())?;
    process.live.store(1, Ordering::Release);
    table::insert_process(number, &process, &thread);
    sched::wake(&thread, state::UNINTERRUPTIBLE);
    Ok(())
}
