//! One virtual memory area: a range of pages that are all alike.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use crate::addr::{PAGE_SHIFT, PageRange};
use crate::avl::{Link, Links};
use crate::flags::VmaFlags;
use crate::interval::Span;
use crate::object::Object;
use crate::rmap::{AnonVma, Avc};
use crate::slab::Ref;
use crate::space::SpaceCore;
use crate::sync::{SpinLock, SpinLockGuard, VmaLock, point, rank};

/// Bytes that nothing is placed in below a VMA that grows down (Linux's
/// default `stack_guard_gap`, 256 pages).
pub(crate) const STACK_GUARD_GAP: usize = 256 << PAGE_SHIFT;

/// One virtual memory area.
///
/// An object of an arena, found through the [`VmaTree`](super::VmaTree) of its
/// address space. Every field is an atomic, for readers that hold no lock that
/// keeps writers out; writers hold the mmap lock for writing, and the VMA's own
/// (see [`VmaTree::lock_vma`](super::VmaTree::lock_vma)). Bounds, links
/// and the chain change only through the tree's operations and `rmap`'s, which
/// keep what depends on them.
///
/// The fields that a look-up reads come first, to be in one cache line, which
/// no fault writes to: the locks have a line of their own.
#[derive(Default)]
#[repr(C, align(64))]
pub(crate) struct Vma {
    start: AtomicUsize,
    end: AtomicUsize,
    pub(super) links: Links<Vma>,
    /// Bytes between the previous VMA and this one.
    pub(super) gap: AtomicUsize,
    /// The largest `gap` in the subtree.
    pub(super) max_gap: AtomicUsize,

    pgoff: AtomicUsize,
    flags: AtomicU32,
    name: AtomicU32,
    anon_vma: Link<AnonVma>,
    object: Link<Object>,
    pub(super) prev: Link<Vma>,
    pub(super) next: Link<Vma>,
    /// The newest of the anon_vmas it is chained to.
    chain: Link<Avc>,
    space: AtomicUsize,

    pub(super) lock: VmaLock,
    prepare: SpinLock<(), { rank::PREPARE }>,
    attached: AtomicBool,
    /// Its place among those that map its object.
    pub(crate) mapping: Span<Vma>,
}

/// What must be equal for two VMAs to be one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Attributes {
    /// Permissions and the rest.
    pub(crate) flags: VmaFlags,
    /// The memory object behind it; `None` for anonymous memory.
    pub(crate) object: Option<Ref<Object>>,
    /// Which name it was given; 0 for none. What names there are is the address space's matter.
    pub(crate) name: u32,
}

impl Vma {
    /// First address, in bytes.
    #[inline(always)]
    pub(crate) fn start(&self) -> usize {
        self.start.load(Ordering::Relaxed)
    }

    /// End address (exclusive), in bytes.
    #[inline(always)]
    pub(crate) fn end(&self) -> usize {
        self.end.load(Ordering::Relaxed)
    }

    /// The addresses of the VMA.
    #[inline]
    pub(crate) fn range(&self) -> PageRange {
        PageRange::new(self.start(), self.end()).unwrap_or(PageRange::EMPTY)
    }

    /// Whether the byte at `addr` is in the VMA.
    #[inline]
    pub(crate) fn contains(&self, addr: usize) -> bool {
        self.start() <= addr && addr < self.end()
    }

    /// Its length in pages; never 0.
    #[inline]
    pub(crate) fn pages(&self) -> usize {
        (self.end() - self.start()) >> PAGE_SHIFT
    }

    /// The page index of its first page: in the object, or, for private
    /// anonymous memory, that of the address where it was first written to.
    #[inline(always)]
    pub(crate) fn pgoff(&self) -> usize {
        self.pgoff.load(Ordering::Relaxed)
    }

    /// The page index of the page at `addr`: what `Frame::index` is for it.
    #[inline(always)]
    pub(crate) fn index_of(&self, addr: usize) -> usize {
        // Wraps for an address below, as when asking what the offset would be there.
        self.pgoff().wrapping_add_signed((addr.wrapping_sub(self.start()) as isize) >> PAGE_SHIFT)
    }

    /// Where the VMA has the page of that index, if it does.
    #[inline]
    pub(crate) fn address_of(&self, index: usize) -> Option<usize> {
        let page = index.wrapping_sub(self.pgoff());
        (page < self.pages()).then(|| self.start() + (page << PAGE_SHIFT))
    }

    /// What it is and may become.
    #[inline(always)]
    pub(crate) fn flags(&self) -> VmaFlags {
        VmaFlags::from_bits_retain(self.flags.load(Ordering::Relaxed))
    }

