//! Moving mappings to other addresses, by the largest unit that fits.
//!
//! Where source and destination are congruent, the entry that refers to a whole
//! table moves, and with it all that the table maps:
//!
//! ```text
//!          2 MiB     2 MiB     2 MiB
//!   old ┊    ▒▒▒▒┊▒▒▒▒▒▒▒▒▒┊▒▒       ┊      ▒ the range that moves
//!            ╲       │       ╱
//!             by the rules below: PTEs or a table, a table, PTEs or a table
//!            ╱       │       ╲
//!   new ┊    ▒▒▒▒┊▒▒▒▒▒▒▒▒▒┊▒▒       ┊
//! ```
//!
//! - A PUD or PMD entry moves if all it maps, at the old address and at the new
//!   one, is inside the *room*: the range itself, and around it what the caller
//!   says is not mapped. So if there is room, the ends of the range need not be
//!   aligned ([`TableMove::with_room`]).
//! - Everything else moves by PTEs, a table's worth at a time.
//!
//! The destination's entry may refer to a PTE table too, one that has been left
//! behind empty: then the two entries change places.
//!
//! All destination tables are made by [`move_prepare`](PageTables::move_prepare);
//! after that [`move_commit`](PageTables::move_commit) cannot fail. Moving back is
//! just another move.

use core::sync::atomic::Ordering;

use super::free::span_ceiling;
use super::table::{Child, Level, Table};
use super::walk::{Found, FoundPte, Place};
use super::{Entry, PageTables};
use crate::{Event, Memory, OutOfMemory, PageRange, Platform};

/// A move of the leaves of a range to another address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableMove {
    pub(super) old: PageRange,
    pub(super) new: PageRange,
    /// Nothing but `old` is mapped between these.
    pub(super) old_room: (usize, usize),
    /// Nothing but `new` is mapped between these.
    pub(super) new_room: (usize, usize),
    /// Entries of higher levels do not move as a whole, wherever they are: their
    /// spans at the old and the new address do not correspond.
    highest: Level,
}

impl TableMove {
    /// Moves `old` to `new`, which has the same length. What is mapped there
    /// goes between the move's preparation and its commit; the tables stay.
    ///
    /// The two may overlap if `new` is the lower one (a stack that is shifted
    /// down by exec): then PTEs are moved, in ascending order. `None` if they
    /// overlap otherwise or the lengths differ.
    pub fn new(old: PageRange, new: PageRange) -> Option<TableMove> {
        if old.len() != new.len() || (old.overlaps(new) && new.start() >= old.start()) {
            return None;
        }
        let distance = old.start().abs_diff(new.start());
        let fits = |level: &Level| !old.overlaps(new) && distance.is_multiple_of(level.size());
        let highest = [Level::Pud, Level::Pmd].into_iter().find(fits).unwrap_or(Level::Pte);
        Some(TableMove { old, new, old_room: (old.start(), old.end()), new_room: (new.start(), new.end()), highest })
    }

    /// Says that besides the ranges themselves nothing is mapped between
    /// `floor` and `ceiling` around the old one, and likewise around the new
    /// one, so that whole tables can be moved at their ends.
    pub fn with_room(self, old: (usize, usize), new: (usize, usize)) -> TableMove {
        let room = |range: PageRange, (floor, ceiling): (usize, usize)| {
            (floor.min(range.start()), span_ceiling(ceiling.max(range.end())))
        };
        TableMove { old_room: room(self.old, old), new_room: room(self.new, new), ..self }
    }

    /// Whether the entry of that level which maps the old address `addr` moves
    /// as a whole.
    #[inline(always)]
    pub(super) fn moves_whole(&self, addr: usize, level: Level) -> bool {
        level == Level::Pte || (level <= self.highest && self.has_room_for(addr, level))
    }

    /// Whether all that the entry maps is inside the room, here and there.
    fn has_room_for(&self, addr: usize, level: Level) -> bool {
        let (first, next) = (level.floor(addr), level.next(addr));
        let (to_first, to_next) = (self.new_addr(first), self.new_addr(next));
        self.old_room.0 <= first && next <= self.old_room.1 && self.new_room.0 <= to_first && to_next <= self.new_room.1
    }

