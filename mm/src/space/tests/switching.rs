//! CPUs that switch between address spaces, with PCIDs and without: the TLB keeps
//! what it may, and no access finds what is not there any more.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use crate::sim::PageFault;
use crate::{Errno, PhysAddr, Platform};

/// More than a CPU has PCIDs.
const MANY: usize = 10;

/// Calls `test` on a machine with PCIDs and on one without.
fn with_pcids_and_without(frames: usize, test: impl Fn(&Memory<SimPlatform>)) {
    on_machine(frames, &test);
    on_machine(frames, |mem| {
        mem.platform().use_pcids();
        test(mem);
    });
}

/// A program that may be switched to.
struct Program<'m> {
    space: AddressSpace<'m, SimPlatform>,
}

impl<'m> Program<'m> {
    /// With `pages` pages at `BASE`.
    fn new(mem: &'m Memory<SimPlatform>, pages: usize) -> Program<'m> {
        let space = AddressSpace::new(mem, Limits::default()).unwrap();
        let program = Program { space };
        program.map(BASE, pages, RW);
        program
    }

    fn sim(&self) -> &'m SimPlatform {
        self.space.memory().platform()
    }

    fn map(&self, addr: usize, pages: usize, prot: usize) {
        let flags = PRIVATE | ANON | FIXED;
        let request = MmapRequest { addr, len: pages * PAGE, prot, flags, file: None, offset: 0 };
        assert_eq!(self.space.mmap(request), Ok(addr));
    }

    fn fault(&self, fault: PageFault) -> Result<(), FaultError> {
        let access = FaultAccess { write: fault.access == Access::Write, execute: false };
        self.space.handle_fault(fault.addr, access)
    }

    /// Runs on `cpu` and writes.
    fn write(&self, cpu: usize, addr: usize, value: u64) -> Result<(), FaultError> {
        self.sim().run(cpu, &self.space);
        self.sim().write_user(cpu, self.space.root(), addr, &value.to_ne_bytes(), |fault| self.fault(fault))
    }

    /// Runs on `cpu` and reads.
    fn read(&self, cpu: usize, addr: usize) -> Result<u64, FaultError> {
        self.sim().run(cpu, &self.space);
        let mut bytes = [0; 8];
        self.sim().read_user(cpu, self.space.root(), addr, &mut bytes, |fault| self.fault(fault))?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn stop(&self, cpu: usize) {
        self.sim().stop(cpu, &self.space);
    }

    /// Where `cpu`, which runs it, finds a page without asking for help.
    fn finds(&self, cpu: usize, addr: usize) -> Option<PhysAddr> {
        self.sim().run(cpu, &self.space);
        self.sim().translate(cpu, self.space.root(), addr, Access::Read).ok()
    }
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        for cpu in 0..self.sim().cpu_count() {
            self.stop(cpu);
        }
    }
}

/// Takes the entry of the page away behind `mm`'s back, as long as `look`
/// lasts: only a TLB can still know of the page.
fn without_entry<T>(program: &Program<'_>, addr: usize, look: impl FnOnce() -> T) -> T {
    let root = program.space.root();
    let sim = program.sim();
    let table = |table: PhysAddr, shift: u32| {
        let entry = sim.phys_to_virt(table + 8 * (addr >> shift & 511) as u64).cast::<u64>();
        // SAFETY: an entry of a page table, which no one changes meanwhile.
        unsafe { AtomicU64::from_ptr(entry) }
    };
    let below = |entry: &AtomicU64| PhysAddr::new(entry.load(Ordering::Relaxed) & 0x000f_ffff_ffff_f000);
    let pte = [39, 30, 21].iter().fold(root, |at, &shift| below(table(at, shift)));
    let pte = table(pte, 12);
    let entry = pte.swap(0, Ordering::Relaxed);
    let result = look();
    pte.store(entry, Ordering::Relaxed);
    result
}

