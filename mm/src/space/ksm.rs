//! Which memory of an address space may be merged with equal pages (`MADV_MERGEABLE`,
//! `PR_SET_MEMORY_MERGE`), and giving it pages of its own again.
//!
//! Who unmerges holds the lock of [`crate::ksm`] from before the first page is given back until the VMA's
//! flags say that none is to be merged again. As pages come first, running out of memory
//! leaves all as it was but for some pages that are not merged any more.

use super::fault::Outcome;
use super::{AddressSpace, SpaceError, State};
use crate::ksm::{self, KsmPages};
use crate::paging::{Entry, EntryFlags};
use crate::rmap;
use crate::slab::Ref;
use crate::vma::Vma;
use crate::{FaultError, FrameKind, PageRange, Platform, TASK_SIZE, VmaFlags};

/// Pages that are given back between two looks at the page tables.
const BATCH: usize = 32;

impl<P: Platform> AddressSpace<'_, P> {
    /// Whether all memory of the process may be merged (`PR_GET_MEMORY_MERGE`).
    pub fn memory_merge(&self) -> bool {
        self.mmap.read().merge_any
    }

    /// Lets all memory of the process, and what it maps from now on, be merged, or none
    /// (`PR_SET_MEMORY_MERGE`). A child inherits that.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`: as much as before may be merged.
    pub fn set_memory_merge(&self, all: bool) -> Result<(), SpaceError> {
        self.mem.reclaiming(|| {
            let mut state = self.mmap.write();
            if state.merge_any == all {
                return Ok(());
            }
            let whole = PageRange::new(0, TASK_SIZE).ok_or(SpaceError::Invalid)?;
            match self.set_mergeable(&mut state, whole, all) {
                // There always is a hole.
                Ok(()) | Err(SpaceError::NotMapped) => state.merge_any = all,
                Err(error) => return Err(error),
            }
            Ok(())
        })
    }

    /// Lets the pages of `range` be merged, where they can be, or not.
    ///
    /// # Errors
    ///
    /// As [`change_flags`](Self::change_flags).
    pub(super) fn set_mergeable(&self, state: &mut State, range: PageRange, mergeable: bool) -> Result<(), SpaceError> {
        let _nothing_merges = if mergeable {
            self.mem.ksm.begin();
            None
        } else {
            let guard = self.mem.keep_from_merging();
            self.unmerge_range(state, range)?;
            guard
        };
        self.change_flags(state, range.start(), range.end(), |vma| {
            let flags = vma.flags();
            Ok(match mergeable {
                true if ksm::is_compatible(flags) => flags | VmaFlags::MERGEABLE,
                true => flags,
                false => flags.difference(VmaFlags::MERGEABLE),
            })
        })
    }

    /// Gives back all pages that have been merged; that they may be stays as it is.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`: some may be merged still.
    pub fn unmerge(&self) -> Result<(), SpaceError> {
        self.mem.reclaiming(|| {
            let state = self.mmap.read();
            let _nothing_merges = self.mem.keep_from_merging();
            let whole = PageRange::new(0, TASK_SIZE).ok_or(SpaceError::Invalid)?;
            self.unmerge_range(&state, whole)
        })
    }

    fn unmerge_range(&self, state: &State, range: PageRange) -> Result<(), SpaceError> {
        for vma in state.vmas.overlapping(range.start(), range.end()) {
            if vma.flags().contains(VmaFlags::MERGEABLE) {
                self.unmerge_vma(vma, vma.range().intersect(range))?;
            }
        }
        Ok(())
    }

    fn unmerge_vma(&self, vma: Ref<Vma>, range: PageRange) -> Result<(), FaultError> {
        let mut at = range.start();
        while let Some(part) = PageRange::new(at, range.end()).filter(|part| !part.is_empty()) {
            let (mut pages, mut count, mut next) = ([0; BATCH], 0, part.end());
            self.core.tables.visit_runs(self.mem, part, |run| {
                let merged = run.slots().filter(|(_, slot)| self.merged_kind(slot.get()).is_some());
                for (addr, _) in merged {
                    match pages.get_mut(count) {
                        Some(place) => *place = addr,
                        None => next = next.min(addr),
                    }
                    count += 1;
                }
            });
            for &page in pages.iter().take(count) {
                while self.unshare(vma, page)? == Outcome::Again {}
            }
            at = next;
        }
        Ok(())
    }

    /// Gives the VMA a page of its own where a merged one is mapped.
    #[cold]
    fn unshare(&self, vma: Ref<Vma>, page: usize) -> Result<Outcome, FaultError> {
        rmap::prepare(self.mem, vma)?;
        let Some(slot) = self.core.tables.lock_pte(self.mem, page) else { return Ok(Outcome::Done) };
        let old = slot.get();
        match self.merged_kind(old) {
            None => Ok(Outcome::Done),
            Some(Merged::Zero) => {
                drop(slot);
                let frame = self.mem.alloc_zeroed(FrameKind::Anon)?;
                self.replace(vma, page, old, frame, false)
            }
            Some(Merged::Page) => self.replace_by_copy(vma, page, slot, false),
        }
    }

    /// How many pages have been merged (`/proc/PID/ksm_stat`).
    pub fn ksm_pages(&self) -> KsmPages {
        let state = self.mmap.read();
        let mut pages = KsmPages::default();
        for vma in state.vmas.iter().filter(|vma| vma.flags().contains(VmaFlags::MERGEABLE)) {
            self.core.tables.visit_runs(self.mem, vma.range(), |run| {
                for (_, slot) in run.slots() {
                    match self.merged_kind(slot.get()) {
                        Some(Merged::Page) => pages.merged += 1,
                        Some(Merged::Zero) => pages.zero += 1,
                        None => {}
                    }
                }
            });
        }
        pages
    }

    /// With what the page that an entry maps has been merged.
    pub(super) fn merged_kind(&self, entry: Entry) -> Option<Merged> {
        if !entry.maps_page() {
            None
        } else if entry.is_special() {
            entry.flags().contains(EntryFlags::DIRTY).then_some(Merged::Zero)
        } else {
            self.mem.frame(entry.pfn()).is_merged().then_some(Merged::Page)
        }
    }
}

impl State {
    /// The flags of a new mapping that would have `flags` otherwise.
    pub(super) fn mergeable(&self, flags: VmaFlags) -> VmaFlags {
        if self.merge_any && ksm::is_compatible(flags) { flags | VmaFlags::MERGEABLE } else { flags }
    }
}

/// What an entry maps instead of a page that the program has written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Merged {
    /// A merged page.
    Page,
    /// The page of zeroes.
    Zero,
}
