//! `/sys/kernel/mm/ksm`: merging of equal pages.

use mm::{Errno, KsmStats, PAGE_SIZE};

use crate::errno::EBUSY;
use crate::fs::page::Text;
use crate::memory::{ksm, memory};

/// A file there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum KsmFile {
    /// `full_scans`
    FullScans,
    /// `general_profit`
    GeneralProfit,
    /// `ksm_zero_pages`
    ZeroPages,
    /// `max_page_sharing`
    MaxPageSharing,
    /// `pages_scanned`
    PagesScanned,
    /// `pages_shared`
    PagesShared,
    /// `pages_sharing`
    PagesSharing,
    /// `pages_to_scan`
    PagesToScan,
    /// `pages_unshared`
    PagesUnshared,
    /// `pages_volatile`
    PagesVolatile,
    /// `run`
    Run,
    /// `sleep_millisecs`
    SleepMillisecs,
    /// `stable_node_chains`
    StableNodeChains,
    /// `stable_node_dups`
    StableNodeDups,
    /// `use_zero_pages`
    UseZeroPages,
}

impl KsmFile {
    /// Whether it can be written to.
    pub fn is_writable(self) -> bool {
        matches!(
            self,
            KsmFile::MaxPageSharing
                | KsmFile::PagesToScan
                | KsmFile::Run
                | KsmFile::SleepMillisecs
                | KsmFile::UseZeroPages
        )
    }

    /// The file's text.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn text(self) -> Result<Text, Errno> {
        let settings = memory().sysctl();
        let of = |figure: fn(&KsmStats) -> usize| figure(&memory().ksm_stats()) as i64;
        let number = match self {
            KsmFile::FullScans => memory().ksm_stats().full_scans as i64,
            KsmFile::GeneralProfit => profit(of(|stats| stats.sharing) as usize + ksm::zero_pages()),
            KsmFile::ZeroPages => ksm::zero_pages() as i64,
            KsmFile::MaxPageSharing => settings.ksm_max_page_sharing() as i64,
            KsmFile::PagesScanned => memory().ksm_stats().scanned as i64,
            KsmFile::PagesShared => of(|stats| stats.shared),
            KsmFile::PagesSharing => of(|stats| stats.sharing),
            KsmFile::PagesToScan => i64::from(ksm::pages_to_scan()),
            KsmFile::PagesUnshared => of(|stats| stats.unshared),
            KsmFile::PagesVolatile => of(|stats| stats.volatile),
            KsmFile::Run => i64::from(ksm::run()),
            KsmFile::SleepMillisecs => i64::from(ksm::sleep_millisecs()),
            KsmFile::StableNodeChains => of(|stats| stats.chains),
            KsmFile::StableNodeDups => of(|stats| stats.duplicates),
            KsmFile::UseZeroPages => i64::from(settings.ksm_use_zero_pages()),
        };
        Text::build(|text| text.put(format_args!("{number}\n")))
    }

    /// Sets what `line` says.
    ///
    /// # Errors
    /// `EINVAL` if that is not allowed, `EBUSY` while there are merged pages that it would
    /// concern, `ENOMEM` if they cannot be given back; `EACCES` if nothing can be set.
    pub fn store(self, line: &[u8]) -> Result<(), Errno> {
        let text = core::str::from_utf8(line).map_err(|_| Errno::EINVAL)?.trim_end();
        let number = || text.parse::<u32>().map_err(|_| Errno::EINVAL);
        let settings = memory().sysctl();
        match self {
            KsmFile::MaxPageSharing => match number()? as usize {
                0 | 1 => return Err(Errno::EINVAL),
                pages if pages > i32::MAX as usize => return Err(Errno::EINVAL),
                pages if pages == settings.ksm_max_page_sharing() => {}
                _ if memory().ksm_stats().shared != 0 => return Err(EBUSY),
                pages => settings.set_ksm_max_page_sharing(pages),
            },
            KsmFile::PagesToScan => ksm::set_pages_to_scan(number()?),
            KsmFile::Run => ksm::set_run(number()?)?,
            KsmFile::SleepMillisecs => ksm::set_sleep_millisecs(number()?),
            KsmFile::UseZeroPages => settings.set_ksm_use_zero_pages(parse_bool(text)?),
            _ => return Err(Errno::EACCES),
        }
        Ok(())
    }
}

/// What sharing so many pages saves, in bytes, less what it takes to know of them.
pub fn profit(pages: usize) -> i64 {
    let kept =
        memory().slabs().into_iter().filter(|slab| slab.name.starts_with("ksm_")).map(|slab| slab.in_use * slab.size);
    (pages * PAGE_SIZE) as i64 - kept.sum::<usize>() as i64
}

/// As Linux's `kstrtobool` takes it.
pub fn parse_bool(text: &str) -> Result<bool, Errno> {
    match text.as_bytes() {
        [b'y' | b'Y' | b't' | b'T' | b'1', ..] | [b'o' | b'O', b'n' | b'N', ..] => Ok(true),
        [b'n' | b'N' | b'f' | b'F' | b'0', ..] | [b'o' | b'O', b'f' | b'F', ..] => Ok(false),
        _ => Err(Errno::EINVAL),
    }
}
