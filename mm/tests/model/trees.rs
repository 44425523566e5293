//! The tree of VMAs, changed while others look things up in it.

use std::sync::Mutex;

use mm::{FaultError, MapFlags, PAGE_SIZE, Prot, SpaceError};

use crate::machine::{Machine, RW, Space, check, race};

/// Three pages of memory, of which the middle one is a mapping that comes and
/// goes, and a page that is read-only.
const FIRST: usize = 0x40_0000;
const MIDDLE: usize = FIRST + PAGE_SIZE;
const LAST: usize = FIRST + 2 * PAGE_SIZE;
const READ_ONLY: usize = FIRST + 4 * PAGE_SIZE;

/// A stack of one page.
const STACK: usize = 0x80_0000;

fn stack(space: &Space) {
    space.map(STACK, PAGE_SIZE, RW, MapFlags::GROWSDOWN).unwrap();
}

/// Walks the tree as `/proc/PID/maps` does; the mappings do not overlap.
fn mappings(space: &Space) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    space.for_each_vma(|vma| found.push((vma.start, vma.end)));
    assert!(found.iter().all(|(start, end)| start < end), "{found:x?}");
    assert!(found.is_sorted_by(|lower, upper| lower.1 <= upper.0), "{found:x?}");
    found
}

/// CVE-2023-3269, first half: a VMA is looked up while VMAs come and go, and
/// their places are used for others.
///
/// Invariant: what stays mapped is always found; what goes is found whole or
/// not at all, and never as another one that has its place by now.
#[test]
fn detach_and_look_up_cve_2023_3269() {
    check(|machine| {
        let space = machine.space();
        let map_middle = || space.map(MIDDLE, PAGE_SIZE, RW | Prot::EXEC, MapFlags::empty()).unwrap();
        [FIRST, LAST].into_iter().for_each(|page| space.map_rw(page, PAGE_SIZE));
        map_middle();
        // What has been written to once needs less for the next fault.
        for page in [FIRST, MIDDLE, LAST] {
            space.write(0, page, 0).unwrap();
            space.discard(page, PAGE_SIZE);
        }
        race(&[
            &|| {
                let read = || space.read(0, MIDDLE).map(drop);
                for found in [read(), space.write(0, MIDDLE, 0), read()] {
                    assert!(matches!(found, Ok(()) | Err(FaultError::NotMapped)), "{found:?}");
                }
                assert_eq!(space.write(0, LAST, 3), Ok(()));
            },
            &|| {
                space.munmap(MIDDLE, PAGE_SIZE).unwrap();
                space.map(READ_ONLY, PAGE_SIZE, Prot::READ, MapFlags::empty()).unwrap();
                map_middle();
                space.munmap(MIDDLE, PAGE_SIZE).unwrap();
            },
            &|| {
                let found = mappings(&space);
                let is_mapped = |page| found.iter().any(|&(start, end)| start <= page && page < end);
                assert!(is_mapped(FIRST) && is_mapped(LAST), "{found:x?}");
                assert_eq!(space.write(2, FIRST, 2), Ok(()));
            },
        ]);
        let contents = [FIRST, MIDDLE, LAST].map(|page| space.read(0, page));
        assert_eq!(contents, [Ok(2), Err(FaultError::NotMapped), Ok(3)]);
        machine.end([space]);
    });
}

/// CVE-2023-3269, second half: a stack grows by two faults while the tree is
/// changed and read.
///
/// Invariant: the stack grows, or what is mapped is in its way (in it, or in
/// the gap below it), never both; who reads the tree finds the stack, and no
/// two mappings that overlap.
#[test]
fn stack_growth_and_mmap_cve_2023_3269() {
    fn scenario(machine: &Machine, other: usize) {
        let space = machine.space();
        stack(&space);
        let grown = [const { Mutex::new(None) }; 2];
        let grow = |cpu: usize, number: usize, pages| {
            *grown[number].lock().unwrap() = Some(space.write(cpu, STACK - pages * PAGE_SIZE, 1));
        };
        let mapped = Mutex::new(None);
        race(&[
            &|| grow(0, 0, 4),
            &|| *mapped.lock().unwrap() = Some(space.map(other, PAGE_SIZE, RW, MapFlags::empty())),
            &|| {
                let found = mappings(&space);
                assert!(found.iter().any(|&(_, end)| end == STACK + PAGE_SIZE), "{found:x?}");
                grow(2, 1, 6);
            },
        ]);
        let grown = grown.map(|outcome| outcome.into_inner().unwrap().unwrap());
        let mapped = mapped.into_inner().unwrap().unwrap();
        let in_stack = other > STACK - 4 * PAGE_SIZE;
        match mapped {
            Ok(()) if in_stack => assert_eq!(grown, [Err(FaultError::NotMapped); 2]),
            Ok(()) => assert!(grown.iter().all(|grown| matches!(grown, Ok(()) | Err(FaultError::NotMapped)))),
            Err(error) => assert_eq!((error, in_stack, grown), (SpaceError::Exists, true, [Ok(()); 2])),
        }
        assert_eq!(space.read(0, STACK), Ok(0));
        mappings(&space);
        machine.end([space]);
    }
    check(|machine| scenario(machine, STACK - 2 * PAGE_SIZE));
    check(|machine| scenario(machine, STACK - 9 * PAGE_SIZE));
}
