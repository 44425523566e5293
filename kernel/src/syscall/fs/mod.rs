//! System calls on files.
//!
//! Arguments come as the program left them in the registers: a descriptor or a
//! set of flags is the low half of one, as in the C prototype. [`call`] is the
//! table; what each call does is in the files beside it, by topic.

mod descriptors;
mod io;
mod metadata;
mod names;
mod open;
mod poll;
mod socket;
mod splice;

use alloc::sync::Arc;
use alloc::vec::Vec;
use mm::Errno;

use crate::arch::usercopy::read_cstr;
use crate::fs::dentry::{Dentry, PATH_MAX};
use crate::fs::path::{Walk, walk};
use crate::fs::{FdTable, File, FsContext, open_program as open_program_file, root};
use crate::task::limits::Resource;
use crate::task::thread::current;

type Result<T> = core::result::Result<T, Errno>;

/// Relative paths begin at the current directory.
const AT_FDCWD: i32 = -100;
/// Do not follow a symbolic link at the end of the path.
const AT_SYMLINK_NOFOLLOW: u32 = 0x100;
/// `unlinkat`: remove a directory.
const AT_REMOVEDIR: u32 = 0x200;
/// Follow a symbolic link at the end of the path.
const AT_SYMLINK_FOLLOW: u32 = 0x400;
/// Do not trigger mounts; there are none to trigger.
const AT_NO_AUTOMOUNT: u32 = 0x800;
/// An empty path means the descriptor itself.
const AT_EMPTY_PATH: u32 = 0x1000;

/// Executes system call `number` if it is one on files.
pub fn call(number: usize, args: &[usize; 6]) -> Option<Result<usize>> {
    let &[a, b, c, d, e, f] = args;
    let fd = a as i32;
    Some(match number {
        0 => io::read(fd, b, c),
        1 => io::write(fd, b, c),
        2 => open::open_at(AT_FDCWD, a, b as u32, c as u32),
        3 => descriptors::close(fd),
        4 => metadata::stat_at(AT_FDCWD, a, b, 0),
        5 => metadata::stat_at(fd, 0, b, AT_EMPTY_PATH),
        6 => metadata::stat_at(AT_FDCWD, a, b, AT_SYMLINK_NOFOLLOW),
        7 => poll::poll(a, b, c as i32),
        8 => io::seek(fd, b as i64, c as u32),
        16 => descriptors::ioctl(fd, b as u32, c),
        17 => io::read_at(fd, b, c, d as i64),
        18 => io::write_at(fd, b, c, d as i64),
        19 => io::read_vector(fd, b, c),
        20 => io::write_vector(fd, b, c),
        21 => metadata::access_at(AT_FDCWD, a, b as u32, 0),
        22 => open::pipe(a, 0),
        23 => poll::select(fd, b, c, d, e),
        32 => descriptors::dup(fd),
        33 => descriptors::dup2(fd, b as i32),
        40 => io::send_file(fd, b as i32, c, d),
        41 => socket::create(a as u32),
        44 => socket::send_to(fd, b, c, d as u32, e),
        45 => socket::receive_from(fd, b, c, d as u32, f),
        46 => socket::send_message(fd, b, c as u32),
        47 => socket::receive_message(fd, b, c as u32),
        48 => socket::shut_down(fd, b as u32),
        53 => socket::create_pair(a as u32, b as u32, c as u32, d),
        72 => descriptors::fcntl(fd, b as u32, c),
        73 => descriptors::flock(fd, b as u32),
        74 | 75 => descriptors::sync(fd),
        76 => io::truncate(a, b as i64),
        77 => io::truncate_open(fd, b as i64),
        79 => names::current_directory(a, b),
        80 => names::change_directory(a),
        81 => names::change_directory_open(fd),
        82 => names::rename_at(AT_FDCWD, a, AT_FDCWD, b, 0),
        83 => names::make_directory_at(AT_FDCWD, a, b as u32),
        84 => names::unlink_at(AT_FDCWD, a, AT_REMOVEDIR),
        85 => open::create(a, b as u32),
        86 => names::link_at(AT_FDCWD, a, AT_FDCWD, b, 0),
        87 => names::unlink_at(AT_FDCWD, a, 0),
        88 => names::make_symlink_at(a, AT_FDCWD, b),
        89 => names::read_link_at(AT_FDCWD, a, b, c as i32),
        90 => metadata::change_mode_at(AT_FDCWD, a, b as u32, 0),
        91 => metadata::change_mode_at(fd, 0, b as u32, AT_EMPTY_PATH),
        92 => metadata::change_owner_at(AT_FDCWD, a, b as u32, c as u32, 0),
        93 => metadata::change_owner_at(fd, 0, b as u32, c as u32, AT_EMPTY_PATH),
        94 => metadata::change_owner_at(AT_FDCWD, a, b as u32, c as u32, AT_SYMLINK_NOFOLLOW),
        95 => names::umask(a as u32),
        132 => metadata::set_times_seconds(a, b),
        133 => names::make_node_at(AT_FDCWD, a, b as u32, c as u32),
        137 => metadata::file_system_at(a, b),
        138 => metadata::file_system_open(fd, b),
        162 => Ok(0),
        187 => io::check(fd),
        213 => poll::epoll_create(1, 0),
        217 => names::list(fd, b, c),
        221 => io::check(fd),
        232 => poll::epoll_wait(fd, b, c as i32, d as i32),
        233 => poll::epoll_control(fd, b as u32, c as i32, d),
        235 => metadata::set_times_micros(AT_FDCWD, a, b),
        257 => open::open_at(fd, b, c as u32, d as u32),
        258 => names::make_directory_at(fd, b, c as u32),
        259 => names::make_node_at(fd, b, c as u32, d as u32),
        260 => metadata::change_owner_at(fd, b, c as u32, d as u32, e as u32),
        261 => metadata::set_times_micros(fd, b, c),
        262 => metadata::stat_at(fd, b, c, d as u32),
        263 => names::unlink_at(fd, b, c as u32),
        264 => names::rename_at(fd, b, c as i32, d, 0),
        265 => names::link_at(fd, b, c as i32, d, e as u32),
        266 => names::make_symlink_at(a, b as i32, c),
        267 => names::read_link_at(fd, b, c, d as i32),
        268 => metadata::change_mode_at(fd, b, c as u32, 0),
        269 => metadata::access_at(fd, b, c as u32, 0),
        270 => poll::select_masked(fd, b, c, d, e, f),
        271 => poll::poll_masked(a, b, c, d, e),
        277 => descriptors::sync(fd),
        278 => splice::user_memory(fd, b, c, d as u32),
        280 => metadata::set_times_at(fd, b, c, d as u32),
        281 => poll::epoll_wait_masked(fd, b, c as i32, d as i32, e, f),
        284 => open::event_counter(a as u32, 0),
        285 => io::allocate(fd, b as u32, c as i64, d as i64),
        290 => open::event_counter(a as u32, b as u32),
        291 => poll::epoll_create(1, a as u32),
        292 => descriptors::dup3(fd, b as i32, c as u32),
        293 => open::pipe(a, b as u32),
        295 => io::read_vector_at(fd, b, c, d as i64),
        296 => io::write_vector_at(fd, b, c, d as i64),
        306 => descriptors::sync(fd),
        316 => names::rename_at(fd, b, c as i32, d, e as u32),
        319 => open::memory_file(a, b as u32),
        326 => io::copy_range(fd, b, c as i32, d, e, f as u32),
        327 => io::read_vector_flags(fd, b, c, d as i64, f as u32),
        328 => io::write_vector_flags(fd, b, c, d as i64, f as u32),
        332 => metadata::statx(fd, b, c as u32, d as u32, e),
        434 => open::process_file(a as i32, b as u32),
        436 => descriptors::close_range(a, b, c as u32),
        437 => open::open_how(fd, b, c, d),
        439 => metadata::access_at(fd, b, c as u32, d as u32),
        441 => poll::epoll_wait_timespec(fd, b, c as i32, d, e, f),
        452 => metadata::change_mode_at(fd, b, c as u32, d as u32),
        _ => return None,
    })
}

