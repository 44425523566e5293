//! Names and their places in the tree.
//!
//! A [`Dentry`] binds a name in a directory to an inode. In the tree at `/`
//! the dentries *are* the directory entries: a directory owns those of its
//! children, a child points back at its parent, and removing a name cuts the
//! circle. `/proc` makes dentries afresh at every look-up. Files without a
//! name have a dentry without a parent.
//!
//! A name and its parent change under the tree's change lock
//! ([`super::tmpfs`]); readers see one place or the other, never a mixture.

use alloc::sync::Arc;
use alloc::vec::Vec;
use mm::Errno;

use super::inode::Inode;
use crate::arch::irq::RwLock;

/// The longest name of one path component.
pub const NAME_MAX: usize = 255;
/// The longest path, with its terminating NUL.
pub const PATH_MAX: usize = 4096;

/// A copy of `bytes`.
///
/// # Errors
/// `ENOMEM`.
pub fn copy_bytes(bytes: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len()).map_err(|_| Errno::ENOMEM)?;
    copy.extend_from_slice(bytes);
    Ok(copy)
}

/// A name in a directory, and the inode it stands for.
pub struct Dentry {
    /// What the name stands for.
    pub inode: Arc<Inode>,
    /// Something is mounted here: it can be neither removed nor renamed.
    pub is_mount: bool,
    place: RwLock<Place>,
}

/// Where a name is.
pub struct Place {
    parent: Option<Arc<Dentry>>,
    name: Vec<u8>,
    removed: bool,
}

impl Dentry {
    /// A name in `parent`. That `parent` knows of it is up to the caller.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new(parent: &Arc<Dentry>, name: &[u8], inode: Arc<Inode>) -> Result<Arc<Dentry>, Errno> {
        Dentry::build(Some(parent.clone()), name, inode, false)
    }

    /// A name in `parent` at which another file system begins.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new_mount(parent: &Arc<Dentry>, name: &[u8], inode: Arc<Inode>) -> Result<Arc<Dentry>, Errno> {
        Dentry::build(Some(parent.clone()), name, inode, true)
    }

    /// The root of the tree, or a file without a place in it: `name` is what
    /// `/proc/PID/fd` shows for it.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn without_parent(name: &[u8], inode: Arc<Inode>) -> Result<Arc<Dentry>, Errno> {
        Dentry::build(None, name, inode, false)
    }

    fn build(
        parent: Option<Arc<Dentry>>,
        name: &[u8],
        inode: Arc<Inode>,
        is_mount: bool,
    ) -> Result<Arc<Dentry>, Errno> {
        let place = RwLock::new(Place { parent, name: copy_bytes(name)?, removed: false });
        Arc::try_new(Dentry { inode, is_mount, place }).map_err(|_| Errno::ENOMEM)
    }

    /// The directory it is in; `None` for the root and what has no name.
    pub fn parent(&self) -> Option<Arc<Dentry>> {
        self.place.read().parent.clone()
    }

    /// Whether its name is `name`.
    pub fn is_named(&self, name: &[u8]) -> bool {
        self.place.read().name == name
    }

    /// Calls `f` with its name.
    pub fn with_name<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        f(&self.place.read().name)
    }

    /// Whether the name was removed (the inode may live on in open files).
    pub fn is_removed(&self) -> bool {
        self.place.read().removed
    }

    /// Marks the name as removed.
    pub fn mark_removed(&self) {
        self.place.write().removed = true;
    }

    /// Gives it another place. Cannot fail: the caller brings the memory of
    /// the new name, and gets the old place back to be dropped outside of locks.
    pub fn relocate(&self, parent: Arc<Dentry>, name: Vec<u8>) -> Place {
        let place = Place { parent: Some(parent), name, removed: false };
        core::mem::replace(&mut self.place.write(), place)
    }

    /// Whether `ancestor` is this dentry or above it.
    pub fn is_below(self: &Arc<Dentry>, ancestor: &Arc<Dentry>) -> bool {
        let mut at = Some(self.clone());
        while let Some(dentry) = at {
            if Arc::ptr_eq(&dentry, ancestor) {
                return true;
            }
            at = dentry.parent();
        }
        false
    }

    /// The absolute path, as `/proc` shows it: with ` (deleted)` behind it
    /// when the name is gone; just the name for what never had a place.
    ///
    /// # Errors
    /// `ENOMEM`; `ENAMETOOLONG` beyond [`PATH_MAX`].
    pub fn path(self: &Arc<Dentry>) -> Result<Vec<u8>, Errno> {
        if self.parent().is_none() {
            return self.with_name(copy_bytes);
        }
        // Built back to front: each step appends its name reversed.
        let mut path = Vec::new();
        let mut append = |bytes: &[u8]| {
            if path.len() + bytes.len() >= PATH_MAX {
                return Err(Errno::ENAMETOOLONG);
            }
            path.try_reserve(bytes.len()).map_err(|_| Errno::ENOMEM)?;
            path.extend(bytes.iter().rev());
            Ok(())
        };
        if self.is_removed() {
            append(b" (deleted)")?;
        }
        let mut at = self.clone();
        while let Some(parent) = at.parent() {
            at.with_name(&mut append)?;
            append(b"/")?;
            at = parent;
        }
        path.reverse();
        Ok(path)
    }
}

impl Drop for Dentry {
    /// Lets go of the parents one by one: a chain of removed directories may
    /// be longer than the kernel stack is deep.
    fn drop(&mut self) {
        let mut parent = self.place.get_mut().parent.take();
        while let Some(mut dentry) = parent.and_then(Arc::into_inner) {
            parent = dentry.place.get_mut().parent.take();
        }
    }
}
