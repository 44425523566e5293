//! Which ranges become one VMA, and making them one.
//!
//! Two neighbouring ranges can be one VMA if and only if
//! - their attributes are equal, soft-dirtiness aside, and not those of special
//!   memory;
//! - the page index goes on from one to the other;
//! - one anon_vma serves both ([`chains_fit`]).
//!
//! These are the rules of Linux 7.3 (`mm/vma.c`), and so is what is done when
//! a range fits both of its neighbours, but they do not fit each other: it
//! goes to the previous one.

use super::{Attributes, Spares, Vma, VmaTree};
use crate::addr::PageRange;
use crate::flags::VmaFlags;
use crate::memory::Memory;
use crate::platform::Platform;
use crate::rmap::{self, AnonVma};
use crate::slab::Ref;

/// Whether a VMA with an anon_vma of its own, or none, can take in the range
/// of `other` (`None`: a range without one).
///
/// - Both have the same anon_vma: yes; their chains are the same.
/// - Both have one, but not the same: no.
/// - One has one: it serves both, if its owner is chained to no other. A
///   forked child's VMA is chained to its ancestors, for the pages it
///   inherited; extended over pages that it did not, it would make the
///   ancestors' reverse mapping search in vain. Only when it grows in place
///   anyway (`grows`), Linux lets it take in what it reaches.
fn chains_fit(vma: &Vma, other: Option<Ref<Vma>>, grows: bool) -> bool {
    match (vma.anon_vma(), other.and_then(|other| other.anon_vma())) {
        (None, None) => true,
        (Some(one), Some(two)) => one == two,
        (Some(_), None) => vma.has_short_chain(),
        (None, Some(_)) => grows || other.is_none_or(|other| other.has_short_chain()),
    }
}

/// Whether two VMAs that both fit what is between them fit each other.
fn anon_vmas_agree(one: Option<Ref<AnonVma>>, two: Option<Ref<AnonVma>>) -> bool {
    one.is_none() || two.is_none() || one == two
}

/// A range that may become part of a neighbour: to be mapped, or to be changed.
#[derive(Clone, Copy)]
pub(super) struct Candidate {
    pub(super) range: PageRange,
    pub(super) pgoff: usize,
    pub(super) attributes: Attributes,
    /// The VMA whose anon_vma the pages in the range have, or will have.
    pub(super) pages_of: Option<Ref<Vma>>,
    /// It is that VMA which grows into the range.
    pub(super) grows: bool,
}

/// The neighbours that a range can become part of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fit {
    Neither,
    Prev(Ref<Vma>),
    Next(Ref<Vma>),
    Both(Ref<Vma>, Ref<Vma>),
}

impl Candidate {
    /// To which of the two neighbours the range fits. A neighbour that is
    /// `None` is one that must not be considered, too.
    pub(super) fn fit(&self, prev: Option<Ref<Vma>>, next: Option<Ref<Vma>>) -> Fit {
        if self.attributes.flags.intersects(VmaFlags::SPECIAL) {
            return Fit::Neither;
        }
        let prev = prev.filter(|prev| self.continues(prev));
        let next = next.filter(|next| self.is_continued_by(next));
        match (prev, next) {
            (None, None) => Fit::Neither,
            (Some(prev), None) => Fit::Prev(prev),
            (None, Some(next)) => Fit::Next(next),
            (Some(prev), Some(next)) if anon_vmas_agree(prev.anon_vma(), next.anon_vma()) => Fit::Both(prev, next),
            (Some(prev), Some(_)) => Fit::Prev(prev),
        }
    }

    fn continues(&self, prev: &Vma) -> bool {
        prev.end() == self.range.start() && prev.pgoff().wrapping_add(prev.pages()) == self.pgoff && self.is_like(prev)
    }

    fn is_continued_by(&self, next: &Vma) -> bool {
        self.range.end() == next.start()
            && self.pgoff.wrapping_add(self.range.pages()) == next.pgoff()
            && self.is_like(next)
    }

    /// Whether the range and `vma` could be one but for their places.
    pub(super) fn is_like(&self, vma: &Vma) -> bool {
        let other = vma.attributes();
        (self.attributes.flags ^ other.flags).difference(VmaFlags::IGNORE_MERGE).is_empty()
            && self.attributes.object == other.object
            && self.attributes.name == other.name
            && chains_fit(vma, self.pages_of, self.grows)
    }
}

