//! `PROCMAP_QUERY`: one VMA of `/proc/PID/maps` as a structure, by `ioctl`.

use mm::{Errno, PAGE_SIZE, TASK_SIZE, VmaFlags, VmaInfo};

use super::maps::{name_of, number_of};
use crate::arch::usercopy::{copy_from_user, copy_to_user, read_user};
use crate::errno::{E2BIG, EINVAL, ENAMETOOLONG, ENOENT};
use crate::fs::inode::FileSystem;
use crate::task::process::Space;

/// The request: `_IOWR('f', 17, struct procmap_query)`.
pub const PROCMAP_QUERY: u32 = 3 << 30 | (8 * WORDS as u32) << 16 | (b'f' as u32) << 8 | 17;

/// `struct procmap_query` of `<linux/fs.h>`: its 64-bit words. Two of them are
/// pairs of 32-bit numbers.
type Query = [u64; WORDS];
const WORDS: usize = 13;

/// Which word is which.
mod word {
    pub const FLAGS: usize = 1;
    pub const ADDR: usize = 2;
    pub const VMA_START: usize = 3;
    pub const VMA_END: usize = 4;
    pub const VMA_FLAGS: usize = 5;
    pub const VMA_PAGE_SIZE: usize = 6;
    pub const VMA_OFFSET: usize = 7;
    pub const INODE: usize = 8;
    /// Device numbers: major, minor.
    pub const DEVICE: usize = 9;
    /// Room for the name, and for the build ID.
    pub const SIZES: usize = 10;
    pub const NAME_ADDR: usize = 11;
    pub const BUILD_ID_ADDR: usize = 12;
}

/// The part that every version of the structure has: size and flags.
const LEAST_SIZE: usize = 16;
/// A longer name is not shown.
const LONGEST_NAME: usize = 4096;

const READABLE: u64 = 1;
const WRITABLE: u64 = 2;
const EXECUTABLE: u64 = 4;
const SHARED: u64 = 8;
const COVERING_OR_NEXT: u64 = 0x10;
const FILE_BACKED: u64 = 0x20;
const KNOWN: u64 = 0x3f;

/// Answers the query at `argument` for `space`.
///
/// # Errors
/// As Linux's `do_procmap_query`: `EINVAL` for a structure that is malformed,
/// `E2BIG` for one with parts that are not known here, `ENOENT` if no VMA
/// fits, `ENAMETOOLONG` if the name does not fit its buffer, `EFAULT`.
pub fn query(space: &Space, argument: usize) -> Result<usize, Errno> {
    let size = read_user::<u64>(argument)? as usize;
    if size > PAGE_SIZE {
        return Err(E2BIG);
    }
    if size < LEAST_SIZE {
        return Err(EINVAL);
    }
    let mut query = read_versioned(argument, size)?;
    let (name_size, build_id_size) = halves(query[word::SIZES]);
    if query[word::FLAGS] & !KNOWN != 0
        || (name_size == 0) != (query[word::NAME_ADDR] == 0)
        || (build_id_size == 0) != (query[word::BUILD_ID_ADDR] == 0)
    {
        return Err(EINVAL);
    }
    let vma = find(space, query[word::ADDR], query[word::FLAGS]).ok_or(ENOENT)?;
    let minor = if vma.object.is_some() { FileSystem::Tmpfs.device_minor() } else { 0 };
    query[word::VMA_START] = vma.start as u64;
    query[word::VMA_END] = vma.end as u64;
    query[word::VMA_FLAGS] = access(vma.flags);
    query[word::VMA_PAGE_SIZE] = PAGE_SIZE as u64;
    query[word::VMA_OFFSET] = vma.offset;
    query[word::INODE] = number_of(&vma);
    query[word::DEVICE] = u64::from(minor) << 32;
    let name_size = match name_size {
        0 => 0,
        room => write_name(&vma, query[word::NAME_ADDR] as usize, room)?,
    };
    // No program has a build ID that is known here: its size is 0.
    query[word::SIZES] = u64::from(name_size);
    write_versioned(argument, size, &query)?;
    Ok(0)
}

fn halves(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

/// The structure at `argument`, which has `size` bytes: what it lacks is zero,
/// and what it has more must be zero.
fn read_versioned(argument: usize, size: usize) -> Result<Query, Errno> {
    let mut query = [0; WORDS];
    for at in (0..size).step_by(8) {
        let mut bytes = [0; 8];
        let part = (size - at).min(8);
        copy_from_user(&mut bytes[..part], argument.wrapping_add(at))?;
        let value = u64::from_le_bytes(bytes);
        match query.get_mut(at / 8) {
            Some(word) => *word = value,
            None if value != 0 => return Err(E2BIG),
            None => {}
        }
    }
    Ok(query)
}

/// As much of the answer as the program's structure has room for.
fn write_versioned(argument: usize, size: usize, query: &Query) -> Result<(), Errno> {
    for (at, word) in (0..size).step_by(8).zip(query) {
        let part = (size - at).min(8);
        copy_to_user(argument.wrapping_add(at), &word.to_le_bytes()[..part])?;
    }
    Ok(())
}

/// The VMA at `addr` that has what `flags` ask for, or the next one that has.
fn find(space: &Space, addr: u64, flags: u64) -> Option<VmaInfo> {
    let mut at = usize::try_from(addr).ok().filter(|&addr| addr < TASK_SIZE)?;
    let wanted = flags & (READABLE | WRITABLE | EXECUTABLE | SHARED);
    loop {
        let vma = space.next_vma(at)?;
        let fits = access(vma.flags) & wanted == wanted && (flags & FILE_BACKED == 0 || vma.object.is_some());
        let or_next = flags & COVERING_OR_NEXT != 0;
        if fits && (or_next || vma.start <= at) {
            return Some(vma);
        }
        if !or_next {
            return None;
        }
        at = vma.end;
    }
}

fn access(flags: VmaFlags) -> u64 {
    let bit = |flag, bit| if flags.contains(flag) { bit } else { 0 };
    bit(VmaFlags::READ, READABLE)
        | bit(VmaFlags::WRITE, WRITABLE)
        | bit(VmaFlags::EXEC, EXECUTABLE)
        | bit(VmaFlags::MAY_SHARE, SHARED)
}

/// Writes the name with a NUL behind it, if there is one, and returns how long
/// that is.
fn write_name(vma: &VmaInfo, to: usize, room: u32) -> Result<u32, Errno> {
    let name = name_of(vma);
    if name.is_empty() {
        return Ok(0);
    }
    let len = name.len() + 1;
    if len > LONGEST_NAME.min(room as usize) {
        return Err(ENAMETOOLONG);
    }
    copy_to_user(to, name)?;
    copy_to_user(to.wrapping_add(name.len()), &[0])?;
    Ok(len as u32)
}
