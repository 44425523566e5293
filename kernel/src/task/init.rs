//! The first process: what `fw_cfg` says it is, and how it comes to be.

use alloc::vec::Vec;
use mm::Errno;

use super::exec::Failure;
use super::signal::Signal;
use super::watchdog::Hang;
use super::{exec, exit, sched, watchdog};
use crate::drivers::{debug_exit, fw_cfg};
use crate::elf::stack::Strings;
use crate::error;
use crate::fs::{self, FsContext};
use crate::memory::{memory, reclaim, try_filled, try_push};

/// Exit status of a machine whose program is not there, as a shell has it.
const NOT_FOUND: i32 = 127;
/// The same for one that cannot be executed.
const NOT_EXECUTABLE: i32 = 126;

/// Starts the first process and runs threads ever after.
pub fn run() -> ! {
    match start() {
        Ok(true) => sched::run(),
        Ok(false) => {
            error!("there is no program to run");
            debug_exit::exit(NOT_FOUND)
        }
        Err(Failure::Refused(error)) => {
            error!("the program cannot be executed: error {}", error.0);
            debug_exit::exit(NOT_EXECUTABLE)
        }
        Err(Failure::Fatal) => {
            error!("the program cannot be loaded");
            debug_exit::exit(128 + Signal::SIGSEGV.number() as i32)
        }
    }
}

/// Says whether there is a program.
fn start() -> Result<bool, Failure> {
    apply_options(&read_blob("opt/mm/options")?);
    let Some(path) = fs::program_path()? else { return Ok(false) };
    let root = fs::root()?;
    let file = fs::open_exec(&root, &path)?;
    let args = read_blob("opt/mm/args")?;
    let env = read_blob("opt/mm/env")?;
    let mut args = split(&args)?;
    let env = split(&env)?;
    if args.is_empty() {
        try_push(&mut args, path.as_slice())?;
    }
    exec::start_first(
        file,
        &path,
        Strings::Kernel(&args),
        Strings::Kernel(&env),
        fs::standard_files()?,
        FsContext::new(root)?,
    )?;
    Ok(true)
}

/// Does what the kernel's options say; there is a space between each two.
///
/// `norandom`: no address is chosen at random, as with `kernel.randomize_va_space` 0.
/// `swap`: pages that are not used make room for others, in compressed memory.
/// `verify`: each address space is checked before a process lets go of it.
/// `watchdog=N`: if nothing goes on for `N` seconds, the machine ends and says why.
/// `hang-lock` and so on: how the first process to end hangs, to see that.
fn apply_options(options: &[u8]) {
    for option in options.split(|&byte| byte == b' ') {
        if let Some(seconds) = option.strip_prefix(b"watchdog=") {
            watchdog::wake_up(number(seconds));
            continue;
        }
        match option {
            b"" => {}
            b"norandom" => memory().sysctl().set_randomize_va_space(0),
            b"swap" => {
                if reclaim::start().is_err() {
                    error!("there is no memory for swap");
                }
            }
            b"verify" => exit::verify_spaces(),
            b"hang-lock" => watchdog::hang_later(Hang::Lock),
            b"hang-interrupt-lock" => watchdog::hang_later(Hang::InterruptLock),
            b"hang-silently" => watchdog::hang_later(Hang::Silently),
            unknown => error!("unknown option {}", unknown.escape_ascii()),
        }
    }
}

/// The number that these decimal digits are; 0 if it is none.
fn number(digits: &[u8]) -> u64 {
    core::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

fn read_blob(name: &str) -> Result<Vec<u8>, Errno> {
    let Some(blob) = fw_cfg::find(name) else { return Ok(Vec::new()) };
    let mut bytes = try_filled(0u8, blob.size())?;
    if blob.read_at(0, &mut bytes) { Ok(bytes) } else { Err(Errno::EIO) }
}

/// The strings in `bytes`, with a NUL between each two; the last may be empty as any.
fn split(bytes: &[u8]) -> Result<Vec<&[u8]>, Errno> {
    let mut strings = Vec::new();
    if !bytes.is_empty() {
        for string in bytes.split(|&byte| byte == 0) {
            try_push(&mut strings, string)?;
        }
    }
    Ok(strings)
}
