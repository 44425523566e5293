//! How memory management scales: the same work on one thread or on several, each on a
//! CPU of its own.
//!
//! usage: `scaling THREADS [ROUNDS]`
//!
//! Prints `NAME OPERATIONS` lines, operations of all threads together per second in
//! the best of many short rounds; and `DONE`. Rounds are short so that some of them
//! are undisturbed on a host that has other things to do as well.

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use tests::sys::{self, *};

/// Pages that each thread faults in, in a round: all that a page table maps.
const PAGES: usize = 512;
/// Pages that each thread maps, touches and unmaps, in a round.
const MAPPED_PAGES: usize = 256;

fn must<T>(what: &str, result: sys::Result<T>) -> T {
    result.unwrap_or_else(|error| {
        println!("FAIL {what}: {error}");
        sys::exit(1)
    })
}

fn map(pages: usize) -> usize {
    let addr = must("mmap", sys::mmap(0, pages * PAGE, RW, ANON));
    // Linux would use huge pages if it had them; without them there is nothing to refuse.
    let _ = sys::madvise(addr, pages * PAGE, libc::MADV_NOHUGEPAGE);
    addr
}

fn touch(addr: usize, pages: usize, step: usize) {
    for page in (0..pages).step_by(step) {
        // SAFETY: the callers hand in memory that they have just mapped to be written.
        unsafe { ((addr + page * PAGE) as *mut u8).write_volatile(1) };
    }
}

fn discard(addr: usize, pages: usize) {
    must("madvise", sys::madvise(addr, pages * PAGE, libc::MADV_DONTNEED));
}

/// Waits until all threads have come here for the `turn`-th time.
fn meet(arrived: &AtomicUsize, threads: usize, turn: usize) {
    arrived.fetch_add(1, SeqCst);
    // Without a pause: QEMU takes its one lock for each, which faults of others wait for.
    while arrived.load(SeqCst) < turn * threads {}
}

/// The least time that all threads together take for `work`, which is given the
/// thread's number; before and after it come `setup` and `teardown`, not measured.
fn measure(
    threads: usize,
    rounds: usize,
    setup: impl Fn(usize) + Sync,
    work: impl Fn(usize) + Sync,
    teardown: impl Fn(usize) + Sync,
) -> Duration {
    let arrived = AtomicUsize::new(0);
    let (setup, work, teardown, arrived) = (&setup, &work, &teardown, &arrived);
    let run = |number: usize| {
        must("sched_setaffinity", sys::bind(0, number));
        let time = |round: usize| {
            setup(number);
            meet(arrived, threads, 3 * round + 1);
            let start = Instant::now();
            work(number);
            meet(arrived, threads, 3 * round + 2);
            let took = start.elapsed();
            teardown(number);
            meet(arrived, threads, 3 * round + 3);
            took
        };
        (0..rounds).map(time).min().unwrap_or_default()
    };
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|number| scope.spawn(move || run(number))).collect();
        let time = run(0);
        others.into_iter().filter_map(|other| other.join().ok()).fold(time, Duration::max)
    })
}

fn report(name: &str, operations: usize, time: Duration) {
    println!("{name} {:.0}", operations as f64 / time.as_secs_f64());
    sys::flush();
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).map_while(|word| word.parse::<usize>().ok());
    let threads = words.next().unwrap_or(1).clamp(1, 64);
    let rounds = words.next().unwrap_or(100);

    // One mapping, a page table to each thread.
    let start = map((threads + 1) * PAGES).next_multiple_of(PAGES * PAGE);
    let ranges: Vec<usize> = (0..threads).map(|number| start + number * PAGES * PAGE).collect();
    let time = measure(
        threads,
        rounds,
        |_| {},
        |number| touch(ranges[number], PAGES, 1),
        |number| discard(ranges[number], PAGES),
    );
    report("faults_own_range", threads * PAGES, time);

    let shared = map(threads * PAGES);
    let time = measure(
        threads,
        rounds,
        |_| {},
        |number| touch(shared + number * PAGE, threads * PAGES - number, threads),
        // Page by page, so that each frees what it touched.
        |number| (number..threads * PAGES).step_by(threads).for_each(|page| discard(shared + page * PAGE, 1)),
    );
    report("faults_shared_range", threads * PAGES, time);

    for (name, pages) in [("mmap_touch_munmap_4k", 1), ("mmap_touch_munmap_64k", 16), ("mmap_touch_munmap_1m", 256)] {
        let mappings = (MAPPED_PAGES / pages).min(32);
        let cycle = |_| {
            for _ in 0..mappings {
                let addr = must("mmap", sys::mmap(0, pages * PAGE, RW, ANON));
                touch(addr, pages, 1);
                must("munmap", sys::munmap(addr, pages * PAGE));
            }
        };
        report(name, threads * mappings, measure(threads, rounds, |_| {}, cycle, |_| {}));
    }
    println!("DONE");
    ExitCode::SUCCESS
}
