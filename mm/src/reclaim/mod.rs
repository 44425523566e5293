//! Reclaim: private pages that were not used lately make room for others.
//!
//! The frame records are a clock, with one hand for all CPUs. Where the hand comes by,
//! a page that was used since it last did is given a second chance: its entries' accessed
//! bits are cleared. A page that was not is [evicted](evict). So the pages that are used
//! stay without anybody having kept lists of them, and a fault does nothing for it. Only
//! private pages are reclaimed. What is locked, or in use by the kernel, is passed by.
//!
//! Nothing here waits for an address space: what it takes are the locks of single pages,
//! of their reverse mappings, and of page tables. So it may be called wherever a page
//! fault may be, but what makes it simple is that nobody has to: an operation that finds
//! no memory fails and has changed nothing, so its outermost caller reclaims, with no lock
//! held, and does it again ([`Memory::reclaiming`]).

mod evict;
#[cfg(test)]
mod tests;
mod withdraw;

use crate::{FaultError, Memory, OutOfMemory, Pfn, Platform, SpaceError};

pub(crate) use evict::{Evictions, Urgency};
pub(crate) use withdraw::Withdrawals;

/// How many frames are reclaimed at once when there is none.
const BATCH: usize = 64;

/// An operation that found no memory is done again at most so often.
const RETRIES: usize = 16;

/// Nor is it when reclaim has found nothing so often.
const GIVE_UP: usize = 4;

/// An error that may be for want of memory.
pub(crate) trait MemoryError {
    /// Whether it is.
    fn is_out_of_memory(&self) -> bool;
}

impl MemoryError for OutOfMemory {
    fn is_out_of_memory(&self) -> bool {
        true
    }
}

impl MemoryError for FaultError {
    fn is_out_of_memory(&self) -> bool {
        *self == FaultError::OutOfMemory
    }
}

impl MemoryError for SpaceError {
    fn is_out_of_memory(&self) -> bool {
        *self == SpaceError::OutOfMemory
    }
}

impl<P: Platform> Memory<P> {
    /// Makes at least `wanted` frames free by evicting pages, if there are that many
    /// which can be; returns how many it were. Pages that were used since reclaim last came
    /// by are spared unless there are not enough others.
    ///
    /// For a kernel's own thread, to be ahead of the demand, as well as for who is
    /// out of memory.
    pub fn reclaim(&self, wanted: usize) -> usize {
        if wanted == 0 || self.swap_stats().total == 0 {
            return 0;
        }
        let (first, span) = self.frame_span();
        let mut evictions = Evictions::new(self);
        // Once around, everything has lost what told that it was used.
        'turns: for urgency in [Urgency::Spare, Urgency::Spare, Urgency::Evict] {
            for _ in 0..span {
                let pfn = Pfn(first.0 + self.next_on_clock() % span);
                let record = self.frame(pfn);
                if !record.is_ordinary_anon() || record.refcount() == 0 {
                    continue;
                }
                let is_full = evictions.add(pfn, urgency).is_err();
                if is_full || evictions.hoped_for() >= wanted && evictions.finish() >= wanted {
                    break 'turns;
                }
            }
        }
        evictions.finish()
    }

    /// Does `operation`, and if it finds no memory reclaims some and does it again, as
    /// long as that helps. Nothing is locked.
    pub(crate) fn reclaiming<T, E: MemoryError>(&self, mut operation: impl FnMut() -> Result<T, E>) -> Result<T, E> {
        match operation() {
            Err(error) if error.is_out_of_memory() => self.reclaim_and_retry(error, operation),
            result => result,
        }
    }

    #[cold]
    fn reclaim_and_retry<T, E: MemoryError>(
        &self,
        error: E,
        mut operation: impl FnMut() -> Result<T, E>,
    ) -> Result<T, E> {
        let mut last = error;
        let mut in_vain = 0;
        for retry in 0..RETRIES {
            // What an operation needs at once may be more than a batch.
            if self.reclaim(BATCH << (retry / 2)) == 0 {
                in_vain += 1;
            }
            // Others may have all pages locked for a moment, or what they freed may be enough.
            if in_vain == GIVE_UP || self.swap_stats().total == 0 {
                break;
            }
            match operation() {
                Err(error) if error.is_out_of_memory() => last = error,
                result => return result,
            }
        }
        Err(last)
    }
}
