//! Frames for page tables.
//!
//! A program that writes to fresh memory needs a table for every 512 pages. Were it the next
//! free frame, then among any 512 frames there would be one that cannot be moved, and
//! compaction could make no block of them. So tables are taken out of blocks of 32. What is
//! freed is empty: a CPU keeps some, and need not clear them again.

use super::Memory;
use crate::frame::{FrameKind, OwnedFrame, clear_page};
use crate::{OutOfMemory, PAGE_SIZE, Pfn, Platform};

impl<P: Platform> Memory<P> {
    /// Allocates a page table, empty.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] when no frame is free.
    #[cfg_attr(test, track_caller)]
    pub(crate) fn alloc_table(&self) -> Result<OwnedFrame, OutOfMemory> {
        self.allocation_site()?;
        let cpu = self.platform().current_cpu();
        if let Some(pfn) = self.frames.alloc_zeroed(cpu, FrameKind::Table) {
            // SAFETY: the frame has just been allocated with one reference, which is ours.
            return Ok(unsafe { OwnedFrame::from_raw(pfn, 0) });
        }
        let frame = match self.frames.alloc_table(cpu) {
            // SAFETY: as above.
            Some(pfn) => unsafe { OwnedFrame::from_raw(pfn, 0) },
            None => self.alloc_uncounted(FrameKind::Table, 0)?,
        };
        // SAFETY: the frame is owned, so nothing else accesses it.
        unsafe { clear_page(self.page_ptr(frame.pfn())) };
        Ok(frame)
    }

    /// Frees a page table that no CPU knows any more. It is empty, which spares
    /// the next one to be made its clearing.
    pub(crate) fn free_table(&self, table: OwnedFrame) {
        debug_assert_eq!(table.order(), 0);
        let pfn = table.into_raw();
        debug_assert!(self.is_zero(pfn), "the page table {pfn:?} is freed with entries in it");
        // Else reclaim has come across it, and will free it.
        if self.frame(pfn).release() {
            self.frames.free_zeroed(self.platform().current_cpu(), pfn);
        }
    }

    /// Whether a frame is full of zeroes.
    fn is_zero(&self, pfn: Pfn) -> bool {
        // SAFETY: the page is in the direct map, and the caller owns it.
        let bytes = unsafe { core::slice::from_raw_parts(self.page_ptr(pfn), PAGE_SIZE) };
        bytes.iter().all(|&byte| byte == 0)
    }
}
