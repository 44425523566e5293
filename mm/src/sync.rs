//! The locks that all of the crate uses.
//!
//! Thin wrappers, so that everything which takes a lock does it through here:
//! a model checker replaces them in this one place. None of them sleeps, and
//! none may be taken by an interrupt handler.
//!
//! Built with the feature `shuttle`, they are locks of that model checker, and
//! [`point`] is where it may let another thread go on.
//!
//! Built with the feature `loom`, what the lock of a VMA is made of is that model checker's
//! ([`atomic`]).
//!
//! Each lock has a [`rank`], and a thread takes locks in ascending order of
//! ranks alone. The rank is part of a lock's type, and of its guard's: the compiler
//! checks the order where the outer lock's guard is at hand (`lock_under`,
//! [`lock_order`]). Host builds, and kernels with debug assertions, check it at
//! every lock, see [`order`].

use core::fmt;
use core::ops::{Deref, DerefMut};

use spin::RelaxStrategy;

use self::order::Held;
pub use self::order::{locks_held, track_locks};
pub(crate) use self::raw::point;
#[cfg(any(test, feature = "sim"))]
pub(crate) use self::raw::thread;
pub(crate) use self::vma_lock::{Reader, ReaderSlot, ReaderSlots, VmaLock};

pub mod atomic;
pub mod lock_order;
mod order;
pub mod vma_lock;

/// What the locks are made of.
#[cfg(not(feature = "shuttle"))]
mod raw {
    use super::Relax;

    pub(super) type Mutex<T> = spin::mutex::SpinMutex<T, Relax>;
    pub(super) type RwLock<T> = spin::rwlock::RwLock<T, Relax>;
    pub(crate) type MutexGuard<'a, T> = spin::mutex::SpinMutexGuard<'a, T, Relax>;
    pub(crate) type RwLockReadGuard<'a, T> = spin::rwlock::RwLockReadGuard<'a, T, Relax>;
    pub(crate) type RwLockWriteGuard<'a, T> = spin::rwlock::RwLockWriteGuard<'a, T, Relax>;

    /// What comes next others can notice, or it notices what others do. Nothing,
    /// but for a model checker. Taking a lock is one anyway.
    #[inline(always)]
    pub(crate) const fn point() {}

    #[cfg(feature = "loom")]
    pub(super) use loom::thread::yield_now;
    #[cfg(all(any(test, feature = "sim"), not(feature = "loom")))]
    pub(super) use std::thread::yield_now;

    /// Tells threads apart that a model checker has on one thread of the host.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) const fn thread() -> usize {
        0
    }
}

#[cfg(feature = "shuttle")]
#[path = "sync/model.rs"]
mod raw;

/// What a lock protects; a lock may be taken under those of lower ranks only.
pub mod rank {
    /// An address space: its VMAs and its books. Fork takes the child's under the
    /// parent's ([`RwLock::write_unshared`](super::RwLock::write_unshared)).
    pub const MMAP: u8 = 0;
    /// Which pages have been merged, and merging more (`mm/src/ksm`).
    pub const KSM: u8 = 1;
    /// A VMA, for faults in it (`VmaLock`).
    pub const VMA: u8 = 2;
    /// Who gives a VMA its first anon_vma.
    pub const PREPARE: u8 = 3;
    /// A private page: where it is, in memory or in swap.
    pub const FOLIO: u8 = 4;
    /// Which VMAs map an object.
    pub const MAPPINGS: u8 = 5;
    /// The trees of a family of anon_vmas. A second one may be taken under it, if its
    /// address is higher.
    pub const ANON_VMA_ROOT: u8 = 6;
    /// The pages of a memory object, or its name.
    pub const OBJECT: u8 = 7;
    /// One page table. A second one may be taken under it, if its frame has the
    /// higher number.
    pub const PAGE_TABLE: u8 = 8;
    /// What is in which slot of the swap device.
    pub const SWAP: u8 = 9;
    /// A CPU's free objects of an arena.
    pub const MAGAZINE: u8 = 10;
    /// All other free objects of an arena.
    pub const ARENA: u8 = 11;
    /// A CPU's lists of free frames.
    pub const FRAME_LISTS: u8 = 12;
    /// All other free frames.
    pub const FRAME_POOL: u8 = 13;
    /// A simulated CPU, during an access to memory.
    #[cfg(any(test, feature = "sim"))]
    pub const CPU: u8 = 14;
}

/// What a waiter does in each turn of its loop.
///
/// A kernel that does not preempt has the holder running on another CPU, so a
/// pause is right; the threads of a host test outnumber the CPUs, so there the
/// holder needs to be let run.
pub struct Relax;

