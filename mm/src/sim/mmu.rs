//! The simulated MMU: page walks and the TLB of one CPU.
//!
//! As unforgiving as hardware may be: nothing is ever evicted, tables found on
//! the way down are remembered too ("paging-structure caches"), and an access
//! that the cached permissions forbid faults, whatever the tables say by now.
//! A fault forgets what was cached for its address, as on real CPUs. What was
//! cached under a PCID that is not loaded is neither used nor flushed.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use super::SimPlatform;
use crate::addr::TASK_SIZE;
use crate::paging::{CpuFlush, CpuTlb, RootLoad};
use crate::platform::{PhysAddr, TlbFlush};
use crate::sync::point;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Physical addresses have so many bits.
const PHYS_BITS: u32 = 40;

/// What a program wants to do at an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Load.
    Read,
    /// Store.
    Write,
    /// Fetch an instruction.
    Exec,
}

/// A page fault of a user program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageFault {
    /// The address that was accessed (`CR2`).
    pub addr: usize,
    /// How it was accessed.
    pub access: Access,
    /// There is a translation, but it does not allow the access (bit 0 of the error code).
    pub present: bool,
}

/// What the entries on the way down to a page allow together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Permissions {
    writable: bool,
    user: bool,
    executable: bool,
}

impl Permissions {
    const ALL: Permissions = Permissions { writable: true, user: true, executable: true };

    fn and(self, entry: u64) -> Permissions {
        Permissions {
            writable: self.writable && entry & WRITABLE != 0,
            user: self.user && entry & USER != 0,
            executable: self.executable && entry & NO_EXECUTE == 0,
        }
    }

    fn allow(self, access: Access) -> bool {
        self.user
            && match access {
                Access::Read => true,
                Access::Write => self.writable,
                Access::Exec => self.executable,
            }
    }
}

/// A translation of one page, of any size.
#[derive(Clone, Copy)]
struct Translation {
    phys: u64,
    permissions: Permissions,
    dirty: bool,
}

/// A table found on the way down.
#[derive(Clone, Copy)]
struct Table {
    phys: u64,
    permissions: Permissions,
}

/// The TLB of one CPU, and what its kernel keeps about that.
#[derive(Default)]
pub(super) struct Tlb {
    root: Option<PhysAddr>,
    pcid: u16,
    /// Of the PCID that is loaded.
    cached: Cached,
    /// Of the others.
    unloaded: HashMap<u16, Cached>,
    /// What the kernel notes, for what is loaded by [`enter`](Self::enter).
    pub(super) kernel: CpuTlb,
    entered: bool,
}

/// What is cached under one PCID.
#[derive(Default)]
struct Cached {
    /// By level of the entry (1: a page of 4 KiB) and number of the page of that size.
    pages: HashMap<(u32, usize), Translation>,
    /// By level of the table (3, 2 or 1) and number of the region that it maps.
    tables: HashMap<(u32, usize), Table>,
}

/// Log 2 of the bytes that an entry of a table of that level maps.
fn entry_shift(level: u32) -> u32 {
    12 + 9 * (level - 1)
}

impl Tlb {
    fn load(&mut self, root: Option<PhysAddr>, pcid: u16, keep: bool) {
        let cached = std::mem::take(&mut self.cached);
        self.unloaded.insert(self.pcid, cached);
        let kept = self.unloaded.remove(&pcid).filter(|_| keep);
        self.cached = kept.unwrap_or_default();
        self.root = root;
        self.pcid = pcid;
    }

    /// As a kernel without PCIDs does it.
    pub(super) fn load_root(&mut self, root: PhysAddr) {
        self.load(Some(root), 0, false);
        self.entered = false;
    }

    /// As a kernel with a [`CpuTlb`] does it, if `root` is not what it has
    /// loaded: by what `enter` returns.
    pub(super) fn enter(&mut self, root: PhysAddr, enter: impl FnOnce(&CpuTlb) -> RootLoad) {
        if !self.entered || self.root != Some(root) {
            let RootLoad { root, pcid, keep } = enter(&self.kernel);
            self.load(Some(root), pcid, keep);
            self.entered = true;
        }
    }

    /// Loads a root that maps nothing if `root` is loaded.
    pub(super) fn leave(&mut self, root: PhysAddr) {
        if self.root == Some(root) {
            self.load(None, 0, false);
        }
    }

