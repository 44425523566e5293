//! madvise(2), and mseal(2), which is one more flag.

use super::{AddressSpace, FaultAccess, FaultError, SpaceError, State};
use crate::paging::TlbGather;
use crate::slab::Ref;
use crate::vma::Vma;
use crate::{Event, PageRange, Platform, TASK_SIZE, VmaFlags, is_page_aligned, page_align_up};

/// `MADV_*` of `<asm-generic/mman-common.h>`.
mod advice {
    pub const NORMAL: usize = 0;
    pub const RANDOM: usize = 1;
    pub const SEQUENTIAL: usize = 2;
    pub const WILLNEED: usize = 3;
    pub const DONTNEED: usize = 4;
    pub const FREE: usize = 8;
    pub const DONTFORK: usize = 10;
    pub const DOFORK: usize = 11;
    pub const MERGEABLE: usize = 12;
    pub const UNMERGEABLE: usize = 13;
    pub const HUGEPAGE: usize = 14;
    pub const NOHUGEPAGE: usize = 15;
    pub const DONTDUMP: usize = 16;
    pub const DODUMP: usize = 17;
    pub const WIPEONFORK: usize = 18;
    pub const KEEPONFORK: usize = 19;
    pub const COLD: usize = 20;
    pub const PAGEOUT: usize = 21;
    pub const POPULATE_READ: usize = 22;
    pub const POPULATE_WRITE: usize = 23;
    pub const DONTNEED_LOCKED: usize = 24;
    pub const COLLAPSE: usize = 25;
}

/// What an advice comes down to.
#[derive(Clone, Copy)]
enum Action {
    /// Nothing that a program could see.
    Nothing,
    /// Pages are not needed soon; if `now`, they are reclaimed at once.
    Reclaim { now: bool },
    /// Of private anonymous memory only: its contents may go, or stay.
    MayFree,
    /// Pages go; also those of locked memory if `locked`.
    Drop { locked: bool },
    /// Flags of the VMAs change.
    Flags { set: VmaFlags, clear: VmaFlags },
    /// Pages become huge ones.
    Collapse,
    /// Pages may be merged with equal ones, or not.
    Merge { allowed: bool },
    /// Pages are faulted in.
    Populate { access: FaultAccess },
}

impl Action {
    fn new(advice: usize) -> Result<Action, SpaceError> {
        use VmaFlags as F;
        let flags = |set, clear| Action::Flags { set, clear };
        let none = F::empty();
        Ok(match advice {
            advice::NORMAL => flags(none, F::RAND_READ | F::SEQ_READ),
            advice::RANDOM => flags(F::RAND_READ, F::SEQ_READ),
            advice::SEQUENTIAL => flags(F::SEQ_READ, F::RAND_READ),
            advice::DONTFORK => flags(F::DONTCOPY, none),
            advice::DOFORK => flags(none, F::DONTCOPY),
            advice::HUGEPAGE => flags(F::HUGEPAGE, F::NOHUGEPAGE),
            advice::NOHUGEPAGE => flags(F::NOHUGEPAGE, F::HUGEPAGE),
            advice::DONTDUMP => flags(F::DONTDUMP, none),
            advice::DODUMP => flags(none, F::DONTDUMP),
            advice::WIPEONFORK => flags(F::WIPEONFORK, none),
            advice::KEEPONFORK => flags(none, F::WIPEONFORK),
            advice::WILLNEED => Action::Nothing,
            advice::COLD => Action::Reclaim { now: false },
            advice::PAGEOUT => Action::Reclaim { now: true },
            advice::FREE => Action::MayFree,
            advice::DONTNEED => Action::Drop { locked: false },
            advice::DONTNEED_LOCKED => Action::Drop { locked: true },
            advice::MERGEABLE => Action::Merge { allowed: true },
            advice::UNMERGEABLE => Action::Merge { allowed: false },
            advice::POPULATE_READ => Action::Populate { access: FaultAccess::READ },
            advice::POPULATE_WRITE => Action::Populate { access: FaultAccess::WRITE },
            advice::COLLAPSE => Action::Collapse,
            _ => return Err(SpaceError::Invalid),
        })
    }

