//! mremap(2).
//!
//! Parameters are checked first ([`Remap::parse`]), then what depends on the
//! VMA, then the operation is carried out "at the same address" or "to a new
//! address", in that order of Linux 7.3:
//!
//! ```text
//!                        FIXED or DONTUNMAP?
//!                      no /              \ yes
//!           at the same address        to a new address
//!          /         |        \               |
//!    same size    shrink     grow             |
//!     nothing    cut tail   in place,         |
//!                           or else, if it    |
//!                           may move ---------+--> move (moving.rs)
//! ```
//!
//! Every step that can fail comes before the first that changes anything, the
//! removal of what is at a `FIXED` destination included.

mod moving;
mod relocate;
mod request;

pub(crate) use request::{Remap, RemapKind};

use super::account::Charge;
use super::munmap::checked_range;
use super::place::Placement;
use super::{AddressSpace, SpaceError, State};
use crate::slab::Ref;
use crate::vma::{MergeWith, NewMapping, Spares, Vma};
use crate::{MremapFlags, PAGE_SHIFT, PageRange, Platform, TASK_SIZE, VmaFlags};

/// What an `mremap` came to.
#[derive(Clone, Copy, Debug)]
struct Remapped {
    /// Where the mapping is, in bytes.
    addr: usize,
    /// What has been added to a locked mapping.
    populate: Option<PageRange>,
}

impl Remapped {
    fn at(addr: usize) -> Remapped {
        Remapped { addr, populate: None }
    }
}

