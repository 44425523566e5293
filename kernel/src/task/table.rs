//! The table of all numbers that name a thread, a process, a process group or
//! a session, and the family tree.
//!
//! What always holds: a number is free exactly when no thread or unreaped
//! process has it and no process is in a group or session named by it. Parent
//! and children are linked through the numbers themselves, so that moving
//! children to another parent needs no memory.

use core::sync::atomic::Ordering;

use alloc::sync::Arc;
use alloc::vec::Vec;
use mm::Errno;

use super::process::Process;
use super::thread::Thread;
use crate::arch::irq::IrqMutex;

/// Numbers are below this (Linux's default `pid_max`).
pub const PID_MAX: u32 = 32768;
/// After [`PID_MAX`], numbering goes on here, leaving the early ones alone.
const RESTART: u32 = 300;
/// The process that adopts orphans, and whose end is the machine's.
pub const INIT: u32 = 1;

const CHUNK: usize = 256;
const CHUNKS: usize = PID_MAX as usize / CHUNK;

static TABLE: IrqMutex<Table> = IrqMutex::new(Table { chunks: [const { Vec::new() }; CHUNKS], last: 0, processes: 0 });

struct Table {
    /// Each empty or [`CHUNK`] long.
    chunks: [Vec<Entry>; CHUNKS],
    /// The number given out last.
    last: u32,
    /// Processes in the table, zombies included.
    processes: usize,
}

#[derive(Default)]
struct Entry {
    /// Given out, though perhaps not yet to anyone.
    reserved: bool,
    thread: Option<Arc<Thread>>,
    process: Option<Arc<Process>>,
    /// Processes whose group this is, plus processes whose session this is.
    members: u32,
    /// The family tree; 0 is nobody.
    first_child: u32,
    previous_sibling: u32,
    next_sibling: u32,
}

impl Entry {
    fn is_free(&self) -> bool {
        !self.reserved && self.thread.is_none() && self.process.is_none() && self.members == 0
    }
}

impl Table {
    fn get(&self, number: u32) -> Option<&Entry> {
        let number = number as usize;
        self.chunks.get(number / CHUNK)?.get(number % CHUNK)
    }

    fn get_mut(&mut self, number: u32) -> Option<&mut Entry> {
        let number = number as usize;
        self.chunks.get_mut(number / CHUNK)?.get_mut(number % CHUNK)
    }

    /// The entry, made if the chunk it is in does not exist yet.
    fn entry(&mut self, number: u32) -> Result<&mut Entry, Errno> {
        let number = number as usize;
        let chunk = self.chunks.get_mut(number / CHUNK).ok_or(Errno::EAGAIN)?;
        if chunk.is_empty() {
            chunk.try_reserve_exact(CHUNK).map_err(|_| Errno::ENOMEM)?;
            chunk.resize_with(CHUNK, Entry::default);
        }
        chunk.get_mut(number % CHUNK).ok_or(Errno::EAGAIN)
    }

    fn link(&mut self, parent: u32, child: u32) {
        let Some(entry) = self.get_mut(parent) else { return };
        let next = core::mem::replace(&mut entry.first_child, child);
        if let Some(entry) = self.get_mut(child) {
            entry.previous_sibling = 0;
            entry.next_sibling = next;
        }
        if let Some(entry) = self.get_mut(next) {
            entry.previous_sibling = child;
        }
    }

    fn unlink(&mut self, parent: u32, child: u32) {
        let Some(entry) = self.get_mut(child) else { return };
        let previous = core::mem::take(&mut entry.previous_sibling);
        let next = core::mem::take(&mut entry.next_sibling);
        if previous == 0 {
            if let Some(entry) = self.get_mut(parent) {
                entry.first_child = next;
            }
        } else if let Some(entry) = self.get_mut(previous) {
            entry.next_sibling = next;
        }
        if next != 0
            && let Some(entry) = self.get_mut(next)
        {
            entry.previous_sibling = previous;
        }
    }

    fn children(&self, parent: u32) -> impl Iterator<Item = &Arc<Process>> {
        let mut at = self.get(parent).map_or(0, |entry| entry.first_child);
        core::iter::from_fn(move || {
            if at == 0 {
                return None;
            }
            let entry = self.get(at)?;
            at = entry.next_sibling;
            entry.process.as_ref()
        })
    }

    fn processes(&self) -> impl Iterator<Item = &Arc<Process>> {
        self.chunks.iter().flatten().filter_map(|entry| entry.process.as_ref())
    }
}

/// A number that nobody else has, until it is given to a thread or process or
/// dropped.
pub struct Number(u32);

impl Number {
    /// The next free number.
    ///
    /// # Errors
    /// `EAGAIN`: all are taken. `ENOMEM`.
    pub fn new() -> Result<Number, Errno> {
        let mut table = TABLE.lock();
        let mut candidate = table.last;
        for _ in 0..PID_MAX {
            candidate = if candidate + 1 >= PID_MAX { RESTART } else { candidate + 1 };
            let entry = table.entry(candidate)?;
            if entry.is_free() {
                entry.reserved = true;
                table.last = candidate;
                return Ok(Number(candidate));
            }
        }
        Err(Errno::EAGAIN)
    }

    /// The number.
    pub fn get(&self) -> u32 {
        self.0
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        if let Some(entry) = TABLE.lock().get_mut(self.0) {
            entry.reserved = false;
        }
    }
}

