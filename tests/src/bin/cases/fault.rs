//! Faults: what the signal says, and that the kernel's own accesses fail softly.

use tests::arena::Arena;
use tests::case::Outcome;
use tests::mem::{self, Fault};
use tests::sys::{self, *};
use tests::{cases, check, check_eq};

cases!["fault":
    null, unmapped, kernel_space, not_canonical, last_page, jump_to_nowhere, jump_to_kernel, undefined_instruction,
    division_by_zero, breakpoint, fatal_without_handler, kernel_copies_in, kernel_copies_out,
    kernel_writes_read_only, kernel_faults_pages_in, copy_stops_at_the_edge, zero_page_is_shared_and_stays_zero,
];

fn null() -> Outcome {
    check_eq!(mem::read(0), Err(Fault::unmapped(0)));
    check_eq!(mem::write(8, 1), Err(Fault::unmapped(8)));
    Ok(())
}

fn unmapped() -> Outcome {
    let arena = Arena::new(4)?;
    check_eq!(mem::read(arena.at(1) + 0x123), Err(Fault::unmapped(arena.at(1) + 0x123)));
    check_eq!(mem::write(arena.at(2) + 0xfff, 1), Err(Fault::unmapped(arena.at(2) + 0xfff)));
    Ok(())
}

fn kernel_space() -> Outcome {
    for addr in [0xffff_8000_0000_0000, 0xffff_ffff_8000_0000, usize::MAX] {
        check_eq!(mem::read(addr), Err(Fault::unmapped(addr)));
        check_eq!(mem::write(addr, 1), Err(Fault::unmapped(addr)));
    }
    Ok(())
}

fn not_canonical() -> Outcome {
    // The processor does not say where; the kernel says that it was itself that sent it.
    const SI_KERNEL: i32 = 0x80;
    let fault = Fault { signal: libc::SIGSEGV, code: SI_KERNEL, addr: 0 };
    check_eq!(mem::read(0x8000_0000_0000), Err(fault));
    check_eq!(mem::read(0x1234_5678_9abc_def0), Err(fault));
    Ok(())
}

fn last_page() -> Outcome {
    check_eq!(mem::read(TASK_SIZE - 1), Err(Fault::unmapped(TASK_SIZE - 1)));
    check_eq!(mem::read(TASK_SIZE), Err(Fault::unmapped(TASK_SIZE)));
    Ok(())
}

fn jump_to_nowhere() -> Outcome {
    let arena = Arena::new(4)?;
    check_eq!(mem::execute(0), Err(Fault::unmapped(0)));
    check_eq!(mem::execute(arena.at(1)), Err(Fault::unmapped(arena.at(1))));
    Ok(())
}

fn jump_to_kernel() -> Outcome {
    let addr = 0xffff_ffff_8000_0000;
    check_eq!(mem::execute(addr), Err(Fault::unmapped(addr)));
    Ok(())
}

/// Maps these instructions and runs them.
fn run_code(code: &[u8]) -> std::result::Result<(), Fault> {
    let addr = sys::mmap(0, PAGE, RW | X, ANON).expect("a page");
    for (i, &byte) in code.iter().enumerate() {
        mem::write(addr + i, byte)?;
    }
    mem::execute(addr)
}

fn undefined_instruction() -> Outcome {
    const ILL_ILLOPN: i32 = 2;
    let fault = run_code(&[0x0f, 0x0b]).err();
    check!(fault.is_some_and(|f| f.signal == libc::SIGILL && f.code == ILL_ILLOPN && f.addr % PAGE == 0));
    Ok(())
}

/// The status of a child that runs these instructions without a handler for what they do.
fn dies_of(code: &[u8]) -> sys::Result<Status> {
    sys::in_child(|| {
        let _ = run_code(code);
        0
    })
}

fn division_by_zero() -> Outcome {
    // xor edx, edx; xor ecx, ecx; div ecx
    check_eq!(dies_of(&[0x31, 0xd2, 0x31, 0xc9, 0xf7, 0xf1, 0xc3])?, Status::Killed(libc::SIGFPE));
    Ok(())
}

fn breakpoint() -> Outcome {
    check_eq!(dies_of(&[0xcc, 0xc3])?, Status::Killed(libc::SIGTRAP));
    Ok(())
}

fn fatal_without_handler() -> Outcome {
    let status = sys::in_child(|| {
        // SAFETY: restores a default action; then dies of it.
        unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
        let _ = mem::read(0);
        0
    })?;
    check_eq!(status, Status::Killed(libc::SIGSEGV));
    Ok(())
}

