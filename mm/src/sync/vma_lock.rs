//! The lock that lets a page fault do without the mmap lock.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::order::Held;
use super::{Relax, point, rank};
use spin::RelaxStrategy;

/// The lock of one VMA: page faults read, who changes the VMA writes.
///
/// Writers hold the mmap lock for writing too, so there is only one. What it
/// locks stays locked until it releases that: the time in between is a
/// *section*, and sections of an address space are numbered. The lock says in
/// which section it was last taken, so when the address space goes on to the
/// next one, all that were taken are released by one store.
///
/// - A writer stores the number of its section, and then waits until there are
///   no readers.
/// - A reader counts itself, and then compares the number to the current
///   section's. So either the writer sees the reader, or the reader the writer,
///   and no reader ever waits: it takes the mmap lock instead. Readers that come
///   while a writer waits give way, so it does not starve.
///
/// A VMA's memory may be used for another VMA at any time before it is locked,
/// so a reader can hold the lock of a VMA that it did not look for. It has to
/// check which one it is, and if it is the wrong one, to do nothing but release
/// it.
#[derive(Default)]
pub(crate) struct VmaLock {
    readers: AtomicU32,
    /// The last section of the address space in which it was taken for writing.
    section: AtomicU64,
}

impl VmaLock {
    /// Joins the readers, unless a writer has the lock in the current section of
    /// the address space, which `current` has the number of. To be followed by
    /// [`release`](Self::release) unless it returns `None`.
    #[inline(always)]
    pub(crate) fn try_read(&self, current: &AtomicU64) -> Option<Held> {
        // Who is too late does not write to the writer's cache line.
        if self.section.load(Ordering::Relaxed) >= current.load(Ordering::Acquire) {
            return None;
        }
        point();
        self.readers.fetch_add(1, Ordering::SeqCst);
        let held = Held::hold(rank::VMA, self);
        point();
        // If this is the number that a section has stored which is over by now,
        // the next one's is seen as well, and with it all that was changed. One
        // that is not over has the same number.
        if self.section.load(Ordering::SeqCst) >= current.load(Ordering::Acquire) {
            self.release();
            return None;
        }
        Some(held)
    }

    /// Leaves the readers.
    #[inline(always)]
    pub(crate) fn release(&self) {
        point();
        self.readers.fetch_sub(1, Ordering::Release);
    }

    /// Waits until there are no readers, and keeps new ones out until the section
    /// with that number is over.
    #[inline]
    pub(crate) fn write(&self, section: u64) {
        if !self.is_written_in(section) {
            let _held = Held::wait_for(rank::VMA, self);
            self.exclude(section);
        }
    }

    /// [`write`](Self::write) for a VMA that is about to be made. Whoever may
    /// still read this memory thinks of another VMA, and is about to find out: that
    /// takes no lock, so waiting is allowed in any order.
    #[inline]
    pub(crate) fn write_unshared(&self, section: u64) {
        self.exclude(section);
    }

    /// Whether it has been taken for writing in that section.
    #[inline]
    pub(crate) fn is_written_in(&self, section: u64) -> bool {
        self.section.load(Ordering::Relaxed) == section
    }

    #[inline]
    fn exclude(&self, section: u64) {
        point();
        self.section.store(section, Ordering::SeqCst);
        if self.has_readers() {
            self.wait();
        }
    }

    #[inline]
    fn has_readers(&self) -> bool {
        point();
        self.readers.load(Ordering::SeqCst) != 0
    }

    #[cold]
    fn wait(&self) {
        while self.has_readers() {
            Relax::relax();
        }
    }
}
