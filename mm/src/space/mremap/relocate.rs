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

use core::sync::atomic::{AtomicU64, Ordering};

use super::Remap;
use crate::rmap::{self, AnonVma};
use crate::slab::Ref;
use crate::space::fault::is_exclusive;
use crate::space::{AddressSpace, SpaceError, State};
use crate::vma::{NewMapping, Spares, Vma};
use crate::{PAGE_SHIFT, PageRange, Platform, VmaFlags};

/// Why the pages of a mapping cannot be relocated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Obstacle {
    /// It is not private anonymous memory.
    NotAnonymous,
    /// It is shared with a parent or a child through fork, or has been.
    Forked,
    /// Somebody else has a reference to one of its pages.
    PageInUse,
}

/// Counts what [`RelocationStats`] says.
#[derive(Default)]
pub(crate) struct RelocationCounters {
    relocated: AtomicU64,
    pages: AtomicU64,
    merged: AtomicU64,
    not_anonymous: AtomicU64,
    forked: AtomicU64,
    page_in_use: AtomicU64,
}

/// What came of the moves for which relocation was asked, since the
/// [`Memory`](crate::Memory) was made.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RelocationStats {
    /// Mappings that were relocated.
    pub relocated: u64,
    /// Pages in them.
    pub pages: u64,
    /// Mappings that became one with a neighbour without.
    pub merged: u64,
    /// Mappings that were not, for being other than private anonymous memory: they
    /// moved as ever, or, with `MREMAP_MUST_RELOCATE_ANON`, did not.
    pub not_anonymous: u64,
    /// Mappings that were not, for being shared with another process through fork.
    pub forked: u64,
    /// Mappings that were not, for a page that somebody else had a reference to.
    pub page_in_use: u64,
}

impl RelocationCounters {
    /// The values now.
    pub(crate) fn get(&self) -> RelocationStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RelocationStats {
            relocated: load(&self.relocated),
            pages: load(&self.pages),
            merged: load(&self.merged),
            not_anonymous: load(&self.not_anonymous),
            forked: load(&self.forked),
            page_in_use: load(&self.page_in_use),
        }
    }

    /// One that merged without.
    pub(super) fn count_merged(&self) {
        self.merged.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self, obstacle: Obstacle) {
        let counter = match obstacle {
            Obstacle::NotAnonymous => &self.not_anonymous,
            Obstacle::Forked => &self.forked,
            Obstacle::PageInUse => &self.page_in_use,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl<P: Platform> AddressSpace<'_, P> {
    /// Whether `source`, a part of `vma` that is to become the mapping `new`, is to be
    /// relocated, unless it merges as it is. What is in `gone` will be unmapped.
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
    ) -> Result<bool, SpaceError> {
        if !remap.relocates() || source.is_empty() || is_unwritten(vma) {
            return Ok(false);
        }
        let Some(obstacle) = self.obstacle(vma, source) else {
            return Ok(true);
        };
        if state.vmas.will_merge(new, gone) {
            self.mem.relocations().count_merged();
            return Ok(false);
        }
        self.mem.relocations().count(obstacle);
        if remap.must_relocate() { Err(SpaceError::BadAddress) } else { Ok(false) }
    }

    /// Whether the pages of `source`, a part of `vma`, have to be relocated and cannot,
    /// whatever is at their new address: for a move of several VMAs, where
    /// what one merges with may be another.
    pub(super) fn refuses_relocation(&self, vma: Ref<Vma>, source: PageRange, remap: &Remap) -> bool {
        let obstacle = (remap.must_relocate() && !is_unwritten(vma)).then(|| self.obstacle(vma, source)).flatten();
        obstacle.inspect(|&obstacle| self.mem.relocations().count(obstacle)).is_some()
    }

    /// Why the pages in `source`, a part of `vma`, cannot be relocated.
    ///
    /// Nothing stands in the way where no page is. Of a VMA that was forked some pages may
    /// be its alone by now, but they are found through what it shares.
    fn obstacle(&self, vma: Ref<Vma>, source: PageRange) -> Option<Obstacle> {
        if !is_private_anonymous(vma) {
            return Some(Obstacle::NotAnonymous);
        }
        let frames = self.mem.frames();
        let mapping = vma.anon_vma().map_or(0, AnonVma::to_mapping);
        let (mut pages, mut movable) = (0, 0);
        self.tables.visit_runs(self.mem, source, |run| {
            for (_, slot) in run.slots() {
                let entry = slot.get();
                if entry.is_counted() {
                    pages += 1;
                    movable +=
                        usize::from(is_exclusive(&frames, entry) && frames.get(entry.pfn()).mapping() == mapping);
                }
            }
        });
        if pages == 0 {
            None
        } else if rmap::is_forked(&vma) {
            Some(Obstacle::Forked)
        } else {
            (movable != pages).then_some(Obstacle::PageInUse)
        }
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
        let counters = self.mem.relocations();
        // From an address to the index at the new one; it may wrap on the way.
        let offset = to.pgoff().wrapping_sub(source.start() >> PAGE_SHIFT);
        rmap::attach(spares, from, to, |mapping| {
            let mut pages = 0;
            self.tables.visit_runs(self.mem, source, |run| {
                for (addr, slot) in run.slots() {
                    let entry = slot.get();
                    if entry.is_counted() {
                        let frame = frames.get(entry.pfn());
                        frame.set_mapping(mapping);
                        frame.set_index((addr >> PAGE_SHIFT).wrapping_add(offset));
                        pages += 1;
                    }
                }
            });
            move_entries();
            counters.pages.fetch_add(pages, Ordering::Relaxed);
        });
        counters.relocated.fetch_add(1, Ordering::Relaxed);
    }
}

fn is_private_anonymous(vma: Ref<Vma>) -> bool {
    let flags = vma.flags();
    vma.object().is_none() && !flags.intersects(VmaFlags::SHARED | VmaFlags::MAY_SHARE | VmaFlags::SPECIAL)
}

/// Whether `vma` is private anonymous memory without a page: it belongs wherever it is.
fn is_unwritten(vma: Ref<Vma>) -> bool {
    is_private_anonymous(vma) && vma.anon_vma().is_none()
}
