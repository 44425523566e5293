//! The locks that each thread holds, for tests on the host.

use std::cell::RefCell;

use crate::sync::thread;

thread_local! {
    /// In the order in which they were taken.
    static HELD: RefCell<Vec<Token>> = const { RefCell::new(Vec::new()) };
}

/// One lock: who holds it (see [`thread`]), its rank, its address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Token(usize, u8, usize);

pub(super) fn track(_current_cpu: fn() -> usize) {}

/// Those of the calling thread.
pub(super) fn for_each(mut f: impl FnMut(u8, usize)) {
    HELD.with_borrow(|held| held.iter().filter(|held| held.0 == thread()).for_each(|held| f(held.1, held.2)));
}

/// There are no CPUs.
pub(super) fn for_each_of(_cpu: usize, _f: impl FnMut(u8, usize)) {}

pub(super) fn add(rank: u8, address: usize) -> Token {
    let token = Token(thread(), rank, address);
    HELD.with_borrow_mut(|held| held.push(token));
    token
}

pub(super) fn remove(token: &Token) {
    HELD.with_borrow_mut(|held| {
        if let Some(last) = held.iter().rposition(|lock| lock == token) {
            held.remove(last);
        }
    });
}
