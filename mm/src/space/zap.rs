//! Taking pages out of a range of one VMA: what munmap, `MADV_DONTNEED` and
//! the end of an address space have in common.

use super::AddressSpace;
use super::account::ResidentKind;
use crate::frame::Frames;
use crate::paging::{Entry, HUGE_ORDER, HUGE_PAGES, Run, TlbGather};
use crate::{PageRange, Pfn, Platform};

impl<P: Platform> AddressSpace<'_, P> {
    /// Empties every entry of `range`, which is a part of one VMA. The frames go when
    /// `gather` is done.
    pub(super) fn zap(&self, range: PageRange, gather: &mut TlbGather<'_, P>) {
        self.core.tables.split_ends(self.mem, range);
        let frames = self.mem.frames();
        self.core.tables.visit_runs(self.mem, range, |run| match run.is_huge() {
            false => self.zap_run(run, &frames, gather),
            true => self.zap_huge(run, &frames, gather),
        });
    }

    /// Not inlined, for the sake of its loop, which needs all registers.
    #[inline(never)]
    fn zap_run(&self, run: &Run<'_>, frames: &Frames<'_>, gather: &mut TlbGather<'_, P>) {
        let (mut all, mut anon) = (0, 0);
        let unmapped = run.slots().filter_map(|(_, slot)| {
            let entry = slot.take();
            let Some((pfn, kind)) = forget_mapping(frames, entry) else {
                if !entry.maps_page() {
                    self.forget_absent(entry);
                }
                return None;
            };
            all += 1;
            anon += usize::from(kind == ResidentKind::Anon);
            Some(pfn)
        });
        gather.release_run(run.start(), run.end(), unmapped);
        self.core.resident.sub(ResidentKind::Anon, anon);
        self.core.resident.sub(ResidentKind::Object, all - anon);
    }

    #[cold]
    fn zap_huge(&self, run: &Run<'_>, frames: &Frames<'_>, gather: &mut TlbGather<'_, P>) {
        let leaf = self.core.tables.take_huge(self.mem, run);
        let records = frames.block(leaf.pfn(), HUGE_PAGES);
        let shared = records.iter().filter(|record| record.dec_mapcount() != 0).count();
        self.core.resident.sub(ResidentKind::Anon, records.len());
        // In one piece it is freed much faster.
        if shared == 0 && self.mem.join_singles(leaf.pfn(), HUGE_ORDER) {
            gather.changed_range(run.start(), run.end());
            gather.release(leaf.pfn());
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
