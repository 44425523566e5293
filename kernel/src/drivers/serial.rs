//! 16550 serial ports: COM1 is the program's console, COM2 the kernel log.

use core::fmt;

use x86_64::instructions::port::Port;

use crate::arch::irq::IrqMutex;

const CONSOLE_BASE: u16 = 0x3f8;
const LOG_BASE: u16 = 0x2f8;

/// The program's console.
pub static CONSOLE: IrqMutex<SerialPort> = IrqMutex::new(SerialPort::new(CONSOLE_BASE));
/// The kernel log.
pub static LOG: IrqMutex<SerialPort> = IrqMutex::new(SerialPort::new(LOG_BASE));

/// The interrupt line of COM1.
pub const CONSOLE_IRQ: u8 = 4;

/// What each port carries first: UEFI firmware uses them all as its console,
/// and whoever listens at the other end wants to know where that ends.
const START_MARK: [u8; 2] = [0x10, b'S'];

/// Bytes the transmitter takes once it has said that it is empty.
const FIFO_SIZE: usize = 16;

const LINE_STATUS_DATA_READY: u8 = 1 << 0;
const LINE_STATUS_TRANSMITTER_EMPTY: u8 = 1 << 5;
const LINE_STATUS_ALL_SENT: u8 = 1 << 6;

/// One 16550 UART.
#[derive(Debug)]
pub struct SerialPort {
    base: u16,
}

impl SerialPort {
    const fn new(base: u16) -> Self {
        SerialPort { base }
    }

    fn write_register(&mut self, register: u16, value: u8) {
        // SAFETY: `base` is a standard serial port, whose registers affect
        // nothing but the port itself (it does no DMA).
        unsafe { Port::new(self.base + register).write(value) }
    }

    fn read_register(&mut self, register: u16) -> u8 {
        // SAFETY: as in `write_register`.
        unsafe { Port::new(self.base + register).read() }
    }

    /// 115200 baud, 8 bits, no parity, FIFOs on, no interrupts. Sends the start
    /// mark: what came before it was the firmware's.
    pub fn init(&mut self) {
        self.write_register(1, 0x00);
        self.write_register(3, 0x80);
        self.write_register(0, 0x01);
        self.write_register(1, 0x00);
        self.write_register(3, 0x03);
        self.write_register(2, 0xc7);
        self.write_register(4, 0x0b);
        self.write(&START_MARK);
    }

    /// Turns the interrupt for received bytes on or off.
    pub fn set_receive_interrupt(&mut self, on: bool) {
        self.write_register(1, on as u8);
    }

    /// A received byte, if there is one.
    pub fn read_byte(&mut self) -> Option<u8> {
        if self.read_register(5) & LINE_STATUS_DATA_READY != 0 { Some(self.read_register(0)) } else { None }
    }

    /// Sends all of `bytes`, waiting for the transmitter as needed.
    pub fn write(&mut self, bytes: &[u8]) {
        for burst in bytes.chunks(FIFO_SIZE) {
            while self.read_register(5) & LINE_STATUS_TRANSMITTER_EMPTY == 0 {
                core::hint::spin_loop();
            }
            for &byte in burst {
                self.write_register(0, byte);
            }
        }
    }
}

/// Waits until both ports have sent all they were given. Takes no lock: for
/// the end of the machine.
pub fn drain() {
    for mut port in [SerialPort::new(CONSOLE_BASE), SerialPort::new(LOG_BASE)] {
        while port.read_register(5) & LINE_STATUS_ALL_SENT == 0 {
            core::hint::spin_loop();
        }
    }
}

impl fmt::Write for SerialPort {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.write(s.as_bytes());
        Ok(())
    }
}
