//! What a program inherits from whoever starts it, as a first process has it: what
//! the programs do on Linux must not depend on who runs the tests.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Makes what the command inherits beside arguments, environment, directory, input
/// and output the usual: no descriptors, the default signals, limits, and so on.
pub fn usual(command: &mut Command) {
    // SAFETY: between fork and exec only system calls are made.
    unsafe { command.pre_exec(signals).pre_exec(limits).pre_exec(attributes) };
}

/// None is ignored, none blocked.
fn signals() -> io::Result<()> {
    const WORDS_OF_SIGACTION: usize = 4;
    const SIGNALS: i32 = 64;
    // All zero: the default action, no flags.
    let default = [0_u64; WORDS_OF_SIGACTION];
    let no_signals = 0_u64;
    let size = size_of_val(&no_signals);
    for signal in 1..=SIGNALS {
        // SAFETY: gives the kernel a whole `struct sigaction` and asks for
        // nothing back. The system call itself, as the library keeps its own
        // signals to itself; SIGKILL and SIGSTOP are refused.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), 0, size) };
    }
    // SAFETY: likewise a whole signal set.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const no_signals, 0, size) };
    Ok(())
}

/// Those of a fresh Linux, and of this kernel, as far as the hard limits permit.
fn limits() -> io::Result<()> {
    let soft = [
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_STACK, 8 << 20),
        (libc::RLIMIT_NOFILE, 1024),
        (libc::RLIMIT_MEMLOCK, 8 << 20),
        (libc::RLIMIT_AS, libc::RLIM_INFINITY),
        (libc::RLIMIT_DATA, libc::RLIM_INFINITY),
        (libc::RLIMIT_FSIZE, libc::RLIM_INFINITY),
    ];
    for (resource, soft) in soft {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: a limit of the process that is about to execute the program, by
        // pointers to a valid structure.
        unsafe {
            libc::getrlimit(resource, &raw mut limit);
            limit.rlim_cur = soft.min(limit.rlim_max);
            libc::setrlimit(resource, &raw const limit);
        }
    }
    Ok(())
}

/// File mode mask, personality (which can forbid a random address space), priority;
/// and only the standard descriptors.
fn attributes() -> io::Result<()> {
    const CLOSE_ON_EXEC: libc::c_uint = 4;
    // SAFETY: system calls without pointers, about the process that is about to
    // execute the program. That a priority cannot be raised does not matter.
    unsafe {
        libc::umask(0o022);
        libc::personality(0);
        libc::setpriority(libc::PRIO_PROCESS, 0, 0);
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, CLOSE_ON_EXEC);
    }
    Ok(())
}
