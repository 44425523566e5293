use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::addr::PAGE_SIZE;
use crate::errno::OutOfMemory;
use crate::memory::{Memory, PhysRange};
use crate::platform::MAX_CPUS;
use crate::sim::{self, SimPlatform};

/// Takes every frame there is, in blocks of one order.
fn take_all(memory: &Memory<SimPlatform>, order: u8) -> Vec<OwnedFrame> {
    std::iter::from_fn(|| memory.alloc(FrameKind::Kernel, order).ok()).collect()
}

fn give_back(memory: &Memory<SimPlatform>, frames: Vec<OwnedFrame>) {
    frames.into_iter().for_each(|frame| memory.free(frame));
}

/// Takes `regions` into use, in frames counted from the start of RAM.
fn memory_of(frames: usize, regions: &[(u64, u64)]) -> Result<Memory<SimPlatform>, InitError> {
    let platform = SimPlatform::new(1, frames);
    let base = platform.ram().start;
    let regions: Vec<_> =
        regions.iter().map(|region| PhysRange { start: base + region.0 * 4096, end: base + region.1 * 4096 }).collect();
    // SAFETY: the platform owns the memory and gives it to nobody else.
    unsafe { Memory::new(platform, &regions, None) }
}

#[test]
fn a_frame_goes_and_comes_back() {
    let memory = sim::memory(1, 4096);
    let free = memory.free_frames();
    let frame = memory.alloc(FrameKind::Anon, 0).unwrap();
    let record = memory.frame(frame.pfn());
    assert_eq!((record.kind(), record.order()), (FrameKind::Anon, 0));
    assert_eq!((record.refcount(), record.mapcount()), (1, 0));
    assert_eq!((record.mapping(), record.index()), (0, 0));
    assert_eq!(memory.free_frames(), free - 1);
    assert_eq!(memory.count_frames(FrameKind::Anon), 1);
    let pfn = frame.pfn();
    memory.free(frame);
    assert_eq!(memory.frame(pfn).kind(), FrameKind::Free);
    assert_eq!(memory.free_frames(), free);
    assert_eq!(memory.count_frames(FrameKind::Anon), 0);
}

#[test]
fn every_frame_is_given_out_once() {
    let memory = sim::memory(1, 2000);
    let total = memory.total_frames();
    assert_eq!(memory.free_frames(), total - 1, "all but the page of zeroes");
    assert_eq!(memory.count_frames(FrameKind::Reserved), 2000 - total);
    let frames = take_all(&memory, 0);
    let distinct: HashSet<_> = frames.iter().map(OwnedFrame::pfn).collect();
    assert_eq!((frames.len(), distinct.len()), (total - 1, total - 1));
    assert!(!distinct.contains(&memory.zero_page()));
    assert_eq!(memory.free_frames(), 0);
    assert_eq!(memory.alloc(FrameKind::Anon, 0), Err(OutOfMemory));
    give_back(&memory, frames);
    assert_eq!(memory.free_frames(), total - 1);
}

#[test]
fn freed_frames_merge_into_the_largest_blocks() {
    let memory = sim::memory(1, 4096);
    let before = take_all(&memory, MAX_ORDER);
    let blocks = before.len();
    assert!(blocks >= 2);
    give_back(&memory, before);
    for order in [0, 3, 7] {
        let mut frames = take_all(&memory, order);
        // Every other one first, so that nothing can merge before the end.
        frames.sort_by_key(|frame| frame.pfn().0);
        let halves = |frame: &mut OwnedFrame| frame.pfn().0 >> order & 1 == 1;
        let later = frames.extract_if(.., halves).collect();
        give_back(&memory, frames);
        assert_eq!(memory.alloc(FrameKind::Kernel, order + 1), Err(OutOfMemory));
        give_back(&memory, later);
        let merged = take_all(&memory, MAX_ORDER);
        assert_eq!(merged.len(), blocks);
        give_back(&memory, merged);
    }
}

#[test]
fn blocks_are_aligned_and_marked_as_a_whole() {
    let memory = sim::memory(1, 4096);
    for order in 0..=MAX_ORDER {
        let block = memory.alloc(FrameKind::Slab, order).unwrap();
        let Pfn(first) = block.pfn();
        assert_eq!(first % (1 << order), 0);
        assert_eq!(block.order(), order);
        assert_eq!(memory.frame(block.pfn()).order(), order);
        for pfn in first..first + (1 << order) {
            assert_eq!(memory.frame(Pfn(pfn)).kind(), FrameKind::Slab);
        }
        assert_eq!(memory.count_frames(FrameKind::Slab), 1 << order);
        memory.free(block);
        for pfn in first..first + (1 << order) {
            assert_eq!(memory.frame(Pfn(pfn)).kind(), FrameKind::Free);
        }
    }
    assert_eq!(memory.alloc(FrameKind::Slab, MAX_ORDER + 1), Err(OutOfMemory));
    assert_eq!(memory.alloc(FrameKind::Slab, u8::MAX), Err(OutOfMemory));
}

