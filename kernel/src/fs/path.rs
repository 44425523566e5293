//! From path names to dentries.
//!
//! A path is walked component by component, without recursion: when a
//! symbolic link is met, what it leads to is put before what is left of the
//! path. Symbolic links of `/proc` that stand for an open file or a directory
//! of a process jump there directly.

use core::sync::atomic::{AtomicU32, Ordering};

use alloc::sync::Arc;
use alloc::vec::Vec;
use mm::Errno;

use super::dentry::{Dentry, NAME_MAX, PATH_MAX, copy_bytes};
use super::inode::Body;
use crate::arch::irq::Mutex;

/// The most symbolic links that one path may lead through.
const MAX_LINKS: usize = 40;

/// Where a process stands in the file system; shared by `CLONE_FS`.
pub struct FsContext {
    root: Arc<Dentry>,
    current: Mutex<Arc<Dentry>>,
    umask: AtomicU32,
}

impl FsContext {
    /// At the root, with Linux's usual umask.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new(root: Arc<Dentry>) -> Result<Arc<FsContext>, Errno> {
        let current = Mutex::new(root.clone());
        Arc::try_new(FsContext { root, current, umask: AtomicU32::new(0o022) }).map_err(|_| Errno::ENOMEM)
    }

    /// A copy, as `fork` makes it.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn fork(&self) -> Result<Arc<FsContext>, Errno> {
        let copy = FsContext {
            root: self.root.clone(),
            current: Mutex::new(self.current()),
            umask: AtomicU32::new(self.umask()),
        };
        Arc::try_new(copy).map_err(|_| Errno::ENOMEM)
    }

    /// The root directory.
    pub fn root(&self) -> &Arc<Dentry> {
        &self.root
    }

    /// The current directory.
    pub fn current(&self) -> Arc<Dentry> {
        self.current.lock().clone()
    }

    /// Changes the current directory.
    ///
    /// # Errors
    /// `ENOTDIR`.
    pub fn set_current(&self, directory: Arc<Dentry>) -> Result<(), Errno> {
        if !directory.inode.is_directory() {
            return Err(Errno::ENOTDIR);
        }
        let old = core::mem::replace(&mut *self.current.lock(), directory);
        // Dropped here, outside of the lock.
        drop(old);
        Ok(())
    }

    /// The permissions that new files do not get.
    pub fn umask(&self) -> u32 {
        self.umask.load(Ordering::Relaxed)
    }

    /// Sets the umask and returns the one before.
    pub fn set_umask(&self, mask: u32) -> u32 {
        self.umask.swap(mask & 0o777, Ordering::Relaxed)
    }
}

/// Where a path ends.
pub struct Walk {
    /// The directory of the last component; of a path that ends in `/`, `.`
    /// or `..`, the directory itself.
    pub parent: Arc<Dentry>,
    /// The last component; empty for a path that ends in `/`, `.` or `..`
    /// and leads to `parent` itself.
    pub name: Vec<u8>,
    /// What is there, if anything is.
    pub target: Option<Arc<Dentry>>,
    /// A slash follows the last component, so it must be a directory.
    pub wants_directory: bool,
    /// How the path ends when it does not end in a name.
    pub special: Option<Special>,
}

/// A path's end that is not a name in a directory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// The root directory.
    Root,
    /// `.`
    Dot,
    /// `..`
    DotDot,
    /// A link of `/proc` was followed to a file.
    Jump,
}

impl Walk {
    /// What is there.
    ///
    /// # Errors
    /// `ENOENT` if nothing is, `ENOTDIR` if it is no directory but must be one.
    pub fn existing(self) -> Result<Arc<Dentry>, Errno> {
        let target = self.target.ok_or(Errno::ENOENT)?;
        if self.wants_directory && !target.inode.is_directory() {
            return Err(Errno::ENOTDIR);
        }
        Ok(target)
    }
}

/// The entry called `name` of a directory.
fn look_up(directory: &Arc<Dentry>, name: &[u8]) -> Result<Option<Arc<Dentry>>, Errno> {
    if name.len() > NAME_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    match &directory.inode.body {
        Body::Directory(entries) => Ok(entries.get(name)),
        Body::Proc(node) if directory.inode.is_directory() => node.look_up(directory, name),
        _ => Err(Errno::ENOTDIR),
    }
}

