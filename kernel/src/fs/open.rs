//! Opening files.

use alloc::sync::Arc;
use mm::Errno;

use super::claim::Claim;
use super::dentry::Dentry;
use super::file::File;
use super::file::flags::*;
use super::inode::{Body, S_IFMT, S_IFREG};
use super::path::{Special, walk};
use super::pipe;
use super::procfs;
use super::tmpfs::{self, DirectoryFile, RegularFile};

/// Opens `path`, seen from `start`; `permissions` are those of a file that is
/// created, without the umask's bits.
///
/// # Errors
/// Those of `open(2)`.
pub fn open(start: &Arc<Dentry>, path: &[u8], flags: u32, permissions: u32) -> Result<Arc<File>, Errno> {
    if flags & O_TMPFILE == O_TMPFILE {
        return open_unnamed(start, path, flags, permissions);
    }
    let create = flags & O_CREAT != 0 && flags & O_PATH == 0;
    if create && flags & O_DIRECTORY != 0 {
        return Err(Errno::EINVAL);
    }
    let exclusive = create && flags & O_EXCL != 0;
    let follow = flags & O_NOFOLLOW == 0 && !exclusive;
    let root = super::root()?;
    let found = walk(&root, start, path, follow)?;
    if create && (found.wants_directory || found.special.is_some_and(|at| at != Special::Jump)) {
        // A directory, or the name of one, can be neither created nor written.
        return Err(if exclusive && found.target.is_some() { Errno::EEXIST } else { Errno::EISDIR });
    }
    let dentry = match &found.target {
        Some(_) if exclusive => return Err(Errno::EEXIST),
        Some(target) if create && target.inode.is_directory() => return Err(Errno::EISDIR),
        Some(_) => found.existing()?,
        None if create => {
            let inode = tmpfs::new_file(permissions)?;
            match tmpfs::insert(&found.parent, &found.name, inode) {
                // Somebody else was faster, which only matters to O_EXCL.
                Err(Errno::EEXIST) if !exclusive => return open(start, path, flags, permissions),
                dentry => return open_inode(dentry?, flags & !O_TRUNC),
            }
        }
        None => return Err(Errno::ENOENT),
    };
    if flags & O_DIRECTORY != 0 && !dentry.inode.is_directory() {
        return Err(Errno::ENOTDIR);
    }
    open_inode(dentry, flags)
}

/// Opens what `dentry` stands for; flags about finding or creating it are
/// ignored.
///
/// # Errors
/// `ELOOP` for a symbolic link, `EISDIR` for writing to a directory, `ENXIO`
/// for what cannot be opened, and those of the kind of file.
pub fn open_inode(dentry: Arc<Dentry>, flags: u32) -> Result<Arc<File>, Errno> {
    if flags & O_PATH != 0 {
        return File::path_only(dentry, flags);
    }
    let inode = dentry.inode.clone();
    let writes = flags & O_ACCMODE != 0;
    if inode.is_directory() && (writes || flags & O_TRUNC != 0) {
        return Err(Errno::EISDIR);
    }
    match &inode.body {
        Body::Regular(contents) => {
            let truncates = flags & O_TRUNC != 0;
            let claim = if writes || truncates { Claim::to_write(&inode)? } else { None };
            if truncates {
                contents.set_len(0)?;
                inode.touch_modified();
            }
            File::new(dentry, RegularFile(claim.filter(|_| writes)), flags)
        }
        Body::Directory(_) => File::new(dentry, DirectoryFile, flags),
        Body::Symlink(_) => Err(Errno::ELOOP),
        Body::Device(device) => File::new(dentry, *device, flags),
        Body::Fifo(channel) => pipe::open_named(dentry, channel, flags),
        Body::Proc(node) => procfs::open(dentry, *node, flags),
        Body::Anonymous => Err(Errno::ENXIO),
    }
}

/// `O_TMPFILE`: a regular file without a name; `path` only says in which file
/// system.
fn open_unnamed(start: &Arc<Dentry>, path: &[u8], flags: u32, permissions: u32) -> Result<Arc<File>, Errno> {
    if flags & O_ACCMODE == 0 {
        return Err(Errno::EINVAL);
    }
    let directory = walk(&super::root()?, start, path, flags & O_NOFOLLOW == 0)?.existing()?;
    match &directory.inode.body {
        Body::Directory(_) => {}
        Body::Proc(_) if directory.inode.is_directory() => return Err(Errno::EOPNOTSUPP),
        _ => return Err(Errno::ENOTDIR),
    }
    let inode = tmpfs::new_file(permissions)?;
    inode.drop_links(1);
    let dentry = Dentry::without_parent(b"/ (deleted)", inode)?;
    open_inode(dentry, flags)
}

/// Opens the program `path`, seen from `start`, for execution.
///
/// # Errors
/// `EACCES` for what is not a regular file with an execute permission, `ETXTBSY`
/// for one that is open for writing, and those of `open(2)`. It cannot be opened
/// for writing as long as the file returned exists.
pub fn open_exec(start: &Arc<Dentry>, path: &[u8]) -> Result<Arc<File>, Errno> {
    open_program(walk(&super::root()?, start, path, true)?.existing()?)
}

/// Opens what `dentry` stands for, for execution.
///
/// # Errors
/// As for [`open_exec`].
pub fn open_program(dentry: Arc<Dentry>) -> Result<Arc<File>, Errno> {
    let mode = dentry.inode.mode();
    if mode & S_IFMT != S_IFREG || mode & 0o111 == 0 {
        return Err(Errno::EACCES);
    }
    let claim = Claim::to_execute(&dentry.inode)?;
    File::new(dentry, RegularFile(claim), 0)
}
