//! The lock of a VMA, alone: so small a thing is gone through in nearly all ways that there are.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};

use mm::vma_lock::{ReaderSlots, VmaLock};

use crate::machine::{check, race};

/// Invariant: nobody reads while a writer is in its section, though the lock spreads, is gathered
/// by the writer, and spreads again.
#[test]
fn readers_and_sections() {
    check(|_| {
        let (lock, slots, current) = (VmaLock::default(), ReaderSlots::default(), AtomicU64::new(1));
        let (writing, readers) = (AtomicBool::new(false), AtomicUsize::new(0));
        let read = |cpu: usize| {
            for _ in 0..3 {
                if let Some(reader) = lock.try_read(&current, || slots.of(cpu)) {
                    readers.fetch_add(1, SeqCst);
                    assert!(!writing.load(SeqCst), "read while it is written");
                    shuttle::thread::yield_now();
                    assert!(!writing.load(SeqCst), "written while it is read");
                    readers.fetch_sub(1, SeqCst);
                    lock.release(&reader);
                }
            }
        };
        race(&[&|| read(0), &|| read(1), &|| {
            for section in 1..=3 {
                lock.write(section, || &slots);
                writing.store(true, SeqCst);
                assert_eq!(readers.load(SeqCst), 0, "written while it is read");
                shuttle::thread::yield_now();
                writing.store(false, SeqCst);
                current.store(section + 1, SeqCst);
            }
        }]);
    });
}
