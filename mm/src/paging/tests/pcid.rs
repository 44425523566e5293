//! What a CPU is told to load and to flush. Whether that is right is for the
//! TLBs of `space/tests/switching.rs` to show.

use super::*;

const CPU: usize = 0;

fn cpu() -> CpuTlb {
    let cpu = CpuTlb::new();
    cpu.use_pcids();
    cpu
}

/// A machine with so many page tables.
fn machine(count: usize) -> (Machine, Vec<PageTables>) {
    let m = Machine::new();
    let tables = (0..count).map(|_| PageTables::new(&m.mem).unwrap()).collect();
    (m, tables)
}

/// The next flush of a page, as it is sent to CPUs; and those.
fn next(tables: &PageTables) -> (CpuSet, TlbFlush) {
    tables.next_flush(BASE, BASE + PAGE_SIZE, false)
}

/// Has `cpu` switch from one to the other; whether it keeps translations.
fn switch(cpu: &CpuTlb, from: &PageTables, to: &PageTables) -> bool {
    let load = to.enter(CPU, cpu);
    assert_eq!(load.root, to.root());
    from.leave(CPU, cpu);
    load.keep
}

#[test]
fn what_comes_back_is_kept_under_its_pcid() {
    let (_m, tables) = machine(2);
    let cpu = cpu();
    let first = tables[0].enter(CPU, &cpu);
    assert!(!first.keep && first.pcid != 0);
    assert!(!switch(&cpu, &tables[0], &tables[1]));
    let again = tables[0].enter(CPU, &cpu);
    assert_eq!(again, RootLoad { keep: true, ..first });
}

#[test]
fn without_pcids_every_load_flushes() {
    let (_m, tables) = machine(2);
    let cpu = CpuTlb::new();
    for tables in [&tables[0], &tables[1], &tables[0], &tables[0]] {
        assert_eq!(tables.enter(CPU, &cpu), RootLoad { root: tables.root(), pcid: 0, keep: false });
    }
    assert_eq!(cpu.flush(&next(&tables[0]).1), CpuFlush::Pages);
    assert_eq!(cpu.flush(&next(&tables[1]).1), CpuFlush::Nothing);
    tables[0].leave(CPU, &cpu);
    assert_eq!(cpu.flush(&next(&tables[0]).1), CpuFlush::Nothing);
}

#[test]
fn a_flush_that_goes_past_the_cpu_is_made_up_for_at_the_load() {
    let (_m, tables) = machine(2);
    let cpu = cpu();
    tables[0].enter(CPU, &cpu);
    switch(&cpu, &tables[0], &tables[1]);
    assert_eq!(next(&tables[0]).0, CpuSet::EMPTY);
    assert!(!switch(&cpu, &tables[1], &tables[0]));
    switch(&cpu, &tables[0], &tables[1]);
    assert!(switch(&cpu, &tables[1], &tables[0]), "once is enough");
}

#[test]
fn a_flush_that_comes_too_late_is_made_up_for_at_the_load() {
    let (_m, tables) = machine(2);
    let cpu = cpu();
    tables[0].enter(CPU, &cpu);
    let (targets, flush) = next(&tables[0]);
    assert_eq!(targets, CpuSet::single(CPU));
    switch(&cpu, &tables[0], &tables[1]);
    assert_eq!(cpu.flush(&flush), CpuFlush::Nothing);
    assert!(!switch(&cpu, &tables[1], &tables[0]));
}

#[test]
fn a_flush_that_comes_after_the_load_has_nothing_left_to_do() {
    let (_m, tables) = machine(1);
    let cpu = cpu();
    tables[0].enter(CPU, &cpu);
    let (_, flush) = next(&tables[0]);
    tables[0].leave(CPU, &cpu);
    assert!(!tables[0].enter(CPU, &cpu).keep);
    assert_eq!(cpu.flush(&flush), CpuFlush::Nothing);
}

#[test]
fn flushes_in_turn_are_of_pages_or_all_and_keep_the_slot_up_to_date() {
    let (_m, tables) = machine(2);
    let cpu = cpu();
    tables[0].enter(CPU, &cpu);
    assert_eq!(cpu.flush(&next(&tables[0]).1), CpuFlush::Pages);
    assert_eq!(cpu.flush(&tables[0].next_flush(BASE, BASE + PUD_SIZE, true).1), CpuFlush::All);
    assert_eq!(cpu.flush(&next(&tables[0]).1), CpuFlush::Pages);
    switch(&cpu, &tables[0], &tables[1]);
    assert!(switch(&cpu, &tables[1], &tables[0]));
}

#[test]
fn a_flush_that_overtakes_another_one_does_its_work() {
    let (_m, tables) = machine(1);
    let cpu = cpu();
    tables[0].enter(CPU, &cpu);
    let flushes = [next(&tables[0]).1, next(&tables[0]).1, next(&tables[0]).1];
    assert_eq!(cpu.flush(&flushes[1]), CpuFlush::All);
    assert_eq!(cpu.flush(&flushes[0]), CpuFlush::Nothing);
    assert_eq!(cpu.flush(&flushes[2]), CpuFlush::Pages);
}

#[test]
fn nothing_is_flushed_under_the_pcid_of_the_kernel() {
    let (_m, tables) = machine(1);
    let cpu = cpu();
    tables[0].enter(CPU, &cpu);
    let (_, flush) = next(&tables[0]);
    tables[0].leave(CPU, &cpu);
    assert_eq!(cpu.flush(&flush), CpuFlush::Nothing);
    assert!(!tables[0].enter(CPU, &cpu).keep);
}

#[test]
fn with_as_many_as_there_are_pcids_all_are_kept_and_one_more_takes_the_oldest() {
    let (_m, tables) = machine(8);
    let cpu = cpu();
    let pcids: Vec<_> = tables[..7].iter().map(|tables| tables.enter(CPU, &cpu).pcid).collect();
    assert_eq!(pcids, [1, 2, 3, 4, 5, 6, 7]);
    for (tables, &pcid) in tables[..7].iter().zip(&pcids) {
        assert_eq!(tables.enter(CPU, &cpu), RootLoad { root: tables.root(), pcid, keep: true });
    }
    assert_eq!(tables[7].enter(CPU, &cpu), RootLoad { root: tables[7].root(), pcid: 1, keep: false });
    assert!(tables[1].enter(CPU, &cpu).keep);
    // That of the second is next, but loaded.
    assert_eq!(tables[0].enter(CPU, &cpu), RootLoad { root: tables[0].root(), pcid: 3, keep: false });
}

#[test]
fn page_tables_in_the_frame_of_others_keep_nothing() {
    let m = Machine::new();
    let cpu = cpu();
    let first = PageTables::new(&m.mem).unwrap();
    let root = first.root();
    first.enter(CPU, &cpu);
    first.leave(CPU, &cpu);
    first.destroy(&m.mem);
    let second = PageTables::new(&m.mem).unwrap();
    assert_eq!(second.root(), root);
    assert!(!second.enter(CPU, &cpu).keep);
}
