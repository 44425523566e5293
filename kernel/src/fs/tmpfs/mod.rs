//! The file system in memory that is the tree at `/`.
//!
//! Directories hold dentries ([`directory`]), file contents are memory
//! objects of `mm` ([`regular`]). All changes to the tree are made here, one
//! at a time under [`CHANGES`], and each is prepared before it is committed:
//! a call that fails has changed nothing. Look-ups do not take that lock; they
//! see each directory before or after a change.
//!
//! Lock order: `CHANGES`, then one directory's entries, then a dentry's place.

mod directory;
mod index;
mod regular;

use alloc::sync::Arc;
use alloc::vec::Vec;
use mm::Errno;

pub use directory::{Directory, DirectoryFile, emit_dots};
pub use regular::{Regular, RegularFile, Seals, space_limit};

use super::dentry::{Dentry, NAME_MAX, copy_bytes};
use super::inode::{Body, FileSystem, Inode, S_IFDIR, S_IFLNK, S_IFREG};
use crate::arch::irq::Mutex;

/// Held while the tree changes.
static CHANGES: Mutex<()> = Mutex::new(());

/// `renameat2`: fail if the new name exists.
pub const RENAME_NOREPLACE: u32 = 1;
/// `renameat2`: swap the two names.
pub const RENAME_EXCHANGE: u32 = 2;

/// A new, empty directory that has no name yet.
///
/// # Errors
/// `ENOMEM`.
pub fn new_directory(permissions: u32) -> Result<Arc<Inode>, Errno> {
    let mode = S_IFDIR | permissions & 0o7777;
    Inode::new(FileSystem::Tmpfs, mode, 2, Body::Directory(Directory::default()))
}

/// A new, empty regular file that has no name yet.
///
/// # Errors
/// `ENOMEM`.
pub fn new_file(permissions: u32) -> Result<Arc<Inode>, Errno> {
    Regular::new_inode(FileSystem::Tmpfs, S_IFREG | permissions & 0o7777, Seals::SEAL, b"")
}

/// A new symbolic link that has no name yet.
///
/// # Errors
/// `ENOMEM`.
pub fn new_symlink(target: &[u8]) -> Result<Arc<Inode>, Errno> {
    Inode::new(FileSystem::Tmpfs, S_IFLNK | 0o777, 1, Body::Symlink(copy_bytes(target)?))
}

/// The directory that `dentry` is, if its entries may be changed.
///
/// # Errors
/// `ENOTDIR`; `EPERM` in `/proc`.
fn directory_of(dentry: &Dentry) -> Result<&Directory, Errno> {
    match &dentry.inode.body {
        Body::Directory(directory) => Ok(directory),
        Body::Proc(_) if dentry.inode.is_directory() => Err(Errno::EPERM),
        _ => Err(Errno::ENOTDIR),
    }
}

/// As [`directory_of`], for a new entry called `name`.
///
/// # Errors
/// `ENAMETOOLONG`; `ENOENT` when the directory itself was removed or is in `/proc`.
fn directory_for_new<'a>(dentry: &'a Dentry, name: &[u8]) -> Result<&'a Directory, Errno> {
    if name.len() > NAME_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    match directory_of(dentry) {
        Ok(directory) if directory.is_removed() => Err(Errno::ENOENT),
        Err(Errno::EPERM) => Err(Errno::ENOENT),
        other => other,
    }
}

/// Gives `inode` the name `name` in `parent`. The inode must have been made
/// with a link count that includes this name.
///
/// # Errors
/// `EEXIST`, `ENOMEM`, and those of a directory that cannot take entries.
pub fn insert(parent: &Arc<Dentry>, name: &[u8], inode: Arc<Inode>) -> Result<Arc<Dentry>, Errno> {
    insert_dentry(parent, name, Dentry::new(parent, name, inode)?)
}

/// As [`insert`], for the root of another file system.
///
/// # Errors
/// As [`insert`].
pub fn mount(parent: &Arc<Dentry>, name: &[u8], root: Arc<Inode>) -> Result<Arc<Dentry>, Errno> {
    insert_dentry(parent, name, Dentry::new_mount(parent, name, root)?)
}

