//! Migration, page by page, with everything checked after each step; and of all pages all the
//! time, while other threads use them.

mod compact;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::Migrations;
use crate::sim::{self, SimPlatform};
use crate::space::tests::{
    ANON, BASE, DONTUNMAP, FIXED, MAYMOVE, MREMAP_FIXED, PAGE, PRIVATE, Process, READ, RW, check, filled, frame_at,
    on_machine,
};
use crate::{Event, FaultError, FrameKind, Memory, OutOfMemory, PageRange, PageState, Pfn, SpaceError};

const DONTNEED: usize = 4;
const FREE: usize = 8;
const PAGEOUT: usize = 21;
/// `MREMAP_MUST_RELOCATE_ANON` with what it needs.
const RELOCATE: usize = MAYMOVE | MREMAP_FIXED | 16;
const FAR: usize = BASE + 64 * PAGE;

/// Moves one page; says whether it has been.
fn migrate(mem: &Memory<SimPlatform>, pfn: Pfn) -> Result<bool, OutOfMemory> {
    mem.migrate([pfn]).map(|moved| moved == 1)
}

/// Begins to move the page at `addr`, does something in another thread, and goes on.
fn meanwhile<T: Send>(p: &Process<'_>, addr: usize, operation: impl FnOnce() -> T + Send) -> T {
    let mem = p.space.memory();
    let mut migrations = Migrations::new(mem);
    migrations.add(frame_at(p, addr).unwrap(), mem.alloc(FrameKind::Anon, 0).unwrap()).unwrap();
    let result = thread::scope(|scope| scope.spawn(operation).join());
    drop(migrations);
    result.expect("the operation failed")
}

#[test]
fn a_page_moves_with_its_contents() {
    on_machine(512, |mem| {
        let p = filled(mem, 4);
        p.assert_filled(BASE, 4);
        for page in 0..4 {
            let pfn = frame_at(&p, BASE + page * PAGE).unwrap();
            assert_eq!(migrate(mem, pfn), Ok(true));
            assert_ne!(frame_at(&p, BASE + page * PAGE), Some(pfn));
            check(&[&p]);
        }
        p.assert_filled(BASE, 4);
        assert_eq!((p.space.stats().rss_anon, mem.count_frames(FrameKind::Anon)), (4, 4));
        assert_eq!((mem.events(Event::Migrated), mem.events(Event::MigrateFailed)), (4, 0));
        // It is its own as before, so a write copies nothing.
        let pfn = frame_at(&p, BASE);
        p.write(BASE, 9).unwrap();
        assert_eq!(frame_at(&p, BASE), pfn);
    });
}

#[test]
fn a_page_shared_by_fork_moves_for_all() {
    on_machine(512, |mem| {
        let parent = filled(mem, 2);
        let child = parent.fork().unwrap();
        let grandchild = child.fork().unwrap();
        let all = [&parent, &child, &grandchild];
        let pfn = frame_at(&parent, BASE).unwrap();
        assert_eq!(migrate(mem, pfn), Ok(true));
        check(&all);
        let moved = frame_at(&parent, BASE);
        assert!(moved != Some(pfn) && all.iter().all(|p| frame_at(p, BASE) == moved));
        all.iter().for_each(|p| p.assert_filled(BASE, 2));
        child.write(BASE, 50).unwrap();
        assert_eq!(all.map(|p| p.read(BASE)), [Ok(1), Ok(50), Ok(1)]);
        check(&all);
    });
}

#[test]
fn a_page_in_use_by_the_kernel_stays() {
    on_machine(512, |mem| {
        let p = filled(mem, 1);
        let pfn = frame_at(&p, BASE).unwrap();
        mem.get(pfn);
        assert_eq!((migrate(mem, pfn), mem.events(Event::MigrateFailed)), (Ok(false), 0));
        assert_eq!(frame_at(&p, BASE), Some(pfn));
        mem.put(pfn);
        // If that begins later it stays as well, and is as it was.
        meanwhile(&p, BASE, || mem.get(pfn));
        assert_eq!((frame_at(&p, BASE), mem.events(Event::MigrateFailed)), (Some(pfn), 1));
        mem.put(pfn);
        check(&[&p]);
        p.write(BASE, 7).unwrap();
        assert_eq!((p.read(BASE), frame_at(&p, BASE)), (Ok(7), Some(pfn)));
        assert_eq!(migrate(mem, pfn), Ok(true));
    });
}

