//! Memory operations of several threads at once on the same address space, with
//! everything checked that can be known of the contents.
//!
//! usage: `torture [--seconds N] [--threads N] [--seed N]`
//!
//! Goes in rounds, each in a process of its own. A thread does, in random order,
//! something to a range of its own ([`exact`]), to one that all change ([`chaos`]), to
//! one that a single thread changes while all write to it ([`keeper`]), or with stacks
//! that grow ([`growth`]). The first thing that is wrong is printed and ends the
//! program with status 1; at the end it prints `torture: ok`.
//!
//! As the first process of a machine, on which nothing else runs then, it sees that no
//! memory is lost: after each round but the first, private pages, page tables and
//! committed memory are what they were after the first one, to the page, and of free
//! memory no more is missing than what the kernel may keep for its next objects
//! ([`KEPT`]). Memory is compacted, and equal pages are merged, all the time then. Where there is swap, pages of all
//! ranges are sent there all the time.

mod chaos;
mod exact;
mod files;
mod growth;
mod keeper;
mod report;
mod stamp;

use std::fs;
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use tests::mem;
use tests::rng::Rng;
use tests::sys::{self, PAGE};

use chaos::Chaos;
use exact::Range;
use keeper::Keeper;

/// The most threads.
pub const MAX_THREADS: usize = 16;
/// The most pages of a small operation on what threads share.
pub const SIZES: usize = 24;
/// Kibibytes of objects that a kernel may keep for use later.
const KEPT: usize = 4096;
/// A process may be waited for before another CPU has let go of its memory.
const SETTLING: Duration = Duration::from_secs(3);
/// How long memory is left as it is.
const COMPACTED: Duration = Duration::from_millis(20);
/// Where the ranges are: far below what `mmap` chooses.
const SMALL: usize = 0x1000_0000_0000;
const LARGE: usize = SMALL + (1 << 30);
const CHAOS: usize = LARGE + (1 << 32);
const TABLES: usize = CHAOS + (1 << 30);
const KEEPER: usize = TABLES + (1 << 30);
const STACKS: usize = KEEPER + (1 << 30);
/// Pages of each small and each large range.
const SMALL_PAGES: usize = 72;
const LARGE_PAGES: usize = 2048;
/// Pages of those that all change.
const CHAOS_PAGES: usize = 96;
const TABLES_PAGES: usize = 3 * 512;

#[derive(Parser, Clone, Copy, Debug)]
struct Options {
    /// How long
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Threads
    #[arg(long, default_value_t = 6)]
    threads: usize,
    /// Where the random numbers start
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The longest round, in seconds
    #[arg(long, default_value_t = 8)]
    round: u64,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let threads = options.threads.clamp(1, MAX_THREADS);
    mem::catch_faults();
    // Pages come one by one.
    // SAFETY: has an effect on this process alone; where the call is not known, on nothing.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    let alone = std::process::id() == 1;
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let mut first = None;
    let mut rounds = 0;
    while rounds < 2 || Instant::now() < end {
        let left = end.saturating_duration_since(Instant::now());
        let time = left.min(Duration::from_secs(options.round)).max(Duration::from_secs(1));
        let seed = options.seed.wrapping_mul(1_000_003).wrapping_add(rounds);
        match report::fork(|| round(threads, time, seed, alone)) {
            Some(child) => report::join(child),
            None => report::wrong(format_args!("fork fails")),
        }
        rounds += 1;
        if alone {
            match first {
                None => first = Some(settled_memory()),
                Some(before) => check_memory(before),
            }
        }
    }
    report::say(format_args!("{rounds} rounds"));
    let swap = value(&read("/proc/meminfo"), "SwapTotal:");
    let swapped = value(&read("/proc/vmstat"), "pswpout ");
    check!(!alone || swap == 0 || swapped > 0, "nothing has gone to swap");
    let moved = value(&read("/proc/vmstat"), "pgmigrate_success ");
    check!(!alone || moved > 0, "no page has been moved to another frame");
    report::say(format_args!("torture: ok"));
    ExitCode::SUCCESS
}

