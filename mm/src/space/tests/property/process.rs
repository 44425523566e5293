//! One process, and the checks of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::ops::Range;

use super::MANY_PAGES;
use crate::sim::{Access, PageFault, SimPlatform};
use crate::space::tests::PAGE;
use crate::space::tests::model::{self, Area, Machine};
use crate::space::tests::snapshot::Snapshot;
use crate::{
    AddressSpace, ClearRefs, Errno, FaultAccess, FaultError, MmapRequest, PMD_SIZE, PageRange, PageState, Platform,
    VmaFlags,
};

/// The CPU on which processes read.
const READER: usize = 0;
/// The CPU on which they write.
const WRITER: usize = 1;
/// How many there are.
pub const CPUS: usize = 2;

/// A process and what it should be.
pub struct Process<'m> {
    pub space: AddressSpace<'m, SimPlatform>,
    pub model: model::Space,
    /// Whether allocations are made to fail.
    failing: bool,
    /// Pages that have ever been mapped.
    seen: BTreeSet<usize>,
}

impl<'m> Process<'m> {
    pub fn new(space: AddressSpace<'m, SimPlatform>, model: model::Space, failing: bool) -> Self {
        Process { space, model, failing, seen: Default::default() }
    }

    /// Has the CPUs run it, instead of what they run now.
    fn run(&self) {
        for cpu in [READER, WRITER] {
            self.space.memory().platform().run(cpu, &self.space);
        }
    }

    /// Has no CPU run it.
    pub fn stop(&self) {
        for cpu in [READER, WRITER] {
            self.space.memory().platform().stop(cpu, &self.space);
        }
    }

    pub fn areas(&self) -> Vec<Area> {
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
        let pointer = sim.phys_to_virt(phys).cast::<u64>();
        // SAFETY: the page is in the simulated RAM, and nobody writes to it now.
        Some(unsafe { pointer.read() })
    }

    /// The page with that address if it is in swap.
    fn peek_swapped(&self, page: usize) -> Option<u64> {
        let mem = self.space.memory();
        let slot = self.space.core.tables.lookup(mem, page * PAGE)?.swap_slot()?;
        let value = match mem.swap().cached(mem, slot) {
            Some(pfn) => {
                // SAFETY: the page is in the simulated RAM, and nobody writes to it now.
                let value = unsafe { mem.page_ptr(pfn).cast::<u64>().read() };
                mem.put(pfn);
                value
            }
            None => {
                let bytes = mem.platform().swap().peek(slot).expect("a slot with nothing in it");
                u64::from_ne_bytes(bytes.first_chunk().copied().unwrap_or_default())
            }
        };
        Some(value)
    }

    /// Pages have been reclaimed: of those that might be dropped, some have been.
    pub fn settle(&mut self) {
        let mem = self.space.memory();
        for (&at, page) in self.model.pages.iter_mut().filter(|(_, page)| page.lazy) {
            if self.space.core.tables.lookup(mem, at * PAGE).is_none() {
                (page.private, page.lazy) = (None, false);
                page.written.is_gone();
            }
        }
    }

    /// Moves one in `part` of the private pages to other frames.
    pub fn migrate(&mut self, part: usize) {
        let mem = self.space.memory();
        let mut frames = Vec::new();
        let all = PageRange::new(0, crate::TASK_SIZE).unwrap();
        self.space.for_each_page(all, |page| frames.push(page.pfn));
        let some: Vec<_> = frames.into_iter().step_by(part).collect();
        let nth = if self.failing { some.len().div_ceil(2) } else { 0 };
        mem.fail_nth_allocation(nth);
        assert_eq!(mem.migrate(some).is_err(), nth != 0);
        mem.fail_nth_allocation(0);
    }

    /// What is in a large folio has a page of its own, of zeroes if it was never written to.
    pub fn settle_large(&mut self) {
        let mem = self.space.memory();
        let folios = mem.sysctl().makes_folios();
        for (&at, page) in self.model.pages.iter_mut().filter(|(_, page)| page.private.is_none()) {
            let Some(entry) = self.space.core.tables.lookup(mem, at * PAGE) else { continue };
            let is_in_folio = folios && page.object.is_none() && !entry.is_special();
            if entry.is_huge() || is_in_folio {
                page.private = Some(0);
                page.written.is_of_a_large_folio();
            }
        }
    }

