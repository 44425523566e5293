//! One table page: its level, its entries, its lock.
//!
//! This is the only file of the walk code that makes references out of frame
//! numbers. It rests on an invariant of the whole module: **an entry that
//! refers to a table refers to one of the next lower level, and is removed
//! before that table's page is freed**, so that whoever reads one while the
//! tables below it cannot be freed (see the [module](super)) has a live table
//! in hand.

use core::sync::atomic::{AtomicU64, Ordering};

use super::entry::{Entry, EntryFlags};
use crate::sync::{SpinLockGuard, point, rank};
use crate::{Memory, PAGE_SHIFT, Pfn, PhysAddr, Platform};

/// Entries of a table.
pub(super) const ENTRIES: usize = 512;

/// How far from the bottom a table or an entry is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub(crate) enum Level {
    /// Entries map 4 KiB each.
    Pte = 0,
    /// Entries map 2 MiB each.
    Pmd = 1,
    /// Entries map 1 GiB each.
    Pud = 2,
    /// Entries map 512 GiB each: the root.
    Pgd = 3,
}

impl Level {
    /// Log 2 of the bytes that one entry maps.
    pub const fn shift(self) -> usize {
        PAGE_SHIFT + 9 * self as usize
    }

    /// Bytes that one entry maps.
    pub const fn size(self) -> usize {
        1 << self.shift()
    }

    /// Which entry maps `addr`. User addresses only: entries of the root's
    /// upper half are the kernel's, and no `addr` selects one.
    pub(super) const fn index(self, addr: usize) -> usize {
        let mask = if matches!(self, Level::Pgd) { ENTRIES / 2 - 1 } else { ENTRIES - 1 };
        (addr >> self.shift()) & mask
    }

    /// First address that the entry which maps `addr` maps.
    pub(super) const fn floor(self, addr: usize) -> usize {
        addr & !(self.size() - 1)
    }

    /// First address past what the entry which maps `addr` maps.
    pub(super) const fn next(self, addr: usize) -> usize {
        self.floor(addr) + self.size()
    }

    /// First address past what the table of this level which maps `addr` maps.
    pub(super) const fn table_end(self, addr: usize) -> usize {
        let span = self.size() * ENTRIES;
        (addr & !(span - 1)) + span
    }

    /// The level of the tables that entries of this level refer to.
    pub(super) const fn below(self) -> Level {
        match self {
            Level::Pgd => Level::Pud,
            Level::Pud => Level::Pmd,
            _ => Level::Pte,
        }
    }
}

/// One entry, in place. Changed by hardware too (accessed and dirty bits of a
/// present entry), so a present entry is changed by [`take`](Slot::take) or
/// [`update`](Slot::update), never by `get` and `set`.
#[derive(Clone, Copy)]
pub(crate) struct Slot<'m> {
    cell: &'m AtomicU64,
    level: Level,
}

impl Slot<'_> {
    /// The entry's value.
    #[inline(always)]
    pub fn get(&self) -> Entry {
        point();
        Entry(self.cell.load(Ordering::Acquire))
    }

    /// Replaces an entry that is not present.
    #[inline(always)]
    pub fn set(&self, entry: Entry) {
        point();
        self.cell.store(entry.0, Ordering::Release);
    }

    /// Empties the entry and returns what it was, accessed and dirty bits to
    /// the last moment included.
    #[inline(always)]
    pub fn take(&self) -> Entry {
        self.replace(Entry::EMPTY)
    }

    /// Replaces the entry and returns what it was.
    #[inline(always)]
    pub fn replace(&self, entry: Entry) -> Entry {
        point();
        Entry(self.cell.swap(entry.0, Ordering::AcqRel))
    }

    /// Replaces the entry by `change` of it and loses no accessed or dirty bit
    /// that hardware sets meanwhile. Returns what it was.
    #[inline(always)]
    pub fn update(&self, mut change: impl FnMut(Entry) -> Entry) -> Entry {
        let mut old = self.get();
        while let Err(now) = self.replace_if(old, change(old)) {
            old = now;
        }
        old
    }

    /// Replaces the entry if it is `old`; if not, returns what it is.
    #[inline(always)]
    pub fn replace_if(&self, old: Entry, new: Entry) -> Result<(), Entry> {
        point();
        match self.cell.compare_exchange(old.0, new.0, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(()),
            Err(now) => Err(Entry(now)),
        }
    }

    /// Bytes that the entry maps.
    pub fn size(&self) -> usize {
        self.level.size()
    }
}

