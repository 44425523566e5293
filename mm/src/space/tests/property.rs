//! Random operations against the [model](super::model), everything checked
//! after each one: result, map, counters, contents as a program sees them
//! through its TLB, and [`verify_all`].
//!
//! Each process runs on two CPUs. One of them reads every page after each
//! operation, the other tries to write, so whatever a TLB may hold, it holds;
//! a flush that is missing shows at once.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::model::{self, Area, Machine};
use super::{BASE, PAGE};
use crate::sim::{self, Access, SimPlatform};
use crate::space::verify_all;
use crate::{
    AddressSpace, Errno, FaultAccess, FaultError, FrameKind, Limits, MappedFile, Memory, MmapRequest, ObjectRef,
    PMD_SIZE, PUD_SIZE, VmaFlags,
};

/// Operations that every run of the tests does at least, all tests together.
const OPERATIONS: usize = 110_000;
const PER_CASE: Range<usize> = 60..140;

const MAX_PROCESSES: usize = 3;
/// More pages than a process shall have.
const MANY_PAGES: usize = 5000;
/// Pages of a file; mappings reach beyond.
const FILE_PAGES: usize = 24;
const HEAP: usize = BASE + (64 << 20);
/// Parts of the address space where things happen, 32 pages each: one that is
/// nothing special, then some around boundaries of page tables, congruent to
/// each other; the heap.
const WINDOWS: [usize; 6] = [
    BASE,
    PUD_SIZE - 16 * PAGE,
    PUD_SIZE + 3 * PMD_SIZE - 16 * PAGE,
    (1 << 39) - 16 * PAGE,
    (1 << 39) + PUD_SIZE + PMD_SIZE - 16 * PAGE,
    HEAP,
];

/// Where an operation takes place.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// So many pages into a window.
    Window(usize, usize),
    /// So many pages into the n-th VMA, from its start or from its end.
    Vma(usize, isize),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    Fixed,
    NoReplace,
    Hint,
    Anywhere,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Private,
    Shared,
    /// Number, first page, shared.
    File(usize, usize, bool),
}

/// A length in pages, and how many bytes it falls short of that.
#[derive(Clone, Copy, Debug)]
struct Len(usize, usize);

impl Len {
    fn bytes(self) -> usize {
        (self.0 * PAGE).saturating_sub(self.1)
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Mmap {
        at: Place,
        len: Len,
        prot: usize,
        kind: Kind,
        how: How,
        /// Of `MAP_LOCKED`, `MAP_NORESERVE`, `MAP_POPULATE`, `MAP_STACK`, `MAP_GROWSDOWN`.
        flags: usize,
    },
    Munmap(Place, Len),
    Mprotect(Place, Len, usize),
    Mremap {
        at: Place,
        old: Len,
        new: Len,
        flags: usize,
        to: Place,
    },
    Madvise(Place, Len, usize),
    Mlock(Place, Len, bool),
    Munlock(Place, Len),
    Mlockall(usize),
    Munlockall,
    Mseal(Place, Len),
    Brk(Place),
    Limit(usize, u64),
    Write(Place, usize),
    Read(Place, usize),
    Execute(Place),
    WriteFile(usize, usize),
    Fork,
    Exit,
    Switch(usize),
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        3 => (0..WINDOWS.len(), 0..32usize).prop_map(|(window, page)| Place::Window(window, page)),
        1 => (0..WINDOWS.len()).prop_map(|window| Place::Window(window, 0)),
        4 => (any::<usize>(), 0..4isize).prop_map(|(vma, page)| Place::Vma(vma, page)),
        2 => (any::<usize>(), -6..0isize).prop_map(|(vma, page)| Place::Vma(vma, page)),
    ]
}

fn len() -> impl Strategy<Value = Len> {
    let pages = prop_oneof![
        1 => Just(0usize),
        30 => 1..12usize,
        10 => 12..40usize,
        1 => prop_oneof![Just(512), Just(513), Just(1024), 500..530usize],
    ];
    let slack = prop_oneof![6 => Just(0usize), 1 => Just(1), 1 => Just(PAGE - 1)];
    (pages, slack).prop_map(|(pages, slack)| Len(pages, slack))
}

fn prot() -> impl Strategy<Value = usize> {
    prop_oneof![6 => Just(3usize), 2 => Just(1), 1 => Just(0), 1 => 0..8usize]
}

