//! Typed, fallible allocation of the crate's own objects.
//!
//! An [`Arena`] hands out places ("slots") for objects of one type, cut from
//! whole frames. It is *type-stable*: a slot holds a valid object from the
//! moment its frame joins the arena, for good, whether it is handed out or not;
//! frames never go back. So who follows a stale [`Ref`] finds an object, if
//! not the one it looked for, and checks that under the object's lock; this is
//! what lets readers look things up without locks.
//!
//! What an operation may need is drawn beforehand ([`Reserve::draw`]): taking
//! objects from a [`Reserve`] cannot fail.
//!
//! Each CPU has a magazine of free slots, so the arena's own list, which all share, is
//! locked for one object in [`BATCH`]. A free slot in any magazine can be had by
//! every CPU: who finds neither a slot nor a frame empties them all.

use core::fmt;
use core::hash::{Hash, Hasher};
use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use crate::addr::PAGE_SIZE;
use crate::errno::OutOfMemory;
use crate::frame::FrameKind;
use crate::memory::Memory;
use crate::platform::{MAX_CPUS, Platform};
use crate::sync::{SpinLock, SpinLockGuard, rank};

#[cfg(test)]
mod tests;

/// A chunk of frames has room for at least so many objects.
const OBJECTS_PER_CHUNK: usize = 8;
/// Slots that go from the arena to a magazine at once, or back.
const BATCH: usize = 8;
/// Slots that a magazine has room for.
const MAGAZINE: usize = 2 * BATCH;

/// A place for one object.
#[repr(C)]
struct Slot<T> {
    value: T,
    /// The next free slot, when this one is free. When it is handed out, and
    /// assertions are on, [`Slot::IN_USE`].
    next: AtomicPtr<Slot<T>>,
}

impl<T> Slot<T> {
    const IN_USE: *mut Slot<T> = core::ptr::dangling_mut();
}

/// An object in an arena.
///
/// A plain address: copying it copies no ownership. There is an object as long
/// as the [`Memory`] exists, though the one that was meant may have been freed
/// and its place be in use for another.
pub(crate) struct Ref<T>(NonNull<Slot<T>>);

impl<T> Ref<T> {
    /// The object's address, which is not 0 and a multiple of 8.
    #[inline]
    pub(crate) fn as_usize(self) -> usize {
        self.0.as_ptr().expose_provenance()
    }

    /// The opposite of [`as_usize`](Self::as_usize).
    ///
    /// # Safety
    ///
    /// `address` comes from `as_usize` of a `Ref<T>`, and the [`Memory`] that
    /// its arena took it from is still there.
    #[inline]
    pub(crate) unsafe fn from_usize(address: usize) -> Ref<T> {
        let slot = core::ptr::with_exposed_provenance_mut(address);
        // SAFETY: the caller says it was a reference before, so it is not null.
        Ref(unsafe { NonNull::new_unchecked(slot) })
    }
}

impl<T> Deref for Ref<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: every slot was initialised before the first reference to it
        // was made, and stays as it is as long as the memory is there, which
        // everything that follows references has borrowed.
        unsafe { &(*self.0.as_ptr()).value }
    }
}

impl<T> Clone for Ref<T> {
    #[inline]
    fn clone(&self) -> Ref<T> {
        *self
    }
}

impl<T> Copy for Ref<T> {}

impl<T> PartialEq for Ref<T> {
    #[inline]
    fn eq(&self, other: &Ref<T>) -> bool {
        self.0 == other.0
    }
}

impl<T> Eq for Ref<T> {}

impl<T> Hash for Ref<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl<T> fmt::Debug for Ref<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ref({:p})", self.0)
    }
}

// SAFETY: a `Ref` gives shared access to a `T` and nothing more.
unsafe impl<T: Sync> Send for Ref<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Ref<T> {}

/// How many objects there are of one type that the crate allocates for itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlabInfo {
    /// What Linux calls such objects.
    pub name: &'static str,
    /// Objects in use.
    pub in_use: usize,
    /// Objects that there is memory for.
    pub total: usize,
    /// Bytes of one.
    pub size: usize,
    /// Objects in one piece of memory.
    pub per_chunk: usize,
    /// Pages of one piece of memory.
    pub chunk_pages: usize,
}

/// Objects of one type, carved from frames.
///
/// An object starts out as `T::default()` when its slot is first made, and is
/// handed out again as its last user left it: whoever allocates sets every
/// field it cares about.
pub(crate) struct Arena<T> {
    magazines: [Magazine<T>; MAX_CPUS],
    free: SpinLock<FreeList<T>, { rank::ARENA }>,
    /// Slots in all, free or not.
    slots: AtomicUsize,
}

/// Free slots that one CPU keeps at hand, in a cache line of its own.
#[repr(align(64))]
struct Magazine<T>(SpinLock<FreeList<T>, { rank::MAGAZINE }>);

type MagazineGuard<'a, T> = SpinLockGuard<'a, FreeList<T>, { rank::MAGAZINE }>;

