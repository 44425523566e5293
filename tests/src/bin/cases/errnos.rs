//! Error numbers: every memory call with arguments that make no sense.
//!
//! These cases print what came back, one line for each combination whose result
//! is not an address; nothing is expected beyond what Linux says on its turn.

use tests::arena::Arena;
use tests::case::Outcome;
use tests::cases;
use tests::sys::{self, *};

cases!["errnos":
    mmap_addresses, mmap_flags, mmap_offsets, munmap_ranges, mprotect_ranges, mprotect_protections,
    mremap_lengths, mremap_addresses, mremap_flags, madvise_ranges, madvise_advice, mincore_ranges,
    descriptors,
];

/// Pages of the arena that these cases map: 4..8 and 10..12.
fn prepare() -> sys::Result<Arena> {
    let arena = Arena::new(64)?;
    arena.map(4, 8, RW)?;
    arena.map(10, 12, R)?;
    Ok(arena)
}

/// Lengths of every odd kind.
const LENGTHS: &[usize] = &[
    0,
    1,
    PAGE - 1,
    PAGE,
    PAGE + 1,
    2 * PAGE,
    1 << 46,
    TASK_SIZE - PAGE,
    TASK_SIZE,
    TASK_SIZE + 1,
    TASK_SIZE + PAGE,
    1 << 47,
    1 << 62,
    1 << 63,
    usize::MAX - 2 * PAGE,
    usize::MAX - PAGE + 1,
    usize::MAX - PAGE + 2,
    usize::MAX,
];

/// Addresses of every odd kind, with a name for each that does not depend on the arena's place.
fn addresses(arena: &Arena) -> Vec<(String, usize)> {
    let mut all: Vec<(String, usize)> = [
        0,
        1,
        PAGE - 1,
        TASK_SIZE - PAGE,
        TASK_SIZE - 1,
        TASK_SIZE,
        TASK_SIZE + 1,
        1 << 47,
        1 << 62,
        0xffff_8000_0000_0000,
        0xffff_ffff_8000_0000,
        usize::MAX - PAGE + 1,
        usize::MAX,
    ]
    .iter()
    .map(|&addr| (format!("{addr:#x}"), addr))
    .collect();
    for (page, offset) in [(0, 0), (4, 0), (4, 1), (5, 0), (7, 4095), (8, 0), (9, 0), (10, 0), (11, 8)] {
        all.push((format!("page {page} + {offset}"), arena.at(page) + offset));
    }
    all
}

/// Shows a result; of an address that it is one, and its place in the arena if it is one
/// of `asked`. Any other place is the kernel's choice, and even if that was inside the
/// arena what is mapped there goes again.
fn show(what: &str, arena: &Arena, asked: &[usize], result: sys::Result, mapped: usize) {
    match result {
        Ok(addr) if mapped > 0 => {
            let place = if asked.contains(&addr) { arena.place(addr) } else { "elsewhere".to_owned() };
            println!("{what}: ok {place}");
            if place == "elsewhere" {
                let _ = sys::munmap(addr, mapped);
            }
        }
        Ok(value) => println!("{what}: {value}"),
        Err(error) => println!("{what}: {error}"),
    }
}

fn mmap_addresses() -> Outcome {
    let fixed =
        [("", ANON | NORESERVE), (" fixed", ANON | FIXED | NORESERVE), (" noreplace", ANON | NOREPLACE | NORESERVE)];
    for (kind, flags) in fixed {
        for &len in LENGTHS {
            let arena = prepare()?;
            for (name, addr) in addresses(&arena) {
                // A mapping this large would replace the program or take all of its space.
                if len == 1 << 46 || flags & FIXED != 0 && len > 4 * PAGE && len < 1 << 47 {
                    continue;
                }
                // At 0 who has the privilege may map; and the last bytes Linux takes for an
                // error number, and returns it.
                let fixed = flags & (FIXED | NOREPLACE) != 0;
                if fixed && !(1 << 16..=usize::MAX - PAGE).contains(&addr) {
                    continue;
                }
                let result = sys::mmap(addr, len, R, flags);
                show(&format!("mmap{kind} {name} {len:#x}"), &arena, &[addr - addr % PAGE], result, len);
            }
        }
    }
    Ok(())
}

