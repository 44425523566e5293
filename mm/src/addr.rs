//! Units: page sizes, user addresses, page frame numbers, page ranges.
//!
//! User addresses are plain `usize` byte addresses, because what a system
//! call brings is just a number until it has been checked; a [`PageRange`] is
//! one that has been.

use x86_64::PhysAddr;

/// Bytes of a page, log 2.
pub const PAGE_SHIFT: usize = 12;
/// Bytes of a page (4 KiB).
pub const PAGE_SIZE: usize = 1 << PAGE_SHIFT;
/// Bytes mapped by one PMD entry (2 MiB): a page table's worth.
pub const PMD_SIZE: usize = 1 << 21;
/// Bytes mapped by one PUD entry (1 GiB).
pub const PUD_SIZE: usize = 1 << 30;
/// Bytes mapped by one PGD entry (512 GiB), with four-level paging.
pub const PGD_SIZE: usize = 1 << 39;
/// End of user space, in bytes: Linux's `TASK_SIZE_MAX` for four levels. The
/// last page below 2^47 stays unmapped, as a guard against non-canonical `rip`.
pub const TASK_SIZE: usize = (1 << 47) - PAGE_SIZE;

/// Rounds down to a page boundary.
pub const fn page_align_down(addr: usize) -> usize {
    addr & !(PAGE_SIZE - 1)
}

/// Rounds up to a page boundary; wraps to 0 at the top, as Linux's
/// `PAGE_ALIGN` does.
pub const fn page_align_up(addr: usize) -> usize {
    addr.wrapping_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1)
}

/// Whether `addr` is a multiple of the page size.
pub const fn is_page_aligned(addr: usize) -> bool {
    addr & (PAGE_SIZE - 1) == 0
}

/// A page frame number: a physical address divided by the page size.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Pfn(pub usize);

impl Pfn {
    /// The frame's first byte.
    pub const fn addr(self) -> PhysAddr {
        PhysAddr::new_truncate((self.0 as u64) << PAGE_SHIFT)
    }

    /// The frame that holds the byte at `addr`.
    pub const fn containing(addr: PhysAddr) -> Pfn {
        Pfn((addr.as_u64() >> PAGE_SHIFT) as usize)
    }
}

/// A range of user pages: page aligned, `start <= end <= TASK_SIZE`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PageRange {
    start: usize,
    end: usize,
}

impl PageRange {
    /// No page, at address 0.
    pub const EMPTY: PageRange = PageRange { start: 0, end: 0 };

    /// The range `start..end`, unless it is unaligned, reversed or not below
    /// [`TASK_SIZE`].
    pub const fn new(start: usize, end: usize) -> Option<PageRange> {
        if is_page_aligned(start) && is_page_aligned(end) && start <= end && end <= TASK_SIZE {
            Some(PageRange { start, end })
        } else {
            None
        }
    }

    /// The range of `len` bytes from `start`; see [`PageRange::new`].
    pub const fn from_len(start: usize, len: usize) -> Option<PageRange> {
        match start.checked_add(len) {
            Some(end) => PageRange::new(start, end),
            None => None,
        }
    }

    /// First address, in bytes.
    pub const fn start(self) -> usize {
        self.start
    }

    /// End address (exclusive), in bytes.
    pub const fn end(self) -> usize {
        self.end
    }

    /// Length in bytes.
    pub const fn len(self) -> usize {
        self.end - self.start
    }

    /// Length in pages.
    pub const fn pages(self) -> usize {
        self.len() >> PAGE_SHIFT
    }

    /// Whether the range has no page.
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// Whether the byte at `addr` is inside.
    pub const fn contains(self, addr: usize) -> bool {
        self.start <= addr && addr < self.end
    }

    /// Whether the two have a page in common.
    pub const fn overlaps(self, other: PageRange) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// What both have in common; empty (at an arbitrary place inside `self`) if nothing.
    pub const fn intersect(self, other: PageRange) -> PageRange {
        let start = if self.start > other.start { self.start } else { other.start };
        let end = if self.end < other.end { self.end } else { other.end };
        if start < end { PageRange { start, end } } else { PageRange { start: self.start, end: self.start } }
    }
}