fn kind() -> impl Strategy<Value = Kind> {
    let file = (0..2usize, 0..30usize, any::<bool>());
    prop_oneof![
        7 => Just(Kind::Private),
        2 => Just(Kind::Shared),
        2 => file.prop_map(|(file, page, shared)| Kind::File(file, page, shared)),
    ]
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![
        4 => Just(How::Fixed),
        1 => Just(How::NoReplace),
        1 => Just(How::Hint),
        2 => Just(How::Anywhere),
    ]
}

fn map_flags() -> impl Strategy<Value = usize> {
    let flag = |flag: usize, weight: f64| prop::bool::weighted(weight).prop_map(move |set| if set { flag } else { 0 });
    (flag(0x2000, 0.1), flag(0x4000, 0.1), flag(0x8000, 0.2), flag(0x2_0000, 0.05), flag(0x100, 0.05))
        .prop_map(|(a, b, c, d, e)| a | b | c | d | e)
}

fn op() -> impl Strategy<Value = Op> {
    let advice = prop_oneof![
        4 => Just(4usize),
        1 => Just(24),
        2 => 22..24usize,
        4 => 0..26usize,
    ];
    let limit = prop_oneof![2 => Just(u64::MAX), 1 => 0..400u64, 1 => 0..40u64];
    prop_oneof![
        16 => (place(), len(), prot(), kind(), how(), map_flags())
            .prop_map(|(at, len, prot, kind, how, flags)| Op::Mmap { at, len, prot, kind, how, flags }),
        7 => (place(), len()).prop_map(|(at, len)| Op::Munmap(at, len)),
        9 => (place(), len(), prot()).prop_map(|(at, len, prot)| Op::Mprotect(at, len, prot)),
        // Equal lengths, which is what most flags ask for.
        10 => (place(), len(), 0..8usize, place())
            .prop_map(|(at, len, flags, to)| Op::Mremap { at, old: len, new: len, flags, to }),
        8 => (place(), len(), len(), 0..4usize, place())
            .prop_map(|(at, old, new, flags, to)| Op::Mremap { at, old, new, flags, to }),
        1 => (place(), len(), len(), 0..17usize, place())
            .prop_map(|(at, old, new, flags, to)| Op::Mremap { at, old, new, flags, to }),
        6 => (place(), len(), advice).prop_map(|(at, len, advice)| Op::Madvise(at, len, advice)),
        3 => (place(), len(), any::<bool>()).prop_map(|(at, len, on_fault)| Op::Mlock(at, len, on_fault)),
        2 => (place(), len()).prop_map(|(at, len)| Op::Munlock(at, len)),
        1 => (place(), len()).prop_map(|(at, len)| Op::Mseal(at, len)),
        1 => (0..9usize).prop_map(Op::Mlockall),
        1 => Just(Op::Munlockall),
        3 => (0..48usize).prop_map(|page| Op::Brk(Place::Window(5, page))),
        1 => (0..4usize, limit).prop_map(|(which, pages)| Op::Limit(which, pages)),
        20 => (place(), 1..12usize).prop_map(|(at, pages)| Op::Write(at, pages)),
        8 => (place(), 1..12usize).prop_map(|(at, pages)| Op::Read(at, pages)),
        1 => place().prop_map(Op::Execute),
        1 => (0..2usize, 0..FILE_PAGES).prop_map(|(file, page)| Op::WriteFile(file, page)),
        4 => Just(Op::Fork),
        2 => Just(Op::Exit),
        4 => (0..MAX_PROCESSES).prop_map(Op::Switch),
    ]
}

/// A process and what it should be.
struct Process<'m> {
    space: AddressSpace<'m, SimPlatform>,
    model: model::Space,
    /// Reads on this one, writes on the next.
    cpu: usize,
    /// Pages that have ever been mapped.
    seen: std::collections::BTreeSet<usize>,
}

impl<'m> Process<'m> {
    fn new(space: AddressSpace<'m, SimPlatform>, model: model::Space, number: usize) -> Self {
        let cpu = 2 * number;
        for cpu in [cpu, cpu + 1] {
            space.activate(cpu);
            space.memory().platform().load_root(cpu, space.root());
        }
        Process { space, model, cpu, seen: Default::default() }
    }