fn insert_dentry(parent: &Arc<Dentry>, name: &[u8], dentry: Arc<Dentry>) -> Result<Arc<Dentry>, Errno> {
    let _changes = CHANGES.lock();
    let directory = directory_for_new(parent, name)?;
    if directory.get(name).is_some() {
        return Err(Errno::EEXIST);
    }
    let slot = directory.prepare(name)?;
    directory.commit(slot, dentry.clone());
    if dentry.inode.is_directory() {
        parent.inode.add_link();
    }
    parent.inode.touch_modified();
    show_path(&dentry);
    Ok(dentry)
}

/// Gives the inode of `existing` another name.
///
/// # Errors
/// `EPERM` for a directory, `EXDEV` for another file system, `ENOENT` for a
/// file whose last name is gone, `EEXIST`, `ENOMEM`.
pub fn link(existing: &Dentry, parent: &Arc<Dentry>, name: &[u8]) -> Result<(), Errno> {
    let inode = &existing.inode;
    let dentry = Dentry::new(parent, name, inode.clone())?;
    let _changes = CHANGES.lock();
    let directory = directory_for_new(parent, name)?;
    if directory.get(name).is_some() {
        return Err(Errno::EEXIST);
    }
    if inode.file_system != parent.inode.file_system {
        return Err(Errno::EXDEV);
    }
    if inode.is_directory() {
        return Err(Errno::EPERM);
    }
    // A file made by O_TMPFILE has no name yet but may be given one.
    if inode.links() == 0 && existing.parent().is_some() {
        return Err(Errno::ENOENT);
    }
    let slot = directory.prepare(name)?;
    directory.commit(slot, dentry);
    inode.add_link();
    parent.inode.touch_modified();
    Ok(())
}

/// Removes the name of something that is not a directory.
///
/// # Errors
/// `ENOENT`, `EISDIR`, `EBUSY` for a mount point, `EPERM` in `/proc`.
pub fn unlink(parent: &Arc<Dentry>, name: &[u8]) -> Result<(), Errno> {
    let removed = {
        let _changes = CHANGES.lock();
        let directory = directory_of(parent)?;
        let dentry = directory.get(name).ok_or(Errno::ENOENT)?;
        if dentry.is_mount {
            return Err(Errno::EBUSY);
        }
        if dentry.inode.is_directory() {
            return Err(Errno::EISDIR);
        }
        discard(parent, directory, &dentry)?;
        dentry
    };
    // Dropped here, outside of the lock: it may take a whole file along.
    drop(removed);
    Ok(())
}

/// Removes an empty directory.
///
/// # Errors
/// `ENOENT`, `ENOTDIR`, `ENOTEMPTY`, `EBUSY` for a mount point, `EPERM` in `/proc`.
pub fn remove_directory(parent: &Arc<Dentry>, name: &[u8]) -> Result<(), Errno> {
    let _changes = CHANGES.lock();
    let directory = directory_of(parent)?;
    let dentry = directory.get(name).ok_or(Errno::ENOENT)?;
    if dentry.is_mount {
        return Err(Errno::EBUSY);
    }
    if !directory_of(&dentry)?.is_empty() {
        return Err(Errno::ENOTEMPTY);
    }
    discard(parent, directory, &dentry)?;
    Ok(())
}

/// Takes `dentry` out of `directory`, which is that of `parent`.
fn discard(parent: &Dentry, directory: &Directory, dentry: &Arc<Dentry>) -> Result<(), Errno> {
    let slot = directory.slot_of(dentry).ok_or(Errno::ENOENT)?;
    directory.remove(slot);
    note_removed(parent, dentry);
    parent.inode.touch_modified();
    Ok(())
}

/// Lets `dentry` know that it is no longer an entry of `parent`.
fn note_removed(parent: &Dentry, dentry: &Arc<Dentry>) {
    dentry.mark_removed();
    match &dentry.inode.body {
        Body::Directory(removed) => {
            removed.mark_removed();
            dentry.inode.drop_links(2);
            parent.inode.drop_links(1);
        }
        _ => dentry.inode.drop_links(1),
    }
    show_path(dentry);
}

