//! One machine's memory: its frames, the crate's own objects, and the limits
//! that all address spaces on it share.
//!
//! There is one [`Memory`] per machine, made at boot and lent to everything
//! else. It is all the state that is not some address space's, so two machines
//! may live side by side in one process.

use core::sync::atomic::{AtomicIsize, AtomicU64, AtomicUsize, Ordering};

use crate::addr::{Pfn, is_page_aligned};
use crate::errno::OutOfMemory;
use crate::frame::{Frame, FrameAllocator, FrameKind, Frames, InitError, MAX_ORDER, OwnedFrame, clear_page};
use crate::ksm::{Ksm, KsmNode, KsmOrigin};
use crate::migrate::Deferral;
use crate::object::Object;
use crate::platform::{PhysAddr, Platform};
use crate::rmap::{AnonVma, Avc};
use crate::slab::{Arena, SlabInfo};
use crate::space::SpaceCore;
use crate::swap::SwapSlots;
use crate::vma::Vma;

mod events;
mod folios;
mod sysctl;
mod tables;

#[cfg(any(test, feature = "fault-injection"))]
mod injection;

pub use events::Event;
use events::Events;
use folios::FolioCounts;
pub use folios::{Defrag, FOLIO_ORDERS, FolioPolicy, FolioStats, HugePages};
pub use sysctl::{Overcommit, Sysctl};

/// A range of physical memory, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PhysRange {
    /// First byte.
    pub start: PhysAddr,
    /// End (exclusive).
    pub end: PhysAddr,
}

impl PhysRange {
    /// Whether it is page aligned and does not end before it starts.
    pub(crate) fn is_valid(&self) -> bool {
        let aligned = |addr: PhysAddr| is_page_aligned(addr.as_u64() as usize);
        aligned(self.start) && aligned(self.end) && self.start <= self.end
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Its first frame.
    pub(crate) fn first_pfn(&self) -> usize {
        Pfn::containing(self.start).0
    }

    /// The frame after its last one.
    pub(crate) fn end_pfn(&self) -> usize {
        Pfn::containing(self.end).0
    }

    /// Number of frames.
    pub(crate) fn frames(&self) -> usize {
        self.end_pfn() - self.first_pfn()
    }
}

/// The memory of one machine.
///
/// Borrowed by everything that allocates; an address space keeps the borrow,
/// so a kernel has it for `'static` and a test in a local variable.
pub struct Memory<P: Platform> {
    platform: P,
    frames: FrameAllocator,
    zero_page: Pfn,
    kernel_root: Option<PhysAddr>,
    sysctl: Sysctl,
    /// Pages that may be written to some day without asking again.
    committed: AtomicIsize,
    /// How many address spaces there have been.
    contexts: AtomicU64,
    pub(crate) arenas: Arenas,
    events: Events,
    swap: SwapSlots,
    /// Of all address spaces.
    pub(crate) huge_leaves: AtomicUsize,
    folios: FolioCounts,
    pub(crate) ksm: Ksm,
    /// Where reclaim goes on: a frame, counted from the first, modulo their number.
    clock: AtomicUsize,
    deferral: Deferral,
    /// Pins of all pages.
    pinned: AtomicIsize,
    #[cfg(any(test, feature = "fault-injection"))]
    injection: injection::Injection,
}

/// The crate's own objects, by type.
pub(crate) struct Arenas {
    pub(crate) objects: Arena<Object>,
    pub(crate) vmas: Arena<Vma>,
    pub(crate) avcs: Arena<Avc>,
    pub(crate) anon_vmas: Arena<AnonVma>,
    pub(crate) spaces: Arena<SpaceCore>,
    pub(crate) ksm_nodes: Arena<KsmNode>,
    pub(crate) ksm_origins: Arena<KsmOrigin>,
}

impl Arenas {
    const fn new() -> Arenas {
        Arenas {
            objects: Arena::new(),
            vmas: Arena::new(),
            avcs: Arena::new(),
            anon_vmas: Arena::new(),
            spaces: Arena::new(),
            ksm_nodes: Arena::new(),
            ksm_origins: Arena::new(),
        }
    }
}

impl<P: Platform> Memory<P> {
    /// Takes memory into use.
    ///
    /// `regions` are the parts of RAM to manage; some of it goes to the records
    /// of the frames (1/64 of the span from the lowest to the highest frame).
    /// `kernel_root` is the top-level page table whose upper half, entries 256
    /// to 511, every address space shares with the kernel, if it has one.
    ///
    /// # Errors
    ///
    /// See [`InitError`]; the memory has not been touched then, except when
    /// there is too little of it.
    ///
    /// # Safety
    ///
    /// 1. The regions are RAM that nobody else uses from now on, as long as
    ///    the value or anything made from it lives, and `platform` keeps its
    ///    promises for all of it.
    /// 2. `kernel_root`, if given, is a page table that stays, reachable
    ///    through `platform`, and its upper half does not change any more.
    pub unsafe fn new(
        platform: P,
        regions: &[PhysRange],
        kernel_root: Option<PhysAddr>,
    ) -> Result<Memory<P>, InitError> {
        // SAFETY: the caller's first promise is what this asks for.
        let frames = unsafe { FrameAllocator::new(&platform, regions)? };
        let mut memory = Memory {
            platform,
            frames,
            zero_page: Pfn(0),
            kernel_root,
            sysctl: Sysctl::new(),
            committed: AtomicIsize::new(0),
            contexts: AtomicU64::new(0),
            arenas: Arenas::new(),
            events: Events::new(),
            swap: SwapSlots::new(),
            huge_leaves: AtomicUsize::new(0),
            folios: FolioCounts::new(),
            ksm: Ksm::new(),
            clock: AtomicUsize::new(0),
            deferral: Deferral::new(),
            pinned: AtomicIsize::new(0),
            #[cfg(any(test, feature = "fault-injection"))]
            injection: injection::Injection::new(),
        };
        let zero_page = memory.alloc_zeroed(FrameKind::Zero).map_err(|OutOfMemory| InitError::NoRoom)?;
        memory.zero_page = zero_page.into_raw();
        Ok(memory)
    }

