//! Random operations against the [model](super::model), everything checked
//! after each one: result, map, counters, contents as a program sees them
//! through its TLB, and [`verify_all`].
//!
//! The processes take turns on two CPUs with PCIDs. One of them reads every page
//! after each operation, the other tries to write, so whatever a TLB may hold, it
//! holds; a flush that is missing shows at once.
//!
//! Pages are reclaimed now and then, so that all that is done is done to pages in
//! swap as well. What is there is compared with the model without bringing it back. And
//! they are moved to other frames.
//!
//! Equal pages are merged now and then, which nobody may notice. There are some: what a program writes
//! to several pages at once is the same in all of them.
//!
//! A second test does the same with every allocation of every operation
//! failing first, and no swap to get memory by: nothing may change by that.

mod op;
mod process;

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::time::Instant;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use self::op::{How, Kind, Len, Op, Place, op};
use self::process::{CPUS, Process, mapping_base};
use super::model::{self, Machine};
use super::snapshot::Snapshot;
use super::{BASE, PAGE};
use crate::sim::{self, SimPlatform};
use crate::space::verify_all;
use crate::{
    AddressSpace, Errno, FOLIO_ORDERS, FolioPolicy, FrameKind, HugePages, Limits, MappedFile, Memory, MmapRequest,
    ObjectRef, PMD_SIZE, PUD_SIZE, VmaFlags,
};

/// Operations that a run of the tests does, about.
const OPERATIONS: usize = 120_000;
/// The same, of those with failing allocations.
const FAILING_OPERATIONS: usize = 15_000;
const PER_CASE: Range<usize> = 60..140;
/// Threads that do them.
const WORKERS: usize = 2;

const MAX_PROCESSES: usize = 3;
/// Now and then there are more pages than that.
const SWAP_SLOTS: u32 = 300;
/// More pages than a process shall have.
const MANY_PAGES: usize = 5000;
/// Pages of a file; mappings reach beyond.
const FILE_PAGES: usize = 24;
const HEAP: usize = BASE + (64 << 20);
/// Parts of the address space where things happen, 32 pages each: one that is
/// nothing special, then some around boundaries of page tables, congruent to
/// each other; the heap; where 2 MiB begin, and huge pages fit.
const WINDOWS: [usize; 7] = [
    BASE,
    PUD_SIZE - 16 * PAGE,
    PUD_SIZE + 3 * PMD_SIZE - 16 * PAGE,
    (1 << 39) - 16 * PAGE,
    (1 << 39) + PUD_SIZE + PMD_SIZE - 16 * PAGE,
    HEAP,
    8 * PUD_SIZE,
];

/// That of them where huge pages fit.
const HUGE_WINDOW: usize = 6;

/// All processes and files of a machine.
struct World<'m> {
    mem: &'m Memory<SimPlatform>,
    machine: Machine,
    files: Vec<ObjectRef<'m, SimPlatform>>,
    processes: [Option<Process<'m>>; MAX_PROCESSES],
    current: usize,
    next_value: u64,
    /// Whether allocations are made to fail.
    failing: bool,
}

type Outcome = Result<usize, Errno>;

