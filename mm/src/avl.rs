//! An intrusive balanced tree over objects of an arena.
//!
//! The VMAs of an address space by address and the VMAs of an `AnonVma` by
//! page index are both kept in one. The links live in the objects, so putting
//! one in or taking one out allocates nothing and cannot fail. Every node
//! carries a *summary* of its subtree (the largest gap, the last page index)
//! that the tree keeps exact; what it is, an [`Adapter`] says.
//!
//! It is a *weak AVL tree* (Haeupler, Sen, Tarjan: "Rank-Balanced Trees", 2015).
//! One that only grows is an AVL tree. But where an AVL tree may have to
//! change all nodes on the way to the root each time a node comes and goes, a
//! weak one changes a few, whatever the order of insertions and removals.
//!
//! What always holds between two calls, where the rank of "no node" is 0:
//! - a node's rank is larger by 1 or 2 than those of its children;
//! - a node without children has rank 1;
//! - a node's summary follows from its own data and its children's summaries;
//! - a node that is in no tree has rank 0.
//!
//! So a tree of `n` nodes is at most `2 log2 n` high.
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
use crate::sync::point;

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
        point();
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
    /// The roots of the subtrees before and after it, by [`Side`].
    children: [Link<T>; 2],
    parent: Link<T>,
    /// 0 when in no tree.
    rank: AtomicU8,
}

impl<T> Links<T> {
    /// The root of the subtree before this node.
    #[inline(always)]
    pub(crate) fn left(&self) -> Option<Ref<T>> {
        self.children[Side::Left as usize].get()
    }

    /// The root of the subtree after this node.
    #[inline(always)]
    pub(crate) fn right(&self) -> Option<Ref<T>> {
        self.children[Side::Right as usize].get()
    }

    /// The node this one hangs from.
    #[inline(always)]
    pub(crate) fn parent(&self) -> Option<Ref<T>> {
        self.parent.get()
    }

    /// Makes it the links of a node in no tree.
    #[inline]
    pub(crate) fn reset(&self) {
        self.children[0].set(None);
        self.children[1].set(None);
        self.parent.set(None);
        self.set_rank(0);
    }

    #[inline(always)]
    fn child(&self, side: Side) -> &Link<T> {
        &self.children[side as usize]
    }

    #[inline(always)]
    fn rank(&self) -> u8 {
        self.rank.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn set_rank(&self, rank: u8) {
        self.rank.store(rank, Ordering::Relaxed);
    }

    fn is_leaf(&self) -> bool {
        self.left().is_none() && self.right().is_none()
    }
}

impl<T> Default for Links<T> {
    fn default() -> Self {
        Links { children: [Link::default(), Link::default()], parent: Link::default(), rank: AtomicU8::new(0) }
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
    Left = 0,
    /// After it.
    Right = 1,
}

impl Side {
    #[inline(always)]
    fn other(self) -> Side {
        match self {
            Side::Left => Side::Right,
            Side::Right => Side::Left,
        }
    }
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
        debug_assert_eq!(links.rank(), 0, "the node is in a tree already");
        links.children[0].set(None);
        links.children[1].set(None);
        links.parent.set(parent.map(|(parent, _)| parent));
        links.set_rank(1);
        A::summarize(&node);
        match parent {
            None => {
                debug_assert!(self.is_empty());
                self.root.set(Some(node));
            }
            Some((above, side)) => {
                let place = A::links(&above).child(side);
                debug_assert!(place.get().is_none(), "the place is taken");
                place.set(Some(node));
                self.refresh(above);
                // If it had a child, its rank is 2 already.
                if A::links(&above).rank() == 1 {
                    self.balance_raised(node, above, side);
                }
            }
        }
    }