/// Walks `path` from `start` (or the root, if it is absolute). The last
/// component need not exist. If it is a symbolic link it is followed when
/// `follow` is set or a slash comes behind it.
///
/// # Errors
/// `ENOENT` for an empty path or a missing directory on the way, `ENOTDIR`,
/// `ELOOP`, `ENAMETOOLONG`, `ENOMEM`.
pub fn walk(root: &Arc<Dentry>, start: &Arc<Dentry>, path: &[u8], follow: bool) -> Result<Walk, Errno> {
    if path.is_empty() {
        return Err(Errno::ENOENT);
    }
    if path.len() >= PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    // Only set once a symbolic link has been met: the path from there on.
    let mut expanded: Vec<u8>;
    let mut left = path;
    let mut at = start.clone();
    let mut special = Special::Dot;
    let mut links = 0;
    loop {
        if left.first() == Some(&b'/') {
            at = root.clone();
            special = Special::Root;
        }
        // Inner loop: one string. Left by a symbolic link, which makes a new one.
        let link = loop {
            left = trim_slashes(left);
            if left.is_empty() {
                return Ok(Walk {
                    parent: at.clone(),
                    name: Vec::new(),
                    target: Some(at),
                    wants_directory: special != Special::Jump,
                    special: Some(special),
                });
            }
            let end = left.iter().position(|&byte| byte == b'/').unwrap_or(left.len());
            let (name, rest) = left.split_at(end);
            let is_last = trim_slashes(rest).is_empty();
            left = rest;
            if !at.inode.is_directory() {
                return Err(Errno::ENOTDIR);
            }
            match name {
                b"." => {
                    special = Special::Dot;
                    continue;
                }
                b".." => {
                    special = Special::DotDot;
                    if let Some(parent) = at.parent() {
                        at = parent;
                    }
                    continue;
                }
                _ => {}
            }
            let target = look_up(&at, name)?;
            match target {
                Some(found) if found.inode.is_symlink() => {
                    if !is_last || follow || !rest.is_empty() {
                        break found;
                    }
                    return named(at, name, Some(found), false);
                }
                target if is_last => return named(at, name, target, !rest.is_empty()),
                Some(found) => at = found,
                None => return Err(Errno::ENOENT),
            }
        };
        links += 1;
        if links > MAX_LINKS {
            return Err(Errno::ELOOP);
        }
        match follow_link(&link)? {
            Followed::Path(target) => {
                expanded = join(&target, left)?;
                left = &expanded;
                // A relative link goes on from the directory it is in; an
                // absolute one is seen at the top of the loop.
                special = Special::Dot;
            }
            Followed::Jump(place) => {
                at = place;
                special = Special::Jump;
                if !left.is_empty() && !at.inode.is_directory() {
                    return Err(Errno::ENOTDIR);
                }
                left = trim_slashes(left);
            }
        }
    }
}

fn trim_slashes(path: &[u8]) -> &[u8] {
    let start = path.iter().position(|&byte| byte != b'/').unwrap_or(path.len());
    &path[start..]
}

fn named(parent: Arc<Dentry>, name: &[u8], target: Option<Arc<Dentry>>, wants_directory: bool) -> Result<Walk, Errno> {
    Ok(Walk { parent, name: copy_bytes(name)?, target, wants_directory, special: None })
}

/// `target` followed by `rest`, which is empty or begins with a slash.
fn join(target: &[u8], rest: &[u8]) -> Result<Vec<u8>, Errno> {
    if target.is_empty() {
        return Err(Errno::ENOENT);
    }
    let mut path = Vec::new();
    path.try_reserve_exact(target.len() + rest.len()).map_err(|_| Errno::ENOMEM)?;
    path.extend_from_slice(target);
    path.extend_from_slice(rest);
    Ok(path)
}

/// Where a symbolic link leads.
pub enum Followed {
    /// To this path, seen from the link's directory.
    Path(Vec<u8>),
    /// To this very thing, whatever its name may be.
    Jump(Arc<Dentry>),
}

/// Where the symbolic link `link` leads.
fn follow_link(link: &Dentry) -> Result<Followed, Errno> {
    match &link.inode.body {
        Body::Symlink(target) => Ok(Followed::Path(copy_bytes(target)?)),
        Body::Proc(node) => node.follow(),
        _ => Err(Errno::EINVAL),
    }
}

/// What `readlink` returns for `link`.
///
/// # Errors
/// `EINVAL` if it is no symbolic link.
pub fn read_link(link: &Dentry) -> Result<Vec<u8>, Errno> {
    if !link.inode.is_symlink() {
        return Err(Errno::EINVAL);
    }
    match &link.inode.body {
        Body::Symlink(target) => copy_bytes(target),
        Body::Proc(node) => node.read_link(),
        _ => Err(Errno::EINVAL),
    }
}
