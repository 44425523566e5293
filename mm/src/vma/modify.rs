//! Changing VMAs that are there: attributes of a range, splits, bounds.

use super::map::{create, free_merged};
use super::merge::{Candidate, Fit, Growth, chain_for, soft_dirty};
use super::spares::Needs;
use super::{Attributes, Spares, Vma, VmaTree};
use crate::addr::PageRange;
use crate::flags::VmaFlags;
use crate::memory::Memory;
use crate::object::MappingsLock;
use crate::platform::Platform;
use crate::rmap::{self, AnonVma, RootLock};
use crate::slab::Ref;

/// What [`VmaTree::plan_modify`] has decided. Good until the tree changes.
#[derive(Clone, Copy)]
pub(crate) struct ModifyPlan {
    vma: Ref<Vma>,
    range: PageRange,
    flags: VmaFlags,
    name: u32,
    fit: Fit,
}

impl VmaTree {
    /// Decides how to give `range`, all of which is in `vma`, other flags and
    /// another name: by making it part of a neighbour, or else by splitting
    /// off what is before and after.
    pub(crate) fn plan_modify(&self, vma: Ref<Vma>, range: PageRange, flags: VmaFlags, name: u32) -> ModifyPlan {
        self.plan_modify_beside(vma, range, flags, name, None)
    }

    /// Decides how to make `vma` part of its neighbours, but not of `other`. The commit
    /// draws nothing.
    pub(crate) fn plan_merge(&self, vma: Ref<Vma>, other: Option<Ref<Vma>>) -> ModifyPlan {
        self.plan_modify_beside(vma, vma.range(), vma.flags(), vma.name(), other)
    }

    #[inline]
    fn plan_modify_beside(
        &self,
        vma: Ref<Vma>,
        range: PageRange,
        flags: VmaFlags,
        name: u32,
        other: Option<Ref<Vma>>,
    ) -> ModifyPlan {
        debug_assert!(vma.start() <= range.start() && range.end() <= vma.end() && !range.is_empty());
        let at_start = range.start() == vma.start();
        let at_end = range.end() == vma.end();
        let fit = if at_start || at_end {
            let candidate = Candidate {
                range,
                pgoff: vma.index_of(range.start()),
                attributes: Attributes { flags, name, object: vma.object() },
                pages_of: Some(vma),
                grows: false,
            };
            let allowed = |vma: &Ref<Vma>| other != Some(*vma);
            candidate
                .fit(vma.prev().filter(|_| at_start).filter(allowed), vma.next().filter(|_| at_end).filter(allowed))
        } else {
            Fit::Neither
        };
        ModifyPlan { vma, range, flags, name, fit }
    }

    /// Splits `vma` at `addr`, which is inside it. It keeps what is below;
    /// returns the VMA that has the rest. Draws [`Needs::split`].
    pub(crate) fn split<P: Platform>(
        &mut self,
        memory: &Memory<P>,
        vma: Ref<Vma>,
        addr: usize,
        spares: &mut Spares,
    ) -> Ref<Vma> {
        self.lock_vma(vma);
        let object = vma.object();
        let mappings = object.as_ref().map(|object| object.lock_mappings());
        let root = vma.anon_vma().map(AnonVma::root);
        let lock = root.as_ref().map(|root| root.lock());
        let upper = self.split_off(memory, vma, addr, (mappings.as_ref(), lock.as_ref()), spares);
        index_again(vma, (mappings.as_ref(), lock.as_ref()));
        upper
    }

    /// [`split`](Self::split), but `vma`, which is locked, keeps its old place in the
    /// trees of its object and its anon_vmas.
    fn split_off<P: Platform>(
        &mut self,
        memory: &Memory<P>,
        vma: Ref<Vma>,
        addr: usize,
        (mappings, lock): (Option<&MappingsLock>, Option<&RootLock>),
        spares: &mut Spares,
    ) -> Ref<Vma> {
        let (start, end) = (vma.start(), vma.end());
        debug_assert!(start < addr && addr < end);
        debug_assert!(self.is_locked(vma), "split with faults in it");
        let rest = PageRange::new(addr, end).unwrap_or(PageRange::EMPTY);
        let attributes = vma.attributes();
        let upper = create(self, memory, spares, rest, vma.index_of(addr), &attributes, vma.space());
        // No gap changes: the new VMA is where the old one was.
        vma.move_bounds(start, addr);
        self.insert_between(Some(vma), vma.next(), upper);
        if let Some(mappings) = mappings {
            mappings.insert(upper);
        }
        if let Some(lock) = lock {
            rmap::copy_chain(lock, spares, vma, upper);
        }
        upper
    }

    /// Cuts `vma` down to `start..end`. No page is mapped in what it loses.
    pub(crate) fn cut(&mut self, vma: Ref<Vma>, start: usize, end: usize) {
        debug_assert!(vma.start() <= start && end <= vma.end());
        if let Some(range) = PageRange::new(start, end) {
            self.resize(vma, range);
        }
    }

    /// Moves the bounds of `vma` to those of `range`, which overlaps no other
    /// VMA: it grows or shrinks at either end. Pages that it keeps keep their
    /// index; none is mapped that it loses.
    pub(crate) fn resize(&mut self, vma: Ref<Vma>, range: PageRange) {
        self.lock_vma(vma);
        let object = vma.object();
        let mappings = object.as_ref().map(|object| object.lock_mappings());
        let root = vma.anon_vma().map(AnonVma::root);
        let lock = root.as_ref().map(|root| root.lock());
        self.set_bounds(vma, range.start(), range.end());
        index_again(vma, (mappings.as_ref(), lock.as_ref()));
    }

