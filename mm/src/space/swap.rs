//! Pages that an address space has and that are not there, in swap or just being moved:
//! getting them back, and letting go of them.

use super::account::ResidentKind;
use super::clear_refs::may_be_writable;
use super::fault::{FaultAccess, Outcome, WRITTEN, page_protection};
use super::{AddressSpace, SpaceCore};
use crate::FaultError;
use crate::paging::{Entry, EntryFlags};
use crate::rmap::AnonVma;
use crate::slab::Ref;
use crate::vma::Vma;
use crate::{Memory, Platform, VmaFlags};

impl<P: Platform> AddressSpace<'_, P> {
    /// A fault where `seen` names a swap slot: maps the page that is in it. Where the page is
    /// just being moved: waits until it has been. What it needs to have locked is what
    /// [`fault_in`](Self::fault_in) does.
    ///
    /// If no other entry names the slot, the page is this one's alone from now on, and
    /// the slot is free. Otherwise it stays in the cache and is mapped read-only; a write
    /// then makes a copy.
    #[cold]
    pub(super) fn swap_in(
        &self,
        vma: Ref<Vma>,
        page: usize,
        seen: Entry,
        access: FaultAccess,
    ) -> Result<Outcome, FaultError> {
        let Some(slot) = seen.swap_slot() else {
            self.wait_for_migration(seen);
            return Ok(Outcome::Again);
        };
        let Some(pfn) = self.mem.swap_page(slot)? else { return Ok(Outcome::Again) };
        let record = self.mem.frame(pfn);
        // Reclaim is done with it, and others who bring it back have counted themselves.
        let folio = record.folio_lock();
        let pte = self.core.tables.lock_pte(self.mem, page);
        // The slot may have got another page, even this one again: then it is the right one.
        let Some(pte) = pte.filter(|pte| pte.get() == seen && record.swap_slot() == slot) else {
            drop(folio);
            self.mem.put(pfn);
            return Ok(Outcome::Again);
        };
        let unmapped = record.mapcount() == 0;
        let alone = unmapped && self.mem.swap().uses(slot) == 1;
        if unmapped {
            // Who else names the slot came by it through fork: the root is in all their chains.
            let own = vma.anon_vma();
            let anon_vma = if alone { own } else { own.map(AnonVma::root) };
            record.set_mapping(anon_vma.map_or(0, AnonVma::to_mapping));
            record.set_index(vma.index_of(page));
        }
        if alone {
            record.set_exclusive();
        } else {
            record.set_shared();
        }
        // Who said so did it while this one had the page as well; or before it was last written to.
        record.set_lazy_free(false);
        let flags = vma.flags();
        let mut written = if alone && flags.contains(VmaFlags::WRITE) { WRITTEN } else { EntryFlags::ACCESSED };
        if !access.write && !may_be_writable(flags, seen) {
            written -= EntryFlags::WRITE | EntryFlags::SOFT_DIRTY;
        }
        record.inc_mapcount();
        // The reference that `swap_page` took is the entry's from now on.
        pte.set(Entry::leaf(pfn, page_protection(flags) | written).with_soft_dirty_of(seen));
        self.count_resident(ResidentKind::Anon, 1);
        self.core.resident.sub(ResidentKind::Swapped, 1);
        self.mem.swap_put(slot);
        let writable = written.contains(EntryFlags::WRITE);
        Ok(if access.write && !writable { Outcome::Again } else { Outcome::Done })
    }

    /// Returns when the page of a migration entry is where it was to be moved to, or it has
    /// been found out that it has to stay.
    fn wait_for_migration(&self, entry: Entry) {
        if let Some(pfn) = entry.migrating() {
            // Who moves a page has it locked all the time. Without a reference it may have
            // gone before, and the lock be that of the frame's next page: no harm is done.
            drop(self.mem.frame(pfn).folio_lock());
        }
    }

    /// Whether the page that an entry names is in memory: mapped, or on its way in or out.
    pub(super) fn is_in_memory(&self, entry: Entry) -> bool {
        entry.settled().maps_page() || entry.swap_slot().is_some_and(|slot| self.mem.swap().is_cached(slot))
    }
}

impl SpaceCore {
    /// What an entry stood for that maps no page is not needed any more by it.
    #[cold]
    pub(super) fn forget_absent<P: Platform>(&self, mem: &Memory<P>, entry: Entry) {
        if let Some(slot) = entry.swap_slot() {
            self.resident.sub(ResidentKind::Swapped, 1);
            mem.swap_put(slot);
        } else if let Some(pfn) = entry.migrating() {
            self.resident.sub(ResidentKind::Anon, 1);
            mem.frame(pfn).dec_migrating();
        }
    }
}
