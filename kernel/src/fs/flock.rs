//! Whole-file advisory locks (`flock`).
//!
//! A lock belongs to an open file ([`File`]) and is on its inode. All locks of
//! the system are in one list: they are few. A lock goes with its file.

use core::sync::atomic::{AtomicUsize, Ordering};

use alloc::vec::Vec;
use mm::Errno;

use super::file::File;
use super::inode::FileSystem;
use crate::arch::irq::Mutex;
use crate::task::wait::WaitQueue;

/// A kind of lock.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// Any number of files may have one.
    Shared,
    /// Nobody else may have one.
    Exclusive,
}

struct Held {
    inode: (FileSystem, u64),
    /// The address of the [`File`], which is its own as long as it is open.
    owner: usize,
    lock: Lock,
}

static LOCKS: Mutex<Vec<Held>> = Mutex::new(Vec::new());
/// How many there are; files that never had one need not look.
static COUNT: AtomicUsize = AtomicUsize::new(0);
static WAITERS: WaitQueue = WaitQueue::new();

fn owner_of(file: &File) -> usize {
    core::ptr::from_ref(file) as usize
}

/// Takes the lock `wanted`, instead of the one `file` has if it has one, or
/// gives that up.
///
/// # Errors
/// `EAGAIN` if it is not to be had and `wait` is not set; `ERESTARTSYS` if a
/// signal arrived while waiting (a lock that was to be replaced is lost then,
/// as on Linux); `ENOMEM`.
pub fn set(file: &File, wanted: Option<Lock>, wait: bool) -> Result<(), Errno> {
    let Some(lock) = wanted else {
        release(file);
        return Ok(());
    };
    if let Some(result) = attempt(file, lock) {
        return result;
    }
    if !wait {
        return Err(Errno::EAGAIN);
    }
    release(file);
    WAITERS.wait_until(|| attempt(file, lock))?
}

/// Takes the lock if nothing is in the way.
fn attempt(file: &File, lock: Lock) -> Option<Result<(), Errno>> {
    let owner = owner_of(file);
    let inode = (file.inode().file_system, file.inode().number);
    let mut locks = LOCKS.lock();
    let conflict = locks.iter().any(|held| {
        held.inode == inode && held.owner != owner && (lock == Lock::Exclusive || held.lock == Lock::Exclusive)
    });
    if conflict {
        return None;
    }
    if let Some(held) = locks.iter_mut().find(|held| held.owner == owner) {
        let weaker = held.lock == Lock::Exclusive && lock == Lock::Shared;
        held.lock = lock;
        drop(locks);
        if weaker {
            WAITERS.wake_all();
        }
        return Some(Ok(()));
    }
    if locks.try_reserve(1).is_err() {
        return Some(Err(Errno::ENOMEM));
    }
    locks.push(Held { inode, owner, lock });
    COUNT.store(locks.len(), Ordering::Release);
    Some(Ok(()))
}

/// Gives up the lock of `file`, if it has one.
pub fn release(file: &File) {
    if COUNT.load(Ordering::Acquire) == 0 {
        return;
    }
    let owner = owner_of(file);
    let mut locks = LOCKS.lock();
    let before = locks.len();
    locks.retain(|held| held.owner != owner);
    let released = locks.len() != before;
    COUNT.store(locks.len(), Ordering::Release);
    drop(locks);
    if released {
        WAITERS.wake_all();
    }
}
