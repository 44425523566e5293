//! The state of one `mremap`: what the user asked for, and what has been
//! found out about it so far (Linux's `vma_remap_struct`).

use crate::space::SpaceError;
use crate::{MremapFlags, TASK_SIZE, is_page_aligned, page_align_up};

/// What an `mremap` does to the size of the mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RemapKind {
    /// `old_len == new_len`: moves, or does nothing.
    NoResize,
    /// `old_len > new_len`.
    Shrink,
    /// `old_len < new_len`.
    Expand,
}

/// One `mremap`, threaded through the whole operation. The fields always
/// describe what is left to do: a shrink that moves becomes a plain move once
/// its tail is accounted for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remap {
    /// First address of the range that is remapped, in bytes.
    pub addr: usize,
    /// Its length in bytes, page aligned; 0 asks for a second mapping of shared pages.
    pub old_len: usize,
    /// The length it is to have, in bytes, page aligned, not 0.
    pub new_len: usize,
    pub flags: MremapFlags,
    /// Where it goes, in bytes: given by the user with `FIXED`, a hint with
    /// `DONTUNMAP` alone, else chosen when it turns out that a move is needed.
    pub new_addr: usize,
}

impl Remap {
    /// Checks the arguments of the system call, in Linux's order
    /// (`check_mremap_params`); what depends on a VMA is checked later.
    ///
    /// # Errors
    ///
    /// `Invalid`, always.
    pub fn parse(
        addr: usize,
        old_len: usize,
        new_len: usize,
        flags: usize,
        new_addr: usize,
    ) -> Result<Remap, SpaceError> {
        let flags = u32::try_from(flags).ok().and_then(MremapFlags::from_bits).ok_or(SpaceError::Invalid)?;
        let remap = Remap { addr, old_len: page_align_up(old_len), new_len: page_align_up(new_len), flags, new_addr };
        if remap.is_well_formed() { Ok(remap) } else { Err(SpaceError::Invalid) }
    }

    fn is_well_formed(&self) -> bool {
        let sizes = is_page_aligned(self.addr) && self.new_len != 0 && self.new_len <= TASK_SIZE;
        if self.relocates() && !self.flags.contains(MremapFlags::MAYMOVE) {
            return false;
        }
        if !sizes || !self.names_new_addr() {
            return sizes;
        }
        is_page_aligned(self.new_addr)
            && self.new_addr <= TASK_SIZE - self.new_len
            && self.flags.contains(MremapFlags::MAYMOVE)
            && (!self.dont_unmap() || self.old_len == self.new_len)
            && !self.overlaps()
    }

    /// Whether source and destination, as the user gave them, overlap.
    ///
    /// ```text
    ///      addr          old_end
    ///       |---------------|
    ///             |---------------|
    ///          new_addr        new_end
    /// ```
    fn overlaps(&self) -> bool {
        let old_end = self.addr.wrapping_add(self.old_len);
        let new_end = self.new_addr.wrapping_add(self.new_len);
        old_end > self.new_addr && new_end > self.addr
    }

    /// Whether the new address comes from the user.
    pub fn names_new_addr(&self) -> bool {
        self.flags.intersects(MremapFlags::FIXED | MremapFlags::DONTUNMAP)
    }

    pub fn fixed(&self) -> bool {
        self.flags.contains(MremapFlags::FIXED)
    }

    pub fn dont_unmap(&self) -> bool {
        self.flags.contains(MremapFlags::DONTUNMAP)
    }

    /// Whether pages that move are to belong to the new address.
    pub fn relocates(&self) -> bool {
        self.flags.intersects(MremapFlags::RELOCATE_ANON | MremapFlags::MUST_RELOCATE_ANON)
    }

    /// Whether it is an error if they cannot.
    pub fn must_relocate(&self) -> bool {
        self.flags.contains(MremapFlags::MUST_RELOCATE_ANON)
    }

