//! What random sequences showed Linux to do, each in its shortest form.

use super::*;
use crate::{MappedFile, ObjectRef, PMD_SIZE};

const POPULATE_READ: usize = 22;
const MS_INVALIDATE: usize = 2;
const FIXED_NOREPLACE: usize = 0x10_0000;
const GROWSDOWN: usize = 0x100;

/// What mincore(2) says: `+` for a page that is resident.
fn resident(process: &Process<'_>, addr: usize, pages: usize) -> String {
    let mut text = String::new();
    let report = |resident| {
        text.push(if resident { '+' } else { '-' });
        Ok::<(), SpaceError>(())
    };
    process.space.mincore(addr, pages * PAGE, report).unwrap();
    text
}

fn map_file(
    process: &Process<'_>,
    object: &ObjectRef<'_, SimPlatform>,
    writable: bool,
    flags: usize,
    offset: usize,
) -> Result<usize, SpaceError> {
    let file = Some(MappedFile { object, readable: true, writable });
    process.space.mmap(MmapRequest { addr: BASE, len: 3 * PAGE, prot: RW, flags, file, offset })
}

#[test]
fn a_page_of_the_object_is_resident_without_being_mapped() {
    on_machine(512, |mem| {
        let process = Process::new(mem);
        let object = mem.create_object(1, b"file").unwrap();
        object.set_size(3 * PAGE as u64).unwrap();
        object.write(PAGE as u64, b"x").unwrap();
        for flags in [SHARED, PRIVATE] {
            let addr = map_file(&process, &object, true, flags, 0).unwrap();
            assert_eq!(resident(&process, addr, 3), "-+-");
        }
        let addr = map_file(&process, &object, true, SHARED, 0).unwrap();
        process.write(addr + 2 * PAGE, 1).unwrap();
        assert_eq!(resident(&process, addr, 3), "-++");
    });
}

#[test]
fn a_file_ends_where_offsets_do() {
    on_machine(512, |mem| {
        let process = Process::new(mem);
        let object = mem.create_object(1, b"file").unwrap();
        let last = isize::MAX as usize - 3 * PAGE;
        let last = last - last % PAGE;
        assert!(map_file(&process, &object, true, SHARED, last).is_ok());
        // This is found out before whether the file may be written.
        for offset in [last + PAGE, usize::MAX - 4 * PAGE + 1] {
            assert_eq!(map_file(&process, &object, false, SHARED, offset), Err(SpaceError::Overflow));
        }
    });
}

#[test]
fn validated_flags_are_those_from_before_noreplace() {
    on_machine(512, |mem| {
        let process = Process::new(mem);
        let object = mem.create_object(1, b"file").unwrap();
        let map = |flags| map_file(&process, &object, true, SHARED | PRIVATE | flags, 0);
        assert_eq!(map(FIXED_NOREPLACE), Err(SpaceError::Unsupported));
        assert_eq!(map(0x200), Err(SpaceError::Unsupported));
        assert!(map(0x80).is_ok() && map(21 << 26).is_ok());
    });
}

#[test]
fn populating_for_reading_needs_read_permission() {
    on_machine(512, |mem| {
        let process = Process::new(mem);
        let addr = process.mmap(0, PAGE, WRITE, PRIVATE | ANON).unwrap();
        assert_eq!(process.space.madvise(addr, PAGE, POPULATE_READ), Err(SpaceError::Invalid));
        // Though x86-64 cannot keep the program from reading.
        assert_eq!(process.read(addr), Ok(0));
    });
}

#[test]
fn msync_looks_behind_holes_for_locked_mappings() {
    on_machine(512, |mem| {
        let process = Process::new(mem);
        process.map_at(BASE + PAGE, 1);
        let sync = || process.space.msync(BASE, 4 * PAGE, MS_INVALIDATE);
        assert_eq!(sync(), Err(SpaceError::NotMapped));
        process.space.mlock(BASE + PAGE, PAGE, 0).unwrap();
        assert_eq!(sync(), Err(SpaceError::Busy));
    });
}

#[test]
fn a_fetch_of_what_is_not_mapped_yet_is_a_read_first() {
    on_machine(512, |mem| {
        let process = Process::new(mem);
        let object = mem.create_object(1, b"file").unwrap();
        object.set_size(PAGE as u64).unwrap();
        let addr = map_file(&process, &object, true, SHARED, 0).unwrap();
        let fetch = |addr| process.fault(addr, Access::Exec);
        assert_eq!(fetch(addr + PAGE), Err(FaultError::BeyondEnd));
        assert_eq!(resident(&process, addr, 1), "-");
        // Only the page that is there says that it is not for execution.
        assert_eq!(fetch(addr), Ok(()));
        assert_eq!(resident(&process, addr, 1), "+");
        assert_eq!(fetch(addr), Err(FaultError::AccessDenied));
        process.space.mprotect(addr, 3 * PAGE, 0).unwrap();
        assert_eq!(fetch(addr + PAGE), Err(FaultError::AccessDenied));
    });
}

#[test]
fn a_stack_that_was_to_grow_stays_charged_when_it_becomes_read_only() {
    on_machine(512, |mem| {
        for grows in [false, true] {
            let process = Process::new(mem);
            process.mmap(BASE, 8 * PAGE, RW, PRIVATE | ANON | FIXED | GROWSDOWN).unwrap();
            if grows {
                // Farther than the limit of stacks allows.
                let below = BASE - (8 << 20);
                assert_eq!(process.read(below), Err(FaultError::NotMapped));
            }
            process.space.mprotect(BASE, 8 * PAGE, READ).unwrap();
            let mut charged = None;
            process.space.for_each_vma(|vma| charged = Some(vma.flags.contains(VmaFlags::ACCOUNT)));
            assert_eq!(charged, Some(grows));
        }
    });
}

#[test]
fn an_address_in_the_first_page_is_no_hint() {
    on_machine(512, |mem| {
        let process = Process::new(mem);
        process.mmap(0, PAGE, RW, PRIVATE | ANON).unwrap();
        // Where a large folio can come to back it.
        let addr = process.mmap(1, PMD_SIZE, READ, PRIVATE | ANON).unwrap();
        assert!(addr.is_multiple_of(PMD_SIZE));
    });
}

#[test]
fn what_a_child_inherited_takes_in_what_it_grows_up_to() {
    on_machine(512, |mem| {
        let parent = Process::new(mem);
        parent.map_at(BASE, 2);
        parent.fill(BASE, 2);
        parent.map_at(BASE + 4 * PAGE, 2);
        let child = parent.fork().unwrap();
        assert_eq!(child.space.mremap(BASE, 2 * PAGE, 4 * PAGE, 0, 0), Ok(BASE));
        assert_eq!(child.map(BASE), "[0-6 rw-p]");
        child.fill(BASE + 4 * PAGE, 2);
        parent.assert_zero(BASE + 4 * PAGE, 2);
        child.assert_filled(BASE, 2);
    });
}