fn mmap_flags() -> Outcome {
    let arena = prepare()?;
    for bit in 0..32 {
        let flag = 1usize << bit;
        // Huge pages depend on the machine's configuration, MAP_LOCKED on a limit.
        if [0x2000, 0x4_0000].contains(&flag) || bit >= 26 {
            continue;
        }
        let addr = arena.at(20);
        let result = sys::mmap(addr, PAGE, RW, ANON | flag);
        show(&format!("mmap private flag {flag:#x}"), &arena, &[addr], result, PAGE);
        sys::munmap(addr, PAGE)?;
    }
    for kind in [0, 4, 8, 12] {
        let result = sys::mmap(0, PAGE, RW, kind | libc::MAP_ANONYMOUS as usize);
        show(&format!("mmap type {kind}"), &arena, &[], result, PAGE);
    }
    for prot in [8, 16, 0x100, 0x0100_0000, 0x8000_0000, 0xffff_ff00] {
        let result = sys::mmap(0, PAGE, prot, ANON);
        show(&format!("mmap prot {prot:#x}"), &arena, &[], result, PAGE);
    }
    Ok(())
}

fn mmap_offsets() -> Outcome {
    let arena = prepare()?;
    for offset in [0, 1, PAGE - 1, PAGE, 1 << 40, 1 << 63, usize::MAX - PAGE + 1, usize::MAX] {
        let arguments = [0, PAGE, R, ANON, usize::MAX, offset];
        let result = sys::call(libc::SYS_mmap, &arguments);
        show(&format!("mmap offset {offset:#x}"), &arena, &[], result, PAGE);
    }
    Ok(())
}

fn munmap_ranges() -> Outcome {
    let arena = prepare()?;
    for (name, addr) in addresses(&arena) {
        for &len in LENGTHS {
            // What would unmap the program itself.
            let end = addr.wrapping_add(len);
            let inside = len <= 2 * PAGE && addr >= PAGE;
            if !inside && addr.is_multiple_of(PAGE) && end <= TASK_SIZE && end > addr {
                continue;
            }
            let result = sys::munmap(addr, len);
            println!("munmap {name} {len:#x}: {}", word(result));
            arena.map(4, 8, RW)?;
            arena.map(10, 12, R)?;
        }
    }
    Ok(())
}

/// `ok`, or the error.
fn word(result: sys::Result) -> String {
    match result {
        Ok(0) => "ok".to_owned(),
        Ok(value) => format!("ok {value}"),
        Err(error) => error.to_string(),
    }
}

fn mprotect_ranges() -> Outcome {
    let arena = prepare()?;
    for (name, addr) in addresses(&arena) {
        for &len in LENGTHS {
            let end = addr.wrapping_add(len);
            if len > 2 * PAGE && addr.is_multiple_of(PAGE) && end <= TASK_SIZE && end > addr {
                continue;
            }
            let result = sys::mprotect(addr, len, R);
            println!("mprotect {name} {len:#x}: {} {}", word(result), arena.layout());
            arena.map(4, 8, RW)?;
            arena.map(10, 12, R)?;
        }
    }
    Ok(())
}

fn mprotect_protections() -> Outcome {
    let arena = prepare()?;
    for bit in 0..32 {
        // Where a machine has protection keys or shadow stacks nothing differs here.
        let prot = 1usize << bit;
        let result = arena.protect(4, 6, prot);
        println!("mprotect prot {prot:#x}: {} {}", word(result), arena.layout());
        arena.map(4, 8, RW)?;
    }
    for prot in [8 | R, 0x0300_0000 | R, usize::MAX, 1 << 40 | R] {
        println!("mprotect prot {prot:#x}: {} {}", word(arena.protect(4, 6, prot)), arena.layout());
    }
    Ok(())
}

fn mremap_lengths() -> Outcome {
    for flags in [0, MAYMOVE, TO, DONTUNMAP, DONTUNMAP | TO] {
        for &old in LENGTHS {
            for &new in LENGTHS {
                // Such a shrink would unmap the program, and one this large takes all memory.
                if (old > 2 * PAGE && old < 1 << 62 || new > 2 * PAGE && new < TASK_SIZE) && flags & 6 == 0 {
                    continue;
                }
                if old.wrapping_add(PAGE) > TASK_SIZE && flags & 6 == 0 && new < TASK_SIZE {
                    continue;
                }
                let arena = prepare()?;
                let result = sys::mremap(arena.at(4), old, new, flags, arena.at(30));
                show(&format!("mremap {flags} {old:#x} {new:#x}"), &arena, &[arena.at(4), arena.at(30)], result, new);
            }
        }
    }
    Ok(())
}

