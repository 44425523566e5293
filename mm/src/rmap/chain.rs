//! How VMAs come to be chained to anon_vmas, and leave them.

use core::sync::atomic::Ordering;

use super::{AnonVma, Avc};
use crate::addr::{PAGE_SIZE, PageRange};
use crate::errno::OutOfMemory;
use crate::flags::VmaFlags;
use crate::interval;
use crate::memory::Memory;
use crate::platform::Platform;
use crate::slab::Ref;
use crate::sync::{SpinLockGuard, WriteGuard, rank};
use crate::vma::{Spares, Vma};

/// The lock of an anon_vma's root, held for writing.
///
/// Functions that change what it protects take one as their witness. Get it
/// with [`AnonVma::lock`].
pub(crate) struct RootLock<'a> {
    _guard: WriteGuard<'a, (), { rank::ANON_VMA_ROOT }>,
}

impl AnonVma {
    /// Locks the trees and counters of all anon_vmas whose root this is, which
    /// must be a root ([`AnonVma::root`]).
    pub(crate) fn lock(&self) -> RootLock<'_> {
        debug_assert!(self.root.get().is_some_and(|root| core::ptr::eq(&*root, self)));
        RootLock { _guard: self.lock.write() }
    }

    /// [`lock`](Self::lock) for who gives a VMA its first anon_vma.
    fn lock_under(&self, prepare: &SpinLockGuard<'_, (), { rank::PREPARE }>) -> RootLock<'_> {
        debug_assert!(self.root.get().is_some_and(|root| core::ptr::eq(&*root, self)));
        RootLock { _guard: self.lock.write_under(prepare) }
    }

    /// Makes a slot from the arena an anon_vma that no VMA is chained to yet.
    fn init(this: Ref<AnonVma>, parent: Option<Ref<AnonVma>>, _: Option<&RootLock>) {
        this.parent.set(Some(parent.unwrap_or(this)));
        this.refs.store(1, Ordering::Relaxed);
        this.active.store(0, Ordering::Relaxed);
        this.children.store(0, Ordering::Relaxed);
        let root = parent.map_or(this, AnonVma::root);
        this.root.set(Some(root));
        match parent {
            // A root is its own child, so that it is never taken for reusable.
            None => this.children.store(1, Ordering::Relaxed),
            Some(parent) => {
                parent.children.fetch_add(1, Ordering::Relaxed);
                root.refs.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Gives up the reference of the VMAs, of which none is left.
    fn put<P: Platform>(this: Ref<AnonVma>, memory: &Memory<P>) {
        let root = AnonVma::root(this);
        if this.refs.fetch_sub(1, Ordering::AcqRel) == 1 {
            memory.arenas.anon_vmas.free(memory, this);
            if root != this && root.refs.fetch_sub(1, Ordering::AcqRel) == 1 {
                memory.arenas.anon_vmas.free(memory, root);
            }
        }
    }
}

/// Gives `vma` an anon_vma, if it has none, so that pages can be put into it.
///
/// Where a neighbour is such that both could be one VMA but for their access
/// permissions, its anon_vma is shared (the next VMA's rather than the
/// previous one's), so that they still can merge when their permissions become
/// equal.
///
/// The caller holds the mmap lock, at least for reading, as the neighbours are
/// looked at; that of the VMA is not enough. Several threads may be here for one
/// VMA.
///
/// # Errors
///
/// [`OutOfMemory`]; nothing has changed.
#[inline]
pub(crate) fn prepare<P: Platform>(memory: &Memory<P>, vma: Ref<Vma>) -> Result<(), OutOfMemory> {
    match vma.anon_vma() {
        Some(_) => Ok(()),
        None => prepare_first(memory, vma),
    }
}

#[cold]
fn prepare_first<P: Platform>(memory: &Memory<P>, vma: Ref<Vma>) -> Result<(), OutOfMemory> {
    let arenas = &memory.arenas;
    let avc = arenas.avcs.alloc(memory)?;
    let shared = neighbours_anon_vma(vma, vma.prev(), vma.next());
    let fresh = match shared {
        Some(_) => None,
        None => match arenas.anon_vmas.alloc(memory) {
            Ok(fresh) => Some(fresh),
            Err(error) => {
                arenas.avcs.free(memory, avc);
                return Err(error);
            }
        },
    };
    if let Some(fresh) = fresh {
        AnonVma::init(fresh, None, None);
    }
    let chosen = shared.or(fresh);

    let once = vma.prepare_lock();
    match chosen {
        Some(anon_vma) if vma.anon_vma().is_none() => {
            let root = AnonVma::root(anon_vma);
            let lock = root.lock_under(&once);
            vma.set_chain(None);
            attach_newest(&lock, avc, vma, anon_vma);
            set_anon_vma(&lock, vma, anon_vma);
        }
        _ => {
            // Another thread was faster.
            drop(once);
            arenas.avcs.free(memory, avc);
            if let Some(fresh) = fresh {
                arenas.anon_vmas.free(memory, fresh);
            }
        }
    }
    Ok(())
}

/// Gives `to`, which has no anon_vma, that of a neighbour or one of its own, as for
/// [`prepare`], so that the pages of `from` in `source` can be put into it. Calls `put`,
/// with what pages of `to` have as their mapping, while nobody can walk from the pages
/// of either VMA.
///
/// Where `source` is next to `to`, that is no neighbour: it is about to go, or to be empty.
///
/// Draws [`Needs::CHAIN`](crate::vma::Needs::CHAIN).
pub(crate) fn attach(spares: &mut Spares, from: Ref<Vma>, source: PageRange, to: Ref<Vma>, put: impl FnOnce(usize)) {
    let stays = |at: usize, vma: &Ref<Vma>| *vma != from || !source.contains(at);
    let next = to.next().filter(|next| stays(to.end(), next));
    let prev = to.prev().filter(|prev| stays(to.start().wrapping_sub(PAGE_SIZE), prev));
    let anon_vma = neighbours_anon_vma(to, prev, next).unwrap_or_else(|| {
        let fresh = spares.anon_vma();
        AnonVma::init(fresh, None, None);
        fresh
    });
    let root = AnonVma::root(anon_vma);
    let other = from.anon_vma().map(AnonVma::root).filter(|other| *other != root);
    // In ascending order: another process may be about to lock the same two.
    let before = other.as_ref().filter(|other| other.as_usize() < root.as_usize()).map(|other| other.lock());
    let lock = root.lock();
    let after = other.as_ref().filter(|other| other.as_usize() > root.as_usize()).map(|other| other.lock());

    to.set_chain(None);
    attach_newest(&lock, spares.avc(), to, anon_vma);
    set_anon_vma(&lock, to, anon_vma);
    put(AnonVma::to_mapping(anon_vma));
    drop((after, lock, before));
}

/// Whether pages of `vma`, which has an anon_vma, may be mapped by a VMA that came of
/// it, or that it came of, by fork: a guess, by what has been forked and is still there.
pub(crate) fn is_forked(vma: &Vma) -> bool {
    !vma.has_short_chain() || vma.anon_vma().is_some_and(|anon_vma| anon_vma.children() > 1)
}

/// The anon_vma of the VMA before or the one after, if that is adjacent and `vma` may
/// share it.
fn neighbours_anon_vma(vma: Ref<Vma>, prev: Option<Ref<Vma>>, next: Option<Ref<Vma>>) -> Option<Ref<AnonVma>> {
    let of_next = next.filter(|next| may_share(&vma, next)).and_then(|next| shareable(&next));
    of_next.or_else(|| prev.filter(|prev| may_share(prev, &vma)).and_then(|prev| shareable(&prev)))
}

/// Whether two VMAs, one before the other, differ at most in what `mprotect` can change.
fn may_share(before: &Vma, after: &Vma) -> bool {
    let irrelevant = VmaFlags::ACCESS | VmaFlags::IGNORE_MERGE;
    before.end() == after.start()
        && after.pgoff() == before.pgoff().wrapping_add(before.pages())
        && before.object() == after.object()
        && (before.flags() ^ after.flags()).difference(irrelevant).is_empty()
}

/// The anon_vma of `vma`, unless it is chained to ancestors too: whoever
/// shared it then would have to be chained to them as well.
fn shareable(vma: &Vma) -> Option<Ref<AnonVma>> {
    vma.anon_vma().filter(|_| vma.has_short_chain())
}

/// Chains `new`, which has no anon_vma, to those of `old`: as when one is split
/// off the other, or is a copy of it at another place. Draws as many chain
/// links as `old` has.
pub(crate) fn copy_chain(lock: &RootLock, spares: &mut Spares, old: Ref<Vma>, new: Ref<Vma>) {
    if let Some(anon_vma) = old.anon_vma() {
        attach_all(lock, spares, old, new);
        set_anon_vma(lock, new, anon_vma);
    }
}

/// Chains the `child` of a fork, which has no anon_vma, to those of its
/// `parent`, and gives it one for its own new pages. Draws as many chain links
/// as the parent has and one more, and an anon_vma.
pub(crate) fn fork_chain(spares: &mut Spares, parent: Ref<Vma>, child: Ref<Vma>) {
    let Some(parents) = parent.anon_vma() else {
        return;
    };
    let root = AnonVma::root(parents);
    let lock = root.lock();
    let own = match attach_all(&lock, spares, parent, child) {
        Some(reusable) => reusable,
        None => {
            let fresh = spares.anon_vma();
            AnonVma::init(fresh, Some(parents), Some(&lock));
            attach_newest(&lock, spares.avc(), child, fresh);
            fresh
        }
    };
    set_anon_vma(&lock, child, own);
}

/// Chains `to` to all that `from` is chained to, in the same order. Returns
/// the oldest among them that a forked child may use for its own pages.
fn attach_all(lock: &RootLock, spares: &mut Spares, from: Ref<Vma>, to: Ref<Vma>) -> Option<Ref<AnonVma>> {
    debug_assert!(to.anon_vma().is_none());
    let mut reusable = None;
    let mut newer: Option<Ref<Avc>> = None;
    to.set_chain(None);
    for (_, anon_vma) in chain(from) {
        let avc = spares.avc();
        avc.older.set(None);
        match newer {
            None => to.set_chain(Some(avc)),
            Some(newer) => newer.older.set(Some(avc)),
        }
        newer = Some(avc);
        put_in_tree(lock, avc, to, anon_vma);
        if anon_vma.active() == 0 && anon_vma.children() < 2 {
            reusable = Some(anon_vma);
        }
    }
    reusable
}

/// Chains `vma` to `anon_vma` through `avc`, as the newest.
fn attach_newest(lock: &RootLock, avc: Ref<Avc>, vma: Ref<Vma>, anon_vma: Ref<AnonVma>) {
    avc.older.set(vma.chain());
    vma.set_chain(Some(avc));
    put_in_tree(lock, avc, vma, anon_vma);
}

/// The page indices that `vma` covers.
fn indices(vma: Ref<Vma>) -> (usize, usize) {
    (vma.pgoff(), vma.pgoff() + (vma.pages() - 1))
}

fn put_in_tree(_: &RootLock, avc: Ref<Avc>, vma: Ref<Vma>, anon_vma: Ref<AnonVma>) {
    avc.vma.set(Some(vma));
    avc.anon_vma.set(Some(anon_vma));
    interval::insert(&anon_vma.tree, avc, indices(vma));
}

/// New pages of `vma` go to `anon_vma` from now on.
fn set_anon_vma(_: &RootLock, vma: Ref<Vma>, anon_vma: Ref<AnonVma>) {
    anon_vma.active.fetch_add(1, Ordering::Relaxed);
    vma.set_anon_vma(Some(anon_vma));
}

/// Unchains `vma` from everything; anon_vmas without a VMA go.
///
/// No page of the VMA may be mapped any more. For when the VMA itself goes, or
/// (`mremap`) all its pages have moved elsewhere.
pub(crate) fn unlink<P: Platform>(memory: &Memory<P>, vma: Ref<Vma>) {
    let Some(anon_vma) = vma.anon_vma() else {
        return;
    };
    let root = AnonVma::root(anon_vma);
    let mut dead: Option<Ref<Avc>> = None;
    {
        let lock = root.lock();
        let mut at = vma.chain();
        while let Some(avc) = at {
            at = avc.older.get();
            if take_from_tree(&lock, avc) {
                // Kept until after the unlock: freeing the root frees the lock.
                avc.older.set(dead);
                dead = Some(avc);
            } else {
                memory.arenas.avcs.free(memory, avc);
            }
        }
        forget(&lock, vma, anon_vma);
    }
    while let Some(avc) = dead {
        dead = avc.older.get();
        if let Some(anon_vma) = avc.anon_vma.get() {
            AnonVma::put(anon_vma, memory);
        }
        memory.arenas.avcs.free(memory, avc);
    }
}

/// Takes `avc` out of its anon_vma's tree; returns whether that has no VMA now.
fn take_from_tree(_: &RootLock, avc: Ref<Avc>) -> bool {
    let Some(anon_vma) = avc.anon_vma.get() else {
        return false;
    };
    anon_vma.tree.remove(avc, None);
    if !anon_vma.tree.is_empty() {
        return false;
    }
    if let Some(parent) = anon_vma.parent.get() {
        parent.children.fetch_sub(1, Ordering::Relaxed);
    }
    true
}

fn forget(_: &RootLock, vma: Ref<Vma>, anon_vma: Ref<AnonVma>) {
    anon_vma.active.fetch_sub(1, Ordering::Relaxed);
    vma.set_anon_vma(None);
    vma.set_chain(None);
}

/// Unchains `vma`, all of whose anon_vmas have other VMAs (those that it is
/// being merged into, for instance), so that none of them goes.
pub(crate) fn drop_chain<P: Platform>(lock: &RootLock, memory: &Memory<P>, vma: Ref<Vma>) {
    let Some(anon_vma) = vma.anon_vma() else {
        return;
    };
    let mut at = vma.chain();
    while let Some(avc) = at {
        at = avc.older.get();
        let last = take_from_tree(lock, avc);
        debug_assert!(!last, "an anon_vma has lost its last VMA");
        memory.arenas.avcs.free(memory, avc);
    }
    forget(lock, vma, anon_vma);
}

/// The chain of `from` becomes that of `to`, which has none. `to` has its final
/// bounds already.
pub(crate) fn adopt_chain(_: &RootLock, from: Ref<Vma>, to: Ref<Vma>) {
    debug_assert!(to.anon_vma().is_none());
    to.set_chain(from.chain());
    for (avc, anon_vma) in chain(from) {
        avc.vma.set(Some(to));
        interval::update(&anon_vma.tree, avc, indices(to));
    }
    to.set_anon_vma(from.anon_vma());
    from.set_anon_vma(None);
    from.set_chain(None);
}

/// Puts `vma` at its right place in its anon_vmas' trees, after its bounds or
/// its page offset have changed.
pub(crate) fn index_again(_: &RootLock, vma: Ref<Vma>) {
    for (avc, anon_vma) in chain(vma) {
        interval::update(&anon_vma.tree, avc, indices(vma));
    }
}

/// The anon_vmas that `vma` is chained to, newest first, each with the link.
pub(super) fn chain(vma: Ref<Vma>) -> impl Iterator<Item = (Ref<Avc>, Ref<AnonVma>)> {
    core::iter::successors(vma.chain(), |avc| avc.older.get()).filter_map(|avc| Some((avc, avc.anon_vma.get()?)))
}

impl Vma {
    /// How many anon_vmas the VMA is chained to.
    pub(crate) fn chain_len(&self) -> usize {
        core::iter::successors(self.chain(), |avc| avc.older.get()).count()
    }

    /// Whether the VMA is chained to one anon_vma or none: not to any that a
    /// parent process has pages in.
    pub(crate) fn has_short_chain(&self) -> bool {
        self.chain().is_none_or(|newest| newest.older.get().is_none())
    }
}
