use super::*;
use crate::TASK_SIZE;

/// Far away from [`BASE`] and as aligned.
const TO: usize = BASE + 300 * PUD_SIZE;

const ALL: (usize, usize) = (0, TASK_SIZE);

fn a_move(old: usize, new: usize, len: usize) -> TableMove {
    TableMove::new(range(old, len), range(new, len)).unwrap()
}

impl TableMove {
    /// Whether some entry above the PTE level moves as a whole.
    fn moves_whole_tables(&self) -> bool {
        let mut pages = (self.old.start()..self.old.end()).step_by(PAGE_SIZE);
        pages.any(|addr| self.moves_whole(addr, Level::Pmd))
    }

    /// The move that undoes this one.
    pub(super) fn reversed(&self) -> Option<TableMove> {
        let back = TableMove::new(self.new, self.old)?;
        Some(back.with_room(self.new_room, self.old_room))
    }
}

/// Prepares and commits `mv`, and returns how many entries were looked at.
fn run(m: &Machine, tables: &PageTables, mv: &TableMove) -> usize {
    tables.take_visited();
    tables.move_prepare(&m.mem, mv).unwrap();
    tables.move_commit(&m.mem, mv);
    tables.take_visited()
}

/// All that a program sees in the range, read on both CPUs, relative to its start.
fn contents(m: &Machine, tables: &PageTables, span: PageRange) -> Vec<(usize, u8)> {
    tables
        .leaves(&m.mem, span)
        .into_iter()
        .map(|(addr, _)| {
            let tag = m.read(tables, 0, addr).unwrap();
            assert_eq!(m.read(tables, 1, addr), Some(tag));
            (addr - span.start(), tag)
        })
        .collect()
}

/// Moves, and checks that everything is at the new place, nothing at the old
/// one, also for CPUs that have been using it, and nothing is lost.
/// Returns how many entries were looked at.
fn check_move(m: &Machine, tables: &PageTables, mv: &TableMove, old: usize, new: usize, len: usize) -> usize {
    let (old, new) = (range(old, len), range(new, len));
    let before = contents(m, tables, old);
    assert!(!before.is_empty());
    let visited = run(m, tables, mv);
    for &(offset, _) in &before {
        for cpu in 0..2 {
            assert_eq!(m.read(tables, cpu, old.start() + offset), None, "stale translation");
        }
    }
    assert_eq!(tables.leaves(&m.mem, old), []);
    assert_eq!(contents(m, tables, new), before);
    assert_eq!(tables.table_pages(), m.mem.count_frames(FrameKind::Table));
    visited
}

#[test]
fn one_page_moves_by_its_pte() {
    let m = Machine::new();
    let tables = m.tables();
    m.map(&tables, BASE, 1);
    m.map(&tables, BASE + PAGE_SIZE, 2);
    let mv = a_move(BASE, TO + 3 * PAGE_SIZE, PAGE_SIZE);
    assert!(!mv.moves_whole_tables());
    check_move(&m, &tables, &mv, BASE, TO + 3 * PAGE_SIZE, PAGE_SIZE);
    assert_eq!(m.read(&tables, 0, BASE + PAGE_SIZE), Some(2));
    m.finish(tables);
}

#[test]
fn a_pmd_aligned_move_moves_the_table() {
    let m = Machine::new();
    let tables = m.tables();
    for page in 0..20 {
        m.map(&tables, BASE + page * PAGE_SIZE, page as u8);
    }
    let table = tables.make(&m.mem, BASE, Level::Pte).unwrap().table.pfn();
    let mv = a_move(BASE, TO + 5 * PMD_SIZE, PMD_SIZE);
    assert!(mv.moves_whole_tables());
    let visited = check_move(&m, &tables, &mv, BASE, TO + 5 * PMD_SIZE, PMD_SIZE);
    assert!(visited < 20, "{visited} entries visited");
    let moved = tables.make(&m.mem, TO + 5 * PMD_SIZE, Level::Pte).unwrap().table.pfn();
    assert_eq!(moved, table);
    m.finish(tables);
}

