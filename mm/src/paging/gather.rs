//! Gathers what an operation has unmapped, so that one TLB flush serves for
//! all of it, and nothing of it is reused before that flush.
//!
//! Frames and table pages are handed over together with the duty to release
//! them: the [`TlbGather`] is the only one who puts them, and it puts none
//! before the flush that makes it unreachable has completed.

use core::mem::MaybeUninit;

use super::PageTables;
use crate::{Event, FrameKind, Memory, OwnedFrame, PAGE_SIZE, Pfn, Platform};

/// Frames that are gathered without allocating.
const INLINE: usize = 32;
/// Frames that fit the page that is taken when there are more.
const SPILL: usize = PAGE_SIZE / size_of::<Pfn>();

/// The end of a list of table pages: no frame has that number.
const NO_TABLE: Pfn = Pfn(usize::MAX);

/// Pending invalidations of one address space, and what to release after them.
///
/// Dropping it does what [`flush`](Self::flush) does, so that no return can leave a
/// stale translation behind or lose a frame.
#[must_use = "the TLB is flushed when the gather is dropped"]
pub(crate) struct TlbGather<'a, P: Platform> {
    mem: &'a Memory<P>,
    tables: &'a PageTables,
    reason: Event,
    /// Hull of the addresses whose translations changed; empty if `start >= end`.
    start: usize,
    end: usize,
    /// The first `count` of `inline`, or of `spill` once there is one, are
    /// references to put.
    count: usize,
    capacity: usize,
    /// Table pages to free, linked through the index in their records up to
    /// [`NO_TABLE`].
    dead_tables: Pfn,
    spill: Option<OwnedFrame>,
    inline: [MaybeUninit<Pfn>; INLINE],
}

impl<'a, P: Platform> TlbGather<'a, P> {
    /// Nothing pending. A flush counts as `reason`.
    pub fn new(mem: &'a Memory<P>, tables: &'a PageTables, reason: Event) -> Self {
        TlbGather {
            mem,
            tables,
            reason,
            start: usize::MAX,
            end: 0,
            count: 0,
            capacity: INLINE,
            dead_tables: NO_TABLE,
            spill: None,
            inline: [MaybeUninit::uninit(); INLINE],
        }
    }

    /// The translation of the page at `addr` was removed or restricted.
    #[inline(always)]
    pub fn changed(&mut self, addr: usize) {
        self.changed_range(addr, addr + PAGE_SIZE);
    }

    /// Translations of `start..end` (page aligned) were removed or restricted.
    #[inline(always)]
    pub fn changed_range(&mut self, start: usize, end: usize) {
        self.start = self.start.min(start);
        self.end = self.end.max(end);
    }

    /// Takes over one reference to the frame `pfn`, to be put after the flush.
    #[inline(always)]
    pub fn release(&mut self, pfn: Pfn) {
        if self.count == self.capacity {
            self.make_room();
        }
        let count = self.count;
        // SAFETY: `make_room` leaves `count < capacity`, and `batch` points to
        // `capacity` writable elements.
        unsafe { self.batch().add(count).write(pfn) };
        self.count = count + 1;
    }

    /// Takes over the page of a table that is empty and has been taken out of the
    /// tree, to be freed after the flush. What it mapped has been recorded by
    /// [`changed`](Self::changed).
    pub fn release_table(&mut self, page: OwnedFrame) {
        let pfn = page.into_raw();
        self.mem.frame(pfn).set_index(self.dead_tables.0);
        self.dead_tables = pfn;
    }

    /// The entries of `start..end` (page aligned) are being emptied by `frames`,
    /// which yields the frames that they mapped: takes over a reference to each.
    #[inline(always)]
    pub fn release_run(&mut self, start: usize, end: usize, mut frames: impl Iterator<Item = Pfn>) {
        loop {
            // Again after each flush that makes room: there are more to come.
            self.changed_range(start, end);
            let room = self.room();
            let size = room.len();
            let mut used = 0;
            for (place, pfn) in room.iter_mut().zip(&mut frames) {
                place.write(pfn);
                used += 1;
            }
            self.count += used;
            if used < size {
                return;
            }
            self.make_room();
        }
    }

    /// Flushes what is pending, then releases it: from here on no CPU can use a
    /// translation that was recorded.
    #[inline]
    pub fn flush(&mut self) {
        self.invalidate();
        if self.count != 0 || self.dead_tables != NO_TABLE {
            self.put();
        }
    }

    /// Flushes what is pending, and releases nothing yet: what is left to do when this is
    /// dropped needs no lock, since nobody can come to it any more.
    #[inline]
    pub fn invalidate(&mut self) {
        // First: tables that are freed may have had only entries that reclaim has emptied.
        self.tables.flush_stale(self.mem, self.reason);
        if self.start < self.end {
            self.tables.flush(self.mem, self.start, self.end, self.reason);
            self.start = usize::MAX;
            self.end = 0;
        }
    }

    /// Releases what has been flushed.
    fn put(&mut self) {
        let (batch, count) = (self.batch(), self.count);
        // SAFETY: the first `count` elements were written by `release`.
        let frames = unsafe { core::slice::from_raw_parts(batch, count) };
        self.mem.put_all(frames);
        self.count = 0;
        while self.dead_tables != NO_TABLE {
            let pfn = self.dead_tables;
            self.dead_tables = Pfn(self.mem.frame(pfn).index());
            // SAFETY: `release_table` took the page from its owner, and no CPU
            // has it cached as a table any more.
            self.mem.free_table(unsafe { OwnedFrame::from_raw(pfn, 0) });
        }
    }

    /// The part of the array that is not in use.
    #[inline(always)]
    fn room(&mut self) -> &mut [MaybeUninit<Pfn>] {
        let (count, capacity) = (self.count, self.capacity);
        // SAFETY: `batch` points to `capacity` elements, borrowed with `self`,
        // and `count` is at most that. They are as good as uninitialised.
        unsafe { core::slice::from_raw_parts_mut(self.batch().add(count).cast(), capacity - count) }
    }

    /// The array in use, of `capacity` elements.
    #[inline(always)]
    fn batch(&mut self) -> *mut Pfn {
        match &self.spill {
            Some(page) => self.mem.page_ptr(page.pfn()).cast(),
            None => self.inline.as_mut_ptr().cast(),
        }
    }

    /// The inline array is exchanged for a page; without one to be had, and when
    /// that is full too, the operation is flushed piece by piece.
    #[cold]
    fn make_room(&mut self) {
        if self.spill.is_none()
            && let Ok(page) = self.mem.alloc(FrameKind::Kernel, 0)
        {
            let to = self.mem.page_ptr(page.pfn()).cast::<Pfn>();
            // SAFETY: both hold at least INLINE elements, do not overlap, and
            // the page is ours.
            unsafe { to.copy_from_nonoverlapping(self.inline.as_ptr().cast(), INLINE) };
            self.spill = Some(page);
            self.capacity = SPILL;
            return;
        }
        self.flush();
    }
}

impl<P: Platform> Drop for TlbGather<'_, P> {
    fn drop(&mut self) {
        self.flush();
        if let Some(page) = self.spill.take() {
            self.mem.free(page);
        }
    }
}