fn mremap_addresses() -> Outcome {
    for flags in [0, MAYMOVE, TO, DONTUNMAP, DONTUNMAP | TO] {
        let sample = prepare()?;
        for i in 0..addresses(&sample).len() {
            for (old, new) in [(PAGE, PAGE), (PAGE, 2 * PAGE), (2 * PAGE, PAGE)] {
                // As the source, then as the destination.
                let arena = prepare()?;
                let (name, addr) = addresses(&arena).swap_remove(i);
                let result = sys::mremap(addr, old, new, flags, arena.at(30));
                show(
                    &format!("mremap {flags} from {name} {old:#x} {new:#x}"),
                    &arena,
                    &[addr, arena.at(30)],
                    result,
                    new,
                );
                let arena = prepare()?;
                // Linux before 7.3 lets what is untouched merge with what it leaves behind.
                arena.fill(4, 8, 1)?;
                let (name, addr) = addresses(&arena).swap_remove(i);
                if addr < 1 << 16 && flags & 2 != 0 {
                    continue;
                }
                let result = sys::mremap(arena.at(4), old, new, flags, addr);
                show(&format!("mremap {flags} to {name} {old:#x} {new:#x}"), &arena, &[arena.at(4), addr], result, new);
                println!("  {}", arena.layout());
            }
        }
    }
    Ok(())
}

fn mremap_flags() -> Outcome {
    for flags in (0..64).chain((6..64).map(|bit| 1 << bit)) {
        // 8 and 16 are this project's, for relocation.
        if flags & 24 != 0 {
            continue;
        }
        let arena = prepare()?;
        let result = sys::mremap(arena.at(4), PAGE, PAGE, flags, arena.at(30));
        show(&format!("mremap flags {flags:#x}"), &arena, &[arena.at(4), arena.at(30)], result, PAGE);
    }
    Ok(())
}

fn madvise_ranges() -> Outcome {
    let arena = prepare()?;
    for (name, addr) in addresses(&arena) {
        for &len in LENGTHS {
            let end = addr.wrapping_add(len);
            if len > 2 * PAGE && addr.is_multiple_of(PAGE) && end > addr {
                continue;
            }
            let result = sys::madvise(addr, len, libc::MADV_DONTNEED);
            println!("madvise {name} {len:#x}: {}", word(result));
        }
    }
    Ok(())
}

fn madvise_advice() -> Outcome {
    let arena = prepare()?;
    for advice in [5, 6, 7, 26, 50, 99, 104, 1000, -1] {
        println!("madvise advice {advice}: {}", word(sys::madvise(arena.at(4), PAGE, advice)));
    }
    Ok(())
}

fn mincore_ranges() -> Outcome {
    let arena = prepare()?;
    let mut bytes = [0u8; 4];
    for (name, addr) in addresses(&arena) {
        for len in [0, 1, PAGE, 2 * PAGE, 1 << 62, usize::MAX] {
            let result = sys::call(libc::SYS_mincore, &[addr, len, bytes.as_mut_ptr() as usize]);
            println!("mincore {name} {len:#x}: {}", word(result));
        }
    }
    println!("mincore to nowhere: {}", word(sys::call(libc::SYS_mincore, &[arena.at(4), PAGE, 8])));
    Ok(())
}

fn descriptors() -> Outcome {
    let arena = prepare()?;
    let private = libc::MAP_PRIVATE as usize;
    for descriptor in [usize::MAX, 500, 1 << 40] {
        let result = sys::call(libc::SYS_mmap, &[0, PAGE, R, private, descriptor, 0]);
        show(&format!("mmap descriptor {descriptor:#x}"), &arena, &[], result, PAGE);
    }
    let mut ends = [0i32; 2];
    sys::call(libc::SYS_pipe2, &[ends.as_mut_ptr() as usize, 0])?;
    let result = sys::call(libc::SYS_mmap, &[0, PAGE, R, private, ends[0] as usize, 0]);
    show("mmap pipe", &arena, &[], result, PAGE);
    let file = sys::call(libc::SYS_memfd_create, &[c"file".as_ptr() as usize, 0])?;
    for offset in [0, 1, PAGE, 1 << 40, (1 << 63) - 2 * PAGE, (1 << 63) - PAGE, 1 << 63, usize::MAX - PAGE + 1] {
        for len in [PAGE, 2 * PAGE] {
            let result = sys::call(libc::SYS_mmap, &[0, len, R, private, file, offset]);
            show(&format!("mmap file from {offset:#x} {len:#x}"), &arena, &[], result, len);
        }
    }
    Ok(())
}
