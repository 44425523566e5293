//! The first process of a Linux started for comparison: sets up the file systems
//! that programs expect, runs one program, and switches the machine off.
//!
//! The file `/args` has the program's path and its arguments, separated by NUL. How
//! it ended goes to the debug port, as this project's kernel does it: `exit N`, with
//! N above 128 for a signal.

use std::arch::asm;
use std::ffi::CStr;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::{fs, io};

/// The port of QEMU's `isa-debugcon`.
const DEBUG_PORT: u16 = 0xe9;
/// The port of QEMU's `isa-debug-exit`.
const EXIT_PORT: u16 = 0xf4;

fn mount(source: &CStr, target: &CStr) {
    let directory = target.to_str().unwrap_or_default();
    let _ = fs::create_dir(directory);
    // What cannot be mounted is missed by the program, which will say so.
    // SAFETY: all pointers are to strings that end with a zero byte, or null.
    unsafe { libc::mount(source.as_ptr(), target.as_ptr(), source.as_ptr(), 0, std::ptr::null()) };
}

fn run() -> io::Result<i32> {
    let args = fs::read_to_string("/args")?;
    let mut words = args.split('\0');
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).env_clear();
    let status = command.status()?;
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}

fn main() {
    mount(c"proc", c"/proc");
    mount(c"sysfs", c"/sys");
    mount(c"devtmpfs", c"/dev");
    mount(c"tmpfs", c"/tmp");
    let status = run().unwrap_or_else(|error| {
        eprintln!("init: {error}");
        127
    });
    // SAFETY: as the first process this one may use ports; the debug port only takes
    // notes, and the exit port ends the machine.
    unsafe {
        libc::tcdrain(libc::STDOUT_FILENO);
        libc::iopl(3);
        for byte in format!("exit {status}\n").bytes() {
            asm!("out dx, al", in("dx") DEBUG_PORT, in("al") byte, options(nomem, nostack));
        }
        asm!("out dx, al", in("dx") EXIT_PORT, in("al") 0u8, options(nomem, nostack));
        libc::reboot(libc::RB_POWER_OFF);
    }
}
