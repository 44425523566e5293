//! Taking a page out of all page tables that map it, and putting something in its place:
//! what becomes of pages that are evicted, and of those that are moved.
//!
//! Entries are changed table by table. The TLBs are flushed once, for many pages, as that
//! takes all CPUs. Until then others must not take an entry that maps nothing for one that no TLB has: who
//! unmaps, protects or moves anything in the address space meanwhile
//! [flushes](crate::paging::PageTables::flush_stale) before he is done. A fault on such a
//! page waits for its lock. Where nothing is put in the entry's place it would not: there
//! the flush comes first.

use crate::frame::Frame;
use crate::paging::{Entry, Slot};
use crate::rmap::AnonVma;
use crate::slab::Ref;
use crate::space::{ResidentKind, SpaceCore};
use crate::vma::Vma;
use crate::{Event, Memory, PAGE_SIZE, Pfn, Platform};

/// Address spaces that are flushed together.
const SPACES: usize = 8;

/// Withdraws mappings, and remembers what to flush for it.
pub(crate) struct Withdrawals<'m, P: Platform> {
    mem: &'m Memory<P>,
    /// As what a flush counts.
    reason: Event,
    /// Where pages were mapped that have not been flushed yet.
    spaces: [Option<Ref<SpaceCore>>; SPACES],
}

impl<'m, P: Platform> Withdrawals<'m, P> {
    pub(crate) fn new(mem: &'m Memory<P>, reason: Event) -> Withdrawals<'m, P> {
        Withdrawals { mem, reason, spaces: [None; SPACES] }
    }

    /// Replaces all mappings of the private page in frame `pfn` by what `instead` says, given
    /// the entry: the name of a swap slot, a migration entry, or nothing; `None` if it stays.
    /// A huge page that it is a part of is split. The page is locked, and the caller has a reference. A fork may add a mapping meanwhile.
    pub(crate) fn replace_mappings(&mut self, pfn: Pfn, record: &Frame, instead: impl Fn(Entry) -> Option<Entry>) {
        let mem = self.mem;
        AnonVma::walk_page(record, |vma, addr| {
            SpaceCore::of(&vma).tables.split_leaf(mem, addr);
            mem.with_mapping(vma, addr, pfn, |slot, core| {
                // Since it was looked at: nobody pins it any more without that entry.
                if record.pins() != 0 {
                    return;
                }
                // At once: who looks without the lock never finds nothing there, unless
                // that is so.
                let Some(new) = replace(slot, &instead) else { return };
                self.settle(record, addr, new, core);
                record.dec_mapcount();
                let last = record.release();
                debug_assert!(!last, "withdrawn without a reference");
            });
            record.mapcount() != 0
        });
    }

    /// Does the books of an entry that mapped the page at `addr` and is `new` now, and sees
    /// to the TLBs, before the table's lock goes: whoever takes it next is to know.
    fn settle(&mut self, record: &Frame, addr: usize, new: Entry, core: Ref<SpaceCore>) {
        if new.migrating().is_some() {
            // It is resident all the same.
            record.inc_migrating();
            core.tables.mark_stale();
            return self.remember(core);
        }
        match new.swap_slot() {
            Some(number) => {
                self.mem.swap().get(number);
                core.resident.add(self.mem.platform().current_cpu(), ResidentKind::Swapped, 1);
                core.tables.mark_stale();
                self.remember(core);
            }
            // A fault would wait for nothing, and put another page there.
            None => core.tables.flush(self.mem, addr, addr + PAGE_SIZE, self.reason),
        }
        core.resident.sub(ResidentKind::Anon, 1);
    }

    /// That address space is to be flushed.
    fn remember(&mut self, core: Ref<SpaceCore>) {
        if self.spaces.contains(&Some(core)) {
            return;
        }
        if self.spaces.iter().all(Option::is_some) {
            self.flush();
        }
        if let Some(place) = self.spaces.iter_mut().find(|place| place.is_none()) {
            *place = Some(core);
        }
    }

    /// From here on no TLB knows what has been withdrawn.
    pub(crate) fn flush(&mut self) {
        for core in self.spaces.iter_mut().filter_map(Option::take) {
            core.tables.flush_stale(self.mem, self.reason);
        }
    }
}

/// Replaces an entry by what `instead` says of it, unless it is to stay; returns that.
fn replace(slot: &Slot<'_>, instead: impl Fn(Entry) -> Option<Entry>) -> Option<Entry> {
    let mut old = slot.get();
    loop {
        let new = instead(old)?;
        // The hardware may set a bit meanwhile.
        match slot.replace_if(old, new) {
            Ok(()) => return Some(new),
            Err(now) => old = now,
        }
    }
}

impl<P: Platform> Memory<P> {
    /// Calls `f` with the entry by which `vma` maps the page in frame `pfn` at `addr`, if it
    /// does; locked, as is the anon_vma.
    pub(crate) fn with_mapping(&self, vma: Ref<Vma>, addr: usize, pfn: Pfn, f: impl FnOnce(&Slot<'_>, Ref<SpaceCore>)) {
        let core = SpaceCore::of(&vma);
        if let Some(slot) = core.tables.lock_pte(self, addr)
            && slot.get().is_counted()
            && slot.get().pfn_for(addr) == pfn
        {
            f(&slot, core);
        }
    }

    /// The same for the migration entry by which `vma` did map the page there.
    pub(crate) fn with_migration_entry(&self, vma: Ref<Vma>, addr: usize, pfn: Pfn, f: impl FnOnce(&Slot<'_>)) {
        if let Some(slot) = SpaceCore::of(&vma).tables.lock_pte(self, addr)
            && slot.get().migrating() == Some(pfn)
        {
            f(&slot);
        }
    }
}
