//! What is told of single pages, and kinds of memory whose pages are special.

use super::*;
use crate::{FrameKind, PageRange};

/// Number, kind and sharers of the pages mapped from `start` to `end`, counted from `BASE`.
fn pages(p: &Process, start: usize, end: usize) -> Vec<(usize, FrameKind, usize)> {
    let range = PageRange::new(BASE + start * PAGE, BASE + end * PAGE).unwrap();
    let mut pages = Vec::new();
    p.space.for_each_page(range, |page| pages.push(((page.addr - BASE) / PAGE, page.kind, page.sharers)));
    pages
}

#[test]
fn only_mapped_pages_are_shown_and_only_of_the_range() {
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 600);
        assert_eq!(pages(&p, 0, 1 << 20), []);
        p.write(BASE + 3 * PAGE, 1).unwrap();
        p.read(BASE + 4 * PAGE).unwrap();
        p.write(BASE + 599 * PAGE, 1).unwrap();
        let expected = [(3, FrameKind::Anon, 1), (4, FrameKind::Zero, 0), (599, FrameKind::Anon, 1)];
        assert_eq!(pages(&p, 0, 1 << 20), expected);
        assert_eq!(pages(&p, 4, 599), expected[1..2]);
    });
}

#[test]
fn shared_pages_count_their_mappings() {
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 2);
        p.fill(BASE, 2);
        let child = p.fork().unwrap();
        assert_eq!(pages(&p, 0, 2), [(0, FrameKind::Anon, 2), (1, FrameKind::Anon, 2)]);
        child.write(BASE, 9).unwrap();
        assert_eq!(pages(&p, 0, 2), [(0, FrameKind::Anon, 1), (1, FrameKind::Anon, 2)]);
        p.space.munmap(BASE, PAGE).unwrap();
        assert_eq!(pages(&p, 0, 2), [(1, FrameKind::Anon, 2)]);
    });
}

#[test]
fn what_may_be_dropped_is_neither_locked_nor_inherited() {
    const DROPPABLE: usize = 8 | ANON | FIXED;
    const MAP_LOCKED: usize = 0x2000;
    const LOCK_FUTURE: usize = 2;
    const KEEP_ON_FORK: usize = 19;
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        assert_eq!(p.mmap(BASE, PAGE, RW, DROPPABLE | MAP_LOCKED), Err(SpaceError::Invalid));
        p.space.mlockall(LOCK_FUTURE).unwrap();
        p.mmap(BASE, 2 * PAGE, RW, DROPPABLE).unwrap();
        p.space.mlock(BASE, 2 * PAGE, 0).unwrap();
        let flags = p.space.next_vma(BASE).unwrap().flags;
        assert!(flags.contains(VmaFlags::DROPPABLE | VmaFlags::NORESERVE) && !flags.contains(VmaFlags::LOCKED));
        assert_eq!(p.space.stats().locked_vm, 0);
        assert_eq!(p.space.madvise(BASE, PAGE, KEEP_ON_FORK), Err(SpaceError::Invalid));
        p.fill(BASE, 2);
        p.fork().unwrap().assert_zero(BASE, 2);
        p.assert_filled(BASE, 2);
    });
}

#[test]
fn populating_for_reading_needs_the_right_to_read() {
    const POPULATE_READ: usize = 22;
    const POPULATE_WRITE: usize = 23;
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        p.mmap(BASE, 2 * PAGE, WRITE, PRIVATE | ANON | FIXED).unwrap();
        assert_eq!(p.space.madvise(BASE, 2 * PAGE, POPULATE_READ), Err(SpaceError::Invalid));
        p.space.madvise(BASE, 2 * PAGE, POPULATE_WRITE).unwrap();
        assert_eq!(pages(&p, 0, 2).len(), 2);
        p.mmap(BASE, 2 * PAGE, READ, PRIVATE | ANON | FIXED).unwrap();
        assert_eq!(p.space.madvise(BASE, 2 * PAGE, POPULATE_WRITE), Err(SpaceError::Invalid));
        p.space.madvise(BASE, 2 * PAGE, POPULATE_READ).unwrap();
    });
}
