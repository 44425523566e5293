//! Tests on the simulated machine: what matters is what a program on one of
//! its CPUs can see, through a TLB that forgets nothing by itself.

mod entry;
mod free;
mod gather;
mod huge;
mod moves;
mod parallel;
mod pcid;
mod walk;

use std::sync::atomic::Ordering;

use super::*;
use crate::sim::{self, Access, SimPlatform};
use crate::{Event, FrameKind, PMD_SIZE, PUD_SIZE, PageRange, TlbFlush};

/// Somewhere aligned to 1 GiB, with neighbours.
const BASE: usize = 0x7000_0000_0000;

const PAGE_FLAGS: EntryFlags =
    EntryFlags::PRESENT.union(EntryFlags::WRITE).union(EntryFlags::USER).union(EntryFlags::NO_EXEC);

fn range(start: usize, len: usize) -> PageRange {
    PageRange::from_len(start, len).unwrap()
}

/// A machine with two CPUs, and page tables that both may use.
struct Machine {
    mem: Memory<SimPlatform>,
}

impl Machine {
    fn new() -> Machine {
        Machine { mem: sim::memory(2, 4096) }
    }

    fn tables(&self) -> PageTables {
        let tables = PageTables::new(&self.mem).unwrap();
        tables.activate(0);
        tables.activate(1);
        tables
    }

    /// Maps a new page whose first byte is `tag`, and returns its frame.
    fn map(&self, tables: &PageTables, addr: usize, tag: u8) -> Pfn {
        let page = self.mem.alloc_zeroed(FrameKind::Anon).unwrap().into_raw();
        // SAFETY: the page is ours and nobody else knows it yet.
        unsafe { self.mem.page_ptr(page).write(tag) };
        let slot = tables.lock_pte_alloc(&self.mem, addr).unwrap();
        assert!(slot.get().is_empty());
        slot.set(Entry::leaf(page, PAGE_FLAGS));
        page
    }

    /// Maps one page in every table of `start..start + len`.
    fn map_sparsely(&self, tables: &PageTables, start: usize, len: usize) {
        for (i, addr) in (start..start + len).step_by(PMD_SIZE).enumerate() {
            self.map(tables, addr + i % 512 * PAGE_SIZE, i as u8);
        }
    }

    /// What a program on `cpu` reads at `addr`; `None` if it faults.
    fn read(&self, tables: &PageTables, cpu: usize, addr: usize) -> Option<u8> {
        let mut byte = [0];
        self.mem.platform().read_user(cpu, tables.root(), addr, &mut byte, Err).ok().map(|()| byte[0])
    }

    fn can(&self, tables: &PageTables, cpu: usize, addr: usize, access: Access) -> bool {
        self.mem.platform().translate(cpu, tables.root(), addr, access).is_ok()
    }

    /// Unmaps everything and checks that nothing is lost.
    fn finish(&self, tables: PageTables) {
        self.unmap_all(&tables, range(0, crate::TASK_SIZE));
        tables.deactivate(0);
        tables.deactivate(1);
        tables.destroy(&self.mem);
        assert_eq!(self.mem.count_frames(FrameKind::Anon), 0);
        assert_eq!(self.mem.count_frames(FrameKind::Table), 0);
        assert_eq!(self.mem.count_frames(FrameKind::Kernel), 0);
    }
}

impl PageTables {
    /// Page tables outside of an arena.
    fn new(mem: &Memory<SimPlatform>) -> Result<PageTables, crate::OutOfMemory> {
        let tables = PageTables::default();
        tables.init(mem)?;
        Ok(tables)
    }

    /// Entries looked at since the last call.
    fn take_visited(&self) -> usize {
        self.visited.swap(0, Ordering::Relaxed)
    }

    /// Calls `f` with each entry of the range that is not empty, and its address.
    fn visit(&self, mem: &Memory<SimPlatform>, range: PageRange, mut f: impl FnMut(usize, &Slot)) {
        self.visit_runs(mem, range, |run| {
            for (addr, slot) in run.slots() {
                f(addr, &slot);
            }
        });
    }

    /// Every leaf of the range with its address.
    fn leaves(&self, mem: &Memory<SimPlatform>, range: PageRange) -> Vec<(usize, Entry)> {
        let mut leaves = Vec::new();
        self.visit(mem, range, |addr, slot| leaves.push((addr, slot.get())));
        leaves
    }
}

impl PageTables {
    /// Makes all tables for the pages of `range`.
    fn ensure(&self, mem: &Memory<SimPlatform>, range: PageRange) -> Result<(), OutOfMemory> {
        for addr in (range.start()..range.end()).step_by(PAGE_SIZE) {
            self.make(mem, addr, Level::Pte)?;
        }
        Ok(())
    }
}

impl Entry {
    fn is_user(self) -> bool {
        self.flags().contains(EntryFlags::USER)
    }

    fn is_accessed(self) -> bool {
        self.flags().contains(EntryFlags::ACCESSED)
    }

    fn is_dirty(self) -> bool {
        self.flags().contains(EntryFlags::DIRTY)
    }
}
