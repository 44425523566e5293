//! Objects that lose pages which are mapped.

use super::*;
use crate::object::ObjectRef;
use crate::{MappedFile, verify_all};

const PAGES: usize = 4;

type File<'m> = ObjectRef<'m, SimPlatform>;

/// A file with a different byte in each page.
fn file(mem: &Memory<SimPlatform>) -> File<'_> {
    let object = mem.create_object(1, b"file").unwrap();
    object.set_size((PAGES * PAGE) as u64).unwrap();
    for page in 0..PAGES {
        object.write((page * PAGE) as u64, &[page as u8 + 1]).unwrap();
    }
    object
}

/// Maps `pages` of the file from page `first` on.
fn map<'m>(process: &Process<'m>, object: &File<'m>, addr: usize, flags: usize, first: usize, pages: usize) -> usize {
    let file = Some(MappedFile { object, readable: true, writable: true });
    let flags = flags | FIXED;
    process.space.mmap(MmapRequest { addr, len: pages * PAGE, prot: RW, flags, file, offset: first * PAGE }).unwrap()
}

fn shrink(object: &File<'_>, pages: usize) {
    object.set_size((pages * PAGE) as u64).unwrap();
}

/// What the program finds in each page, from `addr` on.
fn contents(process: &Process<'_>, addr: usize, pages: usize) -> Vec<Option<u8>> {
    let read = |page| match process.read(addr + page * PAGE) {
        Err(error) => {
            assert_eq!(error, FaultError::BeyondEnd);
            None
        }
        Ok(byte) => Some(byte),
    };
    (0..pages).map(read).collect()
}

#[test]
fn what_is_cut_off_is_mapped_nowhere() {
    on_machine(512, |mem| {
        let (one, other) = (Process::new(mem), Process::new(mem));
        let object = file(mem);
        let maps = [
            (&one, map(&one, &object, BASE, SHARED, 0, PAGES), 0),
            (&one, map(&one, &object, BASE + 64 * PAGE, PRIVATE, 1, PAGES - 1), 1),
            (&other, map(&other, &object, BASE, SHARED, 2, 2), 2),
        ];
        for (process, addr, first) in maps {
            let all: Vec<_> = (first..PAGES).map(|page| Some(page as u8 + 1)).collect();
            assert_eq!(contents(process, addr, PAGES - first), all);
        }
        shrink(&object, 2);
        assert_eq!((one.space.stats().rss_shmem, other.space.stats().rss_shmem), (3, 0));
        verify_all(&[&one.space, &other.space]);
        assert_eq!(contents(&one, BASE, PAGES), [Some(1), Some(2), None, None]);
        assert_eq!(contents(&one, BASE + 64 * PAGE, 3), [Some(2), None, None]);
        assert_eq!(contents(&other, BASE, 2), [None, None]);
        // What the file gains is zero, whatever was there.
        shrink(&object, 3);
        assert_eq!(contents(&one, BASE, PAGES), [Some(1), Some(2), Some(0), None]);
        assert_eq!(contents(&other, BASE, 2), [Some(0), None]);
        other.write(BASE, 9).unwrap();
        assert_eq!(one.read(BASE + 2 * PAGE), Ok(9));
    });
}

#[test]
fn private_copies_go_with_what_is_cut_off() {
    on_machine(512, |mem| {
        let parent = Process::new(mem);
        let object = file(mem);
        map(&parent, &object, BASE, PRIVATE, 0, PAGES);
        (0..PAGES).for_each(|page| parent.write(BASE + page * PAGE, 0x70 + page as u8).unwrap());
        let child = parent.fork().unwrap();
        child.write(BASE + 3 * PAGE, 0x99).unwrap();
        shrink(&object, 1);
        for process in [&parent, &child] {
            assert_eq!(contents(process, BASE, PAGES), [Some(0x70), None, None, None]);
            assert_eq!(process.space.stats().rss_anon, 1);
        }
        verify_all(&[&parent.space, &child.space]);
        shrink(&object, PAGES);
        assert_eq!(contents(&child, BASE, PAGES), [Some(0x70), Some(0), Some(0), Some(0)]);
    });
}