impl RelaxStrategy for Relax {
    #[inline]
    fn relax() {
        #[cfg(any(test, feature = "sim"))]
        raw::yield_now();
        #[cfg(not(any(test, feature = "sim")))]
        core::hint::spin_loop();
    }
}

/// A lock held, as the wrapped type `G` has it; dropping it releases the lock.
pub struct Guard<G, const RANK: u8> {
    inner: G,
    _held: Held,
}

impl<G: Deref, const RANK: u8> Deref for Guard<G, RANK> {
    type Target = G::Target;

    #[inline(always)]
    fn deref(&self) -> &G::Target {
        &self.inner
    }
}

impl<G: DerefMut, const RANK: u8> DerefMut for Guard<G, RANK> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut G::Target {
        &mut self.inner
    }
}

/// A [`SpinLock`] held.
pub type SpinLockGuard<'a, T, const RANK: u8> = Guard<raw::MutexGuard<'a, T>, RANK>;
/// A [`RwLock`] held in read mode.
pub type ReadGuard<'a, T, const RANK: u8> = Guard<raw::RwLockReadGuard<'a, T>, RANK>;
/// A [`RwLock`] held in write mode.
pub type WriteGuard<'a, T, const RANK: u8> = Guard<raw::RwLockWriteGuard<'a, T>, RANK>;

impl<'a, T, const RANK: u8> WriteGuard<'a, T, RANK> {
    /// Goes on as one of the readers: no writer comes in between.
    #[inline]
    pub(crate) fn downgrade(self) -> ReadGuard<'a, T, RANK> {
        Guard { inner: self.inner.downgrade(), _held: self._held }
    }
}

/// A mutual-exclusion lock that spins.
pub struct SpinLock<T, const RANK: u8>(raw::Mutex<T>);

impl<T, const RANK: u8> SpinLock<T, RANK> {
    /// An unlocked lock around `value`.
    pub const fn new(value: T) -> SpinLock<T, RANK> {
        SpinLock(raw::Mutex::new(value))
    }

    /// Waits for the lock and takes it.
    #[inline]
    pub fn lock(&self) -> SpinLockGuard<'_, T, RANK> {
        let _held = Held::wait_for(RANK, &self.0);
        Guard { inner: self.0.lock(), _held }
    }

    /// [`lock`](Self::lock) where it is known what else is held last: that this is in
    /// order is checked by the compiler.
    #[inline]
    pub fn lock_under<G, const OUTER: u8>(&self, _outer: &Guard<G, OUTER>) -> SpinLockGuard<'_, T, RANK> {
        const { assert!(OUTER < RANK, "lock taken out of order") };
        self.lock()
    }

    /// Takes the lock if nobody holds it. As that does not wait, it is allowed
    /// in any order.
    #[inline]
    pub fn try_lock(&self) -> Option<SpinLockGuard<'_, T, RANK>> {
        self.0.try_lock().map(|inner| Guard { inner, _held: Held::hold(RANK, &self.0) })
    }
}

impl<T: Default, const RANK: u8> Default for SpinLock<T, RANK> {
    fn default() -> SpinLock<T, RANK> {
        SpinLock::new(T::default())
    }
}

impl<T, const RANK: u8> fmt::Debug for SpinLock<T, RANK> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpinLock").field("locked", &self.0.is_locked()).finish_non_exhaustive()
    }
}

/// A lock with any number of readers or one writer, that spins.
pub struct RwLock<T, const RANK: u8>(raw::RwLock<T>);

impl<T, const RANK: u8> RwLock<T, RANK> {
    /// An unlocked lock around `value`.
    pub const fn new(value: T) -> RwLock<T, RANK> {
        RwLock(raw::RwLock::new(value))
    }

    /// Waits until no writer holds the lock and joins the readers.
    #[inline]
    pub fn read(&self) -> ReadGuard<'_, T, RANK> {
        let _held = Held::wait_for(RANK, &self.0);
        Guard { inner: self.0.read(), _held }
    }

    /// Waits until nobody holds the lock and takes it alone.
    #[inline]
    pub fn write(&self) -> WriteGuard<'_, T, RANK> {
        let _held = Held::wait_for(RANK, &self.0);
        Guard { inner: self.0.write(), _held }
    }

    /// [`write`](Self::write) where it is known what else is held last, as
    /// [`SpinLock::lock_under`].
    #[inline]
    pub fn write_under<G, const OUTER: u8>(&self, _outer: &Guard<G, OUTER>) -> WriteGuard<'_, T, RANK> {
        const { assert!(OUTER < RANK, "lock taken out of order") };
        self.write()
    }

    /// [`write`](Self::write) for a lock that nobody else knows of yet, or any
    /// more: there is nobody to wait for, so it is allowed in any order.
    #[inline]
    pub fn write_unshared(&self) -> WriteGuard<'_, T, RANK> {
        let _held = Held::hold(RANK, &self.0);
        Guard { inner: self.0.write(), _held }
    }
}

