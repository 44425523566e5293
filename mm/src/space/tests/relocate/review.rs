//! What reviewers of the patches found, what a correct implementation must handle, and
//! bugs of Linux that moves have had. `docs/relocation.md` says which test is for what.

use super::*;
use crate::{MappedFile, PMD_SIZE, Pfn};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

/// The frame that is mapped at `addr`.
fn frame_at(p: &Process<'_>, addr: usize) -> Pfn {
    p.space.core.tables.lookup(p.space.mem, addr).expect("a page").pfn()
}

/// VMAs, chain links and anon_vmas.
fn objects(mem: &Memory<SimPlatform>) -> [usize; 3] {
    [mem.arenas.vmas.in_use(), mem.arenas.avcs.in_use(), mem.arenas.anon_vmas.in_use()]
}

#[test]
fn in_the_geometries_of_linuxs_mremap_test() {
    let cases = [
        (PAGE, PAGE, 8 * KIB),
        (MIB, PAGE, 2 * MIB),
        (MIB, MIB, 2 * MIB),
        (PMD_SIZE, PAGE, 4 * MIB),
        (PMD_SIZE, MIB, 4 * MIB),
        (PMD_SIZE, PMD_SIZE, 4 * MIB),
        (MIB, MIB, 5 * MIB),
        (GIB, PAGE, 2 * GIB),
        (GIB, MIB, 2 * GIB),
        (GIB, PMD_SIZE, 2 * GIB),
        (GIB, GIB, 2 * GIB),
    ];
    for (from_align, to_align, len) in cases {
        for neighbour in [Nothing, Faulted] {
            with_process(|p| {
                // Multiples of the alignment and of no more.
                let (from, to) = (64 * GIB + from_align, 128 * GIB + to_align);
                p.mmap(from, len, RW, PRIVATE | ANON | FIXED | NORESERVE).unwrap();
                let written = || (0..len).step_by((len / 128).max(PAGE));
                for (i, offset) in written().enumerate() {
                    p.write(from + offset, i as u8 + 1).unwrap();
                }
                if neighbour == Faulted {
                    p.mmap(to - PAGE, PAGE, RW, PRIVATE | ANON | FIXED | NORESERVE).unwrap();
                    p.fill(to - PAGE, 1);
                }
                assert_eq!(p.remap(from, len, MOVE | MUST, to), Ok(to), "{from_align:#x} {to_align:#x} {len:#x}");
                assert_eq!(p.space.stats().vma_count, 1);
                for (i, offset) in written().enumerate() {
                    assert_eq!(p.read(to + offset), Ok(i as u8 + 1), "{from_align:#x} {to_align:#x} {offset:#x}");
                }
                assert_eq!(p.remap(to, len, MOVE | RELOCATE, from), Ok(from));
                assert_eq!(p.read(from), Ok(1));
            });
        }
    }
}

#[test]
fn beyond_the_front_of_what_is_mapped_nothing_changes() {
    // "1MB from start": the pages before the range stay what they were.
    with_process(|p| {
        let pages = 5 * MIB / PAGE;
        let mark = |page: usize| (page % 250) as u8 + 1;
        p.map_at(BASE, pages);
        for page in 0..pages {
            p.write(BASE + page * PAGE, mark(page)).unwrap();
        }
        let to = BASE + 64 * MIB;
        assert_eq!(p.remap(BASE + MIB, 4 * MIB, MOVE | MUST, to), Ok(to));
        for page in 0..pages {
            let base = if page < MIB / PAGE { BASE } else { to - MIB };
            assert_eq!(p.read(base + page * PAGE), Ok(mark(page)), "page {page}");
        }
    });
}

