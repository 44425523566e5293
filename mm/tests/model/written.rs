//! Asking which pages have been written to, while they are.

use std::sync::Mutex;

use mm::{ClearRefs, PAGE_SIZE};

use crate::machine::{Machine, check, race};
use crate::taken::PAGE;

const PAGES: [usize; 2] = [PAGE, PAGE + PAGE_SIZE];

/// Invariant: what is not as it was when clearing was over is told of.
#[test]
fn clear_refs_and_write() {
    check(|machine| ask_while(machine, || {}));
}

/// Invariant: the same, wherever the pages are.
#[test]
fn clear_refs_and_reclaim() {
    check(|machine| ask_while(machine, || machine.reclaim_some(1)));
}

/// Invariant: the same, while they move to other frames.
#[test]
fn clear_refs_and_migration() {
    check(|machine| ask_while(machine, || machine.migrate()));
}

fn ask_while(machine: &Machine, disturb: impl Fn() + Sync) {
    let space = machine.space();
    space.map_rw(PAGE, PAGES.len() * PAGE_SIZE);
    let contents = |cpu| PAGES.map(|addr| space.read(cpu, addr).unwrap());
    PAGES.iter().for_each(|&addr| space.write(0, addr, 1).unwrap());
    // From now on who clears has nothing to wait for. To one of the pages the writer's CPU may go
    // on writing.
    space.clear_refs(ClearRefs::SoftDirty);
    space.write(0, PAGE, 2).unwrap();
    let seen = Mutex::new(None);
    let write = || {
        for (value, addr) in [(3, PAGE), (4, PAGES[1]), (5, PAGE)] {
            space.write(0, addr, value).unwrap();
        }
    };
    let ask = || {
        space.clear_refs(ClearRefs::SoftDirty);
        *seen.lock().unwrap() = Some(contents(1));
    };
    race(&[&write, &ask, &disturb]);
    let before = seen.into_inner().unwrap().unwrap();
    for ((addr, before), after) in PAGES.into_iter().zip(before).zip(contents(2)) {
        assert!(before == after || space.is_soft_dirty(addr), "the write of {after} over {before} went unnoticed");
    }
    machine.end([space]);
}
