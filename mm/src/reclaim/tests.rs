//! Eviction, page by page and by the clock, with everything checked after each step.

use super::{Evictions, Urgency};
use crate::sim::{self, SimPlatform};
use crate::space::tests::{
    ANON, BASE, DONTUNMAP, FIXED, MAYMOVE, MREMAP_FIXED, PAGE, PRIVATE, Process, READ, RW, check, filled, frame_at,
};
use crate::{Event, FaultError, FrameKind, Memory, Pfn, SpaceError, SwapError};

const COLD: usize = 20;
const PAGEOUT: usize = 21;
const FREE: usize = 8;
const DONTNEED: usize = 4;

/// A machine with swap, which the test leaves as it was.
fn with_swap(frames: usize, slots: u32, test: impl FnOnce(&Memory<SimPlatform>)) {
    let mem = sim::memory_with_swap(2, frames, slots);
    mem.sysctl().set_randomize_va_space(0);
    let slab = || mem.count_frames(FrameKind::Slab);
    let before = mem.free_frames() + slab();
    test(&mem);
    assert_eq!(mem.free_frames() + slab(), before, "frames left");
    assert_eq!((mem.swap_stats().used, mem.platform().swap().stored()), (0, 0), "slots left");
}

/// Evicts one page; says whether its frame is free now.
fn evict(mem: &Memory<SimPlatform>, pfn: Pfn, urgency: Urgency) -> Result<bool, SwapError> {
    let mut evictions = Evictions::new(mem);
    evictions.add(pfn, urgency)?;
    Ok(evictions.finish() == 1)
}

fn swapped(p: &Process<'_>) -> usize {
    p.space.stats().swapped
}

#[test]
fn what_is_paged_out_comes_back() {
    with_swap(512, 64, |mem| {
        let p = filled(mem, 8);
        p.space.madvise(BASE, 8 * PAGE, PAGEOUT).unwrap();
        check(&[&p]);
        assert_eq!((swapped(&p), p.space.stats().rss_anon), (8, 0));
        assert_eq!(mem.count_frames(FrameKind::Anon), 0);
        p.assert_filled(BASE, 8);
        check(&[&p]);
        assert_eq!((swapped(&p), p.space.stats().rss_anon), (0, 8));
        assert_eq!((mem.events(Event::SwapOut), mem.events(Event::SwapIn)), (8, 8));
        // They are its alone again, so a write copies nothing.
        let frame = frame_at(&p, BASE);
        p.write(BASE, 99).unwrap();
        assert_eq!(frame_at(&p, BASE), frame);
    });
}

#[test]
fn a_write_brings_a_page_back_too() {
    with_swap(512, 64, |mem| {
        let p = filled(mem, 2);
        p.space.madvise(BASE, 2 * PAGE, PAGEOUT).unwrap();
        p.write(BASE + 1, 77).unwrap();
        check(&[&p]);
        assert_eq!((p.read(BASE), p.read(BASE + 1), p.read(BASE + PAGE)), (Ok(1), Ok(77), Ok(2)));
    });
}

#[test]
fn the_clock_spares_what_is_used() {
    with_swap(512, 64, |mem| {
        let p = filled(mem, 8);
        // All have been used. Once around the clock nobody has, but four that are used again.
        let all: Vec<Pfn> = (0..8).map(|page| frame_at(&p, BASE + page * PAGE).unwrap()).collect();
        for &pfn in &all {
            assert_eq!(evict(mem, pfn, Urgency::Spare), Ok(false));
        }
        // As a CPU that has switched address spaces, whose TLB has forgotten all.
        mem.platform().load_root(0, p.space.root());
        p.assert_filled(BASE, 4);
        for &pfn in &all {
            let _ = evict(mem, pfn, Urgency::Spare);
        }
        check(&[&p]);
        assert!((0..4).all(|page| frame_at(&p, BASE + page * PAGE).is_some()));
        assert!((4..8).all(|page| frame_at(&p, BASE + page * PAGE).is_none()));
        p.assert_filled(BASE, 8);
    });
}

