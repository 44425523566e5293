//! Moving a mapping, or a part of one, to another address.

use super::relocate::Relocation;
use super::{Remap, RemapKind, Remapped};
use crate::paging::{TableMove, TlbGather};
use crate::rmap::{self, AnonVma};
use crate::slab::Ref;
use crate::space::account::Charge;
use crate::space::clear_refs::tracks_writes;
use crate::space::munmap::{Removal, Tables, checked_range};
use crate::space::{AddressSpace, SpaceError, State};
use crate::vma::{MapPlan, MergeWith, Needs, NewMapping, Spares, Vma};
use crate::{Event, PAGE_SHIFT, PageRange, Platform, TASK_SIZE, VmaFlags};

/// A move that has been decided on.
#[derive(Clone, Copy, Debug)]
struct Move {
    /// What moves.
    source: PageRange,
    /// Where the mapping will be: as long as `source`, or longer.
    target: PageRange,
    /// What a shrinking mapping loses.
    tail: Option<PageRange>,
    /// The source stays, empty.
    keep_source: bool,
    relocation: Relocation,
}

impl<P: Platform> AddressSpace<'_, P> {
    /// Moves what `remap` names, a part of `vma` that has been checked, to its
    /// new address, or to one that is chosen here (Linux's `mremap_to` and
    /// `move_vma`).
    pub(super) fn move_mapping(&self, state: &mut State, vma: Ref<Vma>, remap: &Remap) -> Result<Remapped, SpaceError> {
        let mut mv = self.plan_move(state, vma, remap)?;
        let flags = vma.flags();
        let (moved, pages) = (mv.source.pages(), mv.target.pages());
        let target = self.plan_unmap(state, mv.target)?;
        let tail = mv.tail.map(|tail| self.plan_unmap(state, tail)).transpose()?;
        let limits = self.limits.get();
        if mv.keep_source {
            state.totals.may_expand(limits, flags, moved)?;
        }
        let headroom = 2 + usize::from(mv.keep_source);
        if state.vmas.len() + headroom > self.mem.sysctl().max_map_count() {
            return Err(SpaceError::TooManyVmas);
        }
        // Where pages are looked at, and where tables are about to be exchanged or given
        // up again, no fault may be.
        state.vmas.lock_vma(vma);
        self.core.tables.split_ends(self.mem, mv.source);
        mv.relocation = self.plan_relocation(state, vma, mv.source, &self.new_mapping(vma, &mv), mv.tail, remap)?;
        let added = if mv.keep_source { pages } else { pages - moved };
        let charge = Charge::new(self.mem, if flags.contains(VmaFlags::ACCOUNT) { added } else { 0 })?;
        let tables = table_move(state, vma, &mv, &target).ok_or(SpaceError::Invalid)?;
        if target.pages != 0 {
            lock_all(state, mv.target);
        }
        let peak = state.totals.peak;
        let new = self.new_mapping(vma, &mv);
        let plan = state.vmas.plan_map_before(&new, target.next);
        let undisturbed = target.pages == 0 && mv.tail.is_none();
        let relocate = mv.relocation == Relocation::Pages;
        let whole = !relocate && undisturbed && vma.range() == mv.source && plan.moves_whole(vma);
        if whole && !mv.keep_source {
            self.core.tables.move_prepare(self.mem, &tables)?;
            charge.keep();
            self.move_whole(state, vma, &mv, &plan, &tables);
        } else if whole && !flags.intersects(VmaFlags::LOCKED_MASK) {
            let mut spares = Spares::reserve(self.mem, Needs::map(None))?;
            self.core.tables.move_prepare(self.mem, &tables)?;
            charge.keep();
            self.move_all_pages(state, vma, &plan, &tables, &mut spares);
        } else {
            let room = target.needs + tail.map_or(Needs::NONE, |tail| tail.needs);
            let own = match mv.keep_source {
                true => Needs::map(Some(vma)) + Needs::cuts(vma, mv.source),
                false => Needs::moved(vma, mv.source),
            };
            let chain = if relocate { Needs::CHAIN } else { Needs::NONE };
            let mut spares = Spares::reserve(self.mem, room + own + chain)?;
            self.core.tables.move_prepare(self.mem, &tables)?;
            charge.keep();
            if target.pages != 0 {
                self.unmap_commit(state, mv.target, Tables::Keep, &mut spares);
            }
            if let Some(tail) = mv.tail {
                self.unmap_commit(state, tail, Tables::Keep, &mut spares);
            }
            self.move_commit(state, &mv, &tables, &mut spares);
        }
        if tracks_writes(flags) {
            self.mark_moved(mv.target.start(), mv.source.len());
        }
        if let Relocation::Instead(event) = mv.relocation {
            self.mem.count(event);
        }
        // That both were there for a moment does not count.
        state.totals.peak = peak.max(state.totals.total);

        let grown = PageRange::new(mv.target.start() + mv.source.len(), mv.target.end());
        let populate = grown.filter(|grown| flags.contains(VmaFlags::LOCKED) && !grown.is_empty());
        Ok(Remapped { addr: mv.target.start(), populate })
    }

    /// Decides what goes where.
    fn plan_move(&self, state: &State, vma: Ref<Vma>, remap: &Remap) -> Result<Move, SpaceError> {
        let tail = match remap.kind() {
            RemapKind::Shrink => Some(checked_range(remap.addr + remap.new_len, remap.delta())?),
            _ => None,
        };
        let moved = remap.old_len.min(remap.new_len);
        let source = PageRange::from_len(remap.addr, moved).ok_or(SpaceError::Invalid)?;
        let target = self.place_remapped(state, vma, remap)?;
        // A second mapping in place of the first: nothing would be left to map.
        if target.contains(remap.addr) {
            return Err(SpaceError::BadAddress);
        }
        let keep_source = remap.dont_unmap() || source.is_empty();
        Ok(Move { source, target, tail, keep_source, relocation: Relocation::None })
    }

    /// The mapping at the target of a move of a part of `vma`.
    #[inline]
    fn new_mapping(&self, vma: Ref<Vma>, mv: &Move) -> NewMapping {
        let attributes = vma.attributes();
        let unfaulted = vma.anon_vma().is_none() && attributes.object.is_none();
        NewMapping {
            range: mv.target,
            // What has no pages yet belongs wherever it is.
            pgoff: if unfaulted { mv.target.start() >> PAGE_SHIFT } else { vma.index_of(mv.source.start()) },
            attributes,
            copied_from: Some(vma),
            merge: if mv.keep_source { MergeWith::NotSource } else { MergeWith::Any },
            space: self.id(),
        }
    }

    /// Moves pages together with the VMA they are in, to where there is room.
    fn move_whole(&self, state: &mut State, vma: Ref<Vma>, mv: &Move, plan: &MapPlan<'_>, tables: &TableMove) {
        // What is free around the source once that is gone.
        let mut floor = vma.prev().map_or(0, |prev| prev.end());
        let mut ceiling = vma.next().map_or(TASK_SIZE, |next| next.start());
        if mv.target.start() < mv.source.start() {
            floor = floor.max(mv.target.end());
        } else {
            ceiling = ceiling.min(mv.target.start());
        }
        {
            // A walker must find each page at one of its two addresses.
            let object = vma.object();
            let mappings = object.as_ref().map(|object| object.lock_mappings());
            let root = vma.anon_vma().map(AnonVma::root);
            let walkers_out = root.as_ref().map(|root| root.lock());
            plan.commit_whole(&mut state.vmas, vma, (mappings.as_ref(), walkers_out.as_ref()));
            self.core.tables.move_commit(self.mem, tables);
        }
        let flags = vma.flags();
        let grown = mv.target.pages() - mv.source.pages();
        state.totals.add(flags, grown);
        state.totals.lock(flags, grown);
        let mut gather = TlbGather::new(self.mem, &self.core.tables, Event::FlushUnmap);
        self.core.tables.free_tables(self.mem, mv.source, floor, ceiling, &mut gather);
    }

    /// Moves all pages of a VMA, which stays, to a new one where there is room.
    fn move_all_pages(
        &self,
        state: &mut State,
        vma: Ref<Vma>,
        plan: &MapPlan<'_>,
        tables: &TableMove,
        spares: &mut Spares<'_>,
    ) {
        let anon_vma = vma.anon_vma();
        {
            // A walker must find each page at one of its two addresses.
            let object = vma.object();
            let mappings = object.as_ref().map(|object| object.lock_mappings());
            let root = anon_vma.map(AnonVma::root);
            let walkers_out = root.as_ref().map(|root| root.lock());
            let locks = (mappings.as_ref(), walkers_out.as_ref());
            plan.commit_successor(&mut state.vmas, self.mem, spares, vma, locks);
            self.core.tables.move_commit(self.mem, tables);
        }
        if anon_vma.is_some() && vma.object().is_none() {
            // As if it had never been written to.
            state.vmas.rebase(vma, vma.start() >> PAGE_SHIFT);
        }
        state.totals.add(vma.flags(), vma.pages());
    }

    /// Moves VMA and pages, into room that has been made.
    fn move_commit(&self, state: &mut State, mv: &Move, tables: &TableMove, spares: &mut Spares<'_>) {
        // The unmapping before may have split the VMA.
        let Some(vma) = state.vmas.lookup(mv.source.start()) else {
            return;
        };
        let flags = vma.flags();
        let anon_vma = vma.anon_vma();
        let new = self.new_mapping(vma, mv);
        let plan = state.vmas.plan_map(&new);
        let relocate = mv.relocation == Relocation::Pages;
        let relocated = relocate && !plan.merges();
        let mapped = if relocated {
            let new = NewMapping {
                pgoff: mv.target.start() >> PAGE_SHIFT,
                copied_from: None,
                merge: MergeWith::Nothing,
                ..new
            };
            state.vmas.plan_map(&new).commit(&mut state.vmas, self.mem, spares)
        } else {
            if relocate {
                self.mem.count(Event::RelocateMerged);
            }
            plan.commit(&mut state.vmas, self.mem, spares)
        };
        state.totals.add(flags, mv.target.pages());
        state.totals.lock(flags, mv.target.pages());

        if relocated {
            let move_entries = || self.core.tables.move_commit(self.mem, tables);
            self.relocate_pages(vma, mv.source, mapped, spares, move_entries);
        } else if !mv.source.is_empty() {
            // A walker must find each page at one of its two addresses.
            let object = new.attributes.object;
            let _mappings = object.as_ref().map(|object| object.lock_mappings());
            let root = anon_vma.map(AnonVma::root);
            let _walkers_out = root.as_ref().map(|root| root.lock());
            self.core.tables.move_commit(self.mem, tables);
        }
        // Not before the target is mapped, or its new tables would go as well,
        // and not after the source has gone, with a table above both.
        if let Some(tail) = mv.tail {
            self.free_kept_tables(state, tail);
        }
        if mv.keep_source {
            self.leave_empty(state, mv.source, spares);
        } else {
            // The charge has gone along with the pages.
            if flags.contains(VmaFlags::ACCOUNT) {
                self.mem.recharge_commit(mv.source.pages());
            }
            self.unmap_commit(state, mv.source, Tables::Free, spares);
        }
        if relocated {
            // What stays behind is not to become one with what has gone.
            let source = mv.keep_source.then(|| state.vmas.lookup(mv.source.start())).flatten();
            state.vmas.plan_merge(mapped, source).commit(&mut state.vmas, self.mem, spares);
        }
    }

    /// Makes what `MREMAP_DONTUNMAP` leaves behind what it should be: not
    /// locked, and, if all of a VMA has been moved, as if it had never been
    /// written to.
    fn leave_empty(&self, state: &mut State, source: PageRange, spares: &mut Spares<'_>) {
        if source.is_empty() {
            return;
        }
        let Some(mut vma) = state.vmas.lookup(source.start()) else {
            return;
        };
        let old = vma.flags();
        if old.intersects(VmaFlags::LOCKED_MASK) {
            let flags = old.difference(VmaFlags::LOCKED_MASK);
            let plan = state.vmas.plan_modify(vma, source, flags, vma.name());
            vma = plan.commit(&mut state.vmas, self.mem, spares);
            state.totals.unlock(old, source.pages());
        }
        if vma.range() == source && vma.anon_vma().is_some() {
            rmap::unlink(self.mem, vma);
            if vma.object().is_none() {
                state.vmas.rebase(vma, vma.start() >> PAGE_SHIFT);
            }
        }
    }
}

