//! The entries of a directory, sorted by key.
//!
//! They are kept in blocks of up to [`BLOCK`] entries each, so that adding one
//! to a large directory moves a block and a list of blocks, and not everything.
//! Keys ascend within and across blocks. A block is only empty when it is the
//! only one and an entry is about to be added.

use alloc::sync::Arc;
use alloc::vec::Vec;
use mm::Errno;

use crate::fs::dentry::Dentry;

/// The most entries of a block.
const BLOCK: usize = 256;

/// A directory entry and its key.
pub struct Entry {
    /// What the entries are sorted by; no two have the same.
    pub key: u64,
    /// Name and inode.
    pub dentry: Arc<Dentry>,
}

/// The sorted entries.
#[derive(Default)]
pub struct Index {
    blocks: Vec<Vec<Entry>>,
    len: usize,
}

impl Index {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The block that has, or would have, an entry with that key; there is one
    /// unless there is no block at all.
    fn block_of(&self, key: u64) -> usize {
        let after = self.blocks.partition_point(|block| block.first().is_some_and(|entry| entry.key <= key));
        after.saturating_sub(1)
    }

    /// The entries with keys from `key` up, in ascending order.
    pub fn from(&self, key: u64) -> impl Iterator<Item = &Entry> {
        let block = self.block_of(key);
        let skip = self.blocks.get(block).map_or(0, |block| block.partition_point(|entry| entry.key < key));
        self.blocks.iter().skip(block).flatten().skip(skip)
    }

    /// Makes room for an entry with that key, so that the next
    /// [`insert`](Self::insert), if it is of that key, cannot fail.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn reserve(&mut self, key: u64) -> Result<(), Errno> {
        let at = self.block_of(key);
        if let Some(block) = self.blocks.get_mut(at)
            && block.len() < BLOCK
        {
            return block.try_reserve(1).map_err(|_| Errno::ENOMEM);
        }
        self.blocks.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        let mut fresh = Vec::new();
        match self.blocks.get_mut(at) {
            Some(full) => {
                fresh.try_reserve(BLOCK / 2).map_err(|_| Errno::ENOMEM)?;
                // Both halves have room: for one more at least.
                fresh.extend(full.drain(BLOCK / 2 + 1..));
                self.blocks.insert(at + 1, fresh);
            }
            // The first block, which stays empty until the insertion.
            None => {
                fresh.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
                self.blocks.push(fresh);
            }
        }
        Ok(())
    }

    /// Adds an entry, for whose key room was made.
    pub fn insert(&mut self, entry: Entry) {
        let at = self.block_of(entry.key);
        if let Some(block) = self.blocks.get_mut(at) {
            let index = block.partition_point(|other| other.key < entry.key);
            block.insert(index, entry);
            self.len += 1;
        }
    }

    /// The entry with that key.
    pub fn get_mut(&mut self, key: u64) -> Option<&mut Entry> {
        let at = self.block_of(key);
        self.blocks.get_mut(at)?.iter_mut().find(|entry| entry.key == key)
    }

    /// Takes the entry with that key out.
    pub fn remove(&mut self, key: u64) -> Option<Entry> {
        let at = self.block_of(key);
        let block = self.blocks.get_mut(at)?;
        let index = block.binary_search_by_key(&key, |entry| entry.key).ok()?;
        let entry = block.remove(index);
        self.len -= 1;
        if block.is_empty() {
            self.blocks.remove(at);
        }
        Some(entry)
    }
}