#[test]
fn cold_pages_go_first() {
    with_swap(512, 64, |mem| {
        let p = filled(mem, 8);
        p.space.madvise(BASE + 2 * PAGE, 2 * PAGE, COLD).unwrap();
        for page in 0..8 {
            let _ = evict(mem, frame_at(&p, BASE + page * PAGE).unwrap(), Urgency::Spare);
        }
        assert_eq!(swapped(&p), 2);
        assert!(frame_at(&p, BASE + 2 * PAGE).is_none() && frame_at(&p, BASE + 3 * PAGE).is_none());
        p.assert_filled(BASE, 8);
    });
}

#[test]
fn locked_pages_stay() {
    with_swap(512, 64, |mem| {
        let p = filled(mem, 4);
        p.space.mlock(BASE, 2 * PAGE, 0).unwrap();
        assert_eq!(mem.reclaim(100), 2);
        check(&[&p]);
        assert!(frame_at(&p, BASE).is_some() && frame_at(&p, BASE + PAGE).is_some());
        assert_eq!(swapped(&p), 2);
    });
}

#[test]
fn mlock_brings_pages_back() {
    with_swap(512, 64, |mem| {
        let p = filled(mem, 4);
        assert_eq!(mem.reclaim(100), 4);
        p.space.mlock(BASE, 4 * PAGE, 0).unwrap();
        assert_eq!((swapped(&p), mem.reclaim(100)), (0, 0));
        p.assert_filled(BASE, 4);
    });
}

#[test]
fn a_page_in_use_by_the_kernel_stays() {
    with_swap(512, 64, |mem| {
        let p = filled(mem, 1);
        let pfn = frame_at(&p, BASE).unwrap();
        mem.get(pfn);
        assert_eq!(evict(mem, pfn, Urgency::Evict), Ok(false));
        assert_eq!(frame_at(&p, BASE), Some(pfn));
        mem.put(pfn);
        assert_eq!(evict(mem, pfn, Urgency::Evict), Ok(true));
    });
}

#[test]
fn a_page_shared_by_fork_is_evicted_from_all_and_comes_back_to_all() {
    with_swap(512, 64, |mem| {
        let parent = filled(mem, 2);
        let child = parent.fork().unwrap();
        let grandchild = child.fork().unwrap();
        let pfn = frame_at(&parent, BASE).unwrap();
        assert_eq!(evict(mem, pfn, Urgency::Evict), Ok(true));
        check(&[&parent, &child, &grandchild]);
        assert_eq!([&parent, &child, &grandchild].map(|p| swapped(p)), [1, 1, 1]);
        // Read by one: in the cache for the others, and not writable.
        assert_eq!(child.read(BASE), Ok(1));
        check(&[&parent, &child, &grandchild]);
        child.write(BASE, 50).unwrap();
        check(&[&parent, &child, &grandchild]);
        assert_eq!((parent.read(BASE), child.read(BASE), grandchild.read(BASE)), (Ok(1), Ok(50), Ok(1)));
        check(&[&parent, &child, &grandchild]);
        assert_eq!(mem.swap_stats().used, 0);
        assert_eq!(mem.events(Event::SwapIn), 1, "it is loaded once");
    });
}

#[test]
fn fork_copies_what_is_in_swap() {
    with_swap(512, 64, |mem| {
        let parent = filled(mem, 3);
        parent.space.madvise(BASE, 3 * PAGE, PAGEOUT).unwrap();
        let child = parent.fork().unwrap();
        check(&[&parent, &child]);
        child.write(BASE, 90).unwrap();
        parent.write(BASE + PAGE, 91).unwrap();
        check(&[&parent, &child]);
        assert_eq!((parent.read(BASE), child.read(BASE)), (Ok(1), Ok(90)));
        assert_eq!((parent.read(BASE + PAGE), child.read(BASE + PAGE)), (Ok(91), Ok(2)));
        drop(parent);
        check(&[&child]);
        assert_eq!(child.read(BASE + 2 * PAGE), Ok(3));
        check(&[&child]);
    });
}

