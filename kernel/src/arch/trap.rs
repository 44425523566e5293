//! Exceptions and interrupts.

use core::mem::size_of_val;

use bitflags::bitflags;
use mm::TASK_SIZE;
use x86_64::VirtAddr;
use x86_64::instructions::tables::lidt;
use x86_64::registers::control::Cr2;
use x86_64::registers::rflags::RFlags;
use x86_64::structures::DescriptorTablePointer;

use super::entry::{self, VECTORS};
use super::gdt::{self, InterruptStack};
use super::{apic, irq, pic, shootdown, smp, usercopy};
use crate::drivers::{console, serial};
use crate::{error, task};

/// The registers of an interrupted program, as Linux's `struct pt_regs` has them.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct TrapFrame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    /// Result of a system call.
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    /// Number of the system call, or `-1` when this is not one.
    pub orig_rax: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

impl TrapFrame {
    /// Whether the interrupted code is a program's, not the kernel's.
    pub fn is_user(&self) -> bool {
        self.cs & 3 != 0
    }

    /// The six arguments of a system call.
    pub fn syscall_args(&self) -> [u64; 6] {
        [self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9]
    }

    /// The registers a program starts with: all zero but `rip` and `rsp`.
    pub fn for_program(rip: u64, rsp: u64) -> TrapFrame {
        TrapFrame {
            orig_rax: NOT_A_SYSCALL,
            rip,
            cs: u64::from(USER_CODE_SELECTOR),
            rflags: RFLAGS_INTERRUPT,
            rsp,
            ss: u64::from(USER_DATA_SELECTOR),
            ..TrapFrame::default()
        }
    }
}

/// [`TrapFrame::orig_rax`] of a frame that no system call made.
pub const NOT_A_SYSCALL: u64 = u64::MAX;

/// Code segment of programs, the number Linux uses.
pub const USER_CODE_SELECTOR: u16 = 0x33;
/// Data segment of programs, the number Linux uses.
pub const USER_DATA_SELECTOR: u16 = 0x2b;

/// Interrupts enabled, and the bit that is always set.
pub const RFLAGS_INTERRUPT: u64 = 0x202;
/// What `sigreturn` may change in `rflags` (Linux's `FIX_EFLAGS`): arithmetic
/// flags, trap, direction, overflow, alignment check, resume.
pub const RFLAGS_USER_CHANGEABLE: u64 = 0x50dd5;

bitflags! {
    /// Error code of a page fault.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct PageFaultCode: u64 {
        /// The translation was there and forbade the access.
        const PRESENT = 1 << 0;
        /// The access was a write.
        const WRITE = 1 << 1;
        /// The access was a program's own.
        const USER = 1 << 2;
        /// A reserved bit was set in a page-table entry.
        const RESERVED = 1 << 3;
        /// The access was an instruction fetch.
        const FETCH = 1 << 4;
        /// Protection keys forbade the access.
        const PROTECTION_KEY = 1 << 5;
    }
}

/// First vector of the interrupt controller's sixteen lines.
pub const FIRST_IRQ_VECTOR: u8 = 0x20;
/// The local APIC's timer.
pub const TIMER_VECTOR: u8 = 0x30;
/// Another CPU has set this one's return work, or given it a thread while it was idle.
pub const RESCHEDULE_VECTOR: u8 = 0x31;
/// Another CPU wants a TLB flush.
pub const SHOOTDOWN_VECTOR: u8 = 0x32;
/// What the local APIC delivers when an interrupt went away meanwhile.
pub const SPURIOUS_VECTOR: u8 = 0x3f;

const BREAKPOINT: u8 = 3;
const OVERFLOW: u8 = 4;
const NON_MASKABLE: u8 = 2;
const DEBUG: u8 = 1;
const DOUBLE_FAULT: u8 = 8;
const PAGE_FAULT: u8 = 14;
const MACHINE_CHECK: u8 = 18;
const LAST_EXCEPTION: u8 = 31;

/// One gate of the interrupt descriptor table.
#[derive(Clone, Copy)]
#[repr(C)]
struct Gate {
    low: u64,
    high: u64,
}

/// The interrupt descriptor table, the same for all CPUs.
static IDT: spin::Once<[Gate; VECTORS]> = spin::Once::new();

