//! The frame allocator: the buddy system with per-CPU lists in front.
//!
//! Single frames, which nearly all allocations are for, come from and go to a
//! list of the CPU's own; lists are filled and emptied by the batch. A CPU's
//! list has a lock all the same: whoever runs out of memory empties all lists,
//! and the threads of a host test may claim to be on one CPU. Nobody waits for
//! that lock: who finds it taken goes to the buddy system.
//!
//! Lock order: a CPU's list, then the buddy system.

use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicIsize, Ordering};

use super::buddy::{Buddy, claim_block, disclaim_block};
use super::table::{FrameTable, NIL};
use super::{Frame, FrameKind, MAX_ORDER, OwnedFrame};
use crate::addr::{PAGE_SIZE, Pfn};
use crate::memory::PhysRange;
use crate::platform::{MAX_CPUS, Platform};
use crate::sync::SpinLock;

/// Log 2 of the number of frames that go between a CPU's list and the buddy system at once.
const BATCH_ORDER: u8 = 5;
const BATCH: u32 = 1 << BATCH_ORDER;
/// A CPU's list that grows beyond this gives a batch back.
const CACHE_LIMIT: u32 = 3 * BATCH;

/// Why [`Memory::new`](crate::Memory::new) could not take the machine's memory into use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InitError {
    /// A region is not page aligned, or ends before it starts.
    BadRegion,
    /// Two regions overlap, or touch without being adjacent in the direct map.
    Overlap,
    /// No region has room for the frame records of all.
    NoRoom,
    /// The regions span more than 2^32 pages, or there are more CPUs than
    /// [`MAX_CPUS`].
    TooLarge,
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            InitError::BadRegion => "a memory region is unaligned or reversed",
            InitError::Overlap => "memory regions overlap",
            InitError::NoRoom => "no memory region has room for the frame records",
            InitError::TooLarge => "too much memory or too many CPUs",
        })
    }
}

impl core::error::Error for InitError {}

/// Frames in use of each kind. Changed only by who holds the lock beside it.
struct KindCounts([AtomicIsize; FrameKind::COUNT]);

impl KindCounts {
    const fn new() -> KindCounts {
        KindCounts([const { AtomicIsize::new(0) }; FrameKind::COUNT])
    }

    #[inline]
    fn add(&self, kind: FrameKind, frames: isize) {
        let count = &self.0[kind as usize];
        count.store(count.load(Ordering::Relaxed) + frames, Ordering::Relaxed);
    }

    fn get(&self, kind: FrameKind) -> isize {
        self.0[kind as usize].load(Ordering::Relaxed)
    }
}

/// A list of single free frames, linked through their records.
struct CpuList {
    head: u32,
    len: u32,
}

impl CpuList {
    #[inline]
    fn push(&mut self, table: &FrameTable, index: u32) {
        table.at(index).next.store(self.head, Ordering::Relaxed);
        self.head = index;
        self.len += 1;
    }

    #[inline]
    fn pop(&mut self, table: &FrameTable) -> Option<u32> {
        if self.head == NIL {
            return None;
        }
        let index = self.head;
        self.head = table.at(index).next.load(Ordering::Relaxed);
        self.len -= 1;
        Some(index)
    }
}

/// What one CPU keeps to itself.
#[repr(align(64))]
struct CpuCache {
    list: SpinLock<CpuList>,
    /// Allocations less releases made through `list`, whose lock guards it:
    /// may well be negative. Only the sum over all CPUs means something.
    in_use: KindCounts,
}

/// All physical memory.
pub(crate) struct FrameAllocator {
    table: FrameTable,
    buddy: SpinLock<Buddy>,
    /// Allocations less releases made at `buddy`, whose lock guards it.
    in_use: KindCounts,
    cpus: [CpuCache; MAX_CPUS],
    /// Frames under management, in use or free.
    total: usize,
}

