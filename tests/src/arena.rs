//! A stretch of address space that belongs to one test.

use crate::maps;
use crate::mem::{self, Fault};
use crate::sys::{self, ANON, FIXED, NONE, NORESERVE, PAGE, Result};

/// Free address space with an inaccessible fence at either end, so that nothing
/// outside merges with what is mapped inside. Places are counted in pages.
pub struct Arena {
    base: usize,
    pages: usize,
}

/// Pages of each fence: more than the stack guard gap.
const FENCE: usize = 1;

impl Arena {
    /// Free room for `pages` pages.
    pub fn new(pages: usize) -> Result<Arena> {
        Arena::aligned(pages, PAGE)
    }

    /// The same, beginning at a multiple of `align` bytes.
    pub fn aligned(pages: usize, align: usize) -> Result<Arena> {
        let len = (pages + 2 * FENCE) * PAGE + align;
        let start = sys::mmap(0, len, NONE, ANON | NORESERVE)?;
        let base = (start + FENCE * PAGE).next_multiple_of(align);
        sys::munmap(base, pages * PAGE)?;
        Ok(Arena { base, pages })
    }

    /// Address of page `page`.
    pub fn at(&self, page: usize) -> usize {
        self.base + page * PAGE
    }

    /// Maps pages `first..last`, replacing what is there.
    pub fn map(&self, first: usize, last: usize, prot: usize) -> Result {
        self.map_with(first, last, prot, 0)
    }

    /// The same with further flags.
    pub fn map_with(&self, first: usize, last: usize, prot: usize, flags: usize) -> Result {
        sys::mmap(self.at(first), (last - first) * PAGE, prot, ANON | FIXED | flags)
    }

    pub fn unmap(&self, first: usize, last: usize) -> Result {
        sys::munmap(self.at(first), (last - first) * PAGE)
    }

    pub fn protect(&self, first: usize, last: usize, prot: usize) -> Result {
        sys::mprotect(self.at(first), (last - first) * PAGE, prot)
    }

    /// Moves or resizes pages `first..last`; `to` is a page of the arena as well.
    pub fn remap(&self, first: usize, last: usize, pages: usize, flags: usize, to: usize) -> Result {
        sys::mremap(self.at(first), (last - first) * PAGE, pages * PAGE, flags, self.at(to))
    }

    /// Puts recognisable contents into pages `first..last`.
    pub fn fill(&self, first: usize, last: usize, seed: usize) -> std::result::Result<(), Fault> {
        mem::fill(self.at(first), last - first, seed)
    }

    /// Whether pages `first..last` hold what a [`fill`](Arena::fill) of that many pages put there.
    pub fn holds(&self, first: usize, last: usize, seed: usize) -> std::result::Result<bool, Fault> {
        mem::holds(self.at(first), 0, last - first, seed)
    }

    /// The mappings inside, such as `[0-2 rw-][5-6 ---]`.
    pub fn layout(&self) -> String {
        let (start, end) = (self.base, self.at(self.pages));
        let page = |addr: usize| (addr.clamp(start, end) - start) / PAGE;
        let piece = |m: &maps::Mapping| format!("[{}-{} {}]", page(m.start), page(m.end), &m.access[..3]);
        maps::within(start, end).iter().map(piece).collect()
    }

    /// `addr` as a place in the arena: `+3` pages, or `elsewhere`.
    pub fn place(&self, addr: usize) -> String {
        if (self.base..self.at(self.pages)).contains(&addr) {
            format!("+{}", (addr - self.base) / PAGE)
        } else {
            "elsewhere".to_owned()
        }
    }
}
