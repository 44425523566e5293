//! Ranges of a thread's own: it knows what every page holds at any time.
//!
//! They lie side by side, so that mappings of different threads merge with each
//! other, and share page tables.

use tests::mem;
use tests::rng::Rng;
use tests::sys::{self, *};

use crate::check;
use crate::files;
use crate::report;
use crate::stamp::{Kind, Stamp};

/// Pages below one page table.
const TABLE: usize = 512;
/// Where in a page words are written.
const PLACES: [usize; 6] = [0, 8, 512, 1360, 2048, 4088];
pub const RELOCATE: usize = 8;
/// `MADV_COLLAPSE`.
pub const COLLAPSE: i32 = 25;

/// What is known of a page.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    pub mapped: bool,
    pub prot: usize,
    locked: bool,
    /// The words in it; 0: zeroes.
    sequence: u64,
    process: usize,
    /// It has memory of its own, for sure.
    pub present: bool,
}

const UNMAPPED: Page = Page { mapped: false, prot: NONE, locked: false, sequence: 0, process: 0, present: false };

/// A range, and what is in it.
pub struct Range {
    base: usize,
    thread: usize,
    process: usize,
    pages: Vec<Page>,
    sequence: u64,
    rng: Rng,
}

impl Range {
    /// Nothing is mapped there.
    pub fn new(base: usize, pages: usize, thread: usize, seed: u64) -> Range {
        Range { base, thread, process: 0, pages: vec![UNMAPPED; pages], sequence: 0, rng: Rng::new(seed) }
    }

    fn at(&self, page: usize) -> usize {
        self.base + page * PAGE
    }

    fn stamp(&self, page: &Page, place: usize) -> u64 {
        if page.sequence == 0 {
            return 0;
        }
        Stamp::new(Kind::Exact, page.process, self.thread, place, page.sequence).0
    }

    /// Some pages; in a large range often all that some page tables map.
    fn pick(&mut self) -> (usize, usize) {
        let len = self.pages.len();
        if len >= 2 * TABLE && self.rng.below(2) == 0 {
            let tables = len / TABLE;
            let first = self.rng.below(tables);
            let count = 1 + self.rng.below((tables - first).min(2));
            return (first * TABLE, count * TABLE);
        }
        let first = self.rng.below(len);
        let most = self.rng.pick(&[1, 2, 4, 16, 40]);
        (first, 1 + self.rng.below(most.min(len - first)))
    }

    fn all(&self, first: usize, count: usize, holds: impl Fn(&Page) -> bool) -> bool {
        self.pages[first..first + count].iter().all(holds)
    }

    fn is_mapped(&self, first: usize, count: usize) -> bool {
        self.all(first, count, |page| page.mapped)
    }

    fn is_uniform(&self, first: usize, count: usize) -> bool {
        let start = self.pages[first];
        self.all(first, count, |page| page.mapped && page.prot == start.prot && page.locked == start.locked)
    }

    fn set(&mut self, first: usize, count: usize, change: impl Fn(&mut Page)) {
        self.pages[first..first + count].iter_mut().for_each(change);
    }

    fn forget(&mut self, first: usize, count: usize) {
        self.set(first, count, |page| *page = UNMAPPED);
    }

    /// Does something, and looks at some pages afterwards.
    pub fn step(&mut self) {
        let (first, count) = self.pick();
        match self.rng.below(100) {
            0..15 => self.map(first, count),
            15..20 => self.unmap(first, count),
            20..30 => self.protect(first, count),
            30..38 => self.discard(first, count),
            38..56 => self.move_to(first, count),
            56..61 => self.shrink(first, count),
            61..68 => self.grow(first, count),
            68..72 => self.move_away(first, count),
            72..75 => self.lock(first, count),
            75..78 => self.unlock(first, count),
            78..79 => self.fork(),
            79..80 => files::check_maps(self.base, &self.pages),
            80..81 => files::check_pagemap(self.base, &self.pages, first),
            81..84 => self.advise(first, count),
            _ => self.write(first, count),
        }
        self.look(first, count);
        report::count();
    }