/// A pipe's two ends: to read from, to write to.
fn pipe() -> sys::Result<(usize, usize)> {
    let mut ends = [0i32; 2];
    sys::call(libc::SYS_pipe2, &[ends.as_mut_ptr() as usize, 0])?;
    Ok((ends[0] as usize, ends[1] as usize))
}

const EFAULT: sys::Result = Err(Errno(libc::EFAULT));

fn kernel_copies_in() -> Outcome {
    let arena = Arena::new(4)?;
    let (_, to) = pipe()?;
    for addr in [0, arena.at(1), TASK_SIZE, 0x8000_0000_0000, 0xffff_8000_0000_0000, usize::MAX] {
        check_eq!(sys::call(libc::SYS_write, &[to, addr, 1]), EFAULT);
    }
    arena.map(2, 3, NONE)?;
    check_eq!(sys::call(libc::SYS_write, &[to, arena.at(2), 8]), EFAULT);
    Ok(())
}

fn kernel_copies_out() -> Outcome {
    let arena = Arena::new(4)?;
    for addr in [0, 1, arena.at(1), TASK_SIZE, 0x8000_0000_0000, 0xffff_8000_0000_0000] {
        check_eq!(sys::call(libc::SYS_getrandom, &[addr, 64, 0]), EFAULT);
        check_eq!(sys::call(libc::SYS_uname, &[addr]), EFAULT);
        check_eq!(sys::call(libc::SYS_pipe2, &[addr, 0]), EFAULT);
        check_eq!(sys::call(libc::SYS_clock_gettime, &[0, addr]), EFAULT);
    }
    Ok(())
}

fn kernel_writes_read_only() -> Outcome {
    let arena = Arena::new(4)?;
    arena.map(0, 1, RW)?;
    arena.fill(0, 1, 1)?;
    arena.protect(0, 1, R)?;
    check_eq!(sys::call(libc::SYS_getrandom, &[arena.at(0), 64, 0]), EFAULT);
    check!(arena.holds(0, 1, 1)?);
    // Nor may it write to the page of zeroes that everybody shares.
    arena.map(1, 2, R)?;
    check_eq!(mem::read(arena.at(1))?, 0);
    check_eq!(sys::call(libc::SYS_getrandom, &[arena.at(1), 64, 0]), EFAULT);
    check!(mem::is_zero(arena.at(1), 1)?);
    Ok(())
}

fn kernel_faults_pages_in() -> Outcome {
    let arena = Arena::new(4)?;
    arena.map(0, 4, RW)?;
    let (from, to) = pipe()?;
    // Both directions touch pages that are not there yet; reading them gives zeroes.
    check_eq!(sys::call(libc::SYS_write, &[to, arena.at(0) + 4000, 200])?, 200);
    mem::write(arena.at(0) + 4000, 7)?;
    check_eq!(sys::call(libc::SYS_write, &[to, arena.at(0) + 4000, 200])?, 200);
    check_eq!(sys::call(libc::SYS_read, &[from, arena.at(2) + 4000, 200])?, 200);
    check_eq!(mem::read(arena.at(2) + 4000)?, 0);
    check_eq!(sys::call(libc::SYS_read, &[from, arena.at(2) + 4000, 200])?, 200);
    check_eq!(mem::read(arena.at(2) + 4000)?, 7);
    check_eq!(mem::read(arena.at(3))?, 0);
    Ok(())
}

fn copy_stops_at_the_edge() -> Outcome {
    let arena = Arena::new(4)?;
    arena.map(0, 1, RW)?;
    arena.fill(0, 1, 1)?;
    let (from, to) = pipe()?;
    // A write of which the first part can be read writes nothing or that part.
    let result = sys::call(libc::SYS_write, &[to, arena.at(0) + 4000, 200]);
    check!(result == EFAULT || result == Ok(96));
    check_eq!(sys::call(libc::SYS_write, &[to, arena.at(0), 64])?, 64);
    let result = sys::call(libc::SYS_read, &[from, arena.at(0) + PAGE - 10, 64]);
    check!(result == EFAULT || result == Ok(10));
    Ok(())
}

fn zero_page_is_shared_and_stays_zero() -> Outcome {
    const PAGES: usize = 4096;
    let arena = Arena::new(PAGES)?;
    arena.map(0, PAGES, RW)?;
    for page in 0..PAGES {
        check_eq!(mem::read(arena.at(page))?, 0);
    }
    for page in (0..PAGES).step_by(64) {
        mem::write(arena.at(page), 0xaa)?;
    }
    for page in 0..PAGES {
        check_eq!(mem::read(arena.at(page))?, if page % 64 == 0 { 0xaa } else { 0 });
    }
    Ok(())
}