    /// Moves `vma` to the addresses of `range`, which is as long and overlaps
    /// no other VMA, together with its pages: each keeps its index. For a stack
    /// that exec puts in its place.
    pub(crate) fn shift(&mut self, vma: Ref<Vma>, range: PageRange) {
        debug_assert_eq!(vma.range().len(), range.len());
        let pgoff = vma.pgoff();
        self.set_bounds(vma, range.start(), range.end());
        vma.set_place(range.start(), range.end(), pgoff);
    }

    /// Gives `vma`, which has no anon_vma and no object, another page index.
    pub(crate) fn rebase(&mut self, vma: Ref<Vma>, pgoff: usize) {
        debug_assert!(vma.anon_vma().is_none() && vma.object().is_none());
        self.lock_vma(vma);
        vma.set_place(vma.start(), vma.end(), pgoff);
    }
}

/// Puts `vma` in its right place in the trees that the locks are of.
fn index_again(vma: Ref<Vma>, (mappings, root): (Option<&MappingsLock>, Option<&RootLock>)) {
    if let Some(mappings) = mappings {
        mappings.update(vma);
    }
    if let Some(root) = root {
        rmap::index_again(root, vma);
    }
}

/// The growth of a neighbour (P or N) over the range (`*`) that is in `vma` (V).
///
/// ```text
///   Both            PPPP****NNNN  ->  PPPPPPPPPPPP
///   Prev, all of V  PPPP****      ->  PPPPPPPP
///   Prev, a part    PPPP**VV      ->  PPPPPPVV
///   Next, all of V      ****NNNN  ->      NNNNNNNN
///   Next, a part        VV**NNNN  ->      VVNNNNNN
/// ```
#[inline]
fn growth(vma: Ref<Vma>, range: PageRange, flags: VmaFlags, fit: Fit) -> Option<Growth> {
    let whole = range.start() == vma.start() && range.end() == vma.end();
    let (grows, start, end, goes, shrinks) = match fit {
        Fit::Neither => return None,
        Fit::Both(prev, next) => (prev, prev.start(), next.end(), [Some(vma), Some(next)], None),
        Fit::Prev(prev) if whole => (prev, prev.start(), range.end(), [Some(vma), None], None),
        Fit::Prev(prev) => {
            let rest = (vma, range.end(), vma.end());
            (prev, prev.start(), range.end(), [None, None], Some(rest))
        }
        Fit::Next(next) if whole => (next, range.start(), next.end(), [Some(vma), None], None),
        Fit::Next(next) => {
            let rest = (vma, vma.start(), range.start());
            (next, range.start(), next.end(), [None, None], Some(rest))
        }
    };
    let gone = goes.into_iter().flatten().fold(flags, |all, gone| all | gone.flags());
    Some(Growth {
        vma: grows,
        start,
        end,
        shrinks,
        goes,
        chain: chain_for(&grows, goes, shrinks.map(|(vma, ..)| vma)),
        soft_dirty: soft_dirty(gone),
    })
}

impl ModifyPlan {
    /// What the commit draws.
    pub(crate) fn needs(&self) -> Needs {
        if let Some(growth) = self.growth() {
            return Needs { vmas: 0, avcs: growth.chain.avcs(), anon_vmas: 0 };
        }
        Needs::cuts(self.vma, self.range)
    }

    /// Does it if it is no more than giving the whole VMA other flags and another
    /// name, which draws nothing and is worth a short way; returns the VMA then.
    #[inline]
    pub(crate) fn commit_in_place(&self, tree: &mut VmaTree) -> Option<Ref<Vma>> {
        (self.fit == Fit::Neither && self.cuts() == (false, false)).then(|| self.mark(tree, self.vma))
    }

    /// Gives `vma` the flags and the name.
    fn mark(&self, tree: &mut VmaTree, vma: Ref<Vma>) -> Ref<Vma> {
        tree.set_flags(vma, self.flags);
        vma.store_name(self.name);
        vma
    }

    fn growth(&self) -> Option<Growth> {
        growth(self.vma, self.range, self.flags, self.fit)
    }

    /// Whether something is to be split off before the range, and after it.
    fn cuts(&self) -> (bool, bool) {
        (self.vma.start() < self.range.start(), self.range.end() < self.vma.end())
    }

    /// Does it; returns the VMA that has the range now, and perhaps more. The
    /// objects drawn are at most [`ModifyPlan::needs`].
    pub(crate) fn commit<P: Platform>(&self, tree: &mut VmaTree, memory: &Memory<P>, spares: &mut Spares) -> Ref<Vma> {
        if let Some(growth) = self.growth() {
            growth.commit(tree, memory, spares);
            free_merged(memory, &growth);
            return growth.vma;
        }
        let (front, back) = self.cuts();
        let mut vma = self.vma;
        if front || back {
            tree.lock_vma(vma);
            let object = vma.object();
            let mappings = object.as_ref().map(|object| object.lock_mappings());
            let root = vma.anon_vma().map(AnonVma::root);
            let lock = root.as_ref().map(|root| root.lock());
            let locks = (mappings.as_ref(), lock.as_ref());
            if back {
                tree.split_off(memory, vma, self.range.end(), locks, spares);
            }
            if front {
                vma = tree.split_off(memory, vma, self.range.start(), locks, spares);
            }
            index_again(self.vma, locks);
        }
        self.mark(tree, vma)
    }
}
