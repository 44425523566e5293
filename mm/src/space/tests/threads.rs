//! Threads that fault while others change the map under them, each on a CPU of
//! its own, and what they read and write checked.
//!
//! A page that is used too early shows: who gets a frame finds zeroes in it or
//! what was copied, and what is freed is overwritten.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::{Event, PMD_SIZE};

/// One changes the map, on the last CPU; the others run the program.
pub(super) const CPUS: usize = 4;
pub(super) const CHANGER: usize = CPUS - 1;
const RUNNERS: usize = CPUS - 1;

/// Flags of mremap(2).
const RELOCATE: usize = 8;
const MUST_RELOCATE: usize = 16;

/// A machine with enough CPUs. Nothing may be left on it.
fn on_large_machine(frames: usize, test: impl FnOnce(&Memory<SimPlatform>)) {
    let mem = sim::memory(CPUS, frames);
    mem.sysctl().set_randomize_va_space(0);
    let slab = || mem.count_frames(crate::FrameKind::Slab);
    let before = mem.free_frames() + slab();
    test(&mem);
    assert_eq!(mem.committed(), 0, "commit charge left");
    assert_eq!(mem.free_frames() + slab(), before, "frames left");
}

/// An address space, and a CPU that runs it.
#[derive(Clone, Copy)]
pub(super) struct Thread<'a, 'm> {
    pub space: &'a AddressSpace<'m, SimPlatform>,
    pub cpu: usize,
}

impl Thread<'_, '_> {
    fn fault(&self, fault: sim::PageFault) -> Result<(), FaultError> {
        let access = FaultAccess { write: fault.access == Access::Write, execute: false };
        self.space.handle_fault(fault.addr, access)
    }

    pub fn write(&self, addr: usize, value: u8) -> Result<(), FaultError> {
        let sim = self.space.memory().platform();
        sim.write_user(self.cpu, self.space.root(), addr, &[value], |fault| self.fault(fault))
    }

    pub fn read(&self, addr: usize) -> Result<u8, FaultError> {
        let sim = self.space.memory().platform();
        let mut byte = [0];
        sim.read_user(self.cpu, self.space.root(), addr, &mut byte, |fault| self.fault(fault))?;
        Ok(byte[0])
    }

    pub fn map(&self, addr: usize, pages: usize) {
        let flags = PRIVATE | ANON | FIXED;
        let request = MmapRequest { addr, len: pages * PAGE, prot: RW, flags, file: None, offset: 0 };
        assert_eq!(self.space.mmap(request), Ok(addr));
    }
}

/// Runs `change` in one thread, `rounds` times, and `run` in others again and
/// again until that is done: with the thread, its number and the number of the
/// turn. Then checks the address space.
pub(super) fn run_while_changing(
    space: &AddressSpace<'_, SimPlatform>,
    rounds: usize,
    change: impl Fn(Thread<'_, '_>, usize) + Sync,
    run: impl Fn(Thread<'_, '_>, usize, usize) + Sync,
) {
    let done = AtomicBool::new(false);
    /// Lets the others end, however the thread ends.
    struct Ends<'a>(&'a AtomicBool);
    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    for cpu in 0..CPUS {
        space.activate(cpu);
    }
    std::thread::scope(|scope| {
        for number in 0..RUNNERS {
            let (run, done) = (&run, &done);
            scope.spawn(move || {
                sim::set_cpu(number);
                let thread = Thread { space, cpu: number };
                let mut turn = 0;
                while !done.load(Ordering::Relaxed) {
                    run(thread, number, turn);
                    turn += 1;
                }
            });
        }
        scope.spawn(|| {
            let _ends = Ends(&done);
            sim::set_cpu(CHANGER);
            for round in 0..rounds {
                change(Thread { space, cpu: CHANGER }, round);
            }
        });
    });
    crate::verify_all(&[space]);
    for cpu in 0..CPUS {
        space.deactivate(cpu);
    }
}

fn space(mem: &Memory<SimPlatform>) -> AddressSpace<'_, SimPlatform> {
    AddressSpace::new(mem, Limits::default()).unwrap()
}

