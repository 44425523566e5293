//! Open files: what a file descriptor refers to.
//!
//! A [`File`] is Linux's "open file description": made by one `open`, shared
//! by `dup` and `fork`, with one position and one set of status flags. What
//! reading and writing mean is up to its [`FileOps`].

use core::sync::atomic::{AtomicU32, Ordering};

use alloc::boxed::Box;
use alloc::sync::Arc;
use mm::Errno;

use super::Object;
use super::channel::Channel;
use super::dentry::Dentry;
use super::epoll::Epoll;
use super::inode::{Body, Inode};
use super::io::{Sink, Source};
use super::poll::{Events, Readiness};
use super::sleep_lock::SleepLock;
use super::socket::Socket;

/// Flags of `open`, as the ABI numbers them.
pub mod flags {
    /// The access mode: 0 read, 1 write, 2 both.
    pub const O_ACCMODE: u32 = 3;
    /// Write only.
    pub const O_WRONLY: u32 = 1;
    /// Read and write.
    pub const O_RDWR: u32 = 2;
    /// Create the file if there is none.
    pub const O_CREAT: u32 = 0o100;
    /// With [`O_CREAT`]: the file must not exist.
    pub const O_EXCL: u32 = 0o200;
    /// Cut the contents off.
    pub const O_TRUNC: u32 = 0o1000;
    /// Write at the end.
    pub const O_APPEND: u32 = 0o2000;
    /// Never wait.
    pub const O_NONBLOCK: u32 = 0o4000;
    /// Signal on readiness; not supported by any file here.
    pub const O_ASYNC: u32 = 0o20000;
    /// Bypass caches: accepted, and without effect on memory files.
    pub const O_DIRECT: u32 = 0o40000;
    /// Only a directory will do.
    pub const O_DIRECTORY: u32 = 0o200000;
    /// A symbolic link at the end of the path is an error.
    pub const O_NOFOLLOW: u32 = 0o400000;
    /// Reading leaves the access time alone.
    pub const O_NOATIME: u32 = 0o1000000;
    /// The descriptor is closed by `execve`.
    pub const O_CLOEXEC: u32 = 0o2000000;
    /// Only a place in the tree; no access to the contents.
    pub const O_PATH: u32 = 0o10000000;
    /// A regular file without a name (with [`O_DIRECTORY`]'s bit).
    pub const O_TMPFILE: u32 = 0o20000000 | O_DIRECTORY;
    /// Large files: always on, and shown by `F_GETFL`.
    pub const O_LARGEFILE: u32 = 0o100000;

    /// The flags that `F_SETFL` may change.
    pub const SETTABLE: u32 = O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME | O_ASYNC;
    /// The flags that only matter while opening, and are not kept.
    pub const TRANSIENT: u32 =
        O_CREAT | O_EXCL | O_TRUNC | O_CLOEXEC | 0o400 /* O_NOCTTY */;
}

use flags::*;

/// Where `lseek` may go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Seek {
    /// Nowhere: a stream (`ESPIPE`).
    Stream,
    /// Anywhere; the end is at this byte.
    To(u64),
    /// A device to which the position means nothing: it always stays 0.
    Ignored,
}