impl<'m> World<'m> {
    fn new(mem: &'m Memory<SimPlatform>, failing: bool) -> World<'m> {
        let mut machine = Machine::default();
        let files = (0..2)
            .map(|number| {
                let file = mem.create_object(number + 1, b"/file").unwrap();
                file.set_size((FILE_PAGES * PAGE) as u64).unwrap();
                machine.objects.push(model::Object { id: number + 1, size: FILE_PAGES, contents: Default::default() });
                file
            })
            .collect();
        let space = AddressSpace::new(mem, Limits::default()).unwrap();
        space.set_program_end(HEAP);
        // Where the first mapping goes.
        let top = mapping_base(&space);
        let model = model::Space::new(Limits::default(), top / PAGE, HEAP);
        let mut processes = [const { None }; MAX_PROCESSES];
        processes[0] = Some(Process::new(space, model, failing));
        World { mem, machine, files, processes, current: 0, next_value: 1, failing }
    }

    fn step(&mut self, op: &Op) {
        if self.next_value.is_multiple_of(3) {
            // Flushes go past the CPUs, which have to notice when they return.
            self.processes.iter().flatten().for_each(Process::stop);
        }
        match *op {
            Op::Fork => self.fork(),
            Op::Exit => self.exit(),
            Op::Switch(number) => {
                if self.processes[number].is_some() {
                    self.current = number;
                }
            }
            Op::Reclaim(frames) => {
                self.mem.reclaim(frames);
                self.settle();
            }
            Op::Migrate(part) => {
                if let Some(process) = &mut self.processes[self.current] {
                    process.migrate(part);
                }
            }
            Op::HugePages(mode) => self.mem.sysctl().set_huge_pages(mode),
            Op::Folios(order, policy) => self.mem.sysctl().set_folio_policy(order, policy),
            Op::Compact => self.mem.compact_all(),
            Op::Merge(pages) => {
                self.mem.ksm_scan(pages);
            }
            Op::ClearRefs(what) => {
                if let Some(process) = &mut self.processes[self.current] {
                    process.clear_refs(what);
                }
            }
            Op::WriteFile(file, page) => {
                let value = self.fresh_value();
                let offset = (page * PAGE) as u64;
                self.files[file].write(offset, &value.to_ne_bytes()).unwrap();
                let object = &mut self.machine.objects[file];
                object.contents.insert(page, value);
                object.size = object.size.max(page + 1);
            }
            Op::Truncate(file, pages) => {
                let size = (pages * PAGE) as u64;
                self.files[file].set_size(size).unwrap();
                let object = &mut self.machine.objects[file];
                object.size = pages;
                object.contents.retain(|&page, _| page < pages);
                self.processes.iter_mut().flatten().for_each(|process| process.model.cut_off(file, pages));
            }
            Op::PunchHole(file, first, pages) => {
                self.files[file].punch_hole((first * PAGE) as u64, ((first + pages) * PAGE) as u64);
                self.machine.objects[file].contents.retain(|&page, _| !(first..first + pages).contains(&page));
                self.processes.iter_mut().flatten().for_each(|p| p.model.punch_hole(file, first..first + pages));
            }
            _ => self.call(op),
        }
        self.processes.iter_mut().flatten().for_each(Process::settle_large);
        // The others change with this one only by mistake; a look now and
        // then finds that as well. This one comes last, and runs then.
        let others = (1..MAX_PROCESSES).filter(|_| self.next_value.is_multiple_of(4));
        for distance in others.chain([MAX_PROCESSES]) {
            if let Some(process) = &mut self.processes[(self.current + distance) % MAX_PROCESSES] {
                process.check(&self.machine);
            }
        }
        let spaces: Vec<_> = self.processes.iter().flatten().map(|p| &p.space).collect();
        verify_all(&spaces);
    }

    /// Something has been reclaimed.
    fn settle(&mut self) {
        self.processes.iter_mut().flatten().for_each(Process::settle);
    }

    fn fresh_value(&mut self) -> u64 {
        self.next_value += 1;
        self.next_value
    }

    fn fork(&mut self) {
        let Some(free) = self.processes.iter().position(Option::is_none) else {
            return;
        };
        if let Some(parent) = &mut self.processes[self.current] {
            let fork = || parent.space.fork().map_err(Errno::from);
            let child = parent.attempt(true, Snapshot::seen_by_a_program, fork).unwrap();
            let child = Process::new(child, parent.model.fork(), self.failing);
            // Parent's TLB entries are not to be trusted any more.
            parent.check(&self.machine);
            self.processes[free] = Some(child);
            self.current = free;
        }
    }

    /// The last process stays, with nothing mapped.
    fn exit(&mut self) {
        let others = self.processes.iter().flatten().count() - 1;
        if others == 0 {
            let space = AddressSpace::new(self.mem, Limits::default()).unwrap();
            space.set_program_end(HEAP);
            let top = mapping_base(&space);
            let model = model::Space::new(Limits::default(), top / PAGE, HEAP);
            self.processes[self.current] = None;
            self.processes[self.current] = Some(Process::new(space, model, self.failing));
        } else {
            self.processes[self.current] = None;
            self.current = self.processes.iter().position(Option::is_some).unwrap();
        }
    }

    /// Does one system call, or accesses, on both sides.
    fn call(&mut self, op: &Op) {
        let value = self.fresh_value();
        let Some(process) = &mut self.processes[self.current] else {
            return;
        };
        let areas = process.areas();
        let resolve = |place: Place| match place {
            Place::Window(window, page) => WINDOWS[window] + page * PAGE,
            Place::Vma(number, page) => {
                let Some(count) = std::num::NonZero::new(areas.len()) else {
                    return BASE;
                };
                let area = areas[number % count];
                let from = if page < 0 { area.end } else { area.start };
                from.wrapping_add_signed(page) * PAGE
            }
        };
        let machine = &mut self.machine;
        let model = &mut process.model;
        let space = &process.space;
        let number = |result: Result<usize, crate::SpaceError>| result.map_err(Errno::from);
        let nothing = |result: Result<(), crate::SpaceError>| number(result.map(|()| 0));
        let large = |len: Len| len.0 > 400 && model.pages.len() > MANY_PAGES;
        // Pages that must be there afterwards.
        let mut resident = 0..0;
        // A call that goes on VMA by VMA may have come so far.
        let whole = |snapshot: Snapshot| Some(snapshot);
        let piecewise = |addr: usize, len: Len| {
            let range = addr / PAGE..addr / PAGE + len.0;
            let pieces = areas.iter().filter(|area| area.start < range.end && range.start < area.end);
            let count = pieces.count();
            move |snapshot: Snapshot| (count < 2).then_some(snapshot)
        };
        let started = |_: Snapshot| ();
        // What is populated at once is allowed to fail, and says nothing of it.
        let populates = model.locked() != 0 || !model.future.is_empty();
        let (expected, found): (Outcome, Outcome) = match *op {
            Op::Mmap { len, .. } if large(len) => return,
            Op::Mremap { new, .. } if large(new) => return,
            Op::Mmap { at, len, prot, kind, how, flags } => {
                let addr = if how == How::Anywhere { 0 } else { resolve(at) };
                let (shared, file) = match kind {
                    Kind::Private => (false, None),
                    Kind::Shared => (true, None),
                    Kind::File(file, page, shared) => (shared, Some((file, page))),
                };
                let request = model::Mmap {
                    addr,
                    len: len.bytes(),
                    prot,
                    shared,
                    file,
                    fixed: how == How::Fixed,
                    no_replace: how == How::NoReplace,
                    locked: flags & 0x2000 != 0,
                    no_reserve: flags & 0x4000 != 0,
                    stack: flags & 0x2_0000 != 0,
                    grows_down: flags & 0x100 != 0,
                };
                let expected = model.mmap(machine, &areas, request);
                if let Ok(start) = expected {
                    let range = start / PAGE..start / PAGE + len.0;
                    let locked = model.pages[&range.start].has(VmaFlags::LOCKED);
                    if (flags & 0x8000 != 0 || locked) && model.fill(machine, range.clone()).is_ok() {
                        resident = range;
                    }
                }
                let type_flags = match how {
                    How::Fixed => 0x10,
                    How::NoReplace => 0x10_0000,
                    _ => 0,
                } | if shared { 1 } else { 2 }
                    | if file.is_some() { 0 } else { 0x20 };
                let call = || {
                    number(space.mmap(MmapRequest {
                        addr,
                        len: len.bytes(),
                        prot,
                        flags: flags | type_flags,
                        file: file.map(|(file, _)| MappedFile {
                            object: &self.files[file],
                            readable: true,
                            writable: true,
                        }),
                        offset: file.map_or(0, |(_, page)| page * PAGE),
                    }))
                };
                let quiet = flags & (0x8000 | 0x2000) == 0 && !populates;
                (expected, process.attempt(quiet, whole, call))
            }
            Op::Munmap(at, len) => {
                let (addr, len) = (resolve(at), len.bytes());
                let expected = model.munmap(addr, len);
                (expected, process.attempt(true, whole, || nothing(space.munmap(addr, len))))
            }
            Op::Mprotect(at, len, prot) => {
                let view = piecewise(resolve(at), len);
                let (addr, len) = (resolve(at), len.bytes());
                let expected = model.mprotect(machine, &areas, addr, len, prot);
                (expected, process.attempt(!populates, view, || nothing(space.mprotect(addr, len, prot))))
            }
            Op::Mremap { at, old, new, flags, to } => {
                let (addr, to) = (resolve(at), resolve(to));
                let single =
                    areas.iter().any(|area| area.start * PAGE <= addr && addr + old.0 * PAGE <= area.end * PAGE);
                let (old, new) = (old.bytes(), new.bytes());
                let relocate = if flags & 1 != 0 { 8 } else { 0 };
                let expected = model.mremap(&areas, addr, old, new, flags & !relocate, to);
                if let Ok(start) = expected
                    && new.div_ceil(PAGE) > old.div_ceil(PAGE)
                {
                    let grown = start / PAGE + old.div_ceil(PAGE)..start / PAGE + new.div_ceil(PAGE);
                    if model.pages[&grown.start].has(VmaFlags::LOCKED) && model.fill(machine, grown.clone()).is_ok() {
                        resident = grown;
                    }
                }
                let call = || number(space.mremap(addr, old, new, flags, to));
                // A move of several VMAs that stops half way cannot be tried again.
                let once = flags & 2 == 0 || old.div_ceil(PAGE) != new.div_ceil(PAGE) || single;
                (expected, process.attempt(once && !populates, whole, call))
            }
            Op::Madvise(at, len, advice) => {
                let view = piecewise(resolve(at), len);
                let (addr, len) = (resolve(at), len.bytes());
                let expected = model.madvise(machine, &areas, addr, len, advice);
                let call = || nothing(space.madvise(addr, len, advice));
                // Pages that have been given back stay given back.
                if matches!(advice, 13 | 22 | 23) {
                    (expected, process.attempt(true, started, call))
                } else {
                    (expected, process.attempt(true, view, call))
                }
            }
            Op::Mlock(at, len, on_fault) => {
                let (addr, len) = (resolve(at) + 7, len.bytes());
                let expected = model.mlock(machine, addr, len, on_fault);
                if expected.is_ok() {
                    resident = addr / PAGE..(addr + len).div_ceil(PAGE);
                }
                (expected, process.attempt(true, started, || nothing(space.mlock(addr, len, on_fault.into()))))
            }
            Op::Munlock(at, len) => {
                let view = piecewise(resolve(at), len);
                let (addr, len) = (resolve(at), len.bytes());
                let expected = model.munlock(addr, len);
                (expected, process.attempt(true, view, || nothing(space.munlock(addr, len))))
            }
            Op::Mlockall(flags) => {
                let expected = model.mlockall(flags);
                if expected.is_ok() && flags & 1 != 0 {
                    for area in &areas {
                        let _ = model.fill(machine, area.start..area.end);
                    }
                }
                (expected, nothing(space.mlockall(flags)))
            }
            Op::Munlockall => {
                model.munlockall();
                space.munlockall();
                (Ok(0), Ok(0))
            }
            Op::Mseal(at, len) => {
                let view = piecewise(resolve(at), len);
                let (addr, len) = (resolve(at), len.bytes());
                let expected = model.mseal(&areas, addr, len);
                (expected, process.attempt(true, view, || nothing(space.mseal(addr, len, 0))))
            }
            Op::Brk(at) => {
                let addr = resolve(at) + 100;
                let old = model.brk;
                let expected = model.brk(&areas, addr);
                if expected > old && model.future.contains(VmaFlags::LOCKED) {
                    resident = old.div_ceil(PAGE)..expected.div_ceil(PAGE);
                    let _ = model.fill(machine, resident.clone());
                }
                // Without a word, the end of the heap stays.
                let call =
                    || Ok(space.brk(addr)).and_then(|end| if end == expected { Ok(end) } else { Err(Errno::ENOMEM) });
                (Ok(expected), process.attempt(!populates, whole, call))
            }
            Op::Limit(which, pages) => {
                let bytes = pages.saturating_mul(PAGE as u64);
                let mut limits = model.limits;
                match which {
                    0 => limits.address_space = bytes,
                    1 => limits.data = bytes,
                    2 => limits.memlock = bytes,
                    _ => limits.stack = bytes.min(8 << 20),
                }
                model.limits = limits;
                space.set_limits(limits);
                (Ok(0), Ok(0))
            }
            Op::Write(at, pages) => {
                process.touch(machine, resolve(at), pages, Some(value << 8));
                (Ok(0), Ok(0))
            }
            Op::Read(at, pages) => {
                process.touch(machine, resolve(at), pages, None);
                (Ok(0), Ok(0))
            }
            Op::Execute(at) => {
                process.execute(machine, resolve(at));
                (Ok(0), Ok(0))
            }
            Op::Collapse(at, len) => {
                let addr = resolve(at);
                let call = || nothing(space.madvise(addr, len.bytes(), 25));
                // Of several, those before the one that fails are done.
                let one = len.0 < 2 * (PMD_SIZE / PAGE);
                let found = process.attempt(true, |now| one.then(|| now.seen_by_a_program()), call);
                if found.is_ok() {
                    process.assert_huge(addr, len.bytes().next_multiple_of(PAGE));
                }
                // Nothing that a program sees depends on whether it was done.
                let refused = [Err(Errno::EINVAL), Err(Errno::EAGAIN), Err(Errno::ENOMEM)].contains(&found);
                (if refused { found } else { Ok(0) }, found)
            }
            Op::Fork | Op::Exit | Op::Switch(_) | Op::WriteFile(..) | Op::Reclaim(_) => (Ok(0), Ok(0)),
            Op::Migrate(_) | Op::Compact | Op::HugePages(_) | Op::Truncate(..) | Op::PunchHole(..) => (Ok(0), Ok(0)),
            Op::Folios(..) | Op::Merge(_) | Op::ClearRefs(_) => (Ok(0), Ok(0)),
        };
        assert_eq!(found, expected, "{op:?}");
        process.assert_resident(machine, resident);
        if matches!(op, Op::Madvise(..)) {
            self.settle();
        }
    }
}

/// Says during which operation a test fails.
struct Note<'a>(&'a Op);

