//! Names: directories, links, renaming, the current directory.

use alloc::sync::Arc;
use mm::{Errno, PAGE_SIZE};

use super::*;
use crate::arch::usercopy::copy_to_user;
use crate::fs::boot::{new_device, new_fifo};
use crate::fs::device::Device;
use crate::fs::file::DirEntry;
use crate::fs::inode::{Inode, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFMT, S_IFREG, S_IFSOCK};
use crate::fs::page::Page;
use crate::fs::path::{Special, read_link};
use crate::fs::tmpfs::{self, RENAME_EXCHANGE, RENAME_NOREPLACE};

/// Makes `inode` known by the path, which must not exist yet.
fn create_at(
    directory: i32,
    path: &[u8],
    may_end_in_slash: bool,
    make: impl FnOnce() -> Result<Arc<Inode>>,
) -> Result<usize> {
    let found = walk_at(directory, path, false)?;
    if found.target.is_some() || found.special.is_some() {
        return Err(Errno::EEXIST);
    }
    if found.wants_directory && !may_end_in_slash {
        return Err(Errno::ENOENT);
    }
    tmpfs::insert(&found.parent, &found.name, make()?)?;
    Ok(0)
}

pub fn make_directory_at(directory: i32, path: usize, mode: u32) -> Result<usize> {
    let path = read_path(path, 0)?;
    let permissions = mode & 0o1777 & !context()?.umask();
    create_at(directory, &path, true, || tmpfs::new_directory(permissions))
}

/// `mknod`: regular files, named pipes and the devices there are.
pub fn make_node_at(directory: i32, path: usize, mode: u32, device: u32) -> Result<usize> {
    let path = read_path(path, 0)?;
    let permissions = mode & 0o7777 & !context()?.umask();
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xfff00);
    match mode & S_IFMT {
        0 | S_IFREG => create_at(directory, &path, false, || tmpfs::new_file(permissions)),
        S_IFIFO => create_at(directory, &path, false, || new_fifo(permissions)),
        S_IFCHR => {
            let device = Device::with_number(major, minor).ok_or(Errno::ENXIO)?;
            create_at(directory, &path, false, || new_device(permissions, device))
        }
        S_IFBLK | S_IFSOCK | S_IFDIR => Err(Errno::EPERM),
        _ => Err(Errno::EINVAL),
    }
}

pub fn make_symlink_at(target: usize, directory: i32, path: usize) -> Result<usize> {
    let target = read_path(target, 0)?;
    let path = read_path(path, 0)?;
    create_at(directory, &path, false, || tmpfs::new_symlink(&target))
}

pub fn link_at(old_directory: i32, old: usize, new_directory: i32, new: usize, flags: u32) -> Result<usize> {
    check_flags(flags, AT_SYMLINK_FOLLOW | AT_EMPTY_PATH)?;
    let existing = existing_at(old_directory, old, flags, flags & AT_SYMLINK_FOLLOW != 0)?;
    let path = read_path(new, 0)?;
    let found = walk_at(new_directory, &path, false)?;
    if found.target.is_some() {
        return Err(Errno::EEXIST);
    }
    if found.wants_directory {
        return Err(Errno::ENOENT);
    }
    tmpfs::link(&existing, &found.parent, &found.name)?;
    Ok(0)
}

pub fn unlink_at(directory: i32, path: usize, flags: u32) -> Result<usize> {
    check_flags(flags, AT_REMOVEDIR)?;
    let path = read_path(path, 0)?;
    let found = walk_at(directory, &path, false)?;
    if flags & AT_REMOVEDIR != 0 {
        match found.special {
            Some(Special::Dot | Special::Jump) => return Err(Errno::EINVAL),
            Some(Special::DotDot) => return Err(Errno::ENOTEMPTY),
            Some(Special::Root) => return Err(Errno::EBUSY),
            None => tmpfs::remove_directory(&found.parent, &found.name)?,
        }
        return Ok(0);
    }
    match (&found.target, found.special) {
        (_, Some(_)) => return Err(Errno::EISDIR),
        (None, _) => return Err(Errno::ENOENT),
        (Some(target), _) if found.wants_directory => {
            let is_directory = target.inode.is_directory();
            return Err(if is_directory { Errno::EISDIR } else { Errno::ENOTDIR });
        }
        _ => tmpfs::unlink(&found.parent, &found.name)?,
    }
    Ok(0)
}

