//! The tree of an `AnonVma`: its VMAs by the page indices they cover.
//!
//! Ordered by first index; among equals, the one inserted later is later. The
//! summary of a subtree is its largest last index, so a search for a range
//! visits only nodes that overlap it, and their ancestors.

use core::sync::atomic::Ordering;

use super::{AnonVma, Avc};
use crate::avl::{Adapter, Links, Side};
use crate::slab::Ref;

/// See the module's documentation.
pub(super) struct ByIndex;

impl Adapter for ByIndex {
    type Node = Avc;

    #[inline(always)]
    fn links(node: &Avc) -> &Links<Avc> {
        &node.links
    }

    fn summarize(node: &Avc) -> bool {
        let mut last = node.last();
        for child in [node.links.left(), node.links.right()].into_iter().flatten() {
            last = last.max(child.subtree_last());
        }
        let changed = last != node.subtree_last();
        node.subtree_last.store(last, Ordering::Relaxed);
        changed
    }

    fn inherit(from: &Avc, to: &Avc) {
        to.subtree_last.store(from.subtree_last(), Ordering::Relaxed);
    }
}

impl Avc {
    pub(super) fn first(&self) -> usize {
        self.first.load(Ordering::Relaxed)
    }

    pub(super) fn last(&self) -> usize {
        self.last.load(Ordering::Relaxed)
    }

    pub(super) fn subtree_last(&self) -> usize {
        self.subtree_last.load(Ordering::Relaxed)
    }
}

/// Puts `avc` into the tree of `anon_vma`, where its VMA's pages belong.
pub(super) fn insert(anon_vma: &AnonVma, avc: Ref<Avc>) {
    if let Some(vma) = avc.vma.get() {
        avc.first.store(vma.pgoff(), Ordering::Relaxed);
        avc.last.store(vma.pgoff() + (vma.pages() - 1), Ordering::Relaxed);
    }
    let first = avc.first();
    let mut place = None;
    let mut at = anon_vma.tree.root();
    while let Some(node) = at {
        let side = if first < node.first() { Side::Left } else { Side::Right };
        place = Some((node, side));
        at = match side {
            Side::Left => node.links.left(),
            Side::Right => node.links.right(),
        };
    }
    anon_vma.tree.insert_at(avc, place);
}

/// Makes the place of `avc`, which is in the tree, that of its VMA's pages again.
pub(super) fn update(anon_vma: &AnonVma, avc: Ref<Avc>) {
    let Some(vma) = avc.vma.get() else { return };
    if vma.pgoff() == avc.first() {
        avc.last.store(vma.pgoff() + (vma.pages() - 1), Ordering::Relaxed);
        anon_vma.tree.refresh(avc);
    } else {
        anon_vma.tree.remove(avc, None);
        insert(anon_vma, avc);
    }
}
