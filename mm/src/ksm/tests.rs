//! Merging, on the simulated machine, with everything checked after each step.

use core::sync::atomic::Ordering;

use crate::sim::{self, SimPlatform};
use crate::space::tests::{
    ANON, BASE, DONTUNMAP, FIXED, MAYMOVE, MREMAP_FIXED, PAGE, PRIVATE, Process, READ, RW, SHARED, check, frame_at,
};
use crate::{Event, FrameKind, KsmPages, KsmStats, Memory, PMD_SIZE, SpaceError, VmaFlags};

const DONTNEED: usize = 4;
const PAGEOUT: usize = 21;
const MERGEABLE: usize = 12;
const UNMERGEABLE: usize = 13;
const COLLAPSE: usize = 25;
const RELOCATE: usize = 8;
const MUST_RELOCATE: usize = 16;

/// A machine that is as it was when the test is over, but for what arenas keep.
fn with_machine(frames: usize, test: impl FnOnce(&Memory<SimPlatform>)) {
    let mem = sim::memory_with_swap(2, frames, 64);
    mem.sysctl().set_randomize_va_space(0);
    let slab = || mem.count_frames(FrameKind::Slab);
    let before = mem.free_frames() + slab();
    test(&mem);
    assert_eq!(mem.free_frames() + slab(), before, "frames left");
    // What is left of merged pages goes when it is come across.
    passes(&mem, 1);
    assert_eq!((mem.arenas.ksm_nodes.in_use(), mem.arenas.ksm_origins.in_use()), (0, 0), "nodes and origins left");
}

/// Goes through all memory so often, and to the end of that.
fn passes(mem: &Memory<SimPlatform>, count: u64) {
    let until = mem.ksm_stats().full_scans + count;
    while mem.ksm.is_in_use() && mem.ksm_stats().full_scans < until {
        mem.ksm_scan(1);
    }
}

/// Merges what can be merged: what has been written twice is stable, and then an equal is found.
fn merge(mem: &Memory<SimPlatform>) {
    passes(mem, 3);
}

/// Maps mergeable memory at `addr`, each page full of one of the `values`.
fn map_pages(p: &Process<'_>, addr: usize, values: &[u8]) {
    p.map_at(addr, values.len());
    p.space.madvise(addr, values.len() * PAGE, MERGEABLE).unwrap();
    for (page, &value) in values.iter().enumerate() {
        p.write(addr + page * PAGE, value).unwrap();
        p.write(addr + page * PAGE + PAGE - 1, value).unwrap();
    }
}

fn assert_pages(p: &Process<'_>, addr: usize, values: &[u8]) {
    for (page, &value) in values.iter().enumerate() {
        let at = addr + page * PAGE;
        assert_eq!((p.read(at), p.read(at + PAGE - 1)), (Ok(value), Ok(value)), "page {page}");
    }
}

fn process<'m>(mem: &'m Memory<SimPlatform>, values: &[u8]) -> Process<'m> {
    let p = Process::new(mem);
    map_pages(&p, BASE, values);
    p
}

fn merged(p: &Process<'_>) -> usize {
    p.space.ksm_pages().merged
}

fn shared(mem: &Memory<SimPlatform>) -> (usize, usize) {
    let stats = mem.ksm_stats();
    (stats.shared, stats.sharing)
}

#[test]
fn equal_pages_become_one_and_a_write_makes_it_two() {
    with_machine(512, |mem| {
        let values = [1, 2, 1, 3, 1, 2];
        let p = process(mem, &values);
        let free = mem.free_frames();
        merge(mem);
        check(&[&p]);
        assert_pages(&p, BASE, &values);
        assert_eq!((merged(&p), shared(mem)), (5, (2, 3)));
        assert_eq!(frame_at(&p, BASE), frame_at(&p, BASE + 4 * PAGE));
        assert_ne!(frame_at(&p, BASE), frame_at(&p, BASE + PAGE));
        assert_eq!(p.space.stats().rss_anon, 6);
        // But for what arenas may have taken.
        assert!(mem.free_frames() + 3 > free);

        p.write(BASE + 2 * PAGE, 9).unwrap();
        check(&[&p]);
        assert_eq!((p.read(BASE), p.read(BASE + 2 * PAGE), p.read(BASE + 3 * PAGE - 1)), (Ok(1), Ok(9), Ok(1)));
        assert_eq!((merged(&p), shared(mem)), (4, (2, 2)));
        // Nor is the page written to when nobody else has it any more: it may get an equal again.
        for page in [1, 5] {
            p.write(BASE + page * PAGE, 8).unwrap();
            check(&[&p]);
        }
        assert_eq!((merged(&p), shared(mem)), (2, (1, 1)));
    });
}

