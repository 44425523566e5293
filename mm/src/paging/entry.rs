//! The format of a page-table entry: x86-64's, with the bits that hardware
//! ignores given a meaning of our own.
//!
//! | value                          | meaning |
//! |--------------------------------|---------|
//! | 0                              | empty |
//! | `PRESENT`, no `HUGE`, above PTE| the next lower table |
//! | `PRESENT`                      | a leaf: maps a page |
//! | `PROT_NONE`, not `PRESENT`     | a leaf that maps a page nobody may access |
//! | `SWAP`, not `PRESENT`          | no page: the number of the swap slot that has it |
//! | `MIGRATION`, not `PRESENT`     | a leaf whose page is being moved to another frame |
//!
//! A migration entry is the leaf that it was, and will be, but for the bits by which
//! that maps a page: it names the frame that the page leaves, and `USER` says whether
//! it was `PRESENT`, or else `PROT_NONE`.
//!
//! Of a leaf and of what is in the place of one, whatever its kind, `SOFT_DIRTY` says whether the page
//! has been written to since such writes were last asked for; see [`clear_refs`](crate::space).
//!
//! A leaf above the PTE level, in a PMD table, always has `HUGE` set, `PROT_NONE` ones
//! too; see [`huge`](super::huge).

use bitflags::bitflags;

use crate::{Pfn, PhysAddr};

bitflags! {
    /// The flag bits of an entry.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub(crate) struct EntryFlags: u64 {
        /// The hardware may use the entry.
        const PRESENT = 1 << 0;
        /// Writes are allowed.
        const WRITE = 1 << 1;
        /// User mode may use it.
        const USER = 1 << 2;
        /// Write-through caching.
        const WRITE_THROUGH = 1 << 3;
        /// No caching.
        const NO_CACHE = 1 << 4;
        /// Set by hardware on use.
        const ACCESSED = 1 << 5;
        /// Set by hardware on a write.
        const DIRTY = 1 << 6;
        /// A leaf, in an entry above the PTE level. (In a PTE the bit is
        /// `PAT`, which stays clear.)
        const HUGE = 1 << 7;
        /// In an entry that is not `PRESENT`: it maps a page all the same, which
        /// nobody may access. (In a present entry the bit means "global",
        /// which no user page is.)
        const PROT_NONE = 1 << 8;
        /// The frame is not counted or found by rmap: the shared zero page,
        /// device memory. Ignored by hardware.
        const SPECIAL = 1 << 9;
        /// In an entry that maps no page: the page is in the swap slot whose number
        /// is where the frame's would be.
        const SWAP = 1 << 10;
        /// In an entry that maps no page: it did, and will again when the page is where
        /// it is being moved to. Ignored by hardware.
        const MIGRATION = 1 << 11;
        /// The page has been written to since [`clear_refs`](crate::space) last said that
        /// it has not. Set wherever `WRITE` is, so that a write to a page which has it not faults.
        /// In every kind of entry but one that refers to a table. Ignored by hardware.
        const SOFT_DIRTY = 1 << 58;
        /// Instructions may not be fetched.
        const NO_EXEC = 1 << 63;
    }
}

/// The frame address inside an entry.
const ADDR_MASK: u64 = 0x000f_ffff_ffff_f000;
/// In a leaf above the PTE level this address bit is `PAT`.
const HUGE_PAT: u64 = 1 << 12;

/// The value of one page-table entry.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Entry(pub u64);

impl Entry {
    /// Maps nothing.
    pub const EMPTY: Entry = Entry(0);

    /// A leaf. What access is allowed is up to `flags`; a leaf above the PTE
    /// level needs [`EntryFlags::HUGE`].
    pub const fn leaf(pfn: Pfn, flags: EntryFlags) -> Entry {
        Entry((pfn.0 as u64) << 12 | flags.bits())
    }

    /// Says that the page is in a swap slot.
    pub const fn swap(slot: u32) -> Entry {
        Entry((slot as u64) << 12 | EntryFlags::SWAP.bits())
    }

    /// The swap slot that has the page, if one has.
    pub const fn swap_slot(self) -> Option<u32> {
        if self.maps_page() || self.0 & EntryFlags::SWAP.bits() == 0 {
            return None;
        }
        Some(((self.0 & ADDR_MASK) >> 12) as u32)
    }

    /// The migration entry in place of a leaf, which is no huge one.
    pub const fn suspended(self) -> Entry {
        let leaf = EntryFlags::PRESENT.union(EntryFlags::PROT_NONE).union(EntryFlags::USER);
        let user = if self.is_present() { EntryFlags::USER } else { EntryFlags::empty() };
        self.without(leaf).with(EntryFlags::MIGRATION.union(user))
    }

    /// The leaf that a migration entry stands for, still with the frame that the page leaves.
    pub const fn resumed(self) -> Entry {
        let was_present = self.0 & EntryFlags::USER.bits() != 0;
        let access = if was_present { EntryFlags::PRESENT } else { EntryFlags::PROT_NONE };
        self.without(EntryFlags::MIGRATION).with(EntryFlags::USER.union(access))
    }

