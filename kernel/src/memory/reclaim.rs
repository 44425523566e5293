//! When to reclaim, and where to.
//!
//! Who runs out of memory in `mm` reclaims there. That is too late for the kernel's own
//! allocations, and slow; so as soon as the timer finds that little is left, whoever
//! returns to his program next makes more free.

use mm::{Errno, MAX_SWAP_SLOTS, SwapDevice};

use super::memory;
use super::zram::Zram;

/// Pages in swap, for each page of memory, at most.
const SLOTS_PER_FRAME: usize = 4;
/// One part in so many of all memory is kept free, and twice that when reclaim is at it.
const KEPT_FREE: usize = 64;
/// What reclaim does at once between two looks at the clock.
const BATCH: usize = 64;

static SWAP: spin::Once<Zram> = spin::Once::new();

/// Takes swap into use.
///
/// # Errors
/// `ENOMEM`: there is none then.
pub fn start() -> Result<(), Errno> {
    let frames = memory().total_frames();
    let slots = u32::try_from(frames * SLOTS_PER_FRAME).unwrap_or(u32::MAX).min(MAX_SWAP_SLOTS);
    SWAP.try_call_once(|| Zram::new(slots, frames / 2))?;
    Ok(memory().swap_on()?)
}

/// Where pages go.
pub fn swap_device() -> Option<&'static dyn SwapDevice> {
    SWAP.get().map(|swap| swap as &dyn SwapDevice)
}

/// Whether so little memory is free that more should be. Cheap enough for the timer.
pub fn is_needed() -> bool {
    SWAP.is_completed() && memory().free_frames() < memory().total_frames() / KEPT_FREE
}

/// Makes memory free if there is little, for a while. No lock may be held.
pub fn balance() {
    if !is_needed() {
        return;
    }
    let goal = 2 * memory().total_frames() / KEPT_FREE;
    // Not all of it at the expense of one program.
    for _ in 0..goal.div_ceil(BATCH).min(8) {
        if memory().free_frames() >= goal || memory().reclaim(BATCH) == 0 {
            return;
        }
    }
}
