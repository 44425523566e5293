//! Which mappings of anonymous memory become one on Linux 7.3, said one at a time.

use super::*;

const NORESERVE: usize = 0x4000;
const LOCKED: usize = 0x2000;
const STACK: usize = 0x2_0000;
const GROWSDOWN: usize = 0x100;
const POPULATE: usize = 0x8000;
const PLAIN: usize = PRIVATE | ANON | FIXED;
const MOVE: usize = MAYMOVE | MREMAP_FIXED;

fn at(page: usize) -> usize {
    BASE + page * PAGE
}

/// Addresses and pages of a test are counted from [`BASE`].
impl Process<'_> {
    fn pages(&self, first: usize, end: usize, prot: usize, flags: usize) {
        self.mmap(at(first), (end - first) * PAGE, prot, PLAIN | flags).unwrap();
    }

    fn protect(&self, first: usize, end: usize, prot: usize) {
        self.space.mprotect(at(first), (end - first) * PAGE, prot).unwrap();
    }

    fn touch(&self, page: usize) {
        self.write(at(page), 1).unwrap();
    }

    /// Maps `first..end` readable and writable, and writes to it.
    fn written(&self, first: usize, end: usize) {
        self.pages(first, end, RW, 0);
        self.touch(first);
    }

    fn relocate(&self, first: usize, end: usize, to: usize) {
        let len = (end - first) * PAGE;
        assert_eq!(self.space.mremap(at(first), len, len, MOVE, at(to)), Ok(at(to)));
    }

    fn expect(&self, map: &str) {
        self.space.verify();
        assert_eq!(self.map(BASE), map);
    }
}

