//! `mmap`: placement, flags, and what the new pages hold.

use tests::arena::Arena;
use tests::case::Outcome;
use tests::mem::{self, Fault};
use tests::sys::{self, *};
use tests::{cases, check, check_eq};

cases!["mmap":
    reads_zero, keeps_what_is_written, length_rounds_up, hint_free, hint_rounds_down, hint_busy,
    hint_partly_busy, hint_below_minimum, hint_above_user_space, top_down, fixed_replaces,
    fixed_replaces_across, noreplace_free, noreplace_busy, noreplace_overlap, populate, populate_read_only,
    growsdown_grows, growsdown_repels_hints, growsdown_allows_fixed, growsdown_blocked, growsdown_past_none,
    growsdown_in_steps, noreserve_huge, stack_flag, in_32_bits, without_access, read_only, write_only_reads,
    not_executable, executable, thp_sized_is_aligned, many_mappings, map_count_limit, address_space_limit,
    low_addresses, reuses_freed_room,
];

fn reads_zero() -> Outcome {
    let addr = sys::mmap(0, 8 * PAGE, RW, ANON)?;
    check!(mem::is_zero(addr, 8)?);
    Ok(())
}

fn keeps_what_is_written() -> Outcome {
    let addr = sys::mmap(0, 300 * PAGE, RW, ANON)?;
    mem::fill(addr, 300, 1)?;
    check!(mem::holds(addr, 0, 300, 1)?);
    Ok(())
}

fn length_rounds_up() -> Outcome {
    let arena = Arena::new(8)?;
    sys::mmap(arena.at(0), 2 * PAGE + 1, RW, ANON | FIXED)?;
    check_eq!(arena.layout(), "[0-3 rw-]");
    Ok(())
}

fn hint_free() -> Outcome {
    let arena = Arena::new(16)?;
    check_eq!(sys::mmap(arena.at(8), 2 * PAGE, RW, ANON)?, arena.at(8));
    Ok(())
}

fn hint_rounds_down() -> Outcome {
    let arena = Arena::new(16)?;
    check_eq!(sys::mmap(arena.at(8) + 123, 2 * PAGE, RW, ANON)?, arena.at(8));
    check_eq!(sys::mmap(arena.at(4) + PAGE - 1, PAGE, RW, ANON)?, arena.at(4));
    Ok(())
}

fn hint_busy() -> Outcome {
    let arena = Arena::new(16)?;
    arena.map(8, 10, R)?;
    // Not next to the hint: anywhere, top-down, and this arena is one of the places.
    let addr = sys::mmap(arena.at(8), 2 * PAGE, RW, ANON)?;
    check!(addr != arena.at(8) && addr != arena.at(9));
    check!(arena.layout().contains("[8-10 r--]"));
    Ok(())
}

fn hint_partly_busy() -> Outcome {
    let arena = Arena::new(16)?;
    arena.map(8, 10, R)?;
    let addr = sys::mmap(arena.at(7), 2 * PAGE, RW, ANON)?;
    check!(addr != arena.at(7));
    check!(arena.layout().contains("[8-10 r--]"));
    Ok(())
}

fn hint_below_minimum() -> Outcome {
    // Raised to the lowest address allowed.
    check_eq!(sys::mmap(0x1000, PAGE, RW, ANON)?, 0x10000);
    // Rounds down to no hint at all.
    check!(sys::mmap(1, PAGE, RW, ANON)? > 1 << 32);
    Ok(())
}

fn hint_above_user_space() -> Outcome {
    for hint in [TASK_SIZE, TASK_SIZE - PAGE + 1, 1 << 63, 0xffff_8000_0000_0000, 0usize.wrapping_sub(PAGE)] {
        let addr = sys::mmap(hint, 2 * PAGE, RW, ANON)?;
        check!(addr < TASK_SIZE && addr != hint);
        sys::munmap(addr, 2 * PAGE)?;
    }
    Ok(())
}

fn top_down() -> Outcome {
    // Larger than any hole above, and not of a size that is aligned to huge pages.
    let len = (1 << 33) + PAGE;
    let first = sys::mmap(0, len, NONE, ANON | NORESERVE)?;
    let second = sys::mmap(0, len, NONE, ANON | NORESERVE)?;
    check_eq!(second + len, first);
    Ok(())
}

