//! Pages that somebody holds where they are, while the program goes on: a device that writes to
//! them, a call that has not ended.
//!
//! A pinned page is neither migrated nor evicted, as nothing is to which there is a reference
//! besides those of its mappings. And it stays its owner's: fork gives the child a
//! copy at once (as Linux does), so that a later write does not leave the pinned page
//! to the child; and relocation leaves it to its anon_vma. Unmapping it takes it away from
//! the program alone.

use super::fault::FaultAccess;
use super::{AddressSpace, FaultError};
use crate::{Memory, Pfn, Platform, page_align_down};

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
    /// Of a page that is shared since a fork and pinned for reading, whoever
    /// writes to it first gets a copy, as ever: pinned for writing, it is not shared.
    ///
    /// # Errors
    ///
    /// As the access.
    pub fn pin(&self, addr: usize, access: FaultAccess) -> Result<PinnedPage<'m, P>, FaultError> {
        let pfn = self.hold(page_align_down(addr), access, |record| {
            record.inc_pins();
            self.mem.count_pinned(1);
        })?;
        Ok(PinnedPage { mem: self.mem, pfn })
    }
}
