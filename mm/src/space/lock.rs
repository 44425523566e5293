//! The mmap lock, together with what lets faults do without it.

use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};

use super::State;
use crate::sync::{ReadGuard, RwLock, WriteGuard, rank};
use crate::vma::VmaIndex;

/// A reader-writer lock around [`State`], which also releases the VMAs that a
/// writer has locked when that is done.
pub(super) struct MmapLock {
    state: RwLock<State, { rank::MMAP }>,
    index: VmaIndex,
}

/// The mmap lock held for writing. Dropping it ends the section: VMAs that were
/// locked in it are released first.
pub(super) struct MmapWriteGuard<'a> {
    state: WriteGuard<'a, State, { rank::MMAP }>,
    index: &'a VmaIndex,
}

impl MmapLock {
    /// An unlocked lock around `state`, which has no VMAs.
    pub(super) fn new(state: State) -> MmapLock {
        MmapLock { state: RwLock::new(state), index: VmaIndex::default() }
    }

    /// Waits until no writer holds the lock and joins the readers.
    #[inline]
    pub(super) fn read(&self) -> ReadGuard<'_, State, { rank::MMAP }> {
        self.state.read()
    }

    /// Waits until nobody holds the lock and takes it alone.
    #[inline]
    pub(super) fn write(&self) -> MmapWriteGuard<'_> {
        MmapWriteGuard { state: self.state.write(), index: &self.index }
    }

    /// [`write`](Self::write) of an address space that nobody else knows of yet,
    /// or any more.
    #[inline]
    pub(super) fn write_unshared(&self) -> MmapWriteGuard<'_> {
        MmapWriteGuard { state: self.state.write_unshared(), index: &self.index }
    }

    /// The way to VMAs without the lock.
    #[inline(always)]
    pub(super) fn index(&self) -> &VmaIndex {
        &self.index
    }
}

impl<'a> MmapWriteGuard<'a> {
    /// Ends the section and goes on with the lock in read mode: the map stays as it is
    /// now, but others may look at it.
    #[inline]
    pub(super) fn downgrade(self) -> ReadGuard<'a, State, { rank::MMAP }> {
        let mut this = ManuallyDrop::new(self);
        this.index.end_section(&mut this.state.vmas);
        // SAFETY: `this` is neither used again nor dropped, so the guard is not doubled.
        let state = unsafe { core::ptr::read(&raw const this.state) };
        state.downgrade()
    }
}

impl Deref for MmapWriteGuard<'_> {
    type Target = State;

    #[inline(always)]
    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for MmapWriteGuard<'_> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for MmapWriteGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.index.end_section(&mut self.state.vmas);
    }
}
