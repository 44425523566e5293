//! From a page to the VMAs that may map it.
//!
//! A walker holds no lock of any address space, and what it begins at may go while
//! it begins: the page's last mapping goes, then its VMA, then the anon_vma, whose
//! place in the arena may soon be another's. But it remains an anon_vma, so its root's lock
//! can be taken, and then it is asked whether that was the right one.

use super::AnonVma;
use crate::frame::Frame;
use crate::interval;
use crate::slab::Ref;
use crate::sync::point;
use crate::vma::Vma;

impl AnonVma {
    /// Calls `f` with every VMA that may map a page whose index is between
    /// `first` and `last` (inclusive), in ascending order of page offset,
    /// until it returns `false`. Holds the root's lock for reading meanwhile.
    ///
    /// "May": the page is there only if the page table says so.
    #[cfg(test)]
    pub(crate) fn walk(this: Ref<AnonVma>, first: usize, last: usize, f: impl FnMut(Ref<Vma>) -> bool) {
        let root = AnonVma::root(this);
        let _lock = root.lock.read();
        this.walk_locked(first, last, f);
    }

    /// Calls `f` with every VMA that may map the private page of `frame`, and the
    /// address that it would have there, until it returns `false`. Holds the lock of
    /// the root for reading meanwhile, so that no VMA leaves the family, nor its page
    /// tables, and every mapping is found, and once, wherever it is being moved; but one
    /// that is made meanwhile, by a fork, may be missed. Returns whether `frame` has
    /// such a page.
    ///
    /// The caller has a reference to the frame. It may be that nobody maps the page any
    /// more: what its record names is then perhaps another anon_vma by now, or free.
    /// Nobody in its tree maps the page.
    pub(crate) fn walk_page(frame: &Frame, mut f: impl FnMut(Ref<Vma>, usize) -> bool) -> bool {
        loop {
            let mapping = frame.mapping();
            // SAFETY: of a private page only `AnonVma::to_mapping` sets the mapping, and
            // an object's reference is aligned.
            let Some(this) = (unsafe { AnonVma::from_mapping(mapping) }) else {
                return false;
            };
            let root = AnonVma::root(this);
            point();
            let _lock = root.lock.read();
            // Before the lock was had, the page may have got another anon_vma, and the
            // old one's memory may have become that of another family.
            if frame.mapping() != mapping || AnonVma::root(this) != root {
                continue;
            }
            let index = frame.index();
            this.walk_locked(index, index, |vma| vma.address_of(index).is_none_or(|addr| f(vma, addr)));
            return true;
        }
    }

    /// Calls `f` with every VMA of the family that `root` is the root of which has a page of that
    /// index, and the address of that page, until it returns `false`; otherwise as
    /// [`walk_page`](Self::walk_page). If that family is gone there is none, or they are those of
    /// another family that has the same root now.
    pub(crate) fn walk_family(root: Ref<AnonVma>, index: usize, mut f: impl FnMut(Ref<Vma>, usize) -> bool) {
        let _lock = root.lock.read();
        if AnonVma::root(root) == root {
            root.walk_locked(index, index, |vma| vma.address_of(index).is_none_or(|addr| f(vma, addr)));
        }
    }

    /// Calls `f` with every VMA in the tree that has one of these indices, until it returns
    /// `false`. The root is locked.
    fn walk_locked(&self, first: usize, last: usize, mut f: impl FnMut(Ref<Vma>) -> bool) {
        interval::for_each(&self.tree, (first, last), |avc| avc.vma.get().is_none_or(&mut f));
    }
}
