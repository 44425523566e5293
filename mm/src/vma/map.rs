//! New VMAs, and how they go.

use super::merge::{Candidate, Fit, Growth, chain_for, soft_dirty};
use super::spares::Needs;
use super::{Attributes, Spares, Vma, VmaTree};
use crate::addr::{PAGE_SIZE, PageRange};
use crate::flags::VmaFlags;
use crate::memory::Memory;
use crate::object::{self, MappingsLock};
use crate::platform::Platform;
use crate::rmap::{self, AnonVma, RootLock};
use crate::slab::Ref;

/// A range that is to be mapped where nothing is.
#[derive(Clone, Copy)]
pub(crate) struct NewMapping {
    /// Where.
    pub(crate) range: PageRange,
    /// The page index of its first page.
    pub(crate) pgoff: usize,
    /// What it is. No reference to the object is passed along: a VMA that is
    /// made takes its own.
    pub(crate) attributes: Attributes,
    /// The VMA whose pages are to be moved there, which the new mapping is
    /// chained like.
    pub(crate) copied_from: Option<Ref<Vma>>,
    /// With what it may merge.
    pub(crate) merge: MergeWith,
    /// Goes to [`Vma::space`].
    pub(crate) space: usize,
}

/// With which neighbours a new mapping may merge.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum MergeWith {
    /// With all that fit.
    #[default]
    Any,
    /// With all but the VMA it is copied from, which is to stay
    /// (`MREMAP_DONTUNMAP`).
    NotSource,
    /// With the VMA it is copied from, which ends where it begins, and with all that fit.
    Growing,
    /// With none.
    Nothing,
}

/// What [`VmaTree::plan_map`] has decided. Good until the tree changes.
#[derive(Clone, Copy)]
pub(crate) struct MapPlan<'a> {
    new: &'a NewMapping,
    prev: Option<Ref<Vma>>,
    next: Option<Ref<Vma>>,
    fit: Fit,
}

impl NewMapping {
    fn may_merge_with(&self, vma: Ref<Vma>) -> bool {
        match self.merge {
            MergeWith::Any | MergeWith::Growing => true,
            MergeWith::NotSource => self.copied_from != Some(vma),
            MergeWith::Nothing => false,
        }
    }

    fn candidate(&self) -> Candidate {
        Candidate {
            range: self.range,
            pgoff: self.pgoff,
            attributes: self.attributes,
            pages_of: self.copied_from,
            grows: self.merge == MergeWith::Growing,
        }
    }
}

