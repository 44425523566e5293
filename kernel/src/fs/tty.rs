//! The console as a terminal.
//!
//! Bytes pass through unchanged in both directions: there is no line editing,
//! echo or translation here, because what is at the other end of the serial
//! line does all that. The terminal settings that programs read and set are
//! kept, and one of them counts: in canonical mode a read ends with a line.

use core::sync::atomic::{AtomicI32, Ordering};

use mm::Errno;

use super::file::File;
use super::io::{Sink, Source, partial, should_stop};
use super::poll::{Events, Readiness, Stamp};
use crate::arch::irq::Mutex;
use crate::arch::usercopy::{copy_from_user, copy_to_user, read_user, write_user};
use crate::drivers::console;

const CHUNK: usize = 256;
/// The kernel's `struct termios`: four flag words, the line discipline, and 19
/// control characters.
const TERMIOS_SIZE: usize = 36;
const LOCAL_FLAGS_AT: usize = 12;
const ICANON: u32 = 0o2;

/// Settings that a program finds: carriage returns become newlines on input
/// and output is left alone (`ICRNL`; `CS8 | CREAD | HUPCL`, 115200 baud;
/// `ISIG | ICANON | IEXTEN`), and Linux's control characters.
static TERMIOS: Mutex<[u8; TERMIOS_SIZE]> = Mutex::new({
    let mut termios = [0; TERMIOS_SIZE];
    let words = [0o400_u32, 0, 0o16262, 0o1 | ICANON | 0o100000];
    let mut word = 0;
    while word < words.len() {
        let bytes = words[word].to_le_bytes();
        let mut byte = 0;
        while byte < 4 {
            termios[word * 4 + byte] = bytes[byte];
            byte += 1;
        }
        word += 1;
    }
    // From VINTR on: ^C ^\ DEL ^U ^D, time 0, at least 1, -, ^Q ^S ^Z, -, ^R ^O ^W ^V, -
    let characters = [3, 28, 127, 21, 4, 0, 1, 0, 17, 19, 26, 0, 18, 15, 23, 22, 0, 0, 0];
    let mut index = 0;
    while index < characters.len() {
        termios[17 + index] = characters[index];
        index += 1;
    }
    termios
});

/// Rows, columns, and two unused numbers: `struct winsize`.
static WINDOW: Mutex<[u16; 4]> = Mutex::new([24, 80, 0, 0]);
/// The process group in the foreground.
static FOREGROUND: AtomicI32 = AtomicI32::new(1);
/// Bytes read but not yet asked for, in canonical mode: what followed a line.
static REST: Mutex<Rest> = Mutex::new(Rest { bytes: [0; CHUNK], start: 0, end: 0 });
static STAMP: Stamp = Stamp::new();

struct Rest {
    bytes: [u8; CHUNK],
    start: usize,
    end: usize,
}

impl Rest {
    /// Takes up to `limit` bytes into `line`, in canonical mode no further
    /// than the end of a line.
    fn take(&mut self, line: &mut [u8], limit: usize, canonical: bool) -> usize {
        let there = &self.bytes[self.start..self.end];
        let mut count = there.len().min(limit).min(line.len());
        if canonical && let Some(newline) = there[..count].iter().position(|&byte| byte == b'\n') {
            count = newline + 1;
        }
        line[..count].copy_from_slice(&there[..count]);
        self.start += count;
        count
    }
}

fn is_canonical() -> bool {
    let termios = TERMIOS.lock();
    termios[LOCAL_FLAGS_AT] & ICANON as u8 != 0
}

/// The receive interrupt's notice that input, or its end, has arrived.
pub fn input_arrived() {
    STAMP.change();
}

/// Whether a read would not wait.
fn is_readable() -> bool {
    let rest = REST.lock();
    rest.start < rest.end || console::readable()
}

