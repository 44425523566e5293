//! What `/sys/kernel/mm/ksm` shows.

use crate::{Memory, Platform};

/// What passes over all frames have come to. "Unshared" pages have no equal, "unstable" ones are written to too
/// often to be compared.
#[derive(Clone, Copy, Default)]
pub(crate) struct Passes {
    /// Those that are over.
    pub full: u64,
    /// Pages looked at, ever.
    pub scanned: u64,
    /// In this pass up to now.
    pub unshared: usize,
    pub unstable: usize,
    /// In the one before.
    last_unshared: usize,
    last_unstable: usize,
}

/// How merging is doing.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct KsmStats {
    /// Merged pages.
    pub shared: usize,
    /// Pages that there would be more if nothing had been merged.
    pub sharing: usize,
    /// Pages that are looked at again and again, but equal no other.
    pub unshared: usize,
    /// Pages that change too fast.
    pub volatile: usize,
    /// How often all memory has been gone through.
    pub full_scans: u64,
    /// Pages looked at.
    pub scanned: u64,
    /// Contents of which there is more than one merged page, each with as many mappings as are allowed.
    pub chains: usize,
    /// Those pages.
    pub duplicates: usize,
}

/// What of an address space has been merged, in pages.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct KsmPages {
    /// With other pages.
    pub merged: usize,
    /// With the page of zeroes.
    pub zero: usize,
}

impl Passes {
    /// A pass is over.
    pub(super) fn next(&mut self) {
        self.full += 1;
        (self.last_unshared, self.last_unstable) = (self.unshared, self.unstable);
        self.unstable = 0;
    }

    /// Nothing is known of pages that have not been merged.
    pub(super) fn forget(&mut self) {
        *self = Passes { full: self.full, scanned: self.scanned, ..Passes::default() };
    }
}

impl<P: Platform> Memory<P> {
    /// How merging is doing: counted now.
    pub fn ksm_stats(&self) -> KsmStats {
        let trees = self.lock_ksm();
        let passes = trees.passes;
        let mut stats = KsmStats {
            unshared: passes.last_unshared,
            volatile: passes.last_unstable,
            full_scans: passes.full,
            scanned: passes.scanned,
            ..KsmStats::default()
        };
        let (mut last, mut alike) = (None, 0);
        for node in trees.all_stable() {
            let mappings = self.merged_page(node).map_or(0, |page| page.record().mapcount() as usize);
            if mappings == 0 {
                continue;
            }
            stats.shared += 1;
            stats.sharing += mappings - 1;
            alike = if last == Some(node.hash()) { alike + 1 } else { 1 };
            last = Some(node.hash());
            if alike == 2 {
                stats.chains += 1;
            }
            if alike >= 2 {
                stats.duplicates += if alike == 2 { 2 } else { 1 };
            }
        }
        stats
    }
}
