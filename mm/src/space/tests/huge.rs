//! Huge pages: when there are some, what becomes of them, and that no program can tell.

use super::*;
use crate::paging::Entry;
use crate::reclaim::{Evictions, Urgency};
use crate::space::verify_all;
use crate::{Event, FrameKind, HugePages, Overcommit, PMD_SIZE};

const HUGE: usize = PMD_SIZE / PAGE;
const HUGEPAGE: usize = 14;
const NOHUGEPAGE: usize = 15;
const COLLAPSE: usize = 25;
/// Frames for a few huge pages.
const FRAMES: usize = 16 * HUGE;
/// An aligned address in a range that is not.
const AT: usize = BASE + PMD_SIZE;

/// Maps `pages` huge pages, and one small page on either side, to be huge.
fn map_huge(p: &Process, pages: usize) {
    p.map_at(AT - PAGE, pages * HUGE + 2);
    p.space.madvise(AT - PAGE, (pages * HUGE + 2) * PAGE, HUGEPAGE).unwrap();
}

fn entry(p: &Process, addr: usize) -> Option<Entry> {
    p.space.core.tables.lookup(p.space.mem, addr)
}

fn is_huge(p: &Process, addr: usize) -> bool {
    entry(p, addr).is_some_and(|entry| entry.is_huge())
}

/// Writes its number to each page of `huge` huge pages.
fn number(p: &Process, huge: usize) {
    for page in 0..huge * HUGE {
        p.space.write_bytes(AT + page * PAGE, &page.to_ne_bytes()).unwrap();
    }
}

/// The number that was written to the page at `addr`.
fn number_at(p: &Process, addr: usize) -> usize {
    let mut bytes = [0; 8];
    p.space.read_bytes(addr, &mut bytes).unwrap();
    usize::from_ne_bytes(bytes)
}

fn assert_numbered(p: &Process, pages: impl Iterator<Item = usize>) {
    for page in pages {
        assert_eq!(number_at(p, AT + page * PAGE), page, "page {page}");
    }
}

#[test]
fn the_first_write_to_advised_memory_maps_2_mib() {
    on_machine(FRAMES, |mem| {
        let p = Process::new(mem);
        map_huge(&p, 2);
        p.write(AT + 77 * PAGE, 5).unwrap();
        assert!(is_huge(&p, AT) && entry(&p, AT + PMD_SIZE).is_none());
        assert_eq!(p.space.stats().rss_anon, HUGE);
        assert_eq!(mem.events(Event::HugeFault), 1);
        let faults = mem.events(Event::FaultVmaLocked);
        for page in 0..HUGE {
            assert_eq!(p.read(AT + page * PAGE), Ok(if page == 77 { 5 } else { 0 }));
        }
        assert_eq!(mem.events(Event::FaultVmaLocked), faults);
        // The ends are not long enough.
        p.write(AT - PAGE, 1).unwrap();
        p.write(AT + 2 * PMD_SIZE, 1).unwrap();
        assert_eq!(p.space.stats().rss_anon, HUGE + 2);
        let mut found = (0, 0);
        p.space.for_each_vma_with_pages(|_, pages| found = (pages.resident, pages.anonymous_huge));
        assert_eq!(found, ((HUGE + 2) * PAGE, PMD_SIZE));
        verify_all(&[&p.space]);
    });
}

#[test]
fn a_read_maps_as_much_if_something_was_written_before() {
    on_machine(FRAMES, |mem| {
        let p = Process::new(mem);
        map_huge(&p, 2);
        assert_eq!(p.read(AT), Ok(0));
        assert!(!is_huge(&p, AT) && !p.space.next_vma(AT).unwrap().faulted, "it may merge with whatever comes");
        p.write(AT - PAGE, 1).unwrap();
        assert_eq!(p.read(AT + PMD_SIZE), Ok(0));
        assert!(is_huge(&p, AT + PMD_SIZE));
        verify_all(&[&p.space]);
    });
}

#[test]
fn memory_that_is_not_to_be_huge_is_not() {
    const STACK: usize = 0x100;
    let cases: [(&str, HugePages, usize, Option<usize>); 6] = [
        ("not advised", HugePages::Madvise, PRIVATE, None),
        ("advised against", HugePages::Always, PRIVATE, Some(NOHUGEPAGE)),
        ("never", HugePages::Never, PRIVATE, Some(HUGEPAGE)),
        ("shared", HugePages::Always, SHARED, Some(HUGEPAGE)),
        ("a stack", HugePages::Always, PRIVATE | STACK, None),
        ("always", HugePages::Always, PRIVATE, None),
    ];
    for (name, mode, flags, advice) in cases {
        on_machine(FRAMES, |mem| {
            mem.sysctl().set_huge_pages(mode);
            let p = Process::new(mem);
            p.mmap(AT, PMD_SIZE, RW, flags | ANON | FIXED).unwrap();
            advice.iter().for_each(|&advice| p.space.madvise(AT, PMD_SIZE, advice).unwrap());
            p.write(AT, 1).unwrap();
            assert_eq!(is_huge(&p, AT), name == "always", "{name}");
            verify_all(&[&p.space]);
        });
    }
}

