//! The books: who uses which slot, and which page is in memory as well.

use core::ptr::NonNull;

use super::SwapStats;
use crate::sync::{SpinLock, rank};
use crate::{MAX_ORDER, Memory, PAGE_SIZE, Pfn, Platform};

/// The books of one slot.
#[derive(Clone, Copy, Default)]
struct Slot {
    /// Entries that name it, and others who need it to stay. 0: it is free, or
    /// being discarded.
    uses: u32,
    /// The device has the page.
    stored: bool,
    /// The frame of the page if it is in memory as well, 0 if it is not. Of a free
    /// slot: the next free one, 0 at the end.
    frame: usize,
}

/// The highest number of a slot that is used, whatever the device has: the books of all
/// are in one block of frames.
pub const MAX_SWAP_SLOTS: u32 = ((PAGE_SIZE << MAX_ORDER) / size_of::<Slot>() - 1) as u32;

/// What each slot of the swap device is used for.
pub(crate) struct SwapSlots(SpinLock<Books, { rank::SWAP }>);

struct Books {
    slots: Option<NonNull<Slot>>,
    count: usize,
    /// The first free slot; 0 if none is.
    free: u32,
    /// From here on no slot was ever used.
    fresh: u32,
    used: usize,
    cached: usize,
}

// SAFETY: the books own their slots, which are plain data.
unsafe impl Send for Books {}

impl Books {
    /// All slots; number 0 is none.
    fn slots(&mut self) -> &mut [Slot] {
        let Some(slots) = self.slots else { return &mut [] };
        // SAFETY: `init` wrote so many slots there, which nobody else accesses.
        unsafe { core::slice::from_raw_parts_mut(slots.as_ptr(), self.count) }
    }

    /// The books of a slot, if it is in use.
    fn used(&mut self, slot: u32) -> Option<&mut Slot> {
        self.slots().get_mut(slot as usize).filter(|slot| slot.uses != 0)
    }
}

/// The order of the block of frames that the books of so many slots take, and how many
/// slots' books it has room for.
pub(super) fn books(slots: u32) -> (u8, u32) {
    let slots = slots.min(MAX_SWAP_SLOTS);
    let pages = ((slots as usize + 1) * size_of::<Slot>()).div_ceil(PAGE_SIZE);
    (pages.next_power_of_two().trailing_zeros() as u8, slots)
}

impl SwapSlots {
    pub(crate) const fn new() -> SwapSlots {
        SwapSlots(SpinLock::new(Books { slots: None, count: 0, free: 0, fresh: 1, used: 0, cached: 0 }))
    }

    /// Takes `slots` slots into use.
    ///
    /// # Safety
    ///
    /// At `books` there is room for `slots + 1` of [`Slot`], aligned, which nobody else
    /// uses from now on.
    pub(super) unsafe fn init(&self, books: *mut u8, slots: u32) {
        let mut state = self.0.lock();
        let count = slots as usize + 1;
        let place = books.cast::<Slot>();
        for number in 0..count {
            // SAFETY: the caller promises the room.
            unsafe { place.add(number).write(Slot::default()) };
        }
        state.slots = NonNull::new(place);
        state.count = count;
    }

    pub(super) fn stats(&self) -> SwapStats {
        let books = self.0.lock();
        SwapStats { total: books.count.saturating_sub(1), used: books.used, cached: books.cached }
    }

    /// Takes a free slot into use for the caller, with `page` in the cache: a frame that
    /// is no slot's, and to which the cache gets a reference. `None` if none is free.
    pub(crate) fn alloc<P: Platform>(&self, mem: &Memory<P>, page: Pfn) -> Option<u32> {
        let mut books = self.0.lock();
        let (free, fresh) = (books.free, books.fresh);
        let number = if free != 0 { free } else { fresh };
        let slot = books.slots().get_mut(number as usize)?;
        let next = slot.frame as u32;
        *slot = Slot { uses: 1, stored: false, frame: page.0 };
        if free != 0 {
            books.free = next;
        } else {
            books.fresh = fresh + 1;
        }
        books.used += 1;
        books.cached += 1;
        let record = mem.frame(page);
        debug_assert_eq!(record.swap_slot(), 0, "a page in two slots");
        record.get();
        record.set_swap_slot(number);
        Some(number)
    }