#[test]
fn translations_outlast_a_switch_exactly_with_pcids() {
    let keeps = |pcids: bool| {
        let mem = machine(2000);
        if pcids {
            mem.platform().use_pcids();
        }
        let (first, second) = (Program::new(&mem, 1), Program::new(&mem, 1));
        first.write(0, BASE, 1).unwrap();
        assert!(without_entry(&first, BASE, || first.finds(0, BASE)).is_some());
        second.write(0, BASE, 2).unwrap();
        // The same address, but not the same translation.
        assert_eq!(second.read(0, BASE), Ok(2));
        let kept = without_entry(&first, BASE, || first.finds(0, BASE)).is_some();
        assert_eq!(first.read(0, BASE), Ok(1));
        kept
    };
    assert!(keeps(true));
    assert!(!keeps(false));
}

#[test]
fn what_is_unmapped_while_another_program_runs_is_gone() {
    // Whether the program has left the CPU's set of active ones by then or not.
    for stopped in [false, true] {
        with_pcids_and_without(2000, |mem| {
            let (first, second) = (Program::new(mem, 2), Program::new(mem, 1));
            first.write(0, BASE, 1).unwrap();
            first.write(0, BASE + PAGE, 2).unwrap();
            second.read(0, BASE).unwrap();
            if stopped {
                first.stop(0);
            }
            first.space.munmap(BASE, PAGE).unwrap();
            // The frame gets another owner.
            second.write(0, BASE, 3).unwrap();
            assert_eq!(first.finds(0, BASE), None);
            assert_eq!(first.read(0, BASE), Err(FaultError::NotMapped));
            assert_eq!(first.read(0, BASE + PAGE), Ok(2));
        });
    }
}

#[test]
fn what_is_protected_while_another_program_runs_is_protected() {
    for stopped in [false, true] {
        with_pcids_and_without(2000, |mem| {
            let (first, second) = (Program::new(mem, 1), Program::new(mem, 1));
            first.write(0, BASE, 1).unwrap();
            second.read(0, BASE).unwrap();
            if stopped {
                first.stop(0);
            }
            first.space.mprotect(BASE, PAGE, READ).unwrap();
            assert!(first.write(0, BASE, 2).is_err());
            assert_eq!(first.read(0, BASE), Ok(1));
        });
    }
}

#[test]
fn a_flush_of_one_program_leaves_those_of_the_others_alone() {
    on_machine(2000, |mem| {
        mem.platform().use_pcids();
        let (first, second) = (Program::new(mem, 40), Program::new(mem, 40));
        first.write(0, BASE, 1).unwrap();
        second.write(0, BASE, 2).unwrap();
        second.write(0, BASE + PAGE, 2).unwrap();
        for len in [PAGE, 39 * PAGE] {
            second.space.munmap(BASE + PAGE, len).unwrap();
        }
        assert!(without_entry(&first, BASE, || first.finds(0, BASE)).is_some());
    });
}

#[test]
fn more_programs_than_pcids_all_find_their_own() {
    with_pcids_and_without(4000, |mem| {
        let programs: Vec<_> = (0..MANY).map(|_| Program::new(mem, 1)).collect();
        for round in 0..3 {
            for (number, program) in programs.iter().enumerate() {
                program.write(0, BASE, (round * MANY + number) as u64).unwrap();
            }
            for (number, program) in programs.iter().enumerate() {
                assert_eq!(program.read(0, BASE), Ok((round * MANY + number) as u64));
                program.space.munmap(BASE, PAGE).unwrap();
                program.map(BASE, 1, RW);
            }
            for program in &programs {
                assert_eq!(program.read(0, BASE), Ok(0));
            }
        }
    });
}

#[test]
fn a_program_in_the_place_of_another_sees_nothing_of_it() {
    with_pcids_and_without(2000, |mem| {
        let other = Program::new(mem, 1);
        let mut roots = Vec::new();
        for round in 1..MANY as u64 {
            let program = Program::new(mem, 3);
            roots.push(program.space.root());
            // What the one before had there is not there.
            assert_eq!(program.finds(0, BASE), None);
            program.map(BASE + PAGE, 1, READ);
            assert_eq!(program.read(0, BASE + PAGE), Ok(0));
            program.write(0, BASE, round).unwrap();
            assert_eq!(other.read(0, BASE), Ok(0));
            assert_eq!(program.read(0, BASE), Ok(round));
        }
        assert!(roots.iter().all(|&root| root == roots[0]), "the root's frame was to be used again");
    });
}

