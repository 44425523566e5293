//! The other CPUs: starting them, one after the other, and stopping them.
//!
//! A CPU that is started begins in real mode below 1 MiB. Four frames there are
//! set aside and filled early in the boot ([`prepare`]), while physical memory
//! is mapped: the code it begins with ([`trampoline`](self)), and tables which map
//! that code where it is, besides the kernel.

use core::arch::global_asm;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicUsize, Ordering};

use alloc::boxed::Box;
use mm::{Errno, MAX_CPUS, PAGE_SIZE, PhysAddr};

use super::acpi::ApicIds;
use super::cpu::{self, Cpu};
use super::stack::KernelStack;
use super::{apic, entry, fpu, halt_forever, irq, paging, time, trap};
use crate::memory::DIRECT_MAP;
use crate::{error, task};

/// Frames that [`prepare`] wants.
pub const LOW_FRAMES: usize = 4;

/// Number of the frame where CPUs begin; 0: there is none.
static TRAMPOLINE: AtomicU8 = AtomicU8::new(0);

/// The data of the CPU that is being started.
static STARTING: AtomicPtr<Cpu> = AtomicPtr::new(ptr::null_mut());
/// The top of its stack.
static STARTING_STACK: AtomicUsize = AtomicUsize::new(0);
/// The kernel's top-level table.
static STARTING_ROOT: AtomicUsize = AtomicUsize::new(0);
/// It runs.
static STARTED: AtomicBool = AtomicBool::new(false);

/// The machine stops: no CPU but one is to go on.
static STOPPING: AtomicBool = AtomicBool::new(false);

/// A CPU that has not begun by then never will.
const START_TIMEOUT_NS: u64 = 10_000_000_000;
const INIT_DELAY_NS: u64 = 10_000_000;
const STARTUP_DELAY_NS: u64 = 200_000;

unsafe extern "C" {
    static trampoline_start: u8;
    static trampoline_end: u8;
    static trampoline_root: u8;
    static trampoline_gdt: u8;
    static trampoline_gdt_address: u8;
    static trampoline_long: u8;
    static trampoline_target: u8;
}

/// Fills the [`LOW_FRAMES`] frames from `low` on with what a CPU begins with.
/// `root` is the kernel's top-level table.
///
/// # Safety
///
/// The frames are RAM below 1 MiB that no one else uses, now or later. Physical
/// memory is mapped at [`DIRECT_MAP`].
pub unsafe fn prepare(low: PhysAddr, root: PhysAddr) {
    const PRESENT_WRITABLE: u64 = 0b11;
    const LARGE: u64 = 1 << 7;
    let base = low.as_u64();
    let mapped = |addr: u64| (DIRECT_MAP + addr as usize) as *mut u8;
    let table = |number: u64| base + number * PAGE_SIZE as u64;
    let start = &raw const trampoline_start;
    let offset = |symbol: *const u8| symbol as usize - start as usize;
    let patch = |symbol: *const u8, value: u64| {
        // SAFETY: four bytes of the code that was copied there.
        unsafe { mapped(base).add(offset(symbol)).cast::<u32>().write_unaligned(value as u32) };
    };
    let address_of = |symbol: *const u8| base + offset(symbol) as u64;
    // SAFETY: the frames are this function's to write, the code fits into the
    // first of them, and the root is a table.
    unsafe {
        mapped(base).write_bytes(0, LOW_FRAMES * PAGE_SIZE);
        mapped(base).copy_from_nonoverlapping(start, offset(&raw const trampoline_end));
        // The kernel's half, and the first 2 MiB where they are.
        let half = PAGE_SIZE / 2;
        mapped(table(1)).add(half).copy_from_nonoverlapping(mapped(root.as_u64()).add(half), half);
        mapped(table(1)).cast::<u64>().write(table(2) | PRESENT_WRITABLE);
        mapped(table(2)).cast::<u64>().write(table(3) | PRESENT_WRITABLE);
        mapped(table(3)).cast::<u64>().write(PRESENT_WRITABLE | LARGE);
    }
    patch(&raw const trampoline_root, table(1));
    patch(&raw const trampoline_gdt_address, address_of(&raw const trampoline_gdt));
    patch(&raw const trampoline_target, address_of(&raw const trampoline_long));
    STARTING_ROOT.store(root.as_u64() as usize, Ordering::Relaxed);
    TRAMPOLINE.store((base / PAGE_SIZE as u64) as u8, Ordering::Relaxed);
}

/// Starts all CPUs of `ids` but the one that calls this. The clocks are right,
/// and interrupts enabled. A CPU that does not start is done without.
pub fn start(ids: &ApicIds) {
    let own = apic::id();
    for &id in ids.as_slice().iter().filter(|&&id| id != own && apic::is_reachable(id)).take(MAX_CPUS - 1) {
        match start_one(id) {
            Ok(true) => {}
            Ok(false) => {
                // It may still begin some time, so its stack is not another one's.
                error!("CPU with APIC {id} does not start");
                return;
            }
            Err(_) => {
                error!("no memory for another CPU");
                return;
            }
        }
    }
}

