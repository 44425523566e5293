//! The frame allocator: the buddy system with per-CPU lists in front.
//!
//! Single frames, which nearly all allocations are for, come from and go to
//! [lists of the CPU's own](super::cpu). Between those and the buddy system is
//! the depot: batches of single frames, which change hands as a whole. What is
//! freed is most often wanted again soon, as single frames too, so merging it
//! would be work for nothing. When a block cannot be had otherwise, all lists
//! and the depot are emptied into the buddy system.
//!
//! A CPU's lists have a lock all the same: whoever runs out of memory empties
//! those of all CPUs, and the threads of a host test may claim to be on one
//! CPU. To allocate and free, nobody waits for that lock: who finds it taken
//! goes to the buddy system.
//!
//! Lock order: a CPU's lists, then the shared pool.

use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicIsize, Ordering};

use super::buddy::{Buddy, ORDERS, claim_block, disclaim_block};
use super::cpu::{BATCH, Batch, CpuLists, Depot, SPARES};
use super::table::{FrameTable, Frames, NIL};
use super::{Frame, FrameKind, MAX_ORDER, TAIL};
use crate::addr::{PAGE_SIZE, Pfn};
use crate::memory::PhysRange;
use crate::platform::{MAX_CPUS, Platform};
use crate::sync::{SpinLock, SpinLockGuard, rank};

/// One part in so many of all frames may be in the depot.
const DEPOT_SHARE: usize = 16;
/// One part in so many of all frames may be in batches that a CPU has to spare.
const SPARES_SHARE: usize = 64;

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
struct KindCounts([AtomicIsize; 16]);

impl KindCounts {
    const fn new() -> KindCounts {
        KindCounts([const { AtomicIsize::new(0) }; 16])
    }

    #[inline]
    fn add(&self, kind: FrameKind, frames: isize) {
        let count = &self.0[kind as usize % 16];
        count.store(count.load(Ordering::Relaxed).wrapping_add(frames), Ordering::Relaxed);
    }

    fn get(&self, kind: FrameKind) -> isize {
        self.0[kind as usize % 16].load(Ordering::Relaxed)
    }
}

/// What one CPU keeps to itself. Caches fetch lines in pairs.
#[repr(align(128))]
struct Cpu {
    lists: SpinLock<CpuLists, { rank::FRAME_LISTS }>,
    /// Allocations less releases made through `lists`, whose lock guards it:
    /// may well be negative. Only the sum over all CPUs means something.
    in_use: KindCounts,
}

type ListsGuard<'a> = SpinLockGuard<'a, CpuLists, { rank::FRAME_LISTS }>;

/// What all CPUs share.
struct Pool {
    buddy: Buddy,
    depot: Depot,
}

