//! `madvise(MADV_DONTNEED)`, and what other advice does not break.

use tests::arena::Arena;
use tests::case::Outcome;
use tests::mem::{self, Fault};
use tests::sys::{self, *};
use tests::{cases, check, check_eq};

cases!["madvise":
    dontneed_zeroes, dontneed_part, dontneed_hole, dontneed_nothing, dontneed_without_access,
    dontneed_across, dontneed_after_fork, dontneed_again_and_again, not_resident_after, empty_range,
];

const DONTNEED: i32 = libc::MADV_DONTNEED;

fn dontneed_zeroes() -> Outcome {
    let arena = Arena::new(8)?;
    arena.map(0, 8, RW)?;
    arena.fill(0, 8, 1)?;
    sys::madvise(arena.at(0), 8 * PAGE, DONTNEED)?;
    check_eq!(arena.layout(), "[0-8 rw-]");
    check!(mem::is_zero(arena.at(0), 8)?);
    arena.fill(0, 8, 2)?;
    check!(arena.holds(0, 8, 2)?);
    Ok(())
}

fn dontneed_part() -> Outcome {
    let arena = Arena::new(8)?;
    arena.map(0, 8, RW)?;
    arena.fill(0, 8, 1)?;
    // The length rounds up.
    sys::madvise(arena.at(2), 2 * PAGE + 1, DONTNEED)?;
    check!(mem::holds(arena.at(0), 0, 2, 1)? && mem::holds(arena.at(5), 5, 3, 1)?);
    check!(mem::is_zero(arena.at(2), 3)?);
    Ok(())
}

fn dontneed_hole() -> Outcome {
    let arena = Arena::new(12)?;
    arena.map(0, 4, RW)?;
    arena.map(8, 12, RW)?;
    arena.fill(0, 4, 1)?;
    arena.fill(8, 12, 2)?;
    // Done for all that is mapped, and then reported.
    check_eq!(sys::madvise(arena.at(0), 12 * PAGE, DONTNEED), Err(Errno(libc::ENOMEM)));
    check!(mem::is_zero(arena.at(0), 4)? && mem::is_zero(arena.at(8), 4)?);
    Ok(())
}

fn dontneed_nothing() -> Outcome {
    let arena = Arena::new(4)?;
    check_eq!(sys::madvise(arena.at(0), PAGE, DONTNEED), Err(Errno(libc::ENOMEM)));
    Ok(())
}

fn dontneed_without_access() -> Outcome {
    let arena = Arena::new(4)?;
    arena.map(0, 4, RW)?;
    arena.fill(0, 4, 1)?;
    arena.protect(0, 4, NONE)?;
    sys::madvise(arena.at(0), 4 * PAGE, DONTNEED)?;
    check_eq!(mem::read(arena.at(0)), Err(Fault::denied(arena.at(0))));
    arena.protect(0, 4, R)?;
    check!(mem::is_zero(arena.at(0), 4)?);
    Ok(())
}

fn dontneed_across() -> Outcome {
    let arena = Arena::new(12)?;
    arena.map(0, 12, RW)?;
    arena.fill(0, 12, 1)?;
    arena.protect(4, 8, R)?;
    sys::madvise(arena.at(2), 8 * PAGE, DONTNEED)?;
    check!(mem::is_zero(arena.at(2), 8)?);
    check!(mem::holds(arena.at(0), 0, 2, 1)? && mem::holds(arena.at(10), 10, 2, 1)?);
    Ok(())
}

fn dontneed_after_fork() -> Outcome {
    let arena = Arena::new(4)?;
    arena.map(0, 4, RW)?;
    arena.fill(0, 4, 1)?;
    let status = sys::in_child(|| {
        let done = sys::madvise(arena.at(0), 4 * PAGE, DONTNEED).is_ok();
        i32::from(!(done && mem::is_zero(arena.at(0), 4) == Ok(true)))
    })?;
    check_eq!(status, Status::Exited(0));
    check!(arena.holds(0, 4, 1)?);
    Ok(())
}

fn dontneed_again_and_again() -> Outcome {
    // More in total than the machine has, so nothing may leak.
    const PAGES: usize = 2048;
    let arena = Arena::new(PAGES)?;
    arena.map(0, PAGES, RW)?;
    for round in 0..160 {
        for page in 0..PAGES {
            mem::write(arena.at(page), round as u8 | 1)?;
        }
        sys::madvise(arena.at(0), PAGES * PAGE, DONTNEED)?;
    }
    check!(mem::is_zero(arena.at(0), PAGES)?);
    Ok(())
}

fn not_resident_after() -> Outcome {
    let arena = Arena::new(4)?;
    arena.map(0, 4, RW)?;
    arena.fill(0, 4, 1)?;
    check_eq!(sys::mincore(arena.at(0), 4)?, vec![true; 4]);
    sys::madvise(arena.at(1), 2 * PAGE, DONTNEED)?;
    check_eq!(sys::mincore(arena.at(0), 4)?, vec![true, false, false, true]);
    Ok(())
}

fn empty_range() -> Outcome {
    let arena = Arena::new(4)?;
    check_eq!(sys::madvise(arena.at(0), 0, DONTNEED)?, 0);
    Ok(())
}
