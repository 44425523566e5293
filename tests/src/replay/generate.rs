//! Makes a sequence of a seed.
//!
//! Each seed leaves out some kinds of steps and, with those it has, keeps to a few
//! places, so that steps meet in ever other ways. What Linux 6.18 does otherwise than
//! 7.3, or Linux otherwise than this kernel on purpose, is never generated; each such
//! rule says why. `docs/linux.md` lists them.

use super::step::{Arg, Call, Step};
use super::{ARENA, FILE, HEAP, Sequence};
use crate::rng::Rng;
use crate::sys::{FIXED, GROWSDOWN, LOW, NOREPLACE, NORESERVE, PAGE, POPULATE, STACK};

const SHARED: usize = 1;
const PRIVATE: usize = 2;
const LOCKED: usize = 0x2000;
const NONBLOCK: usize = 0x1_0000;
const MAYMOVE: usize = 1;
const TO: usize = 2;
const KEEP: usize = 4;

/// Makes `count` steps.
pub fn generate(seed: u64, count: usize) -> Sequence {
    let mut generator = Generator::new(seed);
    let steps = (0..count).map(|_| generator.step()).collect();
    Sequence { scale: generator.scale, steps }
}

/// Which kinds of steps a sequence has.
#[derive(Clone, Copy, Debug)]
struct Features {
    advice: bool,
    brk: bool,
    dontunmap: bool,
    file: bool,
    fork: bool,
    growsdown: bool,
    limits: bool,
    locks: bool,
    /// Arguments that make no sense.
    odd: bool,
    populate: bool,
    seals: bool,
    shared: bool,
}

impl Features {
    fn new(random: &mut Rng, scale: usize) -> Features {
        let mut one_in = |n: usize| random.below(n) == 0;
        let mut features = Features {
            advice: one_in(2),
            brk: one_in(3),
            dontunmap: one_in(3),
            file: one_in(2),
            fork: one_in(2),
            growsdown: one_in(3),
            limits: one_in(6),
            locks: one_in(3),
            odd: one_in(3),
            populate: one_in(2),
            seals: one_in(8),
            shared: one_in(2),
        };
        if features.dontunmap {
            // Of a locked mapping, Linux 6.16 to 7.0 count the locked pages twice.
            features.locks = false;
            // What does not fit is noticed by Linux when part of it is done.
            features.limits = false;
            // Keeps mappings from the half where they are wanted: see `remap_keeping`.
            features.growsdown = false;
            // Linux notices a seal in the middle of several mappings when it gets there.
            features.seals = false;
        }
        if scale > 1 {
            // Would have to fill gigabytes, or be of that size.
            features.brk = false;
            features.locks = false;
            features.populate = false;
            features.file = false;
            // A unit may be several mappings: see `unmapped`.
            features.seals = false;
        }
        features
    }
}

struct Generator {
    random: Rng,
    scale: usize,
    features: Features,
    /// Pages around which most things happen.
    centres: [usize; 3],
    /// Calls to choose from, as often as they are likely.
    calls: Vec<Call>,
    /// What comes next, whatever is drawn.
    next: Option<Step>,
}

/// The middle of the arena, across which `remap_keeping` moves.
const MIDDLE: std::ops::Range<usize> = ARENA / 2 - 16..ARENA / 2 + 16;

/// Lengths are rarely more than this many pages.
const SHORT: usize = 10;

impl Generator {
    fn new(seed: u64) -> Generator {
        let mut random = Rng::new(seed);
        let scale = random.pick(&[1, 1, 1, 1, 1, 1, 1, 96, 512, 512]);
        let features = Features::new(&mut random, scale);
        // Around the boundary of page tables in the middle, where the kernel puts what it
        // may put anywhere, and somewhere.
        let centres = [ARENA / 2 - 24 + random.below(32), ARENA - 40, random.below(ARENA - 64)];
        let mut calls = Vec::new();
        let mut add = |wanted: bool, call: Call, often: usize| {
            calls.extend(std::iter::repeat_n(call, if wanted { often } else { 0 }));
        };
        let Features { advice, brk, file, fork, limits, locks, populate, seals, .. } = features;
        add(true, Call::Mmap, 22);
        add(file, Call::MmapFile, 8);
        add(true, Call::Munmap, 8);
        add(true, Call::Mprotect, 12);
        add(true, Call::Mremap, 16);
        add(advice || populate, Call::Madvise, 8);
        add(true, Call::Madvise, 2);
        add(locks, Call::Mlock, 4);
        add(locks, Call::Mlock2, 3);
        add(locks, Call::Munlock, 3);
        add(locks && random.below(3) == 0, Call::MlockAll, 1);
        add(locks && random.below(3) == 0, Call::MunlockAll, 1);
        add(scale == 1, Call::Mincore, 2);
        add(file, Call::Msync, 1);
        add(seals, Call::Mseal, 1);
        add(brk, Call::Brk, 3);
        add(true, Call::Peek, 4);
        add(true, Call::Poke, 10);
        add(true, Call::Jump, 1);
        add(true, Call::Fill, 6);
        add(true, Call::Sum, 4);
        add(file, Call::Pread, 3);
        add(file, Call::Pwrite, 2);
        add(limits, Call::Limit, 1);
        add(limits, Call::Unlimit, 1);
        add(fork, Call::Fork, 2);
        add(fork, Call::Switch, 4);
        add(fork, Call::Exit, 2);
        add(true, Call::Maps, 5);
        add(true, Call::Flags, 2);
        add(true, Call::Status, 2);
        Generator { random, scale, features, centres, calls, next: None }
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.random.below(n) == 0
    }