#[test]
fn a_page_that_is_mapped_elsewhere_is_refused_and_all_stay_as_they_are() {
    with_process(|p| {
        p.put(SOURCE, Faulted);
        let frame = p.space.mem.frame(frame_at(p, SOURCE + 2 * PAGE));
        let records = || -> Vec<_> {
            let frames = (0..5).map(|page| p.space.mem.frame(frame_at(p, SOURCE + page * PAGE)));
            frames.map(|frame| (frame.mapping(), frame.index())).collect()
        };
        let before = records();
        frame.inc_mapcount();
        let result = p.space.mremap(SOURCE, LEN, LEN, MOVE | MUST, TARGET);
        assert_eq!(result.map_err(Errno::from), Err(Errno::EFAULT));
        assert_eq!(records(), before);
        assert_eq!(p.count(Event::RelocateShared), 1);
        frame.dec_mapcount();
        assert_eq!(p.move_to_target(MUST), Ok(TARGET));
        p.assert_filled(TARGET, 5);
    });
}

#[test]
fn a_page_with_further_references_is_relocated_with_the_others() {
    with_process(|p| {
        p.put(PREV, Faulted);
        p.put(SOURCE, Faulted);
        let pinned = frame_at(p, SOURCE + PAGE);
        p.space.mem.get(pinned);
        assert_eq!(p.space.mremap(SOURCE, LEN, LEN, MOVE | MUST, TARGET), Ok(TARGET));
        assert_eq!(p.map(BASE), "[0-10 rw-p]");
        let frame = p.space.mem.frame(pinned);
        assert_eq!(frame.index(), (TARGET + PAGE) / PAGE);
        assert_eq!(crate::space::find_mappings(&[&p.space], pinned), Some(vec![(0, TARGET + PAGE)]));
        p.space.mem.put(pinned);
        crate::space::verify_all(&[&p.space]);
        p.assert_filled(TARGET, 5);
    });
}

#[test]
fn pages_without_access_are_relocated() {
    with_process(|p| {
        p.put(PREV, Faulted);
        p.put(SOURCE, Faulted);
        p.space.mprotect(SOURCE, LEN, 0).unwrap();
        assert_eq!(p.move_to_target(MUST), Ok(TARGET));
        assert_eq!(p.count(Event::RelocatedPage), 5);
        p.space.mprotect(TARGET, LEN, RW).unwrap();
        assert_eq!(p.map(BASE), "[0-10 rw-p]");
        p.assert_filled(TARGET, 5);
    });
}

#[test]
fn pages_without_access_are_refused_when_they_are_shared() {
    with_process(|parent| {
        parent.put(SOURCE, Faulted);
        parent.space.mprotect(SOURCE, LEN, 0).unwrap();
        let child = parent.fork().unwrap();
        for p in [parent, &child] {
            let result = p.space.mremap(SOURCE, LEN, LEN, MOVE | MUST, TARGET);
            assert_eq!(result.map_err(Errno::from), Err(Errno::EFAULT));
        }
    });
}

#[test]
fn a_private_mapping_of_a_file_is_refused() {
    with_process(|p| {
        let object = p.space.memory().create_object(1, b"/f").unwrap();
        object.set_size(LEN as u64).unwrap();
        let file = Some(MappedFile { object: &object, readable: true, writable: true });
        let flags = PRIVATE | FIXED;
        p.space.mmap(MmapRequest { addr: SOURCE, len: LEN, prot: RW, flags, file, offset: 0 }).unwrap();
        p.fill(SOURCE, 5);
        refused(p, Event::RelocateNotAnon);
    });
}

#[test]
fn two_families_are_locked_in_the_order_of_their_addresses() {
    // The checker of the lock order panics if they are not, or if one is still held.
    with_process(|p| {
        p.put(PREV, Faulted);
        p.put(SOURCE, Faulted);
        let family = |addr| p.space.mmap.read().vmas.lookup(addr).unwrap().anon_vma().unwrap().as_usize();
        let ascending = family(PREV) < family(SOURCE);
        assert_eq!(p.move_to_target(MUST), Ok(TARGET));
        // Now from the family that was the target's to another one, whose address is
        // that of the one that has gone.
        p.put(SOURCE, Faulted);
        assert_eq!(family(PREV) < family(SOURCE), ascending);
        assert_eq!(p.remap(TARGET, LEN, MOVE | MUST, SOURCE + LEN), Ok(SOURCE + LEN));
        assert_eq!(p.map(BASE), "[0-5 rw-p][100-110 rw-p]");
        drop(p.fork().unwrap());
    });
}

