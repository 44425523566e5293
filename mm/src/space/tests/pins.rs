//! Pages that are pinned: they stay where they are, and their owner's.

use super::{
    ANON, BASE, FIXED, MAYMOVE, MREMAP_FIXED, PAGE, PRIVATE, Process, READ, RW, SHARED, frame_at, machine, on_machine,
    write_protect,
};
use crate::sim::{self, SimPlatform};
use crate::{
    Event, FaultAccess, FaultError, FrameKind, MappedFile, MmapRequest, Overcommit, PMD_SIZE, PinnedPage, SpaceError,
    verify_all,
};

const FAR: usize = BASE + 64 * PAGE;
const MOVE: usize = MAYMOVE | MREMAP_FIXED;
const RELOCATE: usize = 8;
const MUST_RELOCATE: usize = 16;
const HUGEPAGE: usize = 14;
const HUGE: usize = BASE + PMD_SIZE;

/// The first byte of a pinned page.
fn seen(pin: &PinnedPage<'_, SimPlatform>) -> u8 {
    let mut byte = [0];
    assert_eq!(pin.read(0, &mut byte), 1);
    byte[0]
}

#[test]
fn a_pinned_page_is_neither_evicted_nor_moved_to_another_frame() {
    let mem = sim::memory_with_swap(2, 512, 64);
    let p = Process::new(&mem);
    p.map_at(BASE, 2);
    p.fill(BASE, 2);
    let pin = p.space.pin(BASE + 7, FaultAccess::WRITE).unwrap();
    assert_eq!((Some(pin.pfn()), mem.frame(pin.pfn()).pins()), (frame_at(&p, BASE), 1));
    assert_eq!(mem.migrate([pin.pfn()]), Ok(0));
    assert_eq!(mem.reclaim(100), 1);
    assert_eq!(frame_at(&p, BASE), Some(pin.pfn()));
    // SAFETY: the page was pinned for writing, and is in the simulated RAM.
    unsafe { pin.as_ptr().add(1).write(42) };
    assert_eq!((p.read(BASE), p.read(BASE + 1)), (Ok(1), Ok(42)));
    verify_all(&[&p.space]);
    drop(pin);
    assert_eq!((mem.migrate([frame_at(&p, BASE).unwrap()]), mem.reclaim(100)), (Ok(1), 1));
    assert_eq!(p.read(BASE + 1), Ok(42));
    verify_all(&[&p.space]);
}

#[test]
fn a_pinned_page_is_not_relocated() {
    on_machine(512, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 4);
        p.fill(BASE, 4);
        p.map_at(FAR, 4);
        p.fill(FAR, 4);
        let to = BASE + 4 * PAGE;
        let pin = p.space.pin(FAR + 2 * PAGE, FaultAccess::READ).unwrap();
        let refused = p.space.mremap(FAR, 4 * PAGE, 4 * PAGE, MOVE | MUST_RELOCATE, to);
        assert_eq!((refused, mem.events(Event::RelocatePinned)), (Err(SpaceError::BadAddress), 1));
        assert_eq!(p.map(BASE), "[0-4 rw-p][64-68 rw-p]");
        // If it need not be, it moves as ever.
        assert_eq!(p.space.mremap(FAR, 4 * PAGE, 4 * PAGE, MOVE | RELOCATE, to), Ok(to));
        assert_eq!((p.map(BASE).as_str(), mem.events(Event::RelocatePinned)), ("[0-4 rw-p][4-8 rw-p]", 2));
        assert_eq!(frame_at(&p, to + 2 * PAGE), Some(pin.pfn()));
        verify_all(&[&p.space]);
        drop(pin);
        p.space.mremap(to, 4 * PAGE, 4 * PAGE, MOVE | MUST_RELOCATE, FAR).unwrap();
        assert_eq!(p.space.mremap(FAR, 4 * PAGE, 4 * PAGE, MOVE | MUST_RELOCATE, to), Ok(to));
        assert_eq!(p.map(BASE), "[0-8 rw-p]");
        p.assert_filled(to, 4);
        verify_all(&[&p.space]);
    });
}