    fn map(&mut self, first: usize, count: usize) {
        let prot = self.rng.pick(&[RW, RW, RW, RW, R, NONE]);
        let populate = self.rng.below(4) == 0 && count < TABLE;
        let flags = ANON | FIXED | if populate { POPULATE } else { 0 };
        let result = sys::mmap(self.at(first), count * PAGE, prot, flags);
        check!(result == Ok(self.at(first)), "mmap of {count} pages: {result:?}");
        self.set(first, count, |page| *page = Page { mapped: true, prot, ..UNMAPPED });
    }

    fn unmap(&mut self, first: usize, count: usize) {
        let result = sys::munmap(self.at(first), count * PAGE);
        check!(result == Ok(0), "munmap of {count} pages: {result:?}");
        self.forget(first, count);
    }

    fn protect(&mut self, first: usize, count: usize) {
        if !self.is_mapped(first, count) {
            return;
        }
        let prot = self.rng.pick(&[RW, RW, R, NONE]);
        let result = sys::mprotect(self.at(first), count * PAGE, prot);
        check!(result == Ok(0), "mprotect of {count} pages: {result:?}");
        self.set(first, count, |page| page.prot = prot);
    }

    fn discard(&mut self, first: usize, count: usize) {
        if self.pages[first..first + count].iter().any(|page| page.locked) {
            return;
        }
        let result = sys::madvise(self.at(first), count * PAGE, libc::MADV_DONTNEED);
        let expected = if self.is_mapped(first, count) { Ok(0) } else { Err(Errno(libc::ENOMEM)) };
        check!(result == expected, "madvise of {count} pages: {result:?}");
        self.set(first, count, |page| {
            page.sequence = 0;
            page.present = false;
        });
    }

    /// A place for `count` pages that does not overlap `first..first + taken`.
    fn destination(&mut self, first: usize, taken: usize, count: usize) -> Option<usize> {
        let len = self.pages.len();
        let last = len.checked_sub(count)?;
        // Often one that is aligned alike, so that whole tables can move.
        let aligned = first % TABLE;
        let to = if self.rng.below(2) == 0 && aligned <= last {
            aligned + self.rng.below((last - aligned) / TABLE + 1) * TABLE
        } else {
            self.rng.below(last + 1)
        };
        (to + count <= first || first + taken <= to).then_some(to)
    }

    fn move_to(&mut self, first: usize, count: usize) {
        if !self.is_mapped(first, count) {
            return;
        }
        let old = count;
        // Sometimes the length changes as well.
        let new = match self.rng.below(6) {
            0 if count > 1 => 1 + self.rng.below(count - 1),
            1 if self.is_uniform(first, count) => count + 1 + self.rng.below(8),
            _ => count,
        };
        let Some(to) = self.destination(first, old, new) else { return };
        let keep = new == old && self.rng.below(3) == 0;
        let mut flags = if keep { DONTUNMAP | TO } else { TO };
        if self.rng.below(3) == 0 {
            flags |= RELOCATE;
        }
        let mut result = sys::mremap(self.at(first), old * PAGE, new * PAGE, flags, self.at(to));
        if flags & RELOCATE != 0 && result == Err(Errno(libc::EINVAL)) {
            flags &= !RELOCATE;
            result = sys::mremap(self.at(first), old * PAGE, new * PAGE, flags, self.at(to));
        }
        if let Err(error) = result {
            check!(self.may_fail(error, first, count), "mremap of {old} pages to {new}, flags {flags:#x}: {error}");
            // What was at the new address may be gone, and the end of what shrinks.
            self.unmap(to, new);
            if new < old {
                self.unmap(first + new, old - new);
            }
            return;
        }
        check!(result == Ok(self.at(to)), "mremap to {:#x}: {result:?}", self.at(to));
        let template = self.pages[first + old - 1];
        let moved: Vec<Page> = self.pages[first..first + old.min(new)].to_vec();
        self.forget(to, new);
        self.pages[to..to + moved.len()].copy_from_slice(&moved);
        self.add(to + moved.len(), new - moved.len(), template);
        if keep {
            self.set(first, old, |page| *page = Page { mapped: true, prot: page.prot, ..UNMAPPED });
        } else {
            self.forget(first, old);
        }
    }

