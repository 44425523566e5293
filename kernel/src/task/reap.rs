//! Waiting for children: `wait4` and `waitid`.

use core::sync::atomic::Ordering;

use alloc::sync::Arc;
use mm::Errno;

use super::exit::describe;
use super::process::{ExitStatus, Process, Usage};
use super::signal::info::{CLD_CONTINUED, CLD_STOPPED};
use super::signal::{SigInfo, Signal};
use super::table;
use super::thread::current;

/// Do not wait.
pub const WNOHANG: u32 = 1;
/// Report children that have stopped (also called `WUNTRACED`).
pub const WSTOPPED: u32 = 2;
/// Report children that have ended.
pub const WEXITED: u32 = 4;
/// Report children that go on after a stop.
pub const WCONTINUED: u32 = 8;
/// Leave what is reported to be reported again.
pub const WNOWAIT: u32 = 0x0100_0000;
/// Only this thread's children; every thread's are the same here.
pub const WNOTHREAD: u32 = 0x2000_0000;
/// All children, whatever their exit signal.
pub const WALL: u32 = 0x4000_0000;
/// Only children whose exit signal is not `SIGCHLD`.
pub const WCLONE: u32 = 0x8000_0000;

/// Which children are waited for.
#[derive(Clone, Copy, Debug)]
pub enum Which {
    /// Every one.
    Any,
    /// That process.
    Process(u32),
    /// Those of a process group.
    Group(u32),
}

/// What became of a child.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Which child.
    pub pid: u32,
    /// The status word of `wait4`.
    pub word: u32,
    /// `si_code` and `si_status`.
    pub code: (i32, i32),
    /// What it used, if it has ended.
    pub usage: Usage,
}

impl Report {
    /// As `waitid` reports it.
    pub fn info(&self) -> SigInfo {
        SigInfo::child(self.code.0, self.pid, self.code.1, 0, 0)
    }
}

/// Waits for one of the children `which` to do what `options` name. `None`:
/// none has yet, and `options` say not to wait.
///
/// # Errors
/// `ECHILD`: there is no such child. `ERESTARTSYS`: a signal comes first.
pub fn wait(which: Which, options: u32) -> Result<Option<Report>, Errno> {
    let thread = current();
    let process = thread.process();
    process.child_events.wait_until(|| match look(process, which, options) {
        (Some((child, report, ended)), _) => {
            // Its signal must not come later than the report. It is sent right after
            // the child became a zombie, without sleeping.
            while child.is_zombie() && !child.announced.load(Ordering::Acquire) {
                core::hint::spin_loop();
            }
            if ended {
                reap(process, &child);
            }
            Some(Ok(Some(report)))
        }
        (None, false) => Some(Err(Errno::ECHILD)),
        (None, true) if options & WNOHANG != 0 => Some(Ok(None)),
        (None, true) => None,
    })?
}

/// Looks for something to report: the child, the report, and whether the child
/// is to be reaped. The last result says whether there is any child to wait for.
fn look(parent: &Process, which: Which, options: u32) -> (Option<(Arc<Process>, Report, bool)>, bool) {
    let eligible = |child: &Process| {
        let matches = match which {
            Which::Any => true,
            Which::Process(pid) => child.pid() == pid,
            Which::Group(group) => child.group() == group,
        };
        let clone = child.exit_signal.load(Ordering::Relaxed) != Signal::SIGCHLD.number();
        let kind = options & WALL != 0 || clone == (options & WCLONE != 0);
        matches && kind && !child.reaped.load(Ordering::Acquire)
    };
    table::find_child(parent.pid(), eligible, |child| {
        let (report, ended) = report(child, options)?;
        Some((child.clone(), report, ended))
    })
}

/// What there is to report of `child`, and whether that ends it.
fn report(child: &Process, options: u32) -> Option<(Report, bool)> {
    let pid = child.pid();
    let keep = options & WNOWAIT != 0;
    if child.is_zombie() {
        if options & WEXITED == 0 || (!keep && child.reaped.swap(true, Ordering::AcqRel)) {
            return None;
        }
        let status = child.state.lock().exiting.unwrap_or(ExitStatus::Exited(0));
        let mut usage = child.usage();
        usage.add(&child.children_usage());
        return Some((Report { pid, word: status.word(), code: describe(status), usage }, !keep));
    }
    let mut state = child.state.lock();
    if let Some(signal) = state.stopped
        && options & WSTOPPED != 0
        && state.stop_unreported
    {
        state.stop_unreported = keep;
        let number = signal.number();
        let word = number << 8 | 0x7f;
        let code = (CLD_STOPPED, number as i32);
        return Some((Report { pid, word, code, usage: Usage::default() }, false));
    }
    if options & WCONTINUED != 0 && state.continue_unreported {
        state.continue_unreported = keep;
        let code = (CLD_CONTINUED, Signal::SIGCONT.number() as i32);
        return Some((Report { pid, word: 0xffff, code, usage: Usage::default() }, false));
    }
    None
}

/// Removes what is left of a child that has ended, and whose status is known now.
fn reap(parent: &Process, child: &Process) {
    let mut usage = child.usage();
    usage.add(&child.children_usage());
    parent.children_usage.lock().add(&usage);
    table::remove_process(child);
}
