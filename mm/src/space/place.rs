//! Choosing an address for a new mapping (Linux's `get_unmapped_area`).

use super::{SpaceError, State};
use crate::vma::GapRequest;
use crate::{MapFlags, PAGE_SIZE, PMD_SIZE, TASK_SIZE, is_page_aligned, page_align_down, page_align_up};

/// Where `MAP_32BIT` places mappings.
const LOW_WINDOW: (usize, usize) = (0x4000_0000, 0x8000_0000);
/// From here bottom up, when nothing is free below `mmap_base`.
const FALLBACK_BASE: usize = page_align_up(TASK_SIZE / 3);

/// What a mapping asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placement {
    /// Hint, or with `fixed` the address itself, in bytes; 0 is no hint.
    pub addr: usize,
    /// Length in bytes, page aligned, not 0.
    pub len: usize,
    /// Exactly at `addr`, whatever is mapped there.
    pub fixed: bool,
    /// Between 1 GiB and 2 GiB.
    pub low: bool,
    /// Not backed by any object, so that large folios may come to back it:
    /// lengths of whole 2 MiB are placed on such a boundary.
    pub anonymous: bool,
}

impl Placement {
    /// The placement that `mmap` flags ask for.
    pub fn new(addr: usize, len: usize, flags: MapFlags, anonymous: bool) -> Placement {
        Placement {
            addr,
            len,
            fixed: flags.intersects(MapFlags::FIXED | MapFlags::FIXED_NOREPLACE),
            low: flags.contains(MapFlags::MAP_32BIT),
            anonymous,
        }
    }
}

impl State {
    /// An address where `want` fits: the hint if it is free, else the highest
    /// free range below the mapping base.
    ///
    /// # Errors
    ///
    /// `NoRoom` if nothing is free or the range leaves user space, `Invalid`
    /// for an unaligned fixed address, `BelowMinimum` for a fixed address
    /// below `min_addr`, unless `low_addresses`.
    pub fn place(&self, want: Placement, min_addr: usize, low_addresses: bool) -> Result<usize, SpaceError> {
        if want.len > TASK_SIZE {
            return Err(SpaceError::NoRoom);
        }
        if want.fixed {
            return if want.addr > TASK_SIZE - want.len {
                Err(SpaceError::NoRoom)
            } else if !is_page_aligned(want.addr) {
                Err(SpaceError::Invalid)
            } else if want.addr < min_addr && !low_addresses {
                Err(SpaceError::BelowMinimum)
            } else {
                Ok(want.addr)
            };
        }
        let lowest = page_align_up(min_addr).max(PAGE_SIZE);
        let end = if want.low { LOW_WINDOW.1 } else { TASK_SIZE };
        let hint = round_hint(want.addr, lowest);
        if hint != 0 && want.len <= end && hint <= end - want.len && self.is_free(hint, want.len) {
            return Ok(hint);
        }
        if want.low {
            let start = LOW_WINDOW.0.max(lowest);
            return self.vmas.gap_bottom_up(&GapRequest::new(want.len, start, end)).ok_or(SpaceError::NoRoom);
        }
        let align = want.anonymous && hint == 0 && want.len.is_multiple_of(PMD_SIZE);
        if align && let Some(addr) = self.place_aligned(want.len, lowest) {
            return Ok(addr);
        }
        let below = GapRequest::new(want.len, lowest, self.layout.mmap_base);
        let above = GapRequest::new(want.len, FALLBACK_BASE.max(lowest), TASK_SIZE);
        self.vmas.gap_top_down(&below).or_else(|| self.vmas.gap_bottom_up(&above)).ok_or(SpaceError::NoRoom)
    }

    /// The highest 2 MiB boundary in the first gap that has room for the
    /// length and the alignment both (`__thp_get_unmapped_area`).
    fn place_aligned(&self, len: usize, lowest: usize) -> Option<usize> {
        let padded = len.checked_add(PMD_SIZE)?;
        let start = self.vmas.gap_top_down(&GapRequest::new(padded, lowest, self.layout.mmap_base))?;
        Some((start + PMD_SIZE) & !(PMD_SIZE - 1))
    }

    /// Whether nothing is mapped in the range, nor a stack so close above
    /// that its guard gap would be hurt.
    fn is_free(&self, start: usize, len: usize) -> bool {
        self.vmas.find(start).is_none_or(|vma| start + len <= vma.guarded_start())
    }
}

/// A hint as Linux rounds it: down to a page, and up to the lowest address
/// that may be mapped.
fn round_hint(hint: usize, lowest: usize) -> usize {
    match page_align_down(hint) {
        0 => 0,
        hint => hint.max(lowest),
    }
}