/// Says whether the CPU runs now.
fn start_one(apic_id: u32) -> Result<bool, Errno> {
    let page = TRAMPOLINE.load(Ordering::Relaxed);
    if page == 0 {
        return Ok(false);
    }
    let stack = KernelStack::new()?;
    let cpu = Box::try_new(Cpu::new(cpu::count())).map_err(|_| Errno::ENOMEM)?;
    STARTING.store(Box::into_raw(cpu), Ordering::Relaxed);
    STARTING_STACK.store(stack.top(), Ordering::Relaxed);
    // The CPU's for good.
    core::mem::forget(stack);
    STARTED.store(false, Ordering::SeqCst);
    apic::send_init(apic_id);
    wait(INIT_DELAY_NS);
    for _ in 0..2 {
        apic::send_startup(apic_id, page);
        if wait(STARTUP_DELAY_NS) {
            return Ok(true);
        }
    }
    Ok(wait(START_TIMEOUT_NS))
}

/// Waits until the CPU that is being started runs, or the time is over.
fn wait(ns: u64) -> bool {
    let end = time::monotonic_ns() + ns;
    while !STARTED.load(Ordering::Acquire) {
        if time::monotonic_ns() >= end {
            return false;
        }
        core::hint::spin_loop();
    }
    true
}

/// What a CPU does that has just been started, on its own stack.
extern "C" fn run_secondary() -> ! {
    paging::enable_protection();
    // SAFETY: `start_one` made it for this CPU, and leaves it alone. Interrupts
    // have not been enabled yet.
    let cpu = unsafe {
        let cpu = &*STARTING.load(Ordering::Relaxed);
        cpu::install(cpu);
        cpu
    };
    if paging::enable_pcids() {
        cpu.tlb().use_pcids();
    }
    trap::init();
    entry::init();
    fpu::init();
    apic::init_secondary();
    time::start_tick();
    STARTED.store(true, Ordering::Release);
    task::sched::run()
}

/// Makes all other CPUs halt for good, wherever they are; not waited for.
pub fn stop_others() {
    if cpu::count() == 1 || STOPPING.swap(true, Ordering::SeqCst) {
        return;
    }
    let this = cpu::current().id();
    for other in cpu::online().iter().filter(|&id| id != this).filter_map(cpu::get) {
        apic::send_nmi(other.apic_id());
    }
}

/// Makes another CPU say where it is, wherever that is: see
/// [`watchdog::answer`](crate::task::watchdog::answer).
pub fn ask_where(cpu: usize) {
    if let Some(other) = cpu::get(cpu) {
        apic::send_nmi(other.apic_id());
    }
}

/// A non-maskable interrupt has come: halts if that is what it is for.
pub(super) fn halt_if_stopping() {
    if STOPPING.load(Ordering::SeqCst) {
        halt_forever();
    }
}

/// Makes this CPU halt if another one stops the machine; else stops the others.
pub fn stop_others_or_halt() {
    static STOPPER: AtomicUsize = AtomicUsize::new(usize::MAX);
    irq::disable();
    if cpu::count() == 1 {
        return;
    }
    let this = cpu::current().id();
    match STOPPER.compare_exchange(usize::MAX, this, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => stop_others(),
        Err(stopper) if stopper == this => {}
        Err(_) => halt_forever(),
    }
}

// Real mode, straight to 64-bit mode. Addresses are relative to where the code
// was copied, which is where its segments begin.
global_asm!(
    ".pushsection .rodata, \"a\"",
    ".balign 16",
    ".code16",
    ".global trampoline_start",
    "trampoline_start:",
    "cli",
    "cld",
    "mov %cs, %ax",
    "mov %ax, %ds",
    // Physical-address extension.
    "mov $0x20, %eax",
    "mov %eax, %cr4",
    "movl trampoline_root - trampoline_start, %eax",
    "mov %eax, %cr3",
    // EFER: long mode, no-execute.
    "mov $0xc0000080, %ecx",
    "rdmsr",
    "or $0x900, %eax",
    "wrmsr",
    "lgdtl trampoline_gdt_limit - trampoline_start",
    // Paging, write protection, caches on, protected mode.
    "mov $0x80010011, %eax",
    "mov %eax, %cr0",
    "ljmpl *(trampoline_target - trampoline_start)",
    ".code64",
    ".global trampoline_long",
    "trampoline_long:",
    "jmp *trampoline_entry(%rip)",
    ".balign 8",
    "trampoline_entry:",
    ".quad secondary_entry",
    ".global trampoline_gdt",
    "trampoline_gdt:",
    ".quad 0, 0x00af9b000000ffff",
    "trampoline_gdt_limit:",
    ".word 15",
    ".global trampoline_gdt_address",
    "trampoline_gdt_address:",
    ".long 0",
    ".global trampoline_target",
    "trampoline_target:",
    ".long 0",
    ".word 8",
    ".global trampoline_root",
    "trampoline_root:",
    ".long 0",
    ".global trampoline_end",
    "trampoline_end:",
    ".popsection",
    "",
    "secondary_entry:",
    "mov {root}(%rip), %rax",
    "mov %rax, %cr3",
    "mov {stack}(%rip), %rsp",
    "xor %ebp, %ebp",
    "call {run}",
    "ud2",
    root = sym STARTING_ROOT,
    stack = sym STARTING_STACK,
    run = sym run_secondary,
    options(att_syntax)
);