pub fn rename_at(old_directory: i32, old: usize, new_directory: i32, new: usize, flags: u32) -> Result<usize> {
    check_flags(flags, RENAME_NOREPLACE | RENAME_EXCHANGE)?;
    if flags == RENAME_NOREPLACE | RENAME_EXCHANGE {
        return Err(Errno::EINVAL);
    }
    let (old, new) = (read_path(old, 0)?, read_path(new, 0)?);
    let source = walk_at(old_directory, &old, false)?;
    let target = walk_at(new_directory, &new, false)?;
    if source.special.is_some() {
        return Err(Errno::EBUSY);
    }
    if target.special.is_some() {
        let keeps = flags & RENAME_NOREPLACE != 0;
        return Err(if keeps { Errno::EEXIST } else { Errno::EBUSY });
    }
    let moved = source.target.as_ref().ok_or(Errno::ENOENT)?;
    if (source.wants_directory || target.wants_directory && flags & RENAME_EXCHANGE == 0) && !moved.inode.is_directory()
    {
        return Err(Errno::ENOTDIR);
    }
    tmpfs::rename(&source.parent, &source.name, &target.parent, &target.name, flags)?;
    Ok(0)
}

pub fn read_link_at(directory: i32, path: usize, buffer: usize, len: i32) -> Result<usize> {
    if len <= 0 {
        return Err(Errno::EINVAL);
    }
    // An empty path means the descriptor, which must be that of a link.
    let path = read_path(path, AT_EMPTY_PATH)?;
    let dentry = if path.is_empty() {
        let link = start_of(directory, &path)?;
        if !link.inode.is_symlink() {
            return Err(Errno::ENOENT);
        }
        link
    } else {
        walk_at(directory, &path, false)?.existing()?
    };
    let target = read_link(&dentry)?;
    let count = target.len().min(len as usize);
    copy_to_user(buffer, &target[..count])?;
    Ok(count)
}

pub fn umask(mask: u32) -> Result<usize> {
    Ok(context()?.set_umask(mask) as usize)
}

/// `getcwd`.
pub fn current_directory(buffer: usize, size: usize) -> Result<usize> {
    let current = context()?.current();
    if current.is_removed() {
        return Err(Errno::ENOENT);
    }
    let mut path = current.path()?;
    path.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
    path.push(0);
    if path.len() > size {
        return Err(Errno::ERANGE);
    }
    copy_to_user(buffer, &path)?;
    Ok(path.len())
}

pub fn change_directory(path: usize) -> Result<usize> {
    context()?.set_current(existing_at(AT_FDCWD, path, 0, true)?)?;
    Ok(0)
}

pub fn change_directory_open(fd: i32) -> Result<usize> {
    let file = files()?.get(fd)?;
    context()?.set_current(file.dentry().clone())?;
    Ok(0)
}

/// `getdents64`: at most a page of entries at a time.
pub fn list(fd: i32, buffer: usize, size: usize) -> Result<usize> {
    let file = usable(fd)?;
    let mut page = Page::new()?;
    let space = &mut page.bytes_mut()[..PAGE_SIZE.min(size as u32 as usize)];
    let mut used = 0;
    let mut too_small = false;
    file.read_dir(&mut |entry| {
        let stored = store_entry(&mut space[used..], &entry);
        used += stored.unwrap_or(0);
        too_small = stored.is_none() && used == 0;
        stored.is_some()
    })?;
    if too_small {
        return Err(Errno::EINVAL);
    }
    copy_to_user(buffer, &page.bytes()[..used])?;
    Ok(used)
}

/// Stores a `struct linux_dirent64` and returns its length, if there is room.
fn store_entry(space: &mut [u8], entry: &DirEntry<'_>) -> Option<usize> {
    const NAME_AT: usize = 19;
    let len = (NAME_AT + entry.name.len() + 1).next_multiple_of(8);
    let record = space.get_mut(..len)?;
    record.fill(0);
    record[..8].copy_from_slice(&entry.number.to_le_bytes());
    record[8..16].copy_from_slice(&entry.next.to_le_bytes());
    record[16..18].copy_from_slice(&(len as u16).to_le_bytes());
    record[18] = (entry.mode >> 12) as u8;
    record[NAME_AT..NAME_AT + entry.name.len()].copy_from_slice(entry.name);
    Some(len)
}
