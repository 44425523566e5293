//! Huge leaves: entries of a PMD table that map 2 MiB.
//!
//! A huge leaf is short for 512 PTEs that map adjacent frames in the same way. Each of
//! the frames has a record and counters of its own, which do not tell how it is mapped.
//! So at any time a leaf can be [split](PageTables::split_leaf) into the PTEs that it is short
//! for, whoever else maps the same frames; and nobody but who changes entries need know
//! of huge leaves.
//!
//! Splitting takes a page table and must not fail: it is done by what cannot fail any
//! more, and by reclaim, when there is no memory. So with each huge leaf goes a spare
//! table, as on Linux (`pgtable_trans_huge_deposit`). The spare tables of all leaves of a
//! PMD table hang from its frame's record, and are guarded by its lock. They count as
//! tables of the address space.

use core::sync::atomic::Ordering;

use super::PageTables;
use super::entry::{Entry, EntryFlags};
use super::table::{Child, ENTRIES, Level, Slot, Table};
use super::visit::Run;
use super::walk::{Found, FoundPte, Place};
use crate::{Event, Memory, OutOfMemory, OwnedFrame, PMD_SIZE, PageRange, Pfn, Platform};

/// Log 2 of the number of frames that a huge leaf maps.
pub(crate) const HUGE_ORDER: u8 = 9;
/// That number.
pub(crate) const HUGE_PAGES: usize = 1 << HUGE_ORDER;

impl Table<'_> {
    /// Sets a table page aside for a huge leaf of this table, which is locked.
    pub(super) fn add_spare<P: Platform>(&self, mem: &Memory<P>, page: OwnedFrame) {
        let (own, pfn) = (mem.frame(self.pfn()), page.into_raw());
        mem.frame(pfn).set_index(own.index());
        own.set_index(pfn.0);
    }

    /// Takes one of the tables that were set aside: the table is locked, and has a huge
    /// leaf less than it had.
    pub(super) fn take_spare<P: Platform>(&self, mem: &Memory<P>) -> Option<OwnedFrame> {
        let own = mem.frame(self.pfn());
        // Frame 0 is never given out.
        let pfn = Some(Pfn(own.index())).filter(|pfn| pfn.0 != 0);
        debug_assert!(pfn.is_some(), "a huge leaf without a spare table");
        let record = mem.frame(pfn?);
        own.set_index(record.index());
        record.set_index(0);
        // SAFETY: `add_spare` took the page from its owner, and it has just left the
        // list, which was the only place that knew of it.
        pfn.map(|pfn| unsafe { OwnedFrame::from_raw(pfn, 0) })
    }

    /// One of the tables that were set aside goes along with a huge leaf that moves to
    /// another table. Both are locked.
    #[cold]
    #[inline(never)]
    pub(super) fn move_spare<P: Platform>(&self, mem: &Memory<P>, to: &Table<'_>) {
        if let Some(spare) = self.take_spare(mem) {
            to.add_spare(mem, spare);
        }
    }

    /// How many tables are set aside.
    pub(super) fn count_spares<P: Platform>(&self, mem: &Memory<P>) -> usize {
        let next = |pfn: &Pfn| Some(Pfn(mem.frame(*pfn).index())).filter(|pfn| pfn.0 != 0);
        core::iter::successors(next(&self.pfn()), next).count()
    }
}

impl PageTables {
    /// How many huge leaves there are.
    #[inline(always)]
    pub fn huge_leaves(&self) -> usize {
        self.huge.load(Ordering::Relaxed)
    }

    /// Puts a huge leaf where nothing is, with `spare`, a table page that is empty, to be
    /// split with. Says whether it has: something may be there by now.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] when there is no frame for a table above it.
    pub fn install_huge<P: Platform>(
        &self,
        mem: &Memory<P>,
        addr: usize,
        leaf: Entry,
        spare: OwnedFrame,
    ) -> Result<bool, OutOfMemory> {
        let place = match self.make(mem, addr, Level::Pmd) {
            Ok(place) => place,
            Err(error) => {
                mem.free_table(spare);
                return Err(error);
            }
        };
        let table = place.table;
        let _lock = table.lock(mem);
        // Tables appear without the lock.
        if !place.is_linked() || table.slot(addr).replace_if(Entry::EMPTY, leaf).is_err() {
            mem.free_table(spare);
            return Ok(false);
        }
        self.count_huge(&table, mem, spare);
        Ok(true)
    }

    /// There is, or will be, one more huge leaf in `table`, which is locked.
    pub(super) fn count_huge<P: Platform>(&self, table: &Table<'_>, mem: &Memory<P>, spare: OwnedFrame) {
        table.add_spare(mem, spare);
        self.tables.fetch_add(1, Ordering::Relaxed);
        self.count_leaf(mem);
    }

