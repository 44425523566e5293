//! Address spaces on the simulated machine.
//!
//! A [`Process`] is an address space with a CPU that runs it: its reads and
//! writes go through the simulated MMU and TLB, so that a missing flush or a
//! wrong entry shows as wrong contents.

mod basics;
mod collapse;
mod events;
mod exclusive;
mod folio;
mod forced;
mod found;
mod huge;
mod injection;
mod linux_layout;
mod linux_merge;
mod linux_mremap;
mod model;
mod pages;
mod pins;
mod pressure;
mod property;
mod relocate;
mod snapshot;
mod soft_dirty;
mod switching;
mod threads;
mod truncate;
mod vma_lock;

use crate::paging::EntryFlags;
use crate::sim::{self, Access, SimPlatform};
use crate::{
    AddressSpace, Event, FaultAccess, FaultError, Limits, Memory, MmapRequest, PAGE_SIZE, PageRange, Pfn, SpaceError,
    VmaFlags, verify_all,
};

pub(crate) const READ: usize = 1;
pub(crate) const WRITE: usize = 2;
pub(crate) const RW: usize = READ | WRITE;
pub(crate) const PRIVATE: usize = 2;
pub(crate) const SHARED: usize = 1;
pub(crate) const ANON: usize = 0x20;
pub(crate) const FIXED: usize = 0x10;
pub(crate) const MAYMOVE: usize = 1;
pub(crate) const MREMAP_FIXED: usize = 2;
pub(crate) const DONTUNMAP: usize = 4;
pub(crate) const PAGE: usize = PAGE_SIZE;
/// An address that nothing is near of by itself.
pub(crate) const BASE: usize = 0x1000_0000;

/// A machine whose layout is not random.
pub(crate) fn machine(frames: usize) -> Memory<SimPlatform> {
    let mem = sim::memory(2, frames);
    mem.sysctl().set_randomize_va_space(0);
    mem
}

pub(crate) struct Process<'m> {
    pub space: AddressSpace<'m, SimPlatform>,
}

impl<'m> Process<'m> {
    pub fn new(mem: &'m Memory<SimPlatform>) -> Process<'m> {
        let space = AddressSpace::new(mem, Limits::default()).unwrap();
        Process::run(space)
    }

    /// Has CPU 0 run the address space as well as what it ran before.
    pub fn run(space: AddressSpace<'m, SimPlatform>) -> Process<'m> {
        space.activate(0);
        Process { space }
    }

    pub fn fork(&self) -> Result<Process<'m>, SpaceError> {
        self.space.fork().map(Process::run)
    }

    fn fault(&self, addr: usize, access: Access) -> Result<(), FaultError> {
        let access = FaultAccess { write: access == Access::Write, execute: access == Access::Exec };
        self.space.handle_fault(addr, access)
    }

    /// Whether TLBs may know of pages that reclaim has taken.
    pub fn is_stale(&self) -> bool {
        self.space.core.tables.is_stale()
    }

    /// Writes one byte as the program would.
    pub fn write(&self, addr: usize, value: u8) -> Result<(), FaultError> {
        let sim = self.space.memory().platform();
        sim.write_user(0, self.space.root(), addr, &[value], |fault| self.fault(fault.addr, fault.access))
    }

    /// Reads one byte as the program would.
    pub fn read(&self, addr: usize) -> Result<u8, FaultError> {
        let sim = self.space.memory().platform();
        let mut byte = [0];
        sim.read_user(0, self.space.root(), addr, &mut byte, |fault| self.fault(fault.addr, fault.access))?;
        Ok(byte[0])
    }

    pub fn mmap(&self, addr: usize, len: usize, prot: usize, flags: usize) -> Result<usize, SpaceError> {
        self.space.mmap(MmapRequest { addr, len, prot, flags, file: None, offset: 0 })
    }

    /// Maps private anonymous memory, readable and writable, exactly there.
    pub fn map_at(&self, addr: usize, pages: usize) -> usize {
        let at = self.mmap(addr, pages * PAGE, RW, PRIVATE | ANON | FIXED).unwrap();
        assert_eq!(at, addr);
        at
    }

    /// Writes a different byte to each page.
    pub fn fill(&self, addr: usize, pages: usize) {
        for page in 0..pages {
            self.write(addr + page * PAGE, (page as u8).wrapping_add(1)).unwrap();
        }
    }

    pub fn assert_filled(&self, addr: usize, pages: usize) {
        for page in 0..pages {
            assert_eq!(self.read(addr + page * PAGE), Ok((page as u8).wrapping_add(1)), "page {page}");
        }
    }

    pub fn assert_zero(&self, addr: usize, pages: usize) {
        for page in 0..pages {
            assert_eq!(self.read(addr + page * PAGE), Ok(0), "page {page}");
        }
    }

    /// The map, in pages from `base`: `"[0-4 rw-p][6-7 r--p]"`.
    pub fn map(&self, base: usize) -> String {
        let mut text = String::new();
        self.space.for_each_vma(|vma| {
            let has = |flag, c| if vma.flags.contains(flag) { c } else { '-' };
            let page = |addr: usize| (addr as isize - base as isize) / PAGE as isize;
            text += &format!(
                "[{}-{} {}{}{}{}]",
                page(vma.start),
                page(vma.end),
                has(VmaFlags::READ, 'r'),
                has(VmaFlags::WRITE, 'w'),
                has(VmaFlags::EXEC, 'x'),
                if vma.flags.contains(VmaFlags::MAY_SHARE) { 's' } else { 'p' },
            );
        });
        text
    }
}

impl Drop for Process<'_> {
    fn drop(&mut self) {
        self.space.deactivate(0);
    }
}

/// A process with `pages` pages at `BASE`, each with other contents.
pub(crate) fn filled<'m>(mem: &'m Memory<SimPlatform>, pages: usize) -> Process<'m> {
    let p = Process::new(mem);
    p.map_at(BASE, pages);
    p.fill(BASE, pages);
    p
}

/// The frame that is mapped at `addr`, if one is.
pub(crate) fn frame_at(p: &Process<'_>, addr: usize) -> Option<Pfn> {
    let mut found = None;
    p.space.for_each_page(PageRange::from_len(addr, PAGE).unwrap(), |page| found = Some(page.pfn));
    found
}

/// Has the page at `addr` be read-only, whatever the mapping allows.
pub(crate) fn write_protect(p: &Process<'_>, addr: usize) {
    let mem = p.space.memory();
    let slot = p.space.core.tables.lock_pte(mem, addr).unwrap();
    slot.update(|entry| entry.without(EntryFlags::WRITE));
    p.space.core.tables.flush(mem, addr, addr + PAGE, Event::FlushMerge);
}

/// Checks all processes of a machine, each on its own and together.
pub(crate) fn check(processes: &[&Process<'_>]) {
    let spaces: Vec<_> = processes.iter().map(|p| &p.space).collect();
    verify_all(&spaces);
}

/// Runs `test` on a machine, and checks that it leaves no frame, no object and
/// no commit charge behind.
pub(crate) fn on_machine(frames: usize, test: impl FnOnce(&Memory<SimPlatform>)) {
    let mem = machine(frames);
    let slab = || mem.count_frames(crate::FrameKind::Slab);
    let before = mem.free_frames() + slab();
    test(&mem);
    assert_eq!(mem.committed(), 0, "commit charge left");
    assert_eq!(mem.free_frames() + slab(), before, "frames left");
}
