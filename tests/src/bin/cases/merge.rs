//! Which neighbours become one mapping.

use tests::arena::Arena;
use tests::case::Outcome;
use tests::mem;
use tests::sys::{self, *};
use tests::{cases, check, check_eq};

cases!["merge":
    with_next, with_previous, with_both, not_with_other_access, untouched_after_moves, noreserve_apart,
    growsdown_apart, read_faults_do_not_count, written_on_both_sides, written_then_neighbour,
    moved_and_written_apart, moved_back, after_mprotect_written, untouched_round_trip, read_only_written,
    child_of_fork, parent_of_fork, inherited_parts, hole_filled_by_fixed,
];

fn with_next() -> Outcome {
    let arena = Arena::new(8)?;
    arena.map(4, 8, RW)?;
    arena.map(0, 4, RW)?;
    check_eq!(arena.layout(), "[0-8 rw-]");
    Ok(())
}

fn with_previous() -> Outcome {
    let arena = Arena::new(8)?;
    arena.map(0, 4, RW)?;
    arena.map(4, 8, RW)?;
    check_eq!(arena.layout(), "[0-8 rw-]");
    Ok(())
}

fn with_both() -> Outcome {
    let arena = Arena::new(8)?;
    arena.map(0, 3, RW)?;
    arena.map(5, 8, RW)?;
    arena.map(3, 5, RW)?;
    check_eq!(arena.layout(), "[0-8 rw-]");
    Ok(())
}

fn not_with_other_access() -> Outcome {
    let arena = Arena::new(8)?;
    arena.map(0, 3, RW)?;
    arena.map(5, 8, R)?;
    arena.map(3, 5, R | X)?;
    check_eq!(arena.layout(), "[0-3 rw-][3-5 r-x][5-8 r--]");
    Ok(())
}

fn untouched_after_moves() -> Outcome {
    // Memory that nothing was written to merges wherever it goes.
    let arena = Arena::new(24)?;
    arena.map(0, 4, RW)?;
    arena.map(10, 14, RW)?;
    arena.remap(0, 4, 4, TO, 14)?;
    check_eq!(arena.layout(), "[10-18 rw-]");
    Ok(())
}

fn noreserve_apart() -> Outcome {
    let arena = Arena::new(8)?;
    arena.map_with(0, 4, RW, NORESERVE)?;
    arena.map(4, 8, RW)?;
    check_eq!(arena.layout(), "[0-4 rw-][4-8 rw-]");
    Ok(())
}

fn growsdown_apart() -> Outcome {
    let arena = Arena::new(600)?;
    arena.map_with(590, 595, RW, GROWSDOWN)?;
    arena.map(595, 600, RW)?;
    check_eq!(arena.layout(), "[590-595 rw-][595-600 rw-]");
    Ok(())
}

fn read_faults_do_not_count() -> Outcome {
    let arena = Arena::new(12)?;
    arena.map(0, 4, RW)?;
    arena.map(8, 12, RW)?;
    check!(mem::is_zero(arena.at(0), 4)? && mem::is_zero(arena.at(8), 4)?);
    arena.map(4, 8, RW)?;
    check_eq!(arena.layout(), "[0-12 rw-]");
    Ok(())
}

fn written_on_both_sides() -> Outcome {
    // Each side has had an anon_vma of its own since its first write.
    let arena = Arena::new(12)?;
    arena.map(0, 4, RW)?;
    arena.map(8, 12, RW)?;
    arena.fill(0, 4, 1)?;
    arena.fill(8, 12, 2)?;
    arena.map(4, 8, RW)?;
    check_eq!(arena.layout(), "[0-8 rw-][8-12 rw-]");
    Ok(())
}

fn written_then_neighbour() -> Outcome {
    let arena = Arena::new(12)?;
    arena.map(4, 8, RW)?;
    arena.fill(4, 8, 1)?;
    arena.map(0, 4, RW)?;
    arena.map(8, 12, RW)?;
    check_eq!(arena.layout(), "[0-12 rw-]");
    check!(arena.holds(4, 8, 1)?);
    Ok(())
}

fn moved_and_written_apart() -> Outcome {
    // Written memory keeps the offset of the place where it was written.
    let arena = Arena::new(24)?;
    arena.map(0, 4, RW)?;
    arena.fill(0, 4, 1)?;
    arena.map(10, 14, RW)?;
    arena.remap(0, 4, 4, TO, 14)?;
    check_eq!(arena.layout(), "[10-14 rw-][14-18 rw-]");
    check!(arena.holds(14, 18, 1)?);
    Ok(())
}