#[test]
fn without_a_frame_to_go_to_it_stays() {
    on_machine(512, |mem| {
        let p = filled(mem, 1);
        let pfn = frame_at(&p, BASE).unwrap();
        mem.fail_nth_allocation(1);
        assert!(migrate(mem, pfn).is_err());
        mem.fail_nth_allocation(0);
        assert_eq!(frame_at(&p, BASE), Some(pfn));
        p.assert_filled(BASE, 1);
        check(&[&p]);
    });
}

#[test]
fn nothing_else_than_private_pages_moves() {
    on_machine(512, |mem| {
        let p = Process::new(mem);
        const SHARED: usize = 1;
        p.mmap(BASE, 2 * PAGE, RW, SHARED | ANON | FIXED).unwrap();
        p.fill(BASE, 2);
        p.map_at(FAR, 1);
        assert_eq!(p.read(FAR), Ok(0));
        let end = mem.end_frame().0;
        for pfn in [frame_at(&p, BASE).unwrap(), frame_at(&p, FAR).unwrap(), Pfn(end), Pfn(0)] {
            assert_eq!(migrate(mem, pfn), Ok(false));
        }
        for pfn in (0..end).map(Pfn).filter(|&pfn| mem.frame(pfn).kind() != FrameKind::Anon) {
            assert_eq!(migrate(mem, pfn), Ok(false), "{:?}", mem.frame(pfn));
        }
        p.assert_filled(BASE, 2);
        check(&[&p]);
    });
}

#[test]
fn access_stays_as_it_was() {
    on_machine(512, |mem| {
        let p = filled(mem, 3);
        p.space.mprotect(BASE, PAGE, READ).unwrap();
        p.space.mprotect(BASE + PAGE, PAGE, 0).unwrap();
        for page in 0..3 {
            assert_eq!(migrate(mem, frame_at(&p, BASE + page * PAGE).unwrap()), Ok(true));
        }
        check(&[&p]);
        assert_eq!((p.read(BASE), p.write(BASE, 9)), (Ok(1), Err(FaultError::AccessDenied)));
        assert_eq!(p.read(BASE + PAGE), Err(FaultError::AccessDenied));
        p.write(BASE + 2 * PAGE, 9).unwrap();
        p.space.mprotect(BASE, 2 * PAGE, RW).unwrap();
        assert_eq!((p.read(BASE), p.read(BASE + PAGE), p.read(BASE + 2 * PAGE)), (Ok(1), Ok(2), Ok(9)));
    });
}

