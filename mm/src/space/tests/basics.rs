//! Each operation once, on its own.

use super::*;

#[test]
fn memory_reads_as_zero_and_keeps_what_is_written() {
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 4);
        p.assert_zero(BASE, 4);
        p.fill(BASE, 4);
        p.assert_filled(BASE, 4);
        assert_eq!(p.read(BASE - 1), Err(FaultError::NotMapped));
        assert_eq!(p.read(BASE + 4 * PAGE), Err(FaultError::NotMapped));
    });
}

#[test]
fn mappings_without_a_hint_go_top_down_and_merge() {
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        let a = p.mmap(0, PAGE, RW, PRIVATE | ANON).unwrap();
        let b = p.mmap(0, PAGE, RW, PRIVATE | ANON).unwrap();
        assert_eq!(b, a - PAGE);
        assert_eq!(p.map(b), "[0-2 rw-p]");
    });
}

#[test]
fn munmap_cuts_a_hole_and_frees_the_pages() {
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 8);
        p.fill(BASE, 8);
        let free = mem.free_frames();
        p.space.munmap(BASE + 2 * PAGE, 3 * PAGE).unwrap();
        assert_eq!(mem.free_frames(), free + 3);
        assert_eq!(p.map(BASE), "[0-2 rw-p][5-8 rw-p]");
        assert_eq!(p.read(BASE + 3 * PAGE), Err(FaultError::NotMapped));
        assert_eq!(p.read(BASE + 5 * PAGE), Ok(6));
    });
}

#[test]
fn mprotect_splits_takes_rights_and_merges_again() {
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 8);
        p.fill(BASE, 8);
        p.space.mprotect(BASE + 2 * PAGE, 2 * PAGE, READ).unwrap();
        assert_eq!(p.map(BASE), "[0-2 rw-p][2-4 r--p][4-8 rw-p]");
        assert_eq!(p.write(BASE + 2 * PAGE, 9), Err(FaultError::AccessDenied));
        assert_eq!(p.read(BASE + 2 * PAGE), Ok(3));
        p.space.mprotect(BASE + 2 * PAGE, PAGE, 0).unwrap();
        assert_eq!(p.read(BASE + 2 * PAGE), Err(FaultError::AccessDenied));
        p.space.mprotect(BASE, 8 * PAGE, RW).unwrap();
        assert_eq!(p.map(BASE), "[0-8 rw-p]");
        p.assert_filled(BASE, 8);
        p.write(BASE + 2 * PAGE, 9).unwrap();
    });
}

#[test]
fn mremap_shrinks_and_grows_in_place() {
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 8);
        p.fill(BASE, 8);
        assert_eq!(p.space.mremap(BASE, 8 * PAGE, 4 * PAGE, 0, 0), Ok(BASE));
        assert_eq!(p.map(BASE), "[0-4 rw-p]");
        assert_eq!(p.space.mremap(BASE, 4 * PAGE, 8 * PAGE, 0, 0), Ok(BASE));
        assert_eq!(p.map(BASE), "[0-8 rw-p]");
        p.assert_filled(BASE, 4);
        p.assert_zero(BASE + 4 * PAGE, 4);
    });
}

#[test]
fn mremap_moves_contents_over_what_was_there() {
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 4);
        p.fill(BASE, 4);
        let to = BASE + 100 * PAGE;
        p.map_at(to - PAGE, 6);
        p.fill(to - PAGE, 6);
        let flags = MAYMOVE | MREMAP_FIXED;
        assert_eq!(p.space.mremap(BASE, 4 * PAGE, 4 * PAGE, flags, to), Ok(to));
        p.assert_filled(to, 4);
        assert_eq!(p.read(to - PAGE), Ok(1));
        assert_eq!(p.read(to + 4 * PAGE), Ok(6));
        assert_eq!(p.read(BASE), Err(FaultError::NotMapped));
        assert_eq!(p.map(to), "[-1-0 rw-p][0-4 rw-p][4-5 rw-p]");
    });
}

#[test]
fn mremap_dontunmap_leaves_an_empty_mapping() {
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 4);
        p.fill(BASE, 4);
        let to = p.space.mremap(BASE, 4 * PAGE, 4 * PAGE, MAYMOVE | DONTUNMAP, 0).unwrap();
        p.assert_filled(to, 4);
        p.assert_zero(BASE, 4);
        assert_eq!(p.space.stats().total_vm, 8);
    });
}