fn gate(vector: usize) -> Gate {
    const PRESENT_INTERRUPT_GATE: u64 = 0x8e << 40;
    const FROM_USER_MODE: u64 = 3 << 45;
    let address = entry::stub(vector) as u64;
    let stack = match vector as u8 {
        DOUBLE_FAULT => InterruptStack::DoubleFault as u64,
        NON_MASKABLE => InterruptStack::NonMaskable as u64,
        MACHINE_CHECK => InterruptStack::MachineCheck as u64,
        DEBUG => InterruptStack::Debug as u64,
        _ => 0,
    };
    // `int3` and `into` are a program's to execute.
    let access = if matches!(vector as u8, BREAKPOINT | OVERFLOW) { FROM_USER_MODE } else { 0 };
    Gate {
        low: address & 0xffff
            | u64::from(gdt::KERNEL_CODE_SELECTOR) << 16
            | stack << 32
            | PRESENT_INTERRUPT_GATE
            | access
            | (address >> 16 & 0xffff) << 48,
        high: address >> 32,
    }
}

/// Makes exceptions and interrupts of this CPU arrive here.
pub(super) fn init() {
    let idt = IDT.call_once(|| core::array::from_fn(gate));
    let pointer =
        DescriptorTablePointer { limit: (size_of_val(idt) - 1) as u16, base: VirtAddr::from_ptr(idt.as_ptr()) };
    // SAFETY: the table lives for `'static`, and each gate leads to a stub.
    unsafe { lidt(&pointer) };
}

/// What all stubs lead to. Called and returns with interrupts disabled.
pub(super) extern "C" fn handle_trap(frame: &mut TrapFrame, vector: u32) {
    usercopy::lock();
    let vector = vector as u8;
    let code = core::mem::replace(&mut frame.orig_rax, NOT_A_SYSCALL);
    if vector == PAGE_FAULT {
        handle_page_fault(frame, code);
    } else if vector > LAST_EXCEPTION {
        handle_interrupt(vector, frame.is_user());
    } else if vector == NON_MASKABLE {
        smp::halt_if_stopping();
        task::watchdog::answer(frame);
        error!("non-maskable interrupt at {:#x}", frame.rip);
    } else if vector == DOUBLE_FAULT || vector == MACHINE_CHECK {
        fatal(frame, vector, code);
    } else if frame.is_user() {
        irq::enable();
        task::user_exception(frame, vector, code);
        irq::disable();
    } else {
        fatal(frame, vector, code);
    }
}

fn handle_page_fault(frame: &mut TrapFrame, code: u64) {
    let addr = Cr2::read_raw() as usize;
    let access = PageFaultCode::from_bits_truncate(code);
    if frame.is_user() {
        irq::enable();
        task::page_fault(frame, addr, access);
        irq::disable();
        return;
    }
    let Some(fixup) = usercopy::fixup(frame.rip) else {
        fatal(frame, PAGE_FAULT, code);
    };
    let may_interrupt = frame.rflags & RFlags::INTERRUPT_FLAG.bits() != 0;
    if may_interrupt {
        irq::enable();
    }
    if addr >= TASK_SIZE || !task::kernel_page_fault(addr, access) {
        frame.rip = fixup;
    }
    irq::disable();
}

/// Apart from [`handle_trap`], so that page faults need not save what this uses.
#[inline(never)]
fn handle_interrupt(vector: u8, from_user: bool) {
    match vector {
        TIMER_VECTOR => {
            apic::end_of_interrupt();
            task::tick(from_user);
        }
        // That it has come is enough: what it is for is looked at on the way out.
        RESCHEDULE_VECTOR => apic::end_of_interrupt(),
        SHOOTDOWN_VECTOR => {
            // The other CPU waits.
            shootdown::poll();
            apic::end_of_interrupt();
        }
        SPURIOUS_VECTOR => {}
        _ => {
            let line = vector - FIRST_IRQ_VECTOR;
            if pic::begin(line) {
                if line == serial::CONSOLE_IRQ {
                    console::on_interrupt();
                }
                pic::end_of_interrupt(line);
            }
        }
    }
}

/// An exception that the kernel itself must not raise.
fn fatal(frame: &TrapFrame, vector: u8, code: u64) -> ! {
    let name = match vector {
        0 => "divide error",
        DEBUG => "debug exception",
        BREAKPOINT => "breakpoint",
        6 => "invalid opcode",
        DOUBLE_FAULT => "double fault",
        12 => "stack fault",
        13 => "general protection fault",
        PAGE_FAULT => "page fault",
        MACHINE_CHECK => "machine check",
        _ => "exception",
    };
    panic!("{name} (vector {vector}, code {code:#x}, address {:#x}) in the kernel: {frame:#x?}", Cr2::read_raw());
}
