//! A queue of pending signals: one per thread and one per process.

use super::{SIGRTMIN, SigInfo, SigSet};
use alloc::vec::Vec;
use mm::Errno;

/// Room that standard signals, each of which is pending at most once, always have.
const STANDARD_ROOM: usize = SIGRTMIN as usize - 1;

/// Pending signals with their information, oldest first.
///
/// A standard signal is pending once at most, so the room for all of them is
/// reserved at creation: sending one cannot fail, not even in an interrupt.
pub struct Pending {
    set: SigSet,
    queue: Vec<SigInfo>,
}

impl Pending {
    /// An empty queue.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new() -> Result<Pending, Errno> {
        let mut queue = Vec::new();
        queue.try_reserve_exact(STANDARD_ROOM).map_err(|_| Errno::ENOMEM)?;
        Ok(Pending { set: SigSet::EMPTY, queue })
    }

    /// Which signals are pending.
    pub fn set(&self) -> SigSet {
        self.set
    }

    /// Adds a signal. A standard one that is pending already stays as it is.
    ///
    /// # Errors
    /// `EAGAIN`: a real-time signal, and `limit` entries are queued already or
    /// there is no memory for one more.
    pub fn push(&mut self, info: SigInfo, limit: usize) -> Result<(), Errno> {
        let signal = info.signal;
        if signal.is_realtime() {
            if self.queue.len() >= limit {
                return Err(Errno::EAGAIN);
            }
            self.queue.try_reserve(1 + STANDARD_ROOM).map_err(|_| Errno::EAGAIN)?;
        } else if self.set.contains(signal) {
            return Ok(());
        }
        self.set = self.set.union(signal.set());
        self.queue.push(info);
        Ok(())
    }

    /// Takes out the most urgent signal of `wanted`.
    pub fn take(&mut self, wanted: SigSet) -> Option<SigInfo> {
        let signal = self.set.intersection(wanted).first()?;
        let at = self.queue.iter().position(|info| info.signal == signal)?;
        let info = self.queue.remove(at);
        if !self.queue.iter().any(|other| other.signal == signal) {
            self.set = self.set.without(signal.set());
        }
        Some(info)
    }

    /// Forgets all signals of `unwanted`.
    pub fn discard(&mut self, unwanted: SigSet) {
        if !self.set.intersection(unwanted).is_empty() {
            self.queue.retain(|info| !unwanted.contains(info.signal));
            self.set = self.set.without(unwanted);
        }
    }
}
