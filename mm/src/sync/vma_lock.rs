//! The lock that lets a page fault do without the mmap lock.

use core::sync::atomic::Ordering;

use super::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};
use super::order::Held;
use super::{Relax, point, rank};
use spin::RelaxStrategy;

/// CPUs with numbers that are equal modulo this have a [`ReaderSlot`] in common. (For `loom` few,
/// as each is a place that a writer looks at.)
const SLOTS: usize = if cfg!(feature = "loom") { 2 } else { 8 };

/// The lock of one VMA: page faults read, who changes the VMA writes.
///
/// Writers hold the mmap lock for writing too, so there is only one. What it
/// locks stays locked until it releases that: the time in between is a
/// *section*, and sections of an address space are numbered. The lock says in
/// which section it was last taken, so when the address space goes on to the
/// next one, all that were taken are released by one store.
///
/// - A writer stores the number of its section, and then waits until there are
///   no readers.
/// - A reader counts itself, and then compares the number to the current
///   section's. So either the writer sees the reader, or the reader the writer,
///   and no reader ever waits: it takes the mmap lock instead. Readers that come
///   while a writer waits give way, so it does not starve.
///
/// A VMA's memory may be used for another VMA at any time before it is locked,
/// so a reader can hold the lock of a VMA that it did not look for. It has to
/// check which one it is, and if it is the wrong one, to do nothing but release
/// it.
///
/// # Many readers
///
/// Threads that fault in one VMA at the same time would spend more time on
/// getting the count from each other's caches than on all the rest. So a reader that finds
/// another one there makes the lock *spread*: from then on readers say in a
/// [slot of their CPU](ReaderSlots) that they are there, and write to nothing in common. A
/// writer looks into all slots, and ends that. (This is BRAVO, Dice and Kogan 2019, with the
/// address space's slots in place of one table for all locks.)
///
/// A reader may have seen the lock spread, and come to its slot after the writer has looked
/// there. Either it then finds the section locked, or the section is over, and with that the
/// lock is seen to be spread no more: in this order it looks.
#[derive(Default)]
pub struct VmaLock {
    readers: AtomicU32,
    is_spread: AtomicBool,
    /// The last section of the address space in which it was taken for writing.
    section: AtomicU64,
}

/// Where the readers of locks are that have spread, in one address space.
#[derive(Default)]
pub struct ReaderSlots([ReaderSlot; SLOTS]);

/// The lock that a CPU has for reading: its address, or 0. In a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
pub struct ReaderSlot(AtomicUsize);

impl ReaderSlots {
    /// That of a CPU.
    #[inline]
    pub fn of(&self, cpu: usize) -> &ReaderSlot {
        &self.0[cpu % SLOTS]
    }
}

impl ReaderSlot {
    /// Enters a reader of `lock`, unless there is a reader already.
    #[inline]
    fn enter(&self, lock: &VmaLock) -> bool {
        self.0.compare_exchange(0, lock.address(), Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    #[inline]
    fn leave(&self) {
        point();
        self.0.store(0, Ordering::Release);
    }

    #[inline]
    fn has_reader_of(&self, lock: &VmaLock) -> bool {
        point();
        self.0.load(Ordering::SeqCst) == lock.address()
    }
}

/// One who reads, to be handed to [`VmaLock::release`].
#[must_use = "nobody can write until it is released"]
pub struct Reader<'s> {
    /// Where it is entered; if nowhere, it is counted.
    slot: Option<&'s ReaderSlot>,
    _held: Held,
}

impl VmaLock {
    /// Joins the readers, unless a writer has the lock in the current section of
    /// the address space, which `current` has the number of. `slot` is that of this CPU
    /// in the address space.
    #[inline(always)]
    pub fn try_read<'s>(&self, current: &AtomicU64, slot: impl FnOnce() -> &'s ReaderSlot) -> Option<Reader<'s>> {
        // Who is too late does not write to the writer's cache line.
        if self.section.load(Ordering::Relaxed) >= current.load(Ordering::Acquire) {
            return None;
        }
        point();
        if self.is_spread.load(Ordering::SeqCst)
            && let Some(reader) = self.try_read_spread(current, slot())
        {
            return Some(reader);
        }
        let others = self.readers.fetch_add(1, Ordering::SeqCst);
        let reader = Reader { slot: None, _held: Held::hold(rank::VMA, self) };
        point();
        // If this is the number that a section has stored which is over by now,
        // the next one's is seen as well, and with it all that was changed. One
        // that is not over has the same number.
        if self.section.load(Ordering::SeqCst) >= current.load(Ordering::Acquire) {
            self.release(&reader);
            return None;
        }
        if others != 0 {
            self.is_spread.store(true, Ordering::SeqCst);
        }
        Some(reader)
    }

    #[inline]
    fn try_read_spread<'s>(&self, current: &AtomicU64, slot: &'s ReaderSlot) -> Option<Reader<'s>> {
        point();
        if !slot.enter(self) {
            return None;
        }
        let reader = Reader { slot: Some(slot), _held: Held::hold(rank::VMA, self) };
        point();
        if self.section.load(Ordering::SeqCst) < current.load(Ordering::Acquire) {
            point();
            if self.is_spread.load(Ordering::SeqCst) {
                return Some(reader);
            }
        }
        self.release(&reader);
        None
    }

    /// Leaves the readers.
    #[inline(always)]
    pub fn release(&self, reader: &Reader<'_>) {
        match reader.slot {
            Some(slot) => slot.leave(),
            None => {
                point();
                self.readers.fetch_sub(1, Ordering::Release);
            }
        }
    }

    /// Waits until there are no readers, and keeps new ones out until the section
    /// with that number is over. `slots` are those of the address space.
    #[inline]
    pub fn write<S: AsRef<ReaderSlots>>(&self, section: u64, slots: impl FnOnce() -> S) {
        if !self.is_written_in(section) {
            let _held = Held::wait_for(rank::VMA, self);
            self.exclude(section, slots);
        }
    }

    /// [`write`](Self::write) for a VMA that is about to be made. Whoever may
    /// still read this memory thinks of another VMA, and is about to find out: that
    /// takes no lock, so waiting is allowed in any order.
    #[inline]
    pub(crate) fn write_unshared<S: AsRef<ReaderSlots>>(&self, section: u64, slots: impl FnOnce() -> S) {
        self.exclude(section, slots);
    }

    /// Whether it has been taken for writing in that section.
    #[inline]
    pub(crate) fn is_written_in(&self, section: u64) -> bool {
        self.section.load(Ordering::Relaxed) == section
    }

    #[inline]
    fn exclude<S: AsRef<ReaderSlots>>(&self, section: u64, slots: impl FnOnce() -> S) {
        point();
        self.section.store(section, Ordering::SeqCst);
        point();
        if self.is_spread.load(Ordering::SeqCst) {
            self.wait_for_slots(slots().as_ref());
        }
        if self.has_readers() {
            self.wait();
        }
    }

    #[inline]
    fn has_readers(&self) -> bool {
        point();
        self.readers.load(Ordering::SeqCst) != 0
    }

    #[cold]
    fn wait(&self) {
        while self.has_readers() {
            Relax::relax();
        }
    }

    #[cold]
    fn wait_for_slots(&self, slots: &ReaderSlots) {
        for slot in &slots.0 {
            while slot.has_reader_of(self) {
                Relax::relax();
            }
        }
        point();
        self.is_spread.store(false, Ordering::SeqCst);
    }

    fn address(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }
}

