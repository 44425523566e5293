//! Lists of single free frames: those of a CPU, and the batches between them.
//!
//! A CPU has a list it works with and, behind it, some whole batches to
//! spare. Frames go to and from the shared pool only as batches, and only when
//! there is room for none or there is none: so who allocates and frees around the
//! border of a batch does not go there each time. (The scheme is Bonwick and
//! Adams', "Magazines and Vmem", 2001.) There are so many because a frame that another CPU has
//! freed costs more than the way to the pool: its contents are in that CPU's cache.

use core::ops::Range;
use core::sync::atomic::Ordering;

use super::Frame;
use super::table::{FrameTable, NIL};

/// Frames of a batch.
pub(super) const BATCH: u32 = 32;

/// Batches that a CPU may have to spare at most: with them, 4 MiB.
pub(super) const SPARES: usize = 32;

/// Exactly [`BATCH`] free frames: the record of the first, linked on through
/// `Frame::next`.
#[derive(Clone, Copy)]
pub(super) struct Batch(u32);

/// Batches to spare, of which the CPU takes the one that it has put there last, and others
/// get the oldest.
struct Spares {
    /// A ring.
    batches: [Batch; SPARES],
    oldest: usize,
    count: usize,
}

impl Spares {
    const fn new() -> Spares {
        Spares { batches: [Batch(NIL); SPARES], oldest: 0, count: 0 }
    }

    /// Adds a batch; there is room.
    fn push(&mut self, batch: Batch) {
        debug_assert!(self.count < SPARES);
        self.batches[(self.oldest + self.count) % SPARES] = batch;
        self.count += 1;
    }

    fn pop(&mut self) -> Option<Batch> {
        self.count = self.count.checked_sub(1)?;
        Some(self.batches[(self.oldest + self.count) % SPARES])
    }

    fn pop_oldest(&mut self) -> Option<Batch> {
        self.count = self.count.checked_sub(1)?;
        let batch = self.batches[self.oldest];
        self.oldest = (self.oldest + 1) % SPARES;
        Some(batch)
    }
}

/// The free frames of one CPU.
pub(super) struct CpuLists {
    /// The list in use, linked through `Frame::next`.
    head: u32,
    len: u32,
    spares: Spares,
    /// Apart from these, frames that are full of zeroes: at most a batch.
    zeroed: u32,
    zeroed_len: u32,
    /// Nor are these in it: what is left of a block for page tables.
    tables: Range<u32>,
}

impl CpuLists {
    pub(super) const fn new() -> CpuLists {
        CpuLists { head: NIL, len: 0, spares: Spares::new(), zeroed: NIL, zeroed_len: 0, tables: 0..0 }
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

    /// Makes a batch to spare the list in use, which is empty.
    pub(super) fn load_spare(&mut self) -> bool {
        let spare = self.spares.pop();
        if let Some(batch) = spare {
            self.load(batch);
        }
        spare.is_some()
    }

    /// Makes a batch the list in use, which is empty.
    pub(super) fn load(&mut self, Batch(head): Batch) {
        debug_assert_eq!(self.len, 0);
        self.head = head;
        self.len = BATCH;
    }

    /// Makes the list in use, which is full, a batch to spare. If there were `most` already,
    /// at least one, returns the oldest.
    pub(super) fn unload(&mut self, most: usize) -> Option<Batch> {
        debug_assert_eq!(self.len, BATCH);
        let excess = if self.spares.count >= most { self.spares.pop_oldest() } else { None };
        self.spares.push(Batch(self.head));
        self.head = NIL;
        self.len = 0;
        excess
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
