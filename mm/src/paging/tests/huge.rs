use super::*;

impl Machine {
    /// Maps a huge page of 2 MiB whose n-th small page starts with byte `n`,
    /// and returns its first frame. `finish` frees it.
    pub(super) fn map_huge(&self, tables: &PageTables, addr: usize) -> Pfn {
        let first = self.mem.alloc_singly(FrameKind::Anon, HUGE_ORDER, true).unwrap();
        for i in 0..ENTRIES {
            // SAFETY: the block is ours and nobody else knows it yet.
            unsafe { self.mem.page_ptr(Pfn(first.0 + i)).write(i as u8) };
        }
        let spare = self.mem.alloc_table().unwrap();
        let leaf = Entry::leaf(first, PAGE_FLAGS | EntryFlags::HUGE);
        assert_eq!(tables.install_huge(&self.mem, addr, leaf, spare), Ok(true));
        first
    }

    /// Takes everything in `span` out again.
    pub(super) fn unmap_all(&self, tables: &PageTables, span: PageRange) {
        let mut gather = TlbGather::new(&self.mem, tables, Event::FlushUnmap);
        tables.visit_runs(&self.mem, span, |run| {
            gather.changed_range(run.start(), run.end());
            let entries: Vec<Entry> = match run.is_huge() {
                true => vec![tables.take_huge(&self.mem, run)],
                false => run.slots().map(|(_, slot)| slot.take()).collect(),
            };
            entries
                .iter()
                .filter(|entry| entry.maps_page())
                .flat_map(|entry| entry.pfns())
                .for_each(|pfn| gather.release(pfn));
        });
    }
}

#[test]
fn a_huge_leaf_is_found_visited_and_locked_as_one() {
    let m = Machine::new();
    let tables = m.tables();
    let block = m.map_huge(&tables, BASE);
    let inside = BASE + 77 * PAGE_SIZE;
    assert_eq!(m.read(&tables, 0, inside), Some(77));
    assert!(tables.lookup(&m.mem, inside).unwrap().is_huge());
    let leaves = tables.leaves(&m.mem, range(inside, PAGE_SIZE));
    assert_eq!(leaves.len(), 1);
    assert_eq!((leaves[0].0, leaves[0].1.pfn()), (BASE, block));
    let guard = tables.lock_pte(&m.mem, inside).unwrap();
    assert_eq!(guard.size(), PMD_SIZE);
    assert_eq!(guard.get().pfn(), block);
    drop(guard);
    let guard = tables.lock_pte_alloc(&m.mem, inside).unwrap();
    assert_eq!(guard.get().pfn(), block);
    drop(guard);
    m.finish(tables);
}

#[test]
fn a_split_maps_the_same_frames_in_the_same_way() {
    let m = Machine::new();
    let tables = m.tables();
    let block = m.map_huge(&tables, BASE);
    assert_eq!(m.read(&tables, 1, BASE + 3 * PAGE_SIZE), Some(3));
    tables.split_leaf(&m.mem, BASE + 3 * PAGE_SIZE);
    assert_eq!(tables.table_pages(), 4);
    let leaves = tables.leaves(&m.mem, range(BASE, PMD_SIZE));
    assert_eq!(leaves.len(), ENTRIES);
    for (i, (addr, entry)) in leaves.into_iter().enumerate() {
        assert_eq!((addr, entry.pfn()), (BASE + i * PAGE_SIZE, Pfn(block.0 + i)));
        assert!(!entry.is_huge() && entry.flags().contains(PAGE_FLAGS));
        assert!(entry.is_accessed(), "hardware's bits are inherited");
        assert_eq!(m.read(&tables, 1, addr), Some(i as u8));
    }
    m.finish(tables);
}

#[test]
fn a_split_flushes_the_huge_translation() {
    let m = Machine::new();
    let tables = m.tables();
    m.map_huge(&tables, BASE);
    assert_eq!(m.read(&tables, 1, BASE), Some(0));
    tables.split_leaf(&m.mem, BASE);
    // A stale huge translation would outlive a flush of one page only if it
    // were still there.
    tables.lock_pte(&m.mem, BASE + PAGE_SIZE).unwrap().update(|e| e.without(EntryFlags::PRESENT));
    assert_eq!(m.read(&tables, 1, BASE + PAGE_SIZE), None);
    tables.lock_pte(&m.mem, BASE + PAGE_SIZE).unwrap().update(|e| e.with(EntryFlags::PRESENT));
    m.finish(tables);
}

#[test]
fn a_split_needs_no_memory() {
    let m = Machine::new();
    let tables = m.tables();
    m.map_huge(&tables, BASE);
    let (pages, free) = (tables.table_pages(), m.mem.free_frames());
    tables.split_leaf(&m.mem, BASE);
    assert!(!tables.lookup(&m.mem, BASE).unwrap().is_huge());
    assert_eq!((tables.table_pages(), tables.huge_leaves(), m.mem.free_frames()), (pages, 0, free));
    m.finish(tables);
}

