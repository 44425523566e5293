//! When pages are looked at that could be huge ones, and the settings that say so.
//!
//! As Linux's `khugepaged` would, whoever is idle, or on the way back to his program, looks at
//! `pages_to_scan` pages every `scan_sleep_millisecs`: process by process, and at one huge page's worth at once.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use mm::{CollapseLimits, CollapseScan, Errno, PAGE_SIZE, PMD_SIZE};

use super::pace::Pace;
use super::{memory, reclaim};
use crate::task::table;

/// Pages of a huge page.
const HUGE_PAGES: u32 = (PMD_SIZE / PAGE_SIZE) as u32;

/// What can be set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Setting {
    /// How long a pause is after there was no memory.
    AllocSleepMillisecs,
    /// Whether memory is compacted for a huge page.
    Defrag,
    /// How many of its pages may not be there.
    MaxNone,
    /// How many somebody else may have too.
    MaxShared,
    /// How many may be in swap.
    MaxSwapped,
    /// How many are looked at between two pauses.
    PagesToScan,
    /// How long the pauses are.
    ScanSleepMillisecs,
}

/// The settings, with Linux's defaults.
static SETTINGS: [AtomicU32; 7] = [
    AtomicU32::new(60_000),
    AtomicU32::new(1),
    AtomicU32::new(HUGE_PAGES - 1),
    AtomicU32::new(HUGE_PAGES / 2),
    AtomicU32::new(HUGE_PAGES / 8),
    AtomicU32::new(8 * HUGE_PAGES),
    AtomicU32::new(10_000),
];

static PACE: Pace = Pace::new();
/// Whom to look at next: the process, and where in its memory.
static PROCESS: AtomicU32 = AtomicU32::new(0);
static ADDRESS: AtomicU64 = AtomicU64::new(0);

static FULL_SCANS: AtomicU64 = AtomicU64::new(0);
static PAGES_COLLAPSED: AtomicU64 = AtomicU64::new(0);

impl Setting {
    /// Its value.
    pub fn get(self) -> u32 {
        SETTINGS[self as usize].load(Ordering::Relaxed)
    }

    /// Sets it.
    ///
    /// # Errors
    /// `EINVAL` if that is not allowed.
    pub fn set(self, value: u32) -> Result<(), Errno> {
        let most = match self {
            Setting::Defrag => 1,
            Setting::MaxNone | Setting::MaxShared | Setting::MaxSwapped => HUGE_PAGES - 1,
            _ => u32::MAX,
        };
        let least = u32::from(self == Setting::PagesToScan);
        if !(least..=most).contains(&value) {
            return Err(Errno::EINVAL);
        }
        SETTINGS[self as usize].store(value, Ordering::Relaxed);
        if matches!(self, Setting::AllocSleepMillisecs | Setting::ScanSleepMillisecs) {
            PACE.end_pause();
        }
        Ok(())
    }
}

/// How often all processes have been gone through.
pub fn full_scans() -> u64 {
    FULL_SCANS.load(Ordering::Relaxed)
}

/// How many huge pages have been made.
pub fn pages_collapsed() -> u64 {
    PAGES_COLLAPSED.load(Ordering::Relaxed)
}

/// Whether pages are to be looked at now. Cheap enough for the timer.
#[inline]
pub fn is_due() -> bool {
    memory().sysctl().makes_huge_pages() && !reclaim::is_needed() && PACE.is_due()
}

/// Looks at some pages if that is due. No lock may be held.
pub fn scan() {
    if !is_due() {
        return;
    }
    PACE.work(Setting::PagesToScan.get(), |left| {
        let (scanned, pause) = match scan_one() {
            Some(scan) if scan.out_of_memory => (left, Setting::AllocSleepMillisecs),
            // Who has nothing costs something too.
            Some(scan) => (scan.scanned.max(1) as u32, Setting::ScanSleepMillisecs),
            None => (left, Setting::ScanSleepMillisecs),
        };
        (scanned, pause.get())
    });
}

/// Looks at the next pages of the process whose turn it is; `None` if all processes have had theirs.
fn scan_one() -> Option<CollapseScan> {
    let pid = PROCESS.load(Ordering::Relaxed);
    let Some(process) = table::processes(pid, |_| true).next() else {
        PROCESS.store(0, Ordering::Relaxed);
        FULL_SCANS.fetch_add(1, Ordering::Relaxed);
        return None;
    };
    let address = if process.pid() == pid { ADDRESS.load(Ordering::Relaxed) } else { 0 };
    let limits = CollapseLimits {
        none: Setting::MaxNone.get() as usize,
        swapped: Setting::MaxSwapped.get() as usize,
        shared: Setting::MaxShared.get() as usize,
        compact: Setting::Defrag.get() != 0,
    };
    let scan = process.space().map(|space| space.collapse_some(address as usize, HUGE_PAGES as usize, &limits));
    let scan = scan.unwrap_or_default();
    PAGES_COLLAPSED.fetch_add(scan.collapsed as u64, Ordering::Relaxed);
    let next = scan.next.map_or((process.pid() + 1, 0), |address| (process.pid(), address as u64));
    PROCESS.store(next.0, Ordering::Relaxed);
    ADDRESS.store(next.1, Ordering::Relaxed);
    Some(scan)
}