    /// The machine.
    #[inline]
    pub fn platform(&self) -> &P {
        &self.platform
    }

    /// Allocates `1 << order` adjacent frames, aligned to their size, with
    /// undefined contents. Nothing maps them, and their record says nothing
    /// but the kind.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] when there is no such block, as always for an order
    /// above [`MAX_ORDER`].
    #[inline]
    #[cfg_attr(test, track_caller)]
    pub fn alloc(&self, kind: FrameKind, order: u8) -> Result<OwnedFrame, OutOfMemory> {
        self.allocation_site()?;
        self.alloc_uncounted(kind, order)
    }

    /// Allocates `1 << order` adjacent frames, aligned to their number, as so many single
    /// ones: each with a record and one reference of its own. Returns the first. If they are
    /// worth it, memory is `compact`ed for them.
    ///
    /// # Errors
    ///
    /// As [`alloc_compacting`](Self::alloc_compacting), which also says what may be locked.
    #[cfg_attr(test, track_caller)]
    pub(crate) fn alloc_singly(&self, kind: FrameKind, order: u8, compact: bool) -> Result<Pfn, OutOfMemory> {
        let block = if compact { self.alloc_compacting(kind, order)? } else { self.alloc(kind, order)? };
        self.frames.split_block(block.pfn(), order);
        Ok(block.into_raw())
    }

    /// Makes one block again of frames that [`alloc_singly`](Self::alloc_singly) returned,
    /// with one reference, if the caller has the only one to each, and nothing maps them.
    pub(crate) fn join_singles(&self, pfn: Pfn, order: u8) -> bool {
        self.frames.join_block(pfn, order)
    }

