//! `MREMAP_RELOCATE_ANON`: what becomes one mapping with the flag, and what does not
//! without.
//!
//! Maps are in pages from [`BASE`]. What moves is five pages, from page 100 to page 5;
//! its neighbours there are at pages 0 to 5 and 10 to 15:
//!
//! ```text
//!   0    5    10   15            100  105
//!   [pppp]    [nnnn]             [ssss]
//!   [pppp|ssss|nnnn]
//! ```

mod review;
mod walkers;

use super::*;
use crate::{Errno, Event};

const NORESERVE: usize = 0x4000;
const RELOCATE: usize = 8;
const MUST: usize = 16;
const MOVE: usize = MAYMOVE | MREMAP_FIXED;
const LEN: usize = 5 * PAGE;
const SOURCE: usize = BASE + 100 * PAGE;
const PREV: usize = BASE;
const TARGET: usize = BASE + LEN;
const NEXT: usize = BASE + 2 * LEN;

/// What is counted of relocation.
const RELOCATION: [Event; 6] = [
    Event::Relocated,
    Event::RelocatedPage,
    Event::RelocateMerged,
    Event::RelocateNotAnon,
    Event::RelocateForked,
    Event::RelocateShared,
];

/// What is at a place before the move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum There {
    Nothing,
    /// Mapped, and never written to.
    Unfaulted,
    /// Each page written to.
    Faulted,
}
use There::*;

impl Process<'_> {
    fn put(&self, addr: usize, there: There) {
        if there != Nothing {
            self.map_at(addr, 5);
        }
        if there == Faulted {
            self.fill(addr, 5);
        }
    }

    fn move_to_target(&self, flags: usize) -> Result<usize, Errno> {
        self.remap(SOURCE, LEN, MOVE | flags, TARGET)
    }

    fn remap(&self, addr: usize, len: usize, flags: usize, to: usize) -> Result<usize, Errno> {
        let result = self.space.mremap(addr, len, len, flags, to).map_err(Errno::from);
        crate::space::verify_all(&[&self.space]);
        result
    }

    fn count(&self, event: Event) -> u64 {
        self.space.memory().events(event)
    }

    fn counts(&self) -> [u64; 6] {
        RELOCATION.map(|event| self.count(event))
    }
}

