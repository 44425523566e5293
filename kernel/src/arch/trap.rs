//! Exceptions and interrupts.

use bitflags::bitflags;

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
