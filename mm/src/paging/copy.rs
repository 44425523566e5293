//! Going through the entries of two address spaces side by side, for `fork`.

use core::sync::atomic::{AtomicU64, Ordering};

use super::PageTables;
use super::table::{Level, Slot, Table};
use super::walk::Found;
use crate::{Memory, OutOfMemory, PageRange, Platform};

/// Entries of two tables that map the same adjacent addresses, with the locks of
/// both tables held: PTEs, or one huge leaf and the place for its copy.
pub(crate) struct RunPair<'a> {
    table: Table<'a>,
    cells: &'a [AtomicU64],
    other_cells: &'a [AtomicU64],
    start: usize,
}

impl RunPair<'_> {
    /// The first address that the entries map.
    pub fn start(&self) -> usize {
        self.start
    }

    /// The address after the last one that the entries map.
    pub fn end(&self) -> usize {
        self.start + self.cells.len() * self.table.level().size()
    }

    /// Whether it is a huge leaf and its copy.
    pub fn is_huge(&self) -> bool {
        self.table.level() != Level::Pte
    }

    /// All entries, empty ones included, in ascending order, each with the other table's
    /// entry for the same address.
    pub fn all_slots(&self) -> impl Iterator<Item = (Slot<'_>, Slot<'_>)> {
        self.cells
            .iter()
            .zip(self.other_cells)
            .map(|(cell, other)| (self.table.as_slot(cell), self.table.as_slot(other)))
    }

    /// The entries that are not empty, in ascending order, each with the other
    /// table's entry for the same address.
    #[inline(always)]
    pub fn slots(&self) -> impl Iterator<Item = (Slot<'_>, Slot<'_>)> {
        let pairs = self.cells.iter().zip(self.other_cells);
        let used = pairs.filter(|(cell, _)| cell.load(Ordering::Relaxed) != 0);
        used.map(|(cell, other)| (self.table.as_slot(cell), self.table.as_slot(other)))
    }
}

impl PageTables {
    /// Calls `f` for all entries of `range` that are not empty, together with
    /// those at the same addresses of `other`, table by table in ascending order.
    /// Tables that `other` lacks for that are made.
    ///
    /// A huge leaf is visited once, even if only a part of it is in the range.
    ///
    /// `other` has in `range` no smaller leaves than `self`; it is a space that
    /// is being made.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] when there is no frame for a table. What has been done
    /// until then stays.
    pub fn visit_both<P: Platform>(
        &self,
        mem: &Memory<P>,
        other: &PageTables,
        range: PageRange,
        mut f: impl FnMut(&RunPair),
    ) -> Result<(), OutOfMemory> {
        let mut addr = range.start();
        while addr < range.end() {
            let place = match self.find(mem, addr, Level::Pte) {
                Found::Hole(table) => {
                    addr = table.skip_empty(addr, range.end());
                    continue;
                }
                Found::Place(place) => place,
            };
            let (table, end) = (place.table, place.end(addr, range.end()));
            let is_empty = table.slots(addr, end).iter().all(|cell| cell.load(Ordering::Relaxed) == 0);
            if is_empty {
                addr = end;
                continue;
            }
            let other_table = other.make(mem, addr, table.level())?.table;
            let spare = if table.level() == Level::Pte { None } else { Some(mem.alloc_table()?) };
            let _locks = table.lock_both(&other_table, mem);
            if !place.is_current(mem, addr) {
                spare.into_iter().for_each(|spare| mem.free_table(spare));
                continue;
            }
            debug_assert_eq!(table.level(), other_table.level());
            if let Some(spare) = spare {
                other.count_huge(&other_table, mem, spare);
            }
            f(&RunPair {
                table,
                cells: table.slots(addr, end),
                other_cells: other_table.slots(addr, end),
                start: table.level().floor(addr),
            });
            addr = end;
        }
        Ok(())
    }
}
