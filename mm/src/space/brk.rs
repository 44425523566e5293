//! brk(2): the heap.

use super::{AddressSpace, SpaceError, State};
use crate::vma::Attributes;
use crate::{PAGE_SHIFT, PAGE_SIZE, PageRange, Platform, TASK_SIZE, VmaFlags, page_align_up};

/// What the heap's VMA is.
const HEAP: VmaFlags = VmaFlags::READ.union(VmaFlags::WRITE).union(VmaFlags::MAY_ACCESS);

impl<P: Platform> AddressSpace<'_, P> {
    /// Says where the program ends, in bytes: the heap starts in a page after
    /// it, at a random distance if layouts are random. For exec, once.
    pub fn set_program_end(&self, end: usize) {
        let mut state = self.mmap.write();
        let start = page_align_up(end).saturating_add(state.layout.brk_offset).min(TASK_SIZE);
        state.brk_start = start;
        state.brk = start;
    }

    /// Moves the end of the heap to `addr`, in bytes, if that is possible, and
    /// returns where the end is now. An impossible address (0, for instance)
    /// changes nothing, which is how a program asks for the end.
    pub fn brk(&self, addr: usize) -> usize {
        let grown = self.mem.reclaiming(|| {
            let mut state = self.mmap.write();
            let old = state.brk;
            self.try_brk(&mut state, addr)?;
            state.brk = addr;
            let locked = state.new_vma_flags.contains(VmaFlags::LOCKED);
            Ok::<_, SpaceError>(PageRange::new(page_align_up(old), page_align_up(addr)).filter(|_| locked))
        });
        match grown {
            Ok(populate) => {
                populate.inspect(|&grown| self.populate(grown));
                addr
            }
            Err(_) => self.mmap.read().brk,
        }
    }

    fn try_brk(&self, state: &mut State, addr: usize) -> Result<(), SpaceError> {
        if addr < state.brk_start || addr > TASK_SIZE {
            return Err(SpaceError::Invalid);
        }
        let limits = self.limits.get();
        if (addr - state.brk_start) as u64 > limits.data {
            return Err(SpaceError::OverLimit);
        }
        let (old, new) = (page_align_up(state.brk), page_align_up(addr));
        if new <= old {
            let tail = PageRange::new(new, old).ok_or(SpaceError::Invalid)?;
            return match state.vmas.find(new) {
                _ if tail.is_empty() => Ok(()),
                Some(heap) if heap.start() < old => self.unmap(state, tail),
                // The program has unmapped its heap.
                _ => Err(SpaceError::NotMapped),
            };
        }
        let range = PageRange::new(old, new).ok_or(SpaceError::NoRoom)?;
        state.totals.may_lock_more(limits, state.new_vma_flags, range.pages())?;
        // The heap keeps a page's distance from what is above, and a stack's
        // guard gap.
        if state.vmas.find(old).is_some_and(|next| new + PAGE_SIZE > next.guarded_start()) {
            return Err(SpaceError::NoRoom);
        }
        if state.vmas.len() > self.mem.sysctl().max_map_count() {
            return Err(SpaceError::TooManyVmas);
        }
        let flags = state.mergeable(HEAP | state.new_vma_flags);
        let attributes = Attributes { flags, object: None, name: 0 };
        self.map(state, range, old >> PAGE_SHIFT, attributes)
    }
}