impl FrameAllocator {
    /// Takes the memory in `regions` under management.
    ///
    /// # Errors
    ///
    /// See [`InitError`]; the memory has not been touched then.
    ///
    /// # Safety
    ///
    /// As [`Memory::new`](crate::Memory::new).
    pub(crate) unsafe fn new<P: Platform>(
        platform: &P,
        regions: &[PhysRange],
    ) -> Result<FrameAllocator, InitError> {
        check_regions(platform, regions)?;
        let usable = || regions.iter().filter(|region| !region.is_empty());
        let lowest = usable()
            .map(PhysRange::first_pfn)
            .min()
            .ok_or(InitError::NoRoom)?;
        let end = usable()
            .map(PhysRange::end_pfn)
            .max()
            .ok_or(InitError::NoRoom)?;

        // Blocks are aligned by their number in the table, so the table starts
        // at a multiple of the largest block.
        let first = lowest & !((1 << MAX_ORDER) - 1);
        let count = end - first;
        if count >= NIL as usize {
            return Err(InitError::TooLarge);
        }
        let records = FrameTable::bytes(count).div_ceil(PAGE_SIZE);
        let home = usable()
            .filter(|region| region.frames() >= records)
            .min_by_key(|region| region.frames())
            .ok_or(InitError::NoRoom)?;
        let base = NonNull::new(platform.phys_to_virt(home.start).cast::<Frame>())
            .ok_or(InitError::BadRegion)?;

        let mut allocator = FrameAllocator {
            // SAFETY: a page-aligned address is aligned for a record; the
            // region has `records` pages, adjacent in the direct map and the
            // crate's own for good, and they are given to nobody else below;
            // `count` was compared with NIL.
            table: unsafe { FrameTable::new(base, first, count) },
            buddy: SpinLock::new(Buddy::new()),
            in_use: KindCounts::new(),
            cpus: [const {
                CpuCache {
                    list: SpinLock::new(CpuList { head: NIL, len: 0 }),
                    in_use: KindCounts::new(),
                }
            }; MAX_CPUS],
            total: 0,
        };
        for region in usable() {
            let taken = if region == home { records } else { 0 };
            // Frame 0 is never given out, so that 0 can stand for "none".
            allocator.add((region.first_pfn() + taken).max(1), region.end_pfn());
        }
        Ok(allocator)
    }

    /// Gives the frames `start..end`, which are in the table, to the buddy system.
    fn add(&mut self, start: usize, end: usize) {
        let mut buddy = self.buddy.lock();
        let mut pfn = start;
        while pfn < end {
            let index = self.table.index(Pfn(pfn));
            let order = index
                .trailing_zeros()
                .min((end - pfn).ilog2())
                .min(MAX_ORDER.into());
            disclaim_block(&self.table, index, order as u8);
            buddy.free(&self.table, index, order as u8);
            self.total += 1 << order;
            pfn += 1 << order;
        }
    }

    /// Takes a free frame, or a block of `1 << order`, for `cpu`.
    #[inline]
    pub(crate) fn alloc(&self, cpu: usize, kind: FrameKind, order: u8) -> Option<Pfn> {
        if order == 0
            && let Some(mut list) = self.cpu(cpu).list.try_lock()
            && let Some(index) = list.pop(&self.table).or_else(|| self.refill(&mut list))
        {
            self.cpu(cpu).in_use.add(kind, 1);
            drop(list);
            self.table.at(index).claim(kind, 0);
            return Some(self.table.pfn(index));
        }
        self.alloc_block(kind, order)
    }

    /// Gives a block back, which the caller owns.
    #[inline]
    pub(crate) fn free(&self, cpu: usize, pfn: Pfn, order: u8) {
        let frame = self.table.frame(pfn);
        let kind = frame.kind();
        debug_assert!(
            !matches!(kind, FrameKind::Free | FrameKind::Reserved),
            "{pfn:?} is not in use"
        );
        debug_assert_eq!(frame.order(), order, "{pfn:?} is of another order");
        debug_assert_eq!(frame.mapcount(), 0, "{pfn:?} is still mapped");
        let index = self.table.index(pfn);
        if order == 0
            && let Some(mut list) = self.cpu(cpu).list.try_lock()
        {
            frame.refcount.store(0, Ordering::Relaxed);
            frame.set_state(FrameKind::Free, 0, 0);
            self.cpu(cpu).in_use.add(kind, -1);
            list.push(&self.table, index);
            if list.len > CACHE_LIMIT {
                self.spill(&mut list, BATCH);
            }
            return;
        }
        self.free_block(index, kind, order);
    }

    /// Takes a reference away from a frame; if it was the last, the block is the caller's.
    #[inline]
    pub(crate) fn put(&self, pfn: Pfn) -> Option<OwnedFrame> {
        let frame = self.table.frame(pfn);
        // SAFETY: nobody else has a reference to the block any more, so it may
        // as well be said to have one, which is the caller's.
        frame
            .release()
            .then(|| unsafe { OwnedFrame::from_raw(pfn, frame.order()) })
    }

