//! Waiting for something to happen.
//!
//! A waiter enters the queue, then again and again looks whether what it waits
//! for is there and sleeps if not. It sets its state to sleeping *before* it
//! looks, and a waker makes the thing true *before* it wakes, so no wake-up is
//! lost: either the waiter sees the thing, or the waker sees the sleeper.
//!
//! Conditions are closures that return `Some` when the wait is over. They run
//! while the thread is marked as sleeping, so they must not themselves wait;
//! taking spin locks and touching user memory is fine.

use core::marker::PhantomData;
use core::ptr;
use core::sync::atomic::Ordering;

use alloc::sync::Arc;

use mm::Errno;

use super::sched;
use super::thread::{Current, Thread, current, state};
use super::timer::{self, NEVER};
use crate::arch::irq::IrqMutex;
use crate::arch::time;
use crate::errno::ERESTARTSYS;

/// Threads that wait for one kind of event, longest waiting first.
pub struct WaitQueue {
    list: IrqMutex<List>,
}

struct List {
    first: *mut Node,
    last: *mut Node,
}

// SAFETY: the nodes pointed to are alive while they are in the list, and the
// list is only touched under the queue's lock.
unsafe impl Send for List {}

struct Node {
    thread: Arc<Thread>,
    previous: *mut Node,
    next: *mut Node,
}

impl Node {
    fn for_current() -> Node {
        Node { thread: current().to_arc(), previous: ptr::null_mut(), next: ptr::null_mut() }
    }
}

impl WaitQueue {
    /// An empty queue.
    pub const fn new() -> WaitQueue {
        WaitQueue { list: IrqMutex::new(List { first: ptr::null_mut(), last: ptr::null_mut() }) }
    }

    /// Waits until `condition` holds; a signal ends the wait.
    ///
    /// # Errors
    /// `ERESTARTSYS`: a signal is to be handled first.
    pub fn wait_until<T>(&self, condition: impl FnMut() -> Option<T>) -> Result<T, Errno> {
        match self.wait_deadline(None, condition)? {
            Some(value) => Ok(value),
            // Without a deadline only a signal ends the wait early.
            None => Err(ERESTARTSYS),
        }
    }

    /// Waits until `condition` holds, or until `deadline` (monotonic
    /// nanoseconds) has passed: `None`.
    ///
    /// # Errors
    /// `ERESTARTSYS`: a signal is to be handled first.
    pub fn wait_deadline<T>(
        &self,
        deadline: Option<u64>,
        condition: impl FnMut() -> Option<T>,
    ) -> Result<Option<T>, Errno> {
        self.wait(state::INTERRUPTIBLE, deadline, condition)
    }

    /// Waits until `condition` holds; only a signal that kills ends the wait.
    ///
    /// # Errors
    /// `ERESTARTSYS`: the process is exiting.
    pub fn wait_killable<T>(&self, condition: impl FnMut() -> Option<T>) -> Result<T, Errno> {
        match self.wait(state::KILLABLE, None, condition)? {
            Some(value) => Ok(value),
            None => Err(ERESTARTSYS),
        }
    }

    /// Waits until `condition` holds; nothing else ends the wait, so that must
    /// be sure to happen soon.
    pub(super) fn wait_uninterruptible(&self, condition: impl FnMut() -> Option<()>) {
        // Without a deadline, and not open to signals, it has only one way to end.
        let _ = self.wait(state::UNINTERRUPTIBLE, None, condition);
    }

    fn wait<T>(
        &self,
        kind: u32,
        deadline: Option<u64>,
        mut condition: impl FnMut() -> Option<T>,
    ) -> Result<Option<T>, Errno> {
        if let Some(value) = condition() {
            return Ok(Some(value));
        }
        let mut node = Node::for_current();
        let _entry = Entry::new(self, &raw mut node);
        sleep(kind, deadline, condition)
    }