impl AsRef<ReaderSlots> for ReaderSlots {
    fn as_ref(&self) -> &ReaderSlots {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        lock: VmaLock,
        slots: ReaderSlots,
        /// The number of the current section.
        current: AtomicU64,
    }

    impl Fixture {
        /// A lock that two readers have at once, the first of which is still there.
        fn spread() -> Fixture {
            let fixture =
                Fixture { lock: VmaLock::default(), slots: ReaderSlots::default(), current: AtomicU64::new(1) };
            for other in [fixture.read(0), fixture.read(1)] {
                assert!(other.as_ref().is_some_and(|reader| reader.slot.is_none()), "counted");
                // Both at once.
                std::mem::forget(other);
            }
            fixture.lock.readers.store(0, Ordering::SeqCst);
            assert!(fixture.lock.is_spread.load(Ordering::SeqCst));
            fixture
        }

        fn read(&self, cpu: usize) -> Option<Reader<'_>> {
            self.lock.try_read(&self.current, || self.slots.of(cpu))
        }
    }

    #[test]
    fn readers_of_a_lock_that_has_spread_write_to_their_own_slots() {
        let f = Fixture::spread();
        let readers = [f.read(0), f.read(1)].map(Option::unwrap);
        assert_eq!(f.lock.readers.load(Ordering::SeqCst), 0);
        for (cpu, reader) in readers.iter().enumerate() {
            assert!(f.slots.of(cpu).has_reader_of(&f.lock));
            f.lock.release(reader);
            assert!(!f.slots.of(cpu).has_reader_of(&f.lock));
        }
    }

    #[test]
    fn who_finds_the_slot_taken_is_counted() {
        let f = Fixture::spread();
        let (first, same_slot) = (f.read(0).unwrap(), f.read(SLOTS).unwrap());
        assert!(first.slot.is_some() && same_slot.slot.is_none());
        assert_eq!(f.lock.readers.load(Ordering::SeqCst), 1);
        f.lock.release(&same_slot);
        assert!(f.slots.of(0).has_reader_of(&f.lock), "the slot is the first one's");
        f.lock.release(&first);
    }

    #[test]
    fn a_writer_waits_for_those_in_slots_and_gathers_the_lock_again() {
        let f = Fixture::spread();
        let reader = f.read(3).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| f.lock.write(1, || &f.slots));
            while f.lock.section.load(Ordering::SeqCst) != 1 {
                std::thread::yield_now();
            }
            assert!(f.read(4).is_none(), "who comes now gives way");
            assert!(!f.slots.of(4).has_reader_of(&f.lock));
            assert!(!writer.is_finished());
            f.lock.release(&reader);
        });
        f.current.store(2, Ordering::SeqCst);
        let reader = f.read(3).unwrap();
        assert!(reader.slot.is_none(), "counted again");
        f.lock.release(&reader);
    }
}
