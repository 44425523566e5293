//! The tree as it is when the first process starts.
//!
//! `/tmp`, `/dev`, `/proc` and `/sys`; the program that the machine was started for,
//! as `/NAME`; and what `opt/mm/files` holds, a sequence of records
//! `path length (u32), path, mode (u32), size (u64), data`, little-endian. A
//! record whose mode says directory or symbolic link makes one; the data of a
//! link is where it leads.

use alloc::sync::Arc;
use alloc::vec::Vec;
use mm::{Errno, PAGE_SIZE};

use super::channel::Channel;
use super::dentry::{Dentry, PATH_MAX, copy_bytes};
use super::device::{self, Device};
use super::file::File;
use super::file::flags::O_RDWR;
use super::inode::{Body, FileSystem, Inode, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG};
use super::io::Source;
use super::page::Page;
use super::path::walk;
use super::{FdTable, ROOT, open_inode, procfs, tmpfs};
use crate::drivers::fw_cfg;

/// Makes the tree.
///
/// # Errors
/// `ENOMEM` or `ENOSPC`, for want of memory; `EINVAL` for malformed
/// `opt/mm/files`.
// Not inlined: its buffers have no place on the boot stack for longer than this.
#[inline(never)]
pub fn init() -> Result<(), Errno> {
    let root = Dentry::without_parent(b"/", tmpfs::new_directory(0o755)?)?;
    ROOT.call_once(|| root.clone());
    tmpfs::insert(&root, b"tmp", tmpfs::new_directory(0o1777)?)?;
    let dev = tmpfs::insert(&root, b"dev", tmpfs::new_directory(0o755)?)?;
    for (name, permissions, device) in device::ALL {
        tmpfs::insert(&dev, name, new_device(permissions, device)?)?;
    }
    let links: [(&[u8], &[u8]); 4] = [
        (b"fd", b"/proc/self/fd"),
        (b"stdin", b"/proc/self/fd/0"),
        (b"stdout", b"/proc/self/fd/1"),
        (b"stderr", b"/proc/self/fd/2"),
    ];
    for (name, target) in links {
        tmpfs::insert(&dev, name, tmpfs::new_symlink(target)?)?;
    }
    tmpfs::mount(&root, b"proc", procfs::root_inode()?)?;
    tmpfs::mount(&root, b"sys", procfs::sysfs_root_inode()?)?;
    if let Some(files) = fw_cfg::find("opt/mm/files") {
        unpack(&root, files)?;
    }
    store_program(&root)
}

/// The inode of a device.
///
/// # Errors
/// `ENOMEM`.
pub fn new_device(permissions: u32, device: Device) -> Result<Arc<Inode>, Errno> {
    Inode::new(FileSystem::Tmpfs, S_IFCHR | permissions & 0o7777, 1, Body::Device(device))
}

/// The inode of a named pipe.
///
/// # Errors
/// `ENOMEM`.
pub fn new_fifo(permissions: u32) -> Result<Arc<Inode>, Errno> {
    let mode = S_IFIFO | permissions & 0o7777;
    Inode::new(FileSystem::Tmpfs, mode, 1, Body::Fifo(Channel::new()?))
}

/// The path of the program that the machine was started for, if there is one: `/NAME`,
/// or `/bin/NAME` if `/NAME` is a directory.
///
/// # Errors
/// `ENOMEM`; `EINVAL` for a name that is none.
pub fn program_path() -> Result<Option<Vec<u8>>, Errno> {
    if fw_cfg::find("opt/mm/program").is_none() {
        return Ok(None);
    }
    let mut path = copy_bytes(b"/")?;
    match fw_cfg::find("opt/mm/name") {
        Some(name) if name.size() < super::dentry::NAME_MAX => {
            let mut bytes = [0; super::dentry::NAME_MAX];
            read(name, 0, &mut bytes[..name.size()])?;
            let name = bytes[..name.size()].split(|&byte| byte == 0).next().unwrap_or(b"");
            if name.is_empty() || name.contains(&b'/') {
                return Err(Errno::EINVAL);
            }
            path.try_reserve(name.len()).map_err(|_| Errno::ENOMEM)?;
            path.extend_from_slice(name);
        }
        Some(_) => return Err(Errno::EINVAL),
        None => path.extend_from_slice(&copy_bytes(b"init")?),
    }
    let root = super::root()?;
    let known = walk(&root, &root, &path, true)?.target;
    if known.is_some_and(|dentry| dentry.inode.is_directory()) {
        let mut elsewhere = copy_bytes(b"/bin")?;
        elsewhere.try_reserve(path.len()).map_err(|_| Errno::ENOMEM)?;
        elsewhere.extend_from_slice(&path);
        path = elsewhere;
    }
    Ok(Some(path))
}