    /// What happens to the size.
    pub fn kind(&self) -> RemapKind {
        match self.old_len.cmp(&self.new_len) {
            core::cmp::Ordering::Equal => RemapKind::NoResize,
            core::cmp::Ordering::Greater => RemapKind::Shrink,
            core::cmp::Ordering::Less => RemapKind::Expand,
        }
    }

    /// The difference of the two lengths, in bytes.
    pub fn delta(&self) -> usize {
        self.old_len.abs_diff(self.new_len)
    }

    /// A move that keeps the length, to a given place: the one form that may
    /// cover several VMAs.
    pub fn may_span_vmas(&self) -> bool {
        self.fixed() && self.kind() == RemapKind::NoResize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: usize = 0x10_0000;
    const B: usize = 0x20_0000;
    const PAGE: usize = 0x1000;

    fn parse(old: usize, new: usize, flags: usize, to: usize) -> Result<Remap, SpaceError> {
        Remap::parse(A, old, new, flags, to)
    }

    fn invalid(result: Result<Remap, SpaceError>) -> bool {
        matches!(result, Err(SpaceError::Invalid))
    }

    #[test]
    fn unknown_flags_are_invalid() {
        for flag in [32, 64, 1 << 31, 1 << 32, 1 << 63] {
            assert!(invalid(parse(PAGE, PAGE, 1 | flag, 0)), "{flag:#x}");
        }
    }

    #[test]
    fn lengths_are_rounded_up_before_they_are_compared() {
        let remap = parse(4095, 4096, 1 | 4, 0).unwrap();
        assert_eq!(remap.kind(), RemapKind::NoResize);
    }

    #[test]
    fn a_new_length_that_wraps_to_zero_is_invalid() {
        assert!(invalid(parse(PAGE, usize::MAX - 100, 1, 0)));
        assert!(invalid(parse(PAGE, 0, 1, 0)));
        assert!(invalid(parse(PAGE, TASK_SIZE + PAGE, 1, 0)));
    }

    #[test]
    fn the_new_address_counts_only_where_a_flag_names_it() {
        assert!(parse(PAGE, PAGE, 1, B + 1).is_ok());
        assert!(invalid(parse(PAGE, PAGE, 1 | 2, B + 1)));
        assert!(invalid(parse(PAGE, PAGE, 1 | 4, B + 1)));
        assert!(invalid(parse(PAGE, PAGE, 1 | 2, TASK_SIZE)));
    }

    #[test]
    fn fixed_and_dontunmap_need_maymove() {
        assert!(invalid(parse(PAGE, PAGE, 2, B)));
        assert!(invalid(parse(PAGE, PAGE, 4, B)));
        assert!(parse(PAGE, PAGE, 3, B).is_ok());
    }

    #[test]
    fn relocation_needs_maymove_and_no_more() {
        for flag in [8, 16, 24] {
            assert!(invalid(parse(PAGE, PAGE, flag, 0)), "{flag}");
            for others in [1, 1 | 2, 1 | 4, 1 | 2 | 4] {
                assert!(parse(PAGE, PAGE, flag | others, B).is_ok(), "{flag} {others}");
            }
            assert!(parse(PAGE, 2 * PAGE, flag | 1, 0).is_ok());
        }
    }

    #[test]
    fn dontunmap_cannot_resize() {
        assert!(invalid(parse(PAGE, 2 * PAGE, 1 | 4, 0)));
        assert!(invalid(parse(2 * PAGE, PAGE, 1 | 4, 0)));
    }

    #[test]
    fn overlap_is_invalid_even_for_a_hint() {
        for flags in [1 | 2, 1 | 4] {
            assert!(invalid(parse(2 * PAGE, 2 * PAGE, flags, A)));
            assert!(invalid(parse(2 * PAGE, 2 * PAGE, flags, A + PAGE)));
            assert!(invalid(parse(2 * PAGE, 2 * PAGE, flags, A - PAGE)));
            assert!(parse(2 * PAGE, 2 * PAGE, flags, A + 2 * PAGE).is_ok());
            assert!(parse(2 * PAGE, 2 * PAGE, flags, A - 2 * PAGE).is_ok());
        }
    }
}