    /// Takes `node`, which is in this tree, out of it. With it the own data of
    /// another node, `changed`, may have changed.
    pub(crate) fn remove(&self, node: Node<A>, changed: Option<Node<A>>) {
        let links = A::links(&node);
        debug_assert_ne!(links.rank(), 0, "the node is in no tree");
        let parent = links.parent();
        // From where on summaries and ranks may be wrong, and on which side.
        let lowest = match (links.left(), links.right()) {
            (None, only) | (only, None) => {
                let side = self.replace(node, parent, only);
                parent.map(|parent| (parent, side))
            }
            (Some(left), Some(right)) => {
                // The next node in order, which has no left child, takes its place.
                let heir = Self::leftmost(right);
                let heir_links = A::links(&heir);
                let lowest = if heir == right {
                    (heir, Side::Right)
                } else {
                    let above = heir_links.parent().unwrap_or(right);
                    let orphan = heir_links.right();
                    A::links(&above).child(Side::Left).set(orphan);
                    Self::set_parent(orphan, Some(above));
                    heir_links.child(Side::Right).set(Some(right));
                    Self::set_parent(Some(right), Some(heir));
                    (above, Side::Left)
                };
                heir_links.child(Side::Left).set(Some(left));
                Self::set_parent(Some(left), Some(heir));
                self.replace(node, parent, Some(heir));
                // What those above the place know of it, before it changes.
                heir_links.set_rank(links.rank());
                A::inherit(&node, &heir);
                self.refresh(heir);
                Some(lowest)
            }
        };
        if let Some((lowest, _)) = lowest {
            self.refresh(lowest);
        }
        if let Some(changed) = changed {
            self.refresh(changed);
        }
        if let Some((lowest, side)) = lowest {
            self.balance_lowered(lowest, side);
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

    /// Restores the ranks after that of `node`, the child of `above` on that
    /// `side`, has grown to the rank of `above`. All summaries are right, and
    /// stay so.
    fn balance_raised(&self, mut node: Node<A>, mut above: Node<A>, mut side: Side) {
        loop {
            let high = A::links(&above);
            let rank = high.rank();
            if rank - Self::rank_of(high.child(side.other()).get()) > 1 {
                break;
            }
            high.set_rank(rank + 1);
            node = above;
            above = match A::links(&node).parent() {
                Some(parent) if A::links(&parent).rank() == rank + 1 => parent,
                _ => return,
            };
            side = Self::side_of(node, above);
        }
        let (low, high) = (A::links(&node), A::links(&above));
        let rank = low.rank();
        match low.child(side.other()).get() {
            Some(inner) if A::links(&inner).rank() + 1 == rank => {
                self.rotate(node, inner);
                self.rotate(above, inner);
                A::links(&inner).set_rank(rank);
                low.set_rank(rank - 1);
            }
            _ => self.rotate(above, node),
        }
        high.set_rank(rank - 1);
    }

    /// Restores the ranks after that of the subtree on `side` of `above` has
    /// fallen. All summaries are right, and stay so.
    fn balance_lowered(&self, mut above: Node<A>, mut side: Side) {
        loop {
            let high = A::links(&above);
            let rank = high.rank();
            let lowered = if rank == 2 && high.is_leaf() {
                1
            } else if rank - Self::rank_of(high.child(side).get()) < 3 {
                return;
            } else if self.lower_other(above, side) {
                rank - 1
            } else {
                return;
            };
            high.set_rank(lowered);
            let Some(parent) = high.parent() else { return };
            side = Self::side_of(above, parent);
            above = parent;
        }
    }

    /// Makes the rank of the subtree that is not on `side` of `above` fit a rank
    /// of `above` that is lower by one. If it cannot be lowered, rotates, after
    /// which all is well, and returns `false`.
    fn lower_other(&self, above: Node<A>, side: Side) -> bool {
        let high = A::links(&above);
        let rank = high.rank();
        let Some(sibling) = high.child(side.other()).get() else {
            return true;
        };
        let links = A::links(&sibling);
        if links.rank() + 2 == rank {
            return true;
        }
        let (inner, outer) = (links.child(side).get(), links.child(side.other()).get());
        if Self::rank_of(outer) + 2 == rank {
            self.rotate(above, sibling);
            links.set_rank(rank);
            high.set_rank(if high.is_leaf() { 1 } else { rank - 1 });
            return false;
        }
        match inner {
            Some(inner) if A::links(&inner).rank() + 2 == rank => {
                self.rotate(sibling, inner);
                self.rotate(above, inner);
                A::links(&inner).set_rank(rank);
                links.set_rank(rank - 2);
                high.set_rank(rank - 2);
                false
            }
            _ => {
                links.set_rank(rank - 2);
                true
            }
        }
    }

    /// Moves `up`, a child of `node`, into its place, and `node` down to the
    /// other side. Ranks are the caller's matter.
    ///
    /// ```text
    ///       node                 up
    ///      /    \               /  \
    ///     up     c   ----->    a    node
    ///    /  \                      /    \
    ///   a    b                    b      c
    /// ```
    fn rotate(&self, node: Node<A>, up: Node<A>) {
        let side = Self::side_of(up, node);
        let parent = A::links(&node).parent();
        let middle = A::links(&up).child(side.other()).get();
        A::links(&node).child(side).set(middle);
        Self::set_parent(middle, Some(node));
        self.replace(node, parent, Some(up));
        A::links(&up).child(side.other()).set(Some(node));
        A::links(&node).parent.set(Some(up));
        A::inherit(&node, &up);
        A::summarize(&node);
    }

    /// Hangs `new` from `parent` in place of `old`; returns on which side.
    fn replace(&self, old: Node<A>, parent: Option<Node<A>>, new: Option<Node<A>>) -> Side {
        Self::set_parent(new, parent);
        match parent {
            None => {
                self.root.set(new);
                Side::Left
            }
            Some(parent) => {
                let side = Self::side_of(old, parent);
                A::links(&parent).child(side).set(new);
                side
            }
        }
    }

    /// On which side of `parent` its child `node` is.
    #[inline(always)]
    fn side_of(node: Node<A>, parent: Node<A>) -> Side {
        if A::links(&parent).left() == Some(node) { Side::Left } else { Side::Right }
    }

    fn leftmost(mut node: Node<A>) -> Node<A> {
        while let Some(left) = A::links(&node).left() {
            node = left;
        }
        node
    }

    fn set_parent(node: Option<Node<A>>, parent: Option<Node<A>>) {
        if let Some(node) = node {
            A::links(&node).parent.set(parent);
        }
    }

    #[inline(always)]
    fn rank_of(node: Option<Node<A>>) -> u8 {
        node.map_or(0, |node| A::links(&node).rank())
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

    /// Checks links, ranks and summaries of the whole tree, and that `count`
    /// nodes are in it. For checks: it visits every node,
    /// recursively.
    pub(crate) fn verify(&self, count: usize) {
        if let Some(root) = self.root() {
            assert_eq!(A::links(&root).parent(), None, "the root hangs from a node");
        }
        assert_eq!(Self::verify_below(self.root()), count, "nodes in the tree");
    }

    /// Returns the number of nodes.
    fn verify_below(node: Option<Node<A>>) -> usize {
        let Some(node) = node else { return 0 };
        let links = A::links(&node);
        let mut count = 1;
        for child in [links.left(), links.right()] {
            if let Some(child) = child {
                assert_eq!(A::links(&child).parent(), Some(node), "a child does not know its parent");
            }
            let (rank, below) = (links.rank(), Self::rank_of(child));
            assert!(below < rank && rank <= below + 2, "out of balance: {below} below {rank}");
            count += Self::verify_below(child);
        }
        assert!(!links.is_leaf() || links.rank() == 1, "rank {} without a child", links.rank());
        assert!(!A::summarize(&node), "a summary was out of date");
        count
    }
}
