//! Directories: names to dentries, sorted by a hash of the name.
//!
//! The sort key doubles as the position in a listing, so a listing goes on at
//! the right place however many entries come and go in between, and a name is
//! found in O(log n).

use core::sync::atomic::{AtomicBool, Ordering};

use alloc::sync::Arc;
use mm::Errno;

use super::index::{Entry, Index};
use crate::arch::irq::Mutex;
use crate::fs::dentry::Dentry;
use crate::fs::file::{DirEntry, File, FileOps, Seek};
use crate::fs::inode::Body;

/// Entries whose names have the same hash are told apart by the key's low bits.
const TIE_BITS: u32 = 8;
/// Keeps keys above the positions of `.` and `..`, and they stay positive as `i64`.
const KEY_BASE: u64 = 1 << 62;
/// What tmpfs on Linux says an entry adds to a directory's size, in bytes.
const ENTRY_SIZE: u64 = 20;

/// The entries of one directory, `.` and `..` aside.
#[derive(Default)]
pub struct Directory {
    entries: Mutex<Index>,
    removed: AtomicBool,
}

/// The place of an entry, or for one; good until the directory changes otherwise.
pub struct Slot {
    key: u64,
}

/// The lowest key that an entry called `name` may have.
fn first_key(name: &[u8]) -> u64 {
    // FNV-1a.
    let hash = name
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    KEY_BASE | (hash >> (2 + TIE_BITS)) << TIE_BITS
}

impl Directory {
    /// The entry called `name`.
    pub fn get(&self, name: &[u8]) -> Option<Arc<Dentry>> {
        let entries = self.entries.lock();
        with_hash_of(&entries, name).find(|entry| entry.dentry.is_named(name)).map(|entry| entry.dentry.clone())
    }

    /// Makes room for an entry called `name`.
    ///
    /// # Errors
    /// `ENOMEM`; `ENOSPC` when too many names with the same hash are there.
    pub fn prepare(&self, name: &[u8]) -> Result<Slot, Errno> {
        let mut entries = self.entries.lock();
        let first = first_key(name);
        let taken = with_hash_of(&entries, name).zip(first..).take_while(|(entry, key)| entry.key == *key).count();
        let key = first + taken as u64;
        if key >> TIE_BITS != first >> TIE_BITS {
            return Err(Errno::ENOSPC);
        }
        entries.reserve(key)?;
        Ok(Slot { key })
    }

    /// Adds `dentry` in the room made for it.
    pub fn commit(&self, slot: Slot, dentry: Arc<Dentry>) {
        self.entries.lock().insert(Entry { key: slot.key, dentry });
    }

    /// Which entry `dentry` is, if it is one. It has the name it was added by.
    pub fn slot_of(&self, dentry: &Arc<Dentry>) -> Option<Slot> {
        let entries = self.entries.lock();
        let key = dentry.with_name(|name| {
            with_hash_of(&entries, name).find(|entry| Arc::ptr_eq(&entry.dentry, dentry)).map(|entry| entry.key)
        });
        key.map(|key| Slot { key })
    }

    /// Removes an entry.
    pub fn remove(&self, slot: Slot) {
        let removed = self.entries.lock().remove(slot.key);
        // Dropped here, outside of the lock.
        drop(removed);
    }

    /// Puts `dentry` in the place of another one with the same name.
    pub fn replace(&self, slot: Slot, dentry: Arc<Dentry>) {
        if let Some(entry) = self.entries.lock().get_mut(slot.key) {
            entry.dentry = dentry;
        }
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.lock().len() == 0
    }

    /// The size that `stat` reports, in bytes.
    pub fn size(&self) -> u64 {
        (self.entries.lock().len() as u64 + 2) * ENTRY_SIZE
    }

    /// Whether the directory itself was removed, and takes no entries any more.
    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Relaxed)
    }

    /// Notes that the directory was removed.
    pub fn mark_removed(&self) {
        self.removed.store(true, Ordering::Relaxed);
    }
}

/// The entries whose names have the same hash as `name`.
fn with_hash_of<'a>(entries: &'a Index, name: &[u8]) -> impl Iterator<Item = &'a Entry> {
    let first = first_key(name);
    entries.from(first).take_while(move |entry| entry.key >> TIE_BITS == first >> TIE_BITS)
}

/// An open directory.
pub struct DirectoryFile;

impl FileOps for DirectoryFile {
    fn read(&self, _: &File, _: &mut crate::fs::io::Sink<'_>, _offset: u64) -> Result<usize, Errno> {
        Err(Errno::EISDIR)
    }

    fn seek(&self, _: &File) -> Seek {
        Seek::To(i64::MAX as u64)
    }

    fn read_dir(
        &self,
        file: &File,
        mut position: u64,
        emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<u64, Errno> {
        let Body::Directory(directory) = &file.inode().body else {
            return Err(Errno::ENOTDIR);
        };
        if directory.is_removed() {
            return Err(Errno::ENOENT);
        }
        position = emit_dots(file, position, emit);
        if position < 2 {
            return Ok(position);
        }
        let entries = directory.entries.lock();
        for entry in entries.from(position) {
            let inode = &entry.dentry.inode;
            let next = entry.key + 1;
            let wanted =
                entry.dentry.with_name(|name| emit(DirEntry { next, number: inode.number, mode: inode.mode(), name }));
            if !wanted {
                break;
            }
            position = next;
        }
        Ok(position)
    }
}

/// Lists `.` and `..`, which are at positions 0 and 1 of every directory;
/// returns the position reached.
pub fn emit_dots(file: &File, mut position: u64, emit: &mut dyn FnMut(DirEntry<'_>) -> bool) -> u64 {
    let own = file.dentry();
    if position == 0 {
        let (number, mode) = (own.inode.number, own.inode.mode());
        if !emit(DirEntry { next: 1, number, mode, name: b"." }) {
            return position;
        }
        position = 1;
    }
    if position == 1 {
        let parent = own.parent().unwrap_or_else(|| own.clone());
        let (number, mode) = (parent.inode.number, parent.inode.mode());
        if !emit(DirEntry { next: 2, number, mode, name: b".." }) {
            return position;
        }
        position = 2;
    }
    position
}