/// What the kinds of open files do. The defaults are those of a file that
/// cannot do it.
pub trait FileOps: Send + Sync {
    /// Reads into `sink`, from byte `offset` on where there is such a thing.
    /// Returns 0 at the end of the file.
    fn read(&self, _file: &File, _sink: &mut Sink<'_>, _offset: u64) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }

    /// Writes from `source`, from byte `offset` on where there is such a thing.
    fn write(&self, _file: &File, _source: &mut Source<'_>, _offset: u64) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }

    /// Writes at the end, and returns the count and the offset behind it.
    /// For files that [`seek`](Self::seek) says have an end.
    fn append(&self, _file: &File, _source: &mut Source<'_>) -> Result<(usize, u64), Errno> {
        Err(Errno::EINVAL)
    }

    /// Whether and where the position can be set.
    fn seek(&self, _file: &File) -> Seek {
        Seek::Stream
    }

    /// Lists directory entries from `position` on, until `emit` returns false;
    /// returns the position to go on from.
    fn read_dir(
        &self,
        _file: &File,
        _position: u64,
        _emit: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<u64, Errno> {
        Err(Errno::ENOTDIR)
    }

    /// What could be done without waiting.
    fn poll(&self, _file: &File) -> Readiness {
        Readiness::always(Events::IN | Events::OUT | Events::RDNORM | Events::WRNORM)
    }

    /// A device-specific request.
    fn ioctl(&self, _file: &File, _request: u32, _argument: usize) -> Result<usize, Errno> {
        Err(Errno::ENOTTY)
    }

    /// Whether `mmap` gets anonymous memory for it, as of `/dev/zero`.
    fn maps_as_zero(&self) -> bool {
        false
    }

    /// The channel, if it is an end of a pipe.
    fn pipe(&self) -> Option<&Channel> {
        None
    }

    /// The socket, if it is one.
    fn socket(&self) -> Option<&Socket> {
        None
    }

    /// The epoll instance, if it is one.
    fn epoll(&self) -> Option<&Epoll> {
        None
    }
}

/// One directory entry as `getdents64` shows it.
pub struct DirEntry<'a> {
    /// The position behind this entry.
    pub next: u64,
    /// Inode number.
    pub number: u64,
    /// Mode, of which the type is shown.
    pub mode: u32,
    /// The name.
    pub name: &'a [u8],
}

/// An open file.
pub struct File {
    dentry: Arc<Dentry>,
    ops: Box<dyn FileOps>,
    flags: AtomicU32,
    position: SleepLock<u64>,
}

/// What an `O_PATH` descriptor can do: nothing, which [`File`] sees to.
struct PathOnly;

impl FileOps for PathOnly {}

impl File {
    /// An open file of `dentry` that does what `ops` says. `flags` are
    /// `open`'s; the transient ones are dropped.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new<T: FileOps + 'static>(dentry: Arc<Dentry>, ops: T, flags: u32) -> Result<Arc<File>, Errno> {
        let ops: Box<dyn FileOps> = Box::try_new(ops).map_err(|_| Errno::ENOMEM)?;
        let flags = AtomicU32::new(flags & !TRANSIENT | O_LARGEFILE);
        Arc::try_new(File { dentry, ops, flags, position: SleepLock::new(0) }).map_err(|_| Errno::ENOMEM)
    }

    /// An `O_PATH` file of `dentry`.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn path_only(dentry: Arc<Dentry>, flags: u32) -> Result<Arc<File>, Errno> {
        File::new(dentry, PathOnly, flags & (O_PATH | O_DIRECTORY | O_NOFOLLOW))
    }

    /// The name it was opened by.
    pub fn dentry(&self) -> &Arc<Dentry> {
        &self.dentry
    }

    /// What it is a file of.
    pub fn inode(&self) -> &Arc<Inode> {
        &self.dentry.inode
    }

    /// The status flags and access mode, as `F_GETFL` shows them.
    pub fn flags(&self) -> u32 {
        let flags = self.flags.load(Ordering::Relaxed);
        if flags & O_PATH != 0 { flags & !O_LARGEFILE } else { flags }
    }

    /// Sets the flags that may be changed after `open`.
    pub fn set_flags(&self, flags: u32) {
        let kept = self.flags.load(Ordering::Relaxed) & !SETTABLE;
        self.flags.store(kept | flags & SETTABLE, Ordering::Relaxed);
    }

    /// Whether operations on it must not wait.
    pub fn nonblocking(&self) -> bool {
        self.flags() & O_NONBLOCK != 0
    }

    /// Whether it is open for reading.
    pub fn readable(&self) -> bool {
        self.flags() & O_PATH == 0 && matches!(self.flags() & O_ACCMODE, 0 | O_RDWR)
    }

    /// Whether it is open for writing.
    pub fn writable(&self) -> bool {
        self.flags() & O_PATH == 0 && matches!(self.flags() & O_ACCMODE, O_WRONLY | O_RDWR)
    }

    /// Whether it only stands for a place in the tree.
    pub fn is_path_only(&self) -> bool {
        self.flags() & O_PATH != 0
    }

    /// The memory object with the contents, of a regular file.
    pub fn object(&self) -> Option<Object> {
        match &self.inode().body {
            Body::Regular(file) if !self.is_path_only() => Some(file.object()),
            _ => None,
        }
    }

    /// What it does that this type does not know of.
    pub fn ops(&self) -> &dyn FileOps {
        &*self.ops
    }

    /// Reads at the file's position, and moves it.
    ///
    /// # Errors
    /// `EBADF` if not open for reading, otherwise what the file says.
    pub fn read(&self, sink: &mut Sink<'_>) -> Result<usize, Errno> {
        self.check_readable()?;
        match self.ops.seek(self) {
            Seek::Stream | Seek::Ignored => self.ops.read(self, sink, 0),
            Seek::To(_) => {
                let mut position = self.position.lock()?;
                let count = self.ops.read(self, sink, *position)?;
                *position += count as u64;
                Ok(count)
            }
        }
    }

