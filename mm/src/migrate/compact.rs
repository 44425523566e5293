//! Compaction: free frames are brought together, so that there are large blocks of them.
//!
//! ```text
//!   frames   ▒  free      █  private page, can move      ▓  anything else, cannot
//!
//!            █▒█▒  ▒▓█▒  █▒▒█  ▒█▒█  ▒▒█▒  ▒█▒▒
//!            ──▶                            ◀──
//!            who looks for pages to move    who looks for free frames
//! ```
//!
//! One scanner goes up from the lowest frame, block by block, and moves private pages
//! away; to frames that the other finds, which comes down from the highest frame. All is done
//! when they meet. Who needs one block leaves out those that have something in them
//! that cannot be moved, and stops at the first that has become free. What is full is left
//! alone: that may be a huge page, which would be split. (Linux's `compact_zone`.)
//!
//! Nothing is waited for but page tables and reverse mappings: a page that is locked or in use
//! stays. Some frames are left to others who need one meanwhile.

use core::ops::Range;
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use super::{BATCH, Migrations, is_movable};
use crate::frame::Frame;
use crate::{Event, FrameKind, MAX_ORDER, Memory, OutOfMemory, OwnedFrame, Pfn, Platform};

/// So many frames stay free while others are filled.
const RESERVE: usize = 2 * BATCH;
/// When all memory is compacted, pages are moved out of blocks of this order.
const BLOCK_ORDER: u8 = 9;
/// After failures, compaction is not tried for at most `1 << MAX_SHIFT` allocations.
const MAX_SHIFT: u8 = 6;

/// When not to try again: the more often compaction has failed one after the other, the
/// longer. (Linux's `defer_compaction`.)
pub(crate) struct Deferral {
    /// The lowest order that could not be had; above [`MAX_ORDER`], if all could.
    failed: AtomicU8,
    /// Log 2 of the number of allocations to let pass.
    shift: AtomicU8,
    /// How many have passed.
    passed: AtomicU32,
}

impl Deferral {
    pub(crate) const fn new() -> Deferral {
        Deferral { failed: AtomicU8::new(MAX_ORDER + 1), shift: AtomicU8::new(0), passed: AtomicU32::new(0) }
    }

    /// Whether an allocation of `order` is not to try.
    fn defers(&self, order: u8) -> bool {
        if order < self.failed.load(Ordering::Relaxed) {
            return false;
        }
        let passed = self.passed.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        passed < 1 << self.shift.load(Ordering::Relaxed)
    }

    fn succeeded(&self, order: u8) {
        self.failed.fetch_max(order + 1, Ordering::Relaxed);
        self.shift.store(0, Ordering::Relaxed);
        self.passed.store(0, Ordering::Relaxed);
    }

    fn failed(&self, order: u8) {
        self.failed.fetch_min(order, Ordering::Relaxed);
        self.shift.store((self.shift.load(Ordering::Relaxed) + 1).min(MAX_SHIFT), Ordering::Relaxed);
        self.passed.store(0, Ordering::Relaxed);
    }
}

/// Both scanners.
struct Compaction<'m, P: Platform> {
    mem: &'m Memory<P>,
    migrations: Migrations<'m, P>,
    /// Frames from here on have been looked at by who looks for free ones.
    end: usize,
    /// A free frame that has been found in vain.
    spare: Option<OwnedFrame>,
    /// Frames that the scanners have looked at, and taken.
    migrate_scanned: u64,
    free_scanned: u64,
    isolated: u64,
}