/// Neither 0 nor what frees write.
pub(super) fn mark(number: usize, turn: usize) -> u8 {
    (number * 40 + turn % 37 + 1) as u8
}

#[test]
fn faults_while_ranges_are_unmapped_and_mapped() {
    on_large_machine(4096, |mem| {
        let space = space(mem);
        let setup = Thread { space: &space, cpu: CHANGER };
        // Beside the range, in the same table, are pages that stay.
        let (left, right) = (BASE - RUNNERS * PAGE, BASE + 16 * PAGE);
        setup.map(left, 16 + 2 * RUNNERS);
        run_while_changing(
            &space,
            2000,
            |thread, round| {
                // From all of it to one page, and holes in the middle.
                let first = round % 5;
                let pages = 16 - first - round % 7;
                let at = BASE + first * PAGE;
                assert_eq!(thread.space.munmap(at, pages * PAGE), Ok(()));
                thread.map(at, pages);
            },
            |thread, number, turn| {
                for page in (number..16).step_by(RUNNERS) {
                    let (addr, value) = (BASE + page * PAGE, mark(number, turn));
                    match thread.write(addr, value) {
                        Ok(()) => {}
                        Err(error) => assert_eq!(error, FaultError::NotMapped),
                    }
                    match thread.read(addr) {
                        Ok(found) => assert!(found == value || found == 0, "{found} instead of {value} or 0"),
                        Err(error) => assert_eq!(error, FaultError::NotMapped),
                    }
                }
                for base in [left, right] {
                    let (addr, value) = (base + number * PAGE, mark(number, turn));
                    assert_eq!(thread.write(addr, value), Ok(()));
                    assert_eq!(thread.read(addr), Ok(value), "a page that stays");
                }
            },
        );
    });
}

#[test]
fn faults_while_tables_beside_them_go() {
    on_large_machine(4096, |mem| {
        let space = space(mem);
        // Three VMAs in one PUD table's span; that in the middle goes with its tables,
        // whose neighbours' pages are in the tables next to them.
        let base = 0x40_0000_0000;
        let setup = Thread { space: &space, cpu: CHANGER };
        setup.map(base, 8);
        setup.map(base + 5 * PMD_SIZE, 8);
        let middle = base + PMD_SIZE;
        run_while_changing(
            &space,
            2000,
            |thread, round| {
                let pages = 3 * PMD_SIZE / PAGE;
                thread.map(middle, pages);
                for table in 0..3 {
                    assert_eq!(thread.write(middle + table * PMD_SIZE, round as u8), Ok(()));
                }
                assert_eq!(thread.space.munmap(middle, pages * PAGE), Ok(()));
            },
            |thread, number, turn| {
                let value = mark(number, turn);
                let addr = base + number * PAGE + (turn % 2) * 5 * PMD_SIZE;
                assert_eq!(thread.write(addr, value), Ok(()));
                assert_eq!(thread.read(addr), Ok(value));
                assert_eq!(thread.space.madvise(addr, PAGE, 4), Ok(()), "MADV_DONTNEED");
                assert_eq!(thread.read(addr), Ok(0));
                let gone = middle + (turn % 3) * PMD_SIZE + (number + 1) * PAGE;
                match thread.write(gone, value) {
                    Ok(()) => {}
                    Err(error) => assert_eq!(error, FaultError::NotMapped),
                }
            },
        );
    });
}

