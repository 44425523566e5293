//! Processes as files (`pidfd_open`): one can be waited for together with other files.

use alloc::sync::Arc;
use mm::Errno;

use super::dentry::Dentry;
use super::file::flags::O_RDWR;
use super::file::{File, FileOps};
use super::inode::{Body, FileSystem, Inode};
use super::poll::{Events, Readiness};
use crate::task::process::Process;

/// A process, which may have ended.
struct PidFd(Arc<Process>);

impl FileOps for PidFd {
    /// Readable when the process has ended, once and for all.
    fn poll(&self, _: &File) -> Readiness {
        let ended = self.0.is_zombie();
        let events = if ended { Events::IN | Events::RDNORM } else { Events::empty() };
        Readiness { events, stamp: u64::from(ended) }
    }
}

/// A file for `process`; `flags` are `open`'s.
///
/// # Errors
/// `ENOMEM`.
pub fn new_file(process: Arc<Process>, flags: u32) -> Result<Arc<File>, Errno> {
    let inode = Inode::new(FileSystem::Anonymous, 0o700, 1, Body::Anonymous)?;
    let dentry = Dentry::without_parent(b"anon_inode:[pidfd]", inode)?;
    File::new(dentry, PidFd(process), flags | O_RDWR)
}