#[test]
fn each_leaf_of_a_table_has_a_spare() {
    let m = Machine::new();
    let tables = m.tables();
    for i in 0..3 {
        m.map_huge(&tables, BASE + i * PMD_SIZE);
    }
    tables.verify(&m.mem, |_| {});
    assert_eq!((tables.huge_leaves(), tables.table_pages()), (3, 3 + 3));
    tables.split_leaf(&m.mem, BASE + PMD_SIZE);
    tables.verify(&m.mem, |_| {});
    m.unmap_all(&tables, range(BASE, PMD_SIZE));
    tables.verify(&m.mem, |_| {});
    assert_eq!((tables.huge_leaves(), tables.table_pages()), (1, 3 + 1 + 1));
    m.finish(tables);
}

#[test]
fn a_leaf_is_not_put_where_a_table_is() {
    let m = Machine::new();
    let tables = m.tables();
    m.map(&tables, BASE, 1);
    let free = m.mem.free_frames();
    let spare = m.mem.alloc_table().unwrap();
    let leaf = Entry::leaf(Pfn(512), PAGE_FLAGS | EntryFlags::HUGE);
    assert_eq!(tables.install_huge(&m.mem, BASE, leaf, spare), Ok(false));
    assert_eq!(m.mem.free_frames(), free);
    assert_eq!(m.read(&tables, 0, BASE), Some(1));
    m.finish(tables);
}

#[test]
fn only_what_has_an_end_of_the_range_inside_is_split() {
    let m = Machine::new();
    let tables = m.tables();
    for i in 0..4 {
        m.map_huge(&tables, BASE + i * PMD_SIZE);
    }
    tables.split_ends(&m.mem, range(BASE + PMD_SIZE, PMD_SIZE));
    assert_eq!(tables.huge_leaves(), 4);
    tables.split_ends(&m.mem, range(BASE + PAGE_SIZE, 2 * PMD_SIZE));
    let is_huge = |i: usize| tables.lookup(&m.mem, BASE + i * PMD_SIZE).unwrap().is_huge();
    assert_eq!([0, 1, 2, 3].map(is_huge), [false, true, false, true]);
    m.finish(tables);
}

#[test]
fn a_table_is_collapsed_out_of_reach_of_the_tlbs() {
    let m = Machine::new();
    let tables = m.tables();
    let small = m.map(&tables, BASE + 3 * PAGE_SIZE, 7);
    assert_eq!(m.read(&tables, 1, BASE + 3 * PAGE_SIZE), Some(7));
    let pages = tables.table_pages();
    let first = m.mem.alloc_singly(FrameKind::Anon, HUGE_ORDER, true).unwrap();
    let leaf = Entry::leaf(first, PAGE_FLAGS | EntryFlags::HUGE);
    let collapsed = tables.collapse(&m.mem, BASE, |run| {
        assert_eq!(run.entries().count(), ENTRIES);
        assert_eq!(m.read(&tables, 1, BASE + 3 * PAGE_SIZE), None, "a program still has the page");
        // SAFETY: the frame is new and ours.
        unsafe { m.mem.page_ptr(Pfn(first.0 + 3)).write(8) };
        run.slots().for_each(|(_, slot)| m.mem.put(slot.take().pfn()));
        Some(leaf)
    });
    assert!(collapsed);
    assert_eq!((tables.huge_leaves(), tables.table_pages()), (1, pages));
    assert_eq!(m.read(&tables, 1, BASE + 3 * PAGE_SIZE), Some(8));
    assert_eq!(m.mem.frame(small).refcount(), 0);
    tables.verify(&m.mem, |_| {});
    m.finish(tables);
}

#[test]
fn what_is_not_collapsed_is_as_before() {
    let m = Machine::new();
    let tables = m.tables();
    m.map(&tables, BASE, 7);
    assert!(!tables.collapse(&m.mem, BASE, |_| None));
    assert!(!tables.collapse(&m.mem, BASE + PMD_SIZE, |_| panic!("there is no table")));
    assert_eq!(m.read(&tables, 1, BASE), Some(7));
    m.map_huge(&tables, BASE + PMD_SIZE);
    assert!(!tables.collapse(&m.mem, BASE + PMD_SIZE, |_| panic!("there is a leaf")));
    tables.verify(&m.mem, |_| {});
    m.finish(tables);
}

#[test]
fn splitting_small_pages_or_nothing_does_nothing() {
    let m = Machine::new();
    let tables = m.tables();
    m.map(&tables, BASE, 1);
    tables.split_leaf(&m.mem, BASE);
    tables.split_leaf(&m.mem, BASE + PUD_SIZE);
    assert_eq!(tables.table_pages(), 4);
    m.finish(tables);
}
