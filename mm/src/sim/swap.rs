//! A swap device that checks how it is used.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::swap::{PageBytes, SwapDevice, SwapError};

/// A swap device in the host's memory.
#[derive(Default)]
pub struct SimSwap {
    slots: AtomicU32,
    pages: Mutex<HashMap<u32, Box<PageBytes>>>,
    /// How many pages there is room for, counted from [`usize::MAX`] down.
    withheld: AtomicUsize,
}

impl SimSwap {
    /// Sets the number of slots; before [`Memory::swap_on`](crate::Memory::swap_on).
    pub fn set_slots(&self, slots: u32) {
        self.slots.store(slots, Ordering::Relaxed);
    }

    /// From now on there is no room for more than so many pages, however many slots
    /// there are.
    pub fn set_room(&self, pages: usize) {
        self.withheld.store(usize::MAX - pages, Ordering::Relaxed);
    }

    /// How many pages are stored.
    pub fn stored(&self) -> usize {
        self.pages().len()
    }

    /// What is stored in a slot.
    pub fn peek(&self, slot: u32) -> Option<Box<PageBytes>> {
        self.pages().get(&slot).cloned()
    }

    /// Loses what is in all slots.
    pub fn lose_everything(&self) {
        self.pages().clear();
    }

    fn pages(&self) -> MutexGuard<'_, HashMap<u32, Box<PageBytes>>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SwapDevice for SimSwap {
    fn slots(&self) -> u32 {
        self.slots.load(Ordering::Relaxed)
    }

    fn store(&self, slot: u32, page: &PageBytes) -> Result<(), SwapError> {
        assert!((1..=self.slots()).contains(&slot), "there is no slot {slot}");
        let mut pages = self.pages();
        if pages.len() >= usize::MAX - self.withheld.load(Ordering::Relaxed) {
            return Err(SwapError::Full);
        }
        assert!(pages.insert(slot, Box::new(*page)).is_none(), "slot {slot} is stored to twice");
        Ok(())
    }

    fn load(&self, slot: u32, page: &mut PageBytes) -> Result<(), SwapError> {
        let pages = self.pages();
        *page = **pages.get(&slot).ok_or(SwapError::Unreadable)?;
        Ok(())
    }

    fn discard(&self, slot: u32) {
        self.pages().remove(&slot);
    }
}
