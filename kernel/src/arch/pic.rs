//! The two 8259 interrupt controllers: how COM1's interrupt arrives.
//!
//! They are wired to the local APIC of the first CPU, and need no firmware
//! table to be found. All lines are masked but those that have been enabled.

use x86_64::instructions::port::Port;

use super::irq::IrqMutex;
use super::trap::FIRST_IRQ_VECTOR;

const CASCADE_LINE: u8 = 2;
const COMMAND_END_OF_INTERRUPT: u8 = 0x20;
const COMMAND_READ_IN_SERVICE: u8 = 0x0b;

struct Controller {
    command: Port<u8>,
    data: Port<u8>,
}

impl Controller {
    const fn new(base: u16) -> Controller {
        Controller { command: Port::new(base), data: Port::new(base + 1) }
    }

    fn command(&mut self, value: u8) {
        // SAFETY: the controller's own register, which touches no memory.
        unsafe { self.command.write(value) }
    }

    fn data(&mut self, value: u8) {
        // SAFETY: as above.
        unsafe { self.data.write(value) }
    }

    /// Vectors from `first_vector`; `wiring` is what connects it to the other one.
    fn init(&mut self, first_vector: u8, wiring: u8) {
        self.command(0x11);
        self.data(first_vector);
        self.data(wiring);
        self.data(0x01);
        self.data(0xff);
    }

    fn unmask(&mut self, bit: u8) {
        // SAFETY: as above.
        let mask = unsafe { self.data.read() };
        self.data(mask & !(1 << bit));
    }

    fn in_service(&mut self, bit: u8) -> bool {
        self.command(COMMAND_READ_IN_SERVICE);
        // SAFETY: as above.
        unsafe { self.command.read() & 1 << bit != 0 }
    }
}

static CONTROLLERS: IrqMutex<[Controller; 2]> = IrqMutex::new([Controller::new(0x20), Controller::new(0xa0)]);

/// Sets up both, with every line masked.
pub fn init() {
    let mut controllers = CONTROLLERS.lock();
    controllers[0].init(FIRST_IRQ_VECTOR, 1 << CASCADE_LINE);
    controllers[1].init(FIRST_IRQ_VECTOR + 8, CASCADE_LINE);
    controllers[0].unmask(CASCADE_LINE);
}

/// Lets interrupts of `line` through.
pub fn enable(line: u8) {
    CONTROLLERS.lock()[usize::from((line / 8) & 1)].unmask(line % 8);
}

/// Whether an interrupt of `line` is a real one, to be ended by
/// [`end_of_interrupt`]. The last line of each controller also brings those
/// that went away before they were asked for.
pub fn begin(line: u8) -> bool {
    if line % 8 != 7 {
        return true;
    }
    let mut controllers = CONTROLLERS.lock();
    let real = controllers[usize::from((line / 8) & 1)].in_service(7);
    if !real && line >= 8 {
        controllers[0].command(COMMAND_END_OF_INTERRUPT);
    }
    real
}

/// Lets the next interrupt of `line` come.
pub fn end_of_interrupt(line: u8) {
    let mut controllers = CONTROLLERS.lock();
    if line >= 8 {
        controllers[1].command(COMMAND_END_OF_INTERRUPT);
    }
    controllers[0].command(COMMAND_END_OF_INTERRUPT);
}
