//! The trees of pages by contents, and where a merged page's mappings come from.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::Trees;
use crate::avl::{Adapter, Avl, Link, Links, Side};
use crate::frame::Frame;
use crate::rmap::AnonVma;
use crate::slab::Ref;
use crate::vma::Vma;
use crate::{FrameKind, Memory, Pfn, Platform};

/// A page in one of the trees: a merged one, or one that may be found to equal another.
#[derive(Default)]
pub(crate) struct KsmNode {
    links: Links<KsmNode>,
    /// That of the page's contents.
    hash: AtomicU64,
    /// The page's frame, to which the node has no reference.
    pfn: AtomicUsize,
    /// Of a merged page.
    origins: Link<KsmOrigin>,
}

/// Where a merged page has replaced others: pages of that index in a family of anon_vmas.
///
/// The family may be gone by now, and its root's memory be in use for another anon_vma. Then this
/// leads to no entry, or is an origin of the other family's in its own right.
#[derive(Default)]
pub(crate) struct KsmOrigin {
    next: Link<KsmOrigin>,
    root: Link<AnonVma>,
    index: AtomicUsize,
}

/// Marks `Frame::mapping` as a merged page's. Not the mark of an ordinary private page.
const MERGED: usize = 2;

/// Orders pages by the hash of their contents; of equals the one inserted later is later.
pub(super) struct ByHash;

impl Adapter for ByHash {
    type Node = KsmNode;

    fn links(node: &KsmNode) -> &Links<KsmNode> {
        &node.links
    }

    fn summarize(_: &KsmNode) -> bool {
        false
    }

    fn inherit(_: &KsmNode, _: &KsmNode) {}
}

impl KsmNode {
    pub(super) fn hash(&self) -> u64 {
        self.hash.load(Ordering::Relaxed)
    }

    pub(super) fn pfn(&self) -> Pfn {
        Pfn(self.pfn.load(Ordering::Relaxed))
    }

    /// The page is in that frame from now on.
    pub(super) fn set_pfn(&self, pfn: Pfn) {
        self.pfn.store(pfn.0, Ordering::Relaxed);
    }

    /// What the record of the merged page has as its mapping.
    pub(super) fn to_mapping(node: Ref<KsmNode>) -> usize {
        node.as_usize() | MERGED
    }

    /// The node of a merged page. The caller has a reference to it.
    pub(super) fn of(record: &Frame) -> Option<Ref<KsmNode>> {
        let mapping = record.mapping();
        if !record.is_merged() || mapping & MERGED == 0 {
            return None;
        }
        // SAFETY: of a merged page only `to_mapping` makes the mapping.
        Some(unsafe { Ref::from_usize(mapping & !MERGED) })
    }

    /// Where the page has replaced others.
    pub(super) fn origins(&self) -> impl Iterator<Item = Ref<KsmOrigin>> {
        core::iter::successors(self.origins.get(), |origin| origin.next.get())
    }

    /// Adds an origin, unless it is one already: then returns what it is not made of.
    pub(super) fn add_origin(
        &self,
        place: (Ref<AnonVma>, usize),
        origin: Ref<KsmOrigin>,
    ) -> Result<(), Ref<KsmOrigin>> {
        if self.origins().any(|known| known.place() == Some(place)) {
            return Err(origin);
        }
        origin.root.set(Some(place.0));
        origin.index.store(place.1, Ordering::Relaxed);
        origin.next.set(self.origins.get());
        self.origins.set(Some(origin));
        Ok(())
    }

    /// Frees the origins that are not to be kept.
    pub(super) fn retain_origins<P: Platform>(&self, mem: &Memory<P>, mut keep: impl FnMut(&KsmOrigin) -> bool) {
        let mut kept: Option<Ref<KsmOrigin>> = None;
        let mut at = self.origins.get();
        while let Some(origin) = at {
            at = origin.next.get();
            if keep(&origin) {
                kept = Some(origin);
                continue;
            }
            match kept {
                Some(before) => before.next.set(at),
                None => self.origins.set(at),
            }
            mem.arenas.ksm_origins.free(mem, origin);
        }
    }
}

impl KsmOrigin {
    /// The root of the family, and the index.
    pub(super) fn place(&self) -> Option<(Ref<AnonVma>, usize)> {
        Some((self.root.get()?, self.index.load(Ordering::Relaxed)))
    }

    /// Calls `f` with every VMA that may map the merged page by this origin, and the address that it has
    /// there, until it returns `false`.
    pub(super) fn walk(&self, f: impl FnMut(Ref<Vma>, usize) -> bool) {
        if let Some((root, index)) = self.place() {
            AnonVma::walk_family(root, index, f);
        }
    }
}