#[test]
fn a_pud_aligned_gigabyte_moves_in_constant_time() {
    let m = Machine::new();
    let tables = m.tables();
    m.map_sparsely(&tables, BASE, PUD_SIZE);
    let mv = a_move(BASE, TO, PUD_SIZE);
    let flushes = m.mem.platform().flushes();
    let pages = tables.table_pages();
    let visited = check_move(&m, &tables, &mv, BASE, TO, PUD_SIZE);
    assert!(visited < 16, "{visited} entries visited");
    assert_eq!(m.mem.platform().flushes() - flushes, 1);
    // Both are below the same entry of the root: no table was needed.
    assert_eq!(tables.table_pages(), pages);
    m.finish(tables);
}

#[test]
fn a_pmd_aligned_gigabyte_moves_by_its_pmd_entries() {
    let m = Machine::new();
    let tables = m.tables();
    m.map_sparsely(&tables, BASE, PUD_SIZE);
    let mv = a_move(BASE, TO + 7 * PMD_SIZE, PUD_SIZE);
    let flushes = m.mem.platform().flushes();
    let visited = check_move(&m, &tables, &mv, BASE, TO + 7 * PMD_SIZE, PUD_SIZE);
    assert!((512..600).contains(&visited), "{visited} entries visited");
    // The destination is in two PMD tables.
    assert_eq!(m.mem.platform().flushes() - flushes, 2);
    m.finish(tables);
}

#[test]
fn a_misaligned_move_moves_every_pte() {
    let m = Machine::new();
    let tables = m.tables();
    let len = 3 * PMD_SIZE;
    for page in 0..3 * 512 {
        m.map(&tables, BASE + page * PAGE_SIZE, page as u8);
    }
    let mv = a_move(BASE, TO + 9 * PAGE_SIZE, len).with_room(ALL, ALL);
    assert!(!mv.moves_whole_tables());
    check_move(&m, &tables, &mv, BASE, TO + 9 * PAGE_SIZE, len);
    m.finish(tables);
}

#[test]
fn aligned_ends_move_by_ptes_and_the_middle_by_tables() {
    let m = Machine::new();
    let tables = m.tables();
    let (old, new) = (BASE + PMD_SIZE - 4 * PAGE_SIZE, TO + PMD_SIZE - 4 * PAGE_SIZE);
    let len = 2 * PMD_SIZE + 8 * PAGE_SIZE;
    // Neighbours, which stay.
    for (addr, tag) in [(old - PAGE_SIZE, 201), (old + len, 202), (new - PAGE_SIZE, 203), (new + len, 204)] {
        m.map(&tables, addr, tag);
    }
    for page in 0..len / PAGE_SIZE {
        m.map(&tables, old + page * PAGE_SIZE, page as u8);
    }
    let mv = a_move(old, new, len);
    assert!(mv.moves_whole_tables());
    let visited = check_move(&m, &tables, &mv, old, new, len);
    assert!(visited < 100, "{visited} entries visited");
    for (addr, tag) in [(old - PAGE_SIZE, 201), (old + len, 202), (new - PAGE_SIZE, 203), (new + len, 204)] {
        assert_eq!(m.read(&tables, 0, addr), Some(tag));
    }
    m.finish(tables);
}

#[test]
fn with_room_around_it_a_single_congruent_page_moves_with_its_table() {
    let m = Machine::new();
    let tables = m.tables();
    let offset = 17 * PAGE_SIZE;
    m.map(&tables, BASE + offset, 5);
    let (old, new) = (BASE + offset, TO + 3 * PMD_SIZE + offset);
    m.map(&tables, TO, 6);
    let pages = tables.table_pages();
    let mv = a_move(old, new, PAGE_SIZE).with_room(ALL, (TO + PAGE_SIZE, TASK_SIZE));
    assert!(mv.moves_whole_tables());
    check_move(&m, &tables, &mv, old, new, PAGE_SIZE);
    assert_eq!(tables.table_pages(), pages);
    m.finish(tables);
}

