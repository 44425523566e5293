//! Counters and limits of one address space, and the commit charge.
//!
//! Two kinds of counters: sizes of the VMAs ([`Totals`], changed only with the
//! mmap lock held for writing, so they are plain numbers beside the tree) and
//! resident pages ([`Resident`], changed by faults and unmaps under
//! page-table locks only, so they are atomic). All are in pages.

use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::SpaceError;
use crate::{Frame, FrameKind, Memory, OutOfMemory, PAGE_SHIFT, Platform, VmaFlags};

/// What a process may do: resource limits, in bytes (`u64::MAX` is `RLIM_INFINITY`),
/// and privileges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// `RLIMIT_AS`.
    pub address_space: u64,
    /// `RLIMIT_DATA`.
    pub data: u64,
    /// `RLIMIT_STACK`.
    pub stack: u64,
    /// `RLIMIT_MEMLOCK`.
    pub memlock: u64,
    /// Whether fixed addresses may be below `vm.mmap_min_addr` (`CAP_SYS_RAWIO`).
    pub low_addresses: bool,
}

impl Default for Limits {
    /// What Linux gives its first process, but for locked memory, which is
    /// not limited: everything here runs as root.
    fn default() -> Limits {
        Limits { address_space: u64::MAX, data: u64::MAX, stack: 8 << 20, memlock: u64::MAX, low_addresses: false }
    }
}

/// [`Limits`] as the address space keeps them: settable without a lock.
#[derive(Debug)]
pub(crate) struct LimitCells {
    address_space: AtomicU64,
    data: AtomicU64,
    stack: AtomicU64,
    memlock: AtomicU64,
    low_addresses: AtomicBool,
}

impl LimitCells {
    pub fn new(limits: Limits) -> LimitCells {
        LimitCells {
            address_space: AtomicU64::new(limits.address_space),
            data: AtomicU64::new(limits.data),
            stack: AtomicU64::new(limits.stack),
            memlock: AtomicU64::new(limits.memlock),
            low_addresses: AtomicBool::new(limits.low_addresses),
        }
    }

    pub fn get(&self) -> Limits {
        Limits {
            address_space: self.address_space.load(Relaxed),
            data: self.data.load(Relaxed),
            stack: self.stack.load(Relaxed),
            memlock: self.memlock.load(Relaxed),
            low_addresses: self.low_addresses.load(Relaxed),
        }
    }

    pub fn set(&self, limits: Limits) {
        self.address_space.store(limits.address_space, Relaxed);
        self.data.store(limits.data, Relaxed);
        self.stack.store(limits.stack, Relaxed);
        self.memlock.store(limits.memlock, Relaxed);
        self.low_addresses.store(limits.low_addresses, Relaxed);
    }
}

/// Sizes of all VMAs together, in pages; Linux's `total_vm` and its siblings.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Totals {
    pub total: usize,
    pub data: usize,
    pub stack: usize,
    pub exec: usize,
    pub locked: usize,
    /// The most `total` ever was.
    pub peak: usize,
}

/// A writable private mapping that is no stack; counts against `RLIMIT_DATA`.
fn is_data(flags: VmaFlags) -> bool {
    flags & (VmaFlags::WRITE | VmaFlags::SHARED | VmaFlags::GROWSDOWN) == VmaFlags::WRITE
}

fn is_exec(flags: VmaFlags) -> bool {
    flags & (VmaFlags::EXEC | VmaFlags::WRITE | VmaFlags::GROWSDOWN) == VmaFlags::EXEC
}

impl Totals {
    /// Counts `pages` more of a VMA with `flags`; locked pages are counted apart
    /// (see [`Totals::lock`]).
    pub fn add(&mut self, flags: VmaFlags, pages: usize) {
        self.total += pages;
        self.peak = self.peak.max(self.total);
        if let Some(kind) = self.kind(flags) {
            *kind += pages;
        }
    }

    /// The reverse of [`Totals::add`].
    pub fn sub(&mut self, flags: VmaFlags, pages: usize) {
        self.total -= pages;
        if let Some(kind) = self.kind(flags) {
            *kind -= pages;
        }
    }

