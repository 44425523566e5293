//! What is known about files: `stat` and relatives, permissions, times.

use mm::{Errno, FrameKind, PAGE_SIZE};

use super::*;
use crate::arch::time::realtime_ns;
use crate::arch::usercopy::{copy_to_user, read_user};
use crate::fs::inode::{Body, Inode, Metadata, inode_count, inode_limit};
use crate::fs::tmpfs::space_limit;
use crate::memory::memory;

const NANOSECONDS: u64 = 1_000_000_000;

/// A structure of the ABI in the making.
struct Record<const SIZE: usize>([u8; SIZE]);

impl<const SIZE: usize> Record<SIZE> {
    fn new() -> Record<SIZE> {
        Record([0; SIZE])
    }

    fn set<const LEN: usize>(&mut self, at: usize, bytes: [u8; LEN]) {
        self.0[at..at + LEN].copy_from_slice(&bytes);
    }

    fn set_u16(&mut self, at: usize, value: u16) {
        self.set(at, value.to_le_bytes());
    }

    fn set_u32(&mut self, at: usize, value: u32) {
        self.set(at, value.to_le_bytes());
    }

    fn set_u64(&mut self, at: usize, value: u64) {
        self.set(at, value.to_le_bytes());
    }

    fn store(&self, address: usize) -> Result<usize> {
        copy_to_user(address, &self.0)?;
        Ok(0)
    }
}

/// A device number as `stat` has it.
fn device_number((major, minor): (u32, u32)) -> u64 {
    u64::from(minor & 0xff) | u64::from(major) << 8 | u64::from(minor & !0xff) << 12
}

pub fn stat_at(directory: i32, path: usize, to: usize, flags: u32) -> Result<usize> {
    check_flags(flags, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH)?;
    let dentry = existing_at(directory, path, flags, flags & AT_SYMLINK_NOFOLLOW == 0)?;
    stat_record(&dentry.inode.metadata()).store(to)
}

fn stat_record(metadata: &Metadata) -> Record<144> {
    let mut record = Record::new();
    record.set_u64(0, device_number((0, metadata.device_minor)));
    record.set_u64(8, metadata.number);
    record.set_u64(16, metadata.links.into());
    record.set_u32(24, metadata.mode);
    record.set_u64(40, device_number(metadata.device));
    record.set_u64(48, metadata.size);
    record.set_u64(56, PAGE_SIZE as u64);
    record.set_u64(64, metadata.blocks);
    let times = [metadata.accessed, metadata.modified, metadata.changed];
    for (index, time) in times.into_iter().enumerate() {
        record.set_u64(72 + index * 16, time / NANOSECONDS);
        record.set_u64(80 + index * 16, time % NANOSECONDS);
    }
    record
}

pub fn statx(directory: i32, path: usize, flags: u32, mask: u32, to: usize) -> Result<usize> {
    const SYNC_TYPE: u32 = 0x6000;
    const RESERVED: u32 = 1 << 31;
    const BASIC_STATS: u32 = 0x7ff;
    check_flags(flags, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | SYNC_TYPE)?;
    if mask & RESERVED != 0 || flags & SYNC_TYPE == SYNC_TYPE {
        return Err(Errno::EINVAL);
    }
    let dentry = existing_at(directory, path, flags, flags & AT_SYMLINK_NOFOLLOW == 0)?;
    let metadata = dentry.inode.metadata();
    let mut record = Record::<256>::new();
    record.set_u32(0, BASIC_STATS);
    record.set_u32(4, PAGE_SIZE as u32);
    record.set_u32(16, metadata.links);
    record.set_u16(28, metadata.mode as u16);
    record.set_u64(32, metadata.number);
    record.set_u64(40, metadata.size);
    record.set_u64(48, metadata.blocks);
    let times = [(64, metadata.accessed), (96, metadata.changed), (112, metadata.modified)];
    for (at, time) in times {
        record.set_u64(at, time / NANOSECONDS);
        record.set_u32(at + 8, (time % NANOSECONDS) as u32);
    }
    record.set_u32(128, metadata.device.0);
    record.set_u32(132, metadata.device.1);
    record.set_u32(140, metadata.device_minor);
    record.store(to)
}

/// `access`: everything belongs to root, who may do everything but execute
/// what nobody may.
pub fn access_at(directory: i32, path: usize, mode: u32, flags: u32) -> Result<usize> {
    const X_OK: u32 = 1;
    const KNOWN: u32 = 7;
    const AT_EACCESS: u32 = 0x200;
    check_flags(mode, KNOWN)?;
    check_flags(flags, AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)?;
    let dentry = existing_at(directory, path, flags, flags & AT_SYMLINK_NOFOLLOW == 0)?;
    let permissions = dentry.inode.mode();
    if mode & X_OK != 0 && !dentry.inode.is_directory() && permissions & 0o111 == 0 {
        return Err(Errno::EACCES);
    }
    Ok(0)
}

