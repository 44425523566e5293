//! Compaction of memory that is in pieces.

use std::collections::BTreeSet;

use crate::sim::SimPlatform;
use crate::space::tests::{BASE, PAGE, Process, check, on_machine};
use crate::{Event, FrameKind, MAX_ORDER, Memory, OutOfMemory, OwnedFrame, PMD_SIZE, PageRange, Pfn};

/// Frames of a machine, and pages that leave few of them free.
const FRAMES: usize = 4096;
const PAGES: usize = 3600;
const ORDER: u8 = 9;

/// A process that has written to nearly all memory, and then given back every other page.
fn in_pieces(mem: &Memory<SimPlatform>) -> Process<'_> {
    let p = Process::new(mem);
    p.map_at(BASE, PAGES);
    for page in 0..PAGES {
        p.write(BASE + page * PAGE, page as u8).unwrap();
    }
    for page in (1..PAGES).step_by(2) {
        p.space.madvise(BASE + page * PAGE, PAGE, 4).unwrap();
    }
    p
}

fn assert_in_pieces(p: &Process<'_>) {
    for page in 0..PAGES {
        let expected = if page % 2 == 0 { page as u8 } else { 0 };
        assert_eq!(p.read(BASE + page * PAGE), Ok(expected), "page {page}");
    }
}

fn frames_of(p: &Process<'_>) -> Vec<Pfn> {
    let mut frames = Vec::new();
    let range = PageRange::from_len(BASE, PAGES * PAGE).unwrap();
    p.space.for_each_page(range, |page| frames.push(page.pfn));
    frames
}

/// As large blocks as there are.
fn all_blocks(mem: &Memory<SimPlatform>) -> Vec<OwnedFrame> {
    std::iter::from_fn(|| mem.alloc_compacting(FrameKind::Kernel, ORDER).ok()).collect()
}

#[test]
fn a_large_block_is_made_of_single_frames() {
    on_machine(FRAMES, |mem| {
        let p = in_pieces(mem);
        assert!(mem.alloc(FrameKind::Kernel, ORDER).is_err() && mem.free_frames() > 3 << ORDER);
        let block = mem.alloc_compacting(FrameKind::Kernel, ORDER).unwrap();
        let stalls = [Event::CompactStall, Event::CompactSuccess, Event::CompactFail].map(|event| mem.events(event));
        assert_eq!(stalls, [1, 1, 0]);
        let moved = mem.events(Event::Migrated);
        assert!((1..1 << ORDER).contains(&moved), "no more was moved than out of one block: {moved}");
        assert!(mem.events(Event::CompactIsolated) >= 2 * moved);
        assert!(
            mem.events(Event::CompactMigrateScanned) >= 1 << ORDER && mem.events(Event::CompactFreeScanned) >= moved
        );
        check(&[&p]);
        mem.free(block);
        assert_in_pieces(&p);
        check(&[&p]);
    });
}

/// Nearly all that is free comes together, whatever is freed and taken meanwhile.
#[test]
fn all_large_blocks_that_there_can_be_are_made() {
    on_machine(FRAMES, |mem| {
        let p = in_pieces(mem);
        let blocks = all_blocks(mem);
        assert!(blocks.len() >= 2, "{} blocks of {} free frames", blocks.len(), mem.free_frames());
        blocks.into_iter().for_each(|block| mem.free(block));
        assert_in_pieces(&p);
        check(&[&p]);
    });
}

#[test]
fn compaction_of_everything_fills_the_top() {
    on_machine(FRAMES, |mem| {
        let p = in_pieces(mem);
        let before = mem.free_frames();
        mem.compact_all();
        assert_eq!(mem.free_frames(), before);
        let blocks = mem.free_blocks();
        assert_eq!(blocks.iter().enumerate().map(|(order, count)| count << order).sum::<usize>(), before);
        let large: usize = (ORDER..=MAX_ORDER).map(|order| blocks[usize::from(order)] << order).sum();
        // But for those where the scanners met, and beside what cannot move.
        assert!(large + (2 << ORDER) >= before, "{large} of {before} free frames in large blocks: {blocks:?}");
        check(&[&p]);
        assert_in_pieces(&p);
        // Once more changes little.
        let moved = mem.events(Event::Migrated);
        mem.compact_all();
        assert!(mem.events(Event::Migrated) - moved <= moved / 4);
        check(&[&p]);
    });
}

#[test]
fn blocks_with_something_that_cannot_move_are_left_out() {
    on_machine(FRAMES, |mem| {
        let p = in_pieces(mem);
        // In all blocks but the sixth that have a page.
        let block = |pfn: Pfn| pfn.0 >> ORDER;
        let mut seen = BTreeSet::new();
        let held: Vec<Pfn> = frames_of(&p).into_iter().filter(|&pfn| seen.insert(block(pfn))).collect();
        let movable = *seen.iter().nth(5).unwrap();
        let held: Vec<Pfn> = held.into_iter().filter(|&pfn| block(pfn) != movable).collect();
        held.iter().for_each(|&pfn| mem.get(pfn));
        let found = mem.alloc_compacting(FrameKind::Kernel, ORDER).unwrap();
        assert_eq!(block(found.pfn()), movable);
        held.iter().for_each(|&pfn| mem.put(pfn));
        mem.free(found);
        assert_in_pieces(&p);
        check(&[&p]);
    });
}

