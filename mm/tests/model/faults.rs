//! Page faults and what changes the mapping under them.

use mm::{FaultError, PAGE_SIZE, Prot};

use crate::machine::{Event, Machine, check, race};

const PAGE: usize = 0x40_0000;
const OTHER: usize = PAGE + PAGE_SIZE;

/// Invariant: an access either succeeds or finds nothing mapped; once munmap
/// has returned, the latter.
#[test]
fn fault_and_munmap() {
    check(|machine| unmap_under_faults(machine, 2 * PAGE_SIZE));
}

/// Invariant: the same, where something is left of the mapping.
#[test]
fn fault_and_munmap_of_a_part() {
    check(|machine| unmap_under_faults(machine, 3 * PAGE_SIZE));
}

fn unmap_under_faults(machine: &Machine, mapped: usize) {
    let space = machine.space();
    space.map_rw(PAGE, mapped);
    // There is somebody to let in while munmap waits.
    space.switch_to(1);
    space.write(0, PAGE, 1).unwrap();
    let unmapped = Event::default();
    let access = |addr| {
        let too_late = unmapped.has_happened();
        let before = space.read(0, addr);
        assert!(matches!(before, Ok(0..=2) | Err(FaultError::NotMapped)), "{before:?}");
        let found = space.write(0, addr, 2).and_then(|()| space.read(0, addr));
        assert!(matches!(found, Ok(2) | Err(FaultError::NotMapped)), "{found:?}");
        assert!(before.is_ok() || found.is_err(), "there is memory again");
        assert!(!(too_late && found.is_ok()), "there is memory after munmap");
    };
    race(&[&|| [PAGE, OTHER, PAGE].into_iter().for_each(access), &|| {
        space.munmap(PAGE, 2 * PAGE_SIZE).unwrap();
        unmapped.happens();
    }]);
    assert_eq!(space.stats().rss_anon, 0);
    machine.end([space]);
}

/// Invariant: a write either succeeds or is denied; once mprotect has returned,
/// the latter, and the page stays as it is.
#[test]
fn fault_and_mprotect() {
    check(|machine| {
        let space = machine.space();
        space.map_rw(PAGE, 2 * PAGE_SIZE);
        space.write(0, PAGE, 1).unwrap();
        let protected = Event::default();
        let contents = |cpu| [PAGE, OTHER].map(|addr| space.read(cpu, addr).unwrap());
        let write = |addr| {
            let too_late = protected.has_happened();
            let done = space.write(0, addr, 2);
            assert!(matches!(done, Ok(()) | Err(FaultError::AccessDenied)), "{done:?}");
            assert!(!(too_late && done.is_ok()), "written after mprotect");
        };
        race(&[&|| [PAGE, OTHER, PAGE].into_iter().for_each(write), &|| {
            space.mprotect(PAGE, 2 * PAGE_SIZE, Prot::READ.bits() as usize).unwrap();
            protected.happens();
            let before = contents(1);
            assert_eq!(contents(1), before, "written after mprotect");
        }]);
        machine.end([space]);
    });
}

/// Invariant: a page appears once: what either thread writes to it stays, be it
/// a fresh page or a copy of one that a forked child has.
#[test]
fn two_faults_on_one_page() {
    check(|machine| {
        let space = machine.space();
        space.map_rw(PAGE, 2 * PAGE_SIZE);
        space.write(0, OTHER, 7).unwrap();
        let child = machine.fork(&space);
        let write = |cpu| {
            for page in [PAGE, OTHER] {
                space.write(cpu, page + 1 + cpu, 1 + cpu as u8).unwrap();
            }
        };
        race(&[&|| write(0), &|| write(1)]);
        let bytes = |addr| [0, 1, 2].map(|offset| space.read(2, addr + offset).unwrap());
        assert_eq!((bytes(PAGE), bytes(OTHER)), ([0, 1, 2], [7, 1, 2]));
        assert_eq!(child.read(2, OTHER + 1), Ok(0));
        assert_eq!(space.stats().rss_anon, 2);
        machine.end([space, child]);
    });
}

/// Invariant: threads that fault in one VMA at the same time, so that its lock spreads, write to
/// what is mapped and, once munmap has returned, to nothing.
#[test]
fn faults_side_by_side_and_munmap() {
    check(|machine| {
        let space = machine.space();
        space.map_rw(PAGE, 7 * PAGE_SIZE);
        space.write(2, PAGE + 6 * PAGE_SIZE, 1).unwrap();
        let unmapped = Event::default();
        let write = |cpu: usize| {
            for page in [cpu, cpu + 2, cpu + 4] {
                let too_late = unmapped.has_happened();
                let done = space.write(cpu, PAGE + page * PAGE_SIZE, 2);
                assert!(matches!(done, Ok(()) | Err(FaultError::NotMapped)), "{done:?}");
                assert!(!(too_late && done.is_ok()), "there is memory after munmap");
            }
        };
        race(&[&|| write(0), &|| write(1), &|| {
            // In between, the lock may spread again, or somebody still think that it has.
            for page in [6, 5, 4] {
                space.munmap(PAGE + page * PAGE_SIZE, PAGE_SIZE).unwrap();
            }
            space.munmap(PAGE, 4 * PAGE_SIZE).unwrap();
            unmapped.happens();
        }]);
        assert_eq!(space.stats().rss_anon, 0);
        machine.end([space]);
    });
}
