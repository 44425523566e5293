//! Files: a small virtual file system.
//!
//! ```text
//! FdTable ── fd ──▶ File ──▶ Dentry ──▶ Inode ──▶ Body
//!                    │        name       mode,     contents: memory object,
//!                    ▼        parent     times     directory, device, pipe, …
//!                  FileOps
//! ```
//!
//! The tree at `/` lives in memory ([`tmpfs`]); `/proc` ([`procfs`]) is made up
//! on the fly; pipes, event counters and memfds have no name at all. What a
//! regular file contains is a memory object of `mm`, so that it can be mapped.
//!
//! Everything that a program can make fail for want of memory returns
//! `ENOMEM`; bulk data is kept in frames ([`page`]), not on the kernel heap.

pub mod channel;
pub mod claim;
pub mod dentry;
pub mod device;
pub mod epoll;
pub mod eventfd;
pub mod file;
pub mod flock;
pub mod inode;
pub mod io;
pub mod page;
pub mod path;
pub mod pidfd;
pub mod pipe;
pub mod poll;
pub mod procfs;
pub mod small_text;
pub mod socket;
pub mod table;
pub mod tmpfs;
pub mod tty;

pub mod boot;
mod open;
mod ring;
mod sleep_lock;

use alloc::sync::Arc;
use mm::Errno;
use spin::Once;

pub use boot::{init, program_path, standard_files};
pub use file::File;
pub use open::{open, open_exec, open_inode, open_program};
pub use path::FsContext;
pub use table::FdTable;

use crate::memory::KernelPlatform;
use crate::task::signal::{SigInfo, Signal, send};
use crate::task::thread::current;
use dentry::Dentry;

/// The contents of a file, as `mm` knows them.
pub type Object = mm::ObjectRef<'static, KernelPlatform>;

static ROOT: Once<Arc<Dentry>> = Once::new();

/// The root directory.
///
/// # Errors
/// `ENOENT` before [`init`].
pub fn root() -> Result<Arc<Dentry>, Errno> {
    ROOT.get().cloned().ok_or(Errno::ENOENT)
}

/// Tells the current thread that nobody reads the pipe it writes to.
fn send_sigpipe() {
    // The only failure is a full queue of real-time signals, which this is not.
    let _ = send::to_thread(&current().to_arc(), SigInfo::kernel(Signal::SIGPIPE));
}

/// Whether the current thread has a signal to see to.
fn signal_pending() -> bool {
    current().is_interrupted()
}
