//! The VMAs of one address space, in the order of their addresses.
//!
//! A balanced tree for look-ups, threaded with a list for neighbours. Every
//! node knows the gap before it and the largest gap in its subtree, so that
//! free space is found in as many steps as the tree is high (`gap.rs`).

use core::sync::atomic::{AtomicUsize, Ordering};

use super::Vma;
use crate::addr::PageRange;
use crate::avl::{Adapter, Avl, Link, Links, Side};
use crate::flags::VmaFlags;
use crate::slab::Ref;
use crate::space::SpaceCore;

/// See the module's documentation.
pub(crate) struct ByAddress;

impl Adapter for ByAddress {
    type Node = Vma;

    #[inline(always)]
    fn links(node: &Vma) -> &Links<Vma> {
        &node.links
    }

    #[inline]
    fn summarize(node: &Vma) -> bool {
        let mut max = node.gap();
        if let Some(left) = node.links.left() {
            max = max.max(left.max_gap());
        }
        if let Some(right) = node.links.right() {
            max = max.max(right.max_gap());
        }
        let changed = max != node.max_gap();
        node.max_gap.store(max, Ordering::Relaxed);
        changed
    }

    fn inherit(from: &Vma, to: &Vma) {
        to.max_gap.store(from.max_gap(), Ordering::Relaxed);
    }
}

impl Vma {
    #[inline(always)]
    pub(super) fn gap(&self) -> usize {
        self.gap.load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(super) fn max_gap(&self) -> usize {
        self.max_gap.load(Ordering::Relaxed)
    }
}

/// The VMAs of one address space.
///
/// Whoever has it mutably is the only writer (holds the mmap lock for writing).
/// Every change of a VMA locks it first, but where the lock of an anon_vma's
/// root must be held for the change, which comes after: then it is for the
/// caller to lock the VMA before that.
#[derive(Default)]
pub(crate) struct VmaTree {
    tree: Avl<ByAddress>,
    first: Link<Vma>,
    last: Link<Vma>,
    len: AtomicUsize,
    /// The number of the current section of writing, see [`VmaLock`](crate::sync::VmaLock).
    section: u64,
}

impl VmaTree {
    /// The first VMA that ends after `addr`: the one that contains it, or else
    /// the next one above.
    pub(crate) fn find(&self, addr: usize) -> Option<Ref<Vma>> {
        let mut found = None;
        let mut at = self.tree.root();
        while let Some(vma) = at {
            if addr < vma.end() {
                found = at;
                at = vma.links.left();
            } else {
                at = vma.links.right();
            }
        }
        found
    }

    /// The VMA that contains `addr`.
    #[inline]
    pub(crate) fn lookup(&self, addr: usize) -> Option<Ref<Vma>> {
        self.find(addr).filter(|vma| vma.start() <= addr)
    }

    /// The VMA with the lowest addresses.
    pub(crate) fn first(&self) -> Option<Ref<Vma>> {
        self.first.get()
    }

    /// The VMA with the highest addresses.
    pub(crate) fn last(&self) -> Option<Ref<Vma>> {
        self.last.get()
    }

    /// The VMA before `vma`; the last one of all before `None`.
    #[inline]
    pub(crate) fn before(&self, vma: Option<Ref<Vma>>) -> Option<Ref<Vma>> {
        match vma {
            Some(vma) => vma.prev(),
            None => self.last(),
        }
    }

    /// The VMAs that have a byte in `start..end`, in ascending order. The
    /// step to the next one is made before a VMA is handed out, so it may be
    /// removed meanwhile.
    pub(crate) fn overlapping(&self, start: usize, end: usize) -> impl Iterator<Item = Ref<Vma>> + use<> {
        let mut at = self.find(start);
        core::iter::from_fn(move || {
            let vma = at.filter(|vma| vma.start() < end)?;
            at = vma.next();
            Some(vma)
        })
    }

