use super::*;

#[test]
fn an_empty_entry_maps_nothing() {
    let entry = Entry::EMPTY;
    assert!(entry.is_empty() && !entry.is_present() && !entry.maps_page());
}

#[test]
fn a_leaf_keeps_frame_and_flags() {
    let entry = Entry::leaf(Pfn(0x12_3456), PAGE_FLAGS | EntryFlags::DIRTY);
    assert_eq!(entry.pfn(), Pfn(0x12_3456));
    assert!(entry.is_present() && entry.maps_page() && entry.is_writable() && entry.is_dirty());
    assert!(entry.is_user() && !entry.is_executable() && !entry.is_accessed());
    let changed = entry.without(EntryFlags::WRITE).with(EntryFlags::ACCESSED);
    assert_eq!(changed.pfn(), Pfn(0x12_3456));
    assert!(!changed.is_writable() && changed.is_accessed());
    let moved = changed.with_pfn(Pfn(7));
    assert_eq!((moved.pfn(), moved.flags()), (Pfn(7), changed.flags()));
}

#[test]
fn a_page_without_access_is_mapped_but_not_present() {
    let entry = Entry::leaf(Pfn(5), EntryFlags::PROT_NONE);
    assert!(entry.maps_page() && !entry.is_present());
    assert_eq!(entry.pfn(), Pfn(5));
}

#[test]
fn other_values_that_are_not_present_are_swap_entries() {
    let entry = Entry(0x1234_5000 << 9 | 2);
    assert!(!entry.is_present() && !entry.maps_page() && !entry.is_empty());
}

#[test]
fn the_pat_bit_of_a_huge_leaf_is_no_part_of_its_frame() {
    let entry = Entry(0x4020_0000 | 1 << 12 | (PAGE_FLAGS | EntryFlags::HUGE).bits());
    assert_eq!(entry.pfn(), Pfn(0x40200));
}

#[test]
fn what_is_counted_is_quickly_told_and_slowly() {
    let present = PAGE_FLAGS | EntryFlags::DIRTY;
    let without_access = EntryFlags::PROT_NONE | EntryFlags::USER;
    let entries = [
        (Entry::EMPTY, None),
        (Entry::leaf(Pfn(5), present), Some(Pfn(5))),
        (Entry::leaf(Pfn(5), present | EntryFlags::NO_EXEC), Some(Pfn(5))),
        (Entry::leaf(Pfn(5), present | EntryFlags::SPECIAL), None),
        (Entry::leaf(Pfn(5), without_access), Some(Pfn(5))),
        (Entry::leaf(Pfn(5), without_access | EntryFlags::SPECIAL), None),
        (Entry(0x4020_0000 | 1 << 12 | (present | EntryFlags::HUGE).bits()), Some(Pfn(0x40200))),
        (Entry(0x1234_5000 << 9 | 2), None),
    ];
    for (entry, frame) in entries {
        assert_eq!(entry.counted_pfn(), frame, "{entry:?}");
        assert_eq!(entry.is_counted(), frame.is_some(), "{entry:?}");
    }
}