#[test]
fn faults_while_protections_change() {
    on_large_machine(4096, |mem| {
        let space = space(mem);
        Thread { space: &space, cpu: CHANGER }.map(BASE, 16);
        run_while_changing(
            &space,
            3000,
            |thread, round| {
                // Splits and merges VMAs all the time.
                let (first, pages) = (round % 7, 3 + round % 5);
                let at = BASE + first * PAGE;
                assert_eq!(thread.space.mprotect(at, pages * PAGE, READ), Ok(()));
                assert_eq!(thread.space.mprotect(at + PAGE, (pages - 2) * PAGE, 0), Ok(()));
                assert_eq!(thread.space.mprotect(at, pages * PAGE, RW), Ok(()));
            },
            |thread, number, turn| {
                for page in (number..16).step_by(RUNNERS) {
                    let addr = BASE + page * PAGE;
                    let value = mark(number, turn);
                    // Denied writes and reads are tried again: nothing is ever lost.
                    while let Err(error) = thread.write(addr, value) {
                        assert_eq!(error, FaultError::AccessDenied);
                    }
                    let found = loop {
                        match thread.read(addr) {
                            Ok(found) => break found,
                            Err(error) => assert_eq!(error, FaultError::AccessDenied),
                        }
                    };
                    assert_eq!(found, value, "what was written to page {page}");
                }
            },
        );
    });
}

/// Moves `pages` pages from one address to another and back, with `flags`, while others
/// read them at both, and write to them.
fn faults_while_pages_move(here: usize, there: usize, pages: usize, flags: usize) {
    let used = 12;
    let stride = pages / used * PAGE;
    on_large_machine(8192, |mem| {
        let space = space(mem);
        let setup = Thread { space: &space, cpu: CHANGER };
        setup.map(here, pages);
        for page in 0..used {
            setup.write(here + page * stride, mark(page % RUNNERS, 0)).unwrap();
        }
        let is_marked_by = |number: usize, found: u8| (found - 1) as usize / 40 == number && found != 0xa5;
        run_while_changing(
            &space,
            1500,
            |thread, round| {
                let (from, to) = if round % 2 == 0 { (here, there) } else { (there, here) };
                let len = pages * PAGE;
                assert_eq!(thread.space.mremap(from, len, len, MAYMOVE | MREMAP_FIXED | flags, to), Ok(to));
            },
            |thread, number, turn| {
                for page in (number..used).step_by(RUNNERS) {
                    let base = if turn % 2 == 0 { here } else { there };
                    let addr = base + page * stride;
                    match thread.read(addr) {
                        Ok(found) => assert!(found != 0 && is_marked_by(number, found), "{found} in page {page}"),
                        Err(error) => assert_eq!(error, FaultError::NotMapped),
                    }
                    let value = mark(number, turn);
                    if thread.write(addr, value).is_ok() {
                        // It is in the page, wherever that is by now.
                        let found = loop {
                            if let Ok(found) = thread.read(here + page * stride) {
                                break found;
                            }
                            if let Ok(found) = thread.read(there + page * stride) {
                                break found;
                            }
                        };
                        assert_eq!(found, value, "what was written to page {page}");
                    }
                }
            },
        );
    });
}

const SINGLE_PAGES: (usize, usize, usize) = (BASE, BASE + 512 * PAGE + 24 * PAGE, 12);
const WHOLE_TABLES: (usize, usize, usize) = (BASE, BASE + 16 * PMD_SIZE, 2 * 512);

#[test]
fn faults_while_single_pages_move() {
    let (here, there, pages) = SINGLE_PAGES;
    faults_while_pages_move(here, there, pages, 0);
}

#[test]
fn faults_while_whole_tables_move() {
    let (here, there, pages) = WHOLE_TABLES;
    faults_while_pages_move(here, there, pages, 0);
}

#[test]
fn faults_while_pages_are_relocated() {
    for (here, there, pages) in [SINGLE_PAGES, WHOLE_TABLES] {
        faults_while_pages_move(here, there, pages, MUST_RELOCATE);
    }
}