/// While a page is being moved no TLB may tell what others have changed since, nor an entry
/// be forgotten or come back.
#[test]
fn what_is_done_meanwhile_is_done() {
    type Operation = fn(&Process<'_>);
    let operations: [(&str, Operation, Result<u8, FaultError>, usize); 9] = [
        ("munmap", |p| p.space.munmap(BASE, PAGE).unwrap(), Err(FaultError::NotMapped), 0),
        ("MADV_DONTNEED", |p| p.space.madvise(BASE, PAGE, DONTNEED).unwrap(), Ok(0), 0),
        ("MADV_FREE", |p| p.space.madvise(BASE, PAGE, FREE).unwrap(), Ok(1), 1),
        ("MADV_PAGEOUT", |p| p.space.madvise(BASE, PAGE, PAGEOUT).unwrap(), Ok(1), 1),
        ("mprotect to nothing", |p| p.space.mprotect(BASE, PAGE, 0).unwrap(), Err(FaultError::AccessDenied), 1),
        ("mprotect to reading", |p| p.space.mprotect(BASE, PAGE, READ).unwrap(), Ok(1), 1),
        (
            "mremap",
            |p| assert_eq!(p.space.mremap(BASE, PAGE, PAGE, MAYMOVE | MREMAP_FIXED, FAR), Ok(FAR)),
            Err(FaultError::NotMapped),
            1,
        ),
        (
            "MREMAP_DONTUNMAP",
            |p| assert_eq!(p.space.mremap(BASE, PAGE, PAGE, MAYMOVE | MREMAP_FIXED | DONTUNMAP, FAR), Ok(FAR)),
            Ok(0),
            1,
        ),
        ("mmap", |p| assert!(p.mmap(BASE, PAGE, RW, PRIVATE | ANON | FIXED).is_ok()), Ok(0), 0),
    ];
    for (name, operation, expected, resident) in operations {
        on_machine(512, |mem| {
            let p = filled(mem, 1);
            assert_eq!(p.read(BASE), Ok(1));
            meanwhile(&p, BASE, || {
                operation(&p);
                // Were it not for the TLB, a write would wait for the migration where it is a fault.
                assert!(!p.is_stale() || name.starts_with("MADV_F") || name.starts_with("MADV_P"), "{name}");
            });
            check(&[&p]);
            assert_eq!(p.space.stats().rss_anon, resident, "{name}");
            assert_eq!(p.read(BASE), expected, "{name}");
            if name.starts_with("m") && p.read(FAR).is_ok() {
                assert_eq!(p.read(FAR), Ok(1), "{name}");
            }
            check(&[&p]);
        });
    }
}

#[test]
fn a_child_made_meanwhile_has_the_page_too() {
    on_machine(512, |mem| {
        let p = filled(mem, 2);
        let (child, grandchild) = meanwhile(&p, BASE, || {
            let child = p.fork().unwrap();
            assert!(!p.is_stale(), "the parent could go on writing");
            let grandchild = child.fork().unwrap();
            assert_eq!(child.space.stats().rss_anon, 2);
            (child, grandchild)
        });
        check(&[&p, &child, &grandchild]);
        p.write(BASE, 50).unwrap();
        child.write(BASE, 60).unwrap();
        assert_eq!((p.read(BASE), child.read(BASE), grandchild.read(BASE)), (Ok(50), Ok(60), Ok(1)));
        check(&[&p, &child, &grandchild]);
        // Of those who have a page that is being moved, some go.
        meanwhile(&p, BASE + PAGE, move || drop(child));
        check(&[&p, &grandchild]);
        meanwhile(&grandchild, BASE + PAGE, move || drop(p));
        check(&[&grandchild]);
        assert_eq!(grandchild.read(BASE + PAGE), Ok(2));
    });
}

#[test]
fn a_page_that_nobody_has_any_more_is_freed() {
    on_machine(512, |mem| {
        let p = filled(mem, 1);
        meanwhile(&p, BASE, || p.space.munmap(BASE, PAGE).unwrap());
        assert_eq!((mem.count_frames(FrameKind::Anon), mem.events(Event::Migrated)), (0, 0));
        check(&[&p]);
    });
}

/// Strict relocation goes on as if nothing was being moved.
#[test]
fn pages_that_are_being_moved_are_relocated() {
    on_machine(512, |mem| {
        let p = filled(mem, 4);
        p.map_at(FAR, 4);
        p.fill(FAR, 4);
        let to = BASE + 4 * PAGE;
        let relocated = meanwhile(&p, FAR + PAGE, || p.space.mremap(FAR, 4 * PAGE, 4 * PAGE, RELOCATE, to));
        assert_eq!(relocated, Ok(to));
        assert_eq!(p.map(BASE), "[0-8 rw-p]");
        check(&[&p]);
        p.assert_filled(to, 4);
        assert_eq!(migrate(mem, frame_at(&p, to + PAGE).unwrap()), Ok(true));
        check(&[&p]);
        // What is shared is refused as ever.
        let child = p.fork().unwrap();
        let refused = meanwhile(&p, to, || p.space.mremap(to, 4 * PAGE, 4 * PAGE, RELOCATE, FAR));
        assert_eq!(refused, Err(SpaceError::BadAddress));
        check(&[&p, &child]);
    });
}

#[test]
fn who_looks_meanwhile_sees_the_page() {
    on_machine(512, |mem| {
        let p = filled(mem, 2);
        p.space.mprotect(BASE + PAGE, PAGE, 0).unwrap();
        for addr in [BASE, BASE + PAGE] {
            let from = frame_at(&p, addr).unwrap();
            meanwhile(&p, addr, || {
                let mut seen = Vec::new();
                p.space.for_each_page_state(PageRange::from_len(addr, PAGE).unwrap(), |&state| seen.push(state));
                let [PageState::SoftDirty(_), PageState::Mapped(page)] = seen[..] else { panic!("{seen:?}") };
                assert_eq!((page.pfn, page.kind, page.sharers), (from, FrameKind::Anon, 1));
                let mut resident = 0;
                p.space.for_each_vma_with_pages(|_, pages| resident += pages.resident);
                assert_eq!(resident, 2 * PAGE);
                let mut there = Vec::new();
                let report = |is_there| -> Result<(), SpaceError> {
                    there.push(is_there);
                    Ok(())
                };
                p.space.mincore(BASE, 2 * PAGE, report).unwrap();
                assert_eq!(there, [true, true]);
                p.space.verify_beside_others();
            });
        }
        check(&[&p]);
    });
}

/// A fault on a page that is being moved waits, and then finds the page.
#[test]
fn a_fault_waits() {
    on_machine(512, |mem| {
        let p = filled(mem, 1);
        let from = frame_at(&p, BASE).unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let mut migrations = Migrations::new(mem);
            migrations.add(from, mem.alloc(FrameKind::Anon, 0).unwrap()).unwrap();
            // No TLB knows it, so this is a fault.
            mem.platform().load_root(0, p.space.root());
            let fault = scope.spawn(|| {
                p.write(BASE + 1, 5).unwrap();
                assert!(done.load(Ordering::SeqCst), "written to while it was being moved");
            });
            for _ in 0..1000 {
                thread::yield_now();
            }
            done.store(true, Ordering::SeqCst);
            drop(migrations);
            fault.join().unwrap();
        });
        assert_ne!(frame_at(&p, BASE), Some(from));
        assert_eq!((p.read(BASE), p.read(BASE + 1)), (Ok(1), Ok(5)));
        check(&[&p]);
    });
}

