//! Taking private pages out of memory.
//!
//! 1. A page's lock keeps out who would bring it back. A reference keeps the frame.
//! 2. All its mappings are found and looked at. A page that is locked, in use by
//!    others than its mappings, or was used lately, stays.
//! 3. It gets a slot in swap and is in the cache from then on.
//! 4. Each mapping is replaced by the name of the slot. A fork may add a mapping
//!    meanwhile: then the page stays in the cache.
//! 5. The TLBs are flushed. Nobody can write to the page now, so it is stored.
//! 6. If nobody has come for it until then, it goes. Who comes later loads it.
//!
//! Whatever goes wrong after 3, nothing has to be undone: a page in the cache is as good
//! as a mapped one.
//!
//! Steps 4 and 5 are those of [`Withdrawals`]: the fifth is done for many pages at once.

use super::Withdrawals;
use crate::frame::Frame;
use crate::paging::{Entry, EntryFlags};
use crate::rmap::AnonVma;
use crate::swap::{PageBytes, SwapError};
use crate::sync::{SpinLockGuard, rank};
use crate::{Event, Memory, Pfn, Platform, VmaFlags};

/// How much a page has to be in the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Urgency {
    /// If it was used it stays, and has not been used from now on.
    Spare,
    /// It goes if it can.
    Evict,
}

/// Pages that are evicted together.
pub(super) const BATCH: usize = 32;

/// What a page's mappings say about it.
#[derive(Default)]
struct Use {
    /// It was used through one of them since it was last asked.
    accessed: bool,
    /// It was written to through one of them, or its contents matter anyway.
    dirty: bool,
    /// One of them is locked.
    locked: bool,
    /// All of them are of memory that may be dropped.
    droppable: bool,
}

/// A page after step 4, with a reference.
struct Unmapped<'m> {
    pfn: Pfn,
    /// The slot that it has; `None` if its contents do not matter.
    slot: Option<u32>,
    lock: SpinLockGuard<'m, (), { rank::FOLIO }>,
}

/// Pages on their way out. Those that can go have gone when this is dropped.
#[must_use]
pub(crate) struct Evictions<'m, P: Platform> {
    mem: &'m Memory<P>,
    /// The first `count` are there.
    pages: [Option<Unmapped<'m>>; BATCH],
    count: usize,
    withdrawals: Withdrawals<'m, P>,
    freed: usize,
}

