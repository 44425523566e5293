//! How a run ended, as the guest, QEMU and the clock tell it, and the exit
//! status that says so.

use std::process::ExitStatus;
use std::time::Duration;

/// Exit status: the kernel panicked, or the guest reset itself.
pub const KERNEL_DIED: u8 = 123;
/// Exit status: the time limit was over.
pub const TIMED_OUT: u8 = 124;
/// Exit status: this tool or QEMU could not do its part; nothing was learnt
/// about the program.
pub const TROUBLE: u8 = 125;

/// What the kernel writes to the debug port before it switches the machine off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// The first process has ended, with this status (128 + signal when killed).
    Exit(u8),
    /// The kernel has panicked.
    Panic,
}

impl Status {
    /// Parses one line, without its newline: `exit N` or `panic`.
    pub fn parse(line: &str) -> Option<Status> {
        match line.strip_prefix("exit ") {
            // `u8::from_str` would accept a plus sign.
            Some(number) if number.bytes().all(|b| b.is_ascii_digit()) => number.parse().ok().map(Status::Exit),
            Some(_) => None,
            None => (line == "panic").then_some(Status::Panic),
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The kernel reported a status.
    Reported(Status),
    /// QEMU ended by itself without a report from the kernel.
    Unreported(ExitStatus),
    /// The time limit was over, and QEMU was killed.
    TimedOut(Duration),
    /// This process received a signal, and QEMU was killed.
    Interrupted(i32),
    /// Nobody reads our stdout any more, and QEMU was killed.
    OutputClosed,
}

impl Outcome {
    /// The exit status of this tool.
    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::Reported(Status::Exit(code)) => code,
            Outcome::Reported(Status::Panic) => KERNEL_DIED,
            // A guest that resets or powers off ends QEMU with 0, because of
            // `-no-reboot`; the debug exit device ends it with an odd number.
            Outcome::Unreported(status) => match status.code() {
                Some(0 | 3) => KERNEL_DIED,
                _ => TROUBLE,
            },
            Outcome::TimedOut(_) => TIMED_OUT,
            Outcome::Interrupted(signal) => (128 + signal) as u8,
            Outcome::OutputClosed => (128 + libc::SIGPIPE) as u8,
        }
    }

    /// What the user has to be told, where the status alone does not say it.
    pub fn message(self) -> Option<String> {
        match self {
            Outcome::Reported(Status::Exit(_)) | Outcome::OutputClosed => None,
            Outcome::Reported(Status::Panic) => Some("the kernel panicked; its log is above".into()),
            Outcome::Unreported(status) if self.exit_code() == KERNEL_DIED => {
                Some(format!("the guest reset itself (a triple fault?) before the program had ended; QEMU: {status}"))
            }
            Outcome::Unreported(status) => Some(format!("QEMU failed: {status}")),
            Outcome::TimedOut(limit) => {
                Some(format!("the guest did not end within {} seconds and was stopped", limit.as_secs()))
            }
            Outcome::Interrupted(signal) => Some(format!("interrupted by signal {signal}; the guest was stopped")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn exited(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    #[test]
    fn status_line_is_parsed() {
        assert_eq!(Status::parse("exit 0"), Some(Status::Exit(0)));
        assert_eq!(Status::parse("exit 139"), Some(Status::Exit(139)));
        assert_eq!(Status::parse("exit 255"), Some(Status::Exit(255)));
        assert_eq!(Status::parse("panic"), Some(Status::Panic));
    }

    #[test]
    fn anything_else_is_no_status() {
        for line in ["", "exit", "exit ", "exit 256", "exit -1", "exit +1", "exit 1 ", "panicked", " panic"] {
            assert_eq!(Status::parse(line), None, "{line:?}");
        }
    }

    #[test]
    fn the_programs_status_is_ours() {
        for code in [0, 1, 42, 139, 255] {
            let outcome = Outcome::Reported(Status::Exit(code));
            assert_eq!(outcome.exit_code(), code);
            assert_eq!(outcome.message(), None);
        }
    }

    #[test]
    fn everything_that_went_wrong_fails_and_says_so() {
        let cases = [
            (Outcome::Reported(Status::Panic), KERNEL_DIED),
            (Outcome::Unreported(exited(0)), KERNEL_DIED),
            (Outcome::Unreported(exited(3)), KERNEL_DIED),
            (Outcome::Unreported(exited(1)), TROUBLE),
            (Outcome::Unreported(ExitStatus::from_raw(libc::SIGSEGV)), TROUBLE),
            (Outcome::TimedOut(Duration::from_secs(5)), TIMED_OUT),
            (Outcome::Interrupted(libc::SIGINT), 130),
            (Outcome::Interrupted(libc::SIGTERM), 143),
        ];
        for (outcome, code) in cases {
            assert_eq!(outcome.exit_code(), code, "{outcome:?}");
            assert!(outcome.message().is_some(), "{outcome:?}");
        }
    }
}