    fn areas(&self) -> Vec<Area> {
        let mut areas = Vec::new();
        self.space.for_each_vma(|vma| {
            areas.push(Area {
                start: vma.start / PAGE,
                end: vma.end / PAGE,
                faulted: vma.faulted,
                grows_down: vma.flags.contains(VmaFlags::GROWSDOWN),
            });
        });
        areas
    }

    /// The page with that address as a program sees it on `cpu`, without faulting it in.
    fn look(&self, cpu: usize, page: usize, access: Access) -> Option<u64> {
        let sim = self.space.memory().platform();
        let phys = sim.translate(cpu, self.space.root(), page * PAGE, access).ok()?;
        let pointer = crate::Platform::phys_to_virt(sim, phys).cast::<u64>();
        // SAFETY: the page is in the simulated RAM, and nobody writes to it now.
        Some(unsafe { pointer.read() })
    }

    fn check(&mut self, machine: &Machine) {
        self.check_map(machine);
        self.check_counters();
        self.check_contents(machine);
    }

    fn check_map(&self, machine: &Machine) {
        let mut expected = self.model.pages.iter();
        self.space.for_each_vma(|vma| {
            for page in vma.start / PAGE..vma.end / PAGE {
                let is_like = |(&at, found): (&usize, &model::Page)| {
                    let object = found.object.map(|(number, index)| (machine.objects[number].id, index));
                    let index = vma.offset as usize / PAGE + page - vma.start / PAGE;
                    at == page
                        && found.flags == vma.flags - VmaFlags::SOFTDIRTY
                        && object == vma.object.map(|(id, _)| (id, index))
                };
                let next = expected.next();
                assert!(next.is_some_and(is_like), "page {page:#x} is mapped as {vma:?}, and should be {next:?}");
            }
        });
        let missing = expected.next();
        assert!(missing.is_none(), "not mapped: {missing:?}");
    }

    fn check_counters(&self) {
        let stats = self.space.stats();
        let model = &self.model;
        assert_eq!(stats.total_vm, model.pages.len(), "total_vm");
        assert_eq!(stats.data_vm, model.data(), "data_vm");
        assert_eq!(stats.locked_vm, model.locked(), "locked_vm");
        assert_eq!(stats.brk, model.brk, "brk");
        let privately = model.count(|page| page.private.is_some());
        assert_eq!(stats.rss_anon, privately, "resident private pages");
    }

    fn check_contents(&mut self, machine: &Machine) {
        self.seen.extend(self.model.pages.keys());
        for &at in &self.seen {
            let Some(page) = self.model.pages.get(&at) else {
                let found = self.look(self.cpu, at, Access::Read);
                assert_eq!(found, None, "page {at:#x} can still be read");
                continue;
            };
            let accessible = page.flags.intersects(VmaFlags::ACCESS);
            match self.look(self.cpu, at, Access::Read) {
                Some(value) => {
                    assert!(accessible, "page {at:#x} can be read");
                    assert_eq!(value, self.model.value(machine, at), "page {at:#x}");
                }
                None => assert!(!accessible || page.private.is_none(), "page {at:#x} has gone"),
            }
            if let Some(value) = self.look(self.cpu + 1, at, Access::Write) {
                let own = page.private.is_some() || page.has(VmaFlags::SHARED);
                assert!(page.has(VmaFlags::WRITE) && own, "page {at:#x} can be written");
                assert_eq!(value, self.model.value(machine, at), "page {at:#x}");
            }
        }
        if self.seen.len() > 2 * MANY_PAGES {
            self.seen.retain(|at| self.model.pages.contains_key(at));
        }
    }

    fn assert_resident(&self, machine: &Machine, range: Range<usize>) {
        for (&at, page) in self.model.pages.range(range) {
            if page.flags.intersects(VmaFlags::ACCESS)
                && !page.has(VmaFlags::LOCKONFAULT)
                && !model::beyond_end(machine, page)
            {
                let found = self.look(self.cpu, at, Access::Read);
                assert!(found.is_some(), "page {at:#x} is not resident");
            }
        }
    }
}

impl Drop for Process<'_> {
    fn drop(&mut self) {
        self.space.deactivate(self.cpu);
        self.space.deactivate(self.cpu + 1);
    }
}

