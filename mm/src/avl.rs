//! An intrusive height-balanced (AVL) tree over objects of an arena.
//!
//! The VMAs of an address space by address and the VMAs of an `AnonVma` by
//! page index are both kept in one. The links live in the objects, so putting
//! one in or taking one out allocates nothing and cannot fail. Every node
//! carries a *summary* of its subtree (the largest gap, the last page index)
//! that the tree keeps exact; what it is, an [`Adapter`] says.
//!
//! What always holds between two calls:
//! - the heights of a node's two subtrees differ by at most one;
//! - a node's height and summary follow from its children's;
//! - a node that is in no tree has height 0.
//!
//! The tree has no key: whoever inserts says where ([`Avl::insert_at`]), and
//! whoever changes what a summary is computed from calls [`Avl::refresh`].
//!
//! All links are atomics and methods take `&self`: a lock of the owner's keeps
//! writers from each other. Breaking that rule can lose nodes, but is no
//! undefined behaviour, because arena objects are never unmapped.

use core::fmt;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use crate::slab::Ref;

/// An atomic `Option<Ref<T>>`.
///
/// Stores release and loads acquire, so whoever reaches an object through a
/// link sees it as it was when it was linked. On x86 that is free.
pub(crate) struct Link<T> {
    /// `Ref::as_usize`, or 0 for none.
    word: AtomicUsize,
    _refers_to: PhantomData<fn() -> Ref<T>>,
}

impl<T> Link<T> {
    /// The object linked to.
    #[inline(always)]
    pub(crate) fn get(&self) -> Option<Ref<T>> {
        match self.word.load(Ordering::Acquire) {
            0 => None,
            // SAFETY: `set` is all that writes the word, and it writes only 0
            // or what `as_usize` gave for a `Ref<T>`.
            word => Some(unsafe { Ref::from_usize(word) }),
        }
    }

    /// Links to `to`, or to nothing.
    #[inline(always)]
    pub(crate) fn set(&self, to: Option<Ref<T>>) {
        self.word.store(to.map_or(0, Ref::as_usize), Ordering::Release);
    }
}

impl<T> Default for Link<T> {
    fn default() -> Self {
        Link { word: AtomicUsize::new(0), _refers_to: PhantomData }
    }
}

impl<T> fmt::Debug for Link<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.word.load(Ordering::Relaxed))
    }
}

/// What a node carries for each tree it can be in.
pub(crate) struct Links<T> {
    left: Link<T>,
    right: Link<T>,
    parent: Link<T>,
    /// Levels of the subtree, this node included; 0 when in no tree.
    height: AtomicU8,
}

impl<T> Links<T> {
    /// The root of the subtree before this node.
    #[inline(always)]
    pub(crate) fn left(&self) -> Option<Ref<T>> {
        self.left.get()
    }

    /// The root of the subtree after this node.
    #[inline(always)]
    pub(crate) fn right(&self) -> Option<Ref<T>> {
        self.right.get()
    }

    /// The node this one hangs from.
    #[inline(always)]
    pub(crate) fn parent(&self) -> Option<Ref<T>> {
        self.parent.get()
    }

    /// Makes it the links of a node in no tree.
    pub(crate) fn reset(&self) {
        self.left.set(None);
        self.right.set(None);
        self.parent.set(None);
        self.set_height(0);
    }

    fn height(&self) -> u8 {
        self.height.load(Ordering::Relaxed)
    }

    fn set_height(&self, height: u8) {
        self.height.store(height, Ordering::Relaxed);
    }
}

impl<T> Default for Links<T> {
    fn default() -> Self {
        Links { left: Link::default(), right: Link::default(), parent: Link::default(), height: AtomicU8::new(0) }
    }
}

/// Says where a node keeps its links and what its summary is.
pub(crate) trait Adapter {
    /// The objects in the tree.
    type Node: 'static;

    /// The links of `node` for this kind of tree.
    fn links(node: &Self::Node) -> &Links<Self::Node>;

    /// Computes the summary of `node` from its own data and its children's
    /// summaries. Returns whether it changed.
    fn summarize(node: &Self::Node) -> bool;

    /// Gives `to` the summary of `from`, whose place it takes.
    fn inherit(from: &Self::Node, to: &Self::Node);
}

/// On which side of its parent a node hangs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    /// Before it.
    Left,
    /// After it.
    Right,
}

/// The tree; see the module's documentation.
pub(crate) struct Avl<A: Adapter> {
    root: Link<A::Node>,
}

