use super::*;
use crate::TASK_SIZE;

/// Tables for one page at each address; unmapped again at once.
fn empty_tables(m: &Machine, addrs: &[usize]) -> PageTables {
    let tables = m.tables();
    for &addr in addrs {
        tables.ensure(&m.mem, range(addr, PAGE_SIZE)).unwrap();
    }
    tables
}

fn free(m: &Machine, tables: &PageTables, span: PageRange, floor: usize, ceiling: usize) -> usize {
    let before = tables.table_pages();
    let mut gather = TlbGather::new(&m.mem, tables, Event::FlushUnmap);
    tables.free_tables(&m.mem, span, floor, ceiling, &mut gather);
    drop(gather);
    assert_eq!(m.mem.count_frames(FrameKind::Table), tables.table_pages());
    before - tables.table_pages()
}

#[test]
fn without_neighbours_all_tables_of_a_page_go() {
    let m = Machine::new();
    let tables = empty_tables(&m, &[BASE]);
    assert_eq!(free(&m, &tables, range(BASE, PAGE_SIZE), 0, TASK_SIZE), 3);
    m.finish(tables);
}

#[test]
fn the_last_table_of_user_space_goes_too() {
    let m = Machine::new();
    let last = TASK_SIZE - PAGE_SIZE;
    let tables = empty_tables(&m, &[last]);
    assert_eq!(free(&m, &tables, range(last, PAGE_SIZE), 0, TASK_SIZE), 3);
    m.finish(tables);
}

#[test]
fn a_neighbour_below_in_the_same_table_keeps_it() {
    let m = Machine::new();
    let page = BASE + 5 * PAGE_SIZE;
    let tables = empty_tables(&m, &[page]);
    assert_eq!(free(&m, &tables, range(page, PAGE_SIZE), page, TASK_SIZE), 0);
    assert_eq!(free(&m, &tables, range(page, PAGE_SIZE), BASE + PAGE_SIZE, TASK_SIZE), 0);
    // One that ends where the table begins does not; and since it is the first
    // of the tables above it, those go too.
    assert_eq!(free(&m, &tables, range(page, PAGE_SIZE), BASE, TASK_SIZE), 3);
    let page = BASE + PMD_SIZE;
    tables.ensure(&m.mem, range(page, PAGE_SIZE)).unwrap();
    assert_eq!(free(&m, &tables, range(page, PAGE_SIZE), page, TASK_SIZE), 1);
    m.finish(tables);
}

#[test]
fn a_neighbour_above_in_the_same_table_keeps_it() {
    let m = Machine::new();
    let tables = empty_tables(&m, &[BASE]);
    let page = range(BASE, PAGE_SIZE);
    assert_eq!(free(&m, &tables, page, 0, BASE + PAGE_SIZE), 0);
    assert_eq!(free(&m, &tables, page, 0, BASE + PMD_SIZE - PAGE_SIZE), 0);
    assert_eq!(free(&m, &tables, page, 0, BASE + PMD_SIZE), 1);
    assert_eq!(free(&m, &tables, page, 0, BASE + PUD_SIZE), 1);
    assert_eq!(free(&m, &tables, page, 0, TASK_SIZE), 1);
    m.finish(tables);
}

#[test]
fn only_tables_in_the_way_of_the_range_go() {
    let m = Machine::new();
    let tables = empty_tables(&m, &[BASE, BASE + PMD_SIZE, BASE + 2 * PMD_SIZE]);
    let middle = range(BASE + PMD_SIZE, PMD_SIZE);
    assert_eq!(free(&m, &tables, middle, BASE + PMD_SIZE, BASE + 2 * PMD_SIZE), 1);
    assert!(tables.lock_pte(&m.mem, BASE).is_some());
    assert!(tables.lock_pte(&m.mem, BASE + PMD_SIZE).is_none());
    assert!(tables.lock_pte(&m.mem, BASE + 2 * PMD_SIZE).is_some());
    m.finish(tables);
}

#[test]
fn tables_beyond_the_range_stay_though_they_are_below_the_ceiling() {
    let m = Machine::new();
    let tables = empty_tables(&m, &[BASE, BASE + PMD_SIZE]);
    let page = range(BASE, PAGE_SIZE);
    assert_eq!(free(&m, &tables, page, 0, BASE + 2 * PMD_SIZE), 1);
    assert!(tables.lock_pte(&m.mem, BASE + PMD_SIZE).is_some());
    m.finish(tables);
}

#[test]
fn a_range_over_many_tables_frees_them_all() {
    let m = Machine::new();
    let tables = m.tables();
    let span = range(BASE + PUD_SIZE - 3 * PMD_SIZE, 70 * PMD_SIZE);
    tables.ensure(&m.mem, span).unwrap();
    assert_eq!(free(&m, &tables, span, 0, TASK_SIZE), 70 + 2 + 1);
    m.finish(tables);
}

#[test]
fn an_empty_range_frees_nothing() {
    let m = Machine::new();
    let tables = empty_tables(&m, &[BASE]);
    assert_eq!(free(&m, &tables, range(BASE, 0), 0, TASK_SIZE), 0);
    m.finish(tables);
}

#[test]
fn huge_leaves_are_no_tables() {
    let m = Machine::new();
    let tables = m.tables();
    let huge = m.map_huge(&tables, BASE);
    assert_eq!(free(&m, &tables, range(BASE, PMD_SIZE), BASE, BASE + PMD_SIZE), 0);
    assert_eq!(tables.lookup(&m.mem, BASE).unwrap().pfn(), huge);
    m.finish(tables);
}

#[test]
fn freed_tables_are_unreachable_through_the_paging_structure_caches() {
    let m = Machine::new();
    let tables = m.tables();
    let page = m.map(&tables, BASE, 1);
    // CPU 1 remembers the tables on the way.
    assert_eq!(m.read(&tables, 1, BASE), Some(1));
    let mut gather = TlbGather::new(&m.mem, &tables, Event::FlushUnmap);
    tables.lock_pte(&m.mem, BASE).unwrap().take();
    gather.changed(BASE);
    gather.release(page);
    tables.free_tables(&m.mem, range(BASE, PAGE_SIZE), 0, TASK_SIZE, &mut gather);
    // Not one of them may be reused yet.
    assert_eq!(m.mem.count_frames(FrameKind::Table), 4);
    drop(gather);
    assert_eq!(m.mem.count_frames(FrameKind::Table), 1);
    // A walk that goes on in a freed table would panic.
    assert_eq!(m.read(&tables, 1, BASE + PAGE_SIZE), None);
    m.finish(tables);
}

#[test]
fn tables_are_flushed_even_if_no_page_was_mapped() {
    let m = Machine::new();
    let tables = empty_tables(&m, &[BASE]);
    // The fault itself leaves nothing for that address, but the tables above stay.
    assert_eq!(m.read(&tables, 1, BASE), None);
    m.mem.platform().record_flushes();
    free(&m, &tables, range(BASE, PAGE_SIZE), 0, TASK_SIZE);
    let flushes = m.mem.platform().take_flushes();
    assert_eq!(flushes.len(), 1);
    assert_eq!(flushes[0].0, CpuSet(0b11));
    assert!(!flushes[0].1.full);
    m.finish(tables);
}
