//! Memory that is relocated while threads use it.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use tests::case::Outcome;
use tests::sys::{self, PAGE, TO};
use tests::{cases, check_eq};

use crate::MUST;
use crate::stage::Stage;

cases!["threads": calls_read_and_write_it, a_neighbour_is_written_to];

/// Moves between these places, and how often.
const ROUNDS: usize = 500;

fn calls_read_and_write_it() -> Outcome {
    // The kernel's own accesses: those that find nothing are EFAULT.
    let stage = Stage::new()?;
    stage.map_drawing("[1 2 3 4 5]         [a b c d e]")?;
    let mut ends = [0i32; 2];
    sys::call(libc::SYS_pipe2, &[ends.as_mut_ptr() as usize, 0])?;
    let [from, to] = ends.map(|end| end as usize);
    let done = AtomicBool::new(false);
    let (places, stop) = ([stage.at(10), stage.at(5), stage.at(20)], &done);
    let moved = thread::scope(|scope| {
        let other = scope.spawn(move || {
            let mut good = 0usize;
            for turn in 0.. {
                if stop.load(Relaxed) {
                    break;
                }
                let page = places[turn % 3] + turn % 5 * PAGE;
                let mut byte = 0u8;
                if sys::call(libc::SYS_write, &[to, page, 1]) == Ok(1) {
                    let read = sys::call(libc::SYS_read, &[from, &raw mut byte as usize, 1]);
                    assert!(read == Ok(1) && byte == b"abcde"[turn % 5], "{byte} in page {}", turn % 5);
                    good += 1;
                }
            }
            good
        });
        let mut outcome = Ok(());
        for round in 0..ROUNDS {
            let (from, to) = ([10, 5, 20][round % 3], [5, 20, 10][round % 3]);
            outcome = stage.remap(from, 5, 5, MUST, to).map_err(|error| error.to_string());
            if outcome.is_err() {
                break;
            }
            thread::yield_now();
        }
        done.store(true, Relaxed);
        outcome.and_then(|()| other.join().map_err(|_| "the other thread found something else".to_owned()))
    });
    moved?;
    let last = [5, 20, 10][(ROUNDS - 1) % 3];
    stage.remap(last, 5, 5, MUST, 26)?;
    stage.remap(26, 5, 5, MUST, 5)?;
    check_eq!(stage.drawing(), "[1 2 3 4 5 a b c d e]");
    Ok(())
}

fn a_neighbour_is_written_to() -> Outcome {
    // The first faults of the neighbours choose an anon_vma while the other one comes and goes.
    let stage = Stage::new()?;
    stage.map_drawing("                                        [a b c d e]")?;
    for _ in 0..ROUNDS {
        let stage = &stage;
        stage.map(0, ".....")?;
        stage.map(10, ".....")?;
        let results = thread::scope(|scope| {
            let writer = scope.spawn(move || {
                stage.write(0, "12345").and_then(|()| stage.write(10, "67890")).map_err(|error| error.to_string())
            });
            let moved = sys::mremap(stage.at(20), 5 * PAGE, 5 * PAGE, TO | MUST, stage.at(5));
            (moved, writer.join())
        });
        check_eq!(results.0?, stage.at(5));
        results.1.map_err(|_| "the writer died")??;
        let drawing = stage.drawing().replace('|', " ");
        check_eq!(drawing, "[1 2 3 4 5 a b c d e 6 7 8 9 0]");
        stage.remap(5, 5, 5, MUST, 20)?;
        stage.unmap(0, 5)?;
        stage.unmap(10, 15)?;
        check_eq!(stage.drawing(), "                                        [a b c d e]");
    }
    Ok(())
}
