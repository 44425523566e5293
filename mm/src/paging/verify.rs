//! A check of all tables of an address space.

use super::table::{Child, ENTRIES, Table};
use super::{Entry, Level, PageTables};
use crate::{FrameKind, Memory, Pfn, Platform};

/// What [`PageTables::verify`] comes across, in ascending order of addresses,
/// each table before what is in it.
pub(crate) enum Visit {
    /// A table below the root: its frame, and the bytes `start..end` that it maps.
    Table { pfn: Pfn, start: usize, end: usize },
    /// An entry that is not empty and refers to no table.
    Leaf { addr: usize, level: Level, entry: Entry },
}

impl PageTables {
    /// Checks that every entry of the user half is one of those that
    /// [`entry`](super::entry) lists, that every table is in a frame of its
    /// own, that as many are found as are counted, and that one is set aside for
    /// each huge leaf. Calls `f` with all that
    /// is found on the way.
    ///
    /// Nobody changes the address space meanwhile, but pages may be moved to other frames, or evicted,
    /// and huge leaves be split for that. `f` is called for a leaf with its table locked: until it
    /// returns, what is mapped stays so.
    ///
    /// # Panics
    ///
    /// When something does not hold.
    pub fn verify<P: Platform>(&self, mem: &Memory<P>, mut f: impl FnMut(Visit)) {
        check_frame(mem, self.root_pfn(), 0);
        let mut huge = 0;
        let before = self.huge_leaves();
        let below = verify_below(mem, self.top(mem), 0, &mut |visit| {
            huge += usize::from(matches!(visit, Visit::Leaf { level: Level::Pmd, .. }));
            f(visit);
        });
        // They only become fewer.
        if self.huge_leaves() == before {
            assert_eq!(before, huge, "huge leaves counted and found");
        }
        assert_eq!(self.table_pages(), below + huge + 1, "tables counted and found");
    }
}

/// Checks what `table` refers to, which maps addresses from `start` on. Returns
/// the number of tables below it.
fn verify_below<P: Platform>(mem: &Memory<P>, table: Table, start: usize, f: &mut impl FnMut(Visit)) -> usize {
    let level = table.level();
    let entries = if level == Level::Pgd { ENTRIES / 2 } else { ENTRIES };
    let mut tables = 0;
    let mut index = 0;
    while index < entries {
        let addr = start + index * level.size();
        let slot = table.slot(addr);
        let entry = slot.get();
        if entry.is_present() && level > Level::Pte && !entry.is_huge() {
            check_frame(mem, Pfn::containing(entry.table_addr()), addr);
        }
        match table.child(mem, entry) {
            Child::Empty => {}
            Child::Leaf => {
                assert!(
                    level == Level::Pte || level == Level::Pmd && entry.is_huge(),
                    "{entry:?} at {addr:#x} is no entry of a {level:?} table"
                );
                let _lock = table.lock(mem);
                if slot.get() != entry {
                    continue;
                }
                f(Visit::Leaf { addr, level, entry });
            }
            Child::Table(below) => {
                f(Visit::Table { pfn: below.pfn(), start: addr, end: addr + level.size() });
                tables += 1 + verify_below(mem, below, addr, f);
            }
        }
        index += 1;
    }
    if level == Level::Pmd {
        let _lock = table.lock(mem);
        let leaf = |index: &usize| {
            let entry = table.slot(start + index * level.size()).get();
            matches!(table.child(mem, entry), Child::Leaf)
        };
        let huge = (0..entries).filter(leaf).count();
        assert_eq!(table.count_spares(mem), huge, "tables set aside for the huge leaves at {start:#x}");
    }
    tables
}

fn check_frame<P: Platform>(mem: &Memory<P>, pfn: Pfn, addr: usize) {
    let record = mem.frame(pfn);
    assert!(
        record.kind() == FrameKind::Table && record.refcount() == 1 && record.mapcount() == 0,
        "{pfn:?}, the page table at {addr:#x}, is {record:?}"
    );
}
