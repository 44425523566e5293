//! Free frames that are brought together while programs use the pages between them.

use std::collections::BTreeMap;

use mm::{FaultError, PAGE_SIZE, PageRange};

use crate::machine::{Event, Machine, Space, check_roomy, race};

/// The order of the block that is to become free.
const ORDER: u8 = 6;
const BASE: usize = 0x40_0000;
/// So many pages are in all such blocks.
const PAGES: usize = 96;

fn frame_at(space: &Space, addr: usize) -> usize {
    let mut found = None;
    space.for_each_page(PageRange::from_len(addr, PAGE_SIZE).unwrap(), |page| found = Some(page.pfn.0));
    found.expect("the page has just been written to")
}

/// A program with one page in each block, all else of which is free but for the first one, where the
/// machine's own things are. Also where the page is that will be moved.
fn with_lone_pages(machine: &Machine) -> (Space<'_>, usize) {
    let space = machine.space();
    space.map_rw(BASE, PAGES * PAGE_SIZE);
    let mut lone = BTreeMap::new();
    for addr in (BASE..).step_by(PAGE_SIZE).take(PAGES) {
        space.write(0, addr, 1).unwrap();
        lone.insert(frame_at(&space, addr) >> ORDER, addr);
    }
    let kept: Vec<_> = lone.into_values().collect();
    for addr in (BASE..).step_by(PAGE_SIZE).take(PAGES).filter(|addr| !kept.contains(addr)) {
        space.discard(addr, PAGE_SIZE);
    }
    (space, kept[1])
}

/// Invariant: a program reads what it wrote last, and what it writes to for the first time is empty, whichever
/// frames the pages are in, and whoever has a reference to one meanwhile.
#[test]
fn compaction_and_write() {
    check_roomy(|machine| {
        let (space, page) = with_lone_pages(machine);
        let fresh = page + PAGE_SIZE;
        race(&[
            &|| {
                for value in 2..4 {
                    space.write(0, page, value).unwrap();
                    assert_eq!(space.read(0, page), Ok(value));
                }
                space.write(0, fresh, 4).unwrap();
                assert_eq!(space.read(0, fresh + 1), Ok(0));
            },
            &|| _ = machine.compact(ORDER),
            &|| {
                let mut byte = [0];
                space.read_bytes(page, &mut byte).unwrap();
                assert!(matches!(byte[0], 1..=3), "{byte:?}");
            },
        ]);
        assert_eq!((space.read(2, page), space.read(2, fresh)), (Ok(3), Ok(4)));
        assert!(machine.compact(ORDER), "nothing is in the way");
        machine.end([space]);
    });
}

/// Invariant: after munmap nobody reads the page; what is mapped there then is empty, and
/// stays so.
#[test]
fn compaction_and_munmap() {
    check_roomy(|machine| {
        let (space, page) = with_lone_pages(machine);
        let unmapped = Event::default();
        race(&[
            &|| {
                let too_late = unmapped.has_happened();
                let found = space.read(0, page);
                assert!(matches!(found, Ok(0 | 1) | Err(FaultError::NotMapped)), "{found:?}");
                assert!(!(too_late && found == Ok(1)), "there is memory after munmap");
            },
            &|| _ = machine.compact(ORDER),
            &|| {
                space.munmap(page, PAGE_SIZE).unwrap();
                unmapped.happens();
                space.map_rw(page, PAGE_SIZE);
                assert_eq!(space.read(2, page), Ok(0));
            },
        ]);
        assert_eq!(space.read(0, page), Ok(0));
        assert!(machine.compact(ORDER), "nothing is in the way");
        machine.end([space]);
    });
}
