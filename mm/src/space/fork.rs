//! fork: a copy of an address space whose pages are shared until written to.

use core::sync::atomic::AtomicBool;

use super::account::{Charge, LimitCells, ResidentKind, Totals};
use super::lock::MmapLock;
use super::{AddressSpace, SpaceCore, SpaceError, State};
use crate::frame::{Frame, Frames};
use crate::paging::{Entry, EntryFlags, HUGE_PAGES, RunPair, Slot, TlbGather};
use crate::slab::Ref;
use crate::vma::{Needs, Spares, Vma, VmaTree};
use crate::{Event, Memory, Platform, VmaFlags};

impl<'m, P: Platform> AddressSpace<'m, P> {
    /// A copy of the address space (Linux's `dup_mmap`). Private pages are
    /// shared from now on, and copied by whoever writes to one first, those that
    /// are [pinned](super::PinnedPage) at once; mappings
    /// advised `MADV_DONTFORK` are left out, those advised `MADV_WIPEONFORK`
    /// come out empty, none is locked in the copy.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`, `Overcommitted`. The address space has not changed then
    /// in any way that a program could see.
    pub fn fork(&self) -> Result<AddressSpace<'m, P>, SpaceError> {
        self.mem.reclaiming(|| self.try_fork())
    }

    fn try_fork(&self) -> Result<AddressSpace<'m, P>, SpaceError> {
        let mut parent = self.mmap.write();
        let child = AddressSpace {
            mem: self.mem,
            core: SpaceCore::new(self.mem)?,
            mmap: MmapLock::new(State {
                vmas: VmaTree::default(),
                totals: Totals::default(),
                new_vma_flags: VmaFlags::empty(),
                ..parent.clone_layout()
            }),
            limits: LimitCells::new(self.limits.get()),
            small_pages_only: AtomicBool::new(self.small_pages_only()),
        };
        {
            let mut state = child.mmap.write_unshared();
            // Dropped on failure too: the parent's TLBs have to learn
            // which pages have become read-only.
            let mut gather = TlbGather::new(self.mem, &self.core.tables, Event::FlushFork);
            for vma in parent.vmas.iter() {
                if !vma.flags().contains(VmaFlags::DONTCOPY) {
                    // Until the flush: a fault would put in pages after their
                    // neighbours were copied, or copy a page that another CPU
                    // still writes to by its TLB.
                    parent.vmas.lock_vma(vma);
                    self.fork_vma(&child, &mut state, vma, &mut gather)?;
                }
            }
        }
        Ok(child)
    }

    fn fork_vma(
        &self,
        child: &AddressSpace<'m, P>,
        state: &mut State,
        vma: Ref<Vma>,
        gather: &mut TlbGather<'_, P>,
    ) -> Result<(), SpaceError> {
        let flags = vma.flags().difference(VmaFlags::LOCKED_MASK);
        let pages = vma.pages();
        let accountable = flags.contains(VmaFlags::ACCOUNT);
        let charge = Charge::new(self.mem, if accountable { pages } else { 0 })?;
        let mut spares = Spares::reserve(self.mem, Needs::fork(vma))?;
        let copy = state.vmas.append_fork(self.mem, vma, flags, child.id(), &mut spares);
        charge.keep();
        state.totals.add(flags, pages);
        // Without private pages, faults bring back what there was.
        if vma.anon_vma().is_none() || flags.contains(VmaFlags::WIPEONFORK) {
            return Ok(());
        }
        let frames = self.mem.frames();
        // Nobody pins one meanwhile.
        let has_pinned = self.mem.has_pinned();
        if has_pinned {
            self.core.tables.split_all(self.mem, vma.range());
        }
        let mut copied = Ok(());
        self.core.tables.visit_both(self.mem, &child.core.tables, vma.range(), |run| {
            let shared = if run.is_huge() { share_huge(run, &frames) } else { share_run(run, &frames, self.mem) };
            if shared.protected {
                gather.changed_range(run.start(), run.end());
            }
            child.count_resident(ResidentKind::Anon, shared.pages - shared.objects);
            child.count_resident(ResidentKind::Object, shared.objects);
            child.count_resident(ResidentKind::Swapped, shared.swapped);
            if has_pinned && !run.is_huge() {
                let pinned = child.copy_pinned(run, vma, copy);
                copied = copied.and(pinned);
            }
        })?;
        copied
    }
}

