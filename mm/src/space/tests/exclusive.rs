//! Which private pages are known to be one mapping's alone, and what becomes of a write to others.

use std::thread;

use super::*;
use crate::migrate::Migrations;
use crate::paging::HUGE_PAGES;
use crate::{FrameKind, Overcommit, PMD_SIZE};

const MERGEABLE: usize = 12;
const HUGEPAGE: usize = 14;
const PAGEOUT: usize = 21;
const COLLAPSE: usize = 25;

/// Whether the page at `addr` is exclusive.
fn is_exclusive(p: &Process<'_>, addr: usize) -> bool {
    p.space.memory().frame(frame_at(p, addr).unwrap()).is_exclusive()
}

/// Whether a write to `addr` leaves the page in its frame.
fn is_written_in_place(p: &Process<'_>, addr: usize) -> bool {
    let before = frame_at(p, addr);
    p.write(addr, 99).unwrap();
    frame_at(p, addr) == before
}

#[test]
fn a_page_is_exclusive_until_it_is_shared_and_when_it_is_written_to_alone() {
    on_machine(512, |mem| {
        let p = filled(mem, 3);
        assert!(is_exclusive(&p, BASE));
        let child = p.fork().unwrap();
        assert!(!is_exclusive(&p, BASE) && !is_exclusive(&child, BASE));
        // A copy is exclusive, what it was made of is not.
        assert!(!is_written_in_place(&child, BASE));
        assert!(is_exclusive(&child, BASE) && !is_exclusive(&p, BASE));
        check(&[&p, &child]);
        assert!(is_written_in_place(&p, BASE) && is_exclusive(&p, BASE));
        drop(child);
        assert!(!is_exclusive(&p, BASE + PAGE));
        assert!(is_written_in_place(&p, BASE + PAGE) && is_exclusive(&p, BASE + PAGE));
        assert!(!is_exclusive(&p, BASE + 2 * PAGE));
        check(&[&p]);
    });
}

/// CVE-2020-29374: a child that has a reference to a page, and unmaps it, must not see what its
/// parent writes there later.
#[test]
fn who_has_held_a_shared_page_reads_no_later_writes_by_it() {
    on_machine(512, |mem| {
        let p = filled(mem, 1);
        let child = p.fork().unwrap();
        let held = frame_at(&child, BASE).unwrap();
        mem.get(held);
        child.space.munmap(BASE, PAGE).unwrap();
        p.space.mprotect(BASE, PAGE, READ).unwrap();
        p.space.mprotect(BASE, PAGE, RW).unwrap();
        assert!(!is_written_in_place(&p, BASE));
        // SAFETY: the frame is held, and in the simulated RAM.
        assert_eq!(unsafe { mem.page_ptr(held).read() }, 1);
        mem.put(held);
        check(&[&p, &child]);
    });
}

#[test]
fn an_exclusive_page_is_written_to_in_place_whoever_has_a_reference() {
    on_machine(512, |mem| {
        let p = filled(mem, 2);
        let pages = [BASE, BASE + PAGE].map(|addr| frame_at(&p, addr).unwrap());
        pages.iter().for_each(|&pfn| mem.get(pfn));
        p.space.mprotect(BASE, PAGE, READ).unwrap();
        p.space.mprotect(BASE, PAGE, RW).unwrap();
        write_protect(&p, BASE + PAGE);
        assert!(is_written_in_place(&p, BASE) && is_written_in_place(&p, BASE + PAGE));
        pages.iter().for_each(|&pfn| mem.put(pfn));
        check(&[&p]);
    });
}

#[test]
fn mprotect_makes_no_page_exclusive() {
    on_machine(512, |mem| {
        let p = filled(mem, 1);
        drop(p.fork().unwrap());
        p.space.mprotect(BASE, PAGE, READ).unwrap();
        p.space.mprotect(BASE, PAGE, RW).unwrap();
        assert!(!is_exclusive(&p, BASE));
        assert!(is_written_in_place(&p, BASE) && is_exclusive(&p, BASE));
        check(&[&p]);
    });
}

#[test]
fn a_page_comes_back_from_swap_as_exclusive_as_it_is() {
    let mem = sim::memory_with_swap(2, 512, 64);
    let p = filled(&mem, 2);
    p.space.madvise(BASE, 2 * PAGE, PAGEOUT).unwrap();
    assert_eq!((p.read(BASE), is_exclusive(&p, BASE)), (Ok(1), true));
    let child = p.fork().unwrap();
    // The one is in memory and shared, the other one in swap.
    assert_eq!((p.read(BASE + PAGE), child.read(BASE + PAGE)), (Ok(2), Ok(2)));
    for addr in [BASE, BASE + PAGE] {
        assert!(!is_exclusive(&p, addr) && !is_exclusive(&child, addr));
    }
    check(&[&p, &child]);
    assert!(!is_written_in_place(&p, BASE + PAGE) && is_exclusive(&p, BASE + PAGE));
    assert!(is_written_in_place(&child, BASE + PAGE) && is_exclusive(&child, BASE + PAGE));
    check(&[&p, &child]);
}

