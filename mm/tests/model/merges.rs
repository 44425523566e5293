//! Pages that are merged with equal ones while programs use them.

use std::sync::Mutex;

use mm::{FaultError, PAGE_SIZE};

use crate::machine::{Event, Machine, Space, check, race};

const PAGE: usize = 0x40_0000;
const TWIN: usize = PAGE + PAGE_SIZE;
const NEW: usize = 0x80_0000;
/// So many pages that are written to get the frames that were freed before.
const SEVERAL: usize = 6;

/// A program with two pages that are equal, and each have been seen once: next time they can be merged.
fn with_twins(machine: &Machine) -> Space<'_> {
    let space = machine.space();
    space.map_rw(PAGE, 2 * PAGE_SIZE);
    space.let_merge(PAGE, 2 * PAGE_SIZE);
    for page in [PAGE, TWIN] {
        space.write(0, page, 1).unwrap();
    }
    machine.merge(2);
    space
}

/// Invariant: a program reads what it wrote last, and in the other page what was there.
#[test]
fn merge_and_write() {
    check(|machine| {
        let space = with_twins(machine);
        race(&[
            &|| {
                for value in 2..4 {
                    space.write(0, PAGE, value).unwrap();
                    assert_eq!(space.read(0, PAGE), Ok(value));
                }
            },
            &|| machine.merge(4),
            &|| assert_eq!(space.read(2, TWIN), Ok(1)),
        ]);
        assert_eq!((space.read(2, PAGE), space.read(2, TWIN)), (Ok(3), Ok(1)));
        machine.end([space]);
    });
}

/// Invariant: what is written while another thread forks is there, for the parent at least, and
/// the twins stay what they were.
#[test]
fn merge_and_fork() {
    check(|machine| {
        let space = with_twins(machine);
        // So that this CPU can write without a fault.
        space.write(2, PAGE, 1).unwrap();
        let child = Mutex::new(None);
        race(&[&|| *child.lock().unwrap() = Some(machine.fork(&space)), &|| machine.merge(4), &|| {
            space.write(2, PAGE, 3).unwrap();
            assert_eq!(space.read(2, PAGE), Ok(3));
        }]);
        let child = child.into_inner().unwrap().unwrap();
        machine.merge(8);
        assert_eq!((space.read(0, PAGE), space.read(0, TWIN)), (Ok(3), Ok(1)));
        assert!(matches!(child.read(1, PAGE), Ok(1 | 3)));
        assert_eq!(child.read(1, TWIN), Ok(1));
        machine.end([space, child]);
    });
}

/// Invariant: after munmap nobody reads the page; its twin stays, whatever is mapped in its place.
#[test]
fn merge_and_munmap() {
    check(|machine| {
        let space = with_twins(machine);
        let unmapped = Event::default();
        race(&[
            &|| {
                for _ in 0..3 {
                    let too_late = unmapped.has_happened();
                    let found = space.read(0, PAGE);
                    assert!(matches!(found, Ok(1) | Err(FaultError::NotMapped)), "{found:?}");
                    assert!(!(too_late && found == Ok(1)), "there is memory after munmap");
                }
            },
            &|| machine.merge(4),
            &|| {
                space.munmap(PAGE, PAGE_SIZE).unwrap();
                unmapped.happens();
            },
        ]);
        assert_eq!(space.read(0, TWIN), Ok(1));
        machine.end([space]);
    });
}

/// Invariant: memory that is not to be merged any more, is not, from when madvise has returned.
#[test]
fn merge_and_unmerge() {
    check(|machine| {
        let space = with_twins(machine);
        race(&[
            &|| {
                space.keep_from_merging(PAGE, 2 * PAGE_SIZE);
                assert_eq!(space.ksm_pages().merged, 0);
            },
            &|| machine.merge(4),
        ]);
        assert_eq!((space.read(2, PAGE), space.read(2, TWIN)), (Ok(1), Ok(1)));
        machine.end([space]);
    });
}

/// Invariant: both pages arrive at the new address, and what is merged there is found there.
#[test]
fn merge_and_move() {
    check(|machine| {
        let space = with_twins(machine);
        let last = Mutex::new(1);
        race(&[&|| space.move_to(PAGE, 2 * PAGE_SIZE, NEW, 2 * PAGE_SIZE).unwrap(), &|| machine.merge(4), &|| {
            if space.write(2, PAGE, 2).is_ok() {
                *last.lock().unwrap() = 2;
            }
        }]);
        machine.merge(8);
        assert_eq!((space.read(2, NEW), space.read(2, NEW + PAGE_SIZE)), (Ok(last.into_inner().unwrap()), Ok(1)));
        machine.end([space]);
    });
}

/// Invariant: pages are relocated or merged; a merged one is refused, and stays where it is.
#[test]
fn merge_and_relocation() {
    check(|machine| {
        let space = with_twins(machine);
        let moved = Event::default();
        race(&[
            &|| {
                if space.relocate(PAGE, 2 * PAGE_SIZE, NEW).is_ok() {
                    moved.happens();
                }
            },
            &|| machine.merge(4),
        ]);
        machine.merge(8);
        let at = if moved.has_happened() { NEW } else { PAGE };
        assert_eq!((space.read(2, at), space.read(2, at + PAGE_SIZE)), (Ok(1), Ok(1)));
        machine.end([space]);
    });
}

/// Invariant: a page that was merged goes with the last process that has it. Its frame may be another page's
/// at once: that is not taken for it, even if it has the same contents for a moment.
#[test]
fn merge_and_exit() {
    check(|machine| {
        let space = machine.space();
        space.map_rw(PAGE, PAGE_SIZE);
        space.let_merge(PAGE, PAGE_SIZE);
        space.map_rw(NEW, SEVERAL * PAGE_SIZE);
        space.write(0, NEW + SEVERAL * PAGE_SIZE - 1, 1).unwrap();
        let other = with_twins(machine);
        machine.merge(4);
        assert_eq!(other.ksm_pages().merged, 2);
        space.write(0, PAGE, 1).unwrap();
        other.stop(0);
        let other = Mutex::new(Some(other));
        race(&[
            &|| {
                let other = other.lock().unwrap().take();
                machine.exit(other.unwrap());
                for value in [1, 2] {
                    (0..SEVERAL).for_each(|page| space.write(0, NEW + page * PAGE_SIZE, value).unwrap());
                }
            },
            &|| machine.merge(4),
        ]);
        assert_eq!((space.read(2, PAGE), space.read(2, NEW)), (Ok(1), Ok(2)));
        machine.end([space]);
    });
}