#[test]
fn whoever_is_left_gets_a_page_in_the_cache_to_himself() {
    with_swap(512, 64, |mem| {
        let parent = filled(mem, 1);
        let child = parent.fork().unwrap();
        evict(mem, frame_at(&parent, BASE).unwrap(), Urgency::Evict).unwrap();
        assert_eq!(child.read(BASE), Ok(1));
        let pfn = frame_at(&child, BASE);
        drop(parent);
        check(&[&child]);
        child.write(BASE, 5).unwrap();
        assert_eq!(frame_at(&child, BASE), pfn, "copied for nobody");
        check(&[&child]);
    });
}

#[test]
fn what_was_stored_and_not_written_to_is_not_stored_again() {
    with_swap(512, 64, |mem| {
        let parent = filled(mem, 1);
        let child = parent.fork().unwrap();
        evict(mem, frame_at(&parent, BASE).unwrap(), Urgency::Evict).unwrap();
        assert_eq!(child.read(BASE), Ok(1));
        assert_eq!(evict(mem, frame_at(&child, BASE).unwrap(), Urgency::Evict), Ok(true));
        assert_eq!(mem.events(Event::SwapOut), 1);
        check(&[&parent, &child]);
        assert_eq!((parent.read(BASE), child.read(BASE)), (Ok(1), Ok(1)));
    });
}

#[test]
fn munmap_and_dontneed_free_the_slots() {
    with_swap(512, 64, |mem| {
        let p = filled(mem, 6);
        p.space.madvise(BASE, 6 * PAGE, PAGEOUT).unwrap();
        p.space.munmap(BASE, 2 * PAGE).unwrap();
        p.space.madvise(BASE + 2 * PAGE, 2 * PAGE, DONTNEED).unwrap();
        check(&[&p]);
        assert_eq!((mem.swap_stats().used, mem.platform().swap().stored()), (2, 2));
        p.assert_zero(BASE + 2 * PAGE, 2);
        assert_eq!(p.read(BASE + 5 * PAGE), Ok(6));
        p.mmap(BASE + 4 * PAGE, PAGE, RW, PRIVATE | ANON | FIXED).unwrap();
        p.assert_zero(BASE + 4 * PAGE, 1);
        check(&[&p]);
    });
}

#[test]
fn what_is_in_swap_moves_along() {
    with_swap(512, 64, |mem| {
        let p = filled(mem, 4);
        p.space.madvise(BASE + PAGE, 2 * PAGE, PAGEOUT).unwrap();
        let to = BASE + 64 * PAGE;
        p.space.mremap(BASE, 4 * PAGE, 4 * PAGE, MAYMOVE | MREMAP_FIXED, to).unwrap();
        check(&[&p]);
        p.assert_filled(to, 2);
        let back = p.space.mremap(to, 4 * PAGE, 4 * PAGE, MAYMOVE | MREMAP_FIXED | DONTUNMAP, BASE).unwrap();
        p.assert_filled(back, 4);
        p.assert_zero(to, 4);
        check(&[&p]);
    });
}

#[test]
fn mprotect_applies_to_what_comes_back() {
    with_swap(512, 64, |mem| {
        let p = filled(mem, 2);
        p.space.madvise(BASE, 2 * PAGE, PAGEOUT).unwrap();
        p.space.mprotect(BASE, PAGE, READ).unwrap();
        p.space.mprotect(BASE + PAGE, PAGE, 0).unwrap();
        assert_eq!((p.read(BASE), p.write(BASE, 9)), (Ok(1), Err(FaultError::AccessDenied)));
        assert_eq!(p.read(BASE + PAGE), Err(FaultError::AccessDenied));
        check(&[&p]);
        p.space.mprotect(BASE, 2 * PAGE, RW).unwrap();
        p.write(BASE, 9).unwrap();
        assert_eq!((p.read(BASE), p.read(BASE + PAGE)), (Ok(9), Ok(2)));
        check(&[&p]);
    });
}

