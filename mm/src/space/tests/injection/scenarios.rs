//! The operations, and the address spaces that they start from.

use super::super::*;
use super::{Failure, Leaves, Scenario};
use crate::{MappedFile, OutOfMemory};

/// `MREMAP_MAYMOVE`, `MREMAP_FIXED` and `MREMAP_MUST_RELOCATE_ANON`.
const RELOCATE: usize = MAYMOVE | MREMAP_FIXED | 16;

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

pub(super) const SCENARIOS: &[Scenario] = &[
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
        name: "a write to memory that is to have large folios",
        leaves: Leaves::NothingVisible,
        prepare: |p| {
            for order in [2, 4] {
                p.space.memory().sysctl().set_folio_policy(order, crate::FolioPolicy::Always);
            }
            p.map_at(FAR, 64);
        },
        operation: |p| p.write(FAR + 9 * PAGE, 1).map_err(failed),
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