#[test]
fn what_cannot_be_had_is_tried_ever_less_often() {
    on_machine(FRAMES, |mem| {
        let p = in_pieces(mem);
        let frames = frames_of(&p);
        frames.iter().for_each(|&pfn| mem.get(pfn));
        for _ in 0..200 {
            assert_eq!(mem.alloc_compacting(FrameKind::Kernel, ORDER), Err(OutOfMemory));
        }
        let stalls = mem.events(Event::CompactStall);
        assert!((3..12).contains(&stalls), "{stalls} times");
        assert_eq!(mem.events(Event::CompactFail), stalls);
        assert_eq!(mem.events(Event::Migrated), 0);
        frames.iter().for_each(|&pfn| mem.put(pfn));
        // It is tried again some time, and from the first success on at once.
        let found = (0..64).find_map(|_| mem.alloc_compacting(FrameKind::Kernel, ORDER).ok()).unwrap();
        let another = mem.alloc_compacting(FrameKind::Kernel, ORDER).unwrap();
        [found, another].into_iter().for_each(|block| mem.free(block));
        check(&[&p]);
    });
}

#[test]
fn without_enough_free_frames_nothing_is_moved() {
    on_machine(FRAMES, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 3900);
        p.fill(BASE, 100);
        let mut pages = 100;
        while mem.free_frames() > 200 {
            p.write(BASE + pages * PAGE, 1).unwrap();
            pages += 1;
        }
        assert_eq!(mem.alloc_compacting(FrameKind::Kernel, ORDER), Err(OutOfMemory));
        assert_eq!((mem.events(Event::CompactStall), mem.events(Event::Migrated)), (0, 0));
        check(&[&p]);
    });
}

/// Nothing of compaction allocates but the block itself, so nothing else can fail.
#[test]
fn an_allocation_that_is_made_to_fail_changes_nothing() {
    on_machine(FRAMES, |mem| {
        let p = in_pieces(mem);
        mem.fail_nth_allocation(1);
        assert_eq!(mem.alloc_compacting(FrameKind::Kernel, ORDER), Err(OutOfMemory));
        mem.fail_nth_allocation(0);
        assert_eq!(mem.events(Event::Migrated), 0);
        mem.fail_nth_allocation(2);
        let block = mem.alloc_compacting(FrameKind::Kernel, ORDER).unwrap();
        assert!(!mem.allocation_failed());
        mem.fail_nth_allocation(0);
        mem.free(block);
        check(&[&p]);
    });
}

#[test]
fn a_frame_is_taken_out_of_the_block_that_it_is_in() {
    on_machine(FRAMES, |mem| {
        mem.merge_free_lists();
        let before = mem.free_blocks();
        let largest = mem.alloc(FrameKind::Kernel, MAX_ORDER).unwrap();
        let inside = Pfn(largest.pfn().0 + 0x155);
        assert_eq!(mem.alloc_at(inside, FrameKind::Kernel), None);
        mem.free(largest);
        let frame = mem.alloc_at(inside, FrameKind::Kernel).unwrap();
        assert_eq!((frame.pfn(), mem.frame(inside).refcount()), (inside, 1));
        let pieces = mem.free_blocks();
        for order in 0..MAX_ORDER {
            assert_eq!(pieces[usize::from(order)], before[usize::from(order)] + 1, "order {order}");
        }
        assert_eq!(mem.alloc_at(inside, FrameKind::Kernel), None);
        mem.free(frame);
        mem.merge_free_lists();
        assert_eq!(mem.free_blocks(), before);
    });
}

/// What compaction is for. The pages that were in pieces leave huge pages alone.
#[test]
fn memory_in_pieces_becomes_huge_pages() {
    const HUGEPAGE: usize = 14;
    on_machine(FRAMES, |mem| {
        let p = in_pieces(mem);
        let at = BASE + 64 * PMD_SIZE;
        p.map_at(at, 2 << ORDER);
        p.space.madvise(at, 2 * PMD_SIZE, HUGEPAGE).unwrap();
        p.write(at, 1).unwrap();
        p.write(at + PMD_SIZE, 2).unwrap();
        assert_eq!((mem.events(Event::HugeFault), mem.events(Event::CompactSuccess)), (2, 2));
        mem.compact_all();
        assert_eq!(mem.events(Event::HugeSplit), 0);
        check(&[&p]);
        assert_eq!((p.read(at), p.read(at + PMD_SIZE)), (Ok(1), Ok(2)));
        assert_in_pieces(&p);
        // To move a part of one it is split.
        let mut found = None;
        p.space.for_each_page(PageRange::from_len(at + 5 * PAGE, PAGE).unwrap(), |page| found = Some(page.pfn));
        assert_eq!((mem.migrate(found), mem.events(Event::HugeSplit)), (Ok(1), 1));
        check(&[&p]);
        assert_eq!(p.read(at), Ok(1));
    });
}
