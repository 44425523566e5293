//! Translations that stay in a TLB while their address space is not in use.
//!
//! A CPU with PCIDs tags what its TLB holds with the number that `CR3` had, and
//! uses only what has the tag that `CR3` has now. So a switch need not flush,
//! and who comes back finds his translations, if they are still good. Whether
//! they are is decided here:
//!
//! - An address space has a number of its own, its *context*, that no other one
//!   ever had or will have, and a *generation*, which each flush raises by one.
//! - A CPU's [`CpuTlb`] has a slot for each PCID that is in use: whose
//!   translations it tags, and the generation up to which they were flushed.
//!
//! # Why a stale translation is never used
//!
//! What always holds: *each flush of a slot's context up to the slot's
//! generation was executed on this CPU under the slot's PCID, or whatever there
//! was at the time is gone.*
//!
//! - A slot's generation grows only with a flush that the CPU executes
//!   ([`CpuTlb::flush`]), while the slot is the loaded one, or with all being
//!   flushed at the load. So a flush that skips a CPU, because it is not among
//!   those that use the address space, or that reaches it when another one is
//!   loaded already, leaves the slot behind, and the next load flushes.
//! - Who flushes first raises the generation and then asks which CPUs are
//!   active; a CPU that comes first enters itself and then reads the generation.
//!   So it is seen, or it sees the generation, and with that the entries as they
//!   were changed before.
//! - Flushes may arrive out of order. One that is not the slot's next one
//!   flushes everything, and so makes up for those in between, whose changes
//!   all came before; these have then nothing left to do.
//! - The context tells an address space from the next one that gets its root's
//!   frame, or its place among the slots.
//!
//! So frames, and tables, may be used again once the flush is done, even though
//! a TLB may still know of them under a PCID that is not loaded. Nothing looks
//! there: neither an access nor a speculative walk uses what has another tag than
//! the current one, the caches of upper levels included (Intel SDM, volume 3,
//! 5.10.1 and 5.10.3), and the tag becomes current only with a load that flushes.
//!
//! The kernel's half is the same in all address spaces, and its pages are
//! global: they have no tag. When the kernel takes one away it flushes that
//! under all PCIDs itself; its tables never go.
//!
//! Without PCIDs there are no slots: every load flushes, and each flush for what
//! is loaded is executed.

use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::PageTables;
use crate::sync::point;
use crate::{CpuSet, PhysAddr, TlbFlush};

/// PCIDs that are used, from 1; 0 is for the kernel's own tables. More of them
/// would hold nothing: a TLB is small.
const PCIDS: usize = 7;
/// No address space has this context.
const NO_CONTEXT: u64 = 0;
/// No slot has this number.
const NO_SLOT: usize = PCIDS;

/// What a CPU is to load into `CR3` for an address space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RootLoad {
    /// The physical address of the top-level table.
    pub root: PhysAddr,
    /// The PCID; 0 without PCIDs.
    pub pcid: u16,
    /// Whether the translations with that PCID are good: bit 63 of `CR3`.
    pub keep: bool,
}

/// What a CPU is to do for a [`TlbFlush`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CpuFlush {
    /// Nothing.
    Nothing,
    /// `invlpg` for each page of the range.
    Pages,
    /// Load `CR3` as it is: all translations with the current PCID go.
    All,
}

/// What the TLB of one CPU may hold. The kernel has one for each CPU, which no
/// other CPU touches.
///
/// All fields are atomic only so that it can be in a `static`.
#[derive(Debug)]
pub struct CpuTlb {
    /// Whose root is loaded, if there are no PCIDs.
    untagged: AtomicU64,
    has_pcids: AtomicBool,
    /// The slot of what is loaded, if there are; or [`NO_SLOT`].
    loaded: AtomicUsize,
    /// The slot to be given to another address space next.
    victim: AtomicUsize,
    /// By PCID, less one.
    slots: [Slot; PCIDS],
}

/// Whose translations a PCID tags, and up to which of their flushes they are good.
#[derive(Debug)]
struct Slot {
    context: AtomicU64,
    generation: AtomicU64,
}

impl Slot {
    const fn new() -> Slot {
        Slot { context: AtomicU64::new(NO_CONTEXT), generation: AtomicU64::new(0) }
    }
}

impl CpuTlb {
    /// That of a CPU without PCIDs, or which does not use them yet.
    pub const fn new() -> CpuTlb {
        CpuTlb {
            untagged: AtomicU64::new(NO_CONTEXT),
            has_pcids: AtomicBool::new(false),
            loaded: AtomicUsize::new(NO_SLOT),
            victim: AtomicUsize::new(0),
            slots: [const { Slot::new() }; PCIDS],
        }
    }

