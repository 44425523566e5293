//! `siginfo_t`: why a signal was sent.

use super::Signal;

/// Bytes of a `siginfo_t` in user memory.
pub const SIGINFO_SIZE: usize = 128;

/// `si_code`: sent by `kill`.
pub const SI_USER: i32 = 0;
/// `si_code`: sent by the kernel itself.
pub const SI_KERNEL: i32 = 0x80;
/// `si_code`: sent by `tkill` or `tgkill`.
pub const SI_TKILL: i32 = -6;
/// `si_code` of `SIGSEGV`: nothing is mapped there.
pub const SEGV_MAPERR: i32 = 1;
/// `si_code` of `SIGSEGV`: mapped, but not for this access.
pub const SEGV_ACCERR: i32 = 2;
/// `si_code` of `SIGBUS`: misaligned.
pub const BUS_ADRALN: i32 = 1;
/// `si_code` of `SIGBUS`: mapped, but nothing is behind it.
pub const BUS_ADRERR: i32 = 2;
/// `si_code` of `SIGILL`.
pub const ILL_ILLOPN: i32 = 2;
/// `si_code` of `SIGFPE`: integer division by zero (or its overflow).
pub const FPE_INTDIV: i32 = 1;
/// `si_code` of `SIGFPE`: division by zero.
pub const FPE_FLTDIV: i32 = 3;
/// `si_code` of `SIGFPE`: overflow.
pub const FPE_FLTOVF: i32 = 4;
/// `si_code` of `SIGFPE`: underflow.
pub const FPE_FLTUND: i32 = 5;
/// `si_code` of `SIGFPE`: inexact result.
pub const FPE_FLTRES: i32 = 6;
/// `si_code` of `SIGFPE`: invalid operation.
pub const FPE_FLTINV: i32 = 7;
/// `si_code` of `SIGTRAP`: trace trap.
pub const TRAP_TRACE: i32 = 2;
/// `si_code` of `SIGCHLD`.
pub const CLD_EXITED: i32 = 1;
/// `si_code` of `SIGCHLD`.
pub const CLD_KILLED: i32 = 2;
/// `si_code` of `SIGCHLD`.
pub const CLD_DUMPED: i32 = 3;
/// `si_code` of `SIGCHLD`.
pub const CLD_STOPPED: i32 = 5;
/// `si_code` of `SIGCHLD`.
pub const CLD_CONTINUED: i32 = 6;

/// The part of a `siginfo_t` that carries something.
#[derive(Clone, Copy, Debug)]
pub struct SigInfo {
    /// `si_signo`.
    pub signal: Signal,
    /// `si_errno`; nothing here sets it, but a user may.
    pub errno: i32,
    /// `si_code`.
    pub code: i32,
    /// The union that starts at byte 16, as far as any member reaches.
    pub fields: [u64; 4],
}

impl SigInfo {
    /// Sent by the kernel, with nothing to tell.
    pub const fn kernel(signal: Signal) -> SigInfo {
        SigInfo { signal, errno: 0, code: SI_KERNEL, fields: [0; 4] }
    }

    /// Sent by a process, through the call that `code` names.
    pub const fn user(signal: Signal, code: i32, pid: u32) -> SigInfo {
        // si_pid, then si_uid (root).
        SigInfo { signal, errno: 0, code, fields: [pid as u64, 0, 0, 0] }
    }

    /// Caused by a fault; `address` becomes `si_addr`.
    pub const fn fault(signal: Signal, code: i32, address: usize) -> SigInfo {
        SigInfo { signal, errno: 0, code, fields: [address as u64, 0, 0, 0] }
    }

    /// A child's state has changed. `status` is its exit code or the signal;
    /// times are in clock ticks.
    pub const fn child(code: i32, pid: u32, status: i32, utime: u64, stime: u64) -> SigInfo {
        SigInfo { signal: Signal::SIGCHLD, errno: 0, code, fields: [pid as u64, status as u32 as u64, utime, stime] }
    }

    /// From the bytes a user passed to `rt_sigqueueinfo`; `signal` is the
    /// call's argument, which counts, not what the bytes say.
    pub fn from_bytes(signal: Signal, bytes: &[u8; SIGINFO_SIZE]) -> SigInfo {
        let int = |at: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&bytes[at..at + 4]);
            i32::from_le_bytes(word)
        };
        let mut fields = [0; 4];
        for (field, chunk) in fields.iter_mut().zip(bytes[16..48].chunks_exact(8)) {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            *field = u64::from_le_bytes(word);
        }
        SigInfo { signal, errno: int(4), code: int(8), fields }
    }

    /// As it stands in user memory.
    pub fn to_bytes(self) -> [u8; SIGINFO_SIZE] {
        let mut bytes = [0; SIGINFO_SIZE];
        bytes[0..4].copy_from_slice(&self.signal.number().to_le_bytes());
        bytes[4..8].copy_from_slice(&self.errno.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.code.to_le_bytes());
        for (chunk, field) in bytes[16..48].chunks_exact_mut(8).zip(self.fields) {
            chunk.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }
}
