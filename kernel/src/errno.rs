//! Linux error numbers, as every part of the kernel returns them.
//!
//! [`Errno`] is `mm`'s type. The numbers are constants here, next to those
//! that only exist inside of a kernel.

#![allow(dead_code, reason = "the list is the ABI's, not what is used of it")]

pub use mm::Errno;

/// What a fallible operation of the kernel returns.
pub type Result<T> = core::result::Result<T, Errno>;

macro_rules! errnos {
    ($($name:ident = $number:literal, $meaning:literal;)*) => {
        $(#[doc = $meaning] pub const $name: Errno = Errno($number);)*
    };
}

errnos! {
    EPERM = 1, "Operation not permitted.";
    ENOENT = 2, "No such file or directory.";
    ESRCH = 3, "No such process.";
    EINTR = 4, "Interrupted system call.";
    EIO = 5, "Input/output error.";
    ENXIO = 6, "No such device or address.";
    E2BIG = 7, "Argument list too long.";
    ENOEXEC = 8, "Exec format error.";
    EBADF = 9, "Bad file descriptor.";
    ECHILD = 10, "No child processes.";
    EAGAIN = 11, "Try again; the operation would block.";
    ENOMEM = 12, "Out of memory.";
    EACCES = 13, "Permission denied.";
    EFAULT = 14, "Bad address.";
    EBUSY = 16, "Device or resource busy.";
    EEXIST = 17, "File exists.";
    EXDEV = 18, "Link across file systems.";
    ENODEV = 19, "No such device, or not supported by it.";
    ENOTDIR = 20, "Not a directory.";
    EISDIR = 21, "Is a directory.";
    EINVAL = 22, "Invalid argument.";
    ENFILE = 23, "Too many open files in the system.";
    EMFILE = 24, "Too many open files.";
    ENOTTY = 25, "Not a terminal; inappropriate ioctl.";
    ETXTBSY = 26, "Text file busy.";
    EFBIG = 27, "File too large.";
    ENOSPC = 28, "No space left on device.";
    ESPIPE = 29, "Illegal seek.";
    EROFS = 30, "Read-only file system.";
    EMLINK = 31, "Too many links.";
    EPIPE = 32, "Broken pipe.";
    EDOM = 33, "Argument out of the function's domain.";
    ERANGE = 34, "Result not representable.";
    EDEADLK = 35, "Resource deadlock avoided.";
    ENAMETOOLONG = 36, "File name too long.";
    ENOSYS = 38, "Function not implemented.";
    ENOTEMPTY = 39, "Directory not empty.";
    ELOOP = 40, "Too many levels of symbolic links.";
    ENODATA = 61, "No data available.";
    EOVERFLOW = 75, "Value too large.";
    ELIBBAD = 80, "Accessing a corrupted shared library.";
    ENOTSOCK = 88, "Not a socket.";
    EMSGSIZE = 90, "Message too long.";
    EPROTONOSUPPORT = 93, "Protocol not supported.";
    ESOCKTNOSUPPORT = 94, "Socket type not supported.";
    EOPNOTSUPP = 95, "Operation not supported.";
    EAFNOSUPPORT = 97, "Address family not supported.";
    EISCONN = 106, "Already connected.";
    ETIMEDOUT = 110, "Timed out.";
    ERESTARTSYS = 512, "Kernel-internal: interrupted by a signal; restarted, or EINTR, at its delivery.";
    ERESTARTNOINTR = 513, "Kernel-internal: interrupted by a signal; restarted whatever its delivery does.";
    ERESTARTNOHAND = 514, "Kernel-internal: interrupted by a signal; restarted unless a handler runs, or EINTR.";
    ERESTART_RESTARTBLOCK = 516, "Kernel-internal: interrupted; EINTR unless the call can go on with what time is left.";
}
