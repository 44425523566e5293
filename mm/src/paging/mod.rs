//! Page tables: the four levels that the hardware walks.
//!
//! ```text
//!   root (PGD)        PUD table         PMD table         PTE table
//!  ┌─────────┐       ┌─────────┐       ┌─────────┐       ┌─────────┐
//!  │ 512 GiB ├──────▶│  1 GiB  ├──────▶│  2 MiB  ├──────▶│  4 KiB  ├──▶ page
//!  ├─────────┤       ├─────────┤       ├─────────┤       ├─────────┤
//!  │    …    │       │    …    │       │ or leaf ├─▶ 512 │    …    │
//!  └─────────┘       └─────────┘       └─────────┘ pages └─────────┘
//! ```
//!
//! # Who may do what
//!
//! Entries are read and written atomically, and tables are walked without
//! locks. What makes that sound:
//!
//! - **Leaves** change under the lock of the table that holds them. Each table
//!   has its own lock, in its frame's record.
//! - **Tables appear** at any time, under any mix of callers: they are installed
//!   by a compare-and-swap into an empty entry.
//! - **Tables go**, or move to another address, only in a range that the caller
//!   has to itself. [`free_tables`](PageTables::free_tables),
//!   [`move_commit`](PageTables::move_commit) and
//!   [`destroy`](PageTables::destroy) say what that takes; it always comes down
//!   to the mmap lock, no VMA in the range that a fault could lock or has locked, nor
//!   one in the tree, and no rmap walk that could reach it.
//!
//! Everybody else (faults under a VMA's lock, rmap walkers under an anon_vma's, who has
//! the mmap lock in read mode and looks at a VMA in the tree)
//! is therefore safe to follow any entry it reads. Who takes a table's lock
//! checks then that the table is still where it was found.
//!
//! At most two table locks are ever held together, both taken by
//! [`Table::lock_both`](table::Table::lock_both) in the order of frame numbers.
//!
//! # The TLB
//!
//! Nothing here flushes for the caller but moves and splits, which must flush
//! before they let go of a lock. Who removes or restricts a translation records
//! it in a [`TlbGather`], and hands it the frames and tables that must not be
//! reused before the flush. What a CPU keeps of an address space that it does
//! not use, and why that does no harm, is the matter of [`pcid`].

mod adjacent;
mod copy;
mod entry;
mod free;
mod gather;
mod huge;
mod moves;
mod pcid;
mod table;
mod verify;
mod visit;
mod walk;

#[cfg(test)]
mod tests;

use core::sync::atomic::{self, AtomicUsize, Ordering};

pub(crate) use copy::RunPair;
pub(crate) use entry::{Entry, EntryFlags};
pub(crate) use gather::TlbGather;
pub(crate) use huge::{HUGE_ORDER, HUGE_PAGES};
pub(crate) use moves::TableMove;
pub use pcid::{CpuFlush, CpuTlb, RootLoad};
pub(crate) use table::{Level, Slot};
pub(crate) use verify::Visit;
pub(crate) use visit::Run;
pub(crate) use walk::{Glance, PteGuard};

use table::{ENTRIES, Table};

use crate::sync::atomic::AtomicU64;
use crate::sync::point;
use crate::{CpuSet, Event, FrameKind, Memory, OutOfMemory, OwnedFrame, PAGE_SIZE, Pfn, PhysAddr, Platform};

/// Over this many pages a whole TLB is flushed rather than page by page, as on
/// Linux (`tlb_single_page_flush_ceiling`).
pub(crate) const FULL_FLUSH_PAGES: usize = 33;

/// End of what the user half of the root maps. [`TASK_SIZE`](crate::TASK_SIZE)
/// is a page less, but a table's span is not cut short for that.
const USER_END: usize = 1 << 47;

/// The page tables of one address space.
///
/// Part of an arena's object, which a reverse-map walk may reach before and after
/// there are tables: all fields are atomic, and whoever takes the object into use
/// calls [`init`](Self::init).
#[derive(Default)]
pub(crate) struct PageTables {
    /// The frame number of the top-level table.
    root: AtomicUsize,
    /// Table pages, the root and those set aside for huge leaves included.
    tables: AtomicUsize,
    /// Huge leaves.
    huge: AtomicUsize,
    /// The CPUs that may use translations: a [`CpuSet`].
    active: AtomicU64,
    /// What TLBs know the address space by; no other one has the same, ever.
    context: AtomicU64,
    /// How many flushes there were.
    generation: AtomicU64,
    /// How many entries reclaim has emptied, ever, and for how many of them TLBs
    /// have been flushed; see [`flush_stale`](Self::flush_stale).
    stale: AtomicU64,
    flushed: AtomicU64,
    #[cfg(test)]
    visited: AtomicUsize,
}

impl PageTables {
    /// Makes an empty user half, over the kernel half that all address spaces share.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`]; then nothing has changed.
    pub fn init<P: Platform>(&self, mem: &Memory<P>) -> Result<(), OutOfMemory> {
        let root = mem.alloc_zeroed(FrameKind::Table)?.into_raw();
        self.start(root, mem.next_context());
        if let Some(kernel_root) = mem.kernel_root() {
            let from = mem.page_ptr(Pfn::containing(kernel_root)).cast::<atomic::AtomicU64>();
            let to = mem.page_ptr(root).cast::<atomic::AtomicU64>();
            for i in ENTRIES / 2..ENTRIES {
                // SAFETY: both are whole, aligned page tables, and `i` is one of
                // their 512 entries. The new one is ours alone; the kernel's is
                // accessed atomically by everybody.
                unsafe { (*to.add(i)).store((*from.add(i)).load(Ordering::Acquire), Ordering::Relaxed) };
            }
        }
        Ok(())
    }

