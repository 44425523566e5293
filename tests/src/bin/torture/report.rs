//! Saying that something is wrong, from any thread of any process.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tests::sys;

/// What has been done, over all threads.
pub static OPERATIONS: AtomicU64 = AtomicU64::new(0);

/// A line in the making. Nothing is allocated, and no lock taken: a child of a
/// program with threads must not.
struct Line {
    bytes: [u8; 400],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            let slot = self.bytes.get_mut(self.len).ok_or(fmt::Error)?;
            *slot = byte;
            self.len += 1;
        }
        Ok(())
    }
}

/// Prints a line at once.
pub fn say(message: fmt::Arguments<'_>) {
    let mut line = Line { bytes: [0; 400], len: 0 };
    // What does not fit is left out.
    let _ = line.write_fmt(message);
    line.bytes[line.len.min(399)] = b'\n';
    let _ = sys::call(libc::SYS_write, &[1, line.bytes.as_ptr() as usize, line.len.min(399) + 1]);
}

/// Prints what is wrong and ends the process.
pub fn wrong(message: fmt::Arguments<'_>) -> ! {
    say(format_args!("WRONG: {message}"));
    // SAFETY: ends the process; nothing runs after it.
    unsafe { libc::_exit(1) }
}

/// Ends the process with a message unless the condition holds.
#[macro_export]
macro_rules! check {
    ($condition:expr, $($message:tt)*) => {
        if !$condition {
            $crate::report::wrong(format_args!($($message)*));
        }
    };
}

/// One more operation was done.
pub fn count() {
    OPERATIONS.fetch_add(1, Relaxed);
}

/// A child of this process, which has threads: `work` allocates nothing and prints
/// by [`say`] alone. `None`: there is no memory for one.
pub fn fork(work: impl FnOnce() -> i32) -> Option<i32> {
    // SAFETY: see above.
    match unsafe { libc::fork() } {
        -1 => None,
        // SAFETY: ends the process; nothing runs after it.
        0 => unsafe { libc::_exit(work()) },
        child => Some(child),
    }
}

/// Waits for a child that has to end well.
pub fn join(child: i32) {
    let status = sys::wait(child);
    check!(status == Ok(sys::Status::Exited(0)), "a child ended with {status:?}");
}