#[test]
fn the_frames_of_a_block_may_go_their_own_ways() {
    let memory = sim::memory(1, 4096);
    let free = memory.free_frames();
    let first = memory.alloc_singly(FrameKind::Anon, 9, true).unwrap();
    let frames = || (first.0..first.0 + 512).map(Pfn);
    for pfn in frames() {
        let record = memory.frame(pfn);
        assert_eq!((record.kind(), record.order(), record.refcount()), (FrameKind::Anon, 0, 1));
    }
    assert_eq!(memory.count_frames(FrameKind::Anon), 512);
    frames().for_each(|pfn| memory.put(pfn));
    assert_eq!(memory.free_frames(), free);
}

#[test]
fn only_frames_that_nobody_else_has_become_a_block_again() {
    let memory = sim::memory(1, 4096);
    let free = memory.free_frames();
    let first = memory.alloc_singly(FrameKind::Anon, 9, true).unwrap();
    let frames = || (first.0..first.0 + 512).map(Pfn);
    for other in [1, 300, 511] {
        memory.get(Pfn(first.0 + other));
        assert!(!memory.join_singles(first, 9));
        memory.put(Pfn(first.0 + other));
        assert!(frames().all(|pfn| memory.frame(pfn).refcount() == 1 && memory.frame(pfn).order() == 0));
    }
    assert!(memory.join_singles(first, 9));
    assert_eq!((memory.frame(first).order(), memory.frame(first).refcount()), (9, 1));
    assert!(frames().skip(1).all(|pfn| memory.frame(pfn).refcount() == 0));
    memory.put(first);
    assert_eq!((memory.free_frames(), memory.count_frames(FrameKind::Anon)), (free, 0));
}

#[test]
fn frames_in_a_list_of_another_cpu_are_found_in_need() {
    let memory = sim::memory(2, 300);
    let free = memory.free_frames();
    sim::set_cpu(1);
    let frame = memory.alloc(FrameKind::Anon, 0).unwrap();
    memory.free(frame);
    sim::set_cpu(0);
    let frames = take_all(&memory, 0);
    assert_eq!(frames.len(), free);
    give_back(&memory, frames);
    sim::set_cpu(1);
    assert!(memory.alloc(FrameKind::Anon, 7).is_ok_and(|block| {
        memory.free(block);
        true
    }));
    sim::set_cpu(0);
}

#[test]
fn zeroed_frames_are_zero() {
    let memory = sim::memory(1, 64);
    give_back(&memory, take_all(&memory, 0));
    let frame = memory.alloc_zeroed(FrameKind::Anon).unwrap();
    // SAFETY: the frame is owned.
    let page = unsafe { std::slice::from_raw_parts(memory.page_ptr(frame.pfn()), PAGE_SIZE) };
    assert!(page.iter().all(|&byte| byte == 0));
    memory.free(frame);
    // SAFETY: the page of zeroes is never written.
    let zero = unsafe { std::slice::from_raw_parts(memory.page_ptr(memory.zero_page()), PAGE_SIZE) };
    assert!(zero.iter().all(|&byte| byte == 0));
}

#[test]
fn pages_are_copied_whole() {
    let memory = sim::memory(1, 64);
    let [from, to, after] = [0; 3].map(|_| memory.alloc_zeroed(FrameKind::Anon).unwrap());
    let bytes = |frame: &OwnedFrame| {
        // SAFETY: the frame is owned, and nothing writes to it meanwhile.
        unsafe { std::slice::from_raw_parts_mut(memory.page_ptr(frame.pfn()), PAGE_SIZE) }
    };
    for (i, byte) in bytes(&from).iter_mut().enumerate() {
        *byte = i as u8 ^ (i >> 8) as u8;
    }
    // SAFETY: two different owned frames.
    unsafe { copy_page(memory.page_ptr(from.pfn()), memory.page_ptr(to.pfn())) };
    assert_eq!(bytes(&from), bytes(&to));
    assert!(bytes(&after).iter().all(|&byte| byte == 0));
    give_back(&memory, vec![from, to, after]);
}

