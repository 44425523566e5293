//! The kernel log: one line per message, on the second serial port.
//!
//! The first port belongs to the program that runs; nothing here writes to it.

use core::fmt::{self, Write};

use crate::drivers::serial;

/// Writes one line to the kernel log.
#[macro_export]
macro_rules! log {
    ($($arg:tt)*) => { $crate::log::write_line("", format_args!($($arg)*)) };
}

/// Writes one line to the kernel log, marked as an error.
#[macro_export]
macro_rules! error {
    ($($arg:tt)*) => { $crate::log::write_line("error: ", format_args!($($arg)*)) };
}

/// Writes `prefix`, the message and a line end as one unit.
pub fn write_line(prefix: &str, message: fmt::Arguments<'_>) {
    let mut port = serial::LOG.lock();
    // Writing to a serial port cannot fail.
    let _ = port.write_str(prefix).and_then(|()| port.write_fmt(message)).and_then(|()| port.write_str("\n"));
}

/// As [`write_line`], for a kernel that is about to stop: does not wait for a
/// lock whose holder may be the one that failed.
pub fn write_line_unlocked(message: fmt::Arguments<'_>) {
    // SAFETY: the kernel is stopping; nothing else uses the port from here on,
    // and bytes mixed with those of an interrupted writer are the worst case.
    unsafe { serial::LOG.force_unlock() };
    write_line("", message);
}
