//! A one-way channel: what is behind a pipe, and each direction of a socket.
//!
//! The bytes wait in a [`Ring`]. `read` and `written` count bytes since the
//! beginning, so their difference is what is there; they change under the
//! ring's lock and are looked at without it. A write of up to [`PIPE_BUF`]
//! bytes is never mixed with another.
//!
//! A channel carries either a stream of bytes or messages; a message is in the
//! ring as its length, in [`HEADER`] bytes, and its contents.
//!
//! Where user memory ends half way, what was moved of a page of the ring counts as not
//! moved, and of a message or an atomic write nothing was: as on Linux, whose pipes
//! and sockets move whole buffers.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use alloc::sync::Arc;
use mm::Errno;

use super::io::{Sink, Source, partial};
use super::poll::Stamp;
pub use super::ring::CAPACITY;
use super::ring::Ring;
use super::sleep_lock::SleepLock;
use crate::errno::EMSGSIZE;
use crate::task::Space;
use crate::task::wait::WaitQueue;

/// Writes to a stream of up to this size are atomic.
pub const PIPE_BUF: usize = 4096;
/// Bytes of a message's length.
const HEADER: usize = 4;

/// How to read or write.
#[derive(Clone, Copy)]
pub struct Manner {
    /// Fail with `EAGAIN` instead of waiting.
    pub nonblocking: bool,
    /// The channel carries messages.
    pub messages: bool,
}

/// A channel and who has it open.
pub struct Channel {
    ring: SleepLock<Ring>,
    read: AtomicU64,
    written: AtomicU64,
    readers: AtomicU32,
    writers: AtomicU32,
    /// How often an end was opened; what an `open` of a named pipe waits for.
    reader_opens: AtomicU32,
    writer_opens: AtomicU32,
    read_queue: WaitQueue,
    write_queue: WaitQueue,
    stamp: Stamp,
}