    /// A page of `first..end`, mostly near a centre.
    fn page(&mut self, first: usize, end: usize) -> usize {
        let page = if self.one_in(10) {
            self.random.below(ARENA)
        } else {
            self.random.pick(&self.centres) + self.random.below(40)
        };
        if (first..end).contains(&page) { page } else { first + page % (end - first) }
    }

    fn pages(&mut self) -> usize {
        match self.random.below(30) {
            0 => 1 + self.random.below(60),
            1 if self.scale > 1 && !self.features.dontunmap => 512 + self.random.below(64),
            2..=6 => 1,
            _ => 1 + self.random.below(SHORT),
        }
    }

    /// Of so many pages, how many can be unmapped at once: Linux splits the first of
    /// several mappings before it finds that another is sealed.
    fn unmapped(&self, pages: usize) -> usize {
        if self.features.seals { pages.min(1) } else { pages }
    }

    /// First page and number of pages of a range in `first..end`.
    fn range_in(&mut self, first: usize, end: usize) -> (usize, usize) {
        let page = self.page(first, end);
        (page, self.pages().min(end - page))
    }

    fn range(&mut self) -> (usize, usize) {
        self.range_in(0, ARENA)
    }

    /// A range as arguments, now and then one that is not made of pages, or empty.
    fn place_and_length(&mut self) -> [Arg; 2] {
        if self.one_in(150) {
            return [Arg::pages(0), Arg::pages(ARENA)];
        }
        let (page, pages) = self.range();
        [self.place(page), self.length(pages)]
    }

    fn place(&mut self, page: usize) -> Arg {
        if self.features.odd && self.one_in(40) {
            return Arg::Scaled(page * PAGE + 1 + self.random.below(PAGE - 1));
        }
        Arg::pages(page)
    }

    fn length(&mut self, pages: usize) -> Arg {
        if !self.features.odd || !self.one_in(20) {
            return Arg::pages(pages);
        }
        match self.random.below(6) {
            0 => Arg::Exact(0),
            // These come out as nothing, or as more than there can be after any place.
            1 => Arg::Exact(usize::MAX - self.random.below(PAGE)),
            2 => Arg::Exact(usize::MAX - self.random.below(4) * PAGE),
            // Less than whole pages, which are rounded up.
            _ => Arg::Scaled(pages * PAGE - self.random.below(PAGE)),
        }
    }

    fn prot(&mut self) -> Arg {
        // Not `x` alone: where the processor has protection keys, Linux uses one for that.
        let sensible = [3, 3, 3, 3, 3, 1, 1, 0, 5, 7, 2, 6];
        let prot = self.random.pick(&sensible);
        let more = if self.features.odd && self.one_in(20) { self.random.pick(&[8, 0x10, 0x100]) } else { 0 };
        Arg::Exact(prot | more)
    }

    /// The flags of a mapping, apart from shared and private.
    fn map_flags(&mut self) -> usize {
        let Features { growsdown, locks, populate, odd, .. } = self.features;
        let mut flags = 0;
        let mut add = |random: &mut Rng, wanted: bool, one_in: usize, flag: usize| {
            if wanted && random.below(one_in) == 0 {
                flags |= flag;
            }
        };
        let random = &mut self.random;
        add(random, true, 10, NORESERVE);
        add(random, true, 20, STACK);
        add(random, growsdown, 8, GROWSDOWN);
        add(random, populate, 6, POPULATE);
        add(random, populate, 30, NONBLOCK);
        add(random, locks, 10, LOCKED);
        add(random, odd, 30, LOW);
        // These mean nothing.
        add(random, odd, 30, 0x800);
        add(random, odd, 30, 0x1000);
        add(random, odd, 30, 0x4000_0000);
        flags
    }

