//! Pipes, with and without a name.
//!
//! The bytes wait in a ring of [`PAGES`] frames, each allocated when it is
//! first needed. `read` and `written` count bytes since the beginning, so
//! their difference is what is there; they change under the ring's lock and
//! are looked at without it. A write of up to [`PIPE_BUF`] bytes is never
//! mixed with another.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use alloc::sync::Arc;
use mm::{Errno, PAGE_SIZE};

use super::dentry::Dentry;
use super::file::flags::{O_ACCMODE, O_NONBLOCK, O_RDWR, O_WRONLY};
use super::file::{File, FileOps};
use super::inode::{Body, FileSystem, Inode, S_IFIFO};
use super::io::{Sink, Source, partial};
use super::page::Page;
use super::poll::{Events, Readiness, Stamp};
use super::sleep_lock::SleepLock;
use super::small_text::SmallText;
use crate::arch::usercopy::write_user;
use crate::task::wait::WaitQueue;

const PAGES: usize = 16;
/// How much a pipe holds, in bytes.
pub const CAPACITY: usize = PAGES * PAGE_SIZE;
/// Writes up to this size are atomic.
const PIPE_BUF: usize = 4096;
const FIONREAD: u32 = 0x541b;

/// What both ends of a pipe share.
pub struct Pipe {
    ring: SleepLock<[Option<Page>; PAGES]>,
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

impl Pipe {
    /// An empty pipe that nobody has open.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new() -> Result<Arc<Pipe>, Errno> {
        let pipe = Pipe {
            ring: SleepLock::new([const { None }; PAGES]),
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
        Arc::try_new(pipe).map_err(|_| Errno::ENOMEM)
    }

    fn len(&self) -> usize {
        // `read` first: it never overtakes a `written` that is looked at later.
        let read = self.read.load(Ordering::Acquire);
        (self.written.load(Ordering::Acquire) - read) as usize
    }

    fn room(&self) -> usize {
        CAPACITY.saturating_sub(self.len())
    }

    fn readers(&self) -> u32 {
        self.readers.load(Ordering::Acquire)
    }

    fn writers(&self) -> u32 {
        self.writers.load(Ordering::Acquire)
    }

    /// Tells everybody that bytes, room or ends have come or gone.
    fn changed(&self) {
        self.read_queue.wake_all();
        self.write_queue.wake_all();
        self.stamp.change();
    }

    /// Moves what is there into `sink`, without waiting.
    fn take(&self, sink: &mut Sink<'_>) -> Result<usize, Errno> {
        let ring = self.ring.lock()?;
        let mut done = 0;
        loop {
            let at = self.read.load(Ordering::Relaxed) as usize;
            let start = at % PAGE_SIZE;
            let count = self.len().min(PAGE_SIZE - start).min(sink.remaining());
            let Some(page) = ring[at / PAGE_SIZE % PAGES].as_ref().filter(|_| count > 0) else {
                return Ok(done);
            };
            match sink.put(&page.bytes()[start..start + count]) {
                Ok(count) => {
                    self.read.fetch_add(count as u64, Ordering::Release);
                    done += count;
                }
                Err(error) => return partial(done, error),
            }
        }
    }

    /// Moves bytes from `source` into the ring, without waiting, if there is
    /// room for at least `least`.
    fn put(&self, source: &mut Source<'_>, least: usize) -> Result<usize, Errno> {
        let mut ring = self.ring.lock()?;
        if self.room() < least {
            return Ok(0);
        }
        let mut done = 0;
        loop {
            let at = self.written.load(Ordering::Relaxed) as usize;
            let start = at % PAGE_SIZE;
            let count = self.room().min(PAGE_SIZE - start).min(source.remaining());
            if count == 0 {
                return Ok(done);
            }
            match put_in_page(&mut ring[at / PAGE_SIZE % PAGES], source, start, count) {
                Ok(count) => {
                    self.written.fetch_add(count as u64, Ordering::Release);
                    done += count;
                }
                Err(error) => return partial(done, error),
            }
        }
    }

    fn read(&self, sink: &mut Sink<'_>, nonblocking: bool) -> Result<usize, Errno> {
        if sink.remaining() == 0 {
            return Ok(0);
        }
        loop {
            // Before looking for bytes: what the last writer wrote comes first.
            let closed = self.writers() == 0;
            let count = self.take(sink)?;
            if count > 0 {
                self.changed();
                return Ok(count);
            }
            if closed {
                return Ok(0);
            }
            if nonblocking {
                return Err(Errno::EAGAIN);
            }
            self.read_queue.wait_until(|| (self.len() > 0 || self.writers() == 0).then_some(()))?;
        }
    }

