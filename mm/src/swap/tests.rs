//! The books of the swap slots, and the cache.

use crate::sim::{self, SimPlatform};
use crate::{FaultError, FrameKind, Memory, OwnedFrame, Pfn};

fn page(mem: &Memory<SimPlatform>, tag: u8) -> Pfn {
    let frame = mem.alloc_zeroed(FrameKind::Anon).unwrap();
    // SAFETY: the frame is ours.
    unsafe { mem.page_ptr(frame.pfn()).write(tag) };
    frame.into_raw()
}

fn tag(mem: &Memory<SimPlatform>, pfn: Pfn) -> u8 {
    // SAFETY: the page is in the direct map, and nobody writes to it.
    unsafe { mem.page_ptr(pfn).read() }
}

/// Does with a page in the cache what reclaim does when nobody maps it: stores it
/// and gives the caller's reference up.
fn store(mem: &Memory<SimPlatform>, slot: u32, pfn: Pfn) {
    use crate::Platform;
    // SAFETY: as in `tag`.
    let bytes = unsafe { &*mem.page_ptr(pfn).cast() };
    mem.platform().swap_device().unwrap().store(slot, bytes).unwrap();
    mem.swap().set_stored(slot);
    assert!(mem.swap().uncache(mem, slot, pfn));
    mem.put(pfn);
}

#[test]
fn nothing_is_in_use_before_swap_is_on() {
    let mem = sim::memory(1, 64);
    assert_eq!(mem.swap_stats().total, 0);
    let pfn = page(&mem, 1);
    assert_eq!(mem.swap().alloc(&mem, pfn), None);
    assert_eq!(mem.swap_page(1), Ok(None));
    assert_eq!(mem.reclaim(1), 0);
    mem.put(pfn);
}

#[test]
fn slots_run_out_and_come_back() {
    let mem = sim::memory_with_swap(1, 64, 3);
    assert_eq!(mem.swap_stats().total, 3);
    let pages: Vec<Pfn> = (0..4).map(|tag| page(&mem, tag)).collect();
    let slots: Vec<u32> = pages[..3].iter().map(|&pfn| mem.swap().alloc(&mem, pfn).unwrap()).collect();
    assert_eq!(slots, [1, 2, 3]);
    assert_eq!(mem.swap().alloc(&mem, pages[3]), None);
    assert_eq!((mem.swap_stats().used, mem.swap_stats().cached), (3, 3));
    mem.swap_put(2);
    assert_eq!(mem.frame(pages[1]).refcount(), 1, "the cache's reference is still there");
    assert_eq!(mem.swap().alloc(&mem, pages[3]), Some(2));
    (1..=3).for_each(|slot| mem.swap_put(slot));
    assert_eq!(mem.swap_stats().used, 0);
    pages.into_iter().for_each(|pfn| mem.put(pfn));
    assert_eq!(mem.count_frames(FrameKind::Anon), 0);
}

#[test]
fn a_page_comes_back_from_the_device_and_is_cached() {
    let mem = sim::memory_with_swap(1, 64, 8);
    let pfn = page(&mem, 42);
    let slot = mem.swap().alloc(&mem, pfn).unwrap();
    store(&mem, slot, pfn);
    assert_eq!((mem.count_frames(FrameKind::Anon), mem.platform().swap().stored()), (0, 1));
    assert!(!mem.swap().is_cached(slot));
    let back = mem.swap_page(slot).unwrap().unwrap();
    assert_eq!(tag(&mem, back), 42);
    assert_eq!(mem.swap_page(slot), Ok(Some(back)), "loaded twice");
    assert!(mem.swap().is_cached(slot));
    assert!(!mem.swap().uncache(&mem, slot, back), "uncached in use");
    mem.put(back);
    // The device still has it, so it need not be stored again.
    assert!(mem.swap().is_stored(slot) && mem.swap().uncache(&mem, slot, back));
    mem.put(back);
    mem.swap_put(slot);
    assert_eq!((mem.platform().swap().stored(), mem.swap_stats().used), (0, 0));
    assert_eq!(mem.count_frames(FrameKind::Anon), 0);
}

#[test]
fn a_slot_stays_as_long_as_one_uses_it() {
    let mem = sim::memory_with_swap(1, 64, 8);
    let pfn = page(&mem, 1);
    let slot = mem.swap().alloc(&mem, pfn).unwrap();
    mem.swap().get(slot);
    mem.swap_put(slot);
    assert_eq!(mem.swap().uses(slot), 1);
    assert_eq!(mem.frame(pfn).swap_slot(), slot);
    mem.swap_put(slot);
    assert_eq!((mem.swap().uses(slot), mem.frame(pfn).swap_slot()), (0, 0));
    assert_eq!(mem.swap_page(slot), Ok(None));
    mem.put(pfn);
}

#[test]
fn what_the_device_has_lost_is_an_error() {
    let mem = sim::memory_with_swap(1, 64, 8);
    let pfn = page(&mem, 1);
    let slot = mem.swap().alloc(&mem, pfn).unwrap();
    store(&mem, slot, pfn);
    mem.platform().swap().lose_everything();
    assert_eq!(mem.swap_page(slot), Err(FaultError::Unreadable));
    assert_eq!(mem.count_frames(FrameKind::Anon), 0, "the frame for it is lost");
    mem.swap_put(slot);
    assert_eq!(mem.swap_stats().used, 0);
}

#[test]
fn loading_fails_without_memory_and_changes_nothing() {
    let mem = sim::memory_with_swap(1, 64, 8);
    let pfn = page(&mem, 7);
    let slot = mem.swap().alloc(&mem, pfn).unwrap();
    store(&mem, slot, pfn);
    let taken: Vec<OwnedFrame> = std::iter::from_fn(|| mem.alloc(FrameKind::Kernel, 0).ok()).collect();
    assert_eq!(mem.swap_page(slot), Err(FaultError::OutOfMemory));
    assert_eq!((mem.swap().uses(slot), mem.platform().swap().stored()), (1, 1));
    taken.into_iter().for_each(|frame| mem.free(frame));
    let back = mem.swap_page(slot).unwrap().unwrap();
    assert_eq!(tag(&mem, back), 7);
    mem.put(back);
    mem.swap_put(slot);
    assert_eq!(mem.count_frames(FrameKind::Anon), 0);
}
