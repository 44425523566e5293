//! From a page to the VMAs that may map it.
//!
//! Only the checks of an address space walk so far. Whatever takes pages away
//! from under those who use them will.

use super::{AnonVma, Avc};
use crate::slab::Ref;
use crate::vma::Vma;

impl AnonVma {
    /// Calls `f` with every VMA that may map a page whose index is between
    /// `first` and `last` (inclusive), in ascending order of page offset,
    /// until it returns `false`. Holds the root's lock for reading meanwhile.
    ///
    /// "May": the page is there only if the page table says so.
    pub(crate) fn walk(this: Ref<AnonVma>, first: usize, last: usize, mut f: impl FnMut(Ref<Vma>) -> bool) {
        let root = AnonVma::root(this);
        let _lock = root.lock.read();
        let mut at = first_overlap(this.tree.root(), first, last);
        while let Some(avc) = at {
            if let Some(vma) = avc.vma.get()
                && !f(vma)
            {
                return;
            }
            at = next_overlap(avc, first, last);
        }
    }
}

/// The first node at or below `top` that overlaps `first..=last`.
fn first_overlap(top: Option<Ref<Avc>>, first: usize, last: usize) -> Option<Ref<Avc>> {
    let mut node = top.filter(|top| top.subtree_last() >= first)?;
    // Something at or below `node` ends late enough. The first in order that
    // does is the answer, unless it starts too late, as then all after it do.
    loop {
        if let Some(left) = node.links.left().filter(|left| left.subtree_last() >= first) {
            node = left;
        } else if node.first() > last {
            return None;
        } else if node.last() >= first {
            return Some(node);
        } else {
            node = node.links.right()?;
        }
    }
}

/// The next node after `node` that overlaps `first..=last`.
fn next_overlap(node: Ref<Avc>, first: usize, last: usize) -> Option<Ref<Avc>> {
    let mut node = node;
    loop {
        if let Some(right) = node.links.right().filter(|right| right.subtree_last() >= first) {
            return first_overlap(Some(right), first, last);
        }
        // Up to the first ancestor that comes after.
        loop {
            let above = node.links.parent()?;
            let after = above.links.left() == Some(node);
            node = above;
            if after {
                break;
            }
        }
        if node.first() > last {
            return None;
        }
        if node.last() >= first {
            return Some(node);
        }
    }
}
