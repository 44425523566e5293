//! Each operation in many states, with each of its allocations failing in turn.
//!
//! Afterwards all is as it was before; and when the operation is tried again
//! it does what it would have done. The random operations of
//! [`property`](super::property) are put through the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::snapshot::Snapshot;
use super::*;
use crate::space::verify_all;
use crate::{MappedFile, OutOfMemory};

/// What an operation that fails half way may have done.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Leaves {
    /// Nothing at all.
    Nothing,
    /// Nothing that a program could see: tables and anon_vmas for pages to
    /// come, pages of zeroes in objects, pages that have become copy-on-write.
    NothingVisible,
    /// What comes before the part that failed is done, as on Linux.
    Prefix,
}

type Failure = Result<(), SpaceError>;

/// `MREMAP_MAYMOVE`, `MREMAP_FIXED` and `MREMAP_MUST_RELOCATE_ANON`.
const RELOCATE: usize = MAYMOVE | MREMAP_FIXED | 16;

struct Scenario {
    name: &'static str,
    leaves: Leaves,
    prepare: fn(&Process<'_>),
    operation: fn(&Process<'_>) -> Failure,
}

const FAR: usize = BASE + (1 << 30);
const HUGEPAGE: usize = 14;
const COLLAPSE: usize = 25;
const HERE_OR_ELSEWHERE: usize = MAYMOVE | MREMAP_FIXED;

fn done<T>(result: Result<T, SpaceError>) -> Failure {
    result.map(|_| ())
}

/// The address space that most scenarios start from.
///
/// ```text
///   BASE   0        8       12  14      20
///          [rrrrrrrr][wwwwww]   [wwwwwww]      w written, r read only
/// ```
fn three_mappings(p: &Process<'_>) {
    p.map_at(BASE, 12);
    p.fill(BASE, 12);
    p.space.mprotect(BASE, 8 * PAGE, READ).unwrap();
    p.map_at(BASE + 14 * PAGE, 6);
    p.fill(BASE + 14 * PAGE, 6);
}

fn three_mappings_and_a_target(p: &Process<'_>) {
    three_mappings(p);
    p.map_at(FAR - 2 * PAGE, 40);
    p.fill(FAR - 2 * PAGE, 40);
}

fn in_a_forked_child(p: &Process<'_>) {
    three_mappings_and_a_target(p);
    // The parent goes on with what is shared with a child that is gone again.
    drop(p.fork().unwrap());
    p.write(BASE + 9 * PAGE, 200).unwrap();
}

fn a_huge_page(p: &Process<'_>) {
    p.map_at(FAR, 512);
    p.fill(FAR, 512);
    p.space.madvise(FAR, 512 * PAGE, COLLAPSE).unwrap();
}

fn unwritten(p: &Process<'_>) {
    p.map_at(BASE, 12);
}

fn shared(p: &Process<'_>) {
    let flags = SHARED | ANON | FIXED;
    p.mmap(BASE, 12 * PAGE, RW, flags).unwrap();
    p.fill(BASE, 5);
}

fn locked(p: &Process<'_>) {
    three_mappings(p);
    p.space.mlock(BASE, 12 * PAGE, 0).unwrap();
}

/// Written pages on both sides of 2 MiB boundaries, so that tables move.
fn large(p: &Process<'_>) {
    let (start, pages) = (BASE + (2 << 20) - 4 * PAGE, 1034);
    p.map_at(start, pages);
    for page in (0..pages).step_by(37).chain([1, 4, 515, 516, 517, pages - 1]) {
        p.write(start + page * PAGE, page as u8).unwrap();
    }
}

fn move_large(p: &Process<'_>, to: usize) -> Failure {
    let (start, len) = (BASE + (2 << 20) - 4 * PAGE, 1034 * PAGE);
    done(p.space.mremap(start, len, len, HERE_OR_ELSEWHERE, to))
}

fn stack(p: &Process<'_>) {
    p.space.map_stack(false).unwrap();
    p.space.write_bytes(crate::TASK_SIZE - 3 * PAGE, &[1; 3 * PAGE]).unwrap();
}

fn heap(p: &Process<'_>) {
    p.space.set_program_end(BASE);
    p.space.brk(BASE + 3 * PAGE);
    p.fill(BASE, 3);
}

fn file(p: &Process<'_>) {
    let object = p.space.memory().create_object(1, b"/f").unwrap();
    object.write(0, &[5; 4 * PAGE]).unwrap();
    object.set_size((1000 * PAGE) as u64).unwrap();
    for (addr, flags) in [(BASE, PRIVATE | FIXED), (FAR, SHARED | FIXED)] {
        let file = Some(MappedFile { object: &object, readable: true, writable: true });
        let len = 900 * PAGE;
        p.space.mmap(MmapRequest { addr, len, prot: RW, flags, file, offset: 0 }).unwrap();
    }
    p.read(BASE).unwrap();
}

fn failed(error: FaultError) -> SpaceError {
    assert_eq!(error, FaultError::OutOfMemory);
    OutOfMemory.into()
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "mmap where nothing is",
        leaves: Leaves::Nothing,
        prepare: three_mappings,
        operation: |p| done(p.mmap(FAR, 4 * PAGE, RW, PRIVATE | ANON | FIXED)),
    },
    Scenario {
        name: "mmap that merges on both sides",
        leaves: Leaves::Nothing,
        prepare: three_mappings,
        operation: |p| done(p.mmap(BASE + 12 * PAGE, 2 * PAGE, RW, PRIVATE | ANON | FIXED)),
    },
    Scenario {
        name: "mmap over parts of three mappings",
        leaves: Leaves::Nothing,
        prepare: three_mappings,
        operation: |p| done(p.mmap(BASE + 3 * PAGE, 14 * PAGE, READ, PRIVATE | ANON | FIXED)),
    },
    Scenario {
        name: "mmap into the middle of one mapping",
        leaves: Leaves::Nothing,
        prepare: in_a_forked_child,
        operation: |p| done(p.mmap(BASE + 2 * PAGE, 3 * PAGE, RW, PRIVATE | ANON | FIXED)),
    },
    Scenario {
        name: "mmap of shared memory over something",
        leaves: Leaves::Nothing,
        prepare: three_mappings,
        operation: |p| done(p.mmap(BASE + 3 * PAGE, 14 * PAGE, RW, SHARED | ANON | FIXED)),
    },
    Scenario {
        name: "munmap in the middle",
        leaves: Leaves::Nothing,
        prepare: three_mappings,
        operation: |p| p.space.munmap(BASE + 2 * PAGE, 3 * PAGE),
    },
    Scenario {
        name: "munmap of parts of two mappings",
        leaves: Leaves::Nothing,
        prepare: in_a_forked_child,
        operation: |p| p.space.munmap(BASE + 2 * PAGE, 14 * PAGE),
    },
    Scenario {
        name: "munmap of more pages than one flush gathers",
        leaves: Leaves::Nothing,
        prepare: |p| {
            p.map_at(BASE, 700);
            p.fill(BASE, 200);
        },
        operation: |p| p.space.munmap(BASE + PAGE, 698 * PAGE),
    },
    Scenario {
        name: "mremap that relocates a part over something",
        leaves: Leaves::Nothing,
        prepare: three_mappings,
        operation: |p| done(p.space.mremap(BASE + PAGE, 2 * PAGE, 2 * PAGE, RELOCATE, BASE + 13 * PAGE)),
    },
    Scenario {
        name: "mremap that relocates and keeps the source",
        leaves: Leaves::Nothing,
        prepare: three_mappings,
        operation: |p| done(p.space.mremap(BASE, 4 * PAGE, 4 * PAGE, RELOCATE | DONTUNMAP, BASE + 64 * PAGE)),
    },
    Scenario {
        name: "mprotect that splits off the middle",
        leaves: Leaves::Nothing,
        prepare: in_a_forked_child,
        operation: |p| p.space.mprotect(BASE + 2 * PAGE, 3 * PAGE, 0),
    },
    Scenario {
        name: "mprotect that merges",
        leaves: Leaves::Nothing,
        prepare: three_mappings,
        operation: |p| p.space.mprotect(BASE, 8 * PAGE, RW),
    },
    Scenario {
        name: "mprotect of an unwritten part, which merges with a written neighbour",
        leaves: Leaves::Nothing,
        prepare: |p| {
            p.map_at(BASE, 4);
            p.mmap(BASE + 4 * PAGE, 4 * PAGE, READ, PRIVATE | ANON | FIXED).unwrap();
            p.fill(BASE, 4);
        },
        operation: |p| p.space.mprotect(BASE + 4 * PAGE, 2 * PAGE, RW),
    },
    Scenario {
        name: "mprotect of a written part, which merges with an unwritten neighbour",
        leaves: Leaves::Nothing,
        prepare: |p| {
            p.map_at(BASE, 4);
            p.mmap(BASE + 4 * PAGE, 4 * PAGE, READ, PRIVATE | ANON | FIXED).unwrap();
            p.fill(BASE, 4);
        },
        operation: |p| p.space.mprotect(BASE + 2 * PAGE, 2 * PAGE, READ),
    },
    Scenario {
        name: "mprotect of parts of two mappings",
        leaves: Leaves::Prefix,
        prepare: three_mappings,
        operation: |p| p.space.mprotect(BASE + 6 * PAGE, 4 * PAGE, 0),
    },
    Scenario {
        name: "mprotect that copies locked pages",
        leaves: Leaves::Nothing,
        prepare: |p| {
            p.mmap(BASE, 4 * PAGE, READ, PRIVATE | ANON | FIXED | 0x2000).unwrap();
        },
        operation: |p| p.space.mprotect(BASE, 4 * PAGE, RW),
    },
    Scenario {
        name: "mremap that grows in place",
        leaves: Leaves::Nothing,
        prepare: three_mappings,
        operation: |p| done(p.space.mremap(BASE + 14 * PAGE, 6 * PAGE, 9 * PAGE, 0, 0)),
    },
    Scenario {
        name: "mremap that shrinks",
        leaves: Leaves::Nothing,
        prepare: in_a_forked_child,
        operation: |p| done(p.space.mremap(BASE, 6 * PAGE, 3 * PAGE, 0, 0)),
    },
    Scenario {
        name: "mremap that moves a part to where nothing is",
        leaves: Leaves::Nothing,
        prepare: three_mappings,
        operation: |p| done(p.space.mremap(BASE + 2 * PAGE, 3 * PAGE, 3 * PAGE, HERE_OR_ELSEWHERE, FAR)),
    },
    Scenario {
        name: "mremap that moves a part onto a part",
        leaves: Leaves::Nothing,
        prepare: in_a_forked_child,
        operation: |p| done(p.space.mremap(BASE + 2 * PAGE, 3 * PAGE, 3 * PAGE, HERE_OR_ELSEWHERE, FAR)),
    },
    Scenario {
        name: "mremap that moves and grows onto something",
        leaves: Leaves::Nothing,
        prepare: three_mappings_and_a_target,
        operation: |p| done(p.space.mremap(BASE + 14 * PAGE, 6 * PAGE, 9 * PAGE, HERE_OR_ELSEWHERE, FAR)),
    },
    Scenario {
        name: "mremap that moves and shrinks onto something",
        leaves: Leaves::Nothing,
        prepare: three_mappings_and_a_target,
        operation: |p| done(p.space.mremap(BASE + PAGE, 6 * PAGE, 2 * PAGE, HERE_OR_ELSEWHERE, FAR)),
    },
    Scenario {
        name: "mremap that has to move to grow",
        leaves: Leaves::Nothing,
        prepare: three_mappings,
        operation: |p| done(p.space.mremap(BASE + 2 * PAGE, 2 * PAGE, 5 * PAGE, MAYMOVE, 0)),
    },
    Scenario {
        name: "mremap that moves within one mapping",
        leaves: Leaves::Nothing,
        prepare: |p| {
            p.map_at(BASE, 12);
            p.fill(BASE, 12);
        },
        operation: |p| done(p.space.mremap(BASE + PAGE, 3 * PAGE, 3 * PAGE, HERE_OR_ELSEWHERE, BASE + 6 * PAGE)),
    },
    Scenario {
        name: "mremap of several mappings",
        leaves: Leaves::Prefix,
        prepare: three_mappings_and_a_target,
        operation: |p| {
            // What has moved before a failure is not there to be moved again.
            let addr = p.space.next_vma(BASE).unwrap().start;
            let len = BASE + 20 * PAGE - addr;
            done(p.space.mremap(addr, len, len, HERE_OR_ELSEWHERE, FAR + (addr - BASE)))
        },
    },
    Scenario {
        name: "mremap of a shared mapping to a second place",
        leaves: Leaves::Nothing,
        prepare: shared,
        operation: |p| done(p.space.mremap(BASE, 0, 6 * PAGE, MAYMOVE, 0)),
    },
    Scenario {
        name: "mremap with DONTUNMAP",
        leaves: Leaves::Nothing,
        prepare: three_mappings,
        operation: |p| done(p.space.mremap(BASE + 14 * PAGE, 6 * PAGE, 6 * PAGE, MAYMOVE | DONTUNMAP, 0)),
    },
    Scenario {
        name: "mremap with DONTUNMAP of a locked part onto something",
        leaves: Leaves::Nothing,
        prepare: |p| {
            locked(p);
            p.map_at(FAR, 12);
            p.fill(FAR, 12);
        },
        operation: |p| {
            let flags = HERE_OR_ELSEWHERE | DONTUNMAP;
            done(p.space.mremap(BASE + 2 * PAGE, 4 * PAGE, 4 * PAGE, flags, FAR + 3 * PAGE))
        },
    },
    Scenario {
        name: "mremap that moves to where a neighbour fits",
        leaves: Leaves::Nothing,
        prepare: |p| {
            unwritten(p);
            p.map_at(FAR, 4);
            p.fill(FAR, 4);
        },
        operation: |p| done(p.space.mremap(BASE, 4 * PAGE, 4 * PAGE, HERE_OR_ELSEWHERE, FAR + 4 * PAGE)),
    },
    Scenario {
        name: "mremap of whole page tables",
        leaves: Leaves::Nothing,
        prepare: large,
        operation: |p| move_large(p, FAR + (2 << 20) - 4 * PAGE),
    },
    Scenario {
        name: "mremap of single pages to many new tables",
        leaves: Leaves::Nothing,
        prepare: large,
        operation: |p| move_large(p, FAR + PAGE),
    },
    Scenario {
        name: "mremap of page tables onto something",
        leaves: Leaves::Nothing,
        prepare: |p| {
            large(p);
            p.map_at(FAR, 3);
            p.fill(FAR, 3);
            p.map_at(FAR + 1000 * PAGE, 300);
            p.fill(FAR + 1000 * PAGE, 10);
        },
        operation: |p| move_large(p, FAR + PAGE),
    },
    Scenario {
        name: "madvise that changes flags in the middle",
        leaves: Leaves::Nothing,
        prepare: in_a_forked_child,
        operation: |p| p.space.madvise(BASE + 2 * PAGE, 3 * PAGE, 10),
    },
    Scenario {
        name: "madvise that changes flags of several mappings",
        leaves: Leaves::Prefix,
        prepare: three_mappings,
        operation: |p| p.space.madvise(BASE + 2 * PAGE, 10 * PAGE, 16),
    },
    Scenario {
        name: "madvise that drops more pages than one flush gathers",
        leaves: Leaves::Nothing,
        prepare: |p| {
            p.map_at(BASE, 100);
            p.fill(BASE, 100);
        },
        operation: |p| p.space.madvise(BASE, 100 * PAGE, 4),
    },
    Scenario {
        name: "madvise that populates",
        leaves: Leaves::Prefix,
        prepare: unwritten,
        operation: |p| p.space.madvise(BASE, 5 * PAGE, 23),
    },
    Scenario {
        name: "mlock of a part",
        leaves: Leaves::Prefix,
        prepare: three_mappings,
        operation: |p| p.space.mlock(BASE + 2 * PAGE, 8 * PAGE, 0),
    },
    Scenario {
        name: "munlock of a part",
        leaves: Leaves::Prefix,
        prepare: locked,
        operation: |p| p.space.munlock(BASE + 2 * PAGE, 8 * PAGE),
    },
    Scenario {
        name: "mseal of a part",
        leaves: Leaves::Nothing,
        prepare: three_mappings,
        operation: |p| p.space.mseal(BASE + 2 * PAGE, 3 * PAGE, 0),
    },
    Scenario {
        name: "brk that grows",
        leaves: Leaves::Nothing,
        prepare: heap,
        operation: |p| grown(p, BASE + 9 * PAGE),
    },
    Scenario {
        name: "brk that makes a heap",
        leaves: Leaves::Nothing,
        prepare: |p| p.space.set_program_end(BASE),
        operation: |p| grown(p, BASE + 9 * PAGE),
    },
    Scenario { name: "brk that shrinks", leaves: Leaves::Nothing, prepare: heap, operation: |p| grown(p, BASE + PAGE) },
    Scenario {
        name: "a page that moves to another frame",
        leaves: Leaves::Nothing,
        prepare: three_mappings,
        operation: |p| {
            let entry = p.space.core.tables.lookup(p.space.mem, BASE).expect("no page");
            done(p.space.mem.migrate([entry.pfn()]).map_err(SpaceError::from))
        },
    },
    Scenario {
        name: "a write to memory that is to be huge",
        leaves: Leaves::NothingVisible,
        prepare: |p| {
            p.map_at(FAR, 512);
            p.space.madvise(FAR, 512 * PAGE, HUGEPAGE).unwrap();
        },
        operation: |p| p.write(FAR, 1).map_err(SpaceError::from),
    },
    Scenario {
        name: "fork of a huge page",
        leaves: Leaves::NothingVisible,
        prepare: a_huge_page,
        operation: |p| done(p.fork()),
    },
    Scenario {
        name: "munmap of a part of a huge page",
        leaves: Leaves::Nothing,
        prepare: a_huge_page,
        operation: |p| p.space.munmap(FAR + 5 * PAGE, 6 * PAGE),
    },
    Scenario {
        name: "mremap of a huge page to where it does not fit",
        leaves: Leaves::Nothing,
        prepare: a_huge_page,
        operation: |p| done(p.space.mremap(FAR, 512 * PAGE, 512 * PAGE, HERE_OR_ELSEWHERE, 2 * FAR + PAGE)),
    },
    Scenario {
        name: "pages that become a huge one",
        leaves: Leaves::NothingVisible,
        prepare: |p| {
            p.map_at(FAR, 512);
            p.fill(FAR + 3 * PAGE, 9);
        },
        operation: |p| p.space.madvise(FAR, 512 * PAGE, COLLAPSE),
    },
    Scenario {
        name: "fork",
        leaves: Leaves::NothingVisible,
        prepare: |p| {
            in_a_forked_child(p);
            p.mmap(BASE + (1 << 29), 4 * PAGE, RW, SHARED | ANON | FIXED).unwrap();
            large_elsewhere(p);
        },
        operation: |p| p.fork().map(drop),
    },
    Scenario {
        name: "first write",
        leaves: Leaves::NothingVisible,
        prepare: unwritten,
        operation: |p| p.write(BASE + PAGE, 7).map_err(failed),
    },
    Scenario {
        name: "first write beside a written neighbour",
        leaves: Leaves::NothingVisible,
        prepare: |p| {
            unwritten(p);
            p.mmap(BASE + 12 * PAGE, PAGE, READ, PRIVATE | ANON | FIXED).unwrap();
            p.fill(BASE, 12);
            p.space.mprotect(BASE + 12 * PAGE, PAGE, RW | 4).unwrap();
        },
        operation: |p| p.write(BASE + 12 * PAGE, 7).map_err(failed),
    },
    Scenario {
        name: "first read",
        leaves: Leaves::NothingVisible,
        prepare: unwritten,
        operation: |p| done(p.read(BASE + PAGE).map_err(failed)),
    },
    Scenario {
        name: "write to the zero page",
        leaves: Leaves::NothingVisible,
        prepare: |p| {
            unwritten(p);
            p.assert_zero(BASE, 2);
        },
        operation: |p| p.write(BASE + PAGE, 7).map_err(failed),
    },
    Scenario {
        name: "write to a page of a private file mapping",
        leaves: Leaves::NothingVisible,
        prepare: file,
        operation: |p| p.write(BASE, 7).map_err(failed),
    },
    Scenario {
        name: "write to an unread page of a private file mapping",
        leaves: Leaves::NothingVisible,
        prepare: file,
        operation: |p| p.write(BASE + PAGE, 7).map_err(failed),
    },
    Scenario {
        name: "write to a new page of a shared file mapping",
        leaves: Leaves::NothingVisible,
        prepare: file,
        operation: |p| p.write(FAR + 800 * PAGE, 7).map_err(failed),
    },
    Scenario {
        name: "a pin that lasts, of a page of a private file mapping",
        leaves: Leaves::NothingVisible,
        prepare: file,
        operation: |p| p.space.pin_longterm(BASE, FaultAccess::READ).map(drop).map_err(failed),
    },
    Scenario {
        name: "a pin that lasts, of the zero page",
        leaves: Leaves::NothingVisible,
        prepare: |p| {
            unwritten(p);
            p.assert_zero(BASE, 2);
        },
        operation: |p| p.space.pin_longterm(BASE + PAGE, FaultAccess::READ).map(drop).map_err(failed),
    },
    Scenario {
        name: "merging of equal pages",
        leaves: Leaves::NothingVisible,
        prepare: equal_pages,
        operation: |p| {
            merge_all(p);
            Ok(())
        },
    },
    Scenario {
        name: "giving merged pages back",
        leaves: Leaves::Prefix,
        prepare: |p| {
            equal_pages(p);
            merge_all(p);
        },
        operation: |p| p.space.madvise(BASE, 8 * PAGE, 13),
    },
    Scenario {
        name: "growth of a stack",
        leaves: Leaves::Prefix,
        prepare: stack,
        operation: |p| p.write(crate::TASK_SIZE - 100 * PAGE, 7).map_err(failed),
    },
    Scenario {
        name: "the shift of a stack to its place",
        leaves: Leaves::Nothing,
        prepare: |p| {
            p.space.memory().platform().seed(12345);
            p.space.mmap.write().layout.stack_top = crate::TASK_SIZE - (123 << 20);
            stack(p);
        },
        operation: |p| done(p.space.finalize_stack()),
    },
];

/// Memory that may be merged: twice two equal pages, and two of zeroes.
fn equal_pages(p: &Process<'_>) {
    p.map_at(BASE, 8);
    p.space.madvise(BASE, 8 * PAGE, 12).unwrap();
    for (page, value) in [1, 2, 3, 0, 1, 2, 4, 0].into_iter().enumerate() {
        p.write(BASE + page * PAGE, value).unwrap();
    }
    p.space.memory().sysctl().set_ksm_use_zero_pages(true);
}

/// Twice around all frames: what has not changed in between can be merged.
fn merge_all(p: &Process<'_>) {
    for _ in 0..3 {
        p.space.memory().ksm_scan(16);
    }
}

fn grown(p: &Process<'_>, end: usize) -> Failure {
    if p.space.brk(end) == end { Ok(()) } else { Err(SpaceError::OutOfMemory) }
}

fn large_elsewhere(p: &Process<'_>) {
    p.map_at(BASE + (3 << 29), 1500);
    p.fill(BASE + (3 << 29), 3);
    p.write(BASE + (3 << 29) + 1400 * PAGE, 1).unwrap();
}

impl Scenario {
    /// Runs the scenario with its `nth` allocation failing. Returns false
    /// when it has not that many.
    fn run(&self, nth: usize, sites: &mut BTreeMap<(String, u32), bool>) -> bool {
        let mut fired = false;
        on_machine(4096, |mem| {
            let p = Process::new(mem);
            (self.prepare)(&p);
            verify_all(&[&p.space]);
            let before = Snapshot::of(&p.space);
            mem.fail_nth_allocation(nth);
            let result = (self.operation)(&p);
            fired = mem.allocation_failed();
            mem.fail_nth_allocation(0);
            verify_all(&[&p.space]);
            let name = self.name;
            assert!(fired || result.is_ok(), "{name}: {result:?} without a failure");
            if result.is_err() {
                let after = Snapshot::of(&p.space);
                match self.leaves {
                    Leaves::Nothing => assert_eq!(after, before, "{name}, allocation {nth}"),
                    Leaves::NothingVisible => {
                        assert_eq!(after.seen_by_a_program(), before.seen_by_a_program(), "{name}, allocation {nth}")
                    }
                    Leaves::Prefix => {}
                }
                let again = (self.operation)(&p);
                assert_eq!(again, Ok(()), "{name}, again after allocation {nth} failed");
                verify_all(&[&p.space]);
            }
            for (site, failed) in mem.allocation_sites() {
                *sites.entry((site.file().into(), site.line())).or_default() |= failed;
            }
        });
        fired
    }
}

/// A page goes to swap and comes back with the `nth` allocation failing, if there are so
/// many. Who finds no memory for a fault reclaims and does it again.
fn bring_back(nth: usize, sites: &mut BTreeMap<(String, u32), bool>) -> bool {
    let mem = machine(4096);
    mem.platform().swap().set_slots(64);
    mem.fail_nth_allocation(nth);
    let begun = mem.swap_on();
    let mut fired = mem.allocation_failed();
    assert_eq!(begun.is_err(), fired);
    mem.fail_nth_allocation(0);
    mem.swap_on().unwrap();
    let p = Process::new(&mem);
    p.map_at(BASE, 12);
    p.fill(BASE, 12);
    assert_eq!(mem.reclaim(12), 12);
    if !fired {
        // One was for the books.
        mem.fail_nth_allocation(nth - 1);
        p.assert_filled(BASE, 12);
        fired = mem.allocation_failed();
    }
    mem.fail_nth_allocation(0);
    verify_all(&[&p.space]);
    p.assert_filled(BASE, 12);
    for (site, failed) in mem.allocation_sites() {
        *sites.entry((site.file().into(), site.line())).or_default() |= failed;
    }
    fired
}

#[test]
fn an_operation_that_fails_leaves_everything_as_it_was() {
    let mut sites = BTreeMap::new();
    let mut failures = 0;
    let mut nth = 1;
    while bring_back(nth, &mut sites) {
        nth += 1;
    }
    assert!(nth > 2, "neither the books of swap nor a page were allocated");
    for scenario in SCENARIOS {
        let mut nth = 1;
        while scenario.run(nth, &mut sites) {
            nth += 1;
        }
        failures += nth - 1;
        assert!(nth < 300, "{}: no end", scenario.name);
    }
    let failed: BTreeSet<_> = sites.iter().filter(|(_, failed)| **failed).map(|(site, _)| site.clone()).collect();
    println!("{} scenarios, {failures} failures, {} allocation sites", SCENARIOS.len(), failed.len());
    let mut missed = sites_in_the_source();
    missed.retain(|site| !failed.contains(site) && !NEVER_REACHED.contains(&site.0.as_str()));
    assert!(missed.is_empty(), "sites whose failure is not tested: {missed:#?}");
}

/// Files with calls that nothing can make allocate: growth in place has all it
/// needs in the mapping that grows.
const NEVER_REACHED: &[&str] = &["mm/src/space/mremap/mod.rs"];

/// Calls in the source, tests aside, that allocate.
fn sites_in_the_source() -> BTreeSet<(String, u32)> {
    // The allocators themselves, and what happens before there is an address space.
    const NOT_OPERATIONS: &[&str] = &["memory.rs", "memory/", "frame/", "slab/", "sim", "vma/spares.rs"];
    const CALLS: &[&str] = &[
        "mem.alloc(",
        "mem.alloc_zeroed(",
        "mem.alloc_table(",
        "mem.alloc_singly(",
        "self.alloc(",
        "memory.alloc(",
        "memory.alloc_zeroed(",
        ".alloc(memory)",
        ".alloc(self)",
        "Spares::reserve(",
    ];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut sites = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() && !name.ends_with("tests") {
                folders.push(path);
            } else if path.is_file()
                && !name.ends_with("tests.rs")
                && !NOT_OPERATIONS.iter().any(|not| name.starts_with(not))
            {
                let text = std::fs::read_to_string(&path).unwrap();
                for (number, line) in text.lines().enumerate() {
                    let is_code = !line.trim_start().starts_with("//");
                    if is_code && CALLS.iter().any(|call| line.contains(call)) {
                        sites.insert((format!("mm/src/{name}"), number as u32 + 1));
                    }
                }
            }
        }
    }
    sites
}