#[test]
fn what_is_not_mergeable_stays_as_it_is() {
    with_machine(512, |mem| {
        let p = process(mem, &[7, 7, 7, 7]);
        p.space.madvise(BASE + PAGE, 2 * PAGE, UNMERGEABLE).unwrap();
        let frames = [frame_at(&p, BASE + PAGE), frame_at(&p, BASE + 2 * PAGE)];
        merge(mem);
        check(&[&p]);
        assert_eq!(merged(&p), 2);
        assert_eq!([frame_at(&p, BASE + PAGE), frame_at(&p, BASE + 2 * PAGE)], frames);
    });
}

#[test]
fn what_cannot_be_merged_takes_the_advice_and_ignores_it() {
    with_machine(512, |mem| {
        let p = Process::new(mem);
        p.mmap(BASE, 2 * PAGE, RW, SHARED | ANON | FIXED).unwrap();
        assert_eq!(p.space.madvise(BASE, 2 * PAGE, MERGEABLE), Ok(()));
        assert_eq!(p.space.madvise(BASE, 4 * PAGE, MERGEABLE), Err(SpaceError::NotMapped));
        assert_eq!(p.space.madvise(BASE, 4 * PAGE, UNMERGEABLE), Err(SpaceError::NotMapped));
        assert_eq!(p.space.madvise(BASE + 1, PAGE, MERGEABLE), Err(SpaceError::Invalid));
        assert!(!p.space.next_vma(BASE).unwrap().flags.contains(VmaFlags::MERGEABLE));
    });
}

#[test]
fn a_page_that_changes_all_the_time_is_left_alone() {
    with_machine(512, |mem| {
        let p = process(mem, &[5, 5]);
        for value in 0..6 {
            p.write(BASE + 8, value).unwrap();
            p.write(BASE + PAGE + 8, value).unwrap();
            passes(mem, 1);
        }
        assert_eq!((merged(&p), mem.ksm_stats().volatile, mem.ksm_stats().unshared), (0, 2, 0));
        merge(mem);
        assert_eq!((merged(&p), mem.ksm_stats().volatile), (2, 0));
        p.write(BASE, 6).unwrap();
        merge(mem);
        assert_eq!((merged(&p), mem.ksm_stats().unshared), (1, 1));
        check(&[&p]);
    });
}

#[test]
fn advice_against_it_gives_pages_back() {
    with_machine(512, |mem| {
        let values = [1; 40];
        let p = process(mem, &values);
        merge(mem);
        assert_eq!(merged(&p), 40);
        p.space.madvise(BASE + PAGE, 38 * PAGE, UNMERGEABLE).unwrap();
        check(&[&p]);
        assert_eq!(merged(&p), 2);
        assert_pages(&p, BASE, &values);
        merge(mem);
        assert_eq!(merged(&p), 2);
        // They are its own: a write copies nothing.
        let frame = frame_at(&p, BASE + PAGE);
        p.write(BASE + PAGE, 2).unwrap();
        assert_eq!(frame_at(&p, BASE + PAGE), frame);
        p.space.unmerge().unwrap();
        check(&[&p]);
        assert_eq!((merged(&p), shared(mem)), (0, (0, 0)));
        merge(mem);
        assert_eq!(merged(&p), 2);
    });
}

#[test]
fn pages_without_access_are_merged_and_given_back() {
    with_machine(512, |mem| {
        let p = process(mem, &[1, 1, 1]);
        p.space.mprotect(BASE, 3 * PAGE, 0).unwrap();
        merge(mem);
        check(&[&p]);
        assert_eq!(merged(&p), 3);
        p.space.madvise(BASE, PAGE, UNMERGEABLE).unwrap();
        check(&[&p]);
        assert_eq!(merged(&p), 2);
        p.space.mprotect(BASE, 3 * PAGE, RW).unwrap();
        check(&[&p]);
        assert_pages(&p, BASE, &[1, 1, 1]);
        p.write(BASE + PAGE, 2).unwrap();
        assert_eq!((p.read(BASE + 2 * PAGE), merged(&p)), (Ok(1), 1));
    });
}