/// Reads what there is, waiting for something to come if need be; 0 at the
/// end of the input.
pub fn read(file: &File, sink: &mut Sink<'_>) -> Result<usize, Errno> {
    if sink.remaining() == 0 {
        return Ok(0);
    }
    let mut line = [0; CHUNK];
    loop {
        let read = {
            let mut rest = REST.lock();
            if rest.start == rest.end {
                let read = console::read(&mut rest.bytes);
                rest.start = 0;
                rest.end = match read {
                    console::Read::Bytes(count) => count,
                    _ => 0,
                };
                (read == console::Read::End).then_some(0)
            } else {
                None
            }
            .or_else(|| Some(rest.take(&mut line, sink.remaining(), is_canonical())).filter(|&n| n > 0))
        };
        match read {
            Some(count) => return sink.put(&line[..count]),
            None if file.nonblocking() => return Err(Errno::EAGAIN),
            None => console::READERS.wait_until(|| is_readable().then_some(()))?,
        }
    }
}

/// Writes bytes to the console as they are.
pub fn write(source: &mut Source<'_>) -> Result<usize, Errno> {
    let mut buffer = [0; CHUNK];
    let mut done = 0;
    while source.remaining() > 0 {
        let count = match source.take(&mut buffer) {
            Ok(count) => count,
            Err(error) => return partial(done, error),
        };
        console::write(&buffer[..count]);
        done += count;
        if count == 0 || should_stop(done, count) {
            break;
        }
    }
    Ok(done)
}

/// What could be done without waiting.
pub fn poll() -> Readiness {
    let stamp = STAMP.get();
    let mut events = Events::OUT | Events::WRNORM;
    events.set(Events::IN | Events::RDNORM, is_readable());
    Readiness { events, stamp }
}

/// The terminal's `ioctl` requests.
pub fn ioctl(request: u32, argument: usize) -> Result<usize, Errno> {
    const TCGETS: u32 = 0x5401;
    const TCSETS: u32 = 0x5402;
    const TCSETSW: u32 = 0x5403;
    const TCSETSF: u32 = 0x5404;
    const TCSBRK: u32 = 0x5409;
    const TCXONC: u32 = 0x540a;
    const TCFLSH: u32 = 0x540b;
    const TIOCSCTTY: u32 = 0x540e;
    const TIOCGPGRP: u32 = 0x540f;
    const TIOCSPGRP: u32 = 0x5410;
    const TIOCOUTQ: u32 = 0x5411;
    const TIOCGWINSZ: u32 = 0x5413;
    const TIOCSWINSZ: u32 = 0x5414;
    const FIONREAD: u32 = 0x541b;
    const TIOCNOTTY: u32 = 0x5422;
    const TCSBRKP: u32 = 0x5425;
    const TIOCGSID: u32 = 0x5429;
    match request {
        TCGETS => {
            let termios = *TERMIOS.lock();
            copy_to_user(argument, &termios)?;
        }
        TCSETS | TCSETSW | TCSETSF => {
            let mut termios = [0; TERMIOS_SIZE];
            copy_from_user(&mut termios, argument)?;
            *TERMIOS.lock() = termios;
        }
        TIOCGWINSZ => {
            let window = *WINDOW.lock();
            write_user(argument, window)?;
        }
        TIOCSWINSZ => {
            let window = read_user(argument)?;
            *WINDOW.lock() = window;
        }
        TIOCGPGRP | TIOCGSID => write_user(argument, FOREGROUND.load(Ordering::Relaxed))?,
        TIOCSPGRP => {
            let group: i32 = read_user(argument)?;
            if group < 0 {
                return Err(Errno::EINVAL);
            }
            FOREGROUND.store(group, Ordering::Relaxed);
        }
        FIONREAD => {
            let rest = REST.lock();
            let waiting = rest.end - rest.start + console::pending();
            drop(rest);
            write_user(argument, waiting as i32)?;
        }
        TIOCOUTQ => write_user(argument, 0_i32)?,
        TCSBRK | TCSBRKP | TCXONC | TCFLSH | TIOCSCTTY | TIOCNOTTY => {}
        _ => return Err(Errno::ENOTTY),
    }
    Ok(0)
}
