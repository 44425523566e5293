//! The lock of a VMA.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use mm::parts::atomic::AtomicU64;
use mm::parts::vma_lock::{ReaderSlots, VmaLock};

use crate::checker::{Cell, check, check_bounded, race};

/// A VMA's lock, and what it guards.
struct Vma {
    lock: VmaLock,
    slots: ReaderSlots,
    /// The number of the current section.
    current: AtomicU64,
    /// The number of the last section in which it was written.
    guarded: Cell<u32>,
}

impl Vma {
    fn new() -> Arc<Vma> {
        Arc::new(Vma {
            lock: VmaLock::default(),
            slots: ReaderSlots::default(),
            current: AtomicU64::new(1),
            guarded: Cell::new(0),
        })
    }

    /// One whose lock has spread, as two have just read at once.
    fn spread() -> Arc<Vma> {
        let vma = Vma::new();
        let read = |cpu| vma.lock.try_read(&vma.current, || vma.slots.of(cpu));
        for reader in [read(0), read(1)].iter().flatten() {
            vma.lock.release(reader);
        }
        vma
    }

    /// Reads on a CPU, if that can be done without waiting, and says what.
    fn read(&self, cpu: usize) -> Option<u32> {
        let reader = self.lock.try_read(&self.current, || self.slots.of(cpu))?;
        let read = self.guarded.read();
        self.lock.release(&reader);
        Some(read)
    }

    fn try_to_read(&self, cpu: usize) {
        let _ = self.read(cpu);
    }

    /// Is the one writer in a section of its own.
    fn write(&self, section: u32) {
        self.lock.write(section.into(), || &self.slots);
        self.guarded.write(section);
        self.current.store(u64::from(section) + 1, Ordering::Release);
    }
}

/// Invariant: nobody reads while it is written, and who reads sees what was written in the sections that are
/// over.
#[test]
fn reader_and_writer() {
    check(|| {
        let vma = Vma::new();
        race(
            &vma,
            &[
                |vma| {
                    let first = vma.read(0);
                    let second = vma.read(0);
                    assert!(second.is_none() || first <= second, "{first:?}, then {second:?}");
                },
                |vma| {
                    vma.write(1);
                    vma.write(2);
                },
            ],
        );
        assert_eq!(vma.read(0), Some(2), "released with the section");
    });
}

/// Invariant: the same for two readers, of which one may make the lock spread, and the other one come back.
#[test]
fn readers_and_writer() {
    check_bounded(3, || {
        let vma = Vma::new();
        race(&vma, &[|vma| (0..2).for_each(|_| vma.try_to_read(0)), |vma| vma.try_to_read(1), |vma| vma.write(1)]);
        assert_eq!(vma.read(0), Some(1), "released with the section");
    });
}

/// Invariant: the same where the lock has spread, and a reader is in a slot of its CPU; and for a late one, who
/// has seen that it has spread when it has not any more.
#[test]
fn reader_in_a_slot_and_writer() {
    check(|| {
        let vma = Vma::spread();
        race(&vma, &[|vma| vma.try_to_read(0), |vma| (1..=2).for_each(|section| vma.write(section))]);
        assert_eq!(vma.read(0), Some(2), "released with the section");
    });
}

/// Invariant: the same for two readers, each in a slot.
#[test]
fn readers_in_slots_and_writer() {
    check_bounded(2, || {
        let vma = Vma::spread();
        race(&vma, &[|vma| vma.try_to_read(0), |vma| vma.try_to_read(1), |vma| vma.write(1)]);
        assert_eq!(vma.read(0), Some(1), "released with the section");
    });
}

/// Invariant: the same for two readers that have one slot between them, so that one is counted.
#[test]
fn readers_of_one_slot_and_writer() {
    check_bounded(2, || {
        let vma = Vma::spread();
        race(&vma, &[|vma| vma.try_to_read(0), |vma| vma.try_to_read(2), |vma| vma.write(1)]);
        assert_eq!(vma.read(0), Some(1), "released with the section");
    });
}