#[test]
fn all_of_a_process_may_be_merged() {
    with_machine(512, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 4);
        (0..4).for_each(|page| p.write(BASE + page * PAGE, 1).unwrap());
        p.space.set_memory_merge(true).unwrap();
        assert!(p.space.memory_merge());
        let later = BASE + 16 * PAGE;
        p.map_at(later, 2);
        (0..2).for_each(|page| p.write(later + page * PAGE, 1).unwrap());
        let child = p.fork().unwrap();
        assert!(child.space.memory_merge());
        drop(child);
        merge(mem);
        assert_eq!((merged(&p), shared(mem)), (6, (1, 5)));
        check(&[&p]);
        p.space.set_memory_merge(false).unwrap();
        check(&[&p]);
        assert_eq!((merged(&p), p.space.memory_merge()), (0, false));
        assert!(!p.space.next_vma(BASE).unwrap().flags.contains(VmaFlags::MERGEABLE));
    });
}

#[test]
fn zeroes_become_the_page_of_zeroes() {
    with_machine(512, |mem| {
        mem.sysctl().set_ksm_use_zero_pages(true);
        let p = process(mem, &[0, 0, 1, 0]);
        merge(mem);
        check(&[&p]);
        assert_eq!(p.space.ksm_pages(), KsmPages { merged: 0, zero: 3 });
        assert_eq!((frame_at(&p, BASE), p.space.stats().rss_anon), (Some(mem.zero_page()), 1));
        p.write(BASE, 1).unwrap();
        p.space.madvise(BASE + PAGE, PAGE, UNMERGEABLE).unwrap();
        check(&[&p]);
        assert_eq!(p.space.ksm_pages().zero, 1);
        assert_ne!(frame_at(&p, BASE + PAGE), Some(mem.zero_page()));
        assert_eq!((p.read(BASE), p.read(BASE + PAGE), p.read(BASE + 3 * PAGE)), (Ok(1), Ok(0), Ok(0)));
        // A page that has never been written to is none of them.
        p.map_at(BASE + 8 * PAGE, 1);
        p.space.madvise(BASE + 8 * PAGE, PAGE, MERGEABLE).unwrap();
        assert_eq!((p.read(BASE + 8 * PAGE), p.space.ksm_pages().zero), (Ok(0), 1));
    });
}

#[test]
fn a_page_is_shared_so_often_and_then_there_is_another() {
    with_machine(512, |mem| {
        mem.sysctl().set_ksm_max_page_sharing(3);
        let p = process(mem, &[1; 8]);
        merge(mem);
        check(&[&p]);
        assert_eq!(merged(&p), 8);
        let stats = mem.ksm_stats();
        assert_eq!(stats, KsmStats { shared: 3, sharing: 5, chains: 1, duplicates: 3, ..stats });
        assert_pages(&p, BASE, &[1; 8]);
    });
}

#[test]
fn forks_are_found_wherever_they_got_it() {
    with_machine(512, |mem| {
        // Before they are merged,
        let parent = process(mem, &[1, 1, 2, 3]);
        let first = parent.fork().unwrap();
        first.write(BASE + 2 * PAGE, 1).unwrap();
        first.write(BASE + 3 * PAGE - 1, 1).unwrap();
        merge(mem);
        check(&[&parent, &first]);
        assert_eq!((merged(&parent), merged(&first), shared(mem)), (2, 3, (1, 4)));
        // and after.
        let second = parent.fork().unwrap();
        let third = first.fork().unwrap();
        check(&[&parent, &first, &second, &third]);
        assert_eq!((merged(&second), merged(&third), shared(mem)), (2, 3, (1, 9)));
        drop(parent);
        check(&[&first, &second, &third]);
        second.write(BASE, 7).unwrap();
        passes(mem, 2);
        check(&[&first, &second, &third]);
        assert_pages(&first, BASE, &[1, 1, 1, 3]);
        assert_pages(&third, BASE, &[1, 1, 1, 3]);
        assert_eq!((second.read(BASE), second.read(BASE + PAGE)), (Ok(7), Ok(1)));
    });
}

