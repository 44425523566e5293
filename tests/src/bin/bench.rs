//! What memory management costs: one figure a row, the same program on Linux and here.
//!
//! usage: `bench [MEGABYTES]` (default 64: the size of the large ranges)
//!
//! Prints `NAME TICKS` lines, ticks of the time-stamp counter per operation, the
//! least of several rounds; and `DONE`. Under `qemu -icount shift=0` a tick is one
//! instruction, and the figures repeat exactly. The rows are those of the table in
//! the project's design, where the targets are.

use std::arch::asm;
use std::hint::black_box;
use std::process::ExitCode;

use tests::sys::{self, *};

const MB: usize = 1 << 20;
const HUGE: usize = 2 * MB;
/// `MADV_COLLAPSE`.
const COLLAPSE: i32 = 25;
/// Rounds of which the fastest counts.
const ROUNDS: usize = 5;
/// Relocation of anonymous memory: this project's flag.
const RELOCATE: usize = 8 | MAYMOVE;

fn ticks() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads the time-stamp counter, after all that comes before.
    unsafe { asm!("lfence", "rdtsc", out("eax") low, out("edx") high, options(nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

/// Ends the program: without a result that means what its name says there is no figure.
fn must<T>(what: &str, result: sys::Result<T>) -> T {
    result.unwrap_or_else(|error| {
        println!("FAIL {what}: {error}");
        sys::exit(1)
    })
}

fn report(name: &str, ticks: u64, operations: usize) {
    let operations = operations as u64;
    println!("{name} {}.{:02}", ticks / operations, ticks * 100 / operations % 100);
    sys::flush();
}

/// The least time that `body` takes, of several rounds; `setup` comes before each and
/// `teardown` after it, not measured.
fn measure<T>(mut setup: impl FnMut() -> T, mut body: impl FnMut(&T), mut teardown: impl FnMut(T)) -> u64 {
    let mut best = u64::MAX;
    for _ in 0..ROUNDS {
        let state = setup();
        let start = ticks();
        body(&state);
        best = best.min(ticks() - start);
        teardown(state);
    }
    best
}

/// A row whose rounds need no preparation.
fn row(name: &str, operations: usize, mut body: impl FnMut()) {
    report(name, measure(|| (), |()| body(), drop), operations);
}

/// Memory that begins and ends with a huge page, advised so.
fn map_aligned(len: usize, advice: i32) -> usize {
    let room = must("mmap", sys::mmap(0, len + HUGE, RW, ANON));
    let addr = room.next_multiple_of(HUGE);
    unmap(room, addr - room + 1);
    must("mmap", sys::mmap(addr, len, RW, ANON | FIXED));
    unmap(addr + len, room + HUGE - addr);
    must("madvise", sys::madvise(addr, len, advice));
    addr
}

fn map(len: usize) -> usize {
    let addr = must("mmap", sys::mmap(0, len, RW, ANON));
    // Linux would use huge pages if it had them; without them there is nothing to refuse.
    let _ = sys::madvise(addr, len, libc::MADV_NOHUGEPAGE);
    addr
}

fn unmap(addr: usize, len: usize) {
    must("munmap", sys::munmap(addr, len));
}

/// Writes to each page.
fn touch(addr: usize, len: usize) {
    for page in (addr..addr + len).step_by(PAGE) {
        // SAFETY: the callers hand in memory that they have just mapped to be written.
        unsafe { (page as *mut u8).write_volatile(1) };
    }
}

/// Reads from each page.
fn look(addr: usize, len: usize) {
    for page in (addr..addr + len).step_by(PAGE) {
        // SAFETY: as for `touch`.
        black_box(unsafe { (page as *const u8).read_volatile() });
    }
}

fn mapped_and_touched(len: usize) -> usize {
    let addr = map(len);
    touch(addr, len);
    addr
}

fn main() -> ExitCode {
    let megabytes = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(64);
    let big = megabytes * MB;
    calls_and_faults(big);
    protections();
    moves(big);
    remaps_in_place();
    many_mappings();
    forks();
    huge_pages(big);
    folios(big);
    println!("DONE");
    ExitCode::SUCCESS
}

fn calls_and_faults(big: usize) {
    row("syscall_null", 1000, || {
        for _ in 0..1000 {
            // SAFETY: the call has no arguments and no effect.
            black_box(unsafe { libc::syscall(libc::SYS_getppid) });
        }
    });
    row("mmap_munmap_4k", 500, || {
        for _ in 0..500 {
            let addr = must("mmap", sys::mmap(0, PAGE, RW, ANON));
            unmap(addr, PAGE);
        }
    });
    row("mmap_touch_munmap_4k", 500, || {
        for _ in 0..500 {
            let addr = must("mmap", sys::mmap(0, PAGE, RW, ANON));
            touch(addr, PAGE);
            unmap(addr, PAGE);
        }
    });
    let pages = big / PAGE;
    let release = |addr: usize| unmap(addr, big);
    report("fault_anon_write", measure(|| map(big), |&addr| touch(addr, big), release), pages);
    report("fault_anon_read", measure(|| map(big), |&addr| look(addr, big), release), pages);
    report("munmap_populated_page", measure(|| mapped_and_touched(big), |&addr| unmap(addr, big), drop), pages);
    let mut best = u64::MAX;
    for _ in 0..ROUNDS {
        let start = ticks();
        let addr = must("mmap", sys::mmap(0, big, RW, ANON | POPULATE));
        best = best.min(ticks() - start);
        unmap(addr, big);
    }
    report("mmap_populate_page", best, pages);
}

fn protections() {
    let page = mapped_and_touched(PAGE);
    row("mprotect_4k_toggle", 200, || {
        for _ in 0..100 {
            must("mprotect", sys::mprotect(page, PAGE, R));
            must("mprotect", sys::mprotect(page, PAGE, RW));
        }
    });
    unmap(page, PAGE);

    let len = 16 * MB;
    let addr = mapped_and_touched(len);
    row("mprotect_split_merge", 200, || {
        for _ in 0..100 {
            must("mprotect", sys::mprotect(addr + 8 * MB, PAGE, R));
            must("mprotect", sys::mprotect(addr + 8 * MB, PAGE, RW));
        }
    });
    row("mprotect_16m_per_page", 2 * len / PAGE, || {
        must("mprotect", sys::mprotect(addr, len, R));
        must("mprotect", sys::mprotect(addr, len, RW));
    });
    let dontneed = measure(
        || touch(addr, len),
        |()| {
            must("madvise", sys::madvise(addr, len, libc::MADV_DONTNEED));
        },
        drop,
    );
    report("madvise_dontneed_per_page", dontneed, len / PAGE);
    unmap(addr, len);
}

/// Free address space for `len` bytes at a multiple of `align`; nothing is mapped there.
fn free_range(len: usize, align: usize) -> usize {
    let addr = must("mmap", sys::mmap(0, len + 2 * align, NONE, ANON | NORESERVE));
    unmap(addr, len + 2 * align);
    addr.next_multiple_of(align)
}

/// Moves `len` written bytes to and fro between places that are multiples of `align`,
/// one of them `skew` bytes off.
fn moving(name: &str, len: usize, align: usize, skew: usize, flags: usize) {
    let first = free_range(len + align, align);
    must("mmap", sys::mmap(first, len + align, RW, ANON | FIXED | NORESERVE));
    let second = free_range(len + 2 * align, align) + skew;
    unmap(first, len + align);
    let addr = must("mmap", sys::mmap(first, len, RW, ANON | FIXED));
    let _ = sys::madvise(addr, len, libc::MADV_NOHUGEPAGE);
    touch(addr, len);
    // Whether the flags are known at all.
    if let Err(error) = sys::mremap(first, len, len, TO | flags, second) {
        println!("{name} unsupported {error}");
        unmap(first, len);
        return;
    }
    must("mremap", sys::mremap(second, len, len, TO | flags, first));
    row(name, 2, || {
        must("mremap", sys::mremap(first, len, len, TO | flags, second));
        must("mremap", sys::mremap(second, len, len, TO | flags, first));
    });
    unmap(first, len);
}

fn moves(big: usize) {
    moving("mremap_move_4k", PAGE, PAGE, 0, 0);
    moving("mremap_move_2m_aligned", 2 * MB, 2 * MB, 0, 0);
    moving("mremap_move_64m_aligned", big, 2 * MB, 0, 0);
    moving("mremap_move_64m_misaligned", big, 2 * MB, PAGE, 0);
    moving("mremap_relocate_64m_aligned", big, 2 * MB, 0, RELOCATE);
    moving("mremap_move_1g_pud", 1024 * MB, 1024 * MB, 0, 0);
}

fn remaps_in_place() {
    let len = 8 * PAGE;
    let addr = mapped_and_touched(len);
    row("mremap_shrink_expand", 200, || {
        for _ in 0..100 {
            must("mremap", sys::mremap(addr, len, 4 * PAGE, 0, 0));
            must("mremap", sys::mremap(addr, 4 * PAGE, len, 0, 0));
        }
    });
    unmap(addr, len);
    row("mremap_dontunmap_4k", 100, || {
        for _ in 0..100 {
            let from = must("mmap", sys::mmap(0, PAGE, RW, ANON));
            touch(from, PAGE);
            let to = must("mremap", sys::mremap(from, PAGE, PAGE, DONTUNMAP, 0));
            unmap(from, PAGE);
            unmap(to, PAGE);
        }
    });
}

/// Cost against the number of mappings.
fn many_mappings() {
    for count in [100, 1_000, 10_000, 30_000] {
        let len = 2 * count * PAGE;
        let base = must("mmap", sys::mmap(0, len, NONE, ANON));
        for i in 0..count {
            must("mprotect", sys::mprotect(base + 2 * i * PAGE, PAGE, RW));
        }
        let step = count / 100;
        let each = || (0..100).map(move |i| base + 2 * i * step * PAGE);
        let fault = measure(
            || {
                for page in each() {
                    must("madvise", sys::madvise(page, PAGE, libc::MADV_DONTNEED));
                }
            },
            |()| each().for_each(|page| touch(page, PAGE)),
            drop,
        );
        report(&format!("fault_with_{}_vmas", 2 * count), fault, 100);
        row(&format!("mmap_munmap_with_{}_vmas", 2 * count), 200, || {
            for _ in 0..200 {
                let addr = must("mmap", sys::mmap(0, PAGE, RW, ANON));
                unmap(addr, PAGE);
            }
        });
        unmap(base, len);
    }
}

fn forks() {
    let len = 16 * MB;
    let addr = mapped_and_touched(len);
    row("fork_exit_wait_16m", 1, || {
        let pid = must("fork", sys::spawn(|| 0));
        must("wait", sys::wait(pid));
    });
    // Measured by the child, which says through a pipe how long it took.
    let mut ends = [0i32; 2];
    must("pipe", sys::call(libc::SYS_pipe2, &[ends.as_mut_ptr() as usize, 0]));
    let [from, to] = ends.map(|end| end as usize);
    let mut best = u64::MAX;
    for _ in 0..ROUNDS {
        let child = sys::spawn(|| {
            let start = ticks();
            touch(addr, len);
            let time = ticks() - start;
            i32::from(sys::call(libc::SYS_write, &[to, &raw const time as usize, 8]) != Ok(8))
        });
        let mut time = 0u64;
        must("read", sys::call(libc::SYS_read, &[from, &raw mut time as usize, 8]));
        must("wait", child.and_then(sys::wait));
        best = best.min(time);
    }
    report("cow_fault", best, len / PAGE);
    unmap(addr, len);
}

/// Sets what `name` says about huge pages, and whether it could.
fn set(name: &str, value: &str) -> bool {
    std::fs::write(format!("/sys/kernel/mm/transparent_hugepage/{name}"), value).is_ok()
}

/// Per page of folios of 64 KiB, where the kernel has them.
fn folios(big: usize) {
    if set("hugepages-64kB/enabled", "madvise") && set("hugepages-2048kB/enabled", "never") {
        let mapped = || map_aligned(big, libc::MADV_HUGEPAGE);
        let fault = measure(mapped, |&addr| touch(addr, big), |addr| unmap(addr, big));
        report("fault_folio_64k_per_page", fault, big / PAGE);
    }
}

/// Per huge page, but for the fork: 262144 instructions clear one.
fn huge_pages(big: usize) {
    let count = big / HUGE;
    let touch_each = |addr: usize| (0..count).for_each(|page| touch(addr + page * HUGE, PAGE));
    let touched = || {
        let addr = map_aligned(big, libc::MADV_HUGEPAGE);
        touch_each(addr);
        addr
    };
    let fault = measure(|| map_aligned(big, libc::MADV_HUGEPAGE), |&addr| touch_each(addr), |addr| unmap(addr, big));
    report("huge_fault_2m", fault, count);
    report("huge_munmap_2m", measure(touched, |&addr| unmap(addr, big), drop), count);
    let split = measure(
        touched,
        |&addr| (0..count).for_each(|page| unmap(addr + page * HUGE + HUGE / 2, PAGE)),
        |addr| unmap(addr, big),
    );
    report("huge_split_by_munmap", split, count);
    let collapse = measure(
        || {
            let addr = map_aligned(big, libc::MADV_NOHUGEPAGE);
            touch(addr, big);
            must("madvise", sys::madvise(addr, big, libc::MADV_HUGEPAGE));
            addr
        },
        |&addr| _ = must("collapse", sys::madvise(addr, big, COLLAPSE)),
        |addr| unmap(addr, big),
    );
    report("huge_collapse_2m", collapse, count);
    let addr = touched();
    row("huge_fork_exit_wait_64m", 1, || {
        let pid = must("fork", sys::spawn(|| 0));
        must("wait", sys::wait(pid));
    });
    unmap(addr, big);
}
