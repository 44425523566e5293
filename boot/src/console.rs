//! The framing on the two serial ports.
//!
//! From the guest, each port carries a *start mark* and then raw bytes. What
//! comes before the mark is not the kernel's: UEFI firmware uses every serial
//! port it finds as a console.
//!
//! To the guest, the console's port carries the bytes of stdin, in which the
//! escape byte DLE introduces what is not one of them: `DLE DLE` is one DLE,
//! and `DLE E` the end of input, of which a serial line itself knows nothing.

/// The escape byte (ASCII "data link escape").
const DLE: u8 = 0x10;

/// What the kernel sends first on each port.
const START_MARK: [u8; 2] = [DLE, b'S'];

/// Tells the guest that there will be no more input.
pub const END_OF_INPUT: [u8; 2] = [DLE, b'E'];

/// How much of what precedes the start mark is kept for an error report, in bytes.
const PREAMBLE_LIMIT: usize = 16 * 1024;

/// Escapes a piece of stdin.
pub fn escape(input: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(input.len() + 1);
    for &byte in input {
        if byte == DLE {
            escaped.push(DLE);
        }
        escaped.push(byte);
    }
    escaped
}

/// Separates what a port carries before the start mark from what comes after.
#[derive(Debug, Default)]
pub struct StartFilter {
    started: bool,
    preamble: Vec<u8>,
}

impl StartFilter {
    /// Takes the next bytes from the port; returns those that are the guest's.
    pub fn feed<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        if self.started {
            return bytes;
        }
        let before = self.preamble.len();
        self.preamble.extend_from_slice(bytes);
        let found = self.preamble.windows(START_MARK.len()).position(|window| window == START_MARK);
        match found {
            Some(position) => {
                self.started = true;
                self.preamble = Vec::new();
                // The mark ends in `bytes`: otherwise it would have been found earlier.
                &bytes[position + START_MARK.len() - before..]
            }
            None => {
                let excess = self.preamble.len().saturating_sub(PREAMBLE_LIMIT);
                self.preamble.drain(..excess);
                &[]
            }
        }
    }

    /// Whether the start mark has come.
    pub fn started(&self) -> bool {
        self.started
    }

    /// What came instead of a start mark, or the last part of it.
    pub fn preamble(&self) -> &[u8] {
        &self.preamble
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out of the filter when `stream` arrives in pieces of `size` bytes.
    fn filtered(stream: &[u8], size: usize) -> (Vec<u8>, StartFilter) {
        let mut filter = StartFilter::default();
        let mut out = Vec::new();
        for piece in stream.chunks(size) {
            out.extend_from_slice(filter.feed(piece));
        }
        (out, filter)
    }

    #[test]
    fn input_without_dle_is_unchanged() {
        assert_eq!(escape(b"ls -l\n\xff\0"), b"ls -l\n\xff\0");
        assert_eq!(escape(b""), b"");
    }

    #[test]
    fn each_dle_is_doubled() {
        assert_eq!(escape(b"\x10"), b"\x10\x10");
        assert_eq!(escape(b"a\x10Eb\x10\x10"), b"a\x10\x10Eb\x10\x10\x10\x10");
    }

    #[test]
    fn what_precedes_the_mark_is_dropped_however_the_bytes_arrive() {
        let stream = b"\x1b[2JBdsDxe: loading\r\n\x10Shello\n\x10S again\x10";
        for size in 1..=stream.len() {
            let (out, filter) = filtered(stream, size);
            assert_eq!(out, b"hello\n\x10S again\x10", "pieces of {size}");
            assert!(filter.started());
            assert!(filter.preamble().is_empty());
        }
    }

    #[test]
    fn a_mark_at_once_and_nothing_after_it() {
        let (out, filter) = filtered(b"\x10S", 2);
        assert!(out.is_empty());
        assert!(filter.started());
    }

    #[test]
    fn a_doubled_dle_before_the_mark_does_not_hide_it() {
        assert_eq!(filtered(b"\x10\x10Sx", 1).0, b"x");
    }

    #[test]
    fn without_a_mark_the_preamble_is_kept_up_to_its_limit() {
        let (out, filter) = filtered(b"No bootable device.\x10", 3);
        assert!(out.is_empty());
        assert!(!filter.started());
        assert_eq!(filter.preamble(), b"No bootable device.\x10");

        let mut filter = StartFilter::default();
        for _ in 0..10 {
            filter.feed(&[b'x'; PREAMBLE_LIMIT / 2]);
        }
        assert_eq!(filter.preamble().len(), PREAMBLE_LIMIT);
        assert_eq!(filter.feed(b"\x10Sgo"), b"go");
    }
}
