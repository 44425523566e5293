//! Atomics under the model checker `loom`.
//!
//! `loom` runs a scenario with all interleavings that differ, and within each has every load see
//! every store that the orderings allow. But it takes `SeqCst` accesses for acquire and
//! release ([issue 180](https://github.com/tokio-rs/loom/issues/180)): of two threads of which each
//! stores and then loads what the other one stores, it has both miss the other. That is
//! what the locks here rule out.
//!
//! The usual remedy is to put a `SeqCst` fence, which `loom` has, before and after such accesses.
//! It makes more of them than they are: a fence orders *all* accesses around it, so if in the
//! above a load or a store were weaker than `SeqCst` by mistake, the fence of the other would
//! make up for it. And in `loom` each fence happens before the next one, so it hides that an acquire or release is
//! missing. Therefore `SeqCst` is added here as what C++20 says it is (section `atomics.order`, after
//! Lahav et al., "Repairing Sequential Consistency in C/C++11", 2017), as far as concerns accesses to
//! the same atomic: there is one order of all `SeqCst` accesses, and a load among them sees the
//! last store among them, or one that comes later in the order of the atomic's changes.
//!
//! - The order is that in which `loom` executes them; it tries all that differ, since it
//!   counts a load and a store of one atomic as dependent.
//! - What `loom` stores is the number of a store. So it is known which one a load has seen; if that one is
//!   known to be overwritten by a `SeqCst` store, no real execution goes like that, and
//!   this one ends at once: its threads unwind with [`Unreal`], and `loom` goes on to the next.
//!
//! "Is known to": it is older if it is `SeqCst` itself, or by the same thread, or if read-modify-write
//! operations lead from one to the other. Otherwise the load may see it. So there may be
//! executions that are not real, and with them false alarms; but `loom` loses none by this.
//!
//! What it does not try anyway is a load that sees a store executed later. C++ has some, where the order of `SeqCst`
//! accesses contradicts what relaxed ones see.

use std::cell::Cell;
use std::panic::resume_unwind;
use std::sync::atomic::Ordering;

use loom::sync::atomic::AtomicUsize as Place;
use loom::thread::{self, ThreadId};
use spin::mutex::SpinMutex;

/// What threads unwind with in an execution that is not real.
#[derive(Debug)]
pub struct Unreal;

thread_local! {
    /// Whether the execution is not real. All its threads are on one of the host's.
    static IS_UNREAL: Cell<bool> = const { Cell::new(false) };
}

/// To be called as an execution begins.
pub fn begin() {
    IS_UNREAL.set(false);
}

/// The execution is not real, or need not be gone on with: to be called with no lock held.
pub fn give_up() {
    IS_UNREAL.set(true);
    loom::skip_branch();
    go_on();
}

/// Ends the thread if the execution is not real.
fn go_on() {
    if IS_UNREAL.get() && !std::thread::panicking() {
        resume_unwind(Box::new(Unreal));
    }
}

/// In place of `core`'s.
pub type AtomicBool = Atomic<bool>;
/// In place of `core`'s.
pub type AtomicU32 = Atomic<u32>;
/// In place of `core`'s.
pub type AtomicU64 = Atomic<u64>;
/// In place of `core`'s.
pub type AtomicUsize = Atomic<usize>;

/// An atomic value.
#[derive(Debug)]
pub struct Atomic<T> {
    /// The number of a store.
    place: Place,
    history: SpinMutex<History<T>>,
}

/// All that has been stored in an atomic.
#[derive(Debug)]
struct History<T> {
    /// By number. Some are executed in another order, or not at all.
    stores: Vec<Store<T>>,
    executed: usize,
    /// The last store executed.
    last: usize,
    /// The last `SeqCst` store executed. The initial value counts as one.
    last_seq_cst: usize,
}

#[derive(Clone, Copy, Debug)]
struct Store<T> {
    value: T,
    by: ThreadId,
    is_seq_cst: bool,
    /// How many were executed before it.
    when: usize,
    /// The store that it has read, if it is of a read-modify-write operation.
    after: Option<usize>,
}

impl<T: Copy> History<T> {
    /// The number of a store that is about to be executed. All but this is said when it has been.
    fn announce(&mut self, value: T) -> usize {
        let by = thread::current().id();
        self.stores.push(Store { value, by, is_seq_cst: false, when: usize::MAX, after: None });
        self.stores.len() - 1
    }

    fn execute(&mut self, store: usize, value: T, order: Ordering, after: Option<usize>) {
        let is_seq_cst = order == Ordering::SeqCst;
        self.stores[store] = Store { value, is_seq_cst, when: self.executed, after, ..self.stores[store] };
        self.executed += 1;
        self.last = store;
        if is_seq_cst {
            self.last_seq_cst = store;
        }
    }