#[test]
fn madv_free_keeps_what_is_written_afterwards() {
    with_swap(512, 64, |mem| {
        let p = filled(mem, 4);
        p.space.madvise(BASE, 3 * PAGE, FREE).unwrap();
        p.write(BASE, 50).unwrap();
        // Through the direct map, as a system call writes to another process.
        p.space.write_bytes(BASE + PAGE, &[51]).unwrap();
        assert_eq!(mem.reclaim(100), 4);
        check(&[&p]);
        assert_eq!((mem.events(Event::LazyFree), swapped(&p)), (1, 3));
        assert_eq!((p.read(BASE), p.read(BASE + PAGE), p.read(BASE + 2 * PAGE)), (Ok(50), Ok(51), Ok(0)));
        assert_eq!(p.read(BASE + 3 * PAGE), Ok(4));
        // What came back is no more to be dropped than anything else.
        assert_eq!(evict(mem, frame_at(&p, BASE).unwrap(), Urgency::Evict), Ok(true));
        assert_eq!(p.read(BASE), Ok(50));
    });
}

#[test]
fn madv_free_of_a_page_that_another_has_in_swap_leaves_that_ones_contents() {
    with_swap(512, 64, |mem| {
        let p = filled(mem, 1);
        p.space.madvise(BASE, PAGE, PAGEOUT).unwrap();
        let child = p.fork().unwrap();
        // It is the only one that has it mapped, but not the only one that it belongs to.
        child.assert_filled(BASE, 1);
        child.space.madvise(BASE, PAGE, FREE).unwrap();
        p.assert_filled(BASE, 1);
        mem.reclaim(512);
        check(&[&p, &child]);
        p.assert_filled(BASE, 1);
        check(&[&p, &child]);
    });
}

#[test]
fn madv_free_of_what_is_in_swap_frees_it() {
    with_swap(512, 64, |mem| {
        let p = filled(mem, 2);
        p.space.madvise(BASE, 2 * PAGE, PAGEOUT).unwrap();
        p.space.madvise(BASE, PAGE, FREE).unwrap();
        check(&[&p]);
        assert_eq!((p.read(BASE), p.read(BASE + PAGE)), (Ok(0), Ok(2)));
    });
}

#[test]
fn a_full_device_loses_nothing() {
    with_swap(512, 64, |mem| {
        let p = filled(mem, 8);
        mem.platform().swap().set_room(3);
        let _ = p.space.madvise(BASE, 8 * PAGE, PAGEOUT);
        check(&[&p]);
        assert_eq!(mem.platform().swap().stored(), 3);
        p.assert_filled(BASE, 8);
        check(&[&p]);
        mem.platform().swap().set_room(64);
        assert_eq!(mem.reclaim(100), 8);
        p.assert_filled(BASE, 8);
    });
}

#[test]
fn too_few_slots_lose_nothing() {
    with_swap(512, 3, |mem| {
        let p = filled(mem, 8);
        assert_eq!(mem.reclaim(100), 3);
        check(&[&p]);
        p.assert_filled(BASE, 8);
    });
}

#[test]
fn a_page_that_cannot_be_read_is_a_bus_error_and_no_more() {
    with_swap(512, 64, |mem| {
        let p = filled(mem, 2);
        p.space.madvise(BASE, PAGE, PAGEOUT).unwrap();
        mem.platform().swap().lose_everything();
        assert_eq!(p.read(BASE), Err(FaultError::Unreadable));
        assert_eq!(p.read(BASE + PAGE), Ok(2));
        check(&[&p]);
    });
}

#[test]
fn droppable_memory_is_dropped() {
    const DROPPABLE: usize = 8;
    with_swap(512, 64, |mem| {
        let p = Process::new(mem);
        p.mmap(BASE, 4 * PAGE, RW, DROPPABLE | ANON | FIXED).unwrap();
        p.fill(BASE, 4);
        assert_eq!(mem.reclaim(100), 4);
        check(&[&p]);
        assert_eq!((swapped(&p), mem.events(Event::LazyFree)), (0, 4));
        p.assert_zero(BASE, 4);
    });
}