impl Drop for Note<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in {:?}", self.0);
        }
    }
}

thread_local! {
    /// The machine of the last sequence, if that left it as it was: one takes
    /// longer to make than a sequence to run.
    static MACHINE: RefCell<Option<Memory<SimPlatform>>> = const { RefCell::new(None) };
}

/// Runs one sequence from an empty machine, and checks that nothing of it is
/// left in the end.
fn run(ops: &[Op], failing: bool) {
    let mem = MACHINE.take().unwrap_or_else(|| {
        let mem = sim::memory(CPUS, 24 << 10);
        if !failing {
            mem.platform().swap().set_slots(SWAP_SLOTS);
            mem.swap_on().expect("no memory for the books");
        }
        mem.platform().use_pcids();
        mem.sysctl().set_randomize_va_space(0);
        mem
    });
    FOLIO_ORDERS.for_each(|order| mem.sysctl().set_folio_policy(order, FolioPolicy::Never));
    mem.sysctl().set_folio_policy(*FOLIO_ORDERS.end(), FolioPolicy::Inherit);
    // Without huge pages by fault there is more to collapse.
    mem.sysctl().set_huge_pages(if ops.len().is_multiple_of(3) { HugePages::Always } else { HugePages::Madvise });
    let used = || mem.total_frames() - mem.free_frames() - mem.count_frames(FrameKind::Slab);
    let before = (used(), 0, 0);
    let left = || (used(), mem.swap_stats().used, mem.platform().swap().stored());
    let mut world = World::new(&mem, failing);
    for op in ops {
        let _note = Note(op);
        world.step(op);
    }
    drop(world);
    assert_eq!(left(), before, "frames or swap slots left");
    assert_eq!(mem.committed(), 0, "commit charge left");
    MACHINE.set(Some(mem));
}

