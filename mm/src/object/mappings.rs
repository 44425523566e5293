//! From an object to the VMAs that map it: what takes its pages out of all page tables
//! when they go.
//!
//! An object has a tree of its VMAs by the pages they cover, and a lock for it. What
//! always holds:
//!
//! - A VMA that has the object is in the tree from before its first page is mapped
//!   until after the last one has gone, and before its page tables go.
//! - Its place there is that of its pages. Bounds and page index change under the lock,
//!   in write mode, as do the addresses of its pages: so who walks the tree finds each page
//!   that was mapped before, once, at one of its addresses.
//! - A child's VMA comes after its parent's, so what fork copies while a walk goes on is found
//!   as well.

use super::Object;
use crate::interval::{self, Span, Spanned};
use crate::slab::Ref;
use crate::sync::{WriteGuard, point, rank};
use crate::vma::Vma;

/// The lock of an object's tree, held for writing: no walk is going on.
pub(crate) struct MappingsLock<'a> {
    object: &'a Object,
    _guard: WriteGuard<'a, (), { rank::MAPPINGS }>,
}

impl Spanned for Vma {
    #[inline(always)]
    fn span(&self) -> &Span<Vma> {
        &self.mapping
    }
}

/// The indices that `vma` covers.
fn indices(vma: Ref<Vma>) -> (usize, usize) {
    (vma.pgoff(), vma.pgoff() + (vma.pages() - 1))
}

impl Object {
    /// Keeps walks out.
    pub(crate) fn lock_mappings(&self) -> MappingsLock<'_> {
        MappingsLock { object: self, _guard: self.mappings_lock.write() }
    }

    /// Calls `f` with every VMA that maps one of the pages `first..=last`, with the lock held in
    /// read mode: so its place does not change, and its page tables stay.
    pub(crate) fn for_each_mapping(&self, first: usize, last: usize, mut f: impl FnMut(Ref<Vma>)) {
        point();
        let _lock = self.mappings_lock.read();
        interval::for_each(&self.mappings, (first, last), |vma| {
            f(vma);
            true
        });
    }

    /// Checks that `vmas` are those that map the object, each in its place.
    ///
    /// # Panics
    ///
    /// When they are not.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn verify_mappings(&self, vmas: &[Ref<Vma>]) {
        self.mappings.verify(vmas.len());
        let mut found = Vec::new();
        self.for_each_mapping(0, usize::MAX, |vma| found.push(vma));
        assert_eq!(found.len(), vmas.len(), "VMAs of {self:p}");
        assert!(found.is_sorted_by_key(|vma| vma.mapping.first()), "VMAs of {self:p} out of order");
        for &vma in vmas {
            assert!(found.contains(&vma), "{vma:?} is not among those of its object");
            assert_eq!((vma.mapping.first(), vma.mapping.last()), indices(vma), "place of {vma:?}");
        }
    }
}

impl MappingsLock<'_> {
    /// Puts in a VMA that has the object from now on.
    pub(crate) fn insert(&self, vma: Ref<Vma>) {
        interval::insert(&self.object.mappings, vma, indices(vma));
    }

    /// The place of a VMA has changed since the lock was taken.
    pub(crate) fn update(&self, vma: Ref<Vma>) {
        interval::update(&self.object.mappings, vma, indices(vma));
    }

    /// Takes a VMA out. None of its pages is mapped any more, or another VMA has them.
    pub(crate) fn remove(&self, vma: Ref<Vma>) {
        self.object.mappings.remove(vma, None);
    }
}

/// Puts a VMA among those of its object, if it has one.
#[inline]
pub(crate) fn insert_mapping(vma: Ref<Vma>) {
    if let Some(object) = vma.object() {
        object.lock_mappings().insert(vma);
    }
}

/// Takes a VMA out from among those of its object, if it has one.
#[inline]
pub(crate) fn remove_mapping(vma: Ref<Vma>) {
    if let Some(object) = vma.object() {
        object.lock_mappings().remove(vma);
    }
}
