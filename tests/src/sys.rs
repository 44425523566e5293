//! System calls by number, with the kernel's own error numbers.
//!
//! Nothing here is an `unsafe fn`, although `munmap` can pull the ground from
//! under a program: handing the kernel addresses that make no sense is what these
//! programs are for. They keep to memory that they mapped themselves, or do it in
//! a child process.

use std::ffi::CStr;
use std::fmt;

pub const PAGE: usize = 4096;
/// Sets of CPUs have a bit for each of so many.
pub const CPUS: usize = 1024;
/// End of user space, in bytes, with four-level paging.
pub const TASK_SIZE: usize = (1 << 47) - PAGE;

pub const NONE: usize = libc::PROT_NONE as usize;
pub const R: usize = libc::PROT_READ as usize;
pub const W: usize = libc::PROT_WRITE as usize;
pub const X: usize = libc::PROT_EXEC as usize;
pub const RW: usize = R | W;

/// `MAP_PRIVATE | MAP_ANONYMOUS`: what most mappings here are.
pub const ANON: usize = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;
pub const FIXED: usize = libc::MAP_FIXED as usize;
pub const NOREPLACE: usize = libc::MAP_FIXED_NOREPLACE as usize;
pub const POPULATE: usize = libc::MAP_POPULATE as usize;
pub const GROWSDOWN: usize = libc::MAP_GROWSDOWN as usize;
pub const NORESERVE: usize = libc::MAP_NORESERVE as usize;
pub const STACK: usize = libc::MAP_STACK as usize;
pub const LOW: usize = libc::MAP_32BIT as usize;

pub const MAYMOVE: usize = libc::MREMAP_MAYMOVE as usize;
pub const TO: usize = libc::MREMAP_FIXED as usize | MAYMOVE;
pub const DONTUNMAP: usize = 4 | MAYMOVE;

/// A Linux error number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

pub type Result<T = usize> = std::result::Result<T, Errno>;

/// Name and number of each error that a program here may print.
const NAMES: &[(i32, &str)] = &[
    (libc::EPERM, "EPERM"),
    (libc::ENOENT, "ENOENT"),
    (libc::ESRCH, "ESRCH"),
    (libc::EINTR, "EINTR"),
    (libc::EIO, "EIO"),
    (libc::E2BIG, "E2BIG"),
    (libc::ENOEXEC, "ENOEXEC"),
    (libc::EBADF, "EBADF"),
    (libc::ECHILD, "ECHILD"),
    (libc::EAGAIN, "EAGAIN"),
    (libc::ENOMEM, "ENOMEM"),
    (libc::EACCES, "EACCES"),
    (libc::EFAULT, "EFAULT"),
    (libc::EBUSY, "EBUSY"),
    (libc::EEXIST, "EEXIST"),
    (libc::ENODEV, "ENODEV"),
    (libc::ENOTDIR, "ENOTDIR"),
    (libc::EISDIR, "EISDIR"),
    (libc::EINVAL, "EINVAL"),
    (libc::EMFILE, "EMFILE"),
    (libc::ENOTTY, "ENOTTY"),
    (libc::EFBIG, "EFBIG"),
    (libc::ENOSPC, "ENOSPC"),
    (libc::ESPIPE, "ESPIPE"),
    (libc::EROFS, "EROFS"),
    (libc::EPIPE, "EPIPE"),
    (libc::ERANGE, "ERANGE"),
    (libc::ENAMETOOLONG, "ENAMETOOLONG"),
    (libc::ENOSYS, "ENOSYS"),
    (libc::ENOTEMPTY, "ENOTEMPTY"),
    (libc::EOVERFLOW, "EOVERFLOW"),
    (libc::EOPNOTSUPP, "EOPNOTSUPP"),
    (libc::ETIMEDOUT, "ETIMEDOUT"),
];

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Errno {}

/// Makes system call `number`; missing arguments are 0.
#[inline]
pub fn call<const N: usize>(number: libc::c_long, arguments: &[usize; N]) -> Result {
    let a: [usize; 6] = std::array::from_fn(|i| arguments.get(i).copied().unwrap_or(0));
    // SAFETY: see the module's documentation; no memory that Rust knows of is
    // handed to the kernel except through the typed functions below.
    let result = unsafe { libc::syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]) };
    if result == -1 {
        // SAFETY: `__errno_location` returns a valid pointer to this thread's errno.
        Err(Errno(unsafe { *libc::__errno_location() }))
    } else {
        Ok(result as usize)
    }
}