    fn step(&mut self) -> Step {
        if let Some(step) = self.next.take() {
            return step;
        }
        let call = self.random.pick(&self.calls);
        match call {
            Call::Mmap | Call::MmapFile => self.mmap(call),
            Call::Mremap => self.mremap(),
            Call::Mprotect => {
                let [place, length] = self.place_and_length();
                let mut prot = self.prot();
                if self.features.growsdown && self.one_in(6) {
                    prot = Arg::Exact(prot.bytes(1) | self.random.pick(&[0x0100_0000, 0x0200_0000]));
                }
                Step::new(call, &[place, length, prot])
            }
            Call::Madvise => {
                let [place, length] = self.place_and_length();
                Step::new(call, &[place, length, Arg::Exact(self.advice())])
            }
            Call::Munmap if self.features.seals => {
                let (page, pages) = self.range();
                Step::new(call, &[self.place(page), Arg::pages(self.unmapped(pages))])
            }
            Call::Munmap | Call::Mlock | Call::Munlock | Call::Mincore => {
                let range = self.place_and_length();
                Step::new(call, &range)
            }
            Call::Mseal => {
                let (page, pages) = self.range();
                Step::new(call, &[self.place(page), Arg::pages(pages.min(3))])
            }
            Call::Mlock2 => {
                let [place, length] = self.place_and_length();
                let flags = if self.features.odd && self.one_in(20) { 2 } else { self.random.below(2) };
                Step::new(call, &[place, length, Arg::Exact(flags)])
            }
            // Not what is mapped now: that would lock the program, too.
            Call::MlockAll => Step::new(call, &[Arg::Exact(self.random.pick(&[2, 6, 0, 4, 8]))]),
            Call::Msync => {
                let [place, length] = self.place_and_length();
                Step::new(call, &[place, length, Arg::Exact(self.random.below(8))])
            }
            Call::Brk => Step::new(call, &[Arg::Scaled(self.random.below((HEAP + 8) * PAGE))]),
            Call::Peek | Call::Jump => Step::new(call, &[self.byte()]),
            Call::Poke => Step::new(call, &[self.byte(), Arg::Exact(self.random.below(256))]),
            Call::Fill => {
                let (page, pages) = self.range();
                Step::new(call, &[Arg::pages(page), Arg::pages(pages), Arg::Exact(self.random.below(256))])
            }
            Call::Sum => {
                let (page, pages) = self.range();
                Step::new(call, &[Arg::pages(page), Arg::pages(pages)])
            }
            Call::Pread | Call::Pwrite => {
                let (page, pages) = self.range();
                let offset = self.random.below(FILE);
                let mut pages = pages.min(12);
                if call == Call::Pwrite {
                    // The file keeps its size.
                    pages = pages.min(FILE - offset);
                }
                Step::new(call, &[Arg::pages(page), Arg::pages(pages), Arg::pages(offset)])
            }
            Call::Limit => {
                let limit = self.random.pick(&[2, 3, 9]);
                Step::new(call, &[Arg::Exact(limit), Arg::pages(1 + self.random.below(40))])
            }
            Call::Unlimit => Step::new(call, &[Arg::Exact(self.random.pick(&[2, 3, 9]))]),
            Call::MunlockAll | Call::Fork | Call::Switch | Call::Exit | Call::Maps | Call::Flags | Call::Status => {
                Step::new(call, &[])
            }
        }
    }

    /// An address to load from or store to.
    fn byte(&mut self) -> Arg {
        let page = self.page(0, ARENA);
        Arg::Scaled(page * PAGE + self.random.pick(&[0, 0, 0, 1, 8, PAGE - 1]))
    }

    fn mmap(&mut self, call: Call) -> Step {
        let (page, mut pages) = self.range();
        let mut flags = self.map_flags();
        let mut kind = PRIVATE;
        if self.features.shared && self.one_in(4) {
            kind = if self.one_in(6) { SHARED | PRIVATE } else { SHARED };
        }
        if self.features.odd && self.one_in(60) {
            kind = 0;
        }
        let place = match self.random.below(20) {
            // Linux splits what would be replaced before it looks at limits.
            0..=10 if !self.features.limits => {
                flags |= FIXED;
                pages = self.unmapped(pages);
                self.place(page)
            }
            0..=13 => {
                flags |= NOREPLACE;
                self.place(page)
            }
            // A hint.
            14..=16 => Arg::Scaled(page * PAGE + self.random.pick(&[0, 0, 1, PAGE - 1])),
            17 if self.features.odd => {
                let far = [PAGE, 1, 1 << 47, (1 << 47) - PAGE, (1 << 47) - 2 * PAGE, usize::MAX - PAGE + 1, 1 << 63];
                if self.one_in(2) {
                    flags |= NOREPLACE;
                }
                Arg::Exact(self.random.pick(&far))
            }
            _ => Arg::Exact(0),
        };
        if let Arg::Exact(_) = place {
            // A low place may be mapped by those who insist, depending on the configuration.
            flags &= !(NOREPLACE | FIXED) | if place.bytes(1) > 1 << 40 { NOREPLACE } else { 0 };
        }
        let length = self.length(pages);
        let prot = self.prot();
        if call == Call::Mmap {
            return Step::new(call, &[place, length, prot, Arg::Exact(flags | kind)]);
        }
        let kind = if self.one_in(2) && self.features.shared { SHARED } else { kind };
        let offset = match self.random.below(12) {
            0 if self.features.odd => Arg::Scaled(self.random.below(4 * PAGE)),
            1 if self.features.odd => Arg::Exact(usize::MAX - 2 * PAGE + 1),
            2 => Arg::pages(FILE - 1 + self.random.below(3)),
            // Like the place, so that neighbours fit.
            3..=8 => Arg::pages(page % FILE),
            _ => Arg::pages(self.random.below(FILE)),
        };
        // Which of the two open files a private mapping comes from keeps Linux from merging,
        // but nothing else shows it: here there is no difference.
        let file = usize::from(kind != PRIVATE && self.one_in(4));
        Step::new(call, &[place, length, prot, Arg::Exact(flags | kind), offset, Arg::Exact(file)])
    }