/// All processes and files of a machine.
struct World<'m> {
    mem: &'m Memory<SimPlatform>,
    machine: Machine,
    files: Vec<ObjectRef<'m, SimPlatform>>,
    processes: [Option<Process<'m>>; MAX_PROCESSES],
    current: usize,
    next_value: u64,
}

type Outcome = Result<usize, Errno>;

impl<'m> World<'m> {
    fn new(mem: &'m Memory<SimPlatform>) -> World<'m> {
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
        processes[0] = Some(Process::new(space, model, 0));
        World { mem, machine, files, processes, current: 0, next_value: 1 }
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Fork => self.fork(),
            Op::Exit => self.exit(),
            Op::Switch(number) => {
                if self.processes[number].is_some() {
                    self.current = number;
                }
            }
            Op::WriteFile(file, page) => {
                let value = self.fresh_value();
                let offset = (page * PAGE) as u64;
                self.files[file].write(offset, &value.to_ne_bytes()).unwrap();
                self.machine.objects[file].contents.insert(page, value);
            }
            _ => self.call(op),
        }
        let number = self.current;
        for (other, process) in self.processes.iter_mut().enumerate() {
            // The others change with this one only by mistake; a look now and
            // then finds that as well.
            let due = other == number || self.next_value.is_multiple_of(4);
            if let Some(process) = process.as_mut().filter(|_| due) {
                process.check(&self.machine);
            }
        }
        let spaces: Vec<_> = self.processes.iter().flatten().map(|p| &p.space).collect();
        verify_all(&spaces);
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
            let child = parent.space.fork().unwrap();
            let child = Process::new(child, parent.model.fork(), free);
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
            self.processes[self.current] = Some(Process::new(space, model, self.current));
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
                let found = space.mmap(MmapRequest {
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
                });
                (expected, number(found))
            }
            Op::Munmap(at, len) => {
                let (addr, len) = (resolve(at), len.bytes());
                (model.munmap(addr, len), nothing(space.munmap(addr, len)))
            }
            Op::Mprotect(at, len, prot) => {
                let (addr, len) = (resolve(at), len.bytes());
                let expected = model.mprotect(machine, &areas, addr, len, prot);
                (expected, nothing(space.mprotect(addr, len, prot)))
            }
            Op::Mremap { at, old, new, flags, to } => {
                let (addr, to) = (resolve(at), resolve(to));
                let (old, new) = (old.bytes(), new.bytes());
                let expected = model.mremap(&areas, addr, old, new, flags, to);
                if let Ok(start) = expected
                    && new.div_ceil(PAGE) > old.div_ceil(PAGE)
                {
                    let grown = start / PAGE + old.div_ceil(PAGE)..start / PAGE + new.div_ceil(PAGE);
                    if model.pages[&grown.start].has(VmaFlags::LOCKED) && model.fill(machine, grown.clone()).is_ok() {
                        resident = grown;
                    }
                }
                (expected, number(space.mremap(addr, old, new, flags, to)))
            }
            Op::Madvise(at, len, advice) => {
                let (addr, len) = (resolve(at), len.bytes());
                let expected = model.madvise(machine, &areas, addr, len, advice);
                (expected, nothing(space.madvise(addr, len, advice)))
            }
            Op::Mlock(at, len, on_fault) => {
                let (addr, len) = (resolve(at) + 7, len.bytes());
                let expected = model.mlock(machine, addr, len, on_fault);
                if expected.is_ok() {
                    resident = addr / PAGE..(addr + len).div_ceil(PAGE);
                }
                (expected, nothing(space.mlock(addr, len, on_fault.into())))
            }
            Op::Munlock(at, len) => {
                let (addr, len) = (resolve(at), len.bytes());
                (model.munlock(addr, len), nothing(space.munlock(addr, len)))
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
                let (addr, len) = (resolve(at), len.bytes());
                let expected = model.mseal(&areas, addr, len);
                (expected, nothing(space.mseal(addr, len, 0)))
            }
            Op::Brk(at) => {
                let addr = resolve(at) + 100;
                let old = model.brk;
                let expected = model.brk(&areas, addr);
                if expected > old && model.future.contains(VmaFlags::LOCKED) {
                    resident = old.div_ceil(PAGE)..expected.div_ceil(PAGE);
                    let _ = model.fill(machine, resident.clone());
                }
                (Ok(expected), Ok(space.brk(addr)))
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
            Op::Fork | Op::Exit | Op::Switch(_) | Op::WriteFile(..) => (Ok(0), Ok(0)),
        };
        assert_eq!(found, expected, "{op:?}");
        process.assert_resident(machine, resident);
    }
}

