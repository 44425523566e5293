//! The character devices in `/dev`.

use mm::{Errno, Platform};

use super::file::{File, FileOps, Seek};
use super::io::{Sink, Source, partial, should_stop};
use super::poll::{Events, Readiness};
use super::tty;
use crate::memory::memory;

/// How many bytes are made at once.
const CHUNK: usize = 512;

/// A character device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// Empty to read, and swallows what is written.
    Null,
    /// Zeroes to read, and swallows what is written.
    Zero,
    /// Zeroes to read, and full when written to.
    Full,
    /// Random bytes to read.
    Random,
    /// The same.
    Urandom,
    /// The terminal of the process: the console.
    Tty,
    /// The console.
    Console,
}

/// All devices, with their names in `/dev` and their permissions.
pub const ALL: [(&[u8], u32, Device); 7] = [
    (b"null", 0o666, Device::Null),
    (b"zero", 0o666, Device::Zero),
    (b"full", 0o666, Device::Full),
    (b"random", 0o666, Device::Random),
    (b"urandom", 0o666, Device::Urandom),
    (b"tty", 0o666, Device::Tty),
    (b"console", 0o600, Device::Console),
];

impl Device {
    /// Major and minor number.
    pub const fn number(self) -> (u32, u32) {
        match self {
            Device::Null => (1, 3),
            Device::Zero => (1, 5),
            Device::Full => (1, 7),
            Device::Random => (1, 8),
            Device::Urandom => (1, 9),
            Device::Tty => (5, 0),
            Device::Console => (5, 1),
        }
    }

    /// The device with that number, for `mknod`.
    pub fn with_number(major: u32, minor: u32) -> Option<Device> {
        let known = ALL.iter().find(|(_, _, device)| device.number() == (major, minor));
        known.map(|&(_, _, device)| device)
    }
}

impl FileOps for Device {
    fn read(&self, file: &File, sink: &mut Sink<'_>, _offset: u64) -> Result<usize, Errno> {
        match self {
            Device::Null => Ok(0),
            Device::Zero | Device::Full => fill(sink, |_| {}),
            Device::Random | Device::Urandom => fill(sink, random_bytes),
            Device::Tty | Device::Console => tty::read(file, sink),
        }
    }

    fn write(&self, _: &File, source: &mut Source<'_>, _offset: u64) -> Result<usize, Errno> {
        match self {
            Device::Full if source.remaining() > 0 => Err(Errno::ENOSPC),
            Device::Tty | Device::Console => tty::write(source),
            _ => Ok(source.skip_all()),
        }
    }

    fn seek(&self, _: &File) -> Seek {
        match self {
            Device::Tty | Device::Console => Seek::Stream,
            _ => Seek::Ignored,
        }
    }

    fn poll(&self, _: &File) -> Readiness {
        match self {
            Device::Tty | Device::Console => tty::poll(),
            _ => Readiness::always(Events::IN | Events::OUT | Events::RDNORM | Events::WRNORM),
        }
    }

    fn ioctl(&self, _: &File, request: u32, argument: usize) -> Result<usize, Errno> {
        match self {
            Device::Tty | Device::Console => tty::ioctl(request, argument),
            _ => Err(Errno::ENOTTY),
        }
    }

    fn maps_as_zero(&self) -> bool {
        *self == Device::Zero
    }
}

/// Fills `sink` with what `make` puts into a zeroed buffer. A signal ends it
/// early, so that nobody is kept from dying by a read of gigabytes.
pub fn fill(sink: &mut Sink<'_>, make: impl Fn(&mut [u8])) -> Result<usize, Errno> {
    let mut buffer = [0; CHUNK];
    let mut done = 0;
    while sink.remaining() > 0 && (done == 0 || !super::signal_pending()) {
        let count = sink.remaining().min(CHUNK);
        make(&mut buffer[..count]);
        let count = match sink.put(&buffer[..count]) {
            Ok(count) => count,
            Err(error) => return partial(done, error),
        };
        done += count;
        if count == 0 || should_stop(done, count) {
            break;
        }
    }
    Ok(done)
}

/// Fills `buffer` with random bytes.
pub fn random_bytes(buffer: &mut [u8]) {
    for piece in buffer.chunks_mut(8) {
        let word = memory().platform().random().to_le_bytes();
        piece.copy_from_slice(&word[..piece.len()]);
    }
}
