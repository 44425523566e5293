//! Lists of single free frames: those of a CPU, and the batches between them.
//!
//! A CPU has a list it works with and, behind it, perhaps a whole batch to
//! spare. Frames go to and from the shared pool only as batches, and only when
//! both are full or both are empty: so who allocates and frees around the
//! border of a batch does not go there each time. (The scheme is Bonwick and
//! Adams', "Magazines and Vmem", 2001.)

use core::ops::Range;
use core::sync::atomic::Ordering;

use super::Frame;
use super::table::{FrameTable, NIL};

/// Frames of a batch.
pub(super) const BATCH: u32 = 32;

/// Exactly [`BATCH`] free frames: the record of the first, linked on through
/// `Frame::next`.
pub(super) struct Batch(u32);

/// The free frames of one CPU.
pub(super) struct CpuLists {
    /// The list in use, linked through `Frame::next`.
    head: u32,
    len: u32,
    /// First frame of the batch to spare, or [`NIL`].
    spare: u32,
    /// Apart from these, frames that are full of zeroes: at most a batch.
    zeroed: u32,
    zeroed_len: u32,
    /// Nor are these in it: what is left of a block for page tables.
    tables: Range<u32>,
}

impl CpuLists {
    pub(super) const fn new() -> CpuLists {
        CpuLists { head: NIL, len: 0, spare: NIL, zeroed: NIL, zeroed_len: 0, tables: 0..0 }
    }

    /// Length of the list in use.
    #[inline]
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// Whether the list in use is empty.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the list in use is as long as a batch.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.len == BATCH
    }

    /// Puts a frame on the list in use, which is not full.
    #[inline]
    pub(super) fn push(&mut self, index: u32, frame: &Frame) {
        frame.next.store(self.head, Ordering::Relaxed);
        self.head = index;
        self.len += 1;
    }

    /// Takes a frame off the list in use.
    #[inline]
    pub(super) fn pop<'a>(&mut self, table: &'a FrameTable) -> Option<(u32, &'a Frame)> {
        if self.len == 0 {
            return None;
        }
        let index = self.head;
        let frame = table.at(index);
        self.head = frame.next.load(Ordering::Relaxed);
        self.len -= 1;
        Some((index, frame))
    }

    /// Makes a block of [`BATCH`] frames, from `first` on, those that page tables are made of
    /// next; there is none left.
    pub(super) fn load_tables(&mut self, first: u32) {
        debug_assert!(self.tables.is_empty());
        self.tables = first..first + BATCH;
    }

    /// Takes a frame for a page table.
    pub(super) fn pop_table<'a>(&mut self, table: &'a FrameTable) -> Option<(u32, &'a Frame)> {
        let index = self.tables.next()?;
        Some((index, table.at(index)))
    }

    /// Puts a frame on the list of those that are full of zeroes, if there is room.
    #[inline]
    pub(super) fn push_zeroed(&mut self, index: u32, frame: &Frame) -> bool {
        if self.zeroed_len == BATCH {
            return false;
        }
        frame.next.store(self.zeroed, Ordering::Relaxed);
        self.zeroed = index;
        self.zeroed_len += 1;
        true
    }

    /// Takes a frame that is full of zeroes.
    #[inline]
    pub(super) fn pop_zeroed<'a>(&mut self, table: &'a FrameTable) -> Option<(u32, &'a Frame)> {
        if self.zeroed_len == 0 {
            return None;
        }
        let index = self.zeroed;
        let frame = table.at(index);
        self.zeroed = frame.next.load(Ordering::Relaxed);
        self.zeroed_len -= 1;
        Some((index, frame))
    }

    /// Makes the spare batch the list in use, which is empty.
    pub(super) fn load_spare(&mut self) -> bool {
        let spare = core::mem::replace(&mut self.spare, NIL);
        if spare != NIL {
            self.load(Batch(spare));
        }
        spare != NIL
    }

    /// Makes a batch the list in use, which is empty.
    pub(super) fn load(&mut self, Batch(head): Batch) {
        debug_assert_eq!(self.len, 0);
        self.head = head;
        self.len = BATCH;
    }

    /// Makes the list in use, which is full, the spare batch, and returns the
    /// one there was.
    pub(super) fn unload(&mut self) -> Option<Batch> {
        debug_assert_eq!(self.len, BATCH);
        let spare = core::mem::replace(&mut self.spare, self.head);
        self.head = NIL;
        self.len = 0;
        (spare != NIL).then_some(Batch(spare))
    }
}

/// Batches that no CPU has, linked through `Frame::prev` of their first frames.
pub(super) struct Depot {
    head: u32,
    batches: usize,
}

impl Depot {
    pub(super) const fn new() -> Depot {
        Depot { head: NIL, batches: 0 }
    }

    /// How many there are.
    pub(super) fn batches(&self) -> usize {
        self.batches
    }

    pub(super) fn put(&mut self, table: &FrameTable, Batch(first): Batch) {
        table.at(first).prev.store(self.head, Ordering::Relaxed);
        self.head = first;
        self.batches += 1;
    }

    pub(super) fn take(&mut self, table: &FrameTable) -> Option<Batch> {
        if self.head == NIL {
            return None;
        }
        let first = self.head;
        self.head = table.at(first).prev.load(Ordering::Relaxed);
        self.batches -= 1;
        Some(Batch(first))
    }
}