impl Process<'_> {
    /// Reads, or writes to, some pages one after the other.
    fn touch(&mut self, machine: &mut Machine, addr: usize, pages: usize, write: Option<u64>) {
        for number in 0..pages {
            let addr = addr + number * PAGE;
            let write = write.map(|value| value + number as u64);
            let access = write.map_or(model::Access::Read, model::Access::Write);
            let areas = self.areas();
            let expected = self.model.access(machine, &areas, addr, access);
            let sim = self.space.memory().platform();
            let root = self.space.root();
            let fault = |fault: crate::sim::PageFault| {
                let access =
                    FaultAccess { write: fault.access == Access::Write, execute: fault.access == Access::Exec };
                self.space.handle_fault(fault.addr, access)
            };
            let found = match write {
                Some(value) => sim.write_user(self.cpu + 1, root, addr, &value.to_ne_bytes(), fault),
                None => {
                    let mut bytes = [0; 8];
                    let found = sim.read_user(self.cpu, root, addr, &mut bytes, fault);
                    if found.is_ok() {
                        let value = self.model.value(machine, addr / PAGE);
                        assert_eq!(u64::from_ne_bytes(bytes), value, "read of {addr:#x}");
                        let mut end = [0; 8];
                        sim.read_user(self.cpu, root, addr + PAGE - 8, &mut end, fault).unwrap();
                        assert_eq!(end, [0; 8], "end of the page at {addr:#x}");
                    }
                    found
                }
            };
            assert_eq!(found, expected, "access {access:?} to {addr:#x}");
        }
    }

    fn execute(&mut self, machine: &mut Machine, addr: usize) {
        let areas = self.areas();
        let expected = self.model.access(machine, &areas, addr, model::Access::Execute);
        let sim = self.space.memory().platform();
        let mut found: Result<(), FaultError> = Ok(());
        while found.is_ok() && sim.translate(self.cpu, self.space.root(), addr, Access::Exec).is_err() {
            let access = FaultAccess { write: false, execute: true };
            found = self.space.handle_fault(addr, access);
        }
        assert_eq!(found, expected, "execution of {addr:#x}");
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

/// Where an empty address space ends the first mapping that has no place of its own.
fn mapping_base(space: &AddressSpace<'_, SimPlatform>) -> usize {
    let addr = space.mmap(MmapRequest { addr: 0, len: PAGE, prot: 0, flags: 0x22, file: None, offset: 0 }).unwrap();
    space.munmap(addr, PAGE).unwrap();
    addr + PAGE
}

thread_local! {
    /// The machine of the last sequence, if that left it as it was: one takes
    /// longer to make than a sequence to run.
    static MACHINE: RefCell<Option<Memory<SimPlatform>>> = const { RefCell::new(None) };
}

/// Runs one sequence from an empty machine, and checks that nothing of it is
/// left in the end.
fn run(ops: &[Op]) {
    let mem = MACHINE.take().unwrap_or_else(|| {
        let mem = sim::memory(2 * MAX_PROCESSES, 24 << 10);
        mem.sysctl().set_randomize_va_space(0);
        mem
    });
    let used = || mem.total_frames() - mem.free_frames() - mem.count_frames(FrameKind::Slab);
    let before = used();
    let mut world = World::new(&mem);
    for op in ops {
        let _note = Note(op);
        world.step(op);
    }
    drop(world);
    assert_eq!(used(), before, "frames left");
    assert_eq!(mem.committed(), 0, "commit charge left");
    MACHINE.set(Some(mem));
}

static DONE: AtomicUsize = AtomicUsize::new(0);

proptest! {
    #![proptest_config(ProptestConfig {
        cases: (OPERATIONS / PER_CASE.start.midpoint(PER_CASE.end)) as u32 + 1,
        max_shrink_iters: 600,
        ..ProptestConfig::default()
    })]

    /// Prints a failing sequence, made as short as it can be, and its seed.
    #[test]
    fn random_operations_do_what_the_model_does(ops in prop::collection::vec(op(), PER_CASE)) {
        run(&ops);
        DONE.fetch_add(ops.len(), Ordering::Relaxed);
    }
}