fn fixed_replaces() -> Outcome {
    let arena = Arena::new(8)?;
    arena.map(0, 8, RW)?;
    arena.fill(0, 8, 1)?;
    check_eq!(arena.map(2, 5, R)?, arena.at(2));
    check_eq!(arena.layout(), "[0-2 rw-][2-5 r--][5-8 rw-]");
    check!(mem::is_zero(arena.at(2), 3)?);
    check!(mem::holds(arena.at(0), 0, 2, 1)? && mem::holds(arena.at(5), 5, 3, 1)?);
    Ok(())
}

fn fixed_replaces_across() -> Outcome {
    let arena = Arena::new(12)?;
    arena.map(0, 3, RW)?;
    arena.map(4, 6, R)?;
    arena.map(7, 12, NONE)?;
    arena.map(1, 9, R | X)?;
    check_eq!(arena.layout(), "[0-1 rw-][1-9 r-x][9-12 ---]");
    Ok(())
}

fn noreplace_free() -> Outcome {
    let arena = Arena::new(4)?;
    check_eq!(sys::mmap(arena.at(1), 2 * PAGE, RW, ANON | NOREPLACE)?, arena.at(1));
    check_eq!(arena.layout(), "[1-3 rw-]");
    Ok(())
}

fn noreplace_busy() -> Outcome {
    let arena = Arena::new(4)?;
    arena.map(1, 3, RW)?;
    arena.fill(1, 3, 4)?;
    check_eq!(sys::mmap(arena.at(1), 2 * PAGE, R, ANON | NOREPLACE), Err(Errno(libc::EEXIST)));
    check_eq!(arena.layout(), "[1-3 rw-]");
    check!(arena.holds(1, 3, 4)?);
    Ok(())
}

fn noreplace_overlap() -> Outcome {
    let arena = Arena::new(6)?;
    arena.map(2, 4, RW)?;
    for (first, pages) in [(0, 3), (3, 3), (0, 6), (2, 1)] {
        let result = sys::mmap(arena.at(first), pages * PAGE, R, ANON | NOREPLACE | FIXED);
        check_eq!(result, Err(Errno(libc::EEXIST)));
    }
    check_eq!(arena.layout(), "[2-4 rw-]");
    Ok(())
}

fn populate() -> Outcome {
    let addr = sys::mmap(0, 64 * PAGE, RW, ANON | POPULATE)?;
    check!(sys::mincore(addr, 64)?.iter().all(|&resident| resident));
    check!(mem::is_zero(addr, 64)?);
    mem::fill(addr, 64, 3)?;
    check!(mem::holds(addr, 0, 64, 3)?);
    Ok(())
}

fn populate_read_only() -> Outcome {
    let addr = sys::mmap(0, 16 * PAGE, R, ANON | POPULATE)?;
    check!(mem::is_zero(addr, 16)?);
    check_eq!(mem::write(addr, 1), Err(Fault::denied(addr)));
    Ok(())
}

fn growsdown_grows() -> Outcome {
    let arena = Arena::new(1024)?;
    arena.map_with(1000, 1002, RW, GROWSDOWN)?;
    mem::write(arena.at(800), 1)?;
    check_eq!(arena.layout(), "[800-1002 rw-]");
    check!(mem::is_zero(arena.at(801), 199)?);
    Ok(())
}

fn growsdown_repels_hints() -> Outcome {
    let arena = Arena::new(1024)?;
    arena.map_with(1000, 1002, RW, GROWSDOWN)?;
    // Within the guard gap of 256 pages, and beyond it.
    check!(sys::mmap(arena.at(998), 2 * PAGE, R, ANON)? != arena.at(998));
    check_eq!(sys::mmap(arena.at(730), 2 * PAGE, R, ANON)?, arena.at(730));
    Ok(())
}

fn growsdown_allows_fixed() -> Outcome {
    let arena = Arena::new(1024)?;
    arena.map_with(1000, 1002, RW, GROWSDOWN)?;
    check_eq!(arena.map(999, 1000, R)?, arena.at(999));
    check_eq!(arena.layout(), "[999-1000 r--][1000-1002 rw-]");
    Ok(())
}

fn growsdown_blocked() -> Outcome {
    let arena = Arena::new(1024)?;
    arena.map_with(1000, 1002, RW, GROWSDOWN)?;
    arena.map(700, 701, R)?;
    // Down to the guard gap above the mapping, and not a page further.
    mem::write(arena.at(957), 1)?;
    let fault = mem::write(arena.at(956), 1);
    check_eq!(fault, Err(Fault::unmapped(arena.at(956))));
    check_eq!(arena.layout(), "[700-701 r--][957-1002 rw-]");
    Ok(())
}