impl Channel {
    /// An empty channel that nobody has open.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new() -> Result<Arc<Channel>, Errno> {
        let channel = Channel {
            ring: SleepLock::new(Ring::new()),
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
            readers: AtomicU32::new(0),
            writers: AtomicU32::new(0),
            reader_opens: AtomicU32::new(0),
            writer_opens: AtomicU32::new(0),
            read_queue: WaitQueue::new(),
            write_queue: WaitQueue::new(),
            stamp: Stamp::new(),
        };
        Arc::try_new(channel).map_err(|_| Errno::ENOMEM)
    }

    /// Bytes that are there.
    pub fn len(&self) -> usize {
        // `read` first: it never overtakes a `written` that is looked at later.
        let read = self.read.load(Ordering::Acquire);
        (self.written.load(Ordering::Acquire) - read) as usize
    }

    /// Bytes that fit.
    pub fn room(&self) -> usize {
        CAPACITY.saturating_sub(self.len())
    }

    /// How many have it open for reading.
    pub fn readers(&self) -> u32 {
        self.readers.load(Ordering::Acquire)
    }

    /// How many have it open for writing.
    pub fn writers(&self) -> u32 {
        self.writers.load(Ordering::Acquire)
    }

    /// How often it was opened for reading.
    pub fn reader_opens(&self) -> u32 {
        self.reader_opens.load(Ordering::Acquire)
    }

    /// How often it was opened for writing.
    pub fn writer_opens(&self) -> u32 {
        self.writer_opens.load(Ordering::Acquire)
    }

    /// See [`Stamp`].
    pub fn stamp(&self) -> u64 {
        self.stamp.get()
    }

    /// Counts a reader, a writer, or both, in.
    pub fn open(&self, reads: bool, writes: bool) {
        if reads {
            self.readers.fetch_add(1, Ordering::AcqRel);
            self.reader_opens.fetch_add(1, Ordering::AcqRel);
        }
        if writes {
            self.writers.fetch_add(1, Ordering::AcqRel);
            self.writer_opens.fetch_add(1, Ordering::AcqRel);
        }
        self.changed();
    }

    /// Counts a reader, a writer, or both, out.
    pub fn close(&self, reads: bool, writes: bool) {
        if reads {
            self.readers.fetch_sub(1, Ordering::AcqRel);
        }
        if writes {
            self.writers.fetch_sub(1, Ordering::AcqRel);
        }
        self.forget_unless_open();
        self.changed();
    }

    /// What nobody can read any more is gone: who opens a named pipe again finds it empty.
    fn forget_unless_open(&self) {
        let is_closed = || self.readers() == 0 && self.writers() == 0;
        // Else somebody has just opened it, and uses it.
        if is_closed()
            && let Some(mut ring) = self.ring.try_lock()
            && is_closed()
        {
            *ring = Ring::new();
            self.read.store(self.written.load(Ordering::Relaxed), Ordering::Release);
        }
    }

    /// Waits until it has been opened for reading since `opens` was
    /// [`reader_opens`](Self::reader_opens), or is open.
    ///
    /// # Errors
    /// `ERESTARTSYS`.
    pub fn wait_for_reader(&self, opens: u32) -> Result<(), Errno> {
        self.write_queue.wait_until(|| (self.reader_opens() != opens || self.readers() > 0).then_some(()))
    }

    /// As [`wait_for_reader`](Self::wait_for_reader), for a writer.
    ///
    /// # Errors
    /// `ERESTARTSYS`.
    pub fn wait_for_writer(&self, opens: u32) -> Result<(), Errno> {
        self.read_queue.wait_until(|| (self.writer_opens() != opens || self.writers() > 0).then_some(()))
    }

    /// Tells everybody that bytes, room or ends have come or gone.
    fn changed(&self) {
        self.read_queue.wake_all();
        self.write_queue.wake_all();
        self.stamp.change();
    }

    /// Moves what is there into `sink`, without waiting.
    fn take_bytes(&self, sink: &mut Sink<'_>) -> Result<usize, Errno> {
        let mut ring = self.ring.lock()?;
        let at = self.read.load(Ordering::Relaxed);
        let done = ring.copy_out(at, sink, self.len())?;
        ring.give_back(at, done);
        self.read.fetch_add(done as u64, Ordering::Release);
        Ok(done)
    }

    /// Moves one message into `sink`, or as much of it as fits, without
    /// waiting. The rest of the message is lost.
    fn take_message(&self, sink: &mut Sink<'_>) -> Result<Option<usize>, Errno> {
        let ring = self.ring.lock()?;
        if self.len() == 0 {
            return Ok(None);
        }
        let at = self.read.load(Ordering::Relaxed);
        let mut header = [0; HEADER];
        ring.copy_out(at, &mut Sink::kernel(&mut header), HEADER)?;
        let len = u32::from_le_bytes(header) as usize;
        let wanted = len.min(sink.remaining());
        let done = ring.copy_out(at + HEADER as u64, sink, len);
        self.read.fetch_add((HEADER + len) as u64, Ordering::Release);
        if done? < wanted { Err(Errno::EFAULT) } else { Ok(Some(wanted)) }
    }

    /// Moves bytes from `source` into the ring, without waiting, if there is
    /// room for at least `least`; fewer are not moved.
    fn put_bytes(&self, source: &mut Source<'_>, least: usize) -> Result<usize, Errno> {
        let mut ring = self.ring.lock()?;
        if self.room() < least {
            return Ok(0);
        }
        let at = self.written.load(Ordering::Relaxed);
        let done = ring.copy_in(at, source, self.room())?;
        if done < least {
            return Err(Errno::EFAULT);
        }
        self.written.fetch_add(done as u64, Ordering::Release);
        Ok(done)
    }

    /// Takes bytes from user memory of `space` into the ring, without waiting: whole pages as they are, where that can be.
    fn lend_bytes(&self, source: &mut Source<'_>, space: &Space) -> Result<usize, Errno> {
        let mut ring = self.ring.lock()?;
        let at = self.written.load(Ordering::Relaxed);
        let done = ring.lend(at, source, self.room(), space)?;
        self.written.fetch_add(done as u64, Ordering::Release);
        Ok(done)
    }

    /// Moves all of `source` into the ring as one message, if there is room.
    fn put_message(&self, source: &mut Source<'_>) -> Result<usize, Errno> {
        let mut ring = self.ring.lock()?;
        let len = source.remaining();
        if self.room() < HEADER + len {
            return Ok(0);
        }
        let at = self.written.load(Ordering::Relaxed);
        let header = (len as u32).to_le_bytes();
        ring.copy_in(at, &mut Source::kernel(&header), HEADER)?;
        if ring.copy_in(at + HEADER as u64, source, len)? < len {
            return Err(Errno::EFAULT);
        }
        self.written.fetch_add((HEADER + len) as u64, Ordering::Release);
        Ok(len)
    }

    /// Reads what is there, waiting for something to come; 0 at the end.
    ///
    /// # Errors
    /// `EAGAIN`, `EFAULT`, `ERESTARTSYS`.
    pub fn read(&self, sink: &mut Sink<'_>, manner: Manner) -> Result<usize, Errno> {
        if sink.remaining() == 0 {
            return Ok(0);
        }
        loop {
            // Before looking for bytes: what the last writer wrote comes first.
            let closed = self.writers() == 0;
            let taken = if manner.messages {
                self.take_message(sink)?
            } else {
                Some(self.take_bytes(sink)?).filter(|&count| count > 0)
            };
            if let Some(count) = taken {
                self.changed();
                return Ok(count);
            }
            if closed {
                return Ok(0);
            }
            if manner.nonblocking {
                return Err(Errno::EAGAIN);
            }
            self.read_queue.wait_until(|| (self.len() > 0 || self.writers() == 0).then_some(()))?;
        }
    }

    /// Writes all of `source`, waiting for room.
    ///
    /// # Errors
    /// `EPIPE` when nobody reads; `EMSGSIZE` for a message that never fits;
    /// `EAGAIN`, `EFAULT`, `ENOMEM`, `ERESTARTSYS` before the first byte.
    pub fn write(&self, source: &mut Source<'_>, manner: Manner) -> Result<usize, Errno> {
        let total = source.remaining();
        if total == 0 {
            return Ok(0);
        }
        let least = match total {
            _ if manner.messages => total + HEADER,
            _ if total <= PIPE_BUF => total,
            _ => 1,
        };
        if least > CAPACITY {
            return Err(EMSGSIZE);
        }
        let mut done = 0;
        loop {
            if self.readers() == 0 {
                return partial(done, Errno::EPIPE);
            }
            let put = if manner.messages { self.put_message(source) } else { self.put_bytes(source, least) };
            match put {
                Ok(0) => {}
                Ok(count) => {
                    done += count;
                    self.changed();
                }
                Err(error) => return partial(done, error),
            }
            if done == total || least > 1 && done > 0 {
                return Ok(done);
            }
            if manner.nonblocking {
                return partial(done, Errno::EAGAIN);
            }
            let ready = || (self.room() >= least || self.readers() == 0).then_some(());
            if let Err(error) = self.write_queue.wait_until(ready) {
                return partial(done, error);
            }
        }
    }

    /// Takes as much of user memory of `space` as there is room for, waiting for some; see [`Ring::lend`].
    ///
    /// # Errors
    /// `EPIPE` when nobody reads; `EAGAIN`, `EFAULT`, `ENOMEM`, `ERESTARTSYS`.
    pub fn lend(&self, source: &mut Source<'_>, space: &Space, nonblocking: bool) -> Result<usize, Errno> {
        loop {
            if self.readers() == 0 {
                return Err(Errno::EPIPE);
            }
            let count = self.lend_bytes(source, space)?;
            if count > 0 {
                self.changed();
                return Ok(count);
            }
            if nonblocking {
                return Err(Errno::EAGAIN);
            }
            self.write_queue.wait_until(|| (self.room() > 0 || self.readers() == 0).then_some(()))?;
        }
    }
}
