//! Runs scenarios under `loom`.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::thread;
use mm::parts::atomic::{Unreal, begin};

/// Points that an execution passes, at most, unless somebody waits for ever.
const MAX_BRANCHES: usize = 10_000;

/// Runs a scenario in all ways that there are.
pub fn check(scenario: impl Fn() + Send + Sync + 'static) {
    run(None, scenario);
}

/// Runs a scenario in all ways in which threads are interrupted, in all, no more than so many
/// times where they could go on.
pub fn check_bounded(preemptions: usize, scenario: impl Fn() + Send + Sync + 'static) {
    run(Some(preemptions), scenario);
}

fn run(preemptions: Option<usize>, scenario: impl Fn() + Send + Sync + 'static) {
    let (executions, unreal) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut builder = Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = MAX_BRANCHES;
    // Whatever the environment says.
    builder.max_permutations = None;
    builder.max_duration = None;
    builder.checkpoint_file = None;
    let counts = (executions.clone(), unreal.clone());
    builder.check(move || {
        begin();
        counts.0.fetch_add(1, Ordering::Relaxed);
        if real(&scenario).is_none() {
            counts.1.fetch_add(1, Ordering::Relaxed);
        }
    });
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    println!("{} executions, of which {} were given up", count(&executions), count(&unreal));
}

/// Calls `f`, and returns `None` if the execution is found not to be real.
fn real<R>(f: impl FnOnce() -> R) -> Option<R> {
    let is_unreal = |panic: &Box<dyn Any + Send>| panic.is::<Unreal>();
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(result) => Some(result),
        Err(panic) if is_unreal(&panic) => None,
        Err(panic) => resume_unwind(panic),
    }
}

/// Runs threads side by side to their ends.
pub fn race<T: 'static>(shared: &Arc<T>, threads: &[fn(&T)]) {
    let spawn = |thread: &fn(&T)| {
        let (thread, shared) = (*thread, shared.clone());
        thread::spawn(move || real(|| thread(&shared)))
    };
    let handles: Vec<_> = threads.iter().map(spawn).collect();
    for handle in handles {
        if handle.join().expect("a thread failed").is_none() {
            resume_unwind(Box::new(Unreal));
        }
    }
}

/// A value that is accessed without atomics.
pub struct Cell<T>(UnsafeCell<T>);

// SAFETY: the threads of an execution take turns, and `loom` sees to it that two accesses
// of which one is a write have an order.
unsafe impl<T: Send> Sync for Cell<T> {}

impl<T: Copy> Cell<T> {
    pub fn new(value: T) -> Cell<T> {
        Cell(UnsafeCell::new(value))
    }

    pub fn read(&self) -> T {
        // SAFETY: `loom` panics if anybody writes meanwhile.
        self.0.with(|value| unsafe { *value })
    }

    pub fn write(&self, new: T) {
        // SAFETY: `loom` panics if anybody accesses it meanwhile.
        self.0.with_mut(|value| unsafe { *value = new });
    }
}