/// Enters a new process and its first thread, both with the number `number`;
/// group, session and parent as the process says.
pub fn insert_process(number: Number, process: &Arc<Process>, thread: &Arc<Thread>) {
    let mut table = TABLE.lock();
    for group in [process.group(), process.session()] {
        if let Some(entry) = table.get_mut(group) {
            entry.members += 1;
        }
    }
    if let Some(entry) = table.get_mut(number.get()) {
        entry.process = Some(process.clone());
        entry.thread = Some(thread.clone());
    }
    table.link(process.parent_pid(), number.get());
    table.processes += 1;
    drop(table);
}

/// Enters a new thread of an existing process.
pub fn insert_thread(number: Number, thread: &Arc<Thread>) {
    if let Some(entry) = TABLE.lock().get_mut(number.get()) {
        entry.thread = Some(thread.clone());
    }
}

/// Takes out a thread that exits. The number stays taken if it is its process's too.
pub fn remove_thread(tid: u32) {
    let gone = TABLE.lock().get_mut(tid).and_then(|entry| entry.thread.take());
    drop(gone);
}

/// Gives the thread that is left at exec the number of its process.
pub fn rename_thread(thread: &Arc<Thread>, to: u32) {
    let mut table = TABLE.lock();
    let old = table.get_mut(thread.tid()).and_then(|entry| entry.thread.take());
    let replaced = match table.get_mut(to) {
        Some(entry) => entry.thread.replace(thread.clone()),
        None => None,
    };
    thread.set_tid(to);
    drop(table);
    drop((old, replaced));
}

/// Takes out a process that has been reaped.
pub fn remove_process(process: &Process) {
    let mut table = TABLE.lock();
    table.unlink(process.parent_pid(), process.pid());
    for group in [process.group(), process.session()] {
        if let Some(entry) = table.get_mut(group) {
            entry.members -= 1;
        }
    }
    let gone = table.get_mut(process.pid()).and_then(|entry| entry.process.take());
    table.processes -= usize::from(gone.is_some());
    drop(table);
    drop(gone);
}

/// Moves a process to another group, and session if `session` says so.
pub fn set_group(process: &Process, group: u32, session: Option<u32>) {
    let mut table = TABLE.lock();
    let mut moves = [(&process.group, Some(group)), (&process.session, session)];
    for (field, to) in &mut moves {
        let Some(to) = *to else { continue };
        let from = field.swap(to, Ordering::Relaxed);
        if let Some(entry) = table.get_mut(to) {
            entry.members += 1;
        }
        if let Some(entry) = table.get_mut(from) {
            entry.members -= 1;
        }
    }
}

/// Gives one of the children of `process` to `to`, and returns it; `None`: there
/// is none.
pub fn reparent_child(process: u32, to: u32) -> Option<Arc<Process>> {
    let mut table = TABLE.lock();
    let number = table.get(process).map_or(0, |entry| entry.first_child);
    if number == 0 {
        return None;
    }
    table.unlink(process, number);
    table.link(to, number);
    let child = table.get(number)?.process.as_ref()?;
    child.parent.store(to, Ordering::Relaxed);
    Some(child.clone())
}

/// The parent of `process`. Who gives it another parent does so before or after
/// this, and sees in the second case what the caller did before.
pub fn parent(process: &Process) -> Option<Arc<Process>> {
    let table = TABLE.lock();
    table.get(process.parent_pid())?.process.clone()
}

/// The process numbered `pid`, zombies included.
pub fn process(pid: u32) -> Option<Arc<Process>> {
    TABLE.lock().get(pid)?.process.clone()
}

/// The thread numbered `tid`.
pub fn thread(tid: u32) -> Option<Arc<Thread>> {
    TABLE.lock().get(tid)?.thread.clone()
}

/// The first process with a number from `from` on that `wanted` accepts, zombies included.
pub fn next_process(from: u32, wanted: impl Fn(&Process) -> bool) -> Option<Arc<Process>> {
    let table = TABLE.lock();
    (from..PID_MAX).filter_map(|number| table.get(number)?.process.as_ref()).find(|process| wanted(process)).cloned()
}

/// All processes with a number from `from` on that `wanted` accepts, by number. The table is locked for each
/// alone: what becomes of the others meanwhile is seen, but for a new one whose number was gone past.
pub fn processes(mut from: u32, wanted: impl Fn(&Process) -> bool) -> impl Iterator<Item = Arc<Process>> {
    core::iter::from_fn(move || {
        let process = next_process(from, &wanted)?;
        from = process.pid() + 1;
        Some(process)
    })
}

/// Whether any process is in group `group` of session `session`.
pub fn group_exists(group: u32, session: u32) -> bool {
    TABLE.lock().processes().any(|process| process.group() == group && process.session() == session)
}

/// The first child of `parent` for which `find` returns something. The table is
/// locked meanwhile. The second result says whether any child was `eligible`.
pub fn find_child<T>(
    parent: u32,
    eligible: impl Fn(&Process) -> bool,
    mut find: impl FnMut(&Arc<Process>) -> Option<T>,
) -> (Option<T>, bool) {
    let table = TABLE.lock();
    let mut any = false;
    for child in table.children(parent).filter(|child| eligible(child)) {
        any = true;
        if let Some(found) = find(child) {
            return (Some(found), true);
        }
    }
    (None, any)
}

/// How many processes there are, zombies included.
pub fn process_count() -> usize {
    TABLE.lock().processes
}