    /// Whether nothing else changes than page tables, so that a read lock is enough.
    fn leaves_vmas(self) -> bool {
        !matches!(self, Action::Flags { .. } | Action::Merge { .. })
    }

    /// Whether contents go, now or in a child (Linux's `is_discard`).
    fn discards(self) -> bool {
        match self {
            Action::MayFree | Action::Drop { .. } => true,
            Action::Flags { set, .. } => set.intersects(VmaFlags::DONTCOPY | VmaFlags::WIPEONFORK),
            Action::Nothing
            | Action::Reclaim { .. }
            | Action::Collapse
            | Action::Merge { .. }
            | Action::Populate { .. } => false,
        }
    }

    /// Whether `vma` takes the advice.
    fn check(self, vma: &Vma) -> Result<(), SpaceError> {
        let flags = vma.flags();
        let anonymous = vma.object().is_none();
        // What may not be written may not be discarded either, once sealed.
        let read_only = anonymous && !flags.contains(VmaFlags::WRITE);
        if self.discards() && read_only && flags.contains(VmaFlags::SEALED) {
            return Err(SpaceError::NotPermitted);
        }
        let locked = flags.contains(VmaFlags::LOCKED);
        let refused = match self {
            Action::Reclaim { .. } => locked || flags.contains(VmaFlags::PFNMAP),
            Action::MayFree => locked || !anonymous,
            Action::Drop { locked: also } => flags.contains(VmaFlags::PFNMAP) || (locked && !also),
            Action::Flags { set, clear } => {
                set.contains(VmaFlags::WIPEONFORK) && !anonymous
                    || clear.intersects(VmaFlags::WIPEONFORK | VmaFlags::DONTDUMP)
                        && flags.contains(VmaFlags::DROPPABLE)
            }
            Action::Nothing | Action::Collapse | Action::Merge { .. } | Action::Populate { .. } => false,
        };
        if refused {
            return Err(SpaceError::Invalid);
        }
        Ok(())
    }
}

