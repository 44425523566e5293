//! What is written to memory: words that say who wrote them, where, and when.

use std::fmt;

/// The kinds of ranges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// A range of one thread's own.
    Exact = 1,
    /// The range that all threads change.
    Chaos = 2,
    /// The range that one thread changes and all write to.
    Keeper = 3,
    /// A stack that grows.
    Stack = 4,
}

/// One word. No two of a process are the same, and none is 0.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Stamp(pub u64);

const TAG: u64 = 0xa5c;

impl Stamp {
    /// Written by `thread` for the `sequence`-th time; `place` tells the words of
    /// one page apart, `process` parent (0) and child (1).
    pub fn new(kind: Kind, process: usize, thread: usize, place: usize, sequence: u64) -> Stamp {
        let head = TAG << 52 | (kind as u64) << 48 | (process as u64) << 44 | (thread as u64) << 38;
        Stamp(head | (place as u64) << 34 | sequence & 0x3_ffff_ffff)
    }

    /// Of what kind and process, by which thread and for which place, if it is a
    /// stamp at all.
    pub fn origin(self) -> Option<(u64, u64, usize, usize)> {
        let Stamp(word) = self;
        let field = |shift: u32, bits: u32| word >> shift & ((1 << bits) - 1);
        (word >> 52 == TAG).then(|| (field(48, 4), field(44, 4), field(38, 6) as usize, field(34, 4) as usize))
    }

    /// How many its thread had written.
    pub fn sequence(self) -> u64 {
        self.0 & 0x3_ffff_ffff
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.origin() {
            Some((kind, process, thread, place)) => {
                let sequence = self.sequence();
                write!(f, "kind {kind} process {process} thread {thread} place {place} number {sequence}")
            }
            None => write!(f, "{:#x}", self.0),
        }
    }
}
