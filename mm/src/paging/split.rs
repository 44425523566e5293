//! Splitting a huge leaf into a table of smaller ones.

use core::sync::atomic::Ordering;

use super::PageTables;
use super::entry::{Entry, EntryFlags};
use super::table::{Child, Level, Slot, Table};
use super::walk::Found;
use crate::{Event, Memory, OutOfMemory, OwnedFrame, Pfn, Platform};

impl PageTables {
    /// Replaces the huge leaf that maps `addr`, if there is one, by a table of
    /// leaves that map the same frames in the same way, and goes on until PTEs
    /// map `addr`. Counters of frames are the caller's business.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] when there is no frame for a table. All is mapped as
    /// before, perhaps by smaller leaves.
    pub fn split<P: Platform>(&self, mem: &Memory<P>, addr: usize) -> Result<(), OutOfMemory> {
        while let Found::Place(place) = self.find(mem, addr, Level::Pte)
            && place.table.level() > Level::Pte
        {
            let page = mem.alloc_table()?;
            let level = place.table.level();
            let slot = place.table.slot(addr);
            let lock = place.table.lock(mem);
            if matches!(place.table.child(mem, slot.get()), Child::Leaf) {
                self.install_split(mem, slot, page);
                let start = level.floor(addr);
                // Some processors must not see both sizes at once.
                self.flush(mem, start, start + level.size(), Event::FlushSplit);
            } else {
                mem.free_table(page);
            }
            drop(lock);
        }
        Ok(())
    }

    /// Fills `page` with the parts of the leaf in `slot` and puts it there.
    fn install_split<P: Platform>(&self, mem: &Memory<P>, slot: Slot, page: OwnedFrame) {
        let below = slot.level().below();
        // SAFETY: the page is ours, zeroed, and becomes a table of that level.
        let table = unsafe { Table::at(mem, page.pfn().addr(), below) };
        let mut leaf = slot.get();
        loop {
            let step = below.size() >> Level::Pte.shift();
            for (i, cell) in table.slots(0, slot.size()).iter().enumerate() {
                cell.store(part_of(leaf, below, i * step).0, Ordering::Relaxed);
            }
            match slot.replace_if(leaf, Entry::table(page.pfn())) {
                Ok(()) => break,
                // Hardware has just set a bit.
                Err(now) => leaf = now,
            }
        }
        page.into_raw();
        self.tables.fetch_add(1, Ordering::Relaxed);
    }
}

/// The leaf of a lower level that maps what the huge leaf `whole` maps
/// `offset` frames from its start.
fn part_of(whole: Entry, level: Level, offset: usize) -> Entry {
    let part = whole.with_pfn(Pfn(whole.pfn().0 + offset));
    match level {
        Level::Pte => part.without(EntryFlags::HUGE),
        _ => part,
    }
}