impl<P: Platform> AddressSpace<'_, P> {
    /// Advises about `len` bytes from `addr`.
    ///
    /// # Errors
    ///
    /// As madvise(2): `Invalid` for an unaligned address, a range that wraps,
    /// an unknown advice, or one that the mapping does not take; `NotMapped` if
    /// there was a hole (the advice has been applied around it); `BadAddress`
    /// or `OutOfMemory` where populating failed.
    pub fn madvise(&self, addr: usize, len: usize, advice: usize) -> Result<(), SpaceError> {
        let action = Action::new(advice)?;
        let length = page_align_up(len);
        if !is_page_aligned(addr) || (len != 0 && length == 0) {
            return Err(SpaceError::Invalid);
        }
        let end = addr.checked_add(length).ok_or(SpaceError::Invalid)?;
        if end == addr {
            return Ok(());
        }
        if let Action::Populate { access } = action {
            let range = PageRange::new(addr, end).ok_or(SpaceError::NotMapped)?;
            return self.populate_with(range, access);
        }
        if matches!(action, Action::Collapse) {
            return self.collapse(addr, end);
        }
        if action.leaves_vmas() {
            let state = self.mmap.read();
            return for_parts(&state, addr, end, |vma, range| {
                action.check(&vma)?;
                match action {
                    Action::Drop { .. } => {
                        let mut gather = TlbGather::new(self.mem, &self.core.tables, Event::FlushUnmap);
                        self.zap(range, &mut gather);
                    }
                    Action::Reclaim { now: false } => self.make_cold(range),
                    Action::Reclaim { now: true } => self.page_out(range),
                    Action::MayFree => self.free_lazily(range),
                    _ => {}
                }
                Ok(())
            });
        }
        if let Action::Merge { allowed } = action {
            let range = PageRange::new(addr, end.min(TASK_SIZE).max(addr)).ok_or(SpaceError::NotMapped)?;
            let hole = if end > range.end() { Err(SpaceError::NotMapped) } else { Ok(()) };
            return self.mem.reclaiming(|| self.set_mergeable(&mut self.mmap.write(), range, allowed)).and(hole);
        }
        let Action::Flags { set, clear } = action else {
            return Ok(());
        };
        let mut state = self.mmap.write();
        self.change_flags(&mut state, addr, end, |vma| {
            action.check(vma)?;
            Ok(vma.flags().difference(clear) | set)
        })
    }

    /// Seals `len` bytes from `addr`: they can no longer be unmapped, moved,
    /// resized or have their protection changed.
    ///
    /// # Errors
    ///
    /// As mseal(2): `Invalid` for an unaligned address, a range that wraps, or
    /// `flags`; `NotMapped` if any page is not mapped; nothing is sealed then.
    pub fn mseal(&self, addr: usize, len: usize, flags: usize) -> Result<(), SpaceError> {
        let length = page_align_up(len);
        if flags != 0 || !is_page_aligned(addr) || (len != 0 && length == 0) {
            return Err(SpaceError::Invalid);
        }
        let end = addr.checked_add(length).ok_or(SpaceError::Invalid)?;
        if end == addr {
            return Ok(());
        }
        let mut state = self.mmap.write();
        for_parts(&state, addr, end, |_, _| Ok(()))?;
        self.change_flags(&mut state, addr, end, |vma| Ok(vma.flags() | VmaFlags::SEALED))
    }

    /// Gives all VMAs of `addr..end` the flags that `new_flags` has for them. The totals must not depend on what changes.
    ///
    /// # Errors
    ///
    /// What `new_flags` or a split fails with (what comes before has changed
    /// then), or `NotMapped` if there was a hole (all else has changed).
    pub(super) fn change_flags(
        &self,
        state: &mut State,
        addr: usize,
        end: usize,
        mut new_flags: impl FnMut(&Vma) -> Result<VmaFlags, SpaceError>,
    ) -> Result<(), SpaceError> {
        let mut result = Ok(());
        let mut at = addr;
        while at < end {
            let Some(vma) = state.vmas.find(at).filter(|vma| vma.start() < end) else {
                return Err(SpaceError::NotMapped);
            };
            if vma.start() > at {
                result = Err(SpaceError::NotMapped);
            }
            let (start, stop) = (vma.start().max(at), vma.end().min(end));
            let new = new_flags(&vma)?;
            if new != vma.flags() {
                let range = PageRange::new(start, stop).ok_or(SpaceError::NotMapped)?;
                self.modify(state, vma, range, new)?;
            }
            at = stop;
        }
        result
    }
}

/// Calls `f` with the part of each VMA that is in `addr..end`, until it fails.
fn for_parts(
    state: &State,
    addr: usize,
    end: usize,
    mut f: impl FnMut(Ref<Vma>, PageRange) -> Result<(), SpaceError>,
) -> Result<(), SpaceError> {
    let mut result = Ok(());
    let mut at = addr;
    for vma in state.vmas.overlapping(addr, end) {
        if vma.start() > at {
            result = Err(SpaceError::NotMapped);
        }
        at = vma.end().min(end);
        let range = PageRange::new(vma.start().max(addr), at).ok_or(SpaceError::NotMapped)?;
        f(vma, range)?;
    }
    if at < end { Err(SpaceError::NotMapped) } else { result }
}

impl From<FaultError> for SpaceError {
    /// As `MADV_POPULATE_READ` and `MADV_POPULATE_WRITE` report it.
    fn from(error: FaultError) -> SpaceError {
        match error {
            FaultError::NotMapped => SpaceError::NotMapped,
            FaultError::AccessDenied => SpaceError::Invalid,
            FaultError::BeyondEnd | FaultError::Unreadable => SpaceError::BadAddress,
            FaultError::OutOfMemory => SpaceError::OutOfMemory,
        }
    }
}