    /// Counts `pages` as locked if `flags` say that they are.
    pub fn lock(&mut self, flags: VmaFlags, pages: usize) {
        if flags.contains(VmaFlags::LOCKED) {
            self.locked += pages;
        }
    }

    /// The reverse of [`Totals::lock`].
    pub fn unlock(&mut self, flags: VmaFlags, pages: usize) {
        if flags.contains(VmaFlags::LOCKED) {
            self.locked -= pages;
        }
    }

    /// [`may_lock`](Self::may_lock), if `flags` say that the pages would be locked.
    pub fn may_lock_more(&self, limits: Limits, flags: VmaFlags, pages: usize) -> Result<(), SpaceError> {
        if flags.contains(VmaFlags::LOCKED) { self.may_lock(limits, pages) } else { Ok(()) }
    }

    fn kind(&mut self, flags: VmaFlags) -> Option<&mut usize> {
        if is_exec(flags) {
            Some(&mut self.exec)
        } else if flags.contains(VmaFlags::GROWSDOWN) {
            Some(&mut self.stack)
        } else if is_data(flags) {
            Some(&mut self.data)
        } else {
            None
        }
    }

    /// Whether `pages` more of a VMA with `flags` stay within `RLIMIT_AS` and
    /// `RLIMIT_DATA` (Linux's `may_expand_vm`).
    pub fn may_expand(&self, limits: Limits, flags: VmaFlags, pages: usize) -> Result<(), SpaceError> {
        let within = |have: usize, limit: u64| have.checked_add(pages).is_some_and(|n| n as u64 <= limit >> PAGE_SHIFT);
        if within(self.total, limits.address_space) && (!is_data(flags) || within(self.data, limits.data)) {
            Ok(())
        } else {
            Err(SpaceError::OverLimit)
        }
    }

    /// Whether `pages` more may be locked (Linux's `mlock_future_ok`).
    pub fn may_lock(&self, limits: Limits, pages: usize) -> Result<(), SpaceError> {
        match self.locked.checked_add(pages) {
            Some(n) if n as u64 <= limits.memlock >> PAGE_SHIFT => Ok(()),
            _ => Err(SpaceError::OverLockLimit),
        }
    }
}

/// Which counter a resident page belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ResidentKind {
    /// A private page (`RssAnon`).
    Anon,
    /// A page of an object mapped by name or shared (`RssShmem`).
    Object,
    /// A private page that is in swap (`VmSwap`): counted here, but not resident.
    Swapped,
}

impl ResidentKind {
    /// As what a page with this record counts.
    #[inline]
    pub fn of(record: &Frame) -> ResidentKind {
        match record.kind() {
            FrameKind::Anon => ResidentKind::Anon,
            _ => ResidentKind::Object,
        }
    }
}

/// CPUs with numbers that are equal modulo this have a [`Share`] in common.
const SHARES: usize = 8;

/// Pages that are mapped, by kind, and those in swap; the shared zero page does not count.
///
/// Faults on several CPUs would spend much of their time on getting one counter from each other's
/// caches, so each CPU counts what its faults map in a share of its own. Only the sum of all
/// shares, modulo 2^64, means something.
#[derive(Default, Debug)]
pub(crate) struct Resident {
    shares: [Share; SHARES],
    peak: AtomicUsize,
}

/// What some CPUs have counted. In a cache line of its own.
#[derive(Default, Debug)]
#[repr(align(64))]
struct Share([AtomicUsize; 3]);

impl Resident {
    /// `cpu` has mapped so many pages.
    #[inline]
    pub fn add(&self, cpu: usize, kind: ResidentKind, pages: usize) {
        self.shares[cpu % SHARES].0[kind as usize].fetch_add(pages, Relaxed);
    }