    /// Wakes the thread that has waited longest. May be called from an
    /// interrupt handler.
    pub fn wake_one(&self) {
        self.wake(1);
    }

    /// Wakes every waiter. May be called from an interrupt handler.
    pub fn wake_all(&self) {
        self.wake(usize::MAX);
    }

    fn wake(&self, mut count: usize) {
        let list = self.list.lock();
        let mut at = list.first;
        while !at.is_null() && count > 0 {
            // SAFETY: in the list, and the lock is held: alive (see `Entry`).
            let node = unsafe { &*at };
            count -= usize::from(sched::wake(&node.thread, state::SLEEPING));
            at = node.next;
        }
    }
}

impl Default for WaitQueue {
    fn default() -> WaitQueue {
        WaitQueue::new()
    }
}

/// A node's stay in a queue. Whoever creates it keeps the node in place, and
/// does not touch it, until the entry is dropped.
struct Entry<'q> {
    queue: &'q WaitQueue,
    node: *mut Node,
    not_send: PhantomData<*mut ()>,
}

impl<'q> Entry<'q> {
    fn new(queue: &'q WaitQueue, node: *mut Node) -> Entry<'q> {
        let mut list = queue.list.lock();
        // SAFETY: `node` is valid and in no list; `list.last` is in this one,
        // whose lock is held.
        unsafe {
            (*node).previous = list.last;
            match list.last.is_null() {
                true => list.first = node,
                false => (*list.last).next = node,
            }
        }
        list.last = node;
        Entry { queue, node, not_send: PhantomData }
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let mut list = self.queue.list.lock();
        // SAFETY: the node and its neighbours are in the list, whose lock is held.
        unsafe {
            let (previous, next) = ((*self.node).previous, (*self.node).next);
            match previous.is_null() {
                true => list.first = next,
                false => (*previous).next = next,
            }
            match next.is_null() {
                true => list.last = previous,
                false => (*next).previous = previous,
            }
        }
    }
}

/// Sleeps until `deadline` (monotonic nanoseconds).
///
/// # Errors
/// `ERESTARTSYS`: a signal is to be handled first.
pub fn sleep_until(deadline: u64) -> Result<(), Errno> {
    sleep(state::INTERRUPTIBLE, Some(deadline), || None::<()>).map(|_| ())
}

/// Waits until `take` finds a signal, or until `deadline` (monotonic
/// nanoseconds) has passed: `None`. Whoever sends the signal wakes the thread.
///
/// # Errors
/// `ERESTARTSYS`: another signal is to be handled first.
pub fn wait_signal<T>(deadline: Option<u64>, take: impl FnMut() -> Option<T>) -> Result<Option<T>, Errno> {
    sleep(state::INTERRUPTIBLE, deadline, take)
}

/// The loop behind every wait: `kind` is the state to sleep in.
pub(super) fn sleep<T>(
    kind: u32,
    deadline: Option<u64>,
    mut condition: impl FnMut() -> Option<T>,
) -> Result<Option<T>, Errno> {
    let thread = current();
    let deadline = deadline.unwrap_or(NEVER);
    let result = loop {
        thread.state.store(kind, Ordering::SeqCst);
        if let Some(value) = condition() {
            break Ok(Some(value));
        }
        if interrupted(thread, kind) {
            break Err(ERESTARTSYS);
        }
        if deadline != NEVER {
            if time::monotonic_ns() >= deadline {
                break Ok(None);
            }
            timer::set_wakeup(&thread, deadline);
        }
        sched::schedule();
    };
    thread.state.store(state::RUNNING, Ordering::SeqCst);
    if deadline != NEVER {
        timer::cancel_wakeup(&thread);
    }
    result
}

/// Whether a sleep of this kind must not begin or go on.
fn interrupted(thread: Current, kind: u32) -> bool {
    match kind {
        state::INTERRUPTIBLE => thread.is_interrupted(),
        state::KILLABLE => thread.is_interrupted() && thread.process().is_exiting(),
        _ => false,
    }
}
