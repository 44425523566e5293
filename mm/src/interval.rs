//! Interval trees: things that each cover a range of page indices, found by an index.
//!
//! Ordered by first index; among equals, the one inserted later is later. The
//! summary of a subtree is its largest last index, so a search for a range
//! visits only nodes that overlap it, and their ancestors.

use core::marker::PhantomData;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::avl::{Adapter, Avl, Links, Side};
use crate::slab::Ref;

/// What a node carries for its tree.
pub(crate) struct Span<T> {
    links: Links<T>,
    /// The first and last index that it covers, as of when it was put in the tree.
    first: AtomicUsize,
    last: AtomicUsize,
    /// The largest `last` in the subtree.
    subtree_last: AtomicUsize,
}

impl<T> Span<T> {
    pub(crate) fn first(&self) -> usize {
        self.first.load(Ordering::Relaxed)
    }

    pub(crate) fn last(&self) -> usize {
        self.last.load(Ordering::Relaxed)
    }

    fn subtree_last(&self) -> usize {
        self.subtree_last.load(Ordering::Relaxed)
    }

    fn set(&self, first: usize, last: usize) {
        self.first.store(first, Ordering::Relaxed);
        self.last.store(last, Ordering::Relaxed);
    }
}

impl<T> Default for Span<T> {
    fn default() -> Span<T> {
        let none = || AtomicUsize::new(0);
        Span { links: Links::default(), first: none(), last: none(), subtree_last: none() }
    }
}

/// What can be in an interval tree.
pub(crate) trait Spanned: Sized + 'static {
    /// Its place.
    fn span(&self) -> &Span<Self>;
}

/// See the module's documentation.
pub(crate) struct ByIndex<T>(PhantomData<T>);

impl<T: Spanned> Adapter for ByIndex<T> {
    type Node = T;

    #[inline(always)]
    fn links(node: &T) -> &Links<T> {
        &node.span().links
    }

    fn summarize(node: &T) -> bool {
        let span = node.span();
        let mut last = span.last();
        for child in [span.links.left(), span.links.right()].into_iter().flatten() {
            last = last.max(child.span().subtree_last());
        }
        let changed = last != span.subtree_last();
        span.subtree_last.store(last, Ordering::Relaxed);
        changed
    }

    fn inherit(from: &T, to: &T) {
        to.span().subtree_last.store(from.span().subtree_last(), Ordering::Relaxed);
    }
}

/// Puts `node` into the tree, where `first..=last` belongs.
pub(crate) fn insert<T: Spanned>(tree: &Avl<ByIndex<T>>, node: Ref<T>, (first, last): (usize, usize)) {
    node.span().set(first, last);
    let mut place = None;
    let mut at = tree.root();
    while let Some(other) = at {
        let side = if first < other.span().first() { Side::Left } else { Side::Right };
        place = Some((other, side));
        at = match side {
            Side::Left => other.span().links.left(),
            Side::Right => other.span().links.right(),
        };
    }
    tree.insert_at(node, place);
}

/// Lets `node`, which is in the tree, cover `first..=last`.
pub(crate) fn update<T: Spanned>(tree: &Avl<ByIndex<T>>, node: Ref<T>, (first, last): (usize, usize)) {
    if first == node.span().first() {
        node.span().set(first, last);
        tree.refresh(node);
    } else {
        tree.remove(node, None);
        insert(tree, node, (first, last));
    }
}

/// Calls `f` with every node that covers one of the indices `first..=last`, in order, until
/// it returns `false`.
pub(crate) fn for_each<T: Spanned>(
    tree: &Avl<ByIndex<T>>,
    (first, last): (usize, usize),
    mut f: impl FnMut(Ref<T>) -> bool,
) {
    let mut at = first_overlap(tree.root(), first, last);
    while let Some(node) = at {
        if !f(node) {
            return;
        }
        at = next_overlap(node, first, last);
    }
}

/// The first node at or below `top` that overlaps `first..=last`.
fn first_overlap<T: Spanned>(top: Option<Ref<T>>, first: usize, last: usize) -> Option<Ref<T>> {
    let mut node = top.filter(|top| top.span().subtree_last() >= first)?;
    // Something at or below `node` ends late enough. The first in order that
    // does is the answer, unless it starts too late, as then all after it do.
    loop {
        let span = node.span();
        if let Some(left) = span.links.left().filter(|left| left.span().subtree_last() >= first) {
            node = left;
        } else if span.first() > last {
            return None;
        } else if span.last() >= first {
            return Some(node);
        } else {
            node = span.links.right()?;
        }
    }
}

/// The next node after `node` that overlaps `first..=last`.
fn next_overlap<T: Spanned>(node: Ref<T>, first: usize, last: usize) -> Option<Ref<T>> {
    let mut node = node;
    loop {
        if let Some(right) = node.span().links.right().filter(|right| right.span().subtree_last() >= first) {
            return first_overlap(Some(right), first, last);
        }
        // Up to the first ancestor that comes after.
        loop {
            let above = node.span().links.parent()?;
            let after = above.span().links.left() == Some(node);
            node = above;
            if after {
                break;
            }
        }
        if node.span().first() > last {
            return None;
        }
        if node.span().last() >= first {
            return Some(node);
        }
    }
}