    /// Allocates one frame, filled with zeroes.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] when no frame is free.
    #[inline]
    #[cfg_attr(test, track_caller)]
    pub fn alloc_zeroed(&self, kind: FrameKind) -> Result<OwnedFrame, OutOfMemory> {
        let frame = self.alloc(kind, 0)?;
        // SAFETY: the frame is owned, so nothing else accesses it.
        unsafe { clear_page(self.page_ptr(frame.pfn())) };
        Ok(frame)
    }

    /// Frees frames that nothing maps and no CPU can use by its TLB any more.
    #[inline]
    pub fn free(&self, frame: OwnedFrame) {
        self.put(frame.into_raw());
    }

    /// Frees a block to which nobody has a reference any more.
    #[inline]
    fn free_last(&self, pfn: Pfn, order: u8) {
        // SAFETY: the block is owned, and nothing uses it any more.
        unsafe { self.spoil(pfn, order) };
        self.frames.free(self.platform.current_cpu(), pfn, order);
    }

    /// In host tests, the use of a frame after it was freed shall show.
    ///
    /// # Safety
    ///
    /// The block is the caller's, and its contents are not needed any more.
    #[inline]
    unsafe fn spoil(&self, _pfn: Pfn, _order: u8) {
        #[cfg(any(test, feature = "sim"))]
        // SAFETY: as the caller promises.
        unsafe {
            self.page_ptr(_pfn).write_bytes(0xa5, crate::PAGE_SIZE << _order);
        }
    }