#[test]
fn a_family_that_is_on_both_sides_is_locked_once() {
    with_process(|p| {
        p.map_at(BASE, 20);
        p.fill(BASE, 20);
        // From the middle of a mapping to its end: the neighbour's anon_vma is its own.
        let to = BASE + 20 * PAGE;
        assert_eq!(p.remap(TARGET, LEN, MOVE | MUST, to), Ok(to));
        assert_eq!(p.map(BASE), "[0-5 rw-p][10-25 rw-p]");
        assert_eq!(objects(p.space.mem)[2], 1);
        assert_eq!(p.read(to), Ok(6));
    });
}

#[test]
fn the_old_anon_vma_goes_with_its_last_mapping_and_no_page_names_it() {
    with_process(|p| {
        p.put(PREV, Faulted);
        p.map_at(SOURCE, 10);
        p.fill(SOURCE, 10);
        assert_eq!(objects(p.space.mem), [2, 2, 2]);
        let old = p.space.mem.frame(frame_at(p, SOURCE)).mapping();
        assert_eq!(p.remap(SOURCE, LEN, MOVE | MUST, TARGET), Ok(TARGET));
        assert_eq!(objects(p.space.mem), [2, 2, 2], "it has pages left");
        assert_eq!(p.remap(SOURCE + LEN, LEN, MOVE | MUST, NEXT), Ok(NEXT));
        assert_eq!(objects(p.space.mem), [1, 1, 1]);
        for page in 0..15 {
            assert_ne!(p.space.mem.frame(frame_at(p, BASE + page * PAGE)).mapping(), old, "page {page}");
        }
    });
}

#[test]
fn with_dontunmap_the_old_anon_vma_goes_too() {
    with_process(|p| {
        p.put(PREV, Faulted);
        p.put(SOURCE, Faulted);
        assert_eq!(p.move_to_target(MUST | DONTUNMAP), Ok(TARGET));
        assert_eq!(objects(p.space.mem), [2, 1, 1]);
        p.space.munmap(SOURCE, LEN).unwrap();
        p.assert_filled(BASE, 5);
        p.assert_filled(TARGET, 5);
        crate::space::verify_all(&[&p.space]);
    });
}

#[test]
fn a_move_that_falls_back_keeps_its_pages_in_their_anon_vma() {
    with_process(|parent| {
        parent.put(SOURCE, Faulted);
        let child = parent.fork().unwrap();
        let record = |p: &Process<'_>, addr| {
            let frame = p.space.mem.frame(frame_at(p, addr));
            (frame.mapping(), frame.index())
        };
        let before = record(parent, SOURCE);
        assert_eq!(parent.space.mremap(SOURCE, LEN, LEN, MOVE | RELOCATE, TARGET), Ok(TARGET));
        assert_eq!(record(parent, TARGET), before);
        crate::space::verify_all(&[&parent.space, &child.space]);
        let found = crate::space::find_mappings(&[&parent.space, &child.space], frame_at(parent, TARGET));
        let mut found = found.unwrap();
        found.sort_unstable();
        assert_eq!(found, [(0, TARGET), (1, SOURCE)]);
    });
}

#[test]
fn what_shares_its_anon_vma_with_what_was_forked_is_refused() {
    // CVE-2022-42703, where counting the wrong thing took an anon_vma for unused: it is
    // used again after its VMA was unmapped in part, and by a family of three.
    with_process(|parent| {
        parent.map_at(SOURCE, 10);
        parent.fill(SOURCE, 10);
        let child = parent.fork().unwrap();
        child.space.munmap(SOURCE + LEN, LEN).unwrap();
        let grandchild = child.fork().unwrap();
        child.space.munmap(SOURCE, LEN).unwrap();
        child.put(SOURCE, Faulted);
        let reuses = grandchild.fork().unwrap();
        reuses.map_at(SOURCE + LEN, 5);
        reuses.fill(SOURCE + LEN, 5);
        let family = [parent, &child, &grandchild, &reuses];
        let verify = || crate::space::verify_all(&family.map(|p| &p.space));
        verify();
        for p in [parent, &grandchild, &reuses] {
            let result = p.space.mremap(SOURCE, LEN, LEN, MOVE | MUST, TARGET);
            assert_eq!(result.map_err(Errno::from), Err(Errno::EFAULT));
        }
        // What is theirs alone is not kept back by what is beside it.
        assert_eq!(child.space.mremap(SOURCE, LEN, LEN, MOVE | MUST, TARGET), Ok(TARGET));
        let to = TARGET + 20 * PAGE;
        assert_eq!(reuses.space.mremap(SOURCE + LEN, LEN, LEN, MOVE | MUST, to), Ok(to));
        verify();
        reuses.assert_filled(to, 5);
        child.assert_filled(TARGET, 5);
        parent.assert_filled(SOURCE, 10);
    });
}