#[test]
fn relatives_that_do_not_want_it_keep_their_pages() {
    with_machine(512, |mem| {
        let p = process(mem, &[1, 1]);
        let child = p.fork().unwrap();
        child.space.madvise(BASE, 2 * PAGE, UNMERGEABLE).unwrap();
        let frames = [frame_at(&child, BASE), frame_at(&child, BASE + PAGE)];
        merge(mem);
        check(&[&p, &child]);
        assert_eq!((merged(&p), merged(&child)), (2, 0));
        assert_eq!([frame_at(&child, BASE), frame_at(&child, BASE + PAGE)], frames);
    });
}

#[test]
fn a_page_that_merges_again_has_one_origin() {
    with_machine(512, |mem| {
        let p = process(mem, &[1, 1, 1]);
        merge(mem);
        for value in [2, 1] {
            p.write(BASE, value).unwrap();
        }
        // It is looked at before the merged page is.
        let (first, _) = mem.frame_span();
        mem.ksm.hand.store(frame_at(&p, BASE).unwrap().0 - first.0, Ordering::Relaxed);
        mem.ksm_scan(1);
        check(&[&p]);
        assert_eq!((merged(&p), mem.arenas.ksm_origins.in_use()), (3, 3));
    });
}

#[test]
fn strangers_share_a_page_and_go() {
    with_machine(512, |mem| {
        let one = process(mem, &[1, 2]);
        let other = Process::new(mem);
        map_pages(&other, BASE + 64 * PAGE, &[2, 1, 1]);
        merge(mem);
        check(&[&one, &other]);
        assert_eq!(shared(mem), (2, 3));
        drop(one);
        check(&[&other]);
        assert_pages(&other, BASE + 64 * PAGE, &[2, 1, 1]);
        passes(mem, 2);
        // The root of who is gone may be another's by now.
        let third = process(mem, &[2, 2]);
        merge(mem);
        check(&[&other, &third]);
        assert_eq!(merged(&third), 2);
    });
}

#[test]
fn a_moved_page_is_found_where_it_is() {
    with_machine(512, |mem| {
        let p = process(mem, &[1, 1, 1, 1]);
        merge(mem);
        let to = BASE + 64 * PAGE;
        p.space.mremap(BASE, 4 * PAGE, 4 * PAGE, MAYMOVE | MREMAP_FIXED, to).unwrap();
        check(&[&p]);
        assert_eq!(merged(&p), 4);
        p.space.mremap(to + PAGE, 2 * PAGE, 2 * PAGE, MAYMOVE | MREMAP_FIXED, BASE).unwrap();
        check(&[&p]);
        p.space.mremap(to, PAGE, PAGE, MAYMOVE | DONTUNMAP, 0).unwrap();
        check(&[&p]);
        assert_pages(&p, BASE, &[1, 1]);
        passes(mem, 2);
        check(&[&p]);
        assert_eq!(merged(&p), 4);
        p.space.munmap(BASE, PAGE).unwrap();
        p.space.madvise(BASE + PAGE, PAGE, DONTNEED).unwrap();
        check(&[&p]);
        assert_eq!(merged(&p), 2);
    });
}

#[test]
fn relocation_refuses_merged_pages() {
    with_machine(512, |mem| {
        let p = process(mem, &[1, 1, 2, 3]);
        let to = BASE + 64 * PAGE;
        let must = MAYMOVE | MREMAP_FIXED | MUST_RELOCATE;
        merge(mem);
        assert_eq!(p.space.mremap(BASE, 4 * PAGE, 4 * PAGE, must, to), Err(SpaceError::BadAddress));
        assert_eq!(mem.events(Event::RelocateMergedPage), 1);
        check(&[&p]);
        // Also one that is mapped nowhere else any more.
        p.write(BASE + PAGE, 9).unwrap();
        assert_eq!(p.space.mremap(BASE, PAGE, PAGE, must, to), Err(SpaceError::BadAddress));
        assert_eq!(mem.events(Event::RelocateMergedPage), 2);
        // What has not been merged is relocated, and with the other flag the rest moves as ever.
        p.space.mremap(BASE + PAGE, 3 * PAGE, 3 * PAGE, must, to + PAGE).unwrap();
        p.space.mremap(BASE, PAGE, PAGE, MAYMOVE | MREMAP_FIXED | RELOCATE, to).unwrap();
        assert_eq!((mem.events(Event::RelocateMergedPage), mem.events(Event::Relocated)), (3, 1));
        check(&[&p]);
        assert_eq!((p.read(to), p.read(to + PAGE), p.read(to + 2 * PAGE)), (Ok(1), Ok(9), Ok(2)));
        p.space.unmerge().unwrap();
        merge(mem);
        check(&[&p]);
    });
}