#[test]
fn a_process_may_want_small_pages_only_and_so_its_children() {
    on_machine(FRAMES, |mem| {
        let p = Process::new(mem);
        map_huge(&p, 2);
        p.write(AT, 1).unwrap();
        p.space.set_small_pages_only(true);
        p.write(AT + PMD_SIZE, 1).unwrap();
        assert!(is_huge(&p, AT) && !is_huge(&p, AT + PMD_SIZE));
        assert_eq!(p.space.madvise(AT + PMD_SIZE, PMD_SIZE, COLLAPSE), Err(SpaceError::Invalid));
        let child = p.fork().unwrap();
        assert!(child.space.small_pages_only());
        p.space.set_small_pages_only(false);
        assert_eq!(p.space.madvise(AT + PMD_SIZE, PMD_SIZE, COLLAPSE), Ok(()));
        verify_all(&[&p.space, &child.space]);
    });
}

#[test]
fn without_a_block_of_memory_pages_are_small() {
    on_machine(HUGE, |mem| {
        mem.sysctl().set_overcommit(Overcommit::Always);
        let p = Process::new(mem);
        map_huge(&p, 1);
        p.write(AT, 1).unwrap();
        assert!(!is_huge(&p, AT));
        assert_eq!((mem.events(Event::HugeFault), mem.events(Event::HugeFallback)), (0, 1));
        assert_eq!(p.space.stats().rss_anon, 1);
    });
}

#[test]
fn what_is_left_of_a_huge_page_stays() {
    type Change = fn(&Process);
    let part = (AT + 100 * PAGE, 50 * PAGE);
    let changes: [(&str, Change); 5] = [
        ("munmap", |p| p.space.munmap(AT + 100 * PAGE, 50 * PAGE).unwrap()),
        ("mprotect", |p| p.space.mprotect(AT + 100 * PAGE, 50 * PAGE, READ).unwrap()),
        ("dontneed", |p| p.space.madvise(AT + 100 * PAGE, 50 * PAGE, 4).unwrap()),
        ("mlock", |p| p.space.mlock(AT + 100 * PAGE, 50 * PAGE, 0).unwrap()),
        ("mremap", |p| {
            let to = AT + (1 << 30);
            assert_eq!(p.space.mremap(AT + 100 * PAGE, 50 * PAGE, 50 * PAGE, MAYMOVE | MREMAP_FIXED, to), Ok(to));
            (0..50).for_each(|page| assert_eq!(number_at(p, to + page * PAGE), 100 + page));
        }),
    ];
    for (name, change) in changes {
        on_machine(FRAMES, |mem| {
            let p = Process::new(mem);
            map_huge(&p, 3);
            number(&p, 3);
            assert!([0, 1, 2].iter().all(|i| is_huge(&p, AT + i * PMD_SIZE)), "{name}");
            change(&p);
            verify_all(&[&p.space]);
            assert!(!is_huge(&p, AT) && is_huge(&p, AT + PMD_SIZE) && is_huge(&p, AT + 2 * PMD_SIZE), "{name}");
            assert_numbered(&p, (0..100).chain(150..3 * HUGE));
            match name {
                "munmap" | "mremap" => assert_eq!(p.read(part.0), Err(FaultError::NotMapped)),
                "dontneed" => p.assert_zero(part.0, 50),
                _ => assert_numbered(&p, 100..150),
            }
            let gone = if matches!(name, "munmap" | "dontneed") { 50 } else { 0 };
            assert_eq!(p.space.stats().rss_anon, 3 * HUGE - gone, "{name}");
        });
    }
}