    /// From now on the root is that frame, and no CPU knows of it.
    #[inline]
    pub(crate) fn start(&self, root: Pfn, context: u64) {
        self.root.store(root.0, Ordering::Relaxed);
        self.tables.store(1, Ordering::Relaxed);
        self.huge.store(0, Ordering::Relaxed);
        self.active.store(0, Ordering::Relaxed);
        self.context.store(context, Ordering::Relaxed);
        self.generation.store(0, Ordering::Relaxed);
    }

    /// Frees all table pages. No CPU has the root loaded any more, and nobody
    /// can reach the address space. All leaves are gone: what one still maps
    /// would be lost.
    pub fn destroy<P: Platform>(&self, mem: &Memory<P>) {
        debug_assert!(self.active().is_empty(), "address space destroyed in use");
        self.free_user_half(mem);
        debug_assert_eq!(self.table_pages(), 1, "table pages lost");
        // SAFETY: `init` took the root's only reference; the caller is done with
        // the tables, no CPU walks them and nobody else can reach them.
        mem.free(unsafe { OwnedFrame::from_raw(self.root_pfn(), 0) });
    }

    /// The physical address of the root: what `CR3` holds.
    pub fn root(&self) -> PhysAddr {
        self.root_pfn().addr()
    }

    #[inline(always)]
    fn root_pfn(&self) -> Pfn {
        Pfn(self.root.load(Ordering::Relaxed))
    }

    /// Table pages, the root and those set aside for huge leaves included.
    pub fn table_pages(&self) -> usize {
        self.tables.load(Ordering::Relaxed)
    }

    /// The CPUs that may use translations of this address space.
    pub fn active(&self) -> CpuSet {
        CpuSet(self.active.load(Ordering::Relaxed))
    }

    /// Whether more than one CPU may use translations of this address space.
    #[inline(always)]
    pub fn is_shared(&self) -> bool {
        let active = self.active.load(Ordering::Relaxed);
        active & active.wrapping_sub(1) != 0
    }

    /// Called on `cpu` before it loads the root: from now on flushes reach it.
    pub fn activate(&self, cpu: usize) {
        point();
        self.active.fetch_or(CpuSet::single(cpu).0, Ordering::SeqCst);
    }

    /// Called on `cpu` after it has loaded another root and can use no
    /// translation of this one any more.
    pub fn deactivate(&self, cpu: usize) {
        point();
        self.active.fetch_and(!CpuSet::single(cpu).0, Ordering::SeqCst);
    }

    /// Removes the translations of `start..end` (page aligned) from the TLBs of
    /// all CPUs that may use some, and waits until they are gone. Other CPUs
    /// find out when they load the root again. Counts as `reason` if there are any.
    #[inline(always)]
    pub fn flush<P: Platform>(&self, mem: &Memory<P>, start: usize, end: usize, reason: Event) {
        if start >= end {
            return;
        }
        let full = end - start > FULL_FLUSH_PAGES * PAGE_SIZE;
        let (targets, flush) = self.next_flush(start, end, full);
        if !targets.is_empty() {
            mem.count(reason);
            mem.platform().flush_tlb(targets, flush);
        }
    }

    /// An entry has been emptied whose translation TLBs may still have: the caller, who
    /// has the lock of its table, will [flush](Self::flush_stale) later.
    pub fn mark_stale(&self) {
        point();
        self.stale.fetch_add(1, Ordering::Release);
    }

    /// Whether TLBs may have translations of entries that reclaim has emptied.
    #[inline(always)]
    pub fn is_stale(&self) -> bool {
        point();
        self.stale.load(Ordering::Acquire) != self.flushed.load(Ordering::Acquire)
    }

    /// Flushes what has been [marked](Self::mark_stale), if it has not been yet.
    ///
    /// For reclaim, before it goes on; and for who has found entries empty or not as they
    /// were, and promises that no TLB knows better.
    #[inline(always)]
    pub fn flush_stale<P: Platform>(&self, mem: &Memory<P>, reason: Event) {
        if self.is_stale() {
            self.flush_all_stale(mem, reason);
        }
    }

    #[cold]
    fn flush_all_stale<P: Platform>(&self, mem: &Memory<P>, reason: Event) {
        self.settle_stale(|| self.flush(mem, 0, USER_END, reason));
    }

    /// Counts what has been marked so far as flushed, once `flush_all` has done it.
    #[inline(always)]
    pub(crate) fn settle_stale(&self, flush_all: impl FnOnce()) {
        let stale = self.stale.load(Ordering::Acquire);
        flush_all();
        // Not before it is done: others rely on it.
        self.flushed.fetch_max(stale, Ordering::Release);
    }

    /// The root table.
    #[inline(always)]
    fn top<'m, P: Platform>(&self, mem: &'m Memory<P>) -> Table<'m> {
        // SAFETY: the root is a table page from `init` to `destroy`; all walks happen
        // in between, and nothing that borrows from the table outlives the operation
        // on the address space.
        unsafe { Table::at(mem, self.root(), Level::Pgd) }
    }

    /// Counts entries looked at, for tests that bound the work done.
    #[inline(always)]
    fn count_visited(&self, _entries: usize) {
        #[cfg(test)]
        self.visited.fetch_add(_entries, Ordering::Relaxed);
    }
}
