//! File descriptors: small numbers for open files.

use alloc::sync::Arc;
use alloc::vec::Vec;
use mm::Errno;

use super::file::File;
use crate::arch::irq::Mutex;

/// No table is larger, whatever the limit says (Linux's `sysctl_nr_open`).
pub const MAX_DESCRIPTORS: usize = 1 << 20;

/// The open files of a process; shared by `CLONE_FILES`.
pub struct FdTable {
    slots: Mutex<Vec<Option<Slot>>>,
}

#[derive(Clone)]
struct Slot {
    file: Arc<File>,
    close_on_exec: bool,
}

/// The index of `fd` in a table.
fn index(fd: i32) -> Result<usize, Errno> {
    usize::try_from(fd).map_err(|_| Errno::EBADF)
}

impl FdTable {
    /// A table without open files.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new() -> Result<Arc<FdTable>, Errno> {
        Arc::try_new(FdTable { slots: Mutex::new(Vec::new()) }).map_err(|_| Errno::ENOMEM)
    }

    /// A copy, as `fork` makes it: other descriptors for the same open files,
    /// with room for the highest that is open.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn fork(&self) -> Result<Arc<FdTable>, Errno> {
        let slots = self.slots.lock();
        let len = slots.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        let mut copy = Vec::new();
        copy.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
        copy.extend(slots[..len].iter().cloned());
        drop(slots);
        Arc::try_new(FdTable { slots: Mutex::new(copy) }).map_err(|_| Errno::ENOMEM)
    }

    /// The file that `fd` stands for.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn get(&self, fd: i32) -> Result<Arc<File>, Errno> {
        let index = index(fd)?;
        match self.slots.lock().get(index) {
            Some(Some(slot)) => Ok(slot.file.clone()),
            _ => Err(Errno::EBADF),
        }
    }

    /// The file that `fd` stands for, if more than its place can be used.
    ///
    /// # Errors
    /// `EBADF`, for an `O_PATH` descriptor too.
    pub fn get_usable(&self, fd: i32) -> Result<Arc<File>, Errno> {
        self.get(fd).and_then(|file| if file.is_path_only() { Err(Errno::EBADF) } else { Ok(file) })
    }

    /// Gives `file` the lowest free descriptor from `lowest` up, below
    /// `limit` (`RLIMIT_NOFILE`).
    ///
    /// # Errors
    /// `EMFILE`, `ENOMEM`.
    pub fn insert(&self, file: Arc<File>, lowest: usize, close_on_exec: bool, limit: u64) -> Result<i32, Errno> {
        let mut slots = self.slots.lock();
        let free = slots.iter().skip(lowest).position(Option::is_none);
        let index = free.map_or(slots.len().max(lowest), |free| lowest + free);
        if index >= MAX_DESCRIPTORS || index as u64 >= limit {
            return Err(Errno::EMFILE);
        }
        extend(&mut slots, index)?;
        slots[index] = Some(Slot { file, close_on_exec });
        Ok(index as i32)
    }

    /// Makes `fd` stand for `file`, whatever it stood for before (which is
    /// returned, to be dropped).
    ///
    /// # Errors
    /// `EBADF` for a number not below `limit`, `ENOMEM`.
    pub fn replace(
        &self,
        fd: i32,
        file: Arc<File>,
        close_on_exec: bool,
        limit: u64,
    ) -> Result<Option<Arc<File>>, Errno> {
        let index = index(fd)?;
        if index >= MAX_DESCRIPTORS || index as u64 >= limit {
            return Err(Errno::EBADF);
        }
        let mut slots = self.slots.lock();
        extend(&mut slots, index)?;
        let old = slots[index].replace(Slot { file, close_on_exec });
        Ok(old.map(|slot| slot.file))
    }

    /// Frees a descriptor and returns its file, to be dropped.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn remove(&self, fd: i32) -> Result<Arc<File>, Errno> {
        let index = index(fd)?;
        let slot = self.slots.lock().get_mut(index).and_then(Option::take);
        slot.map(|slot| slot.file).ok_or(Errno::EBADF)
    }

    /// Whether `execve` closes `fd`.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn close_on_exec(&self, fd: i32) -> Result<bool, Errno> {
        let index = index(fd)?;
        match self.slots.lock().get(index) {
            Some(Some(slot)) => Ok(slot.close_on_exec),
            _ => Err(Errno::EBADF),
        }
    }

    /// Sets whether `execve` closes `fd`.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn set_close_on_exec(&self, fd: i32, close_on_exec: bool) -> Result<(), Errno> {
        let index = index(fd)?;
        match self.slots.lock().get_mut(index) {
            Some(Some(slot)) => {
                slot.close_on_exec = close_on_exec;
                Ok(())
            }
            _ => Err(Errno::EBADF),
        }
    }

    /// Closes (or marks as to be closed by `execve`, if `mark_only`) the
    /// descriptors `first..=last`.
    pub fn close_range(&self, first: usize, last: usize, mark_only: bool) {
        let mut at = first;
        // One file is dropped at a time, outside of the lock.
        while let Some(file) = self.take_next(&mut at, last, mark_only) {
            drop(file);
        }
    }

    fn take_next(&self, at: &mut usize, last: usize, mark_only: bool) -> Option<Slot> {
        let mut slots = self.slots.lock();
        while *at <= last && *at < slots.len() {
            let slot = &mut slots[*at];
            *at += 1;
            match slot {
                Some(slot) if mark_only => slot.close_on_exec = true,
                Some(_) => return slot.take(),
                None => {}
            }
        }
        None
    }

    /// Closes what `execve` closes.
    pub fn close_for_exec(&self) {
        let mut at = 0;
        loop {
            let mut slots = self.slots.lock();
            let found = slots.iter().skip(at).position(|slot| slot.as_ref().is_some_and(|slot| slot.close_on_exec));
            let Some(found) = found else { return };
            at += found;
            let slot = slots[at].take();
            drop(slots);
            drop(slot);
        }
    }

    /// The lowest open descriptor from `from` up, and its file.
    pub fn next(&self, from: usize) -> Option<(usize, Arc<File>)> {
        let slots = self.slots.lock();
        slots.iter().enumerate().skip(from).find_map(|(fd, slot)| slot.as_ref().map(|slot| (fd, slot.file.clone())))
    }

    /// How many descriptors there is room for; what `/proc/PID/status` calls `FDSize`.
    pub fn capacity(&self) -> usize {
        self.slots.lock().len().next_power_of_two().max(64)
    }
}

/// Makes sure that `slots[index]` exists.
fn extend(slots: &mut Vec<Option<Slot>>, index: usize) -> Result<(), Errno> {
    if index >= slots.len() {
        let more = index + 1 - slots.len();
        slots.try_reserve(more).map_err(|_| Errno::ENOMEM)?;
        slots.resize_with(index + 1, || None);
    }
    Ok(())
}
