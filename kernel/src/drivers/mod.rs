//! The few devices a QEMU machine needs to have: serial ports, `fw_cfg`, and
//! the way out.

pub mod console;
pub mod debug_exit;
pub mod fw_cfg;
pub mod serial;
