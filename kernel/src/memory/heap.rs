//! The kernel heap, in its window of the kernel's address space.
//!
//! Small blocks come from free lists of their size, larger ones from a
//! first-fit heap that also feeds the lists. The heap grows by frames of `mm`
//! when nothing fits, and does not shrink. Running out is an ordinary result:
//! the allocation returns null. Interrupt handlers may free but not allocate,
//! because growing takes the locks of `mm`.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

use linked_list_allocator::Heap;
use mm::{FrameKind, PAGE_SIZE};

use super::memory;
use crate::arch::irq::IrqMutex;
use crate::arch::paging::{self, HEAP_WINDOW, HEAP_WINDOW_SIZE, Protection};

/// The heap grows by at least so many bytes.
const GROWTH: usize = 256 * 1024;

/// Sizes that have free lists: powers of two from 32 to 2048 bytes.
const SMALLEST_SHIFT: u32 = 5;
const CLASSES: usize = 7;
/// What a list takes from the heap at a time.
const REFILL: usize = PAGE_SIZE;

#[global_allocator]
static HEAP: KernelHeap = KernelHeap(IrqMutex::new(State { heap: Heap::empty(), mapped: 0, lists: [None; CLASSES] }));

struct KernelHeap(IrqMutex<State>);

/// A free small block: the link to the next one is in its first bytes.
#[derive(Clone, Copy)]
struct FreeBlock(NonNull<Option<FreeBlock>>);

struct State {
    heap: Heap,
    /// Bytes of the window that are mapped, from its start.
    mapped: usize,
    lists: [Option<FreeBlock>; CLASSES],
}

// SAFETY: the pointers are to blocks that only the lock's holder touches.
unsafe impl Send for State {}

/// The list for a layout, if it is a small one, and the log 2 of its blocks' size.
fn class(layout: Layout) -> Option<(usize, u32)> {
    let size = layout.size().max(layout.align()).max(1 << SMALLEST_SHIFT);
    let shift = usize::BITS - (size - 1).leading_zeros();
    let class = (shift - SMALLEST_SHIFT) as usize;
    (class < CLASSES).then_some((class, shift))
}

impl State {
    fn alloc_small(&mut self, class: usize, shift: u32) -> Option<NonNull<u8>> {
        if self.lists[class].is_none() {
            self.refill(class, shift)?;
        }
        let block = self.lists[class]?;
        // SAFETY: a block on a list holds the link to the next.
        self.lists[class] = unsafe { block.0.read() };
        Some(block.0.cast())
    }

    fn free_small(&mut self, class: usize, block: NonNull<u8>) {
        let block = FreeBlock(block.cast());
        // SAFETY: the block is free, large enough and aligned.
        unsafe { block.0.write(self.lists[class]) };
        self.lists[class] = Some(block);
    }

    fn refill(&mut self, class: usize, shift: u32) -> Option<()> {
        let page = self.alloc_large(Layout::from_size_align(REFILL, REFILL).ok()?)?;
        for offset in (0..REFILL).step_by(1 << shift) {
            // SAFETY: inside the page, which is ours.
            self.free_small(class, unsafe { page.add(offset) });
        }
        Some(())
    }

    fn alloc_large(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        if let Ok(block) = self.heap.allocate_first_fit(layout) {
            return Some(block);
        }
        self.grow(layout)?;
        self.heap.allocate_first_fit(layout).ok()
    }

    /// Adds memory, enough for `layout` unless there is less.
    fn grow(&mut self, layout: Layout) -> Option<()> {
        let wanted = layout.size().checked_add(layout.align())?.max(GROWTH).checked_next_multiple_of(PAGE_SIZE)?;
        let start = self.mapped;
        let end = start.checked_add(wanted).filter(|&end| end <= HEAP_WINDOW_SIZE)?;
        while self.mapped < end && self.map_page().is_some() {
            self.mapped += PAGE_SIZE;
        }
        let added = self.mapped - start;
        if added == 0 {
            return None;
        }
        // SAFETY: the pages from `start` on have just been mapped, adjacent to
        // those the heap has, and are its alone for ever.
        unsafe {
            if start == 0 {
                self.heap.init(HEAP_WINDOW as *mut u8, added);
            } else {
                self.heap.extend(added);
            }
        }
        Some(())
    }

    fn map_page(&mut self) -> Option<()> {
        // Zeroed for the same reasons as a kernel stack is.
        let frame = memory().alloc_zeroed(FrameKind::Kernel).ok()?;
        // SAFETY: the next page of the heap's window, and a frame of our own.
        match unsafe { paging::map(HEAP_WINDOW + self.mapped, frame.pfn().addr(), Protection::ReadWrite) } {
            Ok(()) => {
                frame.into_raw();
                Some(())
            }
            Err(_) => {
                memory().free(frame);
                None
            }
        }
    }
}

// SAFETY: blocks of a list are as large and as aligned as its class says, which
// covers every layout of the class; blocks of the heap are what it promises. No
// block is handed out twice before it is freed.
unsafe impl GlobalAlloc for KernelHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut state = self.0.lock();
        let block = match class(layout) {
            Some((class, shift)) => state.alloc_small(class, shift),
            None => state.alloc_large(layout),
        };
        block.map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(block) = NonNull::new(block) else {
            return;
        };
        let mut state = self.0.lock();
        match class(layout) {
            Some((class, _)) => state.free_small(class, block),
            // SAFETY: the caller got the block from `alloc` with this layout,
            // which took it from the heap.
            None => unsafe { state.heap.deallocate(block, layout) },
        }
    }
}