/// Open files 0, 1 and 2 on the console, for the first process.
///
/// # Errors
/// `ENOMEM`.
pub fn standard_files() -> Result<Arc<FdTable>, Errno> {
    let table = FdTable::new()?;
    let root = super::root()?;
    let console = walk(&root, &root, b"/dev/console", true)?.existing()?;
    let file: Arc<File> = open_inode(console, O_RDWR)?;
    for fd in 0..3 {
        table.replace(fd, file.clone(), false, 3)?;
    }
    Ok(table)
}

/// Stores the program as `/NAME`, unless `opt/mm/files` brought one.
fn store_program(root: &Arc<Dentry>) -> Result<(), Errno> {
    let (Some(path), Some(program)) = (program_path()?, fw_cfg::find("opt/mm/program")) else {
        return Ok(());
    };
    match store_file(root, &path, S_IFREG | 0o755, program, 0, program.size()) {
        Err(Errno::EEXIST) => Ok(()),
        result => result,
    }
}

/// Makes the files of `opt/mm/files`.
fn unpack(root: &Arc<Dentry>, files: fw_cfg::File) -> Result<(), Errno> {
    let mut at = 0;
    let mut path = [0; PATH_MAX];
    while at < files.size() {
        let mut word = [0; 4];
        read(files, at, &mut word)?;
        let path_len = u32::from_le_bytes(word) as usize;
        let path = path.get_mut(..path_len).ok_or(Errno::EINVAL)?;
        read(files, at + 4, path)?;
        at += 4 + path_len;
        read(files, at, &mut word)?;
        let mode = u32::from_le_bytes(word);
        let mut size = [0; 8];
        read(files, at + 4, &mut size)?;
        let size = u64::from_le_bytes(size) as usize;
        at += 12;
        match store_file(root, path, mode, files, at, size) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error),
        }
        at = at.checked_add(size).ok_or(Errno::EINVAL)?;
    }
    Ok(())
}

/// Makes one file (of the type and permissions in `mode`; regular, if it names
/// no type) with `size` bytes of `data` from `offset` on.
fn store_file(
    root: &Arc<Dentry>,
    path: &[u8],
    mode: u32,
    data: fw_cfg::File,
    offset: usize,
    size: usize,
) -> Result<(), Errno> {
    let mut parent = root.clone();
    let name_at = path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    for name in path[..name_at].split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
        let next = walk(root, &parent, name, true)?.target;
        parent = match next {
            Some(next) => next,
            None => tmpfs::insert(&parent, name, tmpfs::new_directory(0o755)?)?,
        };
    }
    let inode = match mode & S_IFMT {
        S_IFDIR => tmpfs::new_directory(mode)?,
        S_IFLNK => {
            let mut target = [0; PATH_MAX];
            let target = target.get_mut(..size).ok_or(Errno::EINVAL)?;
            read(data, offset, target)?;
            tmpfs::new_symlink(target)?
        }
        S_IFREG | 0 => {
            let inode = tmpfs::new_file(mode)?;
            copy_contents(&inode, data, offset, size)?;
            inode
        }
        _ => return Err(Errno::EINVAL),
    };
    tmpfs::insert(&parent, &path[name_at..], inode)?;
    Ok(())
}

fn copy_contents(inode: &Inode, data: fw_cfg::File, offset: usize, size: usize) -> Result<(), Errno> {
    let Body::Regular(contents) = &inode.body else {
        return Err(Errno::EINVAL);
    };
    let mut page = Page::new()?;
    let mut done = 0;
    while done < size {
        let piece = &mut page.bytes_mut()[..PAGE_SIZE.min(size - done)];
        read(data, offset + done, piece)?;
        if contents.write(&mut Source::kernel(piece), done as u64)? < piece.len() {
            return Err(Errno::ENOSPC);
        }
        done += piece.len();
    }
    Ok(())
}

/// Fills `buffer` with the bytes of `file` from `offset` on.
fn read(file: fw_cfg::File, offset: usize, buffer: &mut [u8]) -> Result<(), Errno> {
    if file.read_at(offset, buffer) { Ok(()) } else { Err(Errno::EINVAL) }
}
