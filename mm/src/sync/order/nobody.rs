//! Nobody knows which locks are held.

pub(super) struct Token;

pub(super) fn track(_current_cpu: fn() -> usize) {}

#[inline(always)]
pub(super) fn for_each(_f: impl FnMut(u8, usize)) {}

pub(super) fn for_each_of(_cpu: usize, _f: impl FnMut(u8, usize)) {}

#[inline(always)]
pub(super) fn add(_rank: u8, _address: usize) -> Token {
    Token
}

#[inline(always)]
pub(super) fn remove(_token: &Token) {}
