//! The machine that threads race on, and the checker that decides who goes on.
//!
//! A scenario is run again and again, each time on a new machine and with
//! another schedule: half of the schedules random, the other half by the PCT
//! algorithm (Burckhardt et al., "A Randomized Scheduler with Probabilistic
//! Guarantees of Finding Bugs", 2010), which finds a bug that takes few
//! preemptions with a probability that can be stated.

use std::env;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};

use mm::sim::{self, Access, PageFault, SimPlatform};
use mm::{
    AddressSpace, FaultAccess, FaultError, FolioPolicy, FrameKind, Limits, MapFlags, Memory, MmapRequest, MremapFlags,
    Overcommit, PAGE_SIZE, PMD_SIZE, PageRange, PageState, Pfn, Prot, SpaceError, verify_all,
};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, MaxSteps, Runner};

/// Schedules of each kind, unless the variable `MODEL_SCHEDULES` says otherwise.
const SCHEDULES: usize = 10_000;
/// In a scenario with huge pages, of which each schedule takes as long as so many without.
const HUGE: usize = 20;
/// The same for one with [`MANY_FRAMES`].
const ROOMY: usize = 5;
/// Preemptions that PCT makes, and one.
const PCT_DEPTH: usize = 4;
/// More steps than any schedule has, unless somebody waits for ever.
const MAX_STEPS: usize = 100_000;
/// The machine itself is on the stack of the first thread.
const STACK: usize = 1 << 20;

const CPUS: usize = 3;
/// Enough for three small address spaces.
const FRAMES: usize = 96;
/// Enough to leave some free while others are filled.
const MANY_FRAMES: usize = 192;
/// Enough for two huge pages and what goes with them.
const HUGE_FRAMES: usize = 4 * 512;
/// Pages that there is swap for.
const SLOTS: u32 = 16;

pub const RW: Prot = Prot::READ.union(Prot::WRITE);
/// `MADV_DONTNEED`.
const DONTNEED: usize = 4;
/// `MADV_HUGEPAGE`.
const HUGEPAGE: usize = 14;
/// `MADV_COLLAPSE`.
const COLLAPSE: usize = 25;
/// `MADV_MERGEABLE`.
const MERGEABLE: usize = 12;
/// `MADV_UNMERGEABLE`.
const UNMERGEABLE: usize = 13;

/// Runs a scenario with many schedules. What panics in one of them is printed
/// with the schedule and the seed that lead there.
pub fn check(scenario: fn(&Machine)) {
    check_with(scenario, FRAMES, 1);
}

/// [`check`] on a machine with memory for huge pages.
pub fn check_huge(scenario: fn(&Machine)) {
    check_with(scenario, HUGE_FRAMES, HUGE);
}

/// [`check`] on a machine with room for pages to be moved together.
pub fn check_roomy(scenario: fn(&Machine)) {
    check_with(scenario, MANY_FRAMES, ROOMY);
}

/// Where a schedule takes as long as `cost` others there are fewer of them: of random ones only beyond what
/// is the default.
fn check_with(scenario: fn(&Machine), frames: usize, cost: usize) {
    let (seed, schedules) = (number("MODEL_SEED", 0), number("MODEL_SCHEDULES", SCHEDULES));
    let fewer = schedules.div_ceil(cost);
    let random = fewer.max(schedules.min(SCHEDULES));
    run(scenario, frames, RandomScheduler::new_from_seed(seed as u64, random));
    run(scenario, frames, PctScheduler::new_from_seed(seed as u64, PCT_DEPTH, fewer));
}

fn number(name: &str, default: usize) -> usize {
    match env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => default,
    }
}

fn run(scenario: fn(&Machine), frames: usize, scheduler: impl Scheduler + 'static) {
    let mut config = Config::new();
    config.stack_size = STACK;
    config.max_steps = MaxSteps::FailAfter(MAX_STEPS);
    config.silence_warnings = true;
    config.ungraceful_shutdown_config.immediately_return_on_panic = true;
    Runner::new(scheduler, config).run(move || {
        // A schedule that fails leaves threads behind that use the machine.
        let machine = ManuallyDrop::new(Machine::new(frames));
        scenario(&machine);
        drop(ManuallyDrop::into_inner(machine));
    });
}

/// Runs threads side by side, each on a CPU of its own from 0 up, to their ends.
pub fn race(threads: &[&(dyn Fn() + Sync)]) {
    shuttle::thread::scope(|scope| {
        for (cpu, thread) in threads.iter().enumerate() {
            scope.spawn(move || {
                sim::set_cpu(cpu);
                thread();
            });
        }
    });
}