/// Locks all VMAs that have a page in `range`.
fn lock_all(state: &mut State, range: PageRange) {
    for vma in state.vmas.overlapping(range.start(), range.end()) {
        state.vmas.lock_vma(vma);
    }
}

/// The move of the page tables. Where nothing is mapped beside source and
/// target, whole tables can move even if the ranges fill them in part only.
fn table_move(state: &State, vma: Ref<Vma>, mv: &Move, target: &Removal) -> Option<TableMove> {
    let below = |vma: Option<Ref<Vma>>| vma.map_or(0, |vma| vma.end());
    let above = |vma: Option<Ref<Vma>>| vma.map_or(usize::MAX, |vma| vma.start());
    let old_floor = if vma.start() == mv.source.start() { below(vma.prev()) } else { mv.source.start() };
    let old_ceiling = if vma.end() == mv.source.end() { above(vma.next()) } else { mv.source.end() };
    // What is cut at an end of the target stays there.
    let (start, end) = (mv.target.start(), mv.target.end());
    let cut_start = target.first.is_some_and(|first| first.start() < start);
    let cut_end = target.last.is_some_and(|last| end < last.end());
    let new_floor = if cut_start { start } else { below(state.vmas.before(target.first)) };
    let new_ceiling = if cut_end { end } else { above(target.next) };
    let tables = TableMove::new(mv.source, PageRange::from_len(start, mv.source.len())?)?;
    Some(tables.with_room((old_floor, old_ceiling), (new_floor, new_ceiling)))
}
