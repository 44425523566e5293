//! A range that all threads write to, and one of them changes: what others see of
//! its changes, and when.
//!
//! Each thread has a word in each page, and writes rising numbers to it. Of each
//! word is known which number was begun last and which was done last.
//!
//! - What a thread had done before the pages were wiped is not there afterwards.
//! - What it has done and was not wiped is there, wherever the page has moved.
//! - While a page may not be written to, it stays as it is; so does what a child has
//!   got of it.

use std::hint;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use tests::mem;
use tests::rng::Rng;
use tests::sys::{self, *};

use crate::exact::RELOCATE;
use crate::stamp::{Kind, Stamp};
use crate::{MAX_THREADS, check, report};

/// Pages of the range.
pub const PAGES: usize = 16;
/// The most that are changed at once.
const MOST: usize = 4;

/// What one thread has done to one page.
struct Progress {
    begun: AtomicU64,
    done: AtomicU64,
}

static PROGRESS: [[Progress; PAGES]; MAX_THREADS] =
    [const { [const { Progress { begun: AtomicU64::new(0), done: AtomicU64::new(0) } }; PAGES] }; MAX_THREADS];
/// The numbers of each thread.
static NUMBERS: [AtomicU64; MAX_THREADS] = [const { AtomicU64::new(0) }; MAX_THREADS];

fn word(page: usize, thread: usize) -> usize {
    page + thread * 8
}

/// Writes to some pages, if they can be written to.
pub fn write(base: usize, thread: usize, rng: &mut Rng) {
    for _ in 0..64 {
        let page = rng.below(PAGES);
        let number = NUMBERS[thread].fetch_add(1, SeqCst) + 1;
        let progress = &PROGRESS[thread][page];
        progress.begun.store(number, SeqCst);
        let stamp = Stamp::new(Kind::Keeper, 0, thread, 0, number);
        if mem::store(word(base + page * PAGE, thread), stamp.0) {
            progress.done.store(number, SeqCst);
        }
    }
    report::count();
}

/// The thread that changes the range.
pub struct Keeper {
    base: usize,
    /// Where pages are moved to for a moment.
    elsewhere: usize,
    rng: Rng,
    /// What was begun when the page had been wiped, by page and thread.
    wiped: [[u64; MAX_THREADS]; PAGES],
}

impl Keeper {
    /// Maps the range at `base`; as much room follows it.
    pub fn new(base: usize, seed: u64) -> Keeper {
        let result = sys::mmap(base, PAGES * PAGE, RW, ANON | FIXED);
        check!(result == Ok(base), "mmap: {result:?}");
        let wiped = [[0; MAX_THREADS]; PAGES];
        Keeper { base, elsewhere: base + 2 * PAGES * PAGE, rng: Rng::new(seed), wiped }
    }

    fn at(&self, page: usize) -> usize {
        self.base + page * PAGE
    }

    /// Changes something, and looks whether it is seen.
    pub fn step(&mut self) {
        let first = self.rng.below(PAGES);
        let count = 1 + self.rng.below(MOST.min(PAGES - first));
        match self.rng.below(10) {
            0..3 => self.wipe(first, count),
            3..5 => self.forbid(first, count),
            5..8 => self.move_and_back(first, count),
            8 => self.leave_behind(first, count),
            _ => self.fork(first, count),
        }
        report::count();
    }

    /// The numbers in a page, by thread; 0: none.
    fn numbers(&self, page: usize) -> [u64; MAX_THREADS] {
        std::array::from_fn(|thread| {
            let at = word(page, thread);
            let Some(found) = mem::load(at) else {
                report::wrong(format_args!("{at:#x} cannot be read"));
            };
            let stamp = Stamp(found);
            let fine = found == 0 || stamp.origin() == Some((Kind::Keeper as u64, 0, thread, 0));
            check!(fine, "at {at:#x} is {stamp}");
            if found == 0 { 0 } else { stamp.sequence() }
        })
    }

    fn done(page: usize) -> [u64; MAX_THREADS] {
        std::array::from_fn(|thread| PROGRESS[thread][page].done.load(SeqCst))
    }

    fn begun(page: usize) -> [u64; MAX_THREADS] {
        std::array::from_fn(|thread| PROGRESS[thread][page].begun.load(SeqCst))
    }

    /// Nothing of what had been `done` before page `number` was wiped is at `at`.
    fn check_wiped(&mut self, number: usize, at: usize, done: [u64; MAX_THREADS]) {
        self.wiped[number] = Self::begun(number);
        for (thread, found) in self.numbers(at).into_iter().enumerate() {
            let before = done[thread];
            check!(found == 0 || found > before, "thread {thread}'s {found} of {before} is still at {at:#x}");
        }
    }