    /// Which name it was given; see [`Attributes::name`].
    #[inline]
    pub(crate) fn name(&self) -> u32 {
        self.name.load(Ordering::Relaxed)
    }

    /// The memory object behind it, to which it holds a reference; `None` for
    /// anonymous memory.
    #[inline(always)]
    pub(crate) fn object(&self) -> Option<Ref<Object>> {
        self.object.get()
    }

    /// All that decides with what it may merge, besides place and anon_vma.
    #[inline]
    pub(crate) fn attributes(&self) -> Attributes {
        Attributes { flags: self.flags(), object: self.object(), name: self.name() }
    }

    /// What its new anonymous pages name as their mapping; `None` before the
    /// first write fault.
    #[inline(always)]
    pub(crate) fn anon_vma(&self) -> Option<Ref<AnonVma>> {
        self.anon_vma.get()
    }

    /// The next VMA of the address space, at higher addresses.
    #[inline(always)]
    pub(crate) fn next(&self) -> Option<Ref<Vma>> {
        self.next.get()
    }

    /// The previous VMA of the address space, at lower addresses.
    #[inline(always)]
    pub(crate) fn prev(&self) -> Option<Ref<Vma>> {
        self.prev.get()
    }

    /// The address space it belongs to, as given when it was made.
    #[inline]
    pub(crate) fn space(&self) -> usize {
        self.space.load(Ordering::Relaxed)
    }

    /// Whether it is in its address space's tree.
    #[inline]
    pub(crate) fn is_attached(&self) -> bool {
        self.attached.load(Ordering::Acquire)
    }

    /// End of what may be placed below: the start, less the guard gap of a
    /// VMA that grows down.
    #[inline]
    pub(crate) fn guarded_start(&self) -> usize {
        if self.flags().contains(VmaFlags::GROWSDOWN) {
            self.start().saturating_sub(STACK_GUARD_GAP)
        } else {
            self.start()
        }
    }

    /// Taken by who gives the VMA its first anon_vma while others may, too.
    #[inline]
    pub(crate) fn prepare_lock(&self) -> SpinLockGuard<'_, (), { rank::PREPARE }> {
        self.prepare.lock()
    }

    /// The newest of its chain; for `rmap` alone.
    #[inline]
    pub(crate) fn chain(&self) -> Option<Ref<Avc>> {
        self.chain.get()
    }

    /// For `rmap` alone.
    #[inline]
    pub(crate) fn set_chain(&self, newest: Option<Ref<Avc>>) {
        self.chain.set(newest);
    }

    /// For `rmap` alone.
    #[inline]
    pub(crate) fn set_anon_vma(&self, anon_vma: Option<Ref<AnonVma>>) {
        self.anon_vma.set(anon_vma);
    }

    #[inline]
    pub(super) fn set_place(&self, start: usize, end: usize, pgoff: usize) {
        self.start.store(start, Ordering::Relaxed);
        point();
        self.end.store(end, Ordering::Relaxed);
        self.pgoff.store(pgoff, Ordering::Relaxed);
    }

    /// Changes the bounds and nothing that depends on them but the page index
    /// of the first page: pages that stay keep theirs.
    #[inline]
    pub(super) fn move_bounds(&self, start: usize, end: usize) {
        self.set_place(start, end, self.index_of(start));
    }

    #[inline]
    pub(super) fn store_flags(&self, flags: VmaFlags) {
        point();
        self.flags.store(flags.bits(), Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn store_name(&self, name: u32) {
        self.name.store(name, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn store_attached(&self, attached: bool) {
        point();
        self.attached.store(attached, Ordering::Release);
    }

    /// Makes a slot from the arena a VMA that is in no tree and has no
    /// anon_vma, and is locked for the address space's current `section`. Takes
    /// over a reference to the object.
    pub(super) fn init(&self, range: PageRange, pgoff: usize, attributes: &Attributes, space: usize, section: u64) {
        // SAFETY: the address space makes a VMA for itself.
        self.lock.write_unshared(section, || unsafe { SpaceCore::by_id(space) });
        self.set_place(range.start(), range.end(), pgoff);
        self.store_flags(attributes.flags);
        self.store_name(attributes.name);
        self.object.set(attributes.object);
        self.anon_vma.set(None);
        self.chain.set(None);
        self.prev.set(None);
        self.next.set(None);
        self.space.store(space, Ordering::Relaxed);
        self.store_attached(false);
    }

    /// Takes the reference to the object out.
    #[inline]
    pub(super) fn take_object(&self) -> Option<Ref<Object>> {
        let object = self.object();
        self.object.set(None);
        object
    }
}

impl core::fmt::Debug for Vma {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#x}..{:#x} @{:#x} {:?}", self.start(), self.end(), self.pgoff(), self.flags())
    }
}
