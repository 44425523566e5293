//! `MREMAP_RELOCATE_ANON`: which mappings become one with their neighbours.
//!
//! usage: `relocation` or `relocation without`
//!
//! Draws what is mapped before a move, after it without the flag, and after it with the
//! flag, and checks each drawing: mappings and contents. Then come moves that are refused,
//! long chains of them, and moves under the hands of threads. Exits with 1 if anything is
//! not as it should be. `without` leaves out all that needs the flag, which Linux does not
//! have: what it prints is the same on Linux.

mod arrangements;
mod chains;
mod counts;
mod refusals;
mod stage;
mod threads;

use std::process::ExitCode;

use tests::case::Case;
use tests::mem;
use tests::sys::{self, Errno, MAYMOVE, PAGE, RW};

use stage::Stage;

/// The flag, and its strict form.
pub const RELOCATE: usize = 8 | MAYMOVE;
pub const MUST: usize = 16 | MAYMOVE;

/// What else there is, each a process of its own.
const GROUPS: [&[Case]; 4] = [refusals::CASES, chains::CASES, counts::CASES, threads::CASES];

fn main() -> ExitCode {
    let without = std::env::args().nth(1).is_some_and(|word| word == "without");
    mem::catch_faults();
    if !without && !is_known() {
        println!("This kernel has no MREMAP_RELOCATE_ANON.");
        return ExitCode::FAILURE;
    }
    let mut failed = 0;
    for (number, arrangement) in arrangements::ALL.iter().enumerate() {
        println!("\n{}. {}", number + 1, arrangement.title);
        if let Err(reason) = arrangement.run(without) {
            println!("   FAILED: {reason}");
            failed += 1;
        }
    }
    println!();
    if !without {
        let all = GROUPS.iter().flat_map(|group| group.iter());
        failed += tests::case::run(all, true);
    }
    match failed {
        0 => println!("Everything is as it should be."),
        _ => println!("{failed} FAILED."),
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether the kernel knows the flag.
fn is_known() -> bool {
    let Ok(stage) = Stage::new() else {
        return false;
    };
    let _ = sys::mmap(stage.at(0), PAGE, RW, sys::ANON | sys::FIXED);
    sys::mremap(stage.at(0), PAGE, PAGE, RELOCATE, 0) != Err(Errno(libc::EINVAL))
}
