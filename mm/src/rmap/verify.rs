//! Checks of what always holds between VMAs and anon_vmas, for tests.

use std::collections::HashMap;

use super::chain::chain;
use super::{AnonVma, Avc};
use crate::avl::Avl;
use crate::slab::Ref;
use crate::vma::Vma;

/// Checks the invariants in the module's documentation for those `vmas`.
///
/// # Panics
///
/// When one does not hold.
pub(crate) fn verify(vmas: impl IntoIterator<Item = Ref<Vma>>) {
    let mut chains: HashMap<Ref<AnonVma>, Vec<Ref<AnonVma>>> = HashMap::new();
    for vma in vmas {
        let Some(anon_vma) = vma.anon_vma() else {
            assert!(vma.chain().is_none(), "{vma:?} has a chain but no anon_vma");
            continue;
        };
        let members: Vec<_> = chain(vma).map(|(_, anon_vma)| anon_vma).collect();
        assert_eq!(members.len(), vma.chain_len(), "{vma:?}: a link without an anon_vma");
        assert!(members.contains(&anon_vma), "{vma:?} is not chained to its anon_vma");
        let root = AnonVma::root(anon_vma);
        assert_eq!(members.last(), Some(&root), "{vma:?}: the root is not the oldest");
        for (avc, member) in chain(vma) {
            assert_eq!(AnonVma::root(member), root, "{vma:?} is chained to two families");
            assert_eq!(avc.vma.get(), Some(vma), "a link of {vma:?} names another VMA");
            assert_eq!(avc.span.first(), vma.pgoff(), "{vma:?}: first index");
            assert_eq!(avc.span.last() + 1, vma.pgoff() + vma.pages(), "{vma:?}: last index");
            assert!(nodes(member).contains(&avc), "{vma:?} is not in a tree it is chained to");
        }
        let known = chains.entry(anon_vma).or_insert_with(|| members.clone());
        assert_eq!(*known, members, "{vma:?}: two VMAs of one anon_vma differ in their chains");
    }
}

/// Checks the counters as well, for the VMAs of all processes that have any
/// anon_vma in common.
pub(crate) fn verify_all(vmas: impl IntoIterator<Item = Ref<Vma>>) {
    let vmas: Vec<_> = vmas.into_iter().collect();
    verify(vmas.iter().copied());
    let mut members: HashMap<Ref<AnonVma>, usize> = HashMap::new();
    let mut active: HashMap<Ref<AnonVma>, u32> = HashMap::new();
    for &vma in &vmas {
        for (_, anon_vma) in chain(vma) {
            *members.entry(anon_vma).or_default() += 1;
        }
        if let Some(anon_vma) = vma.anon_vma() {
            *active.entry(anon_vma).or_default() += 1;
        }
    }
    for (&anon_vma, &count) in &members {
        anon_vma.tree.verify(count);
        let firsts: Vec<_> = nodes(anon_vma).iter().map(|avc| avc.span.first()).collect();
        assert!(firsts.is_sorted(), "a tree is out of order");
        assert_eq!(anon_vma.active(), active.get(&anon_vma).copied().unwrap_or(0), "active VMAs");
        let children = members.keys().filter(|other| other.parent.get() == Some(anon_vma)).count();
        assert_eq!(anon_vma.children() as usize, children, "children");
    }
}

fn nodes(anon_vma: Ref<AnonVma>) -> Vec<Ref<Avc>> {
    std::iter::successors(anon_vma.tree.first(), |avc| Avl::<super::ByIndex<Avc>>::next(*avc)).collect()
}
