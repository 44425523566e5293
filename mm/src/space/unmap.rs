//! Taking pages that an object loses out of all address spaces.
//!
//! The walk comes after the object has given the pages up. A fault that has
//! found one before asks with its table locked whether the page is the object's still
//! ([`is_part_of`](crate::object::is_part_of)), so either it maps nothing, or the walk finds
//! what it has mapped. A munmap in the range waits until the walk has flushed and is over, since it
//! has to take its VMA out of what is walked. An mprotect may find entries empty whose flush it
//! has to make up for ([`PageTables::flush_stale`]).
//!
//! [`PageTables::flush_stale`]: crate::paging::PageTables::flush_stale

use core::ops::Range;

use super::SpaceCore;
use crate::object::Object;
use crate::paging::TlbGather;
use crate::slab::Ref;
use crate::sync::point;
use crate::vma::Vma;
use crate::{Event, FrameKind, Memory, PageRange, Platform};

/// What of private mappings goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Copies {
    /// Private pages, too, that were copied from the object's or are to hide them.
    Go,
    /// They stay.
    Stay,
}

impl<P: Platform> Memory<P> {
    /// Takes what is mapped of the pages `indices` of `object`, which it has no more, out of
    /// all page tables. No TLB has it afterwards.
    pub(crate) fn unmap_object(&self, object: Ref<Object>, indices: Range<usize>, copies: Copies) {
        let Some(last) = indices.end.checked_sub(1).filter(|last| indices.start <= *last) else { return };
        // Who has not seen yet that the pages have gone maps them where this looks.
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
        object.for_each_mapping(indices.start, last, |vma| {
            if let Some(range) = addresses(vma, indices.start, last) {
                self.unmap_from(&SpaceCore::of(&vma), range, copies);
            }
        });
    }

    fn unmap_from(&self, core: &SpaceCore, range: PageRange, copies: Copies) {
        let frames = self.frames();
        let is_object = |pfn| frames.get(pfn).kind() == FrameKind::Object;
        let mut gather = TlbGather::new(self, &core.tables, Event::FlushUnmap);
        core.tables.visit_runs(self, range, |run| {
            core.zap_run(self, run, &frames, &mut gather, |entry| {
                copies == Copies::Go || entry.counted_pfn().is_some_and(is_object)
            });
            // Before the table's lock goes: whoever takes it next is to know.
            core.tables.mark_stale();
        });
        point();
    }
}

/// Where `vma` has the pages `first..=last`, as far as it has them.
fn addresses(vma: Ref<Vma>, first: usize, last: usize) -> Option<PageRange> {
    let own_last = vma.pgoff() + (vma.pages() - 1);
    let start = vma.address_of(first.max(vma.pgoff()))?;
    let end = vma.address_of(last.min(own_last))? + crate::PAGE_SIZE;
    PageRange::new(start, end)
}