#[test]
fn more_than_there_is_memory_for_can_be_written_and_read() {
    with_swap(256, 4096, |mem| {
        let pages = 1000;
        let p = Process::new(mem);
        p.map_at(BASE, pages);
        for round in 0..3 {
            for page in 0..pages {
                p.write(BASE + page * PAGE + round, (page % 251) as u8 + round as u8).unwrap();
            }
        }
        for page in 0..pages {
            for round in 0..3 {
                assert_eq!(p.read(BASE + page * PAGE + round), Ok((page % 251) as u8 + round as u8), "page {page}");
            }
        }
        check(&[&p]);
        assert!(mem.events(Event::SwapIn) > 2000 && mem.events(Event::SwapOut) > 2000);
    });
}

#[test]
fn fork_and_mmap_reclaim_what_they_need() {
    with_swap(256, 4096, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 240);
        for page in 0..240 {
            p.write(BASE + page * PAGE, page as u8).unwrap();
        }
        let children: Vec<Process<'_>> = (0..4).map(|_| p.fork().unwrap()).collect();
        for (number, child) in children.iter().enumerate() {
            for page in 0..240 {
                assert_eq!(child.read(BASE + page * PAGE), Ok(page as u8));
                child.write(BASE + page * PAGE, (page ^ (number + 1)) as u8).unwrap();
            }
        }
        let all: Vec<&Process<'_>> = children.iter().chain([&p]).collect();
        check(&all);
        for (number, child) in children.iter().enumerate() {
            assert!((0..240).all(|page| child.read(BASE + page * PAGE) == Ok((page ^ (number + 1)) as u8)));
        }
        assert!((0..240).all(|page| p.read(BASE + page * PAGE) == Ok(page as u8)));
    });
}

#[test]
fn without_swap_memory_runs_out_as_ever() {
    let mem = sim::memory(1, 256);
    let p = Process::new(&mem);
    p.map_at(BASE, 200);
    p.map_at(BASE + 200 * PAGE, 200);
    let mut page = 0;
    let error = loop {
        match p.write(BASE + page * PAGE, 1) {
            Ok(()) => page += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error, FaultError::OutOfMemory);
    check(&[&p]);
}

/// Does it in another thread, while this one has pages locked.
fn elsewhere<T: Send>(operation: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(operation).join()).expect("the operation failed")
}

