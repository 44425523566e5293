//! Freeing tables that nothing uses any more.

use core::sync::atomic::Ordering;

use super::table::{Child, Level, Table};
use super::{Entry, PageTables, TlbGather, USER_END};
use crate::{Event, Memory, OwnedFrame, PMD_SIZE, PageRange, Platform, TASK_SIZE};

/// What may be freed: tables whose whole span is in `floor..ceiling`.
struct Bounds {
    floor: usize,
    ceiling: usize,
    which: Which,
}

/// Which of the tables are to go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    /// All of them. That they are empty is the caller's promise.
    All,
    /// Those that are empty.
    Empty,
}

impl PageTables {
    /// Frees the tables in the way of `range` that map nothing outside
    /// `floor..ceiling` (bytes; the end of the mapping below and the start of the
    /// one above, or 0 and [`TASK_SIZE`]). They go once `gather` has flushed.
    ///
    /// The caller has `floor..ceiling` to itself: it holds the mmap lock, has had it in
    /// write mode when all VMAs in there were locked and detached, which are unlinked from
    /// rmap now, and their leaves are gone.
    pub fn free_tables<P: Platform>(
        &self,
        mem: &Memory<P>,
        range: PageRange,
        floor: usize,
        ceiling: usize,
        gather: &mut TlbGather<P>,
    ) {
        self.free_gathered(mem, range, (floor, ceiling), Which::All, gather);
    }

    /// Frees the tables in the way of `range` that map nothing outside `room`, and
    /// nothing inside it either.
    ///
    /// The caller holds the mmap lock in write mode, and keeps faults and rmap
    /// walks out of `room`; what is mapped there stays.
    pub(super) fn free_empty_tables<P: Platform>(&self, mem: &Memory<P>, range: PageRange, room: (usize, usize)) {
        let mut gather = TlbGather::new(mem, self, Event::FlushUnmap);
        self.free_gathered(mem, range, room, Which::Empty, &mut gather);
    }

    fn free_gathered<P: Platform>(
        &self,
        mem: &Memory<P>,
        range: PageRange,
        (floor, ceiling): (usize, usize),
        which: Which,
        gather: &mut TlbGather<P>,
    ) {
        let ceiling = span_ceiling(ceiling);
        // Each table maps whole blocks of 2 MiB: most often, as for a page beside
        // another mapping, none of those in the way lies inside the room.
        let start = range.start().max(floor.next_multiple_of(PMD_SIZE));
        let end = range.end().min(ceiling & !(PMD_SIZE - 1));
        if start >= end {
            return;
        }
        let bounds = Bounds { floor, ceiling, which };
        self.free_below(mem, self.top(mem), (start, end), &bounds, &mut |addr, page| {
            // One page is enough: flushing any page of the table's span drops
            // what the paging-structure caches know of the table.
            gather.changed(addr.max(range.start()));
            gather.release_table(page);
        });
    }

    /// Frees all tables but the root, at once: no CPU knows of them.
    pub(super) fn free_user_half<P: Platform>(&self, mem: &Memory<P>) {
        let bounds = Bounds { floor: 0, ceiling: USER_END, which: Which::All };
        self.free_below(mem, self.top(mem), (0, USER_END), &bounds, &mut |_, page| mem.free_table(page));
    }

    /// Takes tables below `table` in the way of `start..end` out of the tree, and
    /// hands the address that each one mapped first and its page, which is empty,
    /// to `release`.
    fn free_below<P: Platform>(
        &self,
        mem: &Memory<P>,
        table: Table,
        (start, end): (usize, usize),
        bounds: &Bounds,
        release: &mut impl FnMut(usize, OwnedFrame),
    ) {
        let level = table.level();
        let mut addr = start;
        while addr < end {
            self.count_visited(1);
            let slot = table.slot(addr);
            let (first, next) = (level.floor(addr), level.next(addr));
            let child = match table.child(mem, slot.get()) {
                Child::Table(child) => child,
                Child::Leaf => {
                    addr = next;
                    continue;
                }
                Child::Empty => {
                    addr = table.skip_empty(addr, end);
                    continue;
                }
            };
            if child.level() > Level::Pte {
                self.free_below(mem, child, (addr, next.min(end)), bounds, release);
            }
            let is_empty = || child.slots(first, next).iter().all(|cell| cell.load(Ordering::Relaxed) == 0);
            let inside = bounds.floor <= first && next <= bounds.ceiling;
            if inside && (bounds.which == Which::All || is_empty()) {
                debug_assert!(is_empty(), "table of {first:#x}..{next:#x} freed in use");
                slot.set(Entry::EMPTY);
                self.tables.fetch_sub(1, Ordering::Relaxed);
                // SAFETY: the table has just been taken out of the tree, with the
                // one reference that the tree had; nobody else can reach it but
                // through what the processors have cached of it.
                release(first, unsafe { OwnedFrame::from_raw(child.pfn(), 0) });
            }
            addr = next;
        }
    }
}

/// A ceiling in terms of what tables map: nothing is above [`TASK_SIZE`].
pub(super) const fn span_ceiling(ceiling: usize) -> usize {
    if ceiling >= TASK_SIZE { USER_END } else { ceiling }
}
