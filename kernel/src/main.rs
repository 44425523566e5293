//! The reference kernel for `mm`: boots in QEMU and runs static Linux programs.
#![no_std]
#![no_main]
#![feature(allocator_api)]

extern crate alloc;

mod arch;
mod drivers;
mod elf;
mod errno;
mod fs;
mod log;
mod memory;
mod syscall;
mod task;

use core::panic::PanicInfo;

use bootloader_api::config::Mapping;
use bootloader_api::{BootInfo, BootloaderConfig};

static BOOTLOADER_CONFIG: BootloaderConfig = {
    let mut config = BootloaderConfig::new_default();
    config.mappings.physical_memory = Some(Mapping::FixedAddress(memory::DIRECT_MAP as u64));
    config.mappings.dynamic_range_start = Some(0xffff_c000_0000_0000);
    config.mappings.dynamic_range_end = Some(0xffff_dfff_ffff_f000);
    config
};

bootloader_api::entry_point!(kernel_main, config = &BOOTLOADER_CONFIG);

fn kernel_main(_info: &'static mut BootInfo) -> ! {
    drivers::serial::LOG.lock().init();
    drivers::serial::CONSOLE.lock().init();
    task::run()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    arch::irq::disable();
    log::write_line_unlocked(format_args!("{info}"));
    drivers::debug_exit::panic()
}
