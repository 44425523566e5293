use std::convert::Infallible;

use super::*;
use crate::addr::{Pfn, TASK_SIZE};
use crate::frame::FrameKind;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 2;
const USER: u64 = 4;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ALL: u64 = PRESENT | WRITABLE | USER;

const ADDR: usize = 0x7f12_3456_7000;

/// A page table with one table at each level for `ADDR`.
struct Machine {
    memory: Memory<SimPlatform>,
    /// From the top-level table down to the one for 4 KiB pages.
    tables: [Pfn; 4],
}

impl Machine {
    fn new() -> Machine {
        let memory = memory(2, 256);
        let table = || memory.alloc_zeroed(FrameKind::Table).unwrap().into_raw();
        let tables = [table(), table(), table(), table()];
        let machine = Machine { memory, tables };
        for level in 2..=4 {
            let below = tables[5 - level];
            machine.set(level, below.addr().as_u64() | ALL);
        }
        machine
    }

    fn platform(&self) -> &SimPlatform {
        self.memory.platform()
    }

    fn root(&self) -> PhysAddr {
        self.tables[0].addr()
    }

    fn entry(&self, level: usize) -> &AtomicU64 {
        let index = (ADDR >> (12 + 9 * (level - 1))) & 511;
        self.platform().entry(self.tables[4 - level].addr() + 8 * index as u64)
    }

    fn set(&self, level: usize, entry: u64) {
        self.entry(level).store(entry, Ordering::Relaxed);
    }

    /// Maps a fresh page at `ADDR` and returns it.
    fn map(&self, bits: u64) -> Pfn {
        let page = self.memory.alloc_zeroed(FrameKind::Anon).unwrap().into_raw();
        self.set(1, page.addr().as_u64() | bits);
        page
    }

    fn translate(&self, cpu: usize, access: Access) -> Result<PhysAddr, PageFault> {
        self.platform().translate(cpu, self.root(), ADDR + 5, access)
    }

    fn flush(&self, cpu: usize, start: usize, end: usize) {
        let flush = TlbFlush { root: self.root(), context: 1, generation: 1, start, end, full: false };
        self.platform().flush_tlb(CpuSet::single(cpu), flush);
    }
}

fn fault(access: Access, present: bool) -> Result<PhysAddr, PageFault> {
    Err(PageFault { addr: ADDR + 5, access, present })
}

#[test]
fn a_page_is_found_and_marked_accessed_and_dirty() {
    let machine = Machine::new();
    let page = machine.map(ALL);
    assert_eq!(machine.translate(0, Access::Read), Ok(page.addr() + 5));
    for level in 1..=4 {
        assert_eq!(machine.entry(level).load(Ordering::Relaxed) & (ACCESSED | DIRTY), ACCESSED);
    }
    assert_eq!(machine.translate(0, Access::Write), Ok(page.addr() + 5));
    assert_eq!(machine.entry(1).load(Ordering::Relaxed) & DIRTY, DIRTY);
    assert_eq!(machine.entry(2).load(Ordering::Relaxed) & DIRTY, 0);
}

#[test]
fn an_empty_entry_faults_at_every_level() {
    let machine = Machine::new();
    assert_eq!(machine.translate(0, Access::Read), fault(Access::Read, false));
    for level in 2..=4 {
        machine.set(level, 0xff00);
        assert_eq!(machine.translate(0, Access::Read), fault(Access::Read, false));
    }
    let above = machine.platform().translate(0, machine.root(), TASK_SIZE, Access::Read);
    assert!(!above.unwrap_err().present);
}

#[test]
fn permissions_are_what_all_levels_allow() {
    let machine = Machine::new();
    machine.map(PRESENT | USER | NO_EXECUTE);
    assert!(machine.translate(0, Access::Read).is_ok());
    assert_eq!(machine.translate(1, Access::Write), fault(Access::Write, true));
    assert_eq!(machine.translate(1, Access::Exec), fault(Access::Exec, true));
    let page = machine.map(ALL);
    machine.platform().load_root(0, machine.root());
    let table = machine.entry(3).load(Ordering::Relaxed);
    machine.set(3, table & !WRITABLE);
    assert!(machine.translate(0, Access::Exec).is_ok());
    assert_eq!(machine.translate(0, Access::Write), fault(Access::Write, true));
    machine.set(3, table & !USER);
    machine.platform().load_root(0, machine.root());
    assert_eq!(machine.translate(0, Access::Read), fault(Access::Read, true));
    assert_eq!(machine.memory.frame(page).kind(), FrameKind::Anon);
}

#[test]
fn a_translation_stays_until_it_is_flushed_on_that_cpu() {
    let machine = Machine::new();
    let old = machine.map(ALL);
    for cpu in 0..2 {
        assert_eq!(machine.translate(cpu, Access::Write), Ok(old.addr() + 5));
    }
    let new = machine.map(ALL);
    assert_eq!(machine.translate(0, Access::Read), Ok(old.addr() + 5));
    machine.flush(0, ADDR + PAGE_SIZE, ADDR + 2 * PAGE_SIZE);
    assert_eq!(machine.translate(0, Access::Read), Ok(old.addr() + 5));
    machine.flush(0, ADDR, ADDR + PAGE_SIZE);
    assert_eq!(machine.translate(0, Access::Read), Ok(new.addr() + 5));
    assert_eq!(machine.translate(1, Access::Read), Ok(old.addr() + 5));
    machine.platform().load_root(1, machine.root());
    assert_eq!(machine.translate(1, Access::Read), Ok(new.addr() + 5));
    assert_eq!(machine.platform().flushes(), 2);
}

