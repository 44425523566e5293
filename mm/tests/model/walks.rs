//! Reverse mapping: who looks for the mappings of a page, while they change.

use std::sync::Mutex;

use mm::{AddressSpace, FaultError, PAGE_SIZE, PMD_SIZE, PageRange, Pfn, SpaceError, find_mappings};

use crate::machine::{Event, Machine, Space, check, race};

/// Two places whose page tables can change as a whole.
const OLD: usize = 0x4000_0000;
const NEW: usize = OLD + 4 * PMD_SIZE;

/// The frame of the private page at `addr`.
fn frame_at(space: &Space, addr: usize) -> Pfn {
    let mut found = None;
    space.for_each_page(PageRange::from_len(addr, PAGE_SIZE).unwrap(), |page| found = Some(page.pfn));
    found.expect("a page")
}

/// Where the page in the frame is found mapped.
fn found(spaces: &[&Space], pfn: Pfn) -> Vec<(usize, usize)> {
    let spaces: Vec<&AddressSpace<'_, _>> = spaces.iter().map(|space| &***space).collect();
    let mut found = find_mappings(&spaces, pfn).unwrap_or_default();
    found.sort_unstable();
    found
}

/// A mapping of `len` bytes moves, with its first page written to, and a neighbour to go to.
fn walk_while(machine: &Machine, len: usize, go: fn(&Space, usize) -> Result<(), SpaceError>) {
    let space = machine.space();
    space.map_rw(NEW - PAGE_SIZE, PAGE_SIZE);
    space.write(0, NEW - PAGE_SIZE, 9).unwrap();
    space.map_rw(OLD, len);
    space.write(0, OLD, 1).unwrap();
    let pfn = frame_at(&space, OLD);
    let moved = Event::default();
    race(&[
        &|| {
            go(&space, len).unwrap();
            moved.happens();
        },
        &|| {
            let mut last = OLD;
            for _ in 0..3 {
                let too_late = moved.has_happened();
                let found = found(&[&space], pfn);
                assert!(matches!(found[..], [(0, OLD | NEW)]), "{found:x?}");
                assert!(found[0].1 >= last, "found at the old address after the new one");
                assert!(!(too_late && found[0].1 == OLD), "found at the old address after the move");
                last = found[0].1;
            }
        },
        &|| {
            let done = space.write(2, OLD, 2);
            assert!(matches!(done, Ok(()) | Err(FaultError::NotMapped)), "{done:?}");
        },
    ]);
    assert!(matches!(space.read(2, NEW), Ok(1 | 2)));
    machine.end([space]);
}

/// Invariant: a page that moves is found at any time, once, at the old address and then
/// at the new one.
#[test]
fn walk_and_move() {
    fn go(space: &Space, len: usize) -> Result<(), SpaceError> {
        space.move_to(OLD, len, NEW, len)
    }
    check(|machine| walk_while(machine, PAGE_SIZE, go));
    check(|machine| walk_while(machine, PMD_SIZE, go));
}

/// Invariant: the same, while its index changes, and its anon_vma to that of a neighbour.
#[test]
fn walk_and_relocation() {
    fn go(space: &Space, len: usize) -> Result<(), SpaceError> {
        space.relocate(OLD, len, NEW)
    }
    check(|machine| walk_while(machine, PAGE_SIZE, go));
    check(|machine| walk_while(machine, PMD_SIZE, go));
}

/// Invariant: the page is at its new address with all that was written; once mremap has
/// returned nothing is written at the old one. A neighbour's first write, which chooses an
/// anon_vma meanwhile, is not lost.
#[test]
fn fault_and_relocation() {
    check(|machine| {
        let space = machine.space();
        space.map_rw(NEW - PAGE_SIZE, PAGE_SIZE);
        space.map_rw(OLD, 2 * PAGE_SIZE);
        space.write(0, OLD, 1).unwrap();
        let moved = Event::default();
        let written = Mutex::new((1, 0));
        race(&[
            &|| {
                for (addr, value) in [(OLD, 2), (OLD + PAGE_SIZE, 3), (OLD, 4)] {
                    let too_late = moved.has_happened();
                    match space.write(0, addr, value) {
                        Ok(()) if addr == OLD => written.lock().unwrap().0 = value,
                        Ok(()) => written.lock().unwrap().1 = value,
                        Err(error) => assert_eq!(error, FaultError::NotMapped),
                    }
                    assert!(!(too_late && space.read(0, addr).is_ok()), "there is memory after the move");
                }
            },
            &|| {
                space.relocate(OLD, 2 * PAGE_SIZE, NEW).unwrap();
                moved.happens();
            },
            &|| space.write(2, NEW - PAGE_SIZE, 9).unwrap(),
        ]);
        let (first, second) = written.into_inner().unwrap();
        assert_eq!([NEW - PAGE_SIZE, NEW, NEW + PAGE_SIZE].map(|addr| space.read(2, addr)), [9, first, second].map(Ok));
        machine.end([space]);
    });
}