/// Otherwise the first to write, be it the parent, would leave the pinned page to the other.
#[test]
fn a_child_gets_a_copy_of_a_pinned_page_at_once() {
    on_machine(512, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 3);
        p.fill(BASE, 3);
        let pin = p.space.pin(BASE + PAGE, FaultAccess::WRITE).unwrap();
        let child = p.fork().unwrap();
        verify_all(&[&p.space, &child.space]);
        assert_eq!(frame_at(&p, BASE + PAGE), Some(pin.pfn()));
        assert_ne!(frame_at(&child, BASE + PAGE), Some(pin.pfn()));
        assert_eq!(frame_at(&child, BASE), frame_at(&p, BASE));
        // SAFETY: the page was pinned for writing, and is in the simulated RAM.
        unsafe { pin.as_ptr().write(42) };
        assert_eq!((p.read(BASE + PAGE), child.read(BASE + PAGE)), (Ok(42), Ok(2)));
        p.write(BASE + PAGE, 43).unwrap();
        child.write(BASE + PAGE, 44).unwrap();
        assert_eq!(frame_at(&p, BASE + PAGE), Some(pin.pfn()));
        assert_eq!((p.read(BASE + PAGE), child.read(BASE + PAGE)), (Ok(43), Ok(44)));
        let grandchild = child.fork().unwrap();
        grandchild.write(BASE + PAGE, 45).unwrap();
        drop((pin, child));
        verify_all(&[&p.space, &grandchild.space]);
        assert_eq!((p.read(BASE + PAGE), grandchild.read(BASE + PAGE)), (Ok(43), Ok(45)));
    });
}

/// Else the next write would leave the pinned page to the other.
#[test]
fn who_pins_what_is_shared_gets_a_page_of_its_own_even_to_read() {
    on_machine(512, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 1);
        p.fill(BASE, 1);
        let child = p.fork().unwrap();
        let shared = frame_at(&p, BASE);
        let pin = child.space.pin(BASE, FaultAccess::READ).unwrap();
        assert_eq!((frame_at(&p, BASE), frame_at(&child, BASE)), (shared, Some(pin.pfn())));
        assert_ne!(shared, Some(pin.pfn()));
        child.write(BASE, 7).unwrap();
        let grandchild = child.fork().unwrap();
        child.write(BASE, 8).unwrap();
        assert_eq!(seen(&pin), 8);
        assert_eq!((p.read(BASE), grandchild.read(BASE)), (Ok(1), Ok(7)));
        // What nobody else has any more is its own without a copy, and stays read-only.
        let again = p.space.pin(BASE, FaultAccess::READ).unwrap();
        assert_eq!(Some(again.pfn()), shared);
        verify_all(&[&p.space, &child.space, &grandchild.space]);
        drop((pin, again));
        verify_all(&[&p.space, &child.space, &grandchild.space]);
    });
}

#[test]
fn a_pinned_page_is_written_to_in_place_whatever_its_protection_was() {
    on_machine(512, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 1);
        p.fill(BASE, 1);
        let pins = [p.space.pin(BASE, FaultAccess::WRITE).unwrap(), p.space.pin(BASE, FaultAccess::WRITE).unwrap()];
        p.space.mprotect(BASE, PAGE, READ).unwrap();
        assert!(matches!(p.space.pin(BASE, FaultAccess::WRITE), Err(FaultError::AccessDenied)));
        p.space.mprotect(BASE, PAGE, RW).unwrap();
        p.write(BASE, 9).unwrap();
        assert_eq!(frame_at(&p, BASE), Some(pins[0].pfn()));
        drop(pins);
        verify_all(&[&p.space]);
    });
}

/// Whoever else has a reference: reclaim, migration, merging, a reader of /proc.
#[test]
fn a_pinned_page_is_written_to_in_place_while_others_look_at_it() {
    on_machine(512, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 1);
        p.fill(BASE, 1);
        let pin = p.space.pin(BASE, FaultAccess::WRITE).unwrap();
        mem.get(pin.pfn());
        p.space.mprotect(BASE, PAGE, READ).unwrap();
        p.space.mprotect(BASE, PAGE, RW).unwrap();
        p.write(BASE, 9).unwrap();
        assert_eq!(frame_at(&p, BASE), Some(pin.pfn()));
        // Merging does that too, before it compares.
        write_protect(&p, BASE);
        p.write(BASE, 10).unwrap();
        assert_eq!(frame_at(&p, BASE), Some(pin.pfn()));
        assert_eq!(seen(&pin), 10);
        mem.put(pin.pfn());
        drop(pin);
        verify_all(&[&p.space]);
    });
}

