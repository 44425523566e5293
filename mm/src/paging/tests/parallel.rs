//! Several threads on the same tables. Not exhaustive, as a model checker
//! would be, but enough to catch a missing retry or a lost table.

use super::*;

#[test]
fn threads_that_fault_at_once_make_each_table_once() {
    for round in 0..20 {
        let m = Machine::new();
        let tables = m.tables();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (m, tables) = (&m, &tables);
                scope.spawn(move || {
                    sim::set_cpu(thread % 2);
                    for i in 0..32 {
                        m.map(tables, BASE + i * PMD_SIZE + thread * PAGE_SIZE, round);
                    }
                });
            }
        });
        assert_eq!(tables.table_pages(), 3 + 32);
        assert_eq!(m.mem.count_frames(FrameKind::Table), tables.table_pages());
        assert_eq!(tables.leaves(&m.mem, range(BASE, PUD_SIZE)).len(), 4 * 32);
        m.finish(tables);
    }
}

#[test]
fn a_pte_lock_excludes() {
    let m = Machine::new();
    let tables = m.tables();
    tables.ensure(&m.mem, range(BASE, PAGE_SIZE)).unwrap();
    std::thread::scope(|scope| {
        for cpu in 0..2 {
            let (m, tables) = (&m, &tables);
            scope.spawn(move || {
                sim::set_cpu(cpu);
                for _ in 0..1000 {
                    let guard = tables.lock_pte(&m.mem, BASE).unwrap();
                    let value = guard.get().0;
                    std::hint::spin_loop();
                    // Even, so that it is never present.
                    guard.set(Entry(value + 2));
                }
            });
        }
    });
    assert_eq!(tables.lookup(&m.mem, BASE), Some(Entry(2 * 2 * 1000)));
    tables.lock_pte(&m.mem, BASE).unwrap().set(Entry::EMPTY);
    m.finish(tables);
}

#[test]
fn neighbours_fault_while_tables_move_and_go() {
    // A range moves to and fro and its tables are freed, while another thread
    // faults in tables next to it, below the same PMD and PUD tables.
    let m = Machine::new();
    let tables = m.tables();
    let (old, new, len) = (BASE + 8 * PMD_SIZE, BASE + 16 * PMD_SIZE, 2 * PMD_SIZE);
    m.map_sparsely(&tables, old, len);
    let there = TableMove::new(range(old, len), range(new, len)).unwrap();
    let back = there.reversed().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            sim::set_cpu(1);
            for round in 0..200 {
                let addr = BASE + (round % 8) * PMD_SIZE;
                let span = range(addr, PMD_SIZE);
                let page = m.map(&tables, addr, 1);
                assert_eq!(m.read(&tables, 1, addr), Some(1));
                let mut gather = TlbGather::new(&m.mem, &tables, Event::FlushUnmap);
                tables.lock_pte(&m.mem, addr).unwrap().take();
                gather.changed(addr);
                gather.release(page);
                tables.free_tables(&m.mem, span, addr, addr + PMD_SIZE, &mut gather);
                drop(gather);
            }
        });
        for _ in 0..200 {
            for mv in [&there, &back] {
                tables.move_prepare(&m.mem, mv).unwrap();
                tables.move_commit(&m.mem, mv);
            }
        }
    });
    assert_eq!(tables.leaves(&m.mem, range(BASE, PUD_SIZE)).len(), 2);
    assert_eq!(m.mem.count_frames(FrameKind::Table), tables.table_pages());
    m.finish(tables);
}

#[test]
fn a_visit_never_takes_the_table_of_a_split_for_a_leaf() {
    let m = Machine::new();
    let tables = m.tables();
    let span = range(BASE, PMD_SIZE);
    for _ in 0..50 {
        m.map_huge(&tables, BASE);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut bytes = 0;
                tables.visit(&m.mem, span, |_, slot| bytes += slot.size());
                assert_eq!(bytes, PMD_SIZE);
            });
            tables.split_leaf(&m.mem, BASE);
        });
        m.unmap_all(&tables, span);
        let mut gather = TlbGather::new(&m.mem, &tables, Event::FlushUnmap);
        tables.free_tables(&m.mem, span, 0, crate::TASK_SIZE, &mut gather);
        drop(gather);
    }
    m.finish(tables);
}

/// Has a thread wait for the lock of what maps [`BASE`], puts `instead` into
/// the PMD entry meanwhile, and returns how many bytes what the thread locked maps.
fn lock_while_replaced(m: &Machine, tables: &PageTables, held: Level, instead: Entry) -> usize {
    let pmd = tables.make(&m.mem, BASE, Level::Pmd).unwrap().table;
    let waited_for = match held {
        Level::Pte => tables.make(&m.mem, BASE, Level::Pte).unwrap().table,
        _ => pmd,
    };
    let lock = waited_for.lock(&m.mem);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let guard = tables.lock_pte(&m.mem, BASE).unwrap();
            guard.set(Entry(2));
            guard.size()
        });
        std::thread::sleep(std::time::Duration::from_millis(50));
        pmd.slot(BASE).set(instead);
        drop(lock);
        waiter.join().unwrap()
    })
}

#[test]
fn who_waited_for_a_table_that_was_moved_away_walks_again() {
    let m = Machine::new();
    let tables = m.tables();
    let first = tables.make(&m.mem, BASE, Level::Pte).unwrap().table;
    let other = tables.make(&m.mem, BASE + PMD_SIZE, Level::Pte).unwrap().table;
    let (first, other) = (first.pfn(), other.pfn());
    let pmd = tables.make(&m.mem, BASE, Level::Pmd).unwrap().table;
    pmd.slot(BASE + PMD_SIZE).set(Entry::EMPTY);
    let size = lock_while_replaced(&m, &tables, Level::Pte, Entry::table(other));
    assert_eq!(size, PAGE_SIZE);
    pmd.slot(BASE + PMD_SIZE).set(Entry::table(first));
    assert_eq!(tables.lookup(&m.mem, BASE), Some(Entry(2)));
    assert_eq!(tables.lookup(&m.mem, BASE + PMD_SIZE), None);
    m.finish(tables);
}

#[test]
fn who_waited_for_a_huge_leaf_that_was_split_walks_again() {
    let m = Machine::new();
    let tables = m.tables();
    let first = m.map_huge(&tables, BASE);
    let spare = tables.make(&m.mem, BASE, Level::Pmd).unwrap().table.take_spare(&m.mem).unwrap();
    tables.uncount_leaf(&m.mem);
    let size = lock_while_replaced(&m, &tables, Level::Pmd, Entry::table(spare.into_raw()));
    assert_eq!(size, PAGE_SIZE);
    assert_eq!(tables.lookup(&m.mem, BASE), Some(Entry(2)));
    (0..ENTRIES).for_each(|i| m.mem.put(Pfn(first.0 + i)));
    m.finish(tables);
}