    /// Where `addr` goes. Wraps for addresses outside the room.
    #[inline(always)]
    fn new_addr(&self, addr: usize) -> usize {
        addr.wrapping_sub(self.old.start()).wrapping_add(self.new.start())
    }
}

/// The next thing to do in a move, from some old address on.
enum Step<'m> {
    /// Nothing is mapped up to there.
    Skip(usize),
    /// Entries of `table` move, from the current address on up to `end`; where
    /// they go is in one table, too.
    Run { table: Table<'m>, end: usize },
    /// A huge leaf has to be split first.
    Split,
}

impl PageTables {
    /// Makes the tables that `mv` needs at the destination, and splits huge
    /// leaves that it does not move as a whole.
    ///
    /// The caller holds the mmap lock in write mode, and keeps faults out of
    /// both ranges from here until [`move_commit`](Self::move_commit) or
    /// [`move_abort`](Self::move_abort).
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`]: nothing has been moved, and the tables made so far are
    /// freed again, except those that map something outside the room as well.
    pub fn move_prepare<P: Platform>(&self, mem: &Memory<P>, mv: &TableMove) -> Result<(), OutOfMemory> {
        let result = self.move_prepare_all(mem, mv);
        if result.is_err() {
            self.move_abort(mem, mv);
        }
        result
    }

    /// Frees what [`move_prepare`](Self::move_prepare) made, for a move that does
    /// not happen: all tables in the way of the destination that are empty and
    /// map nothing outside its room. The caller keeps rmap walks out of there.
    pub fn move_abort<P: Platform>(&self, mem: &Memory<P>, mv: &TableMove) {
        self.free_empty_tables(mem, mv.new, mv.new_room);
    }

    fn move_prepare_all<P: Platform>(&self, mem: &Memory<P>, mv: &TableMove) -> Result<(), OutOfMemory> {
        let mut addr = mv.old.start();
        while addr < mv.old.end() {
            match self.next_step(mem, mv, addr) {
                Step::Skip(next) => addr = next,
                Step::Split => self.split_leaf(mem, addr),
                Step::Run { table, end } => {
                    let cells = table.slots(addr, end);
                    if cells.iter().any(|cell| cell.load(Ordering::Relaxed) != 0) {
                        let (target, level) = (mv.new_addr(addr), table.level());
                        if self.make(mem, target, level)?.table.level() > level {
                            // A huge leaf is in the way that is still to go.
                            self.split_leaf(mem, target);
                        }
                    }
                    addr = end;
                }
            }
        }
        Ok(())
    }

    /// Moves what is mapped. The TLBs of the source range have been flushed
    /// when it returns, and before that nobody can lock a moved entry.
    ///
    /// Since [`move_prepare`](Self::move_prepare) nothing has been mapped in either
    /// range, and whatever was mapped in the new one is not any more. The
    /// caller keeps rmap walks away from both: they would miss for a moment
    /// what is below an entry that moves as a whole.
    pub fn move_commit<P: Platform>(&self, mem: &Memory<P>, mv: &TableMove) {
        let mut addr = mv.old.start();
        while addr < mv.old.end() {
            match self.next_step(mem, mv, addr) {
                Step::Skip(next) => addr = next,
                Step::Split => {
                    debug_assert!(false, "huge leaf at {addr:#x} was not split");
                    addr = Level::Pmd.next(addr);
                }
                Step::Run { table, end } => {
                    // Where prepare made no table there was nothing to move.
                    if let Found::Place(Place { table: to, .. }) = self.find(mem, mv.new_addr(addr), table.level())
                        && to.level() == table.level()
                    {
                        self.move_run(mem, mv, addr, end, table, to);
                    }
                    addr = end;
                }
            }
        }
        // Entries that name swap slots alone would move without a flush.
        self.flush_stale(mem, Event::FlushMove);
    }

    /// Finds the largest unit in which what is at `addr` moves.
    #[inline(always)]
    fn next_step<'m, P: Platform>(&self, mem: &'m Memory<P>, mv: &TableMove, addr: usize) -> Step<'m> {
        if mv.highest > Level::Pte {
            return self.next_large_step(mem, mv, addr);
        }
        match self.find_pte(mem, addr) {
            FoundPte::Hole(table) => Step::Skip(table.level().next(addr)),
            FoundPte::Huge(_) => Step::Split,
            FoundPte::Table(Place { table, .. }) => Step::Run { table, end: run_end(mv, addr, table) },
        }
    }

    fn next_large_step<'m, P: Platform>(&self, mem: &'m Memory<P>, mv: &TableMove, addr: usize) -> Step<'m> {
        let mut table = self.top(mem);
        loop {
            self.count_visited(1);
            let level = table.level();
            match table.child(mem, table.slot(addr).get()) {
                Child::Empty => return Step::Skip(level.next(addr)),
                Child::Leaf => return Step::Split,
                Child::Table(below) => table = below,
            }
            if mv.moves_whole(addr, table.level()) && self.can_exchange(mem, mv, addr, table.level()) {
                return Step::Run { table, end: run_end(mv, addr, table) };
            }
        }
    }

    /// Whether the entry of that level that maps `addr` may change places with
    /// its target. A PTE table that was left behind there is empty and goes
    /// with the source. A PMD table may have PTE tables, anywhere in its span:
    /// where the source has no VMA, nobody would free them.
    fn can_exchange<P: Platform>(&self, mem: &Memory<P>, mv: &TableMove, addr: usize, level: Level) -> bool {
        if level < Level::Pud {
            return true;
        }
        let new_addr = mv.new_addr(addr);
        match self.find(mem, new_addr, level) {
            Found::Hole(_) => true,
            Found::Place(place) => place.table.slot(new_addr).get().is_empty(),
        }
    }

    /// Moves the entries of `from` that map `addr..end` to `to`.
    fn move_run<P: Platform>(&self, mem: &Memory<P>, mv: &TableMove, addr: usize, end: usize, from: Table, to: Table) {
        let (new_addr, new_end) = (mv.new_addr(addr), mv.new_addr(end));
        let sources = from.slots(addr, end);
        let targets = to.slots(new_addr, new_end);
        debug_assert_eq!(sources.len(), targets.len());
        self.count_visited(sources.len());

        let _locks = from.lock_both(&to, mem);
        if from.level() == Level::Pte {
            // What is in the entries, all in one: of interest is if one is present.
            let mut all = 0;
            for (source, target) in sources.iter().zip(targets) {
                if source.load(Ordering::Relaxed) == 0 {
                    continue;
                }
                // Ascending, and each one before the next: where the ranges
                // overlap, a target has been a source before.
                let entry = from.as_slot(source).take();
                debug_assert!(to.as_slot(target).get().is_empty(), "move onto a page");
                to.as_slot(target).set(entry);
                all |= entry.0;
            }
            if Entry(all).is_present() {
                self.flush(mem, addr, end, Event::FlushMove);
            }
        } else {
            let (mut moved, mut displaced) = (false, false);
            for (source, target) in sources.iter().zip(targets) {
                let source = from.as_slot(source);
                if source.get().is_empty() {
                    continue;
                }
                if source.get().is_huge() {
                    from.move_spare(mem, &to);
                }
                let left_behind = to.as_slot(target).replace(source.take());
                source.set(left_behind);
                moved = true;
                displaced |= !left_behind.is_empty();
            }
            if moved {
                self.flush(mem, addr, end, Event::FlushMove);
            }
            // Nothing is mapped there, but the way to it may be cached.
            if displaced {
                self.flush(mem, new_addr, new_end, Event::FlushMove);
            }
        }
    }
}

/// How far from `addr` on entries of `table` move one by one, to one table.
fn run_end(mv: &TableMove, addr: usize, table: Table) -> usize {
    let level = table.level();
    let new_addr = mv.new_addr(addr);
    let target_room = level.table_end(new_addr) - new_addr;
    let limit = level.table_end(addr).min(addr + target_room).min(mv.old.end());
    if level == Level::Pte {
        return limit;
    }
    let mut end = level.next(addr);
    // Each PUD entry is looked at on its own, see `can_exchange`.
    while level == Level::Pmd && end < limit && mv.moves_whole(end, level) {
        end = level.next(end);
    }
    end.min(limit)
}