impl VmaTree {
    /// Decides how to map a range that overlaps no VMA.
    pub(crate) fn plan_map<'a>(&self, new: &'a NewMapping) -> MapPlan<'a> {
        self.plan_map_before(new, self.find(new.range.start()))
    }

    /// [`plan_map`](Self::plan_map) for a range of which it is known that `next` is
    /// the first VMA after it.
    #[inline]
    pub(crate) fn plan_map_before<'a>(&self, new: &'a NewMapping, next: Option<Ref<Vma>>) -> MapPlan<'a> {
        let prev = self.before(next);
        let allowed = |vma: &Ref<Vma>| new.may_merge_with(*vma);
        let fit = new.candidate().fit(prev.filter(allowed), next.filter(allowed));
        MapPlan { new, prev, next, fit }
    }

    /// Whether the range will merge when whatever is mapped in it, and in `gone`, has
    /// been unmapped.
    ///
    /// ```text
    ///   [vvvvvvvvvvvv]  [wwwwwwwww]
    ///           |--- new ---|          v's front and w's back are the neighbours then
    /// ```
    pub(crate) fn will_merge(&self, new: &NewMapping, gone: Option<PageRange>) -> bool {
        let (start, end) = (new.range.start(), new.range.end());
        let candidate = new.candidate();
        let fits = |at: usize, vma: &Ref<Vma>| {
            new.may_merge_with(*vma) && gone.is_none_or(|gone| !gone.contains(at)) && candidate.is_like(vma)
        };
        let before = start.checked_sub(PAGE_SIZE).and_then(|at| self.lookup(at).filter(|vma| fits(at, vma)));
        let after = self.lookup(end).filter(|vma| fits(end, vma));
        before.is_some_and(|vma| vma.index_of(start) == new.pgoff)
            || after.is_some_and(|vma| vma.index_of(end) == new.pgoff.wrapping_add(new.range.pages()))
    }

    /// Adds a copy of `parent`, a VMA of a process that forks, after all VMAs
    /// of the child's. It has the parent's attributes but for the `flags`, and
    /// no anon_vma if it is wiped on fork. Draws [`Needs::fork`].
    pub(crate) fn append_fork<P: Platform>(
        &mut self,
        memory: &Memory<P>,
        parent: Ref<Vma>,
        flags: VmaFlags,
        space: usize,
        spares: &mut Spares,
    ) -> Ref<Vma> {
        let attributes = Attributes { flags, ..parent.attributes() };
        let wiped = flags.contains(VmaFlags::WIPEONFORK);
        let child = create(self, memory, spares, parent.range(), parent.pgoff(), &attributes, space);
        self.insert_between(self.last(), None, child);
        object::insert_mapping(child);
        if !wiped {
            rmap::fork_chain(spares, parent, child);
        }
        child
    }

    /// Takes out and frees all VMAs. No page is mapped any more.
    pub(crate) fn clear<P: Platform>(&mut self, memory: &Memory<P>) {
        self.remove_all(|vma| retire(memory, vma));
    }
}

