//! Where things go in a new address space, and how much of that is random.
//!
//! The shape is Linux's for x86-64 (`arch/x86/mm/mmap.c`, `fs/binfmt_elf.c`):
//!
//! ```text
//! 0                       mmap_min_addr
//!   program (ET_EXEC)
//!   heap ->
//!   ...
//!   program (static-PIE)  2/3 of the way up, plus a random part
//!   heap ->
//!   ...
//!                      <- mappings, top down from mmap_base
//!   stack guard, room for the stack limit, random part
//!                      <- stack
//! TASK_SIZE
//! ```

use crate::vma::STACK_GUARD_GAP;
use crate::{PAGE_SHIFT, Platform, TASK_SIZE, page_align_down, page_align_up};

/// Random bits, in pages, of the mapping base and of a static-PIE's base
/// (`mmap_rnd_bits`).
const MMAP_RANDOM_BITS: u32 = 28;
/// Random bits, in pages, of the stack's top (16 GiB).
const STACK_RANDOM_BITS: u32 = 22;
/// Bytes within which the heap's start is random.
const BRK_RANDOM: usize = 32 << 20;
/// The least and the most room kept for the stack above `mmap_base`.
const STACK_ROOM_MIN: usize = 128 << 20;
const STACK_ROOM_MAX: usize = TASK_SIZE / 6 * 5;

/// The fixed points of one address space.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// Below this, mappings without a hint are placed, top down.
    pub mmap_base: usize,
    /// Where the top of the initial stack comes to lie.
    pub stack_top: usize,
    /// Where a position-independent program is loaded.
    pub pie_base: usize,
    /// How far above the program's end the heap starts, in bytes.
    pub brk_offset: usize,
}

impl Layout {
    /// The layout for a stack limit of `stack_limit` bytes. `level` is
    /// `kernel.randomize_va_space`: 0 places nothing at random, 1 all but the
    /// heap, 2 the heap as well.
    pub fn new(platform: &impl Platform, level: u32, stack_limit: u64) -> Layout {
        let bits = |n: u32| match level {
            0 => 0,
            _ => (platform.random() as usize & ((1 << n) - 1)) << PAGE_SHIFT,
        };
        let stack_random = if level == 0 { 0 } else { 1 << (STACK_RANDOM_BITS as usize + PAGE_SHIFT) };
        let room = usize::try_from(stack_limit)
            .unwrap_or(usize::MAX)
            .saturating_add(STACK_GUARD_GAP + stack_random)
            .clamp(STACK_ROOM_MIN, STACK_ROOM_MAX);
        Layout {
            mmap_base: page_align_down(TASK_SIZE - page_align_up(room) - bits(MMAP_RANDOM_BITS)),
            stack_top: TASK_SIZE - bits(STACK_RANDOM_BITS),
            pie_base: page_align_down(TASK_SIZE / 3 * 2) + bits(MMAP_RANDOM_BITS),
            brk_offset: match level {
                2.. => page_align_down(platform.random() as usize % BRK_RANDOM),
                _ => 0,
            },
        }
    }
}
