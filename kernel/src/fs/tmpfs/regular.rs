//! Regular files: contents in a memory object, and the seals of a memfd.

use core::sync::atomic::{AtomicU32, Ordering};

use alloc::sync::Arc;
use bitflags::bitflags;
use mm::{Errno, FrameKind};

use crate::fs::Object;
use crate::fs::claim::{Claim, Claims};
use crate::fs::file::{File, FileOps, Seek};
use crate::fs::inode::{Body, FileSystem, Inode, next_number};
use crate::fs::io::{Sink, Source, partial, should_stop};
use crate::fs::poll::{Events, Readiness};
use crate::fs::sleep_lock::SleepLock;
use crate::memory::memory;

/// Bytes copied at once between a file and a user.
const CHUNK: usize = 1024;
/// The largest offset of a file, in bytes.
const MAX_SIZE: u64 = mm::MAX_OBJECT_SIZE;

bitflags! {
    /// `F_SEAL_*`: what may no longer be done to a memfd.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub struct Seals: u32 {
        /// Add seals.
        const SEAL = 1;
        /// Become shorter.
        const SHRINK = 2;
        /// Become longer.
        const GROW = 4;
        /// Be written.
        const WRITE = 8;
        /// Be written except through mappings that exist.
        const FUTURE_WRITE = 16;
        /// Change its execute permissions.
        const EXEC = 32;
    }
}

/// A regular file's contents.
pub struct Regular {
    object: Object,
    seals: AtomicU32,
    claims: Claims,
    /// Held while the length or, in a write, the contents change.
    writer: SleepLock<()>,
}

impl Regular {
    /// The inode of a new, empty file; `name` is shown for its mappings.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new_inode(file_system: FileSystem, mode: u32, seals: Seals, name: &[u8]) -> Result<Arc<Inode>, Errno> {
        let number = next_number();
        let object = memory().create_object(number, name)?;
        let file =
            Regular { object, seals: AtomicU32::new(seals.bits()), claims: Claims::new(0), writer: SleepLock::new(()) };
        let links = u32::from(file_system != FileSystem::Anonymous);
        Inode::with_number(number, file_system, mode, links, Body::Regular(file))
    }

    /// Who writes or executes it.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The memory object with the contents.
    pub fn object(&self) -> Object {
        self.object.clone()
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.object.size()
    }

    /// Pages of memory in use.
    pub fn resident_pages(&self) -> u64 {
        self.object.pages() as u64
    }

    /// Sets the name shown for its mappings.
    pub fn set_name(&self, name: &[u8]) {
        self.object.set_name(name);
    }

    /// The seals.
    pub fn seals(&self) -> Seals {
        Seals::from_bits_truncate(self.seals.load(Ordering::Relaxed))
    }

    /// Adds seals.
    ///
    /// # Errors
    /// `EPERM` when sealed against it (as all but memfds made for it are).
    pub fn add_seals(&self, seals: Seals) -> Result<(), Errno> {
        let _writer = self.writer.lock()?;
        if self.seals().contains(Seals::SEAL) {
            return Err(Errno::EPERM);
        }
        self.seals.fetch_or(seals.bits(), Ordering::Relaxed);
        Ok(())
    }

    /// Cuts the file off, or extends it with zeroes.
    ///
    /// # Errors
    /// `EFBIG`; `EPERM` when sealed.
    pub fn set_len(&self, len: u64) -> Result<(), Errno> {
        let _writer = self.writer.lock()?;
        self.check_len(len)?;
        self.object.set_size(len)?;
        Ok(())
    }

    /// Checks that `offset..offset + len` could be stored, and makes the file
    /// reach to its end if `extend`. Memory is not set aside.
    ///
    /// # Errors
    /// `EFBIG`, `ENOSPC`; `EPERM` when sealed.
    pub fn allocate(&self, offset: u64, len: u64, extend: bool) -> Result<(), Errno> {
        let _writer = self.writer.lock()?;
        let end = offset.checked_add(len).filter(|&end| end <= MAX_SIZE).ok_or(Errno::EFBIG)?;
        if end.div_ceil(mm::PAGE_SIZE as u64) > space_limit() as u64 {
            return Err(Errno::ENOSPC);
        }
        if extend && end > self.len() {
            self.check_len(end)?;
            self.object.set_size(end)?;
        }
        Ok(())
    }

    /// Zeroes a range without changing the length.
    ///
    /// # Errors
    /// `EPERM` when sealed.
    pub fn punch_hole(&self, offset: u64, len: u64) -> Result<(), Errno> {
        let _writer = self.writer.lock()?;
        self.check_write()?;
        self.object.punch_hole(offset, offset.saturating_add(len));
        Ok(())
    }

    fn check_len(&self, len: u64) -> Result<(), Errno> {
        let seals = self.seals();
        if len > MAX_SIZE {
            return Err(Errno::EFBIG);
        }
        if len > self.len() && seals.contains(Seals::GROW) || len < self.len() && seals.contains(Seals::SHRINK) {
            return Err(Errno::EPERM);
        }
        Ok(())
    }

    fn check_write(&self) -> Result<(), Errno> {
        if self.seals().intersects(Seals::WRITE | Seals::FUTURE_WRITE) {
            return Err(Errno::EPERM);
        }
        Ok(())
    }

    fn read(&self, sink: &mut Sink<'_>, offset: u64) -> Result<usize, Errno> {
        let mut buffer = [0; CHUNK];
        let mut done = 0;
        loop {
            let at = offset.saturating_add(done as u64);
            let left = self.len().saturating_sub(at);
            let count = (CHUNK.min(sink.remaining()) as u64).min(left) as usize;
            if count == 0 {
                return Ok(done);
            }
            let count = self.object.read(at, &mut buffer[..count]);
            let count = match sink.put(&buffer[..count]) {
                Ok(count) => count,
                Err(error) => return partial(done, error),
            };
            done += count;
            if count == 0 || should_stop(done, count) {
                return Ok(done);
            }
        }
    }

    /// Writes at `offset`.
    ///
    /// # Errors
    /// `EFBIG`, `ENOSPC`, `EFAULT` when nothing was written; `EPERM` when sealed.
    pub fn write(&self, source: &mut Source<'_>, offset: u64) -> Result<usize, Errno> {
        let _writer = self.writer.lock()?;
        self.write_locked(source, offset)
    }

    /// As [`write`](Self::write), with `writer` held.
    fn write_locked(&self, source: &mut Source<'_>, offset: u64) -> Result<usize, Errno> {
        self.check_write()?;
        let mut buffer = [0; CHUNK];
        let mut done = 0;
        while source.remaining() > 0 {
            let at = offset.saturating_add(done as u64);
            let count = match self.write_chunk(source, at, &mut buffer) {
                Ok(count) => count,
                Err(error) => return partial(done, error),
            };
            done += count;
            if count == 0 || should_stop(done, count) {
                break;
            }
        }
        Ok(done)
    }

    fn write_chunk(&self, source: &mut Source<'_>, at: u64, buffer: &mut [u8; CHUNK]) -> Result<usize, Errno> {
        let room = MAX_SIZE.saturating_sub(at).min(CHUNK as u64) as usize;
        if room == 0 {
            return Err(Errno::EFBIG);
        }
        if memory().count_frames(FrameKind::Object) >= space_limit() {
            return Err(Errno::ENOSPC);
        }
        let count = source.take(&mut buffer[..room])?;
        let end = at + count as u64;
        if end > self.len() {
            self.check_len(end)?;
        }
        Ok(self.object.write(at, &buffer[..count])?)
    }
}

