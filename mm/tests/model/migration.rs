//! Pages that are moved to other frames while programs use them.

use std::sync::Mutex;

use mm::{FaultError, PAGE_SIZE, PageRange, SpaceError};

use crate::machine::{Event, Machine, Space, check, race};
use crate::taken::{PAGE, munmap_while, write, write_while};

const NEW: usize = PAGE + 16 * PAGE_SIZE;

/// Invariant: a program reads what it wrote last, wherever the page is.
#[test]
fn migration_and_write() {
    check(|machine| write_while(machine, write, Machine::migrate));
}

/// Invariant: the same for what the kernel writes, which does so by a reference to the frame.
#[test]
fn migration_and_write_of_the_kernel() {
    check(|machine| write_while(machine, |space, value| space.write_bytes(PAGE, &[value]), Machine::migrate));
}

/// Invariant: a child has what its parent had written by the fork, and nothing that was
/// written later; both have a page, and neither has the other's.
#[test]
fn migration_and_fork() {
    check(|machine| {
        let space = machine.space();
        space.map_rw(PAGE, PAGE_SIZE);
        space.write(0, PAGE, 1).unwrap();
        // Who has the page too, and comes before the child in the tree that is walked.
        let other = machine.fork(&space);
        let child = Mutex::new(None);
        race(&[
            &|| {
                space.write(0, PAGE, 2).unwrap();
                let forked = machine.fork(&space);
                space.write(0, PAGE, 3).unwrap();
                assert_eq!(forked.read(0, PAGE), Ok(2));
                *child.lock().unwrap() = Some(forked);
            },
            &|| (0..2).for_each(|_| machine.migrate()),
        ]);
        let child = child.into_inner().unwrap().unwrap();
        assert_eq!([&space, &child, &other].map(|space| space.read(2, PAGE)), [Ok(3), Ok(2), Ok(1)]);
        machine.end([space, child, other]);
    });
}

/// Invariant: after munmap nobody reads the page; what is mapped there then is empty, and
/// stays so.
#[test]
fn migration_and_munmap() {
    check(|machine| munmap_while(machine, Machine::migrate));
}

/// Invariant: a write succeeds or is denied; after mprotect the latter, and the page stays as
/// it is.
#[test]
fn migration_and_mprotect() {
    check(|machine| {
        let space = machine.space();
        space.map_rw(PAGE, PAGE_SIZE);
        space.write(0, PAGE, 1).unwrap();
        let protected = Event::default();
        let value = Mutex::new(0);
        race(&[
            &|| {
                let too_late = protected.has_happened();
                let done = space.write(0, PAGE, 2);
                assert!(matches!(done, Ok(()) | Err(FaultError::AccessDenied)), "{done:?}");
                assert!(!(too_late && done.is_ok()), "written to after mprotect");
            },
            &|| machine.migrate(),
            &|| {
                space.mprotect(PAGE, PAGE_SIZE, 1).unwrap();
                protected.happens();
                *value.lock().unwrap() = space.read(2, PAGE).unwrap();
            },
        ]);
        assert_eq!(space.read(2, PAGE), Ok(value.into_inner().unwrap()), "written to after mprotect");
        machine.end([space]);
    });
}

/// One thread writes at the old address, one moves the mapping, pages are moved to other frames.
fn write_while_moving(machine: &Machine, go: fn(&Space) -> Result<(), SpaceError>) {
    let space = machine.space();
    space.map_rw(NEW - PAGE_SIZE, PAGE_SIZE);
    space.write(0, NEW - PAGE_SIZE, 9).unwrap();
    space.map_rw(PAGE, PAGE_SIZE);
    space.write(0, PAGE, 1).unwrap();
    let after = Mutex::new(None);
    let moved = Event::default();
    let late = Mutex::new(None);
    race(&[
        &|| {
            for value in 2..4 {
                let too_late = moved.has_happened();
                let done = space.write(0, PAGE, value);
                assert!(matches!(done, Ok(()) | Err(FaultError::NotMapped)), "{done:?}");
                if too_late && done.is_ok() {
                    *late.lock().unwrap() = Some(value);
                }
            }
        },
        &|| {
            go(&space).unwrap();
            moved.happens();
            *after.lock().unwrap() = Some(space.read(1, NEW).unwrap());
        },
        &|| machine.migrate(),
    ]);
    let found = space.read(2, NEW).ok();
    assert!(found != late.into_inner().unwrap() && found == after.into_inner().unwrap(), "written after the move");
    assert_eq!(space.read(2, NEW - PAGE_SIZE), Ok(9));
    machine.end([space]);
}

/// Invariant: the page is at its new address, with all that was written; once mremap has
/// returned what is written at the old one, where new memory may be, is not found there.
#[test]
fn migration_and_move() {
    check(|machine| write_while_moving(machine, |space| space.move_to(PAGE, PAGE_SIZE, NEW, PAGE_SIZE)));
    check(|machine| write_while_moving(machine, |space| space.move_pages(PAGE, PAGE_SIZE, NEW)));
}

/// Invariant: the same, and the reverse mapping finds the page there: its index and its
/// anon_vma are those of the new address, whichever frame it is in.
#[test]
fn migration_and_relocation() {
    check(|machine| write_while_moving(machine, |space| space.relocate(PAGE, PAGE_SIZE, NEW)));
}

/// Invariant: two that share a page, and one that has its own at the same address, keep what
/// is theirs, while both pages are moved by two at a time.
#[test]
fn two_migrations() {
    check(|machine| {
        let space = machine.space();
        space.map_rw(PAGE, PAGE_SIZE);
        space.write(0, PAGE, 1).unwrap();
        let child = machine.fork(&space);
        child.write(0, PAGE, 2).unwrap();
        let other = machine.fork(&space);
        race(&[
            &|| {
                machine.migrate();
                assert_eq!(space.read(0, PAGE), Ok(1));
            },
            &|| {
                machine.migrate();
                assert_eq!(child.read(1, PAGE), Ok(2));
            },
            &|| assert_eq!(other.read(2, PAGE), Ok(1)),
        ]);
        for (space, value) in [(&space, 1), (&child, 2), (&other, 1)] {
            assert_eq!(space.read(2, PAGE), Ok(value));
        }
        machine.end([space, child, other]);
    });
}

/// Two that have more than one page locked at a time lock them in opposite order: who moves them, and who merges
/// them.
///
/// Invariant: neither waits for the other for ever, and the pages have what was written to them last.
#[test]
fn two_lock_pages_in_opposite_order() {
    check(|machine| {
        let space = machine.space();
        space.map_rw(PAGE, 2 * PAGE_SIZE);
        space.let_merge(PAGE, 2 * PAGE_SIZE);
        (0..2).for_each(|page| space.write(0, PAGE + page * PAGE_SIZE, 1).unwrap());
        machine.merge(2);
        let mut frames = Vec::new();
        space.for_each_page(PageRange::from_len(PAGE, 2 * PAGE_SIZE).unwrap(), |page| frames.push(page.pfn));
        race(&[
            &|| machine.migrate_frames(frames.iter().copied()),
            &|| machine.migrate_frames(frames.iter().rev().copied()),
            &|| machine.merge(2),
        ]);
        assert_eq!((space.read(2, PAGE), space.read(2, PAGE + PAGE_SIZE)), (Ok(1), Ok(1)));
        machine.end([space]);
    });
}
