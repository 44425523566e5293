//! Pages that somebody holds where they are, while the program goes on: a device that writes to
//! them, a call that has not ended, a pipe that is to be read later.
//!
//! A pinned page is neither migrated nor evicted, as nothing is to which there is a reference
//! besides those of its mappings. And it stays its owner's. So a private page is pinned only if it
//! is [exclusive](crate::Frame::is_exclusive): the program then writes to no other page. Fork gives the child a
//! copy at once (as Linux does), and relocation leaves the page to its anon_vma. Unmapping it takes it
//! away from the program alone.
//!
//! What a private mapping has only read belongs to no program: a file's page, or the page of zeroes. The next write
//! leaves it for a copy. Who reads soon what was there is served by it ([`AddressSpace::pin`]). Who means what the
//! program has at that address, now and later, is not ([`AddressSpace::pin_longterm`]).

use super::fault::{FaultAccess, Outcome, make_exclusive};
use super::{AddressSpace, FaultError};
use crate::rmap;
use crate::slab::Ref;
use crate::vma::Vma;
use crate::{Frame, FrameKind, Memory, PAGE_SIZE, Pfn, Platform, VmaFlags, page_align_down};

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

    /// Copies what is in the page from byte `offset` on, as much as `buffer` takes, and returns how much that
    /// is. What the program writes meanwhile is copied in part.
    pub fn read(&self, offset: usize, buffer: &mut [u8]) -> usize {
        let count = PAGE_SIZE.saturating_sub(offset).min(buffer.len());
        if count > 0 {
            // SAFETY: the pin keeps the frame, whose page is in the direct map, and `offset + count` is inside it. That
            // the program may write there meanwhile is why this is no `&[u8]`.
            unsafe { buffer.as_mut_ptr().copy_from(self.as_ptr().add(offset), count) };
        }
        count
    }
}

/// Which pages are the program's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// All but private ones that others have too.
    Present,
    /// Only those that the program's next write leaves where they are.
    Lasting,
}

impl Wanted {
    /// Whether of what the VMA maps without it being the program's there is to be a copy: a write to it, now or after
    /// an mprotect, makes one.
    fn copies(self, vma: Ref<Vma>) -> bool {
        self == Wanted::Lasting && vma.flags() & (VmaFlags::SHARED | VmaFlags::MAY_WRITE) == VmaFlags::MAY_WRITE
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
    /// privately, and has not been written to, stays the file's, and the page of zeroes what it is.
    ///
    /// # Errors
    ///
    /// As the access.
    pub fn pin(&self, addr: usize, access: FaultAccess) -> Result<PinnedPage<'m, P>, FaultError> {
        self.pin_wanted(addr, access, Wanted::Present)
    }

    /// As [`pin`](Self::pin), but for a pin that may last (Linux's `FOLL_LONGTERM`): what the program writes to
    /// that address is in the page as long as it is mapped there. So in a private mapping that may become
    /// writable, of a file's page and of the page of zeroes too the address space gets a copy first.
    ///
    /// # Errors
    ///
    /// As the access.
    pub fn pin_longterm(&self, addr: usize, access: FaultAccess) -> Result<PinnedPage<'m, P>, FaultError> {
        self.pin_wanted(addr, access, Wanted::Lasting)
    }

    fn pin_wanted(&self, addr: usize, access: FaultAccess, wanted: Wanted) -> Result<PinnedPage<'m, P>, FaultError> {
        let page = page_align_down(addr);
        loop {
            let state = self.mmap.read();
            let copies = state.vmas.lookup(page).is_some_and(|vma| wanted.copies(vma));
            let pin = self.with_mapped(&state, page, access, |pfn, record| self.pin_frame(pfn, record, copies));
            drop(state);
            match pin {
                Some(Some(pin)) => return Ok(pin),
                Some(None) => self.unshare_page(page, wanted)?,
                None => self.handle_fault(page, access)?,
            }
        }
    }

    /// Pins a frame with this record, if it has one; `None` if the program's next write [`leaves`] it.
    fn pin_frame(&self, pfn: Pfn, record: Option<&Frame>, copies: bool) -> Option<PinnedPage<'m, P>> {
        if leaves(record, copies) {
            return None;
        }
        if let Some(record) = record {
            record.get();
            record.inc_pins();
            self.mem.count_pinned(1);
        }
        Some(PinnedPage { mem: self.mem, pfn })
    }

    /// Makes the private page at `page` exclusive, or gives the address space a copy of it that is;
    /// a copy of any other page too, if that is what is wanted.
    fn unshare_page(&self, page: usize, wanted: Wanted) -> Result<(), FaultError> {
        self.mem.reclaiming(|| {
            let state = self.mmap.read();
            while let Some(vma) = state.vmas.lookup(page)
                && self.try_unshare(vma, page, wanted.copies(vma))? == Outcome::Again
            {}
            Ok(())
        })
    }

    fn try_unshare(&self, vma: Ref<Vma>, page: usize, copies: bool) -> Result<Outcome, FaultError> {
        if copies {
            // It may not have had a page of its own before.
            rmap::prepare(self.mem, vma)?;
        }
        let Some(slot) = self.core.tables.lock_pte(self.mem, page) else { return Ok(Outcome::Done) };
        let old = slot.get();
        let record = old.is_counted().then(|| self.mem.frame(old.pfn_for(page)));
        if !old.maps_page() || !leaves(record, copies) || make_exclusive(&self.mem.frames(), old) {
            return Ok(Outcome::Done);
        }
        if old.is_huge() {
            drop(slot);
            self.core.tables.split_leaf(self.mem, page);
            return Ok(Outcome::Again);
        }
        if old.is_special() {
            drop(slot);
            let frame = self.mem.alloc_zeroed(FrameKind::Anon)?;
            return self.replace(vma, page, old, frame, false);
        }
        self.replace_by_copy(vma, page, slot, false)
    }
}

/// Whether the next write of the program that maps a frame with this record, if it has one, is to another page:
/// it is a private one that is not exclusive, or any other, and the mapping `copies` those.
fn leaves(record: Option<&Frame>, copies: bool) -> bool {
    record.map_or(copies, |record| (copies || record.kind() == FrameKind::Anon) && !record.is_exclusive())
}
