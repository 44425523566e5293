use super::*;

#[test]
fn new_tables_have_only_a_root_and_map_nothing() {
    let m = Machine::new();
    let tables = m.tables();
    assert_eq!(tables.table_pages(), 1);
    assert_eq!(tables.lookup(&m.mem, BASE), None);
    assert!(tables.lock_pte(&m.mem, BASE).is_none());
    assert_eq!(m.read(&tables, 0, BASE), None);
    m.finish(tables);
}

#[test]
fn new_tables_share_the_kernel_half() {
    let platform = SimPlatform::new(1, 256);
    let ram = platform.ram();
    // The last frame becomes the kernel's root.
    let end = ram.end - PAGE_SIZE as u64;
    let kernel = platform.phys_to_virt(end).cast::<u64>();
    for i in 0..512 {
        // SAFETY: a whole frame of RAM that nobody else is given.
        unsafe { kernel.add(i).write(0x1000 * i as u64) };
    }
    let region = crate::PhysRange { start: ram.start, end };
    // SAFETY: the platform owns that memory and the root stays as it is.
    let mem = unsafe { Memory::new(platform, &[region], Some(end)) }.unwrap();
    let tables = PageTables::new(&mem).unwrap();
    let root = mem.page_ptr(Pfn::containing(tables.root())).cast::<u64>();
    for i in 0..512 {
        let expected = if i < 256 { 0 } else { 0x1000 * i as u64 };
        // SAFETY: the root is a whole frame, and nobody writes to it.
        assert_eq!(unsafe { root.add(i).read() }, expected, "entry {i}");
    }
    tables.destroy(&mem);
}

#[test]
fn a_mapped_page_is_found_and_used_by_hardware() {
    let m = Machine::new();
    let tables = m.tables();
    let page = m.map(&tables, BASE + 5 * PAGE_SIZE, 42);
    assert_eq!(tables.table_pages(), 4);
    let entry = tables.lookup(&m.mem, BASE + 5 * PAGE_SIZE + 123).unwrap();
    assert_eq!(entry.pfn(), page);
    assert_eq!(tables.lookup(&m.mem, BASE), None);
    assert_eq!(m.read(&tables, 0, BASE + 5 * PAGE_SIZE), Some(42));
    assert!(tables.lookup(&m.mem, BASE + 5 * PAGE_SIZE).unwrap().is_accessed());
    m.finish(tables);
}

#[test]
fn the_table_is_locked_while_a_pte_is() {
    let m = Machine::new();
    let tables = m.tables();
    m.map(&tables, BASE, 1);
    let pmd = tables.make(&m.mem, BASE, Level::Pte).unwrap().table;
    let guard = tables.lock_pte(&m.mem, BASE).unwrap();
    assert_eq!(guard.size(), PAGE_SIZE);
    assert!(m.mem.frame(pmd.pfn()).try_table_lock().is_none());
    drop(guard);
    assert!(m.mem.frame(pmd.pfn()).try_table_lock().is_some());
    m.finish(tables);
}

#[test]
fn only_tables_that_are_missing_are_made() {
    let m = Machine::new();
    let tables = m.tables();
    for (addr, pages) in [
        (BASE, 4),
        (BASE + PMD_SIZE - PAGE_SIZE, 4),
        (BASE + PMD_SIZE, 5),
        (BASE + PUD_SIZE, 7),
        (BASE + crate::PGD_SIZE, 10),
    ] {
        tables.ensure(&m.mem, range(addr, PAGE_SIZE)).unwrap();
        assert_eq!(tables.table_pages(), pages);
    }
    assert!(tables.lock_pte(&m.mem, BASE + 2 * PMD_SIZE).is_none());
    m.finish(tables);
}

#[test]
fn no_address_selects_the_kernel_half() {
    assert!((0..16).all(|i| Level::Pgd.index(i << 44 | 0x123_4567) < ENTRIES / 2));
}

#[test]
fn visit_sees_exactly_the_entries_of_the_range_in_order() {
    let m = Machine::new();
    let tables = m.tables();
    let mapped: Vec<usize> =
        [0, 1, 511, 512, 1023, 512 * 512 - 1, 512 * 512].map(|page| BASE + page * PAGE_SIZE).to_vec();
    for &addr in &mapped {
        m.map(&tables, addr, 1);
    }
    for first in 0..=mapped.len() {
        for last in first..mapped.len() {
            let span = range(mapped[first], mapped[last] - mapped[first]);
            let seen: Vec<usize> = tables.leaves(&m.mem, span).iter().map(|l| l.0).collect();
            assert_eq!(seen, mapped[first..last]);
        }
    }
    m.finish(tables);
}

