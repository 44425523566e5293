//! The buddy system: free blocks of 2^order frames.
//!
//! A free block is aligned to its size and on the list of its order; of two
//! blocks that are halves of an aligned larger one ("buddies"), never both are
//! free: they have been merged. Everything happens on frame records, so free
//! frames themselves are never touched.

use core::sync::atomic::Ordering;

use super::table::{FrameTable, NIL};
use super::{FrameKind, MAX_ORDER, ON_BUDDY_LIST, TAIL};

/// How many orders there are.
pub(super) const ORDERS: usize = MAX_ORDER as usize + 1;

/// The lists of free blocks, one per order.
pub(super) struct Buddy {
    /// First record of each list, or [`NIL`].
    heads: [u32; ORDERS],
    /// Bit `order` is set when that list is not empty.
    nonempty: u32,
}

impl Buddy {
    pub(super) const fn new() -> Buddy {
        Buddy { heads: [NIL; ORDERS], nonempty: 0 }
    }

    /// Takes a block of `order` off the lists, out of the smallest one that has it.
    pub(super) fn alloc(&mut self, table: &FrameTable, order: u8) -> Option<u32> {
        let large_enough = self.nonempty & (u32::MAX << order);
        if large_enough == 0 {
            return None;
        }
        let mut found = large_enough.trailing_zeros() as u8;
        let index = self.heads[found as usize];
        self.unlink(table, index, found);
        while found > order {
            found -= 1;
            self.link(table, index + (1 << found), found);
        }
        Some(index)
    }

    /// Takes the smallest free block, but no more of it than `1 << most` frames;
    /// returns its first record and its order.
    pub(super) fn alloc_smallest(&mut self, table: &FrameTable, most: u8) -> Option<(u32, u8)> {
        if self.nonempty == 0 {
            return None;
        }
        let order = most.min(self.nonempty.trailing_zeros() as u8);
        self.alloc(table, order).map(|index| (index, order))
    }

    /// Takes one frame out of the free block that it is in, if it is in one.
    pub(super) fn take(&mut self, table: &FrameTable, index: u32) -> bool {
        let head = |order: u8| index & (u32::MAX << order);
        let Some(mut order) = (0..=MAX_ORDER).find(|&order| table.at(head(order)).heads_free_block(order)) else {
            return false;
        };
        self.unlink(table, head(order), order);
        while order > 0 {
            order -= 1;
            // The half that it is not in.
            self.link(table, head(order) ^ (1 << order), order);
        }
        true
    }

    /// Whether there is a block of `order`, or a larger one.
    pub(super) fn has(&self, order: u8) -> bool {
        self.nonempty >> order != 0
    }

    /// Puts a block back and merges it with its buddies.
    ///
    /// The caller owns the block, whose records say nothing of interest any more.
    pub(super) fn free(&mut self, table: &FrameTable, mut index: u32, mut order: u8) {
        while order < MAX_ORDER {
            let buddy = index ^ (1 << order);
            // The record of no frame at all, past the end, is never free.
            if !table.at(buddy).heads_free_block(order) {
                break;
            }
            self.unlink(table, buddy, order);
            index &= buddy;
            order += 1;
        }
        self.link(table, index, order);
    }

    fn link(&mut self, table: &FrameTable, index: u32, order: u8) {
        let frame = table.at(index);
        let next = self.heads[order as usize];
        frame.set_state(FrameKind::Free, order, ON_BUDDY_LIST);
        frame.prev.store(NIL, Ordering::Relaxed);
        frame.next.store(next, Ordering::Relaxed);
        if next != NIL {
            table.at(next).prev.store(index, Ordering::Relaxed);
        }
        self.heads[order as usize] = index;
        self.nonempty |= 1 << order;
    }

    fn unlink(&mut self, table: &FrameTable, index: u32, order: u8) {
        let frame = table.at(index);
        let prev = frame.prev.load(Ordering::Relaxed);
        let next = frame.next.load(Ordering::Relaxed);
        frame.set_state(FrameKind::Free, 0, 0);
        if next != NIL {
            table.at(next).prev.store(prev, Ordering::Relaxed);
        }
        if prev != NIL {
            table.at(prev).next.store(next, Ordering::Relaxed);
        } else {
            self.heads[order as usize] = next;
            if next == NIL {
                self.nonempty &= !(1 << order);
            }
        }
    }
}

/// Makes the free block at `index` one in use, with one reference.
pub(super) fn claim_block(table: &FrameTable, index: u32, kind: FrameKind, order: u8) {
    for tail in 1..1 << order {
        table.at(index + tail).set_state(kind, 0, TAIL);
    }
    table.at(index).claim(kind, order);
}

/// The opposite of [`claim_block`].
pub(super) fn disclaim_block(table: &FrameTable, index: u32, order: u8) {
    for frame in 0..1 << order {
        table.at(index + frame).set_state(FrameKind::Free, 0, 0);
    }
}
