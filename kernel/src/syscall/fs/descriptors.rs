//! Descriptors: copying, closing, flags, locks, `ioctl`.

use alloc::sync::Arc;

use mm::Errno;

use super::{Result, check_flags, files, usable};
use crate::arch::usercopy::{read_user, write_user};
use crate::fs::File;
use crate::fs::channel;
use crate::fs::file::flags::*;
use crate::fs::flock::{self, Lock};
use crate::fs::inode::Body;
use crate::fs::tmpfs::{Regular, Seals};
use crate::task::limits::Resource;
use crate::task::thread::current;

fn limit() -> u64 {
    current().process().limit(Resource::OpenFiles)
}

pub fn close(fd: i32) -> Result<usize> {
    let file = files()?.remove(fd)?;
    drop(file);
    Ok(0)
}

pub fn close_range(first: usize, last: usize, flags: u32) -> Result<usize> {
    const UNSHARE: u32 = 2;
    const CLOEXEC: u32 = 4;
    check_flags(flags, UNSHARE | CLOEXEC)?;
    let (first, last) = (first as u32 as usize, last as u32 as usize);
    if first > last {
        return Err(Errno::EINVAL);
    }
    if flags & UNSHARE != 0 {
        let copy = files()?.fork()?;
        drop(current().process().replace_files(Some(copy)));
    }
    files()?.close_range(first, last, flags & CLOEXEC != 0);
    Ok(0)
}

pub fn dup(fd: i32) -> Result<usize> {
    let table = files()?;
    table.insert(table.get(fd)?, 0, false, limit()).map(|fd| fd as usize)
}

pub fn dup2(old: i32, new: i32) -> Result<usize> {
    if old == new {
        return files()?.get(old).map(|_| old as usize);
    }
    dup3(old, new, 0)
}

pub fn dup3(old: i32, new: i32, flags: u32) -> Result<usize> {
    check_flags(flags, O_CLOEXEC)?;
    if old == new {
        return Err(Errno::EINVAL);
    }
    let table = files()?;
    let file = table.get(old)?;
    let replaced = table.replace(new, file, flags & O_CLOEXEC != 0, limit())?;
    drop(replaced);
    Ok(new as usize)
}

pub fn fcntl(fd: i32, command: u32, argument: usize) -> Result<usize> {
    const F_DUPFD: u32 = 0;
    const F_GETFD: u32 = 1;
    const F_SETFD: u32 = 2;
    const F_GETFL: u32 = 3;
    const F_SETFL: u32 = 4;
    const F_DUPFD_QUERY: u32 = 1027;
    const F_DUPFD_CLOEXEC: u32 = 1030;
    const FD_CLOEXEC: usize = 1;
    let table = files()?;
    let file = table.get(fd)?;
    match command {
        F_DUPFD | F_DUPFD_CLOEXEC => {
            let lowest = argument as u32 as usize;
            if lowest as u64 >= limit() {
                return Err(Errno::EINVAL);
            }
            let close_on_exec = command == F_DUPFD_CLOEXEC;
            table.insert(file, lowest, close_on_exec, limit()).map(|fd| fd as usize)
        }
        F_GETFD => Ok(usize::from(table.close_on_exec(fd)?)),
        F_SETFD => {
            table.set_close_on_exec(fd, argument & FD_CLOEXEC != 0)?;
            Ok(0)
        }
        F_GETFL => Ok(file.flags() as usize),
        F_DUPFD_QUERY => Ok(usize::from(Arc::ptr_eq(&file, &table.get(argument as i32)?))),
        _ if file.is_path_only() => Err(Errno::EBADF),
        F_SETFL => {
            file.set_flags(argument as u32);
            Ok(0)
        }
        _ => fcntl_on_file(&file, command, argument),
    }
}

