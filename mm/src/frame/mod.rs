//! Physical memory: page frames, what each one is used for, and who has them.
//!
//! Every frame of the machine's RAM has a [`Frame`] record. The records lie in
//! one array, indexed by frame number, that is carved out of the RAM itself.
//! A frame is at every instant in exactly one of these states:
//!
//! ```text
//!             alloc                       into_raw
//!   free  ──────────────▶  OwnedFrame  ──────────────▶  shared, reference counted
//!    ▲                          │                               │
//!    └────────── free ──────────┴──────── last put ─────────────┘
//! ```
//!
//! Free frames are in a buddy system ([`buddy`]), single ones also in lists in
//! front of it, one for each CPU ([`cpu`], [`allocator`]). A frame is free only when nothing maps
//! it and no TLB can hold a translation to it; who unmaps a frame keeps its
//! reference until the flush has completed.

mod allocator;
mod buddy;
mod content;
mod cpu;
mod exclusive;
mod table;

#[cfg(test)]
mod tests;

use core::fmt;
use core::mem;
use core::sync::atomic::Ordering;

pub(crate) use allocator::FrameAllocator;
pub use allocator::InitError;
pub(crate) use content::{clear_page, copy_page};
pub(crate) use table::Frames;

use crate::addr::Pfn;
use crate::sync::atomic::{AtomicU32, AtomicUsize};
use crate::sync::{SpinLock, SpinLockGuard, point, rank};

/// The largest block of frames is `1 << MAX_ORDER` frames: 4 MiB.
pub const MAX_ORDER: u8 = 10;

/// What a frame is used for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum FrameKind {
    /// Not ours to give out: a hole, firmware's, the kernel's, or the frame records'.
    Reserved = 0,
    /// Free.
    Free,
    /// A page table.
    Table,
    /// A page of private anonymous memory.
    Anon,
    /// A page of a memory object's contents.
    Object,
    /// A node of a memory object's page index.
    ObjectIndex,
    /// The crate's own small objects.
    Slab,
    /// Taken by the kernel for its own purposes.
    Kernel,
    /// The page of zeroes that every read fault on untouched memory shares.
    Zero,
}

impl FrameKind {
    /// How many kinds there are.
    pub const COUNT: usize = FrameKind::ALL.len();

    const ALL: [FrameKind; 9] = [
        FrameKind::Reserved,
        FrameKind::Free,
        FrameKind::Table,
        FrameKind::Anon,
        FrameKind::Object,
        FrameKind::ObjectIndex,
        FrameKind::Slab,
        FrameKind::Kernel,
        FrameKind::Zero,
    ];

    const fn from_bits(bits: u32) -> FrameKind {
        let index = (bits & 0xff) as usize;
        // No other value is ever stored.
        if index < FrameKind::COUNT { FrameKind::ALL[index] } else { FrameKind::Reserved }
    }
}

/// The record of one frame.
///
/// All fields are atomics, read and written without ordering of their own:
/// what they say may be relied upon by who holds the lock that guards the
/// matter (a page-table lock, an anon_vma's, the frame's sole reference).
#[repr(C, align(64))]
pub struct Frame {
    /// References; 0 when free.
    refcount: AtomicU32,
    /// Page-table entries that map the frame. Each of them holds a reference.
    mapcount: AtomicU32,
    /// Whose page it is: an anon_vma (bit 0 set) or a memory object; 0: nobody's.
    mapping: AtomicUsize,
    /// Its index there, in pages.
    index: AtomicUsize,
    /// Bits 0..8 kind, 8..16 order, then the flags below.
    state: AtomicU32,
    /// Links of the free lists: indices of records.
    prev: AtomicU32,
    next: AtomicU32,
    /// Of a private page: the swap slot that is its own, 0 if none is. Guarded by
    /// the lock of the swap slots.
    swap_slot: AtomicU32,
    /// Page-table entries that mapped the frame and will map the one that its page is being
    /// moved to. None of them holds a reference.
    migrating: AtomicU32,
    /// References whose holders rely on the page's being where it is, and its owner's.
    pins: AtomicU32,
    /// Of a private page: a checksum of its contents when they were last looked at.
    checksum: AtomicU32,
    /// Guards the entries of a page table.
    table_lock: SpinLock<(), { rank::PAGE_TABLE }>,
    /// Guards where a private page is: taken by who takes it out of page tables, or
    /// brings it back from swap.
    folio_lock: SpinLock<(), { rank::FOLIO }>,
}