impl<A: Adapter> Default for Avl<A> {
    fn default() -> Self {
        Avl { root: Link::default() }
    }
}

type Node<A> = Ref<<A as Adapter>::Node>;

impl<A: Adapter> Avl<A> {
    /// The topmost node.
    #[inline(always)]
    pub(crate) fn root(&self) -> Option<Node<A>> {
        self.root.get()
    }

    /// Whether there is no node.
    pub(crate) fn is_empty(&self) -> bool {
        self.root().is_none()
    }

    /// Puts `node` where `parent` has no child on that `side`, or at the top
    /// of an empty tree.
    pub(crate) fn insert_at(&self, node: Node<A>, parent: Option<(Node<A>, Side)>) {
        let links = A::links(&node);
        debug_assert_eq!(links.height(), 0, "the node is in a tree already");
        links.left.set(None);
        links.right.set(None);
        links.parent.set(parent.map(|(parent, _)| parent));
        links.set_height(1);
        A::summarize(&node);
        match parent {
            None => {
                debug_assert!(self.is_empty());
                self.root.set(Some(node));
            }
            Some((above, side)) => {
                let slot = Self::child(&above, side);
                debug_assert!(slot.get().is_none(), "the place is taken");
                slot.set(Some(node));
                self.refresh(above);
                self.retrace(above);
            }
        }
    }

    /// Takes `node`, which is in this tree, out of it.
    pub(crate) fn remove(&self, node: Node<A>) {
        let links = A::links(&node);
        debug_assert_ne!(links.height(), 0, "the node is in no tree");
        let parent = links.parent();
        let lowest = match (links.left(), links.right()) {
            (None, only) | (only, None) => {
                self.replace(node, parent, only);
                parent
            }
            (Some(left), Some(right)) => {
                // The next node in order, which has no left child, takes its place.
                let heir = Self::leftmost(right);
                let heir_links = A::links(&heir);
                let lowest = if heir == right {
                    heir
                } else {
                    let above = heir_links.parent().unwrap_or(right);
                    let orphan = heir_links.right();
                    A::links(&above).left.set(orphan);
                    Self::set_parent(orphan, Some(above));
                    heir_links.right.set(Some(right));
                    Self::set_parent(Some(right), Some(heir));
                    above
                };
                heir_links.left.set(Some(left));
                Self::set_parent(Some(left), Some(heir));
                self.replace(node, parent, Some(heir));
                // What those above the place know of it, before it changes.
                heir_links.set_height(links.height());
                A::inherit(&node, &heir);
                self.refresh(heir);
                Some(lowest)
            }
        };
        if let Some(lowest) = lowest {
            self.refresh(lowest);
            self.retrace(lowest);
        }
        links.reset();
    }

    /// Empties the tree. The nodes are left as they are; see [`Links::reset`].
    pub(crate) fn clear(&self) {
        self.root.set(None);
    }

    /// Makes the summaries right again after `node`'s own data has changed.
    #[inline]
    pub(crate) fn refresh(&self, node: Node<A>) {
        let mut at = Some(node);
        while let Some(node) = at {
            if !A::summarize(&node) {
                return;
            }
            at = A::links(&node).parent();
        }
    }

    /// Walks up from `from` and restores heights and balance, until a height
    /// has not changed. All summaries are right, and stay so.
    fn retrace(&self, from: Node<A>) {
        let mut at = Some(from);
        while let Some(node) = at {
            let links = A::links(&node);
            let before = links.height();
            let left = Self::height_of(links.left());
            let right = Self::height_of(links.right());
            let (top, height) = if left > right + 1 {
                let top = self.raise_left(node);
                (top, A::links(&top).height())
            } else if right > left + 1 {
                let top = self.raise_right(node);
                (top, A::links(&top).height())
            } else {
                let height = left.max(right) + 1;
                links.set_height(height);
                (node, height)
            };
            if height == before {
                return;
            }
            at = A::links(&top).parent();
        }
    }

    /// Rebalances `node`, whose left subtree is too high; returns what is on
    /// top now.
    fn raise_left(&self, node: Node<A>) -> Node<A> {
        let Some(left) = A::links(&node).left() else {
            return node;
        };
        let below = A::links(&left);
        if Self::height_of(below.left()) < Self::height_of(below.right()) {
            self.rotate(left, Side::Left);
        }
        self.rotate(node, Side::Right)
    }

