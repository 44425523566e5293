//! Event counters (`eventfd`).

use alloc::sync::Arc;
use mm::Errno;

use super::dentry::Dentry;
use super::file::flags::O_RDWR;
use super::file::{File, FileOps};
use super::inode::{Body, FileSystem, Inode};
use super::io::{Sink, Source};
use super::poll::{Events, Readiness, Stamp};
use crate::arch::irq::Mutex;
use crate::task::wait::WaitQueue;

/// The largest value of a counter.
const MAX: u64 = u64::MAX - 1;

/// A counter that `write` adds to and `read` takes from.
pub struct EventFd {
    counter: Mutex<u64>,
    /// `read` takes 1 instead of everything.
    semaphore: bool,
    waiters: WaitQueue,
    stamp: Stamp,
}

impl EventFd {
    fn try_take(&self) -> Option<u64> {
        let mut counter = self.counter.lock();
        let taken = if self.semaphore { (*counter).min(1) } else { *counter };
        *counter -= taken;
        (taken > 0).then_some(taken)
    }

    fn try_add(&self, value: u64) -> Option<()> {
        let mut counter = self.counter.lock();
        if value > MAX - *counter {
            return None;
        }
        *counter += value;
        Some(())
    }

    /// Calls `attempt` until it succeeds, waiting in between.
    fn retry<T>(&self, file: &File, mut attempt: impl FnMut() -> Option<T>) -> Result<T, Errno> {
        let result = match attempt() {
            Some(result) => result,
            None if file.nonblocking() => return Err(Errno::EAGAIN),
            None => self.waiters.wait_until(attempt)?,
        };
        self.waiters.wake_all();
        self.stamp.change();
        Ok(result)
    }
}

impl FileOps for EventFd {
    fn read(&self, file: &File, sink: &mut Sink<'_>, _offset: u64) -> Result<usize, Errno> {
        if sink.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let value = self.retry(file, || self.try_take())?;
        sink.put(&value.to_le_bytes())
    }

    fn write(&self, file: &File, source: &mut Source<'_>, _offset: u64) -> Result<usize, Errno> {
        let mut value = [0; 8];
        if source.remaining() < 8 || source.take(&mut value)? < 8 {
            return Err(Errno::EINVAL);
        }
        let value = u64::from_le_bytes(value);
        if value > MAX {
            return Err(Errno::EINVAL);
        }
        self.retry(file, || self.try_add(value))?;
        Ok(8)
    }

    fn poll(&self, _: &File) -> Readiness {
        let stamp = self.stamp.get();
        let counter = *self.counter.lock();
        let mut events = Events::empty();
        events.set(Events::IN | Events::RDNORM, counter > 0);
        events.set(Events::OUT | Events::WRNORM, counter < MAX);
        Readiness { events, stamp }
    }
}

/// A new counter; `flags` are `open`'s.
///
/// # Errors
/// `ENOMEM`.
pub fn new_file(initial: u32, semaphore: bool, flags: u32) -> Result<Arc<File>, Errno> {
    let inode = Inode::new(FileSystem::Anonymous, 0o600, 1, Body::Anonymous)?;
    let dentry = Dentry::without_parent(b"anon_inode:[eventfd]", inode)?;
    let counter =
        EventFd { counter: Mutex::new(initial.into()), semaphore, waiters: WaitQueue::new(), stamp: Stamp::new() };
    File::new(dentry, counter, flags | O_RDWR)
}