#[test]
fn all_of_a_huge_page_is_changed_at_once() {
    on_machine(FRAMES, |mem| {
        let p = Process::new(mem);
        map_huge(&p, 2);
        number(&p, 2);
        p.space.mprotect(AT - PAGE, 2 * PMD_SIZE + 2 * PAGE, READ).unwrap();
        assert_eq!(p.write(AT, 1), Err(FaultError::AccessDenied));
        p.space.mprotect(AT - PAGE, 2 * PMD_SIZE + 2 * PAGE, 0).unwrap();
        assert_eq!(p.read(AT + PAGE), Err(FaultError::AccessDenied));
        verify_all(&[&p.space]);
        p.space.mprotect(AT - PAGE, 2 * PMD_SIZE + 2 * PAGE, RW).unwrap();
        assert!(entry(&p, AT).unwrap().is_writable(), "it is nobody else's");
        p.space.munmap(AT, PMD_SIZE).unwrap();
        assert_eq!((p.space.stats().rss_anon, mem.events(Event::HugeSplit)), (HUGE, 0));
        assert_numbered(&p, HUGE..2 * HUGE);
        verify_all(&[&p.space]);
    });
}

#[test]
fn an_aligned_move_keeps_pages_huge_and_another_does_not() {
    for (offset, relocate) in [(0, 0), (PAGE, 0), (0, 16), (3 * PAGE, 16)] {
        on_machine(FRAMES, |mem| {
            let p = Process::new(mem);
            map_huge(&p, 2);
            number(&p, 2);
            let to = AT + (1 << 30) + offset;
            let flags = MAYMOVE | MREMAP_FIXED | relocate;
            assert_eq!(p.space.mremap(AT, 2 * PMD_SIZE, 2 * PMD_SIZE, flags, to), Ok(to));
            assert_eq!(is_huge(&p, to), offset == 0);
            verify_all(&[&p.space]);
            for page in 0..2 * HUGE {
                assert_eq!(number_at(&p, to + page * PAGE), page);
            }
            p.write(to, 1).unwrap();
            assert_eq!(p.read(AT), Err(FaultError::NotMapped));
        });
    }
}

#[test]
fn of_a_shared_huge_page_only_what_is_written_to_is_copied() {
    on_machine(FRAMES, |mem| {
        let p = Process::new(mem);
        map_huge(&p, 1);
        number(&p, 1);
        let frames = mem.count_frames(FrameKind::Anon);
        let child = p.fork().unwrap();
        assert!(is_huge(&p, AT) && is_huge(&child, AT));
        assert_eq!(mem.count_frames(FrameKind::Anon), frames);
        child.space.write_bytes(AT + 9 * PAGE, &1000usize.to_ne_bytes()).unwrap();
        assert_eq!(mem.count_frames(FrameKind::Anon), frames + 1);
        assert!(is_huge(&p, AT) && !is_huge(&child, AT));
        verify_all(&[&p.space, &child.space]);
        assert_numbered(&p, 0..HUGE);
        assert_numbered(&child, (0..9).chain(10..HUGE));
        assert_eq!(number_at(&child, AT + 9 * PAGE), 1000);
        drop(child);
        p.write(AT + 9 * PAGE, 3).unwrap();
        assert_eq!(mem.count_frames(FrameKind::Anon), frames, "what nobody else has is not copied");
        assert!(is_huge(&p, AT) && entry(&p, AT).unwrap().is_writable());
        verify_all(&[&p.space]);
    });
}

#[test]
fn a_child_that_cannot_be_made_leaves_huge_pages_as_they_are() {
    on_machine(FRAMES, |mem| {
        let p = Process::new(mem);
        map_huge(&p, 2);
        number(&p, 2);
        let mut nth = 0;
        loop {
            nth += 1;
            mem.fail_nth_allocation(nth);
            let child = p.fork();
            mem.fail_nth_allocation(0);
            if child.is_ok() {
                break;
            }
            verify_all(&[&p.space]);
        }
        assert!(nth > 5 && is_huge(&p, AT) && is_huge(&p, AT + PMD_SIZE));
        assert_numbered(&p, 0..2 * HUGE);
    });
}

#[test]
fn reclaim_takes_single_pages_of_it() {
    let mem = sim::memory_with_swap(2, FRAMES, 2 * HUGE as u32);
    mem.sysctl().set_randomize_va_space(0);
    let p = Process::new(&mem);
    map_huge(&p, 1);
    number(&p, 1);
    let child = p.fork().unwrap();
    // They are used: the first turn spares them, all at once.
    p.read(AT).unwrap();
    mem.reclaim(4);
    assert!((4..HUGE).contains(&p.space.stats().swapped));
    verify_all(&[&p.space, &child.space]);
    mem.reclaim(HUGE);
    assert_eq!((p.space.stats().swapped, child.space.stats().swapped), (HUGE, HUGE));
    assert_numbered(&p, 0..HUGE);
    assert_numbered(&child, 0..HUGE);
    verify_all(&[&p.space, &child.space]);
}

