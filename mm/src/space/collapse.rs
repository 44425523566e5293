//! Making huge pages of pages that are there: by `MADV_COLLAPSE`, and in the background.
//!
//! The pages are copied to new frames, with faults and walks of the reverse mapping kept out, and the huge
//! leaf takes the place of their page table. What is missing becomes zeroes.

use super::account::ResidentKind;
use super::folio::{Folio, takes_large};
use super::{AddressSpace, SpaceError, State};
use crate::frame::{clear_page, copy_page};
use crate::paging::{Entry, EntryFlags, HUGE_ORDER, HUGE_PAGES, Run};
use crate::rmap::{self, AnonVma};
use crate::slab::Ref;
use crate::vma::Vma;
use crate::{Event, PMD_SIZE, PageRange, Platform};

/// How often a collapse that somebody was in the way of is tried again.
const RETRIES: usize = 8;

/// What came of one attempt to collapse 2 MiB.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attempt {
    /// There is a huge page now, or there was one.
    Done,
    /// The mapping takes none, or has no page there.
    Unsuitable,
    /// A page is in swap.
    Swapped,
    /// Somebody is using one of the pages.
    Busy,
}

/// What 2 MiB may have and still be collapsed without being asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CollapseLimits {
    /// Pages that are not there (`max_ptes_none`).
    pub none: usize,
    /// Pages that are in swap (`max_ptes_swap`).
    pub swapped: usize,
    /// Pages that somebody else has too (`max_ptes_shared`).
    pub shared: usize,
    /// Whether memory is compacted, if there is no such block (`defrag`).
    pub compact: bool,
}

/// How far a look for pages to collapse has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CollapseScan {
    /// The address to go on at; `None` at the end of the address space.
    pub next: Option<usize>,
    /// Page-table entries that were looked at.
    pub scanned: usize,
    /// Huge pages that have been made.
    pub collapsed: usize,
    /// It ended because there was no memory for one.
    pub out_of_memory: bool,
}

/// What 2 MiB consist of.
#[derive(Default)]
struct Contents {
    present: usize,
    swapped: usize,
    shared: usize,
    /// Some page has been used since it was last asked for.
    used: bool,
}

