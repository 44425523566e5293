//! Taking pages out of a range of one VMA: what munmap, `MADV_DONTNEED`, the end of an
//! address space, and the truncation of what is mapped have in common.

use super::account::ResidentKind;
use super::{AddressSpace, SpaceCore};
use crate::frame::Frames;
use crate::paging::{Entry, HUGE_ORDER, HUGE_PAGES, Run, TlbGather};
use crate::{Memory, PageRange, Pfn, Platform};

impl<P: Platform> AddressSpace<'_, P> {
    /// Empties every entry of `range`, which is a part of one VMA. The frames go when
    /// `gather` is done.
    pub(super) fn zap(&self, range: PageRange, gather: &mut TlbGather<'_, P>) {
        let (core, mem, frames) = (self.core, self.mem, self.mem.frames());
        core.tables.split_ends(mem, range);
        core.tables.visit_runs(mem, range, |run| match run.is_huge() {
            false => core.zap_run(mem, run, &frames, gather, |_| true),
            true => core.zap_huge(mem, run, &frames, gather),
        });
    }
}

impl SpaceCore {
    /// Empties those entries of a run which `goes` says of. Not inlined, for the sake of
    /// its loop, which needs all registers.
    #[inline(never)]
    pub(super) fn zap_run<P: Platform>(
        &self,
        mem: &Memory<P>,
        run: &Run<'_>,
        frames: &Frames<'_>,
        gather: &mut TlbGather<'_, P>,
        goes: impl Fn(Entry) -> bool,
    ) {
        let (mut all, mut anon) = (0, 0);
        let unmapped = run.slots().filter(|(_, slot)| goes(slot.get())).filter_map(|(_, slot)| {
            let entry = slot.take();
            let Some((pfn, kind)) = forget_mapping(frames, entry) else {
                if !entry.maps_page() {
                    self.forget_absent(mem, entry);
                }
                return None;
            };
            all += 1;
            anon += usize::from(kind == ResidentKind::Anon);
            Some(pfn)
        });
        gather.release_run(run.start(), run.end(), unmapped);
        self.resident.sub(ResidentKind::Anon, anon);
        self.resident.sub(ResidentKind::Object, all - anon);
    }

    #[cold]
    fn zap_huge<P: Platform>(
        &self,
        mem: &Memory<P>,
        run: &Run<'_>,
        frames: &Frames<'_>,
        gather: &mut TlbGather<'_, P>,
    ) {
        let leaf = self.tables.take_huge(mem, run);
        let records = frames.block(leaf.pfn(), HUGE_PAGES);
        let shared = records.iter().filter(|record| record.dec_mapcount() != 0).count();
        self.resident.sub(ResidentKind::Anon, records.len());
        // In one piece it is freed much faster.
        if shared == 0 && mem.join_singles(leaf.pfn(), HUGE_ORDER) {
            gather.changed_range(run.start(), run.end());
            gather.release(leaf.pfn());
        } else if shared == records.len() {
            // It would take up all the room that there is anyway.
            gather.changed_range(run.start(), run.end());
            gather.flush();
            mem.put_adjacent(leaf.pfn(), records.len());
        } else {
            gather.release_run(run.start(), run.end(), leaf.pfns());
        }
    }
}

/// The mapping that an entry was is gone. Returns the frame, a reference to which
/// is to be put once the TLBs have forgotten the mapping, and as what it counted.
#[inline(always)]
pub(super) fn forget_mapping(frames: &Frames, entry: Entry) -> Option<(Pfn, ResidentKind)> {
    if !entry.is_counted() {
        return None;
    }
    let pfn = entry.pfn();
    let record = frames.get(pfn);
    record.dec_mapcount();
    Some((pfn, ResidentKind::of(record)))
}