/// All physical memory.
pub(crate) struct FrameAllocator {
    table: FrameTable,
    pool: SpinLock<Pool, { rank::FRAME_POOL }>,
    /// Allocations less releases made at `pool`, whose lock guards it.
    in_use: KindCounts,
    cpus: [Cpu; MAX_CPUS],
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
    pub(crate) unsafe fn new<P: Platform>(platform: &P, regions: &[PhysRange]) -> Result<FrameAllocator, InitError> {
        check_regions(platform, regions)?;
        let usable = || regions.iter().filter(|region| !region.is_empty());
        let lowest = usable().map(PhysRange::first_pfn).min().ok_or(InitError::NoRoom)?;
        let end = usable().map(PhysRange::end_pfn).max().ok_or(InitError::NoRoom)?;

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
        let base = NonNull::new(platform.phys_to_virt(home.start).cast::<Frame>()).ok_or(InitError::BadRegion)?;

        let mut allocator = FrameAllocator {
            // SAFETY: a page-aligned address is aligned for a record; the
            // region has `records` pages, adjacent in the direct map and the
            // crate's own for good, and they are given to nobody else below;
            // `count` was compared with NIL.
            table: unsafe { FrameTable::new(base, first, count) },
            pool: SpinLock::new(Pool { buddy: Buddy::new(), depot: Depot::new() }),
            in_use: KindCounts::new(),
            cpus: [const { Cpu { lists: SpinLock::new(CpuLists::new()), in_use: KindCounts::new() } }; MAX_CPUS],
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
        let mut pool = self.pool.lock();
        let mut pfn = start;
        while pfn < end {
            let index = self.table.index(Pfn(pfn));
            let order = index.trailing_zeros().min((end - pfn).ilog2()).min(MAX_ORDER.into());
            disclaim_block(&self.table, index, order as u8);
            pool.buddy.free(&self.table, index, order as u8);
            self.total += 1 << order;
            pfn += 1 << order;
        }
    }

    /// Takes a free frame, or a block of `1 << order`, for `cpu`.
    #[inline]
    pub(crate) fn alloc(&self, cpu: usize, kind: FrameKind, order: u8) -> Option<Pfn> {
        debug_assert!(!matches!(kind, FrameKind::Free | FrameKind::Reserved));
        let cpu = self.cpu(cpu);
        if order == 0
            && let Some(mut lists) = cpu.lists.try_lock()
            && (!lists.is_empty() || self.refill(&mut lists))
            && let Some((index, frame)) = lists.pop(&self.table)
        {
            cpu.in_use.add(kind, 1);
            drop(lists);
            frame.claim(kind, 0);
            return Some(self.table.pfn(index));
        }
        self.alloc_block(kind, order)
    }

    /// Takes the frame `pfn` if it is free, and not in the lists of a CPU.
    pub(crate) fn alloc_at(&self, pfn: Pfn, kind: FrameKind) -> bool {
        let index = self.table.index(pfn);
        let mut pool = self.pool.lock();
        if !pool.buddy.take(&self.table, index) {
            return false;
        }
        self.in_use.add(kind, 1);
        drop(pool);
        self.table.at(index).claim(kind, 0);
        true
    }

    /// Whether there is a free block of `order`, what is in lists of CPUs left out.
    pub(crate) fn has_block(&self, order: u8) -> bool {
        self.pool.lock().buddy.has(order)
    }

    /// How many free blocks there are of each order, without what is in lists of CPUs.
    /// While others allocate, it is nearly right.
    pub(crate) fn free_blocks(&self) -> [usize; ORDERS] {
        let mut blocks = [0; ORDERS];
        for index in 0..self.table.count() {
            let frame = self.table.at(index as u32);
            if let Some(count) = blocks.get_mut(usize::from(frame.order()))
                && frame.heads_free_block(frame.order())
            {
                *count += 1;
            }
        }
        blocks
    }

    /// Takes a free frame that is full of zeroes, if `cpu` has one.
    #[inline]
    pub(crate) fn alloc_zeroed(&self, cpu: usize, kind: FrameKind) -> Option<Pfn> {
        let cpu = self.cpu(cpu);
        let mut lists = cpu.lists.try_lock()?;
        let (index, frame) = lists.pop_zeroed(&self.table)?;
        cpu.in_use.add(kind, 1);
        drop(lists);
        frame.claim(kind, 0);
        Some(self.table.pfn(index))
    }

    /// Takes a free frame for a page table from the block that `cpu` has for that. `None` if
    /// there is little memory altogether, or no such block.
    pub(crate) fn alloc_table(&self, cpu: usize) -> Option<Pfn> {
        let cpu = self.cpu(cpu);
        let mut lists = cpu.lists.try_lock()?;
        let popped = lists.pop_table(&self.table);
        let (index, frame) = popped.or_else(|| {
            if self.total < BATCH as usize * DEPOT_SHARE {
                return None;
            }
            lists.load_tables(self.pool.lock().buddy.alloc(&self.table, BATCH.ilog2() as u8)?);
            lists.pop_table(&self.table)
        })?;
        cpu.in_use.add(FrameKind::Table, 1);
        drop(lists);
        frame.claim(FrameKind::Table, 0);
        Some(self.table.pfn(index))
    }

    /// Gives a single frame back, to which nobody has a reference any more and which
    /// is full of zeroes.
    #[inline]
    pub(crate) fn free_zeroed(&self, cpu: usize, pfn: Pfn) {
        let index = self.table.index(pfn);
        let frame = self.table.at(index);
        let kind = check_freed(pfn, frame, 0);
        let cpu = self.cpu(cpu);
        let Some(mut lists) = cpu.lists.try_lock() else {
            return self.free_block(index, kind, 0);
        };
        frame.set_state(FrameKind::Free, 0, 0);
        cpu.in_use.add(kind, -1);
        if !lists.push_zeroed(index, frame) {
            self.push(&mut lists, index, frame);
        }
    }

    /// Makes single frames of a block in use, to which the caller has the only reference;
    /// it has one to each of them then.
    pub(crate) fn split_block(&self, pfn: Pfn, order: u8) {
        let first = self.table.index(pfn);
        // Who came across it may have a reference to the first for a moment.
        let kind = self.table.at(first).split();
        for index in first + 1..first + (1 << order) {
            self.table.at(index).claim(kind, 0);
        }
    }

    /// The opposite of [`split_block`](Self::split_block), if the caller has the only
    /// reference to each of the frames, and nothing maps them.
    pub(crate) fn join_block(&self, pfn: Pfn, order: u8) -> bool {
        let first = self.table.index(pfn);
        let tails = || (first + 1..first + (1 << order)).map(|index| self.table.at(index));
        // Who comes across one from here on gets no reference to it.
        if let Some(other) = tails().position(|frame| !frame.give_up()) {
            tails().take(other).for_each(Frame::take_back);
            return false;
        }
        let kind = self.table.at(first).kind();
        tails().for_each(|frame| frame.set_state(kind, 0, TAIL));
        self.table.at(first).set_state(kind, order, 0);
        true
    }

    /// Gives a block back, to which nobody has a reference any more.
    #[inline]
    pub(crate) fn free(&self, cpu: usize, pfn: Pfn, order: u8) {
        let index = self.table.index(pfn);
        let frame = self.table.at(index);
        let kind = check_freed(pfn, frame, order);
        let cpu = self.cpu(cpu);
        if order == 0
            && let Some(mut lists) = cpu.lists.try_lock()
        {
            return self.free_single(cpu, &mut lists, index, frame, kind);
        }
        self.free_block(index, kind, order);
    }

    /// Takes a reference away from each of many frames. Those of which it was the
    /// last are freed, after `last` was told.
    #[inline]
    pub(crate) fn put_all(&self, cpu: usize, pfns: &[Pfn], last: impl Fn(Pfn, u8)) {
        let records = self.table.frames();
        let cpu = self.cpu(cpu);
        let mut lists = cpu.lists.try_lock();
        for &pfn in pfns {
            let frame = records.get(pfn);
            if !frame.release() {
                continue;
            }
            let order = frame.order();
            last(pfn, order);
            let (index, kind) = (records.index(pfn), check_freed(pfn, frame, order));
            match &mut lists {
                Some(lists) if order == 0 => self.free_single(cpu, lists, index, frame, kind),
                _ => self.free_block(index, kind, order),
            }
        }
    }

    /// Puts a frame that was of that kind on the lists of `cpu`.
    #[inline]
    fn free_single(&self, cpu: &Cpu, lists: &mut ListsGuard<'_>, index: u32, frame: &Frame, kind: FrameKind) {
        frame.set_state(FrameKind::Free, 0, 0);
        cpu.in_use.add(kind, -1);
        self.push(lists, index, frame);
    }

    /// Puts a free frame on the list in use, for which there is room afterwards.
    #[inline]
    fn push(&self, lists: &mut ListsGuard<'_>, index: u32, frame: &Frame) {
        if lists.is_full() {
            self.spill(lists);
        }
        lists.push(index, frame);
    }

    /// The record of a frame; that of a reserved frame for a number outside.
    #[inline]
    pub(crate) fn frame(&self, pfn: Pfn) -> &Frame {
        self.table.frame(pfn)
    }

    /// All records, for loops.
    #[inline]
    pub(crate) fn records(&self) -> Frames<'_> {
        self.table.frames()
    }

