//! mprotect(2).

use super::account::Charge;
use super::clear_refs::may_be_writable;
use super::fault::{is_exclusive, page_protection};
use super::{AddressSpace, SpaceError, State};
use crate::paging::{Entry, EntryFlags, Slot, TlbGather};
use crate::slab::Ref;
use crate::vma::Vma;
use crate::{Event, PageRange, Platform, Prot, TASK_SIZE, VmaFlags, is_page_aligned, page_align_up};

impl<P: Platform> AddressSpace<'_, P> {
    /// Changes the protection of all pages of `len` bytes from `addr` to
    /// `prot` (`PROT_*`).
    ///
    /// # Errors
    ///
    /// As mprotect(2), in Linux's order: `Invalid` for an unaligned address,
    /// unknown bits, or `PROT_GROWSDOWN` where nothing grows down; `NotMapped`
    /// if the range wraps or has a hole; `AccessDenied` where the mapping may
    /// not have the protection; `NotPermitted` where it is sealed;
    /// `TooManyVmas`, `OverLimit`, `Overcommitted`, `OutOfMemory`. The mappings
    /// before the one that is refused have changed then, as on Linux; that one
    /// and those after it have not.
    pub fn mprotect(&self, addr: usize, len: usize, prot: usize) -> Result<(), SpaceError> {
        let both = Prot::GROWSDOWN | Prot::GROWSUP;
        let grows = Prot::from_bits_truncate(prot as u32) & both;
        let access = prot & !(both.bits() as usize);
        if grows == both || !is_page_aligned(addr) {
            return Err(SpaceError::Invalid);
        }
        if len == 0 {
            return Ok(());
        }
        let end = addr.wrapping_add(page_align_up(len));
        if end <= addr {
            return Err(SpaceError::NotMapped);
        }
        let allowed = Prot::READ | Prot::WRITE | Prot::EXEC | Prot::SEM;
        if access & !(allowed.bits() as usize) != 0 {
            return Err(SpaceError::Invalid);
        }
        let access = Prot::from_bits_truncate(access as u32).vma_flags();
        // What has been changed is as it should be the next time.
        self.mem.reclaiming(|| self.try_mprotect(addr, end, access, grows))
    }

    fn try_mprotect(&self, addr: usize, end: usize, access: VmaFlags, grows: Prot) -> Result<(), SpaceError> {
        let mut state = self.mmap.write();
        let mut next = state.vmas.find(addr);
        let Some(first) = next else {
            return Err(SpaceError::NotMapped);
        };
        let mut at = addr;
        if grows.contains(Prot::GROWSDOWN) {
            if first.start() >= end {
                return Err(SpaceError::NotMapped);
            }
            if !first.flags().contains(VmaFlags::GROWSDOWN) {
                return Err(SpaceError::Invalid);
            }
            at = first.start();
        } else if first.start() > addr {
            return Err(SpaceError::NotMapped);
        } else if grows.contains(Prot::GROWSUP) {
            return Err(SpaceError::Invalid);
        }
        while at < end {
            let vma = match next {
                Some(vma) if vma.start() <= at => vma,
                _ => return Err(SpaceError::NotMapped),
            };
            let stop = vma.end().min(end).min(TASK_SIZE);
            let range = PageRange::new(at, stop).ok_or(SpaceError::NotMapped)?;
            let vma = self.protect(&mut state, vma, range, access)?;
            // What was merged may reach beyond the range.
            at = stop;
            next = if vma.end() > stop { Some(vma) } else { vma.next() };
        }
        Ok(())
    }

    /// Gives the part `range` of `vma` the access permissions `access` (Linux's
    /// `mprotect_fixup`). Returns the VMA that the range is in afterwards.
    fn protect(
        &self,
        state: &mut State,
        vma: Ref<Vma>,
        range: PageRange,
        access: VmaFlags,
    ) -> Result<Ref<Vma>, SpaceError> {
        let old = vma.flags();
        let mut new = old.difference(VmaFlags::ACCESS) | access;
        let may = VmaFlags::from_bits_truncate((old & VmaFlags::MAY_ACCESS).bits() >> 4);
        if !may.contains(access) {
            return Err(SpaceError::AccessDenied);
        }
        if old.contains(VmaFlags::SEALED) {
            return Err(SpaceError::NotPermitted);
        }
        if new == old {
            return Ok(vma);
        }
        let pages = range.pages();
        let mut charge = Charge::new(self.mem, 0)?;
        let uncounted = VmaFlags::ACCOUNT | VmaFlags::WRITE | VmaFlags::SHARED | VmaFlags::NORESERVE;
        if new.contains(VmaFlags::WRITE) {
            let limits = self.limits.get();
            if state.totals.may_expand(limits, old, pages).is_ok() {
                state.totals.may_expand(limits, new, pages)?;
            }
            if !old.intersects(uncounted) {
                charge = Charge::new(self.mem, pages)?;
                new |= VmaFlags::ACCOUNT;
            }
        } else if vma.object().is_none() && vma.anon_vma().is_none() {
            // Nothing has been written yet, so nothing needs to be kept.
            new -= VmaFlags::ACCOUNT;
        }
        let vma = self.modify(state, vma, range, new)?;
        charge.keep();
        if old.contains(VmaFlags::ACCOUNT) && !new.contains(VmaFlags::ACCOUNT) {
            self.mem.uncharge_commit(pages);
        }
        state.totals.sub(old, pages);
        state.totals.add(new, pages);
        self.change_protection(range, new);
        if old & (VmaFlags::WRITE | VmaFlags::SHARED | VmaFlags::LOCKED) == VmaFlags::LOCKED
            && new.contains(VmaFlags::WRITE)
        {
            // Locked pages are to cause no faults, so they are copied now.
            let _ = self.populate_locked(vma, range);
        }
        Ok(vma)
    }

    /// Gives all pages of `range` the protection of a VMA with `flags`. Pages
    /// that may be written only once they are copied, or once that has been noticed, stay read-only.
    fn change_protection(&self, range: PageRange, flags: VmaFlags) {
        let protection = page_protection(flags);
        let access =
            EntryFlags::PRESENT | EntryFlags::PROT_NONE | EntryFlags::USER | EntryFlags::WRITE | EntryFlags::NO_EXEC;
        let writable = flags.contains(VmaFlags::WRITE);
        let shared = flags.contains(VmaFlags::SHARED);
        let frames = self.mem.frames();
        let change = move |slot: Slot<'_>| {
            let old = slot.get();
            if !old.maps_page() {
                protect_absent(&slot, old, access, protection);
                return false;
            }
            let mut wanted = protection;
            if writable && may_be_writable(flags, old) && (shared || is_exclusive(&frames, old)) {
                wanted |= EntryFlags::WRITE | EntryFlags::SOFT_DIRTY;
            }
            let old = slot.update(|entry| entry.without(access).with(wanted));
            needs_flush(old, wanted)
        };
        let mut gather = TlbGather::new(self.mem, &self.core.tables, Event::FlushProtect);
        self.core.tables.visit_runs(self.mem, range, |run| {
            let stale = run.slots().fold(false, |stale, (_, slot)| stale | change(slot));
            if stale {
                gather.changed_range(run.start(), run.end());
            }
        });
    }
}

/// Gives the entry of a page that is not there this protection, if that is up to the entry:
/// if the page is just being moved. It stays read-only, until a fault finds that it need not.
#[cold]
fn protect_absent(slot: &Slot<'_>, old: Entry, access: EntryFlags, protection: EntryFlags) {
    if old.migrating().is_some() {
        slot.set(old.resumed().without(access).with(protection).suspended());
    }
}

/// Whether a TLB may hold a translation that allows more than `new` does. What
/// only allows less than it could makes a spurious fault at worst.
fn needs_flush(old: Entry, new: EntryFlags) -> bool {
    old.is_present()
        && (!new.contains(EntryFlags::PRESENT)
            || (old.is_writable() && !new.contains(EntryFlags::WRITE))
            || (old.is_executable() && new.contains(EntryFlags::NO_EXEC)))
}