/// Something that has happened for good.
#[derive(Default)]
pub struct Event(AtomicBool);

impl Event {
    pub fn happens(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub fn has_happened(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// A small machine, whose CPUs use PCIDs.
pub struct Machine {
    memory: Memory<SimPlatform>,
    /// Frames that were free at the start, or the crate's own.
    unused: usize,
}

impl Machine {
    fn new(frames: usize) -> Machine {
        let memory = sim::memory_with_swap(CPUS, frames, SLOTS);
        memory.platform().use_pcids();
        memory.sysctl().set_overcommit(Overcommit::Always);
        Machine { unused: unused(&memory), memory }
    }

    /// An address space with nothing in it.
    pub fn space(&self) -> Space<'_> {
        Space::new(AddressSpace::new(&self.memory, Limits::default()).expect("too few frames"))
    }

    /// What a child of the program in `space` has.
    pub fn fork<'m>(&self, space: &Space<'m>) -> Space<'m> {
        Space::new(space.0.fork().expect("too few frames"))
    }

    /// Has all pages that can be evicted.
    pub fn reclaim(&self) {
        self.memory.reclaim(FRAMES);
    }

    /// Has at least so many pages evicted, if so many can be.
    pub fn reclaim_some(&self, pages: usize) {
        self.memory.reclaim(pages);
    }

    /// Has all pages moved to other frames that can be.
    pub fn migrate(&self) {
        let all = (0..self.memory.end_frame().0).map(Pfn);
        let private = |&pfn: &Pfn| self.memory.frame(pfn).kind() == FrameKind::Anon;
        self.memory.migrate(all.filter(private).collect::<Vec<_>>()).expect("too few frames");
    }

    /// Has the pages in these frames moved to other frames, in this order.
    pub fn migrate_frames(&self, frames: impl IntoIterator<Item = Pfn>) {
        self.memory.migrate(frames).expect("too few frames");
    }

    /// Has private pages moved out of some block of that order, until one is free.
    pub fn compact(&self, order: u8) -> bool {
        self.memory.compact(order)
    }

    /// Looks at the next so many pages that may be merged.
    pub fn merge(&self, pages: usize) {
        self.memory.ksm_scan(pages);
    }

    /// Has faults make folios of that order where `policy` says.
    pub fn let_make_folios(&self, order: u8, policy: FolioPolicy) {
        self.memory.sysctl().set_folio_policy(order, policy);
    }

    /// Drops an address space that no CPU has run.
    pub fn exit(&self, space: Space) {
        drop(ManuallyDrop::into_inner(space.0));
    }

    /// Checks the address spaces, which are all that there are, and drops
    /// them. Then no frame is in use.
    pub fn end<const N: usize>(&self, spaces: [Space; N]) {
        for space in &spaces {
            (0..CPUS).for_each(|cpu| space.stop(cpu));
        }
        verify_all(&spaces.each_ref().map(|space| &*space.0));
        spaces.into_iter().for_each(|space| drop(ManuallyDrop::into_inner(space.0)));
        assert_eq!(unused(&self.memory), self.unused, "frames are lost");
    }
}

fn unused(memory: &Memory<SimPlatform>) -> usize {
    memory.free_frames() + memory.count_frames(FrameKind::Slab)
}

/// A program's memory, as the program on some CPU sees it.
pub struct Space<'m>(ManuallyDrop<AddressSpace<'m, SimPlatform>>);

impl<'m> Deref for Space<'m> {
    type Target = AddressSpace<'m, SimPlatform>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<'m> Space<'m> {
    pub fn new(space: AddressSpace<'m, SimPlatform>) -> Space<'m> {
        Space(ManuallyDrop::new(space))
    }

    fn platform(&self) -> &'m SimPlatform {
        self.memory().platform()
    }

    /// Maps private memory at a place where nothing is.
    pub fn map(&self, addr: usize, len: usize, prot: Prot, flags: MapFlags) -> Result<(), SpaceError> {
        let flags = MapFlags::PRIVATE | MapFlags::ANONYMOUS | MapFlags::FIXED_NOREPLACE | flags;
        let (prot, flags) = (prot.bits() as usize, flags.bits() as usize);
        let at = self.mmap(MmapRequest { addr, len, prot, flags, file: None, offset: 0 })?;
        assert_eq!(at, addr);
        Ok(())
    }

