//! `/sys/kernel/mm/transparent_hugepage`: which folios faults make, and what is collapsed in the background.

use mm::{Defrag, Errno, FolioPolicy, HugePages, PMD_SIZE};

use super::ksm::parse_bool;
use crate::fs::page::Text;
use crate::memory::khugepaged::{self, Setting};
use crate::memory::memory;

/// A file there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum HugePagesFile {
    /// `defrag`
    Defrag,
    /// `enabled`
    Enabled,
    /// `hpage_pmd_size`
    PmdSize,
    /// `shmem_enabled`: there are none of shared memory.
    ShmemEnabled,
    /// `use_zero_page`: a read fault makes a page of its own, always.
    UseZeroPage,
    /// `khugepaged/alloc_sleep_millisecs`
    AllocSleep,
    /// `khugepaged/defrag`
    CollapseDefrag,
    /// `khugepaged/full_scans`
    FullScans,
    /// `khugepaged/max_ptes_none`
    MaxNone,
    /// `khugepaged/max_ptes_shared`
    MaxShared,
    /// `khugepaged/max_ptes_swap`
    MaxSwapped,
    /// `khugepaged/pages_collapsed`
    PagesCollapsed,
    /// `khugepaged/pages_to_scan`
    PagesToScan,
    /// `khugepaged/scan_sleep_millisecs`
    ScanSleep,
    /// `hugepages-*kB/enabled`, of an order.
    FolioEnabled(u8),
    /// `hugepages-*kB/stats/anon_fault_alloc`
    FolioFaults(u8),
    /// `hugepages-*kB/stats/anon_fault_fallback`
    FolioFallbacks(u8),
}

const ENABLED: [(&str, HugePages); 3] =
    [("always", HugePages::Always), ("madvise", HugePages::Madvise), ("never", HugePages::Never)];

const DEFRAG: [(&str, Defrag); 5] = [
    ("always", Defrag::Always),
    ("defer", Defrag::Defer),
    ("defer+madvise", Defrag::DeferMadvise),
    ("madvise", Defrag::Madvise),
    ("never", Defrag::Never),
];

const FOLIO_ENABLED: [(&str, FolioPolicy); 4] = [
    ("always", FolioPolicy::Always),
    ("inherit", FolioPolicy::Inherit),
    ("madvise", FolioPolicy::Madvise),
    ("never", FolioPolicy::Never),
];

/// Whether there are huge pages of shared memory. Of Linux's values these can be set.
const SHMEM_ENABLED: [(&str, bool); 6] =
    [("always", true), ("within_size", true), ("advise", true), ("never", false), ("deny", true), ("force", true)];

impl HugePagesFile {
    /// Whether it can be changed.
    pub fn is_writable(self) -> bool {
        !matches!(
            self,
            HugePagesFile::PmdSize
                | HugePagesFile::FullScans
                | HugePagesFile::PagesCollapsed
                | HugePagesFile::FolioFaults(_)
                | HugePagesFile::FolioFallbacks(_)
        )
    }

    /// A number below 256 that no other file there has.
    pub fn number(self) -> u64 {
        match self {
            HugePagesFile::Defrag => 0,
            HugePagesFile::Enabled => 1,
            HugePagesFile::PmdSize => 2,
            HugePagesFile::ShmemEnabled => 3,
            HugePagesFile::UseZeroPage => 4,
            HugePagesFile::AllocSleep => 5,
            HugePagesFile::CollapseDefrag => 6,
            HugePagesFile::FullScans => 7,
            HugePagesFile::MaxNone => 8,
            HugePagesFile::MaxShared => 9,
            HugePagesFile::MaxSwapped => 10,
            HugePagesFile::PagesCollapsed => 11,
            HugePagesFile::PagesToScan => 12,
            HugePagesFile::ScanSleep => 13,
            HugePagesFile::FolioEnabled(order) => 0x20 + u64::from(order),
            HugePagesFile::FolioFaults(order) => 0x40 + u64::from(order),
            HugePagesFile::FolioFallbacks(order) => 0x60 + u64::from(order),
        }
    }

