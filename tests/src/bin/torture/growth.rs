//! Stacks that grow, and what is mapped in their way.

use tests::mem;
use tests::rng::Rng;
use tests::sys::{self, *};

use crate::stamp::{Kind, Stamp};
use crate::{check, report};

/// Pages that a stack grows to.
const DEPTH: usize = 48;
/// What Linux keeps free below a stack, in pages.
const GUARD: usize = 256;
/// Pages that a stack with its surroundings takes.
pub const ROOM: usize = 1024;

/// A stack of one thread's own at the end of the room from `base` on.
pub fn own(base: usize, thread: usize, rng: &mut Rng) {
    let top = base + ROOM * PAGE;
    let result = sys::mmap(top - PAGE, PAGE, RW, ANON | FIXED | GROWSDOWN);
    check!(result == Ok(top - PAGE), "mmap of a stack: {result:?}");
    let mut lowest = 1;
    let place = |depth: usize| top - depth * PAGE + 16;
    let stamp = |depth: usize| Stamp::new(Kind::Stack, 0, thread, 0, depth as u64).0;
    while lowest < DEPTH {
        check!(mem::store(place(lowest), stamp(lowest)), "a stack of {lowest} pages does not grow");
        let next = lowest + 1 + rng.below(3);
        for between in lowest + 1..next.min(DEPTH) {
            check!(mem::store(place(between), stamp(between)), "a stack of {lowest} pages does not grow");
        }
        lowest = next;
    }
    for depth in 1..DEPTH {
        let found = mem::load(place(depth));
        check!(found == Some(stamp(depth)), "page {depth} of a stack holds {found:x?}");
    }
    if rng.below(2) == 0 {
        // What is below does not belong to it, and keeps it away.
        let way = top - (DEPTH + GUARD + 8) * PAGE;
        let result = sys::mmap(way, PAGE, RW, ANON | FIXED);
        check!(result == Ok(way), "mmap below a stack: {result:?}");
        for depth in DEPTH..DEPTH + GUARD + 8 {
            mem::store(place(depth), stamp(depth));
        }
        check!(mem::load(way) == Some(0), "a stack has grown into what is below");
    }
    let result = sys::munmap(base, ROOM * PAGE);
    check!(result == Ok(0), "munmap of a stack: {result:?}");
    report::count();
}

/// A stack that all threads use, and map things in the way of.
pub fn shared(base: usize, thread: usize, rng: &mut Rng) {
    let top = base + ROOM * PAGE;
    let depth = 1 + rng.below(ROOM - 1);
    match rng.below(8) {
        0 => {
            let _ = sys::mmap(top - PAGE, PAGE, RW, ANON | NOREPLACE | GROWSDOWN);
        }
        1 => {
            let _ = sys::mmap(top - depth * PAGE, PAGE, RW, ANON | NOREPLACE);
        }
        2 => {
            let _ = sys::munmap(top - depth * PAGE, PAGE);
        }
        3 => {
            let _ = sys::munmap(top - depth * PAGE, depth * PAGE);
        }
        _ => {
            let page = top - (1 + rng.below(DEPTH)) * PAGE;
            mem::store(page + thread * 8, Stamp::new(Kind::Stack, 0, thread, 1, 0).0);
            for other in 0..crate::MAX_THREADS {
                let expected = Stamp::new(Kind::Stack, 0, other, 1, 0).0;
                let found = mem::load(page + other * 8).unwrap_or(0);
                check!(found == 0 || found == expected, "at {:#x} is {}", page + other * 8, Stamp(found));
            }
        }
    }
    report::count();
}
