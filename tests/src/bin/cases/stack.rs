//! The main thread's stack: it grows, down to its limit.

use std::hint::black_box;

use tests::case::Outcome;
use tests::mem::{self, Fault};
use tests::sys::{self, *};
use tests::{cases, check, check_eq, maps};

cases!["stack":
    in_maps, grows_with_recursion, grows_far_at_once, stops_at_limit, limit_can_be_raised, overflow_kills,
    guard_gap_below, not_executable,
];

/// The stack as `/proc/self/maps` has it.
fn stack() -> maps::Mapping {
    maps::all().into_iter().find(|mapping| mapping.name == "[stack]").expect("there is a stack")
}

fn set_limit(bytes: u64) {
    sys::set_limit(libc::RLIMIT_STACK, bytes).expect("below the hard limit");
}

fn in_maps() -> Outcome {
    let local = 0u8;
    let here = &raw const local as usize;
    let stack = stack();
    check!((stack.start..stack.end).contains(&here));
    check_eq!(stack.access, "rw-p");
    Ok(())
}

/// Uses about a page of stack for each level.
#[inline(never)]
fn recurse(levels: usize) -> usize {
    let mut page = [0u8; PAGE];
    black_box(&mut page)[levels % PAGE] = 1;
    let below = if levels == 0 { 0 } else { recurse(levels - 1) };
    below + usize::from(black_box(&page)[levels % PAGE])
}

fn grows_with_recursion() -> Outcome {
    let before = stack();
    check_eq!(recurse(1500), 1501);
    let after = stack();
    check_eq!(after.end, before.end);
    check!(after.end - after.start > 1500 * PAGE);
    Ok(())
}

fn grows_far_at_once() -> Outcome {
    let before = stack();
    let addr = before.end - (6 << 20);
    check!(addr < before.start);
    check_eq!(mem::read(addr)?, 0);
    mem::write(addr + 1, 9)?;
    check_eq!(stack().start, addr & !(PAGE - 1));
    Ok(())
}

fn stops_at_limit() -> Outcome {
    let before = stack();
    let size = 3 << 20;
    set_limit(size as u64);
    let lowest = before.end - size;
    mem::write(lowest, 1)?;
    check_eq!(mem::write(lowest - 1, 1), Err(Fault::unmapped(lowest - 1)));
    check_eq!(stack().start, lowest);
    Ok(())
}

fn limit_can_be_raised() -> Outcome {
    let before = stack();
    set_limit(1 << 20);
    let far = before.end - (4 << 20);
    check_eq!(mem::write(far, 1), Err(Fault::unmapped(far)));
    set_limit(8 << 20);
    mem::write(far, 1)?;
    Ok(())
}

fn overflow_kills() -> Outcome {
    let status = sys::in_child(|| {
        // SAFETY: restores a default action.
        unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
        set_limit(1 << 20);
        recurse(1000) as i32
    })?;
    check_eq!(status, Status::Killed(libc::SIGSEGV));
    Ok(())
}

fn guard_gap_below() -> Outcome {
    // A mapping 300 pages below the stack stops it 256 pages above.
    let before = stack();
    let obstacle = before.start - 300 * PAGE;
    sys::mmap(obstacle, PAGE, R, ANON | FIXED)?;
    let lowest = obstacle + 257 * PAGE;
    mem::write(lowest, 1)?;
    check_eq!(mem::write(lowest - 1, 1), Err(Fault::unmapped(lowest - 1)));
    Ok(())
}

fn not_executable() -> Outcome {
    let ret = [0xc3u8; 16];
    let addr = black_box(&ret).as_ptr() as usize;
    check_eq!(mem::execute(addr), Err(Fault::denied(addr)));
    Ok(())
}
