//! Folios of more than a page that are not huge: which a fault makes, and that they are pages like any.

use super::*;
use crate::{Defrag, Event, FolioPolicy, FolioStats, Overcommit};

const HUGEPAGE: usize = 14;
const NOHUGEPAGE: usize = 15;
const PAGEOUT: usize = 21;
/// 64 KiB.
const ORDER: u8 = 4;
const PAGES: usize = 1 << ORDER;
/// Aligned to every order.
const AT: usize = BASE + crate::PMD_SIZE;

fn let_make(mem: &Memory<SimPlatform>, orders: &[u8]) {
    orders.iter().for_each(|&order| mem.sysctl().set_folio_policy(order, FolioPolicy::Always));
}

fn resident(p: &Process<'_>) -> usize {
    p.space.stats().rss_anon
}

/// Which pages from `AT` on are mapped.
fn mapped(p: &Process<'_>, pages: usize) -> Vec<usize> {
    (0..pages).filter(|page| frame_at(p, AT + page * PAGE).is_some()).collect()
}

#[test]
fn one_write_maps_an_aligned_block() {
    on_machine(512, |mem| {
        let_make(mem, &[ORDER]);
        let p = Process::new(mem);
        p.map_at(AT, 3 * PAGES);
        p.write(AT + 21 * PAGE, 7).unwrap();
        assert_eq!(mapped(&p, 3 * PAGES), (PAGES..2 * PAGES).collect::<Vec<_>>());
        assert_eq!(resident(&p), PAGES);
        assert_eq!(mem.folio_stats(ORDER), FolioStats { faults: 1, fallbacks: 0 });
        let first = frame_at(&p, AT + PAGES * PAGE).unwrap();
        assert!(first.0.is_multiple_of(PAGES));
        for page in 0..PAGES {
            let addr = AT + (PAGES + page) * PAGE;
            assert_eq!(frame_at(&p, addr), Some(Pfn(first.0 + page)));
            assert_eq!(p.read(addr), Ok(if page == 5 { 7 } else { 0 }));
            p.write(addr, page as u8).unwrap();
        }
        assert_eq!(resident(&p), PAGES);
        assert_eq!(mem.events(Event::FaultVmaLocked) + mem.events(Event::FaultFirstWrite), 1, "faults");
        check(&[&p]);
        p.space.munmap(AT, 3 * PAGES * PAGE).unwrap();
        check(&[&p]);
    });
}

#[test]
fn the_frames_of_a_folio_are_cleared() {
    on_machine(512, |mem| {
        let_make(mem, &[ORDER]);
        let p = Process::new(mem);
        p.map_at(AT, 20 * PAGES);
        // The second time in the frames of the first.
        for _ in 0..2 {
            for block in 0..20 {
                let start = AT + block * PAGES * PAGE;
                p.write(start, 1).unwrap();
                p.assert_zero(start + PAGE, PAGES - 1);
                p.fill(start, PAGES);
            }
            p.space.madvise(AT, 20 * PAGES * PAGE, 4).unwrap();
        }
        assert_eq!(mem.folio_stats(ORDER), FolioStats { faults: 40, fallbacks: 0 });
    });
}

#[test]
fn the_largest_that_fits_is_made() {
    on_machine(1024, |mem| {
        let_make(mem, &[2, 3, 6]);
        let p = Process::new(mem);
        // It begins four pages before a boundary, and ends two after one.
        p.map_at(AT + 60 * PAGE, 4 + 64 + 2);
        p.write(AT + 61 * PAGE, 1).unwrap();
        assert_eq!(mapped(&p, 192), (60..64).collect::<Vec<_>>(), "four before the boundary");
        p.write(AT + 129 * PAGE, 1).unwrap();
        assert_eq!(resident(&p), 5, "one of the last two");
        // One page is there.
        p.read(AT + 70 * PAGE).unwrap();
        p.write(AT + 64 * PAGE, 1).unwrap();
        assert_eq!(resident(&p), 5 + 4, "with the page of zeroes near by");
        p.write(AT + 75 * PAGE, 1).unwrap();
        assert_eq!(resident(&p), 9 + 8);
        p.space.madvise(AT + 64 * PAGE, 64 * PAGE, 4).unwrap();
        p.write(AT + 100 * PAGE, 1).unwrap();
        assert_eq!(resident(&p), 5 + 64, "all that is empty again");
        assert_eq!([2, 3, 6].map(|order| mem.folio_stats(order).faults), [2, 1, 1]);
        check(&[&p]);
    });
}

#[test]
fn only_memory_that_may_have_them_gets_them() {
    const STACK: usize = 0x100;
    let cases: [(&str, FolioPolicy, usize, Option<usize>, usize); 8] = [
        ("always", FolioPolicy::Always, PRIVATE, None, PAGES),
        ("always, advised against", FolioPolicy::Always, PRIVATE, Some(NOHUGEPAGE), 1),
        ("always, a stack", FolioPolicy::Always, PRIVATE | STACK, None, 1),
        ("always, shared", FolioPolicy::Always, SHARED, None, 1),
        ("madvise", FolioPolicy::Madvise, PRIVATE, None, 1),
        ("madvise, advised", FolioPolicy::Madvise, PRIVATE, Some(HUGEPAGE), PAGES),
        ("inherit, advised", FolioPolicy::Inherit, PRIVATE, Some(HUGEPAGE), PAGES),
        ("never, advised", FolioPolicy::Never, PRIVATE, Some(HUGEPAGE), 1),
    ];
    for (name, policy, flags, advice, pages) in cases {
        on_machine(512, |mem| {
            mem.sysctl().set_folio_policy(ORDER, policy);
            let p = Process::new(mem);
            p.mmap(AT, 2 * PAGES * PAGE, RW, flags | ANON | FIXED).unwrap();
            advice.iter().for_each(|&advice| p.space.madvise(AT, 2 * PAGES * PAGE, advice).unwrap());
            p.write(AT, 1).unwrap();
            assert_eq!(resident(&p) + p.space.stats().rss_shmem, pages, "{name}");
            p.space.set_small_pages_only(true);
            p.write(AT + PAGES * PAGE, 1).unwrap();
            assert_eq!(resident(&p) + p.space.stats().rss_shmem, pages + 1, "{name}, small pages only");
            check(&[&p]);
        });
    }
}

