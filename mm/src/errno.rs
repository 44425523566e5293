//! The numbers that errors become at the system-call edge.

/// A Linux error number, positive.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Errno(pub u16);

impl Errno {
    /// Not permitted.
    pub const EPERM: Errno = Errno(1);
    /// Interrupted.
    pub const EINTR: Errno = Errno(4);
    /// Input/output error.
    pub const EIO: Errno = Errno(5);
    /// Bad file descriptor.
    pub const EBADF: Errno = Errno(9);
    /// Try again; also "over the mlock limit".
    pub const EAGAIN: Errno = Errno(11);
    /// Out of memory, address space, or mappings.
    pub const ENOMEM: Errno = Errno(12);
    /// Access denied.
    pub const EACCES: Errno = Errno(13);
    /// Bad address.
    pub const EFAULT: Errno = Errno(14);
    /// Busy.
    pub const EBUSY: Errno = Errno(16);
    /// Exists.
    pub const EEXIST: Errno = Errno(17);
    /// Not supported by the device or file.
    pub const ENODEV: Errno = Errno(19);
    /// Invalid argument.
    pub const EINVAL: Errno = Errno(22);
    /// File too large.
    pub const EFBIG: Errno = Errno(27);
    /// No space.
    pub const ENOSPC: Errno = Errno(28);
    /// Value too large.
    pub const EOVERFLOW: Errno = Errno(75);
    /// Not supported.
    pub const EOPNOTSUPP: Errno = Errno(95);
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