impl Trees {
    /// The pages of the stable tree whose contents have that hash.
    pub(super) fn stable(&self, hash: u64) -> impl Iterator<Item = Ref<KsmNode>> + use<> {
        equals(&self.stable, hash)
    }

    /// The first page of the unstable tree whose contents had that hash.
    pub(super) fn unstable(&self, hash: u64) -> Option<Ref<KsmNode>> {
        equals(&self.unstable, hash).next()
    }

    /// Puts a page in the unstable tree.
    pub(super) fn add_unstable(&mut self, node: Ref<KsmNode>, hash: u64, pfn: Pfn) {
        node.hash.store(hash, Ordering::Relaxed);
        node.set_pfn(pfn);
        node.origins.set(None);
        insert(&self.unstable, node);
        self.passes.unshared += 1;
    }

    /// Makes a node of the unstable tree that of the merged page in the frame `pfn`, whose contents
    /// have its hash.
    pub(super) fn make_stable(&mut self, node: Ref<KsmNode>, pfn: Pfn) {
        self.unstable.remove(node, None);
        self.passes.unshared -= 1;
        node.set_pfn(pfn);
        insert(&self.stable, node);
    }

    /// Takes the node of a merged page out that is gone, or about to go.
    pub(super) fn remove_stable<P: Platform>(&mut self, mem: &Memory<P>, node: Ref<KsmNode>) {
        self.stable.remove(node, None);
        node.retain_origins(mem, |_| false);
        mem.arenas.ksm_nodes.free(mem, node);
    }

    /// Empties the unstable tree.
    pub(super) fn clear_unstable<P: Platform>(&mut self, mem: &Memory<P>) {
        while let Some(node) = self.unstable.root() {
            self.unstable.remove(node, None);
            mem.arenas.ksm_nodes.free(mem, node);
        }
        self.passes.unshared = 0;
    }

    /// All pages of the stable tree, in order. While the iterator is in use none may be taken out but
    /// those that it has gone past.
    pub(super) fn all_stable(&self) -> impl Iterator<Item = Ref<KsmNode>> + use<> {
        let mut next = self.stable.first();
        core::iter::from_fn(move || {
            let node = next?;
            next = Avl::<ByHash>::next(node);
            Some(node)
        })
    }

    /// How many pages are in the two trees.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn nodes(&self) -> usize {
        let unstable = core::iter::successors(self.unstable.first(), |&node| Avl::<ByHash>::next(node));
        self.all_stable().count() + unstable.count()
    }
}

/// The nodes with that hash.
fn equals(tree: &Avl<ByHash>, hash: u64) -> impl Iterator<Item = Ref<KsmNode>> + use<> {
    let (mut first, mut at) = (None, tree.root());
    while let Some(node) = at {
        at = if node.hash() < hash {
            node.links.right()
        } else {
            first = Some(node);
            node.links.left()
        };
    }
    core::iter::successors(first, |&node| Avl::<ByHash>::next(node)).take_while(move |node| node.hash() == hash)
}

fn insert(tree: &Avl<ByHash>, node: Ref<KsmNode>) {
    let (mut place, mut at) = (None, tree.root());
    while let Some(above) = at {
        let side = if node.hash() < above.hash() { Side::Left } else { Side::Right };
        place = Some((above, side));
        at = match side {
            Side::Left => above.links.left(),
            Side::Right => above.links.right(),
        };
    }
    tree.insert_at(node, place);
}

impl<P: Platform> Memory<P> {
    /// The merged page of a node of the stable tree, with a reference; `None` if it is gone.
    pub(super) fn merged_page(&self, node: Ref<KsmNode>) -> Option<MergedPage<'_, P>> {
        let pfn = node.pfn();
        let record = self.frame(pfn);
        if !record.try_get() {
            return None;
        }
        let page = MergedPage { mem: self, pfn };
        let is_node = record.kind() == FrameKind::Anon && KsmNode::of(record) == Some(node);
        is_node.then_some(page)
    }
}

/// A reference to a merged page.
pub(super) struct MergedPage<'m, P: Platform> {
    mem: &'m Memory<P>,
    pub(super) pfn: Pfn,
}

impl<'m, P: Platform> MergedPage<'m, P> {
    /// Takes a reference over.
    pub(super) fn new(mem: &'m Memory<P>, pfn: Pfn) -> MergedPage<'m, P> {
        MergedPage { mem, pfn }
    }

    pub(super) fn record(&self) -> &'m Frame {
        self.mem.frame(self.pfn)
    }
}

impl<P: Platform> Drop for MergedPage<'_, P> {
    fn drop(&mut self) {
        self.mem.put(self.pfn);
    }
}
