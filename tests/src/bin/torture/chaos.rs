//! A range that all threads change at the same time, without asking each other.
//!
//! Whatever becomes of it, each word of a page is 0 or was written by the thread
//! that the word belongs to, for this range, and not in the future. What is written
//! through a stale translation to a page that has become another's shows there.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use tests::mem;
use tests::rng::Rng;
use tests::sys::{self, *};

use crate::check;
use crate::exact::{COLLAPSE, RELOCATE};
use crate::report;
use crate::stamp::{Kind, Stamp};
use crate::{MAX_THREADS, SIZES};

/// How many words each thread has begun to write.
static BEGUN: [AtomicU64; MAX_THREADS] = [const { AtomicU64::new(0) }; MAX_THREADS];

/// One thread's part in it.
pub struct Chaos {
    base: usize,
    pages: usize,
    thread: usize,
    process: usize,
    rng: Rng,
}

impl Chaos {
    /// `pages` from `base` on.
    pub fn new(base: usize, pages: usize, thread: usize, seed: u64) -> Chaos {
        Chaos { base, pages, thread, process: 0, rng: Rng::new(seed) }
    }

    /// Does something, and looks at some pages afterwards.
    pub fn step(&mut self) {
        let (from, len) = self.pick();
        match self.rng.below(100) {
            0..22 => {
                let prot = self.rng.pick(&[RW, RW, RW, R, NONE]);
                let shared = (libc::MAP_SHARED | libc::MAP_ANONYMOUS) as usize;
                let kind = self.rng.pick(&[ANON, ANON, ANON, ANON | POPULATE, shared]);
                let result = sys::mmap(from, len, prot, kind | FIXED);
                check!(result == Ok(from), "mmap of {len:#x} bytes: {result:?}");
            }
            22..32 => {
                let result = sys::munmap(from, len);
                check!(result == Ok(0), "munmap of {len:#x} bytes: {result:?}");
            }
            32..42 => {
                let _ = sys::mprotect(from, len, self.rng.pick(&[RW, RW, R, NONE]));
            }
            42..52 => {
                let _ = sys::madvise(from, len, libc::MADV_DONTNEED);
            }
            52..66 => self.remap(from, len),
            66..70 => self.remap_away(from, len),
            70..72 => {
                let _ = sys::mremap(from, len, self.pick().1.min(self.base + self.pages * PAGE - from), 0, 0);
            }
            72..74 => {
                let _ = sys::call(libc::SYS_mlock, &[from, len]);
            }
            74..76 => {
                let _ = sys::call(libc::SYS_munlock, &[from, len]);
            }
            76..77 => {
                let _ = sys::madvise(from, len, self.rng.pick(&[libc::MADV_HUGEPAGE, COLLAPSE]));
            }
            77..78 => self.fork(),
            _ => self.write(from, len),
        }
        self.look(from, len);
        report::count();
    }

    /// Some pages; in a large range often what a page table maps.
    fn pick(&mut self) -> (usize, usize) {
        let table = 512;
        let (first, count) = if self.pages > table && self.rng.below(2) == 0 {
            (self.rng.below(self.pages / table) * table, table)
        } else {
            let first = self.rng.below(self.pages);
            (first, 1 + self.rng.below(SIZES.min(self.pages - first)))
        };
        (self.base + first * PAGE, count * PAGE)
    }

    fn remap(&mut self, from: usize, len: usize) {
        let new = if self.rng.below(4) == 0 { self.rng.below(SIZES) * PAGE + PAGE } else { len };
        let (to, _) = self.pick();
        if to + new > self.base + self.pages * PAGE {
            return;
        }
        let flags = self.rng.pick(&[TO, TO, TO | RELOCATE, TO | DONTUNMAP, TO | DONTUNMAP | RELOCATE]);
        let result = sys::mremap(from, len, new, flags, to);
        check!(!matches!(result, Ok(at) if at != to), "mremap to {to:#x}: {result:?}");
    }

    /// To where the kernel likes; there it is this thread's alone.
    fn remap_away(&mut self, from: usize, len: usize) {
        let flags = self.rng.pick(&[MAYMOVE, DONTUNMAP]);
        let new = if flags == MAYMOVE { len + self.rng.below(3) * PAGE } else { len };
        let Ok(to) = sys::mremap(from, len, new, flags, 0) else { return };
        if (self.base..self.base + self.pages * PAGE).contains(&to) {
            // It has grown in place, perhaps beyond the end.
            let end = self.base + self.pages * PAGE;
            let beyond = (to + new).saturating_sub(end);
            let _ = sys::munmap(end, beyond.max(PAGE));
            return;
        }
        for page in (to..to + len).step_by(PAGE).take(4) {
            let words = [0, 1].map(|_| std::array::from_fn::<_, MAX_THREADS, _>(|thread| self.load(page, thread)));
            check!(words[0] == words[1], "somebody writes to {page:#x}, where it was moved to");
        }
        let result = sys::munmap(to, new);
        check!(result == Ok(0), "munmap of {new:#x} bytes that were moved away: {result:?}");
    }

    fn write(&mut self, from: usize, len: usize) {
        for _ in 0..8 {
            let page = from + self.rng.below(len / PAGE) * PAGE;
            let sequence = BEGUN[self.thread].fetch_add(1, SeqCst) + 1;
            let stamp = Stamp::new(Kind::Chaos, self.process, self.thread, 0, sequence);
            mem::store(page + self.thread * 8, stamp.0);
        }
    }

    /// The word of a thread, if it can be read, which is as it should be.
    fn load(&self, page: usize, thread: usize) -> Option<u64> {
        let word = mem::load(page + thread * 8)?;
        let stamp = Stamp(word);
        let begun = BEGUN[thread].load(SeqCst);
        // Parent and child, who may share memory, each count by themselves.
        let counted = |process| process == 0 && self.process == 0;
        let fits = |(kind, process, writer, place)| {
            (kind, writer, place) == (Kind::Chaos as u64, thread, 0) && (!counted(process) || stamp.sequence() <= begun)
        };
        let fine = word == 0 || stamp.origin().is_some_and(fits);
        check!(fine, "at {:#x} is {stamp}, and thread {thread} has written {begun}", page + thread * 8);
        Some(word)
    }

    fn look(&mut self, from: usize, len: usize) {
        for _ in 0..4 {
            let page = from + self.rng.below(len / PAGE) * PAGE;
            for thread in 0..MAX_THREADS {
                self.load(page, thread);
            }
            // Nobody writes there.
            let unused = page + MAX_THREADS * 8 + self.rng.below(PAGE / 8 - MAX_THREADS) * 8;
            let word = mem::load(unused).unwrap_or(0);
            check!(word == 0, "at {unused:#x} is {}", Stamp(word));
        }
    }

    fn fork(&mut self) {
        let child = report::fork(|| {
            self.process = 1;
            for _ in 0..32 {
                let (from, len) = self.pick();
                self.write(from, len);
                self.look(from, len);
            }
            0
        });
        for _ in 0..8 {
            let (from, len) = self.pick();
            self.write(from, len);
        }
        if let Some(child) = child {
            report::join(child);
        }
    }
}