    pub(super) fn flush(&mut self, flush: TlbFlush) {
        let what = match self.entered {
            true => self.kernel.flush(&flush),
            false if self.root != Some(flush.root) => CpuFlush::Nothing,
            false if flush.full => CpuFlush::All,
            false => CpuFlush::Pages,
        };
        if what == CpuFlush::Nothing {
            return;
        }
        let full = what == CpuFlush::All;
        // Any invalidation drops all paging-structure caches (Intel SDM, 5.10.4.1).
        self.cached.tables.clear();
        self.cached.pages.retain(|&(level, page), _| {
            let start = page << entry_shift(level);
            let end = start + (1 << entry_shift(level));
            !full && (end <= flush.start || flush.end <= start)
        });
    }

    pub(super) fn translate(
        &mut self,
        platform: &SimPlatform,
        root: PhysAddr,
        addr: usize,
        access: Access,
    ) -> Result<PhysAddr, PageFault> {
        if self.root != Some(root) {
            self.load_root(root);
        }
        let result = if addr < TASK_SIZE {
            self.look_up(platform, root, addr, access)
        } else {
            Err(PageFault { addr, access, present: false })
        };
        if result.is_err() {
            for level in 1..=3 {
                self.cached.pages.remove(&(level, addr >> entry_shift(level)));
                self.cached.tables.remove(&(level, addr >> entry_shift(level + 1)));
            }
        }
        result
    }

    fn look_up(
        &mut self,
        platform: &SimPlatform,
        root: PhysAddr,
        addr: usize,
        access: Access,
    ) -> Result<PhysAddr, PageFault> {
        for level in 1..=3 {
            let page = addr >> entry_shift(level);
            let Some(found) = self.cached.pages.get(&(level, page)) else {
                continue;
            };
            if !found.permissions.allow(access) {
                return Err(PageFault { addr, access, present: true });
            }
            if access == Access::Write && !found.dirty {
                // The dirty bit in memory has to be set, by another walk.
                self.cached.pages.remove(&(level, page));
                break;
            }
            let offset = addr & ((1 << entry_shift(level)) - 1);
            return Ok(PhysAddr::new(found.phys + offset as u64));
        }
        self.walk(platform, root, addr, access)
    }

    fn walk(
        &mut self,
        platform: &SimPlatform,
        root: PhysAddr,
        addr: usize,
        access: Access,
    ) -> Result<PhysAddr, PageFault> {
        let mut level = 4;
        let mut table = Table { phys: root.as_u64(), permissions: Permissions::ALL };
        for cached_level in 1..=3 {
            if let Some(&found) = self.cached.tables.get(&(cached_level, addr >> entry_shift(cached_level + 1))) {
                (level, table) = (cached_level, found);
                break;
            }
        }
        loop {
            let index = (addr >> entry_shift(level)) & 511;
            let place = platform.entry(PhysAddr::new(table.phys + 8 * index as u64));
            point();
            let entry = place.load(Ordering::Acquire);
            if entry & PRESENT == 0 {
                return Err(PageFault { addr, access, present: false });
            }
            let leaf = level == 1 || entry & LARGE != 0;
            check_reserved_bits(entry, level, leaf, addr);
            let permissions = table.permissions.and(entry);
            if leaf && !permissions.allow(access) {
                return Err(PageFault { addr, access, present: true });
            }
            let marks = match leaf && access == Access::Write {
                true => ACCESSED | DIRTY,
                false => ACCESSED,
            };
            if entry & marks != marks {
                let marked = entry | marks;
                point();
                let set = place.compare_exchange(entry, marked, Ordering::AcqRel, Ordering::Relaxed);
                if set.is_err() {
                    // It has just changed: look again.
                    continue;
                }
            }
            if leaf {
                let size = 1 << entry_shift(level);
                let phys = entry & ADDRESS & !(size - 1);
                let dirty = (entry | marks) & DIRTY != 0;
                let page = addr >> entry_shift(level);
                self.cached.pages.insert((level, page), Translation { phys, permissions, dirty });
                return Ok(PhysAddr::new(phys + (addr as u64 & (size - 1))));
            }
            table = Table { phys: entry & ADDRESS, permissions };
            level -= 1;
            self.cached.tables.insert((level, addr >> entry_shift(level + 1)), table);
        }
    }
}

/// Panics where a CPU would raise a fault with the reserved bit set in its error code.
fn check_reserved_bits(entry: u64, level: u32, leaf: bool, addr: usize) {
    let mut reserved = ADDRESS & !((1 << PHYS_BITS) - 1);
    if leaf && level > 1 {
        // Below the page's address, but for the PAT bit.
        reserved |= ((1 << entry_shift(level)) - 1) & ADDRESS & !(1 << 12);
    }
    if level == 4 {
        reserved |= LARGE;
    }
    assert!(entry & reserved == 0, "entry {entry:#x} of level {level} for {addr:#x} has reserved bits set");
}