#[test]
fn visit_costs_nothing_for_what_has_no_tables() {
    let m = Machine::new();
    let tables = m.tables();
    m.map(&tables, BASE, 1);
    m.map(&tables, BASE + 100 * PUD_SIZE, 1);
    tables.take_visited();
    let mut count = 0;
    tables.visit(&m.mem, range(0, crate::TASK_SIZE), |_, _| count += 1);
    assert_eq!(count, 2);
    let visited = tables.take_visited();
    assert!(visited < 7000, "{visited} entries visited");
    m.finish(tables);
}

#[test]
fn visit_sees_swap_entries_and_leaves_them_alone() {
    let m = Machine::new();
    let tables = m.tables();
    let swapped = Entry(0xabc0_0000_0000 | 2);
    tables.lock_pte_alloc(&m.mem, BASE).unwrap().set(swapped);
    let all = range(BASE, PMD_SIZE);
    assert_eq!(tables.leaves(&m.mem, all), [(BASE, swapped)]);
    assert_eq!(tables.lookup(&m.mem, BASE), Some(swapped));
    assert_eq!(m.read(&tables, 0, BASE), None);
    m.finish(tables);
}

#[test]
fn a_table_that_cannot_be_had_is_an_error_at_each_level() {
    let m = Machine::new();
    let tables = m.tables();
    for n in 1..=3 {
        m.mem.fail_nth_allocation(n);
        assert!(tables.lock_pte_alloc(&m.mem, BASE).is_err());
        // What was made before stays.
        assert_eq!(tables.table_pages(), n);
        let mut gather = TlbGather::new(&m.mem, &tables, Event::FlushUnmap);
        let whole = range(0, crate::TASK_SIZE);
        tables.free_tables(&m.mem, whole, 0, crate::TASK_SIZE, &mut gather);
        drop(gather);
        assert_eq!(tables.table_pages(), 1);
    }
    assert!(tables.lock_pte_alloc(&m.mem, BASE).is_ok());
    m.finish(tables);
}

#[test]
fn update_changes_an_entry_and_keeps_the_hardwares_bits() {
    let m = Machine::new();
    let tables = m.tables();
    m.map(&tables, BASE, 1);
    let guard = tables.lock_pte(&m.mem, BASE).unwrap();
    let mut tries = 0;
    guard.update(|entry| {
        tries += 1;
        if tries == 1 {
            // The program writes at the worst moment.
            assert!(m.can(&tables, 1, BASE, Access::Write));
        }
        entry.without(EntryFlags::WRITE)
    });
    assert_eq!(tries, 2);
    assert!(guard.get().is_dirty() && !guard.get().is_writable());
    drop(guard);
    m.finish(tables);
}

#[test]
fn visiting_both_spaces_makes_only_tables_that_are_needed() {
    let m = Machine::new();
    let parent = m.tables();
    let child = m.tables();
    m.map(&parent, BASE, 1);
    m.map(&parent, BASE + 3 * PAGE_SIZE, 2);
    m.map(&parent, BASE + 2 * PMD_SIZE, 3);
    parent.ensure(&m.mem, range(BASE + PMD_SIZE, PAGE_SIZE)).unwrap();
    let result = parent.visit_both(&m.mem, &child, range(BASE, PUD_SIZE), |run| {
        for (from, to) in run.slots() {
            assert!(to.get().is_empty());
            m.mem.get(from.get().pfn());
            from.update(|entry| entry.without(EntryFlags::WRITE));
            to.set(from.get());
        }
    });
    assert_eq!(result, Ok(()));
    assert_eq!(child.table_pages(), 3 + 2);
    let all = range(0, crate::TASK_SIZE);
    assert_eq!(parent.leaves(&m.mem, all), child.leaves(&m.mem, all));
    assert_eq!(child.leaves(&m.mem, all).len(), 3);
    assert_eq!(m.read(&child, 1, BASE + 3 * PAGE_SIZE), Some(2));

    let mut gather = TlbGather::new(&m.mem, &child, Event::FlushUnmap);
    child.visit(&m.mem, all, |addr, slot| {
        gather.changed(addr);
        gather.release(slot.take().pfn());
    });
    drop(gather);
    child.deactivate(0);
    child.deactivate(1);
    child.destroy(&m.mem);
    assert_eq!(m.read(&parent, 0, BASE), Some(1));
    m.finish(parent);
}
