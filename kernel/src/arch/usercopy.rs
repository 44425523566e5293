//! Access to the memory of the current program.
//!
//! Every access is made by one of the few instructions in this file that have
//! an entry in the exception table. A page fault there is resolved like the
//! program's own where it can be; where not, the handler continues at the
//! entry's fix-up address, and the access fails with `EFAULT`. Addresses are
//! checked to be below [`TASK_SIZE`] first, so the kernel's own memory is out
//! of reach; with SMAP the CPU too forbids user accesses made anywhere else.

use alloc::vec::Vec;
use core::arch::{asm, global_asm};
use core::mem::{MaybeUninit, size_of};
use core::sync::atomic::{AtomicBool, Ordering};

use mm::{Errno, PAGE_SIZE, TASK_SIZE};

/// Whether the CPU has SMAP, and user memory is to be unlocked for an access.
static SMAP: AtomicBool = AtomicBool::new(false);

/// Says that SMAP is on.
pub(super) fn set_smap(on: bool) {
    SMAP.store(on, Ordering::Relaxed);
}

/// Types whose every bit pattern is a value, without padding.
///
/// # Safety
///
/// Any bytes are a valid value, and a value has no uninitialised bytes.
pub unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($integer:ty),*) => {
        $(
            // SAFETY: an integer.
            unsafe impl Plain for $integer {}
        )*
    };
}

plain!(u8, u16, u32, u64, usize, i8, i16, i32, i64, isize);

// SAFETY: an array has no bytes but its elements'.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

/// User memory may be accessed while this exists.
struct Unlocked(bool);

impl Unlocked {
    #[inline(always)]
    fn new() -> Self {
        let smap = SMAP.load(Ordering::Relaxed);
        if smap {
            // SAFETY: the CPU has SMAP, hence the instruction; it only permits
            // accesses, and this file makes none but checked ones.
            unsafe { asm!("stac", options(nostack, nomem)) };
        }
        Unlocked(smap)
    }
}

impl Drop for Unlocked {
    #[inline(always)]
    fn drop(&mut self) {
        if self.0 {
            // SAFETY: as above.
            unsafe { asm!("clac", options(nostack, nomem)) };
        }
    }
}

/// Forbids user accesses in an exception handler that interrupted one; the
/// return from it permits them again.
#[inline]
pub(super) fn lock() {
    drop(Unlocked(SMAP.load(Ordering::Relaxed)));
}

/// Whether `addr..addr + len` is inside user space.
#[inline]
fn check(addr: usize, len: usize) -> Result<(), Errno> {
    match addr.checked_add(len) {
        Some(end) if end <= TASK_SIZE => Ok(()),
        _ => Err(Errno::EFAULT),
    }
}

/// Copies from user address `from` to all of `to`.
///
/// # Errors
///
/// `EFAULT` when not all of it could be read; `to` then holds a part.
pub fn copy_from_user(to: &mut [u8], from: usize) -> Result<(), Errno> {
    check(from, to.len())?;
    let _unlocked = Unlocked::new();
    // SAFETY: `to` may be written; `from` is a user address and may fault.
    match unsafe { user_copy(to.as_mut_ptr(), from as *const u8, to.len()) } {
        0 => Ok(()),
        _ => Err(Errno::EFAULT),
    }
}

/// Copies all of `from` to user address `to`.
///
/// # Errors
///
/// `EFAULT` when not all of it could be written; a part may have been.
pub fn copy_to_user(to: usize, from: &[u8]) -> Result<(), Errno> {
    check(to, from.len())?;
    let _unlocked = Unlocked::new();
    // SAFETY: `from` may be read; `to` is a user address and may fault.
    match unsafe { user_copy(to as *mut u8, from.as_ptr(), from.len()) } {
        0 => Ok(()),
        _ => Err(Errno::EFAULT),
    }
}

/// The value at user address `addr`, which need not be aligned.
///
/// # Errors
///
/// `EFAULT` when it cannot be read.
pub fn read_user<T: Plain>(addr: usize) -> Result<T, Errno> {
    check(addr, size_of::<T>())?;
    let mut value = MaybeUninit::<T>::uninit();
    let _unlocked = Unlocked::new();
    // SAFETY: `value` may be written; `addr` is a user address and may fault.
    match unsafe { user_copy(value.as_mut_ptr().cast(), addr as *const u8, size_of::<T>()) } {
        // SAFETY: all bytes have been written, and any are a valid `T`.
        0 => Ok(unsafe { value.assume_init() }),
        _ => Err(Errno::EFAULT),
    }
}

/// Stores `value` at user address `addr`, which need not be aligned.
///
/// # Errors
///
/// `EFAULT` when it cannot be written; a part may have been.
pub fn write_user<T: Plain>(addr: usize, value: T) -> Result<(), Errno> {
    check(addr, size_of::<T>())?;
    let _unlocked = Unlocked::new();
    // SAFETY: `value` may be read, all its bytes being initialised; `addr` is
    // a user address and may fault.
    match unsafe { user_copy(addr as *mut u8, (&raw const value).cast(), size_of::<T>()) } {
        0 => Ok(()),
        _ => Err(Errno::EFAULT),
    }
}

