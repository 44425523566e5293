//! Soft-dirty pages: which writes are seen after [`ClearRefs::SoftDirty`], and what else counts as one.

use super::*;
use crate::paging::{Entry, EntryFlags};
use crate::{ClearRefs, Event, MappedFile, PMD_SIZE, PageState};

const MERGEABLE: usize = 12;
const UNMERGEABLE: usize = 13;
const HUGEPAGE: usize = 14;
const PAGEOUT: usize = 21;
const COLLAPSE: usize = 25;
const RELOCATE: usize = 8;
const FAR: usize = BASE + (1 << 30);
const DONTNEED: usize = 4;
/// Frames for some huge pages.
const MANY: usize = 8 * 512;

/// Which of the pages from `addr` on are soft-dirty: `*` by themselves, `+` as their mapping is.
fn dirty(p: &Process<'_>, addr: usize, pages: usize) -> String {
    let range = PageRange::from_len(addr, pages * PAGE).unwrap();
    let mut found = vec!['-'; pages];
    let number = |at: usize| (at - addr) / PAGE;
    p.space.for_each_page_state(range, |state| match *state {
        PageState::SoftDirty(part) => found[number(part.start())..number(part.end())].fill('+'),
        PageState::Mapped(page) if page.soft_dirty => found[number(page.addr)] = '*',
        PageState::Swapped { addr, soft_dirty: true, .. } => found[number(addr)] = '*',
        PageState::Mapped(_) | PageState::Swapped { .. } => {}
    });
    found.into_iter().collect()
}

fn clear(p: &Process<'_>) {
    p.space.clear_refs(ClearRefs::SoftDirty);
}

fn entry(p: &Process<'_>, addr: usize) -> Entry {
    p.space.core.tables.lookup(p.space.mem, addr).unwrap_or_default()
}

/// A process with `pages` pages at `BASE` that have been written to, but not since they were last asked for.
fn cleared<'m>(mem: &'m Memory<SimPlatform>, pages: usize) -> Process<'m> {
    let p = filled(mem, pages);
    clear(&p);
    assert_eq!(dirty(&p, BASE, pages), "-".repeat(pages));
    p
}

fn protect(p: &Process<'_>, page: usize, pages: usize, prot: usize) {
    p.space.mprotect(BASE + page * PAGE, pages * PAGE, prot).unwrap();
}

#[test]
fn what_is_new_is_dirty_and_what_is_written_to_since() {
    on_machine(512, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 4);
        p.write(BASE, 1).unwrap();
        p.read(BASE + PAGE).unwrap();
        assert_eq!(dirty(&p, BASE, 4), "*+++");
        clear(&p);
        assert_eq!(dirty(&p, BASE, 4), "----");
        p.read(BASE + 2 * PAGE).unwrap();
        assert_eq!(p.read(BASE), Ok(1));
        assert_eq!(dirty(&p, BASE, 4), "----");
        for page in [0, 1, 3] {
            p.write(BASE + page * PAGE, 2).unwrap();
        }
        assert_eq!(dirty(&p, BASE, 4), "**-*");
        clear(&p);
        p.write(BASE + PAGE, 3).unwrap();
        assert_eq!(dirty(&p, BASE, 4), "-*--");
        check(&[&p]);
    });
}

#[test]
fn a_write_to_an_own_page_takes_one_fault_and_no_copy() {
    on_machine(512, |mem| {
        let p = cleared(mem, 2);
        let (frame, faults) = (frame_at(&p, BASE), mem.events(Event::FaultVmaLocked));
        p.write(BASE, 7).unwrap();
        p.write(BASE + 1, 8).unwrap();
        assert_eq!(frame_at(&p, BASE), frame);
        assert_eq!(mem.events(Event::FaultVmaLocked), faults + 1);
        check(&[&p]);
    });
}