fn growsdown_past_none() -> Outcome {
    let arena = Arena::new(1024)?;
    arena.map_with(1000, 1002, RW, GROWSDOWN)?;
    arena.map(900, 901, NONE)?;
    // An inaccessible mapping needs no gap.
    mem::write(arena.at(901), 1)?;
    check_eq!(arena.layout(), "[900-901 ---][901-1002 rw-]");
    Ok(())
}

fn growsdown_in_steps() -> Outcome {
    let arena = Arena::new(1024)?;
    arena.map_with(1000, 1001, RW, GROWSDOWN)?;
    for page in (600..1000).rev() {
        mem::write(arena.at(page), 5)?;
    }
    check_eq!(arena.layout(), "[600-1001 rw-]");
    check_eq!(mem::read(arena.at(600))?, 5);
    Ok(())
}

fn noreserve_huge() -> Outcome {
    let len = 1 << 40;
    let addr = sys::mmap(0, len, RW, ANON | NORESERVE)?;
    for offset in [0, 1 << 30, 1 << 39, len - PAGE] {
        check_eq!(mem::read(addr + offset)?, 0);
        mem::write(addr + offset, 7)?;
    }
    check_eq!(mem::read(addr + (1 << 39))?, 7);
    sys::munmap(addr, len)?;
    check_eq!(mem::read(addr), Err(Fault::unmapped(addr)));
    Ok(())
}

fn stack_flag() -> Outcome {
    let arena = Arena::new(4)?;
    arena.map_with(0, 2, RW, STACK)?;
    arena.fill(0, 2, 2)?;
    check!(arena.holds(0, 2, 2)?);
    // It asks for no huge pages, so it is not the same as plain memory.
    arena.map(2, 4, RW)?;
    check_eq!(arena.layout(), "[0-2 rw-][2-4 rw-]");
    Ok(())
}

fn in_32_bits() -> Outcome {
    let addr = sys::mmap(0, 4 * PAGE, RW, ANON | LOW)?;
    check!((1 << 30..1 << 31).contains(&addr));
    mem::fill(addr, 4, 9)?;
    check!(mem::holds(addr, 0, 4, 9)?);
    let more = sys::mmap(0, 1 << 20, RW, ANON | LOW)?;
    check!(more >= 1 << 30 && more + (1 << 20) <= 1 << 31);
    check_eq!(sys::mmap(0, 1 << 31, RW, ANON | LOW | NORESERVE), Err(Errno(libc::ENOMEM)));
    Ok(())
}

fn without_access() -> Outcome {
    let addr = sys::mmap(0, 2 * PAGE, NONE, ANON)?;
    check_eq!(mem::read(addr + 5), Err(Fault::denied(addr + 5)));
    check_eq!(mem::write(addr + PAGE, 1), Err(Fault::denied(addr + PAGE)));
    Ok(())
}

fn read_only() -> Outcome {
    let addr = sys::mmap(0, PAGE, R, ANON)?;
    check_eq!(mem::write(addr + 77, 1), Err(Fault::denied(addr + 77)));
    check_eq!(mem::read(addr + 77)?, 0);
    check_eq!(mem::write(addr + 77, 1), Err(Fault::denied(addr + 77)));
    Ok(())
}

fn write_only_reads() -> Outcome {
    let addr = sys::mmap(0, PAGE, W, ANON)?;
    mem::write(addr, 3)?;
    check_eq!(mem::read(addr)?, 3);
    Ok(())
}

/// The machine code of a `ret`.
const RET: u8 = 0xc3;

fn not_executable() -> Outcome {
    let addr = sys::mmap(0, PAGE, RW, ANON)?;
    mem::write(addr + 16, RET)?;
    check_eq!(mem::execute(addr + 16), Err(Fault::denied(addr + 16)));
    Ok(())
}

fn executable() -> Outcome {
    let addr = sys::mmap(0, PAGE, RW | X, ANON)?;
    mem::write(addr + 16, RET)?;
    mem::execute(addr + 16)?;
    sys::mprotect(addr, PAGE, R | X)?;
    mem::execute(addr + 16)?;
    check_eq!(mem::write(addr + 16, 0), Err(Fault::denied(addr + 16)));
    Ok(())
}

