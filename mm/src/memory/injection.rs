//! Making allocations fail on purpose, one at a time.

use core::sync::atomic::{AtomicUsize, Ordering};
#[cfg(test)]
use std::{collections::BTreeMap, panic::Location, sync::Mutex};

use crate::errno::OutOfMemory;

/// Counts down to the allocation that shall fail.
pub(super) struct Injection {
    /// Allocations until the one that fails, that one included; 0: none fails.
    left: AtomicUsize,
    /// One has failed.
    fired: AtomicUsize,
    /// The places in the source that have allocated, and whether that has failed.
    #[cfg(test)]
    sites: Mutex<BTreeMap<&'static Location<'static>, bool>>,
}

impl Injection {
    pub(super) const fn new() -> Injection {
        Injection {
            left: AtomicUsize::new(0),
            fired: AtomicUsize::new(0),
            #[cfg(test)]
            sites: Mutex::new(BTreeMap::new()),
        }
    }

    pub(super) fn arm(&self, n: usize) {
        self.fired.store(0, Ordering::Relaxed);
        self.left.store(n, Ordering::Relaxed);
    }

    pub(super) fn fired(&self) -> bool {
        self.fired.load(Ordering::Relaxed) != 0
    }

    /// The places in the source that have allocated, and whether that has failed.
    #[cfg(test)]
    pub(super) fn sites(&self) -> Vec<(&'static Location<'static>, bool)> {
        self.sites.lock().unwrap().iter().map(|(&site, &failed)| (site, failed)).collect()
    }

    /// Called once per allocation.
    #[cfg_attr(test, track_caller)]
    pub(super) fn pass(&self) -> Result<(), OutOfMemory> {
        let count_down = |left: usize| left.checked_sub(1);
        let fails = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count_down) == Ok(1);
        #[cfg(test)]
        {
            *self.sites.lock().unwrap().entry(Location::caller()).or_default() |= fails;
        }
        if fails {
            self.fired.store(1, Ordering::Relaxed);
            return Err(OutOfMemory);
        }
        Ok(())
    }
}