    /// The frame that a page is being moved from, if this is a migration entry.
    pub const fn migrating(self) -> Option<Pfn> {
        if self.maps_page() || self.0 & EntryFlags::MIGRATION.bits() == 0 {
            return None;
        }
        Some(self.pfn())
    }

    /// What the entry says for who does not mind that a page is just being moved: of a
    /// migration entry the leaf that it stands for.
    pub const fn settled(self) -> Entry {
        if self.migrating().is_some() { self.resumed() } else { self }
    }

    /// A reference to the next lower table. Access rights are the leaves'
    /// business, so everything is allowed here.
    pub(super) const fn table(pfn: Pfn) -> Entry {
        let flags = EntryFlags::PRESENT
            .union(EntryFlags::WRITE)
            .union(EntryFlags::USER)
            .union(EntryFlags::ACCESSED)
            .union(EntryFlags::DIRTY);
        Entry((pfn.0 as u64) << 12 | flags.bits())
    }

    /// Whether it is zero.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether hardware may use it.
    pub const fn is_present(self) -> bool {
        self.0 & EntryFlags::PRESENT.bits() != 0
    }

    /// Whether it is a leaf that maps a page, accessible or not. Of any value
    /// read from a PTE, or from where [`HUGE`](EntryFlags::HUGE) was seen.
    pub const fn maps_page(self) -> bool {
        self.0 & (EntryFlags::PRESENT.bits() | EntryFlags::PROT_NONE.bits()) != 0
    }

    /// Whether writes are allowed.
    pub const fn is_writable(self) -> bool {
        self.0 & EntryFlags::WRITE.bits() != 0
    }

    /// Whether its page has been written to since that was last asked.
    pub const fn is_soft_dirty(self) -> bool {
        self.0 & EntryFlags::SOFT_DIRTY.bits() != 0
    }

    /// Whether instructions may be fetched.
    pub const fn is_executable(self) -> bool {
        self.0 & EntryFlags::NO_EXEC.bits() == 0
    }

    /// Whether it is a leaf above the PTE level.
    pub const fn is_huge(self) -> bool {
        self.0 & EntryFlags::HUGE.bits() != 0
    }

    /// Whether the frame is one that rmap does not know.
    pub const fn is_special(self) -> bool {
        self.0 & EntryFlags::SPECIAL.bits() != 0
    }

    /// Whether it maps a page whose frame counts it: that is, which rmap knows.
    pub const fn is_counted(self) -> bool {
        let bits = EntryFlags::PRESENT.bits() | EntryFlags::PROT_NONE.bits() | EntryFlags::SPECIAL.bits();
        // Something, and, as `SPECIAL` is the highest bit of the three, not that.
        (self.0 & bits).wrapping_sub(1) < EntryFlags::SPECIAL.bits() - 1
    }

    /// The frame, if the entry [`is_counted`](Self::is_counted), or would be were its page
    /// not just being moved: quick to tell for what most entries are, a page of the
    /// smallest size that is accessible, or nothing.
    #[inline(always)]
    pub fn counted_pfn(self) -> Option<Pfn> {
        let bits = EntryFlags::PRESENT.bits() | EntryFlags::SPECIAL.bits() | EntryFlags::HUGE.bits();
        if self.0 & bits == EntryFlags::PRESENT.bits() {
            Some(Pfn(((self.0 & ADDR_MASK) >> 12) as usize))
        } else if self.is_empty() {
            None
        } else {
            self.unusual_counted_pfn()
        }
    }

    #[cold]
    #[inline(never)]
    fn unusual_counted_pfn(self) -> Option<Pfn> {
        self.settled().is_counted().then(|| self.pfn())
    }

    /// The (first) frame that a leaf maps.
    pub const fn pfn(self) -> Pfn {
        let mask = if self.is_huge() { ADDR_MASK & !HUGE_PAT } else { ADDR_MASK };
        Pfn(((self.0 & mask) >> 12) as usize)
    }

    /// Where the table is that the entry refers to.
    pub(super) const fn table_addr(self) -> PhysAddr {
        PhysAddr::new_truncate(self.0 & ADDR_MASK)
    }

    /// The flags that have a name.
    pub const fn flags(self) -> EntryFlags {
        EntryFlags::from_bits_truncate(self.0)
    }

    /// The same, mapping another frame.
    pub const fn with_pfn(self, pfn: Pfn) -> Entry {
        Entry(self.0 & !ADDR_MASK | (pfn.0 as u64) << 12)
    }

    /// The same with `flags` set.
    pub const fn with(self, flags: EntryFlags) -> Entry {
        Entry(self.0 | flags.bits())
    }

    /// The same, and soft-dirty if `other` is.
    pub const fn with_soft_dirty_of(self, other: Entry) -> Entry {
        Entry(self.0 | other.0 & EntryFlags::SOFT_DIRTY.bits())
    }

    /// The same with `flags` cleared.
    pub const fn without(self, flags: EntryFlags) -> Entry {
        Entry(self.0 & !flags.bits())
    }
}

impl core::fmt::Debug for Entry {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Entry({:#x} {:?})", self.0 & ADDR_MASK, self.flags())
    }
}