    /// The mirror image of [`Self::raise_left`].
    fn raise_right(&self, node: Node<A>) -> Node<A> {
        let Some(right) = A::links(&node).right() else {
            return node;
        };
        let below = A::links(&right);
        if Self::height_of(below.right()) < Self::height_of(below.left()) {
            self.rotate(right, Side::Right);
        }
        self.rotate(node, Side::Left)
    }

    /// Moves `node` down to the `side` and its child of the other side up into
    /// its place; returns that child.
    ///
    /// ```text
    ///       node                 up
    ///      /    \    Right      /  \
    ///     up     c   ----->    a    node
    ///    /  \                      /    \
    ///   a    b                    b      c
    /// ```
    fn rotate(&self, node: Node<A>, side: Side) -> Node<A> {
        let other = match side {
            Side::Left => Side::Right,
            Side::Right => Side::Left,
        };
        let Some(up) = Self::child(&node, other).get() else {
            return node;
        };
        let parent = A::links(&node).parent();
        let middle = Self::child(&up, side).get();
        Self::child(&node, other).set(middle);
        Self::set_parent(middle, Some(node));
        self.replace(node, parent, Some(up));
        Self::child(&up, side).set(Some(node));
        A::links(&node).parent.set(Some(up));
        A::inherit(&node, &up);
        A::summarize(&node);
        Self::update_height(&node);
        Self::update_height(&up);
        up
    }

    /// Hangs `new` from `parent` in place of `old`.
    fn replace(&self, old: Node<A>, parent: Option<Node<A>>, new: Option<Node<A>>) {
        match parent {
            None => self.root.set(new),
            Some(parent) => {
                let links = A::links(&parent);
                if links.left() == Some(old) {
                    links.left.set(new);
                } else {
                    links.right.set(new);
                }
            }
        }
        Self::set_parent(new, parent);
    }

    fn update_height(node: &A::Node) {
        let links = A::links(node);
        let (left, right) = (Self::height_of(links.left()), Self::height_of(links.right()));
        links.set_height(left.max(right) + 1);
    }

    fn leftmost(mut node: Node<A>) -> Node<A> {
        while let Some(left) = A::links(&node).left() {
            node = left;
        }
        node
    }

    fn child(node: &A::Node, side: Side) -> &Link<A::Node> {
        match side {
            Side::Left => &A::links(node).left,
            Side::Right => &A::links(node).right,
        }
    }

    fn set_parent(node: Option<Node<A>>, parent: Option<Node<A>>) {
        if let Some(node) = node {
            A::links(&node).parent.set(parent);
        }
    }

    #[inline(always)]
    fn height_of(node: Option<Node<A>>) -> u8 {
        node.map_or(0, |node| A::links(&node).height())
    }
}

impl<A: Adapter> Avl<A> {
    /// The first node in order.
    pub(crate) fn first(&self) -> Option<Node<A>> {
        self.root().map(Self::leftmost)
    }

    /// The node after `node` in order.
    pub(crate) fn next(node: Node<A>) -> Option<Node<A>> {
        if let Some(right) = A::links(&node).right() {
            return Some(Self::leftmost(right));
        }
        let mut below = node;
        while let Some(above) = A::links(&below).parent() {
            if A::links(&above).right() != Some(below) {
                return Some(above);
            }
            below = above;
        }
        None
    }

    /// Checks links, heights and summaries of the whole tree, and that `count`
    /// nodes are in it. For checks: it visits every node,
    /// recursively.
    pub(crate) fn verify(&self, count: usize) {
        if let Some(root) = self.root() {
            assert_eq!(A::links(&root).parent(), None, "the root hangs from a node");
        }
        assert_eq!(Self::verify_below(self.root()).1, count, "nodes in the tree");
    }

    /// Returns height and number of nodes.
    fn verify_below(node: Option<Node<A>>) -> (u8, usize) {
        let Some(node) = node else { return (0, 0) };
        let links = A::links(&node);
        for child in [links.left(), links.right()].into_iter().flatten() {
            assert_eq!(A::links(&child).parent(), Some(node), "a child does not know its parent");
        }
        let (left, left_count) = Self::verify_below(links.left());
        let (right, right_count) = Self::verify_below(links.right());
        assert!(left.abs_diff(right) <= 1, "out of balance: {left} and {right}");
        assert_eq!(links.height(), left.max(right) + 1, "wrong height");
        assert!(!A::summarize(&node), "a summary was out of date");
        (links.height(), left_count + right_count + 1)
    }
}
