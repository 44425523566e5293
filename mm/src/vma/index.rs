//! Finding a VMA, and locking it, without the mmap lock.
//!
//! Who looks for one walks the tree as if nobody changed it, in whatever state
//! it is, and writes to nothing on the way. A walk may go astray: it may reach
//! VMAs that have left the tree, or whose memory is another VMA's by now, of
//! another address space even. It does no harm, because what is in an arena is
//! always a valid VMA, and comes to an end after [`MAX_STEPS`].
//!
//! What makes the result right is that it is checked when it is locked: a VMA
//! that is attached, is this address space's, and contains the address, *is* the
//! one, since there is only one, whichever way it was found. Nothing of it changes
//! as long as the lock is held. A result that cannot be locked or is wrong says
//! nothing; nor does an empty one. Then the mmap lock tells.

use core::ops::Deref;
use core::sync::atomic::Ordering;

use super::{Vma, VmaTree};
use crate::avl::Link;
use crate::slab::Ref;
use crate::sync::atomic::AtomicU64;
use crate::sync::{Reader, ReaderSlot, point};

/// A balanced tree that is higher has more nodes than there can be VMAs.
const MAX_STEPS: usize = 64;

/// What there must be beside a [`VmaTree`] to find VMAs while that changes.
///
/// In a cache line of its own, which only the end of a section writes to.
#[derive(Default)]
#[repr(align(64))]
pub(crate) struct VmaIndex {
    /// The number of the current section, see [`VmaLock`](crate::sync::VmaLock).
    section: AtomicU64,
    /// The root of the tree at the end of the last section.
    top: Link<Vma>,
}

/// Why a VMA that was found is not to be had without the mmap lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Miss {
    /// A writer has it.
    Locked,
    /// It was removed, or changed its place, before it was locked.
    Changed,
}

/// A VMA locked for reading: as long as this exists the VMA stays attached, and
/// what it is and where.
pub(crate) struct LockedVma<'s> {
    vma: Ref<Vma>,
    reader: Reader<'s>,
}

impl VmaIndex {
    /// The walk: the result may be any VMA there is or was.
    #[inline(always)]
    pub(crate) fn find(&self, addr: usize) -> Option<Ref<Vma>> {
        let mut at = self.top.get();
        for _ in 0..MAX_STEPS {
            let vma = at?;
            point();
            at = if addr >= vma.end() {
                vma.links.right()
            } else if addr < vma.start() {
                vma.links.left()
            } else {
                return at;
            };
        }
        None
    }

    /// Locks what the walk has come to, if it is the VMA of the address space
    /// `space` that contains `addr`. `slot` is that of this CPU there.
    #[inline(always)]
    pub(crate) fn lock<'s>(
        &self,
        vma: Ref<Vma>,
        addr: usize,
        space: usize,
        slot: impl FnOnce() -> &'s ReaderSlot,
    ) -> Result<LockedVma<'s>, Miss> {
        let reader = vma.lock.try_read(&self.section, slot).ok_or(Miss::Locked)?;
        let locked = LockedVma { vma, reader };
        if vma.is_attached() && vma.space() == space && vma.contains(addr) { Ok(locked) } else { Err(Miss::Changed) }
    }

    /// Ends a section: releases all VMAs that were locked for writing.
    #[inline]
    pub(crate) fn end_section(&self, tree: &mut VmaTree) {
        self.top.set(tree.root());
        point();
        self.section.store(tree.next_section(), Ordering::Release);
    }
}

impl Deref for LockedVma<'_> {
    type Target = Ref<Vma>;

    #[inline(always)]
    fn deref(&self) -> &Ref<Vma> {
        &self.vma
    }
}

impl Drop for LockedVma<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.vma.lock.release(&self.reader);
    }
}