impl<P: Platform> AddressSpace<'_, P> {
    /// Of the pages of `parent` that the child, which this is, has just come to share, gives
    /// it copies of those that are pinned: they stay the parent's.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`: the child has nothing in the place of some of them.
    #[cold]
    fn copy_pinned(&self, run: &RunPair<'_>, parent: Ref<Vma>, vma: Ref<Vma>) -> Result<(), SpaceError> {
        let mut addr = run.start();
        let mut result = Ok(());
        for (slot, copy) in run.all_slots() {
            let (page, entry) = (addr, slot.get());
            addr += slot.size();
            let record = self.mem.frame(entry.pfn());
            if !entry.is_counted() || !record.is_ordinary_anon() || record.pins() == 0 {
                continue;
            }
            match self.copy_of(entry.pfn()) {
                Ok(frame) => {
                    copy.set(self.adopt(vma, page, &frame));
                    frame.into_raw();
                }
                Err(error) => {
                    copy.take();
                    self.core.resident.sub(ResidentKind::Anon, 1);
                    result = Err(error.into());
                }
            }
            record.dec_mapcount();
            let last = record.release();
            debug_assert!(!last, "a pinned page has no references");
            record.set_exclusive();
            if parent.flags().contains(VmaFlags::WRITE) {
                slot.update(|entry| entry.with(EntryFlags::WRITE | EntryFlags::SOFT_DIRTY));
            }
        }
        result
    }
}

/// What [`share_run`] has done.
#[derive(Default)]
struct Shared {
    /// Pages of which the frame has one more mapping, or will have.
    pages: usize,
    /// Those of them that are an object's.
    objects: usize,
    /// Pages in swap, which have one more entry that names their slot.
    swapped: usize,
    /// One of them could be written to before.
    protected: bool,
}

/// Lets a child map the huge page that its parent does.
#[cold]
fn share_huge(run: &RunPair<'_>, frames: &Frames<'_>) -> Shared {
    let mut shared = Shared::default();
    for (slot, copy) in run.slots() {
        let old = slot.update(|entry| entry.without(EntryFlags::WRITE));
        shared.protected = old.is_writable();
        frames.block(old.pfn(), HUGE_PAGES).iter().for_each(Frame::share);
        shared.pages += HUGE_PAGES;
        copy.set(old.without(EntryFlags::WRITE | EntryFlags::ACCESSED));
    }
    shared
}

/// Lets a child map what its parent does. Not inlined, for the sake of its loop,
/// which needs all registers.
#[inline(never)]
fn share_run<P: Platform>(run: &RunPair<'_>, frames: &Frames<'_>, mem: &Memory<P>) -> Shared {
    let mut shared = Shared::default();
    for (slot, copy) in run.slots() {
        let mut entry = slot.get();
        if entry.is_counted() {
            if entry.is_writable() {
                entry = slot.update(|entry| entry.without(EntryFlags::WRITE));
                shared.protected = true;
            }
            let record = frames.get(entry.pfn());
            record.share();
            shared.pages += 1;
            // Few are.
            if ResidentKind::of(record) == ResidentKind::Object {
                shared.objects += 1;
            }
        } else if !entry.maps_page() {
            entry = share_absent(&slot, entry, frames, mem);
            let swapped = usize::from(entry.swap_slot().is_some());
            shared.swapped += swapped;
            shared.pages += 1 - swapped;
        }
        copy.set(entry.without(EntryFlags::WRITE | EntryFlags::ACCESSED));
    }
    shared
}

/// One more entry for a page that is not there: in swap, or just being moved. Returns what
/// the parent's entry is now.
#[cold]
fn share_absent<P: Platform>(slot: &Slot<'_>, entry: Entry, frames: &Frames<'_>, mem: &Memory<P>) -> Entry {
    if let Some(number) = entry.swap_slot() {
        mem.swap().get(number);
        return entry;
    }
    if let Some(pfn) = entry.migrating() {
        // Who moves the page goes on until there is no such entry.
        let record = frames.get(pfn);
        record.inc_migrating();
        record.set_shared();
    }
    let read_only = entry.without(EntryFlags::WRITE);
    slot.set(read_only);
    read_only
}
