//! Swap: private pages that are not in memory.
//!
//! A *slot* of the [`SwapDevice`] holds one page. Page-table entries that mapped the
//! page name the slot instead ([`Entry::swap`](crate::paging::Entry::swap)); fork copies
//! them, so there may be many. A page in memory that is also a slot's is in the
//! *swap cache*: it is on its way out, or it came back for one of several entries.
//!
//! ```text
//!             reclaim: a slot, in the cache        stored; the last reference goes
//!   mapped  ────────────────────────────▶  cached  ────────────────────────────▶  swapped
//!     ▲                                    │    ▲                                    │
//!     └──────── no entry names the slot ◀──┘    └──────────── a fault loads it ◀─────┘
//! ```
//!
//! # What always holds
//!
//! 1. A slot is in use as long as an entry names it or someone who works on it has
//!    counted himself ([`SwapSlots::get`]); its contents then are those of the page
//!    in the cache, or, without one, of the device.
//! 2. The cache has one reference to its page, so a page in the cache belongs to
//!    nobody alone and is not written to: its contents stay what is stored.
//! 3. A page in memory is one slot's at most, and says which
//!    ([`Frame::swap_slot`](crate::Frame)).

mod slots;
#[cfg(test)]
mod tests;

use core::fmt;

pub use slots::MAX_SWAP_SLOTS;
pub(crate) use slots::SwapSlots;

use crate::frame::FrameKind;
use crate::{Event, FaultError, Memory, OutOfMemory, PAGE_SIZE, Pfn, Platform};

/// The contents of a page.
pub type PageBytes = [u8; PAGE_SIZE];

/// Why a swap device cannot do it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SwapError {
    /// There is no room for the page.
    Full,
    /// What was stored cannot be read.
    Unreadable,
}

impl fmt::Display for SwapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SwapError::Full => "no room in swap",
            SwapError::Unreadable => "a page in swap cannot be read",
        })
    }
}

impl core::error::Error for SwapError {}

/// Where pages go that there is no memory for: a disk, or memory that holds them
/// compressed. See [`Platform::swap_device`].
///
/// Slots are numbered from 1. The crate stores to a slot, loads from it any number of
/// times, and discards it before it stores to it again. It does so from all CPUs,
/// holding locks of its own that others may be spinning for, and, to make room, when
/// there is no free frame: what storing a page takes the device has set aside.
pub trait SwapDevice: Sync {
    /// The highest number of a slot.
    fn slots(&self) -> u32;

    /// Stores a page.
    ///
    /// # Errors
    ///
    /// [`SwapError::Full`]: the slot holds nothing then.
    fn store(&self, slot: u32, page: &PageBytes) -> Result<(), SwapError>;

    /// Fetches what was stored; it stays there.
    ///
    /// # Errors
    ///
    /// [`SwapError::Unreadable`].
    fn load(&self, slot: u32, page: &mut PageBytes) -> Result<(), SwapError>;

    /// Forgets what is in a slot, if anything is.
    fn discard(&self, slot: u32);
}

/// How swap is doing, for `/proc/meminfo` and `/proc/swaps`. In pages.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SwapStats {
    /// Room in all.
    pub total: usize,
    /// Slots in use.
    pub used: usize,
    /// Pages that are in memory as well.
    pub cached: usize,
}

impl<P: Platform> Memory<P> {
    /// Begins to use the platform's swap device. Without this nothing is reclaimed.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] when there is no block of frames for the books, 16 bytes for each
    /// slot. No more than [`MAX_SWAP_SLOTS`] are used.
    pub fn swap_on(&self) -> Result<(), OutOfMemory> {
        let slots = self.platform().swap_device().map_or(0, |device| device.slots());
        if slots == 0 || self.swap().stats().total != 0 {
            return Ok(());
        }
        let (order, slots) = slots::books(slots);
        let block = self.alloc_compacting(FrameKind::Kernel, order)?;
        let pfn = block.into_raw();
        // SAFETY: the block is ours, in the direct map, and never given back.
        unsafe { self.swap().init(self.page_ptr(pfn), slots) };
        Ok(())
    }

    /// How much is in swap.
    pub fn swap_stats(&self) -> SwapStats {
        self.swap().stats()
    }

    /// The page of a slot that an entry was seen to name, loaded if need be, with a
    /// reference. `None` if the slot is in use no more.
    pub(crate) fn swap_page(&self, slot: u32) -> Result<Option<Pfn>, FaultError> {
        if let Some(pfn) = self.swap().cached(self, slot) {
            return Ok(Some(pfn));
        }
        if !self.swap().get_used(slot) {
            return Ok(None);
        }
        let page = self.load_page(slot);
        self.swap_put(slot);
        page.map(Some)
    }

    /// Loads the page of a slot that stays in use meanwhile.
    fn load_page(&self, slot: u32) -> Result<Pfn, FaultError> {
        let frame = self.alloc(FrameKind::Anon, 0)?;
        let device = self.platform().swap_device();
        // SAFETY: the frame is owned, so nothing else accesses the page.
        let bytes = unsafe { &mut *self.page_ptr(frame.pfn()).cast::<PageBytes>() };
        if device.is_none_or(|device| device.load(slot, bytes).is_err()) {
            // Or somebody else's load was faster, and the page has left the device since.
            self.free(frame);
            return self.swap().cached(self, slot).ok_or(FaultError::Unreadable);
        }
        self.count(Event::SwapIn);
        let pfn = frame.into_raw();
        let found = self.swap().cache(self, slot, pfn);
        if found != pfn {
            self.put(pfn);
        }
        Ok(found)
    }

    /// An entry does not name the slot any more, or someone has done his work on it.
    #[cold]
    pub(crate) fn swap_put(&self, slot: u32) {
        let Some(cached) = self.swap().put(self, slot) else { return };
        // Nobody can name the slot until it is free.
        if let Some(device) = self.platform().swap_device() {
            device.discard(slot);
        }
        self.swap().free(slot);
        if let Some(pfn) = cached {
            self.put(pfn);
        }
    }
}