#[test]
fn an_address_space_that_is_dropped_leaves_no_flush_behind() {
    with_pcids_and_without(2000, |mem| {
        let program = Program::new(mem, 100);
        for page in 0..100 {
            program.write(0, BASE + page * PAGE, 1).unwrap();
        }
        program.stop(0);
        let before = mem.platform().flushes();
        drop(program);
        assert_eq!(mem.platform().flushes(), before);
    });
}

/// What a page is supposed to be.
#[derive(Clone, Copy, Debug, Default)]
struct Page {
    prot: usize,
    value: u64,
}

#[test]
fn random_switches_and_changes_never_show_what_was() {
    const PAGES: usize = 6;
    const CPUS: u64 = 2;
    with_pcids_and_without(4000, |mem| {
        let sim = mem.platform();
        let pick = |n: u64| sim.random() % n;
        let mut programs = Vec::new();
        let mut model = [[Page::default(); PAGES]; MANY];
        for _ in 0..MANY {
            programs.push(Program::new(mem, 0x100));
        }
        for program in &programs {
            program.space.munmap(BASE, 0x100 * PAGE).unwrap();
        }
        for step in 1..20_000 {
            // Most of the time few, so that they fit the PCIDs.
            let number = pick(if pick(4) == 0 { MANY as u64 } else { 4 }) as usize;
            let page = pick(PAGES as u64) as usize;
            let (program, expected) = (&mut programs[number], &mut model[number][page]);
            let cpu = pick(CPUS) as usize;
            let addr = BASE + page * PAGE;
            let prot = [READ, RW][pick(2) as usize];
            match pick(12) {
                0 => {
                    program.map(addr, 1, prot);
                    *expected = Page { prot, value: 0 };
                }
                1 => {
                    program.space.munmap(addr, PAGE).unwrap();
                    *expected = Page::default();
                }
                2 => {
                    let result = program.space.mprotect(addr, PAGE, prot).map_err(Errno::from);
                    assert_eq!(result.is_ok(), expected.prot != 0);
                    if result.is_ok() {
                        expected.prot = prot;
                    }
                }
                3 => program.stop(cpu),
                4 if step % 10 == 0 => {
                    *program = Program::new(mem, 1);
                    program.space.munmap(BASE, PAGE).unwrap();
                    model[number] = Default::default();
                }
                4..8 => {
                    let result = program.write(cpu, addr, step);
                    assert_eq!(result.is_ok(), expected.prot == RW, "step {step}, program {number}, page {page}");
                    if result.is_ok() {
                        expected.value = step;
                    }
                }
                _ => {
                    let found = program.read(cpu, addr).ok();
                    let value = (expected.prot != 0).then_some(expected.value);
                    assert_eq!(found, value, "step {step}, program {number}, page {page}");
                }
            }
        }
    });
}

#[test]
fn a_cpu_that_switches_while_another_one_unmaps_sees_no_old_page() {
    const CHANGES: u64 = 3000;
    with_pcids_and_without(4000, |mem| {
        let changing = Program::new(mem, 1);
        let others = [Program::new(mem, 1), Program::new(mem, 1)];
        let done = AtomicBool::new(false);
        // The page has this value, a later one, or is fresh.
        let least = AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                sim::set_cpu(0);
                let mut round = 0;
                while !done.load(Ordering::SeqCst) {
                    round += 1;
                    let least = least.load(Ordering::SeqCst);
                    let found = changing.read(0, BASE).unwrap();
                    assert!(found == 0 || (least..=CHANGES).contains(&found), "{found} is older than {least}");
                    let other = &others[round % 2];
                    other.write(0, BASE, u64::MAX).unwrap();
                    if round % 3 != 0 {
                        changing.stop(0);
                    }
                    other.space.munmap(BASE, PAGE).unwrap();
                    other.map(BASE, 1, RW);
                    other.stop(0);
                }
            });
            scope.spawn(|| {
                sim::set_cpu(1);
                for value in 1..=CHANGES {
                    changing.map(BASE, 1, RW);
                    changing.write(1, BASE, value).unwrap();
                    least.store(value, Ordering::SeqCst);
                }
                done.store(true, Ordering::SeqCst);
            });
        });
    });
}