/// Lets a thread, 0 for the calling one, run on one CPU only: the one with that number, below [`CPUS`].
pub fn bind(thread: usize, cpu: usize) -> Result {
    let mut set = [0u64; CPUS / 64];
    set[cpu / 64] = 1 << (cpu % 64);
    call(libc::SYS_sched_setaffinity, &[thread, size_of_val(&set), set.as_ptr() as usize])
}

/// `mmap` without a file.
pub fn mmap(addr: usize, len: usize, prot: usize, flags: usize) -> Result {
    call(libc::SYS_mmap, &[addr, len, prot, flags, usize::MAX, 0])
}

pub fn munmap(addr: usize, len: usize) -> Result {
    call(libc::SYS_munmap, &[addr, len])
}

pub fn mprotect(addr: usize, len: usize, prot: usize) -> Result {
    call(libc::SYS_mprotect, &[addr, len, prot])
}

pub fn mremap(addr: usize, old: usize, new: usize, flags: usize, to: usize) -> Result {
    call(libc::SYS_mremap, &[addr, old, new, flags, to])
}

pub fn madvise(addr: usize, len: usize, advice: i32) -> Result {
    call(libc::SYS_madvise, &[addr, len, advice as usize])
}

/// The program break after asking for `addr`.
pub fn brk(addr: usize) -> usize {
    call(libc::SYS_brk, &[addr]).expect("brk never fails")
}

/// One byte per page of the range: whether it is resident.
pub fn mincore(addr: usize, pages: usize) -> Result<Vec<bool>> {
    let mut bytes = vec![0u8; pages];
    call(libc::SYS_mincore, &[addr, pages * PAGE, bytes.as_mut_ptr() as usize])?;
    Ok(bytes.iter().map(|byte| byte & 1 != 0).collect())
}

/// How a child ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    Exited(i32),
    Killed(i32),
}

impl Status {
    fn decode(status: i32) -> Status {
        if libc::WIFSIGNALED(status) {
            Status::Killed(libc::WTERMSIG(status))
        } else {
            Status::Exited(libc::WEXITSTATUS(status))
        }
    }
}

/// Starts a child that does `work` and exits with what it returns; returns its
/// process id.
pub fn spawn(work: impl FnOnce() -> i32) -> Result<i32> {
    flush();
    // SAFETY: the programs fork while they have one thread, or do in the child
    // only what is safe then.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))),
        0 => exit(work()),
        _ => Ok(pid),
    }
}

/// Waits for one child.
pub fn wait(pid: i32) -> Result<Status> {
    let mut status = 0i32;
    loop {
        let pointer = &raw mut status as usize;
        match call(libc::SYS_wait4, &[pid as usize, pointer, 0, 0]) {
            Err(Errno(libc::EINTR)) => continue,
            Err(error) => return Err(error),
            Ok(_) => return Ok(Status::decode(status)),
        }
    }
}

/// Does `work` in a child process and says how that ended.
pub fn in_child(work: impl FnOnce() -> i32) -> Result<Status> {
    wait(spawn(work)?)
}

/// Ends the process at once, with what was printed.
pub fn exit(status: i32) -> ! {
    flush();
    // SAFETY: ends the process; nothing runs after it.
    unsafe { libc::_exit(status) }
}

/// Hands everything printed so far to the kernel.
pub fn flush() {
    use std::io::Write;
    // A console that is gone is nothing a test could do anything about.
    let _ = std::io::stdout().flush();
}

/// Sets a limit of this process and leaves what it may be raised to, which is up to
/// who started this; only the limit itself is enforced.
pub fn set_limit(resource: libc::__rlimit_resource_t, soft: u64) -> Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both get a pointer to a valid structure.
    let result = unsafe {
        libc::getrlimit(resource, &raw mut limit);
        limit.rlim_cur = soft;
        libc::setrlimit(resource, &raw const limit)
    };
    // SAFETY: `__errno_location` returns a valid pointer to this thread's errno.
    if result == 0 { Ok(()) } else { Err(Errno(unsafe { *libc::__errno_location() })) }
}

/// The version of Linux that the kernel says it is.
pub fn release() -> (u32, u32) {
    // SAFETY: `utsname` is plain bytes, for which zeroes are valid; `uname` fills it.
    let name = unsafe {
        let mut name: libc::utsname = std::mem::zeroed();
        libc::uname(&raw mut name);
        name
    };
    // SAFETY: the kernel ends the string with a zero byte within the array.
    let release = unsafe { CStr::from_ptr(name.release.as_ptr()) }.to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
