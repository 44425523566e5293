//! The locks that each CPU holds, in a kernel with debug assertions.

use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};

use spin::Once;

use crate::MAX_CPUS;

/// Locks of a CPU that are known at a time; of more, nothing is. Reclaim holds those of
/// 32 pages.
const MOST: usize = 48;

/// A lock that is held, if the address is not 0.
struct Entry {
    address: AtomicUsize,
    rank: AtomicU8,
}

static CURRENT_CPU: Once<fn() -> usize> = Once::new();
/// By CPU, which alone writes to its row.
static HELD: [[Entry; MOST]; MAX_CPUS] =
    [const { [const { Entry { address: AtomicUsize::new(0), rank: AtomicU8::new(0) } }; MOST] }; MAX_CPUS];

/// The entry of a lock, if there was room.
pub(super) struct Token(Option<&'static Entry>);

pub(super) fn track(current_cpu: fn() -> usize) {
    CURRENT_CPU.call_once(|| current_cpu);
}

/// Those of the CPU that executes the call, once it is known which one that is.
pub(super) fn for_each(f: impl FnMut(u8, usize)) {
    if let Some(current) = CURRENT_CPU.get() {
        for_each_of(current(), f);
    }
}

pub(super) fn for_each_of(cpu: usize, mut f: impl FnMut(u8, usize)) {
    for entry in HELD.get(cpu).into_iter().flatten() {
        let address = entry.address.load(Relaxed);
        if address != 0 {
            f(entry.rank.load(Relaxed), address);
        }
    }
}

pub(super) fn add(rank: u8, address: usize) -> Token {
    let row = CURRENT_CPU.get().and_then(|current| HELD.get(current()));
    let free = |entry: &&Entry| entry.address.load(Relaxed) == 0;
    let entry = row.and_then(|row| row.iter().find(free));
    if let Some(entry) = entry {
        entry.rank.store(rank, Relaxed);
        entry.address.store(address, Relaxed);
    }
    Token(entry)
}

pub(super) fn remove(token: &Token) {
    if let Some(entry) = token.0 {
        entry.address.store(0, Relaxed);
    }
}