/// Waits until no more memory is missing than may be.
fn check_memory(before: Memory) {
    let end = Instant::now() + SETTLING;
    loop {
        let now = memory();
        let same = now.anon == before.anon && now.tables == before.tables && now.committed == before.committed;
        if same && now.free + KEPT >= before.free {
            return;
        }
        check!(Instant::now() < end, "memory is lost: {before:?}, then {now:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// What is in use when nothing is given back any more.
fn settled_memory() -> Memory {
    thread::sleep(SETTLING);
    memory()
}

/// What is in use, in kibibytes.
#[derive(Clone, Copy, Debug)]
struct Memory {
    free: usize,
    /// But for those of this process: its heap may grow by a page from reading one more file.
    anon: usize,
    tables: usize,
    committed: usize,
}

fn memory() -> Memory {
    let text = read("/proc/meminfo");
    Memory {
        free: value(&text, "MemFree:"),
        anon: value(&text, "AnonPages:").saturating_sub(value(&read("/proc/self/status"), "RssAnon:")),
        tables: value(&text, "PageTables:"),
        committed: value(&text, "Committed_AS:"),
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The number after a name in one of `/proc`'s files; 0 if it is not there.
fn value(text: &str, name: &str) -> usize {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// One round, in a process that has nothing to lose. The status it ends with.
fn round(threads: usize, time: Duration, seed: u64, alone: bool) -> i32 {
    let end = Instant::now() + time;
    thread::scope(|scope| {
        if alone {
            merge();
            scope.spawn(move || compact(end));
        }
        for number in 0..threads {
            scope.spawn(move || work(number, threads, end, seed));
        }
    });
    report::say(format_args!("seed {seed}: {} operations", report::OPERATIONS.load(Relaxed)));
    0
}

/// Has equal pages merged all the time, of memory that is advised so, where the kernel can.
/// A write makes a copy.
fn merge() {
    for (file, value) in [("sleep_millisecs", "5"), ("pages_to_scan", "400"), ("run", "1")] {
        let done = fs::write(format!("/sys/kernel/mm/ksm/{file}"), value);
        check!(done.is_ok(), "equal pages are not merged: {file}: {done:?}");
    }
}

/// Has pages moved to other frames all the time, where the kernel can. Their contents are the same.
fn compact(end: Instant) {
    while Instant::now() < end {
        let done = fs::write("/proc/sys/vm/compact_memory", "1");
        check!(done.is_ok(), "memory is not compacted: {done:?}");
        thread::sleep(COMPACTED);
    }
}

/// Says of some pages, whoever uses them, that they are not needed soon. Whether they go or
/// stay, their contents are the same.
fn page_out(threads: usize, rng: &mut Rng) {
    let ranges = [
        (SMALL, threads * SMALL_PAGES),
        (LARGE, threads * LARGE_PAGES),
        (CHAOS, CHAOS_PAGES),
        (TABLES, TABLES_PAGES),
        (KEEPER, keeper::PAGES),
    ];
    let (base, pages) = rng.pick(&ranges);
    let first = rng.below(pages);
    let count = 1 + rng.below(SIZES.min(pages - first));
    let advice = rng.pick(&[libc::MADV_PAGEOUT, libc::MADV_PAGEOUT, libc::MADV_COLD]);
    // There may be holes, and locked pages.
    let _ = sys::madvise(base + first * PAGE, count * PAGE, advice);
}

/// What one of `threads` threads does until the time is over.
fn work(thread: usize, threads: usize, end: Instant, seed: u64) {
    let mut rng = Rng::new(seed.wrapping_mul(0x9e37_79b9).wrapping_add(thread as u64));
    let mut small = Range::new(SMALL + thread * SMALL_PAGES * PAGE, SMALL_PAGES, thread, rng.number());
    let mut large = Range::new(LARGE + thread * LARGE_PAGES * PAGE, LARGE_PAGES, thread, rng.number());
    let mut chaos = Chaos::new(CHAOS, CHAOS_PAGES, thread, rng.number());
    let mut tables = Chaos::new(TABLES, TABLES_PAGES, thread, rng.number());
    let mut keeper = (thread == 0).then(|| Keeper::new(KEEPER, rng.number()));
    let stack = STACKS + (1 + thread) * 2 * growth::ROOM * PAGE;
    while Instant::now() < end {
        for _ in 0..16 {
            if rng.below(8) == 0 {
                page_out(threads, &mut rng);
            }
            match rng.below(100) {
                0..35 => small.step(),
                35..50 => large.step(),
                50..65 => chaos.step(),
                65..75 => tables.step(),
                75..78 => growth::shared(STACKS, thread, &mut rng),
                78 => growth::own(stack, thread, &mut rng),
                _ => match &mut keeper {
                    Some(keeper) => keeper.step(),
                    None => keeper::write(KEEPER, thread, &mut rng),
                },
            }
        }
    }
    small.look_at_all();
    large.look_at_all();
}
