//! The way into the kernel and back: system calls, traps, new threads.
//!
//! Each entry saves the program's registers as a [`TrapFrame`] on the thread's
//! kernel stack and calls Rust. Interrupts are disabled around the border and
//! enabled within; `GS` is swapped exactly when the CPU came from, or goes to,
//! user mode.
//!
//! A system call that leaves nothing to do ([`cpu::set_return_work`]) goes back
//! by `sysret`, with the callee-saved registers as Rust left them, and the rest
//! from the frame. All other returns go through [`prepare_return`] and `iret`,
//! which restores the frame as a whole: so whoever changes more of a frame than
//! its `rax` sets return work.

use core::arch::global_asm;
use core::mem::{offset_of, size_of};
use core::sync::atomic::Ordering;

use mm::TASK_SIZE;
use x86_64::VirtAddr;
use x86_64::registers::model_specific::{Efer, EferFlags, LStar, Msr, SFMask};
use x86_64::registers::rflags::RFlags;

use super::cpu::{self, Cpu};
use super::trap::{self, RFLAGS_INTERRUPT, RFLAGS_USER_CHANGEABLE, TrapFrame, USER_CODE_SELECTOR, USER_DATA_SELECTOR};
use super::{gdt, irq};
use crate::{syscall, task};

unsafe extern "C" {
    fn syscall_entry();
    /// Where a new program thread starts: on its kernel stack, below a trap frame.
    pub(super) fn user_thread_start();
    /// Stub of vector 0; the others follow, [`STUB_SIZE`] bytes each.
    static trap_stubs: u8;
}

/// Vectors that have a stub.
pub(super) const VECTORS: usize = 64;
const STUB_SIZE: usize = 16;

/// Address of the stub for `vector`, which is below [`VECTORS`].
pub(super) fn stub(vector: usize) -> usize {
    &raw const trap_stubs as usize + vector * STUB_SIZE
}

/// Lets programs execute `syscall`, on this CPU.
pub(super) fn init() {
    const MSR_STAR: u32 = 0xc000_0081;
    let star = u64::from(gdt::SYSRET_SELECTOR) << 48 | u64::from(gdt::KERNEL_CODE_SELECTOR) << 32;
    LStar::write(VirtAddr::from_ptr(syscall_entry as *const ()));
    SFMask::write(
        RFlags::INTERRUPT_FLAG
            | RFlags::TRAP_FLAG
            | RFlags::DIRECTION_FLAG
            | RFlags::ALIGNMENT_CHECK
            | RFlags::NESTED_TASK
            | RFlags::IOPL_LOW
            | RFlags::IOPL_HIGH,
    );
    // SAFETY: the entry point and the segments are in place.
    unsafe {
        Msr::new(MSR_STAR).write(star);
        Efer::update(|flags| flags.insert(EferFlags::SYSTEM_CALL_EXTENSIONS));
    }
}

/// Does what is left to do before a return to user mode. Called and returns
/// with interrupts disabled.
extern "C" fn prepare_return(frame: &mut TrapFrame) {
    let work = || cpu::current().return_work.swap(false, Ordering::Acquire);
    while work() {
        irq::enable();
        task::return_to_user(frame);
        irq::disable();
    }
    // What a signal frame brought back is whatever the program wrote there;
    // `iret` must not fault in the kernel, nor give the program a privilege.
    frame.cs = u64::from(USER_CODE_SELECTOR);
    frame.ss = u64::from(USER_DATA_SELECTOR);
    frame.rflags = frame.rflags & RFLAGS_USER_CHANGEABLE | RFLAGS_INTERRUPT;
    // The page at the end of user space is never mapped.
    frame.rip = frame.rip.min(TASK_SIZE as u64);
}

extern "C" fn start_user_thread() {
    task::finish_switch();
    irq::disable();
    cpu::set_return_work();
}

