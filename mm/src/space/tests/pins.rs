//! Pages that are pinned: they stay where they are, and their owner's.

use super::{
    ANON, BASE, FIXED, MAYMOVE, MREMAP_FIXED, PAGE, PRIVATE, Process, READ, RW, frame_at, machine, on_machine,
    write_protect,
};
use crate::sim;
use crate::{Event, FaultAccess, FaultError, FrameKind, Overcommit, PMD_SIZE, SpaceError, verify_all};

const FAR: usize = BASE + 64 * PAGE;
const MOVE: usize = MAYMOVE | MREMAP_FIXED;
const RELOCATE: usize = 8;
const MUST_RELOCATE: usize = 16;
const HUGEPAGE: usize = 14;
const HUGE: usize = BASE + PMD_SIZE;

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
        // SAFETY: the page is pinned, and in the simulated RAM.
        assert_eq!(unsafe { pin.as_ptr().read() }, 8);
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
        // SAFETY: the page is pinned, and in the simulated RAM.
        assert_eq!(unsafe { pin.as_ptr().read() }, 10);
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
    // SAFETY: the page is pinned, and in the simulated RAM.
    assert_eq!((unsafe { pin.as_ptr().read() }, p.read(HUGE + PAGE)), (7, Ok(2)));
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
        // SAFETY: the page is pinned, and in the simulated RAM.
        assert_eq!(unsafe { pin.as_ptr().read() }, 1);
        drop(p);
        assert_eq!(mem.count_frames(FrameKind::Anon), 1);
        drop(pin);
        assert_eq!(mem.count_frames(FrameKind::Anon), 0);
    });
}

#[test]
fn what_was_only_read_and_shared_memory_are_pinned_too() {
    const SHARED: usize = 1;
    on_machine(512, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 1);
        p.mmap(FAR, PAGE, RW, SHARED | ANON | FIXED).unwrap();
        let pins = [BASE, FAR].map(|addr| p.space.pin(addr, FaultAccess::READ).unwrap());
        assert_eq!((pins[0].pfn(), mem.frame(pins[1].pfn()).kind()), (mem.zero_page(), FrameKind::Object));
        assert!(matches!(p.space.pin(FAR + PAGE, FaultAccess::READ), Err(FaultError::NotMapped)));
        let child = p.fork().unwrap();
        child.write(FAR, 5).unwrap();
        // SAFETY: the page is pinned, and in the simulated RAM.
        assert_eq!(unsafe { pins[1].as_ptr().read() }, 5);
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