#[test]
fn pages_are_relocated_while_others_hold_references_to_them() {
    on_large_machine(4096, |mem| {
        let space = space(mem);
        let (here, there) = (BASE, BASE + 64 * PAGE);
        let setup = Thread { space: &space, cpu: CHANGER };
        setup.map(here, 8);
        for page in 0..8 {
            setup.write(here + page * PAGE, mark(0, page)).unwrap();
        }
        run_while_changing(
            &space,
            3000,
            |thread, round| {
                let (from, to) = if round % 2 == 0 { (here, there) } else { (there, here) };
                let flags = MAYMOVE | MREMAP_FIXED | MUST_RELOCATE;
                assert_eq!(thread.space.mremap(from, 8 * PAGE, 8 * PAGE, flags, to), Ok(to));
            },
            |thread, number, turn| {
                // As a system call reads and writes a program's memory.
                let (page, mut byte) = ((turn + number) % 8, [0]);
                let addr = if turn % 2 == 0 { here } else { there } + page * PAGE;
                match thread.space.read_bytes(addr, &mut byte) {
                    Ok(()) => assert_eq!(byte, [mark(0, page)]),
                    Err(error) => assert_eq!(error, FaultError::NotMapped),
                }
                if let Err(error) = thread.space.write_bytes(addr, &[mark(0, page)]) {
                    assert_eq!(error, FaultError::NotMapped);
                }
            },
        );
        assert_eq!(mem.events(Event::Relocated), 3000);
    });
}

#[test]
fn pages_are_relocated_while_another_thread_forks() {
    on_large_machine(8192, |mem| {
        let space = space(mem);
        let (here, there) = (BASE, BASE + 64 * PAGE);
        let setup = Thread { space: &space, cpu: CHANGER };
        setup.map(here, 6);
        for page in 0..6 {
            setup.write(here + page * PAGE, mark(page % RUNNERS, 0)).unwrap();
        }
        let place = |space: &AddressSpace<'_, SimPlatform>| space.next_vma(here).expect("a VMA").start;
        run_while_changing(
            &space,
            600,
            |thread, round| {
                let (from, to) = if round % 2 == 0 { (here, there) } else { (there, here) };
                // While there is a child this is an ordinary move, with the strict flag none.
                let strict = MAYMOVE | MREMAP_FIXED | MUST_RELOCATE;
                match thread.space.mremap(from, 6 * PAGE, 6 * PAGE, strict, to) {
                    Ok(at) => assert_eq!(at, to),
                    Err(error) => {
                        assert_eq!(error, SpaceError::BadAddress);
                        assert_eq!(place(thread.space), from);
                        let flags = MAYMOVE | MREMAP_FIXED | RELOCATE;
                        assert_eq!(thread.space.mremap(from, 6 * PAGE, 6 * PAGE, flags, to), Ok(to));
                    }
                }
                std::thread::yield_now();
            },
            |thread, number, turn| {
                if number == 0 {
                    let child = thread.space.fork().unwrap();
                    let mut bytes = [0; 6];
                    for (page, byte) in bytes.iter_mut().enumerate() {
                        child.read_bytes(place(&child) + page * PAGE, core::slice::from_mut(byte)).unwrap();
                    }
                    for (page, byte) in bytes.into_iter().enumerate() {
                        assert_eq!((byte - 1) as usize / 40, page % RUNNERS, "page {page} of the child");
                    }
                } else {
                    let base = if turn % 2 == 0 { here } else { there };
                    let _ = thread.write(base + number * PAGE, mark(number, turn));
                }
            },
        );
        assert!(mem.events(Event::RelocatedPage) != 0 && mem.events(Event::RelocateForked) != 0);
    });
}

#[test]
fn pages_are_relocated_while_another_thread_discards_some() {
    on_large_machine(4096, |mem| {
        let space = space(mem);
        let (here, there) = (BASE, BASE + 64 * PAGE);
        Thread { space: &space, cpu: CHANGER }.map(here, 2 * RUNNERS);
        run_while_changing(
            &space,
            2000,
            |thread, round| {
                let (from, to) = if round % 2 == 0 { (here, there) } else { (there, here) };
                let (len, flags) = (2 * RUNNERS * PAGE, MAYMOVE | MREMAP_FIXED | MUST_RELOCATE);
                assert_eq!(thread.space.mremap(from, len, len, flags, to), Ok(to));
            },
            |thread, number, turn| {
                let (page, value) = (number + turn % 2 * RUNNERS, mark(number, turn));
                let addr = if turn % 4 < 2 { here } else { there } + page * PAGE;
                if thread.write(addr, value).is_ok() {
                    // Its own page, wherever that is by now.
                    let found = thread.read(here + page * PAGE).or_else(|_| thread.read(there + page * PAGE));
                    assert!(found.is_err() || found == Ok(value), "{found:?} instead of {value}");
                    match thread.space.madvise(addr, PAGE, 4) {
                        Ok(()) | Err(SpaceError::NotMapped) => {}
                        Err(error) => panic!("MADV_DONTNEED: {error:?}"),
                    }
                }
            },
        );
    });
}

