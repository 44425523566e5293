//! Taking pages out of a range of one VMA: what munmap, `MADV_DONTNEED` and
//! the end of an address space have in common.

use super::AddressSpace;
use super::account::ResidentKind;
use crate::paging::TlbGather;
use crate::{PageRange, Platform};

impl<P: Platform> AddressSpace<'_, P> {
    /// Empties every entry of `range`. The frames go when `gather` is done.
    pub(super) fn zap(&self, range: PageRange, gather: &mut TlbGather<'_, P>) {
        let (mut anon, mut object) = (0, 0);
        self.tables.visit(self.mem, range, |addr, slot| {
            let entry = slot.take();
            gather.changed_range(addr, addr + slot.size());
            match self.release_mapping(entry, gather) {
                Some(ResidentKind::Anon) => anon += 1,
                Some(ResidentKind::Object) => object += 1,
                None => {}
            }
        });
        self.resident.sub(ResidentKind::Anon, anon);
        self.resident.sub(ResidentKind::Object, object);
    }
}