#[test]
fn what_may_be_dropped_may_be_dropped_afterwards() {
    let mem = sim::memory_with_swap(2, 512, 64);
    let p = filled(&mem, 2);
    p.space.madvise(BASE, 2 * PAGE, FREE).unwrap();
    p.write(BASE + PAGE, 9).unwrap();
    for page in 0..2 {
        assert_eq!(migrate(&mem, frame_at(&p, BASE + page * PAGE).unwrap()), Ok(true));
    }
    assert_eq!(mem.reclaim(100), 2);
    assert_eq!((p.read(BASE), p.read(BASE + PAGE)), (Ok(0), Ok(9)));
    check(&[&p]);
}

#[test]
fn pages_in_the_swap_cache_stay() {
    let mem = sim::memory_with_swap(2, 512, 64);
    let p = filled(&mem, 1);
    let child = p.fork().unwrap();
    mem.reclaim(100);
    assert_eq!(p.read(BASE), Ok(1));
    let pfn = frame_at(&p, BASE).unwrap();
    assert_eq!(migrate(&mem, pfn), Ok(false));
    assert_eq!(frame_at(&p, BASE), Some(pfn));
    drop(child);
    check(&[&p]);
}

/// Threads write to their pages, fork, unmap and move them, all of which are moved to other
/// frames all the time.
#[test]
fn pages_are_moved_while_they_are_used() {
    let mem = sim::memory(3, 1024);
    let p = Process::new(&mem);
    p.space.activate(1);
    let pages = 16;
    p.map_at(BASE, pages);
    p.map_at(FAR, pages);
    p.fill(BASE, pages);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            sim::set_cpu(2);
            while !done.load(Ordering::Relaxed) {
                let all = (0..mem.end_frame().0).map(Pfn);
                mem.migrate(all.filter(|&pfn| mem.frame(pfn).kind() == FrameKind::Anon)).unwrap();
            }
        });
        let writer = scope.spawn(|| {
            sim::set_cpu(1);
            let sim = mem.platform();
            let fault = |fault: sim::PageFault| {
                p.space.handle_fault(fault.addr, crate::FaultAccess { write: true, execute: false })
            };
            for round in 1..=2400_usize {
                let at = FAR + round % pages * PAGE + round / pages;
                sim.write_user(1, p.space.root(), at, &[round as u8], fault).unwrap();
                let mut byte = [0];
                sim.read_user(1, p.space.root(), at, &mut byte, fault).unwrap();
                assert_eq!(byte, [round as u8]);
            }
        });
        let mut round = 0;
        while round < 60 || mem.events(Event::Migrated) <= 100 {
            round += 1;
            let child = p.fork().unwrap();
            child.assert_filled(BASE, pages);
            child.write(BASE, 99).unwrap();
            p.assert_filled(BASE, pages);
            drop(child);
            let to = FAR + 64 * PAGE;
            let flags = if round % 2 == 0 { MAYMOVE | MREMAP_FIXED } else { RELOCATE & !16 | 8 };
            assert_eq!(p.space.mremap(BASE, pages * PAGE, pages * PAGE, flags, to), Ok(to));
            p.assert_filled(to, pages);
            assert_eq!(p.space.mremap(to, pages * PAGE, pages * PAGE, flags, BASE), Ok(BASE));
            p.space.mprotect(BASE, pages * PAGE, READ).unwrap();
            assert_eq!(p.write(BASE, 1), Err(FaultError::AccessDenied));
            p.space.mprotect(BASE, pages * PAGE, RW).unwrap();
            p.assert_filled(BASE, pages);
        }
        writer.join().unwrap();
        done.store(true, Ordering::Relaxed);
    });
    check(&[&p]);
    p.space.deactivate(1);
}
