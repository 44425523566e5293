//! The stack: how exec makes it, and how it grows.
//!
//! Exec writes the arguments into a *temporary* stack at the very top of user
//! space before it can know where the stack will be, and then shifts it down
//! to its random place by moving page tables (Linux's `setup_arg_pages`).

use super::account::Charge;
use super::{AddressSpace, FaultError, SpaceError, State};
use crate::paging::{TableMove, TlbGather};
use crate::rmap;
use crate::slab::Ref;
use crate::vma::{Attributes, STACK_GUARD_GAP, Vma};
use crate::{Event, PAGE_SHIFT, PAGE_SIZE, PageRange, Platform, TASK_SIZE, VmaFlags, page_align_down, page_align_up};

/// What a stack's VMA is.
const STACK: VmaFlags = VmaFlags::READ
    .union(VmaFlags::WRITE)
    .union(VmaFlags::MAY_ACCESS)
    .union(VmaFlags::GROWSDOWN)
    .union(VmaFlags::ACCOUNT);
/// Bytes by which the stack is extended at once when it has its final place.
const FIRST_EXTENSION: usize = 128 << 10;

impl<P: Platform> AddressSpace<'_, P> {
    /// Maps the temporary stack and returns its top, in bytes. For exec:
    /// strings go below the top with [`write_bytes`](Self::write_bytes), by
    /// which the stack grows; then comes
    /// [`finalize_stack`](Self::finalize_stack).
    ///
    /// # Errors
    ///
    /// `OutOfMemory`, or a limit.
    pub fn map_stack(&self, executable: bool) -> Result<usize, SpaceError> {
        let mut flags = STACK | VmaFlags::TEMP_STACK;
        if executable {
            flags |= VmaFlags::EXEC;
        }
        let range = PageRange::new(TASK_SIZE - PAGE_SIZE, TASK_SIZE).ok_or(SpaceError::NoRoom)?;
        let attributes = Attributes { flags, object: None, name: 0 };
        let mut state = self.mmap.write();
        self.map(&mut state, range, range.start() >> PAGE_SHIFT, attributes)?;
        state.stack_top = TASK_SIZE;
        Ok(TASK_SIZE)
    }

    /// Shifts the temporary stack to its final place, extends it by what a
    /// program needs at once, and returns by how many bytes it went down: what
    /// was written at `addr` is now at `addr` less that.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`, or a limit; the address space is of no use then.
    pub fn finalize_stack(&self) -> Result<usize, SpaceError> {
        let mut state = self.mmap.write();
        let stack = state.vmas.lookup(TASK_SIZE - 1).ok_or(SpaceError::BadAddress)?;
        let shift = TASK_SIZE - page_align_down(state.layout.stack_top);
        if shift != 0 {
            self.shift_stack(&mut state, stack, shift)?;
        }
        let top = TASK_SIZE - shift;
        state.vmas.set_flags(stack, stack.flags() - VmaFlags::TEMP_STACK);
        state.stack_top = top;
        let limit = page_align_down(usize::try_from(self.limits.get().stack).unwrap_or(usize::MAX));
        let size = (stack.end() - stack.start() + FIRST_EXTENSION).min(limit);
        let start = page_align_down(top.saturating_sub(size));
        if start < stack.start() {
            // As on Linux, a stack that cannot be extended yet is tried again by faults.
            let _ = self.extend_down(&mut state, stack, start);
        }
        Ok(shift)
    }

    /// Moves the stack's VMA and page tables down by `shift` bytes; source and
    /// target may overlap.
    ///
    /// ```text
    ///   before                 [ssss]
    ///   after         [ssss]
    /// ```
    fn shift_stack(&self, state: &mut State, stack: Ref<Vma>, shift: usize) -> Result<(), SpaceError> {
        let old = stack.range();
        let below = |addr: usize| addr.checked_sub(shift).ok_or(SpaceError::NoRoom);
        let new = PageRange::new(below(old.start())?, below(old.end())?).ok_or(SpaceError::NoRoom)?;
        let floor = stack.prev().map_or(0, |prev| prev.end());
        if new.start() < floor {
            return Err(SpaceError::NoRoom);
        }
        let tables = TableMove::new(old, new).ok_or(SpaceError::NoRoom)?;
        state.vmas.lock_vma(stack);
        self.core.tables.move_prepare(self.mem, &tables)?;
        self.core.tables.move_commit(self.mem, &tables);
        state.vmas.shift(stack, new);
        let mut gather = TlbGather::new(self.mem, &self.core.tables, Event::FlushUnmap);
        let left = PageRange::new(new.end().max(old.start()), old.end()).ok_or(SpaceError::NoRoom)?;
        self.core.tables.free_tables(self.mem, left, new.end(), TASK_SIZE, &mut gather);
        Ok(())
    }

    /// Grows the stack that is next above `addr` down to it, after a fault
    /// there (Linux's `expand_stack`).
    pub(super) fn grow_stack(&self, addr: usize) -> Result<(), FaultError> {
        let mut state = self.mmap.write();
        let start = page_align_down(addr);
        match state.vmas.find(addr) {
            // Another thread's fault has grown it meanwhile.
            Some(vma) if vma.start() <= start => Ok(()),
            Some(vma) if vma.flags().contains(VmaFlags::GROWSDOWN) => {
                self.extend_down(&mut state, vma, start).map_err(|error| match error {
                    SpaceError::OutOfMemory => FaultError::OutOfMemory,
                    _ => FaultError::NotMapped,
                })
            }
            _ => Err(FaultError::NotMapped),
        }
    }

    /// Lets `vma`, a stack, start at `start` (Linux's `expand_downwards`).
    fn extend_down(&self, state: &mut State, vma: Ref<Vma>, start: usize) -> Result<(), SpaceError> {
        let flags = vma.flags();
        if start < page_align_up(self.mem.sysctl().mmap_min_addr()) {
            return Err(SpaceError::BelowMinimum);
        }
        // The gap is to what could be mistaken for the stack: memory that can
        // be accessed. Another stack has its own gap, above.
        if let Some(prev) = vma.prev()
            && !prev.flags().contains(VmaFlags::GROWSDOWN)
            && prev.flags().intersects(VmaFlags::ACCESS)
            && start - prev.end().min(start) < STACK_GUARD_GAP
        {
            return Err(SpaceError::NoRoom);
        }
        if vma.prev().is_some_and(|prev| prev.end() > start) {
            return Err(SpaceError::NoRoom);
        }
        // As on Linux even if a limit is in the way: it shows in what merges, and what is charged.
        rmap::prepare(self.mem, vma)?;
        let pages = (vma.start() - start) >> PAGE_SHIFT;
        let limits = self.limits.get();
        if vma.pgoff() < pages || (vma.end() - start) as u64 > limits.stack {
            return Err(SpaceError::OverLimit);
        }
        state.totals.may_expand(limits, flags, pages)?;
        state.totals.may_lock_more(limits, flags, pages)?;
        let accountable = flags.contains(VmaFlags::ACCOUNT);
        let charge = Charge::new(self.mem, if accountable { pages } else { 0 })?;
        charge.keep();
        state.totals.add(flags, pages);
        state.totals.lock(flags, pages);
        if let Some(range) = PageRange::new(start, vma.end()) {
            state.vmas.resize(vma, range);
        }
        Ok(())
    }
}
