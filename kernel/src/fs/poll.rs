//! Waiting for files to become ready.
//!
//! A thread in `poll`, `select` or `epoll_wait` looks at the files it is
//! interested in whenever *any* file has become ready: there is one wait queue
//! for all of them. That costs a look per waiting thread and event, and
//! nothing where nobody waits, and spares every file a list of its watchers.

use core::sync::atomic::{AtomicU64, Ordering};

use bitflags::bitflags;
use mm::Errno;

use crate::task::wait::WaitQueue;

bitflags! {
    /// `POLL*`, which are the same as `EPOLL*`.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub struct Events: u32 {
        /// There is something to read, or the end.
        const IN = 0x001;
        /// Something urgent can be read.
        const PRI = 0x002;
        /// Something can be written.
        const OUT = 0x004;
        /// The other end of a pipe for writing is closed.
        const ERR = 0x008;
        /// The other end of a pipe for reading is closed.
        const HUP = 0x010;
        /// `poll` only: the descriptor is not open.
        const NVAL = 0x020;
        /// As [`IN`](Self::IN).
        const RDNORM = 0x040;
        /// Never reported here.
        const RDBAND = 0x080;
        /// As [`OUT`](Self::OUT).
        const WRNORM = 0x100;
        /// Never reported here.
        const WRBAND = 0x200;
        /// Never reported here.
        const RDHUP = 0x2000;
    }
}

/// What could be done with a file without waiting.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Readiness {
    /// The events that are there now.
    pub events: Events,
    /// Differs from an earlier one if an event may have come in between; what
    /// edge-triggered watchers go by.
    pub stamp: u64,
}

impl Readiness {
    /// Of a file that never changes.
    pub const fn always(events: Events) -> Readiness {
        Readiness { events, stamp: 0 }
    }
}

/// Counts the changes of one file's readiness.
pub struct Stamp(AtomicU64);

impl Stamp {
    /// No changes so far.
    pub const fn new() -> Stamp {
        Stamp(AtomicU64::new(0))
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Notes a change and wakes those who wait for it.
    pub fn change(&self) {
        self.0.fetch_add(1, Ordering::Release);
        changed();
    }
}

static WATCHERS: WaitQueue = WaitQueue::new();

/// Makes waiting threads look at their files again. May be called from an
/// interrupt handler.
pub fn changed() {
    WATCHERS.wake_all();
}

/// Calls `ready` now and after every change of any file until it returns
/// something or `deadline` (nanoseconds of the monotonic clock; `None` for
/// never) has passed, which gives `None`.
///
/// # Errors
/// `ERESTARTSYS` if a signal arrived; those of `ready`.
pub fn wait<T>(deadline: Option<u64>, mut ready: impl FnMut() -> Result<Option<T>, Errno>) -> Result<Option<T>, Errno> {
    WATCHERS.wait_deadline(deadline, || ready().transpose())?.transpose()
}