fn moved_back() -> Outcome {
    let arena = Arena::new(24)?;
    arena.map(0, 8, RW)?;
    arena.fill(0, 8, 1)?;
    arena.remap(4, 8, 4, TO, 16)?;
    check_eq!(arena.layout(), "[0-4 rw-][16-20 rw-]");
    arena.remap(16, 20, 4, TO, 4)?;
    check_eq!(arena.layout(), "[0-8 rw-]");
    check!(arena.holds(0, 8, 1)?);
    Ok(())
}

fn after_mprotect_written() -> Outcome {
    // Neighbours that differ only in access share an anon_vma from the first write.
    let arena = Arena::new(8)?;
    arena.map(0, 4, RW)?;
    arena.map(4, 8, RW | X)?;
    check_eq!(arena.layout(), "[0-4 rw-][4-8 rwx]");
    arena.fill(0, 4, 1)?;
    arena.fill(4, 8, 2)?;
    arena.protect(4, 8, RW)?;
    check_eq!(arena.layout(), "[0-8 rw-]");
    check!(arena.holds(0, 4, 1)? && arena.holds(4, 8, 2)?);
    Ok(())
}

fn untouched_round_trip() -> Outcome {
    let arena = Arena::new(8)?;
    arena.map(0, 8, NONE)?;
    arena.protect(2, 4, RW)?;
    check_eq!(arena.layout(), "[0-2 ---][2-4 rw-][4-8 ---]");
    arena.protect(2, 4, NONE)?;
    check_eq!(arena.layout(), "[0-8 ---]");
    Ok(())
}

fn read_only_written() -> Outcome {
    // Written memory still counts against the commit limit when it is made read-only;
    // untouched memory does not, and the two stay apart.
    let arena = Arena::new(8)?;
    arena.map(0, 4, RW)?;
    arena.fill(0, 4, 1)?;
    arena.protect(0, 4, R)?;
    arena.map(4, 8, R)?;
    check_eq!(arena.layout(), "[0-4 r--][4-8 r--]");
    Ok(())
}

/// Runs the rest of a case in a child, whose complaint is printed.
fn in_child(work: impl FnOnce() -> Outcome) -> Outcome {
    let status = sys::in_child(|| match work() {
        Ok(()) => 0,
        Err(reason) => {
            println!("  in the child: {reason}");
            1
        }
    })?;
    check_eq!(status, Status::Exited(0));
    Ok(())
}

fn child_of_fork() -> Outcome {
    let arena = Arena::new(8)?;
    arena.map(0, 4, RW)?;
    arena.fill(0, 4, 1)?;
    in_child(|| {
        arena.map(4, 8, RW)?;
        check_eq!(arena.layout(), "[0-4 rw-][4-8 rw-]");
        Ok(())
    })
}

fn parent_of_fork() -> Outcome {
    let arena = Arena::new(8)?;
    arena.map(0, 4, RW)?;
    arena.fill(0, 4, 1)?;
    in_child(|| Ok(()))?;
    arena.map(4, 8, RW)?;
    check_eq!(arena.layout(), "[0-8 rw-]");
    Ok(())
}

fn inherited_parts() -> Outcome {
    let arena = Arena::new(8)?;
    arena.map(0, 8, RW)?;
    arena.fill(0, 8, 1)?;
    in_child(|| {
        arena.protect(2, 4, R)?;
        check_eq!(arena.layout(), "[0-2 rw-][2-4 r--][4-8 rw-]");
        arena.protect(2, 4, RW)?;
        check_eq!(arena.layout(), "[0-8 rw-]");
        check!(arena.holds(0, 8, 1)?);
        Ok(())
    })
}

fn hole_filled_by_fixed() -> Outcome {
    let arena = Arena::new(12)?;
    arena.map(0, 12, RW)?;
    arena.fill(0, 12, 1)?;
    arena.unmap(4, 8)?;
    arena.map(4, 8, RW)?;
    check_eq!(arena.layout(), "[0-12 rw-]");
    check!(mem::is_zero(arena.at(4), 4)?);
    check!(mem::holds(arena.at(8), 8, 4, 1)?);
    Ok(())
}