    /// All that there is of aligned 2 MiB in `addr..addr + len` is in huge pages.
    pub fn assert_huge(&self, addr: usize, len: usize) {
        let mem = self.space.memory();
        for start in (addr.next_multiple_of(PMD_SIZE)..addr + len).step_by(PMD_SIZE) {
            if start + PMD_SIZE <= addr + len {
                let entry = self.space.core.tables.lookup(mem, start);
                assert!(entry.is_some_and(|entry| entry.is_huge()), "{entry:?} at {start:#x} is not huge");
            }
        }
    }

    /// Nothing has been used, or written to.
    pub fn clear_refs(&mut self, what: ClearRefs) {
        self.space.clear_refs(what);
        if what == ClearRefs::SoftDirty {
            self.model.clear_written();
        }
    }

    /// What is told of pages that have been written to is what is known of them.
    fn check_written(&mut self) {
        let mem = self.space.memory();
        let mut new = BTreeSet::new();
        self.space.for_each_vma(|vma| {
            let flag = vma.flags.contains(VmaFlags::SOFTDIRTY);
            let is_right = self.model.unite(vma.start / PAGE..vma.end / PAGE, flag);
            assert!(is_right, "whether {vma:?} is new");
            new.extend(flag.then_some(vma.start));
        });
        let mut entries = BTreeMap::new();
        let all = PageRange::new(0, crate::TASK_SIZE).unwrap();
        self.space.for_each_page_state(all, |state| match *state {
            PageState::SoftDirty(range) => assert!(new.remove(&range.start()), "{range:?} is not new"),
            PageState::Mapped(page) => _ = entries.insert(page.addr / PAGE, page.soft_dirty),
            PageState::Swapped { addr, soft_dirty, .. } => _ = entries.insert(addr / PAGE, soft_dirty),
        });
        assert!(new.is_empty(), "not told of: {new:?}");
        for (&at, page) in &mut self.model.pages {
            if self.space.core.tables.lookup(mem, at * PAGE).is_some_and(|entry| entry.is_huge()) {
                page.written.is_of_a_large_folio();
            }
            let found = entries.get(&at).copied();
            assert!(page.written.agrees(found), "page {at:#x}, {page:?}, is told of as {found:?}");
        }
    }

    pub fn check(&mut self, machine: &Machine) {
        self.run();
        self.check_written();
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
        assert_eq!(stats.rss_anon + stats.swapped, privately, "private pages, resident and in swap");
    }

    fn check_contents(&mut self, machine: &Machine) {
        self.seen.extend(self.model.pages.keys());
        for &at in &self.seen {
            let Some(page) = self.model.pages.get(&at) else {
                let found = self.look(READER, at, Access::Read);
                assert_eq!(found, None, "page {at:#x} can still be read");
                continue;
            };
            let accessible = page.flags.intersects(VmaFlags::ACCESS);
            match self.look(READER, at, Access::Read) {
                Some(value) => {
                    assert!(accessible, "page {at:#x} can be read");
                    assert!(!model::beyond_end(machine, page), "page {at:#x} is there, which was cut off");
                    assert_eq!(value, self.model.value(machine, at), "page {at:#x}");
                }
                None => match self.peek_swapped(at) {
                    Some(value) => assert_eq!(Some(value), page.private, "page {at:#x} in swap"),
                    None => assert!(!accessible || page.private.is_none(), "page {at:#x} has gone"),
                },
            }
            if let Some(value) = self.look(WRITER, at, Access::Write) {
                let own = page.private.is_some() || page.has(VmaFlags::SHARED);
                assert!(page.has(VmaFlags::WRITE) && own, "page {at:#x} can be written");
                assert_eq!(value, self.model.value(machine, at), "page {at:#x}");
            }
        }
        if self.seen.len() > 2 * MANY_PAGES {
            self.seen.retain(|at| self.model.pages.contains_key(at));
        }
    }

    pub fn assert_resident(&self, machine: &Machine, range: Range<usize>) {
        self.run();
        for (&at, page) in self.model.pages.range(range) {
            if page.flags.intersects(VmaFlags::ACCESS)
                && !page.has(VmaFlags::LOCKONFAULT)
                && !model::beyond_end(machine, page)
            {
                let found = self.look(READER, at, Access::Read);
                assert!(found.is_some(), "page {at:#x} is not resident");
            }
        }
    }
}