#[test]
fn private_copies_in_swap_go_too() {
    let mem = sim::memory_with_swap(1, 512, 16);
    let process = Process::new(&mem);
    let object = file(&mem);
    map(&process, &object, BASE, PRIVATE, 0, PAGES);
    (0..PAGES).for_each(|page| process.write(BASE + page * PAGE, 7).unwrap());
    mem.reclaim(512);
    assert_ne!(mem.swap_stats().used, 0);
    shrink(&object, 0);
    assert_eq!(mem.swap_stats().used, 0);
    assert_eq!(contents(&process, BASE, PAGES), [None; PAGES]);
    verify_all(&[&process.space]);
}

#[test]
fn a_hole_shows_in_all_mappings_but_not_through_private_copies() {
    on_machine(512, |mem| {
        let process = Process::new(mem);
        let object = file(mem);
        let shared = map(&process, &object, BASE, SHARED, 0, PAGES);
        let private = map(&process, &object, BASE + 64 * PAGE, PRIVATE, 0, PAGES);
        contents(&process, shared, PAGES);
        contents(&process, private, PAGES);
        process.write(private + PAGE, 0x55).unwrap();
        object.punch_hole(PAGE as u64, 3 * PAGE as u64);
        assert_eq!(contents(&process, shared, PAGES), [Some(1), Some(0), Some(0), Some(4)]);
        assert_eq!(contents(&process, private, PAGES), [Some(1), Some(0x55), Some(0), Some(4)]);
        verify_all(&[&process.space]);
    });
}

#[test]
fn a_mapping_is_found_wherever_it_has_been_moved_to() {
    on_machine(512, |mem| {
        let process = Process::new(mem);
        let object = file(mem);
        // Each gives the last page another place, by another way.
        let from = map(&process, &object, BASE, SHARED, 0, PAGES);
        contents(&process, from, PAGES);
        let ways: [&dyn Fn(usize) -> usize; 6] = [
            &|at| at,
            &|at| process.space.mremap(at, PAGES * PAGE, PAGES * PAGE, MAYMOVE | MREMAP_FIXED, 2 * BASE).unwrap(),
            // A part: the rest stays behind.
            &|at| process.space.mremap(at + PAGE, 3 * PAGE, 3 * PAGE, MAYMOVE | MREMAP_FIXED, 3 * BASE).unwrap() - PAGE,
            &|at| {
                process.space.mprotect(at + 3 * PAGE, PAGE, READ).unwrap();
                at
            },
            // The two become one again.
            &|at| {
                process.space.mprotect(at + 3 * PAGE, PAGE, RW).unwrap();
                at
            },
            &|at| {
                process.space.munmap(at + PAGE, PAGE).unwrap();
                at
            },
        ];
        let mut at = from;
        for (number, way) in ways.iter().enumerate() {
            at = way(at);
            assert_eq!(process.read(at + 3 * PAGE), Ok(if number == 0 { 4 } else { 0 }), "{number}");
            verify_all(&[&process.space]);
            shrink(&object, 3);
            assert_eq!(process.read(at + 3 * PAGE), Err(FaultError::BeyondEnd), "{number}");
            verify_all(&[&process.space]);
            shrink(&object, PAGES);
        }
    });
}

#[test]
fn what_is_left_behind_by_dontunmap_is_a_mapping_of_the_file_too() {
    on_machine(512, |mem| {
        let process = Process::new(mem);
        let object = file(mem);
        map(&process, &object, BASE, SHARED, 0, PAGES);
        contents(&process, BASE, PAGES);
        let len = PAGES * PAGE;
        process.space.mremap(BASE, len, len, MAYMOVE | MREMAP_FIXED | DONTUNMAP, 2 * BASE).unwrap();
        assert_eq!(contents(&process, BASE, PAGES), contents(&process, 2 * BASE, PAGES));
        verify_all(&[&process.space]);
        shrink(&object, 0);
        for addr in [BASE, 2 * BASE] {
            assert_eq!(contents(&process, addr, PAGES), [None; PAGES]);
        }
    });
}

#[test]
fn munmap_leaves_no_translation_whose_entry_truncation_has_emptied() {
    on_machine(512, |mem| {
        let process = Process::new(mem);
        let object = file(mem);
        map(&process, &object, BASE, SHARED, 0, PAGES);
        contents(&process, BASE, PAGES);
        shrink(&object, 0);
        // All TLBs have been told.
        assert!(!process.is_stale());
    });
}
