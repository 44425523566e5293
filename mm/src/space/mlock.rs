//! mlock(2) and its relatives, mincore(2), msync(2).

use super::{AddressSpace, FaultError, SpaceError, State};
use crate::slab::Ref;
use crate::vma::Vma;
use crate::{PAGE_SIZE, PageRange, Platform, TASK_SIZE, VmaFlags, is_page_aligned, page_align_down, page_align_up};

/// `MLOCK_ONFAULT`.
const MLOCK_ONFAULT: usize = 1;
/// `MCL_*`.
const MCL_CURRENT: usize = 1;
const MCL_FUTURE: usize = 2;
const MCL_ONFAULT: usize = 4;
/// `MS_*`.
const MS_ASYNC: usize = 1;
const MS_INVALIDATE: usize = 2;
const MS_SYNC: usize = 4;

impl<P: Platform> AddressSpace<'_, P> {
    /// Locks the pages of `len` bytes from `addr` in memory (mlock(2); with
    /// `MLOCK_ONFAULT` in `flags`, mlock2(2)), and faults them in.
    ///
    /// # Errors
    ///
    /// `Invalid` for unknown flags or a range that wraps; `OverLimit` over
    /// `RLIMIT_MEMLOCK`; `NotMapped` if there is a hole (what comes before it is
    /// locked, as on Linux) or pages cannot be accessed; `TryAgain` if the pages
    /// are locked but could not be brought in; `OutOfMemory`, `TooManyVmas`.
    pub fn mlock(&self, addr: usize, len: usize, flags: usize) -> Result<(), SpaceError> {
        let mut lock = VmaFlags::LOCKED;
        if flags & !MLOCK_ONFAULT != 0 {
            return Err(SpaceError::Invalid);
        }
        if flags & MLOCK_ONFAULT != 0 {
            lock |= VmaFlags::LOCKONFAULT;
        }
        let (start, end) = lock_range(addr, len)?;
        if start == end {
            return Ok(());
        }
        {
            let mut state = self.mmap.write();
            // What is locked already does not count twice.
            let locked = locked_pages(&state, start, end);
            let more = ((end - start) / PAGE_SIZE).saturating_sub(locked);
            let limits = self.limits.get();
            state.totals.may_lock(limits, more).map_err(|_| SpaceError::OverLimit)?;
            self.set_locked(&mut state, start, end, lock)?;
        }
        let range = PageRange::new(start, end).ok_or(SpaceError::NotMapped)?;
        self.populate_all(range).map_err(|error| match error {
            FaultError::OutOfMemory => SpaceError::TryAgain,
            _ => SpaceError::NotMapped,
        })
    }

    /// Unlocks the pages of `len` bytes from `addr` (munlock(2)).
    ///
    /// # Errors
    ///
    /// As [`mlock`](Self::mlock).
    pub fn munlock(&self, addr: usize, len: usize) -> Result<(), SpaceError> {
        let (start, end) = lock_range(addr, len)?;
        let mut state = self.mmap.write();
        self.set_locked(&mut state, start, end, VmaFlags::empty())
    }

    /// Locks all mappings there are, all there will be, or both (mlockall(2)).
    ///
    /// # Errors
    ///
    /// `Invalid` for flags that are unknown or say neither; `OverLimit` over
    /// `RLIMIT_MEMLOCK`.
    pub fn mlockall(&self, flags: usize) -> Result<(), SpaceError> {
        if flags & !(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0 || flags & (MCL_CURRENT | MCL_FUTURE) == 0 {
            return Err(SpaceError::Invalid);
        }
        let mut lock = VmaFlags::LOCKED;
        if flags & MCL_ONFAULT != 0 {
            lock |= VmaFlags::LOCKONFAULT;
        }
        let mut state = self.mmap.write();
        let limits = self.limits.get();
        if flags & MCL_CURRENT != 0 && (state.totals.total * PAGE_SIZE) as u64 > limits.memlock {
            return Err(SpaceError::OverLimit);
        }
        let future = flags & MCL_FUTURE != 0;
        state.new_vma_flags = if future { lock } else { VmaFlags::empty() };
        if flags & MCL_CURRENT == 0 {
            return Ok(());
        }
        self.set_all_locked(&mut state, lock);
        drop(state);
        if let Some(all) = PageRange::new(0, TASK_SIZE) {
            self.populate(all);
        }
        Ok(())
    }

    /// Unlocks everything, future mappings included (munlockall(2)).
    pub fn munlockall(&self) {
        let mut state = self.mmap.write();
        state.new_vma_flags = VmaFlags::empty();
        self.set_all_locked(&mut state, VmaFlags::empty());
    }

    /// Makes `lock` the locked flags of all VMAs in the range, as far as the
    /// first hole (Linux's `apply_vma_lock_flags`).
    fn set_locked(&self, state: &mut State, start: usize, end: usize, lock: VmaFlags) -> Result<(), SpaceError> {
        let mut at = start;
        while at < end {
            let vma = state.vmas.lookup(at).ok_or(SpaceError::NotMapped)?;
            let stop = vma.end().min(end);
            self.lock_part(state, vma, at, stop, lock)?;
            at = stop;
        }
        Ok(())
    }

    /// Likewise for all VMAs there are. As on Linux, one that cannot be changed
    /// is left as it is.
    fn set_all_locked(&self, state: &mut State, lock: VmaFlags) {
        let mut at = 0;
        while let Some(vma) = state.vmas.find(at) {
            at = vma.end();
            let _ = self.lock_part(state, vma, vma.start(), at, lock);
        }
    }

    /// Makes `lock` the locked flags of `start..end`, which is in `vma`.
    fn lock_part(
        &self,
        state: &mut State,
        vma: Ref<Vma>,
        start: usize,
        end: usize,
        lock: VmaFlags,
    ) -> Result<(), SpaceError> {
        let old = vma.flags();
        let new = old.difference(VmaFlags::LOCKED_MASK) | lock;
        // Special mappings cannot be locked, and say nothing of it; nor can what may be dropped.
        if new == old || old.intersects(VmaFlags::SPECIAL | VmaFlags::DROPPABLE) {
            return Ok(());
        }
        let range = PageRange::new(start, end).ok_or(SpaceError::NotMapped)?;
        self.modify(state, vma, range, new)?;
        state.totals.unlock(old, range.pages());
        state.totals.lock(new, range.pages());
        Ok(())
    }

    /// Says for each page of `len` bytes from `addr` whether it is resident, in
    /// ascending order (mincore(2)).
    ///
    /// # Errors
    ///
    /// `Invalid` for an unaligned address; `NotMapped` at the first page that
    /// is not mapped; what `report` fails with.
    pub fn mincore<E: From<SpaceError>>(
        &self,
        addr: usize,
        len: usize,
        mut report: impl FnMut(bool) -> Result<(), E>,
    ) -> Result<(), E> {
        if !is_page_aligned(addr) {
            return Err(SpaceError::Invalid.into());
        }
        let end = addr.checked_add(len).filter(|&end| end <= TASK_SIZE);
        let end = page_align_up(end.ok_or(SpaceError::NotMapped)?);
        let mut page = addr;
        while page < end {
            let resident = {
                let state = self.mmap.read();
                let vma = state.vmas.lookup(page).ok_or(SpaceError::NotMapped)?;
                self.is_resident(vma, page)
            };
            report(resident)?;
            page += PAGE_SIZE;
        }
        Ok(())
    }

    /// Whether the page of `vma` at `page` is mapped, or the object has it.
    fn is_resident(&self, vma: Ref<Vma>, page: usize) -> bool {
        match self.core.tables.lookup(self.mem, page) {
            Some(entry) => self.is_in_memory(entry),
            None => vma.object().is_some_and(|object| object.has_page(self.mem, vma.index_of(page))),
        }
    }

    /// Writes mapped files back (msync(2)): a matter of checking, as all files
    /// are in memory.
    ///
    /// # Errors
    ///
    /// As msync(2): `Invalid`, `NotMapped`, and `Busy` for `MS_INVALIDATE` of
    /// locked memory.
    pub fn msync(&self, addr: usize, len: usize, flags: usize) -> Result<(), SpaceError> {
        let both = MS_ASYNC | MS_SYNC;
        if flags & !(both | MS_INVALIDATE) != 0 || flags & both == both || !is_page_aligned(addr) {
            return Err(SpaceError::Invalid);
        }
        let end = addr.wrapping_add(page_align_up(len));
        if end < addr {
            return Err(SpaceError::NotMapped);
        }
        let state = self.mmap.read();
        let mut result = Ok(());
        let mut at = addr;
        for vma in state.vmas.overlapping(addr, end) {
            if vma.start() > at {
                result = Err(SpaceError::NotMapped);
            }
            if flags & MS_INVALIDATE != 0 && vma.flags().contains(VmaFlags::LOCKED) {
                return Err(SpaceError::Busy);
            }
            at = vma.end();
        }
        if at < end { Err(SpaceError::NotMapped) } else { result }
    }
}

/// The pages that mlock(2) and munlock(2) mean: rounded outwards.
fn lock_range(addr: usize, len: usize) -> Result<(usize, usize), SpaceError> {
    let start = page_align_down(addr);
    let len = page_align_up(len.wrapping_add(addr - start));
    match start.checked_add(len) {
        Some(end) => Ok((start, end)),
        None => Err(SpaceError::Invalid),
    }
}

/// Locked pages in `start..end`.
fn locked_pages(state: &State, start: usize, end: usize) -> usize {
    state
        .vmas
        .overlapping(start, end)
        .filter(|vma| vma.flags().contains(VmaFlags::LOCKED))
        .map(|vma| (vma.end().min(end) - vma.start().max(start)) / PAGE_SIZE)
        .sum()
}