impl<P: Platform> AddressSpace<'_, P> {
    /// Looks at about as many `pages` from `addr` on, and makes huge pages of those that are within `limits`, some
    /// of which has been used lately, in mappings whose faults would make huge pages (Linux's `khugepaged`).
    ///
    /// What cannot be collapsed is passed over; lack of memory ends it.
    pub fn collapse_some(&self, addr: usize, pages: usize, limits: &CollapseLimits) -> CollapseScan {
        let mut scan = CollapseScan { next: Some(addr), ..CollapseScan::default() };
        while let Some(start) = scan.next
            && scan.scanned < pages
            && !scan.out_of_memory
        {
            scan.next = self.next_to_collapse(start).map(|(start, may_be)| {
                scan.scanned += if may_be { HUGE_PAGES } else { 1 };
                if may_be && self.is_worth_collapsing(start, limits) {
                    match self.collapse_one(start, limits.compact) {
                        Ok(()) => scan.collapsed += 1,
                        Err(error) => scan.out_of_memory = error == SpaceError::OutOfMemory,
                    }
                }
                if may_be { start + PMD_SIZE } else { start }
            });
        }
        scan
    }

    /// The next 2 MiB from `addr` on that lie in a mapping which is to have huge pages; or, with `false`, where
    /// such a mapping may begin.
    fn next_to_collapse(&self, addr: usize) -> Option<(usize, bool)> {
        let state = self.mmap.read();
        let vma = state.vmas.find(addr)?;
        let start = vma.start().max(addr).next_multiple_of(PMD_SIZE);
        let fits = start < vma.end() && vma.end() - start >= PMD_SIZE && self.wants_folio(vma, HUGE_ORDER);
        Some(if fits { (start, true) } else { (vma.end(), false) })
    }

    fn is_worth_collapsing(&self, start: usize, limits: &CollapseLimits) -> bool {
        let Some(range) = PageRange::from_len(start, PMD_SIZE) else { return false };
        let state = self.mmap.read();
        if find_huge(&state, start).is_none() {
            return false;
        }
        let mut is_huge = false;
        let mut contents = Contents::default();
        self.core.tables.visit_runs(self.mem, range, |run| {
            is_huge |= run.is_huge();
            run.entries().for_each(|entry| contents.add(entry, |entry| self.mem.frame(entry.pfn()).mapcount() > 1));
        });
        !is_huge && contents.is_within(limits)
    }

    /// Makes a huge page of each aligned 2 MiB in `addr..end` (`MADV_COLLAPSE`).
    ///
    /// # Errors
    ///
    /// As Linux's `madvise_collapse`: `Invalid` where no page is mapped, or memory that
    /// cannot be huge; `OutOfMemory`; `TryAgain` where a page is in use; `NotMapped` if
    /// there was a hole.
    pub(super) fn collapse(&self, addr: usize, end: usize) -> Result<(), SpaceError> {
        let mut result = Ok(());
        let mut at = addr;
        while at < end {
            let (start, stop, fits) = {
                let state = self.mmap.read();
                let Some(vma) = state.vmas.find(at).filter(|vma| vma.start() < end) else {
                    return Err(SpaceError::NotMapped);
                };
                let fits = takes_large(vma) && has_room(vma) && !self.small_pages_only();
                (vma.start().max(at), vma.end().min(end), fits)
            };
            if start > at {
                result = Err(SpaceError::NotMapped);
            }
            if !fits {
                return Err(SpaceError::Invalid);
            }
            self.collapse_part(PageRange::new(start, stop).ok_or(SpaceError::Invalid)?)?;
            at = stop;
        }
        result
    }

    fn collapse_part(&self, range: PageRange) -> Result<(), SpaceError> {
        let mut result = Ok(());
        let first = range.start().next_multiple_of(PMD_SIZE);
        for start in (first..range.end()).step_by(PMD_SIZE).filter(|start| range.end() - start >= PMD_SIZE) {
            // The last one that failed tells why.
            match self.collapse_one(start, true) {
                Err(SpaceError::OutOfMemory) => return Err(SpaceError::OutOfMemory),
                one => result = one.and(result),
            }
        }
        result
    }

    fn collapse_one(&self, start: usize, compact: bool) -> Result<(), SpaceError> {
        let range = PageRange::from_len(start, PMD_SIZE).ok_or(SpaceError::Invalid)?;
        for _ in 0..RETRIES {
            match self.mem.reclaiming(|| self.try_collapse(start, compact))? {
                Attempt::Done => return Ok(()),
                Attempt::Unsuitable => return Err(SpaceError::Invalid),
                Attempt::Swapped => self.populate_swapped(range)?,
                Attempt::Busy => self.mem.platform().relax(),
            }
        }
        Err(SpaceError::TryAgain)
    }

    fn try_collapse(&self, start: usize, compact: bool) -> Result<Attempt, SpaceError> {
        let mut state = self.mmap.write();
        let Some(vma) = find_huge(&state, start) else { return Ok(Attempt::Unsuitable) };
        match self.core.tables.lookup(self.mem, start) {
            Some(entry) if entry.is_huge() => return Ok(Attempt::Done),
            _ => {}
        }
        rmap::prepare(self.mem, vma)?;
        let folio = match self.alloc_folio(vma, HUGE_ORDER, true, compact) {
            Ok(folio) => folio,
            Err(error) => {
                self.mem.count(Event::HugeCollapseFailed);
                return Err(error.into());
            }
        };
        // Nobody is to find a page that is being copied: no fault, and no walk from it.
        state.vmas.lock_vma(vma);
        let root = vma.anon_vma().map(AnonVma::root);
        let _walkers_out = root.as_ref().map(|root| root.lock());
        let mut obstacle = Attempt::Unsuitable;
        let collapsed = self.core.tables.collapse(self.mem, start, |run| {
            if let Some(found) = run.entries().find_map(|entry| self.obstacle_to_huge(entry)) {
                obstacle = found;
                return None;
            }
            self.copy_to_huge(run, folio);
            self.adopt_folio(vma, start, folio);
            // As on Linux: one of its parts may be.
            Some(folio.leaf().with(EntryFlags::SOFT_DIRTY))
        });
        if !collapsed {
            self.free_folio(folio);
            return Ok(obstacle);
        }
        self.mem.count(Event::HugeCollapse);
        Ok(Attempt::Done)
    }

    /// What about an entry stands in the way of its page becoming a part of a huge one.
    /// No TLB has the page, and nobody else can come to have it.
    fn obstacle_to_huge(&self, entry: Entry) -> Option<Attempt> {
        if !entry.maps_page() {
            return (!entry.is_empty()).then_some(Attempt::Swapped);
        }
        if entry.is_special() {
            return None;
        }
        let record = self.mem.frame(entry.pfn());
        // Who has a reference may be writing by it; but nobody writes to what is shared.
        let own = record.mapcount() + u32::from(record.is_in_swap_cache());
        let is_used = record.mapcount() == 1 && record.refcount() != own;
        is_used.then_some(Attempt::Busy)
    }

    /// Copies the pages of a whole table to the frames of `folio`, and lets go of them.
    fn copy_to_huge(&self, run: &Run<'_>, folio: Folio) {
        for (entry, to) in run.entries().zip(folio.pfns()) {
            let to = self.mem.page_ptr(to);
            if entry.is_counted() {
                // SAFETY: both are whole pages of the direct map, the target is new, and the
                // source is kept by the entry's reference.
                unsafe { copy_page(self.mem.page_ptr(entry.pfn()), to) };
            } else {
                // SAFETY: the frame is new, so nothing else accesses it.
                unsafe { clear_page(to) };
            }
        }
        let mut gone = 0;
        for (_, slot) in run.slots() {
            let entry = slot.take();
            if entry.is_counted() {
                self.mem.frame(entry.pfn()).dec_mapcount();
                self.mem.put(entry.pfn());
                gone += 1;
            }
        }
        self.count_resident(ResidentKind::Anon, HUGE_PAGES);
        self.core.resident.sub(ResidentKind::Anon, gone);
    }
}

impl Contents {
    fn add(&mut self, entry: Entry, is_shared: impl FnOnce(Entry) -> bool) {
        if entry.is_counted() {
            self.present += 1;
            self.shared += usize::from(is_shared(entry));
            self.used |= entry.flags().contains(EntryFlags::ACCESSED);
        } else if !entry.is_empty() && !entry.maps_page() {
            self.swapped += 1;
        }
    }

    fn is_within(&self, limits: &CollapseLimits) -> bool {
        self.used
            && HUGE_PAGES - self.present - self.swapped <= limits.none
            && self.swapped <= limits.swapped
            && self.shared <= limits.shared
    }
}

/// Whether a VMA has an aligned 2 MiB.
fn has_room(vma: Ref<Vma>) -> bool {
    vma.start().next_multiple_of(PMD_SIZE) + PMD_SIZE <= vma.end()
}

/// The VMA that has all of the 2 MiB from `start` on, if they can be a huge page.
fn find_huge(state: &State, start: usize) -> Option<Ref<Vma>> {
    state.vmas.lookup(start).filter(|&vma| vma.end() - start >= PMD_SIZE && takes_large(vma))
}