impl<P: Platform> AddressSpace<'_, P> {
    /// Resizes the mapping of `old_len` bytes at `addr` to `new_len` bytes, or
    /// moves it, or both; returns where it is then. All in bytes, `flags` are
    /// those of [`MremapFlags`].
    ///
    /// # Errors
    ///
    /// As mremap(2), with Linux 7.3's choice where there are several:
    /// `Invalid`, `BadAddress`, `NotPermitted` (sealed), `OverLockLimit`,
    /// `NoRoom`, `OverLimit`, `TooManyVmas`, `Overcommitted`, `BelowMinimum`,
    /// `OutOfMemory`. Nothing has changed then, the destination included. Only
    /// a move of several VMAs can run out of memory when some of them have moved.
    pub fn mremap(
        &self,
        addr: usize,
        old_len: usize,
        new_len: usize,
        flags: usize,
        new_addr: usize,
    ) -> Result<usize, SpaceError> {
        let remap = Remap::parse(addr, old_len, new_len, flags, new_addr)?;
        let done = match remap.may_span_vmas() {
            // Those that have moved are not to be moved again.
            true => self.try_mremap(&remap)?,
            false => self.mem.reclaiming(|| self.try_mremap(&remap))?,
        };
        if let Some(range) = done.populate {
            // As on Linux, what cannot be populated faults later.
            self.populate(range);
        }
        Ok(done.addr)
    }

    fn try_mremap(&self, remap: &Remap) -> Result<Remapped, SpaceError> {
        let mut state = self.mmap.write();
        // What is relocated must not be merged from when it is looked at until it has moved.
        let _nothing_merges = remap.relocates().then(|| self.mem.keep_from_merging());
        // Two VMAs that the unmapping may add, two or three that the move may.
        let headroom = 4 + usize::from(remap.dont_unmap());
        if state.vmas.len() + headroom > self.mem.sysctl().max_map_count() {
            return Err(SpaceError::TooManyVmas);
        }
        if remap.may_span_vmas() {
            return self.move_vmas(&mut state, remap);
        }
        let vma = state.vmas.lookup(remap.addr).ok_or(SpaceError::BadAddress)?;
        self.check_vma(&state, remap, vma)?;
        if remap.names_new_addr() {
            self.move_mapping(&mut state, vma, remap)
        } else {
            self.remap_in_place(&mut state, vma, remap)
        }
    }

    /// Checks what depends on the VMA (Linux's `check_prep_vma`).
    fn check_vma(&self, state: &State, remap: &Remap, vma: Ref<Vma>) -> Result<(), SpaceError> {
        let flags = vma.flags();
        if flags.contains(VmaFlags::SEALED) {
            return Err(SpaceError::NotPermitted);
        }
        let kind = remap.kind();
        if !remap.names_new_addr() && kind != RemapKind::Expand {
            return Ok(());
        }
        // Only what is shared can be there twice.
        if remap.old_len == 0 && !flags.intersects(VmaFlags::SHARED | VmaFlags::MAY_SHARE) {
            return Err(SpaceError::Invalid);
        }
        if remap.dont_unmap() && flags.intersects(VmaFlags::SPECIAL) {
            return Err(SpaceError::Invalid);
        }
        let moved = remap.old_len.min(remap.new_len);
        if moved > vma.end() - remap.addr {
            return Err(SpaceError::BadAddress);
        }
        if kind != RemapKind::Expand {
            return Ok(());
        }
        if vma.index_of(remap.addr).checked_add(remap.new_len >> PAGE_SHIFT).is_none() {
            return Err(SpaceError::Invalid);
        }
        if flags.intersects(VmaFlags::SPECIAL) {
            return Err(SpaceError::BadAddress);
        }
        let pages = remap.delta() >> PAGE_SHIFT;
        let limits = self.limits.get();
        state.totals.may_lock_more(limits, flags, pages)?;
        state.totals.may_expand(limits, flags, pages)
    }

    /// The address is not the user's choice: stay there if possible.
    fn remap_in_place(&self, state: &mut State, vma: Ref<Vma>, remap: &Remap) -> Result<Remapped, SpaceError> {
        match remap.kind() {
            RemapKind::NoResize => Ok(Remapped::at(remap.addr)),
            RemapKind::Shrink => {
                let tail = checked_range(remap.addr + remap.new_len, remap.delta())?;
                self.unmap(state, tail)?;
                Ok(Remapped::at(remap.addr))
            }
            RemapKind::Expand => {
                if let Some(tail) = room_to_expand(vma, remap) {
                    return self.expand(state, vma, remap, tail);
                }
                if !remap.flags.contains(MremapFlags::MAYMOVE) {
                    return Err(SpaceError::NoRoom);
                }
                self.move_mapping(state, vma, remap)
            }
        }
    }

    /// Lets `vma` grow by `tail`, and into one with what comes behind that if
    /// the two fit.
    ///
    /// ```text
    ///   [vvvvv]      [nnn]   ->   [vvvvv|tail]  [nnn]
    ///   [vvvvv]      [nnn]   ->   [vvvvv|tail|nnn]      if the hole closes
    /// ```
    fn expand(&self, state: &mut State, vma: Ref<Vma>, remap: &Remap, tail: PageRange) -> Result<Remapped, SpaceError> {
        let flags = vma.flags();
        let pages = tail.pages();
        let accountable = flags.contains(VmaFlags::ACCOUNT);
        let charge = Charge::new(self.mem, if accountable { pages } else { 0 })?;
        let new = NewMapping {
            range: tail,
            pgoff: vma.index_of(vma.end()),
            attributes: vma.attributes(),
            copied_from: Some(vma),
            merge: MergeWith::Growing,
            space: self.id(),
        };
        let plan = state.vmas.plan_map_before(&new, vma.next());
        let mut spares = Spares::reserve(self.mem, plan.needs())?;
        charge.keep();
        plan.commit(&mut state.vmas, self.mem, &mut spares);
        state.totals.add(flags, pages);
        state.totals.lock(flags, pages);
        let populate = flags.contains(VmaFlags::LOCKED).then_some(tail);
        Ok(Remapped { addr: remap.addr, populate })
    }

    /// Moves all VMAs of a range, one after the other, with the gaps between
    /// them: what is opposite a gap at the destination stays.
    ///
    /// ```text
    ///   source       [aaaa]  [bbb]    [cc]
    ///   destination  [xxxxxxxxxxxxxxxxxxxxxx]
    ///   afterwards   [aaaa][x][bbb][xx][cc][x]
    /// ```
    fn move_vmas(&self, state: &mut State, remap: &Remap) -> Result<Remapped, SpaceError> {
        let end = remap.addr.saturating_add(remap.old_len).min(TASK_SIZE);
        let first = state.vmas.lookup(remap.addr).ok_or(SpaceError::BadAddress)?;
        // What of `vma` is to be moved from `at` on.
        let piece = |vma: Ref<Vma>, at: usize| {
            let addr = vma.start().max(at);
            let len = vma.end().min(end) - addr;
            let new_addr = remap.new_addr + (addr - remap.addr);
            Remap { addr, old_len: len, new_len: len, new_addr, ..*remap }
        };
        if remap.old_len == 0 || end == remap.addr {
            let remap = Remap { old_len: 0, ..*remap };
            self.check_vma(state, &remap, first)?;
            return self.move_mapping(state, first, &remap);
        }
        if end <= first.end() {
            let piece = piece(first, remap.addr);
            self.check_vma(state, &piece, first)?;
            return self.move_mapping(state, first, &piece);
        }
        // All that can be known before is found out before the first one moves.
        for vma in state.vmas.overlapping(remap.addr, end) {
            let piece = piece(vma, remap.addr);
            self.check_vma(state, &piece, vma)?;
            let source = checked_range(piece.addr, piece.old_len)?;
            if piece.must_relocate() {
                state.vmas.lock_vma(vma);
                self.core.tables.split_ends(self.mem, source);
            }
            if self.refuses_relocation(vma, source, &piece) {
                return Err(SpaceError::BadAddress);
            }
            self.plan_unmap(state, checked_range(piece.new_addr, piece.new_len)?)?;
        }
        let mut at = remap.addr;
        // With `MREMAP_DONTUNMAP` what has been moved is still there: never look back.
        while let Some(vma) = state.vmas.find(at).filter(|vma| at < end && vma.start() < end) {
            let piece = piece(vma, at);
            at = piece.addr + piece.old_len;
            self.move_mapping(state, vma, &piece)?;
        }
        Ok(Remapped::at(remap.new_addr))
    }

    /// Where a mapping of `remap`'s new length goes.
    fn place_remapped(&self, state: &State, vma: Ref<Vma>, remap: &Remap) -> Result<PageRange, SpaceError> {
        let want = Placement {
            addr: if remap.names_new_addr() { remap.new_addr } else { 0 },
            len: remap.new_len,
            fixed: remap.fixed(),
            low: false,
            anonymous: vma.object().is_none(),
        };
        let low_addresses = self.limits.get().low_addresses;
        let start = state.place(want, self.mem.sysctl().mmap_min_addr(), low_addresses)?;
        PageRange::from_len(start, remap.new_len).ok_or(SpaceError::NoRoom)
    }
}

/// What the VMA can grow by, if the range ends where the VMA does and
/// nothing is mapped behind it.
fn room_to_expand(vma: Ref<Vma>, remap: &Remap) -> Option<PageRange> {
    if vma.end() - remap.addr != remap.old_len {
        return None;
    }
    let tail = PageRange::from_len(vma.end(), remap.delta())?;
    vma.next().is_none_or(|next| tail.end() <= next.start()).then_some(tail)
}