/// [`Frame::state`]: the first frame of a block on one of the buddy lists.
const ON_BUDDY_LIST: u32 = 1 << 16;
/// [`Frame::state`]: a frame of a block in use, other than its first.
const TAIL: u32 = 1 << 17;
/// [`Frame::state`]: a private page whose contents may go unless it is written to
/// (`MADV_FREE`).
const LAZY_FREE: u32 = 1 << 18;
/// [`Frame::state`]: a private page that stands for several with the same contents.
const MERGED: u32 = 1 << 19;
/// [`Frame::state`]: a private page that is not known to be its one mapping's alone; see
/// [`exclusive`]. Of other pages it says nothing.
const SHARED: u32 = 1 << 20;

impl Frame {
    pub(crate) fn new() -> Frame {
        Frame {
            refcount: AtomicU32::new(0),
            mapcount: AtomicU32::new(0),
            mapping: AtomicUsize::new(0),
            index: AtomicUsize::new(0),
            state: AtomicU32::new(FrameKind::Reserved as u32),
            prev: AtomicU32::new(0),
            next: AtomicU32::new(0),
            swap_slot: AtomicU32::new(0),
            migrating: AtomicU32::new(0),
            pins: AtomicU32::new(0),
            checksum: AtomicU32::new(0),
            table_lock: SpinLock::new(()),
            folio_lock: SpinLock::new(()),
        }
    }

    /// What the frame is used for.
    #[inline]
    pub fn kind(&self) -> FrameKind {
        FrameKind::from_bits(self.state.load(Ordering::Relaxed))
    }

    /// Log 2 of the number of frames in the block that the frame is the first of.
    #[inline]
    pub fn order(&self) -> u8 {
        (self.state.load(Ordering::Relaxed) >> 8) as u8
    }

    /// References to the frame; 0 when it is free.
    #[inline]
    pub fn refcount(&self) -> u32 {
        point();
        self.refcount.load(Ordering::Relaxed)
    }

    /// Page-table entries that map the frame.
    #[inline]
    pub fn mapcount(&self) -> u32 {
        point();
        self.mapcount.load(Ordering::Acquire)
    }

    /// Makes the frame the page `index` of `mapping`, to be mapped by one entry. Nothing maps it, and
    /// whose page it is nobody looks at before that entry is counted, so the count need not be
    /// changed in one step with anybody else (Linux's `folio_add_new_anon_rmap`).
    #[inline]
    pub(crate) fn map_first(&self, mapping: usize, index: usize) {
        self.set_mapping(mapping);
        self.set_index(index);
        debug_assert_eq!(self.mapcount.load(Ordering::Relaxed), 0, "somebody maps it already");
        point();
        // Release: who sees the page mapped sees where, see `reclaim`.
        self.mapcount.store(1, Ordering::Release);
    }

    /// Counts one more page-table entry that maps the frame.
    #[inline]
    pub(crate) fn inc_mapcount(&self) {
        point();
        // Release: as in `map_first`.
        self.mapcount.fetch_add(1, Ordering::Release);
    }

