//! What always holds of merged pages, checked.

use std::collections::HashSet;

use super::KsmNode;
use crate::slab::Ref;
use crate::vma::Vma;
use crate::{Memory, Pfn, Platform};

/// Checks the trees of all pages, and that nothing is lost of what they are made of. `merged` are all
/// merged pages that are mapped.
///
/// # Panics
///
/// When something does not hold.
pub(crate) fn verify<P: Platform>(mem: &Memory<P>, merged: &HashSet<Pfn>) {
    let trees = mem.lock_ksm();
    let mut live = HashSet::new();
    let mut origins = 0;
    let mut last = 0;
    for node in trees.all_stable() {
        assert!(last <= node.hash(), "the stable tree is out of order");
        last = node.hash();
        let places: Vec<_> = node.origins().filter_map(|origin| origin.place()).collect();
        let distinct: HashSet<_> = places.iter().collect();
        assert_eq!(distinct.len(), places.len(), "a merged page has an origin twice");
        origins += places.len();
        if let Some(page) = mem.merged_page(node) {
            assert_eq!(mem.hash_page(page.pfn), node.hash(), "the merged page {:?} has changed", page.pfn);
            assert!(live.insert(page.pfn), "two nodes have the page {:?}", page.pfn);
        }
    }
    assert_eq!(&live, merged, "merged pages in the stable tree, and those that are mapped");
    assert_eq!(mem.arenas.ksm_nodes.in_use(), trees.nodes(), "nodes lost");
    assert_eq!(mem.arenas.ksm_origins.in_use(), origins, "origins lost");
}

impl<P: Platform> Memory<P> {
    /// Calls `f` with each VMA, and address in it, where the reverse mapping says that the merged page in
    /// the frame `pfn` may be. Returns whether there is such a page.
    pub(crate) fn walk_merged(&self, pfn: Pfn, mut f: impl FnMut(Ref<Vma>, usize) -> bool) -> bool {
        let _trees = self.lock_ksm();
        let node = KsmNode::of(self.frame(pfn));
        for origin in node.iter().flat_map(|node| node.origins()) {
            origin.walk(&mut f);
        }
        node.is_some()
    }
}
