//! Child processes with a time limit.

use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Exit status of a child that was killed because its time was over, as `boot run` has it.
pub const TIMED_OUT: i32 = 124;

/// How a program ended, and what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    pub stdout: Vec<u8>,
    pub stderr: String,
    /// Exit status; 128 + signal when killed.
    pub status: i32,
}

impl Output {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

fn collect(mut stream: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // Reading ends with the process; an error is the end as well.
        let _ = stream.read_to_end(&mut bytes);
        bytes
    })
}

/// Runs the command to its end, or until `limit` has passed and it is killed, with
/// all of its process group. It leads a session of its own, without a terminal.
///
/// # Errors
/// Whatever keeps it from being started.
pub fn run(command: &mut Command, limit: Duration) -> io::Result<Output> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: between fork and exec only a system call is made.
    unsafe { command.pre_exec(new_session) };
    let mut child = command.spawn()?;
    let stdout = child.stdout.take().map(collect);
    let stderr = child.stderr.take().map(collect);
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        }
        if Instant::now() > deadline {
            // SAFETY: signals the group that this child leads; it has not been reaped.
            unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
            child.wait()?;
            break TIMED_OUT;
        }
        thread::sleep(Duration::from_millis(2));
    };
    let join = |reader: Option<thread::JoinHandle<Vec<u8>>>| reader.and_then(|r| r.join().ok()).unwrap_or_default();
    let stderr = String::from_utf8_lossy(&join(stderr)).into_owned();
    Ok(Output { stdout: join(stdout), stderr, status })
}

/// Lets the calling process, which leads no group, lead a session.
pub fn new_session() -> io::Result<()> {
    // SAFETY: concerns the calling process only.
    if unsafe { libc::setsid() } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
