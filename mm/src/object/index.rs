//! A sparse map from page index to frame: a radix tree whose nodes are frames.
//!
//! A node has 512 words; a word is the frame number of a node of the level
//! below, or at the lowest level of a page; 0 is none. A tree of height `h`
//! covers indices below `512^h`, so one of height 0 is a single page and takes
//! no node at all. A node's record counts its words in use ([`Frame::index`]),
//! and a node without any does not exist.
//!
//! [`Frame::index`]: crate::Frame

use crate::addr::Pfn;
use crate::errno::OutOfMemory;
use crate::frame::{FrameKind, OwnedFrame};
use crate::memory::Memory;
use crate::platform::Platform;

/// Log 2 of the words of a node.
const FANOUT_SHIFT: u32 = 9;
const FANOUT: usize = 1 << FANOUT_SHIFT;
/// Enough for any index of 64 bits.
const MAX_HEIGHT: usize = 8;

/// The map. It does not own the frames it maps to; it does own its nodes, and
/// has none when it is empty.
#[derive(Default)]
pub(super) struct PageIndex {
    /// Frame number of the topmost node, or of the only page; 0: empty.
    root: usize,
    height: u32,
}

/// The place of an index in a node `height` levels above the pages.
fn slot_of(index: usize, height: u32) -> usize {
    (index >> (FANOUT_SHIFT * (height - 1))) & (FANOUT - 1)
}

/// Whether a tree of that height has a place for `index`.
fn covers(height: u32, index: usize) -> bool {
    index.checked_shr(FANOUT_SHIFT * height).unwrap_or(0) == 0
}

impl PageIndex {
    /// The frame at `index`.
    pub(super) fn get<P: Platform>(&self, memory: &Memory<P>, index: usize) -> Option<Pfn> {
        if !covers(self.height, index) {
            return None;
        }
        let mut word = self.root;
        for height in (1..=self.height).rev() {
            if word == 0 {
                return None;
            }
            word = read(memory, word, slot_of(index, height));
        }
        (word != 0).then_some(Pfn(word))
    }

    /// Puts a frame at `index`, where there is none.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`], and then nothing has changed.
    pub(super) fn insert<P: Platform>(
        &mut self,
        memory: &Memory<P>,
        index: usize,
        pfn: Pfn,
    ) -> Result<(), OutOfMemory> {
        if self.root == 0 {
            self.height = 0;
        }
        while !covers(self.height, index) {
            if self.root != 0 {
                let node = new_node(memory)?;
                write(memory, node, 0, self.root);
                self.root = node;
            }
            self.height += 1;
        }
        // Make the missing nodes from the bottom up, so that nothing shows
        // until all are there.
        let mut parent = self.root;
        let mut missing = self.height;
        while missing > 0 && parent != 0 {
            let word = read(memory, parent, slot_of(index, missing));
            if word == 0 || missing == 1 {
                break;
            }
            parent = word;
            missing -= 1;
        }
        // `parent` has the empty word; below it, `missing - 1` nodes are
        // missing, or, when the tree is empty, `missing` nodes and no parent.
        let levels = if parent == 0 { missing } else { missing - 1 };
        let mut branch = pfn.0;
        for height in 1..=levels {
            let node = match new_node(memory) {
                Ok(node) => node,
                Err(error) => {
                    drop_branch(memory, branch, height - 1, index);
                    return Err(error);
                }
            };
            write(memory, node, slot_of(index, height), branch);
            branch = node;
        }
        if parent == 0 {
            self.root = branch;
        } else {
            write(memory, parent, slot_of(index, missing), branch);
        }
        Ok(())
    }

    /// The frame at the smallest index from `first` on.
    pub(super) fn next<P: Platform>(&self, memory: &Memory<P>, first: usize) -> Option<(usize, Pfn)> {
        if self.root == 0 || !covers(self.height, first) {
            return None;
        }
        next_below(memory, self.root, self.height, first)
    }

    /// Takes the frame at `index` out.
    pub(super) fn remove<P: Platform>(&mut self, memory: &Memory<P>, index: usize) -> Option<Pfn> {
        if !covers(self.height, index) {
            return None;
        }
        let mut path = [0; MAX_HEIGHT + 1];
        let mut word = self.root;
        for height in (1..=self.height).rev() {
            if word == 0 {
                return None;
            }
            path[height as usize] = word;
            word = read(memory, word, slot_of(index, height));
        }
        let pfn = (word != 0).then_some(Pfn(word))?;
        for height in 1..=self.height {
            let node = path[height as usize];
            write(memory, node, slot_of(index, height), 0);
            if memory.frame(Pfn(node)).index() != 0 {
                return Some(pfn);
            }
            free_node(memory, node);
        }
        self.root = 0;
        Some(pfn)
    }
}

/// [`PageIndex::next`], in the tree of that height below `word`, which is not 0.
/// `first` counts from the tree's first index, and so does the result.
fn next_below<P: Platform>(memory: &Memory<P>, word: usize, height: u32, first: usize) -> Option<(usize, Pfn)> {
    if height == 0 {
        return Some((0, Pfn(word)));
    }
    let shift = FANOUT_SHIFT * (height - 1);
    let mut first = first;
    for slot in slot_of(first, height)..FANOUT {
        let child = read(memory, word, slot);
        let base = slot << shift;
        if child != 0
            && let Some((index, pfn)) = next_below(memory, child, height - 1, first.saturating_sub(base))
        {
            return Some((base + index, pfn));
        }
        first = first.max((slot + 1) << shift);
    }
    None
}

/// Frees the nodes of a branch of that height which leads to `index` only.
fn drop_branch<P: Platform>(memory: &Memory<P>, branch: usize, height: u32, index: usize) {
    let mut word = branch;
    for height in (1..=height).rev() {
        let child = read(memory, word, slot_of(index, height));
        free_node(memory, word);
        word = child;
    }
}

fn new_node<P: Platform>(memory: &Memory<P>) -> Result<usize, OutOfMemory> {
    Ok(memory.alloc_zeroed(FrameKind::ObjectIndex)?.into_raw().0)
}

fn free_node<P: Platform>(memory: &Memory<P>, node: usize) {
    // SAFETY: the index allocated the node, alone knows it, and the caller has
    // just taken it out.
    memory.free(unsafe { OwnedFrame::from_raw(Pfn(node), 0) });
}

fn read<P: Platform>(memory: &Memory<P>, node: usize, slot: usize) -> usize {
    let words = memory.page_ptr(Pfn(node)).cast::<usize>();
    // SAFETY: a node is a frame of 512 words, aligned, initialised with
    // zeroes, and the object's lock keeps others out.
    unsafe { words.add(slot % FANOUT).read() }
}

/// Sets a word and keeps count.
fn write<P: Platform>(memory: &Memory<P>, node: usize, slot: usize, word: usize) {
    let frame = memory.frame(Pfn(node));
    let before = read(memory, node, slot);
    let count = frame.index() + usize::from(word != 0) - usize::from(before != 0);
    frame.set_index(count);
    let words = memory.page_ptr(Pfn(node)).cast::<usize>();
    // SAFETY: as in `read`.
    unsafe { words.add(slot % FANOUT).write(word) };
}