#[test]
fn a_used_huge_page_has_a_second_chance() {
    let mem = sim::memory_with_swap(2, FRAMES, 2 * HUGE as u32);
    mem.sysctl().set_randomize_va_space(0);
    let p = Process::new(&mem);
    map_huge(&p, 1);
    number(&p, 1);
    p.map_at(BASE - PMD_SIZE, 64);
    p.fill(BASE - PMD_SIZE, 64);
    let cold = (BASE - PMD_SIZE, 64 * PAGE);
    p.space.madvise(cold.0, cold.1, 20).unwrap();
    mem.reclaim(32);
    assert!(is_huge(&p, AT), "it was used, and others were not");
    assert!(p.space.stats().swapped >= 32);
}

/// Its one entry says for all parts that they were used, and says it once.
#[test]
fn one_use_spares_all_of_a_huge_page() {
    let mem = sim::memory_with_swap(2, FRAMES, 2 * HUGE as u32);
    mem.sysctl().set_randomize_va_space(0);
    let p = Process::new(&mem);
    map_huge(&p, 1);
    number(&p, 1);
    let parts: Vec<_> = entry(&p, AT).unwrap().pfns().collect();
    let mut evictions = Evictions::new(&mem);
    parts.iter().for_each(|&pfn| evictions.add(pfn, Urgency::Spare).unwrap());
    assert_eq!((evictions.finish(), is_huge(&p, AT)), (0, true));
    // It was not used since.
    evictions.add(parts[0], Urgency::Spare).unwrap();
    assert_eq!((evictions.finish(), is_huge(&p, AT)), (1, false));
}

#[test]
fn advice_about_a_part_is_about_that_part() {
    let mem = sim::memory_with_swap(2, FRAMES, 2 * HUGE as u32);
    mem.sysctl().set_randomize_va_space(0);
    let p = Process::new(&mem);
    map_huge(&p, 1);
    number(&p, 1);
    p.space.madvise(AT + 10 * PAGE, 20 * PAGE, 21).unwrap();
    assert_eq!(p.space.stats().swapped, 20);
    p.space.madvise(AT + 100 * PAGE, 20 * PAGE, 8).unwrap();
    let lazy = |page: usize| mem.frame(entry(&p, AT + page * PAGE).unwrap().pfn()).is_lazy_free();
    assert!(!lazy(99) && lazy(100) && lazy(119) && !lazy(120));
    assert_numbered(&p, (0..100).chain(120..HUGE));
    verify_all(&[&p.space]);
}

/// Small pages with holes and pages of zeroes between, to be collapsed.
fn scattered(p: &Process) {
    p.map_at(AT - PAGE, 2 * HUGE + 2);
    for page in (0..HUGE).step_by(3) {
        p.space.write_bytes(AT + page * PAGE, &page.to_ne_bytes()).unwrap();
    }
    p.read(AT + 4 * PAGE).unwrap();
}

fn assert_scattered(p: &Process) {
    for page in 0..HUGE {
        let expected = if page % 3 == 0 { page } else { 0 };
        assert_eq!(number_at(p, AT + page * PAGE), expected, "page {page}");
    }
}

#[test]
fn small_pages_become_a_huge_one() {
    on_machine(FRAMES, |mem| {
        let p = Process::new(mem);
        scattered(&p);
        let tables = p.space.stats().tables;
        assert_eq!(p.space.madvise(AT, PMD_SIZE, COLLAPSE), Ok(()));
        assert!(is_huge(&p, AT));
        assert_eq!((p.space.stats().rss_anon, mem.count_frames(FrameKind::Anon)), (HUGE, HUGE));
        assert_eq!(p.space.stats().tables, tables);
        verify_all(&[&p.space]);
        assert_scattered(&p);
        p.write(AT + PAGE, 1).unwrap();
        assert_eq!(p.space.madvise(AT, PMD_SIZE, COLLAPSE), Ok(()), "it is done already");
        assert_eq!(mem.events(Event::HugeCollapse), 1);
    });
}

#[test]
fn pages_in_swap_and_shared_ones_are_collapsed_too() {
    let mem = sim::memory_with_swap(2, FRAMES, 2 * HUGE as u32);
    mem.sysctl().set_randomize_va_space(0);
    let p = Process::new(&mem);
    scattered(&p);
    let child = p.fork().unwrap();
    mem.reclaim(40);
    assert!(p.space.stats().swapped >= 40);
    assert_eq!(p.space.madvise(AT, PMD_SIZE, COLLAPSE), Ok(()));
    assert!(is_huge(&p, AT) && !is_huge(&child, AT));
    verify_all(&[&p.space, &child.space]);
    p.space.write_bytes(AT, &99usize.to_ne_bytes()).unwrap();
    assert_scattered(&child);
    assert_eq!(child.space.madvise(AT, PMD_SIZE, COLLAPSE), Ok(()));
    verify_all(&[&p.space, &child.space]);
    assert_scattered(&child);
    assert_eq!(number_at(&p, AT), 99);
}