    /// All of what had been `done` in page `number`, and not been wiped, is at `at`.
    fn check_kept(&self, number: usize, at: usize, done: [u64; MAX_THREADS]) {
        for (thread, found) in self.numbers(at).into_iter().enumerate() {
            let lost = done[thread] > self.wiped[number][thread] && found < done[thread];
            check!(!lost, "at {at:#x} is {found}, and thread {thread} had written {}", done[thread]);
        }
    }

    /// Nobody writes to the pages from `at` on.
    fn check_still(&self, at: usize, count: usize) {
        let mut before = [[0; MAX_THREADS]; MOST];
        for (page, numbers) in before[..count].iter_mut().enumerate() {
            *numbers = self.numbers(at + page * PAGE);
        }
        for _ in 0..2000 {
            hint::spin_loop();
        }
        for (page, numbers) in before[..count].iter().enumerate() {
            let now = self.numbers(at + page * PAGE);
            check!(now == *numbers, "{:#x} is still written to", at + page * PAGE);
        }
    }

    fn each_done(first: usize, count: usize) -> [[u64; MAX_THREADS]; MOST] {
        std::array::from_fn(|page| if page < count { Self::done(first + page) } else { [0; MAX_THREADS] })
    }

    fn wipe(&mut self, first: usize, count: usize) {
        let (at, len) = (self.at(first), count * PAGE);
        let done = Self::each_done(first, count);
        match self.rng.below(3) {
            0 => must("madvise", sys::madvise(at, len, libc::MADV_DONTNEED)),
            1 => must("mmap", sys::mmap(at, len, RW, ANON | FIXED)),
            _ => {
                must("munmap", sys::munmap(at, len));
                must("mmap", sys::mmap(at, len, RW, ANON | FIXED))
            }
        };
        for (page, done) in done[..count].iter().enumerate() {
            self.check_wiped(first + page, at + page * PAGE, *done);
        }
    }

    fn forbid(&mut self, first: usize, count: usize) {
        let (at, len) = (self.at(first), count * PAGE);
        must("mprotect", sys::mprotect(at, len, R));
        let done = Self::each_done(first, count);
        self.check_still(at, count);
        for (page, done) in done[..count].iter().enumerate() {
            self.check_kept(first + page, at + page * PAGE, *done);
        }
        must("mprotect", sys::mprotect(at, len, RW));
    }

    fn remap(&mut self, from: usize, len: usize, flags: usize, to: usize) {
        let relocate = if self.rng.below(2) == 0 { RELOCATE } else { 0 };
        let result = match sys::mremap(from, len, len, flags | relocate, to) {
            Err(Errno(libc::EINVAL)) if relocate != 0 => sys::mremap(from, len, len, flags, to),
            result => result,
        };
        check!(result == Ok(to), "mremap of {len:#x} bytes: {result:?}");
    }

    fn move_and_back(&mut self, first: usize, count: usize) {
        let (at, len, to) = (self.at(first), count * PAGE, self.elsewhere);
        // What is one mapping can be moved on every version of Linux.
        let done = Self::each_done(first, 1);
        for page in 0..count {
            self.remap(at + page * PAGE, PAGE, TO, to + page * PAGE);
        }
        self.check_kept(first, to, done[0]);
        let done = Self::each_done(first, count);
        self.check_still(to, count);
        for (page, done) in done[..count].iter().enumerate() {
            self.check_kept(first + page, to + page * PAGE, *done);
        }
        for page in 0..count {
            self.remap(to + page * PAGE, PAGE, TO, at + page * PAGE);
        }
        for (page, done) in done[..count].iter().enumerate() {
            self.check_kept(first + page, at + page * PAGE, *done);
        }
        check!(mem::load(to).is_none() && mem::load(to + len - PAGE).is_none(), "{to:#x} is still mapped");
    }

    fn leave_behind(&mut self, first: usize, count: usize) {
        let (at, to) = (self.at(first), self.elsewhere);
        for page in 0..count {
            let done = Self::done(first + page);
            self.remap(at + page * PAGE, PAGE, TO | DONTUNMAP, to + page * PAGE);
            self.check_kept(first + page, to + page * PAGE, done);
            self.check_wiped(first + page, at + page * PAGE, done);
        }
        self.check_still(to, count);
        must("munmap", sys::munmap(to, count * PAGE));
    }

    fn fork(&mut self, first: usize, count: usize) {
        let done = Self::each_done(first, count);
        let child = report::fork(|| {
            for (page, done) in done[..count].iter().enumerate() {
                self.check_kept(first + page, self.at(first + page), *done);
            }
            self.check_still(self.at(first), count);
            0
        });
        if let Some(child) = child {
            report::join(child);
        }
    }
}

fn must(what: &str, result: sys::Result) {
    if let Err(error) = result {
        report::wrong(format_args!("{what}: {error}"));
    }
}