/// Runs random sequences of about so many operations together, from a fresh
/// seed that is printed, or from that in `MM_SEED`. One that fails is made as
/// short as possible and printed.
fn run_sequences(operations: usize, failing: bool) {
    let cases = operations / WORKERS / PER_CASE.start.midpoint(PER_CASE.end) + 1;
    let start = Instant::now();
    let seed = match std::env::var("MM_SEED") {
        Ok(seed) => seed.parse().expect("MM_SEED is not a number"),
        Err(_) => RandomState::new().hash_one(operations),
    };
    println!("MM_SEED={seed}");
    let worker = |number: usize| {
        let done = Cell::new(0);
        let config = ProptestConfig {
            cases: cases as u32,
            max_shrink_iters: 300,
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        let sequence = prop::collection::vec(op(), PER_CASE);
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8] = number as u8;
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let result = TestRunner::new_with_rng(config, rng).run(&sequence, |ops| {
            run(&ops, failing);
            done.set(done.get() + ops.len());
            Ok(())
        });
        if let Err(failure) = result {
            panic!("{failure}");
        }
        done.get()
    };
    let done: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|number| scope.spawn(move || worker(number))).collect();
        workers.into_iter().map(|worker| worker.join().expect("a sequence failed")).sum()
    });
    let seconds = start.elapsed().as_secs_f64();
    println!("{done} operations, {:.0} a second", done as f64 / seconds);
    assert!(done >= operations - operations / 10, "only {done} operations");
}

#[test]
fn random_operations_do_what_the_model_does() {
    run_sequences(OPERATIONS, false);
}

#[test]
fn random_operations_survive_the_failure_of_each_allocation() {
    run_sequences(FAILING_OPERATIONS, true);
}