#[test]
fn the_last_reference_frees_a_frame() {
    let memory = sim::memory(1, 2048);
    let free = memory.free_frames();
    for order in [0, 4] {
        let pfn = memory.alloc(FrameKind::Anon, order).unwrap().into_raw();
        memory.get(pfn);
        assert_eq!(memory.frame(pfn).refcount(), 2);
        memory.put(pfn);
        assert_eq!(memory.free_frames(), free - (1 << order));
        memory.put(pfn);
        assert_eq!(memory.free_frames(), free);
        assert_eq!(memory.frame(pfn).refcount(), 0);
    }
}

#[test]
fn mappings_are_counted() {
    let memory = sim::memory(1, 64);
    let frame = memory.alloc(FrameKind::Anon, 0).unwrap();
    let record = memory.frame(frame.pfn());
    record.inc_mapcount();
    record.inc_mapcount();
    assert_eq!(record.dec_mapcount(), 1);
    assert_eq!(record.dec_mapcount(), 0);
    record.set_mapping(0x1001);
    record.set_index(17);
    assert_eq!((record.mapping(), record.index()), (0x1001, 17));
    memory.free(frame);
    let frame = memory.alloc(FrameKind::Anon, 0).unwrap();
    assert_eq!((memory.frame(frame.pfn()).mapping(), memory.frame(frame.pfn()).index()), (0, 0));
    memory.free(frame);
}

#[test]
fn a_frame_outside_memory_is_reserved() {
    let memory = sim::memory(1, 64);
    let end = Pfn::containing(memory.platform().ram().end);
    for pfn in [Pfn(0), Pfn(end.0 - 64), end, Pfn(end.0 + 1), Pfn(usize::MAX)] {
        assert_eq!(memory.frame(pfn).kind(), FrameKind::Reserved, "{pfn:?}");
    }
}

#[test]
fn holes_are_never_given_out_and_nothing_merges_across_them() {
    let memory = memory_of(4096, &[(0, 1000), (1001, 2048), (3000, 4096)]).unwrap();
    let base = Pfn::containing(memory.platform().ram().start).0;
    let records = 4097usize.div_ceil(PAGE_SIZE / size_of::<Frame>());
    assert_eq!(memory.total_frames(), 1000 + 1047 + 1096 - records);
    let inside = |pfn: usize| (0..1000).contains(&pfn) || (1001..2048).contains(&pfn) || pfn >= 3000;
    for order in (0..=MAX_ORDER).rev() {
        let blocks = take_all(&memory, order);
        for block in &blocks {
            let first = block.pfn().0 - base;
            assert!((first..first + (1 << order)).all(inside), "{first} of order {order}");
        }
        give_back(&memory, blocks);
    }
    assert_eq!(take_all(&memory, 0).into_iter().map(OwnedFrame::into_raw).count(), memory.total_frames() - 1);
}

#[test]
fn touching_regions_are_one_memory() {
    let memory = memory_of(4096, &[(512, 1024), (0, 512), (1024, 4096)]).unwrap();
    // The records are in the smallest region that has room: the first one.
    let blocks = take_all(&memory, MAX_ORDER);
    assert_eq!(blocks.len(), 3);
    give_back(&memory, blocks);
}

#[test]
fn bad_regions_are_refused() {
    let init = |regions: &[(u64, u64)]| memory_of(256, regions).err();
    assert_eq!(init(&[]), Some(InitError::NoRoom));
    assert_eq!(init(&[(7, 7)]), Some(InitError::NoRoom));
    assert_eq!(init(&[(9, 7)]), Some(InitError::BadRegion));
    assert_eq!(init(&[(0, 20), (19, 30)]), Some(InitError::Overlap));
    assert_eq!(init(&[(0, 1)]), Some(InitError::NoRoom));
    assert_eq!(init(&[(0, 1), (200, 202)]), Some(InitError::NoRoom));
    assert_eq!(init(&[(7, 7), (0, 40)]), None);

    let platform = SimPlatform::new(1, 64);
    let start = platform.ram().start;
    let unaligned = PhysRange { start, end: start + 5000u64 };
    // SAFETY: as in `memory_of`.
    let result = unsafe { Memory::new(platform, &[unaligned], None) };
    assert_eq!(result.err(), Some(InitError::BadRegion));
}

#[test]
fn an_injected_failure_comes_once_and_in_its_turn() {
    let memory = sim::memory(1, 256);
    memory.fail_nth_allocation(2);
    let first = memory.alloc(FrameKind::Anon, 0).unwrap();
    assert!(!memory.allocation_failed());
    assert_eq!(memory.alloc_zeroed(FrameKind::Anon), Err(OutOfMemory));
    assert!(memory.allocation_failed());
    let third = memory.alloc(FrameKind::Anon, 0).unwrap();
    memory.fail_nth_allocation(0);
    assert!(!memory.allocation_failed());
    give_back(&memory, vec![first, third]);
}