#[test]
fn no_tlb_goes_on_writing_unseen() {
    on_machine(512, |mem| {
        let p = filled(mem, 40);
        for _ in 0..2 {
            // The CPU has all of it in its TLB, for writing.
            clear(&p);
            p.fill(BASE, 40);
            assert_eq!(dirty(&p, BASE, 40), "*".repeat(40));
        }
        clear(&p);
        p.write(BASE + 39 * PAGE, 1).unwrap();
        assert_eq!(dirty(&p, BASE + 37 * PAGE, 3), "--*");
    });
}

#[test]
fn what_has_been_cleared_is_not_flushed_again() {
    on_machine(512, |mem| {
        let p = cleared(mem, 8);
        let flushes = mem.events(Event::FlushProtect);
        clear(&p);
        assert_eq!(mem.events(Event::FlushProtect), flushes);
    });
}

#[test]
fn protection_changes_nothing_about_it() {
    on_machine(512, |mem| {
        let p = cleared(mem, 4);
        p.write(BASE, 1).unwrap();
        for prot in [READ, RW, 0, RW] {
            protect(&p, 0, 4, prot);
            assert_eq!(dirty(&p, BASE, 4), "*---");
        }
        // That which may be written without being noticed, may again.
        assert!(entry(&p, BASE).is_writable() && !entry(&p, BASE + PAGE).is_writable());
        p.write(BASE + PAGE, 1).unwrap();
        assert_eq!(dirty(&p, BASE, 4), "**--");
        // Of what is new nothing needs to be noticed.
        p.map_at(FAR, 1);
        p.write(FAR, 1).unwrap();
        p.space.mprotect(FAR, PAGE, READ).unwrap();
        p.space.mprotect(FAR, PAGE, RW).unwrap();
        assert!(entry(&p, FAR).is_writable());
        check(&[&p]);
    });
}

#[test]
fn a_mapping_that_merges_with_a_new_one_is_new() {
    on_machine(512, |mem| {
        let p = cleared(mem, 4);
        p.map_at(BASE + 4 * PAGE, 2);
        assert_eq!(p.map(BASE), "[0-6 rw-p]");
        assert_eq!(dirty(&p, BASE, 6), "++++++");
        clear(&p);
        // By mprotect, too; and what is split off stays new.
        p.mmap(BASE + 6 * PAGE, PAGE, READ, PRIVATE | ANON | FIXED).unwrap();
        assert_eq!(dirty(&p, BASE, 7), "------+");
        protect(&p, 6, 1, RW);
        assert_eq!((p.map(BASE), dirty(&p, BASE, 7)), ("[0-7 rw-p]".to_owned(), "+++++++".to_owned()));
        protect(&p, 0, 2, READ);
        assert_eq!(dirty(&p, BASE, 7), "+++++++");
        // The heap, as any other.
        p.space.set_program_end(FAR);
        p.space.brk(FAR + PAGE);
        clear(&p);
        p.space.brk(FAR + 2 * PAGE);
        assert_eq!(dirty(&p, FAR, 2), "++");
    });
}

#[test]
fn a_hole_that_is_filled_again_shows() {
    on_machine(512, |mem| {
        let p = cleared(mem, 1);
        p.space.munmap(BASE, PAGE).unwrap();
        p.map_at(BASE, 1);
        assert_eq!(dirty(&p, BASE, 1), "+");
    });
}

#[test]
fn what_moves_is_dirty_at_its_new_place() {
    for (from, to, pages) in [(BASE, FAR + PAGE, 3), (BASE, FAR, 3), (0x4000_0000, 0x6000_0000, 1024)] {
        for flags in [MAYMOVE | MREMAP_FIXED, MAYMOVE | MREMAP_FIXED | DONTUNMAP, MAYMOVE | MREMAP_FIXED | RELOCATE] {
            on_machine(4096, |mem| {
                let p = Process::new(mem);
                p.map_at(from, pages);
                for page in [0, pages - 1] {
                    p.write(from + page * PAGE, 9).unwrap();
                }
                clear(&p);
                let len = pages * PAGE;
                p.space.mremap(from, len, len, flags, to).unwrap();
                let expected = format!("*{}*", "-".repeat(pages - 2));
                assert_eq!(dirty(&p, to, pages), expected, "{from:#x} to {to:#x}, {flags}");
                assert!(!entry(&p, to).is_writable());
                p.write(to, 3).unwrap();
                check(&[&p]);
            });
        }
    }
}