/// Renames `old_name` in `old_parent` to `new_name` in `new_parent`.
///
/// # Errors
/// Those of `renameat2(2)`; nothing has changed then.
pub fn rename(
    old_parent: &Arc<Dentry>,
    old_name: &[u8],
    new_parent: &Arc<Dentry>,
    new_name: &[u8],
    flags: u32,
) -> Result<(), Errno> {
    let name = copy_bytes(new_name)?;
    let changes = CHANGES.lock();
    let old_directory = directory_of(old_parent)?;
    let source = old_directory.get(old_name).ok_or(Errno::ENOENT)?;
    let new_directory = directory_for_new(new_parent, new_name)?;
    let target = new_directory.get(new_name);
    match &target {
        Some(_) if flags & RENAME_NOREPLACE != 0 => return Err(Errno::EEXIST),
        None if flags & RENAME_EXCHANGE != 0 => return Err(Errno::ENOENT),
        _ => {}
    }
    if source.is_mount || target.as_ref().is_some_and(|target| target.is_mount) {
        return Err(Errno::EBUSY);
    }
    if new_parent.is_below(&source) {
        return Err(Errno::EINVAL);
    }
    let exchange = flags & RENAME_EXCHANGE != 0;
    if let Some(target) = &target {
        if old_parent.is_below(target) {
            return Err(if exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
        }
        if Arc::ptr_eq(&source.inode, &target.inode) {
            return Ok(());
        }
        if exchange {
            return swap(old_parent, &source, new_parent, target, name);
        }
        match (source.inode.is_directory(), target.inode.is_directory()) {
            (true, false) => return Err(Errno::ENOTDIR),
            (false, true) => return Err(Errno::EISDIR),
            (true, true) if !directory_of(target)?.is_empty() => return Err(Errno::ENOTEMPTY),
            _ => {}
        }
    }
    let old_slot = old_directory.slot_of(&source).ok_or(Errno::ENOENT)?;
    let new_slot = match &target {
        Some(target) => new_directory.slot_of(target).ok_or(Errno::ENOENT)?,
        None => new_directory.prepare(new_name)?,
    };
    // Nothing can fail from here on.
    let old_place = source.relocate(new_parent.clone(), name);
    match &target {
        Some(target) => {
            new_directory.replace(new_slot, source.clone());
            note_removed(new_parent, target);
        }
        None => new_directory.commit(new_slot, source.clone()),
    }
    old_directory.remove(old_slot);
    if source.inode.is_directory() {
        old_parent.inode.drop_links(1);
        new_parent.inode.add_link();
    }
    old_parent.inode.touch_modified();
    new_parent.inode.touch_modified();
    source.inode.touch_changed();
    show_path(&source);
    drop(changes);
    drop((old_place, target));
    Ok(())
}

/// Exchanges two names, called with [`CHANGES`] held; `name` is the target's.
fn swap(
    old_parent: &Arc<Dentry>,
    source: &Arc<Dentry>,
    new_parent: &Arc<Dentry>,
    target: &Arc<Dentry>,
    name: Vec<u8>,
) -> Result<(), Errno> {
    let old_name = source.with_name(copy_bytes)?;
    let (old_directory, new_directory) = (directory_of(old_parent)?, directory_of(new_parent)?);
    let old_slot = old_directory.slot_of(source).ok_or(Errno::ENOENT)?;
    let new_slot = new_directory.slot_of(target).ok_or(Errno::ENOENT)?;
    // Nothing can fail from here on.
    old_directory.replace(old_slot, target.clone());
    new_directory.replace(new_slot, source.clone());
    source.relocate(new_parent.clone(), name);
    target.relocate(old_parent.clone(), old_name);
    match (source.inode.is_directory(), target.inode.is_directory()) {
        (true, false) => {
            old_parent.inode.drop_links(1);
            new_parent.inode.add_link();
        }
        (false, true) => {
            new_parent.inode.drop_links(1);
            old_parent.inode.add_link();
        }
        _ => {}
    }
    for inode in [&old_parent.inode, &new_parent.inode] {
        inode.touch_modified();
    }
    source.inode.touch_changed();
    target.inode.touch_changed();
    show_path(source);
    show_path(target);
    Ok(())
}

/// Lets mappings of the file show its present path. When there is no memory
/// for it they go on showing the former one.
fn show_path(dentry: &Arc<Dentry>) {
    if let (Body::Regular(file), Ok(path)) = (&dentry.inode.body, dentry.path()) {
        file.set_name(&path);
    }
}
