//! Large folios: several adjacent, aligned pages of private anonymous memory that one fault makes.
//!
//! Of which orders, and in which mappings, [`Sysctl::folio_policy`](crate::Sysctl::folio_policy) says; by
//! default of order 9 only, in mappings that are advised `MADV_HUGEPAGE`. A folio of
//! order 9 is a [huge page](super::huge), which one entry maps. The pages of smaller ones have entries of
//! their own, and frames that are as independent of each other as any: being a folio is over with the
//! fault, which has cost one trap and one lock instead of one for each page. So there is nothing to
//! split when a part of one is unmapped, moved, shared or evicted.
//!
//! A write makes the largest folio around it that lies in the VMA, that has nothing mapped in it yet, and
//! for which there is such a block of memory. (Linux's `alloc_anon_folio`.)

use core::ops::ControlFlow;

use super::account::ResidentKind;
use super::clear_refs::tracks_writes;
use super::fault::{Outcome, WRITTEN, page_protection};
use super::{AddressSpace, FaultError};
use crate::frame::clear_page;
use crate::memory::Defrag;
use crate::paging::{Entry, EntryFlags, HUGE_ORDER};
use crate::rmap::AnonVma;
use crate::slab::Ref;
use crate::vma::Vma;
use crate::{FOLIO_ORDERS, FrameKind, OutOfMemory, PAGE_SIZE, PageRange, Pfn, Platform, VmaFlags};

/// New frames with a reference each, and how entries are to map them.
#[derive(Clone, Copy)]
pub(super) struct Folio {
    first: Pfn,
    order: u8,
    flags: EntryFlags,
}

impl Folio {
    pub(super) fn pfns(self) -> impl Iterator<Item = Pfn> + Clone {
        (self.first.0..self.first.0 + (1 << self.order)).map(Pfn)
    }

    /// The leaf that is to map it as a huge page.
    pub(super) fn leaf(self) -> Entry {
        Entry::leaf(self.first, self.flags | EntryFlags::HUGE)
    }
}

impl<P: Platform> AddressSpace<'_, P> {
    /// Whether faults in `vma` are to make folios of that order where there is room.
    pub(super) fn wants_folio(&self, vma: Ref<Vma>, order: u8) -> bool {
        let advised = vma.flags().contains(VmaFlags::HUGEPAGE);
        self.mem.sysctl().makes_folios_of(order, advised) && takes_large(vma) && !self.small_pages_only()
    }

    /// Whether a fault in `vma` has memory compacted for a large folio.
    pub(super) fn compacts_for(&self, vma: Ref<Vma>) -> bool {
        match self.mem.sysctl().defrag() {
            Defrag::Always => true,
            Defrag::Madvise | Defrag::DeferMadvise => vma.flags().contains(VmaFlags::HUGEPAGE),
            Defrag::Defer | Defrag::Never => false,
        }
    }

    /// A write fault at `page`, where nothing is mapped: maps a folio that is larger than a page but not
    /// huge, if one is wanted there and can be had. What it needs to have locked is what
    /// [`fault_in`](Self::fault_in) does.
    #[cold]
    pub(super) fn fault_in_folio(&self, vma: Ref<Vma>, page: usize) -> Result<Option<Outcome>, FaultError> {
        let orders = (*FOLIO_ORDERS.start()..HUGE_ORDER).rev();
        let made = orders.filter(|&order| self.wants_folio(vma, order)).try_for_each(|order| {
            let Some(range) = self.vacancy(vma, page, order) else { return ControlFlow::Continue(()) };
            match self.alloc_folio(vma, order, true, self.compacts_for(vma)) {
                Ok(folio) => ControlFlow::Break(self.install_folio(vma, range, folio)),
                Err(OutOfMemory) => {
                    self.mem.count_folio(order, false);
                    ControlFlow::Continue(())
                }
            }
        });
        made.break_value().transpose()
    }

    /// The aligned range of that order around `page`, if it lies in the VMA and nothing is mapped there.
    fn vacancy(&self, vma: Ref<Vma>, page: usize, order: u8) -> Option<PageRange> {
        let len = PAGE_SIZE << order;
        let range = PageRange::from_len(page & !(len - 1), len)?;
        let is_inside = vma.start() <= range.start() && range.end() <= vma.end();
        (is_inside && self.core.tables.is_vacant(self.mem, range)).then_some(range)
    }

    fn install_folio(&self, vma: Ref<Vma>, range: PageRange, folio: Folio) -> Result<Outcome, FaultError> {
        self.clear_folio(folio);
        self.adopt_folio(vma, range.start(), folio);
        match self.core.tables.install_adjacent(self.mem, range, folio.first, folio.flags) {
            Ok(true) => {
                self.count_resident(ResidentKind::Anon, range.pages());
                self.mem.count_folio(folio.order, true);
                Ok(Outcome::Done)
            }
            other => {
                self.disown_folio(folio);
                // Some page of it has come to be mapped meanwhile.
                other.map(|_| Outcome::Again).map_err(FaultError::from)
            }
        }
    }

    /// New frames for a folio of `vma`, with undefined contents: writable if the VMA is, unless nobody
    /// has `written` to them and a write is to be noticed. Memory is `compact`ed for them, if need be.
    pub(super) fn alloc_folio(
        &self,
        vma: Ref<Vma>,
        order: u8,
        written: bool,
        compact: bool,
    ) -> Result<Folio, OutOfMemory> {
        let flags = vma.flags();
        let first = self.mem.alloc_singly(FrameKind::Anon, order, compact)?;
        let writable = flags.contains(VmaFlags::WRITE) && (written || !tracks_writes(flags));
        let written = if writable { WRITTEN } else { EntryFlags::ACCESSED };
        Ok(Folio { first, order, flags: page_protection(flags) | written })
    }

    pub(super) fn clear_folio(&self, folio: Folio) {
        for pfn in folio.pfns() {
            // SAFETY: the frame is new, so nothing else accesses it.
            unsafe { clear_page(self.mem.page_ptr(pfn)) };
        }
    }

    /// Makes the frames of a folio, which are to be mapped from `start` on, pages of the VMA.
    pub(super) fn adopt_folio(&self, vma: Ref<Vma>, start: usize, folio: Folio) {
        let mapping = vma.anon_vma().map_or(0, AnonVma::to_mapping);
        let frames = self.mem.frames();
        for (record, index) in frames.block(folio.first, 1 << folio.order).iter().zip(vma.index_of(start)..) {
            record.map_first(mapping, index);
        }
    }

    /// Frees a folio that was [adopted](Self::adopt_folio) in vain.
    pub(super) fn disown_folio(&self, folio: Folio) {
        folio.pfns().for_each(|pfn| _ = self.mem.frame(pfn).dec_mapcount());
        self.free_folio(folio);
    }

    /// Frees a folio that nobody has.
    pub(super) fn free_folio(&self, folio: Folio) {
        folio.pfns().for_each(|pfn| self.mem.put(pfn));
    }
}

/// Whether a VMA's folios can be large: private and anonymous, and not a stack that grows.
pub(super) fn takes_large(vma: Ref<Vma>) -> bool {
    let not = VmaFlags::SHARED | VmaFlags::SPECIAL | VmaFlags::GROWSDOWN | VmaFlags::NOHUGEPAGE;
    vma.object().is_none() && !vma.flags().intersects(not)
}
