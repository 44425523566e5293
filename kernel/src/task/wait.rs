//! Waiting for something to happen.

/// Threads that wait for one kind of event.
pub struct WaitQueue {}

impl WaitQueue {
    /// An empty queue.
    pub const fn new() -> Self {
        WaitQueue {}
    }

    /// Wakes every waiter. May be called from an interrupt handler.
    pub fn wake_all(&self) {}
}