/// The current process's open files.
fn files() -> Result<Arc<FdTable>> {
    current().process().files().ok_or(Errno::EBADF)
}

/// Where the current process stands in the file system.
fn context() -> Result<Arc<FsContext>> {
    current().process().context().ok_or(Errno::ENOENT)
}

/// The open file `fd`; `EBADF` for one that is only a place.
fn usable(fd: i32) -> Result<Arc<File>> {
    files()?.get_usable(fd)
}

/// Gives `file` the lowest free descriptor.
fn install(file: Arc<File>, close_on_exec: bool) -> Result<usize> {
    let limit = current().process().limit(Resource::OpenFiles);
    files()?.insert(file, 0, close_on_exec, limit).map(|fd| fd as usize)
}

/// The path at user address `address`, which may only be empty if `flags` has
/// `AT_EMPTY_PATH`.
fn read_path(address: usize, flags: u32) -> Result<Vec<u8>> {
    if address == 0 && flags & AT_EMPTY_PATH != 0 {
        // As Linux does since 6.11, and as the calls on descriptors rely on.
        return Ok(Vec::new());
    }
    let path = read_cstr(address, PATH_MAX)?;
    if path.is_empty() && flags & AT_EMPTY_PATH == 0 {
        return Err(Errno::ENOENT);
    }
    Ok(path)
}

/// Where `path` begins.
fn start_of(directory: i32, path: &[u8]) -> Result<Arc<Dentry>> {
    if path.first() == Some(&b'/') {
        return root();
    }
    if directory == AT_FDCWD {
        return Ok(context()?.current());
    }
    let file = files()?.get(directory)?;
    if !path.is_empty() && !file.inode().is_directory() {
        return Err(Errno::ENOTDIR);
    }
    Ok(file.dentry().clone())
}

/// Walks `path`, seen from `directory`, following a symbolic link at its end
/// if `follow` is set.
fn walk_at(directory: i32, path: &[u8], follow: bool) -> Result<Walk> {
    walk(&root()?, &start_of(directory, path)?, path, follow)
}

/// What the path at `address`, seen from `directory`, leads to; `flags` may have
/// `AT_EMPTY_PATH`.
fn existing_at(directory: i32, address: usize, flags: u32, follow: bool) -> Result<Arc<Dentry>> {
    let path = read_path(address, flags)?;
    if path.is_empty() {
        return start_of(directory, &path);
    }
    walk_at(directory, &path, follow)?.existing()
}

/// Opens the program that the path at `address`, seen from `directory`, leads
/// to, for `execveat` with these flags. Returns the path too.
pub fn open_program(directory: i32, address: usize, flags: u32) -> Result<(Arc<File>, Vec<u8>)> {
    check_flags(flags, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW)?;
    let path = read_path(address, flags)?;
    let dentry = if path.is_empty() {
        start_of(directory, &path)?
    } else {
        walk_at(directory, &path, flags & AT_SYMLINK_NOFOLLOW == 0)?.existing()?
    };
    if dentry.inode.is_symlink() {
        return Err(Errno::ELOOP);
    }
    Ok((open_program_file(dentry)?, path))
}

/// `EINVAL` if `flags` has any that are not in `known`.
fn check_flags(flags: u32, known: u32) -> Result<()> {
    if flags & !known == 0 { Ok(()) } else { Err(Errno::EINVAL) }
}
