//! Address spaces: what a process sees as its memory.
//!
//! An [`AddressSpace`] has VMAs that say what is mapped where, page tables that
//! say what is there right now, and counters. One file is one operation:
//!
//! | file | operation |
//! |---|---|
//! | `mmap.rs`, `munmap.rs`, `mprotect.rs`, `mremap/`, `brk.rs`, `madvise.rs`, `mlock.rs` | the system calls |
//! | `fault.rs`, `folio.rs`, `huge.rs` | page faults |
//! | `collapse.rs` | huge pages of pages that are there |
//! | `populate.rs`, `forced.rs` | faulting in ahead, access from outside |
//! | `fork.rs`, `stack.rs` | what fork and exec need |
//! | `place.rs`, `layout.rs` | choosing addresses |
//! | `account.rs` | limits, counters, the commit charge |
//! | `zap.rs`, `unmap.rs` | taking pages out, of one address space or of all |
//! | `swap.rs`, `pageout.rs` | what is in swap, and getting it there |
//! | `ksm.rs` | what may be merged with equal pages |
//! | `inspect.rs`, `pages.rs` | what `/proc` shows |
//! | `clear_refs.rs` | what has been used and written to since it was last asked |
//! | `lock.rs` | the mmap lock |
//! | `verify/` | what always holds, checked |
//!
//! # Prepare, then commit
//!
//! An operation checks, then draws all it may need (objects, page tables, the
//! commit charge), and only then changes anything, from where on nothing can
//! fail. So a failed one leaves all as it was. Where Linux's interface is to
//! go on piece by piece (mprotect, madvise and mlock over several VMAs), that
//! holds for each piece.
//!
//! # Locks
//!
//! The mmap lock, a reader-writer lock around [`State`], is held for writing
//! by what changes VMAs and for reading by everything else but most faults,
//! which hold the lock of the one VMA (`fault.rs`). Under these come the locks
//! of the anon_vma roots, then those of single page tables, then those of the
//! allocators.

mod account;
mod brk;
mod clear_refs;
mod collapse;
mod error;
mod fault;
mod folio;
mod forced;
mod fork;
mod huge;
mod inspect;
mod ksm;
mod layout;
mod lock;
mod madvise;
mod mlock;
mod mmap;
mod mprotect;
mod mremap;
mod munmap;
mod pageout;
mod pages;
mod pin;
mod place;
mod populate;
mod stack;
mod swap;
mod unmap;
mod verify;
mod zap;

#[cfg(test)]
pub(crate) mod tests;

pub(crate) use account::ResidentKind;
pub use account::{Limits, SpaceStats};
pub use clear_refs::ClearRefs;
pub use collapse::{CollapseLimits, CollapseScan};
pub use error::{FaultError, SpaceError};
pub use fault::FaultAccess;
pub use inspect::{VmaInfo, VmaKind, VmaPages};
pub use mmap::{MappedFile, MmapRequest};
pub use pages::{MappedPage, PageState};
pub use pin::PinnedPage;
pub(crate) use unmap::Copies;
#[cfg(any(test, feature = "sim"))]
pub use verify::{find_mappings, verify_all};

use core::sync::atomic::AtomicBool;

use account::{LimitCells, Resident, Totals};
use layout::Layout;
use lock::MmapLock;

use crate::paging::{CpuTlb, PageTables, RootLoad, TlbGather};
use crate::slab::Ref;
use crate::sync::ReaderSlots;
use crate::vma::{Spares, Vma, VmaTree};
use crate::{Event, Memory, OutOfMemory, PageRange, PhysAddr, Platform, VmaFlags};

/// An address space.
///
/// All methods take `&self` and may be called from any CPU at any time; the
/// kernel around shares one between the threads of a process. Dropping it
/// unmaps everything; no CPU may have its [`root`](Self::root) loaded then.
pub struct AddressSpace<'m, P: Platform> {
    mem: &'m Memory<P>,
    core: Ref<SpaceCore>,
    mmap: MmapLock,
    limits: LimitCells,
    /// No huge pages, whatever is advised (`PR_SET_THP_DISABLE`).
    small_pages_only: AtomicBool,
}

/// What a page's reverse mapping leads to: VMAs name it, and it stays where it is.
#[derive(Default)]
pub(crate) struct SpaceCore {
    pub tables: PageTables,
    pub resident: Resident,
    /// Faults in VMAs whose locks have spread.
    pub readers: ReaderSlots,
}

impl SpaceCore {
    /// That of an empty address space.
    fn new<P: Platform>(mem: &Memory<P>) -> Result<Ref<SpaceCore>, OutOfMemory> {
        let core = mem.arenas.spaces.alloc(mem)?;
        if let Err(error) = core.tables.init(mem) {
            mem.arenas.spaces.free(mem, core);
            return Err(error);
        }
        core.resident.clear();
        Ok(core)
    }

    /// That of the address space which `vma` belongs to. It is in use as long as
    /// the VMA is chained to an anon_vma, whose lock the caller has.
    pub fn of(vma: &Vma) -> Ref<SpaceCore> {
        // SAFETY: VMAs are made with what `AddressSpace::id` says.
        unsafe { SpaceCore::by_id(vma.space()) }
    }

    /// That of the address space with this [id](AddressSpace::id).
    ///
    /// # Safety
    ///
    /// An address space has, or had, that id, and its [`Memory`] is still there.
    pub unsafe fn by_id(id: usize) -> Ref<SpaceCore> {
        // SAFETY: an id is the address of an object in an arena of the caller's memory.
        unsafe { Ref::from_usize(id) }
    }
}

impl AsRef<ReaderSlots> for Ref<SpaceCore> {
    fn as_ref(&self) -> &ReaderSlots {
        &self.readers
    }
}

