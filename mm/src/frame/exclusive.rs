//! Which private pages are exclusive: known to be one mapping's alone (Linux's `PageAnonExclusive`).
//!
//! Who writes to an exclusive page does so in place, whoever else has a reference to it: it was
//! got through that one mapping, so its holder is to see what the program writes (who has pinned
//! the page), or is here for a moment (reclaim, migration, merging). Of any other private page
//! who writes gets a copy: somebody may have a reference to it that he got while he had the page
//! too, and is to go on reading what was there then.
//!
//! # What always holds
//!
//! 1. A new private page is exclusive. Fork shares it with the child, a fault brings a page back from swap that
//!    others have there as well: it is not exclusive then. A write to a page that has one mapping and no
//!    other reference makes it exclusive again.
//! 2. An exclusive page has at most one mapping, or one migration entry, and is not merged with others. So it
//!    is that entry's lock that guards whether it is exclusive; without a mapping, the page's lock.
//! 3. A private page that can be written to through a page table is exclusive.
//! 4. So is one that is [pinned](crate::AddressSpace::pin), as long as its owner has it mapped, and it stays mapped
//!    itself: who puts anything in the place of a mapping looks for pins first, with the
//!    entry's lock, under which pages are pinned. There are no pinned pages in swap, and none that are being moved.

use core::sync::atomic::Ordering;

use super::{FrameKind, SHARED};
use crate::Frame;

impl Frame {
    /// Whether the page is a private one that is its one mapping's alone: see `mm/src/frame/exclusive.rs`.
    #[inline(always)]
    pub fn is_exclusive(&self) -> bool {
        self.state.load(Ordering::Relaxed) & (0xff | SHARED) == FrameKind::Anon as u32
    }

    /// Adds a reference which is a mapping, by which the page, if it is a private one, becomes shared. The
    /// caller has locked an entry that maps it.
    #[inline]
    pub(crate) fn share(&self) {
        self.get();
        self.inc_mapcount();
        self.set_shared();
    }

    /// The private page is not one mapping's alone, or need not be.
    #[inline]
    pub(crate) fn set_shared(&self) {
        self.state.fetch_or(SHARED, Ordering::Relaxed);
    }

    /// The private page is one mapping's alone, which is to say the caller's.
    pub(crate) fn set_exclusive(&self) {
        self.state.fetch_and(!SHARED, Ordering::Relaxed);
    }

    /// Makes the page exclusive if it is not, and nobody has it but the one entry that maps it, and that
    /// the caller has locked. Says whether it is now.
    #[inline(always)]
    pub(crate) fn try_make_exclusive(&self) -> bool {
        self.mapcount() == 1 && (self.is_exclusive() || self.regain())
    }

    #[inline]
    fn regain(&self) -> bool {
        let alone = self.refcount() == 1 && self.is_ordinary_anon();
        if alone {
            self.set_exclusive();
        }
        alone
    }
}