    /// Frame numbers that there are records for: `first..first + count`. Some may be
    /// of no frame under management.
    pub(crate) fn span(&self) -> (Pfn, usize) {
        (self.table.pfn(0), self.table.count())
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
    fn cpu(&self, cpu: usize) -> &Cpu {
        &self.cpus[cpu % MAX_CPUS]
    }

    /// Puts frames on an empty list; `false` if there are none.
    #[cold]
    fn refill(&self, lists: &mut ListsGuard<'_>) -> bool {
        if lists.load_spare() {
            return true;
        }
        let mut pool = self.pool.lock_under(lists);
        if let Some(batch) = pool.depot.take(&self.table) {
            lists.load(batch);
            return true;
        }
        while lists.len() < BATCH {
            let room = (BATCH - lists.len()).ilog2() as u8;
            let Some((index, order)) = pool.buddy.alloc_smallest(&self.table, room) else {
                break;
            };
            // Backwards, so that the frames come off the list in ascending order.
            // All of a free block that has left its list is marked as such already.
            for index in (index..index + (1 << order)).rev() {
                lists.push(index, self.table.at(index));
            }
        }
        !lists.is_empty()
    }

    /// Makes room on a full list.
    #[cold]
    fn spill(&self, lists: &mut ListsGuard<'_>) {
        let most = self.total / SPARES_SHARE / BATCH as usize;
        let Some(batch) = lists.unload(most.clamp(1, SPARES)) else { return };
        let mut pool = self.pool.lock_under(lists);
        if pool.depot.batches() * BATCH as usize >= self.total / DEPOT_SHARE {
            self.free_batch(&mut pool.buddy, batch);
        } else {
            pool.depot.put(&self.table, batch);
        }
    }

    /// Gives a batch to the buddy system.
    fn free_batch(&self, buddy: &mut Buddy, batch: Batch) {
        let mut frames = CpuLists::new();
        frames.load(batch);
        while let Some((index, _)) = frames.pop(&self.table) {
            buddy.free(&self.table, index, 0);
        }
    }

    /// Gives everything in lists and in the depot to the buddy system.
    pub(crate) fn merge_all(&self) {
        for cpu in &self.cpus {
            let mut lists = cpu.lists.lock();
            let mut pool = self.pool.lock_under(&lists);
            loop {
                while let Some((index, _)) = lists.pop(&self.table) {
                    pool.buddy.free(&self.table, index, 0);
                }
                if !lists.load_spare() {
                    break;
                }
            }
            while let Some((index, _)) = lists.pop_zeroed(&self.table).or_else(|| lists.pop_table(&self.table)) {
                pool.buddy.free(&self.table, index, 0);
            }
        }
        let mut pool = self.pool.lock();
        while let Some(batch) = pool.depot.take(&self.table) {
            self.free_batch(&mut pool.buddy, batch);
        }
    }

    #[cold]
    fn alloc_block(&self, kind: FrameKind, order: u8) -> Option<Pfn> {
        if order > MAX_ORDER {
            return None;
        }
        let take = || {
            let mut pool = self.pool.lock();
            let index = pool.buddy.alloc(&self.table, order)?;
            self.in_use.add(kind, 1 << order);
            Some(index)
        };
        let index = take().or_else(|| {
            // What is left may be in lists, or in pieces because of them.
            self.merge_all();
            take()
        })?;
        claim_block(&self.table, index, kind, order);
        Some(self.table.pfn(index))
    }

    #[cold]
    fn free_block(&self, index: u32, kind: FrameKind, order: u8) {
        disclaim_block(&self.table, index, order);
        let mut pool = self.pool.lock();
        self.in_use.add(kind, -(1 << order));
        pool.buddy.free(&self.table, index, order);
    }
}

/// Checks what can be checked of a block that is given back, and says what it was.
#[inline]
fn check_freed(pfn: Pfn, frame: &Frame, order: u8) -> FrameKind {
    let kind = frame.kind();
    debug_assert!(!matches!(kind, FrameKind::Free | FrameKind::Reserved), "{pfn:?} is not in use");
    debug_assert_eq!(frame.order(), order, "{pfn:?} is of another order");
    debug_assert_eq!(frame.mapcount(), 0, "{pfn:?} is still mapped");
    kind
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
            let (low, high) = if region.start < other.start { (region, other) } else { (other, region) };
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