    /// New pages as the mapping has them that has grown.
    fn add(&mut self, first: usize, count: usize, template: Page) {
        self.set(first, count, |page| *page = Page { sequence: 0, present: false, ..template });
    }

    /// Whether a move may be refused: there is more than one mapping, or too much
    /// would be locked.
    fn may_fail(&self, error: Errno, first: usize, count: usize) -> bool {
        let locked = self.pages[first..first + count].iter().any(|page| page.locked);
        match error.0 {
            libc::EFAULT => true,
            libc::EAGAIN => locked,
            _ => false,
        }
    }

    fn shrink(&mut self, first: usize, count: usize) {
        if count == 1 || !self.is_mapped(first, count) {
            return;
        }
        let new = 1 + self.rng.below(count - 1);
        let result = sys::mremap(self.at(first), count * PAGE, new * PAGE, 0, 0);
        if result == Err(Errno(libc::EFAULT)) {
            return;
        }
        check!(result == Ok(self.at(first)), "mremap from {count} to {new} pages: {result:?}");
        self.forget(first + new, count - new);
    }

    fn grow(&mut self, first: usize, count: usize) {
        let end = first + count;
        let room = self.pages[end..].iter().take(8).take_while(|page| !page.mapped).count();
        if room == 0 || !self.is_uniform(first, count) {
            return;
        }
        let more = 1 + self.rng.below(room);
        let result = sys::mremap(self.at(first), count * PAGE, (count + more) * PAGE, 0, 0);
        match result {
            Ok(addr) if addr == self.at(first) => self.add(end, more, self.pages[end - 1]),
            Err(error) if self.may_fail(error, first, count) => {}
            _ => report::wrong(format_args!("mremap from {count} pages to {more} more: {result:?}")),
        }
    }

    /// To where the kernel likes, and back.
    fn move_away(&mut self, first: usize, count: usize) {
        if !self.is_uniform(first, count) {
            return;
        }
        let (from, len) = (self.at(first), count * PAGE);
        let away = match sys::mremap(from, len, len, DONTUNMAP, 0) {
            Err(error) if self.may_fail(error, first, count) => return,
            Err(error) => report::wrong(format_args!("mremap of {count} pages away: {error}")),
            Ok(away) => away,
        };
        if self.pages[first].prot & R != 0 {
            for page in [0, count / 2, count - 1] {
                self.look_at(away + page * PAGE, self.pages[first + page]);
                self.look_at(from + page * PAGE, Page { prot: R, mapped: true, ..UNMAPPED });
            }
        }
        let result = sys::mremap(away, len, len, TO, from);
        check!(result == Ok(from), "mremap of {count} pages back: {result:?}");
    }

    fn lock(&mut self, first: usize, count: usize) {
        if !self.is_mapped(first, count) {
            return;
        }
        match sys::call(libc::SYS_mlock, &[self.at(first), count * PAGE]) {
            Ok(_) => self.set(first, count, |page| page.locked = true),
            // Inaccessible pages are locked all the same.
            Err(_) => self.unlock(first, count),
        }
    }

    fn unlock(&mut self, first: usize, count: usize) {
        if !self.is_mapped(first, count) {
            return;
        }
        let result = sys::call(libc::SYS_munlock, &[self.at(first), count * PAGE]);
        check!(result == Ok(0), "munlock of {count} pages: {result:?}");
        self.set(first, count, |page| page.locked = false);
    }