    /// The record of a frame; that of a reserved frame for a number outside.
    #[inline]
    pub(crate) fn frame(&self, pfn: Pfn) -> &Frame {
        self.table.frame(pfn)
    }

    /// Frames under management.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Frames in use for one purpose, or free. While others allocate, it is
    /// some value that was nearly right just now.
    pub(crate) fn count(&self, kind: FrameKind) -> usize {
        let in_use = |kind| {
            let cached: isize = self.cpus.iter().map(|cpu| cpu.in_use.get(kind)).sum();
            (cached + self.in_use.get(kind)).max(0) as usize
        };
        match kind {
            FrameKind::Reserved => self.table.count() - self.total,
            FrameKind::Free => {
                let used: usize = FrameKind::ALL.into_iter().map(in_use).sum();
                self.total.saturating_sub(used)
            }
            kind => in_use(kind),
        }
    }

    #[inline]
    fn cpu(&self, cpu: usize) -> &CpuCache {
        &self.cpus[cpu % MAX_CPUS]
    }

    /// Fills an empty list from the buddy system and takes one frame for the caller.
    #[cold]
    fn refill(&self, list: &mut CpuList) -> Option<u32> {
        let mut buddy = self.buddy.lock();
        while list.len < BATCH {
            let room = (BATCH - list.len).ilog2() as u8;
            let Some((index, order)) = buddy.alloc_smallest(&self.table, room) else {
                break;
            };
            // Backwards, so that the frames come off the list in ascending order.
            for offset in (0..1 << order).rev() {
                self.table
                    .at(index + offset)
                    .set_state(FrameKind::Free, 0, 0);
                list.push(&self.table, index + offset);
            }
        }
        list.pop(&self.table)
    }

    /// Moves `frames` frames, or all there are, from a list to the buddy system.
    #[cold]
    fn spill(&self, list: &mut CpuList, frames: u32) {
        let mut buddy = self.buddy.lock();
        for _ in 0..frames {
            let Some(index) = list.pop(&self.table) else {
                break;
            };
            buddy.free(&self.table, index, 0);
        }
    }

    #[cold]
    fn alloc_block(&self, kind: FrameKind, order: u8) -> Option<Pfn> {
        if order > MAX_ORDER {
            return None;
        }
        let take = || {
            let mut buddy = self.buddy.lock();
            let index = buddy.alloc(&self.table, order)?;
            self.in_use.add(kind, 1 << order);
            Some(index)
        };
        let index = take().or_else(|| {
            // What is left may be in lists, or in pieces because of them.
            for cpu in &self.cpus {
                self.spill(&mut cpu.list.lock(), u32::MAX);
            }
            take()
        })?;
        claim_block(&self.table, index, kind, order);
        Some(self.table.pfn(index))
    }

    #[cold]
    fn free_block(&self, index: u32, kind: FrameKind, order: u8) {
        self.table.at(index).refcount.store(0, Ordering::Relaxed);
        disclaim_block(&self.table, index, order);
        let mut buddy = self.buddy.lock();
        self.in_use.add(kind, -(1 << order));
        buddy.free(&self.table, index, order);
    }
}

/// Checks what can be checked of the promises made to [`FrameAllocator::new`].
fn check_regions<P: Platform>(platform: &P, regions: &[PhysRange]) -> Result<(), InitError> {
    if platform.cpu_count() > MAX_CPUS {
        return Err(InitError::TooLarge);
    }
    for (number, region) in regions.iter().enumerate() {
        if !region.is_valid() {
            return Err(InitError::BadRegion);
        }
        for other in regions[..number].iter().filter(|other| !other.is_empty()) {
            if region.is_empty() {
                break;
            }
            let (low, high) = if region.start < other.start {
                (region, other)
            } else {
                (other, region)
            };
            if high.start < low.end {
                return Err(InitError::Overlap);
            }
            // A block may lie across the seam.
            let after = platform.phys_to_virt(low.end - 1).wrapping_add(1);
            if high.start == low.end && after != platform.phys_to_virt(high.start) {
                return Err(InitError::Overlap);
            }
        }
    }
    Ok(())
}