/// It may have been shared, and be in the cache, when it was evicted.
#[test]
fn a_page_that_was_shared_comes_back_from_swap_exclusive() {
    let mem = sim::memory_with_swap(2, 512, 64);
    let p = filled(&mem, 1);
    drop(p.fork().unwrap());
    assert!(!is_exclusive(&p, BASE));
    let held = frame_at(&p, BASE).unwrap();
    p.space.madvise(BASE, PAGE, PAGEOUT).unwrap();
    assert_eq!(p.read(BASE), Ok(1));
    assert!(frame_at(&p, BASE).is_some() && is_exclusive(&p, BASE), "{held:?}");
    check(&[&p]);
}

#[test]
fn a_page_that_is_moved_to_another_frame_stays_as_exclusive_as_it_was() {
    on_machine(512, |mem| {
        let p = filled(mem, 2);
        drop(p.fork().unwrap());
        p.write(BASE, 1).unwrap();
        let pages = [BASE, BASE + PAGE].map(|addr| frame_at(&p, addr).unwrap());
        assert_eq!(mem.migrate(pages), Ok(2));
        assert!(is_exclusive(&p, BASE) && !is_exclusive(&p, BASE + PAGE));
        check(&[&p]);
    });
}

#[test]
fn a_page_that_is_shared_while_it_is_moved_is_not_exclusive() {
    on_machine(512, |mem| {
        let p = filled(mem, 1);
        let mut migrations = Migrations::new(mem);
        migrations.add(frame_at(&p, BASE).unwrap(), mem.alloc(FrameKind::Anon, 0).unwrap()).unwrap();
        // In another thread: this one has the page's lock.
        let child = thread::scope(|scope| scope.spawn(|| p.fork().unwrap()).join()).unwrap();
        drop(migrations);
        assert!(!is_exclusive(&p, BASE) && frame_at(&p, BASE) == frame_at(&child, BASE));
        p.space.mprotect(BASE, PAGE, READ).unwrap();
        p.space.mprotect(BASE, PAGE, RW).unwrap();
        assert!(!is_written_in_place(&p, BASE));
        assert_eq!(child.read(BASE), Ok(1));
        check(&[&p, &child]);
    });
}

#[test]
fn a_merged_page_is_not_exclusive_and_what_is_written_is() {
    let mem = sim::memory_with_swap(2, 512, 64);
    let p = Process::new(&mem);
    p.map_at(BASE, 2);
    p.space.madvise(BASE, 2 * PAGE, MERGEABLE).unwrap();
    [BASE, BASE + PAGE].iter().for_each(|&addr| p.write(addr, 1).unwrap());
    while mem.ksm_stats().full_scans < 3 {
        mem.ksm_scan(1);
    }
    assert_eq!(frame_at(&p, BASE), frame_at(&p, BASE + PAGE));
    assert!(!is_exclusive(&p, BASE));
    assert!(!is_written_in_place(&p, BASE) && is_exclusive(&p, BASE));
    // Alone, but merged: nobody ever writes to that.
    assert!(!is_written_in_place(&p, BASE + PAGE));
    check(&[&p]);
}

#[test]
fn a_huge_page_is_exclusive_part_by_part() {
    on_machine(16 * HUGE_PAGES, |mem| {
        mem.sysctl().set_overcommit(Overcommit::Always);
        let at = BASE + PMD_SIZE;
        let p = Process::new(mem);
        p.map_at(at, HUGE_PAGES);
        p.space.madvise(at, PMD_SIZE, HUGEPAGE).unwrap();
        p.fill(at, 3);
        let last = at + PMD_SIZE - PAGE;
        assert!(is_exclusive(&p, at) && is_exclusive(&p, last));
        let child = p.fork().unwrap();
        assert!(!is_exclusive(&p, at) && !is_exclusive(&p, last));
        assert!(!is_written_in_place(&p, at) && is_exclusive(&p, at) && !is_exclusive(&p, last));
        assert!(is_written_in_place(&child, at) && is_exclusive(&child, at) && !is_exclusive(&child, last));
        check(&[&p, &child]);
        drop(child);
        p.space.madvise(at, PMD_SIZE, COLLAPSE).unwrap();
        assert!(is_exclusive(&p, at) && is_exclusive(&p, last));
        // As a whole it is made exclusive again when nobody else has any part.
        drop(p.fork().unwrap());
        assert!(!is_exclusive(&p, at));
        assert!(is_written_in_place(&p, at) && is_exclusive(&p, at) && is_exclusive(&p, last));
        check(&[&p]);
    });
}
