//! Walks: finding the entry that maps an address, and making the tables above it.

use core::ops::Deref;
use core::sync::atomic::Ordering;

use super::table::{Child, Level, Slot, Table};
use super::{Entry, PageTables};
use crate::sync::{SpinLockGuard, rank};
use crate::{Memory, OutOfMemory, Platform};

/// Where a walk from the root ended.
pub(super) enum Found<'m> {
    /// At an empty entry of that table, above the level looked for: nothing below it.
    Hole(Table<'m>),
    /// At the table whose entry is the last of the walk.
    Place(Place<'m>),
}

/// Where a walk from the root to a PTE ended.
pub(super) enum FoundPte<'m> {
    /// At an empty entry of that table: nothing below it.
    Hole(Table<'m>),
    /// At a huge leaf in that table.
    Huge(Place<'m>),
    /// At that PTE table.
    Table(Place<'m>),
}

/// A table that a walk ended at, and the entry through which it was reached.
#[derive(Clone, Copy)]
pub(super) struct Place<'m> {
    pub table: Table<'m>,
    link: Option<(Slot<'m>, Entry)>,
}

impl<'m> Place<'m> {
    fn top(table: Table<'m>) -> Place<'m> {
        Place { table, link: None }
    }

    /// The table that the entry for `addr` refers to; if it refers to none, the
    /// walk has come to its end.
    #[inline(always)]
    fn below<P: Platform>(self, mem: &'m Memory<P>, addr: usize) -> Result<Place<'m>, FoundPte<'m>> {
        let slot = self.table.slot(addr);
        let entry = slot.get();
        match self.table.child(mem, entry) {
            Child::Table(table) => Ok(Place { table, link: Some((slot, entry)) }),
            Child::Empty => Err(FoundPte::Hole(self.table)),
            Child::Leaf => Err(FoundPte::Huge(self)),
        }
    }

    /// Whether the table is where it was found. To be asked with its lock held.
    #[inline(always)]
    pub(super) fn is_linked(&self) -> bool {
        // Hardware sets the accessed bit of entries that refer to tables, but
        // those are made with it set.
        self.link.is_none_or(|(slot, entry)| slot.get() == entry)
    }

    /// Where a walk that is at `addr` and goes to `limit` has to leave the
    /// table: at the table's end, or after the huge leaf.
    #[inline(always)]
    pub(super) fn end(&self, addr: usize, limit: usize) -> usize {
        match self.table.level() {
            Level::Pte => Level::Pte.table_end(addr).min(limit),
            level => level.next(addr),
        }
    }

    /// Whether a walk to `addr` still ends here: the table is where it was found,
    /// and if it is above the PTE level its entry is still a leaf. To be asked
    /// with the table's lock held, before anything is done to the entry.
    #[inline(always)]
    pub(super) fn is_current<P: Platform>(&self, mem: &Memory<P>, addr: usize) -> bool {
        let table = &self.table;
        self.is_linked()
            && (table.level() == Level::Pte || matches!(table.child(mem, table.slot(addr).get()), Child::Leaf))
    }
}

/// A leaf's entry (or an empty PTE), locked.
pub(crate) struct PteGuard<'m> {
    slot: Slot<'m>,
    _lock: SpinLockGuard<'m, (), { rank::PAGE_TABLE }>,
}

impl<'m> Deref for PteGuard<'m> {
    type Target = Slot<'m>;

    fn deref(&self) -> &Slot<'m> {
        &self.slot
    }
}

/// What a walk to an address came to. No lock keeps it so; but while no table
/// there can go (see the [module](super)) it can be locked without another walk.
pub(crate) struct Glance<'m> {
    addr: usize,
    entry: Entry,
    place: Option<Place<'m>>,
}

impl Glance<'_> {
    /// The entry that maps the address, of whatever size ([`Entry::is_huge`]), or
    /// the swap or migration entry in its place.
    #[inline(always)]
    pub fn entry(&self) -> Entry {
        self.entry
    }

    /// Whether there was not even a table for the entry.
    #[inline(always)]
    pub fn is_hole(&self) -> bool {
        self.place.is_none()
    }
}