/// What an entry holds.
pub(super) enum Child<'m> {
    /// Nothing.
    Empty,
    /// A page, or a swap or migration entry.
    Leaf,
    /// The next lower table.
    Table(Table<'m>),
}

/// A live table page.
#[derive(Clone, Copy)]
pub(super) struct Table<'m> {
    entries: &'m [AtomicU64; ENTRIES],
    addr: PhysAddr,
    level: Level,
}

impl<'m> Table<'m> {
    /// The table at `addr`.
    ///
    /// # Safety
    ///
    /// `addr` is that of a page-table page of `mem`, of that level, which is not
    /// freed as long as the result is used.
    #[inline(always)]
    pub unsafe fn at<P: Platform>(mem: &'m Memory<P>, addr: PhysAddr, level: Level) -> Table<'m> {
        let entries = mem.platform().phys_to_virt(addr).cast::<[AtomicU64; ENTRIES]>();
        // SAFETY: the direct map has the whole page, page aligned; it is a live
        // table page, so everybody accesses it atomically.
        let entries = unsafe { &*entries };
        Table { entries, addr, level }
    }

    pub fn level(&self) -> Level {
        self.level
    }

    pub fn pfn(&self) -> Pfn {
        Pfn::containing(self.addr)
    }

    /// The entry that maps `addr`.
    #[inline(always)]
    pub fn slot(&self, addr: usize) -> Slot<'m> {
        Slot { cell: &self.entries[self.level.index(addr)], level: self.level }
    }

    /// The entries that map `start..end`, which lies within what the table
    /// maps and is not empty.
    #[inline(always)]
    pub fn slots(&self, start: usize, end: usize) -> &'m [AtomicU64] {
        let first = self.level.index(start);
        let last = self.level.index(end - 1);
        self.entries.get(first..=last).unwrap_or(&[])
    }

    /// The entry for `addr` being empty: where the next one that is not starts, or
    /// the end of the table, or `limit`, whichever comes first.
    #[inline(always)]
    pub fn skip_empty(&self, addr: usize, limit: usize) -> usize {
        let next = self.level.next(addr);
        let end = self.level.table_end(addr).min(limit);
        if next >= end { end } else { self.skip_all_empty(next, end) }
    }

    fn skip_all_empty(&self, addr: usize, end: usize) -> usize {
        point();
        let cells = self.slots(addr, end);
        match cells.iter().position(|cell| cell.load(Ordering::Relaxed) != 0) {
            Some(empty) => addr + empty * self.level.size(),
            None => end,
        }
    }

    /// One of [`slots`](Self::slots), as a slot.
    #[inline(always)]
    pub fn as_slot<'s>(&self, cell: &'s AtomicU64) -> Slot<'s> {
        Slot { cell, level: self.level }
    }

    /// What `entry`, which was read from a slot of this table, stands for.
    #[inline(always)]
    pub fn child<P: Platform>(&self, mem: &'m Memory<P>, entry: Entry) -> Child<'m> {
        let kind = entry.0 & (EntryFlags::PRESENT.bits() | EntryFlags::HUGE.bits());
        if self.level != Level::Pte && kind == EntryFlags::PRESENT.bits() {
            // SAFETY: by the module's invariant a present entry above the PTE level
            // without the huge bit refers to a live table of the next level.
            Child::Table(unsafe { Table::at(mem, entry.table_addr(), self.level.below()) })
        } else if entry.is_empty() {
            Child::Empty
        } else {
            Child::Leaf
        }
    }

    /// Locks the table's entries.
    #[inline(always)]
    pub fn lock<P: Platform>(&self, mem: &'m Memory<P>) -> SpinLockGuard<'m, (), { rank::PAGE_TABLE }> {
        mem.frame(self.pfn()).table_lock()
    }

    /// Locks the entries of two tables, which may be the same one. The order
    /// (by frame number) is the same for everybody.
    pub fn lock_both<P: Platform>(&self, other: &Table<'m>, mem: &'m Memory<P>) -> PairGuard<'m> {
        let (first, second) = if self.addr <= other.addr { (self, other) } else { (other, self) };
        let first_guard = first.lock(mem);
        let second_guard = (first.addr != second.addr).then(|| second.lock(mem));
        PairGuard { _second: second_guard, _first: first_guard }
    }
}

/// Both tables' locks, see [`Table::lock_both`].
pub(super) struct PairGuard<'m> {
    _second: Option<SpinLockGuard<'m, (), { rank::PAGE_TABLE }>>,
    _first: SpinLockGuard<'m, (), { rank::PAGE_TABLE }>,
}