#[test]
fn what_mremap_adds_is_as_the_rest() {
    on_machine(512, |mem| {
        let p = cleared(mem, 2);
        p.space.mremap(BASE, 2 * PAGE, 4 * PAGE, 0, 0).unwrap();
        assert_eq!(dirty(&p, BASE, 4), "----");
        p.write(BASE + 3 * PAGE, 1).unwrap();
        assert_eq!(dirty(&p, BASE, 4), "---*");
    });
}

#[test]
fn a_child_knows_what_its_parent_knew() {
    on_machine(512, |mem| {
        let p = cleared(mem, 4);
        p.write(BASE, 1).unwrap();
        let child = p.fork().unwrap();
        assert_eq!((dirty(&p, BASE, 4), dirty(&child, BASE, 4)), ("*---".to_owned(), "*---".to_owned()));
        child.write(BASE + PAGE, 2).unwrap();
        p.write(BASE + 2 * PAGE, 2).unwrap();
        assert_eq!((dirty(&p, BASE, 4), dirty(&child, BASE, 4)), ("*-*-".to_owned(), "**--".to_owned()));
        // Each asks for itself.
        clear(&child);
        assert_eq!((dirty(&p, BASE, 4), dirty(&child, BASE, 4)), ("*-*-".to_owned(), "----".to_owned()));
        child.write(BASE, 3).unwrap();
        assert_eq!(p.read(BASE), Ok(1));
        check(&[&p, &child]);
    });
}

#[test]
fn pages_are_what_they_were_when_they_come_back_from_swap() {
    let mem = sim::memory_with_swap(1, 512, 64);
    let p = cleared(&mem, 4);
    p.write(BASE, 1).unwrap();
    p.write(BASE + PAGE, 1).unwrap();
    p.space.madvise(BASE, 4 * PAGE, PAGEOUT).unwrap();
    assert_eq!(p.space.stats().swapped, 4);
    assert_eq!(dirty(&p, BASE, 4), "**--");
    // A read brings back what it was, and a write what it makes of it.
    p.read(BASE).unwrap();
    p.read(BASE + 2 * PAGE).unwrap();
    assert_eq!(dirty(&p, BASE, 4), "**--");
    assert!(entry(&p, BASE).is_writable() && !entry(&p, BASE + 2 * PAGE).is_writable());
    p.write(BASE + 3 * PAGE, 1).unwrap();
    p.write(BASE + 2 * PAGE, 1).unwrap();
    assert_eq!(dirty(&p, BASE, 4), "****");
    p.space.madvise(BASE, 4 * PAGE, PAGEOUT).unwrap();
    clear(&p);
    assert_eq!((dirty(&p, BASE, 4), p.space.stats().swapped), ("----".to_owned(), 4));
    // It moves without coming back.
    p.space.mremap(BASE, 4 * PAGE, 4 * PAGE, MAYMOVE | MREMAP_FIXED, FAR).unwrap();
    assert_eq!((dirty(&p, FAR, 4), p.space.stats().swapped), ("****".to_owned(), 4));
    check(&[&p]);
}

#[test]
fn pages_are_what_they_were_in_another_frame() {
    on_machine(512, |mem| {
        let p = cleared(mem, 2);
        p.write(BASE, 1).unwrap();
        let frames = [BASE, BASE + PAGE].map(|addr| frame_at(&p, addr).unwrap());
        assert_eq!(mem.migrate(frames), Ok(2));
        assert_eq!(dirty(&p, BASE, 2), "*-");
        assert!(entry(&p, BASE).is_writable() && !entry(&p, BASE + PAGE).is_writable());
        // While it is being moved it is asked, too.
        let suspended = entry(&p, BASE).suspended();
        assert!(suspended.is_soft_dirty() && suspended.resumed() == entry(&p, BASE));
        p.assert_filled(BASE + PAGE, 0);
        check(&[&p]);
    });
}

