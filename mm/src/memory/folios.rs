//! Which folios faults make: the settings that Linux has under `/sys/kernel/mm/transparent_hugepage`, and
//! the counts for each order.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::paging::HUGE_ORDER;

/// Where faults make huge pages (`transparent_hugepage/enabled`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HugePages {
    /// `always`: wherever they fit, unless the mapping is advised `MADV_NOHUGEPAGE`.
    Always,
    /// `madvise`: in mappings that are advised `MADV_HUGEPAGE`.
    Madvise,
    /// `never`.
    Never,
}

/// Where faults make folios of one order (`transparent_hugepage/hugepages-*kB/enabled`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FolioPolicy {
    /// `never`.
    Never,
    /// `always`: wherever they fit, unless the mapping is advised `MADV_NOHUGEPAGE`.
    Always,
    /// `madvise`: in mappings that are advised `MADV_HUGEPAGE`.
    Madvise,
    /// `inherit`: where [`HugePages`] says.
    Inherit,
}

/// In which mappings a fault that finds no block of memory for a huge page, or for a large
/// folio, has memory compacted (`transparent_hugepage/defrag`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Defrag {
    /// `always`.
    Always,
    /// `defer`: in none. (Nothing compacts in the background.)
    Defer,
    /// `defer+madvise`: in those that are advised `MADV_HUGEPAGE`.
    DeferMadvise,
    /// `madvise`: the same.
    Madvise,
    /// `never`.
    Never,
}

/// The orders that large folios can have: 16 KiB to 2 MiB.
pub const FOLIO_ORDERS: core::ops::RangeInclusive<u8> = 2..=HUGE_ORDER;

/// Bits of a [`FolioPolicy`].
const POLICY: u32 = 3;
/// Where [`HugePages`] is.
const HUGE_PAGES: u32 = 16;
/// Where [`Defrag`] is.
const DEFRAG: u32 = 20;
/// The policies of all orders but that of huge pages.
const SMALLER: u32 = (1 << shift(HUGE_ORDER)) - 1;

const fn shift(order: u8) -> u32 {
    (order as u32).saturating_sub(2) * 2
}

/// All these settings, in one word, so that who reads them gets some that belong together.
#[derive(Debug)]
pub(super) struct FolioSettings(AtomicU32);

impl FolioSettings {
    /// Linux's defaults: `madvise`, `inherit` for huge pages and `never` for the others; `madvise`.
    pub(super) const fn new() -> FolioSettings {
        let policies = (FolioPolicy::Inherit as u32) << shift(HUGE_ORDER);
        let huge_pages = (HugePages::Madvise as u32) << HUGE_PAGES;
        let defrag = (Defrag::Madvise as u32) << DEFRAG;
        FolioSettings(AtomicU32::new(policies | huge_pages | defrag))
    }

    #[inline(always)]
    fn get(&self) -> Settings {
        Settings(self.0.load(Ordering::Relaxed))
    }

    fn set(&self, at: u32, bits: u32, value: u32) {
        let with = |word: u32| Some(word & !(bits << at) | value << at);
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with);
    }

    pub(super) fn huge_pages(&self) -> HugePages {
        self.get().huge_pages()
    }

    pub(super) fn set_huge_pages(&self, mode: HugePages) {
        self.set(HUGE_PAGES, 3, mode as u32);
    }

    pub(super) fn policy(&self, order: u8) -> FolioPolicy {
        if FOLIO_ORDERS.contains(&order) { self.get().policy(order) } else { FolioPolicy::Never }
    }

    pub(super) fn set_policy(&self, order: u8, policy: FolioPolicy) {
        if FOLIO_ORDERS.contains(&order) {
            self.set(shift(order), POLICY, policy as u32);
        }
    }

    pub(super) fn defrag(&self) -> Defrag {
        match self.get().0 >> DEFRAG & 7 {
            0 => Defrag::Always,
            1 => Defrag::Defer,
            2 => Defrag::DeferMadvise,
            3 => Defrag::Madvise,
            _ => Defrag::Never,
        }
    }

    pub(super) fn set_defrag(&self, defrag: Defrag) {
        self.set(DEFRAG, 7, defrag as u32);
    }

    /// Whether there are mappings in which faults make folios that are neither single pages nor huge.
    #[inline(always)]
    pub(super) fn makes_some(&self) -> bool {
        self.get().0 & SMALLER != 0
    }

    /// Whether faults make folios of that order in mappings that are `advised` to be huge, or are not.
    pub(super) fn makes(&self, order: u8, advised: bool) -> bool {
        let settings = self.get();
        match settings.policy(order) {
            FolioPolicy::Never => false,
            FolioPolicy::Always => true,
            FolioPolicy::Madvise => advised,
            FolioPolicy::Inherit => match settings.huge_pages() {
                HugePages::Always => true,
                HugePages::Madvise => advised,
                HugePages::Never => false,
            },
        }
    }
}

