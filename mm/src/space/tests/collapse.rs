//! Huge pages that are made in the background.

use super::*;
use crate::{ClearRefs, CollapseLimits, CollapseScan, Event, HugePages, PMD_SIZE};

const HUGE: usize = PMD_SIZE / PAGE;
const HUGEPAGE: usize = 14;
const NOHUGEPAGE: usize = 15;
const PAGEOUT: usize = 21;
const AT: usize = BASE + PMD_SIZE;
/// Linux's defaults.
const LIMITS: CollapseLimits = CollapseLimits { none: 511, swapped: 64, shared: 256, compact: true };

/// `huge` times 2 MiB, with `pages` written to in each, and then advised to be huge.
fn advised(p: &Process<'_>, huge: usize, pages: usize) {
    p.map_at(AT, huge * HUGE);
    (0..huge).for_each(|n| p.fill(AT + n * PMD_SIZE, pages));
    p.space.madvise(AT, huge * PMD_SIZE, HUGEPAGE).unwrap();
}

fn is_huge(p: &Process<'_>, addr: usize) -> bool {
    p.space.core.tables.lookup(p.space.mem, addr).is_some_and(|entry| entry.is_huge())
}

/// A look at everything: how many huge pages have been made.
fn collapse_all(p: &Process<'_>, limits: CollapseLimits) -> usize {
    let scan = p.space.collapse_some(0, usize::MAX, &limits);
    assert_eq!(scan.next, None);
    scan.collapsed
}

#[test]
fn what_is_there_becomes_huge() {
    on_machine(8 * HUGE, |mem| {
        let p = Process::new(mem);
        advised(&p, 2, 5);
        p.map_at(AT - 3 * PAGE, 1);
        assert_eq!(collapse_all(&p, LIMITS), 2);
        assert!(is_huge(&p, AT) && is_huge(&p, AT + PMD_SIZE));
        for at in [AT, AT + PMD_SIZE] {
            p.assert_filled(at, 5);
            p.assert_zero(at + 5 * PAGE, HUGE - 5);
        }
        assert_eq!(p.space.stats().rss_anon, 2 * HUGE);
        assert_eq!(mem.events(Event::HugeCollapse), 2);
        assert_eq!(collapse_all(&p, LIMITS), 0, "again");
        check(&[&p]);
    });
}

#[test]
fn only_what_is_within_the_limits() {
    let mem = sim::memory_with_swap(1, 8 * HUGE, 64);
    let p = Process::new(&mem);
    advised(&p, 1, 20);
    p.read(AT + 30 * PAGE).unwrap();
    let child = p.fork().unwrap();
    (0..4).for_each(|page| child.write(AT + page * PAGE, 1).unwrap());
    p.space.madvise(AT + 17 * PAGE, 3 * PAGE, PAGEOUT).unwrap();
    assert_eq!(p.space.stats().swapped, 0, "what is shared stays");
    (17..20).for_each(|page| child.write(AT + page * PAGE, 1).unwrap());
    p.space.madvise(AT + 17 * PAGE, 3 * PAGE, PAGEOUT).unwrap();
    assert_eq!(p.space.stats().swapped, 3);
    // There are 17 pages, 13 of them shared, 3 in swap, and 492 that are not there or that of zeroes.
    let enough = CollapseLimits { none: HUGE - 20, swapped: 3, shared: 13, compact: true };
    for too_few in [
        CollapseLimits { none: enough.none - 1, ..enough },
        CollapseLimits { swapped: 2, ..enough },
        CollapseLimits { shared: 12, ..enough },
    ] {
        assert_eq!(collapse_all(&p, too_few), 0, "{too_few:?}");
    }
    assert_eq!(collapse_all(&p, enough), 1);
    assert!(is_huge(&p, AT) && !is_huge(&child, AT));
    p.assert_filled(AT, 20);
    assert_eq!((child.read(AT), child.read(AT + 10 * PAGE), child.read(AT + 18 * PAGE)), (Ok(1), Ok(11), Ok(1)));
    check(&[&p, &child]);
}

#[test]
fn only_what_has_been_used_lately() {
    on_machine(8 * HUGE, |mem| {
        let p = Process::new(mem);
        advised(&p, 1, 5);
        p.space.clear_refs(ClearRefs::All);
        assert_eq!(collapse_all(&p, LIMITS), 0);
        p.write(AT + 5 * PAGE, 1).unwrap();
        assert_eq!(collapse_all(&p, LIMITS), 1);
        check(&[&p]);
    });
}

#[test]
fn only_mappings_whose_faults_would_make_huge_pages() {
    type Case = (HugePages, Option<usize>, bool, usize);
    let cases: [Case; 5] = [
        (HugePages::Madvise, None, false, 0),
        (HugePages::Always, None, false, 1),
        (HugePages::Always, Some(NOHUGEPAGE), false, 0),
        (HugePages::Never, Some(HUGEPAGE), false, 0),
        (HugePages::Always, None, true, 0),
    ];
    for case in cases {
        let (mode, advice, small, expected) = case;
        on_machine(8 * HUGE, |mem| {
            let p = Process::new(mem);
            p.map_at(AT, HUGE);
            p.fill(AT, 5);
            advice.iter().for_each(|&advice| p.space.madvise(AT, PMD_SIZE, advice).unwrap());
            p.space.set_small_pages_only(small);
            mem.sysctl().set_huge_pages(mode);
            assert_eq!(mem.sysctl().makes_huge_pages(), mode != HugePages::Never);
            assert_eq!(collapse_all(&p, LIMITS), expected, "{case:?}");
            check(&[&p]);
        });
    }
}

#[test]
fn a_look_goes_on_where_the_last_one_ended() {
    on_machine(8 * HUGE, |mem| {
        let p = Process::new(mem);
        advised(&p, 3, 5);
        let mut at = 0;
        for number in 1..=3 {
            let scan = p.space.collapse_some(at, HUGE, &LIMITS);
            assert_eq!(
                scan,
                CollapseScan { next: Some(AT + number * PMD_SIZE), scanned: HUGE, collapsed: 1, out_of_memory: false }
            );
            at = scan.next.unwrap();
        }
        assert_eq!(p.space.collapse_some(at, HUGE, &LIMITS), CollapseScan::default());
        check(&[&p]);
    });
}

#[test]
fn what_is_in_use_or_has_no_room_stays_as_it_is() {
    on_machine(3 * HUGE, |mem| {
        let p = Process::new(mem);
        advised(&p, 1, 5);
        let pin = p.space.pin(AT, FaultAccess::WRITE).unwrap();
        assert_eq!(collapse_all(&p, LIMITS), 0);
        drop(pin);
        mem.fail_nth_allocation(1);
        let scan = p.space.collapse_some(0, usize::MAX, &LIMITS);
        assert_eq!((scan.collapsed, scan.out_of_memory, scan.next), (0, true, Some(AT + PMD_SIZE)));
        assert_eq!(mem.events(Event::HugeCollapseFailed), 1);
        mem.fail_nth_allocation(0);
        assert_eq!(p.space.stats().rss_anon, 5);
        p.assert_filled(AT, 5);
        assert_eq!(collapse_all(&p, LIMITS), 1);
        check(&[&p]);
    });
}
