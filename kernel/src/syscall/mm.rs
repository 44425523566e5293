//! System calls on memory: argument checks that are the kernel's business, and
//! the way from a file descriptor to a memory object. The rest is `mm`'s.

use alloc::sync::Arc;

use mm::{Errno, MappedFile, MmapRequest, SpaceError};

use crate::arch::usercopy::copy_to_user;
use crate::errno::{EACCES, EBADF, EINVAL, ENODEV, ENOMEM};
use crate::fs::File;
use crate::task::{self, Space};

/// The six arguments of a system call.
type Args = [u64; 6];
type Result = core::result::Result<usize, Errno>;

const PROT_WRITE: usize = 2;
const MAP_SHARED: usize = 1;
const MAP_ANONYMOUS: usize = 0x20;
const MAP_HUGETLB: usize = 0x4_0000;
const PAGE_MASK: usize = mm::PAGE_SIZE - 1;

/// A call that has nothing to say but whether it was done.
#[inline]
fn call(f: impl FnOnce(&Space) -> core::result::Result<(), SpaceError>) -> Result {
    task::with_space(f).map(|()| 0)
}

/// mmap(2).
pub fn mmap(args: &Args) -> Result {
    let [addr, len, prot, flags, fd, offset] = args.map(|arg| arg as usize);
    if offset & PAGE_MASK != 0 {
        return Err(EINVAL);
    }
    let file: Option<Arc<File>> = if flags & MAP_ANONYMOUS == 0 {
        // A descriptor is an `int`.
        let file = task::files()?.get(fd as i32)?;
        if file.is_path_only() {
            return Err(EBADF);
        }
        Some(file)
    } else {
        None
    };
    if flags & MAP_HUGETLB != 0 {
        // There is no pool of huge pages, and only such a file could map some.
        return Err(if file.is_some() { EINVAL } else { ENOMEM });
    }
    let (file, flags) = match file {
        Some(file) if file.ops().maps_as_zero() => {
            let shares_writes = flags & MAP_SHARED != 0 && prot & PROT_WRITE != 0;
            if !file.readable() || shares_writes && !file.writable() {
                return Err(EACCES);
            }
            // What `/dev/zero` maps is memory that no file knows of.
            (None, flags | MAP_ANONYMOUS)
        }
        file => (file, flags),
    };
    let object = match &file {
        Some(file) => Some(file.object().ok_or(ENODEV)?),
        None => None,
    };
    let mapped = match (&file, &object) {
        (Some(file), Some(object)) => Some(MappedFile { object, readable: file.readable(), writable: file.writable() }),
        _ => None,
    };
    let offset = if mapped.is_some() { offset } else { 0 };
    task::with_space(|space| space.mmap(MmapRequest { addr, len, prot, flags, file: mapped, offset }))
}

/// munmap(2).
pub fn munmap(args: &Args) -> Result {
    call(|space| space.munmap(args[0] as usize, args[1] as usize))
}

/// mprotect(2).
pub fn mprotect(args: &Args) -> Result {
    call(|space| space.mprotect(args[0] as usize, args[1] as usize, args[2] as usize))
}

/// pkey_mprotect(2): without protection keys, only the key -1 exists.
pub fn pkey_mprotect(args: &Args) -> Result {
    if args[3] as i32 == -1 { mprotect(args) } else { Err(EINVAL) }
}

/// mremap(2).
pub fn mremap(args: &Args) -> Result {
    let [addr, old_len, new_len, flags, new_addr, _] = args.map(|arg| arg as usize);
    task::with_space(|space| space.mremap(addr, old_len, new_len, flags, new_addr))
}

/// brk(2).
pub fn brk(args: &Args) -> Result {
    task::with_space(|space| Ok::<usize, Errno>(space.brk(args[0] as usize)))
}

/// madvise(2).
pub fn madvise(args: &Args) -> Result {
    // The advice is an `int`; a negative one is as unknown as a huge one.
    let advice = usize::try_from(args[2] as i32).map_err(|_| EINVAL)?;
    call(|space| space.madvise(args[0] as usize, args[1] as usize, advice))
}

/// mlock(2).
pub fn mlock(args: &Args) -> Result {
    call(|space| space.mlock(args[0] as usize, args[1] as usize, 0))
}

/// mlock2(2).
pub fn mlock2(args: &Args) -> Result {
    call(|space| space.mlock(args[0] as usize, args[1] as usize, args[2] as i32 as usize))
}

/// munlock(2).
pub fn munlock(args: &Args) -> Result {
    call(|space| space.munlock(args[0] as usize, args[1] as usize))
}

/// mlockall(2).
pub fn mlockall(args: &Args) -> Result {
    call(|space| space.mlockall(args[0] as i32 as usize))
}

/// munlockall(2).
pub fn munlockall(_: &Args) -> Result {
    call(|space| {
        space.munlockall();
        Ok(())
    })
}

/// mincore(2).
pub fn mincore(args: &Args) -> Result {
    const BATCH: usize = 64;
    let [addr, len, vector, ..] = args.map(|arg| arg as usize);
    let (mut batch, mut filled, mut written) = ([0_u8; BATCH], 0, 0);
    task::with_space(|space| {
        space.mincore::<Errno>(addr, len, |resident| {
            batch[filled] = u8::from(resident);
            filled += 1;
            if filled == BATCH {
                copy_to_user(vector.wrapping_add(written), &batch)?;
                written += BATCH;
                filled = 0;
            }
            Ok(())
        })
    })?;
    copy_to_user(vector.wrapping_add(written), batch.get(..filled).unwrap_or_default())?;
    Ok(0)
}

/// msync(2).
pub fn msync(args: &Args) -> Result {
    call(|space| space.msync(args[0] as usize, args[1] as usize, args[2] as i32 as usize))
}

/// mseal(2).
pub fn mseal(args: &Args) -> Result {
    call(|space| space.mseal(args[0] as usize, args[1] as usize, args[2] as usize))
}