impl Drop for Process<'_> {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Process<'_> {
    /// Reads, or writes to, some pages one after the other.
    pub fn touch(&mut self, machine: &mut Machine, addr: usize, pages: usize, write: Option<u64>) {
        self.run();
        for number in 0..pages {
            let addr = addr + number * PAGE;
            // Now and then all pages get the same, as has been written elsewhere.
            let write = write.map(|value| if value % 1024 == 0 { 7 } else { value + number as u64 });
            let access = write.map_or(model::Access::Read, model::Access::Write);
            let areas = self.areas();
            let expected = self.model.access(machine, &areas, addr, access);
            let sim = self.space.memory().platform();
            let root = self.space.root();
            let fault = |fault: PageFault| {
                let access =
                    FaultAccess { write: fault.access == Access::Write, execute: fault.access == Access::Exec };
                self.handle_fault(fault.addr, access)
            };
            let found = match write {
                Some(value) => sim.write_user(WRITER, root, addr, &value.to_ne_bytes(), fault),
                None => {
                    let mut bytes = [0; 8];
                    let found = sim.read_user(READER, root, addr, &mut bytes, fault);
                    if found.is_ok() {
                        let value = self.model.value(machine, addr / PAGE);
                        assert_eq!(u64::from_ne_bytes(bytes), value, "read of {addr:#x}");
                        let mut end = [0; 8];
                        sim.read_user(READER, root, addr + PAGE - 8, &mut end, fault).unwrap();
                        assert_eq!(end, [0; 8], "end of the page at {addr:#x}");
                    }
                    found
                }
            };
            assert_eq!(found, expected, "access {access:?} to {addr:#x}");
        }
    }

    /// Has a page fault handled, if so asked first with each of its allocations failing.
    fn handle_fault(&self, addr: usize, access: FaultAccess) -> Result<(), FaultError> {
        let mem = self.space.memory();
        let mut nth = usize::from(self.failing);
        loop {
            mem.fail_nth_allocation(nth);
            let result = self.space.handle_fault(addr, access);
            let failed = mem.allocation_failed();
            mem.fail_nth_allocation(0);
            if !failed || result != Err(FaultError::OutOfMemory) {
                return result;
            }
            self.space.verify();
            nth += 1;
        }
    }

    /// Does `call`. If so asked, that is tried first with each of its
    /// allocations failing, and then nothing may have changed, if it is a call
    /// that promises that: what `view` sees is the same.
    pub fn attempt<T, V: PartialEq + Debug>(
        &self,
        failing: bool,
        view: impl Fn(Snapshot) -> V,
        mut call: impl FnMut() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        if !(self.failing && failing) {
            return call();
        }
        let mem = self.space.memory();
        let mut nth = 0;
        loop {
            nth += 1;
            let before = view(Snapshot::of(&self.space));
            mem.fail_nth_allocation(nth);
            let result = call();
            let failed = mem.allocation_failed();
            mem.fail_nth_allocation(0);
            if !failed || result.is_ok() {
                return result;
            }
            self.space.verify();
            assert_eq!(view(Snapshot::of(&self.space)), before, "after allocation {nth} failed");
        }
    }

    pub fn execute(&mut self, machine: &mut Machine, addr: usize) {
        self.run();
        let areas = self.areas();
        let expected = self.model.access(machine, &areas, addr, model::Access::Execute);
        let sim = self.space.memory().platform();
        let mut found: Result<(), FaultError> = Ok(());
        while found.is_ok() && sim.translate(READER, self.space.root(), addr, Access::Exec).is_err() {
            let access = FaultAccess { write: false, execute: true };
            found = self.handle_fault(addr, access);
        }
        assert_eq!(found, expected, "execution of {addr:#x}");
    }
}

/// Where an empty address space ends the first mapping that has no place of its own.
pub fn mapping_base(space: &AddressSpace<'_, SimPlatform>) -> usize {
    let addr = space.mmap(MmapRequest { addr: 0, len: PAGE, prot: 0, flags: 0x22, file: None, offset: 0 }).unwrap();
    space.munmap(addr, PAGE).unwrap();
    addr + PAGE
}