    /// The setting of collapsing that it is, if it is one.
    fn setting(self) -> Option<Setting> {
        Some(match self {
            HugePagesFile::AllocSleep => Setting::AllocSleepMillisecs,
            HugePagesFile::CollapseDefrag => Setting::Defrag,
            HugePagesFile::MaxNone => Setting::MaxNone,
            HugePagesFile::MaxShared => Setting::MaxShared,
            HugePagesFile::MaxSwapped => Setting::MaxSwapped,
            HugePagesFile::PagesToScan => Setting::PagesToScan,
            HugePagesFile::ScanSleep => Setting::ScanSleepMillisecs,
            _ => return None,
        })
    }

    /// The file's text.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn text(self) -> Result<Text, Errno> {
        let settings = memory().sysctl();
        let number = match self {
            HugePagesFile::Enabled => return choices(&ENABLED, settings.huge_pages()),
            HugePagesFile::Defrag => return choices(&DEFRAG, settings.defrag()),
            HugePagesFile::FolioEnabled(order) => return choices(&FOLIO_ENABLED, settings.folio_policy(order)),
            HugePagesFile::ShmemEnabled => return choices(&SHMEM_ENABLED, false),
            HugePagesFile::PmdSize => PMD_SIZE as u64,
            HugePagesFile::FullScans => khugepaged::full_scans(),
            HugePagesFile::PagesCollapsed => khugepaged::pages_collapsed(),
            HugePagesFile::FolioFaults(order) => memory().folio_stats(order).faults,
            HugePagesFile::FolioFallbacks(order) => memory().folio_stats(order).fallbacks,
            file => file.setting().map_or(0, |setting| u64::from(setting.get())),
        };
        Text::build(|text| text.put(format_args!("{number}\n")))
    }

    /// Sets the value that `line` spells.
    ///
    /// # Errors
    /// `EACCES` if it cannot be changed, `EINVAL` if there is no such value, or not here.
    pub fn store(self, line: &[u8]) -> Result<(), Errno> {
        // Programs of Linux's own tests write the zero at the end too.
        let line = line.split(|&byte| byte == 0).next().unwrap_or(line).trim_ascii();
        let text = core::str::from_utf8(line).map_err(|_| Errno::EINVAL)?;
        let settings = memory().sysctl();
        match self {
            HugePagesFile::Enabled => settings.set_huge_pages(choice(&ENABLED, text)?),
            HugePagesFile::Defrag => settings.set_defrag(choice(&DEFRAG, text)?),
            HugePagesFile::FolioEnabled(order) => settings.set_folio_policy(order, choice(&FOLIO_ENABLED, text)?),
            HugePagesFile::ShmemEnabled if choice(&SHMEM_ENABLED, text)? => return Err(Errno::EINVAL),
            HugePagesFile::UseZeroPage if parse_bool(text)? => return Err(Errno::EINVAL),
            HugePagesFile::ShmemEnabled | HugePagesFile::UseZeroPage => {}
            file => {
                let setting = file.setting().ok_or(Errno::EACCES)?;
                setting.set(text.parse().map_err(|_| Errno::EINVAL)?)?;
            }
        }
        Ok(())
    }
}

/// All that a setting can be, with what it is in brackets.
fn choices<T: Copy + PartialEq>(choices: &[(&str, T)], is: T) -> Result<Text, Errno> {
    Text::build(|text| {
        for (number, &(name, value)) in choices.iter().enumerate() {
            let space = if number == 0 { "" } else { " " };
            let (open, close) = if value == is { ("[", "]") } else { ("", "") };
            text.put(format_args!("{space}{open}{name}{close}"))?;
        }
        text.push(b"\n")
    })
}

/// What of that `text` names.
fn choice<T: Copy>(choices: &[(&str, T)], text: &str) -> Result<T, Errno> {
    choices.iter().find(|&&(name, _)| name == text).map(|&(_, value)| value).ok_or(Errno::EINVAL)
}
