//! The system-call table.
//!
//! A handler gets the six arguments as they came and returns what the program
//! is to find in `rax`, or an error number. The few that read or change the
//! program's registers get those instead.

mod fs;
mod futex;
pub mod misc;
mod mm;
mod sched;
mod signal;
mod task;
mod time;

use core::sync::atomic::{AtomicU64, Ordering};

use ::mm::Errno;

use crate::arch::TrapFrame;
use crate::log;

/// A system call's six arguments.
pub type Args = [u64; 6];
/// What a system call returns.
pub type Result = core::result::Result<usize, Errno>;

/// What system-call entry calls: returns what the program is to find in `rax`.
pub type Handler = extern "C" fn(&mut TrapFrame) -> i64;

/// Numbers from here on do not exist.
pub const NUMBER_LIMIT: usize = 512;

/// Unknown numbers that were logged, one bit each.
static LOGGED: [AtomicU64; NUMBER_LIMIT / 64] = [const { AtomicU64::new(0) }; NUMBER_LIMIT / 64];

#[inline]
fn encode(result: Result) -> i64 {
    match result {
        Ok(value) => value as i64,
        Err(errno) => -i64::from(errno.0),
    }
}

/// A handler that passes on what its call wants: the arguments, the frame, or nothing.
macro_rules! handler {
    ($call:path, ()) => {{
        extern "C" fn handler(_: &mut TrapFrame) -> i64 {
            encode($call())
        }
        handler
    }};
    ($call:path, (args)) => {{
        extern "C" fn handler(frame: &mut TrapFrame) -> i64 {
            encode($call(&frame.syscall_args()))
        }
        handler
    }};
    ($call:path, (frame)) => {{
        extern "C" fn handler(frame: &mut TrapFrame) -> i64 {
            encode($call(frame))
        }
        handler
    }};
}

/// The array of handlers, [`other`] where the list names none.
macro_rules! table {
    ($($($number:literal)|+ => $module:ident::$call:ident $wanted:tt;)*) => {{
        let mut table: [Handler; NUMBER_LIMIT] = [other; NUMBER_LIMIT];
        $($(table[$number] = handler!($module::$call, $wanted);)+)*
        table
    }};
}

/// The handler of each call, by number.
pub static TABLE: [Handler; NUMBER_LIMIT] = table! {
    // Memory.
    9 => mm::mmap(args);
    10 => mm::mprotect(args);
    11 => mm::munmap(args);
    12 => mm::brk(args);
    25 => mm::mremap(args);
    26 => mm::msync(args);
    27 => mm::mincore(args);
    28 => mm::madvise(args);
    149 => mm::mlock(args);
    150 => mm::munlock(args);
    151 => mm::mlockall(args);
    152 => mm::munlockall(args);
    325 => mm::mlock2(args);
    329 => mm::pkey_mprotect(args);
    462 => mm::mseal(args);

    // Processes and threads.
    24 => sched::sched_yield();
    39 => task::getpid();
    56 => task::clone(frame);
    57 => task::fork(frame);
    58 => task::vfork(frame);
    59 => task::execve(frame);
    60 => task::exit(args);
    61 => task::wait4(args);
    97 => task::getrlimit(args);
    98 => time::getrusage(args);
    102 | 104 | 107 | 108 => task::get_root_id();
    105 | 106 | 113 | 114 | 117 | 119 => task::set_root_id(args);
    109 => task::setpgid(args);
    110 => task::getppid();
    111 => task::getpgrp();
    112 => task::setsid();
    115 => task::getgroups();
    116 => task::setgroups();
    118 | 120 => task::get_root_ids(args);
    121 => task::getpgid(args);
    122 | 123 => task::get_root_id();
    124 => task::getsid(args);
    157 => task::prctl(args);
    158 => task::arch_prctl(args);
    160 => task::setrlimit(args);
    186 => task::gettid();
    218 => task::set_tid_address(args);
    231 => task::exit_group(args);
    247 => task::waitid(args);
    273 => task::set_robust_list(args);
    274 => task::get_robust_list(args);
    302 => task::prlimit64(args);
    322 => task::execveat(frame);
    324 => sched::membarrier(args);
    334 => sched::rseq();
    435 => task::clone3(frame);

    // Signals.
    13 => signal::rt_sigaction(args);
    14 => signal::rt_sigprocmask(args);
    15 => signal::rt_sigreturn(frame);
    34 => signal::pause();
    62 => signal::kill(args);
    127 => signal::rt_sigpending(args);
    128 => signal::rt_sigtimedwait(args);
    129 => signal::rt_sigqueueinfo(args);
    130 => signal::rt_sigsuspend(args);
    131 => signal::sigaltstack(frame);
    200 => signal::tkill(args);
    219 => signal::restart_syscall();
    234 => signal::tgkill(args);
    297 => signal::rt_tgsigqueueinfo(args);

    // Futexes.
    202 => futex::futex(args);

    // Scheduling.
    140 => sched::getpriority(args);
    141 => sched::setpriority(args);
    142 => sched::sched_setparam(args);
    143 => sched::sched_getparam(args);
    144 => sched::sched_setscheduler(args);
    145 => sched::sched_getscheduler(args);
    146 => sched::sched_get_priority_max(args);
    147 => sched::sched_get_priority_min(args);
    148 => sched::sched_rr_get_interval(args);
    203 => sched::sched_setaffinity(args);
    204 => sched::sched_getaffinity(args);
    309 => sched::getcpu(args);

    // Time.
    35 => time::nanosleep(args);
    36 => time::getitimer(args);
    37 => time::alarm(args);
    38 => time::setitimer(args);
    96 => time::gettimeofday(args);
    100 => time::times(args);
    201 => time::time(args);
    228 => time::clock_gettime(args);
    229 => time::clock_getres(args);
    230 => time::clock_nanosleep(args);

};

/// Handles a call that has no handler of its own in [`TABLE`]: one of those
/// that have tables of their own, or none at all.
pub extern "C" fn other(frame: &mut TrapFrame) -> i64 {
    let number = frame.orig_rax as usize;
    let args = &frame.syscall_args().map(|arg| arg as usize);
    let found = fs::call(number, args).or_else(|| misc::call(number, args));
    encode(found.unwrap_or_else(|| unknown(number)))
}

/// A call that does not exist here.
#[cold]
fn unknown(number: usize) -> Result {
    if let Some(word) = LOGGED.get(number / 64) {
        let bit = 1u64 << (number % 64);
        if word.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            log!("system call {number} is not implemented");
        }
    }
    Err(Errno::ENOSYS)
}
