//! `brk`: the heap.

use tests::case::Outcome;
use tests::mem::{self, Fault};
use tests::sys::{self, *};
use tests::{cases, check, check_eq, maps};

cases!["brk":
    current, grows_and_shrinks, comes_back_zero, not_page_aligned, below_start, blocked, far_too_much,
    heap_in_maps, data_limit,
];

fn current() -> Outcome {
    check_eq!(sys::brk(0), sys::brk(0));
    check_eq!(sys::brk(1), sys::brk(0));
    Ok(())
}

/// A page-aligned break from which each case starts.
fn aligned_break() -> usize {
    let start = sys::brk(0).next_multiple_of(PAGE);
    sys::brk(start)
}

fn grows_and_shrinks() -> Outcome {
    let start = aligned_break();
    check_eq!(sys::brk(start + 100 * PAGE), start + 100 * PAGE);
    mem::fill(start, 100, 1)?;
    check!(mem::holds(start, 0, 100, 1)?);
    check_eq!(sys::brk(start + 10 * PAGE), start + 10 * PAGE);
    check!(mem::holds(start, 0, 10, 1)?);
    let beyond = start + 10 * PAGE;
    check_eq!(mem::read(beyond), Err(Fault::unmapped(beyond)));
    check_eq!(sys::brk(start), start);
    Ok(())
}

fn comes_back_zero() -> Outcome {
    let start = aligned_break();
    for round in 0..5 {
        check_eq!(sys::brk(start + 20 * PAGE), start + 20 * PAGE);
        check!(mem::is_zero(start, 20)?);
        mem::fill(start, 20, round)?;
        check_eq!(sys::brk(start), start);
    }
    Ok(())
}

fn not_page_aligned() -> Outcome {
    let start = aligned_break();
    check_eq!(sys::brk(start + 5), start + 5);
    mem::write(start + PAGE - 1, 9)?;
    check_eq!(mem::read(start + PAGE), Err(Fault::unmapped(start + PAGE)));
    // Within the same page nothing is mapped or unmapped.
    check_eq!(sys::brk(start + 1), start + 1);
    check_eq!(mem::read(start + PAGE - 1)?, 9);
    Ok(())
}

fn below_start() -> Outcome {
    let now = sys::brk(0);
    check_eq!(sys::brk(PAGE), now);
    Ok(())
}

fn blocked() -> Outcome {
    let start = aligned_break();
    sys::mmap(start + 8 * PAGE, PAGE, RW, ANON | FIXED)?;
    check_eq!(sys::brk(start + 9 * PAGE), start);
    // A page is kept free between the heap and what follows.
    check_eq!(sys::brk(start + 8 * PAGE), start);
    check_eq!(sys::brk(start + 7 * PAGE), start + 7 * PAGE);
    Ok(())
}

fn far_too_much() -> Outcome {
    let now = sys::brk(0);
    for address in [TASK_SIZE, TASK_SIZE - PAGE, 1 << 63, usize::MAX, usize::MAX - PAGE] {
        check_eq!(sys::brk(address), now);
    }
    Ok(())
}

fn heap_in_maps() -> Outcome {
    let start = aligned_break();
    sys::brk(start + 4 * PAGE);
    mem::write(start, 1)?;
    let heap = maps::within(start, start + 4 * PAGE);
    check_eq!(heap.len(), 1);
    check_eq!(heap[0].name, "[heap]");
    check_eq!(heap[0].access, "rw-p");
    check_eq!(heap[0].end, start + 4 * PAGE);
    Ok(())
}

fn data_limit() -> Outcome {
    let start = aligned_break();
    sys::set_limit(libc::RLIMIT_DATA, 1 << 16)?;
    check_eq!(sys::brk(start + (1 << 20)), start);
    check_eq!(sys::mmap(0, 1 << 20, RW, ANON), Err(Errno(libc::ENOMEM)));
    // Only private writable memory is data.
    sys::mmap(0, 1 << 20, R, ANON)?;
    Ok(())
}