impl<'m, P: Platform> Compaction<'m, P> {
    fn new(mem: &'m Memory<P>) -> Compaction<'m, P> {
        let (first, span) = mem.frame_span();
        let migrations = Migrations::new(mem);
        let end = first.0 + span;
        Compaction { mem, migrations, end, spare: None, migrate_scanned: 0, free_scanned: 0, isolated: 0 }
    }

    /// Moves pages out of the blocks of `order`, from the lowest on; `until` is asked
    /// after each one that pages may have been moved out of. With `whole`, only out of
    /// those that may become free as a whole.
    fn run(&mut self, order: u8, whole: bool, mut until: impl FnMut() -> bool) {
        let size = 1 << order;
        // The first frame that has a record is at a multiple of the largest block.
        let mut start = self.mem.frame_span().0.0;
        while start + size <= self.end && self.mem.free_frames() > RESERVE {
            let block = start..start + size;
            start += size;
            if !self.is_worthwhile(block.clone(), whole) {
                continue;
            }
            if !self.empty(block) {
                return;
            }
            if whole {
                self.migrations.finish();
            }
            if until() {
                return;
            }
        }
    }

    /// Moves what it can out of a block; `false` if there is nowhere left to move to.
    fn empty(&mut self, block: Range<usize>) -> bool {
        let limit = block.end;
        for pfn in block.map(Pfn) {
            if !may_move(self.mem.frame(pfn)) {
                continue;
            }
            let Some(to) = self.spare.take().or_else(|| self.find_free(limit)) else { return false };
            match self.migrations.add(pfn, to) {
                Ok(()) => self.isolated += 2,
                Err(to) => self.spare = Some(to),
            }
        }
        true
    }

    /// Whether something in a block is free and, if the `whole` of it shall be, all else may
    /// be moved away.
    fn is_worthwhile(&mut self, block: Range<usize>, whole: bool) -> bool {
        self.migrate_scanned += block.len() as u64;
        let mut has_free = false;
        let fits = block.map(Pfn).all(|pfn| {
            let record = self.mem.frame(pfn);
            let is_free = record.kind() == FrameKind::Free;
            has_free |= is_free;
            is_free || !whole || may_move(record)
        });
        fits && has_free
    }

    /// The next free frame from the top, but none below `limit`.
    fn find_free(&mut self, limit: usize) -> Option<OwnedFrame> {
        while self.end > limit {
            self.end -= 1;
            self.free_scanned += 1;
            if let Some(frame) = self.mem.alloc_at(Pfn(self.end), FrameKind::Anon) {
                return Some(frame);
            }
        }
        None
    }
}

impl<P: Platform> Drop for Compaction<'_, P> {
    fn drop(&mut self) {
        self.migrations.finish();
        if let Some(frame) = self.spare.take() {
            self.mem.free(frame);
        }
        self.mem.count_all(Event::CompactMigrateScanned, self.migrate_scanned);
        self.mem.count_all(Event::CompactFreeScanned, self.free_scanned);
        self.mem.count_all(Event::CompactIsolated, self.isolated);
    }
}

/// Whether a frame has a page that can be moved, as far as its record tells somebody who has no
/// reference.
fn may_move(record: &Frame) -> bool {
    record.refcount() != 0 && is_movable(record, 0)
}

impl<P: Platform> Memory<P> {
    /// Moves private pages together until there is a free block of `order`; says whether there
    /// is one. No lock may be held beyond a VMA's.
    pub fn compact(&self, order: u8) -> bool {
        if order > MAX_ORDER {
            return false;
        }
        self.has_block(order) || {
            let mut found = false;
            Compaction::new(self).run(order, true, || {
                found = self.has_block(order);
                found
            });
            found || self.has_block(order)
        }
    }

    /// Moves all private pages together that can be moved: what a write to
    /// `/proc/sys/vm/compact_memory` does. No lock may be held beyond a VMA's.
    pub fn compact_all(&self) {
        self.merge_free_lists();
        Compaction::new(self).run(BLOCK_ORDER, false, || false);
        self.merge_free_lists();
    }

    /// [`alloc`](Self::alloc), but if there is no such block, though enough frames are free,
    /// private pages are moved together first. Not if that has been in vain for others
    /// just before. No lock may be held beyond a VMA's.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    #[cfg_attr(test, track_caller)]
    pub fn alloc_compacting(&self, kind: FrameKind, order: u8) -> Result<OwnedFrame, OutOfMemory> {
        self.allocation_site()?;
        let found = self.alloc_uncounted(kind, order);
        let enough = || self.free_frames() >= (1 << order) + RESERVE;
        if found.is_ok() || order == 0 || order > MAX_ORDER || !enough() || self.deferral().defers(order) {
            return found;
        }
        self.count(Event::CompactStall);
        self.compact(order);
        let found = self.alloc_uncounted(kind, order);
        if found.is_ok() {
            self.count(Event::CompactSuccess);
            self.deferral().succeeded(order);
        } else {
            self.count(Event::CompactFail);
            self.deferral().failed(order);
        }
        found
    }
}
