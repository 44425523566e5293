//! Adjacent entries of one table, filled together.

use core::sync::atomic::Ordering;

use super::PageTables;
use super::entry::{Entry, EntryFlags};
use super::table::Level;
use super::walk::FoundPte;
use crate::{Memory, OutOfMemory, PageRange, Pfn, Platform};

impl PageTables {
    /// Whether nothing is mapped in `range`, which one table maps. As of now: no lock keeps it so.
    pub fn is_vacant<P: Platform>(&self, mem: &Memory<P>, range: PageRange) -> bool {
        match self.find_pte(mem, range.start()) {
            FoundPte::Hole(_) => true,
            FoundPte::Huge(_) => false,
            FoundPte::Table(place) => {
                let cells = place.table.slots(range.start(), range.end());
                cells.iter().all(|cell| cell.load(Ordering::Relaxed) == 0)
            }
        }
    }

    /// Has the entries of `range`, which one table has, map the frames from `first` on, if nothing is
    /// mapped there. Says whether it has.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] when there is no frame for a table.
    pub fn install_adjacent<P: Platform>(
        &self,
        mem: &Memory<P>,
        range: PageRange,
        first: Pfn,
        flags: EntryFlags,
    ) -> Result<bool, OutOfMemory> {
        loop {
            let place = self.make(mem, range.start(), Level::Pte)?;
            let table = place.table;
            let _lock = table.lock(mem);
            if !place.is_current(mem, range.start()) {
                continue;
            }
            if table.level() != Level::Pte {
                return Ok(false);
            }
            let slots = || table.slots(range.start(), range.end()).iter().map(|cell| table.as_slot(cell));
            if slots().any(|slot| !slot.get().is_empty()) {
                return Ok(false);
            }
            for (slot, pfn) in slots().zip(first.0..) {
                slot.set(Entry::leaf(Pfn(pfn), flags));
            }
            return Ok(true);
        }
    }
}
