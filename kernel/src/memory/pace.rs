//! Work on memory that is done bit by bit, by whoever is idle or on the way back to his program.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::arch::time::monotonic_ns;

/// When such work is due: so many pages, in parts, then a pause. One CPU is at it at a time.
pub struct Pace {
    /// Pages that are still to be looked at before the next pause.
    left: AtomicU32,
    /// When the pause ends, in monotonic nanoseconds.
    next: AtomicU64,
    /// Somebody is at it, or keeps all others from it.
    busy: AtomicBool,
}

impl Pace {
    /// Of work that is due at once.
    pub const fn new() -> Pace {
        Pace { left: AtomicU32::new(0), next: AtomicU64::new(0), busy: AtomicBool::new(false) }
    }

    /// Whether there is something to do. Cheap enough for the timer.
    #[inline]
    pub fn is_due(&self) -> bool {
        !self.busy.load(Ordering::Relaxed)
            && (self.left.load(Ordering::Relaxed) != 0 || monotonic_ns() >= self.next.load(Ordering::Relaxed))
    }

    /// Does a part of what [is due](Self::is_due), unless somebody else is at it. `part` is told how many of the `pages` between two pauses are left, and
    /// returns how many of them need no more looking at, and the length of the next pause in milliseconds.
    pub fn work(&self, pages: u32, part: impl FnOnce(u32) -> (u32, u32)) {
        if self.busy.swap(true, Ordering::Acquire) {
            return;
        }
        let left = match self.left.load(Ordering::Relaxed) {
            0 => pages,
            left => left,
        };
        let (done, pause) = part(left);
        let left = left.saturating_sub(done);
        self.left.store(left, Ordering::Relaxed);
        if left == 0 {
            self.next.store(monotonic_ns() + u64::from(pause) * 1_000_000, Ordering::Relaxed);
        }
        self.busy.store(false, Ordering::Release);
    }

    /// Ends the pause.
    pub fn end_pause(&self) {
        self.next.store(0, Ordering::Relaxed);
    }

    /// Calls `f` with nobody at work.
    pub fn keep_off<R>(&self, f: impl FnOnce() -> R) -> R {
        // Who is at it goes on for a moment, on another CPU.
        while self.busy.swap(true, Ordering::Acquire) {
            core::hint::spin_loop();
        }
        let result = f();
        self.busy.store(false, Ordering::Release);
        result
    }
}