#[test]
fn a_table_stays_cached_until_something_is_flushed() {
    let machine = Machine::new();
    let page = machine.map(ALL);
    machine.translate(0, Access::Read).unwrap();
    machine.set(2, 0);
    let next = machine.platform().entry(machine.tables[3].addr() + 8 * 0x168);
    next.store(page.addr().as_u64() | ALL, Ordering::Relaxed);
    let sibling = || machine.platform().translate(0, machine.root(), ADDR + PAGE_SIZE, Access::Read);
    assert_eq!(sibling(), Ok(page.addr()));
    machine.flush(0, 0, PAGE_SIZE);
    // The pages themselves are still cached.
    assert_eq!(sibling(), Ok(page.addr()));
    machine.flush(0, ADDR + PAGE_SIZE, ADDR + 2 * PAGE_SIZE);
    assert!(sibling().is_err());
}

#[test]
fn a_cached_restriction_faults_once() {
    let machine = Machine::new();
    machine.map(PRESENT | USER);
    machine.translate(0, Access::Read).unwrap();
    machine.entry(1).fetch_or(WRITABLE, Ordering::Relaxed);
    assert_eq!(machine.translate(0, Access::Write), fault(Access::Write, true));
    assert!(machine.translate(0, Access::Write).is_ok());
}

#[test]
fn a_clean_translation_is_looked_up_again_for_a_write() {
    let machine = Machine::new();
    machine.map(ALL);
    machine.translate(0, Access::Read).unwrap();
    machine.set(1, 0);
    assert!(machine.translate(0, Access::Read).is_ok());
    assert_eq!(machine.translate(0, Access::Write), fault(Access::Write, false));
}

#[test]
fn a_large_page_is_flushed_by_any_address_in_it() {
    let machine = Machine::new();
    let block = machine.memory.alloc(FrameKind::Anon, 9).unwrap_err();
    assert_eq!(block, crate::OutOfMemory);
    let large = RAM_START & !((1 << 21) - 1);
    machine.set(2, large | ALL | LARGE);
    let offset = (ADDR & ((1 << 21) - 1)) as u64 + 5;
    assert_eq!(machine.translate(0, Access::Write), Ok(PhysAddr::new(large + offset)));
    machine.set(2, 0);
    assert!(machine.translate(0, Access::Write).is_ok());
    machine.flush(0, ADDR & !((1 << 21) - 1), (ADDR & !((1 << 21) - 1)) + PAGE_SIZE);
    assert!(machine.translate(0, Access::Write).is_err());
}

#[test]
#[should_panic(expected = "reserved bits set")]
fn a_walk_through_a_freed_table_panics() {
    let machine = Machine::new();
    // SAFETY: the table was allocated above, and nothing uses it but the walk.
    machine.memory.free(unsafe { crate::OwnedFrame::from_raw(machine.tables[2], 0) });
    let _ = machine.translate(0, Access::Read);
}

#[test]
fn user_accesses_cross_pages_and_call_for_help() {
    let machine = Machine::new();
    let data: Vec<u8> = (0..6000u32).map(|i| i as u8).collect();
    let mut handled = 0;
    let mut map = |fault: PageFault| -> Result<(), Infallible> {
        let page = machine.memory.alloc_zeroed(FrameKind::Anon).unwrap().into_raw();
        let index = (fault.addr >> 12) & 511;
        let entry = machine.platform().entry(machine.tables[3].addr() + 8 * index as u64);
        entry.store(page.addr().as_u64() | ALL, Ordering::Relaxed);
        handled += 1;
        Ok(())
    };
    let platform = machine.platform();
    platform.write_user(0, machine.root(), ADDR + 100, &data, &mut map).unwrap();
    let mut back = vec![0; 6000];
    platform.read_user(1, machine.root(), ADDR + 100, &mut back, &mut map).unwrap();
    assert_eq!(back, data);
    assert_eq!(handled, 2);
    let refused = platform.read_user(0, machine.root(), 0x1000, &mut back, |fault| Err(fault.addr));
    assert_eq!(refused, Err(0x1000));
}

#[test]
fn flushes_are_recorded_on_request() {
    let machine = Machine::new();
    machine.flush(0, 0, PAGE_SIZE);
    machine.platform().record_flushes();
    machine.flush(1, 0, 2 * PAGE_SIZE);
    let flush = TlbFlush { root: machine.root(), context: 1, generation: 1, start: 0, end: 2 * PAGE_SIZE, full: false };
    assert_eq!(machine.platform().take_flushes(), [(CpuSet::single(1), flush)]);
    assert_eq!(machine.platform().take_flushes(), []);
    assert_eq!(machine.platform().flushes(), 2);
}

#[test]
fn the_random_sequence_follows_from_the_seed() {
    let platform = SimPlatform::new(1, 1);
    platform.seed(99);
    let first = [platform.random(), platform.random()];
    platform.seed(99);
    assert_eq!([platform.random(), platform.random()], first);
    assert_ne!(first[0], first[1]);
}
