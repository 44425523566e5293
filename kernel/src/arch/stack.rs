//! Kernel stacks, each with an unmapped guard page below it.
//!
//! The window for stacks is cut into slots of one guard page and one stack.
//! A stack that is given back is kept, mapped, for the next thread, unless
//! there are many of those already.

use mm::{Errno, FrameKind, PAGE_SIZE};

use super::irq::IrqMutex;
use super::paging::{self, Protection, STACK_WINDOW, STACK_WINDOW_SIZE};
use super::shootdown;
use crate::memory::memory;

/// Bytes of a kernel stack, without its guard page.
pub const KERNEL_STACK_SIZE: usize = 32 * 1024;

const SLOT_SIZE: usize = PAGE_SIZE + KERNEL_STACK_SIZE;
const SLOTS: usize =
    if STACK_WINDOW_SIZE / SLOT_SIZE < MAX_STACKS { STACK_WINDOW_SIZE / SLOT_SIZE } else { MAX_STACKS };
/// More threads than any machine this runs on has memory for.
const MAX_STACKS: usize = 64 * 1024;
/// Stacks that are kept mapped though no thread has them.
const MAX_SPARE: usize = 32;

static SLOT_TABLE: IrqMutex<SlotTable> =
    IrqMutex::new(SlotTable { used: [0; SLOTS.div_ceil(64)], search_from: 0, spare: [0; MAX_SPARE], spares: 0 });

struct SlotTable {
    /// One bit per slot: a stack is mapped there, in use or spare.
    used: [u64; SLOTS.div_ceil(64)],
    /// No word before this one has a clear bit.
    search_from: usize,
    /// Tops of spare stacks.
    spare: [usize; MAX_SPARE],
    spares: usize,
}

impl SlotTable {
    fn take_slot(&mut self) -> Option<usize> {
        while let Some(word) = self.used.get_mut(self.search_from) {
            let bit = (!*word).trailing_zeros() as usize;
            if bit < 64 {
                *word |= 1 << bit;
                let slot = self.search_from * 64 + bit;
                return (slot < SLOTS).then_some(slot);
            }
            self.search_from += 1;
        }
        None
    }

    fn give_back_slot(&mut self, slot: usize) {
        self.used[slot / 64] &= !(1 << (slot % 64));
        self.search_from = self.search_from.min(slot / 64);
    }
}

/// The end of the kernel stack, or boot stack, that `rsp` points into.
pub fn top_of(rsp: usize) -> Option<usize> {
    let Some(offset) = rsp.checked_sub(STACK_WINDOW).filter(|&offset| offset < SLOTS * SLOT_SIZE) else {
        return super::boot_stack_top(rsp);
    };
    (offset % SLOT_SIZE >= PAGE_SIZE).then(|| STACK_WINDOW + (offset / SLOT_SIZE + 1) * SLOT_SIZE)
}

/// One kernel stack, mapped while this exists.
#[derive(Debug)]
pub struct KernelStack {
    top: usize,
}

impl KernelStack {
    /// A stack of [`KERNEL_STACK_SIZE`] bytes.
    ///
    /// # Errors
    ///
    /// `ENOMEM` when there is no memory, or no room among the stacks.
    pub fn new() -> Result<KernelStack, Errno> {
        let mut slots = SLOT_TABLE.lock();
        if let Some(spares) = slots.spares.checked_sub(1) {
            slots.spares = spares;
            return Ok(KernelStack { top: slots.spare[spares] });
        }
        let slot = slots.take_slot().ok_or(Errno::ENOMEM)?;
        drop(slots);
        let top = STACK_WINDOW + (slot + 1) * SLOT_SIZE;
        for page in (top - KERNEL_STACK_SIZE..top).step_by(PAGE_SIZE) {
            if let Err(error) = map_page(page) {
                unmap_stack(top);
                return Err(error);
            }
        }
        Ok(KernelStack { top })
    }

    /// The address just above the stack, 16-byte aligned.
    pub fn top(&self) -> usize {
        self.top
    }
}

impl Drop for KernelStack {
    fn drop(&mut self) {
        let mut slots = SLOT_TABLE.lock();
        let spares = slots.spares;
        if spares < MAX_SPARE {
            slots.spare[spares] = self.top;
            slots.spares += 1;
        } else {
            drop(slots);
            unmap_stack(self.top);
        }
    }
}

fn map_page(page: usize) -> Result<(), Errno> {
    // Zeroed, so that nothing of the frame's previous life shows up on a stack;
    // and an emulator forgets code that it saw there, and no longer watches the page.
    let frame = memory().alloc_zeroed(FrameKind::Kernel)?;
    let addr = frame.pfn().addr();
    // SAFETY: the page is in a slot that its taker owns; so is the frame.
    match unsafe { paging::map(page, addr, Protection::ReadWrite) } {
        Ok(()) => {
            // The mapping owns it now.
            frame.into_raw();
            Ok(())
        }
        Err(error) => {
            memory().free(frame);
            Err(error)
        }
    }
}

/// Takes out what is mapped of the stack below `top`, and gives its slot back.
fn unmap_stack(top: usize) {
    let pages = top - KERNEL_STACK_SIZE..top;
    let mut frames = [const { None }; KERNEL_STACK_SIZE / PAGE_SIZE];
    for (page, frame) in pages.clone().step_by(PAGE_SIZE).zip(&mut frames) {
        // SAFETY: `map_page` mapped it, if it is mapped, and no thread has the stack.
        *frame = unsafe { paging::unmap(page) };
    }
    shootdown::flush_kernel(pages);
    for frame in frames.into_iter().flatten() {
        memory().free(frame);
    }
    SLOT_TABLE.lock().give_back_slot((top - STACK_WINDOW) / SLOT_SIZE - 1);
}
