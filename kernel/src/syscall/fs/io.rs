//! Reading, writing and resizing.

use mm::{Errno, PAGE_SIZE};

use super::{AT_FDCWD, Result, files, read_path, usable, walk_at};
use crate::arch::usercopy::{read_user, write_user};
use crate::fs::File;
use crate::fs::claim::Claim;
use crate::fs::file::Seek;
use crate::fs::inode::{Body, Inode};
use crate::fs::io::{MAX_TRANSFER, Sink, Source, partial, should_stop};
use crate::fs::page::Page;

/// An offset that must not be negative.
fn offset(value: i64) -> Result<u64> {
    u64::try_from(value).map_err(|_| Errno::EINVAL)
}

pub fn read(fd: i32, buffer: usize, len: usize) -> Result<usize> {
    usable(fd)?.read(&mut Sink::user(buffer, len)?)
}

pub fn write(fd: i32, buffer: usize, len: usize) -> Result<usize> {
    usable(fd)?.write(&mut Source::user(buffer, len)?)
}

pub fn read_at(fd: i32, buffer: usize, len: usize, at: i64) -> Result<usize> {
    let at = offset(at)?;
    usable(fd)?.read_at(&mut Sink::user(buffer, len)?, at)
}

pub fn write_at(fd: i32, buffer: usize, len: usize, at: i64) -> Result<usize> {
    let at = offset(at)?;
    usable(fd)?.write_at(&mut Source::user(buffer, len)?, at)
}

pub fn read_vector(fd: i32, list: usize, count: usize) -> Result<usize> {
    usable(fd)?.read(&mut Sink::user_vector(list, count)?)
}

pub fn write_vector(fd: i32, list: usize, count: usize) -> Result<usize> {
    usable(fd)?.write(&mut Source::user_vector(list, count)?)
}

pub fn read_vector_at(fd: i32, list: usize, count: usize, at: i64) -> Result<usize> {
    let at = offset(at)?;
    usable(fd)?.read_at(&mut Sink::user_vector(list, count)?, at)
}

pub fn write_vector_at(fd: i32, list: usize, count: usize, at: i64) -> Result<usize> {
    let at = offset(at)?;
    usable(fd)?.write_at(&mut Source::user_vector(list, count)?, at)
}

