//! Objects that shrink while programs have them mapped.

use mm::sim::SimPlatform;
use mm::{FaultError, MapFlags, MappedFile, MmapRequest, ObjectRef, PAGE_SIZE, Prot};

use crate::machine::{Event, Machine, RW, Space, check, race};

const PAGE: usize = 0x40_0000;
const FAR: usize = 0x80_0000;

type File<'m> = ObjectRef<'m, SimPlatform>;

/// A file of one page.
fn file<'m>(space: &Space<'m>) -> File<'m> {
    let file = space.memory().create_object(1, b"").unwrap();
    file.write(0, &[1]).unwrap();
    file
}

fn map<'m>(space: &Space<'m>, object: &File<'m>, addr: usize, kind: MapFlags) {
    let file = Some(MappedFile { object, readable: true, writable: true });
    let (prot, flags) = (RW.bits() as usize, (kind | MapFlags::FIXED).bits() as usize);
    assert_eq!(space.mmap(MmapRequest { addr, len: PAGE_SIZE, prot, flags, file, offset: 0 }), Ok(addr));
}

/// Invariant: an access finds the page or its end; once truncation is over, the latter.
/// What grows back is zero.
fn truncate_under_faults(machine: &Machine, kind: MapFlags, mapped: bool) {
    let space = machine.space();
    let file = file(&space);
    map(&space, &file, PAGE, kind);
    if mapped {
        space.write(0, PAGE, 2).unwrap();
    }
    let over = Event::default();
    race(&[
        &|| {
            for _ in 0..2 {
                let too_late = over.has_happened();
                let done = space.write(0, PAGE, 3);
                assert!(matches!(done, Ok(()) | Err(FaultError::BeyondEnd)), "{done:?}");
                assert!(!(too_late && done.is_ok()), "there is memory beyond the end");
            }
        },
        &|| {
            file.set_size(0).unwrap();
            over.happens();
        },
    ]);
    assert_eq!(space.read(2, PAGE), Err(FaultError::BeyondEnd));
    file.set_size(PAGE_SIZE as u64).unwrap();
    assert_eq!(space.read(2, PAGE), Ok(0));
    drop(file);
    machine.end([space]);
}

/// Invariant: see [`truncate_under_faults`].
#[test]
fn fault_and_truncation() {
    check(|machine| truncate_under_faults(machine, MapFlags::SHARED, false));
}

/// Invariant: the same for a page that was there.
#[test]
fn access_and_truncation() {
    check(|machine| truncate_under_faults(machine, MapFlags::SHARED, true));
}

/// Invariant: the same for private copies, those made meanwhile included.
#[test]
fn copy_and_truncation() {
    check(|machine| truncate_under_faults(machine, MapFlags::PRIVATE, false));
}

/// Invariant: truncation finds a page wherever it is being moved.
#[test]
fn move_and_truncation() {
    check(|machine| {
        let space = machine.space();
        let file = file(&space);
        map(&space, &file, PAGE, MapFlags::SHARED);
        space.write(0, PAGE, 2).unwrap();
        race(&[&|| space.move_to(PAGE, PAGE_SIZE, FAR, PAGE_SIZE).unwrap(), &|| file.set_size(0).unwrap()]);
        assert_eq!(space.read(2, FAR), Err(FaultError::BeyondEnd));
        drop(file);
        machine.end([space]);
    });
}

/// Invariant: neither parent nor child has a private copy of what was cut off, though
/// fork copies entries meanwhile.
#[test]
fn fork_and_truncation() {
    check(|machine| {
        let space = machine.space();
        let file = file(&space);
        map(&space, &file, PAGE, MapFlags::PRIVATE);
        space.write(0, PAGE, 2).unwrap();
        let child = std::sync::Mutex::new(None);
        race(&[&|| *child.lock().unwrap() = Some(machine.fork(&space)), &|| file.set_size(0).unwrap()]);
        let child = child.into_inner().unwrap().unwrap();
        assert_eq!([&space, &child].map(|space| space.read(2, PAGE)), [Err(FaultError::BeyondEnd); 2]);
        drop(file);
        machine.end([space, child]);
    });
}

/// Invariant: after mprotect nothing is written, though truncation has emptied the entry
/// and has yet to flush.
#[test]
fn mprotect_and_truncation() {
    check(|machine| {
        let space = machine.space();
        let file = file(&space);
        map(&space, &file, PAGE, MapFlags::SHARED);
        space.write(0, PAGE, 2).unwrap();
        race(&[&|| file.set_size(0).unwrap(), &|| {
            space.mprotect(PAGE, PAGE_SIZE, Prot::READ.bits() as usize).unwrap();
            assert_eq!(space.write(0, PAGE, 3), Err(FaultError::AccessDenied));
        }]);
        drop(file);
        machine.end([space]);
    });
}
