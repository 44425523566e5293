//! Threads that run while pages are taken from them all the time, and while there is
//! not memory enough for all of them.

use super::threads::{CHANGER, CPUS, Thread, mark, run_while_changing};
use super::*;
use crate::{Event, FrameKind};

const PAGEOUT: usize = 21;
const RELOCATE: usize = 8;
/// The runner that reclaims, where one does.
const RECLAIMER: usize = 2;

/// A machine with swap. Nothing may be left on it, or in there.
fn on_machine_with_swap(frames: usize, slots: u32, test: impl FnOnce(&Memory<SimPlatform>)) {
    let mem = sim::memory_with_swap(CPUS, frames, slots);
    mem.sysctl().set_randomize_va_space(0);
    let used = || mem.total_frames() - mem.free_frames() - mem.count_frames(FrameKind::Slab);
    let before = used();
    test(&mem);
    assert_eq!(used(), before, "frames left");
    assert_eq!((mem.committed(), mem.swap_stats().used, mem.platform().swap().stored()), (0, 0, 0));
    let (out, back) = (mem.events(Event::SwapOut), mem.events(Event::SwapIn));
    assert!(out > 100 && back > 100, "{out} pages swapped out, {back} in");
}

/// A runner's pages, next to those of the others.
fn pages_of(number: usize, pages: usize) -> impl Iterator<Item = usize> {
    (0..pages).map(move |page| BASE + (page * CPUS + number) * PAGE)
}

/// Checks what the runner wrote a turn ago, and writes again.
fn work(thread: Thread<'_, '_>, number: usize, turn: usize, pages: usize) {
    for (page, addr) in pages_of(number, pages).enumerate() {
        if turn > 0 {
            assert_eq!(thread.read(addr), Ok(mark(number, turn - 1 + page)), "page {page} of {number}, turn {turn}");
        }
        assert_eq!(thread.write(addr, mark(number, turn + page)), Ok(()));
    }
}

#[test]
fn reclaim_at_work_while_ranges_move_and_processes_fork() {
    on_machine_with_swap(4096, 1000, |mem| {
        let space = AddressSpace::new(mem, Limits::default()).unwrap();
        let setup = Thread { space: &space, cpu: CHANGER };
        setup.map(BASE, 8 * CPUS);
        let from = BASE + 4096 * PAGE;
        let to = from + 600 * PAGE;
        setup.map(from, 12);
        (0..12).for_each(|page| setup.write(from + page * PAGE, mark(CHANGER, page)).unwrap());
        run_while_changing(
            &space,
            400,
            |thread, round| {
                let (from, to) = if round % 2 == 0 { (from, to) } else { (to, from) };
                let flags = MAYMOVE | MREMAP_FIXED | if round % 3 == 0 { RELOCATE } else { 0 };
                assert_eq!(thread.space.mremap(from, 12 * PAGE, 12 * PAGE, flags, to), Ok(to));
                if round % 5 == 0 {
                    thread.space.madvise(to, 6 * PAGE, PAGEOUT).unwrap();
                }
                let holds = |space: &AddressSpace<'_, SimPlatform>| {
                    (0..12).for_each(|page| {
                        let mut byte = [0];
                        space.read_bytes(to + page * PAGE, &mut byte).unwrap();
                        assert_eq!(byte, [mark(CHANGER, page)], "page {page}, round {round}");
                    });
                };
                holds(&space);
                if round % 4 == 0 {
                    let child = thread.space.fork().unwrap();
                    holds(&child);
                    child.write_bytes(to, &[99]).unwrap();
                    (0..8 * CPUS).for_each(|page| child.write_bytes(BASE + page * PAGE, &[98]).unwrap());
                    drop(child);
                    holds(&space);
                }
                // So that it can be relocated again.
                thread.write(to, mark(CHANGER, 0)).unwrap();
            },
            |thread, number, turn| {
                if number == RECLAIMER {
                    mem.reclaim(1 + turn % 40);
                } else {
                    work(thread, number, turn, 8);
                }
            },
        );
    });
}

#[test]
fn more_pages_than_memory_on_all_cpus() {
    on_machine_with_swap(256, 4000, |mem| {
        let pages = 300;
        let space = AddressSpace::new(mem, Limits::default()).unwrap();
        Thread { space: &space, cpu: CHANGER }.map(BASE, pages * CPUS);
        run_while_changing(
            &space,
            4,
            |thread, round| work(thread, CHANGER, round, pages),
            |thread, number, turn| work(thread, number, turn, pages),
        );
    });
}

#[test]
fn a_page_that_all_relatives_fault_on_while_it_is_evicted() {
    on_machine_with_swap(2048, 500, |mem| {
        let parent = AddressSpace::new(mem, Limits::default()).unwrap();
        Thread { space: &parent, cpu: CHANGER }.map(BASE, 4);
        for round in 0..300 {
            (0..4).for_each(|page| parent.write_bytes(BASE + page * PAGE, &[mark(page, round)]).unwrap());
            let children: Vec<_> = (0..2).map(|_| parent.fork().unwrap()).collect();
            std::thread::scope(|scope| {
                for (number, space) in children.iter().chain([&parent]).enumerate() {
                    scope.spawn(move || {
                        sim::set_cpu(number);
                        for page in 0..4 {
                            let (addr, mut byte) = (BASE + page * PAGE, [0]);
                            space.read_bytes(addr, &mut byte).unwrap();
                            assert_eq!(byte, [mark(page, round)]);
                            space.write_bytes(addr, &[number as u8]).unwrap();
                            space.read_bytes(addr, &mut byte).unwrap();
                            assert_eq!(byte, [number as u8]);
                        }
                    });
                }
                scope.spawn(|| {
                    sim::set_cpu(CHANGER);
                    for _ in 0..3 {
                        mem.reclaim(8);
                    }
                });
            });
            let all: Vec<_> = children.iter().chain([&parent]).collect();
            crate::verify_all(&all);
        }
    });
}
