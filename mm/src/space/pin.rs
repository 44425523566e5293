//! Pages that somebody holds where they are, while the program goes on: a device that writes to
//! them, a call that has not ended.
//!
//! A pinned page is neither migrated nor evicted, as nothing is to which there is a reference
//! besides those of its mappings. And it stays its owner's. So a private page is pinned only if it
//! is [exclusive](crate::Frame::is_exclusive): the program then writes to no other page. Fork gives the child a
//! copy at once (as Linux does), and relocation leaves the page to its anon_vma. Unmapping it takes it
//! away from the program alone.

use super::fault::{FaultAccess, Outcome, make_exclusive};
use super::{AddressSpace, FaultError};
use crate::slab::Ref;
use crate::vma::Vma;
use crate::{Frame, FrameKind, Memory, Pfn, Platform, page_align_down};

/// A page that is pinned as long as this exists.
#[must_use = "the page is pinned until this is dropped"]
pub struct PinnedPage<'m, P: Platform> {
    mem: &'m Memory<P>,
    pfn: Pfn,
}

impl<P: Platform> PinnedPage<'_, P> {
    /// Its frame.
    pub fn pfn(&self) -> Pfn {
        self.pfn
    }

    /// Where the direct map has it. It may be written to if it was pinned for that; the program
    /// may write to it too, at any time.
    pub fn as_ptr(&self) -> *mut u8 {
        self.mem.page_ptr(self.pfn)
    }
}

impl<P: Platform> Drop for PinnedPage<'_, P> {
    fn drop(&mut self) {
        if self.pfn != self.mem.zero_page() {
            // First: who compares pins and references is never to take another's reference for a pin.
            self.mem.frame(self.pfn).dec_pins();
            self.mem.count_pinned(-1);
            self.mem.put(self.pfn);
        }
    }
}

impl<'m, P: Platform> AddressSpace<'m, P> {
    /// Pins the page that has the byte address `addr`, faulted in as by the program's own
    /// `access`. The page of zeroes, which all share that have only read, needs no pin.
    ///
    /// Of a private page that is shared since a fork, or merged, the address space gets a copy first, even if
    /// `access` is a read (Linux's `FAULT_FLAG_UNSHARE`): else it would get one with the program's next write, and
    /// the program not see what a device writes, nor the other way round. A page of a file that is mapped
    /// privately, and has not been written to, stays the file's.
    ///
    /// # Errors
    ///
    /// As the access.
    pub fn pin(&self, addr: usize, access: FaultAccess) -> Result<PinnedPage<'m, P>, FaultError> {
        let page = page_align_down(addr);
        loop {
            let pin = self.with_mapped(&self.mmap.read(), page, access, |pfn, record| self.pin_frame(pfn, record));
            match pin {
                Some(Some(pin)) => return Ok(pin),
                Some(None) => self.unshare_page(page)?,
                None => self.handle_fault(page, access)?,
            }
        }
    }

    /// Pins a frame with this record, if it has one; `None` if it is a private page that is not
    /// exclusive.
    fn pin_frame(&self, pfn: Pfn, record: Option<&Frame>) -> Option<PinnedPage<'m, P>> {
        if let Some(record) = record {
            if record.kind() == FrameKind::Anon && !record.is_exclusive() {
                return None;
            }
            record.get();
            record.inc_pins();
            self.mem.count_pinned(1);
        }
        Some(PinnedPage { mem: self.mem, pfn })
    }

    /// Makes the private page at `page` exclusive, or gives the address space a copy of it that is.
    fn unshare_page(&self, page: usize) -> Result<(), FaultError> {
        self.mem.reclaiming(|| {
            let state = self.mmap.read();
            while let Some(vma) = state.vmas.lookup(page)
                && self.try_unshare(vma, page)? == Outcome::Again
            {}
            Ok(())
        })
    }

    fn try_unshare(&self, vma: Ref<Vma>, page: usize) -> Result<Outcome, FaultError> {
        let Some(slot) = self.core.tables.lock_pte(self.mem, page) else { return Ok(Outcome::Done) };
        let old = slot.get();
        if !old.is_counted() || self.mem.frame(old.pfn()).kind() != FrameKind::Anon {
            return Ok(Outcome::Done);
        }
        if make_exclusive(&self.mem.frames(), old) {
            return Ok(Outcome::Done);
        }
        if old.is_huge() {
            drop(slot);
            self.core.tables.split_leaf(self.mem, page);
            return Ok(Outcome::Again);
        }
        self.replace_by_copy(vma, page, slot, false)
    }
}