fn with_process(test: impl FnOnce(&Process<'_>)) {
    on_machine(8192, |mem| test(&Process::new(mem)));
}

/// Moves five written pages between `prev` and `next`; returns the map afterwards.
fn moved_between(prev: There, next: There, flags: usize) -> String {
    let mut map = String::new();
    with_process(|p| {
        p.put(PREV, prev);
        p.put(NEXT, next);
        p.put(SOURCE, Faulted);
        assert_eq!(p.move_to_target(flags), Ok(TARGET));
        p.assert_filled(TARGET, 5);
        for (addr, there) in [(PREV, prev), (NEXT, next)] {
            match there {
                Nothing => {}
                Unfaulted => p.assert_zero(addr, 5),
                Faulted => p.assert_filled(addr, 5),
            }
        }
        map = p.map(BASE);
    });
    map
}

/// The map with the flags, and without, in each arrangement.
fn check(prev: There, next: There, with: &str, without: &str) {
    for flags in [RELOCATE, MUST, RELOCATE | MUST] {
        assert_eq!(moved_between(prev, next, flags), with, "{prev:?} {next:?} {flags}");
    }
    assert_eq!(moved_between(prev, next, 0), without, "{prev:?} {next:?}");
}

#[test]
fn faulted_after_unfaulted() {
    check(Unfaulted, Nothing, "[0-10 rw-p]", "[0-5 rw-p][5-10 rw-p]");
}

#[test]
fn faulted_before_unfaulted() {
    check(Nothing, Unfaulted, "[5-15 rw-p]", "[5-10 rw-p][10-15 rw-p]");
}

#[test]
fn faulted_between_unfaulted() {
    check(Unfaulted, Unfaulted, "[0-15 rw-p]", "[0-5 rw-p][5-10 rw-p][10-15 rw-p]");
}

#[test]
fn faulted_after_faulted() {
    check(Faulted, Nothing, "[0-10 rw-p]", "[0-5 rw-p][5-10 rw-p]");
}

#[test]
fn faulted_before_faulted() {
    check(Nothing, Faulted, "[5-15 rw-p]", "[5-10 rw-p][10-15 rw-p]");
}

#[test]
fn faulted_between_faulted_and_unfaulted() {
    check(Faulted, Unfaulted, "[0-15 rw-p]", "[0-5 rw-p][5-10 rw-p][10-15 rw-p]");
    check(Unfaulted, Faulted, "[0-15 rw-p]", "[0-5 rw-p][5-10 rw-p][10-15 rw-p]");
}

#[test]
fn faulted_between_two_faulted_apart_merges_with_the_next_alone() {
    check(Faulted, Faulted, "[0-5 rw-p][5-15 rw-p]", "[0-5 rw-p][5-10 rw-p][10-15 rw-p]");
}

#[test]
fn faulted_between_two_faulted_together_merges_with_both() {
    for (flags, map) in [(MUST, "[0-15 rw-p]"), (0, "[0-5 rw-p][5-10 rw-p][10-15 rw-p]")] {
        with_process(|p| {
            p.map_at(BASE, 15);
            p.fill(BASE, 15);
            p.space.munmap(TARGET, LEN).unwrap();
            p.put(SOURCE, Faulted);
            assert_eq!(p.move_to_target(flags), Ok(TARGET));
            assert_eq!(p.map(BASE), map);
            p.assert_filled(TARGET, 5);
        });
    }
}

#[test]
fn what_cannot_merge_yet_can_when_its_protection_is_the_same() {
    // [pppp rw][ssss r-]  ->  mprotect  ->  [pppppppp rw]
    for (flags, map) in [(MUST, "[0-10 rw-p]"), (0, "[0-5 rw-p][5-10 rw-p]")] {
        with_process(|p| {
            p.put(PREV, Faulted);
            p.put(SOURCE, Faulted);
            p.space.mprotect(SOURCE, LEN, READ).unwrap();
            assert_eq!(p.move_to_target(flags), Ok(TARGET));
            assert_eq!(p.map(BASE), "[0-5 rw-p][5-10 r--p]");
            p.space.mprotect(TARGET, LEN, RW).unwrap();
            assert_eq!(p.map(BASE), map);
            p.assert_filled(TARGET, 5);
        });
    }
}

#[test]
fn what_is_mapped_beside_it_later_merges() {
    for (flags, map) in [(MUST, "[0-15 rw-p]"), (0, "[0-5 rw-p][5-10 rw-p][10-15 rw-p]")] {
        with_process(|p| {
            p.put(SOURCE, Faulted);
            assert_eq!(p.move_to_target(flags), Ok(TARGET));
            p.put(PREV, Faulted);
            p.put(NEXT, Faulted);
            assert_eq!(p.map(BASE), map);
            crate::space::verify_all(&[&p.space]);
        });
    }
}

#[test]
fn a_part_of_a_mapping_relocates() {
    with_process(|p| {
        p.put(PREV, Faulted);
        p.map_at(SOURCE, 15);
        p.fill(SOURCE, 15);
        assert_eq!(p.remap(SOURCE + LEN, LEN, MOVE | MUST, TARGET), Ok(TARGET));
        assert_eq!(p.map(BASE), "[0-10 rw-p][100-105 rw-p][110-115 rw-p]");
        assert_eq!(p.read(TARGET), Ok(6));
        // And back, into the hole that it left: its neighbours' again.
        assert_eq!(p.remap(TARGET, LEN, MOVE | MUST, SOURCE + LEN), Ok(SOURCE + LEN));
        assert_eq!(p.map(BASE), "[0-5 rw-p][100-115 rw-p]");
        p.assert_filled(SOURCE, 15);
    });
}

#[test]
fn a_part_moves_within_its_own_mapping() {
    with_process(|p| {
        p.map_at(BASE, 20);
        p.fill(BASE, 20);
        assert_eq!(p.remap(BASE, LEN, MOVE | MUST, BASE + 10 * PAGE), Ok(BASE + 10 * PAGE));
        assert_eq!(p.map(BASE), "[5-20 rw-p]");
        let values: Vec<_> = (5..20).map(|page| p.read(BASE + page * PAGE).unwrap()).collect();
        assert_eq!(values, [6, 7, 8, 9, 10, 1, 2, 3, 4, 5, 16, 17, 18, 19, 20]);
    });
}

#[test]
fn a_thousand_moves_in_a_chain_leave_as_many_mappings_as_there_were() {
    with_process(|p| {
        p.put(PREV, Faulted);
        p.put(SOURCE, Faulted);
        let objects = || {
            let arenas = &p.space.memory().arenas;
            (arenas.vmas.in_use(), arenas.avcs.in_use(), arenas.anon_vmas.in_use())
        };
        let before = objects();
        let mut at = SOURCE;
        for i in 0..1000 {
            let to = BASE + (200 + (i % 7) * 50) * PAGE;
            let to = if i % 3 == 0 { TARGET } else { to };
            if to != at {
                assert_eq!(p.space.mremap(at, LEN, LEN, MOVE | MUST, to).map_err(Errno::from), Ok(to));
                at = to;
            }
        }
        assert_eq!(p.remap(at, LEN, MOVE | MUST, SOURCE), Ok(SOURCE));
        assert_eq!(p.map(BASE), "[0-5 rw-p][100-105 rw-p]");
        assert_eq!(objects(), before);
        p.assert_filled(SOURCE, 5);
    });
}

#[test]
fn an_unfaulted_mapping_merges_as_ever() {
    with_process(|p| {
        p.put(PREV, Faulted);
        p.put(SOURCE, Unfaulted);
        assert_eq!(p.move_to_target(MUST), Ok(TARGET));
        assert_eq!(p.map(BASE), "[0-10 rw-p]");
        assert_eq!(p.counts(), [0; 6]);
    });
}

#[test]
fn pages_only_read_are_nothing_to_relocate() {
    with_process(|p| {
        p.put(SOURCE, Unfaulted);
        p.assert_zero(SOURCE, 5);
        p.write(SOURCE, 1).unwrap();
        assert_eq!(p.move_to_target(MUST), Ok(TARGET));
        assert_eq!(p.counts(), [1, 1, 0, 0, 0, 0]);
        assert_eq!(p.read(TARGET), Ok(1));
        p.assert_zero(TARGET + PAGE, 4);
    });
}

#[test]
fn what_merges_as_it_is_is_not_relocated() {
    // Away and back: its indices are those of its old place.
    with_process(|p| {
        p.map_at(BASE, 10);
        p.fill(BASE, 10);
        assert_eq!(p.remap(TARGET, LEN, MOVE, SOURCE), Ok(SOURCE));
        assert_eq!(p.move_to_target(MUST), Ok(TARGET));
        assert_eq!(p.map(BASE), "[0-10 rw-p]");
        assert_eq!(p.counts(), [0, 0, 1, 0, 0, 0]);
        p.assert_filled(BASE, 10);
    });
}

#[test]
fn growing_in_place_relocates_nothing() {
    with_process(|p| {
        p.put(SOURCE, Faulted);
        let grown = p.space.mremap(SOURCE, LEN, 2 * LEN, MAYMOVE | MUST, 0).map_err(Errno::from);
        assert_eq!(grown, Ok(SOURCE));
        assert_eq!(p.counts(), [0; 6]);
    });
}

#[test]
fn a_mapping_that_grows_or_shrinks_relocates_too() {
    with_process(|p| {
        p.put(PREV, Faulted);
        p.put(SOURCE, Faulted);
        let remap = |addr, old, new, to| p.space.mremap(addr, old, new, MOVE | MUST, to).map_err(Errno::from);
        assert_eq!(remap(SOURCE, LEN, 8 * PAGE, TARGET), Ok(TARGET));
        assert_eq!(p.map(BASE), "[0-13 rw-p]");
        p.assert_filled(TARGET, 5);
        p.assert_zero(TARGET + LEN, 3);
        // The tail is next to the target, and has gone before it is looked at.
        assert_eq!(remap(TARGET, 8 * PAGE, 2 * PAGE, TARGET + 8 * PAGE), Ok(TARGET + 8 * PAGE));
        assert_eq!(p.map(BASE), "[0-5 rw-p][13-15 rw-p]");
        p.assert_filled(TARGET + 8 * PAGE, 2);
        crate::space::verify_all(&[&p.space]);
    });
}

#[test]
fn with_dontunmap_the_source_stays_empty_and_apart() {
    for flags in [RELOCATE, MUST] {
        with_process(|p| {
            p.put(PREV, Faulted);
            p.put(SOURCE, Faulted);
            assert_eq!(p.move_to_target(flags | DONTUNMAP), Ok(TARGET));
            assert_eq!(p.map(BASE), "[0-10 rw-p][100-105 rw-p]");
            p.assert_filled(TARGET, 5);
            p.assert_zero(SOURCE, 5);
            // Next to it.
            p.fill(SOURCE, 5);
            assert_eq!(p.remap(SOURCE, LEN, MOVE | DONTUNMAP | flags, SOURCE + LEN), Ok(SOURCE + LEN));
            assert_eq!(p.map(BASE), "[0-10 rw-p][100-105 rw-p][105-110 rw-p]");
            p.assert_filled(SOURCE + LEN, 5);
            p.assert_zero(SOURCE, 5);
            crate::space::verify_all(&[&p.space]);
        });
    }
}

#[test]
fn beside_its_own_old_place_it_joins_its_new_neighbours() {
    // That it was next to has the anon_vma that it leaves, and is about to go or to be empty.
    for (kept, after, before) in [
        (0, "[0-10 rw-p][20-25 rw-p]", "[0-5 rw-p][15-25 rw-p]"),
        (DONTUNMAP, "[0-10 rw-p][10-15 rw-p][20-25 rw-p]", "[0-5 rw-p][10-15 rw-p][15-25 rw-p]"),
    ] {
        for (to, map) in [(BASE + LEN, after), (BASE + 3 * LEN, before)] {
            with_process(|p| {
                for place in [0, 2, 4] {
                    p.put(BASE + place * LEN, Faulted);
                }
                assert_eq!(p.remap(BASE + 2 * LEN, LEN, MOVE | MUST | kept, to), Ok(to));
                assert_eq!(p.map(BASE), map);
                p.assert_filled(to, 5);
                p.assert_filled(BASE, 5);
                p.assert_filled(BASE + 4 * LEN, 5);
            });
        }
    }
}

#[test]
fn beside_the_rest_of_its_own_mapping_it_becomes_a_part_of_that_again() {
    // [.....][rrrrr sssss]  ->  [sssss rrrrr]: what it leaves is not in between.
    with_process(|p| {
        p.map_at(TARGET + LEN, 10);
        p.fill(TARGET + LEN, 10);
        assert_eq!(p.remap(TARGET + 2 * LEN, LEN, MOVE | MUST, TARGET), Ok(TARGET));
        assert_eq!(p.map(BASE), "[5-15 rw-p]");
        assert_eq!(p.read(TARGET), Ok(6));
        p.assert_filled(TARGET + LEN, 5);
    });
}

#[test]
fn what_is_at_the_target_goes() {
    with_process(|p| {
        p.map_at(BASE, 15);
        p.fill(BASE, 15);
        p.put(SOURCE, Faulted);
        assert_eq!(p.move_to_target(MUST), Ok(TARGET));
        assert_eq!(p.map(BASE), "[0-15 rw-p]");
        p.assert_filled(BASE, 5);
        p.assert_filled(TARGET, 5);
        assert_eq!(p.read(NEXT), Ok(11));
    });
}

#[test]
fn several_mappings_relocate_with_the_gaps_between_them() {
    with_process(|p| {
        p.put(PREV, Faulted);
        for at in [0, 7] {
            p.map_at(SOURCE + at * PAGE, 3);
            p.fill(SOURCE + at * PAGE, 3);
        }
        assert_eq!(p.remap(SOURCE, 10 * PAGE, MOVE | MUST, TARGET), Ok(TARGET));
        assert_eq!(p.map(BASE), "[0-8 rw-p][12-15 rw-p]");
        p.assert_filled(TARGET, 3);
        p.assert_filled(TARGET + 7 * PAGE, 3);
    });
}

/// What must not be relocated is refused, with nothing changed, by the strict flag, and
/// moves as ever with the other.
fn refused(p: &Process<'_>, reason: Event) {
    p.map_at(TARGET, 2);
    p.fill(TARGET, 2);
    let now = || (p.map(BASE), format!("{:?}", p.space.stats()), p.space.memory().committed());
    let before = now();
    assert_eq!(p.move_to_target(MUST), Err(Errno::EFAULT));
    assert_eq!(p.move_to_target(MUST | RELOCATE | DONTUNMAP), Err(Errno::EFAULT));
    assert_eq!(now(), before);
    p.assert_filled(TARGET, 2);
    p.assert_filled(SOURCE, 5);
    assert_eq!(p.count(reason), 2);
    assert_eq!(p.move_to_target(RELOCATE), Ok(TARGET));
    p.assert_filled(TARGET, 5);
    assert_eq!(p.count(reason), 3);
    assert_eq!(p.count(Event::Relocated), 0);
}

#[test]
fn what_a_child_shares_is_refused_in_both() {
    for parent_moves in [true, false] {
        with_process(|parent| {
            parent.put(PREV, Unfaulted);
            parent.put(SOURCE, Faulted);
            let child = parent.fork().unwrap();
            let (mover, other) = if parent_moves { (parent, &child) } else { (&child, parent) };
            let before = mover.map(BASE);
            assert_eq!(
                mover.space.mremap(SOURCE, LEN, LEN, MOVE | MUST, TARGET).map_err(Errno::from),
                Err(Errno::EFAULT)
            );
            assert_eq!(mover.map(BASE), before);
            assert_eq!(mover.space.mremap(SOURCE, LEN, LEN, MOVE | RELOCATE, TARGET), Ok(TARGET));
            crate::space::verify_all(&[&parent.space, &child.space]);
            mover.assert_filled(TARGET, 5);
            other.assert_filled(SOURCE, 5);
        });
    }
}

#[test]
fn what_a_grandchild_shares_is_refused_in_all_three() {
    with_process(|parent| {
        parent.put(SOURCE, Faulted);
        let child = parent.fork().unwrap();
        let grandchild = child.fork().unwrap();
        for p in [parent, &child, &grandchild] {
            let result = p.space.mremap(SOURCE, LEN, LEN, MOVE | MUST, TARGET);
            assert_eq!(result.map_err(Errno::from), Err(Errno::EFAULT));
            p.assert_filled(SOURCE, 5);
        }
        // An anon_vma that is used again: the middle goes, and the last forks in turn.
        drop(child);
        let reuses = grandchild.fork().unwrap();
        for p in [parent, &grandchild, &reuses] {
            let result = p.space.mremap(SOURCE, LEN, LEN, MOVE | MUST, TARGET);
            assert_eq!(result.map_err(Errno::from), Err(Errno::EFAULT));
        }
        crate::space::verify_all(&[&parent.space, &grandchild.space, &reuses.space]);
    });
}

#[test]
fn what_was_shared_relocates_when_the_child_has_gone() {
    with_process(|parent| {
        parent.put(PREV, Unfaulted);
        parent.put(SOURCE, Faulted);
        drop(parent.fork().unwrap());
        assert_eq!(parent.move_to_target(MUST), Ok(TARGET));
        assert_eq!(parent.map(BASE), "[0-10 rw-p]");
        parent.assert_filled(TARGET, 5);
    });
}

#[test]
fn an_empty_part_of_what_is_shared_is_nothing_to_refuse() {
    with_process(|parent| {
        parent.map_at(SOURCE, 10);
        parent.fill(SOURCE + LEN, 5);
        let child = parent.fork().unwrap();
        assert_eq!(parent.space.mremap(SOURCE, LEN, LEN, MOVE | MUST, TARGET), Ok(TARGET));
        crate::space::verify_all(&[&parent.space, &child.space]);
        parent.assert_zero(TARGET, 5);
    });
}

#[test]
fn next_to_a_neighbour_that_was_forked_it_takes_that_ones_anon_vma() {
    // Only what moves must be nobody else's.
    with_process(|parent| {
        parent.put(PREV, Faulted);
        let child = parent.fork().unwrap();
        parent.put(SOURCE, Faulted);
        assert_eq!(parent.space.mremap(SOURCE, LEN, LEN, MOVE | MUST, TARGET), Ok(TARGET));
        crate::space::verify_all(&[&parent.space, &child.space]);
        assert_eq!(parent.map(BASE), "[0-10 rw-p]");
        assert_eq!(child.map(BASE), "[0-5 rw-p]");
        child.assert_filled(PREV, 5);
        parent.assert_filled(TARGET, 5);
    });
}

#[test]
fn shared_memory_is_refused() {
    with_process(|p| {
        p.mmap(SOURCE, LEN, RW, SHARED | ANON | FIXED).unwrap();
        p.fill(SOURCE, 5);
        refused(p, Event::RelocateNotAnon);
    });
}

#[test]
fn what_cannot_be_relocated_but_merges_anyway_is_no_error() {
    // In a child: away, and back to where its indices go on.
    with_process(|parent| {
        parent.map_at(BASE, 10);
        parent.fill(BASE, 10);
        let child = parent.fork().unwrap();
        assert_eq!(child.space.mremap(TARGET, LEN, LEN, MOVE, SOURCE), Ok(SOURCE));
        // Over what is there: the neighbours are known only when that has gone.
        child.map_at(TARGET, 2);
        child.write(TARGET, 9).unwrap();
        assert_eq!(child.space.mremap(SOURCE, LEN, LEN, MOVE | MUST, TARGET), Ok(TARGET));
        assert_eq!(child.map(BASE), "[0-10 rw-p]");
        crate::space::verify_all(&[&parent.space, &child.space]);
        child.assert_filled(BASE, 10);
    });
}

#[test]
fn of_several_mappings_one_that_cannot_stops_all() {
    with_process(|p| {
        p.put(SOURCE, Faulted);
        p.mmap(SOURCE + 2 * LEN, LEN, RW, SHARED | ANON | FIXED).unwrap();
        p.fill(SOURCE + 2 * LEN, 5);
        let before = p.map(BASE);
        assert_eq!(p.remap(SOURCE, 3 * LEN, MOVE | MUST, TARGET), Err(Errno::EFAULT));
        assert_eq!(p.map(BASE), before);
        assert_eq!(p.remap(SOURCE, 3 * LEN, MOVE | RELOCATE, TARGET), Ok(TARGET));
        assert_eq!(p.map(BASE), "[5-10 rw-p][15-20 rw-s]");
    });
}

#[test]
fn counts_and_charges_are_those_of_an_ordinary_move() {
    // Relocated, and falling back in a child.
    for child_moves in [false, true] {
        let run = |flags| {
            let mut outcome = None;
            with_process(|parent| {
                parent.put(PREV, Faulted);
                parent.put(SOURCE, Faulted);
                let child = child_moves.then(|| parent.fork().unwrap());
                let p = child.as_ref().unwrap_or(parent);
                p.space.mlock(SOURCE, LEN, 0).unwrap();
                assert_eq!(p.space.mremap(SOURCE, LEN, LEN, MOVE | flags, TARGET), Ok(TARGET));
                outcome = Some(format!("{:?} {}", p.space.stats(), p.space.memory().committed()));
            });
            outcome
        };
        assert_eq!(run(RELOCATE), run(0), "in a child: {child_moves}");
    }
}

#[test]
fn locked_memory_relocates_and_stays_locked() {
    with_process(|p| {
        p.map_at(BASE, 15);
        p.space.mlock(BASE, 3 * LEN, 0).unwrap();
        p.fill(BASE, 15);
        assert_eq!(p.remap(NEXT, LEN, MOVE, SOURCE), Ok(SOURCE));
        assert_eq!(p.remap(TARGET, LEN, MOVE | MUST, SOURCE + LEN), Ok(SOURCE + LEN));
        let locked = p.space.stats().locked_vm;
        assert_eq!(locked, 15);
        assert_eq!(p.remap(SOURCE, LEN, MOVE | MUST, TARGET), Ok(TARGET));
        assert_eq!(p.map(BASE), "[0-10 rw-p][105-110 rw-p]");
        assert_eq!(p.space.stats().locked_vm, locked);
    });
}

#[test]
fn relocation_visits_what_is_there_and_no_more() {
    // One page in each of 64 tables of a range of 128 MiB.
    with_process(|p| {
        let (from, to, len) = (1 << 30, 1 << 32, 128 << 20);
        p.mmap(from, len, RW, PRIVATE | ANON | FIXED | NORESERVE).unwrap();
        for table in 0..64 {
            p.write(from + table * (2 << 20), table as u8 + 1).unwrap();
        }
        assert_eq!(p.space.mremap(from, len, len, MOVE | MUST, to), Ok(to));
        assert_eq!(p.count(Event::RelocatedPage), 64);
        crate::space::verify_all(&[&p.space]);
        for table in 0..64 {
            assert_eq!(p.read(to + table * (2 << 20)), Ok(table as u8 + 1));
        }
    });
}