#[test]
fn mremap_dontunmap_moves_part_of_a_vma_to_a_fixed_place_once() {
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 6);
        p.fill(BASE, 6);
        let to = BASE + 9 * PAGE;
        let flags = MAYMOVE | MREMAP_FIXED | DONTUNMAP;
        assert_eq!(p.space.mremap(BASE + PAGE, 4 * PAGE, 4 * PAGE, flags, to), Ok(to));
        assert_eq!(p.map(BASE), "[0-6 rw-p][9-13 rw-p]");
        p.assert_zero(BASE + PAGE, 4);
        assert_eq!(p.read(to), Ok(2));
        assert_eq!(p.read(BASE), Ok(1));
        assert_eq!(p.read(BASE + 5 * PAGE), Ok(6));
    });
}

#[test]
fn a_move_of_part_of_a_vma_within_the_vma_replaces_the_target_part() {
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 10);
        p.fill(BASE, 10);
        let to = BASE + 6 * PAGE;
        let flags = MAYMOVE | MREMAP_FIXED;
        assert_eq!(p.space.mremap(BASE + PAGE, 3 * PAGE, 3 * PAGE, flags, to), Ok(to));
        assert_eq!(p.map(BASE), "[0-1 rw-p][4-6 rw-p][6-9 rw-p][9-10 rw-p]");
        for (page, value) in [(0, 1), (4, 5), (5, 6), (6, 2), (7, 3), (8, 4), (9, 10)] {
            assert_eq!(p.read(BASE + page * PAGE), Ok(value), "page {page}");
        }
    });
}

#[test]
fn fork_shares_pages_until_one_side_writes() {
    on_machine(1024, |mem| {
        let parent = Process::new(mem);
        parent.map_at(BASE, 4);
        parent.fill(BASE, 4);
        let used = mem.count_frames(crate::FrameKind::Anon);
        let child = parent.fork().unwrap();
        child.assert_filled(BASE, 4);
        assert_eq!(mem.count_frames(crate::FrameKind::Anon), used);
        child.write(BASE, 100).unwrap();
        parent.write(BASE + PAGE, 101).unwrap();
        assert_eq!(parent.read(BASE), Ok(1));
        assert_eq!(child.read(BASE), Ok(100));
        assert_eq!(child.read(BASE + PAGE), Ok(2));
        assert_eq!(parent.read(BASE + PAGE), Ok(101));
        drop(parent);
        child.write(BASE + 2 * PAGE, 102).unwrap();
        assert_eq!(child.read(BASE + 3 * PAGE), Ok(4));
    });
}

#[test]
fn shared_memory_is_the_same_for_parent_child_and_second_mapping() {
    on_machine(1024, |mem| {
        let parent = Process::new(mem);
        let at = parent.mmap(BASE, 4 * PAGE, RW, SHARED | ANON | FIXED).unwrap();
        parent.fill(at, 2);
        let second = parent.space.mremap(at, 0, 4 * PAGE, MAYMOVE, 0).unwrap();
        assert_ne!(second, at);
        parent.assert_filled(second, 2);
        let child = parent.fork().unwrap();
        child.write(second + PAGE, 77).unwrap();
        assert_eq!(parent.read(at + PAGE), Ok(77));
    });
}

#[test]
fn brk_grows_and_shrinks_the_heap() {
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        p.space.set_program_end(BASE - 100);
        assert_eq!(p.space.brk(0), BASE);
        assert_eq!(p.space.brk(BASE + 100), BASE + 100);
        p.write(BASE + 99, 1).unwrap();
        assert_eq!(p.space.brk(BASE + 5 * PAGE), BASE + 5 * PAGE);
        assert_eq!(p.map(BASE), "[0-5 rw-p]");
        assert_eq!(p.space.brk(BASE - 1), BASE + 5 * PAGE);
        assert_eq!(p.space.brk(BASE + PAGE), BASE + PAGE);
        assert_eq!(p.map(BASE), "[0-1 rw-p]");
        assert_eq!(p.read(BASE + 99), Ok(1));
    });
}

