//! A mutex whose waiters sleep.
//!
//! For what is held across copies to and from user memory: those may fault,
//! and resolving a fault may block, which is not allowed under a spin lock.
//! The order is: first the position of an open file, then one of the others
//! (a regular file's writer, the text of a file in `/proc`, a channel's ring).

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering};

use mm::Errno;

use crate::task::wait::WaitQueue;

/// A value that one thread at a time may use, for as long as it takes.
pub struct SleepLock<T> {
    locked: AtomicBool,
    waiters: WaitQueue,
    value: UnsafeCell<T>,
}

// SAFETY: `locked` admits one thread at a time to the value, so sharing the
// lock only ever sends the value between threads.
unsafe impl<T: Send> Sync for SleepLock<T> {}

impl<T> SleepLock<T> {
    /// An unlocked lock around `value`.
    pub const fn new(value: T) -> SleepLock<T> {
        SleepLock { locked: AtomicBool::new(false), waiters: WaitQueue::new(), value: UnsafeCell::new(value) }
    }

    /// Takes the lock, waiting for it if need be.
    ///
    /// # Errors
    /// `ERESTARTSYS` if a signal arrived while waiting.
    pub fn lock(&self) -> Result<SleepGuard<'_, T>, Errno> {
        if !self.try_acquire() {
            self.waiters.wait_until(|| self.try_acquire().then_some(()))?;
        }
        Ok(SleepGuard { lock: self })
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> Option<SleepGuard<'_, T>> {
        self.try_acquire().then(|| SleepGuard { lock: self })
    }

    fn try_acquire(&self) -> bool {
        self.locked.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }
}

/// Holding a [`SleepLock`].
pub struct SleepGuard<'a, T> {
    lock: &'a SleepLock<T>,
}

impl<T> Deref for SleepGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: a guard exists only while `locked` is ours, so nobody else
        // has a reference to the value.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for SleepGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as for `deref`, and `&mut self` excludes other uses of this guard.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for SleepGuard<'_, T> {
    fn drop(&mut self) {
        self.lock.locked.store(false, Ordering::Release);
        self.lock.waiters.wake_one();
    }
}
