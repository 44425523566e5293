//! What a second thread is worth to the crate itself: faults and changes of the map, called
//! as a kernel calls them, by threads of the host.
//!
//! The program of the same name does this under QEMU, where the emulator's own lock, taken for each
//! page fault, decides. Here is no emulator, no trap and no TLB; what is left is
//! the crate's locks, its counters and the zeroing of pages. Prints operations
//! of all threads together per second, in the best of many rounds, with one thread and with two.

use std::alloc::{Layout, alloc, handle_alloc_error};
use std::cell::Cell;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use mm::{
    AddressSpace, CpuSet, CpuTlb, FaultAccess, Limits, MapFlags, Memory, MmapRequest, PAGE_SIZE, PhysAddr, PhysRange,
    Platform, Prot, TlbFlush,
};

const THREADS: usize = 2;
/// Pages that each thread faults in, in a round.
const PAGES: usize = 512;
/// Rounds of which the best counts.
const ROUNDS: usize = 500;
const RAM: usize = 256 << 20;
const RAM_START: u64 = 0x10_0000;
/// `MADV_DONTNEED`.
const DONTNEED: usize = 4;

thread_local! {
    static CPU: Cell<usize> = const { Cell::new(0) };
}

/// Memory of the process, and a CPU for each thread.
struct Machine {
    ram: usize,
}

// SAFETY: the direct map is linear and covers all RAM. Nothing ever runs with the page
// tables, so there is no TLB. `CPU` is below THREADS.
unsafe impl Platform for Machine {
    fn phys_to_virt(&self, phys: PhysAddr) -> *mut u8 {
        core::ptr::with_exposed_provenance_mut(self.ram + (phys.as_u64() - RAM_START) as usize)
    }

    fn current_cpu(&self) -> usize {
        CPU.get()
    }

    fn cpu_count(&self) -> usize {
        THREADS
    }

    fn flush_tlb(&self, _targets: CpuSet, _flush: TlbFlush) {}

    fn relax(&self) {
        spin_loop();
    }

    fn random(&self) -> u64 {
        4
    }
}

type Space<'m> = AddressSpace<'m, Machine>;

fn memory() -> Memory<Machine> {
    let layout = Layout::from_size_align(RAM, 2 << 20).expect("the size is a constant");
    // SAFETY: the size is not 0.
    let ram = unsafe { alloc(layout) };
    if ram.is_null() {
        handle_alloc_error(layout);
    }
    let whole = PhysRange { start: PhysAddr::new(RAM_START), end: PhysAddr::new(RAM_START + RAM as u64) };
    // SAFETY: the RAM was allocated for this alone, and is never freed.
    unsafe { Memory::new(Machine { ram: ram.expose_provenance() }, &[whole], None) }.expect("the RAM is enough")
}

fn map(space: &Space, pages: usize) -> usize {
    let request = MmapRequest {
        addr: 0,
        len: pages * PAGE_SIZE,
        prot: (Prot::READ | Prot::WRITE).bits() as usize,
        flags: (MapFlags::PRIVATE | MapFlags::ANONYMOUS).bits() as usize,
        file: None,
        offset: 0,
    };
    space.mmap(request).expect("there is room")
}

fn touch(space: &Space, addr: usize, pages: usize, step: usize) {
    for page in (0..pages).step_by(step) {
        space.handle_fault(addr + page * PAGE_SIZE, FaultAccess::WRITE).expect("there is memory");
    }
}

fn discard(space: &Space, addr: usize, pages: usize) {
    space.madvise(addr, pages * PAGE_SIZE, DONTNEED).expect("it is mapped");
}

/// Waits until all threads have come here for the `turn`-th time.
fn meet(arrived: &AtomicUsize, threads: usize, turn: usize) {
    arrived.fetch_add(1, SeqCst);
    while arrived.load(SeqCst) < turn * threads {
        spin_loop();
    }
}

/// The least time that all threads together take for `work`, which is given the thread's
/// number, as is `teardown`, which is not measured.
fn measure(space: &Space, threads: usize, work: impl Fn(usize) + Sync, teardown: impl Fn(usize) + Sync) -> Duration {
    let arrived = AtomicUsize::new(0);
    let run = |number: usize| {
        CPU.set(number);
        let tlb = CpuTlb::new();
        space.enter(number, &tlb);
        let time = |round: usize| {
            meet(&arrived, threads, 2 * round + 1);
            let start = Instant::now();
            work(number);
            meet(&arrived, threads, 2 * round + 2);
            let took = start.elapsed();
            teardown(number);
            took
        };
        let least = (0..ROUNDS).map(time).min().unwrap_or_default();
        space.leave(number, &tlb);
        least
    };
    thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = (0..threads).map(|number| scope.spawn(move || run(number))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no thread panics")).max().unwrap_or_default()
    })
}

/// Operations per second of each row.
fn rates(threads: usize) -> Vec<(&'static str, f64)> {
    let memory = memory();
    let space = &AddressSpace::new(&memory, Limits::default()).expect("there is memory");
    let mut rates = Vec::new();
    let mut row = |name, operations: usize, time: Duration| rates.push((name, operations as f64 / time.as_secs_f64()));

    let ranges: Vec<usize> = (0..threads).map(|_| map(space, PAGES)).collect();
    let time = measure(
        space,
        threads,
        |number| touch(space, ranges[number], PAGES, 1),
        |number| discard(space, ranges[number], PAGES),
    );
    row("faults_own_range", threads * PAGES, time);

    let shared = map(space, threads * PAGES);
    let time = measure(
        space,
        threads,
        |number| touch(space, shared + number * PAGE_SIZE, threads * PAGES - number, threads),
        |number| {
            if number == 0 {
                discard(space, shared, threads * PAGES);
            }
        },
    );
    row("faults_shared_range", threads * PAGES, time);

    for (name, pages) in [("mmap_touch_munmap_4k", 1), ("mmap_touch_munmap_64k", 16), ("mmap_touch_munmap_1m", 256)] {
        let cycles = PAGES / pages;
        let cycle = |_| {
            for _ in 0..cycles {
                let addr = map(space, pages);
                touch(space, addr, pages, 1);
                space.munmap(addr, pages * PAGE_SIZE).expect("it is mapped");
            }
        };
        row(name, threads * cycles, measure(space, threads, cycle, |_| {}));
    }
    rates
}

fn main() {
    println!("{:<24} {:>12} {:>12} {:>6}", "operations per second", "1 thread", "2 threads", "ratio");
    for ((name, one), (_, two)) in rates(1).into_iter().zip(rates(THREADS)) {
        println!("{name:<24} {one:>12.0} {two:>12.0} {:>6.2}", two / one);
    }
}