#[test]
fn merged_pages_are_what_they_were_and_so_are_those_given_back() {
    on_machine(512, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 6);
        p.space.madvise(BASE, 6 * PAGE, MERGEABLE).unwrap();
        for (page, value) in [7, 7, 7, 0, 0, 0].into_iter().enumerate() {
            p.write(BASE + page * PAGE, value).unwrap();
        }
        clear(&p);
        p.write(BASE, 7).unwrap();
        p.write(BASE + 3 * PAGE, 0).unwrap();
        for _ in 0..4 {
            mem.ksm_scan(64);
        }
        assert_eq!(p.space.ksm_pages().merged + p.space.ksm_pages().zero, 6);
        assert_eq!(dirty(&p, BASE, 6), "*--*--");
        p.write(BASE + PAGE, 7).unwrap();
        p.space.madvise(BASE, 6 * PAGE, UNMERGEABLE).unwrap();
        assert_eq!(dirty(&p, BASE, 6), "**-*--");
        p.write(BASE + 2 * PAGE, 1).unwrap();
        p.write(BASE + 5 * PAGE, 1).unwrap();
        assert_eq!(dirty(&p, BASE, 6), "****-*");
        check(&[&p]);
    });
}

#[test]
fn of_a_huge_page_all_is_dirty_or_nothing() {
    on_machine(MANY, |mem| {
        let at = BASE + PMD_SIZE;
        let p = Process::new(mem);
        p.map_at(at, 512);
        p.space.madvise(at, PMD_SIZE, HUGEPAGE).unwrap();
        p.write(at, 1).unwrap();
        clear(&p);
        assert!(entry(&p, at).is_huge());
        assert_eq!(dirty(&p, at, 512), "-".repeat(512));
        let frame = frame_at(&p, at);
        p.write(at + 5 * PAGE, 1).unwrap();
        assert_eq!(dirty(&p, at, 512), "*".repeat(512));
        assert!(entry(&p, at).is_huge() && frame_at(&p, at) == frame);
        // Parts are what the whole was.
        clear(&p);
        p.space.munmap(at + PAGE, PAGE).unwrap();
        assert_eq!(dirty(&p, at, 512), "-".repeat(512));
        p.write(at, 1).unwrap();
        assert_eq!(dirty(&p, at, 4), "*---");
        check(&[&p]);
    });
}

#[test]
fn a_collapse_counts_as_a_write_and_a_read_does_not() {
    on_machine(MANY, |mem| {
        let at = BASE + PMD_SIZE;
        let p = Process::new(mem);
        p.map_at(at, 1024);
        p.write(at, 1).unwrap();
        clear(&p);
        p.space.madvise(at, PMD_SIZE, COLLAPSE).unwrap();
        assert_eq!(dirty(&p, at, 4), "****");
        p.space.madvise(at, 2 * PMD_SIZE, HUGEPAGE).unwrap();
        p.read(at + PMD_SIZE).unwrap();
        assert!(entry(&p, at + PMD_SIZE).is_huge());
        assert_eq!(dirty(&p, at + PMD_SIZE, 4), "----");
        p.write(at + PMD_SIZE, 1).unwrap();
        assert_eq!(dirty(&p, at + PMD_SIZE, 4), "****");
        check(&[&p]);
    });
}

#[test]
fn shared_memory_is_asked_by_each_mapping_on_its_own() {
    on_machine(512, |mem| {
        let object = mem.create_object(1, b"file").unwrap();
        object.set_size(4 * PAGE as u64).unwrap();
        let p = Process::new(mem);
        for addr in [BASE, FAR] {
            let file = Some(MappedFile { object: &object, readable: true, writable: true });
            let request = MmapRequest { addr, len: 4 * PAGE, prot: RW, flags: SHARED | FIXED, file, offset: 0 };
            p.space.mmap(request).unwrap();
            p.read(addr).unwrap();
        }
        clear(&p);
        p.read(BASE + 2 * PAGE).unwrap();
        p.write(BASE, 1).unwrap();
        p.write(FAR + PAGE, 1).unwrap();
        p.write(FAR + 2 * PAGE, 1).unwrap();
        assert_eq!((dirty(&p, BASE, 4), dirty(&p, FAR, 4)), ("*---".to_owned(), "-**-".to_owned()));
        assert_eq!((p.read(FAR), p.read(BASE + PAGE), p.read(BASE + 2 * PAGE)), (Ok(1), Ok(1), Ok(1)));
        check(&[&p]);
    });
}

