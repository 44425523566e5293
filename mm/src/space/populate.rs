//! Faulting pages in ahead of use, and reading and writing an address space
//! that is not the current one.

use super::fault::{Outcome, allow};
use super::{AddressSpace, FaultAccess, FaultError, SpaceError, State};
use crate::paging::EntryFlags;
use crate::slab::Ref;
use crate::vma::Vma;
use crate::{Frame, PAGE_SIZE, PageRange, Pfn, Platform, VmaFlags, page_align_down};

/// Calls a function with a page of an address space, if it has one there that allows the access, and says
/// whether it has.
pub(super) type WithPage<S> = fn(&S, usize, FaultAccess, &mut dyn FnMut(*mut u8)) -> Result<bool, FaultError>;

impl<P: Platform> AddressSpace<'_, P> {
    /// Faults in all pages of `range`, writable where the mapping is private
    /// and writable (Linux's `mm_populate`). In each VMA as far as possible, as
    /// long as there is memory: what fails now faults later, and that is when a
    /// program hears of it.
    pub(super) fn populate(&self, range: PageRange) {
        let _ = self.mem.reclaiming(|| {
            self.populate_parts(range, |vma, part| match self.populate_locked(vma, part) {
                Err(FaultError::OutOfMemory) => Err(FaultError::OutOfMemory),
                _ => Ok(()),
            })
        });
    }

    /// [`populate`](Self::populate) for who wants to hear of it at once.
    ///
    /// # Errors
    ///
    /// Of the first page that could not be had; those before it are there.
    pub(super) fn populate_all(&self, range: PageRange) -> Result<(), FaultError> {
        self.mem.reclaiming(|| self.populate_parts(range, |vma, part| self.populate_locked(vma, part)))
    }

    /// Calls `f` for what each VMA has of `range`, with the mmap lock held for
    /// one of them at a time.
    fn populate_parts<E>(
        &self,
        range: PageRange,
        mut f: impl FnMut(Ref<Vma>, PageRange) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut at = range.start();
        while at < range.end() {
            let state = self.mmap.read();
            let Some(vma) = state.vmas.find(at).filter(|vma| vma.start() < range.end()) else {
                return Ok(());
            };
            let stop = vma.end().min(range.end());
            if let Some(part) = PageRange::new(vma.start().max(at), stop) {
                f(vma, part)?;
            }
            at = stop;
        }
        Ok(())
    }

    /// Populates a part of one VMA, with the mmap lock held.
    pub(super) fn populate_locked(&self, vma: Ref<Vma>, range: PageRange) -> Result<(), FaultError> {
        let flags = vma.flags();
        // Locked on fault means exactly that.
        if flags.contains(VmaFlags::LOCKONFAULT) {
            return Ok(());
        }
        let private_write = VmaFlags::WRITE | VmaFlags::SHARED;
        let write = flags & private_write == VmaFlags::WRITE;
        self.fault_in_range(vma, range, FaultAccess { write, execute: false })
    }

    /// Faults in all pages of `range` for the given access (Linux's
    /// `faultin_page_range`).
    pub(super) fn populate_with(&self, range: PageRange, access: FaultAccess) -> Result<(), SpaceError> {
        self.mem.reclaiming(|| self.try_populate_with(range, access))
    }

    fn try_populate_with(&self, range: PageRange, access: FaultAccess) -> Result<(), SpaceError> {
        let mut at = range.start();
        while at < range.end() {
            let state = self.mmap.read();
            let vma = state.vmas.lookup(at).ok_or(SpaceError::NotMapped)?;
            // x86 lets a program read what it may only write; this does not.
            if !access.write && !vma.flags().contains(VmaFlags::READ) {
                return Err(SpaceError::Invalid);
            }
            let stop = vma.end().min(range.end());
            let part = PageRange::new(at, stop).ok_or(SpaceError::NotMapped)?;
            self.fault_in_range(vma, part, access)?;
            at = stop;
        }
        Ok(())
    }

    /// Brings back what is in swap of `range`.
    pub(super) fn populate_swapped(&self, range: PageRange) -> Result<(), FaultError> {
        let is_swapped =
            |&page: &usize| self.core.tables.lookup(self.mem, page).is_some_and(|entry| !entry.maps_page());
        self.mem.reclaiming(|| {
            self.populate_parts(range, |vma, part| {
                let mut pages = (part.start()..part.end()).step_by(PAGE_SIZE).filter(is_swapped);
                pages.try_for_each(|page| match PageRange::from_len(page, PAGE_SIZE) {
                    Some(page) => self.fault_in_range(vma, page, FaultAccess::READ),
                    None => Ok(()),
                })
            })
        })
    }

    fn fault_in_range(&self, vma: Ref<Vma>, range: PageRange, access: FaultAccess) -> Result<(), FaultError> {
        allow(vma.flags(), access)?;
        let mut page = range.start();
        while page < range.end() {
            if self.fault_in(vma, page, access)? == Outcome::Done {
                page += PAGE_SIZE;
            }
        }
        Ok(())
    }

    /// Copies from the address space, which need not be the current one, from
    /// the byte address `addr` on. Pages are faulted in as a read by the
    /// program would.
    ///
    /// # Errors
    ///
    /// Of the first page that cannot be read; what came before has been copied.
    pub fn read_bytes(&self, addr: usize, buffer: &mut [u8]) -> Result<(), FaultError> {
        self.copy_out(addr, buffer, Self::with_held)
    }

    /// Copies to the address space, which need not be the current one, from the
    /// byte address `addr` on, as a write by the program would.
    ///
    /// # Errors
    ///
    /// Of the first page that cannot be written; what came before has been.
    pub fn write_bytes(&self, addr: usize, bytes: &[u8]) -> Result<(), FaultError> {
        self.copy_in(addr, bytes, Self::with_held)
    }

    /// Copies from the byte address `addr` on; `with` is one that [`for_pages`](Self::for_pages) takes.
    pub(super) fn copy_out(&self, addr: usize, buffer: &mut [u8], with: WithPage<Self>) -> Result<(), FaultError> {
        self.for_pages(addr, buffer.len(), FaultAccess::READ, with, |page, offset, done, len| {
            let part = buffer.get_mut(done..done + len).unwrap_or_default();
            // SAFETY: `for_pages` holds a reference to the frame, whose page is
            // in the direct map, and `offset + part.len()` is inside it. That
            // the program may write there meanwhile is why this is no `&[u8]`.
            unsafe { part.as_mut_ptr().copy_from(page.add(offset), part.len()) };
        })
    }

    /// The same to the byte address `addr`.
    pub(super) fn copy_in(&self, addr: usize, bytes: &[u8], with: WithPage<Self>) -> Result<(), FaultError> {
        self.for_pages(addr, bytes.len(), FaultAccess::WRITE, with, |page, offset, done, len| {
            let part = bytes.get(done..done + len).unwrap_or_default();
            // SAFETY: as in `copy_out`; a page held for writing is this
            // address space's to write to.
            unsafe { page.add(offset).copy_from(part.as_ptr(), part.len()) };
        })
    }

    /// Calls `f(page, offset in it, bytes done before, bytes to do)` for each
    /// page of `len` bytes from `addr`, by way of `with`: with a reference to its frame held, and the mmap lock,
    /// so that who asks later what has been written to is to hear of this. Where `with` finds nothing that it
    /// could call `f` with, there is a fault.
    fn for_pages(
        &self,
        addr: usize,
        len: usize,
        access: FaultAccess,
        with: WithPage<Self>,
        mut f: impl FnMut(*mut u8, usize, usize, usize),
    ) -> Result<(), FaultError> {
        let mut done = 0;
        while done < len {
            let at = addr.checked_add(done).ok_or(FaultError::NotMapped)?;
            let offset = at % PAGE_SIZE;
            let part = (PAGE_SIZE - offset).min(len - done);
            if with(self, page_align_down(at), access, &mut |page| f(page, offset, done, part))? {
                done += part;
            } else {
                self.handle_fault(at, access)?;
            }
        }
        Ok(())
    }

    /// Calls `f` with the page at `page` if it is mapped so that it allows the access, and says
    /// whether it has; with a reference to the frame.
    fn with_held(&self, page: usize, access: FaultAccess, f: &mut dyn FnMut(*mut u8)) -> Result<bool, FaultError> {
        let state = self.mmap.read();
        let take = |pfn, record: Option<&Frame>| {
            if let Some(record) = record {
                record.get();
            }
            pfn
        };
        let Some(pfn) = self.with_mapped(&state, page, access, take) else { return Ok(false) };
        f(self.mem.page_ptr(pfn));
        if pfn != self.mem.zero_page() {
            self.mem.put(pfn);
        }
        Ok(true)
    }

    /// Calls `f` with the frame mapped at `page`, if that is mapped so that it allows the access, and with
    /// its record unless it is the zero page; with the entry locked, while neither fork nor a move can
    /// come between. The lock that `state` is of keeps the page tables of what is mapped, and of nothing else.
    pub(super) fn with_mapped<R>(
        &self,
        state: &State,
        page: usize,
        access: FaultAccess,
        f: impl FnOnce(Pfn, Option<&Frame>) -> R,
    ) -> Option<R> {
        state.vmas.lookup(page)?;
        let slot = self.core.tables.lock_pte(self.mem, page)?;
        let entry = slot.get();
        if !entry.is_present() || (access.write && !entry.is_writable()) {
            return None;
        }
        if access.write {
            // As the hardware does: the page's contents matter from now on.
            slot.update(|entry| entry.with(EntryFlags::DIRTY | EntryFlags::ACCESSED));
        }
        let pfn = entry.pfn_for(page);
        Some(f(pfn, (!entry.is_special()).then(|| self.mem.frame(pfn))))
    }
}
