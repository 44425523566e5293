//! What the checker itself lets threads see: no less than the orderings allow, and of `SeqCst` no more.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU32 as Note;
use std::sync::atomic::Ordering::{self, AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::{Arc, Mutex};

use mm::parts::atomic::AtomicU32;

use crate::checker::{check_bounded, race};

/// With more of them nothing else is seen, and four threads take long.
const PREEMPTIONS: usize = 3;

/// Two atomics, which are 0, and how they are accessed.
struct Pair {
    x: AtomicU32,
    y: AtomicU32,
    store: Ordering,
    load: Ordering,
    /// What the threads have seen.
    seen: [Note; 4],
}

impl Pair {
    fn note(&self, place: usize, value: u32) {
        self.seen[place].store(value, Relaxed);
    }
}

/// All that the threads together may see.
fn outcomes(store: Ordering, load: Ordering, threads: &'static [fn(&Pair)]) -> BTreeSet<[u32; 4]> {
    let all = Arc::new(Mutex::new(BTreeSet::new()));
    let found = all.clone();
    check_bounded(PREEMPTIONS, move || {
        let pair = Pair { x: AtomicU32::new(0), y: AtomicU32::new(0), store, load, seen: [const { Note::new(0) }; 4] };
        let pair = Arc::new(pair);
        race(&pair, threads);
        all.lock().unwrap().insert(pair.seen.each_ref().map(|note| note.load(Relaxed)));
    });
    found.lock().unwrap().clone()
}

/// Invariant: of two threads that each store, and then load what the other one stores, one sees the other,
/// if all four are `SeqCst`; and they may miss each other if two are not.
#[test]
fn store_and_load() {
    let outcomes = |store, load| {
        outcomes(
            store,
            load,
            &[
                |pair| {
                    pair.x.store(1, pair.store);
                    pair.note(0, pair.y.load(pair.load));
                },
                |pair| {
                    pair.y.store(1, pair.store);
                    pair.note(1, pair.x.load(pair.load));
                },
            ],
        )
    };
    let one_sees = BTreeSet::from([[0, 1, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0]]);
    assert_eq!(outcomes(SeqCst, SeqCst), one_sees);
    let mut none_sees = one_sees;
    none_sees.insert([0; 4]);
    for (store, load) in [(Release, SeqCst), (SeqCst, Acquire), (Release, Acquire), (Relaxed, Relaxed)] {
        assert_eq!(outcomes(store, load), none_sees, "{store:?}, {load:?}");
    }
}

/// Invariant: the same where read-modify-write operations store.
#[test]
fn modify_and_load() {
    let outcomes = |store, load| {
        outcomes(
            store,
            load,
            &[
                |pair| {
                    pair.x.fetch_add(1, pair.store);
                    pair.note(0, pair.y.load(pair.load));
                },
                |pair| {
                    let _ = pair.y.compare_exchange(0, 1, pair.store, Relaxed);
                    pair.note(1, pair.x.load(pair.load));
                },
            ],
        )
    };
    assert!(!outcomes(SeqCst, SeqCst).contains(&[0; 4]));
    for (store, load) in [(AcqRel, SeqCst), (SeqCst, Acquire)] {
        assert!(outcomes(store, load).contains(&[0; 4]), "{store:?}, {load:?}");
    }
}

/// Invariant: two threads agree on which of two stores came first, if all are `SeqCst`; and may
/// disagree if they are not.
#[test]
fn stores_seen_by_two() {
    const DISAGREE: [u32; 4] = [1, 0, 1, 0];
    let outcomes = |store, load| {
        outcomes(
            store,
            load,
            &[
                |pair| pair.x.store(1, pair.store),
                |pair| pair.y.store(1, pair.store),
                |pair| {
                    pair.note(0, pair.x.load(pair.load));
                    pair.note(1, pair.y.load(pair.load));
                },
                |pair| {
                    pair.note(2, pair.y.load(pair.load));
                    pair.note(3, pair.x.load(pair.load));
                },
            ],
        )
    };
    assert!(!outcomes(SeqCst, SeqCst).contains(&DISAGREE));
    assert!(outcomes(Release, Acquire).contains(&DISAGREE));
}

/// Invariant: who acquires what was released sees what was stored before; others may not.
#[test]
fn message() {
    const LOST: [u32; 4] = [1, 0, 0, 0];
    let outcomes = |store, load| {
        outcomes(
            store,
            load,
            &[
                |pair| {
                    pair.x.store(1, Relaxed);
                    pair.y.store(1, pair.store);
                },
                |pair| {
                    pair.note(0, pair.y.load(pair.load));
                    pair.note(1, pair.x.load(Relaxed));
                },
            ],
        )
    };
    assert!(!outcomes(Release, Acquire).contains(&LOST));
    assert!(!outcomes(SeqCst, SeqCst).contains(&LOST));
    assert!(outcomes(SeqCst, Relaxed).contains(&LOST));
    assert!(outcomes(Relaxed, SeqCst).contains(&LOST));
}
