//! Inodes: what a name in the file system stands for.

use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use alloc::sync::Arc;
use alloc::vec::Vec;
use mm::{Errno, PAGE_SIZE};

use super::channel::Channel;
use super::device::Device;
use super::procfs;
use super::tmpfs::{Directory, Regular};
use crate::arch::time::realtime_ns;
use crate::memory::memory;

/// The file-type bits of a mode.
pub const S_IFMT: u32 = 0o170000;
/// Socket.
pub const S_IFSOCK: u32 = 0o140000;
/// Symbolic link.
pub const S_IFLNK: u32 = 0o120000;
/// Regular file.
pub const S_IFREG: u32 = 0o100000;
/// Block device.
pub const S_IFBLK: u32 = 0o060000;
/// Directory.
pub const S_IFDIR: u32 = 0o040000;
/// Character device.
pub const S_IFCHR: u32 = 0o020000;
/// Pipe.
pub const S_IFIFO: u32 = 0o010000;

/// The file systems there are: what `st_dev` and `statfs` say of an inode.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// The tree at `/`.
    Tmpfs,
    /// `/proc`.
    Proc,
    /// `/sys`.
    Sysfs,
    /// Files without a name: pipes, memfds, event counters.
    Anonymous,
}

impl FileSystem {
    /// The minor device number; the major one is 0, as of everything without a disk.
    pub const fn device_minor(self) -> u32 {
        match self {
            FileSystem::Tmpfs => 1,
            FileSystem::Proc => 2,
            FileSystem::Anonymous => 3,
            FileSystem::Sysfs => 4,
        }
    }

    /// `f_type` of `statfs`.
    pub const fn magic(self) -> u64 {
        match self {
            FileSystem::Tmpfs => 0x0102_1994,
            FileSystem::Proc => 0x9fa0,
            FileSystem::Sysfs => 0x6265_6572,
            FileSystem::Anonymous => 0x0904_1934,
        }
    }
}

/// What an inode is, with what only that kind has.
pub enum Body {
    /// A file whose contents are a memory object.
    Regular(Regular),
    /// A directory of the tree at `/`.
    Directory(Directory),
    /// A symbolic link and where it leads.
    Symlink(Vec<u8>),
    /// A character device.
    Device(Device),
    /// A pipe, with or without a name.
    Fifo(Arc<Channel>),
    /// Something in `/proc`.
    Proc(procfs::Node),
    /// What has no contents to be opened again: event counters and the like.
    Anonymous,
}

/// A file, directory or other thing that names lead to. Owner and group are 0.
pub struct Inode {
    /// Unique among the inodes of its file system.
    pub number: u64,
    /// Where it lives.
    pub file_system: FileSystem,
    mode: AtomicU32,
    links: AtomicU32,
    accessed: AtomicU64,
    modified: AtomicU64,
    changed: AtomicU64,
    /// What it is.
    pub body: Body,
}

/// What `stat` reports. Times are nanoseconds since 1970.
pub struct Metadata {
    /// Minor number of the device it is on.
    pub device_minor: u32,
    /// Inode number.
    pub number: u64,
    /// Type and permissions.
    pub mode: u32,
    /// Names.
    pub links: u32,
    /// Device number of a device: major and minor.
    pub device: (u32, u32),
    /// Length in bytes.
    pub size: u64,
    /// Memory used, in units of 512 bytes.
    pub blocks: u64,
    /// Last read.
    pub accessed: u64,
    /// Last write.
    pub modified: u64,
    /// Last change of the inode.
    pub changed: u64,
}

/// Inodes of the tree at `/` that there are.
static TREE_INODES: AtomicUsize = AtomicUsize::new(0);

/// The most inodes that the tree at `/` may have: as Linux's tmpfs, one for
/// every two pages of memory.
pub fn inode_limit() -> usize {
    memory().total_frames() / 2
}

/// Inodes of the tree at `/` that there are.
pub fn inode_count() -> usize {
    TREE_INODES.load(Ordering::Relaxed)
}

