//! What holds of a page that is taken from where it is, whoever takes it and wherever it goes.

use mm::{FaultError, PAGE_SIZE};

use crate::machine::{Event, Machine, Space, race};

pub const PAGE: usize = 0x40_0000;

/// A write by the program to [`PAGE`].
pub fn write(space: &Space, value: u8) -> Result<(), FaultError> {
    space.write(0, PAGE, value)
}

/// One thread writes and reads what it wrote, the other takes the page twice.
pub fn write_while(machine: &Machine, write: fn(&Space, u8) -> Result<(), FaultError>, take: fn(&Machine)) {
    let space = machine.space();
    space.map_rw(PAGE, PAGE_SIZE);
    space.write(0, PAGE, 1).unwrap();
    race(&[
        &|| {
            for value in 2..4 {
                write(&space, value).unwrap();
                assert_eq!(space.read(0, PAGE), Ok(value));
            }
        },
        &|| (0..2).for_each(|_| take(machine)),
    ]);
    assert_eq!(space.read(2, PAGE), Ok(3));
    machine.end([space]);
}

/// One thread reads, one takes the page, one unmaps it and maps another in its place.
pub fn munmap_while(machine: &Machine, take: fn(&Machine)) {
    let space = machine.space();
    space.map_rw(PAGE, PAGE_SIZE);
    space.write(0, PAGE, 1).unwrap();
    let unmapped = Event::default();
    race(&[
        &|| {
            let too_late = unmapped.has_happened();
            let found = space.read(0, PAGE);
            assert!(matches!(found, Ok(0 | 1) | Err(FaultError::NotMapped)), "{found:?}");
            assert!(!(too_late && found == Ok(1)), "there is memory after munmap");
        },
        &|| take(machine),
        &|| {
            space.munmap(PAGE, PAGE_SIZE).unwrap();
            unmapped.happens();
            space.map_rw(PAGE, PAGE_SIZE);
            assert_eq!(space.read(2, PAGE), Ok(0));
        },
    ]);
    assert_eq!(space.read(0, PAGE), Ok(0));
    machine.end([space]);
}
