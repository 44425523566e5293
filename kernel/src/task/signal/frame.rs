//! The frame that a signal handler finds on its stack: `struct rt_sigframe` of
//! the x86-64 ABI, and the way back from there.
//!
//! ```text
//!     higher addresses   FPU state (XSAVE image), 64-byte aligned
//!                        siginfo_t
//!                        ucontext: stack, registers, mask
//!     rsp of the handler return address (the restorer)
//! ```

use mm::{Errno, TASK_SIZE};

use super::action::{Action, SA_ONSTACK, SA_RESTORER};
use super::info::SIGINFO_SIZE;
use super::{SigInfo, SigSet, send};
use crate::arch::trap::{NOT_A_SYSCALL, RFLAGS_USER_CHANGEABLE, USER_CODE_SELECTOR, USER_DATA_SELECTOR};
use crate::arch::usercopy::{Plain, read_user, write_user};
use crate::arch::{TrapFrame, cpu, fpu};
use crate::task::thread::{AltStack, Thread, current};

/// Bytes below `rsp` that belong to the interrupted function.
const RED_ZONE: usize = 128;
/// Least size of an alternate stack (`MINSIGSTKSZ`).
const MINIMUM_STACK: usize = 2048;
/// `SS_ONSTACK`: the thread is on the alternate stack.
const SS_ONSTACK: u32 = 1;
/// `SS_DISABLE`: there is no alternate stack.
const SS_DISABLE: u32 = 2;
/// `SS_AUTODISARM`: the alternate stack goes away while a handler uses it.
const SS_AUTODISARM: u32 = 1 << 31;
/// Direction, trap and resume flags, which a handler starts without.
const RFLAGS_CLEARED: u64 = 0x400 | 0x100 | 0x1_0000;
/// `UC_FP_XSTATE`: the FPU state is an extended one.
const UC_FP_XSTATE: u64 = 1;
/// `UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS`: the frame has `ss`, and it counts.
const UC_SS: u64 = 2 | 4;

/// `struct sigcontext`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Registers {
    r8: u64,
    r9: u64,
    r10: u64,
    r11: u64,
    r12: u64,
    r13: u64,
    r14: u64,
    r15: u64,
    rdi: u64,
    rsi: u64,
    rbp: u64,
    rbx: u64,
    rdx: u64,
    rax: u64,
    rcx: u64,
    rsp: u64,
    rip: u64,
    rflags: u64,
    /// `cs`, `gs`, `fs`, `ss`, 16 bits each.
    segments: u64,
    error_code: u64,
    trap: u64,
    old_mask: u64,
    cr2: u64,
    fpu_state: u64,
    reserved: [u64; 8],
}

/// `stack_t`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct StackSetting {
    base: u64,
    /// 32 bits, then padding.
    flags: u64,
    size: u64,
}

// SAFETY: integers of one size only, hence no padding.
unsafe impl Plain for StackSetting {}

/// `struct ucontext`.
#[derive(Clone, Copy)]
#[repr(C)]
struct UserContext {
    flags: u64,
    link: u64,
    stack: StackSetting,
    registers: Registers,
    mask: u64,
}

// SAFETY: integers of one size only, hence no padding.
unsafe impl Plain for UserContext {}

/// `struct rt_sigframe`.
#[derive(Clone, Copy)]
#[repr(C)]
struct SignalFrame {
    return_address: u64,
    context: UserContext,
    info: [u64; SIGINFO_SIZE / 8],
}

// SAFETY: integers of one size only, hence no padding.
unsafe impl Plain for SignalFrame {}

const _: () = assert!(size_of::<UserContext>() == 304 && size_of::<SignalFrame>() == 440);

/// Whether `sp` is on the alternate stack.
fn is_on(stack: AltStack, sp: usize) -> bool {
    stack.flags & SS_AUTODISARM == 0 && sp > stack.base && sp.wrapping_sub(stack.base) <= stack.size
}