/// The bytes at user address `addr` up to, and without, the first NUL, which
/// must be among the first `max` bytes.
///
/// # Errors
///
/// `EFAULT` when they cannot be read, `ENAMETOOLONG` when there is no NUL,
/// `ENOMEM` when the kernel's heap has no room.
pub fn read_cstr(addr: usize, max: usize) -> Result<Vec<u8>, Errno> {
    const CHUNK: usize = 64;
    let mut string = Vec::new();
    while string.len() < max {
        let from = addr.checked_add(string.len()).ok_or(Errno::EFAULT)?;
        // Up to a multiple of the chunk, so that no chunk crosses into a page
        // the string does not reach.
        let len = (CHUNK - from % CHUNK).min(max - string.len());
        let mut chunk = [0; CHUNK];
        copy_from_user(&mut chunk[..len], from)?;
        let end = chunk[..len].iter().position(|&byte| byte == 0);
        let new = &chunk[..end.unwrap_or(len)];
        string.try_reserve(new.len()).map_err(|_| Errno::ENOMEM)?;
        string.extend_from_slice(new);
        if end.is_some() {
            return Ok(string);
        }
    }
    Err(Errno::ENAMETOOLONG)
}

const _: () = assert!(PAGE_SIZE.is_multiple_of(64));

/// The number at user address `addr`, read in one access.
///
/// # Errors
///
/// `EFAULT` when it cannot be read, `EINVAL` when `addr` is not aligned.
pub fn load_u32(addr: usize) -> Result<u32, Errno> {
    check_futex(addr)?;
    let mut value = 0;
    let _unlocked = Unlocked::new();
    // SAFETY: `addr` is a user address and may fault.
    if unsafe { user_load_u32(addr as *const u32, &mut value) } == 0 { Ok(value) } else { Err(Errno::EFAULT) }
}

/// Atomically replaces the number at user address `addr` by `new` if it is
/// `old`. Returns what it was.
///
/// # Errors
///
/// `EFAULT` when it cannot be written, `EINVAL` when `addr` is not aligned.
pub fn cmpxchg_u32(addr: usize, old: u32, new: u32) -> Result<u32, Errno> {
    check_futex(addr)?;
    let mut found = 0;
    let _unlocked = Unlocked::new();
    // SAFETY: `addr` is a user address and may fault.
    if unsafe { user_cmpxchg_u32(addr as *mut u32, old, new, &mut found) } == 0 {
        Ok(found)
    } else {
        Err(Errno::EFAULT)
    }
}

/// Atomically replaces the number at user address `addr` by `change` of it.
/// Returns what it was.
///
/// # Errors
///
/// `EFAULT` when it cannot be written, `EINVAL` when `addr` is not aligned.
pub fn update_u32(addr: usize, change: impl Fn(u32) -> u32) -> Result<u32, Errno> {
    let mut old = load_u32(addr)?;
    loop {
        let found = cmpxchg_u32(addr, old, change(old))?;
        if found == old {
            return Ok(old);
        }
        old = found;
    }
}

fn check_futex(addr: usize) -> Result<(), Errno> {
    if !addr.is_multiple_of(size_of::<u32>()) {
        return Err(Errno::EINVAL);
    }
    check(addr, size_of::<u32>())
}

/// Where to go on after a fault at `rip`, if that is an access to user memory.
pub(super) fn fixup(rip: u64) -> Option<u64> {
    exception_table().iter().find(|entry| entry.fault == rip).map(|entry| entry.fixup)
}

#[repr(C)]
struct ExceptionEntry {
    fault: u64,
    fixup: u64,
}

fn exception_table() -> &'static [ExceptionEntry] {
    unsafe extern "C" {
        static __ex_table_start: ExceptionEntry;
        static __ex_table_end: ExceptionEntry;
    }
    let start = &raw const __ex_table_start;
    let end = &raw const __ex_table_end;
    let len = (end as usize - start as usize) / size_of::<ExceptionEntry>();
    // SAFETY: the linker script puts all entries, and nothing else, between the two.
    unsafe { core::slice::from_raw_parts(start, len) }
}

unsafe extern "C" {
    /// Copies `len` bytes; returns how many it could not.
    fn user_copy(to: *mut u8, from: *const u8, len: usize) -> usize;
    /// Stores `*from` to `*to`; returns 0, or 1 if it could not.
    fn user_load_u32(from: *const u32, to: *mut u32) -> usize;
    /// Compare-and-exchange; stores what was there to `*found`; returns 0, or 1 if it could not.
    fn user_cmpxchg_u32(at: *mut u32, old: u32, new: u32, found: *mut u32) -> usize;
}

// Each numbered instruction may fault, and `.ex_table` says where it then goes on.
global_asm!(
    ".global user_copy",
    "user_copy:",
    "mov rcx, rdx",
    "shr rcx, 3",
    "and edx, 7",
    "2: rep movsq",
    "mov ecx, edx",
    "3: rep movsb",
    "xor eax, eax",
    "ret",
    "4: lea rax, [rdx + rcx * 8]",
    "ret",
    "5: mov rax, rcx",
    "ret",
    ".pushsection .ex_table, \"a\"",
    ".quad 2b, 4b",
    ".quad 3b, 5b",
    ".popsection",
    "",
    ".global user_load_u32",
    "user_load_u32:",
    "2: mov eax, [rdi]",
    "mov [rsi], eax",
    "xor eax, eax",
    "ret",
    "",
    ".global user_cmpxchg_u32",
    "user_cmpxchg_u32:",
    "mov eax, esi",
    "3: lock cmpxchg [rdi], edx",
    "mov [rcx], eax",
    "xor eax, eax",
    "ret",
    "4: mov eax, 1",
    "ret",
    ".pushsection .ex_table, \"a\"",
    ".quad 2b, 4b",
    ".quad 3b, 4b",
    ".popsection",
);