/// Where the VMA that grows gets a chain from.
#[derive(Clone, Copy)]
pub(super) enum Chain {
    /// It has one already, or nobody has.
    Own,
    /// From one of the VMAs that go.
    Adopt(Ref<Vma>),
    /// From one that stays, and whose chain has one member.
    Copy(Ref<Vma>),
}

impl Chain {
    /// How many chain links that takes.
    pub(super) fn avcs(self) -> usize {
        match self {
            Chain::Own | Chain::Adopt(_) => 0,
            Chain::Copy(from) => from.chain_len(),
        }
    }

    fn anon_vma(self) -> Option<Ref<AnonVma>> {
        match self {
            Chain::Own => None,
            Chain::Adopt(from) | Chain::Copy(from) => from.anon_vma(),
        }
    }
}

/// One VMA grows over what others lose, under one hold of the rmap lock.
#[derive(Clone, Copy)]
pub(super) struct Growth {
    /// The VMA that grows.
    pub(super) vma: Ref<Vma>,
    pub(super) start: usize,
    pub(super) end: usize,
    /// A neighbour that loses one side of its range: its new bounds.
    pub(super) shrinks: Option<(Ref<Vma>, usize, usize)>,
    /// VMAs that are covered whole, and go.
    pub(super) goes: [Option<Ref<Vma>>; 2],
    pub(super) chain: Chain,
    /// Soft-dirtiness of the parts; sticks to the whole.
    pub(super) soft_dirty: VmaFlags,
}

impl Growth {
    /// Does it. The VMAs that go have left the trees and have no chain
    /// afterwards, but still their reference to the object.
    pub(super) fn commit<P: Platform>(&self, tree: &mut VmaTree, memory: &Memory<P>, spares: &mut Spares) {
        tree.lock_vma(self.vma);
        if let Some((shrinks, ..)) = self.shrinks {
            tree.lock_vma(shrinks);
        }
        for gone in self.goes.into_iter().flatten() {
            tree.lock_vma(gone);
        }
        // All have the same.
        let object = self.vma.object();
        let mappings = object.as_ref().map(|object| object.lock_mappings());
        let anon_vma = self.vma.anon_vma().or(self.chain.anon_vma());
        let root = anon_vma.map(AnonVma::root);
        let lock = root.as_ref().map(|root| root.lock());

        // All bounds first: for a moment VMAs overlap, but no gap comes and goes.
        self.vma.move_bounds(self.start, self.end);
        if let Some((vma, start, end)) = self.shrinks {
            vma.move_bounds(start, end);
            if let Some(mappings) = &mappings {
                mappings.update(vma);
            }
            if let Some(lock) = &lock {
                rmap::index_again(lock, vma);
            }
        }
        for gone in self.goes.into_iter().flatten() {
            tree.remove(gone);
            if let Some(mappings) = &mappings {
                mappings.remove(gone);
            }
            let adopted = matches!(self.chain, Chain::Adopt(from) if from == gone);
            if let Some(lock) = &lock
                && !adopted
            {
                rmap::drop_chain(lock, memory, gone);
            }
        }
        if let Some(mappings) = &mappings {
            mappings.update(self.vma);
        }
        tree.update_gaps_around(self.vma);
        self.vma.store_flags(self.vma.flags() | self.soft_dirty);
        if let Some(lock) = &lock {
            match self.chain {
                Chain::Own => rmap::index_again(lock, self.vma),
                Chain::Adopt(from) => rmap::adopt_chain(lock, from, self.vma),
                Chain::Copy(from) => rmap::copy_chain(lock, spares, from, self.vma),
            }
        }
    }
}

/// The chain that `vma`, when it grows, needs from `others`: those who go
/// first, as theirs costs nothing.
pub(super) fn chain_for(vma: &Vma, going: [Option<Ref<Vma>>; 2], staying: Option<Ref<Vma>>) -> Chain {
    if vma.anon_vma().is_some() {
        return Chain::Own;
    }
    let has_chain = |other: &Ref<Vma>| other.anon_vma().is_some();
    if let Some(from) = going.into_iter().flatten().find(has_chain) {
        return Chain::Adopt(from);
    }
    staying.filter(has_chain).map_or(Chain::Own, Chain::Copy)
}

/// The soft-dirtiness in `flags`.
pub(super) fn soft_dirty(flags: VmaFlags) -> VmaFlags {
    flags & VmaFlags::IGNORE_MERGE
}