/// Puts a frame for `info` on the program's stack (or its alternate one), and
/// makes `frame` that of the handler's first instruction.
///
/// # Errors
/// `EFAULT`: the stack has no room, or the action has no restorer or an
/// impossible handler. `frame` is unchanged.
pub fn push(frame: &mut TrapFrame, info: SigInfo, action: &Action, old_mask: SigSet) -> Result<(), Errno> {
    if action.flags & SA_RESTORER == 0 || action.handler as usize >= TASK_SIZE {
        return Err(Errno::EFAULT);
    }
    let thread = current();
    let alt = *thread.alt_stack.lock();
    let mut sp = (frame.rsp as usize).wrapping_sub(RED_ZONE);
    let mut bounded = is_on(alt, frame.rsp as usize);
    if action.flags & SA_ONSTACK != 0 && alt.size != 0 && !bounded {
        sp = alt.base.wrapping_add(alt.size);
        bounded = true;
    }
    let fpu_at = sp.wrapping_sub(fpu::signal_frame_size()) & !63;
    let at = (fpu_at.wrapping_sub(size_of::<SignalFrame>()) & !15).wrapping_sub(8);
    if bounded && !(at > alt.base && at - alt.base <= alt.size) {
        return Err(Errno::EFAULT);
    }

    fpu::write_signal_frame(fpu_at)?;
    let user = SignalFrame {
        return_address: action.restorer,
        context: UserContext {
            flags: UC_SS | if fpu::features() != 0 { UC_FP_XSTATE } else { 0 },
            link: 0,
            stack: StackSetting {
                base: alt.base as u64,
                flags: u64::from(if alt.size == 0 { SS_DISABLE } else { alt.flags }),
                size: alt.size as u64,
            },
            registers: save(frame, &thread, old_mask, fpu_at),
            mask: old_mask.0,
        },
        info: info_words(info),
    };
    write_user(at, user)?;
    if alt.flags & SS_AUTODISARM != 0 {
        *thread.alt_stack.lock() = AltStack::default();
    }

    let context_at = at + core::mem::offset_of!(SignalFrame, context);
    let info_at = at + core::mem::offset_of!(SignalFrame, info);
    frame.rdi = u64::from(info.signal.number());
    frame.rsi = info_at as u64;
    frame.rdx = context_at as u64;
    frame.rax = 0;
    frame.rip = action.handler;
    frame.rsp = at as u64;
    frame.cs = u64::from(USER_CODE_SELECTOR);
    frame.ss = u64::from(USER_DATA_SELECTOR);
    frame.rflags &= !RFLAGS_CLEARED;
    Ok(())
}

fn info_words(info: SigInfo) -> [u64; SIGINFO_SIZE / 8] {
    let mut words = [0; SIGINFO_SIZE / 8];
    for (word, bytes) in words.iter_mut().zip(info.to_bytes().chunks_exact(8)) {
        let mut eight = [0; 8];
        eight.copy_from_slice(bytes);
        *word = u64::from_le_bytes(eight);
    }
    words
}

fn save(frame: &TrapFrame, thread: &Thread, mask: SigSet, fpu_at: usize) -> Registers {
    let trap = *thread.trap.lock();
    Registers {
        r8: frame.r8,
        r9: frame.r9,
        r10: frame.r10,
        r11: frame.r11,
        r12: frame.r12,
        r13: frame.r13,
        r14: frame.r14,
        r15: frame.r15,
        rdi: frame.rdi,
        rsi: frame.rsi,
        rbp: frame.rbp,
        rbx: frame.rbx,
        rdx: frame.rdx,
        rax: frame.rax,
        rcx: frame.rcx,
        rsp: frame.rsp,
        rip: frame.rip,
        rflags: frame.rflags,
        segments: frame.cs & 0xffff | (frame.ss & 0xffff) << 48,
        error_code: trap.error_code,
        trap: trap.vector,
        old_mask: mask.0,
        cr2: trap.address,
        fpu_state: fpu_at as u64,
        reserved: [0; 8],
    }
}

