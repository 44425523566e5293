use super::*;

impl Machine {
    /// Maps a huge page of 2 MiB whose n-th small page starts with byte `n`,
    /// and returns its first frame. `finish` frees it.
    pub(super) fn map_huge(&self, tables: &PageTables, addr: usize) -> Pfn {
        let block = self.mem.alloc(FrameKind::Anon, 9).unwrap().into_raw();
        for i in 0..ENTRIES {
            // SAFETY: the block is ours and nobody else knows it yet.
            unsafe { self.mem.page_ptr(Pfn(block.0 + i)).write(i as u8) };
        }
        let slot = tables.make(&self.mem, addr, Level::Pmd).unwrap().table.slot(addr);
        slot.set(Entry::leaf(block, PAGE_FLAGS | EntryFlags::HUGE));
        block
    }

    /// Takes the small pages that a huge page was split into out again, so that
    /// its block is freed as one.
    pub(super) fn unmap_split(&self, tables: &PageTables, span: PageRange) {
        let mut first = None;
        tables.visit(&self.mem, span, |_, slot| {
            let entry = slot.take();
            first.get_or_insert(entry.pfn());
        });
        tables.flush(&self.mem, span.start(), span.end(), Event::FlushUnmap);
        self.mem.put(first.unwrap());
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
    assert_eq!((guard.level(), guard.size()), (Level::Pmd, PMD_SIZE));
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
    tables.split(&m.mem, BASE + 3 * PAGE_SIZE).unwrap();
    assert_eq!(tables.table_pages(), 4);
    let leaves = tables.leaves(&m.mem, range(BASE, PMD_SIZE));
    assert_eq!(leaves.len(), ENTRIES);
    for (i, (addr, entry)) in leaves.into_iter().enumerate() {
        assert_eq!((addr, entry.pfn()), (BASE + i * PAGE_SIZE, Pfn(block.0 + i)));
        assert!(!entry.is_huge() && entry.flags().contains(PAGE_FLAGS));
        assert!(entry.is_accessed(), "hardware's bits are inherited");
        assert_eq!(m.read(&tables, 1, addr), Some(i as u8));
    }
    m.unmap_split(&tables, range(BASE, PMD_SIZE));
    m.finish(tables);
}

#[test]
fn a_split_flushes_the_huge_translation() {
    let m = Machine::new();
    let tables = m.tables();
    m.map_huge(&tables, BASE);
    assert_eq!(m.read(&tables, 1, BASE), Some(0));
    tables.split(&m.mem, BASE).unwrap();
    // A stale huge translation would outlive a flush of one page only if it
    // were still there.
    tables.lock_pte(&m.mem, BASE + PAGE_SIZE).unwrap().update(|e| e.without(EntryFlags::PRESENT));
    assert_eq!(m.read(&tables, 1, BASE + PAGE_SIZE), None);
    tables.lock_pte(&m.mem, BASE + PAGE_SIZE).unwrap().update(|e| e.with(EntryFlags::PRESENT));
    m.unmap_split(&tables, range(BASE, PMD_SIZE));
    m.finish(tables);
}

#[test]
fn without_a_frame_for_the_table_nothing_is_split() {
    let m = Machine::new();
    let tables = m.tables();
    m.map_huge(&tables, BASE);
    m.mem.fail_nth_allocation(1);
    assert_eq!(tables.split(&m.mem, BASE), Err(OutOfMemory));
    assert!(tables.lookup(&m.mem, BASE).unwrap().is_huge());
    m.finish(tables);
}

#[test]
fn splitting_small_pages_or_nothing_does_nothing() {
    let m = Machine::new();
    let tables = m.tables();
    m.map(&tables, BASE, 1);
    tables.split(&m.mem, BASE).unwrap();
    tables.split(&m.mem, BASE + PUD_SIZE).unwrap();
    assert_eq!(tables.table_pages(), 4);
    m.finish(tables);
}

#[test]
fn a_gigantic_leaf_splits_down_to_the_address() {
    let m = Machine::new();
    let tables = m.tables();
    let slot = tables.make(&m.mem, BASE, Level::Pud).unwrap().table.slot(BASE);
    // No such frames exist; nobody looks at them.
    let first = Pfn(1 << 20);
    slot.set(Entry::leaf(first, PAGE_FLAGS | EntryFlags::HUGE));
    let inside = BASE + 5 * PMD_SIZE + 9 * PAGE_SIZE;
    tables.split(&m.mem, inside).unwrap();
    assert_eq!(tables.table_pages(), 4);
    let small = tables.lookup(&m.mem, inside).unwrap();
    assert_eq!((small.pfn(), small.is_huge()), (Pfn(first.0 + 5 * 512 + 9), false));
    let large = tables.lookup(&m.mem, BASE + 6 * PMD_SIZE).unwrap();
    assert_eq!((large.pfn(), large.is_huge()), (Pfn(first.0 + 6 * 512), true));
    tables.visit(&m.mem, range(BASE, PUD_SIZE), |_, slot| {
        slot.take();
    });
    m.finish(tables);
}