#[test]
fn reclaim_leaves_merged_pages_and_the_scan_those_in_swap() {
    with_machine(512, |mem| {
        let p = process(mem, &[1, 1, 2, 2]);
        p.space.madvise(BASE + 2 * PAGE, 2 * PAGE, PAGEOUT).unwrap();
        merge(mem);
        check(&[&p]);
        assert_eq!((merged(&p), p.space.stats().swapped), (2, 2));
        p.space.madvise(BASE, 4 * PAGE, PAGEOUT).unwrap();
        mem.reclaim(100);
        check(&[&p]);
        assert_eq!((merged(&p), p.space.stats().swapped), (2, 2));
        assert_pages(&p, BASE, &[1, 1, 2, 2]);
        merge(mem);
        check(&[&p]);
        assert_eq!(merged(&p), 4);
    });
}

#[test]
fn huge_pages_are_split_where_a_part_has_an_equal() {
    with_machine(4096, |mem| {
        let p = Process::new(mem);
        mem.sysctl().set_huge_pages(crate::HugePages::Always);
        p.map_at(PMD_SIZE, PMD_SIZE / PAGE);
        p.space.madvise(PMD_SIZE, PMD_SIZE, MERGEABLE).unwrap();
        for page in 0..PMD_SIZE / PAGE {
            let value = (page as u32).to_le_bytes();
            p.write(PMD_SIZE + page * PAGE, value[0]).unwrap();
            p.write(PMD_SIZE + page * PAGE + 1, value[1]).unwrap();
        }
        merge(mem);
        check(&[&p]);
        assert_eq!((merged(&p), mem.events(Event::HugeSplit)), (0, 0));
        p.write(PMD_SIZE + 7 * PAGE, 5).unwrap();
        merge(mem);
        check(&[&p]);
        assert_eq!((merged(&p), mem.events(Event::HugeSplit)), (2, 1));
        assert_eq!((p.read(PMD_SIZE + 5 * PAGE), p.read(PMD_SIZE + 8 * PAGE)), (Ok(5), Ok(8)));
        // And back: a huge page has its contents to itself.
        p.space.madvise(PMD_SIZE, PMD_SIZE, COLLAPSE).unwrap();
        check(&[&p]);
        assert_eq!((merged(&p), p.read(PMD_SIZE + 7 * PAGE)), (0, Ok(5)));
    });
}

#[test]
fn a_page_that_somebody_else_uses_is_not_merged() {
    with_machine(512, |mem| {
        let p = process(mem, &[1, 1]);
        let pfn = frame_at(&p, BASE).unwrap();
        mem.get(pfn);
        merge(mem);
        // Who has it may write to it.
        // SAFETY: the reference keeps the frame.
        unsafe { mem.page_ptr(pfn).write(5) };
        assert_eq!(frame_at(&p, BASE), Some(pfn));
        assert_eq!((p.read(BASE), p.read(BASE + PAGE)), (Ok(5), Ok(1)));
        mem.put(pfn);
        check(&[&p]);
    });
}

#[test]
fn no_failing_allocation_loses_anything() {
    for n in 1.. {
        let mut failed = true;
        with_machine(512, |mem| {
            let p = process(mem, &[1, 1, 2, 0]);
            let child = p.fork().unwrap();
            mem.sysctl().set_ksm_use_zero_pages(true);
            mem.fail_nth_allocation(n);
            merge(mem);
            check(&[&p, &child]);
            let unmerged = p.space.madvise(BASE, 3 * PAGE, UNMERGEABLE);
            check(&[&p, &child]);
            failed = mem.allocation_failed();
            mem.fail_nth_allocation(0);
            assert!(unmerged.is_ok() || failed);
            for p in [&p, &child] {
                assert_pages(p, BASE, &[1, 1, 2, 0]);
            }
            p.mmap(BASE, PAGE, READ, PRIVATE | ANON | FIXED).unwrap();
        });
        if !failed {
            assert!(n > 5, "few allocations: {n}");
            return;
        }
    }
}