/// `rt_sigreturn`: makes the program go on where the frame below its stack
/// pointer says. A frame that makes no sense ends in `SIGSEGV`.
pub fn pop(frame: &mut TrapFrame) {
    // All registers change, not just the result.
    cpu::set_return_work();
    if restore(frame).is_err() {
        frame.orig_rax = NOT_A_SYSCALL;
        send::force(SigInfo::kernel(super::Signal::SIGSEGV));
    }
}

fn restore(frame: &mut TrapFrame) -> Result<(), Errno> {
    // The handler's `ret` has taken the return address off.
    let at = (frame.rsp as usize).wrapping_sub(size_of::<u64>());
    let context_at = at.wrapping_add(core::mem::offset_of!(SignalFrame, context));
    let context: UserContext = read_user(context_at)?;
    let from = &context.registers;
    if from.rip as usize >= TASK_SIZE {
        return Err(Errno::EFAULT);
    }
    send::set_blocked(SigSet(context.mask));
    fpu::read_signal_frame(from.fpu_state as usize)?;
    *frame = TrapFrame {
        r15: from.r15,
        r14: from.r14,
        r13: from.r13,
        r12: from.r12,
        rbp: from.rbp,
        rbx: from.rbx,
        r11: from.r11,
        r10: from.r10,
        r9: from.r9,
        r8: from.r8,
        rax: from.rax,
        rcx: from.rcx,
        rdx: from.rdx,
        rsi: from.rsi,
        rdi: from.rdi,
        orig_rax: NOT_A_SYSCALL,
        rip: from.rip,
        cs: u64::from(USER_CODE_SELECTOR),
        rflags: frame.rflags & !RFLAGS_USER_CHANGEABLE | from.rflags & RFLAGS_USER_CHANGEABLE,
        rsp: from.rsp,
        ss: u64::from(USER_DATA_SELECTOR),
    };
    // As on Linux, an impossible stack setting in the frame is passed over.
    let _ = set_alt_stack(context.stack, frame.rsp as usize);
    Ok(())
}

/// `sigaltstack`: the current setting, as the program sees it from `sp`.
pub fn alt_stack(sp: usize) -> StackSetting {
    let stack = *current().alt_stack.lock();
    let on = if stack.size == 0 {
        SS_DISABLE
    } else if is_on(stack, sp) {
        SS_ONSTACK
    } else {
        0
    };
    StackSetting {
        base: stack.base as u64,
        flags: u64::from(on | stack.flags & SS_AUTODISARM),
        size: stack.size as u64,
    }
}

/// `sigaltstack`: a new setting, asked for with the stack pointer at `sp`.
///
/// # Errors
/// `EPERM`: the alternate stack is in use. `EINVAL`: unknown flags. `ENOMEM`:
/// too small.
pub fn set_alt_stack(setting: StackSetting, sp: usize) -> Result<(), Errno> {
    let thread = current();
    let mut stack = thread.alt_stack.lock();
    if stack.size != 0 && is_on(*stack, sp) {
        return Err(Errno::EPERM);
    }
    let flags = setting.flags as u32;
    let mode = flags & !SS_AUTODISARM;
    if mode > SS_DISABLE {
        return Err(Errno::EINVAL);
    }
    *stack = if mode == SS_DISABLE {
        AltStack { base: 0, size: 0, flags: flags & SS_AUTODISARM }
    } else {
        let size = setting.size as usize;
        if size < MINIMUM_STACK {
            return Err(Errno::ENOMEM);
        }
        AltStack { base: setting.base as usize, size, flags: flags & SS_AUTODISARM }
    };
    Ok(())
}

/// Bytes of stack that delivering a signal takes at most (`AT_MINSIGSTKSZ`).
pub fn size() -> usize {
    const ALIGNMENTS: usize = 64 + 16;
    size_of::<SignalFrame>() + fpu::signal_frame_size() + RED_ZONE + ALIGNMENTS
}
