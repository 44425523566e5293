//! munmap(2), and the removal of what is in the way of a new mapping.

use super::account::Totals;
use super::{AddressSpace, SpaceError, State};
use crate::paging::TlbGather;
use crate::slab::Ref;
use crate::vma::{Needs, Spares, Vma, VmaTree, retire};
use crate::{PageRange, Platform, TASK_SIZE, VmaFlags, is_page_aligned, page_align_up};

/// What becomes of the page tables of a range that is unmapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tables {
    /// They go where nothing else needs them.
    Free,
    /// They stay: something new is about to be mapped in the range, or near it,
    /// and has made sure of its tables already.
    Keep,
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
        let mut state = self.mmap.write();
        self.unmap(&mut state, range)
    }

    /// Prepares and commits the removal of `range`.
    pub(super) fn unmap(&self, state: &mut State, range: PageRange) -> Result<(), SpaceError> {
        self.check_unmap(state, range)?;
        let needs = Needs::edges(&state.vmas, range);
        let mut spares = Spares::reserve(self.mem, needs)?;
        self.unmap_commit(state, range, Tables::Free, &mut spares);
        Ok(())
    }

    /// Whether `range` may be unmapped.
    pub(super) fn check_unmap(&self, state: &State, range: PageRange) -> Result<(), SpaceError> {
        let mut splits_one = false;
        for vma in state.vmas.overlapping(range.start(), range.end()) {
            if vma.flags().contains(VmaFlags::SEALED) {
                return Err(SpaceError::NotPermitted);
            }
            splits_one = vma.start() < range.start() && range.end() < vma.end();
        }
        if splits_one && state.vmas.len() >= self.mem.sysctl().max_map_count() {
            return Err(SpaceError::TooManyVmas);
        }
        Ok(())
    }

    /// Removes everything in `range`, which [`check_unmap`](Self::check_unmap)
    /// has passed; `spares` have room for a split at each end.
    ///
    /// ```text
    ///           range.start              range.end
    ///               |                        |
    ///   [aaaaaaaaaaa|aaaa][bbbbbb]   [ccccccc|cccc]
    ///   [aaaaaaaaaaa]         gone           [cccc]
    /// ```
    pub(super) fn unmap_commit(&self, state: &mut State, range: PageRange, keep: Tables, spares: &mut Spares<'_>) {
        let State { vmas, totals, .. } = state;
        let mut gather = TlbGather::new(self.mem, &self.tables);
        let mut next = vmas.find(range.start());
        while let Some(mut vma) = next.filter(|vma| vma.start() < range.end()) {
            if vma.start() < range.start() {
                vma = vmas.split(self.mem, vma, range.start(), spares);
            }
            if vma.end() > range.end() {
                vmas.split(self.mem, vma, range.end(), spares);
            }
            next = vma.next();
            self.zap(vma.range(), &mut gather);
            self.forget(totals, vma.flags(), vma.pages());
            vmas.remove(vma);
            retire(self.mem, vma);
        }
        if keep == Tables::Free {
            self.free_tables_before(vmas, range, next, &mut gather);
        }
        gather.finish();
    }

    /// Frees the tables that only `range` needed, which has been unmapped with
    /// [`Tables::Keep`].
    pub(super) fn free_kept_tables(&self, state: &State, range: PageRange) {
        let mut gather = TlbGather::new(self.mem, &self.tables);
        let next = state.vmas.find(range.start());
        self.free_tables_before(&state.vmas, range, next, &mut gather);
        gather.finish();
    }

    /// Frees the tables that only `range` needed, where nothing is mapped any
    /// more; `next` is the VMA after it.
    fn free_tables_before(
        &self,
        vmas: &VmaTree,
        range: PageRange,
        next: Option<Ref<Vma>>,
        gather: &mut TlbGather<'_, P>,
    ) {
        let prev = next.map_or_else(|| vmas.last(), |next| next.prev());
        let floor = prev.map_or(0, |vma| vma.end());
        let ceiling = next.map_or(TASK_SIZE, |vma| vma.start());
        self.tables.free_tables(self.mem, range, floor, ceiling, gather);
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
