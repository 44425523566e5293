//! Interrupt state, and locks shared with interrupt handlers.

use core::ops::{Deref, DerefMut};

use spin::RelaxStrategy;
use spin::mutex::{SpinMutex, SpinMutexGuard};
use x86_64::instructions::interrupts;

use super::shootdown;
use crate::task::watchdog;

pub use interrupts::{are_enabled, disable, enable};

/// Waits for an interrupt with interrupts enabled, and leaves them enabled.
///
/// An interrupt that arrives after the caller last looked, with interrupts
/// disabled, ends the wait at once: `sti` takes effect only after `hlt` began.
pub fn wait_for_interrupt() {
    interrupts::enable_and_hlt();
}

/// Waiting for a lock, which its holder may keep while it waits for this CPU to
/// flush its TLB: if that cannot interrupt the CPU, it is done here.
pub struct Answering;

impl RelaxStrategy for Answering {
    fn relax() {
        if !are_enabled() {
            shootdown::poll();
            watchdog::waits();
        }
        core::hint::spin_loop();
    }
}

/// A spin lock that no interrupt handler takes.
pub type Mutex<T> = spin::mutex::Mutex<T, Answering>;
/// Holding a [`Mutex`].
pub type MutexGuard<'a, T> = spin::mutex::MutexGuard<'a, T, Answering>;
/// A spin lock that several readers may hold, and no interrupt handler takes.
pub type RwLock<T> = spin::rwlock::RwLock<T, Answering>;

/// A spin lock that keeps interrupts disabled while it is held, so that an
/// interrupt handler may take it too.
#[derive(Debug)]
pub struct IrqMutex<T> {
    inner: SpinMutex<T, Answering>,
}

/// Holding an [`IrqMutex`].
#[derive(Debug)]
pub struct IrqGuard<'a, T> {
    // `Some` until dropped: the lock must be released before interrupts return.
    guard: Option<SpinMutexGuard<'a, T, Answering>>,
    restore: bool,
}

impl<T> IrqMutex<T> {
    /// A lock around `value`.
    pub const fn new(value: T) -> Self {
        IrqMutex { inner: SpinMutex::new(value) }
    }

    /// Disables interrupts and takes the lock.
    pub fn lock(&self) -> IrqGuard<'_, T> {
        let restore = interrupts::are_enabled();
        interrupts::disable();
        IrqGuard { guard: Some(self.inner.lock()), restore }
    }

    /// The value, for a holder that has no guard.
    pub fn as_ptr(&self) -> *mut T {
        self.inner.as_mut_ptr()
    }

    /// Releases the lock on behalf of a holder that will never do it.
    ///
    /// # Safety
    ///
    /// No one may go on using a guard of this lock.
    pub unsafe fn force_unlock(&self) {
        // SAFETY: as the caller promises.
        unsafe { self.inner.force_unlock() };
    }
}

impl<T> Deref for IrqGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.guard {
            Some(guard) => guard,
            // SAFETY: `guard` is `Some` from construction until `drop`.
            None => unsafe { core::hint::unreachable_unchecked() },
        }
    }
}

impl<T> DerefMut for IrqGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.guard {
            Some(guard) => guard,
            // SAFETY: `guard` is `Some` from construction until `drop`.
            None => unsafe { core::hint::unreachable_unchecked() },
        }
    }
}

impl<T> Drop for IrqGuard<'_, T> {
    fn drop(&mut self) {
        self.guard = None;
        if self.restore {
            interrupts::enable();
        }
    }
}