    fn advice(&mut self) -> usize {
        let Features { advice, populate, odd, .. } = self.features;
        // Not those that let Linux discard or keep pages as it likes: free, pageout; nor
        // those that other Linux does not have, like guards, or that break the machine.
        let kinds: &[usize] = match self.random.below(10) {
            0 if odd => &[5, 6, 7, 77, 0x8000_0000, 0xffff_ffff],
            1..=3 if populate => &[22, 23],
            4..=8 if advice => &[0, 1, 2, 3, 10, 11, 14, 15, 16, 17, 18, 19, 20, 24],
            _ => &[4],
        };
        self.random.pick(kinds)
    }

    fn mremap(&mut self) -> Step {
        if self.features.dontunmap && self.one_in(2) {
            return self.remap_keeping();
        }
        // With mappings that are kept, what moves goes to the upper half: see there.
        let first = if self.features.dontunmap { MIDDLE.end } else { 0 };
        let (page, mut old) = self.range();
        let to = self.page(first, ARENA);
        let mut new = match self.random.below(8) {
            0..=3 => old,
            4 => 1 + self.random.below(old),
            _ => self.pages(),
        };
        let mut flags = MAYMOVE;
        match self.random.below(10) {
            0..=5 => flags |= TO,
            6 | 7 => flags = 0,
            _ => {}
        }
        if flags & TO != 0 {
            new = self.unmapped(new.min(ARENA - to));
        }
        if self.features.seals {
            // What is cut off is unmapped, too.
            old = old.min(new);
        }
        let (mut old, mut new) = (Arg::pages(old), Arg::pages(new));
        if self.features.odd {
            match self.random.below(40) {
                0 => old = Arg::Exact(0),
                1 => {
                    new = Arg::Exact(self.random.pick(&[
                        0,
                        1 << 47,
                        usize::MAX,
                        usize::MAX - PAGE,
                        usize::MAX - 2 * PAGE,
                    ]))
                }
                2 => flags = self.random.pick(&[2, 4, 6, 0x20, 0x101]),
                3 => new = Arg::Scaled(new.bytes(PAGE) - self.random.below(PAGE)),
                _ => {}
            }
        }
        if self.features.shared && self.one_in(12) {
            old = Arg::Exact(0);
        }
        if old == Arg::Exact(0) && flags & TO != 0 && (to..to.saturating_add(new.bytes(1))).contains(&page) {
            // Linux unmaps the destination before it finds that the source was part of that.
            flags = MAYMOVE;
        }
        let (page, to) = (self.place(page), self.place(to));
        Step::new(Call::Mremap, &[page, old, new, Arg::Exact(flags), to])
    }

    /// A move that keeps the source, after the middle has been unmapped.
    ///
    /// Always from the lower half of the arena to the upper, with no mapping in both. Linux 6.18
    /// differs from 7.3 where the destination is next to the source, and where the source
    /// was itself moved here with its pages.
    fn remap_keeping(&mut self) -> Step {
        let (page, pages) = self.range_in(0, MIDDLE.start);
        let to = self.page(MIDDLE.end, ARENA);
        let pages = pages.min(ARENA - to);
        let flags = if self.one_in(3) { MAYMOVE | KEEP } else { MAYMOVE | TO | KEEP };
        let (pages, to) = (Arg::pages(pages), if self.one_in(8) { Arg::Exact(0) } else { self.place(to) });
        let flags = if to == Arg::Exact(0) { MAYMOVE | KEEP } else { flags };
        self.next = Some(Step::new(Call::Mremap, &[Arg::pages(page), pages, pages, Arg::Exact(flags), to]));
        Step::new(Call::Munmap, &[Arg::pages(MIDDLE.start), Arg::pages(MIDDLE.len())])
    }
}
