//! Frames and tables that are used again, and TLBs that knew them.

use std::sync::Mutex;

use mm::{FaultError, MapFlags, PAGE_SIZE, PMD_SIZE};

use crate::machine::{Event, RW, check, race};

const PAGE: usize = 0x40_0000;
const OTHER: usize = PAGE + PAGE_SIZE;
/// Nothing else has a table in common with this page, but for the root.
const FAR: usize = 1 << 40;

/// Invariant: if the child has the second of two writes of its parent it has the
/// first one too; once it is there, neither sees what the other writes.
#[test]
fn fork_and_write_fault() {
    check(|machine| {
        let space = machine.space();
        space.map_rw(PAGE, 2 * PAGE_SIZE);
        [PAGE, OTHER].iter().for_each(|&page| space.write(0, page, 1).unwrap());
        let child = Mutex::new(None);
        race(&[
            &|| {
                [(PAGE, 2), (OTHER, 2), (PAGE, 3)]
                    .iter()
                    .for_each(|&(page, value)| space.write(0, page, value).unwrap())
            },
            &|| {
                let forked = machine.fork(&space);
                let contents = [PAGE, OTHER].map(|page| forked.read(1, page).unwrap());
                assert!(matches!(contents, [1 | 2, 1] | [2 | 3, 2]), "{contents:?}");
                forked.write(1, OTHER, 4).unwrap();
                *child.lock().unwrap() = Some((forked, contents[0]));
            },
        ]);
        let (child, first) = child.into_inner().unwrap().unwrap();
        assert_eq!([PAGE, OTHER].map(|page| child.read(1, page)), [Ok(first), Ok(4)]);
        assert_eq!([PAGE, OTHER].map(|page| space.read(2, page)), [Ok(3), Ok(2)]);
        machine.end([space, child]);
    });
}

/// Invariant: a table that was freed, and is used for other addresses by now,
/// translates nothing any more where it did before.
#[test]
fn table_freed_and_walk() {
    check(|machine| {
        let space = machine.space();
        space.map_rw(PAGE, PAGE_SIZE);
        space.map_rw(FAR, PMD_SIZE);
        space.write(1, PAGE, 1).unwrap();
        let unmapped = Event::default();
        race(&[
            &|| {
                for _ in 0..2 {
                    let too_late = unmapped.has_happened();
                    let found = space.read(0, PAGE);
                    assert!(matches!(found, Ok(1) | Err(FaultError::NotMapped)), "{found:?}");
                    assert!(!(too_late && found.is_ok()), "there is memory after munmap");
                }
            },
            &|| {
                space.munmap(PAGE, PAGE_SIZE).unwrap();
                unmapped.happens();
                // The same places in all tables but the root.
                space.write(1, FAR + PAGE % PMD_SIZE, 2).unwrap();
            },
        ]);
        assert_eq!(space.read(2, FAR + PAGE % PMD_SIZE), Ok(2));
        machine.end([space]);
    });
}

/// Invariant: a debugger that reads what is unmapped finds it, or nothing mapped, but
/// never by way of a table that is used for other addresses by now.
#[test]
fn table_freed_and_debugger() {
    check(|machine| {
        let space = machine.space();
        space.map_rw(PAGE, PAGE_SIZE);
        space.map_rw(FAR, PMD_SIZE);
        space.write(0, PAGE, 1).unwrap();
        // Munmap has somebody to let in only if there is another CPU.
        space.switch_to(1);
        race(&[
            &|| {
                space.munmap(PAGE, PAGE_SIZE).unwrap();
                // The same places in all tables but the root.
                space.write(0, FAR + PAGE % PMD_SIZE, 2).unwrap();
            },
            &|| {
                let mut found = [0];
                let result = space.read_bytes(PAGE, &mut found);
                assert!(matches!((result, found), (Ok(()), [1]) | (Err(FaultError::NotMapped), _)), "{found:?}");
            },
        ]);
        assert_eq!(space.read(2, FAR + PAGE % PMD_SIZE), Ok(2));
        machine.end([space]);
    });
}

/// Invariant: what is mapped where another thread has just unmapped something is zero, also for a
/// CPU that knew the page that was there; munmap keeps others away from the map for no longer
/// than until then.
#[test]
fn unmapped_and_mapped_again() {
    check(|machine| {
        let space = machine.space();
        space.map_rw(PAGE, PAGE_SIZE);
        space.write(0, PAGE, 1).unwrap();
        space.write(1, PAGE, 1).unwrap();
        race(&[&|| space.munmap(PAGE, PAGE_SIZE).unwrap(), &|| {
            if space.map(PAGE, PAGE_SIZE, RW, MapFlags::empty()).is_ok() {
                assert_eq!(space.read(1, PAGE), Ok(0));
                space.write(1, PAGE + 1, 2).unwrap();
            }
        }]);
        machine.end([space]);
    });
}

/// Invariant: a CPU that comes back to an address space uses nothing of what was
/// unmapped meanwhile, whether it was told or has to find out.
#[test]
fn shootdown_and_switch() {
    check(|machine| {
        let spaces = [machine.space(), machine.space()];
        for (space, value) in spaces.iter().zip([1, 2]) {
            space.map_rw(PAGE, PAGE_SIZE);
            space.write(0, PAGE, value).unwrap();
            space.stop(0);
        }
        let [first, second] = &spaces;
        let unmapped = Event::default();
        race(&[
            &|| {
                for _ in 0..2 {
                    let too_late = unmapped.has_happened();
                    let found = first.read(0, PAGE);
                    assert!(matches!(found, Ok(1) | Err(FaultError::NotMapped)), "{found:?}");
                    assert!(!(too_late && found.is_ok()), "there is memory after munmap");
                    second.switch_to(0);
                    first.stop(0);
                    assert_eq!(second.read(0, PAGE), Ok(2));
                    first.switch_to(0);
                    second.stop(0);
                }
            },
            &|| {
                first.munmap(PAGE, PAGE_SIZE).unwrap();
                unmapped.happens();
            },
        ]);
        machine.end(spaces);
    });
}

/// Invariant: a frame that has become another page is not reached by the address
/// of the one before, neither to read nor to write; what is discarded becomes zero.
#[test]
fn frame_freed_and_stale_translation() {
    check(|machine| {
        let space = machine.space();
        space.map_rw(PAGE, 2 * PAGE_SIZE);
        space.write(0, PAGE, 1).unwrap();
        race(&[
            &|| {
                for value in [2, 3] {
                    space.write(0, PAGE, value).unwrap();
                    let found = space.read(0, PAGE).unwrap();
                    assert!(found == value || found == 0, "{found}");
                }
            },
            &|| {
                space.discard(PAGE, PAGE_SIZE);
                // The frame that has just become free is the next one to be used.
                space.write(1, OTHER + 1, 9).unwrap();
                assert_eq!([0, 1].map(|offset| space.read(1, OTHER + offset)), [Ok(0), Ok(9)]);
            },
        ]);
        assert_eq!([0, 1].map(|offset| space.read(2, OTHER + offset)), [Ok(0), Ok(9)]);
        machine.end([space]);
    });
}
