//! An address space with room in one place only.

use super::{ARENA, Arg, HEAP};
use crate::maps;
use crate::sys::{self, ANON, FIXED, NONE, NOREPLACE, NORESERVE, PAGE, Result, TASK_SIZE};

/// Where the free places are.
#[derive(Clone, Copy, Debug)]
pub struct World {
    /// First byte of the arena.
    base: usize,
    /// Bytes of a page of the sequence.
    unit: usize,
    /// First byte behind the heap as it was.
    heap: usize,
}

/// What page tables of the second-highest level map, in bytes.
const GIB: usize = 1 << 30;
/// The highest address below which something is mapped only by those who insist.
const LOWEST: usize = 16 * PAGE;
/// What a program may need of the stack from now on, in bytes.
const STACK: usize = 256 << 10;

impl World {
    /// Fills all of this process's address space but the arena and what the heap may need.
    ///
    /// In the middle of the arena, one page table of each level ends and another begins.
    ///
    /// # Errors
    /// What keeps something from being mapped.
    pub fn build(scale: usize) -> Result<World> {
        touch_stack();
        let (unit, len) = (scale * PAGE, ARENA * scale * PAGE);
        let room = sys::mmap(0, len + 2 * GIB, NONE, ANON | NORESERVE)?;
        let middle = (room + PAGE + len / 2).next_multiple_of(GIB);
        sys::munmap(room, len + 2 * GIB)?;
        let heap = sys::brk(0).next_multiple_of(PAGE);
        let world = World { base: middle - len / 2, unit, heap };

        // Shared memory is never one with what is mapped beside it.
        let shared = (libc::MAP_SHARED | libc::MAP_ANONYMOUS) as usize;
        for fence in [world.base - PAGE, world.end()] {
            sys::mmap(fence, PAGE, NONE, shared | FIXED)?;
        }
        let mut at = LOWEST;
        let (heap_end, last) = (heap + HEAP * PAGE, TASK_SIZE);
        let mut taken: Vec<(usize, usize)> = maps::all().iter().map(|mapping| (mapping.start, mapping.end)).collect();
        taken.extend([(world.base, world.end()), (heap, heap_end), (last, usize::MAX)]);
        taken.sort_unstable();
        for (start, end) in taken {
            if start > at {
                sys::mmap(at, start - at, NONE, ANON | NORESERVE | NOREPLACE)?;
            }
            at = at.max(end);
        }
        // Some kernels let the first process map what is below, too.
        let _ = sys::mmap(PAGE, LOWEST - PAGE, NONE, ANON | NORESERVE | NOREPLACE);
        Ok(world)
    }

    fn end(&self) -> usize {
        self.base + ARENA * self.unit
    }

    /// Bytes of a page of the sequence.
    pub fn unit(&self) -> usize {
        self.unit
    }

    /// The address that an argument names.
    pub fn addr(&self, place: Arg) -> usize {
        match place {
            Arg::Scaled(_) => self.base.wrapping_add(place.bytes(self.unit)),
            Arg::Exact(addr) => addr,
        }
    }

    /// The break that is `bytes` behind where it was.
    pub fn brk(&self, bytes: usize) -> usize {
        self.heap.wrapping_add(bytes)
    }

    /// An address as text that is the same on each kernel: a page of the arena, with `h`
    /// one of the heap, and bytes.
    pub fn place(&self, addr: usize) -> String {
        let heap = self.heap..=self.heap + HEAP * PAGE;
        let (letter, from, unit) = if (self.base..=self.end()).contains(&addr) {
            ("", self.base, self.unit)
        } else if heap.contains(&addr) {
            ("h", self.heap, PAGE)
        } else {
            return "elsewhere".to_owned();
        };
        match ((addr - from) / unit, (addr - from) % unit) {
            (page, 0) => format!("{letter}{page}"),
            (page, rest) => format!("{letter}{page}+{rest}"),
        }
    }

    /// The part of `start..end` that is in the arena or the room of the heap, if any is.
    pub fn clip(&self, start: usize, end: usize) -> Option<(usize, usize)> {
        let areas = [(self.base, self.end()), (self.heap, self.heap + HEAP * PAGE)];
        let parts = areas.map(|(from, to)| (start.max(from), end.min(to)));
        parts.into_iter().find(|(from, to)| from < to)
    }
}

/// Lets the stack grow now, while nothing is in its way.
#[inline(never)]
fn touch_stack() {
    let mut room = [0u8; STACK];
    for byte in room.iter_mut().step_by(PAGE) {
        *byte = 1;
    }
    std::hint::black_box(&mut room);
}
