//! Going through the entries of two address spaces side by side, for `fork`.

use core::sync::atomic::Ordering;

use super::PageTables;
use super::table::{Level, Slot};
use super::walk::Found;
use crate::{Memory, OutOfMemory, PageRange, Platform};

impl PageTables {
    /// Calls `f` for every entry of `range` that is not empty, in ascending
    /// order, with the entry at the same address of `other`, and the locks of
    /// both tables held. Tables that `other` lacks for that are made.
    ///
    /// A huge leaf is visited once, with the address where *it* starts, even if
    /// only a part of it is in the range.
    ///
    /// `other` has in `range` no smaller leaves than `self`; it is a space that
    /// is being made.
    ///
    /// # Errors
    ///
    /// That of `f`, or [`OutOfMemory`] when there is no frame for a table. What has
    /// been done until then stays.
    pub fn try_visit_both<P: Platform, E: From<OutOfMemory>>(
        &self,
        mem: &Memory<P>,
        other: &PageTables,
        range: PageRange,
        mut f: impl FnMut(usize, &Slot, &Slot) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut addr = range.start();
        while addr < range.end() {
            let place = match self.find(mem, addr, Level::Pte) {
                Found::Hole(level) => {
                    addr = level.next(addr);
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
            let _locks = table.lock_both(&other_table, mem);
            if !place.is_current(mem, addr) {
                continue;
            }
            debug_assert_eq!(table.level(), other_table.level());
            let mut at = table.level().floor(addr);
            let pairs = table.slots(addr, end).iter().zip(other_table.slots(addr, end));
            for (cell, other_cell) in pairs {
                if cell.load(Ordering::Relaxed) != 0 {
                    f(at, &table.as_slot(cell), &other_table.as_slot(other_cell))?;
                }
                at += table.level().size();
            }
            addr = end;
        }
        Ok(())
    }
}
