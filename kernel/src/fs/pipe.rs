//! Pipes, with and without a name: the two ends of a [`Channel`].

use alloc::sync::Arc;
use mm::Errno;

use super::channel::{Channel, Manner, PIPE_BUF};
use super::dentry::Dentry;
use super::file::flags::{O_ACCMODE, O_NONBLOCK, O_RDWR, O_WRONLY};
use super::file::{File, FileOps};
use super::inode::{Body, FileSystem, Inode, S_IFIFO};
use super::io::{Sink, Source};
use super::poll::{Events, Readiness};
use super::small_text::SmallText;
use crate::arch::usercopy::write_user;
use crate::task::thread::current;

const FIONREAD: u32 = 0x541b;

/// One open end of a pipe (or, of a named pipe opened for both, both).
pub struct PipeEnd {
    channel: Arc<Channel>,
    reads: bool,
    writes: bool,
}

impl PipeEnd {
    fn open(channel: &Arc<Channel>, reads: bool, writes: bool) -> PipeEnd {
        channel.open(reads, writes);
        PipeEnd { channel: channel.clone(), reads, writes }
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        self.channel.close(self.reads, self.writes);
    }
}

fn manner(file: &File) -> Manner {
    Manner { nonblocking: file.nonblocking(), messages: false }
}

impl FileOps for PipeEnd {
    fn read(&self, file: &File, sink: &mut Sink<'_>, _offset: u64) -> Result<usize, Errno> {
        self.channel.read(sink, manner(file))
    }

    fn write(&self, file: &File, source: &mut Source<'_>, _offset: u64) -> Result<usize, Errno> {
        let result = self.channel.write(source, manner(file));
        if self.channel.readers() == 0 && source.remaining() > 0 {
            super::send_sigpipe();
        }
        result
    }

    fn poll(&self, _: &File) -> Readiness {
        // The stamp first: a change after it is another stamp.
        let stamp = self.channel.stamp();
        let mut events = Events::empty();
        if self.reads {
            events.set(Events::IN | Events::RDNORM, self.channel.len() > 0);
            let ended = self.channel.writers() == 0 && self.channel.writer_opens() > 0;
            events.set(Events::HUP, ended);
        }
        if self.writes {
            events.set(Events::OUT | Events::WRNORM, self.channel.room() >= PIPE_BUF);
            events.set(Events::ERR, self.channel.readers() == 0);
        }
        Readiness { events, stamp }
    }

    fn ioctl(&self, _: &File, request: u32, argument: usize) -> Result<usize, Errno> {
        match request {
            FIONREAD => {
                write_user(argument, self.channel.len() as i32)?;
                Ok(0)
            }
            _ => Err(Errno::ENOTTY),
        }
    }

    fn pipe(&self) -> Option<&Channel> {
        Some(&self.channel)
    }
}

/// Puts user memory of the current process into the pipe behind `channel`, as [`Channel::lend`] does.
///
/// # Errors
/// Those of that; `EPIPE` is told by a signal too.
pub fn lend(channel: &Channel, source: &mut Source<'_>, nonblocking: bool) -> Result<usize, Errno> {
    let space = current().process().space().ok_or(Errno::EFAULT)?;
    let result = channel.lend(source, &space, nonblocking);
    if result == Err(Errno::EPIPE) {
        super::send_sigpipe();
    }
    result
}

/// A new pipe: the end to read from and the end to write to. `flags` are those
/// of `pipe2`.
///
/// # Errors
/// `ENOMEM`.
pub fn new_pair(flags: u32) -> Result<(Arc<File>, Arc<File>), Errno> {
    let channel = Channel::new()?;
    let inode = Inode::new(FileSystem::Anonymous, S_IFIFO | 0o600, 1, Body::Fifo(channel.clone()))?;
    let name = SmallText::new(format_args!("pipe:[{}]", inode.number));
    let dentry = Dentry::without_parent(name.as_bytes(), inode)?;
    let reader = File::new(dentry.clone(), PipeEnd::open(&channel, true, false), flags)?;
    let writer = File::new(dentry, PipeEnd::open(&channel, false, true), flags | O_WRONLY)?;
    Ok((reader, writer))
}

/// Opens a pipe by name: waits for the other end to be opened too, unless
/// `O_NONBLOCK` or `O_RDWR` is among the flags.
///
/// # Errors
/// `ENXIO` when opened for writing only, without waiting, and nobody reads;
/// `ERESTARTSYS`, `ENOMEM`.
pub fn open_named(dentry: Arc<Dentry>, channel: &Arc<Channel>, flags: u32) -> Result<Arc<File>, Errno> {
    let nonblocking = flags & O_NONBLOCK != 0;
    match flags & O_ACCMODE {
        O_RDWR => File::new(dentry, PipeEnd::open(channel, true, true), flags),
        O_WRONLY => {
            if nonblocking && channel.readers() == 0 {
                return Err(Errno::ENXIO);
            }
            let opens = channel.reader_opens();
            let end = PipeEnd::open(channel, false, true);
            channel.wait_for_reader(opens)?;
            File::new(dentry, end, flags)
        }
        _ => {
            let opens = channel.writer_opens();
            let end = PipeEnd::open(channel, true, false);
            if !nonblocking {
                channel.wait_for_writer(opens)?;
            }
            File::new(dentry, end, flags)
        }
    }
}
