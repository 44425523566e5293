//! The locks that all of the crate uses.
//!
//! Thin wrappers, so that everything which takes a lock does it through here:
//! a lock-order checker or a model checker replaces them in this one place.
//! None of them sleeps, and none may be taken by an interrupt handler.

use core::fmt;

use spin::RelaxStrategy;

/// What a waiter does in each turn of its loop.
///
/// A kernel that does not preempt has the holder running on another CPU, so a
/// pause is right; the threads of a host test outnumber the CPUs, so there the
/// holder needs to be let run.
pub(crate) struct Relax;

impl RelaxStrategy for Relax {
    #[inline]
    fn relax() {
        #[cfg(any(test, feature = "sim"))]
        std::thread::yield_now();
        #[cfg(not(any(test, feature = "sim")))]
        core::hint::spin_loop();
    }
}

/// A [`SpinLock`] held; dropping it releases the lock.
pub(crate) type SpinLockGuard<'a, T> = spin::mutex::SpinMutexGuard<'a, T, Relax>;
/// A [`RwLock`] held in read mode.
pub(crate) type ReadGuard<'a, T> = spin::rwlock::RwLockReadGuard<'a, T, Relax>;
/// A [`RwLock`] held in write mode.
pub(crate) type WriteGuard<'a, T> = spin::rwlock::RwLockWriteGuard<'a, T, Relax>;

/// A mutual-exclusion lock that spins.
pub(crate) struct SpinLock<T>(spin::mutex::SpinMutex<T, Relax>);

impl<T> SpinLock<T> {
    /// An unlocked lock around `value`.
    pub(crate) const fn new(value: T) -> SpinLock<T> {
        SpinLock(spin::mutex::SpinMutex::new(value))
    }

    /// Waits for the lock and takes it.
    #[inline]
    pub(crate) fn lock(&self) -> SpinLockGuard<'_, T> {
        self.0.lock()
    }

    /// Takes the lock if nobody holds it.
    #[inline]
    pub(crate) fn try_lock(&self) -> Option<SpinLockGuard<'_, T>> {
        self.0.try_lock()
    }
}

impl<T: Default> Default for SpinLock<T> {
    fn default() -> SpinLock<T> {
        SpinLock::new(T::default())
    }
}

impl<T> fmt::Debug for SpinLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpinLock").field("locked", &self.0.is_locked()).finish_non_exhaustive()
    }
}

/// A lock with any number of readers or one writer, that spins.
pub(crate) struct RwLock<T>(spin::rwlock::RwLock<T, Relax>);

impl<T> RwLock<T> {
    /// An unlocked lock around `value`.
    pub(crate) const fn new(value: T) -> RwLock<T> {
        RwLock(spin::rwlock::RwLock::new(value))
    }

    /// Waits until no writer holds the lock and joins the readers.
    #[inline]
    pub(crate) fn read(&self) -> ReadGuard<'_, T> {
        self.0.read()
    }

    /// Waits until nobody holds the lock and takes it alone.
    #[inline]
    pub(crate) fn write(&self) -> WriteGuard<'_, T> {
        self.0.write()
    }
}

impl<T: Default> Default for RwLock<T> {
    fn default() -> RwLock<T> {
        RwLock::new(T::default())
    }
}

impl<T> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLock").field("readers", &self.0.reader_count()).finish_non_exhaustive()
    }
}
