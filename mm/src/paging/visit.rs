//! Going through the entries of a range.

use core::sync::atomic::{AtomicU64, Ordering};

use super::PageTables;
use super::entry::Entry;
use super::table::{Level, Slot, Table};
use super::walk::{FoundPte, Place};
use crate::{Memory, PMD_SIZE, PageRange, Platform};

/// Entries of one table that map adjacent addresses, with the table's lock held:
/// PTEs, or one huge leaf. The first and the last of them are not empty, unless it is
/// said to be [all](Self::whole) of a table.
///
/// What is done to many entries is done in a loop over a run: the loop itself
/// then need not know of addresses and levels.
pub(crate) struct Run<'a> {
    table: Table<'a>,
    cells: &'a [AtomicU64],
    start: usize,
}

impl<'a> Run<'a> {
    /// The run in the entries of `table`, which is locked, that map `addr..end`;
    /// `None` if they are empty.
    #[inline(always)]
    fn new(table: Table<'a>, addr: usize, end: usize) -> Option<Run<'a>> {
        let is_empty = |cell: &AtomicU64| cell.load(Ordering::Relaxed) == 0;
        let level = table.level();
        let (mut cells, mut start) = (table.slots(addr, end), level.floor(addr));
        while let [first, rest @ ..] = cells
            && is_empty(first)
        {
            (cells, start) = (rest, start + level.size());
        }
        while let [rest @ .., last] = cells
            && is_empty(last)
        {
            cells = rest;
        }
        if cells.is_empty() { None } else { Some(Run { table, cells, start }) }
    }

    /// All of `table`, which is locked and maps the addresses from `start` on.
    pub(super) fn whole(table: Table<'a>, start: usize) -> Run<'a> {
        Run { table, cells: table.slots(start, start + PMD_SIZE), start }
    }

    /// The first address that the run maps. For a huge leaf it may be below the
    /// range that is visited.
    pub fn start(&self) -> usize {
        self.start
    }

    /// The address after the last one that the run maps.
    pub fn end(&self) -> usize {
        self.start + self.len() * self.table.level().size()
    }

    /// What the entries are, empty ones included, in ascending order from
    /// [`start`](Self::start) on. For loops that do little with each: by fours, they
    /// spend less on the loop itself.
    #[inline(always)]
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        let (fours, rest) = self.cells.as_chunks::<4>();
        fours.iter().flatten().chain(rest).map(|cell| self.table.as_slot(cell).get())
    }

    /// Whether the run is one huge leaf.
    #[inline(always)]
    pub fn is_huge(&self) -> bool {
        self.table.level() != Level::Pte
    }

    pub(super) fn table(&self) -> &Table<'a> {
        &self.table
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// The entries that are not empty, in ascending order, each with the address
    /// that it maps.
    #[inline(always)]
    pub fn slots(&self) -> impl Iterator<Item = (usize, Slot<'_>)> {
        let used = self.cells.iter().enumerate().filter(|(_, cell)| cell.load(Ordering::Relaxed) != 0);
        let size = self.table.level().size();
        used.map(move |(i, cell)| (self.start + i * size, self.table.as_slot(cell)))
    }
}

impl PageTables {
    /// Calls `f` for every run of entries in `range`, in ascending order. Costs
    /// nothing for what has no tables.
    ///
    /// A huge leaf is visited once, even if only a part of it is in the range.
    #[inline(always)]
    pub fn visit_runs<P: Platform>(&self, mem: &Memory<P>, range: PageRange, mut f: impl FnMut(&Run)) {
        let mut addr = range.start();
        while addr < range.end() {
            addr = match self.find_pte(mem, addr) {
                FoundPte::Table(place) => self.visit_place(mem, place, addr, range.end(), &mut f),
                FoundPte::Hole(table) => table.skip_empty(addr, range.end()),
                FoundPte::Huge(place) => self.visit_huge(mem, place, addr, &mut f),
            };
        }
    }

    #[cold]
    fn visit_huge<P: Platform>(&self, mem: &Memory<P>, place: Place, addr: usize, f: &mut impl FnMut(&Run)) -> usize {
        self.visit_place(mem, place, addr, addr + 1, f)
    }

    /// Visits what of the table at `place` maps `addr..end`. Returns the address
    /// to go on at: `addr` itself if the table turns out to be there no more.
    #[inline(always)]
    fn visit_place<P: Platform>(
        &self,
        mem: &Memory<P>,
        place: Place,
        addr: usize,
        end: usize,
        f: &mut impl FnMut(&Run),
    ) -> usize {
        let end = place.end(addr, end);
        let _lock = place.table.lock(mem);
        if !place.is_current(mem, addr) {
            return addr;
        }
        self.count_visited(place.table.slots(addr, end).len());
        if let Some(run) = Run::new(place.table, addr, end) {
            f(&run);
        }
        end
    }
}