#[test]
fn a_flush_covers_the_moved_range_only() {
    let m = Machine::new();
    let tables = m.tables();
    m.map(&tables, BASE + PAGE_SIZE, 5);
    let mv = a_move(BASE + PAGE_SIZE, TO + PMD_SIZE + PAGE_SIZE, PAGE_SIZE).with_room(ALL, ALL);
    m.mem.platform().record_flushes();
    run(&m, &tables, &mv);
    let flushes = m.mem.platform().take_flushes();
    assert_eq!(flushes.len(), 1);
    let flush = flushes[0].1;
    assert_eq!((flush.start, flush.end, flush.full), (BASE + PAGE_SIZE, BASE + 2 * PAGE_SIZE, false));
    m.finish(tables);
}

#[test]
fn room_on_one_side_only_is_not_enough() {
    let (old, new, len) = (BASE + PAGE_SIZE, TO + PAGE_SIZE, PMD_SIZE - 2 * PAGE_SIZE);
    let mv = a_move(old, new, len);
    assert!(!mv.moves_whole_tables());
    let here = (old, old + len);
    let there = (new, new + len);
    assert!(!mv.with_room(ALL, there).moves_whole_tables());
    assert!(!mv.with_room(here, ALL).moves_whole_tables());
    assert!(!mv.with_room((BASE + PAGE_SIZE, TASK_SIZE), ALL).moves_whole_tables());
    assert!(!mv.with_room(ALL, (0, TO + PMD_SIZE - PAGE_SIZE)).moves_whole_tables());
    let (from_slot, to_slot) = ((BASE, BASE + PMD_SIZE), (TO, TO + PMD_SIZE));
    let a_page_less = |(floor, ceiling)| [(floor + PAGE_SIZE, ceiling), (floor, ceiling - PAGE_SIZE)];
    for from in a_page_less(from_slot) {
        assert!(!mv.with_room(from, to_slot).moves_whole_tables());
    }
    for to in a_page_less(to_slot) {
        assert!(!mv.with_room(from_slot, to).moves_whole_tables());
    }
    assert!(mv.with_room(from_slot, to_slot).moves_whole_tables());
}

#[test]
fn the_last_table_of_user_space_can_move() {
    let m = Machine::new();
    let tables = m.tables();
    let old = TASK_SIZE - 3 * PAGE_SIZE;
    let new = BASE + old % PMD_SIZE;
    m.map(&tables, old, 1);
    m.map(&tables, old + 2 * PAGE_SIZE, 2);
    let mv = a_move(old, new, 3 * PAGE_SIZE).with_room(ALL, ALL);
    assert!(mv.moves_whole_tables());
    check_move(&m, &tables, &mv, old, new, 3 * PAGE_SIZE);
    let back = mv.reversed().unwrap();
    check_move(&m, &tables, &back, new, old, 3 * PAGE_SIZE);
    m.finish(tables);
}

#[test]
fn an_empty_table_left_at_the_destination_changes_places() {
    let m = Machine::new();
    let tables = m.tables();
    m.map(&tables, BASE, 5);
    tables.ensure(&m.mem, range(TO + PMD_SIZE, PAGE_SIZE)).unwrap();
    // CPU 1 gets to know the empty table.
    assert_eq!(m.read(&tables, 1, TO + PMD_SIZE), None);
    let left_behind = tables.make(&m.mem, TO + PMD_SIZE, Level::Pte).unwrap().table.pfn();
    let pages = tables.table_pages();
    let mv = a_move(BASE, TO + PMD_SIZE, PMD_SIZE);
    check_move(&m, &tables, &mv, BASE, TO + PMD_SIZE, PMD_SIZE);
    assert_eq!(tables.table_pages(), pages);
    let table = tables.make(&m.mem, BASE, Level::Pte).unwrap().table.pfn();
    assert_eq!(table, left_behind);
    m.finish(tables);
}

