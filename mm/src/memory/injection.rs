//! Making allocations fail on purpose, one at a time.

use core::sync::atomic::{AtomicUsize, Ordering};

use crate::errno::OutOfMemory;

/// Counts down to the allocation that shall fail.
pub(super) struct Injection {
    /// Allocations until the one that fails, that one included; 0: none fails.
    left: AtomicUsize,
    /// One has failed.
    fired: AtomicUsize,
}

impl Injection {
    pub(super) const fn new() -> Injection {
        Injection { left: AtomicUsize::new(0), fired: AtomicUsize::new(0) }
    }

    pub(super) fn arm(&self, n: usize) {
        self.fired.store(0, Ordering::Relaxed);
        self.left.store(n, Ordering::Relaxed);
    }

    pub(super) fn fired(&self) -> bool {
        self.fired.load(Ordering::Relaxed) != 0
    }

    /// Called once per allocation.
    pub(super) fn pass(&self) -> Result<(), OutOfMemory> {
        let count_down = |left: usize| left.checked_sub(1);
        match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count_down) {
            Ok(1) => {
                self.fired.store(1, Ordering::Relaxed);
                Err(OutOfMemory)
            }
            _ => Ok(()),
        }
    }
}