    /// Whether some VMA has a page in `range`.
    pub(crate) fn overlaps(&self, range: PageRange) -> bool {
        !range.is_empty() && self.find(range.start()).is_some_and(|vma| vma.start() < range.end())
    }

    /// All VMAs in ascending order; see [`VmaTree::overlapping`].
    pub(crate) fn iter(&self) -> impl Iterator<Item = Ref<Vma>> + use<> {
        self.overlapping(0, usize::MAX)
    }

    /// The number of VMAs (Linux's `map_count`).
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Keeps faults out of `vma` until the section is over, and waits for those
    /// that are in it: to be done before anything of it changes, and before its
    /// pages or page tables are taken away as if nobody else were there.
    #[inline]
    pub(crate) fn lock_vma(&mut self, vma: Ref<Vma>) {
        vma.lock.write(self.section, || SpaceCore::of(&vma));
    }

    /// Whether faults are kept out of `vma`.
    #[inline]
    pub(crate) fn is_locked(&self, vma: Ref<Vma>) -> bool {
        vma.lock.is_written_in(self.section)
    }

    /// The number of the current section.
    #[inline]
    pub(super) fn section(&self) -> u64 {
        self.section
    }

    /// Begins the next section: no VMA is locked any more as far as the caller is
    /// concerned. Returns its number.
    #[inline]
    pub(super) fn next_section(&mut self) -> u64 {
        self.section += 1;
        self.section
    }

    /// Puts in `vma` between two neighbours.
    pub(super) fn insert_between(&mut self, prev: Option<Ref<Vma>>, next: Option<Ref<Vma>>, vma: Ref<Vma>) {
        debug_assert!(vma.start() < vma.end());
        debug_assert!(self.is_locked(vma), "put in with faults in it");
        debug_assert!(prev.is_none_or(|prev| prev.end() <= vma.start()), "overlaps the previous VMA");
        debug_assert!(next.is_none_or(|next| vma.end() <= next.start()), "overlaps the next VMA");
        vma.prev.set(prev);
        vma.next.set(next);
        match prev {
            Some(prev) => prev.next.set(Some(vma)),
            None => self.first.set(Some(vma)),
        }
        match next {
            Some(next) => next.prev.set(Some(vma)),
            None => self.last.set(Some(vma)),
        }
        vma.gap.store(gap_before(&vma), Ordering::Relaxed);
        // Of two neighbours in order, one is below the other in the tree, and
        // has no child on the side of the other.
        let place = match (prev, next) {
            (Some(prev), _) if prev.links.right().is_none() => Some((prev, Side::Right)),
            (_, Some(next)) => Some((next, Side::Left)),
            (_, None) => None,
        };
        self.tree.insert_at(vma, place);
        self.update_gap(next);
        self.len.store(self.len() + 1, Ordering::Relaxed);
        vma.store_attached(true);
    }

    /// Takes out `vma`, which is in this tree. It keeps its links to the
    /// neighbours it had; they no longer know of it.
    pub(crate) fn remove(&mut self, vma: Ref<Vma>) {
        debug_assert!(vma.is_attached());
        self.lock_vma(vma);
        vma.store_attached(false);
        let (prev, next) = (vma.prev(), vma.next());
        match prev {
            Some(prev) => prev.next.set(next),
            None => self.first.set(next),
        }
        match next {
            Some(next) => {
                next.prev.set(prev);
                next.gap.store(gap_before(&next), Ordering::Relaxed);
            }
            None => self.last.set(prev),
        }
        self.tree.remove(vma, next);
        self.len.store(self.len() - 1, Ordering::Relaxed);
    }