#[test]
fn what_the_caches_know_of_a_displaced_table_is_flushed() {
    let m = Machine::new();
    let tables = m.tables();
    m.map(&tables, BASE, 5);
    let new = TO + PMD_SIZE;
    let page = m.map(&tables, new, 6);
    assert_eq!(m.read(&tables, 1, new), Some(6));
    tables.lock_pte(&m.mem, new).unwrap().take();
    tables.flush(&m.mem, new, new + PAGE_SIZE, Event::FlushUnmap);
    m.mem.put(page);
    // Another page of that table brings the way there back into the cache.
    let other = m.map(&tables, new + PAGE_SIZE, 7);
    assert_eq!(m.read(&tables, 1, new + PAGE_SIZE), Some(7));
    let taken = tables.lock_pte(&m.mem, new + PAGE_SIZE).unwrap().take();
    assert_eq!(taken.pfn(), other);
    m.mem.platform().record_flushes();
    let mv = a_move(BASE, new, PMD_SIZE);
    run(&m, &tables, &mv);
    let flushed: Vec<usize> = m.mem.platform().take_flushes().iter().map(|f| f.1.start).collect();
    assert_eq!(flushed, [BASE, new]);
    assert_eq!(m.read(&tables, 1, new), Some(5));
    m.mem.put(other);
    m.finish(tables);
}

#[test]
fn a_huge_leaf_moves_as_one() {
    let m = Machine::new();
    let tables = m.tables();
    let block = m.map_huge(&tables, BASE + PMD_SIZE);
    m.map(&tables, BASE, 1);
    let mv = a_move(BASE, TO + 5 * PMD_SIZE, 2 * PMD_SIZE);
    check_move(&m, &tables, &mv, BASE, TO + 5 * PMD_SIZE, 2 * PMD_SIZE);
    let moved = tables.lookup(&m.mem, TO + 6 * PMD_SIZE).unwrap();
    assert!(moved.is_huge() && moved.pfn() == block);
    tables.verify(&m.mem, |_| {});
    m.finish(tables);
}

#[test]
fn a_huge_leaf_that_does_not_fit_is_split_and_moves_by_ptes() {
    let m = Machine::new();
    let tables = m.tables();
    m.map_huge(&tables, BASE);
    for cpu in 0..2 {
        assert_eq!(m.read(&tables, cpu, BASE + 2 * PAGE_SIZE), Some(2));
    }
    // A part of it, and to where it would not be aligned.
    let (old, new) = (BASE + PAGE_SIZE, TO);
    let mv = a_move(old, new, 8 * PAGE_SIZE);
    run(&m, &tables, &mv);
    for page in 0..8 {
        for cpu in 0..2 {
            assert_eq!(m.read(&tables, cpu, old + page * PAGE_SIZE), None);
            assert_eq!(m.read(&tables, cpu, new + page * PAGE_SIZE), Some(1 + page as u8));
        }
    }
    assert_eq!(m.read(&tables, 0, BASE), Some(0));
    assert_eq!(m.read(&tables, 0, BASE + 9 * PAGE_SIZE), Some(9));
    run(&m, &tables, &mv.reversed().unwrap());
    m.finish(tables);
}

#[test]
fn swap_entries_move_and_need_no_flush() {
    let m = Machine::new();
    let tables = m.tables();
    let swapped = Entry(0xabc0_0000_0000 | 2);
    tables.lock_pte_alloc(&m.mem, BASE).unwrap().set(swapped);
    let flushes = m.mem.platform().flushes();
    run(&m, &tables, &a_move(BASE, TO + PAGE_SIZE, PAGE_SIZE));
    assert_eq!(m.mem.platform().flushes(), flushes);
    assert_eq!(tables.lookup(&m.mem, BASE), None);
    assert_eq!(tables.lookup(&m.mem, TO + PAGE_SIZE), Some(swapped));
    m.finish(tables);
}

