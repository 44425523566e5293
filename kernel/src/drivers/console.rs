//! The console: bytes to and from whoever started the machine.
//!
//! Output is raw. Input is framed, because a serial line has no end of file:
//! `DLE DLE` stands for one byte `DLE` (0x10), `DLE 'E'` for the end of input,
//! any other byte for itself. Received bytes wait in a ring that the receive
//! interrupt fills; when it is full the interrupt stays off until a reader has
//! made room, and the sender is held up by the UART.

use crate::arch::irq::IrqMutex;
use crate::drivers::serial;
use crate::fs::tty;
use crate::task::wait::WaitQueue;

const DLE: u8 = 0x10;
const END_OF_INPUT: u8 = b'E';
const RING_SIZE: usize = 4096;
/// Bytes that are sent with interrupts disabled.
const WRITE_PIECE: usize = 256;

/// Woken when a byte has arrived or the input has ended.
pub static READERS: WaitQueue = WaitQueue::new();

static INPUT: IrqMutex<Input> =
    IrqMutex::new(Input { ring: [0; RING_SIZE], start: 0, len: 0, escaped: false, ended: false });

struct Input {
    ring: [u8; RING_SIZE],
    start: usize,
    len: usize,
    /// The last byte was a `DLE` whose meaning the next one decides.
    escaped: bool,
    ended: bool,
}

impl Input {
    fn push(&mut self, byte: u8) {
        self.ring[(self.start + self.len) % RING_SIZE] = byte;
        self.len += 1;
    }

    /// Takes one byte from the line; only called when the ring has room.
    fn receive(&mut self, byte: u8) {
        match (self.escaped, byte) {
            (false, DLE) => self.escaped = true,
            (true, END_OF_INPUT) => {
                self.escaped = false;
                self.ended = true;
            }
            _ => {
                self.escaped = false;
                self.push(byte);
            }
        }
    }

    /// Moves what the UART holds into the ring, as far as there is room.
    fn drain_port(&mut self) {
        let mut port = serial::CONSOLE.lock();
        while self.len < RING_SIZE {
            match port.read_byte() {
                Some(byte) => self.receive(byte),
                None => break,
            }
        }
        port.set_receive_interrupt(self.len < RING_SIZE);
    }
}

/// Starts receiving.
pub fn init() {
    INPUT.lock().drain_port();
}

/// Handles COM1's interrupt.
pub fn on_interrupt() {
    INPUT.lock().drain_port();
    READERS.wake_all();
    tty::input_arrived();
}

/// Sends `bytes` unchanged. Interrupts are let in now and then, because the
/// line may be slow.
pub fn write(bytes: &[u8]) {
    for piece in bytes.chunks(WRITE_PIECE) {
        serial::CONSOLE.lock().write(piece);
    }
}

/// What there is to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Read {
    /// That many bytes were stored.
    Bytes(usize),
    /// Nothing has arrived yet; [`READERS`] is woken when something does.
    WouldBlock,
    /// There is no more input and never will be.
    End,
}

/// Takes received bytes, without waiting, as many as there are and fit.
pub fn read(buffer: &mut [u8]) -> Read {
    let mut input = INPUT.lock();
    let count = buffer.len().min(input.len);
    for slot in &mut buffer[..count] {
        *slot = input.ring[input.start];
        input.start = (input.start + 1) % RING_SIZE;
    }
    let was_full = input.len == RING_SIZE;
    input.len -= count;
    if was_full && count > 0 {
        input.drain_port();
    }
    match (count, input.ended) {
        (0, true) => Read::End,
        (0, false) if !buffer.is_empty() => Read::WouldBlock,
        _ => Read::Bytes(count),
    }
}

/// Whether [`read`] would return something other than [`Read::WouldBlock`].
pub fn readable() -> bool {
    let input = INPUT.lock();
    input.len > 0 || input.ended
}

/// Bytes received and not yet read.
pub fn pending() -> usize {
    INPUT.lock().len
}
