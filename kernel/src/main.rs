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
use core::sync::atomic::{AtomicBool, Ordering};

use bootloader_api::config::Mapping;
use bootloader_api::{BootInfo, BootloaderConfig};

use arch::acpi::ApicIds;
use arch::irq::IrqMutex;
use memory::boot::BootRam;

static BOOTLOADER_CONFIG: BootloaderConfig = {
    let mut config = BootloaderConfig::new_default();
    config.mappings.physical_memory = Some(Mapping::FixedAddress(memory::DIRECT_MAP as u64));
    // What the bootloader places itself goes to a part of the kernel's half
    // that the kernel does not use.
    config.mappings.dynamic_range_start = Some(0xffff_e000_0000_0000);
    config.mappings.dynamic_range_end = Some(0xffff_efff_ffff_f000);
    config
};

bootloader_api::entry_point!(kernel_main, config = &BOOTLOADER_CONFIG);

/// What is known of RAM, from `kernel_main` to `start`.
static BOOT_RAM: IrqMutex<Option<BootRam>> = IrqMutex::new(None);

/// The local APICs of all CPUs, likewise.
static APIC_IDS: IrqMutex<ApicIds> = IrqMutex::new(ApicIds::none());

/// In the bootloader's address space, on the bootloader's stack: makes the
/// kernel's own and goes there.
fn kernel_main(info: &'static mut BootInfo) -> ! {
    arch::time::init();
    drivers::serial::LOG.lock().init();
    drivers::serial::CONSOLE.lock().init();
    arch::paging::enable_protection();

    let mut ram = BootRam::new(&info.memory_regions);
    // The tables for the direct map come out of the RAM they map: a frame less
    // at the end of one range, which stays mapped, being a page table.
    let mapped = ram.clone();
    // SAFETY: the bootloader maps all RAM at the direct map's place, as the
    // configuration asks, and has no use for what it calls usable.
    let root = unsafe { arch::paging::build(mapped.ranges(), arch::boot_stack_guard(), &mut || ram.take_frame()) };
    let Some(root) = root else {
        panic!("no memory for the kernel's page tables");
    };
    *BOOT_RAM.lock() = Some(ram);
    arch::paging::set_root(root);
    if let Some(rsdp) = info.rsdp_addr.into_option() {
        // SAFETY: the bootloader found the tables there, and maps all of physical memory.
        *APIC_IDS.lock() = unsafe { arch::acpi::cpus(rsdp) };
    }
    if let Some(low) = BootRam::low_frames(&info.memory_regions, arch::smp::LOW_FRAMES) {
        // SAFETY: usable, and the kernel uses no low memory for anything else.
        unsafe { arch::smp::prepare(low, root) };
    }
    // SAFETY: `build` mapped the kernel there as it is here; nothing on the
    // bootloader's stack is needed any more.
    unsafe { arch::enter_kernel(root, start) }
}

/// In the kernel's own address space, on its own stack.
extern "C" fn start() -> ! {
    arch::init();
    let Some(ram) = BOOT_RAM.lock().take() else {
        panic!("started twice");
    };
    // SAFETY: the ranges are RAM that the bootloader left to the kernel, less
    // the page tables; the direct map has all of it. The upper half of the
    // root's entries was filled by `build` and does not change.
    if let Err(error) = unsafe { memory::init(&ram) } {
        panic!("memory cannot be taken into use: {error:?}");
    }
    let Ok(calibration) = arch::init_devices() else {
        panic!("no memory for device registers");
    };
    calibration.finish();
    if let Err(error) = fs::init() {
        panic!("the file system cannot be set up: error {}", error.0);
    }
    drivers::console::init();
    arch::irq::enable();
    let apic_ids = *APIC_IDS.lock();
    arch::smp::start(&apic_ids);
    log!(
        "{} CPUs, {} MiB of memory free, {} ms after the kernel's start",
        arch::cpu::count(),
        (memory::memory().free_frames() * mm::PAGE_SIZE) >> 20,
        arch::time::monotonic_ns() / 1_000_000
    );
    task::run()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    static PANICKING: AtomicBool = AtomicBool::new(false);
    arch::smp::stop_others_or_halt();
    if !PANICKING.swap(true, Ordering::Relaxed) {
        log::write_line_unlocked(format_args!("{info}"));
    }
    drivers::debug_exit::panic()
}
