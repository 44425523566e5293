//! Filling and copying whole frames.

use core::arch::asm;

use crate::addr::PAGE_SIZE;

/// Words of eight bytes in a page.
const WORDS: usize = PAGE_SIZE / 8;

/// Fills a page with zeroes.
///
/// # Safety
///
/// `page` is page aligned, valid for writes of a page, and nothing else
/// accesses the page meanwhile.
#[inline]
pub(crate) unsafe fn clear_page(page: *mut u8) {
    // SAFETY: the string instruction writes exactly WORDS words from `page`
    // up, which the caller says are ours to write; the ABI has the direction
    // flag clear; rcx and rdi are declared as changed.
    unsafe {
        asm!(
            "rep stosq",
            inout("rcx") WORDS => _,
            inout("rdi") page => _,
            in("rax") 0usize,
            options(nostack, preserves_flags)
        );
    }
}

/// Copies a page.
///
/// # Safety
///
/// `from` is valid for reads and `to` for writes of a page, both are page
/// aligned, they are different pages, and nothing else accesses `to` meanwhile.
/// (User programs may write to `from` at the same time; what is copied is then
/// some mixture of old and new, as on any machine.)
#[inline]
pub(crate) unsafe fn copy_page(from: *const u8, to: *mut u8) {
    // SAFETY: the string instruction reads WORDS words from `from` up and
    // writes as many from `to` up, which the caller says is allowed; the ABI
    // has the direction flag clear; rcx, rsi and rdi are declared as changed.
    unsafe {
        asm!(
            "rep movsq",
            inout("rcx") WORDS => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags)
        );
    }
}
