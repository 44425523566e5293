//! Futexes: sleeping until a word of user memory changes.
//!
//! A waiter is entered in the bucket of its key, and only then, with the
//! bucket locked, is the word looked at; a waker changes the word first and
//! then takes the same lock. Reading the word may fault, which is fine: memory
//! management never takes a bucket's lock.
//!
//! What always holds: a thread that waits has exactly one entry, in the bucket
//! its [`Waiter`] names; whoever takes the entry out sets `woken`.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use alloc::sync::Arc;
use alloc::vec::Vec;
use mm::{Errno, TASK_SIZE, VmaFlags};

use super::sched;
use super::thread::{Restart, Thread, current, state};
use super::wait;
use crate::arch::irq::{Mutex, MutexGuard};
use crate::arch::usercopy::{cmpxchg_u32, load_u32, read_user, update_u32};
use crate::errno::{ERESTART_RESTARTBLOCK, ERESTARTSYS};

/// All wakers are listened to.
pub const MATCH_ANY: u32 = u32::MAX;

/// In a robust futex: its owner has exited.
const OWNER_DIED: u32 = 0x4000_0000;
/// In a robust futex: someone waits.
const WAITERS: u32 = 0x8000_0000;
/// In a robust futex: who holds it.
const TID_MASK: u32 = 0x3fff_ffff;
/// So many robust futexes are released at most.
const ROBUST_LIMIT: usize = 2048;

const BUCKETS: usize = 256;

static TABLE: [Bucket; BUCKETS] = [const { Bucket(Mutex::new(Vec::new())) }; BUCKETS];

struct Bucket(Mutex<Vec<Entry>>);

/// Names a futex: the word at `address` of the thing numbered `owner`, which is
/// an address space or a shared memory object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key {
    owner: usize,
    address: usize,
}

struct Entry {
    key: Key,
    bitset: u32,
    thread: Arc<Thread>,
}

/// A thread's part in a wait.
pub struct Waiter {
    /// The entry was taken out: the wait is over.
    woken: AtomicBool,
    /// Number of the bucket the entry is in; changed with that bucket locked.
    bucket: AtomicUsize,
}

impl Waiter {
    /// Not waiting.
    pub const fn new() -> Waiter {
        Waiter { woken: AtomicBool::new(false), bucket: AtomicUsize::new(0) }
    }
}

impl Key {
    /// The key of the word at `address` of the current process. A `private`
    /// one is not found through other mappings of the same memory.
    ///
    /// # Errors
    /// `EINVAL`: not aligned. `EFAULT`: not a user address.
    pub fn new(address: usize, private: bool) -> Result<Key, Errno> {
        if !address.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        if address >= TASK_SIZE {
            return Err(Errno::EFAULT);
        }
        let space = current().process().space().ok_or(Errno::EFAULT)?;
        if !private
            && let Some(vma) = space.next_vma(address)
            && vma.start <= address
            && vma.flags.contains(VmaFlags::SHARED)
            && let Some((object, _)) = vma.object
        {
            let offset = vma.offset as usize + (address - vma.start);
            // Object numbers and addresses of address spaces must not meet.
            return Ok(Key { owner: (object as usize) << 1 | 1, address: offset });
        }
        Ok(Key { owner: Arc::as_ptr(&space) as usize, address })
    }

    fn bucket(self) -> usize {
        let mixed = (self.address >> 2).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ (self.owner >> 4).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
        mixed >> (usize::BITS - BUCKETS.ilog2()) as usize
    }
}

/// Waits at `address` until woken through a bit of `bitset`, as long as the
/// word there is `value`, but not beyond `deadline` (monotonic nanoseconds).
/// `relative`: the deadline came of a duration, so the call must not simply
/// start again.
///
/// # Errors
/// `EAGAIN`: the word is not `value`. `ETIMEDOUT`. `EINVAL`, `EFAULT`: the
/// address or bitset is bad. `ENOMEM`. A restart code: a signal comes first.
pub fn wait(
    address: usize,
    private: bool,
    value: u32,
    bitset: u32,
    deadline: Option<u64>,
    relative: bool,
) -> Result<usize, Errno> {
    if bitset == 0 {
        return Err(Errno::EINVAL);
    }
    let key = Key::new(address, private)?;
    let thread = current().to_arc();
    {
        let number = key.bucket();
        let mut bucket = TABLE[number].0.lock();
        if load_u32(address)? != value {
            return Err(Errno::EAGAIN);
        }
        bucket.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        thread.futex.woken.store(false, Ordering::Relaxed);
        thread.futex.bucket.store(number, Ordering::Relaxed);
        bucket.push(Entry { key, bitset, thread: thread.clone() });
    }
    let woken = || thread.futex.woken.load(Ordering::Acquire).then_some(());
    let result = wait::sleep(state::INTERRUPTIBLE, deadline, woken);
    if !withdraw(&thread) {
        return Ok(0);
    }
    match (result, deadline) {
        (Err(_), Some(deadline)) if relative => {
            thread.set_restart(Restart::Futex { address, value, bitset, deadline, private });
            Err(ERESTART_RESTARTBLOCK)
        }
        (Err(_), _) => Err(ERESTARTSYS),
        (Ok(_), _) => Err(Errno::ETIMEDOUT),
    }
}