#[test]
fn part_of_a_huge_page_that_is_shared_is_copied_to_be_pinned() {
    let mem = machine(8 * 512);
    mem.sysctl().set_overcommit(Overcommit::Always);
    let p = Process::new(&mem);
    p.map_at(HUGE, 512);
    p.space.madvise(HUGE, 512 * PAGE, HUGEPAGE).unwrap();
    p.fill(HUGE, 2);
    let child = p.fork().unwrap();
    let pin = child.space.pin(HUGE + PAGE, FaultAccess::READ).unwrap();
    assert_eq!(frame_at(&child, HUGE), frame_at(&p, HUGE));
    assert_ne!(frame_at(&p, HUGE + PAGE), Some(pin.pfn()));
    child.write(HUGE + PAGE, 7).unwrap();
    assert_eq!((seen(&pin), p.read(HUGE + PAGE)), (7, Ok(2)));
    verify_all(&[&p.space, &child.space]);
}

#[test]
fn a_fork_that_fails_leaves_each_pinned_page_to_its_owner() {
    on_machine(512, |mem| {
        let p = Process::new(mem);
        mem.sysctl().set_overcommit(Overcommit::Always);
        // In two page tables.
        let pages = [BASE, BASE + PMD_SIZE];
        p.map_at(BASE, 513);
        pages.iter().for_each(|&page| p.fill(page, 1));
        let pins = pages.map(|page| p.space.pin(page, FaultAccess::WRITE).unwrap());
        for nth in 1.. {
            mem.fail_nth_allocation(nth);
            let child = p.fork();
            mem.fail_nth_allocation(0);
            if let Ok(child) = child {
                assert!(nth > 5, "the copies are two of {nth} allocations");
                assert!(pages.iter().all(|&page| child.read(page) == Ok(1)));
                break;
            }
            verify_all(&[&p.space]);
            for (page, pin) in pages.iter().zip(&pins) {
                p.write(*page, 1).unwrap();
                assert_eq!(frame_at(&p, *page), Some(pin.pfn()));
            }
        }
    });
}

#[test]
fn a_pinned_page_outlives_its_mapping() {
    on_machine(512, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 1);
        p.fill(BASE, 1);
        let pin = p.space.pin(BASE, FaultAccess::WRITE).unwrap();
        p.space.munmap(BASE, PAGE).unwrap();
        p.map_at(BASE, 1);
        p.fill(BASE, 1);
        assert_ne!(frame_at(&p, BASE), Some(pin.pfn()));
        assert_eq!(seen(&pin), 1);
        drop(p);
        assert_eq!(mem.count_frames(FrameKind::Anon), 1);
        drop(pin);
        assert_eq!(mem.count_frames(FrameKind::Anon), 0);
    });
}

#[test]
fn what_was_only_read_and_shared_memory_are_pinned_too() {
    on_machine(512, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 1);
        p.mmap(FAR, PAGE, RW, SHARED | ANON | FIXED).unwrap();
        let pins = [BASE, FAR].map(|addr| p.space.pin(addr, FaultAccess::READ).unwrap());
        assert_eq!((pins[0].pfn(), mem.frame(pins[1].pfn()).kind()), (mem.zero_page(), FrameKind::Object));
        assert!(matches!(p.space.pin(FAR + PAGE, FaultAccess::READ), Err(FaultError::NotMapped)));
        let child = p.fork().unwrap();
        child.write(FAR, 5).unwrap();
        assert_eq!(seen(&pins[1]), 5);
        drop(pins);
        verify_all(&[&p.space, &child.space]);
        p.mmap(FAR, PAGE, RW, PRIVATE | ANON | FIXED).unwrap();
    });
}

#[test]
fn a_fork_that_has_no_memory_for_the_copy_changes_nothing() {
    on_machine(512, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 2);
        p.fill(BASE, 2);
        let pin = p.space.pin(BASE, FaultAccess::WRITE).unwrap();
        let mut nth = 0;
        let child = loop {
            nth += 1;
            mem.fail_nth_allocation(nth);
            let child = p.fork();
            let failed = mem.allocation_failed();
            mem.fail_nth_allocation(0);
            match child {
                Ok(child) => break child,
                Err(error) => assert!(failed && error == SpaceError::OutOfMemory),
            }
            verify_all(&[&p.space]);
            p.write(BASE, 1).unwrap();
            assert_eq!(frame_at(&p, BASE), Some(pin.pfn()));
        };
        assert!(nth > 4, "the copy is one of {nth} allocations");
        child.assert_filled(BASE, 2);
        drop(pin);
        verify_all(&[&p.space, &child.space]);
    });
}