impl<'m, P: Platform> Evictions<'m, P> {
    pub(crate) fn new(mem: &'m Memory<P>) -> Evictions<'m, P> {
        let withdrawals = Withdrawals::new(mem, Event::FlushReclaim);
        Evictions { mem, pages: [const { None }; BATCH], count: 0, withdrawals, freed: 0 }
    }

    /// Evicts the page in frame `pfn` sooner or later, if it is a private page that
    /// can be.
    ///
    /// # Errors
    ///
    /// [`SwapError::Full`]: there is room for no page.
    pub(crate) fn add(&mut self, pfn: Pfn, urgency: Urgency) -> Result<(), SwapError> {
        let mem = self.mem;
        let record = mem.frame(pfn);
        if !record.try_get() {
            return Ok(());
        }
        let fate = match record.try_folio_lock() {
            Some(lock) if record.is_ordinary_anon() => {
                self.unmap(pfn, record, urgency).map(|fate| fate.map(|slot| Unmapped { pfn, slot, lock }))
            }
            _ => Ok(None),
        };
        match fate {
            Ok(Some(page)) => {
                self.pages[self.count] = Some(page);
                self.count += 1;
                if self.count == BATCH {
                    self.finish();
                }
                Ok(())
            }
            other => {
                mem.put(pfn);
                other.map(|_| ())
            }
        }
    }

    /// Frames that are free now, with those that the next `count` pages may make free.
    pub(crate) fn hoped_for(&self) -> usize {
        self.freed + self.count
    }

    /// Does what is left to do. Returns how many frames have become free since this
    /// was made.
    pub(crate) fn finish(&mut self) -> usize {
        self.withdrawals.flush();
        let count = core::mem::take(&mut self.count);
        for page in self.pages.iter_mut().take(count).filter_map(Option::take) {
            let gone = match page.slot {
                None => self.mem.frame(page.pfn).mapcount() == 0,
                Some(slot) => {
                    let stored = self.mem.store(page.pfn, slot);
                    self.mem.swap_put(slot);
                    stored
                }
            };
            drop(page.lock);
            self.mem.put(page.pfn);
            self.freed += usize::from(gone);
        }
        self.freed
    }

    /// Steps 2 to 4, for a page that is locked, with a reference. The slot it has got, or
    /// none if it needs none; `None` if it stays.
    fn unmap(&mut self, pfn: Pfn, record: &Frame, urgency: Urgency) -> Result<Option<Option<u32>>, SwapError> {
        let mem = self.mem;
        let cached = record.swap_slot();
        let mapped = record.mapcount();
        if mapped == 0 && cached == 0 || record.refcount() != mapped + 1 + u32::from(cached != 0) {
            return Ok(None);
        }
        if mapped != 0 {
            let Some(usage) = mem.look_at_mappings(pfn, record) else { return Ok(None) };
            if usage.locked || usage.accessed && urgency == Urgency::Spare {
                return Ok(None);
            }
            if (usage.droppable || record.is_lazy_free() && !usage.dirty) && cached == 0 {
                self.drop_mappings(pfn, record, usage.droppable);
                return Ok(Some(None));
            }
            // It has been written to again.
            record.set_lazy_free(false);
        }
        let slot = if cached != 0 {
            mem.swap().get(cached);
            cached
        } else {
            mem.swap().alloc(mem, pfn).ok_or(SwapError::Full)?
        };
        self.withdrawals.replace_mappings(pfn, record, |entry| Some(Entry::swap(slot).with_soft_dirty_of(entry)));
        Ok(Some(Some(slot)))
    }

    /// Takes a page whose contents do not matter, unless it has been written to since it
    /// was looked at and is not `droppable` whatever is in it, out of all page tables.
    fn drop_mappings(&mut self, pfn: Pfn, record: &Frame, droppable: bool) {
        self.withdrawals.replace_mappings(pfn, record, |entry| {
            let stays = entry.flags().contains(EntryFlags::DIRTY) && !droppable;
            (!stays).then_some(Entry::EMPTY)
        });
        if record.mapcount() == 0 {
            self.mem.count(Event::LazyFree);
        }
    }
}

impl<P: Platform> Drop for Evictions<'_, P> {
    fn drop(&mut self) {
        self.finish();
    }
}

impl<P: Platform> Memory<P> {
    /// Steps 5 and 6, for a page in the cache that no TLB has any more. Says whether it
    /// is only in swap now.
    fn store(&self, pfn: Pfn, slot: u32) -> bool {
        let record = self.frame(pfn);
        if record.mapcount() != 0 || record.refcount() != 2 {
            return false;
        }
        if !self.swap().is_stored(slot) {
            let Some(device) = self.platform().swap_device() else { return false };
            // SAFETY: the page is in the direct map and kept by a reference. Nothing
            // writes to it: it was mapped nowhere when there was no reference but the
            // cache's and ours, all TLBs have been flushed, and who finds it in the
            // cache waits for its lock, which is held.
            let bytes = unsafe { &*self.page_ptr(pfn).cast::<PageBytes>() };
            if device.store(slot, bytes).is_err() {
                return false;
            }
            self.swap().set_stored(slot);
            self.count(Event::SwapOut);
        }
        self.swap().uncache(self, slot, pfn)
    }

    /// Asks all mappings of a page, and clears what says that it was used. `None` if it is
    /// mapped no more.
    fn look_at_mappings(&self, pfn: Pfn, record: &Frame) -> Option<Use> {
        let mut usage = Use { droppable: true, ..Use::default() };
        let mut mapped = false;
        AnonVma::walk_page(record, |vma, addr| {
            usage.locked |= vma.flags().contains(VmaFlags::LOCKED);
            usage.droppable &= vma.flags().contains(VmaFlags::DROPPABLE);
            self.with_mapping(vma, addr, pfn, |slot, _| {
                mapped = true;
                let entry = slot.get();
                if entry.is_huge() && entry.pfn() != pfn {
                    // Of a huge page only the first part is asked, for all of it.
                    usage.accessed = true;
                    usage.dirty |= entry.flags().contains(EntryFlags::DIRTY);
                    return;
                }
                // The TLB may keep on not telling of uses: as on Linux, that is no reason
                // to flush it.
                let old = slot.update(|entry| entry.without(EntryFlags::ACCESSED));
                usage.accessed |= old.flags().contains(EntryFlags::ACCESSED);
                usage.dirty |= old.flags().contains(EntryFlags::DIRTY);
            });
            !usage.locked
        });
        mapped.then_some(usage)
    }
}
