//! Many moves one after the other: nothing becomes more.

use tests::arena::Arena;
use tests::case::Outcome;
use tests::rng::Rng;
use tests::sys::{self, PAGE, RW, TO};
use tests::{cases, check, check_eq, maps};

use crate::counts::objects;
use crate::stage::Stage;
use crate::{MUST, RELOCATE};

cases!["chains": a_thousand_moves, gathered_from_pieces, cve_2026_23077, large_and_misaligned];

/// How many mappings there are, and how many of what finds their pages.
fn counts() -> Result<[u64; 4], Box<dyn std::error::Error>> {
    let mappings = maps::all().len() as u64;
    Ok([mappings, objects("vm_area_struct")?, objects("anon_vma")?, objects("anon_vma_chain")?])
}

fn a_thousand_moves() -> Outcome {
    let stage = Stage::new()?;
    stage.map_drawing("[1 2 3 4 5]                             [a b c d e]")?;
    let before = counts()?;
    let mut random = Rng::new(2025);
    let mut at = 20;
    for _ in 0..1000 {
        // Beside the others, too, of which it is a part then.
        let to = 5 + random.below(22);
        if to.abs_diff(at) >= 5 {
            stage.remap(at, 5, 5, MUST, to)?;
            at = to;
        }
    }
    if at > 21 {
        stage.remap(at, 5, 5, MUST, 10)?;
        at = 10;
    }
    stage.remap(at, 5, 5, MUST, 26)?;
    check_eq!(counts()?, before);
    stage.remap(26, 5, 5, MUST, 5)?;
    check_eq!(stage.drawing(), "[1 2 3 4 5 a b c d e]");
    Ok(())
}

fn gathered_from_pieces() -> Outcome {
    // A hundred mappings of ten pages, taken in any order from far apart, become one.
    let (pieces, pages) = (100, 10);
    let arena = Arena::new(3 * pieces * pages)?;
    let apart = |piece: usize| pieces * pages + 2 * piece * pages;
    for piece in 0..pieces {
        arena.map(apart(piece), apart(piece) + pages, RW)?;
        arena.fill(apart(piece), apart(piece) + pages, piece)?;
    }
    check_eq!(arena.layout().matches('[').count(), pieces);
    for piece in 0..pieces {
        arena.remap(apart(piece), apart(piece) + pages, pages, TO | MUST, piece * pages)?;
    }
    check_eq!(arena.layout(), format!("[0-{} rw-]", pieces * pages));
    for piece in 0..pieces {
        check!(arena.holds(piece * pages, (piece + 1) * pages, piece)?);
    }
    Ok(())
}

fn cve_2026_23077() -> Outcome {
    // A, written to, moves away. B is mapped where A ended. A's pages come back in front
    // of B, and become one with it; what A was stays, empty, and then goes. On Linux 6.16
    // to 6.18.7 the anon_vma went with it, and the pages were left with none.
    for flags in [0, RELOCATE, MUST] {
        let stage = Stage::new()?;
        let before = counts()?;
        for _ in 0..1000 {
            stage.map(5, "abcde")?;
            stage.remap(5, 5, 5, flags, 20)?;
            stage.map(10, ".....")?;
            stage.remap(20, 5, 5, flags | sys::DONTUNMAP, 5)?;
            stage.unmap(20, 25)?;
            stage.write(10, "67890")?;
            stage.write(7, "C")?;
            stage.unmap(0, 16)?;
        }
        check_eq!(counts()?, before);
        stage.map(5, "abcde")?;
        stage.remap(5, 5, 5, flags, 20)?;
        stage.map(10, ".....")?;
        stage.remap(20, 5, 5, flags | sys::DONTUNMAP, 5)?;
        check_eq!(stage.drawing(), "          [a b c d e . . . . .]         [. . . . .]");
    }
    Ok(())
}

fn large_and_misaligned() -> Outcome {
    // Whole page tables, and single entries.
    let pages = (16 << 20) / PAGE;
    let (from, to) = (Arena::aligned(pages, 1 << 21)?, Arena::aligned(2 * pages, 1 << 21)?);
    from.map(0, pages, RW)?;
    from.fill(0, pages, 1)?;
    for skew in [0, 1, 511, pages / 2 + 3] {
        check_eq!(sys::mremap(from.at(0), pages * PAGE, pages * PAGE, TO | MUST, to.at(skew))?, to.at(skew));
        check!(to.holds(skew, skew + pages, 1)?);
        check_eq!(sys::mremap(to.at(skew), pages * PAGE, pages * PAGE, TO | MUST, from.at(0))?, from.at(0));
        check!(from.holds(0, pages, 1)?);
    }
    Ok(())
}