#[test]
fn a_page_that_the_kernel_uses_stays_where_it_is() {
    on_machine(FRAMES, |mem| {
        let p = Process::new(mem);
        scattered(&p);
        let pfn = entry(&p, AT + 3 * PAGE).unwrap().pfn();
        mem.get(pfn);
        assert_eq!(p.space.madvise(AT, PMD_SIZE, COLLAPSE), Err(SpaceError::TryAgain));
        assert_eq!(entry(&p, AT + 3 * PAGE).unwrap().pfn(), pfn);
        assert_scattered(&p);
        verify_pages(&p);
        mem.put(pfn);
        assert_eq!(p.space.madvise(AT, PMD_SIZE, COLLAPSE), Ok(()));
        assert_scattered(&p);
    });
}

fn verify_pages(p: &Process) {
    p.space.core.tables.verify(p.space.mem, |_| {});
}

#[test]
fn what_cannot_be_collapsed_says_why() {
    on_machine(FRAMES, |mem| {
        let p = Process::new(mem);
        let collapse = |addr, len| p.space.madvise(addr, len, COLLAPSE);
        assert_eq!(collapse(AT, PMD_SIZE), Err(SpaceError::NotMapped));
        p.map_at(AT - PAGE, 2 * HUGE + 2);
        assert_eq!(collapse(AT, PMD_SIZE), Err(SpaceError::Invalid), "there is not a page");
        p.write(AT, 1).unwrap();
        assert_eq!(collapse(AT, PMD_SIZE - PAGE), Ok(()), "nothing was asked for");
        assert!(!is_huge(&p, AT));
        assert_eq!(collapse(AT, 3 * PMD_SIZE), Err(SpaceError::Invalid), "the second one has no page");
        assert!(is_huge(&p, AT), "what could be done is done");
        p.mmap(AT + (1 << 30), PMD_SIZE, RW, SHARED | ANON | FIXED).unwrap();
        assert_eq!(collapse(AT + (1 << 30), PMD_SIZE), Err(SpaceError::Invalid));
        p.map_at(BASE, 5);
        assert_eq!(collapse(BASE, 5 * PAGE), Err(SpaceError::Invalid), "it is too small");
        p.write(AT + PMD_SIZE, 1).unwrap();
        p.space.munmap(AT + 2 * PMD_SIZE, PAGE).unwrap();
        assert_eq!(collapse(AT, 2 * PMD_SIZE + PAGE), Err(SpaceError::NotMapped), "but all that is mapped is done");
        assert!(is_huge(&p, AT + PMD_SIZE));
        verify_all(&[&p.space]);
    });
}

#[test]
fn a_collapse_without_memory_changes_nothing() {
    on_machine(FRAMES, |mem| {
        let p = Process::new(mem);
        scattered(&p);
        let mut nth = 0;
        loop {
            nth += 1;
            mem.fail_nth_allocation(nth);
            let result = p.space.madvise(AT, PMD_SIZE, COLLAPSE);
            mem.fail_nth_allocation(0);
            verify_all(&[&p.space]);
            assert_scattered(&p);
            match result {
                Ok(()) => break,
                Err(error) => assert_eq!(error, SpaceError::OutOfMemory),
            }
        }
        assert!(nth > 1 && is_huge(&p, AT));
    });
}

#[test]
fn other_cpus_see_the_new_page() {
    on_machine(FRAMES, |mem| {
        let p = Process::new(mem);
        p.space.activate(1);
        scattered(&p);
        let sim = mem.platform();
        let read = |addr| {
            let mut byte = [0];
            sim.read_user(1, p.space.root(), addr, &mut byte, |fault| p.fault(fault.addr, fault.access))
                .map(|()| byte[0])
        };
        assert_eq!(read(AT + 3 * PAGE), Ok(3));
        p.space.madvise(AT, PMD_SIZE, COLLAPSE).unwrap();
        p.write(AT + 3 * PAGE, 200).unwrap();
        assert_eq!(read(AT + 3 * PAGE), Ok(200));
        p.space.munmap(AT + 3 * PAGE, PAGE).unwrap();
        assert_eq!(read(AT + 3 * PAGE), Err(FaultError::NotMapped));
        assert_eq!(read(AT + 6 * PAGE), Ok(6));
        p.space.deactivate(1);
    });
}