    fn count_leaf<P: Platform>(&self, mem: &Memory<P>) {
        self.huge.fetch_add(1, Ordering::Relaxed);
        mem.huge_leaves.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn uncount_leaf<P: Platform>(&self, mem: &Memory<P>) {
        self.huge.fetch_sub(1, Ordering::Relaxed);
        mem.huge_leaves.fetch_sub(1, Ordering::Relaxed);
    }

    /// Empties the huge leaf that `run` consists of, and returns what it was.
    pub fn take_huge<P: Platform>(&self, mem: &Memory<P>, run: &Run<'_>) -> Entry {
        let entry = run.slots().next().map_or(Entry::EMPTY, |(_, slot)| slot.take());
        if let Some(spare) = run.table().take_spare(mem) {
            mem.free_table(spare);
            self.tables.fetch_sub(1, Ordering::Relaxed);
        }
        self.uncount_leaf(mem);
        entry
    }

    /// Replaces the PTE table that maps the 2 MiB from `addr` on by a huge leaf, the one
    /// that `replace` returns, if it does: it is given all entries of the table at a time
    /// when nobody can use them, and has emptied them then. Says whether there was a
    /// table and it did.
    ///
    /// The caller holds the mmap lock in write mode, and keeps faults and rmap walks out.
    pub fn collapse<P: Platform>(
        &self,
        mem: &Memory<P>,
        addr: usize,
        replace: impl FnOnce(&Run) -> Option<Entry>,
    ) -> bool {
        let Found::Place(Place { table: above, .. }) = self.find(mem, addr, Level::Pmd) else { return false };
        let slot = above.slot(addr);
        let Child::Table(table) = above.child(mem, slot.get()) else { return false };
        let take = || {
            let _lock = above.lock(mem);
            slot.take()
        };
        let link = take();
        self.flush(mem, addr, addr + PMD_SIZE, Event::FlushCollapse);
        let leaf = {
            let _lock = table.lock(mem);
            replace(&Run::whole(table, addr))
        };
        let _lock = above.lock(mem);
        match leaf {
            None => slot.set(link),
            Some(leaf) => {
                slot.set(leaf);
                // SAFETY: the table has been taken out of the tree, with the one reference
                // that the tree had, and the flush made the processors forget it.
                above.add_spare(mem, unsafe { OwnedFrame::from_raw(table.pfn(), 0) });
                self.count_leaf(mem);
            }
        }
        leaf.is_some()
    }

    /// Splits the huge leaves that have one of the range's ends in their middle.
    #[inline(always)]
    pub fn split_ends<P: Platform>(&self, mem: &Memory<P>, range: PageRange) {
        if self.huge_leaves() != 0 {
            self.split(mem, range.start());
            self.split(mem, range.end());
        }
    }

    /// Splits all huge leaves that have a page of the range.
    pub fn split_all<P: Platform>(&self, mem: &Memory<P>, range: PageRange) {
        for addr in (Level::Pmd.floor(range.start())..range.end()).step_by(PMD_SIZE) {
            self.split_leaf(mem, addr);
        }
    }

    /// Splits the huge leaf that has `addr` in its middle, if there is one.
    fn split<P: Platform>(&self, mem: &Memory<P>, addr: usize) {
        if !addr.is_multiple_of(PMD_SIZE) {
            self.split_leaf(mem, addr);
        }
    }

    /// Replaces the huge leaf that maps `addr`, if there is one, by a table of PTEs that
    /// map the same frames in the same way.
    ///
    /// The tables must be kept from being freed or moved, as for any walk; nothing else
    /// needs to be locked.
    #[cold]
    pub fn split_leaf<P: Platform>(&self, mem: &Memory<P>, addr: usize) {
        if self.huge_leaves() == 0 {
            return;
        }
        while let FoundPte::Huge(place) = self.find_pte(mem, addr) {
            let _lock = place.table.lock(mem);
            if !place.is_current(mem, addr) {
                continue;
            }
            let Some(page) = place.table.take_spare(mem) else { return };
            install_split(mem, place.table.slot(addr), page);
            self.uncount_leaf(mem);
            mem.count(Event::HugeSplit);
            // Some processors must not see both sizes at once.
            let start = Level::Pmd.floor(addr);
            self.flush(mem, start, start + PMD_SIZE, Event::FlushSplit);
        }
    }
}

/// Fills `page` with the parts of the leaf in `slot` and puts it there.
fn install_split<P: Platform>(mem: &Memory<P>, slot: Slot, page: OwnedFrame) {
    let page = page.into_raw();
    // SAFETY: the page is ours, and becomes a table of that level.
    let table = unsafe { Table::at(mem, page.addr(), Level::Pte) };
    let mut leaf = slot.get();
    loop {
        for (i, cell) in table.slots(0, PMD_SIZE).iter().enumerate() {
            cell.store(leaf.part(i).0, Ordering::Relaxed);
        }
        match slot.replace_if(leaf, Entry::table(page)) {
            Ok(()) => break,
            // Hardware has just set a bit.
            Err(now) => leaf = now,
        }
    }
}

impl Entry {
    /// The PTE that a huge leaf has in the `i`-th place of what it is short for.
    pub const fn part(self, i: usize) -> Entry {
        debug_assert!(i < ENTRIES);
        self.with_pfn(Pfn(self.pfn().0 + i)).without(EntryFlags::HUGE)
    }

    /// The PTE for `addr` of this leaf, which maps it: itself, or a part of a huge one.
    pub const fn pte_for(self, addr: usize) -> Entry {
        if self.is_huge() { self.part(Level::Pte.index(addr)) } else { self }
    }

    /// The frame that this leaf maps at `addr`.
    pub const fn pfn_for(self, addr: usize) -> Pfn {
        self.pte_for(addr).pfn()
    }

    /// The frames that this leaf maps.
    pub fn pfns(self) -> impl Iterator<Item = Pfn> + Clone {
        let first = self.pfn().0;
        let count = if self.is_huge() { ENTRIES } else { 1 };
        (first..first + count).map(Pfn)
    }
}
