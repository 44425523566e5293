//! Making open files: `open` and what makes files without a name.

use alloc::sync::Arc;

use mm::Errno;

use super::{AT_FDCWD, Result, check_flags, context, files, install, read_path, start_of};
use crate::arch::usercopy::{read_cstr, read_user, write_user};
use crate::fs::dentry::{Dentry, copy_bytes};
use crate::fs::file::flags::*;
use crate::fs::inode::{FileSystem, S_IFREG};
use crate::fs::tmpfs::{Regular, Seals};
use crate::fs::{self, File};
use crate::fs::{eventfd, open_inode, pidfd, pipe};
use crate::task::table;

pub fn open_at(directory: i32, path: usize, flags: u32, mode: u32) -> Result<usize> {
    let path = read_path(path, 0)?;
    let permissions = mode & 0o7777 & !context()?.umask();
    let file = fs::open(&start_of(directory, &path)?, &path, flags, permissions)?;
    install(file, flags & O_CLOEXEC != 0)
}

pub fn create(path: usize, mode: u32) -> Result<usize> {
    open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode)
}

/// `openat2`: like `openat`, but flags that mean nothing are errors. No
/// restriction of the path resolution is supported.
pub fn open_how(directory: i32, path: usize, how: usize, size: usize) -> Result<usize> {
    const KNOWN: u64 = 0o37777703 | O_LARGEFILE as u64;
    const SIZE: usize = 24;
    if size < SIZE {
        return Err(Errno::EINVAL);
    }
    for extra in SIZE..size.min(mm::PAGE_SIZE) {
        if read_user::<u8>(how.wrapping_add(extra))? != 0 {
            return Err(Errno::E2BIG);
        }
    }
    if size > mm::PAGE_SIZE {
        return Err(Errno::E2BIG);
    }
    let [flags, mode, resolve]: [u64; 3] = read_user(how)?;
    let creates = flags & u64::from(O_CREAT) != 0 || flags & u64::from(O_TMPFILE) == u64::from(O_TMPFILE);
    if flags & !KNOWN != 0 || resolve != 0 || mode & !0o7777 != 0 || mode != 0 && !creates {
        return Err(Errno::EINVAL);
    }
    open_at(directory, path, flags as u32, mode as u32)
}

pub fn pipe(fds: usize, flags: u32) -> Result<usize> {
    check_flags(flags, O_CLOEXEC | O_NONBLOCK | O_DIRECT)?;
    let (reader, writer) = pipe::new_pair(flags & O_NONBLOCK)?;
    let close_on_exec = flags & O_CLOEXEC != 0;
    install_pair((reader, writer), close_on_exec, fds)
}

/// Gives both files a descriptor and stores the two numbers at `fds`: either
/// all of that happens or nothing.
pub fn install_pair(files: (Arc<File>, Arc<File>), close_on_exec: bool, fds: usize) -> Result<usize> {
    let first = install(files.0, close_on_exec)?;
    let installed = install(files.1, close_on_exec)
        .and_then(|second| write_user(fds, [first as i32, second as i32]).inspect_err(|_| forget(second)));
    match installed {
        Ok(()) => Ok(0),
        Err(error) => {
            forget(first);
            Err(error)
        }
    }
}

/// Takes back a descriptor that the program has not been told of.
fn forget(fd: usize) {
    if let Ok(table) = files() {
        drop(table.remove(fd as i32));
    }
}

/// `eventfd2`.
pub fn event_counter(initial: u32, flags: u32) -> Result<usize> {
    const EFD_SEMAPHORE: u32 = 1;
    check_flags(flags, EFD_SEMAPHORE | O_CLOEXEC | O_NONBLOCK)?;
    let file = eventfd::new_file(initial, flags & EFD_SEMAPHORE != 0, flags & O_NONBLOCK)?;
    install(file, flags & O_CLOEXEC != 0)
}

/// `pidfd_open`.
pub fn process_file(pid: i32, flags: u32) -> Result<usize> {
    check_flags(flags, O_NONBLOCK)?;
    if pid <= 0 {
        return Err(Errno::EINVAL);
    }
    let process = match table::process(pid as u32) {
        Some(process) => process,
        // Of threads only the first one of a process stands for it.
        None if table::thread(pid as u32).is_some() => return Err(Errno::EINVAL),
        None => return Err(Errno::ESRCH),
    };
    install(pidfd::new_file(process, flags)?, true)
}

/// `memfd_create`.
pub fn memory_file(name: usize, flags: u32) -> Result<usize> {
    const MFD_CLOEXEC: u32 = 1;
    const MFD_ALLOW_SEALING: u32 = 2;
    const MFD_NOEXEC_SEAL: u32 = 8;
    const MFD_EXEC: u32 = 16;
    const PREFIX: &[u8] = b"/memfd:";
    const SUFFIX: &[u8] = b" (deleted)";
    /// With the NUL, what is left of the longest file name behind `memfd:`.
    const NAME_SIZE: usize = 250;
    check_flags(flags, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL | MFD_EXEC)?;
    if flags & MFD_NOEXEC_SEAL != 0 && flags & MFD_EXEC != 0 {
        return Err(Errno::EINVAL);
    }
    let name = match read_cstr(name, NAME_SIZE) {
        Err(Errno::ENAMETOOLONG) => return Err(Errno::EINVAL),
        name => name?,
    };
    let mut shown = copy_bytes(PREFIX)?;
    shown.try_reserve_exact(name.len() + SUFFIX.len()).map_err(|_| Errno::ENOMEM)?;
    shown.extend_from_slice(&name);
    shown.extend_from_slice(SUFFIX);
    let (seals, permissions) = match flags {
        _ if flags & MFD_NOEXEC_SEAL != 0 => (Seals::EXEC, 0o666),
        _ if flags & MFD_ALLOW_SEALING != 0 => (Seals::empty(), 0o777),
        _ => (Seals::SEAL, 0o777),
    };
    let inode = Regular::new_inode(FileSystem::Anonymous, S_IFREG | permissions, seals, &shown)?;
    let dentry = Dentry::without_parent(&shown, inode)?;
    install(open_inode(dentry, O_RDWR)?, flags & MFD_CLOEXEC != 0)
}