#[test]
fn writes_while_the_process_forks() {
    on_large_machine(8192, |mem| {
        let space = space(mem);
        Thread { space: &space, cpu: CHANGER }.map(BASE, 4 * RUNNERS);
        run_while_changing(
            &space,
            300,
            |thread, _| {
                let child = thread.space.fork().unwrap();
                child.activate(CHANGER);
                let inside = Thread { space: &child, cpu: CHANGER };
                let contents = || (0..4 * RUNNERS).map(|page| inside.read(BASE + page * PAGE).unwrap());
                let at_first: Vec<u8> = contents().collect();
                for _ in 0..3 {
                    std::thread::yield_now();
                    assert!(contents().eq(at_first.iter().copied()), "the parent writes to the child's pages");
                }
                for page in 0..4 * RUNNERS {
                    inside.write(BASE + page * PAGE, 0).unwrap();
                }
                // Drops what the TLB knows of the child, whose root may be another's soon.
                mem.platform().load_root(CHANGER, thread.space.root());
                child.deactivate(CHANGER);
            },
            |thread, number, turn| {
                for page in (number..4 * RUNNERS).step_by(RUNNERS) {
                    let (addr, value) = (BASE + page * PAGE, mark(number, turn));
                    assert_eq!(thread.write(addr, value), Ok(()));
                    assert_eq!(thread.read(addr), Ok(value), "what was written to page {page}");
                }
            },
        );
    });
}

#[test]
fn a_stack_grows_while_its_neighbourhood_changes() {
    on_large_machine(4096, |mem| {
        let space = space(mem);
        let top = space.map_stack(false).unwrap();
        // In reach of the stack, but for the guard gap.
        let below = top - (1 << 20) - 600 * PAGE;
        run_while_changing(
            &space,
            1000,
            |thread, _| {
                thread.map(below, 4);
                assert_eq!(thread.write(below, 1), Ok(()));
                assert_eq!(thread.space.munmap(below, 4 * PAGE), Ok(()));
                // The stack starts over at its top page.
                let stack = thread.space.next_vma(top - 1).expect("the stack").start;
                if stack < top - PAGE {
                    assert_eq!(thread.space.munmap(stack, top - PAGE - stack), Ok(()));
                }
            },
            |thread, number, turn| {
                let addr = top - (2 + turn % 100 * 2) * PAGE + number;
                let value = mark(number, turn);
                assert_eq!(thread.write(addr, value), Ok(()));
                let found = thread.read(addr).unwrap();
                assert!(found == value || found == 0, "{found} instead of {value} or 0");
            },
        );
    });
}

#[test]
fn threads_that_fault_in_the_same_pages_find_the_same() {
    on_large_machine(4096, |mem| {
        let space = space(mem);
        Thread { space: &space, cpu: CHANGER }.map(BASE, 8);
        run_while_changing(
            &space,
            1000,
            |thread, _| {
                assert_eq!(thread.space.madvise(BASE, 8 * PAGE, 4), Ok(()), "MADV_DONTNEED");
            },
            |thread, number, turn| {
                // Each has a byte of its own in every page.
                for page in 0..8 {
                    let (addr, value) = (BASE + page * PAGE + number, mark(number, turn));
                    assert_eq!(thread.write(addr, value), Ok(()));
                    let found = thread.read(addr).unwrap();
                    assert!(found == value || found == 0, "{found} instead of {value} or 0");
                }
            },
        );
    });
}