    /// One more uses a slot, on behalf of one who does.
    #[cold]
    pub(crate) fn get(&self, slot: u32) {
        if let Some(slot) = self.0.lock().used(slot) {
            slot.uses += 1;
        }
    }

    /// One more uses a slot, if it is in use.
    pub(super) fn get_used(&self, slot: u32) -> bool {
        self.0.lock().used(slot).map(|slot| slot.uses += 1).is_some()
    }

    /// How many use a slot.
    pub(crate) fn uses(&self, slot: u32) -> u32 {
        self.0.lock().used(slot).map_or(0, |slot| slot.uses)
    }

    /// One less uses a slot. If it was the last, the slot has to be [freed](Self::free),
    /// and the cache's reference to the page that is returned to be put.
    pub(super) fn put<P: Platform>(&self, mem: &Memory<P>, slot: u32) -> Option<Option<Pfn>> {
        let mut books = self.0.lock();
        let slot = books.used(slot)?;
        slot.uses -= 1;
        if slot.uses != 0 {
            return None;
        }
        let cached = (slot.frame != 0).then_some(Pfn(slot.frame));
        slot.frame = 0;
        if let Some(pfn) = cached {
            mem.frame(pfn).set_swap_slot(0);
            books.cached -= 1;
        }
        Some(cached)
    }

    /// A slot that nobody uses any more may be used again.
    pub(super) fn free(&self, number: u32) {
        let mut books = self.0.lock();
        let next = books.free;
        let Some(slot) = books.slots().get_mut(number as usize) else { return };
        *slot = Slot { uses: 0, stored: false, frame: next as usize };
        books.free = number;
        books.used -= 1;
    }

    /// Whether the page of a slot is in memory as well.
    pub(crate) fn is_cached(&self, slot: u32) -> bool {
        self.0.lock().used(slot).is_some_and(|slot| slot.frame != 0)
    }

    /// The page in the cache, with a reference.
    pub(crate) fn cached<P: Platform>(&self, mem: &Memory<P>, slot: u32) -> Option<Pfn> {
        let mut books = self.0.lock();
        let pfn = books.used(slot).map(|slot| Pfn(slot.frame)).filter(|pfn| pfn.0 != 0)?;
        mem.get(pfn);
        Some(pfn)
    }

    /// Puts `page`, which has been loaded from a slot, into the cache, which gets a
    /// reference, unless there is one already. Returns which one is there, with a
    /// reference if it is another.
    pub(super) fn cache<P: Platform>(&self, mem: &Memory<P>, number: u32, page: Pfn) -> Pfn {
        let mut books = self.0.lock();
        let Some(slot) = books.used(number) else { return page };
        if slot.frame != 0 {
            let found = Pfn(slot.frame);
            mem.get(found);
            return found;
        }
        slot.frame = page.0;
        books.cached += 1;
        mem.get(page);
        mem.frame(page).set_swap_slot(number);
        page
    }

    /// Whether the device has the page of a slot.
    pub(crate) fn is_stored(&self, slot: u32) -> bool {
        self.0.lock().used(slot).is_some_and(|slot| slot.stored)
    }

    /// The device has the page of a slot now.
    pub(crate) fn set_stored(&self, slot: u32) {
        if let Some(slot) = self.0.lock().used(slot) {
            slot.stored = true;
        }
    }

    /// Takes a page out of the cache if there is no reference to it but the cache's,
    /// which is given back, and the caller's own.
    pub(crate) fn uncache<P: Platform>(&self, mem: &Memory<P>, number: u32, page: Pfn) -> bool {
        let mut books = self.0.lock();
        let record = mem.frame(page);
        // Nobody gets another one from here: what is not mapped is found through the
        // cache alone. Who comes across the frame looks at what it is and goes.
        if record.refcount() != 2 || record.mapcount() != 0 {
            return false;
        }
        let Some(slot) = books.used(number).filter(|slot| slot.stored && slot.frame == page.0) else { return false };
        slot.frame = 0;
        books.cached -= 1;
        record.set_swap_slot(0);
        let last = record.release();
        debug_assert!(!last, "the caller had no reference");
        true
    }
}