#[test]
fn what_was_copied_since_the_fork_is_refused_as_long_as_there_is_a_child() {
    with_process(|parent| {
        parent.put(SOURCE, Faulted);
        let child = parent.fork().unwrap();
        // Each has its own pages now; but the child's are still found through the parent's anon_vma.
        parent.fill(SOURCE, 5);
        for p in [parent, &child] {
            let result = p.space.mremap(SOURCE, LEN, LEN, MOVE | MUST, TARGET);
            assert_eq!(result.map_err(Errno::from), Err(Errno::EFAULT));
            p.assert_filled(SOURCE, 5);
        }
        assert_eq!(parent.count(Event::RelocateForked), 2);
        drop(child);
        assert_eq!(parent.move_to_target(MUST), Ok(TARGET));
        parent.assert_filled(TARGET, 5);
    });
}

#[test]
fn moved_beside_unwritten_memory_with_and_without_a_fork() {
    // The cases merge_with_fork of Linux's merge.c: companion of CVE-2026-23077.
    for forked in [false, true] {
        for (prev, next) in [(Unfaulted, Nothing), (Nothing, Unfaulted), (Unfaulted, Unfaulted), (Faulted, Unfaulted)] {
            for flags in [0, DONTUNMAP, RELOCATE, RELOCATE | DONTUNMAP] {
                with_process(|parent| {
                    // Written at the target, so that its indices go on there.
                    parent.put(TARGET, Faulted);
                    assert_eq!(parent.remap(TARGET, LEN, MOVE, SOURCE), Ok(SOURCE));
                    let child = forked.then(|| parent.fork().unwrap());
                    let p = child.as_ref().unwrap_or(parent);
                    p.put(PREV, prev);
                    p.put(NEXT, next);
                    assert_eq!(p.space.mremap(SOURCE, LEN, LEN, MOVE | flags, TARGET), Ok(TARGET));
                    p.space.munmap(SOURCE, LEN).unwrap();
                    match &child {
                        Some(child) => crate::space::verify_all(&[&parent.space, &child.space]),
                        None => crate::space::verify_all(&[&parent.space]),
                    }
                    p.assert_filled(TARGET, 5);
                    let merged = p.space.stats().vma_count == 1;
                    // Two that were written to apart stay apart, as does what was inherited.
                    assert_eq!(merged, !forked && prev != Faulted, "{prev:?} {next:?} {flags} {forked}");
                });
            }
        }
    }
}

#[test]
fn the_reproducer_of_cve_2026_23077_a_thousand_times() {
    // A, written to, moves away; B is mapped behind its place; A comes back before B and
    // stays where it was; what is left of A goes. A's pages must still be found.
    for flags in [0, RELOCATE, MUST] {
        with_process(|p| {
            for _ in 0..1000 {
                p.put(TARGET, Faulted);
                assert_eq!(p.space.mremap(TARGET, LEN, LEN, MOVE | flags, SOURCE), Ok(SOURCE));
                p.put(NEXT, Unfaulted);
                let to = p.space.mremap(SOURCE, LEN, LEN, MOVE | DONTUNMAP | flags, TARGET);
                assert_eq!(to, Ok(TARGET));
                p.space.munmap(SOURCE, LEN).unwrap();
                p.assert_filled(TARGET, 5);
                p.write(NEXT, 1).unwrap();
                p.space.munmap(BASE, 100 * PAGE).unwrap();
            }
            crate::space::verify_all(&[&p.space]);
        });
    }
}
