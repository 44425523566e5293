//! Every system-call test in one program, so that one boot runs them all.
//!
//! usage: `cases [--here] all | NAME…`, where NAME is a case (`mmap/hint_free`) or
//! a group (`mmap`). Prints one line a case, the same on Linux and on this kernel,
//! and exits with 1 if any failed. With `--here` the cases run in the program's own
//! process rather than each in a child.
//!
//! `cases exec PROGRAM…` executes each program and says how that went.

mod brk;
mod errnos;
mod exec;
mod fault;
mod file;
mod fork;
mod futex;
mod madvise;
mod merge;
mod mmap;
mod mprotect;
mod mremap;
mod munmap;
mod pipe;
mod process;
mod procmap;
mod signal;
mod stack;
mod thread;
mod truncate;

use std::process::ExitCode;

use tests::case::{self, Case};

const GROUPS: &[&[Case]] = &[
    mmap::CASES,
    munmap::CASES,
    mprotect::CASES,
    merge::CASES,
    mremap::CASES,
    brk::CASES,
    madvise::CASES,
    fault::CASES,
    stack::CASES,
    fork::CASES,
    process::CASES,
    procmap::CASES,
    signal::CASES,
    thread::CASES,
    futex::CASES,
    pipe::CASES,
    file::CASES,
    truncate::CASES,
    errnos::CASES,
];

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("exec") => return exec::programs(&arguments[1..]),
        Some("child") => return process::child(&arguments[1..]),
        _ => {}
    }
    let isolated = !arguments.iter().any(|argument| argument == "--here");
    arguments.retain(|argument| argument != "--here");
    if arguments.is_empty() {
        eprintln!("usage: cases [--here] all | list | NAME…");
        return ExitCode::from(2);
    }
    let every = || GROUPS.iter().flat_map(|group| group.iter());
    if arguments[0] == "list" {
        every().for_each(|case| println!("{}", case.name));
        return ExitCode::SUCCESS;
    }
    let wanted = |case: &&Case| {
        let group = case.name.split('/').next();
        arguments.iter().any(|name| name == "all" || name == case.name || Some(name.as_str()) == group)
    };
    let failed = case::run(every().filter(wanted), isolated);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
