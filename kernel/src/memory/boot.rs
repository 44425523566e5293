//! RAM before `mm` manages it: the bootloader's map of it, and the few frames
//! that page tables take out of it.

use bootloader_api::info::{MemoryRegion, MemoryRegionKind};
use mm::{PAGE_SIZE, PhysAddr, PhysRange};

use super::DIRECT_MAP;

/// Firmware's and real mode's; left alone.
const LOW_MEMORY_END: u64 = 1 << 20;

/// More pieces than this, and the smallest are not used.
const MAX_RANGES: usize = 64;

const EMPTY: PhysRange = PhysRange { start: PhysAddr::zero(), end: PhysAddr::zero() };

/// The RAM that is free to use.
#[derive(Clone, Debug)]
pub struct BootRam {
    ranges: [PhysRange; MAX_RANGES],
    len: usize,
}

fn size(range: &PhysRange) -> u64 {
    range.end.as_u64() - range.start.as_u64()
}

impl BootRam {
    /// What `regions` call usable, above low memory, adjacent pieces joined.
    pub fn new(regions: &[MemoryRegion]) -> BootRam {
        let mut ram = BootRam { ranges: [EMPTY; MAX_RANGES], len: 0 };
        for region in regions.iter().filter(|region| region.kind == MemoryRegionKind::Usable) {
            let start = region.start.max(LOW_MEMORY_END).next_multiple_of(PAGE_SIZE as u64);
            let end = region.end & !(PAGE_SIZE as u64 - 1);
            if start < end {
                ram.add(PhysRange { start: PhysAddr::new_truncate(start), end: PhysAddr::new_truncate(end) });
            }
        }
        ram
    }

    /// `count` adjacent frames below what a real-mode program can reach that
    /// `regions` call usable: the last ones, the first of which is returned.
    pub fn low_frames(regions: &[MemoryRegion], count: usize) -> Option<PhysAddr> {
        const REAL_MODE_END: u64 = 0xa_0000;
        let size = (count * PAGE_SIZE) as u64;
        let fits = |region: &&MemoryRegion| region.kind == MemoryRegionKind::Usable && region.start < REAL_MODE_END;
        let last = |region: &MemoryRegion| {
            let end = region.end.min(REAL_MODE_END) & !(PAGE_SIZE as u64 - 1);
            // Not the first frame: firmware keeps things there, whatever it says.
            end.checked_sub(size).filter(|&start| start >= region.start.max(PAGE_SIZE as u64))
        };
        regions.iter().filter(fits).filter_map(last).max().map(PhysAddr::new_truncate)
    }

    fn add(&mut self, range: PhysRange) {
        let (ranges, rest) = self.ranges.split_at_mut(self.len);
        if let Some(last) = ranges.last_mut().filter(|last| last.end == range.start) {
            last.end = range.end;
        } else if let Some(slot) = rest.first_mut() {
            *slot = range;
            self.len += 1;
        } else if let Some(smallest) = ranges.iter_mut().min_by_key(|range| size(range))
            && size(smallest) < size(&range)
        {
            *smallest = range;
        }
    }

    /// The pieces, in no particular order.
    pub fn ranges(&self) -> &[PhysRange] {
        &self.ranges[..self.len]
    }

    /// Takes out one frame, filled with zeroes.
    ///
    /// # Safety
    ///
    /// The direct map has all of this RAM, and no one else uses it.
    pub unsafe fn take_frame(&mut self) -> Option<PhysAddr> {
        let largest = self.ranges[..self.len].iter_mut().max_by_key(|range| size(range))?;
        if size(largest) < PAGE_SIZE as u64 {
            return None;
        }
        // From its end: the beginning may be aligned for large pages.
        largest.end -= PAGE_SIZE as u64;
        let frame = largest.end;
        // SAFETY: RAM that is no one's, reachable as the caller promises.
        unsafe { ((DIRECT_MAP + frame.as_u64() as usize) as *mut u8).write_bytes(0, PAGE_SIZE) };
        Some(frame)
    }
}
