//! The way out: a status line on the debug port, then QEMU's exit device.

use x86_64::instructions::port::Port;

use crate::arch;
use crate::drivers::serial;

/// QEMU's `isa-debugcon`.
const STATUS_PORT: u16 = 0xe9;
/// QEMU's `isa-debug-exit`.
const EXIT_PORT: u16 = 0xf4;

const EXIT_NORMAL: u32 = 0;
const EXIT_PANIC: u32 = 1;

/// Ends the machine with `exit <status>` on the status line. The status is
/// that of the first process, or 128 plus the signal that killed it.
pub fn exit(status: i32) -> ! {
    arch::smp::stop_others_or_halt();
    write_status(b"exit ");
    if status < 0 {
        write_status(b"-");
    }
    let mut digits = [0; 10];
    let mut first = digits.len();
    let mut rest = status.unsigned_abs();
    loop {
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    write_status(&digits[first..]);
    write_status(b"\n");
    leave(EXIT_NORMAL)
}

/// Ends the machine with `panic` on the status line.
pub fn panic() -> ! {
    write_status(b"panic\n");
    leave(EXIT_PANIC)
}

fn write_status(bytes: &[u8]) {
    for &byte in bytes {
        // SAFETY: the port is QEMU's debug console, or nothing at all; a
        // write to it has no effect on the kernel's memory.
        unsafe { Port::new(STATUS_PORT).write(byte) }
    }
}

fn leave(code: u32) -> ! {
    serial::drain();
    // SAFETY: a write to this port ends QEMU, or does nothing where the
    // device is missing.
    unsafe { Port::new(EXIT_PORT).write(code) }
    arch::halt_forever()
}