    /// From now on PCIDs are used, those from 1 to 7: the CPU has them and they
    /// are turned on. No address space has been loaded yet.
    pub fn use_pcids(&self) {
        self.has_pcids.store(true, Ordering::Relaxed);
    }

    /// What this CPU has to do for a flush of which it is a target. To be
    /// called on the CPU, which does that before it loads anything else.
    #[inline]
    pub fn flush(&self, flush: &TlbFlush) -> CpuFlush {
        if self.untagged.load(Ordering::Relaxed) != flush.context {
            return self.flush_slot(flush);
        }
        if flush.full { CpuFlush::All } else { CpuFlush::Pages }
    }

    #[cold]
    fn flush_slot(&self, flush: &TlbFlush) -> CpuFlush {
        let Some(slot) = self.slots.get(self.loaded.load(Ordering::Relaxed)) else {
            return CpuFlush::Nothing;
        };
        if slot.context.load(Ordering::Relaxed) != flush.context {
            return CpuFlush::Nothing;
        }
        let done = slot.generation.load(Ordering::Relaxed);
        if flush.generation <= done {
            return CpuFlush::Nothing;
        }
        slot.generation.store(flush.generation, Ordering::Relaxed);
        if flush.full || flush.generation != done + 1 { CpuFlush::All } else { CpuFlush::Pages }
    }

    /// The CPU is about to load `context`, which has been flushed up to
    /// `generation`. Returns the PCID, and whether what has it is good.
    #[inline]
    fn load(&self, context: u64, generation: u64) -> (u16, bool) {
        if self.has_pcids.load(Ordering::Relaxed) {
            return self.load_slot(context, generation);
        }
        self.untagged.store(context, Ordering::Relaxed);
        (0, false)
    }

    fn load_slot(&self, context: u64, generation: u64) -> (u16, bool) {
        let has_it = |slot: &Slot| slot.context.load(Ordering::Relaxed) == context;
        let number = self.slots.iter().position(has_it).unwrap_or_else(|| self.next_victim());
        let slot = &self.slots[number];
        let had = (slot.context.load(Ordering::Relaxed), slot.generation.load(Ordering::Relaxed));
        slot.context.store(context, Ordering::Relaxed);
        slot.generation.store(generation, Ordering::Relaxed);
        self.loaded.store(number, Ordering::Relaxed);
        (number as u16 + 1, had == (context, generation))
    }

    /// Round robin, as on Linux; but what is loaded has just been in use.
    fn next_victim(&self) -> usize {
        let after = |slot: usize| (slot + 1) % PCIDS;
        let mut victim = self.victim.load(Ordering::Relaxed);
        if victim == self.loaded.load(Ordering::Relaxed) {
            victim = after(victim);
        }
        self.victim.store(after(victim), Ordering::Relaxed);
        victim
    }

    /// The CPU has loaded a root that is not `context`'s.
    #[inline]
    fn unload(&self, context: u64) {
        if self.untagged.load(Ordering::Relaxed) == context {
            self.untagged.store(NO_CONTEXT, Ordering::Relaxed);
        }
        if let Some(slot) = self.slots.get(self.loaded.load(Ordering::Relaxed))
            && slot.context.load(Ordering::Relaxed) == context
        {
            self.loaded.store(NO_SLOT, Ordering::Relaxed);
        }
    }
}

impl Default for CpuTlb {
    fn default() -> CpuTlb {
        CpuTlb::new()
    }
}

impl PageTables {
    /// See [`AddressSpace::enter`](crate::AddressSpace::enter).
    #[inline]
    pub fn enter(&self, cpu: usize, tlb: &CpuTlb) -> RootLoad {
        self.activate(cpu);
        point();
        // Not before: a flush that does not see the CPU is seen here.
        let generation = self.generation.load(Ordering::SeqCst);
        let (pcid, keep) = tlb.load(self.context.load(Ordering::Relaxed), generation);
        RootLoad { root: self.root(), pcid, keep }
    }

    /// See [`AddressSpace::leave`](crate::AddressSpace::leave).
    #[inline]
    pub fn leave(&self, cpu: usize, tlb: &CpuTlb) {
        tlb.unload(self.context.load(Ordering::Relaxed));
        self.deactivate(cpu);
    }

    /// Says of one more flush what all CPUs that may need it have to know.
    #[inline(always)]
    pub(crate) fn next_flush(&self, start: usize, end: usize, full: bool) -> (CpuSet, TlbFlush) {
        point();
        // Not after: see `enter`. The operation is a fence for the changed
        // entries too, so a CPU that is not active yet sees them.
        let generation = self.generation.fetch_add(1, Ordering::SeqCst) + 1;
        point();
        let targets = CpuSet(self.active.load(Ordering::SeqCst));
        (
            targets,
            TlbFlush { root: self.root(), context: self.context.load(Ordering::Relaxed), generation, start, end, full },
        )
    }
}