fn with_process(test: impl FnOnce(&Process<'_>)) {
    on_machine(4096, |mem| test(&Process::new(mem)));
}

#[test]
fn unwritten_neighbours_with_the_same_flags_are_one() {
    with_process(|p| {
        p.pages(0, 4, RW, 0);
        p.pages(8, 12, RW, 0);
        p.expect("[0-4 rw-p][8-12 rw-p]");
        p.pages(4, 8, RW, 0);
        p.expect("[0-12 rw-p]");
    });
}

#[test]
fn the_index_of_unwritten_memory_follows_its_address_and_that_of_written_memory_stays() {
    with_process(|p| {
        p.pages(0, 2, RW, 0);
        p.written(10, 12);
        p.pages(20, 22, RW, 0);
        p.relocate(0, 2, 22);
        p.expect("[10-12 rw-p][20-24 rw-p]");
        p.relocate(10, 12, 24);
        p.expect("[20-24 rw-p][24-26 rw-p]");
    });
}

#[test]
fn written_memory_merges_again_where_it_was_written() {
    with_process(|p| {
        p.written(0, 4);
        p.relocate(2, 4, 10);
        p.pages(12, 14, RW, 0);
        p.expect("[0-2 rw-p][10-12 rw-p][12-14 rw-p]");
        p.relocate(10, 12, 2);
        p.expect("[0-4 rw-p][12-14 rw-p]");
    });
}

#[test]
fn what_dontunmap_leaves_has_the_index_of_its_address_again() {
    with_process(|p| {
        p.written(0, 2);
        p.relocate(0, 2, 10);
        let len = 2 * PAGE;
        let moved = p.space.mremap(at(10), len, len, MOVE | DONTUNMAP, at(20));
        assert_eq!(moved, Ok(at(20)));
        p.pages(12, 14, RW, 0);
        p.expect("[10-14 rw-p][20-22 rw-p]");
    });
}

#[test]
fn a_read_is_not_a_write_but_population_is() {
    with_process(|p| {
        p.pages(0, 4, RW, 0);
        p.pages(8, 12, RW, 0);
        p.assert_zero(at(0), 4);
        p.assert_zero(at(8), 4);
        p.pages(4, 8, RW, 0);
        p.expect("[0-12 rw-p]");
    });
    with_process(|p| {
        p.pages(0, 4, RW, POPULATE);
        p.pages(8, 12, RW, POPULATE);
        p.pages(4, 8, RW, 0);
        p.expect("[0-8 rw-p][8-12 rw-p]");
    });
}

#[test]
fn a_hole_between_two_written_mappings_goes_to_the_previous() {
    with_process(|p| {
        p.written(0, 4);
        p.written(8, 12);
        p.pages(4, 8, RW, 0);
        p.expect("[0-8 rw-p][8-12 rw-p]");
    });
}

#[test]
fn written_memory_merges_with_unwritten_memory_on_either_side() {
    with_process(|p| {
        p.written(0, 4);
        p.pages(4, 8, READ, 0);
        p.pages(12, 16, READ, 0);
        p.written(16, 20);
        p.expect("[0-4 rw-p][4-8 r--p][12-16 r--p][16-20 rw-p]");
        // 7.3 also takes what is unwritten into what is written when the access
        // of what is there changes.
        p.protect(4, 8, RW);
        p.protect(12, 16, RW);
        p.expect("[0-8 rw-p][12-20 rw-p]");
    });
}

#[test]
fn a_neighbour_that_differs_in_access_alone_gives_its_anon_vma_at_the_first_write() {
    with_process(|p| {
        p.written(0, 4);
        p.pages(4, 8, RW, 0);
        p.expect("[0-8 rw-p]");
        p.protect(4, 8, READ | WRITE | 4);
        p.touch(5);
        p.expect("[0-4 rw-p][4-8 rwxp]");
        p.protect(4, 8, RW);
        p.expect("[0-8 rw-p]");
    });
    // The same with two mappings that have never been one.
    with_process(|p| {
        p.pages(0, 4, RW, 0);
        p.pages(4, 8, RW | 4, 0);
        p.touch(5);
        p.touch(0);
        p.protect(4, 8, RW);
        p.expect("[0-8 rw-p]");
    });
}

#[test]
fn mappings_written_apart_do_not_merge_when_they_come_together() {
    with_process(|p| {
        p.written(0, 4);
        p.written(6, 8);
        p.pages(4, 6, READ, 0);
        p.protect(4, 6, RW);
        p.expect("[0-6 rw-p][6-8 rw-p]");
    });
}

#[test]
fn what_a_child_inherits_does_not_merge_with_fresh_memory_and_the_parents_does() {
    with_process(|p| {
        p.written(0, 4);
        let child = p.fork().unwrap();
        child.pages(4, 8, RW, 0);
        child.expect("[0-4 rw-p][4-8 rw-p]");
        drop(child);
        p.pages(4, 8, RW, 0);
        p.expect("[0-8 rw-p]");
    });
}

#[test]
fn the_parts_of_what_a_child_inherits_merge_with_each_other() {
    with_process(|p| {
        p.written(0, 8);
        let child = p.fork().unwrap();
        child.protect(0, 4, READ);
        child.expect("[0-4 r--p][4-8 rw-p]");
        child.protect(0, 4, RW);
        child.expect("[0-8 rw-p]");
    });
}

#[test]
fn the_charge_of_written_memory_stays_when_it_becomes_read_only() {
    with_process(|p| {
        p.pages(0, 4, RW, 0);
        p.touch(0);
        p.pages(4, 8, READ, 0);
        p.protect(0, 4, READ);
        p.expect("[0-4 r--p][4-8 r--p]");
    });
}

#[test]
fn the_charge_of_unwritten_memory_goes_with_write_access() {
    with_process(|p| {
        p.pages(0, 4, 0, 0);
        p.pages(4, 8, 0, 0);
        p.protect(0, 4, RW);
        p.expect("[0-4 rw-p][4-8 ---p]");
        assert_eq!(p.space.memory().committed(), 4);
        p.protect(0, 4, 0);
        p.expect("[0-8 ---p]");
        assert_eq!(p.space.memory().committed(), 0);
    });
}

#[test]
fn no_two_kinds_of_memory_merge() {
    for flags in [NORESERVE, LOCKED, GROWSDOWN, STACK] {
        with_process(|p| {
            p.pages(4, 8, RW, 0);
            p.pages(0, 4, RW, flags);
            p.expect("[0-4 rw-p][4-8 rw-p]");
        });
    }
}

#[test]
fn advice_splits_and_its_opposite_merges() {
    // Advice and what takes it back: sequential, dontfork, wipeonfork, dontdump.
    for (advice, opposite) in [(2, 0), (10, 11), (18, 19), (16, 17)] {
        with_process(|p| {
            p.pages(0, 12, RW, 0);
            p.space.madvise(at(4), 4 * PAGE, advice).unwrap();
            p.expect("[0-4 rw-p][4-8 rw-p][8-12 rw-p]");
            p.space.madvise(at(4), 4 * PAGE, opposite).unwrap();
            p.expect("[0-12 rw-p]");
        });
    }
}

#[test]
fn what_fork_wipes_keeps_its_page_offset() {
    // Moved, and so apart from its neighbour in the parent; without pages in the child,
    // but apart from it still.
    const WIPE_ON_FORK: usize = 18;
    with_process(|p| {
        p.pages(0, 4, RW, 0);
        p.pages(20, 24, RW, 0);
        for page in 20..24 {
            p.touch(page);
        }
        p.space.mremap(at(20), 4 * PAGE, 4 * PAGE, MAYMOVE | MREMAP_FIXED, at(4)).unwrap();
        p.space.madvise(at(0), 8 * PAGE, WIPE_ON_FORK).unwrap();
        let child = p.fork().unwrap();
        child.space.mprotect(at(0), 8 * PAGE, READ).unwrap();
        child.expect("[0-4 r--p][4-8 r--p]");
    });
}

#[test]
fn shared_memory_of_two_calls_never_merges() {
    with_process(|p| {
        for page in [0, 4] {
            p.mmap(at(page), 4 * PAGE, RW, SHARED | ANON | FIXED).unwrap();
        }
        p.expect("[0-4 rw-s][4-8 rw-s]");
    });
}

#[test]
fn a_seal_splits_like_any_flag() {
    with_process(|p| {
        p.pages(0, 12, RW, 0);
        p.space.mseal(at(4), 4 * PAGE, 0).unwrap();
        p.expect("[0-4 rw-p][4-8 rw-p][8-12 rw-p]");
    });
}
