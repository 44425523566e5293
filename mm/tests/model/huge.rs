//! Huge pages that come and go while programs use them.

use mm::{FaultError, PAGE_SIZE, PMD_SIZE, SpaceError};

use crate::machine::{Machine, Space, check_huge, race};

const HUGE: usize = 0x4000_0000;
const NEW: usize = HUGE + 4 * PMD_SIZE;
const AWAY: usize = HUGE + 16 * PMD_SIZE;
/// A page among them.
const PAGE: usize = HUGE + 9 * PAGE_SIZE;

/// Invariant: a program reads what it wrote last, before the pages are collapsed,
/// meanwhile, and afterwards; a page it writes to for the first time does not get lost.
#[test]
fn collapse_and_write() {
    check_huge(|machine| {
        let space = machine.space();
        space.map_rw(HUGE, PMD_SIZE);
        space.write(0, PAGE, 1).unwrap();
        race(&[
            &|| {
                for value in 2..4 {
                    space.write(0, PAGE, value).unwrap();
                    assert_eq!(space.read(0, PAGE), Ok(value));
                }
                space.write(0, PAGE + PAGE_SIZE, 4).unwrap();
            },
            &|| space.collapse(HUGE).unwrap(),
        ]);
        assert!(space.is_huge(HUGE));
        assert_eq!((space.read(2, PAGE), space.read(2, PAGE + PAGE_SIZE)), (Ok(3), Ok(4)));
        machine.end([space]);
    });
}

/// CVE-2024-50066: page tables move to where, or from where, pages are collapsed.
///
/// Invariant: the page is at its new address, with what was in it; what is mapped at the old one
/// then has nothing of it.
#[test]
fn collapse_and_move_cve_2024_50066() {
    check_huge(|machine| {
        let space = machine.space();
        space.map_rw(HUGE, PMD_SIZE);
        space.write(0, PAGE, 1).unwrap();
        race(&[
            &|| {
                space.move_to(HUGE, PMD_SIZE, NEW, PMD_SIZE).unwrap();
                assert_eq!(space.read(0, PAGE), Err(FaultError::NotMapped));
                // What the old mapping was is this one's next, and not what is mapped in its place.
                space.map_rw(AWAY, PAGE_SIZE);
                space.map_rw(HUGE, PMD_SIZE);
                space.write(0, PAGE, 2).unwrap();
            },
            &|| {
                let done = space.collapse(HUGE);
                assert!(matches!(done, Ok(()) | Err(SpaceError::NotMapped | SpaceError::Invalid)), "{done:?}");
            },
        ]);
        assert_eq!((space.read(2, PAGE), space.read(2, NEW + (PAGE - HUGE))), (Ok(2), Ok(1)));
        machine.end([space]);
    });
}

/// Invariant: what was written is read, whether a page is collapsed first, or taken from
/// memory.
#[test]
fn collapse_and_reclaim() {
    check_huge(|machine| {
        let space = machine.space();
        space.map_rw(HUGE, PMD_SIZE);
        space.write(0, PAGE, 1).unwrap();
        space.write(0, PAGE + PAGE_SIZE, 2).unwrap();
        race(&[
            &|| {
                // Reclaim may be in the way for long.
                let done = space.collapse(HUGE);
                assert!(matches!(done, Ok(()) | Err(SpaceError::TryAgain)), "{done:?}");
            },
            &|| machine.reclaim_some(2),
        ]);
        assert_eq!((space.read(2, PAGE), space.read(2, PAGE + PAGE_SIZE)), (Ok(1), Ok(2)));
        machine.end([space]);
    });
}

/// Invariant: of two first writes to 2 MiB neither gets lost, whether one of them makes a
/// huge page, or both try, or there is memory for none.
#[test]
fn two_huge_faults() {
    check_huge(|machine| {
        let space = machine.space();
        space.map_rw(HUGE, PMD_SIZE);
        space.advise_huge(HUGE, PMD_SIZE);
        race(&[&|| space.write(0, PAGE, 1).unwrap(), &|| space.write(1, PAGE + PAGE_SIZE, 2).unwrap()]);
        assert_eq!((space.read(2, PAGE), space.read(2, PAGE + PAGE_SIZE)), (Ok(1), Ok(2)));
        machine.end([space]);
    });
}

/// A child shares a huge page, beside which there is another one, so that there is a further table set
/// aside for a split. One thread writes to a page, the other does something too.
fn split_while(machine: &Machine, other: impl Fn(&Space) + Sync) {
    let space = machine.space();
    space.map_rw(HUGE, 2 * PMD_SIZE);
    space.advise_huge(HUGE, 2 * PMD_SIZE);
    space.write(0, HUGE + PMD_SIZE, 4).unwrap();
    space.write(0, PAGE, 1).unwrap();
    space.write(0, PAGE + PAGE_SIZE, 2).unwrap();
    let child = machine.fork(&space);
    race(&[&|| space.write(0, PAGE, 3).unwrap(), &|| other(&space)]);
    let pages = [PAGE, PAGE + PAGE_SIZE, HUGE + PMD_SIZE];
    assert_eq!(pages.map(|page| space.read(2, page)), [Ok(3), Ok(2), Ok(4)]);
    assert_eq!(pages.map(|page| child.read(2, page)), [Ok(1), Ok(2), Ok(4)]);
    machine.end([space, child]);
}

/// Invariant: a huge page that is split from two sides, by writes to what a child shares, or by a write and
/// reclaim, has all its parts afterwards, for parent and child.
#[test]
fn two_split_a_page() {
    check_huge(|machine| split_while(machine, |space| space.write(1, PAGE + PAGE_SIZE, 2).unwrap()));
    check_huge(|machine| split_while(machine, |_| machine.reclaim_some(1)));
}
