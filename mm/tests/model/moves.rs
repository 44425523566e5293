//! Moves of mappings, by single entries and by whole tables.

use std::sync::Mutex;

use mm::{FaultError, PAGE_SIZE, PMD_SIZE, SpaceError};

use crate::machine::{Event, Machine, check, race};

/// Two ranges whose page tables move as a whole, and a third.
const OLD: usize = 0x4000_0000;
const NEW: usize = OLD + 4 * PMD_SIZE;
const THIRD: usize = OLD + 8 * PMD_SIZE;

/// One thread writes at the old address, one moves, one looks at the new one.
fn fault_and_move(machine: &Machine, len: usize) {
    let space = machine.space();
    space.map_rw(OLD, len);
    if len < PMD_SIZE {
        // Keeps their table, which would be flushed.
        space.map_rw(OLD + PMD_SIZE - PAGE_SIZE, PAGE_SIZE);
    }
    space.write(0, OLD, 1).unwrap();
    let moved = Event::default();
    let write = |(addr, value)| {
        let too_late = moved.has_happened();
        let done = space.write(0, addr, value);
        assert!(matches!(done, Ok(()) | Err(FaultError::NotMapped)), "{done:?}");
        assert!(!(too_late && done.is_ok()), "written at the old address after the move");
    };
    let after = Mutex::new(None);
    race(&[
        &|| [(OLD, 2), (OLD + PAGE_SIZE, 3), (OLD, 4)].into_iter().for_each(write),
        &|| {
            space.move_to(OLD, len, NEW, len).unwrap();
            moved.happens();
            *after.lock().unwrap() = Some(space.read(1, NEW).unwrap());
        },
        &|| {
            let found = [(); 2].map(|()| space.read(2, NEW));
            match found {
                [Err(FaultError::NotMapped), Err(FaultError::NotMapped) | Ok(1 | 2 | 4)] => {}
                // Until mremap returns it may be written at both addresses.
                [Ok(first @ (1 | 2)), Ok(second @ (1 | 2 | 4))] => assert!(first <= second, "{found:?}"),
                [Ok(4), Ok(4)] => {}
                _ => panic!("{found:?}"),
            }
        },
    ]);
    assert_eq!(after.into_inner().unwrap(), space.read(2, NEW).ok(), "written after the move");
    machine.end([space]);
}

/// CVE-2018-18281: a page's entry moves, and a TLB goes on with the old address.
///
/// Invariant: the page is at its new address, with all that was written; once
/// mremap has returned, nothing is written at the old one.
#[test]
fn fault_and_move_of_an_entry_cve_2018_18281() {
    check(|machine| fault_and_move(machine, 2 * PAGE_SIZE));
}

/// CVE-2022-41222: the same, where a whole table moves under the fault.
///
/// Invariant: as above; and the table is where the mapping is.
#[test]
fn fault_and_move_of_a_table_cve_2022_41222() {
    check(|machine| fault_and_move(machine, PMD_SIZE));
}

/// Invariant: of two moves of one mapping one finds it; the page is at that
/// one's address, and nowhere else.
#[test]
fn move_and_move() {
    fn scenario(machine: &Machine, len: usize, new_len: usize) {
        let space = machine.space();
        space.map_rw(OLD, len);
        space.write(0, OLD, 1).unwrap();
        let outcomes = [const { Mutex::new(None) }; 2];
        let go = |number: usize, to| *outcomes[number].lock().unwrap() = Some(space.move_to(OLD, len, to, new_len));
        race(&[&|| go(0, NEW), &|| go(1, THIRD)]);
        let outcomes = outcomes.map(|outcome| outcome.into_inner().unwrap().unwrap());
        let (here, there) = match outcomes {
            [Ok(()), Err(SpaceError::BadAddress)] => (NEW, THIRD),
            [Err(SpaceError::BadAddress), Ok(())] => (THIRD, NEW),
            _ => panic!("{outcomes:?}"),
        };
        assert_eq!(space.read(2, here), Ok(1));
        for addr in [OLD, there] {
            assert_eq!(space.read(2, addr), Err(FaultError::NotMapped));
        }
        machine.end([space]);
    }
    check(|machine| scenario(machine, PAGE_SIZE, 2 * PAGE_SIZE));
    check(|machine| scenario(machine, PMD_SIZE, PMD_SIZE));
}
