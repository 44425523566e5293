//! Large folios, of which each fault maps several pages.

use mm::{FaultError, FolioPolicy, PAGE_SIZE};

use crate::machine::{Event, Machine, RW, Space, check, race};

/// Aligned to folios of four pages.
const PAGE: usize = 0x40_0000;
const FOLIO: usize = 4 * PAGE_SIZE;

/// A space with `pages` pages of memory that is to have folios of four.
fn with_folios(machine: &Machine, pages: usize) -> Space<'_> {
    machine.let_make_folios(2, FolioPolicy::Always);
    let space = machine.space();
    space.map_rw(PAGE, pages * PAGE_SIZE);
    // The first write, which goes by the mmap lock, is over.
    space.write(0, PAGE + (pages - 1) * PAGE_SIZE, 9).unwrap();
    space
}

/// Invariant: what either of two threads writes to a folio that both make stays, and so does a page
/// that one of them has mapped alone.
#[test]
fn two_faults_in_one_folio() {
    check(|machine| {
        let space = with_folios(machine, 8);
        let write = |cpu: usize| {
            for page in [0, 2] {
                space.write(cpu, PAGE + (page + cpu) * PAGE_SIZE, 1 + cpu as u8).unwrap();
            }
        };
        race(&[&|| write(0), &|| write(1), &|| assert!(matches!(space.read(2, PAGE + PAGE_SIZE), Ok(0 | 2)))]);
        let bytes = [0, 1, 2, 3].map(|page| space.read(2, PAGE + page * PAGE_SIZE).unwrap());
        assert_eq!(bytes, [1, 2, 1, 2]);
        assert_eq!(space.stats().rss_anon, 8);
        machine.end([space]);
    });
}

/// Invariant: a folio is not larger than the mapping: what is unmapped has no page once munmap has
/// returned, and what is mapped in its place has nothing of it.
#[test]
fn fault_in_a_folio_and_munmap() {
    check(|machine| {
        let space = with_folios(machine, 8);
        let unmapped = Event::default();
        let write = |addr| {
            let too_late = unmapped.has_happened();
            let done = space.write(0, addr, 2);
            assert!(matches!(done, Ok(()) | Err(FaultError::NotMapped)), "{done:?}");
            assert!(!(too_late && done.is_ok()), "there is memory after munmap");
        };
        race(&[&|| [PAGE + 3 * PAGE_SIZE, PAGE + 2 * PAGE_SIZE].into_iter().for_each(write), &|| {
            space.munmap(PAGE + 2 * PAGE_SIZE, 2 * PAGE_SIZE).unwrap();
            unmapped.happens();
            space.write(1, PAGE, 3).unwrap();
        }]);
        // Of the other four, one or two that were left when the fault came.
        assert!([5, 6].contains(&space.stats().rss_anon));
        space.map(PAGE + 2 * PAGE_SIZE, 2 * PAGE_SIZE, RW, mm::MapFlags::empty()).unwrap();
        assert_eq!((space.read(2, PAGE), space.read(2, PAGE + 3 * PAGE_SIZE)), (Ok(3), Ok(0)));
        machine.end([space]);
    });
}

/// Invariant: pages that another thread brings in one by one, and that a move takes away, are never
/// covered by a folio.
#[test]
fn fault_in_a_folio_and_move() {
    check(|machine| {
        let space = with_folios(machine, 8);
        let away = PAGE + 0x100_0000 + PAGE_SIZE;
        race(&[
            &|| {
                for page in [1, 3] {
                    let done = space.write(0, PAGE + page * PAGE_SIZE, 2);
                    assert!(matches!(done, Ok(()) | Err(FaultError::NotMapped)), "{done:?}");
                }
            },
            &|| space.move_to(PAGE, FOLIO, away, FOLIO).unwrap(),
        ]);
        for page in 0..4 {
            let found = space.read(2, away + page * PAGE_SIZE).unwrap();
            assert!(found == 0 || found == 2 && page % 2 == 1);
            assert_eq!(space.read(2, PAGE + page * PAGE_SIZE), Err(FaultError::NotMapped));
        }
        machine.end([space]);
    });
}
