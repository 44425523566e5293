//! `munmap`: what goes, what stays, and that it stays gone.

use tests::arena::Arena;
use tests::case::Outcome;
use tests::mem::{self, Fault};
use tests::sys::{self, *};
use tests::{cases, check, check_eq};

cases!["munmap":
    whole, head, tail, middle, across_holes, nothing_there, length_rounds_up, comes_back_zero,
    large_and_sparse, page_by_page, table_boundaries,
];

fn whole() -> Outcome {
    let arena = Arena::new(8)?;
    arena.map(2, 6, RW)?;
    arena.fill(2, 6, 1)?;
    arena.unmap(2, 6)?;
    check_eq!(arena.layout(), "");
    for page in 2..6 {
        check_eq!(mem::read(arena.at(page) + 9), Err(Fault::unmapped(arena.at(page) + 9)));
    }
    Ok(())
}

fn head() -> Outcome {
    let arena = Arena::new(8)?;
    arena.map(0, 8, RW)?;
    arena.fill(0, 8, 1)?;
    arena.unmap(0, 3)?;
    check_eq!(arena.layout(), "[3-8 rw-]");
    check!(mem::holds(arena.at(3), 3, 5, 1)?);
    check_eq!(mem::write(arena.at(2), 1), Err(Fault::unmapped(arena.at(2))));
    Ok(())
}

fn tail() -> Outcome {
    let arena = Arena::new(8)?;
    arena.map(0, 8, RW)?;
    arena.fill(0, 8, 1)?;
    arena.unmap(5, 8)?;
    check_eq!(arena.layout(), "[0-5 rw-]");
    check!(mem::holds(arena.at(0), 0, 5, 1)?);
    check_eq!(mem::read(arena.at(5)), Err(Fault::unmapped(arena.at(5))));
    Ok(())
}

fn middle() -> Outcome {
    let arena = Arena::new(8)?;
    arena.map(0, 8, RW)?;
    arena.fill(0, 8, 1)?;
    arena.unmap(3, 5)?;
    check_eq!(arena.layout(), "[0-3 rw-][5-8 rw-]");
    check!(mem::holds(arena.at(0), 0, 3, 1)? && mem::holds(arena.at(5), 5, 3, 1)?);
    check_eq!(mem::read(arena.at(4)), Err(Fault::unmapped(arena.at(4))));
    Ok(())
}

fn across_holes() -> Outcome {
    let arena = Arena::new(20)?;
    arena.map(0, 4, RW)?;
    arena.map(6, 8, R)?;
    arena.map(8, 9, NONE)?;
    arena.map(12, 18, RW)?;
    arena.fill(0, 4, 1)?;
    arena.fill(12, 18, 2)?;
    arena.unmap(2, 15)?;
    check_eq!(arena.layout(), "[0-2 rw-][15-18 rw-]");
    check!(mem::holds(arena.at(0), 0, 2, 1)? && mem::holds(arena.at(15), 3, 3, 2)?);
    Ok(())
}

fn nothing_there() -> Outcome {
    let arena = Arena::new(8)?;
    arena.unmap(0, 8)?;
    arena.unmap(3, 4)?;
    check_eq!(arena.layout(), "");
    Ok(())
}

fn length_rounds_up() -> Outcome {
    let arena = Arena::new(8)?;
    arena.map(0, 8, RW)?;
    sys::munmap(arena.at(0), PAGE + 1)?;
    check_eq!(arena.layout(), "[2-8 rw-]");
    sys::munmap(arena.at(7), 1)?;
    check_eq!(arena.layout(), "[2-7 rw-]");
    Ok(())
}

fn comes_back_zero() -> Outcome {
    let arena = Arena::new(64)?;
    for round in 0..20 {
        arena.map(0, 64, RW)?;
        check!(mem::is_zero(arena.at(0), 64)?);
        arena.fill(0, 64, round)?;
        arena.unmap(0, 64)?;
    }
    Ok(())
}

fn large_and_sparse() -> Outcome {
    // One page in every gigabyte, unmapped in one go.
    let arena = Arena::new(20 << 18)?;
    arena.map_with(0, 20 << 18, RW, NORESERVE)?;
    for gigabyte in 0..20 {
        mem::write(arena.at(gigabyte << 18), 1)?;
    }
    arena.unmap(1, (20 << 18) - 1)?;
    check_eq!(mem::read(arena.at(0))?, 1);
    check_eq!(mem::read(arena.at(5 << 18)), Err(Fault::unmapped(arena.at(5 << 18))));
    arena.map_with(1, 20 << 18, RW, NORESERVE)?;
    check_eq!(mem::read(arena.at(5 << 18))?, 0);
    Ok(())
}

fn page_by_page() -> Outcome {
    let arena = Arena::new(200)?;
    arena.map(0, 200, RW)?;
    arena.fill(0, 200, 3)?;
    for page in (0..200).step_by(2) {
        arena.unmap(page, page + 1)?;
        check!(mem::holds(arena.at(page + 1), page + 1, 1, 3)?);
    }
    for page in (1..200).step_by(2) {
        arena.unmap(page, page + 1)?;
    }
    check_eq!(arena.layout(), "");
    Ok(())
}

fn table_boundaries() -> Outcome {
    // Neighbours that share a page-table page, at a 1 GiB boundary, keep what is theirs.
    let gigabyte = 1 << 18;
    let arena = Arena::aligned(3 * gigabyte, 1 << 30)?;
    for edge in [gigabyte, 2 * gigabyte, gigabyte + 512] {
        arena.map(edge - 2, edge + 2, RW)?;
        arena.fill(edge - 2, edge + 2, 6)?;
    }
    arena.unmap(gigabyte, gigabyte + 2)?;
    check!(mem::holds(arena.at(gigabyte - 2), 0, 2, 6)?);
    check!(arena.holds(gigabyte + 510, gigabyte + 514, 6)?);
    arena.unmap(gigabyte + 512, 2 * gigabyte)?;
    check!(mem::holds(arena.at(2 * gigabyte), 2, 2, 6)?);
    check!(mem::holds(arena.at(gigabyte + 510), 0, 2, 6)?);
    Ok(())
}
