//! Reverse mapping of anonymous memory: from a page to the VMAs that may map it.
//!
//! # The objects
//!
//! A page cannot list its mappings; it names an [`AnonVma`], and that knows the
//! VMAs. The first write fault in a VMA gives it one ([`prepare`]); its pages
//! name that one from then on, wherever `fork` and `mremap` carry them. A
//! forked VMA gets one of its own for its new pages, and stays *chained* to
//! all those of its parent, for the pages it inherited. VMA and `AnonVma` are
//! therefore many to many; an [`Avc`] is one such pair:
//!
//! ```text
//!   parent's VMA ---avc--- A (root)        A.tree = { parent's VMA, child's VMA }
//!                         /                B.tree = { child's VMA }
//!   child's VMA  ---avc--'
//!                ---avc--- B (parent: A)   child.chain = [B, A]
//! ```
//!
//! # What always holds
//!
//! 1. A VMA's chain is empty if and only if it has no anon_vma, and then the
//!    chain contains that one. The newest anon_vma is first, the root last.
//! 2. All anon_vmas of a chain have the same root, and one lock, the root's,
//!    protects all their trees and counters.
//! 3. VMAs with the same anon_vma have the same chain: they came from one by
//!    splitting, copying or merging, or share with a neighbour whose chain has
//!    one member. This is why two that have the same anon_vma can merge.
//! 4. An `Avc`'s place in the tree is that of its VMA's pages: from the VMA's
//!    page offset, as many as the VMA has.
//! 5. An anon_vma lives as long as a VMA is chained to it; a root, as long as
//!    any anon_vma names it.
//!
//! Chains change with the mmap lock held for writing, or (in [`prepare`], for
//! a VMA that has none yet) for reading and under the VMA's own prepare lock;
//! and always under the root's lock. All allocation is done before, see
//! [`Spares`](crate::vma::Spares).
//!
//! # Reuse
//!
//! A process that forks, whose parent exits, and whose child forks in turn,
//! would otherwise grow its chains by one at each generation. So `fork` gives
//! the child an anon_vma out of the inherited chain when nobody's new pages go
//! there any more (`active` is 0) and at most one child hangs from it.

mod chain;
#[cfg(test)]
mod tests;
#[cfg(any(test, feature = "sim"))]
mod verify;
mod walk;

use core::sync::atomic::{AtomicU32, Ordering};

use crate::avl::{Avl, Link};
use crate::interval::{ByIndex, Span, Spanned};
use crate::slab::Ref;
use crate::sync::{RwLock, rank};
use crate::vma::Vma;

pub(crate) use chain::{
    RootLock, adopt_chain, attach, copy_chain, drop_chain, fork_chain, index_again, is_forked, prepare, unlink,
};
#[cfg(test)]
pub(crate) use verify::verify;
#[cfg(any(test, feature = "sim"))]
pub(crate) use verify::verify_all;

/// What anonymous pages name as their mapping; see the module's documentation.
#[derive(Default)]
pub(crate) struct AnonVma {
    /// The oldest ancestor, or this one itself. Its lock is everybody's.
    root: Link<AnonVma>,
    /// The one this was forked from, or this one itself.
    parent: Link<AnonVma>,
    /// Protects, in a root, the trees and counters of all that name it.
    lock: RwLock<(), { rank::ANON_VMA_ROOT }>,
    /// One for all VMAs together, and in a root one for each that names it.
    refs: AtomicU32,
    /// How many name this as their parent; a root counts itself.
    children: AtomicU32,
    /// How many VMAs put their new pages here.
    active: AtomicU32,
    /// The VMAs that may map pages of this one.
    tree: Avl<ByIndex<Avc>>,
}

/// One VMA in one [`AnonVma`].
#[derive(Default)]
pub(crate) struct Avc {
    /// Its place among those of the anon_vma: the page indices of the VMA.
    span: Span<Avc>,
    vma: Link<Vma>,
    anon_vma: Link<AnonVma>,
    /// The next one of the same VMA, older than this.
    older: Link<Avc>,
}

impl Spanned for Avc {
    #[inline(always)]
    fn span(&self) -> &Span<Avc> {
        &self.span
    }
}

/// Marks `Frame::mapping` as an anonymous page's.
const ANON: usize = 1;

impl AnonVma {
    /// What a page of `anon_vma` has as its `mapping`.
    pub(crate) fn to_mapping(anon_vma: Ref<AnonVma>) -> usize {
        anon_vma.as_usize() | ANON
    }

    /// The anon_vma that a page's `mapping` names, if that is one's.
    ///
    /// # Safety
    ///
    /// `mapping` is 0, came from [`AnonVma::to_mapping`], or has its lowest bit clear.
    pub(crate) unsafe fn from_mapping(mapping: usize) -> Option<Ref<AnonVma>> {
        if mapping & ANON == 0 {
            return None;
        }
        // SAFETY: with the bit set the word came from `to_mapping` (the
        // caller's promise), which made it of a `Ref<AnonVma>`.
        Some(unsafe { Ref::from_usize(mapping & !ANON) })
    }

    /// The ancestor whose lock protects this one.
    pub(crate) fn root(this: Ref<AnonVma>) -> Ref<AnonVma> {
        this.root.get().unwrap_or(this)
    }

    /// The anon_vmas that `vma` is chained to, newest first.
    pub(crate) fn chain_of(vma: Ref<Vma>) -> impl Iterator<Item = Ref<AnonVma>> {
        chain::chain(vma).map(|(_, anon_vma)| anon_vma)
    }

    /// How many VMAs put their new pages here.
    pub(crate) fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// How many anon_vmas were forked from this one and are still there; one
    /// more for a root.
    pub(crate) fn children(&self) -> u32 {
        self.children.load(Ordering::Relaxed)
    }
}
