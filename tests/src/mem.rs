//! Loads, stores and jumps that report a fault instead of dying of it.
//!
//! Each access is one known instruction; the signal handler recognises it by its
//! address, notes what the kernel says about the fault, and resumes behind it.

use std::fmt;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::Relaxed};

use crate::sys::PAGE;

/// What the kernel said about a fault.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub signal: i32,
    /// `si_code`.
    pub code: i32,
    /// `si_addr`.
    pub addr: usize,
}

impl Fault {
    /// Nothing is mapped at `addr`.
    pub fn unmapped(addr: usize) -> Fault {
        Fault { signal: libc::SIGSEGV, code: SEGV_MAPERR, addr }
    }

    /// The mapping at `addr` does not allow the access.
    pub fn denied(addr: usize) -> Fault {
        Fault { signal: libc::SIGSEGV, code: SEGV_ACCERR, addr }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.signal, self.code) {
            (libc::SIGSEGV, SEGV_MAPERR) => write!(f, "SEGV_MAPERR at {:#x}", self.addr),
            (libc::SIGSEGV, SEGV_ACCERR) => write!(f, "SEGV_ACCERR at {:#x}", self.addr),
            (signal, code) => write!(f, "signal {signal} code {code} at {:#x}", self.addr),
        }
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Fault {}

pub const SEGV_MAPERR: i32 = 1;
pub const SEGV_ACCERR: i32 = 2;

std::arch::global_asm!(
    ".globl mem_read_at, mem_write_at, mem_load_at, mem_store_at, mem_jump_to, mem_faulted",
    "mem_read_at: movzx eax, byte ptr [rdi]",
    "ret",
    "mem_write_at: mov byte ptr [rdi], sil",
    "xor eax, eax",
    "ret",
    "mem_load_at: mov rdi, qword ptr [rdi]",
    "mov qword ptr [rsi], rdi",
    "xor eax, eax",
    "ret",
    "mem_store_at: mov qword ptr [rdi], rsi",
    "xor eax, eax",
    "ret",
    "mem_jump_to: call rdi",
    "xor eax, eax",
    "ret",
    "mem_faulted: mov eax, -1",
    "ret",
);

unsafe extern "C" {
    fn mem_read_at(addr: usize) -> i32;
    fn mem_write_at(addr: usize, value: u8) -> i32;
    fn mem_load_at(addr: usize, to: *mut u64) -> i32;
    fn mem_store_at(addr: usize, value: u64) -> i32;
    fn mem_jump_to(addr: usize) -> i32;
    fn mem_faulted();
}

static SIGNAL: AtomicI32 = AtomicI32::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);
static ADDR: AtomicUsize = AtomicUsize::new(0);

extern "C" fn handler(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes valid pointers to a handler installed with SA_SIGINFO.
    let (info, context) = unsafe { (&*info, &mut *context.cast::<libc::ucontext_t>()) };
    let registers = &mut context.uc_mcontext.gregs;
    let rip = registers[libc::REG_RIP as usize] as usize;
    // SAFETY: for a fault signal the kernel has filled in the address.
    let addr = unsafe { info.si_addr() } as usize;

    let accesses =
        [mem_read_at as *const (), mem_write_at as *const (), mem_load_at as *const (), mem_store_at as *const ()];
    if accesses.iter().any(|&access| rip == access as usize) {
        registers[libc::REG_RIP as usize] = mem_faulted as *const () as i64;
    } else if rip == registers[libc::REG_RDI as usize] as usize {
        // `mem_jump_to` got there by a call: its return address is on the stack.
        registers[libc::REG_RSP as usize] += 8;
        registers[libc::REG_RIP as usize] = mem_faulted as *const () as i64;
    } else {
        // Not one of ours: let it happen again, and be fatal.
        // SAFETY: restores the default action of a valid signal.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        return;
    }
    SIGNAL.store(signal, Relaxed);
    CODE.store(info.si_code, Relaxed);
    ADDR.store(addr, Relaxed);
}

/// Installs the handler; to be called once, before anything else here.
pub fn catch_faults() {
    for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL] {
        // SAFETY: the action is fully initialised, and the handler has the
        // signature that SA_SIGINFO asks for.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_ONSTACK;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

fn outcome(result: i32) -> Result<i32, Fault> {
    if result >= 0 {
        return Ok(result);
    }
    Err(Fault { signal: SIGNAL.load(Relaxed), code: CODE.load(Relaxed), addr: ADDR.load(Relaxed) })
}

/// Loads a byte.
pub fn read(addr: usize) -> Result<u8, Fault> {
    // SAFETY: the load either succeeds, or the handler resumes behind it.
    outcome(unsafe { mem_read_at(addr) }).map(|byte| byte as u8)
}

/// Stores a byte. Only to memory that no Rust object lives in.
pub fn write(addr: usize, value: u8) -> Result<(), Fault> {
    // SAFETY: as above; the callers keep to memory of their own mappings.
    outcome(unsafe { mem_write_at(addr, value) }).map(drop)
}

/// Loads eight bytes, at once if they are aligned; `None`: that faults. Unlike the
/// other accesses it says nothing of the fault, so that threads may do it.
pub fn load(addr: usize) -> Option<u64> {
    let mut value = 0;
    // SAFETY: as for `read`; the value goes to a local variable.
    let result = unsafe { mem_load_at(addr, &raw mut value) };
    (result == 0).then_some(value)
}

/// Stores eight bytes likewise, and says whether that does not fault.
pub fn store(addr: usize, value: u64) -> bool {
    // SAFETY: as for `write`.
    unsafe { mem_store_at(addr, value) == 0 }
}

/// Calls a function without arguments at `addr`, which may be anywhere.
pub fn execute(addr: usize) -> Result<(), Fault> {
    // SAFETY: the callers put a plain `ret` there, or nothing that can be executed.
    outcome(unsafe { mem_jump_to(addr) }).map(drop)
}

/// The byte that [`fill`] puts into a page.
fn mark(seed: usize, page: usize) -> u8 {
    // Never 0, so that a page that lost its contents is told from one that has them.
    ((seed * 31 + page * 7) % 251 + 1) as u8
}

/// Marks the first and the last byte of each page.
pub fn fill(addr: usize, pages: usize, seed: usize) -> Result<(), Fault> {
    for page in 0..pages {
        write(addr + page * PAGE, mark(seed, page))?;
        write(addr + page * PAGE + PAGE - 1, mark(seed, page))?;
    }
    Ok(())
}

/// Whether pages hold what [`fill`] put into pages `first..first + pages` of its range.
pub fn holds(addr: usize, first: usize, pages: usize, seed: usize) -> Result<bool, Fault> {
    for page in 0..pages {
        let expected = mark(seed, first + page);
        if read(addr + page * PAGE)? != expected || read(addr + page * PAGE + PAGE - 1)? != expected {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether first and last byte of each page are 0.
pub fn is_zero(addr: usize, pages: usize) -> Result<bool, Fault> {
    for page in 0..pages {
        if read(addr + page * PAGE)? != 0 || read(addr + page * PAGE + PAGE - 1)? != 0 {
            return Ok(false);
        }
    }
    Ok(true)
}
