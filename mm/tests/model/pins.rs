//! Pages that are pinned while others would take them, share them, or make them read-only.
//!
//! Invariant of all: as long as it is pinned, what the program writes is in the page that is pinned.

use std::sync::Mutex;

use mm::sim::SimPlatform;
use mm::{FaultAccess, PAGE_SIZE, PinnedPage};

use crate::machine::{Machine, RW, Space, check, race};
use crate::taken::PAGE;

const TWIN: usize = PAGE + PAGE_SIZE;
/// Pages that are taken together with the one that is pinned.
const OTHERS: usize = 6;

/// Pins the page, writes to it as the program does, and compares.
fn pin_and_write(space: &Space, access: FaultAccess, change: impl Fn()) {
    write_to(space, &space.pin(PAGE, access).unwrap(), change);
}

/// Writes to the page as the program does, and compares.
fn write_to(space: &Space, pin: &PinnedPage<'_, SimPlatform>, change: impl Fn()) {
    for value in 2..4 {
        change();
        space.write(0, PAGE, value).unwrap();
        let mut byte = [0];
        pin.read(0, &mut byte);
        assert_eq!(byte[0], value, "the program writes to another page");
    }
}

fn with_page(machine: &Machine) -> Space<'_> {
    let space = machine.space();
    space.map_rw(PAGE, PAGE_SIZE);
    space.write(0, PAGE, 1).unwrap();
    space
}

/// Invariant: the same while the page is shared with a child, which has what was there then.
#[test]
fn pin_and_fork() {
    check(|machine| {
        let space = with_page(machine);
        let child = Mutex::new(None);
        race(&[&|| pin_and_write(&space, FaultAccess::READ, || {}), &|| {
            let forked = machine.fork(&space);
            let found = forked.read(1, PAGE).unwrap();
            assert!(matches!(found, 1..=3), "{found}");
            *child.lock().unwrap() = Some((forked, found));
        }]);
        let (child, found) = child.into_inner().unwrap().unwrap();
        assert_eq!((space.read(2, PAGE), child.read(2, PAGE)), (Ok(3), Ok(found)));
        machine.end([space, child]);
    });
}

/// Invariant: the same while the page is looked at, made read-only for that, and compared.
#[test]
fn pin_and_merge() {
    check(|machine| {
        let space = machine.space();
        space.map_rw(PAGE, 2 * PAGE_SIZE);
        space.let_merge(PAGE, 2 * PAGE_SIZE);
        [PAGE, TWIN].iter().for_each(|&page| space.write(0, page, 2).unwrap());
        machine.merge(2);
        race(&[&|| pin_and_write(&space, FaultAccess::WRITE, || {}), &|| machine.merge(4)]);
        assert_eq!((space.read(2, PAGE), space.read(2, TWIN)), (Ok(3), Ok(2)));
        machine.end([space]);
    });
}

/// Invariant: the same where there was only a page of zeroes, to which another thread writes too.
#[test]
fn longterm_pin_and_write() {
    check(|machine| {
        let space = machine.space();
        space.map_rw(PAGE, PAGE_SIZE);
        assert_eq!(space.read(0, PAGE), Ok(0));
        let pin = || write_to(&space, &space.pin_longterm(PAGE, FaultAccess::READ).unwrap(), || {});
        race(&[&pin, &|| space.write(1, PAGE + 1, 5).unwrap()]);
        assert_eq!([PAGE, PAGE + 1].map(|addr| space.read(2, addr)), [Ok(3), Ok(5)]);
        machine.end([space]);
    });
}

/// One thread pins, forks and writes, one takes the page, and others at the same time.
fn pin_while(machine: &Machine, take: fn(&Machine)) {
    let space = with_page(machine);
    space.map_rw(PAGE + PAGE_SIZE, OTHERS * PAGE_SIZE);
    (1..=OTHERS).for_each(|page| space.write(0, PAGE + page * PAGE_SIZE, 1).unwrap());
    let children = Mutex::new(Vec::new());
    let fork = || children.lock().unwrap().push(machine.fork(&space));
    race(&[&|| pin_and_write(&space, FaultAccess::READ, fork), &|| take(machine)]);
    let [first, second] = children.into_inner().unwrap().try_into().ok().unwrap();
    assert_eq!([&space, &first, &second].map(|space| space.read(2, PAGE)), [Ok(3), Ok(1), Ok(2)]);
    machine.end([space, first, second]);
}

/// Invariant: the same while the page is on its way to swap, and shared with a child.
#[test]
fn pin_and_reclaim() {
    check(|machine| pin_while(machine, Machine::reclaim));
}

/// Invariant: the same while the page is being moved, and shared with a child.
#[test]
fn pin_and_migration() {
    check(|machine| pin_while(machine, Machine::migrate));
}

/// Invariant: the same while the mapping is protected, and others have references to the page
/// in order to move it.
#[test]
fn pin_and_mprotect() {
    check(|machine| {
        let space = with_page(machine);
        let protect = |prot: mm::Prot| space.mprotect(PAGE, PAGE_SIZE, prot.bits() as usize).unwrap();
        let toggle = || {
            protect(mm::Prot::READ);
            protect(RW);
        };
        race(&[&|| pin_and_write(&space, FaultAccess::WRITE, toggle), &|| machine.migrate()]);
        assert_eq!(space.read(2, PAGE), Ok(3));
        machine.end([space]);
    });
}
