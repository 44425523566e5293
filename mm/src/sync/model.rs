//! What locks are made of under the model checker `shuttle`.
//!
//! In an execution of shuttle's all threads take turns on one thread of the
//! host, and shuttle decides at each [`point`] who is next. Whoever does not get
//! a lock is not among those until it is released.
//!
//! The first thread of an execution sets the scene before the others start,
//! and judges after they have ended: there is nobody to take turns with, so it
//! passes points without stopping.
//!
//! Outside of an execution the locks are what they are without the checker.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::thread::panicking;

use shuttle::thread::{Thread, current, park};
use shuttle_engine::runtime::thread::switch;

use super::Relax;

thread_local! {
    /// The threads that wait, each with the address of the lock.
    static WAITING: RefCell<Vec<(usize, Thread)>> = const { RefCell::new(Vec::new()) };
}

/// The number of the calling thread in its execution, from 1; 0 outside.
pub(crate) fn thread() -> usize {
    shuttle::current::try_get_current_task().map_or(0, |task| usize::from(task) + 1)
}

/// What comes next others can notice, or it notices what others do: they may go
/// on before it.
#[inline]
pub(crate) fn point() {
    if thread() > 1 && !panicking() {
        switch();
    }
}

/// Lets others go on.
pub(super) fn yield_now() {
    if thread() == 0 {
        std::thread::yield_now();
    } else {
        shuttle::thread::yield_now();
    }
}

/// Tries to take the lock at `address` until that succeeds.
fn acquire<G>(address: usize, try_take: impl Fn() -> Option<G>) -> G {
    point();
    loop {
        if let Some(guard) = try_take() {
            return guard;
        }
        if thread() == 0 {
            yield_now();
            continue;
        }
        WAITING.with_borrow_mut(|waiting| waiting.push((address, current())));
        park();
    }
}

/// Lets those go on that wait for the lock at an address, when it is dropped.
struct Wake(usize);

impl Drop for Wake {
    fn drop(&mut self) {
        if thread() == 0 || panicking() {
            return;
        }
        let is_ours = |&mut (address, _): &mut (usize, Thread)| address == self.0;
        let woken: Vec<_> = WAITING.with_borrow_mut(|waiting| waiting.extract_if(.., is_ours).collect());
        for (_, thread) in woken {
            thread.unpark();
        }
    }
}

/// A lock held: released first, then those that wait for it are woken.
pub struct Held<G> {
    guard: G,
    _wake: Wake,
}

impl<G> Held<G> {
    fn new(guard: G, address: usize) -> Held<G> {
        Held { guard, _wake: Wake(address) }
    }
}

impl<G: Deref> Deref for Held<G> {
    type Target = G::Target;

    fn deref(&self) -> &G::Target {
        &self.guard
    }
}

impl<G: DerefMut> DerefMut for Held<G> {
    fn deref_mut(&mut self) -> &mut G::Target {
        &mut self.guard
    }
}

impl<'a, T> RwLockWriteGuard<'a, T> {
    pub(super) fn downgrade(self) -> RwLockReadGuard<'a, T> {
        let Held { guard, _wake } = self;
        Held::new(guard.downgrade(), _wake.0)
    }
}

fn address<T>(lock: &T) -> usize {
    std::ptr::from_ref(lock).addr()
}

/// In place of `spin`'s.
pub(super) struct Mutex<T>(spin::mutex::SpinMutex<T, Relax>);

pub(crate) type MutexGuard<'a, T> = Held<spin::mutex::SpinMutexGuard<'a, T, Relax>>;

impl<T> Mutex<T> {
    pub(super) const fn new(value: T) -> Mutex<T> {
        Mutex(spin::mutex::SpinMutex::new(value))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        Held::new(acquire(address(self), || self.0.try_lock()), address(self))
    }

    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        point();
        self.0.try_lock().map(|guard| Held::new(guard, address(self)))
    }

    pub(super) fn is_locked(&self) -> bool {
        self.0.is_locked()
    }
}

/// In place of `spin`'s. Neither readers nor writers go first.
pub(super) struct RwLock<T>(spin::rwlock::RwLock<T, Relax>);

pub(crate) type RwLockReadGuard<'a, T> = Held<spin::rwlock::RwLockReadGuard<'a, T, Relax>>;
pub(crate) type RwLockWriteGuard<'a, T> = Held<spin::rwlock::RwLockWriteGuard<'a, T, Relax>>;

impl<T> RwLock<T> {
    pub(super) const fn new(value: T) -> RwLock<T> {
        RwLock(spin::rwlock::RwLock::new(value))
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, T> {
        Held::new(acquire(address(self), || self.0.try_read()), address(self))
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, T> {
        Held::new(acquire(address(self), || self.0.try_write()), address(self))
    }

    pub(super) fn reader_count(&self) -> usize {
        self.0.reader_count()
    }
}