#[test]
fn a_read_maps_one_page() {
    on_machine(512, |mem| {
        let_make(mem, &[ORDER]);
        let p = Process::new(mem);
        p.map_at(AT, PAGES);
        p.read(AT).unwrap();
        assert_eq!((mapped(&p, PAGES), resident(&p)), (vec![0], 0));
        check(&[&p]);
    });
}

/// They are split by nothing, as there is nothing to split.
#[test]
fn a_part_can_be_unmapped_moved_shared_and_evicted() {
    let mem = sim::memory_with_swap(1, 1024, 64);
    let_make(&mem, &[ORDER]);
    let p = Process::new(&mem);
    p.map_at(AT, PAGES);
    p.fill(AT, PAGES);
    assert_eq!(mem.folio_stats(ORDER).faults, 1);
    let child = p.fork().unwrap();
    child.write(AT + PAGE, 99).unwrap();
    p.space.munmap(AT + 4 * PAGE, 2 * PAGE).unwrap();
    p.space.mremap(AT + 8 * PAGE, 4 * PAGE, 4 * PAGE, 3, AT + 64 * PAGE).unwrap();
    p.space.madvise(AT + 12 * PAGE, 2 * PAGE, PAGEOUT).unwrap();
    p.space.mprotect(AT, PAGE, READ).unwrap();
    check(&[&p, &child]);
    let moved = |page: usize| if (8..12).contains(&page) { page + 56 } else { page };
    for page in (0..PAGES).filter(|page| !(4..6).contains(page)) {
        assert_eq!(p.read(AT + moved(page) * PAGE), Ok(page as u8 + 1));
    }
    assert_eq!((child.read(AT), child.read(AT + PAGE), child.read(AT + 5 * PAGE)), (Ok(1), Ok(99), Ok(6)));
    check(&[&p, &child]);
}

#[test]
fn without_a_block_of_memory_folios_are_smaller() {
    on_machine(512, |mem| {
        mem.sysctl().set_overcommit(Overcommit::Always);
        let_make(mem, &[2, 8]);
        let p = Process::new(mem);
        p.map_at(AT, 512);
        p.write(AT, 1).unwrap();
        p.write(AT + 256 * PAGE, 1).unwrap();
        // There are not 256 frames left.
        assert_eq!(mem.folio_stats(8), FolioStats { faults: 1, fallbacks: 1 });
        assert_eq!(mem.folio_stats(2), FolioStats { faults: 1, fallbacks: 0 });
        assert_eq!(resident(&p), 256 + 4);
        let mut page = 260;
        while p.write(AT + page * PAGE, 1).is_ok() {
            page += 1;
        }
        assert_eq!(resident(&p), page, "to the last page");
        assert!(mem.free_frames() < 4);
        check(&[&p]);
    });
}

#[test]
fn whatever_allocation_fails_the_page_is_there_or_nothing() {
    for nth in 1..=6 {
        on_machine(512, |mem| {
            let_make(mem, &[2, ORDER]);
            let p = filled(mem, 1);
            p.map_at(AT, PAGES);
            mem.fail_nth_allocation(nth);
            let written = p.write(AT, 1);
            mem.fail_nth_allocation(0);
            match written {
                Ok(()) => assert!([2, 5, 17].contains(&resident(&p)), "{nth}: {}", resident(&p)),
                Err(error) => assert_eq!((error, resident(&p)), (FaultError::OutOfMemory, 1), "{nth}"),
            }
            p.write(AT, 1).unwrap();
            check(&[&p]);
        });
    }
}

#[test]
fn memory_is_compacted_where_defrag_says() {
    let cases = [
        (Defrag::Always, false, true),
        (Defrag::Madvise, false, false),
        (Defrag::Madvise, true, true),
        (Defrag::DeferMadvise, true, true),
        (Defrag::Defer, true, false),
        (Defrag::Never, true, false),
    ];
    for (defrag, advised, expected) in cases {
        on_machine(2048, |mem| {
            mem.sysctl().set_overcommit(Overcommit::Always);
            let p = Process::new(mem);
            // Every other page of nearly all of memory is freed.
            p.map_at(AT, 1900);
            p.fill(AT, 1900);
            (0..1900).step_by(2).for_each(|page| p.space.madvise(AT + page * PAGE, PAGE, 4).unwrap());
            mem.sysctl().set_defrag(defrag);
            let_make(mem, &[7]);
            let at = AT + 4096 * PAGE;
            p.map_at(at, 128);
            if advised {
                p.space.madvise(at, 128 * PAGE, HUGEPAGE).unwrap();
            }
            let before = resident(&p);
            p.write(at, 1).unwrap();
            assert_eq!(mem.events(Event::CompactStall) > 0, expected, "{defrag:?}");
            assert_eq!(resident(&p) - before == 128, expected, "{defrag:?}");
            check(&[&p]);
        });
    }
}