/// Before reclaim has flushed what it has unmapped, no TLB may tell what others have
/// changed since.
#[test]
fn who_comes_before_the_flush_flushes() {
    type Operation = fn(&Process<'_>);
    let operations: [(&str, Operation, Result<u8, FaultError>); 6] = [
        ("munmap", |p| p.space.munmap(BASE, PAGE).unwrap(), Err(FaultError::NotMapped)),
        ("MADV_DONTNEED", |p| p.space.madvise(BASE, PAGE, DONTNEED).unwrap(), Ok(0)),
        ("mprotect", |p| p.space.mprotect(BASE, PAGE, 0).unwrap(), Err(FaultError::AccessDenied)),
        (
            "mremap",
            |p| {
                let to = BASE + 64 * PAGE;
                p.space.mremap(BASE, PAGE, PAGE, MAYMOVE | MREMAP_FIXED, to).unwrap();
            },
            Err(FaultError::NotMapped),
        ),
        (
            "MREMAP_DONTUNMAP",
            |p| {
                let to = BASE + 64 * PAGE;
                p.space.mremap(BASE, PAGE, PAGE, MAYMOVE | MREMAP_FIXED | DONTUNMAP, to).unwrap();
            },
            Ok(0),
        ),
        ("mmap", |p| assert!(p.mmap(BASE, PAGE, RW, PRIVATE | ANON | FIXED).is_ok()), Ok(0)),
    ];
    for (name, operation, expected) in operations {
        with_swap(512, 64, |mem| {
            let p = filled(mem, 1);
            assert_eq!(p.read(BASE), Ok(1));
            let mut evictions = Evictions::new(mem);
            evictions.add(frame_at(&p, BASE).unwrap(), Urgency::Evict).unwrap();
            elsewhere(|| operation(&p));
            // Were it not for the TLB, the access would wait for reclaim where it is a fault.
            assert!(!p.is_stale(), "{name}");
            assert_eq!(elsewhere(|| p.read(BASE)), expected, "{name}");
            drop(evictions);
            check(&[&p]);
        });
    }
}

#[test]
fn a_fork_before_the_flush_does_not_see_what_is_written_afterwards() {
    with_swap(512, 64, |mem| {
        let p = filled(mem, 1);
        let mut evictions = Evictions::new(mem);
        evictions.add(frame_at(&p, BASE).unwrap(), Urgency::Evict).unwrap();
        let child = elsewhere(|| p.fork().unwrap());
        assert!(!p.is_stale());
        drop(evictions);
        p.write(BASE, 9).unwrap();
        assert_eq!((p.read(BASE), child.read(BASE)), (Ok(9), Ok(1)));
        check(&[&p, &child]);
    });
}

/// `MREMAP_MUST_RELOCATE_ANON` with what it needs.
const RELOCATE: usize = MAYMOVE | MREMAP_FIXED | 16;

/// Two mappings, the second of which is to be relocated to the end of the first.
fn two_mappings<'m>(mem: &'m Memory<SimPlatform>) -> (Process<'m>, usize) {
    let p = filled(mem, 4);
    let far = BASE + 64 * PAGE;
    p.map_at(far, 4);
    p.fill(far, 4);
    (p, far)
}

#[test]
fn pages_in_swap_are_relocated() {
    with_swap(512, 64, |mem| {
        let (p, far) = two_mappings(mem);
        p.space.madvise(far + PAGE, 2 * PAGE, PAGEOUT).unwrap();
        let to = BASE + 4 * PAGE;
        assert_eq!(p.space.mremap(far, 4 * PAGE, 4 * PAGE, RELOCATE, to), Ok(to));
        assert_eq!(p.map(BASE), "[0-8 rw-p]");
        check(&[&p]);
        p.assert_filled(BASE, 4);
        p.assert_filled(to, 4);
        // Those that came back belong there as well: reclaim finds them.
        check(&[&p]);
        assert_eq!(mem.reclaim(100), 8);
        p.assert_filled(to, 4);
    });
}

#[test]
fn pages_on_their_way_out_are_relocated() {
    with_swap(512, 64, |mem| {
        let (p, far) = two_mappings(mem);
        let to = BASE + 4 * PAGE;
        let pages = [0, 1, 2, 3].map(|page| frame_at(&p, far + page * PAGE).unwrap());
        let mut evictions = Evictions::new(mem);
        pages.iter().for_each(|&pfn| evictions.add(pfn, Urgency::Evict).unwrap());
        assert_eq!(elsewhere(|| p.space.mremap(far, 4 * PAGE, 4 * PAGE, RELOCATE, to)), Ok(to));
        drop(evictions);
        check(&[&p]);
        assert_eq!(p.map(BASE), "[0-8 rw-p]");
        p.assert_filled(to, 4);
        check(&[&p]);
    });
}

#[test]
fn pages_in_swap_that_are_shared_through_fork_are_not_relocated() {
    with_swap(512, 64, |mem| {
        let (p, far) = two_mappings(mem);
        p.space.madvise(far, 4 * PAGE, PAGEOUT).unwrap();
        let child = p.fork().unwrap();
        let to = BASE + 4 * PAGE;
        for process in [&p, &child] {
            let refused = process.space.mremap(far, 4 * PAGE, 4 * PAGE, RELOCATE, to);
            assert_eq!(refused, Err(SpaceError::BadAddress));
        }
        check(&[&p, &child]);
        p.assert_filled(far, 4);
        child.assert_filled(far, 4);
        check(&[&p, &child]);
    });
}