/// `preadv2`: an offset of -1 is the file's position. No flag is supported.
pub fn read_vector_flags(fd: i32, list: usize, count: usize, at: i64, flags: u32) -> Result<usize> {
    match (flags, at) {
        (0, -1) => read_vector(fd, list, count),
        (0, _) => read_vector_at(fd, list, count, at),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// `pwritev2`: as [`read_vector_flags`].
pub fn write_vector_flags(fd: i32, list: usize, count: usize, at: i64, flags: u32) -> Result<usize> {
    match (flags, at) {
        (0, -1) => write_vector(fd, list, count),
        (0, _) => write_vector_at(fd, list, count, at),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

pub fn seek(fd: i32, to: i64, whence: u32) -> Result<usize> {
    files()?.get(fd)?.seek(to, whence).map(|position| position as usize)
}

/// Advice that is taken by doing nothing.
pub fn check(fd: i32) -> Result<usize> {
    usable(fd).map(|_| 0)
}

fn set_len(inode: &Inode, len: i64) -> Result<usize> {
    let len = offset(len)?;
    match &inode.body {
        Body::Regular(contents) => {
            contents.set_len(len)?;
            inode.touch_modified();
            Ok(0)
        }
        _ if inode.is_directory() => Err(Errno::EISDIR),
        _ => Err(Errno::EINVAL),
    }
}

pub fn truncate(path: usize, len: i64) -> Result<usize> {
    offset(len)?;
    let path = read_path(path, 0)?;
    let dentry = walk_at(AT_FDCWD, &path, true)?.existing()?;
    let _claim = Claim::to_write(&dentry.inode)?;
    set_len(&dentry.inode, len)
}

pub fn truncate_open(fd: i32, len: i64) -> Result<usize> {
    offset(len)?;
    let file = usable(fd)?;
    if !file.writable() || file.inode().is_directory() {
        return Err(Errno::EINVAL);
    }
    set_len(file.inode(), len)
}

/// `fallocate`.
pub fn allocate(fd: i32, mode: u32, at: i64, len: i64) -> Result<usize> {
    const KEEP_SIZE: u32 = 1;
    const PUNCH_HOLE: u32 = 2;
    const ZERO_RANGE: u32 = 16;
    const KNOWN: u32 = 0x7f;
    let file = usable(fd)?;
    if at < 0 || len <= 0 {
        return Err(Errno::EINVAL);
    }
    let (at, len) = (at as u64, len as u64);
    if mode & !KNOWN != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if !file.writable() {
        return Err(Errno::EBADF);
    }
    let Body::Regular(contents) = &file.inode().body else {
        let is_pipe = file.ops().pipe().is_some();
        return Err(if is_pipe { Errno::ESPIPE } else { Errno::ENODEV });
    };
    if at.checked_add(len).is_none_or(|end| end > i64::MAX as u64) {
        return Err(Errno::EFBIG);
    }
    match mode {
        0 | KEEP_SIZE => contents.allocate(at, len, mode == 0)?,
        _ if mode == PUNCH_HOLE | KEEP_SIZE => contents.punch_hole(at, len)?,
        ZERO_RANGE => {
            contents.allocate(at, len, true)?;
            contents.punch_hole(at, len)?;
        }
        _ => return Err(Errno::EOPNOTSUPP),
    }
    file.inode().touch_modified();
    Ok(0)
}

/// Where one side of a copy takes place: the file's position, or an offset of
/// its own, that is kept in user memory.
struct Place {
    user: usize,
    offset: Option<u64>,
}

impl Place {
    fn new(file: &File, user: usize) -> Result<Place> {
        if user == 0 {
            return Ok(Place { user, offset: None });
        }
        if file.ops().seek(file) == Seek::Stream {
            return Err(Errno::ESPIPE);
        }
        Ok(Place { user, offset: Some(offset(read_user::<i64>(user)?)?) })
    }

    fn advance(&mut self, count: usize) {
        if let Some(offset) = &mut self.offset {
            *offset += count as u64;
        }
    }

    /// Tells the program where the copy has ended.
    fn finish(&self) -> Result<()> {
        match self.offset {
            Some(offset) => write_user(self.user, offset),
            None => Ok(()),
        }
    }
}

/// Copies up to `len` bytes from one file to another.
fn copy(from: &File, from_place: &mut Place, to: &File, to_place: &mut Place, len: usize) -> Result<usize> {
    let mut page = Page::new()?;
    let mut done = 0;
    while done < len.min(MAX_TRANSFER) {
        let count = (len - done).min(PAGE_SIZE);
        let buffer = &mut page.bytes_mut()[..count];
        let read = match from_place.offset {
            Some(offset) => from.read_at(&mut Sink::kernel(buffer), offset),
            None => from.read(&mut Sink::kernel(buffer)),
        };
        let read = match read {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) => return partial(done, error),
        };
        let mut source = Source::kernel(&page.bytes()[..read]);
        let written = match to_place.offset {
            Some(offset) => to.write_at(&mut source, offset),
            None => to.write(&mut source),
        };
        let written = match written {
            Ok(written) => written,
            Err(error) => {
                give_back(from, from_place, read);
                return partial(done, error);
            }
        };
        from_place.advance(written);
        to_place.advance(written);
        done += written;
        if written < read {
            give_back(from, from_place, read - written);
            break;
        }
        if should_stop(done, written) {
            break;
        }
    }
    Ok(done)
}

/// Moves the position of a file back by what was read from it in vain.
fn give_back(file: &File, place: &Place, count: usize) {
    if place.offset.is_none() {
        // Fails if a signal comes meanwhile; what was read is lost then.
        let _ = file.seek(-(count as i64), 1);
    }
}

pub fn send_file(to: i32, from: i32, user_offset: usize, len: usize) -> Result<usize> {
    let (from, to) = (usable(from)?, usable(to)?);
    if !from.readable() || !to.writable() {
        return Err(Errno::EBADF);
    }
    if user_offset == 0 && from.ops().seek(&from) == Seek::Stream {
        // What cannot be written could not be given back.
        return Err(Errno::EINVAL);
    }
    let mut from_place = Place::new(&from, user_offset)?;
    let mut to_place = Place { user: 0, offset: None };
    let count = copy(&from, &mut from_place, &to, &mut to_place, len)?;
    from_place.finish()?;
    Ok(count)
}

pub fn copy_range(from: i32, from_offset: usize, to: i32, to_offset: usize, len: usize, flags: u32) -> Result<usize> {
    let (from, to) = (usable(from)?, usable(to)?);
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    if !from.readable() || !to.writable() {
        return Err(Errno::EBADF);
    }
    for file in [&from, &to] {
        match &file.inode().body {
            Body::Regular(_) => {}
            _ if file.inode().is_directory() => return Err(Errno::EISDIR),
            _ => return Err(Errno::EINVAL),
        }
    }
    let mut from_place = Place::new(&from, from_offset)?;
    let mut to_place = Place::new(&to, to_offset)?;
    let count = copy(&from, &mut from_place, &to, &mut to_place, len)?;
    from_place.finish()?;
    to_place.finish()?;
    Ok(count)
}
