//! Relocation while others look for the pages, by the reverse mapping: whoever does that
//! finds each of them once, at one of its two addresses.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::space::find_mappings;
use crate::{AddressSpace, PMD_SIZE, Pfn};

/// Lets the other threads end when this one does, however that is.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Moves `pages` pages with `flags`, from one place to the next and the next, `rounds`
/// times, while two threads look for those of them that are written to.
fn walked_while_moved(places: [usize; 3], pages: usize, flags: usize, rounds: usize) {
    with_process(|p| {
        let step = pages.div_ceil(8);
        p.map_at(places[0], pages);
        let mut frames: Vec<Pfn> = Vec::new();
        for page in (0..pages).step_by(step) {
            p.write(places[0] + page * PAGE, 1).unwrap();
            frames.push(p.space.core.tables.lookup(p.space.mem, places[0] + page * PAGE).unwrap().pfn());
        }
        let (space, done, walks): (&AddressSpace<'_, SimPlatform>, _, _) =
            (&p.space, AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        for (i, &pfn) in frames.iter().enumerate() {
                            let found = find_mappings(&[space], pfn).expect("a private page");
                            assert_eq!(found.len(), 1, "page {i} is found at {found:x?}");
                            let places = places.map(|place| (0, place + i * step * PAGE));
                            assert!(places.contains(&found[0]), "page {i} is found at {found:x?}");
                        }
                        walks.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            let _ends = Ends(&done);
            for round in 0..rounds {
                let (from, to) = (places[round % 3], places[(round + 1) % 3]);
                let len = pages * PAGE;
                assert_eq!(space.mremap(from, len, len, MOVE | flags, to), Ok(to));
                if flags & DONTUNMAP != 0 {
                    space.munmap(from, len).unwrap();
                }
                if round % 16 == 0 {
                    std::thread::yield_now();
                }
            }
            while walks.load(Ordering::Relaxed) < 2 {
                std::thread::yield_now();
            }
        });
        crate::space::verify_all(&[space]);
    });
}

/// By single entries, and by whole tables.
const PLACES: [([usize; 3], usize); 2] =
    [([SOURCE, TARGET, SOURCE + 600 * PAGE], 8), ([BASE, BASE + 4 * PMD_SIZE, BASE + 9 * PMD_SIZE], PMD_SIZE / PAGE)];

#[test]
fn pages_that_are_relocated_are_found_once_at_any_time() {
    for (places, pages) in PLACES {
        walked_while_moved(places, pages, MUST, 2000);
        walked_while_moved(places, pages, MUST | DONTUNMAP, 1000);
    }
}

#[test]
fn pages_that_move_ordinarily_are_found_once_at_any_time() {
    for (places, pages) in PLACES {
        walked_while_moved(places, pages, 0, 2000);
        walked_while_moved(places, pages, DONTUNMAP, 1000);
    }
}

#[test]
fn pages_of_a_parent_are_found_while_children_come_and_go() {
    with_process(|p| {
        p.put(SOURCE, Faulted);
        let pfn = p.space.core.tables.lookup(p.space.mem, SOURCE).unwrap().pfn();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    // Those of the child are found as well, but no address is its.
                    let found = find_mappings(&[&p.space], pfn).expect("a private page");
                    assert_eq!(found, [(0, SOURCE)]);
                }
            });
            let _ends = Ends(&done);
            for _ in 0..300 {
                let child = p.space.fork().unwrap();
                let grandchild = child.fork().unwrap();
                drop(child);
                let found = find_mappings(&[&p.space, &grandchild], pfn).expect("a private page");
                assert_eq!(found.len(), 2, "{found:x?}");
            }
        });
    });
}