#[test]
fn an_owned_frame_must_not_be_dropped() {
    let memory = sim::memory(1, 64);
    let frame = memory.alloc(FrameKind::Anon, 0).unwrap();
    let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(frame)));
    assert!(dropped.is_err());
}

/// Threads allocate, mark what they get, and free it, on their own CPU or all on one.
fn hammer(cpu_of: impl Fn(usize) -> usize + Sync) {
    let memory = sim::memory(4, 3000);
    let free = memory.free_frames();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (memory, cpu_of) = (&memory, &cpu_of);
            scope.spawn(move || {
                sim::set_cpu(cpu_of(thread));
                let mut mine: Vec<OwnedFrame> = Vec::new();
                for round in 0..3000usize {
                    let order = if round % 7 == 0 { 2 } else { 0 };
                    if let Ok(frame) = memory.alloc(FrameKind::Anon, order) {
                        let mark = memory.page_ptr(frame.pfn()).cast::<usize>();
                        // SAFETY: the frame is owned.
                        unsafe { mark.write(thread) };
                        mine.push(frame);
                    }
                    // Up and down, so that batches move both ways.
                    let keep = if round % 400 < 200 { 250 } else { 10 };
                    while mine.len() > keep {
                        let frame = mine.swap_remove(round % mine.len());
                        let mark = memory.page_ptr(frame.pfn()).cast::<usize>();
                        // SAFETY: the frame is owned.
                        assert_eq!(unsafe { mark.read() }, thread);
                        memory.free(frame);
                    }
                }
                give_back(memory, mine);
            });
        }
    });
    assert_eq!(memory.free_frames(), free);
    assert_eq!(memory.count_frames(FrameKind::Anon), 0);
    let frames = take_all(&memory, 0);
    assert_eq!(frames.len(), free);
    give_back(&memory, frames);
}

#[test]
fn cpus_share_memory() {
    hammer(|thread| thread);
}

#[test]
fn threads_share_a_cpu() {
    hammer(|_| 3);
}

#[test]
fn a_cpu_number_out_of_range_is_harmless() {
    hammer(|thread| thread + MAX_CPUS);
}

#[test]
fn the_commit_limit_holds_in_the_mode_that_has_one() {
    use crate::memory::Overcommit;
    let memory = sim::memory(1, 1000);
    let total = memory.total_frames();
    assert_eq!(memory.charge_commit(total + 1), Err(OutOfMemory));
    assert_eq!(memory.charge_commit(usize::MAX), Err(OutOfMemory));
    assert_eq!(memory.committed(), 0);
    memory.charge_commit(total).unwrap();
    memory.charge_commit(total).unwrap();
    memory.sysctl().set_overcommit(Overcommit::Never);
    assert_eq!(memory.charge_commit(1), Err(OutOfMemory));
    memory.uncharge_commit(2 * total);
    let limit = memory.commit_limit();
    assert!(limit > 0 && limit <= total / 2);
    memory.charge_commit(limit).unwrap();
    assert_eq!(memory.charge_commit(1), Err(OutOfMemory));
    memory.sysctl().set_overcommit(Overcommit::Always);
    memory.charge_commit(10 * total).unwrap();
    assert_eq!(memory.committed(), limit + 10 * total);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// Blocks never overlap, the counts are right, and everything merges in the end.
    #[test]
    fn blocks_are_disjoint(steps in prop::collection::vec((any::<bool>(), 0..=MAX_ORDER, any::<usize>()), 1..300)) {
        let memory = sim::memory(1, 5000);
        let free = memory.free_frames();
        let largest = take_all(&memory, MAX_ORDER);
        let blocks = largest.len();
        give_back(&memory, largest);
        let mut held: Vec<OwnedFrame> = Vec::new();
        let mut used = HashSet::new();
        for (alloc, order, pick) in steps {
            if alloc || held.is_empty() {
                if let Ok(block) = memory.alloc(FrameKind::Anon, order) {
                    for pfn in block.pfn().0..block.pfn().0 + (1 << order) {
                        assert!(used.insert(pfn));
                    }
                    held.push(block);
                }
            } else {
                let block = held.swap_remove(pick % held.len());
                for pfn in block.pfn().0..block.pfn().0 + (1 << block.order()) {
                    used.remove(&pfn);
                }
                memory.free(block);
            }
            assert_eq!(memory.free_frames(), free - used.len());
        }
        give_back(&memory, held);
        let largest = take_all(&memory, MAX_ORDER);
        assert_eq!(largest.len(), blocks);
        give_back(&memory, largest);
    }
}