#[test]
fn pages_without_access_move() {
    let m = Machine::new();
    let tables = m.tables();
    m.map(&tables, BASE, 1);
    let hidden = tables
        .lock_pte(&m.mem, BASE)
        .unwrap()
        .update(|entry| entry.without(EntryFlags::PRESENT).with(EntryFlags::PROT_NONE));
    run(&m, &tables, &a_move(BASE, TO + PAGE_SIZE, PAGE_SIZE));
    let moved = tables.lookup(&m.mem, TO + PAGE_SIZE).unwrap();
    assert!(moved.maps_page() && moved.pfn() == hidden.pfn());
    assert_eq!(m.read(&tables, 0, TO + PAGE_SIZE), None);
    m.finish(tables);
}

#[test]
fn accessed_and_dirty_bits_move_along() {
    let m = Machine::new();
    let tables = m.tables();
    m.map(&tables, BASE, 1);
    assert!(m.can(&tables, 1, BASE, Access::Write));
    run(&m, &tables, &a_move(BASE, TO + PAGE_SIZE, PAGE_SIZE));
    let moved = tables.lookup(&m.mem, TO + PAGE_SIZE).unwrap();
    assert!(moved.is_accessed() && moved.is_dirty());
    m.finish(tables);
}

#[test]
fn nothing_mapped_needs_no_tables() {
    let m = Machine::new();
    let tables = m.tables();
    tables.ensure(&m.mem, range(BASE, PAGE_SIZE)).unwrap();
    let pages = tables.table_pages();
    let visited = run(&m, &tables, &a_move(BASE, TO + PAGE_SIZE, 100 * PUD_SIZE));
    assert_eq!(tables.table_pages(), pages);
    // The one PMD table that exists, twice, and holes of 1 GiB each.
    assert!(visited < 4000, "{visited} entries visited");
    m.finish(tables);
}

#[test]
fn an_empty_range_moves_nothing() {
    let m = Machine::new();
    let tables = m.tables();
    let mv = a_move(BASE, TO, 0);
    assert!(!mv.moves_whole_tables());
    assert_eq!(run(&m, &tables, &mv), 0);
    m.finish(tables);
}

#[test]
fn moving_back_restores_everything_at_each_level() {
    for (new, len) in [(TO, PUD_SIZE), (TO + 3 * PMD_SIZE, 4 * PMD_SIZE), (TO + PAGE_SIZE, 2 * PMD_SIZE)] {
        let m = Machine::new();
        let tables = m.tables();
        m.map_sparsely(&tables, BASE, len.min(8 * PMD_SIZE));
        let before = tables.leaves(&m.mem, range(BASE, len));
        let mv = a_move(BASE, new, len);
        run(&m, &tables, &mv);
        run(&m, &tables, &mv.reversed().unwrap());
        assert_eq!(tables.leaves(&m.mem, range(BASE, len)), before);
        assert_eq!(tables.leaves(&m.mem, range(new, len)), []);
        m.finish(tables);
    }
}

#[test]
fn an_aborted_move_frees_the_destination_tables() {
    let m = Machine::new();
    let tables = m.tables();
    m.map_sparsely(&tables, BASE, 3 * PMD_SIZE);
    let pages = tables.table_pages();
    let mv = a_move(BASE, TO + PUD_SIZE + PAGE_SIZE, 3 * PMD_SIZE).with_room(ALL, (BASE + PUD_SIZE, TASK_SIZE));
    tables.move_prepare(&m.mem, &mv).unwrap();
    assert!(tables.table_pages() > pages);
    tables.move_abort(&m.mem, &mv);
    assert_eq!(tables.table_pages(), pages);
    assert_eq!(m.read(&tables, 0, BASE), Some(0));
    m.finish(tables);
}