/// [`FolioSettings`] at some time.
#[derive(Clone, Copy)]
struct Settings(u32);

impl Settings {
    fn huge_pages(self) -> HugePages {
        match self.0 >> HUGE_PAGES & 3 {
            0 => HugePages::Always,
            1 => HugePages::Madvise,
            _ => HugePages::Never,
        }
    }

    fn policy(self, order: u8) -> FolioPolicy {
        match self.0 >> shift(order) & POLICY {
            0 => FolioPolicy::Never,
            1 => FolioPolicy::Always,
            2 => FolioPolicy::Madvise,
            _ => FolioPolicy::Inherit,
        }
    }
}

/// What has come of faults that were to make folios of one order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FolioStats {
    /// Those that have (`anon_fault_alloc`).
    pub faults: u64,
    /// Those that found no such block of memory, and made smaller ones (`anon_fault_fallback`).
    pub fallbacks: u64,
}

/// [`FolioStats`] of all orders.
pub(super) struct FolioCounts([(AtomicU64, AtomicU64); HUGE_ORDER as usize + 1]);

impl FolioCounts {
    pub(super) const fn new() -> FolioCounts {
        FolioCounts([const { (AtomicU64::new(0), AtomicU64::new(0)) }; HUGE_ORDER as usize + 1])
    }

    pub(super) fn count(&self, order: u8, made: bool) {
        if let Some((faults, fallbacks)) = self.0.get(usize::from(order)) {
            let count = if made { faults } else { fallbacks };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn get(&self, order: u8) -> FolioStats {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let of_order = self.0.get(usize::from(order));
        of_order.map_or(FolioStats::default(), |(faults, fallbacks)| FolioStats {
            faults: get(faults),
            fallbacks: get(fallbacks),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICIES: [FolioPolicy; 4] =
        [FolioPolicy::Never, FolioPolicy::Always, FolioPolicy::Madvise, FolioPolicy::Inherit];

    #[test]
    fn what_is_set_is_read_and_nothing_else_changes() {
        let settings = FolioSettings::new();
        assert_eq!(settings.huge_pages(), HugePages::Madvise);
        assert_eq!(settings.defrag(), Defrag::Madvise);
        let policies = || FOLIO_ORDERS.map(|order| settings.policy(order)).collect::<Vec<_>>();
        let mut expected = [FolioPolicy::Never; 8];
        expected[7] = FolioPolicy::Inherit;
        assert_eq!(policies(), expected);
        for (number, order) in FOLIO_ORDERS.enumerate() {
            for policy in POLICIES {
                settings.set_policy(order, policy);
                expected[number] = policy;
                assert_eq!(policies(), expected);
            }
            for huge in [HugePages::Never, HugePages::Always, HugePages::Madvise] {
                settings.set_huge_pages(huge);
                assert_eq!((settings.huge_pages(), policies()), (huge, expected.to_vec()));
            }
            for defrag in [Defrag::Never, Defrag::Always, Defrag::Defer, Defrag::DeferMadvise, Defrag::Madvise] {
                settings.set_defrag(defrag);
                assert_eq!((settings.defrag(), policies()), (defrag, expected.to_vec()));
            }
        }
        for order in [0, 1, 10, 255] {
            settings.set_policy(order, FolioPolicy::Always);
            assert_eq!(settings.policy(order), FolioPolicy::Never);
        }
        assert_eq!(policies(), expected);
        assert_eq!((settings.huge_pages(), settings.defrag()), (HugePages::Madvise, Defrag::Madvise));
    }

    #[test]
    fn a_policy_says_in_which_mappings() {
        let settings = FolioSettings::new();
        let of = |order| [settings.makes(order, false), settings.makes(order, true)];
        assert_eq!((of(4), of(9), settings.makes_some()), ([false, false], [false, true], false));
        for (policy, huge, expected) in [
            (FolioPolicy::Never, HugePages::Always, [false, false]),
            (FolioPolicy::Always, HugePages::Never, [true, true]),
            (FolioPolicy::Madvise, HugePages::Never, [false, true]),
            (FolioPolicy::Inherit, HugePages::Never, [false, false]),
            (FolioPolicy::Inherit, HugePages::Madvise, [false, true]),
            (FolioPolicy::Inherit, HugePages::Always, [true, true]),
        ] {
            settings.set_huge_pages(huge);
            settings.set_policy(4, policy);
            assert_eq!((of(4), of(5)), (expected, [false, false]), "{policy:?}");
            assert_eq!(settings.makes_some(), policy != FolioPolicy::Never);
        }
    }
}
