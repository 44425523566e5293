use super::*;

#[test]
fn without_a_flush_the_old_translation_stays_visible() {
    let m = Machine::new();
    let tables = m.tables();
    let page = m.map(&tables, BASE, 7);
    assert_eq!(m.read(&tables, 1, BASE), Some(7));
    let mut gather = TlbGather::new(&m.mem, &tables, Event::FlushUnmap);
    tables.lock_pte(&m.mem, BASE).unwrap().take();
    gather.changed(BASE);
    gather.release(page);
    assert_eq!(m.read(&tables, 1, BASE), Some(7), "the simulation is too kind");
    assert_eq!(m.read(&tables, 0, BASE), None);
    drop(gather);
    assert_eq!(m.read(&tables, 1, BASE), None);
    m.finish(tables);
}

#[test]
fn frames_are_not_reused_before_the_flush() {
    let m = Machine::new();
    let tables = m.tables();
    let page = m.map(&tables, BASE, 7);
    let mut gather = TlbGather::new(&m.mem, &tables, Event::FlushUnmap);
    tables.lock_pte(&m.mem, BASE).unwrap().take();
    gather.changed(BASE);
    gather.release(page);
    assert_eq!(m.mem.frame(page).kind(), FrameKind::Anon);
    assert_eq!(m.mem.frame(page).refcount(), 1);
    drop(gather);
    assert_eq!(m.mem.frame(page).kind(), FrameKind::Free);
    m.finish(tables);
}

#[test]
fn a_frame_that_others_refer_to_survives() {
    let m = Machine::new();
    let tables = m.tables();
    let page = m.map(&tables, BASE, 7);
    m.mem.get(page);
    let mut gather = TlbGather::new(&m.mem, &tables, Event::FlushUnmap);
    tables.lock_pte(&m.mem, BASE).unwrap().take();
    gather.changed(BASE);
    gather.release(page);
    drop(gather);
    assert_eq!(m.mem.frame(page).refcount(), 1);
    m.mem.put(page);
    m.finish(tables);
}

#[test]
fn dropping_it_flushes_and_releases() {
    let m = Machine::new();
    let tables = m.tables();
    let page = m.map(&tables, BASE, 7);
    assert_eq!(m.read(&tables, 1, BASE), Some(7));
    {
        let mut gather = TlbGather::new(&m.mem, &tables, Event::FlushUnmap);
        tables.lock_pte(&m.mem, BASE).unwrap().take();
        gather.changed(BASE);
        gather.release(page);
    }
    assert_eq!(m.read(&tables, 1, BASE), None);
    assert_eq!(m.mem.count_frames(FrameKind::Anon), 0);
    m.finish(tables);
}

#[test]
fn one_operation_is_one_flush_of_the_hull_of_what_changed() {
    let m = Machine::new();
    let tables = m.tables();
    let changed = [BASE + 9 * PAGE_SIZE, BASE + 3 * PAGE_SIZE];
    m.mem.platform().record_flushes();
    let mut gather = TlbGather::new(&m.mem, &tables, Event::FlushUnmap);
    for addr in changed {
        gather.changed(addr);
    }
    drop(gather);
    let (start, end) = (BASE + 3 * PAGE_SIZE, BASE + 10 * PAGE_SIZE);
    let (root, context) = (tables.root(), tables.context.load(Ordering::Relaxed));
    let expected = TlbFlush { root, context, generation: 1, start, end, full: false };
    assert_eq!(m.mem.platform().take_flushes(), [(CpuSet(0b11), expected)]);
    m.finish(tables);
}

#[test]
fn over_the_threshold_all_is_flushed() {
    let m = Machine::new();
    let tables = m.tables();
    for (pages, full) in [(FULL_FLUSH_PAGES, false), (FULL_FLUSH_PAGES + 1, true)] {
        m.mem.platform().record_flushes();
        let mut gather = TlbGather::new(&m.mem, &tables, Event::FlushUnmap);
        gather.changed_range(BASE, BASE + pages * PAGE_SIZE);
        drop(gather);
        assert_eq!(m.mem.platform().take_flushes()[0].1.full, full);
    }
    m.finish(tables);
}

#[test]
fn nothing_is_flushed_when_nothing_changed_or_nobody_uses_the_tables() {
    let m = Machine::new();
    let tables = m.tables();
    let before = m.mem.platform().flushes();
    drop(TlbGather::new(&m.mem, &tables, Event::FlushUnmap));
    tables.deactivate(0);
    tables.deactivate(1);
    let mut gather = TlbGather::new(&m.mem, &tables, Event::FlushUnmap);
    gather.changed(BASE);
    drop(gather);
    assert_eq!(m.mem.platform().flushes(), before);
    m.finish(tables);
}

#[test]
fn only_cpus_that_use_the_tables_are_bothered() {
    let m = Machine::new();
    let tables = m.tables();
    tables.deactivate(0);
    m.mem.platform().record_flushes();
    let mut gather = TlbGather::new(&m.mem, &tables, Event::FlushUnmap);
    gather.changed(BASE);
    drop(gather);
    assert_eq!(m.mem.platform().take_flushes()[0].0, CpuSet::single(1));
    m.finish(tables);
}

/// Maps `count` pages, unmaps them all into one gather, and returns the number of flushes.
fn flushes_to_unmap(m: &Machine, count: usize) -> usize {
    let tables = m.tables();
    let span = range(BASE, count * PAGE_SIZE);
    for page in 0..count {
        m.map(&tables, BASE + page * PAGE_SIZE, 1);
        assert_eq!(m.read(&tables, 1, BASE + page * PAGE_SIZE), Some(1));
    }
    let before = m.mem.platform().flushes();
    let mut gather = TlbGather::new(&m.mem, &tables, Event::FlushUnmap);
    tables.visit(&m.mem, span, |addr, slot| {
        let page = slot.take().pfn();
        gather.changed(addr);
        gather.release(page);
        // Released or not: no frame is free while a CPU can get at it.
        if m.mem.frame(page).kind() == FrameKind::Free {
            assert_eq!(m.read(&tables, 1, addr), None);
        }
    });
    drop(gather);
    let flushes = m.mem.platform().flushes() - before;
    for page in 0..count {
        assert_eq!(m.read(&tables, 1, BASE + page * PAGE_SIZE), None);
    }
    m.finish(tables);
    flushes
}

#[test]
fn many_frames_are_released_with_few_flushes() {
    assert_eq!(flushes_to_unmap(&Machine::new(), 500), 1);
    assert_eq!(flushes_to_unmap(&Machine::new(), 1300), 3);
}

#[test]
fn without_memory_for_a_larger_batch_it_flushes_more_often() {
    let m = Machine::new();
    let tables = m.tables();
    for page in 0..100 {
        m.map(&tables, BASE + page * PAGE_SIZE, 1);
    }
    let before = m.mem.platform().flushes();
    let mut gather = TlbGather::new(&m.mem, &tables, Event::FlushUnmap);
    m.mem.fail_nth_allocation(1);
    tables.visit(&m.mem, range(BASE, PMD_SIZE), |addr, slot| {
        gather.changed(addr);
        gather.release(slot.take().pfn());
    });
    drop(gather);
    assert_eq!(m.mem.platform().flushes() - before, 2);
    assert_eq!(m.mem.count_frames(FrameKind::Anon), 0);
    m.finish(tables);
}
