//! Access that the program itself need not have: a debugger's, by `/proc/PID/mem` (Linux's `FOLL_FORCE`).
//!
//! What may become readable can be read. Private memory that may become writable can be
//! written to: the program gets a page of its own, as by a write of its own, and still may not
//! write to it.

use super::fault::{WRITTEN, make_exclusive};
use super::{AddressSpace, FaultAccess, FaultError};
use crate::paging::{Entry, EntryFlags};
use crate::{Platform, VmaFlags};

impl<P: Platform> AddressSpace<'_, P> {
    /// Copies what is from the byte address `addr` on, whether the program may read it or not.
    ///
    /// # Errors
    ///
    /// Of the first page that cannot be read; what came before has been copied.
    pub fn peek(&self, addr: usize, buffer: &mut [u8]) -> Result<(), FaultError> {
        self.copy_out(addr, buffer, Self::with_forced)
    }

    /// Copies `bytes` to the byte address `addr`, whether the program may write there or not.
    ///
    /// # Errors
    ///
    /// Of the first page that cannot be written; what came before has been.
    pub fn poke(&self, addr: usize, bytes: &[u8]) -> Result<(), FaultError> {
        self.copy_in(addr, bytes, Self::with_forced)
    }

    /// Calls `f` with the page at `page`, faulted in for `access`, if there is a VMA, with a reference to its
    /// frame.
    fn with_forced(&self, page: usize, access: FaultAccess, f: &mut dyn FnMut(*mut u8)) -> Result<bool, FaultError> {
        self.mem.reclaiming(|| {
            let state = self.mmap.read();
            // Where there is none, a stack may have to grow.
            let Some(vma) = state.vmas.lookup(page) else { return Ok(false) };
            if !may_force(vma.flags(), access) {
                return Err(FaultError::AccessDenied);
            }
            loop {
                let slot = self.core.tables.lock_pte(self.mem, page);
                if let Some(slot) = slot.filter(|slot| self.serves(slot.get(), access)) {
                    if access.write {
                        slot.update(|entry| entry.with(WRITTEN.difference(EntryFlags::WRITE)));
                    }
                    let pfn = slot.get().pfn_for(page);
                    let counted = slot.get().is_counted();
                    if counted {
                        self.mem.get(pfn);
                    }
                    drop(slot);
                    f(self.mem.page_ptr(pfn));
                    if counted {
                        self.mem.put(pfn);
                    }
                    return Ok(true);
                }
                self.fault_in(vma, page, access)?;
            }
        })
    }

    /// Whether an entry, which is locked, maps a page that may be read or, if that is the access, written to
    /// without others seeing it who should not.
    fn serves(&self, entry: Entry, access: FaultAccess) -> bool {
        entry.maps_page() && (!access.write || entry.is_writable() || make_exclusive(&self.mem.frames(), entry))
    }
}

/// Whether a debugger may have that access to memory with these flags (the end of Linux's `check_vma_flags`).
fn may_force(flags: VmaFlags, access: FaultAccess) -> bool {
    let private = !flags.contains(VmaFlags::SHARED) && flags.contains(VmaFlags::MAY_WRITE);
    match access.write {
        true => flags.contains(VmaFlags::WRITE) || private,
        false => flags.intersects(VmaFlags::READ | VmaFlags::MAY_READ),
    }
}