    /// So many pages are gone. The peak is taken before they go, not at every fault (as
    /// Linux's `update_hiwater_rss`).
    pub fn sub(&self, kind: ResidentKind, pages: usize) {
        if pages != 0 {
            self.peak.fetch_max(self.total(), Relaxed);
            self.shares[0].0[kind as usize].fetch_sub(pages, Relaxed);
        }
    }

    /// Back to nothing, for another address space.
    pub fn clear(&self) {
        let counts = self.shares.iter().flat_map(|share| &share.0);
        counts.chain([&self.peak]).for_each(|count| count.store(0, Relaxed));
    }

    fn sum(&self, kind: ResidentKind) -> usize {
        let counts = self.shares.iter().map(|share| share.0[kind as usize].load(Relaxed));
        // Who counts meanwhile may be seen in part: fewer than none are none.
        (counts.fold(0, usize::wrapping_add) as isize).max(0) as usize
    }

    pub fn anon(&self) -> usize {
        self.sum(ResidentKind::Anon)
    }

    pub fn object(&self) -> usize {
        self.sum(ResidentKind::Object)
    }

    pub fn swapped(&self) -> usize {
        self.sum(ResidentKind::Swapped)
    }

    pub fn total(&self) -> usize {
        self.anon() + self.object()
    }

    /// What is resident now is the most that ever was.
    pub fn reset_peak(&self) {
        self.peak.store(self.total(), Relaxed);
    }

    pub fn peak(&self) -> usize {
        self.peak.load(Relaxed).max(self.total())
    }
}

/// Whether a mapping with these flags is charged when it is made: private,
/// writable, and not exempt (Linux's `accountable_mapping`).
pub(crate) fn is_accountable(flags: VmaFlags) -> bool {
    flags & (VmaFlags::NORESERVE | VmaFlags::SHARED | VmaFlags::WRITE) == VmaFlags::WRITE
}

/// A commit charge that is given back on drop unless it is kept: what an
/// operation holds between prepare and commit.
#[must_use]
pub(crate) struct Charge<'m, P: Platform> {
    mem: &'m Memory<P>,
    pages: usize,
}

impl<'m, P: Platform> Charge<'m, P> {
    /// Charges `pages`, if the overcommit mode allows.
    pub fn new(mem: &'m Memory<P>, pages: usize) -> Result<Charge<'m, P>, SpaceError> {
        if pages != 0 {
            mem.charge_commit(pages).map_err(|OutOfMemory| SpaceError::Overcommitted)?;
        }
        Ok(Charge { mem, pages })
    }

    /// The charge stays: a VMA carries it from now on.
    pub fn keep(self) {
        core::mem::forget(self);
    }
}

impl<P: Platform> Drop for Charge<'_, P> {
    fn drop(&mut self) {
        self.mem.uncharge_commit(self.pages);
    }
}

/// What an address space amounts to, for `/proc/PID/status` and `statm`.
/// In pages unless a field says bytes.
#[derive(Clone, Copy, Default, Debug)]
pub struct SpaceStats {
    /// All VMAs (`VmSize`).
    pub total_vm: usize,
    /// The most that [`total_vm`](Self::total_vm) was (`VmPeak`).
    pub peak_vm: usize,
    /// Private writable VMAs (`VmData`).
    pub data_vm: usize,
    /// Growing-down VMAs (`VmStk`).
    pub stack_vm: usize,
    /// Executable, not writable VMAs (`VmExe` + `VmLib`).
    pub exec_vm: usize,
    /// Locked VMAs (`VmLck`).
    pub locked_vm: usize,
    /// Resident private pages (`RssAnon`).
    pub rss_anon: usize,
    /// Resident pages of objects (`RssShmem`).
    pub rss_shmem: usize,
    /// Private pages in swap (`VmSwap`).
    pub swapped: usize,
    /// The most that was resident (`VmHWM`).
    pub peak_rss: usize,
    /// Page-table pages (`VmPTE`).
    pub tables: usize,
    /// Number of VMAs.
    pub vma_count: usize,
    /// First address of the heap, in bytes.
    pub brk_start: usize,
    /// End of the heap, in bytes.
    pub brk: usize,
}