impl MapPlan<'_> {
    /// What the commit draws.
    pub(crate) fn needs(&self) -> Needs {
        match self.growth() {
            Some(growth) => Needs { vmas: 0, avcs: growth.chain.avcs(), anon_vmas: 0 },
            None => Needs::map(self.new.copied_from),
        }
    }

    /// Maps the range; returns the VMA that has it now. The objects drawn are
    /// at most [`MapPlan::needs`], or [`Needs::map`].
    pub(crate) fn commit<P: Platform>(&self, tree: &mut VmaTree, memory: &Memory<P>, spares: &mut Spares) -> Ref<Vma> {
        let new = self.new;
        let Some(growth) = self.growth() else {
            let vma = create(tree, memory, spares, new.range, new.pgoff, &new.attributes, new.space);
            tree.insert_between(self.prev, self.next, vma);
            object::insert_mapping(vma);
            if let Some(source) = new.copied_from
                && let Some(anon_vma) = source.anon_vma()
            {
                let root = AnonVma::root(anon_vma);
                rmap::copy_chain(&root.lock(), spares, source, vma);
            }
            return vma;
        };
        growth.commit(tree, memory, spares);
        free_merged(memory, &growth);
        growth.vma
    }

    /// Maps the range by moving the VMA that it is copied from there, with all its
    /// pages: for one that is moved whole and merges with no other. Its chain
    /// stays as it is, so nothing is drawn. The caller has locked it, and holds the locks
    /// of its object's mappings and of its anon_vma's root until the pages have moved, too.
    pub(crate) fn commit_whole(
        &self,
        tree: &mut VmaTree,
        source: Ref<Vma>,
        (mappings, root): (Option<&MappingsLock>, Option<&RootLock>),
    ) {
        debug_assert!(self.moves_whole(source));
        let new = self.new;
        let indices = (source.pgoff(), source.pages());
        tree.relocate(source, new.range, new.pgoff, self.next);
        if indices == (source.pgoff(), source.pages()) {
            return;
        }
        if let Some(mappings) = mappings {
            mappings.update(source);
        }
        if let Some(root) = root {
            rmap::index_again(root, source);
        }
    }

    /// Maps the range by a new VMA that takes the chain of the one that it is
    /// copied from: for one of which all pages move, but that stays, and where the
    /// new one merges with no other. Draws a VMA. The caller holds locks as for
    /// [`commit_whole`](Self::commit_whole).
    pub(crate) fn commit_successor<P: Platform>(
        &self,
        tree: &mut VmaTree,
        memory: &Memory<P>,
        spares: &mut Spares,
        source: Ref<Vma>,
        (mappings, root): (Option<&MappingsLock>, Option<&RootLock>),
    ) {
        debug_assert!(self.moves_whole(source));
        let new = self.new;
        debug_assert!(tree.is_locked(source), "chain taken with faults under way");
        let vma = create(tree, memory, spares, new.range, new.pgoff, &new.attributes, new.space);
        tree.insert_between(self.prev, self.next, vma);
        if let Some(mappings) = mappings {
            mappings.insert(vma);
        }
        if let Some(root) = root {
            rmap::adopt_chain(root, source, vma);
        }
    }

    /// Whether the range becomes part of a neighbour.
    pub(crate) fn merges(&self) -> bool {
        self.fit != Fit::Neither
    }

    /// Whether the range does not become part of a neighbour, or only of `source`
    /// itself.
    pub(crate) fn moves_whole(&self, source: Ref<Vma>) -> bool {
        match self.fit {
            Fit::Neither => true,
            Fit::Prev(vma) | Fit::Next(vma) => vma == source,
            Fit::Both(..) => false,
        }
    }

    /// The growth of a neighbour that does it.
    ///
    /// ```text
    ///   Prev     PPPP****      ->  PPPPPPPP
    ///   Next         ****NNNN  ->      NNNNNNNN
    ///   Both     PPPP****NNNN  ->  PPPPPPPPPPPP
    /// ```
    fn growth(&self) -> Option<Growth> {
        let range = self.new.range;
        let (vma, start, end, goes) = match self.fit {
            Fit::Neither => return None,
            Fit::Prev(prev) => (prev, prev.start(), range.end(), None),
            Fit::Next(next) => (next, range.start(), next.end(), None),
            Fit::Both(prev, next) => (prev, prev.start(), next.end(), Some(next)),
        };
        let flags = goes.map_or(VmaFlags::empty(), |next| next.flags()) | self.new.attributes.flags;
        Some(Growth {
            vma,
            start,
            end,
            shrinks: None,
            goes: [goes, None],
            chain: chain_for(&vma, [goes, None], self.new.copied_from),
            soft_dirty: soft_dirty(flags),
        })
    }
}

/// A locked VMA for `tree`, in which it is not yet, without an anon_vma.
pub(super) fn create<P: Platform>(
    tree: &VmaTree,
    memory: &Memory<P>,
    spares: &mut Spares,
    range: PageRange,
    pgoff: usize,
    attributes: &Attributes,
    space: usize,
) -> Ref<Vma> {
    let vma = spares.vma();
    if let Some(object) = attributes.object {
        memory.get_object(object);
    }
    vma.init(range, pgoff, attributes, space, tree.section());
    vma
}

/// Frees a VMA that has left the tree and of which no page is mapped any more.
pub(crate) fn retire<P: Platform>(memory: &Memory<P>, vma: Ref<Vma>) {
    object::remove_mapping(vma);
    retire_unmapped(memory, vma);
}

/// [`retire`] for one that is not among those of its object any more.
fn retire_unmapped<P: Platform>(memory: &Memory<P>, vma: Ref<Vma>) {
    debug_assert!(!vma.is_attached());
    rmap::unlink(memory, vma);
    if let Some(object) = vma.take_object() {
        memory.put_object(object);
    }
    memory.arenas.vmas.free(memory, vma);
}

/// Frees the VMAs that went into another one.
pub(super) fn free_merged<P: Platform>(memory: &Memory<P>, growth: &Growth) {
    for gone in growth.goes.into_iter().flatten() {
        retire_unmapped(memory, gone);
    }
}