    /// Whether the store `new` is known to have come after `old` in the order of changes.
    fn is_overwritten(&self, old: usize, new: usize) -> bool {
        let (before, after) = (&self.stores[old], &self.stores[new]);
        let follows = |read: usize| read == old || self.is_overwritten(old, read);
        before.when < after.when
            && (before.is_seq_cst && after.is_seq_cst || before.by == after.by || after.after.is_some_and(follows))
    }

    /// Whether an access can have seen this store, if it is `SeqCst`.
    fn can_be_seen(&self, store: usize, order: Ordering) -> bool {
        !(order == Ordering::SeqCst && self.is_overwritten(store, self.last_seq_cst))
    }
}

impl<T: Copy> Atomic<T> {
    /// One with that value.
    pub fn new(value: T) -> Atomic<T> {
        let mut history = History { stores: Vec::new(), executed: 0, last: 0, last_seq_cst: 0 };
        let initial = history.announce(value);
        history.execute(initial, value, Ordering::SeqCst, None);
        Atomic { place: Place::new(initial), history: SpinMutex::new(history) }
    }

    /// As `core`'s.
    pub fn load(&self, order: Ordering) -> T {
        go_on();
        let seen = self.place.load(order);
        self.check_seen(seen, order);
        self.value(seen)
    }

    /// As `core`'s.
    pub fn store(&self, value: T, order: Ordering) {
        go_on();
        let store = self.history.lock().announce(value);
        self.place.store(store, order);
        self.history.lock().execute(store, value, order, None);
    }

    /// As `core`'s.
    pub fn swap(&self, value: T, order: Ordering) -> T {
        self.modify(order, |_| value)
    }

    fn modify(&self, order: Ordering, f: impl FnOnce(T) -> T) -> T {
        go_on();
        // What it will be is not known before it is executed.
        let store = {
            let mut history = self.history.lock();
            let unknown = history.stores[0].value;
            history.announce(unknown)
        };
        let seen = self.place.swap(store, order);
        self.check_seen(seen, order);
        let old = self.value(seen);
        self.history.lock().execute(store, f(old), order, Some(seen));
        old
    }

    fn check_seen(&self, store: usize, order: Ordering) {
        let can_be_seen = self.history.lock().can_be_seen(store, order);
        if !can_be_seen {
            give_up();
        }
    }

    fn value(&self, store: usize) -> T {
        self.history.lock().stores[store].value
    }
}

impl<T: Copy + Eq> Atomic<T> {
    /// As `core`'s.
    ///
    /// # Errors
    ///
    /// What there is in place of `current`.
    pub fn compare_exchange(&self, current: T, new: T, success: Ordering, failure: Ordering) -> Result<T, T> {
        /// No store has this number.
        const NONE: usize = usize::MAX;
        go_on();
        let (store, mut expected) = {
            let mut history = self.history.lock();
            let last = history.last;
            (history.announce(new), if history.stores[last].value == current { last } else { NONE })
        };
        loop {
            match self.place.compare_exchange(expected, store, success, failure) {
                Ok(seen) => {
                    self.check_seen(seen, success);
                    self.history.lock().execute(store, new, success, Some(seen));
                    return Ok(current);
                }
                Err(seen) => {
                    self.check_seen(seen, failure);
                    // The same value may have been stored again.
                    if self.value(seen) != current {
                        return Err(self.value(seen));
                    }
                    expected = seen;
                }
            }
        }
    }

    /// As `core`'s.
    ///
    /// # Errors
    ///
    /// What `f` has returned `None` for.
    pub fn fetch_update(
        &self,
        success: Ordering,
        failure: Ordering,
        mut f: impl FnMut(T) -> Option<T>,
    ) -> Result<T, T> {
        let mut old = self.load(failure);
        while let Some(new) = f(old) {
            match self.compare_exchange(old, new, success, failure) {
                Ok(old) => return Ok(old),
                Err(other) => old = other,
            }
        }
        Err(old)
    }
}

impl<T: Copy + Default> Default for Atomic<T> {
    fn default() -> Atomic<T> {
        Atomic::new(T::default())
    }
}

macro_rules! integer {
    ($($type:ty),*) => {$(
        impl Atomic<$type> {
            /// As `core`'s.
            pub fn fetch_add(&self, value: $type, order: Ordering) -> $type {
                self.modify(order, |old| old.wrapping_add(value))
            }

            /// As `core`'s.
            pub fn fetch_sub(&self, value: $type, order: Ordering) -> $type {
                self.modify(order, |old| old.wrapping_sub(value))
            }

            /// As `core`'s.
            pub fn fetch_or(&self, value: $type, order: Ordering) -> $type {
                self.modify(order, |old| old | value)
            }

            /// As `core`'s.
            pub fn fetch_and(&self, value: $type, order: Ordering) -> $type {
                self.modify(order, |old| old & value)
            }

            /// As `core`'s.
            pub fn fetch_max(&self, value: $type, order: Ordering) -> $type {
                self.modify(order, |old| old.max(value))
            }
        }
    )*};
}

integer!(u32, u64, usize);