global_asm!(
    ".global syscall_entry",
    "syscall_entry:",
    "swapgs",
    "mov gs:[{user_rsp}], rsp",
    "mov rsp, gs:[{syscall_stack}]",
    "push {user_data}",
    "push qword ptr gs:[{user_rsp}]",
    "push r11",
    "push {user_code}",
    "push rcx",
    "push rax",
    "push rdi",
    "push rsi",
    "push rdx",
    "push rcx",
    "push rax",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov rdi, rsp",
    "sti",
    // As on Linux, the upper half of rax does not matter.
    "mov eax, eax",
    "cmp eax, {syscall_limit}",
    "jae 8f",
    "call qword ptr [{syscall_table} + rax * 8]",
    "7:",
    "mov [rsp + {rax}], rax",
    "cli",
    "cmp byte ptr gs:[{return_work}], 0",
    "jne return_slow",
    // The callee-saved registers still have the program's values. rcx and r11
    // get the program's rip and rflags back, which is what sysret takes them for.
    "add rsp, 6 * 8",
    "pop r11",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rax",
    "pop rcx",
    "pop rdx",
    "pop rsi",
    "pop rdi",
    // Above orig_rax, rip, cs and rflags.
    "mov rsp, [rsp + 4 * 8]",
    "swapgs",
    "sysretq",
    "8:",
    "call {syscall_other}",
    "jmp 7b",
    "",
    ".global user_thread_start",
    "user_thread_start:",
    "call {start_user_thread}",
    // Fall through, with rsp at the trap frame and interrupts disabled.
    "return_slow:",
    "mov rdi, rsp",
    "mov rbx, rsp",
    "and rsp, -16",
    "call {prepare_return}",
    "mov rsp, rbx",
    "return_fast:",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "pop r11",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rax",
    "pop rcx",
    "pop rdx",
    "pop rsi",
    "pop rdi",
    "add rsp, 8",
    "swapgs",
    "iretq",
    "",
    // On the stack: rdi, error code, rip, cs, rflags, rsp, ss. In edi: vector.
    ".global trap_common",
    "trap_common:",
    "test byte ptr [rsp + 3 * 8], 3",
    "jz 2f",
    "swapgs",
    "2:",
    "cld",
    "push rsi",
    "push rdx",
    "push rcx",
    "push rax",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov esi, edi",
    "trap_saved:",
    "mov rdi, rsp",
    "mov rbx, rsp",
    "and rsp, -16",
    "call {handle_trap}",
    "mov rsp, rbx",
    "test byte ptr [rsp + {cs}], 3",
    "jz 3f",
    "cmp byte ptr gs:[{return_work}], 0",
    "jne return_slow",
    "jmp return_fast",
    "3:",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "pop r11",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rax",
    "pop rcx",
    "pop rdx",
    "pop rsi",
    "pop rdi",
    "add rsp, 8",
    "iretq",
    "",
    // As trap_common, but on an interrupt stack, and possibly between a kernel
    // entry or exit and its swapgs.
    ".global trap_own_stack",
    "trap_own_stack:",
    "cld",
    "push rsi",
    "push rdx",
    "push rcx",
    "push rax",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov esi, edi",
    "test byte ptr [rsp + {cs}], 3",
    "jz 4f",
    // From user mode: move the frame to the thread's stack, where the handler
    // may sleep, and go on as any other trap.
    "swapgs",
    "mov rax, rsp",
    "mov rsp, gs:[{syscall_stack}]",
    "mov ecx, {frame_words}",
    "5:",
    "push qword ptr [rax + rcx * 8 - 8]",
    "dec ecx",
    "jnz 5b",
    "jmp trap_saved",
    // From the kernel: its GS base is negative, a program's is not.
    "4:",
    "mov ecx, {gs_base}",
    "rdmsr",
    "xor r12d, r12d",
    "test edx, edx",
    "js 6f",
    "swapgs",
    "inc r12d",
    "6:",
    "mov rdi, rsp",
    "mov rbx, rsp",
    "and rsp, -16",
    "call {handle_trap}",
    "mov rsp, rbx",
    "test r12d, r12d",
    "jz 3b",
    "swapgs",
    "jmp 3b",
    user_rsp = const offset_of!(Cpu, user_rsp),
    syscall_stack = const offset_of!(Cpu, syscall_stack),
    return_work = const offset_of!(Cpu, return_work),
    user_data = const USER_DATA_SELECTOR,
    user_code = const USER_CODE_SELECTOR,
    cs = const offset_of!(TrapFrame, cs),
    frame_words = const size_of::<TrapFrame>() / 8,
    gs_base = const cpu::MSR_GS_BASE,
    syscall_limit = const syscall::NUMBER_LIMIT,
    syscall_table = sym syscall::TABLE,
    syscall_other = sym syscall::other,
    rax = const offset_of!(TrapFrame, rax),
    start_user_thread = sym start_user_thread,
    prepare_return = sym prepare_return,
    handle_trap = sym trap::handle_trap,
);

// One stub per vector. Where the CPU pushes no error code, the stub pushes 0;
// the code's place becomes the frame's orig_rax. NMI, #DB, #DF and #MC come in
// on a stack of their own.
global_asm!(
    ".balign {size}",
    ".global trap_stubs",
    "trap_stubs:",
    ".set vector, 0",
    ".rept {vectors}",
    ".balign {size}",
    ".if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)",
    "pushq $0",
    ".endif",
    "pushq %rdi",
    "movl $vector, %edi",
    ".if vector == 1 || vector == 2 || vector == 8 || vector == 18",
    "jmp trap_own_stack",
    ".else",
    "jmp trap_common",
    ".endif",
    ".set vector, vector + 1",
    ".endr",
    size = const STUB_SIZE,
    vectors = const VECTORS,
    options(att_syntax)
);
