//! Pages with equal contents become one (Linux's "kernel samepage merging").
//!
//! A program says of which memory (`MADV_MERGEABLE`, or all it has). [`Memory::ksm_scan`],
//! which a kernel calls now and then with the number of pages that it may look at, finds
//! pages of such memory with the same contents and has all their page-table entries map
//! one *merged page*, read-only. A write makes a copy, as after a fork.
//!
//! Like reclaim the scan comes from the frames and not from address spaces: the frame
//! records are gone through in order, again and again, and a page's reverse mapping tells
//! whose it is. So nothing has to be known of processes, nor be told when they fork or end.
//!
//! # Finding equals
//!
//! ```text
//!   a page ──▶ in the stable tree? ──yes──▶ merged with that
//!                 │ no
//!              as it was when last seen? ──no──▶ left alone until the next pass
//!                 │ yes
//!              in the unstable tree? ──yes──▶ both merged with a copy, which becomes stable
//!                 │ no
//!              put there
//! ```
//!
//! Both trees are ordered by a hash of the contents; what decides is a comparison of all
//! bytes. Merged pages are in the *stable* tree. The *unstable* one has pages seen in this pass over
//! the frames which may be written to at any time, and is emptied when the pass ends.
//!
//! # The reverse mapping of a merged page
//!
//! An ordinary private page is found by its anon_vma and its index there. A merged page
//! has taken the places of many, and a list of those: its *origins*, each the root of an
//! anon_vma's family and an index. All VMAs that ever may have mapped the page which was replaced
//! there are in the tree of that root, and have the index at one address. So forks and moves keep what
//! is known of a merged page right as they do for any other; relocation alone, which
//! changes indices, refuses such pages.
//!
//! # What always holds
//!
//! 1. A merged page is written to by nobody, and its entries are read-only.
//! 2. It is mapped in VMAs that are [`MERGEABLE`](crate::VmaFlags::MERGEABLE) alone.
//! 3. For each of its entries, the family of the VMA and the page's index are among its
//!    origins, once.
//! 4. Its record names its node in the stable tree and the node names its frame. The node has no
//!    reference to the frame: when the last entry goes so does the page, and the node is taken out when
//!    it is come across. Then too an origin goes that leads to no entry any more.
//!
//! # Locks
//!
//! One lock guards the trees and all origins, and is held while pages merge. Who holds it knows
//! that none does: relocation, and who unmerges. It comes after the mmap lock and before
//! all others.

mod contents;
mod merge;
mod scan;
mod stats;
#[cfg(test)]
mod tests;
mod tree;
#[cfg(any(test, feature = "sim"))]
mod verify;

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub(crate) use stats::Passes;
pub use stats::{KsmPages, KsmStats};
pub(crate) use tree::{KsmNode, KsmOrigin};
#[cfg(any(test, feature = "sim"))]
pub(crate) use verify::verify;

use crate::avl::Avl;
use crate::sync::{SpinLock, SpinLockGuard, rank};
use crate::{Memory, Platform, VmaFlags};
use tree::ByHash;

/// What merging keeps beside the pages.
pub(crate) struct Ksm {
    state: SpinLock<Trees, { rank::KSM }>,
    /// Whether any memory has ever been mergeable.
    in_use: AtomicBool,
    /// Where the scan goes on: a frame, counted from the first, modulo their number.
    hand: AtomicUsize,
}

/// What the lock protects.
#[derive(Default)]
pub(crate) struct Trees {
    stable: Avl<ByHash>,
    unstable: Avl<ByHash>,
    passes: Passes,
}

/// The lock held: no pages merge.
pub(crate) type KsmGuard<'m> = SpinLockGuard<'m, Trees, { rank::KSM }>;

impl Ksm {
    pub(crate) fn new() -> Ksm {
        Ksm { state: SpinLock::default(), in_use: AtomicBool::new(false), hand: AtomicUsize::new(0) }
    }

    /// Some memory is about to be mergeable.
    pub(crate) fn begin(&self) {
        self.in_use.store(true, Ordering::Release);
    }

    /// Whether any memory may be mergeable.
    pub(crate) fn is_in_use(&self) -> bool {
        self.in_use.load(Ordering::Acquire)
    }
}

impl<P: Platform> Memory<P> {
    /// Keeps pages from merging as long as the result is there.
    pub(crate) fn lock_ksm(&self) -> KsmGuard<'_> {
        self.ksm.state.lock()
    }

    /// [`lock_ksm`](Self::lock_ksm), if there is anything that may merge. For who holds the mmap lock
    /// for writing, and cares for that address space alone: no VMA there becomes mergeable meanwhile.
    pub(crate) fn keep_from_merging(&self) -> Option<KsmGuard<'_>> {
        self.ksm.is_in_use().then(|| self.lock_ksm())
    }
}

/// Whether memory with these flags can be merged at all (Linux's `ksm_compatible`); where it cannot,
/// advice to do so is taken and ignored.
pub(crate) fn is_compatible(flags: VmaFlags) -> bool {
    let never = VmaFlags::SHARED | VmaFlags::MAY_SHARE | VmaFlags::SPECIAL | VmaFlags::DROPPABLE;
    !flags.intersects(never)
}