    /// A number for an address space that none had before; not 0.
    pub(crate) fn next_context(&self) -> u64 {
        self.contexts.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Adds a reference to a frame, on behalf of someone who has one.
    #[inline]
    pub(crate) fn get(&self, pfn: Pfn) {
        self.frame(pfn).get();
    }

    /// Takes a reference away from a frame, the caller's own, and frees the
    /// frame if it was the last one.
    #[inline]
    pub(crate) fn put(&self, pfn: Pfn) {
        let frame = self.frame(pfn);
        if frame.release() {
            self.free_last(pfn, frame.order());
        }
    }

    /// [`put`](Self::put) for each of `count` adjacent frames.
    pub(crate) fn put_adjacent(&self, first: Pfn, count: usize) {
        for (record, number) in self.frames().block(first, count).iter().zip(first.0..) {
            if record.release() {
                self.free_last(Pfn(number), 0);
            }
        }
    }

    /// [`put`](Self::put) for each of many frames.
    #[inline]
    pub(crate) fn put_all(&self, pfns: &[Pfn]) {
        match *pfns {
            [] => {}
            [pfn] => self.put(pfn),
            _ => self.frames.put_all(self.platform.current_cpu(), pfns, |pfn, order| {
                // SAFETY: that was the last reference to the block.
                unsafe { self.spoil(pfn, order) };
            }),
        }
    }

    #[inline]
    pub(crate) fn swap(&self) -> &SwapSlots {
        &self.swap
    }

    /// Counts pins, or if it is negative pins less.
    pub(crate) fn count_pinned(&self, pins: isize) {
        self.pinned.fetch_add(pins, Ordering::Relaxed);
    }

    /// Whether there may be a pinned page. One that was pinned with a lock which the
    /// caller has since got is not overlooked.
    pub(crate) fn has_pinned(&self) -> bool {
        self.pinned.load(Ordering::Relaxed) != 0
    }

    /// When not to compact.
    pub(crate) fn deferral(&self) -> &Deferral {
        &self.deferral
    }

    /// Moves the hand of reclaim's clock on.
    pub(crate) fn next_on_clock(&self) -> usize {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    /// The first frame that there is a record of, and how many there are.
    pub(crate) fn frame_span(&self) -> (Pfn, usize) {
        self.frames.span()
    }

    /// The number after that of the last frame that there may be a record of.
    pub fn end_frame(&self) -> Pfn {
        let (first, count) = self.frame_span();
        Pfn(first.0 + count)
    }

    /// How many page-table entries map 2 MiB each, in all address spaces together.
    pub fn huge_leaves(&self) -> usize {
        self.huge_leaves.load(Ordering::Relaxed)
    }

    /// What has come of faults that were to make folios of that order.
    pub fn folio_stats(&self, order: u8) -> FolioStats {
        self.folios.get(order)
    }

    /// Counts a fault that has `made` a folio of that order, or has not.
    pub(crate) fn count_folio(&self, order: u8, made: bool) {
        self.folios.count(order, made);
    }

    /// How often something has happened.
    pub fn events(&self, event: Event) -> u64 {
        self.events.sum(event)
    }

    #[inline(always)]
    pub(crate) fn count(&self, event: Event) {
        self.count_all(event, 1);
    }

    /// Counts an event that has happened several times.
    #[inline(always)]
    pub(crate) fn count_all(&self, event: Event, times: u64) {
        self.events.count(self.platform.current_cpu(), event, times);
    }

    /// Where the direct map has a frame. The pointer is valid for a page, and
    /// for the whole block when the frame is the first of one.
    #[inline]
    pub fn page_ptr(&self, pfn: Pfn) -> *mut u8 {
        self.platform.phys_to_virt(pfn.addr())
    }

    /// The record of a frame. For a frame that is not under management it is
    /// one whose kind is [`FrameKind::Reserved`].
    #[inline]
    pub fn frame(&self, pfn: Pfn) -> &Frame {
        self.frames.frame(pfn)
    }

    /// [`frame`](Self::frame) for loops over many frames, where it is quicker.
    #[inline]
    pub(crate) fn frames(&self) -> Frames<'_> {
        self.frames.records()
    }

    /// Takes the frame `pfn`, if it is free and no CPU has it in a list of its own.
    pub(crate) fn alloc_at(&self, pfn: Pfn, kind: FrameKind) -> Option<OwnedFrame> {
        let taken = self.frames.alloc_at(pfn, kind);
        // SAFETY: the frame has just been allocated with one reference, which is ours.
        taken.then(|| unsafe { OwnedFrame::from_raw(pfn, 0) })
    }

    /// Whether there is a free block of `order`. Puts together what is in lists of CPUs.
    pub(crate) fn has_block(&self, order: u8) -> bool {
        self.frames.merge_all();
        self.frames.has_block(order)
    }

    /// Puts together what free frames are in lists of CPUs.
    pub(crate) fn merge_free_lists(&self) {
        self.frames.merge_all();
    }

    /// How many free blocks there are, by order: what `/proc/buddyinfo` shows. What is in
    /// lists of CPUs is not among them. While others allocate and free, the figures are
    /// approximate.
    pub fn free_blocks(&self) -> [usize; MAX_ORDER as usize + 1] {
        self.frames.free_blocks()
    }

    /// Frames under management, in use or free.
    pub fn total_frames(&self) -> usize {
        self.frames.total()
    }

    /// Frames that are free.
    pub fn free_frames(&self) -> usize {
        self.frames.count(FrameKind::Free)
    }

    /// The objects that the crate allocates for itself: VMAs, and what the reverse
    /// mapping of anonymous pages is made of. What `/proc/slabinfo` shows.
    pub fn slabs(&self) -> [SlabInfo; 7] {
        let Arenas { objects, vmas, avcs, anon_vmas, spaces, ksm_nodes, ksm_origins } = &self.arenas;
        [
            vmas.info("vm_area_struct"),
            anon_vmas.info("anon_vma"),
            avcs.info("anon_vma_chain"),
            objects.info("address_space"),
            spaces.info("mm_struct"),
            ksm_nodes.info("ksm_stable_node"),
            ksm_origins.info("ksm_rmap_item"),
        ]
    }

    /// Frames of one kind. While others allocate and free, the figure is
    /// approximate.
    pub fn count_frames(&self, kind: FrameKind) -> usize {
        self.frames.count(kind)
    }

    /// The page of zeroes that read faults share. It is never freed, and
    /// neither references nor mappings of it are counted.
    #[inline]
    pub fn zero_page(&self) -> Pfn {
        self.zero_page
    }

    /// The top-level table whose upper half all address spaces share.
    #[inline]
    pub fn kernel_root(&self) -> Option<PhysAddr> {
        self.kernel_root
    }

    /// The settings under `/proc/sys/vm`.
    #[inline]
    pub fn sysctl(&self) -> &Sysctl {
        &self.sysctl
    }

    /// Pages that address spaces have been charged for: `Committed_AS`
    /// of `/proc/meminfo`.
    pub fn committed(&self) -> usize {
        self.committed.load(Ordering::Relaxed).max(0) as usize
    }

    /// The most pages that may be charged when overcommitting is forbidden:
    /// `CommitLimit` of `/proc/meminfo`.
    pub fn commit_limit(&self) -> usize {
        self.total_frames() / 100 * self.sysctl.overcommit_ratio() + self.swap_stats().total
    }

    /// Charges `pages` pages that may be written to from now on (Linux's
    /// `__vm_enough_memory`, for a caller with `CAP_SYS_ADMIN`).
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] when the [overcommit](Overcommit) mode forbids it;
    /// nothing has been charged then.
    pub(crate) fn charge_commit(&self, pages: usize) -> Result<(), OutOfMemory> {
        let Ok(change) = isize::try_from(pages) else {
            return Err(OutOfMemory);
        };
        let committed = self.committed.fetch_add(change, Ordering::Relaxed).saturating_add(change);
        let allowed = match self.sysctl.overcommit() {
            Overcommit::Always => true,
            // Most often without a look at swap, which has a lock.
            Overcommit::Heuristic => {
                let frames = self.total_frames();
                pages <= frames || pages <= frames + self.swap_stats().total
            }
            Overcommit::Never => committed <= self.commit_limit() as isize,
        };
        if !allowed {
            self.uncharge_commit(pages);
            return Err(OutOfMemory);
        }
        Ok(())
    }