/// A new inode number, from a counter that all file systems share.
pub fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(2);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Inode {
    /// An inode with a number of its own.
    ///
    /// # Errors
    /// `ENOMEM`; `ENOSPC` when the tree has as many as it may have.
    pub fn new(file_system: FileSystem, mode: u32, links: u32, body: Body) -> Result<Arc<Inode>, Errno> {
        Inode::with_number(next_number(), file_system, mode, links, body)
    }

    /// An inode with a given number.
    ///
    /// # Errors
    /// `ENOMEM`; `ENOSPC` when the tree has as many as it may have.
    pub fn with_number(
        number: u64,
        file_system: FileSystem,
        mode: u32,
        links: u32,
        body: Body,
    ) -> Result<Arc<Inode>, Errno> {
        let now = realtime_ns();
        let inode = Inode {
            number,
            file_system,
            mode: AtomicU32::new(mode),
            links: AtomicU32::new(links),
            accessed: AtomicU64::new(now),
            modified: AtomicU64::new(now),
            changed: AtomicU64::new(now),
            body,
        };
        // From here on dropping the inode counts it off again.
        if inode.is_in_tree() && TREE_INODES.fetch_add(1, Ordering::Relaxed) >= inode_limit() {
            return Err(Errno::ENOSPC);
        }
        Arc::try_new(inode).map_err(|_| Errno::ENOMEM)
    }

    fn is_in_tree(&self) -> bool {
        self.file_system == FileSystem::Tmpfs
    }

    /// Type and permissions.
    pub fn mode(&self) -> u32 {
        self.mode.load(Ordering::Relaxed)
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.mode() & S_IFMT == S_IFDIR
    }

    /// Whether it is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.mode() & S_IFMT == S_IFLNK
    }

    /// Replaces the permission bits.
    ///
    /// # Errors
    /// `EPERM` in `/proc` and `/sys`, `EOPNOTSUPP` for a symbolic link.
    pub fn set_permissions(&self, permissions: u32) -> Result<(), Errno> {
        if matches!(self.file_system, FileSystem::Proc | FileSystem::Sysfs) {
            return Err(Errno::EPERM);
        }
        if self.is_symlink() {
            return Err(Errno::EOPNOTSUPP);
        }
        let kind = self.mode() & S_IFMT;
        self.mode.store(kind | permissions & 0o7777, Ordering::Relaxed);
        self.touch_changed();
        Ok(())
    }

    /// Number of names.
    pub fn links(&self) -> u32 {
        self.links.load(Ordering::Relaxed)
    }

    /// Adds a name.
    pub fn add_link(&self) {
        self.links.fetch_add(1, Ordering::Relaxed);
        self.touch_changed();
    }

    /// Removes `count` names (a removed directory loses its own `.` too).
    pub fn drop_links(&self, count: u32) {
        self.links.fetch_sub(count, Ordering::Relaxed);
        self.touch_changed();
    }

    /// Notes a read.
    pub fn touch_accessed(&self) {
        self.accessed.store(realtime_ns(), Ordering::Relaxed);
    }

    /// Notes a change of the contents.
    pub fn touch_modified(&self) {
        let now = realtime_ns();
        self.modified.store(now, Ordering::Relaxed);
        self.changed.store(now, Ordering::Relaxed);
    }

    /// Notes a change of the inode itself.
    pub fn touch_changed(&self) {
        self.changed.store(realtime_ns(), Ordering::Relaxed);
    }

    /// Sets the times of the last read and write, in nanoseconds since 1970;
    /// `None` leaves one as it is.
    pub fn set_times(&self, accessed: Option<u64>, modified: Option<u64>) {
        if let Some(time) = accessed {
            self.accessed.store(time, Ordering::Relaxed);
        }
        if let Some(time) = modified {
            self.modified.store(time, Ordering::Relaxed);
        }
        self.touch_changed();
    }

    /// Everything that `stat` reports.
    pub fn metadata(&self) -> Metadata {
        let (size, pages) = match &self.body {
            Body::Regular(file) => (file.len(), file.resident_pages()),
            Body::Directory(directory) => (directory.size(), 0),
            Body::Symlink(target) => (target.len() as u64, 0),
            Body::Device(_) | Body::Fifo(_) | Body::Proc(_) | Body::Anonymous => (0, 0),
        };
        Metadata {
            device_minor: self.file_system.device_minor(),
            number: self.number,
            mode: self.mode(),
            links: self.links(),
            device: match &self.body {
                Body::Device(device) => device.number(),
                _ => (0, 0),
            },
            size,
            blocks: pages * (PAGE_SIZE as u64 / 512),
            accessed: self.accessed.load(Ordering::Relaxed),
            modified: self.modified.load(Ordering::Relaxed),
            changed: self.changed.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Inode {
    fn drop(&mut self) {
        if self.is_in_tree() {
            TREE_INODES.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