/// The commands that concern the file and not the descriptor.
fn fcntl_on_file(file: &File, command: u32, argument: usize) -> Result<usize> {
    const F_GETLK: u32 = 5;
    const F_SETLK: u32 = 6;
    const F_SETLKW: u32 = 7;
    const F_SETOWN: u32 = 8;
    const F_GETOWN: u32 = 9;
    const F_SETPIPE_SZ: u32 = 1031;
    const F_GETPIPE_SZ: u32 = 1032;
    const F_ADD_SEALS: u32 = 1033;
    const F_GET_SEALS: u32 = 1034;
    let sealable = || -> Result<&Regular> {
        match &file.inode().body {
            Body::Regular(contents) => Ok(contents),
            _ => Err(Errno::EINVAL),
        }
    };
    match command {
        F_GETLK | F_SETLK | F_SETLKW => record_lock(command == F_GETLK, argument),
        // No file here sends signals.
        F_SETOWN | F_GETOWN => Ok(0),
        F_GETPIPE_SZ => file.ops().pipe().map(|_| channel::CAPACITY).ok_or(Errno::EBADF),
        F_SETPIPE_SZ => {
            file.ops().pipe().ok_or(Errno::EBADF)?;
            // The size is fixed: whatever is not larger is rounded up to it.
            let size = argument as u32 as usize;
            if size <= channel::CAPACITY { Ok(channel::CAPACITY) } else { Err(Errno::EPERM) }
        }
        F_ADD_SEALS => {
            let contents = sealable()?;
            if !file.writable() {
                return Err(Errno::EPERM);
            }
            let seals = Seals::from_bits(argument as u32).ok_or(Errno::EINVAL)?;
            contents.add_seals(seals)?;
            Ok(0)
        }
        F_GET_SEALS => Ok(sealable()?.seals().bits() as usize),
        _ => Err(Errno::EINVAL),
    }
}

/// POSIX record locks, of which there is never one in the way: they are
/// checked and granted, and keep nobody out.
fn record_lock(query: bool, argument: usize) -> Result<usize> {
    const F_UNLCK: i16 = 2;
    const SEEK_END: i16 = 2;
    let [kind, whence]: [i16; 2] = read_user(argument)?;
    if !(0..=F_UNLCK).contains(&kind) || !(0..=SEEK_END).contains(&whence) {
        return Err(Errno::EINVAL);
    }
    if query {
        write_user(argument, F_UNLCK)?;
    }
    Ok(0)
}

pub fn flock(fd: i32, operation: u32) -> Result<usize> {
    const LOCK_SH: u32 = 1;
    const LOCK_EX: u32 = 2;
    const LOCK_NB: u32 = 4;
    const LOCK_UN: u32 = 8;
    let file = usable(fd)?;
    let wanted = match operation & !LOCK_NB {
        LOCK_SH => Some(Lock::Shared),
        LOCK_EX => Some(Lock::Exclusive),
        LOCK_UN => None,
        _ => return Err(Errno::EINVAL),
    };
    flock::set(&file, wanted, operation & LOCK_NB == 0)?;
    Ok(0)
}

/// `fsync` and the like: memory is as safe as it gets.
pub fn sync(fd: i32) -> Result<usize> {
    let file = usable(fd)?;
    match &file.inode().body {
        Body::Fifo(_) | Body::Device(_) | Body::Anonymous => Err(Errno::EINVAL),
        _ => Ok(0),
    }
}

pub fn ioctl(fd: i32, request: u32, argument: usize) -> Result<usize> {
    const FIONBIO: u32 = 0x5421;
    const FIONCLEX: u32 = 0x5450;
    const FIOCLEX: u32 = 0x5451;
    let file = usable(fd)?;
    match request {
        FIOCLEX | FIONCLEX => {
            files()?.set_close_on_exec(fd, request == FIOCLEX)?;
            Ok(0)
        }
        FIONBIO => {
            let on = read_user::<i32>(argument)? != 0;
            let flags = file.flags();
            file.set_flags(if on { flags | O_NONBLOCK } else { flags & !O_NONBLOCK });
            Ok(0)
        }
        _ => file.ops().ioctl(&file, request, argument),
    }
}