impl PageTables {
    /// Looks at the entry that maps `addr`.
    #[inline(always)]
    pub fn glance<'m, P: Platform>(&self, mem: &'m Memory<P>, addr: usize) -> Glance<'m> {
        let place = match self.find_pte(mem, addr) {
            FoundPte::Hole(_) => return Glance { addr, entry: Entry::EMPTY, place: None },
            FoundPte::Huge(place) | FoundPte::Table(place) => place,
        };
        Glance { addr, entry: place.table.slot(addr).get(), place: Some(place) }
    }

    /// The entry that maps `addr`, or the swap or migration entry in its place.
    /// As of now: no lock keeps it so.
    pub fn lookup<P: Platform>(&self, mem: &Memory<P>, addr: usize) -> Option<Entry> {
        let entry = self.glance(mem, addr).entry();
        (!entry.is_empty()).then_some(entry)
    }

    /// Locks the entry that maps the address of a glance, or the empty PTE that
    /// would. `None` if there is no table for it. If a huge leaf maps the address,
    /// that is what the guard is for, as its [`size`](Slot::size) tells.
    #[inline(always)]
    pub fn lock_seen<'m, P: Platform>(&self, mem: &'m Memory<P>, seen: Glance<'m>) -> Option<PteGuard<'m>> {
        match seen.place.and_then(|place| lock_place(mem, place, seen.addr)) {
            None => self.lock_pte(mem, seen.addr),
            locked => locked,
        }
    }

    /// Like [`lock_seen`](Self::lock_seen), and makes the tables that are missing.
    #[inline(always)]
    pub fn lock_seen_alloc<'m, P: Platform>(
        &self,
        mem: &'m Memory<P>,
        seen: Glance<'m>,
    ) -> Result<PteGuard<'m>, OutOfMemory> {
        match seen.place.and_then(|place| lock_place(mem, place, seen.addr)) {
            None => self.lock_pte_alloc(mem, seen.addr),
            Some(locked) => Ok(locked),
        }
    }

    /// Locks the entry that maps `addr`; see [`lock_seen`](Self::lock_seen).
    pub fn lock_pte<'m, P: Platform>(&self, mem: &'m Memory<P>, addr: usize) -> Option<PteGuard<'m>> {
        loop {
            let Found::Place(place) = self.find(mem, addr, Level::Pte) else {
                return None;
            };
            if let Some(guard) = lock_place(mem, place, addr) {
                return Some(guard);
            }
        }
    }

    /// Like [`lock_pte`](Self::lock_pte), and makes the tables that are missing.
    pub fn lock_pte_alloc<'m, P: Platform>(
        &self,
        mem: &'m Memory<P>,
        addr: usize,
    ) -> Result<PteGuard<'m>, OutOfMemory> {
        loop {
            let place = self.make(mem, addr, Level::Pte)?;
            if let Some(guard) = lock_place(mem, place, addr) {
                return Ok(guard);
            }
        }
    }

    /// [`find`](Self::find) down to the PTE tables, where nearly all walks go. That
    /// each level is known when this is compiled makes them half as long.
    #[inline(always)]
    pub(super) fn find_pte<'m, P: Platform>(&self, mem: &'m Memory<P>, addr: usize) -> FoundPte<'m> {
        self.count_visited(3);
        let puds = match Place::top(self.top(mem)).below(mem, addr) {
            Ok(place) => place,
            Err(end) => return end,
        };
        let pmds = match puds.below(mem, addr) {
            Ok(place) => place,
            Err(end) => return end,
        };
        match pmds.below(mem, addr) {
            Ok(place) => FoundPte::Table(place),
            Err(end) => end,
        }
    }

    /// Walks towards the table of level `lowest` that maps `addr`. Ends there,
    /// or above it at a leaf or at an empty entry.
    #[inline]
    pub(super) fn find<'m, P: Platform>(&self, mem: &'m Memory<P>, addr: usize, lowest: Level) -> Found<'m> {
        let mut place = Place::top(self.top(mem));
        while place.table.level() > lowest {
            self.count_visited(1);
            let slot = place.table.slot(addr);
            let entry = slot.get();
            match place.table.child(mem, entry) {
                Child::Empty => return Found::Hole(place.table),
                Child::Leaf => break,
                Child::Table(table) => place = Place { table, link: Some((slot, entry)) },
            }
        }
        Found::Place(place)
    }

    /// Like [`find`](Self::find), and makes the tables that are missing.
    #[inline]
    pub(super) fn make<'m, P: Platform>(
        &self,
        mem: &'m Memory<P>,
        addr: usize,
        lowest: Level,
    ) -> Result<Place<'m>, OutOfMemory> {
        loop {
            match self.find(mem, addr, lowest) {
                Found::Place(place) => return Ok(place),
                Found::Hole(_) => self.make_missing(mem, addr, lowest)?,
            }
        }
    }

    /// Makes the first table that is missing on the way to the table of level
    /// `lowest` that maps `addr`, and those below it.
    #[cold]
    fn make_missing<P: Platform>(&self, mem: &Memory<P>, addr: usize, lowest: Level) -> Result<(), OutOfMemory> {
        let mut table = self.top(mem);
        while table.level() > lowest {
            let slot = table.slot(addr);
            if slot.get().is_empty() {
                let page = mem.alloc_table()?;
                if slot.replace_if(Entry::EMPTY, Entry::table(page.pfn())).is_ok() {
                    page.into_raw();
                    self.tables.fetch_add(1, Ordering::Relaxed);
                } else {
                    // Somebody else was faster.
                    mem.free_table(page);
                }
            }
            match table.child(mem, slot.get()) {
                Child::Table(below) => table = below,
                Child::Empty | Child::Leaf => break,
            }
        }
        Ok(())
    }
}

/// Locks `place` and returns its entry for `addr`, unless the walk has to be
/// done again because the table is not there any more, or the entry, which was
/// a huge leaf, refers to a table by now.
#[inline(always)]
fn lock_place<'m, P: Platform>(mem: &'m Memory<P>, place: Place<'m>, addr: usize) -> Option<PteGuard<'m>> {
    let lock = place.table.lock(mem);
    place.is_current(mem, addr).then(|| PteGuard { slot: place.table.slot(addr), _lock: lock })
}