/// Takes the thread's entry out, unless a waker has. Says whether it was still there.
fn withdraw(thread: &Arc<Thread>) -> bool {
    loop {
        let number = thread.futex.bucket.load(Ordering::Acquire);
        let mut bucket = TABLE[number].0.lock();
        if thread.futex.woken.load(Ordering::Acquire) {
            return false;
        }
        if let Some(at) = bucket.iter().position(|entry| Arc::ptr_eq(&entry.thread, thread)) {
            let entry = bucket.remove(at);
            drop(bucket);
            drop(entry);
            return true;
        }
        // Requeued to another bucket meanwhile.
    }
}

/// Takes out and wakes up to `count` entries of `key` that listen to `bitset`.
fn wake_in(bucket: &mut Vec<Entry>, key: Key, count: usize, bitset: u32) -> usize {
    let mut woken = 0;
    let mut at = 0;
    while at < bucket.len() && woken < count {
        if bucket[at].key == key && bucket[at].bitset & bitset != 0 {
            let entry = bucket.remove(at);
            entry.thread.futex.woken.store(true, Ordering::Release);
            sched::wake(&entry.thread, state::SLEEPING);
            woken += 1;
        } else {
            at += 1;
        }
    }
    woken
}

/// Wakes up to `count` threads that wait at `address`. Returns how many.
///
/// # Errors
/// `EINVAL`, `EFAULT`: the address or bitset is bad.
pub fn wake(address: usize, private: bool, count: usize, bitset: u32) -> Result<usize, Errno> {
    if bitset == 0 {
        return Err(Errno::EINVAL);
    }
    let key = Key::new(address, private)?;
    let mut bucket = TABLE[key.bucket()].0.lock();
    Ok(wake_in(&mut bucket, key, count, bitset))
}

/// Wakes those who wait for a thread to be gone (`clear_child_tid`), whichever
/// way they wait.
pub(super) fn wake_after_exit(address: usize) {
    for private in [true, false] {
        // The address was good enough to be written.
        let _ = wake(address, private, 1, MATCH_ANY);
    }
}

/// Both buckets, locked in the order of their numbers; the second is `None` if
/// it is the same one.
struct TwoBuckets {
    low: MutexGuard<'static, Vec<Entry>>,
    high: Option<MutexGuard<'static, Vec<Entry>>>,
    swapped: bool,
}

impl TwoBuckets {
    fn lock(first: usize, second: usize) -> TwoBuckets {
        let low = TABLE[first.min(second)].0.lock();
        let high = (first != second).then(|| TABLE[first.max(second)].0.lock());
        TwoBuckets { low, high, swapped: first > second }
    }

    fn first(&mut self) -> &mut Vec<Entry> {
        match (&mut self.high, self.swapped) {
            (Some(high), true) => high,
            _ => &mut self.low,
        }
    }

    fn second(&mut self) -> &mut Vec<Entry> {
        match (&mut self.high, self.swapped) {
            (Some(high), false) => high,
            _ => &mut self.low,
        }
    }
}

/// Wakes up to `wake` of the threads that wait at `from`, and makes up to
/// `requeue` of the rest wait at `to`. With `expected`, only if the word at
/// `from` is that. Returns how many were woken, plus, x
///
/// # Errors
/// `EAGAIN`: the word is something else. `EINVAL`, `EFAULT`: an address is bad.
/// `ENOMEM`; some may have been woken, none requeued.
pub fn requeue(
    from: usize,
    to: usize,
    private: bool,
    wake: usize,
    requeue: usize,
    expected: Option<u32>,
) -> Result<usize, Errno> {
    let from_key = Key::new(from, private)?;
    let to_key = Key::new(to, private)?;
    let to_bucket = to_key.bucket();
    let mut buckets = TwoBuckets::lock(from_key.bucket(), to_bucket);
    if let Some(expected) = expected
        && load_u32(from)? != expected
    {
        return Err(Errno::EAGAIN);
    }
    let woken = wake_in(buckets.first(), from_key, wake, MATCH_ANY);
    let mut moved = 0;
    if from_key != to_key {
        let waiting = buckets.first().iter().filter(|entry| entry.key == from_key).count();
        let room = waiting.min(requeue);
        buckets.second().try_reserve(room).map_err(|_| Errno::ENOMEM)?;
        while moved < room {
            let first = buckets.first();
            let Some(at) = first.iter().position(|entry| entry.key == from_key) else { break };
            let mut entry = first.remove(at);
            entry.key = to_key;
            entry.thread.futex.bucket.store(to_bucket, Ordering::Release);
            buckets.second().push(entry);
            moved += 1;
        }
    }
    Ok(woken + moved)
}