#[test]
fn a_failed_prepare_leaves_nothing_changed() {
    let m = Machine::new();
    let tables = m.tables();
    let len = 3 * PMD_SIZE;
    m.map_sparsely(&tables, BASE, len);
    let before = contents(&m, &tables, range(BASE, len));
    let (pages, free) = (tables.table_pages(), m.mem.free_frames());
    // Another entry of the root, so that tables of every level are needed.
    let new = BASE - 5 * crate::PGD_SIZE + PAGE_SIZE;
    let mv = a_move(BASE, new, len).with_room(ALL, (0, BASE));
    let mut failures = 0;
    loop {
        m.mem.fail_nth_allocation(failures + 1);
        match tables.move_prepare(&m.mem, &mv) {
            Ok(()) => break,
            Err(OutOfMemory) => failures += 1,
        }
        assert_eq!((tables.table_pages(), m.mem.free_frames()), (pages, free));
        assert_eq!(contents(&m, &tables, range(BASE, len)), before);
        assert_eq!(tables.leaves(&m.mem, range(new, len)), []);
    }
    // A PUD table, a PMD table, and four PTE tables, of which the last takes
    // nothing: the last page of the last source table is not mapped.
    m.mem.fail_nth_allocation(0);
    assert_eq!(failures, tables.table_pages() - pages);
    assert!(failures >= 5, "{failures} allocations");
    tables.move_commit(&m.mem, &mv);
    assert_eq!(contents(&m, &tables, range(new, len)), before);
    m.finish(tables);
}

#[test]
fn a_failed_prepare_leaves_a_huge_page_mapped() {
    let m = Machine::new();
    let tables = m.tables();
    m.map_huge(&tables, BASE);
    let pages = tables.table_pages();
    let mv = a_move(BASE, TO + PAGE_SIZE, PMD_SIZE);
    m.mem.fail_nth_allocation(1);
    assert!(tables.move_prepare(&m.mem, &mv).is_err());
    assert_eq!(tables.table_pages(), pages);
    for page in 0..512 {
        assert_eq!(m.read(&tables, 0, BASE + page * PAGE_SIZE), Some(page as u8));
    }
    m.finish(tables);
}

#[test]
fn a_stack_shifts_down_onto_itself() {
    for shift in [1, 3, 511, 512, 513, 1024] {
        let m = Machine::new();
        let tables = m.tables();
        let len = 2 * PMD_SIZE + 40 * PAGE_SIZE;
        let old = BASE + 5 * PMD_SIZE - 7 * PAGE_SIZE;
        let new = old - shift * PAGE_SIZE;
        for page in (0..len / PAGE_SIZE).step_by(3) {
            m.map(&tables, old + page * PAGE_SIZE, page as u8);
        }
        let before = contents(&m, &tables, range(old, len));
        let mv = a_move(old, new, len).with_room(ALL, ALL);
        assert!(!mv.moves_whole_tables());
        run(&m, &tables, &mv);
        assert_eq!(contents(&m, &tables, range(new, len)), before);
        let rest = range(new + len, shift * PAGE_SIZE);
        assert_eq!(tables.leaves(&m.mem, rest), []);
        m.finish(tables);
    }
}

#[test]
fn upwards_onto_itself_or_with_other_lengths_is_refused() {
    let old = range(BASE, 4 * PAGE_SIZE);
    assert!(TableMove::new(old, range(BASE + PAGE_SIZE, 4 * PAGE_SIZE)).is_none());
    assert!(TableMove::new(old, old).is_none());
    assert!(TableMove::new(old, range(TO, PAGE_SIZE)).is_none());
    assert!(TableMove::new(old, range(BASE - PAGE_SIZE, 4 * PAGE_SIZE)).is_some());
    // Which cannot be undone by another move.
    let shift = TableMove::new(old, range(BASE - PAGE_SIZE, 4 * PAGE_SIZE)).unwrap();
    assert!(shift.reversed().is_none());
}

