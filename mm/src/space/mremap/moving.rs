//! Moving a mapping, or a part of one, to another address.

use super::{Remap, RemapKind, Remapped};
use crate::paging::TableMove;
use crate::rmap::{self, AnonVma};
use crate::slab::Ref;
use crate::space::account::Charge;
use crate::space::munmap::{Tables, checked_range};
use crate::space::{AddressSpace, SpaceError, State};
use crate::vma::{MergeWith, Needs, NewMapping, Spares, Vma};
use crate::{PAGE_SHIFT, PageRange, Platform, VmaFlags};

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
}

impl<P: Platform> AddressSpace<'_, P> {
    /// Moves what `remap` names, a part of `vma` that has been checked, to its
    /// new address, or to one that is chosen here (Linux's `mremap_to` and
    /// `move_vma`).
    pub(super) fn move_mapping(&self, state: &mut State, vma: Ref<Vma>, remap: &Remap) -> Result<Remapped, SpaceError> {
        let mv = self.plan_move(state, vma, remap)?;
        let flags = vma.flags();
        let (moved, pages) = (mv.source.pages(), mv.target.pages());
        let limits = self.limits.get();
        if mv.keep_source {
            state.totals.may_expand(limits, flags, moved)?;
        }
        let headroom = 2 + usize::from(mv.keep_source);
        if state.vmas.len() + headroom > self.mem.sysctl().max_map_count() {
            return Err(SpaceError::TooManyVmas);
        }
        if remap.fixed() {
            self.check_unmap(state, mv.target)?;
        }
        if let Some(tail) = mv.tail {
            self.check_unmap(state, tail)?;
        }
        let added = if mv.keep_source { pages } else { pages - moved };
        let accountable = flags.contains(VmaFlags::ACCOUNT);
        let charge = Charge::new(self.mem, if accountable { added } else { 0 })?;
        let edges = |range| Needs::edges(&state.vmas, range);
        // The new mapping may join the source and others, and then the source goes.
        let moved_needs = (Needs::map(Some(vma)) + edges(mv.source))
            .after_merge_with(state.vmas.lookup(mv.target.start().wrapping_sub(1)))
            .after_merge_with(state.vmas.lookup(mv.target.end()));
        let needs = edges(mv.target) + mv.tail.map_or(Needs::NONE, edges) + moved_needs;
        let mut spares = Spares::reserve(self.mem, needs)?;
        let tables = table_move(state, vma, &mv).ok_or(SpaceError::Invalid)?;
        self.tables.move_prepare(self.mem, &tables)?;

        // From here on nothing can fail.
        charge.keep();
        let peak = state.totals.peak;
        if remap.fixed() {
            self.unmap_commit(state, mv.target, Tables::Keep, &mut spares);
        }
        if let Some(tail) = mv.tail {
            self.unmap_commit(state, tail, Tables::Keep, &mut spares);
        }
        self.move_commit(state, &mv, &tables, &mut spares);
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
        Ok(Move { source, target, tail, keep_source })
    }

    /// Moves VMA and pages, into room that has been made.
    fn move_commit(&self, state: &mut State, mv: &Move, tables: &TableMove, spares: &mut Spares<'_>) {
        // The unmapping before may have split the VMA.
        let Some(vma) = state.vmas.lookup(mv.source.start()) else {
            return;
        };
        let attributes = vma.attributes();
        let flags = attributes.flags;
        let anon_vma = vma.anon_vma();
        let unfaulted = anon_vma.is_none() && attributes.object.is_none();
        let plan = state.vmas.plan_map(&NewMapping {
            range: mv.target,
            // What has no pages yet belongs wherever it is.
            pgoff: if unfaulted { mv.target.start() >> PAGE_SHIFT } else { vma.index_of(mv.source.start()) },
            attributes,
            copied_from: Some(vma),
            merge: if mv.keep_source { MergeWith::NotSource } else { MergeWith::Any },
            space: self.id(),
        });
        plan.commit(&mut state.vmas, self.mem, spares);
        state.totals.add(flags, mv.target.pages());
        state.totals.lock(flags, mv.target.pages());

        if !mv.source.is_empty() {
            // A walker must find each page at one of its two addresses.
            let root = anon_vma.map(AnonVma::root);
            let _walkers_out = root.as_ref().map(|root| root.lock());
            self.tables.move_commit(self.mem, tables);
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
            rmap::unlink(&self.mem.arenas, vma);
            if vma.object().is_none() {
                state.vmas.rebase(vma, vma.start() >> PAGE_SHIFT);
            }
        }
    }
}

/// The move of the page tables. Where nothing is mapped beside source and
/// target, whole tables can move even if the ranges fill them in part only.
fn table_move(state: &State, vma: Ref<Vma>, mv: &Move) -> Option<TableMove> {
    let target = PageRange::from_len(mv.target.start(), mv.source.len())?;
    let below = |vma: Option<Ref<Vma>>| vma.map_or(0, |vma| vma.end());
    let above = |vma: Option<Ref<Vma>>| vma.map_or(usize::MAX, |vma| vma.start());
    let old_floor = if vma.start() == mv.source.start() { below(vma.prev()) } else { mv.source.start() };
    let old_ceiling = if vma.end() == mv.source.end() { above(vma.next()) } else { mv.source.end() };

    let (prev, _) = state.vmas.around(mv.target.start());
    let first = state.vmas.find(mv.target.start());
    let new_floor = match first {
        // Cut at the start of the target, its lower part stays.
        Some(first) if first.start() < mv.target.start() => mv.target.start(),
        _ => below(prev),
    };
    let last = state.vmas.find(mv.target.end());
    let new_ceiling = match last {
        Some(last) if last.start() < mv.target.end() => mv.target.end(),
        last => above(last),
    };
    let tables = TableMove::new(mv.source, target)?;
    Some(tables.with_room((old_floor, old_ceiling), (new_floor, new_ceiling)))
}
