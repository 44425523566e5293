//! munmap(2), and the removal of what is in the way of a new mapping.
//!
//! As on Linux, munmap keeps others away from the map only until the VMAs have left it:
//! taking out their pages, and waiting for other CPUs to flush them, goes on with the
//! lock in read mode (`AddressSpace::remove_whole`).

use super::account::Totals;
use super::lock::MmapWriteGuard;
use super::{AddressSpace, SpaceError, State};
use crate::paging::TlbGather;
use crate::slab::Ref;
use crate::vma::{Needs, Spares, Vma, VmaTree, retire};
use crate::{Event, PageRange, Platform, TASK_SIZE, VmaFlags, is_page_aligned, page_align_up};

/// What becomes of the page tables of a range that is unmapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tables {
    /// They go where nothing else needs them.
    Free,
    /// They stay: something new is about to be mapped in the range, or near it,
    /// and has made sure of its tables already.
    Keep,
}

/// What has been found out about a range that is to be unmapped. Good until the
/// VMAs change.
pub(super) struct Removal {
    /// The first VMA that ends after the start of the range.
    pub first: Option<Ref<Vma>>,
    /// The last one that is in the range, at least in part.
    pub last: Option<Ref<Vma>>,
    /// The first one after the range.
    pub next: Option<Ref<Vma>>,
    /// Pages in the range that are mapped.
    pub pages: usize,
    /// Those of them that are charged for.
    pub charged: usize,
    pub needs: Needs,
}

impl Removal {
    /// Whether there is something in the range, and no VMA has only a part there.
    #[inline]
    fn takes_whole_vmas(&self, range: PageRange) -> bool {
        self.first.is_some_and(|first| first.start() >= range.start())
            && self.last.is_some_and(|last| last.end() <= range.end())
    }
}