#[test]
fn the_stack_is_made_written_moved_and_grows() {
    let mem = sim::memory(1, 2048);
    let p = Process::new(&mem);
    let top = p.space.map_stack(false).unwrap();
    let text = [7_u8; 3 * PAGE];
    p.space.write_bytes(top - text.len(), &text).unwrap();
    let shift = p.space.finalize_stack().unwrap();
    let top = top - shift;
    let mut back = [0; 3 * PAGE];
    p.space.read_bytes(top - back.len(), &mut back).unwrap();
    assert_eq!(back, text);
    // A fault far below grows it, but not beyond the limit.
    p.write(top - (4 << 20), 1).unwrap();
    assert_eq!(p.write(top - (9 << 20), 1), Err(FaultError::NotMapped));
    assert_eq!(p.space.stats().stack_vm, (4 << 20) / PAGE);
}

#[test]
fn dontneed_drops_the_contents() {
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 4);
        p.fill(BASE, 4);
        p.space.madvise(BASE + PAGE, 2 * PAGE, 4).unwrap();
        assert_eq!(p.read(BASE), Ok(1));
        p.assert_zero(BASE + PAGE, 2);
        assert_eq!(p.read(BASE + 3 * PAGE), Ok(4));
        assert_eq!(p.space.madvise(BASE, 5 * PAGE, 4), Err(SpaceError::NotMapped));
        p.assert_zero(BASE, 4);
    });
}

/// The tables of what a shrinking mapping loses go before those of what moves:
/// above them is a table that both have in common.
#[test]
fn a_shrinking_move_frees_the_tables_of_both_its_parts() {
    on_machine(2048, |mem| {
        let p = Process::new(mem);
        let (source, target) = (1 << 30, 5 << 30);
        let pages = 3 * (2 << 20) / PAGE;
        p.map_at(source, pages);
        p.fill(source, 1);
        p.fill(source + (4 << 20), 1);
        let flags = MAYMOVE | MREMAP_FIXED;
        assert_eq!(p.space.mremap(source, pages * PAGE, PAGE, flags, target), Ok(target));
        p.assert_filled(target, 1);
        p.space.verify();
        // The same with the target among the tables of what is lost.
        let source = 9 << 30;
        p.map_at(source, pages);
        p.fill(source, 1);
        p.fill(source + (4 << 20), 1);
        let target = source + pages * PAGE;
        assert_eq!(p.space.mremap(source, pages * PAGE, PAGE, flags, target), Ok(target));
        p.assert_filled(target, 1);
        p.space.munmap(0, crate::TASK_SIZE).unwrap();
        p.space.verify();
    });
}

/// What is left of the target's tables must not end up, in place of the
/// source's, where no mapping would ever free it.
#[test]
fn a_grown_move_onto_a_mapping_leaves_no_table_behind() {
    on_machine(2048, |mem| {
        let p = Process::new(mem);
        let source = 3 << 30;
        let target = (5 << 30) + (2 << 20) - PAGE;
        p.map_at(source + (2 << 20) - PAGE, 1);
        p.fill(source + (2 << 20) - PAGE, 1);
        p.map_at(target, 8);
        p.fill(target, 8);
        let flags = MAYMOVE | MREMAP_FIXED;
        let from = source + (2 << 20) - PAGE;
        assert_eq!(p.space.mremap(from, PAGE, 8 * PAGE, flags, target), Ok(target));
        p.assert_filled(target, 1);
        p.assert_zero(target + PAGE, 7);
        p.space.verify();
        p.space.munmap(0, crate::TASK_SIZE).unwrap();
        p.space.verify();
    });
}

#[test]
fn low_addresses_need_the_privilege() {
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        assert_eq!(p.mmap(0, PAGE, RW, PRIVATE | ANON | FIXED), Err(SpaceError::BelowMinimum));
        p.space.set_limits(Limits { low_addresses: true, ..Limits::default() });
        assert_eq!(p.mmap(0, PAGE, RW, PRIVATE | ANON | FIXED), Ok(0));
        p.write(0, 5).unwrap();
        assert_eq!(p.fork().unwrap().read(0), Ok(5));
        assert!(p.mmap(PAGE, PAGE, RW, PRIVATE | ANON).unwrap() >= mem.sysctl().mmap_min_addr());
    });
}