/// Free slots, linked through themselves.
struct FreeList<T> {
    head: *mut Slot<T>,
    len: usize,
}

// SAFETY: the list owns its slots; what is in them may be shared when `T: Sync`.
unsafe impl<T: Sync> Send for FreeList<T> {}

impl<T> FreeList<T> {
    const fn new() -> FreeList<T> {
        FreeList { head: core::ptr::null_mut(), len: 0 }
    }

    #[inline]
    fn push(&mut self, slot: NonNull<Slot<T>>) {
        // SAFETY: slots are initialised and stay (see `Ref::deref`); `next` is an atomic.
        unsafe { (*slot.as_ptr()).next.store(self.head, Ordering::Relaxed) };
        self.head = slot.as_ptr();
        self.len += 1;
    }

    #[inline]
    fn pop(&mut self) -> Option<NonNull<Slot<T>>> {
        let slot = NonNull::new(self.head)?;
        // SAFETY: as in `push`.
        self.head = unsafe { (*slot.as_ptr()).next.load(Ordering::Relaxed) };
        self.len -= 1;
        Some(slot)
    }

    /// Moves slots to `other`, up to `count` of them.
    #[inline]
    fn move_to(&mut self, other: &mut FreeList<T>, count: usize) {
        for _ in 0..count {
            let Some(slot) = self.pop() else { return };
            other.push(slot);
        }
    }
}

impl<T: Default + Sync> Arena<T> {
    /// Log 2 of the number of frames in a chunk.
    const CHUNK_ORDER: u8 = {
        let pages = (OBJECTS_PER_CHUNK * size_of::<Slot<T>>()).div_ceil(PAGE_SIZE);
        pages.next_power_of_two().trailing_zeros() as u8
    };
    const CHUNK_SLOTS: usize = (PAGE_SIZE << Self::CHUNK_ORDER) / size_of::<Slot<T>>();

    /// An arena without memory.
    pub(crate) const fn new() -> Arena<T> {
        const { assert!(align_of::<Slot<T>>() >= 8 && align_of::<Slot<T>>() <= PAGE_SIZE) };
        Arena {
            magazines: [const { Magazine(SpinLock::new(FreeList::new())) }; MAX_CPUS],
            free: SpinLock::new(FreeList::new()),
            slots: AtomicUsize::new(0),
        }
    }

    /// Hands out an object.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] when no slot is free and no frame either.
    #[inline]
    #[cfg_attr(test, track_caller)]
    pub(crate) fn alloc<P: Platform>(&self, memory: &Memory<P>) -> Result<Ref<T>, OutOfMemory> {
        memory.allocation_site()?;
        let mut magazine = self.magazine(memory.platform().current_cpu()).lock();
        match magazine.pop() {
            Some(slot) => Ok(hand_out(slot)),
            None => {
                let mut slots = FreeList::new();
                self.draw_from_all(memory, magazine, &mut slots, 1)?;
                slots.pop().map(hand_out).ok_or(OutOfMemory)
            }
        }
    }

    /// Takes an object back, which nobody uses any more; stale references may exist.
    #[inline]
    pub(crate) fn free<P: Platform>(&self, memory: &Memory<P>, object: Ref<T>) {
        let slot = take_back(object);
        self.put(&mut self.magazine(memory.platform().current_cpu()).lock(), slot);
    }