    /// Whether the pages are to be huge, from now on or at once, or one with equal ones. No
    /// contents depend on it.
    fn advise(&mut self, first: usize, count: usize) {
        let certain = [libc::MADV_HUGEPAGE, libc::MADV_HUGEPAGE, libc::MADV_NOHUGEPAGE];
        // A kernel may have no merging.
        let uncertain = [COLLAPSE, libc::MADV_MERGEABLE, libc::MADV_MERGEABLE, libc::MADV_UNMERGEABLE];
        let choices = if self.rng.below(2) == 0 { &certain[..] } else { &uncertain };
        let advice = self.rng.pick(choices);
        let result = sys::madvise(self.at(first), count * PAGE, advice);
        if certain.contains(&advice) {
            let expected = if self.is_mapped(first, count) { Ok(0) } else { Err(Errno(libc::ENOMEM)) };
            check!(result == expected, "madvise {advice} of {count} pages: {result:?}");
        }
    }

    /// Writes to some of the pages, or tries to.
    fn write(&mut self, first: usize, count: usize) {
        for _ in 0..count.min(8) {
            let number = first + self.rng.below(count);
            let mut page = self.pages[number];
            self.sequence += 1;
            let can = page.mapped && page.prot == RW;
            if can {
                (page.sequence, page.process, page.present) = (self.sequence, self.process, true);
            }
            let stamp = |place| Stamp::new(Kind::Exact, self.process, self.thread, place, self.sequence).0;
            for (place, offset) in PLACES.iter().enumerate() {
                let done = mem::store(self.at(number) + offset, stamp(place));
                check!(done == can, "a store to {:#x} succeeds: {done}; {page:?}", self.at(number) + offset);
            }
            self.pages[number] = page;
        }
    }

    /// Looks at some of the pages, and at their neighbours.
    fn look(&mut self, first: usize, count: usize) {
        for _ in 0..4 {
            let number = (first + self.rng.below(count + 2)).saturating_sub(1).min(self.pages.len() - 1);
            self.look_at(self.at(number), self.pages[number]);
        }
    }

    fn look_at(&self, addr: usize, page: Page) {
        for (place, offset) in PLACES.iter().enumerate() {
            let found = mem::load(addr + offset);
            let expected = (page.mapped && page.prot & R != 0).then(|| self.stamp(&page, place));
            check!(
                found == expected,
                "at {:#x} is {} instead of {}; thread {}, {page:?}",
                addr + offset,
                Stamp(found.unwrap_or(u64::MAX)),
                Stamp(expected.unwrap_or(u64::MAX)),
                self.thread
            );
        }
    }

    /// Looks at all pages.
    pub fn look_at_all(&self) {
        for (number, page) in self.pages.iter().enumerate() {
            self.look_at(self.at(number), *page);
        }
    }

    /// A child sees what there is at this moment, and neither of the two what the
    /// other one writes then.
    fn fork(&mut self) {
        let len = self.pages.len();
        let before = self.sequence;
        let child = report::fork(|| {
            self.process = 1;
            for round in 0..4 {
                for _ in 0..16 {
                    let first = self.rng.below(len);
                    let count = 1 + self.rng.below((len - first).min(8));
                    match self.rng.below(8) {
                        0 => self.unmap(first, count),
                        1 => self.discard(first, count),
                        2 => self.protect(first, count),
                        _ => self.write(first, count),
                    }
                    self.look(first, count);
                }
                if round == 0 && len <= TABLE {
                    self.look_at_all();
                }
            }
            0
        });
        for _ in 0..16 {
            let (first, count) = (self.rng.below(len), 1);
            self.write(first, count);
            self.look(first, count);
        }
        check!(self.sequence >= before, "the numbers of words went back");
        if let Some(child) = child {
            report::join(child);
        }
    }
}