#[test]
fn as_much_is_read_of_a_pinned_page_as_there_is() {
    let mem = machine(512);
    let p = Process::new(&mem);
    p.map_at(BASE, 1);
    p.space.write_bytes(BASE + PAGE - 4, b"last").unwrap();
    let pin = p.space.pin(BASE, FaultAccess::READ).unwrap();
    let mut buffer = *b"------";
    assert_eq!((pin.read(PAGE - 3, &mut buffer), &buffer), (3, b"ast---"));
    assert_eq!((pin.read(PAGE - 4, &mut buffer[..2]), &buffer), (2, b"lat---"));
    assert_eq!([PAGE, PAGE + 1, usize::MAX].map(|offset| pin.read(offset, &mut buffer)), [0; 3]);
}

/// Pages that have only been read: one of zeroes, those of a file that is mapped privately, and read-only; and two that
/// are the file's own.
fn only_read(p: &Process<'_>) -> [usize; 5] {
    let object = p.space.memory().create_object(1, b"file").unwrap();
    object.set_size(PAGE as u64).unwrap();
    object.write(0, &[5]).unwrap();
    let map = |number: usize, prot, flags| {
        let file = Some(MappedFile { object: &object, readable: true, writable: flags & PRIVATE != 0 || prot == RW });
        let addr = FAR + 2 * number * PAGE;
        p.space.mmap(MmapRequest { addr, len: PAGE, prot, flags: flags | FIXED, file, offset: 0 }).unwrap()
    };
    let pages =
        [p.map_at(BASE, 1), map(0, RW, PRIVATE), map(1, READ, PRIVATE), map(2, READ, SHARED), map(3, RW, SHARED)];
    assert_eq!(pages.map(|page| p.read(page)), [0, 5, 5, 5, 5].map(Ok));
    pages
}

#[test]
fn what_a_private_mapping_has_only_read_is_copied_for_a_pin_that_lasts_and_no_other() {
    on_machine(512, |mem| {
        let p = Process::new(mem);
        let pages = only_read(&p);
        let (own, shared) = (&pages[..3], pages[4]);
        let [zero, file] = [pages[0], shared].map(|page| frame_at(&p, page));
        let brief = pages.map(|page| p.space.pin(page, FaultAccess::READ).unwrap());
        assert_eq!(brief.map(|pin| Some(pin.pfn())), [zero, file, file, file, file]);
        let pins = pages.map(|page| p.space.pin_longterm(page, FaultAccess::READ).unwrap());
        assert_eq!(pins.each_ref().map(|pin| Some(pin.pfn())), pages.map(|page| frame_at(&p, page)));
        assert_eq!(pins.each_ref().map(|pin| Some(pin.pfn()) == file), [false, false, false, true, true]);
        assert_eq!(pins.each_ref().map(seen), [0, 5, 5, 5, 5]);
        assert_eq!(p.write(pages[2], 7), Err(FaultError::AccessDenied));
        p.space.mprotect(pages[2], PAGE, RW).unwrap();
        own.iter().for_each(|&page| p.write(page, 7).unwrap());
        p.write(shared, 6).unwrap();
        assert_eq!(pins.each_ref().map(seen), [7, 7, 7, 6, 6]);
        let child = p.fork().unwrap();
        own.iter().for_each(|&page| p.write(page, 8).unwrap());
        assert_eq!(pins.each_ref().map(seen), [8, 8, 8, 6, 6]);
        assert_eq!(pages.map(|page| child.read(page)), [7, 7, 7, 6, 6].map(Ok));
        verify_all(&[&p.space, &child.space]);
        drop(pins);
        verify_all(&[&p.space, &child.space]);
    });
}

#[test]
fn a_pin_that_lasts_is_of_a_page_of_its_own_where_that_was_shared() {
    on_machine(512, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 1);
        p.fill(BASE, 1);
        let child = p.fork().unwrap();
        let pin = p.space.pin_longterm(BASE, FaultAccess::READ).unwrap();
        assert_ne!(frame_at(&child, BASE), Some(pin.pfn()));
        p.write(BASE, 2).unwrap();
        assert_eq!((seen(&pin), child.read(BASE)), (2, Ok(1)));
        // What is written to is one's own anyway.
        let again = p.space.pin_longterm(BASE, FaultAccess::WRITE).unwrap();
        assert_eq!(again.pfn(), pin.pfn());
        verify_all(&[&p.space, &child.space]);
    });
}