#[test]
fn a_move_flushes_before_the_lock_is_dropped() {
    // Who locks the entry at the new address must find that no CPU writes
    // through the old one any more. The window is closed if the flush comes while
    // both tables are locked.
    let m = Machine::new();
    let tables = m.tables();
    m.map(&tables, BASE, 1);
    assert_eq!(m.read(&tables, 1, BASE), Some(1));
    let mv = a_move(BASE, TO + PAGE_SIZE, PAGE_SIZE);
    tables.move_prepare(&m.mem, &mv).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            sim::set_cpu(1);
            loop {
                let guard = tables.lock_pte(&m.mem, TO + PAGE_SIZE).unwrap();
                if !guard.get().is_empty() {
                    assert_eq!(m.read(&tables, 1, BASE), None);
                    break;
                }
                drop(guard);
                std::thread::yield_now();
            }
        });
        tables.move_commit(&m.mem, &mv);
    });
    m.finish(tables);
}

#[test]
fn an_aborted_move_onto_something_loses_no_table_and_no_page() {
    let m = Machine::new();
    let tables = m.tables();
    let len = 6 * PMD_SIZE;
    m.map_sparsely(&tables, BASE, len);
    let new = TO + PUD_SIZE + PAGE_SIZE;
    // The destination is mapped in part.
    m.map(&tables, new + 2 * PMD_SIZE, 77);
    let pages = tables.table_pages();
    let mv = a_move(BASE, new, len).with_room(ALL, (BASE + PUD_SIZE, TASK_SIZE));
    tables.move_prepare(&m.mem, &mv).unwrap();
    assert!(tables.table_pages() > pages + 4);
    tables.move_abort(&m.mem, &mv);
    assert_eq!(tables.table_pages(), pages);
    assert_eq!(contents(&m, &tables, range(BASE, len)).len(), 6);
    assert_eq!(m.read(&tables, 1, new + 2 * PMD_SIZE), Some(77));
    m.finish(tables);
}

#[test]
fn an_aborted_shift_frees_no_table_of_the_stack() {
    let m = Machine::new();
    let tables = m.tables();
    let (old, len) = (BASE + 2 * PMD_SIZE, 3 * PMD_SIZE);
    m.map_sparsely(&tables, old, len);
    let before = contents(&m, &tables, range(old, len));
    let mv = a_move(old, old - PMD_SIZE, len);
    let pages = tables.table_pages();
    tables.move_prepare(&m.mem, &mv).unwrap();
    assert_eq!(tables.table_pages(), pages + 1);
    tables.move_abort(&m.mem, &mv);
    assert_eq!(tables.table_pages(), pages);
    assert_eq!(contents(&m, &tables, range(old, len)), before);
    m.finish(tables);
}

#[test]
fn a_move_may_be_prepared_while_the_destination_is_mapped() {
    for offset in [0, PAGE_SIZE] {
        let m = Machine::new();
        let tables = m.tables();
        let (new, len) = (TO + offset, 2 * PMD_SIZE);
        m.map_sparsely(&tables, BASE, len);
        let before = contents(&m, &tables, range(BASE, len));
        // A huge page among it, where tables will be needed.
        m.map_huge(&tables, TO + PMD_SIZE);
        m.map(&tables, TO + PAGE_SIZE, 9);
        let mv = a_move(BASE, new, len).with_room(ALL, (BASE + PUD_SIZE, TASK_SIZE));
        tables.move_prepare(&m.mem, &mv).unwrap();
        assert_eq!(m.read(&tables, 0, TO + PMD_SIZE + 5 * PAGE_SIZE), Some(5));
        assert_eq!(m.read(&tables, 0, TO + PAGE_SIZE), Some(9));
        m.unmap_all(&tables, range(TO, 3 * PMD_SIZE));
        tables.move_commit(&m.mem, &mv);
        assert_eq!(contents(&m, &tables, range(new, len)), before);
        assert_eq!(tables.leaves(&m.mem, range(BASE, len)), []);
        m.finish(tables);
    }
}