impl<P: Platform> AddressSpace<'_, P> {
    /// Unmaps `len` bytes (rounded up to pages) from `addr`. That nothing is
    /// mapped in some or all of the range is no error.
    ///
    /// # Errors
    ///
    /// As munmap(2): `Invalid` for an unaligned address, no length, or a range
    /// not in user space; `TooManyVmas` where a hole in the middle of a
    /// mapping would be one mapping too many; `NotPermitted` if part of the
    /// range is sealed; `OutOfMemory`. Nothing has changed then.
    pub fn munmap(&self, addr: usize, len: usize) -> Result<(), SpaceError> {
        let range = checked_range(addr, len)?;
        self.mem.reclaiming(|| self.try_munmap(range))
    }

    fn try_munmap(&self, range: PageRange) -> Result<(), SpaceError> {
        let mut state = self.mmap.write();
        let removal = self.plan_unmap(&state, range)?;
        if self.core.tables.is_shared() && removal.takes_whole_vmas(range) {
            self.remove_whole(state, range, removal.first);
            return Ok(());
        }
        let mut spares = Spares::reserve(self.mem, removal.needs)?;
        self.remove(&mut state, range, removal.first, Tables::Free, &mut spares);
        Ok(())
    }

    /// Prepares and commits the removal of `range`.
    pub(super) fn unmap(&self, state: &mut State, range: PageRange) -> Result<(), SpaceError> {
        let removal = self.plan_unmap(state, range)?;
        let mut spares = Spares::reserve(self.mem, removal.needs)?;
        self.remove(state, range, removal.first, Tables::Free, &mut spares);
        Ok(())
    }

    /// Finds out whether `range` may be unmapped, and what that takes.
    #[inline]
    pub(super) fn plan_unmap(&self, state: &State, range: PageRange) -> Result<Removal, SpaceError> {
        let first = state.vmas.find(range.start());
        let mut removal = Removal { first, last: None, next: first, pages: 0, charged: 0, needs: Needs::NONE };
        while let Some(vma) = removal.next.filter(|vma| vma.start() < range.end()) {
            let flags = vma.flags();
            if flags.contains(VmaFlags::SEALED) {
                return Err(SpaceError::NotPermitted);
            }
            removal.needs = removal.needs + Needs::hole(vma, range);
            let pages = vma.range().intersect(range).pages();
            removal.pages += pages;
            removal.charged += if flags.contains(VmaFlags::ACCOUNT) { pages } else { 0 };
            removal.last = Some(vma);
            removal.next = vma.next();
        }
        if removal.needs.vmas() != 0 && state.vmas.len() >= self.mem.sysctl().max_map_count() {
            return Err(SpaceError::TooManyVmas);
        }
        Ok(removal)
    }

    /// [`remove`](Self::remove) for a range of which it is known that nothing in it
    /// is sealed. `spares` have room for a split.
    pub(super) fn unmap_commit(&self, state: &mut State, range: PageRange, keep: Tables, spares: &mut Spares<'_>) {
        let first = state.vmas.find(range.start());
        self.remove(state, range, first, keep, spares);
    }

    /// Removes everything in `range`, from `first` on, as
    /// [`plan_unmap`](Self::plan_unmap) has found it. What is cut keeps its VMA;
    /// only a hole in the middle makes another one.
    ///
    /// ```text
    ///           range.start              range.end
    ///               |                        |
    ///   [aaaaaaaaaaa|aaaa][bbbbbb]   [ccccccc|cccc]
    ///   [aaaaaaaaaaa]         gone           [cccc]
    /// ```
    fn remove(
        &self,
        state: &mut State,
        range: PageRange,
        first: Option<Ref<Vma>>,
        keep: Tables,
        spares: &mut Spares<'_>,
    ) {
        let State { vmas, totals, .. } = state;
        let mut gather = TlbGather::new(self.mem, &self.core.tables, Event::FlushUnmap);
        let mut next = first;
        while let Some(vma) = next.filter(|vma| vma.start() < range.end()) {
            // Before its pages go, and then its tables: see `free_tables_before`.
            vmas.lock_vma(vma);
            let (cut_start, cut_end) = (vma.start() < range.start(), range.end() < vma.end());
            next = match (cut_start, cut_end) {
                (_, false) => vma.next(),
                (false, true) => Some(vma),
                (true, true) => Some(vmas.split(self.mem, vma, range.end(), spares)),
            };
            let part = vma.range().intersect(range);
            self.zap(part, &mut gather);
            self.forget(totals, vma.flags(), part.pages());
            if cut_start {
                vmas.cut(vma, vma.start(), part.start());
            } else if cut_end {
                vmas.cut(vma, part.end(), vma.end());
            } else {
                vmas.remove(vma);
                retire(self.mem, vma);
            }
        }
        if keep == Tables::Free {
            self.free_tables_before(vmas, range, next, &mut gather);
        }
    }

    /// [`remove`](Self::remove) where no VMA is cut, for an address space that other
    /// CPUs use too. They wait only for the VMAs to leave the tree. What is done then
    /// needs no more than that nothing is mapped in the range meanwhile:
    ///
    /// - the VMAs are nobody's but this function's, though reverse walks find them until
    ///   they are retired. That is before their tables go;
    /// - the neighbours do not change, so neither does what tables they need;
    /// - whoever else has the lock in read mode looks for pages of VMAs that are in the
    ///   tree, and so comes to no table that goes.
    fn remove_whole(&self, mut state: MmapWriteGuard<'_>, range: PageRange, first: Option<Ref<Vma>>) {
        let State { vmas, totals, .. } = &mut *state;
        let mut next = first;
        while let Some(vma) = next.filter(|vma| vma.start() < range.end()) {
            next = vma.next();
            self.forget(totals, vma.flags(), vma.pages());
            vmas.remove(vma);
        }
        let state = state.downgrade();
        let mut gather = TlbGather::new(self.mem, &self.core.tables, Event::FlushUnmap);
        let mut at = first;
        while let Some(vma) = at.filter(|vma| vma.start() < range.end()) {
            // What has left the tree still knows what came after it.
            at = vma.next();
            self.zap(vma.range(), &mut gather);
            retire(self.mem, vma);
        }
        self.free_tables_before(&state.vmas, range, next, &mut gather);
        // No longer than until the TLBs have forgotten the pages, so that whoever maps
        // something there finds nothing of them. Freeing them can wait.
        gather.invalidate();
        drop(state);
    }

    /// Frees the tables that only `range` needed, which has been unmapped with
    /// [`Tables::Keep`].
    pub(super) fn free_kept_tables(&self, state: &State, range: PageRange) {
        let mut gather = TlbGather::new(self.mem, &self.core.tables, Event::FlushUnmap);
        let next = state.vmas.find(range.start());
        self.free_tables_before(&state.vmas, range, next, &mut gather);
    }

    /// Frees the tables that only `range` needed, where nothing is mapped any
    /// more; `next` is the VMA after it.
    ///
    /// No fault is in there: the VMAs that were in the range have been locked, and
    /// what others have is outside `floor..ceiling`, as are the tables that map it.
    fn free_tables_before(
        &self,
        vmas: &VmaTree,
        range: PageRange,
        next: Option<Ref<Vma>>,
        gather: &mut TlbGather<'_, P>,
    ) {
        let floor = vmas.before(next).map_or(0, |vma| vma.end());
        let ceiling = next.map_or(TASK_SIZE, |vma| vma.start());
        self.core.tables.free_tables(self.mem, range, floor, ceiling, gather);
    }

    /// Takes `pages` of a VMA with `flags` off the books.
    pub(super) fn forget(&self, totals: &mut Totals, flags: VmaFlags, pages: usize) {
        totals.sub(flags, pages);
        totals.unlock(flags, pages);
        if flags.contains(VmaFlags::ACCOUNT) {
            self.mem.uncharge_commit(pages);
        }
    }
}

/// The range of a system call's address and length, as munmap(2) checks it.
pub(super) fn checked_range(addr: usize, len: usize) -> Result<PageRange, SpaceError> {
    if !is_page_aligned(addr) || addr > TASK_SIZE || len > TASK_SIZE - addr {
        return Err(SpaceError::Invalid);
    }
    match PageRange::from_len(addr, page_align_up(len)) {
        Some(range) if !range.is_empty() => Ok(range),
        _ => Err(SpaceError::Invalid),
    }
}