    /// A place to draw objects into for later, empty.
    #[inline(always)]
    pub(crate) fn reserve(&self) -> Reserve<'_, T> {
        Reserve { arena: self, cpu: 0, slots: FreeList::new() }
    }

    /// Objects handed out, reserved ones included. Exact if nobody allocates or frees.
    pub(crate) fn in_use(&self) -> usize {
        let at_hand: usize = self.magazines.iter().map(|magazine| magazine.0.lock().len).sum();
        let free = self.free.lock();
        self.slots.load(Ordering::Relaxed).saturating_sub(at_hand + free.len)
    }

    #[inline]
    fn magazine(&self, cpu: usize) -> &SpinLock<FreeList<T>, { rank::MAGAZINE }> {
        &self.magazines[cpu % MAX_CPUS].0
    }

    /// Puts a free slot into a magazine, and half of a full one back first.
    #[inline]
    fn put(&self, magazine: &mut MagazineGuard<'_, T>, slot: NonNull<Slot<T>>) {
        if magazine.len == MAGAZINE {
            self.unload(magazine);
        }
        magazine.push(slot);
    }

    #[cold]
    fn unload(&self, magazine: &mut MagazineGuard<'_, T>) {
        let mut free = self.free.lock_under(magazine);
        magazine.move_to(&mut free, BATCH);
    }

    /// Draws `count` slots for who has found too few in a magazine, and loads that.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`], and then none has been drawn.
    #[cold]
    fn draw_from_all<P: Platform>(
        &self,
        memory: &Memory<P>,
        mut magazine: MagazineGuard<'_, T>,
        slots: &mut FreeList<T>,
        count: usize,
    ) -> Result<(), OutOfMemory> {
        let mut free = self.free.lock_under(&magazine);
        if self.provide(memory, &mut free, count).is_ok() {
            free.move_to(slots, count);
            free.move_to(&mut magazine, BATCH);
            return Ok(());
        }
        drop((free, magazine));
        // One at a time: there is an order only among locks of different ranks.
        for magazine in &self.magazines {
            let mut magazine = magazine.0.lock();
            let mut free = self.free.lock_under(&magazine);
            magazine.move_to(&mut free, MAGAZINE);
        }
        let mut free = self.free.lock();
        self.provide(memory, &mut free, count)?;
        free.move_to(slots, count);
        Ok(())
    }

    /// Sees to it that there are `count` free slots.
    fn provide<P: Platform>(
        &self,
        memory: &Memory<P>,
        free: &mut FreeList<T>,
        count: usize,
    ) -> Result<(), OutOfMemory> {
        while free.len < count {
            self.grow(memory, free)?;
        }
        Ok(())
    }

    /// What there is of them, under a name.
    pub(crate) fn info(&self, name: &'static str) -> SlabInfo {
        SlabInfo {
            name,
            in_use: self.in_use(),
            total: self.slots.load(Ordering::Relaxed),
            size: size_of::<Slot<T>>(),
            per_chunk: Self::CHUNK_SLOTS,
            chunk_pages: 1 << Self::CHUNK_ORDER,
        }
    }

    /// Cuts a new chunk into free slots.
    fn grow<P: Platform>(&self, memory: &Memory<P>, free: &mut FreeList<T>) -> Result<(), OutOfMemory> {
        let pfn = memory.alloc_uncounted(FrameKind::Slab, Self::CHUNK_ORDER)?.into_raw();
        let slots = memory.page_ptr(pfn).cast::<Slot<T>>();
        // Backwards, so that they are handed out in ascending order.
        for index in (0..Self::CHUNK_SLOTS).rev() {
            let slot = Slot { value: T::default(), next: AtomicPtr::new(core::ptr::null_mut()) };
            // SAFETY: slot `index` lies inside the chunk, which is ours alone,
            // and a page-aligned chunk aligns its slots.
            let slot = unsafe {
                let place = slots.add(index);
                place.write(slot);
                NonNull::new_unchecked(place)
            };
            free.push(slot);
        }
        self.slots.fetch_add(Self::CHUNK_SLOTS, Ordering::Relaxed);
        Ok(())
    }
}

/// Makes a free slot, taken off its list, an object.
#[inline]
fn hand_out<T>(slot: NonNull<Slot<T>>) -> Ref<T> {
    if cfg!(debug_assertions) {
        // SAFETY: as in `Ref::deref`.
        unsafe { (*slot.as_ptr()).next.store(Slot::IN_USE, Ordering::Relaxed) };
    }
    Ref(slot)
}

/// Makes an object a slot again, on no list yet.
#[inline]
fn take_back<T>(object: Ref<T>) -> NonNull<Slot<T>> {
    // SAFETY: as in `Ref::deref`.
    let next = unsafe { &(*object.0.as_ptr()).next };
    // What is on no list is not in use either, until it is handed out.
    debug_assert_eq!(next.swap(core::ptr::null_mut(), Ordering::Relaxed), Slot::IN_USE, "freed twice");
    object.0
}

/// Objects drawn from an arena ahead of their use; what is left goes back on drop.
pub(crate) struct Reserve<'a, T: Default + Sync> {
    arena: &'a Arena<T>,
    /// From whose magazine it has last drawn, and so what is left goes back to.
    cpu: usize,
    slots: FreeList<T>,
}

impl<T: Default + Sync> Reserve<'_, T> {
    /// Takes one object; `None` when all that were reserved are taken.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<Ref<T>> {
        self.slots.pop().map(hand_out)
    }

    /// Objects that are left.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.slots.len
    }

    /// Draws `count` more objects.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`], and then none has been drawn.
    #[cfg_attr(test, track_caller)]
    pub(crate) fn draw<P: Platform>(&mut self, memory: &Memory<P>, count: usize) -> Result<(), OutOfMemory> {
        if count == 0 {
            return Ok(());
        }
        for _ in 0..count {
            memory.allocation_site()?;
        }
        self.cpu = memory.platform().current_cpu();
        let mut magazine = self.arena.magazine(self.cpu).lock();
        if magazine.len < count {
            return self.arena.draw_from_all(memory, magazine, &mut self.slots, count);
        }
        magazine.move_to(&mut self.slots, count);
        Ok(())
    }

    /// Gives back what is left.
    fn give_back(&mut self) {
        let mut magazine = self.arena.magazine(self.cpu).lock();
        while let Some(slot) = self.slots.pop() {
            self.arena.put(&mut magazine, slot);
        }
    }
}

impl<T: Default + Sync> Drop for Reserve<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if self.slots.len != 0 {
            self.give_back();
        }
    }
}