fn thp_sized_is_aligned() -> Outcome {
    const HUGE: usize = 2 << 20;
    // Anonymous, no hint, a multiple of 2 MiB; since Linux 6.7.
    for len in [HUGE, 4 * HUGE] {
        let odd = sys::mmap(0, PAGE, RW, ANON)?;
        check_eq!(sys::mmap(0, len, RW, ANON)? % HUGE, 0);
        check!(odd != 0);
    }
    Ok(())
}

fn many_mappings() -> Outcome {
    const COUNT: usize = 2000;
    let arena = Arena::new(2 * COUNT)?;
    for i in 0..COUNT {
        // In an order that is neither rising nor falling.
        let at = i * 7919 % COUNT;
        arena.map(2 * at, 2 * at + 1, RW)?;
        mem::write(arena.at(2 * at), (at % 251) as u8)?;
    }
    for at in 0..COUNT {
        check_eq!(mem::read(arena.at(2 * at))?, (at % 251) as u8);
        check_eq!(mem::read(arena.at(2 * at + 1)), Err(Fault::unmapped(arena.at(2 * at + 1))));
    }
    for i in 0..COUNT / 2 {
        let at = i * 7919 % COUNT;
        arena.unmap(2 * at, 2 * at + 1)?;
    }
    let left = tests::maps::within(arena.at(0), arena.at(2 * COUNT)).len();
    check_eq!(left, COUNT - COUNT / 2);
    Ok(())
}

fn map_count_limit() -> Outcome {
    const LIMIT: usize = 65530;
    let arena = Arena::new(2 * LIMIT)?;
    arena.map_with(0, 2 * LIMIT, NONE, NORESERVE)?;
    let mut split = 0;
    let refused = loop {
        match arena.protect(2 * split, 2 * split + 1, R) {
            Ok(_) => split += 1,
            Err(error) => break error,
        }
    };
    check_eq!(refused, Errno(libc::ENOMEM));
    // Each success made two mappings out of one; some dozens were there before.
    check!((LIMIT - 100..LIMIT).contains(&(2 * split)));
    // No room for more splits (one, where the refused call has left no trace), but plenty
    // for what makes fewer mappings.
    let last = 2 * LIMIT - 2;
    let splits = [last, last - 2, last - 4].map(|page| arena.unmap(page, page + 1));
    check!(splits[1..].iter().all(|split| *split == Err(Errno(libc::ENOMEM))));
    arena.unmap(0, 1)?;
    arena.unmap(0, 2 * LIMIT)?;
    check_eq!(arena.layout(), "");
    Ok(())
}

fn address_space_limit() -> Outcome {
    let addr = sys::mmap(0, PAGE, RW, ANON)?;
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = statm.split(' ').next().unwrap_or("").parse()?;
    sys::set_limit(libc::RLIMIT_AS, pages * PAGE as u64)?;
    check_eq!(sys::mmap(0, PAGE, RW, ANON), Err(Errno(libc::ENOMEM)));
    check_eq!(sys::mremap(addr, PAGE, 2 * PAGE, MAYMOVE, 0), Err(Errno(libc::ENOMEM)));
    // What replaces as much as it maps is not over the limit.
    check_eq!(sys::mmap(addr, PAGE, R, ANON | FIXED)?, addr);
    Ok(())
}

/// Who may use ports may map page 0; a place is never chosen there.
fn low_addresses() -> Outcome {
    const CAP_SYS_RAWIO: u64 = 1 << 17;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap_or("0");
    let privileged = u64::from_str_radix(effective, 16)? & CAP_SYS_RAWIO != 0;
    for addr in [0, PAGE, 15 * PAGE] {
        let expected = if privileged { Ok(addr) } else { Err(Errno(libc::EPERM)) };
        check_eq!(sys::mmap(addr, PAGE, RW, ANON | FIXED), expected);
        if privileged {
            mem::write(addr + 5, 7)?;
            check_eq!(mem::read(addr + 5)?, 7);
            sys::munmap(addr, PAGE)?;
        }
        let from = sys::mmap(0, PAGE, RW, ANON)?;
        check_eq!(sys::mremap(from, PAGE, PAGE, TO, addr), expected);
        check!(sys::mmap(addr.max(1), PAGE, RW, ANON)? >= 1 << 16);
        sys::munmap(addr, PAGE)?;
    }
    Ok(())
}

fn reuses_freed_room() -> Outcome {
    let len = (1 << 33) + PAGE;
    let first = sys::mmap(0, len, NONE, ANON | NORESERVE)?;
    sys::munmap(first, len)?;
    check_eq!(sys::mmap(0, len, NONE, ANON | NORESERVE)?, first);
    Ok(())
}