    /// Counts one page-table entry less, and says how many are left.
    #[inline]
    pub(crate) fn dec_mapcount(&self) -> u32 {
        point();
        let before = self.mapcount.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before != 0, "mapcount underflow");
        before.wrapping_sub(1)
    }

    /// Page-table entries that name the frame as one that its page is being moved from.
    #[inline]
    pub(crate) fn migrating(&self) -> u32 {
        point();
        self.migrating.load(Ordering::Acquire)
    }

    /// Counts one more such entry.
    pub(crate) fn inc_migrating(&self) {
        point();
        self.migrating.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one such entry less.
    pub(crate) fn dec_migrating(&self) {
        point();
        let before = self.migrating.fetch_sub(1, Ordering::Release);
        debug_assert!(before != 0, "more migration entries go than there were");
    }

    /// How many hold the page where it is ([`AddressSpace::pin`](crate::AddressSpace::pin)).
    #[inline]
    pub fn pins(&self) -> u32 {
        point();
        self.pins.load(Ordering::Relaxed)
    }

    /// One of the references is one that the page stays for.
    pub(crate) fn inc_pins(&self) {
        point();
        self.pins.fetch_add(1, Ordering::Relaxed);
    }

    /// It is an ordinary one again.
    pub(crate) fn dec_pins(&self) {
        point();
        let before = self.pins.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before != 0, "unpinned more often than pinned");
    }

    /// Page-table entries that map the page, be it just being moved or not.
    pub fn sharers(&self) -> u32 {
        self.mapcount() + self.migrating()
    }

    /// Whose page it is: the address of an anon_vma with bit 0 set, that of a
    /// memory object, or 0.
    #[inline]
    pub(crate) fn mapping(&self) -> usize {
        self.mapping.load(Ordering::Relaxed)
    }

    /// Sets what [`mapping`](Self::mapping) returns.
    #[inline]
    pub(crate) fn set_mapping(&self, mapping: usize) {
        self.mapping.store(mapping, Ordering::Relaxed);
    }

    /// The page's index in its mapping, in pages.
    #[inline]
    pub(crate) fn index(&self) -> usize {
        self.index.load(Ordering::Relaxed)
    }

    /// Sets what [`index`](Self::index) returns.
    #[inline]
    pub(crate) fn set_index(&self, index: usize) {
        self.index.store(index, Ordering::Relaxed);
    }

    /// Takes the lock of the page table that the frame is.
    #[inline]
    pub(crate) fn table_lock(&self) -> SpinLockGuard<'_, (), { rank::PAGE_TABLE }> {
        self.table_lock.lock()
    }

    /// Takes the lock of the page table that the frame is, if it is free.
    #[cfg(test)]
    pub(crate) fn try_table_lock(&self) -> Option<SpinLockGuard<'_, (), { rank::PAGE_TABLE }>> {
        self.table_lock.try_lock()
    }

    /// The swap slot whose page this is; 0 if it is none's.
    #[inline]
    pub(crate) fn swap_slot(&self) -> u32 {
        point();
        self.swap_slot.load(Ordering::Relaxed)
    }

    /// Whether the page is a private one that is in swap as well, or about to be.
    pub fn is_in_swap_cache(&self) -> bool {
        self.swap_slot() != 0
    }

    /// Sets what [`swap_slot`](Self::swap_slot) returns.
    pub(crate) fn set_swap_slot(&self, slot: u32) {
        self.swap_slot.store(slot, Ordering::Relaxed);
    }

    /// Whether the page's contents may go unless it has been written to.
    pub fn is_lazy_free(&self) -> bool {
        self.state.load(Ordering::Relaxed) & LAZY_FREE != 0
    }

    /// Sets what [`is_lazy_free`](Self::is_lazy_free) returns.
    pub(crate) fn set_lazy_free(&self, lazy: bool) {
        if lazy {
            self.state.fetch_or(LAZY_FREE, Ordering::Relaxed);
        } else {
            self.state.fetch_and(!LAZY_FREE, Ordering::Relaxed);
        }
    }

    /// Whether the page is a private one that stands for several with the same contents
    /// (see [`Memory::ksm_scan`](crate::Memory::ksm_scan)): nobody writes to it.
    pub fn is_merged(&self) -> bool {
        self.state.load(Ordering::Relaxed) & MERGED != 0
    }

    /// Makes a new private page one that [`is_merged`](Self::is_merged) until it is freed.
    pub(crate) fn set_merged(&self) {
        self.state.fetch_or(MERGED | SHARED, Ordering::Relaxed);
    }

    /// Whether the page is a private one of the ordinary kind: not merged with others.
    #[inline]
    pub(crate) fn is_ordinary_anon(&self) -> bool {
        self.state.load(Ordering::Relaxed) & (0xff | MERGED) == FrameKind::Anon as u32
    }

    /// Takes note of a checksum of the page's contents, and returns the last one.
    pub(crate) fn replace_checksum(&self, checksum: u32) -> u32 {
        self.checksum.swap(checksum, Ordering::Relaxed)
    }

    /// Takes the lock of the private page that the frame is.
    pub(crate) fn folio_lock(&self) -> SpinLockGuard<'_, (), { rank::FOLIO }> {
        self.folio_lock.lock()
    }

    /// Takes the lock of the private page that the frame is, if it is free.
    pub(crate) fn try_folio_lock(&self) -> Option<SpinLockGuard<'_, (), { rank::FOLIO }>> {
        self.folio_lock.try_lock()
    }

    /// Adds a reference if there is any: for who has come across the frame and
    /// knows nothing of it. What the frame is can be told afterwards, when it
    /// cannot become anything else any more.
    pub(crate) fn try_get(&self) -> bool {
        point();
        let more = |count: u32| (count != 0).then(|| count + 1);
        // Acquire: the frame is seen as who took it into use has made it.
        self.refcount.fetch_update(Ordering::Acquire, Ordering::Relaxed, more).is_ok()
    }

    /// Adds a reference. The caller has one, or a lock that keeps one alive.
    #[inline]
    pub(crate) fn get(&self) {
        point();
        let before = self.refcount.fetch_add(1, Ordering::Relaxed);
        debug_assert!(before != 0, "reference to a free frame");
    }

    /// Takes a reference away and says whether it was the last: then the caller
    /// owns the frame.
    #[inline]
    #[must_use]
    pub(crate) fn release(&self) -> bool {
        point();
        // Release: what was done to the frame under this reference happens
        // before its next use. Acquire: the same, seen from the last one.
        let before = self.refcount.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before != 0, "frame released twice");
        before == 1
    }

    /// Takes the only reference away, unless there are others.
    #[inline]
    fn give_up(&self) -> bool {
        self.refcount.compare_exchange(1, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// The opposite of [`give_up`](Self::give_up): the frame is as it was.
    fn take_back(&self) {
        self.refcount.store(1, Ordering::Release);
    }

    #[inline]
    fn set_state(&self, kind: FrameKind, order: u8, flags: u32) {
        self.state.store(kind as u32 | u32::from(order) << 8 | flags, Ordering::Relaxed);
    }

    /// Whether the frame is the first of a free block of that order.
    #[inline]
    fn heads_free_block(&self, order: u8) -> bool {
        self.state.load(Ordering::Relaxed) == FrameKind::Free as u32 | u32::from(order) << 8 | ON_BUDDY_LIST
    }

    /// Makes the first frame of a block in use one by itself; returns its kind.
    fn split(&self) -> FrameKind {
        let kind = self.kind();
        self.set_state(kind, 0, 0);
        kind
    }

    /// Makes a free frame one in use, with one reference.
    #[inline]
    pub(crate) fn claim(&self, kind: FrameKind, order: u8) {
        self.set_state(kind, order, 0);
        self.mapping.store(0, Ordering::Relaxed);
        self.index.store(0, Ordering::Relaxed);
        // Release: who comes across the frame sees what it is.
        self.refcount.store(1, Ordering::Release);
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("kind", &self.kind())
            .field("order", &self.order())
            .field("refcount", &self.refcount())
            .field("mapcount", &self.mapcount())
            .field("mapping", &format_args!("{:#x}", self.mapping()))
            .field("index", &self.index())
            .finish_non_exhaustive()
    }
}

/// A block of frames with one reference, which this value is: nothing maps it.
///
/// It is linear. It ends as an argument of [`Memory::free`](crate::Memory::free)
/// or by becoming a counted reference through [`into_raw`](Self::into_raw);
/// dropping it leaks the block, and in host tests panics.
#[must_use = "dropping an OwnedFrame leaks the frame"]
#[derive(PartialEq, Eq, Debug)]
pub struct OwnedFrame {
    pfn: Pfn,
    order: u8,
}

impl OwnedFrame {
    /// The block's first frame.
    #[inline]
    pub const fn pfn(&self) -> Pfn {
        self.pfn
    }

    /// Log 2 of the number of frames.
    #[inline]
    pub const fn order(&self) -> u8 {
        self.order
    }

    /// Gives the reference up to the caller's own keeping.
    #[inline]
    #[allow(clippy::forget_non_drop, reason = "on the host, one that is dropped is noticed")]
    pub fn into_raw(self) -> Pfn {
        let pfn = self.pfn;
        mem::forget(self);
        pfn
    }

    /// The opposite of [`into_raw`](Self::into_raw), for a block of `1 << order` frames.
    ///
    /// # Safety
    ///
    /// `pfn` is the first frame of an allocated block of that order, nobody
    /// but the caller has a reference to it, and nothing accesses the block
    /// through any other copy of `pfn` from now on.
    #[inline]
    pub const unsafe fn from_raw(pfn: Pfn, order: u8) -> OwnedFrame {
        OwnedFrame { pfn, order }
    }
}

#[cfg(any(test, feature = "sim"))]
impl Drop for OwnedFrame {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "{self:?} was dropped: its frames are lost");
    }
}
