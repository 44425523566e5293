//! When pages are looked at for equal ones, and the settings that say so.
//!
//! As Linux's `ksmd` would, whoever is idle, or on the way back to his program, looks at
//! `pages_to_scan` pages every `sleep_millisecs`, and not at many at once.

use core::sync::atomic::{AtomicU32, Ordering};

use mm::Errno;

use super::memory;
use super::pace::Pace;
use crate::task::table;

/// Pages that are looked at between two looks at the clock.
const BATCH: u32 = 64;

/// So often all processes are gone through, if need be, to give pages back.
const UNMERGE_PASSES: usize = 4;

/// What `run` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Run {
    /// Nothing merges.
    Stop = 0,
    /// Pages merge.
    Merge = 1,
    /// Nothing merges, and what had merged has been given back.
    Unmerge = 2,
}

static RUN: AtomicU32 = AtomicU32::new(Run::Stop as u32);
static PAGES_TO_SCAN: AtomicU32 = AtomicU32::new(100);
static SLEEP_MILLISECS: AtomicU32 = AtomicU32::new(20);
static PACE: Pace = Pace::new();

/// What `run` says, as a number.
pub fn run() -> u32 {
    RUN.load(Ordering::Relaxed)
}

/// How many pages are looked at between two pauses.
pub fn pages_to_scan() -> u32 {
    PAGES_TO_SCAN.load(Ordering::Relaxed)
}

/// Sets [`pages_to_scan`].
pub fn set_pages_to_scan(pages: u32) {
    PAGES_TO_SCAN.store(pages, Ordering::Relaxed);
}

/// How long the pauses are.
pub fn sleep_millisecs() -> u32 {
    SLEEP_MILLISECS.load(Ordering::Relaxed)
}

/// Sets [`sleep_millisecs`].
pub fn set_sleep_millisecs(milliseconds: u32) {
    SLEEP_MILLISECS.store(milliseconds, Ordering::Relaxed);
    PACE.end_pause();
}

/// Does what writing `number` to `run` asks for.
///
/// # Errors
/// `EINVAL` for a number that says nothing; `ENOMEM`: not all has been given back. Nothing
/// merges then.
pub fn set_run(number: u32) -> Result<(), Errno> {
    let run = [Run::Stop, Run::Merge, Run::Unmerge].into_iter().find(|&run| run as u32 == number);
    let run = run.ok_or(Errno::EINVAL)?;
    if RUN.swap(run as u32, Ordering::Relaxed) == run as u32 || run != Run::Unmerge {
        return Ok(());
    }
    PACE.keep_off(unmerge_all).inspect_err(|_| RUN.store(Run::Stop as u32, Ordering::Relaxed))
}

/// Gives all merged pages back to who had them, with none merging meanwhile.
fn unmerge_all() -> Result<(), Errno> {
    // A process that has just been made may have a number that was gone past.
    for _ in 0..UNMERGE_PASSES {
        for space in table::processes(0, |_| true).filter_map(|process| process.space()) {
            space.unmerge()?;
        }
        if memory().ksm_stats().shared == 0 {
            break;
        }
    }
    memory().ksm_forget();
    Ok(())
}

/// Pages that have been merged with the page of zeroes, in all processes.
pub fn zero_pages() -> usize {
    let spaces = table::processes(0, |_| true).filter_map(|process| process.space());
    spaces.map(|space| space.ksm_pages().zero).sum()
}

/// Whether pages are to be looked at now. Cheap enough for the timer.
#[inline]
pub fn is_due() -> bool {
    run() == Run::Merge as u32 && PACE.is_due()
}

/// Looks at some pages if that is due. No lock may be held.
pub fn scan() {
    if !is_due() {
        return;
    }
    PACE.work(pages_to_scan(), |left| {
        let pages = left.min(BATCH);
        // Having come across no more of them than that is as good as having looked at all.
        let all = memory().ksm_scan(pages as usize) as u32 == pages;
        (if all { pages } else { left }, sleep_millisecs())
    });
}