    fn write(&self, source: &mut Source<'_>, nonblocking: bool) -> Result<usize, Errno> {
        let total = source.remaining();
        if total == 0 {
            return Ok(0);
        }
        let least = if total <= PIPE_BUF { total } else { 1 };
        let mut done = 0;
        loop {
            if self.readers() == 0 {
                super::send_sigpipe();
                return partial(done, Errno::EPIPE);
            }
            match self.put(source, least) {
                Ok(0) => {}
                Ok(count) => {
                    done += count;
                    self.changed();
                }
                Err(error) => return partial(done, error),
            }
            if done == total || least == total && done > 0 {
                return Ok(done);
            }
            if nonblocking {
                return partial(done, Errno::EAGAIN);
            }
            let ready = || (self.room() >= least || self.readers() == 0).then_some(());
            if let Err(error) = self.write_queue.wait_until(ready) {
                return partial(done, error);
            }
        }
    }
}

/// Fills `count` bytes of a ring page from `start` on, or fewer if the source
/// faults.
fn put_in_page(slot: &mut Option<Page>, source: &mut Source<'_>, start: usize, count: usize) -> Result<usize, Errno> {
    let page = match slot {
        Some(page) => page,
        None => slot.insert(Page::new()?),
    };
    source.take(&mut page.bytes_mut()[start..start + count])
}

/// One open end of a pipe (or, of a named pipe opened for both, both).
pub struct PipeEnd {
    pipe: Arc<Pipe>,
    reads: bool,
    writes: bool,
}

impl PipeEnd {
    fn open(pipe: &Arc<Pipe>, reads: bool, writes: bool) -> PipeEnd {
        if reads {
            pipe.readers.fetch_add(1, Ordering::AcqRel);
            pipe.reader_opens.fetch_add(1, Ordering::AcqRel);
        }
        if writes {
            pipe.writers.fetch_add(1, Ordering::AcqRel);
            pipe.writer_opens.fetch_add(1, Ordering::AcqRel);
        }
        pipe.changed();
        PipeEnd { pipe: pipe.clone(), reads, writes }
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        if self.reads {
            self.pipe.readers.fetch_sub(1, Ordering::AcqRel);
        }
        if self.writes {
            self.pipe.writers.fetch_sub(1, Ordering::AcqRel);
        }
        self.pipe.changed();
    }
}

impl FileOps for PipeEnd {
    fn read(&self, file: &File, sink: &mut Sink<'_>, _offset: u64) -> Result<usize, Errno> {
        self.pipe.read(sink, file.nonblocking())
    }

    fn write(&self, file: &File, source: &mut Source<'_>, _offset: u64) -> Result<usize, Errno> {
        self.pipe.write(source, file.nonblocking())
    }

    fn poll(&self, _: &File) -> Readiness {
        // The stamp first: a change after it is another stamp.
        let stamp = self.pipe.stamp.get();
        let mut events = Events::empty();
        if self.reads {
            events.set(Events::IN | Events::RDNORM, self.pipe.len() > 0);
            let ended = self.pipe.writers() == 0 && self.pipe.writer_opens.load(Ordering::Relaxed) > 0;
            events.set(Events::HUP, ended);
        }
        if self.writes {
            events.set(Events::OUT | Events::WRNORM, self.pipe.room() >= PIPE_BUF);
            events.set(Events::ERR, self.pipe.readers() == 0);
        }
        Readiness { events, stamp }
    }

    fn ioctl(&self, _: &File, request: u32, argument: usize) -> Result<usize, Errno> {
        match request {
            FIONREAD => {
                write_user(argument, self.pipe.len() as i32)?;
                Ok(0)
            }
            _ => Err(Errno::ENOTTY),
        }
    }

    fn pipe(&self) -> Option<&Arc<Pipe>> {
        Some(&self.pipe)
    }
}

/// A new pipe: the end to read from and the end to write to. `flags` are those
/// of `pipe2`.
///
/// # Errors
/// `ENOMEM`.
pub fn new_pair(flags: u32) -> Result<(Arc<File>, Arc<File>), Errno> {
    let pipe = Pipe::new()?;
    let inode = Inode::new(FileSystem::Anonymous, S_IFIFO | 0o600, 1, Body::Fifo(pipe.clone()))?;
    let name = SmallText::new(format_args!("pipe:[{}]", inode.number));
    let dentry = Dentry::without_parent(name.as_bytes(), inode)?;
    let reader = File::new(dentry.clone(), PipeEnd::open(&pipe, true, false), flags)?;
    let writer = File::new(dentry, PipeEnd::open(&pipe, false, true), flags | O_WRONLY)?;
    Ok((reader, writer))
}

/// Opens a pipe by name: waits for the other end to be opened too, unless
/// `O_NONBLOCK` or `O_RDWR` is among the flags.
///
/// # Errors
/// `ENXIO` when opened for writing only, without waiting, and nobody reads;
/// `ERESTARTSYS`, `ENOMEM`.
pub fn open_named(dentry: Arc<Dentry>, pipe: &Arc<Pipe>, flags: u32) -> Result<Arc<File>, Errno> {
    let nonblocking = flags & O_NONBLOCK != 0;
    match flags & O_ACCMODE {
        O_RDWR => File::new(dentry, PipeEnd::open(pipe, true, true), flags),
        O_WRONLY => {
            if nonblocking && pipe.readers() == 0 {
                return Err(Errno::ENXIO);
            }
            let opens = pipe.reader_opens.load(Ordering::Acquire);
            let end = PipeEnd::open(pipe, false, true);
            pipe.write_queue.wait_until(|| {
                let opened = pipe.reader_opens.load(Ordering::Acquire) != opens;
                (opened || pipe.readers() > 0).then_some(())
            })?;
            File::new(dentry, end, flags)
        }
        _ => {
            let opens = pipe.writer_opens.load(Ordering::Acquire);
            let end = PipeEnd::open(pipe, true, false);
            if !nonblocking {
                pipe.read_queue.wait_until(|| {
                    let opened = pipe.writer_opens.load(Ordering::Acquire) != opens;
                    (opened || pipe.writers() > 0).then_some(())
                })?;
            }
            File::new(dentry, end, flags)
        }
    }
}