    /// [`map`](Self::map) for readable and writable memory that has nothing in its way.
    pub fn map_rw(&self, addr: usize, len: usize) {
        self.map(addr, len, RW, MapFlags::empty()).expect("cannot map");
    }

    /// Moves a mapping of `len` bytes, that has `new_len` then.
    pub fn move_to(&self, from: usize, len: usize, to: usize, new_len: usize) -> Result<(), SpaceError> {
        let flags = MremapFlags::MAYMOVE | MremapFlags::FIXED;
        self.mremap(from, len, new_len, flags.bits() as usize, to).map(|at| assert_eq!(at, to))
    }

    /// Moves the pages of a mapping, which stays, and is empty then.
    pub fn move_pages(&self, from: usize, len: usize, to: usize) -> Result<(), SpaceError> {
        let flags = MremapFlags::MAYMOVE | MremapFlags::FIXED | MremapFlags::DONTUNMAP;
        self.mremap(from, len, len, flags.bits() as usize, to).map(|at| assert_eq!(at, to))
    }

    /// Moves a mapping so that its pages belong to the new address.
    pub fn relocate(&self, from: usize, len: usize, to: usize) -> Result<(), SpaceError> {
        let flags = MremapFlags::MAYMOVE | MremapFlags::FIXED | MremapFlags::MUST_RELOCATE_ANON;
        self.mremap(from, len, len, flags.bits() as usize, to).map(|at| assert_eq!(at, to))
    }

    /// `MADV_DONTNEED`.
    pub fn discard(&self, addr: usize, len: usize) {
        self.madvise(addr, len, DONTNEED).expect("cannot discard");
    }

    /// `MADV_HUGEPAGE`.
    pub fn advise_huge(&self, addr: usize, len: usize) {
        self.madvise(addr, len, HUGEPAGE).expect("cannot advise");
    }

    /// `MADV_COLLAPSE` of 2 MiB.
    pub fn collapse(&self, addr: usize) -> Result<(), SpaceError> {
        self.madvise(addr, PMD_SIZE, COLLAPSE)
    }

    /// Whether a huge page is mapped at `addr`.
    pub fn is_huge(&self, addr: usize) -> bool {
        let mut huge = 0;
        self.for_each_vma_with_pages(|vma, pages| {
            huge += if (vma.start..vma.end).contains(&addr) { pages.anonymous_huge } else { 0 };
        });
        huge != 0
    }

    /// Whether the page at `addr` is told of as one that was written to.
    pub fn is_soft_dirty(&self, addr: usize) -> bool {
        let mut found = false;
        self.for_each_page_state(PageRange::from_len(addr, PAGE_SIZE).unwrap(), |state| match state {
            PageState::SoftDirty(_) => found = true,
            PageState::Mapped(page) => found |= page.soft_dirty,
            PageState::Swapped { soft_dirty, .. } => found |= soft_dirty,
        });
        found
    }

    /// `MADV_MERGEABLE`.
    pub fn let_merge(&self, addr: usize, len: usize) {
        self.madvise(addr, len, MERGEABLE).expect("cannot be merged");
    }

    /// `MADV_UNMERGEABLE`.
    pub fn keep_from_merging(&self, addr: usize, len: usize) {
        self.madvise(addr, len, UNMERGEABLE).expect("cannot be unmerged");
    }

    /// Reads a byte on `cpu`, which switches to this address space if need be.
    pub fn read(&self, cpu: usize, addr: usize) -> Result<u8, FaultError> {
        self.switch_to(cpu);
        let mut byte = [0];
        self.platform().read_user(cpu, self.root(), addr, &mut byte, |fault| self.fault(fault))?;
        Ok(byte[0])
    }

    /// Writes a byte on `cpu`, which switches to this address space if need be.
    pub fn write(&self, cpu: usize, addr: usize, value: u8) -> Result<(), FaultError> {
        self.switch_to(cpu);
        self.platform().write_user(cpu, self.root(), addr, &[value], |fault| self.fault(fault))
    }

    fn fault(&self, fault: PageFault) -> Result<(), FaultError> {
        let access = FaultAccess { write: fault.access == Access::Write, execute: fault.access == Access::Exec };
        self.handle_fault(fault.addr, access)
    }

    pub fn switch_to(&self, cpu: usize) {
        self.platform().run(cpu, self);
    }

    /// Has `cpu` have nothing to do with the address space any more.
    pub fn stop(&self, cpu: usize) {
        self.platform().stop(cpu, self);
    }
}
