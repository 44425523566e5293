//! Pages that are taken out of memory while programs use them.

use std::sync::Mutex;

use mm::PAGE_SIZE;

use crate::machine::{Machine, check, race};
use crate::taken::{PAGE, munmap_while, write, write_while};

/// Invariant: a program reads what it wrote last, wherever the page is.
#[test]
fn reclaim_and_write() {
    check(|machine| write_while(machine, write, Machine::reclaim));
}

/// Invariant: after munmap nobody reads the page, nor what is stored of it; what is mapped
/// there then is empty.
#[test]
fn reclaim_and_munmap() {
    check(|machine| munmap_while(machine, Machine::reclaim));
}

/// Invariant: relatives that bring a page back, and write to it, at the same time have it
/// to themselves afterwards.
#[test]
fn two_bring_a_page_back() {
    check(|machine| {
        let space = machine.space();
        space.map_rw(PAGE, PAGE_SIZE);
        space.write(0, PAGE, 1).unwrap();
        let child = machine.fork(&space);
        space.stop(0);
        machine.reclaim();
        race(&[
            &|| {
                assert_eq!(space.read(0, PAGE), Ok(1));
                space.write(0, PAGE, 2).unwrap();
            },
            &|| {
                child.write(1, PAGE, 3).unwrap();
                assert_eq!(child.read(1, PAGE), Ok(3));
            },
        ]);
        assert_eq!((space.read(2, PAGE), child.read(2, PAGE)), (Ok(2), Ok(3)));
        machine.end([space, child]);
    });
}

/// Invariant: a child has what its parent had written by the fork, and nothing that was
/// written later.
#[test]
fn reclaim_and_fork() {
    check(|machine| {
        let space = machine.space();
        space.map_rw(PAGE, PAGE_SIZE);
        space.write(0, PAGE, 1).unwrap();
        let child = Mutex::new(None);
        race(&[
            &|| {
                space.write(0, PAGE, 2).unwrap();
                let forked = machine.fork(&space);
                space.write(0, PAGE, 3).unwrap();
                assert_eq!(forked.read(0, PAGE), Ok(2));
                *child.lock().unwrap() = Some(forked);
            },
            &|| machine.reclaim(),
        ]);
        let child = child.into_inner().unwrap().unwrap();
        assert_eq!((space.read(2, PAGE), child.read(2, PAGE)), (Ok(3), Ok(2)));
        machine.end([space, child]);
    });
}