pub fn change_mode_at(directory: i32, path: usize, mode: u32, flags: u32) -> Result<usize> {
    check_flags(flags, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)?;
    if flags == AT_EMPTY_PATH && path == 0 {
        usable(directory)?;
    }
    let dentry = existing_at(directory, path, flags, flags & AT_SYMLINK_NOFOLLOW == 0)?;
    dentry.inode.set_permissions(mode)?;
    Ok(0)
}

/// `chown`: there is one user and one group, 0.
pub fn change_owner_at(directory: i32, path: usize, user: u32, group: u32, flags: u32) -> Result<usize> {
    const UNCHANGED: u32 = u32::MAX;
    check_flags(flags, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)?;
    let dentry = existing_at(directory, path, flags, flags & AT_SYMLINK_NOFOLLOW == 0)?;
    if [user, group].iter().any(|&id| id != 0 && id != UNCHANGED) {
        return Err(Errno::EINVAL);
    }
    dentry.inode.touch_changed();
    Ok(0)
}

/// One of the times of `utimensat`: `None` leaves it.
fn time_from(seconds: i64, nanoseconds: i64) -> Result<Option<u64>> {
    const UTIME_NOW: i64 = 0x3fff_ffff;
    const UTIME_OMIT: i64 = 0x3fff_fffe;
    match nanoseconds {
        UTIME_NOW => Ok(Some(realtime_ns())),
        UTIME_OMIT => Ok(None),
        0..1_000_000_000 => {
            let time = seconds.max(0) as u64;
            Ok(Some(time.saturating_mul(NANOSECONDS).saturating_add(nanoseconds as u64)))
        }
        _ => Err(Errno::EINVAL),
    }
}

fn set_times(inode: &Inode, times: Option<[i64; 4]>) -> Result<usize> {
    match times {
        Some([seconds, nanoseconds, other_seconds, other_nanoseconds]) => {
            let accessed = time_from(seconds, nanoseconds)?;
            inode.set_times(accessed, time_from(other_seconds, other_nanoseconds)?);
        }
        None => {
            let now = Some(realtime_ns());
            inode.set_times(now, now);
        }
    }
    Ok(0)
}

/// `utimensat`; no path at all means the descriptor itself.
pub fn set_times_at(directory: i32, path: usize, times: usize, flags: u32) -> Result<usize> {
    check_flags(flags, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)?;
    let times = if times == 0 { None } else { Some(read_user(times)?) };
    if path == 0 {
        if flags != 0 {
            return Err(Errno::EINVAL);
        }
        return set_times(usable(directory)?.inode(), times);
    }
    let dentry = existing_at(directory, path, flags, flags & AT_SYMLINK_NOFOLLOW == 0)?;
    set_times(&dentry.inode, times)
}

/// `utimes` and `futimesat`: microseconds.
pub fn set_times_micros(directory: i32, path: usize, times: usize) -> Result<usize> {
    let times = match times {
        0 => None,
        _ => {
            let [a, b, c, d]: [i64; 4] = read_user(times)?;
            if !(0..1_000_000).contains(&b) || !(0..1_000_000).contains(&d) {
                return Err(Errno::EINVAL);
            }
            Some([a, b * 1000, c, d * 1000])
        }
    };
    set_times(&existing_at(directory, path, 0, true)?.inode, times)
}

/// `utime`: seconds.
pub fn set_times_seconds(path: usize, times: usize) -> Result<usize> {
    let times = match times {
        0 => None,
        _ => {
            let [accessed, modified]: [i64; 2] = read_user(times)?;
            Some([accessed, 0, modified, 0])
        }
    };
    set_times(&existing_at(AT_FDCWD, path, 0, true)?.inode, times)
}

pub fn file_system_at(path: usize, to: usize) -> Result<usize> {
    let dentry = existing_at(AT_FDCWD, path, 0, true)?;
    file_system_record(&dentry.inode).store(to)
}

pub fn file_system_open(fd: i32, to: usize) -> Result<usize> {
    let file = files()?.get(fd)?;
    file_system_record(file.inode()).store(to)
}

/// `struct statfs`.
fn file_system_record(inode: &Inode) -> Record<120> {
    let mut record = Record::new();
    record.set_u64(0, inode.file_system.magic());
    record.set_u64(8, PAGE_SIZE as u64);
    if matches!(inode.body, Body::Regular(_) | Body::Directory(_)) {
        let limit = space_limit();
        let free = limit.saturating_sub(memory().count_frames(FrameKind::Object));
        let free = free.min(memory().free_frames());
        record.set_u64(16, limit as u64);
        record.set_u64(24, free as u64);
        record.set_u64(32, free as u64);
        record.set_u64(40, inode_limit() as u64);
        record.set_u64(48, inode_limit().saturating_sub(inode_count()) as u64);
    }
    record.set_u32(56, inode.file_system.device_minor());
    record.set_u64(64, crate::fs::dentry::NAME_MAX as u64);
    record.set_u64(72, PAGE_SIZE as u64);
    record
}
