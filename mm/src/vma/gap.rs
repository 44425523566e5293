//! Finding room: the highest or the lowest gap that is large enough.
//!
//! The gaps are those before each VMA, from the end of the previous one, and the
//! one after the last. The search is for one whose part inside the limits is
//! large enough. Only the first gap it looks at can reach beyond the limit it
//! starts from, and once a gap is out of the other limit, all further ones are;
//! what is between is found by the largest gaps of subtrees.
//!
//! The guard gap of a stack is Linux's: what is found directly below a stack, and
//! too close, moves the limit to the end of the guard gap (or, going up, of the
//! stack), and the search starts again. So the guard gap reaches behind other
//! VMAs that are in it, but only if the search has come by the stack.

use super::{Vma, VmaTree};
use crate::slab::Ref;

/// What room is looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct GapRequest {
    /// Its length, in bytes.
    pub(crate) len: usize,
    /// The first address it may have, in bytes.
    pub(crate) low: usize,
    /// The end it may have (exclusive), in bytes.
    pub(crate) high: usize,
    /// A power of two less one, or 0: the bits of the address that must be
    /// those of `align_offset`. As on Linux, only gaps with room for `len` and
    /// this much more are considered.
    pub(crate) align_mask: usize,
    /// See `align_mask`.
    pub(crate) align_offset: usize,
}

impl GapRequest {
    /// Room for `len` bytes at any page of `low..high`.
    pub(crate) const fn new(len: usize, low: usize, high: usize) -> GapRequest {
        GapRequest { len, low, high, align_mask: 0, align_offset: 0 }
    }

    /// How large a gap must be.
    fn needed(&self) -> Option<usize> {
        self.len.checked_add(self.align_mask).filter(|&needed| needed != 0)
    }

    /// The highest address in the gap `start..end`, if its part inside the
    /// limits has room for `needed` bytes.
    fn highest_in(&self, start: usize, end: usize, needed: usize) -> Option<usize> {
        let (start, end) = (start.max(self.low), end.min(self.high));
        if end.checked_sub(start)? < needed {
            return None;
        }
        let addr = end - self.len;
        Some(addr - (addr.wrapping_sub(self.align_offset) & self.align_mask))
    }

    /// The lowest address in the gap `start..end`, likewise.
    fn lowest_in(&self, start: usize, end: usize, needed: usize) -> Option<usize> {
        let (start, end) = (start.max(self.low), end.min(self.high));
        if end.checked_sub(start)? < needed {
            return None;
        }
        Some(start + (self.align_offset.wrapping_sub(start) & self.align_mask))
    }
}

impl VmaTree {
    /// The highest address with the room that is asked for.
    pub(crate) fn gap_top_down(&self, request: &GapRequest) -> Option<usize> {
        let mut request = *request;
        loop {
            let (addr, next) = self.highest_gap(&request)?;
            let Some(guard) = next.filter(|next| next.guarded_start() < request.high.min(next.start())) else {
                return Some(addr);
            };
            request.high = guard.guarded_start();
        }
    }

    /// The lowest address with the room that is asked for.
    pub(crate) fn gap_bottom_up(&self, request: &GapRequest) -> Option<usize> {
        let mut request = *request;
        loop {
            let (addr, next) = self.lowest_gap(&request)?;
            let end = addr + request.len + request.align_mask;
            let Some(guard) = next.filter(|next| next.guarded_start() < end.min(next.start())) else {
                return Some(addr);
            };
            request.low = guard.end();
        }
    }

    /// The highest address with the room that is asked for, and the VMA after
    /// that gap; its guard gap does not count.
    fn highest_gap(&self, request: &GapRequest) -> Option<(usize, Option<Ref<Vma>>)> {
        let needed = request.needed()?;
        // No gap before a VMA that comes after this one starts below the limit.
        let top = self.find(request.high.saturating_sub(1));
        let (start, end) = match top {
            Some(vma) => (start_of_gap(&vma), vma.start()),
            None => (self.last().map_or(0, |last| last.end()), usize::MAX),
        };
        if let Some(addr) = request.highest_in(start, end, needed) {
            return Some((addr, top));
        }
        let vma = match top {
            Some(top) => last_gap_before(top, needed),
            None => self.root().and_then(|root| last_gap_below(root, needed)),
        }?;
        let addr = request.highest_in(start_of_gap(&vma), vma.start(), needed)?;
        Some((addr, Some(vma)))
    }

    /// The lowest address with the room that is asked for, likewise.
    fn lowest_gap(&self, request: &GapRequest) -> Option<(usize, Option<Ref<Vma>>)> {
        let needed = request.needed()?;
        // All gaps before VMAs that come before this one end below the limit.
        if let Some(bottom) = self.find(request.low) {
            if let Some(addr) = request.lowest_in(start_of_gap(&bottom), bottom.start(), needed) {
                return Some((addr, Some(bottom)));
            }
            if let Some(vma) = first_gap_after(bottom, needed) {
                let addr = request.lowest_in(start_of_gap(&vma), vma.start(), needed)?;
                return Some((addr, Some(vma)));
            }
        }
        let end = self.last().map_or(0, |last| last.end());
        Some((request.lowest_in(end, usize::MAX, needed)?, None))
    }
}

/// Where the gap before `vma` starts.
fn start_of_gap(vma: &Vma) -> usize {
    vma.prev().map_or(0, |prev| prev.end())
}

/// The last VMA before `vma` with a gap of at least `needed` bytes before it.
fn last_gap_before(vma: Ref<Vma>, needed: usize) -> Option<Ref<Vma>> {
    let mut node = vma;
    loop {
        if let Some(found) = node.links.left().and_then(|left| last_gap_below(left, needed)) {
            return Some(found);
        }
        // Up to the first ancestor that comes before.
        loop {
            let above = node.links.parent()?;
            let before = above.links.right() == Some(node);
            node = above;
            if before {
                break;
            }
        }
        if node.gap() >= needed {
            return Some(node);
        }
    }
}

/// The first VMA after `vma` with a gap of at least `needed` bytes before it.
fn first_gap_after(vma: Ref<Vma>, needed: usize) -> Option<Ref<Vma>> {
    let mut node = vma;
    loop {
        if let Some(found) = node.links.right().and_then(|right| first_gap_below(right, needed)) {
            return Some(found);
        }
        loop {
            let above = node.links.parent()?;
            let after = above.links.left() == Some(node);
            node = above;
            if after {
                break;
            }
        }
        if node.gap() >= needed {
            return Some(node);
        }
    }
}

/// The last VMA of the subtree with a gap of at least `needed` bytes before it.
fn last_gap_below(top: Ref<Vma>, needed: usize) -> Option<Ref<Vma>> {
    let mut node = top;
    if node.max_gap() < needed {
        return None;
    }
    loop {
        if let Some(right) = node.links.right().filter(|right| right.max_gap() >= needed) {
            node = right;
        } else if node.gap() >= needed {
            return Some(node);
        } else {
            node = node.links.left()?;
        }
    }
}

/// The first VMA of the subtree with a gap of at least `needed` bytes before it.
fn first_gap_below(top: Ref<Vma>, needed: usize) -> Option<Ref<Vma>> {
    let mut node = top;
    if node.max_gap() < needed {
        return None;
    }
    loop {
        if let Some(left) = node.links.left().filter(|left| left.max_gap() >= needed) {
            node = left;
        } else if node.gap() >= needed {
            return Some(node);
        } else {
            node = node.links.right()?;
        }
    }
}
