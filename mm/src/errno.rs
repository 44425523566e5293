//! The numbers that errors become at the system-call edge.

/// A Linux error number, positive.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Errno(pub u16);

impl Errno {
    /// Not permitted.
    pub const EPERM: Errno = Errno(1);
    /// No such file or directory.
    pub const ENOENT: Errno = Errno(2);
    /// No such process.
    pub const ESRCH: Errno = Errno(3);
    /// Interrupted.
    pub const EINTR: Errno = Errno(4);
    /// Input/output error.
    pub const EIO: Errno = Errno(5);
    /// No such device or address.
    pub const ENXIO: Errno = Errno(6);
    /// Argument list too long.
    pub const E2BIG: Errno = Errno(7);
    /// Not an executable format.
    pub const ENOEXEC: Errno = Errno(8);
    /// Bad file descriptor.
    pub const EBADF: Errno = Errno(9);
    /// No child processes.
    pub const ECHILD: Errno = Errno(10);
    /// Try again; also "over the mlock limit".
    pub const EAGAIN: Errno = Errno(11);
    /// Out of memory, address space, or mappings.
    pub const ENOMEM: Errno = Errno(12);
    /// Access denied.
    pub const EACCES: Errno = Errno(13);
    /// Bad address.
    pub const EFAULT: Errno = Errno(14);
    /// Not a block device.
    pub const ENOTBLK: Errno = Errno(15);
    /// Busy.
    pub const EBUSY: Errno = Errno(16);
    /// Exists.
    pub const EEXIST: Errno = Errno(17);
    /// Across file systems.
    pub const EXDEV: Errno = Errno(18);
    /// Not supported by the device or file.
    pub const ENODEV: Errno = Errno(19);
    /// Not a directory.
    pub const ENOTDIR: Errno = Errno(20);
    /// Is a directory.
    pub const EISDIR: Errno = Errno(21);
    /// Invalid argument.
    pub const EINVAL: Errno = Errno(22);
    /// Too many open files in the system.
    pub const ENFILE: Errno = Errno(23);
    /// Too many open files in the process.
    pub const EMFILE: Errno = Errno(24);
    /// Not a terminal.
    pub const ENOTTY: Errno = Errno(25);
    /// Executable in use.
    pub const ETXTBSY: Errno = Errno(26);
    /// File too large.
    pub const EFBIG: Errno = Errno(27);
    /// No space.
    pub const ENOSPC: Errno = Errno(28);
    /// Cannot seek.
    pub const ESPIPE: Errno = Errno(29);
    /// Read-only file system.
    pub const EROFS: Errno = Errno(30);
    /// Too many links.
    pub const EMLINK: Errno = Errno(31);
    /// Broken pipe.
    pub const EPIPE: Errno = Errno(32);
    /// Argument out of domain.
    pub const EDOM: Errno = Errno(33);
    /// Result out of range.
    pub const ERANGE: Errno = Errno(34);
    /// Would deadlock.
    pub const EDEADLK: Errno = Errno(35);
    /// Name too long.
    pub const ENAMETOOLONG: Errno = Errno(36);
    /// No locks available.
    pub const ENOLCK: Errno = Errno(37);
    /// Not implemented.
    pub const ENOSYS: Errno = Errno(38);
    /// Directory not empty.
    pub const ENOTEMPTY: Errno = Errno(39);
    /// Too many symbolic links.
    pub const ELOOP: Errno = Errno(40);
    /// Value too large.
    pub const EOVERFLOW: Errno = Errno(75);
    /// Not supported.
    pub const EOPNOTSUPP: Errno = Errno(95);
    /// Timed out.
    pub const ETIMEDOUT: Errno = Errno(110);
}

/// Physical memory, or room for one of the crate's own objects, could not be had.
///
/// Always recoverable: the operation that reports it has changed nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfMemory;

impl core::fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("out of memory")
    }
}

impl core::error::Error for OutOfMemory {}

impl From<OutOfMemory> for Errno {
    fn from(_: OutOfMemory) -> Errno {
        Errno::ENOMEM
    }
}