/// What the mmap lock protects.
pub(crate) struct State {
    vmas: VmaTree,
    totals: Totals,
    layout: Layout,
    /// What new mappings get on top: locked, after `mlockall(MCL_FUTURE)`.
    new_vma_flags: VmaFlags,
    /// Whether new mappings may be merged, as all others (`PR_SET_MEMORY_MERGE`).
    merge_any: bool,
    /// Where the heap starts and ends, in bytes.
    brk_start: usize,
    brk: usize,
    /// The end of the initial stack, in bytes; 0 before there is one.
    stack_top: usize,
}

impl State {
    /// All but what describes the VMAs, which there are none of.
    fn clone_layout(&self) -> State {
        State { vmas: VmaTree::default(), totals: Totals::default(), ..*self }
    }
}

impl<'m, P: Platform> AddressSpace<'m, P> {
    /// An empty address space, with a layout of its own, random or not as
    /// `kernel.randomize_va_space` says.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub fn new(mem: &'m Memory<P>, limits: Limits) -> Result<AddressSpace<'m, P>, OutOfMemory> {
        let level = mem.sysctl().randomize_va_space();
        Ok(AddressSpace {
            mem,
            core: SpaceCore::new(mem)?,
            mmap: MmapLock::new(State {
                vmas: VmaTree::default(),
                totals: Totals::default(),
                layout: Layout::new(mem.platform(), level, limits.stack),
                new_vma_flags: VmaFlags::empty(),
                merge_any: false,
                brk_start: 0,
                brk: 0,
                stack_top: 0,
            }),
            limits: LimitCells::new(limits),
            small_pages_only: AtomicBool::new(false),
        })
    }

    /// The memory it was made from.
    pub fn memory(&self) -> &'m Memory<P> {
        self.mem
    }

    /// The physical address of the top-level page table: what `CR3` holds
    /// while the address space is active.
    pub fn root(&self) -> PhysAddr {
        self.core.tables.root()
    }

    /// To be called on `cpu` to switch to this address space. `tlb` is that
    /// CPU's. Returns what it has to load then; from now on flushes reach it.
    ///
    /// No flush may be executed on the CPU between the call and the load:
    /// interrupts are disabled.
    #[inline]
    pub fn enter(&self, cpu: usize, tlb: &CpuTlb) -> RootLoad {
        self.core.tables.enter(cpu, tlb)
    }

    /// To be called on `cpu` after it has loaded what another address space's
    /// [`enter`](Self::enter) said, or a root without user half (with PCID 0),
    /// and before it executes another flush.
    #[inline]
    pub fn leave(&self, cpu: usize, tlb: &CpuTlb) {
        self.core.tables.leave(cpu, tlb);
    }

    /// [`enter`](Self::enter) for a kernel that uses no PCIDs and needs no
    /// [`CpuTlb`], to be called on `cpu` before it loads [`root`](Self::root):
    /// from now on flushes reach it.
    pub fn activate(&self, cpu: usize) {
        self.core.tables.activate(cpu);
    }

    /// [`leave`](Self::leave) for such a kernel, to be called on `cpu` after it
    /// has loaded another root and with that dropped all translations.
    pub fn deactivate(&self, cpu: usize) {
        self.core.tables.deactivate(cpu);
    }

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        self.limits.get()
    }

    /// Sets the limits; they apply to what comes, not to what is mapped.
    pub fn set_limits(&self, limits: Limits) {
        self.limits.set(limits);
    }

    /// Where a position-independent program is to be loaded, in bytes.
    pub fn pie_base(&self) -> usize {
        self.mmap.read().layout.pie_base
    }

    /// Pages of that kind have come to be mapped.
    #[inline]
    fn count_resident(&self, kind: ResidentKind, pages: usize) {
        self.core.resident.add(self.mem.platform().current_cpu(), kind, pages);
    }

    /// What VMAs know their address space by.
    fn id(&self) -> usize {
        self.core.as_usize()
    }

    /// Gives the part `range` of `vma` other flags: as part of a neighbour if
    /// that fits then, else by splitting. Prepares and commits; returns the VMA
    /// that has the range afterwards.
    fn modify(
        &self,
        state: &mut State,
        vma: Ref<Vma>,
        range: PageRange,
        flags: VmaFlags,
    ) -> Result<Ref<Vma>, SpaceError> {
        self.core.tables.split_ends(self.mem, range);
        let plan = state.vmas.plan_modify(vma, range, flags, vma.name());
        if let Some(vma) = plan.commit_in_place(&mut state.vmas) {
            return Ok(vma);
        }
        let needs = plan.needs();
        if state.vmas.len() + needs.vmas() > self.mem.sysctl().max_map_count() && needs.vmas() != 0 {
            return Err(SpaceError::TooManyVmas);
        }
        let mut spares = Spares::reserve(self.mem, needs)?;
        Ok(plan.commit(&mut state.vmas, self.mem, &mut spares))
    }
}

impl<P: Platform> Drop for AddressSpace<'_, P> {
    fn drop(&mut self) {
        let mut state = self.mmap.write_unshared();
        let mut charged = 0;
        {
            let mut gather = TlbGather::new(self.mem, &self.core.tables, Event::FlushUnmap);
            for vma in state.vmas.iter() {
                self.zap(vma.range(), &mut gather);
                if vma.flags().contains(VmaFlags::ACCOUNT) {
                    charged += vma.pages();
                }
            }
        }
        state.vmas.clear(self.mem);
        self.mem.uncharge_commit(charged);
        drop(state);
        self.core.tables.destroy(self.mem);
        self.mem.arenas.spaces.free(self.mem, self.core);
    }
}