/// Invariant: the parent's page is found at any time, the child's until it has gone, and
/// neither anywhere else.
#[test]
fn walk_and_exit() {
    check(|machine| {
        let parent = machine.space();
        parent.map_rw(OLD, PAGE_SIZE);
        parent.write(0, OLD, 1).unwrap();
        let pfn = frame_at(&parent, OLD);
        let [child, other] = [(); 2].map(|()| machine.fork(&parent));
        let child = Mutex::new(Some(child));
        let gone = Event::default();
        race(&[
            &|| {
                let child = child.lock().unwrap().take();
                machine.exit(child.unwrap());
                gone.happens();
            },
            &|| {
                for _ in 0..3 {
                    let found = found(&[&parent, &other], pfn);
                    assert_eq!(found, [(0, OLD), (1, OLD)]);
                }
            },
        ]);
        assert_eq!(parent.read(0, OLD), Ok(1));
        machine.end([parent, other]);
    });
}

/// Invariant: the page is found at any time in the processes that have it already, and in
/// a child from when fork has returned.
#[test]
fn walk_and_fork() {
    check(|machine| {
        let parent = machine.space();
        parent.map_rw(OLD, PAGE_SIZE);
        parent.write(0, OLD, 1).unwrap();
        let pfn = frame_at(&parent, OLD);
        // So that the tree of those who have it changes its shape when there are more.
        let [first, second] = [(); 2].map(|()| machine.fork(&parent));
        let children = Mutex::new(Vec::new());
        race(&[
            &|| {
                for _ in 0..2 {
                    let child = machine.fork(&parent);
                    assert_eq!(found(&[&parent, &child], pfn), [(0, OLD), (1, OLD)]);
                    children.lock().unwrap().push(child);
                }
            },
            &|| {
                for _ in 0..3 {
                    let found = found(&[&parent, &first, &second], pfn);
                    assert_eq!(found, [(0, OLD), (1, OLD), (2, OLD)]);
                }
            },
        ]);
        let [third, fourth] = children.into_inner().unwrap().try_into().ok().unwrap();
        machine.end([parent, first, second, third, fourth]);
    });
}

/// Invariant: a page is found where it is until its mapping goes. The anon_vma goes with
/// it, and may be that of another process's page with the same index at once: that is not
/// found, unless it is in the same frame by now.
#[test]
fn anon_vma_freed_and_walk() {
    check(|machine| {
        let [space, other] = [(); 2].map(|()| machine.space());
        space.map_rw(OLD, PAGE_SIZE);
        space.write(0, OLD, 1).unwrap();
        other.map_rw(OLD, PAGE_SIZE);
        let pfn = frame_at(&space, OLD);
        let unmapped = Event::default();
        let reused = Event::default();
        race(&[
            &|| {
                space.munmap(OLD, PAGE_SIZE).unwrap();
                unmapped.happens();
            },
            &|| {
                for _ in 0..3 {
                    let too_late = unmapped.has_happened();
                    match found(&[&space, &other], pfn)[..] {
                        [] => {}
                        [(0, OLD)] => assert!(!too_late, "found after munmap"),
                        [(1, OLD)] => reused.happens(),
                        ref found => panic!("{found:x?}"),
                    }
                }
            },
            &|| other.write(2, OLD, 2).unwrap(),
        ]);
        assert!(!reused.has_happened() || frame_at(&other, OLD) == pfn, "another page is taken for it");
        assert_eq!(other.read(0, OLD), Ok(2));
        machine.end([space, other]);
    });
}
