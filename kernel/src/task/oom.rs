//! When memory has run out: the process that uses most of it is killed, so
//! that the others can go on.

use alloc::sync::Arc;

use super::process::{ExitStatus, Process};
use super::sched;
use super::signal::{Signal, send};
use super::table::{self, INIT};
use super::thread::current;
use crate::error;

/// Ends a process, unless one is ending already, and lets it run. Afterwards
/// whoever needs memory tries again, or is about to exit. No lock may be held.
pub fn relieve() {
    let mut ending = false;
    let mut largest: Option<(usize, Arc<Process>)> = None;
    for process in table::processes(0, |process| !process.is_zombie()) {
        ending |= process.is_exiting();
        let Some(space) = process.space() else { continue };
        let stats = space.stats();
        let resident = stats.rss_anon + stats.rss_shmem + stats.tables;
        // The first process is the last to go: the machine goes with it.
        let size = if process.pid() == INIT { 0 } else { resident };
        if !process.is_exiting() && largest.as_ref().is_none_or(|(most, _)| size > *most) {
            largest = Some((size, process));
        }
    }
    if let (false, Some((_, victim))) = (ending, largest) {
        error!("out of memory: process {} is killed", victim.pid());
        let status = ExitStatus::Killed { signal: Signal::SIGKILL, core: false };
        send::begin_exit(&victim, &mut victim.state.lock(), status);
    }
    if !current().process().is_exiting() {
        sched::yield_now();
    }
}
