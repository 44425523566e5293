//! `MREMAP_RELOCATE_ANON`: pages that move to a new address come to belong there.
//!
//! An anonymous page is found through its index, which is fixed when the page is
//! first written to. A VMA that is moved takes its old indices along, which go on in
//! no neighbour at the new address; it can never merge with one. Relocation
//! gives the VMA the indices of the new address, its pages likewise, and an
//! anon_vma that a neighbour has or could have: as if all of it had been mapped
//! and written to there. Posted for Linux by Lorenzo Stoakes in 2025
//! ("mm/mremap: introduce more mergeable mremap via MREMAP_RELOCATE_ANON").
//!
//! ```text
//!   index    0   1   2   3   4                     0   1   2   3   4
//!           [n   n][s   s]                        [n   n]
//!
//!   address  0   1   2   3   4   ordinarily  ->    [n   n][s   s]   a VMA of its own
//!                                relocated   ->    [n   n   s   s]  one, with n's anon_vma
//! ```
//!
//! What can stand in the way is found out before anything changes
//! ([`obstacle`](AddressSpace::obstacle)); what follows cannot fail, so nothing has ever to
//! be undone. The pages' records and entries change with the locks of the old and the
//! new anon_vma held, so whoever walks from a page finds it at one of its two addresses.

use super::Remap;
use crate::frame::{Frame, Frames};
use crate::paging::{Entry, Run};
use crate::rmap;
use crate::slab::Ref;
use crate::space::{AddressSpace, SpaceError, State};
use crate::vma::{NewMapping, Spares, Vma};
use crate::{Event, PAGE_SHIFT, PageRange, Platform, VmaFlags};

/// What is to become of the pages of a mapping that moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Relocation {
    /// They keep their indices, as on Linux.
    None,
    /// They keep them although relocation was asked for, which counts as this.
    Instead(Event),
    /// They are relocated, unless the mapping merges as it is.
    Pages,
}

impl<P: Platform> AddressSpace<'_, P> {
    /// Decides whether `source`, a part of `vma`, which is locked, is relocated when it
    /// becomes the mapping `new`. What is in `gone` will be unmapped before.
    ///
    /// # Errors
    ///
    /// `BadAddress`: it has to be, but cannot, and would not merge.
    pub(super) fn plan_relocation(
        &self,
        state: &State,
        vma: Ref<Vma>,
        source: PageRange,
        new: &NewMapping,
        gone: Option<PageRange>,
        remap: &Remap,
    ) -> Result<Relocation, SpaceError> {
        if !remap.relocates() || source.is_empty() || is_unwritten(vma) {
            return Ok(Relocation::None);
        }
        let Some(obstacle) = self.obstacle(vma, source) else {
            return Ok(Relocation::Pages);
        };
        if state.vmas.will_merge(new, gone) {
            return Ok(Relocation::Instead(Event::RelocateMerged));
        }
        if remap.must_relocate() {
            self.mem.count(obstacle);
            return Err(SpaceError::BadAddress);
        }
        Ok(Relocation::Instead(obstacle))
    }

    /// Whether the pages of `source`, a part of `vma`, have to be relocated and cannot,
    /// whatever is at their new address: for a move of several VMAs, where
    /// what one merges with may be another. The VMA is locked.
    pub(super) fn refuses_relocation(&self, vma: Ref<Vma>, source: PageRange, remap: &Remap) -> bool {
        let obstacle = (remap.must_relocate() && !is_unwritten(vma)).then(|| self.obstacle(vma, source)).flatten();
        obstacle.inspect(|&obstacle| self.mem.count(obstacle)).is_some()
    }

    /// Why the pages in `source`, a part of `vma`, cannot be relocated. The VMA is
    /// locked, so that no fault makes another answer true before the move.
    ///
    /// Nothing stands in the way where no page is. Of a VMA that was forked some pages may
    /// be its alone by now, but they are found through what it shares. Who has a reference
    /// to a page without mapping it is not in the way: only who walks from a page looks at
    /// what relocation changes, and does that under the lock of the root. But who has
    /// [pinned](crate::space::PinnedPage) a page is promised that it stays as it is.
    fn obstacle(&self, vma: Ref<Vma>, source: PageRange) -> Option<Event> {
        if !is_private_anonymous(vma) {
            return Some(Event::RelocateNotAnon);
        }
        let frames = self.mem.frames();
        if rmap::is_forked(&vma) {
            let mut has_pages = false;
            self.core.tables.visit_runs(self.mem, source, |run| has_pages |= run.entries().any(is_page));
            return has_pages.then_some(Event::RelocateForked);
        }
        if vma.flags().contains(VmaFlags::MERGEABLE) && self.has_merged_page(source) {
            return Some(Event::RelocateMergedPage);
        }
        let mut shared = false;
        self.core.tables.visit_runs(self.mem, source, |run| shared |= has_shared_page(run, &frames));
        if shared {
            return Some(Event::RelocateShared);
        }
        let pinned = self.mem.has_pinned() && self.has_pinned_page(source, &frames);
        pinned.then_some(Event::RelocatePinned)
    }

    /// Whether a page in `source` is pinned. Nobody pins one meanwhile.
    #[cold]
    fn has_pinned_page(&self, source: PageRange, frames: &Frames<'_>) -> bool {
        let mut pinned = false;
        self.core.tables.visit_runs(self.mem, source, |run| {
            let is_pinned = |pfn| frames.get(pfn).pins() != 0;
            pinned |= if run.is_huge() {
                run.entries().flat_map(Entry::pfns).any(is_pinned)
            } else {
                run.entries().any(|entry| entry.counted_pfn().is_some_and(is_pinned))
            };
        });
        pinned
    }

    /// Whether a page in `source` has been merged: it is found by all the indices that it was merged at.
    fn has_merged_page(&self, source: PageRange) -> bool {
        let mut merged = false;
        let frames = self.mem.frames();
        self.core.tables.visit_runs(self.mem, source, |run| {
            merged |= run.entries().any(|entry| entry.counted_pfn().is_some_and(|pfn| frames.get(pfn).is_merged()));
        });
        merged
    }

    /// Gives `to`, a new VMA as large as `source`, which is a part of `from`, the
    /// indices of its own addresses and an anon_vma, and its pages these; `move_entries`
    /// moves the page tables.
    pub(super) fn relocate_pages(
        &self,
        from: Ref<Vma>,
        source: PageRange,
        to: Ref<Vma>,
        spares: &mut Spares<'_>,
        move_entries: impl FnOnce(),
    ) {
        let frames = self.mem.frames();
        // From an address to the index at the new one; it may wrap on the way.
        let offset = to.pgoff().wrapping_sub(source.start() >> PAGE_SHIFT);
        rmap::attach(spares, from, source, to, |mapping| {
            let mut pages = 0;
            self.core.tables.visit_runs(self.mem, source, |run| {
                let first = (run.start() >> PAGE_SHIFT).wrapping_add(offset);
                pages += put_pages(run, &frames, mapping, first);
            });
            move_entries();
            self.mem.count_all(Event::RelocatedPage, pages as u64);
        });
        self.mem.count(Event::Relocated);
    }
}