#[test]
fn who_writes_from_outside_is_seen_too() {
    on_machine(512, |mem| {
        let p = cleared(mem, 3);
        p.space.write_bytes(BASE, b"x").unwrap();
        let mut byte = [0];
        p.space.read_bytes(BASE + PAGE, &mut byte).unwrap();
        assert_eq!(dirty(&p, BASE, 3), "*--");
        // As long as somebody may be writing it cannot be said that nobody does.
        let pinned = p.space.pin(BASE + 2 * PAGE, FaultAccess::WRITE).unwrap();
        clear(&p);
        assert_eq!(dirty(&p, BASE, 3), "--*");
        drop(pinned);
        clear(&p);
        assert_eq!(dirty(&p, BASE, 3), "---");
        check(&[&p]);
    });
}

#[test]
fn a_pinned_page_that_fork_leaves_writable_is_dirty() {
    on_machine(512, |mem| {
        let p = cleared(mem, 1);
        let pinned = p.space.pin(BASE, FaultAccess::READ).unwrap();
        let child = p.fork().unwrap();
        assert!(!entry(&p, BASE).is_writable() || entry(&p, BASE).is_soft_dirty());
        p.write(BASE, 3).unwrap();
        assert_eq!((dirty(&p, BASE, 1), child.read(BASE)), ("*".to_owned(), Ok(1)));
        drop(pinned);
        check(&[&p, &child]);
    });
}

#[test]
fn a_copy_that_is_made_for_a_pin_has_not_been_written_to() {
    on_machine(512, |mem| {
        let p = cleared(mem, 1);
        p.space.madvise(BASE, PAGE, DONTNEED).unwrap();
        assert_eq!(p.read(BASE), Ok(0));
        let pinned = p.space.pin_longterm(BASE, FaultAccess::READ).unwrap();
        assert_ne!(pinned.pfn(), mem.zero_page());
        assert_eq!(dirty(&p, BASE, 1), "-");
        p.write(BASE, 9).unwrap();
        let mut byte = [0];
        pinned.read(0, &mut byte);
        assert_eq!((byte, dirty(&p, BASE, 1).as_str()), ([9], "*"));
        drop(pinned);
        check(&[&p]);
    });
}

#[test]
fn uses_are_forgotten_of_the_memory_that_is_meant() {
    on_machine(512, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 1);
        p.mmap(FAR, PAGE, RW, SHARED | ANON | FIXED).unwrap();
        let used = |addr| entry(&p, addr).flags().contains(EntryFlags::ACCESSED);
        for (what, expected) in [
            (ClearRefs::All, (false, false)),
            (ClearRefs::Anonymous, (false, true)),
            (ClearRefs::Mapped, (true, false)),
            (ClearRefs::SoftDirty, (true, true)),
            (ClearRefs::PeakResident, (true, true)),
        ] {
            p.space.madvise(BASE, PAGE, 4).unwrap();
            p.space.madvise(FAR, PAGE, 4).unwrap();
            p.write(BASE, 1).unwrap();
            p.write(FAR, 1).unwrap();
            assert_eq!((used(BASE), used(FAR)), (true, true));
            p.space.clear_refs(what);
            assert_eq!((used(BASE), used(FAR)), expected, "{what:?}");
        }
        check(&[&p]);
    });
}

#[test]
fn the_peak_becomes_what_is_there() {
    on_machine(512, |mem| {
        let p = filled(mem, 20);
        p.space.madvise(BASE, 15 * PAGE, 4).unwrap();
        assert_eq!(p.space.stats().peak_rss, 20);
        p.space.clear_refs(ClearRefs::PeakResident);
        assert_eq!(p.space.stats().peak_rss, 5);
    });
}