/// The most pages that files may take together: half of all, as on Linux.
pub fn space_limit() -> usize {
    memory().total_frames() / 2
}

/// An open regular file, with its claim to be written or executed, if any.
pub struct RegularFile(#[expect(dead_code, reason = "held until the file is closed")] pub Option<Claim>);

impl RegularFile {
    fn contents(file: &File) -> Result<&Regular, Errno> {
        match &file.inode().body {
            Body::Regular(contents) => Ok(contents),
            _ => Err(Errno::EINVAL),
        }
    }
}

impl FileOps for RegularFile {
    fn read(&self, file: &File, sink: &mut Sink<'_>, offset: u64) -> Result<usize, Errno> {
        let count = RegularFile::contents(file)?.read(sink, offset)?;
        file.inode().touch_accessed();
        Ok(count)
    }

    fn write(&self, file: &File, source: &mut Source<'_>, offset: u64) -> Result<usize, Errno> {
        let count = RegularFile::contents(file)?.write(source, offset)?;
        file.inode().touch_modified();
        Ok(count)
    }

    fn append(&self, file: &File, source: &mut Source<'_>) -> Result<(usize, u64), Errno> {
        let contents = RegularFile::contents(file)?;
        let _writer = contents.writer.lock()?;
        let offset = contents.len();
        let count = contents.write_locked(source, offset)?;
        file.inode().touch_modified();
        Ok((count, offset + count as u64))
    }

    fn seek(&self, file: &File) -> Seek {
        Seek::To(RegularFile::contents(file).map_or(0, Regular::len))
    }

    fn poll(&self, _: &File) -> Readiness {
        Readiness::always(Events::IN | Events::OUT | Events::RDNORM | Events::WRNORM)
    }

    fn ioctl(&self, file: &File, request: u32, argument: usize) -> Result<usize, Errno> {
        const FIONREAD: u32 = 0x541b;
        match request {
            FIONREAD => {
                let position = file.position()?;
                let left = RegularFile::contents(file)?.len().saturating_sub(position);
                crate::arch::usercopy::write_user(argument, left.min(i32::MAX as u64) as i32)?;
                Ok(0)
            }
            _ => Err(Errno::ENOTTY),
        }
    }
}