/// What `FUTEX_WAKE_OP` does to the second word, and what it compares.
#[derive(Clone, Copy, Debug)]
pub struct WakeOp {
    operation: u32,
    operand: u32,
    comparison: u32,
    compared: i32,
}

impl WakeOp {
    /// Decodes the call's sixth argument.
    ///
    /// # Errors
    /// `ENOSYS`: an operation or comparison that does not exist. `EINVAL`: a
    /// shift by more than 31 bits.
    pub fn decode(word: u32) -> Result<WakeOp, Errno> {
        const SHIFT: u32 = 8;
        let operation = word >> 28;
        let mut operand = sign_extend_12(word >> 12) as u32;
        if operation & SHIFT != 0 {
            if operand > 31 {
                return Err(Errno::EINVAL);
            }
            operand = 1 << operand;
        }
        let operation = operation & !SHIFT;
        let comparison = word >> 24 & 0xf;
        if operation > 4 || comparison > 5 {
            return Err(Errno::ENOSYS);
        }
        Ok(WakeOp { operation, operand, comparison, compared: sign_extend_12(word) })
    }

    fn change(self, old: u32) -> u32 {
        match self.operation {
            0 => self.operand,
            1 => old.wrapping_add(self.operand),
            2 => old | self.operand,
            3 => old & !self.operand,
            _ => old ^ self.operand,
        }
    }

    fn compare(self, old: u32) -> bool {
        let old = old as i32;
        match self.comparison {
            0 => old == self.compared,
            1 => old != self.compared,
            2 => old < self.compared,
            3 => old <= self.compared,
            4 => old > self.compared,
            _ => old >= self.compared,
        }
    }
}

fn sign_extend_12(bits: u32) -> i32 {
    ((bits << 20) as i32) >> 20
}

/// Changes the word at `second` as `op` says, wakes up to `wake_first` threads
/// that wait at `first`, and, if the old word compares as `op` says, up to
/// `wake_second` that wait at `second`. Returns how many.
///
/// # Errors
/// `EINVAL`, `EFAULT`: an address is bad.
pub fn wake_op(
    first: usize,
    second: usize,
    private: bool,
    wake_first: usize,
    wake_second: usize,
    op: WakeOp,
) -> Result<usize, Errno> {
    let first_key = Key::new(first, private)?;
    let second_key = Key::new(second, private)?;
    let mut buckets = TwoBuckets::lock(first_key.bucket(), second_key.bucket());
    let old = update_u32(second, |old| op.change(old))?;
    let mut woken = wake_in(buckets.first(), first_key, wake_first, MATCH_ANY);
    if op.compare(old) {
        woken += wake_in(buckets.second(), second_key, wake_second, MATCH_ANY);
    }
    Ok(woken)
}

/// Marks the robust futexes that an exiting thread holds, and wakes a waiter of each.
pub(super) fn release_robust_list(thread: &Thread) {
    let head = thread.robust_list.swap(0, Ordering::Relaxed);
    if head != 0 {
        // A list that cannot be read is its owner's loss.
        let _ = walk_robust_list(thread.tid(), head);
    }
}

/// Walks `struct robust_list_head` at `head`: next, offset of the futex word in
/// an element, and the element being taken or released.
fn walk_robust_list(tid: u32, head: usize) -> Result<(), Errno> {
    let [first, offset, pending]: [usize; 3] = read_user(head)?;
    let mut at = first;
    for _ in 0..ROBUST_LIMIT {
        if at & !1 == head {
            break;
        }
        // Read before the element may be given to someone else.
        let next = read_user::<usize>(at & !1);
        if at & !1 != pending & !1 {
            release_robust(tid, (at & !1).wrapping_add(offset), at & 1 != 0)?;
        }
        at = next?;
    }
    if pending & !1 != 0 {
        release_robust(tid, (pending & !1).wrapping_add(offset), pending & 1 != 0)?;
    }
    Ok(())
}

fn release_robust(tid: u32, address: usize, priority_inheriting: bool) -> Result<(), Errno> {
    let mut old = load_u32(address)?;
    while old & TID_MASK == tid {
        let found = cmpxchg_u32(address, old, old & WAITERS | OWNER_DIED)?;
        if found == old {
            if old & WAITERS != 0 && !priority_inheriting {
                for private in [true, false] {
                    wake(address, private, 1, MATCH_ANY)?;
                }
            }
            break;
        }
        old = found;
    }
    Ok(())
}