    /// Moves `vma` to `range`, which overlaps no other VMA, and lets its pages
    /// start at the index `pgoff`. `next` is the first VMA that ends after the
    /// start of `range`.
    pub(super) fn relocate(&mut self, vma: Ref<Vma>, range: PageRange, pgoff: usize, next: Option<Ref<Vma>>) {
        if next == Some(vma) || next == vma.next() {
            // It passes no other VMA.
            self.lock_vma(vma);
            vma.set_place(range.start(), range.end(), pgoff);
            self.update_gaps_around(vma);
            return;
        }
        self.remove(vma);
        vma.set_place(range.start(), range.end(), pgoff);
        self.insert_between(self.before(next), next, vma);
    }

    /// Takes out all VMAs at once, and calls `f` with each. Nobody else uses the
    /// address space any more.
    pub(super) fn remove_all(&mut self, mut f: impl FnMut(Ref<Vma>)) {
        let mut at = self.first();
        self.tree.clear();
        self.first.set(None);
        self.last.set(None);
        self.len.store(0, Ordering::Relaxed);
        while let Some(vma) = at {
            at = vma.next();
            vma.links.reset();
            vma.store_attached(false);
            f(vma);
        }
    }

    /// Changes the bounds of `vma`. The pages that stay keep their page index.
    pub(super) fn set_bounds(&mut self, vma: Ref<Vma>, start: usize, end: usize) {
        debug_assert!(start < end);
        debug_assert!(vma.prev().is_none_or(|prev| prev.end() <= start), "into the previous VMA");
        debug_assert!(vma.next().is_none_or(|next| end <= next.start()), "into the next VMA");
        self.lock_vma(vma);
        vma.move_bounds(start, end);
        self.update_gaps_around(vma);
    }

    /// Makes the gaps on both sides of `vma` right again, after its bounds, or
    /// those of its neighbours, have changed.
    pub(super) fn update_gaps_around(&mut self, vma: Ref<Vma>) {
        self.update_gap(Some(vma));
        self.update_gap(vma.next());
    }

    /// Changes the flags of `vma`.
    pub(crate) fn set_flags(&mut self, vma: Ref<Vma>, flags: VmaFlags) {
        self.lock_vma(vma);
        vma.store_flags(flags);
    }

    /// Makes the gap before `vma` right again, after that or the VMA before it
    /// has changed.
    fn update_gap(&mut self, vma: Option<Ref<Vma>>) {
        let Some(vma) = vma else { return };
        let gap = gap_before(&vma);
        if gap != vma.gap() {
            vma.gap.store(gap, Ordering::Relaxed);
            self.tree.refresh(vma);
        }
    }

    pub(super) fn root(&self) -> Option<Ref<Vma>> {
        self.tree.root()
    }
}

/// Bytes that are free before `vma`.
fn gap_before(vma: &Vma) -> usize {
    let free_from = vma.prev().map_or(0, |prev| prev.end());
    // In the middle of a change the previous one may reach further for a moment.
    vma.start().saturating_sub(free_from)
}

impl VmaTree {
    /// Checks everything that is to hold for the tree, but nothing of `rmap`.
    ///
    /// # Panics
    ///
    /// When something does not hold.
    pub(crate) fn verify(&self) {
        self.tree.verify(self.len());
        assert_eq!(self.first(), self.tree.first(), "first VMA");
        let mut prev = None;
        let mut at = self.first();
        let mut count = 0;
        while let Some(vma) = at {
            assert!(vma.is_attached(), "{vma:?} is marked as detached");
            assert!(vma.start() < vma.end(), "{vma:?} is empty");
            assert_eq!(vma.prev(), prev, "previous of {vma:?}");
            assert!(prev.is_none_or(|prev| prev.end() <= vma.start()), "{prev:?} overlaps {vma:?}");
            assert_eq!(vma.gap(), gap_before(&vma), "gap before {vma:?}");
            assert_eq!(Avl::<ByAddress>::next(vma), vma.next(), "next of {vma:?}");
            count += 1;
            prev = at;
            at = vma.next();
        }
        assert_eq!(self.last(), prev, "last VMA");
        assert_eq!(count, self.len(), "number of VMAs");
    }
}
