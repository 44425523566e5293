//! What cannot be relocated: the strict flag makes that an error which changes nothing,
//! and with the other the memory moves as ever.

use tests::case::Outcome;
use tests::sys::{self, Errno, FIXED, PAGE, RW, Status, TO};
use tests::{cases, check_eq};

use crate::stage::Stage;
use crate::{MUST, RELOCATE};

cases!["refusals":
    needs_maymove, parent_with_a_child, child, grandchild, after_the_child, shared_memory,
    no_pages_of_a_child, what_a_child_wrote_itself, one_of_several,
];

/// Before each of the moves here.
const BEFORE: &str = "[1 2 3 4 5 x x]                         [a b c d e]";
const MOVED: &str = "[1 2 3 4 5|a b c d e]";
const MERGED: &str = "[1 2 3 4 5 a b c d e]";

fn prepared() -> Result<Stage, Box<dyn std::error::Error>> {
    let stage = Stage::new()?;
    stage.map_drawing(BEFORE)?;
    Ok(stage)
}

/// Moves five pages from page 20 to page 5.
fn move_five(stage: &Stage, flags: usize) -> sys::Result {
    sys::mremap(stage.at(20), 5 * PAGE, 5 * PAGE, TO | flags, stage.at(5))
}

/// Is refused, and then moves.
fn refused(stage: &Stage) -> Outcome {
    for flags in [MUST, MUST | RELOCATE, MUST | sys::DONTUNMAP] {
        check_eq!(move_five(stage, flags), Err(Errno(libc::EFAULT)));
        check_eq!(stage.drawing(), BEFORE);
    }
    check_eq!(move_five(stage, RELOCATE)?, stage.at(5));
    check_eq!(stage.drawing(), MOVED);
    Ok(())
}

/// Runs `check` in a child, which prints why if it fails.
fn in_child(check: impl FnOnce() -> Outcome) -> Outcome {
    let status = sys::in_child(|| match check() {
        Ok(()) => 0,
        Err(reason) => {
            println!("  in a child: {reason}");
            1
        }
    })?;
    check_eq!(status, Status::Exited(0));
    Ok(())
}

fn needs_maymove() -> Outcome {
    let stage = prepared()?;
    for flags in [8, 16, 24, 8 | 2, 16 | 4] {
        let result = sys::mremap(stage.at(20), 5 * PAGE, 5 * PAGE, flags, stage.at(5));
        check_eq!(result, Err(Errno(libc::EINVAL)));
    }
    check_eq!(stage.drawing(), BEFORE);
    // Neither an address nor another size is needed.
    check_eq!(sys::mremap(stage.at(20), 5 * PAGE, 5 * PAGE, MUST, 0)?, stage.at(20));
    check_eq!(sys::mremap(stage.at(20), 5 * PAGE, 3 * PAGE, MUST, 0)?, stage.at(20));
    Ok(())
}

fn parent_with_a_child() -> Outcome {
    let stage = prepared()?;
    let mut ends = [0i32; 2];
    sys::call(libc::SYS_pipe2, &[ends.as_mut_ptr() as usize, 0])?;
    let [from, to] = ends.map(|end| end as usize);
    // It waits for the parent to close its end.
    let child = sys::spawn(|| {
        let _ = sys::call(libc::SYS_close, &[to]);
        let mut byte = 0u8;
        let end = sys::call(libc::SYS_read, &[from, &raw mut byte as usize, 1]);
        i32::from(end != Ok(0) || stage.drawing() != BEFORE)
    })?;
    let outcome = refused(&stage);
    sys::call(libc::SYS_close, &[to])?;
    check_eq!(sys::wait(child)?, Status::Exited(0));
    outcome
}

fn child() -> Outcome {
    let stage = prepared()?;
    in_child(|| refused(&stage))?;
    check_eq!(stage.drawing(), BEFORE);
    Ok(())
}

fn grandchild() -> Outcome {
    let stage = prepared()?;
    in_child(|| {
        in_child(|| refused(&stage))?;
        refused(&stage)
    })?;
    check_eq!(stage.drawing(), BEFORE);
    Ok(())
}

fn after_the_child() -> Outcome {
    let stage = prepared()?;
    in_child(|| Ok(()))?;
    check_eq!(move_five(&stage, MUST)?, stage.at(5));
    check_eq!(stage.drawing(), MERGED);
    Ok(())
}

fn shared_memory() -> Outcome {
    let stage = prepared()?;
    let flags = (libc::MAP_SHARED | libc::MAP_ANONYMOUS) as usize | FIXED;
    sys::mmap(stage.at(20), 5 * PAGE, RW, flags)?;
    stage.write(20, "abcde")?;
    refused(&stage)
}

fn no_pages_of_a_child() -> Outcome {
    // Inherited, but of what moves there are no pages: nothing is in the way.
    let stage = Stage::new()?;
    stage.map_drawing("[1 2 3 4 5]                             [. . . . . f g]")?;
    in_child(|| {
        check_eq!(move_five(&stage, MUST)?, stage.at(5));
        stage.write(5, "abcde")?;
        check_eq!(stage.drawing(), "[1 2 3 4 5|a b c d e]                             [f g]");
        Ok(())
    })
}

fn what_a_child_wrote_itself() -> Outcome {
    let stage = Stage::new()?;
    in_child(|| {
        stage.map_drawing(BEFORE)?;
        check_eq!(move_five(&stage, MUST)?, stage.at(5));
        check_eq!(stage.drawing(), MERGED);
        Ok(())
    })
}

fn one_of_several() -> Outcome {
    // The second cannot: neither moves.
    let stage = Stage::new()?;
    stage.map_drawing("[1 2 3 4 5]                             [a b]")?;
    sys::mmap(stage.at(22), 3 * PAGE, RW, (libc::MAP_SHARED | libc::MAP_ANONYMOUS) as usize | FIXED)?;
    stage.write(22, "cde")?;
    let before = "[1 2 3 4 5]                             [a b|c d e]";
    check_eq!(stage.drawing(), before);
    check_eq!(move_five(&stage, MUST), Err(Errno(libc::EFAULT)));
    check_eq!(stage.drawing(), before);
    check_eq!(move_five(&stage, RELOCATE)?, stage.at(5));
    check_eq!(stage.drawing(), "[1 2 3 4 5 a b|c d e]");
    Ok(())
}