    /// Reads at `offset`; the file's position stays.
    ///
    /// # Errors
    /// `EBADF`; `ESPIPE` for a stream.
    pub fn read_at(&self, sink: &mut Sink<'_>, offset: u64) -> Result<usize, Errno> {
        if self.is_path_only() {
            return Err(Errno::EBADF);
        }
        self.check_seekable()?;
        self.check_readable()?;
        self.ops.read(self, sink, offset)
    }

    /// Writes at the file's position (or the end, with `O_APPEND`), and moves it.
    ///
    /// # Errors
    /// `EBADF` if not open for writing, otherwise what the file says.
    pub fn write(&self, source: &mut Source<'_>) -> Result<usize, Errno> {
        self.check_writable()?;
        match self.ops.seek(self) {
            Seek::Stream | Seek::Ignored => self.ops.write(self, source, 0),
            Seek::To(_) => {
                let mut position = self.position.lock()?;
                if self.flags() & O_APPEND != 0 {
                    let (count, end) = self.ops.append(self, source)?;
                    *position = end;
                    return Ok(count);
                }
                let count = self.ops.write(self, source, *position)?;
                *position += count as u64;
                Ok(count)
            }
        }
    }

    /// Writes at `offset` (or the end, with `O_APPEND`, as Linux does); the
    /// file's position stays.
    ///
    /// # Errors
    /// `EBADF`; `ESPIPE` for a stream.
    pub fn write_at(&self, source: &mut Source<'_>, offset: u64) -> Result<usize, Errno> {
        if self.is_path_only() {
            return Err(Errno::EBADF);
        }
        self.check_seekable()?;
        self.check_writable()?;
        if self.flags() & O_APPEND != 0 && matches!(self.ops.seek(self), Seek::To(_)) {
            return self.ops.append(self, source).map(|(count, _)| count);
        }
        self.ops.write(self, source, offset)
    }

    /// Moves the position: `whence` is 0 from the start, 1 from where it is,
    /// 2 from the end, 3 to the next data, 4 to the next hole (a file here
    /// counts as all data).
    ///
    /// # Errors
    /// `ESPIPE` for a stream, `EINVAL` for a negative position or unknown
    /// `whence`, `ENXIO` when looking for data beyond the end.
    pub fn seek(&self, offset: i64, whence: u32) -> Result<u64, Errno> {
        if self.is_path_only() {
            return Err(Errno::EBADF);
        }
        let end = match self.ops.seek(self) {
            Seek::Stream => return Err(Errno::ESPIPE),
            Seek::Ignored => return Ok(0),
            Seek::To(end) => end,
        };
        let mut position = self.position.lock()?;
        let base = match whence {
            0 => 0,
            1 => *position as i64,
            2 => end as i64,
            3 | 4 => {
                if offset < 0 || offset as u64 >= end {
                    return Err(Errno::ENXIO);
                }
                *position = if whence == 3 { offset as u64 } else { end };
                return Ok(*position);
            }
            _ => return Err(Errno::EINVAL),
        };
        let target = base.checked_add(offset).ok_or(Errno::EOVERFLOW)?;
        if target < 0 {
            return Err(Errno::EINVAL);
        }
        *position = target as u64;
        Ok(target as u64)
    }

    /// The position.
    ///
    /// # Errors
    /// `ERESTARTSYS` if a signal arrived while waiting for another user of it.
    pub fn position(&self) -> Result<u64, Errno> {
        Ok(*self.position.lock()?)
    }

    /// Lists directory entries at the file's position, and moves it.
    ///
    /// # Errors
    /// `ENOTDIR` if it is no directory.
    pub fn read_dir(&self, emit: &mut dyn FnMut(DirEntry<'_>) -> bool) -> Result<(), Errno> {
        if self.is_path_only() {
            return Err(Errno::EBADF);
        }
        let mut position = self.position.lock()?;
        *position = self.ops.read_dir(self, *position, emit)?;
        Ok(())
    }

    fn check_readable(&self) -> Result<(), Errno> {
        if self.readable() { Ok(()) } else { Err(Errno::EBADF) }
    }

    fn check_writable(&self) -> Result<(), Errno> {
        if self.writable() { Ok(()) } else { Err(Errno::EBADF) }
    }

    fn check_seekable(&self) -> Result<(), Errno> {
        if self.ops.seek(self) == Seek::Stream { Err(Errno::ESPIPE) } else { Ok(()) }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        super::flock::release(self);
    }
}
