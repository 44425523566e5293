//! Moving private pages to other frames, while programs use them.
//!
//! 1. A page's lock keeps out who would take it elsewhere. A reference keeps the frame.
//! 2. Each mapping is replaced by a migration entry, which names the frame. A fork may add
//!    a mapping meanwhile: then the page stays.
//! 3. The TLBs are flushed. Nobody can write to the page now.
//! 4. If nothing maps it and nobody else has a reference, it is copied.
//! 5. Each migration entry is replaced by a mapping of the new frame, or, if the page could
//!    not be copied, of the old one.
//!
//! # What always holds
//!
//! 1. A page with a migration entry is locked, by who moves it. He goes on until there is
//!    none ([`Frame::migrating`](crate::Frame)). So a fault on such an entry waits for the
//!    lock, with no page table locked, and starts over.
//! 2. A migration entry counts neither as a mapping of the frame nor as a reference, but its
//!    page as resident. It is otherwise what the mapping was: fork copies it, munmap
//!    discards it, mprotect changes it, mremap moves and relocates it. None of them waits.
//! 3. What the page's record says of where to find it is right at any time, and is copied to
//!    the new frame's with the lock of the root, under which relocation changes it.
//!
//! Fork may copy a migration entry while others are replaced. The walk of the fifth step finds
//! the copy: its VMA is chained before it gets its entries, and comes after the one that they
//! are copied from. But nothing is left to that order: walks are repeated until the frame counts
//! no migration entry.
//!
//! Pages that are in the swap cache, merged with others, or in use by others than their mappings stay
//! where they are.

mod compact;
#[cfg(test)]
mod tests;

pub(crate) use compact::Deferral;

use crate::frame::{Frame, copy_page};
use crate::paging::Entry;
use crate::reclaim::Withdrawals;
use crate::rmap::AnonVma;
use crate::sync::{SpinLockGuard, rank};
use crate::{Event, FrameKind, Memory, OutOfMemory, OwnedFrame, Pfn, Platform};

/// Pages that are moved together.
pub(crate) const BATCH: usize = 32;

/// A page after step 2, with a reference.
struct Moving<'m> {
    from: Pfn,
    to: OwnedFrame,
    lock: SpinLockGuard<'m, (), { rank::FOLIO }>,
}

/// Pages that are being moved. They have been, or stay, when this is dropped.
#[must_use]
pub(crate) struct Migrations<'m, P: Platform> {
    mem: &'m Memory<P>,
    /// The first `count` are there.
    pages: [Option<Moving<'m>>; BATCH],
    count: usize,
    withdrawals: Withdrawals<'m, P>,
    moved: usize,
}

impl<'m, P: Platform> Migrations<'m, P> {
    pub(crate) fn new(mem: &'m Memory<P>) -> Migrations<'m, P> {
        let withdrawals = Withdrawals::new(mem, Event::FlushMigrate);
        Migrations { mem, pages: [const { None }; BATCH], count: 0, withdrawals, moved: 0 }
    }

    /// Moves the page in frame `from` to the frame `to` sooner or later, if it is a private
    /// page that can be moved. Otherwise gives `to` back.
    pub(crate) fn add(&mut self, from: Pfn, to: OwnedFrame) -> Result<(), OwnedFrame> {
        let record = self.mem.frame(from);
        if !record.try_get() {
            return Err(to);
        }
        let Some(lock) = record.try_folio_lock().filter(|_| is_movable(record, 1)) else {
            self.mem.put(from);
            return Err(to);
        };
        self.withdrawals.replace_mappings(from, record, |entry| Some(entry.suspended()));
        self.pages[self.count] = Some(Moving { from, to, lock });
        self.count += 1;
        if self.count == BATCH {
            self.finish();
        }
        Ok(())
    }

    /// Does what is left to do. Returns how many pages have been moved since this was made.
    pub(crate) fn finish(&mut self) -> usize {
        self.withdrawals.flush();
        let count = core::mem::take(&mut self.count);
        for Moving { from, to, lock } in self.pages.iter_mut().take(count).filter_map(Option::take) {
            let moves = self.mem.move_contents(from, to.pfn());
            self.mem.resume_mappings(from, if moves { to.pfn() } else { from });
            drop(lock);
            self.mem.count(if moves { Event::Migrated } else { Event::MigrateFailed });
            self.moved += usize::from(moves);
            // The mappings have references of their own.
            self.mem.put(from);
            self.mem.put(to.into_raw());
        }
        self.moved
    }
}

impl<P: Platform> Drop for Migrations<'_, P> {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Whether a page, to which the caller has so many references, can be moved, as far as its
/// record tells. With the page's lock held it stays so, but for the references.
fn is_movable(record: &Frame, references: u32) -> bool {
    let mapped = record.mapcount();
    record.is_ordinary_anon() && !record.is_in_swap_cache() && mapped != 0 && record.refcount() == mapped + references
}

impl<P: Platform> Memory<P> {
    /// Moves the private pages in these frames to other frames, as far as they can be moved;
    /// returns how many it were. No lock may be held beyond a VMA's.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`]: there is no other frame. Those before have been moved.
    pub fn migrate(&self, pages: impl IntoIterator<Item = Pfn>) -> Result<usize, OutOfMemory> {
        let mut migrations = Migrations::new(self);
        for pfn in pages {
            let to = self.alloc(FrameKind::Anon, 0)?;
            if let Err(to) = migrations.add(pfn, to) {
                self.free(to);
            }
        }
        Ok(migrations.finish())
    }

    /// Step 4, for a page that no TLB has any more; says whether it was done. `to` is the
    /// caller's alone.
    fn move_contents(&self, from: Pfn, to: Pfn) -> bool {
        let (old, new) = (self.frame(from), self.frame(to));
        if old.migrating() == 0 || old.mapcount() != 0 || old.refcount() != 1 {
            return false;
        }
        // SAFETY: both are whole pages of the direct map, kept by references of the caller. To
        // the new one there is no other; to the old one there was none, nothing mapped it,
        // and no TLB does, so nobody writes to it. Who comes across the record only looks at that.
        unsafe { copy_page(self.page_ptr(from), self.page_ptr(to)) };
        new.set_lazy_free(old.is_lazy_free());
        true
    }

    /// Step 5.
    fn resume_mappings(&self, from: Pfn, to: Pfn) {
        let (old, new) = (self.frame(from), self.frame(to));
        while old.migrating() != 0 {
            AnonVma::walk_page(old, |vma, addr| {
                self.with_migration_entry(vma, addr, from, |slot| {
                    new.set_mapping(old.mapping());
                    new.set_index(old.index());
                    if !old.is_exclusive() {
                        new.set_shared();
                    }
                    new.inc_mapcount();
                    new.get();
                    let entry: Entry = slot.get().resumed().with_pfn(to);
                    slot.set(entry);
                    old.dec_migrating();
                });
                old.migrating() != 0
            });
        }
    }
}