/// Whether one of the pages that `run` maps is mapped elsewhere too. Not inlined, for
/// the sake of its loop, which needs all registers.
#[inline(never)]
fn has_shared_page(run: &Run<'_>, frames: &Frames<'_>) -> bool {
    let is_shared = |pfn| frames.get(pfn).mapcount() > 1;
    if run.is_huge() {
        return run.entries().flat_map(Entry::pfns).any(is_shared);
    }
    run.entries().any(|entry| entry.counted_pfn().is_some_and(is_shared))
}

/// Gives the pages that `run` maps this mapping, and indices from `first` on; returns
/// how many there are. Not inlined, as above.
#[inline(never)]
fn put_pages(run: &Run<'_>, frames: &Frames<'_>, mapping: usize, first: usize) -> usize {
    if run.is_huge() {
        let pages = run.entries().flat_map(Entry::pfns).enumerate();
        return pages.map(|(i, pfn)| put_page(frames.get(pfn), mapping, first.wrapping_add(i))).count();
    }
    let mut others = 0;
    run.entries().enumerate().for_each(|(i, entry)| match entry.counted_pfn() {
        Some(pfn) => put_page(frames.get(pfn), mapping, first.wrapping_add(i)),
        None => others += 1,
    });
    run.len() - others
}

#[inline(always)]
fn put_page(frame: &Frame, mapping: usize, index: usize) {
    frame.set_mapping(mapping);
    frame.set_index(index);
}

fn is_private_anonymous(vma: Ref<Vma>) -> bool {
    let flags = vma.flags();
    vma.object().is_none() && !flags.intersects(VmaFlags::SHARED | VmaFlags::MAY_SHARE | VmaFlags::SPECIAL)
}

/// Whether `vma` is private anonymous memory without a page: it belongs wherever it is.
fn is_unwritten(vma: Ref<Vma>) -> bool {
    is_private_anonymous(vma) && vma.anon_vma().is_none()
}

/// Whether an entry stands for a private page: one that is mapped, or just being moved, or in
/// swap. The latter comes to belong where it is when it comes back, and is in nobody else's
/// entries unless the VMA was forked.
fn is_page(entry: Entry) -> bool {
    entry.settled().is_counted() || entry.swap_slot().is_some()
}