    /// Charges `pages` pages whatever the mode: they have been charged all along,
    /// and what is about to be unmapped will take that back.
    pub(crate) fn recharge_commit(&self, pages: usize) {
        self.committed.fetch_add(pages as isize, Ordering::Relaxed);
    }

    /// Takes back what [`charge_commit`](Self::charge_commit) charged.
    pub(crate) fn uncharge_commit(&self, pages: usize) {
        self.committed.fetch_sub(pages as isize, Ordering::Relaxed);
    }

    /// [`alloc`](Self::alloc) where the failure of the caller is injected elsewhere.
    #[inline]
    pub(crate) fn alloc_uncounted(&self, kind: FrameKind, order: u8) -> Result<OwnedFrame, OutOfMemory> {
        let pfn = self.frames.alloc(self.platform.current_cpu(), kind, order).ok_or(OutOfMemory)?;
        // SAFETY: the block has just been allocated with one reference, which is ours.
        Ok(unsafe { OwnedFrame::from_raw(pfn, order) })
    }

    /// Passed by everything that may fail for want of memory.
    #[inline]
    #[cfg_attr(test, track_caller)]
    pub(crate) fn allocation_site(&self) -> Result<(), OutOfMemory> {
        #[cfg(any(test, feature = "fault-injection"))]
        self.injection.pass()?;
        Ok(())
    }
}

#[cfg(any(test, feature = "fault-injection"))]
impl<P: Platform> Memory<P> {
    /// Makes the `n`-th allocation from now on fail, of a frame or of one of
    /// the crate's objects, counting from 1; 0 makes none fail.
    pub fn fail_nth_allocation(&self, n: usize) {
        self.injection.arm(n);
    }

    /// The places in the source that have allocated on this machine, and
    /// whether one of their allocations was made to fail.
    #[cfg(test)]
    pub(crate) fn allocation_sites(&self) -> Vec<(&'static core::panic::Location<'static>, bool)> {
        self.injection.sites()
    }

    /// Whether the failure asked for has happened since it was asked for.
    pub fn allocation_failed(&self) -> bool {
        self.injection.fired()
    }
}
