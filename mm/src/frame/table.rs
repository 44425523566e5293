//! The array of frame records, and where it lies in memory.

use core::hint::select_unpredictable;
use core::marker::PhantomData;
use core::ptr::NonNull;

use super::Frame;
use crate::addr::Pfn;

/// Marks the end of a list of records.
pub(super) const NIL: u32 = u32::MAX;

/// The records of all frames from `first` on, by frame number.
///
/// One record more than there are frames is kept: the answer for every frame
/// number outside, so that looking one up is always defined. Its kind is
/// `Reserved`.
pub(super) struct FrameTable {
    base: NonNull<Frame>,
    first: usize,
    count: usize,
}

// SAFETY: the records behind `base` are atomics and locks, which threads may
// share, and the table itself is never changed.
unsafe impl Send for FrameTable {}
// SAFETY: as above.
unsafe impl Sync for FrameTable {}

impl FrameTable {
    /// Bytes that the records of `count` frames take.
    pub(super) const fn bytes(count: usize) -> usize {
        (count + 1) * size_of::<Frame>()
    }

    /// Writes the records of frames `first..first + count`, all reserved, to `base`.
    ///
    /// # Safety
    ///
    /// `base` is aligned for [`Frame`], valid for [`bytes(count)`](Self::bytes)
    /// for as long as the table or a reference from it lives, and nothing else
    /// accesses that memory. `count` is less than [`NIL`].
    pub(super) unsafe fn new(base: NonNull<Frame>, first: usize, count: usize) -> FrameTable {
        for index in 0..=count {
            // SAFETY: record `index` lies inside the bytes that the caller vouches for.
            unsafe { base.add(index).write(Frame::new()) };
        }
        FrameTable { base, first, count }
    }

    /// The record of frame `pfn`; that of no frame at all if it is outside.
    #[inline]
    pub(super) fn frame(&self, pfn: Pfn) -> &Frame {
        let index = pfn.0.wrapping_sub(self.first);
        // Not `min`, for which loops are laid out as if most frames were outside.
        let index = select_unpredictable(index < self.count, index, self.count);
        // SAFETY: `new` wrote records 0 to `count`, and they stay.
        unsafe { self.base.add(index).as_ref() }
    }

    /// The same records, for a loop: what the table says of where they are is
    /// then read once, and not again after each atomic operation.
    #[inline]
    pub(super) fn frames(&self) -> Frames<'_> {
        Frames { table: FrameTable { ..*self }, _memory: PhantomData }
    }

    /// The record number `index`, as stored in the links of records.
    #[inline]
    pub(super) fn at(&self, index: u32) -> &Frame {
        let index = (index as usize).min(self.count);
        // SAFETY: as in `frame`.
        unsafe { self.base.add(index).as_ref() }
    }

    /// Number of frames, holes included.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The frame whose record has number `index`.
    #[inline]
    pub(super) fn pfn(&self, index: u32) -> Pfn {
        Pfn(self.first + index as usize)
    }

    /// The number of `pfn`'s record, for a frame inside.
    #[inline]
    pub(super) fn index(&self, pfn: Pfn) -> u32 {
        debug_assert!(pfn.0.wrapping_sub(self.first) < self.count, "{pfn:?} is outside");
        pfn.0.wrapping_sub(self.first) as u32
    }
}

/// The records of all frames; see [`Memory::frames`](crate::Memory::frames).
pub(crate) struct Frames<'m> {
    table: FrameTable,
    _memory: PhantomData<&'m FrameTable>,
}

impl<'m> Frames<'m> {
    /// The records of `count` adjacent frames; none if they are not all inside.
    #[inline]
    pub(crate) fn block(&self, first: Pfn, count: usize) -> &'m [Frame] {
        let index = first.0.wrapping_sub(self.table.first);
        if index >= self.table.count || count > self.table.count - index {
            return &[];
        }
        // SAFETY: `new` wrote records 0 to `count`, adjacent, and they stay as long as
        // what `_memory` stands for is borrowed.
        unsafe { core::slice::from_raw_parts(self.table.base.add(index).as_ptr(), count) }
    }

    /// [`Memory::frame`](crate::Memory::frame).
    #[inline]
    pub(crate) fn get(&self, pfn: Pfn) -> &Frame {
        self.table.frame(pfn)
    }

    /// The number of `pfn`'s record, for a frame inside.
    #[inline]
    pub(super) fn index(&self, pfn: Pfn) -> u32 {
        self.table.index(pfn)
    }
}
