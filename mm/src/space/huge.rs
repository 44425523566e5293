//! Huge pages: 2 MiB of private anonymous memory that one entry maps.
//!
//! A fault makes one where nothing is mapped yet in the 2 MiB around it, all of them are
//! the VMA's, and it [wants](AddressSpace::wants_folio) them. A [collapse](super::collapse) makes one of
//! pages that are there already. What there is no large block of memory for stays small.
//!
//! The frames of a huge page are as independent of each other as any; see
//! [`paging::huge`](crate::paging). So it is split where an operation is about a part of
//! it, and by whoever takes single pages out: by a write to a page that is shared (which
//! copies only that), by reclaim, by munmap, mprotect, mremap and madvise. A VMA never
//! ends inside a huge page.

use core::sync::atomic::Ordering;

use super::account::ResidentKind;
use super::fault::Outcome;
use super::{AddressSpace, FaultAccess, FaultError};
use crate::paging::{HUGE_ORDER, HUGE_PAGES};
use crate::slab::Ref;
use crate::vma::Vma;
use crate::{Event, PMD_SIZE, Platform};

impl<P: Platform> AddressSpace<'_, P> {
    /// Whether no huge pages are made, whatever is advised.
    pub fn small_pages_only(&self) -> bool {
        self.small_pages_only.load(Ordering::Relaxed)
    }

    /// Sets [`small_pages_only`](Self::small_pages_only) (`PR_SET_THP_DISABLE`). Children
    /// inherit it. Huge pages that are there stay.
    pub fn set_small_pages_only(&self, only: bool) {
        self.small_pages_only.store(only, Ordering::Relaxed);
    }

    /// A fault at `page`, for which there is not even a page table: maps 2 MiB at once, if
    /// the VMA wants that, has them, and there is such a block of memory. What it needs to
    /// have locked is what [`fault_in`](Self::fault_in) does.
    #[inline(always)]
    pub(super) fn fault_huge(
        &self,
        vma: Ref<Vma>,
        page: usize,
        access: FaultAccess,
    ) -> Result<Option<Outcome>, FaultError> {
        let start = page & !(PMD_SIZE - 1);
        if vma.start() > start || vma.end() - start < PMD_SIZE || !self.wants_folio(vma, HUGE_ORDER) {
            return Ok(None);
        }
        self.fault_in_huge(vma, start, access)
    }

    #[cold]
    fn fault_in_huge(&self, vma: Ref<Vma>, start: usize, access: FaultAccess) -> Result<Option<Outcome>, FaultError> {
        // A read, before anything was written: whose page it is could not be said.
        if vma.anon_vma().is_none() {
            return Ok(None);
        }
        let folio = self.alloc_folio(vma, HUGE_ORDER, access.write, self.compacts_for(vma));
        let Ok((folio, spare)) = folio.and_then(|folio| match self.mem.alloc_table() {
            Ok(spare) => Ok((folio, spare)),
            Err(error) => {
                self.free_folio(folio);
                Err(error)
            }
        }) else {
            self.mem.count(Event::HugeFallback);
            self.mem.count_folio(HUGE_ORDER, false);
            return Ok(None);
        };
        self.clear_folio(folio);
        self.adopt_folio(vma, start, folio);
        match self.core.tables.install_huge(self.mem, start, folio.leaf(), spare) {
            Ok(true) => {
                self.count_resident(ResidentKind::Anon, HUGE_PAGES);
                self.mem.count(Event::HugeFault);
                self.mem.count_folio(HUGE_ORDER, true);
                Ok(Some(Outcome::Done))
            }
            other => {
                self.disown_folio(folio);
                other.map(|_| Some(Outcome::Again)).map_err(FaultError::from)
            }
        }
    }
}