impl<T: Default, const RANK: u8> Default for RwLock<T, RANK> {
    fn default() -> RwLock<T, RANK> {
        RwLock::new(T::default())
    }
}

impl<T, const RANK: u8> fmt::Debug for RwLock<T, RANK> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLock").field("readers", &self.0.reader_count()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::Ordering;

    use super::atomic::AtomicU64;
    use super::*;

    #[test]
    fn locks_are_taken_by_ascending_rank() {
        let (outer, inner) = (RwLock::<(), { rank::MMAP }>::new(()), SpinLock::<(), { rank::ARENA }>::new(()));
        for _ in 0..2 {
            let _outer = outer.read();
            let _inner = inner.lock();
        }
    }

    #[test]
    #[should_panic(expected = "mmap lock taken under arena lock")]
    fn a_lower_rank_under_a_higher_one_panics() {
        let (outer, inner) = (RwLock::<(), { rank::MMAP }>::new(()), SpinLock::<(), { rank::ARENA }>::new(()));
        let _inner = inner.lock();
        let _outer = outer.write();
    }

    #[test]
    #[should_panic(expected = "mmap lock taken under VMA lock")]
    fn who_has_a_vma_must_not_wait_for_the_mmap_lock() {
        let (space, vma) = (RwLock::<(), { rank::MMAP }>::new(()), VmaLock::default());
        let slots = ReaderSlots::default();
        let _fault = vma.try_read(&AtomicU64::new(1), || slots.of(0));
        let _space = space.read();
    }

    #[test]
    #[should_panic(expected = "VMA lock taken under anon_vma root lock")]
    fn faults_are_not_waited_for_under_what_they_take() {
        let (vma, root) = (VmaLock::default(), RwLock::<(), { rank::ANON_VMA_ROOT }>::new(()));
        let slots = ReaderSlots::default();
        let _root = root.write();
        vma.write(1, || &slots);
    }

    #[test]
    fn a_vma_is_locked_until_its_section_is_over() {
        let (vma, slots, current) = (VmaLock::default(), ReaderSlots::default(), AtomicU64::new(1));
        let read = || vma.try_read(&current, || slots.of(0));
        let fault = read();
        assert!(fault.is_some());
        fault.iter().for_each(|fault| vma.release(fault));
        drop(fault);
        vma.write(1, || &slots);
        assert!(read().is_none());
        vma.write(1, || &slots);
        current.store(2, Ordering::Release);
        let fault = read();
        assert!(fault.is_some());
        fault.iter().for_each(|fault| vma.release(fault));
    }

    #[test]
    #[should_panic(expected = "object lock taken under object lock")]
    fn two_locks_of_one_rank_panic() {
        let locks = [SpinLock::<(), { rank::OBJECT }>::new(()), SpinLock::<(), { rank::OBJECT }>::new(())];
        let _first = locks[0].lock();
        let _second = locks[1].lock();
    }

    #[test]
    fn page_tables_are_locked_in_ascending_order() {
        let locks = [SpinLock::<(), { rank::PAGE_TABLE }>::new(()), SpinLock::<(), { rank::PAGE_TABLE }>::new(())];
        let _first = locks[0].lock();
        let _second = locks[1].lock();
    }

    #[test]
    #[should_panic(expected = "page-table lock taken under page-table lock")]
    fn page_tables_locked_in_descending_order_panic() {
        let locks = [SpinLock::<(), { rank::PAGE_TABLE }>::new(()), SpinLock::<(), { rank::PAGE_TABLE }>::new(())];
        let _second = locks[1].lock();
        let _first = locks[0].lock();
    }

    #[test]
    fn what_is_tried_or_unshared_may_be_taken_in_any_order() {
        let (outer, inner) = (SpinLock::<(), { rank::PREPARE }>::new(()), SpinLock::<(), { rank::ARENA }>::new(()));
        let fresh = RwLock::<(), { rank::MMAP }>::new(());
        let held = inner.lock();
        assert!(outer.try_lock().is_some());
        drop((fresh.write_unshared(), held));
        assert!(outer.try_lock().is_some());
    }
}
