//! What was called to get where a CPU is, as far as its stack tells.
//!
//! The kernel keeps no frame pointers: every word on the stack that is the
//! address behind a call instruction is taken for a return address. Some of them
//! are left over from earlier calls. `addr2line -e kernel` says where they lead.

use core::fmt;

use super::stack;

/// More than this is left out.
const MOST: usize = 32;

unsafe extern "C" {
    static __text_start: u8;
    static __text_end: u8;
}

/// The return addresses on a kernel stack from `rsp` upwards, to be printed.
#[derive(Clone, Copy, Debug)]
pub struct Backtrace {
    rsp: usize,
}

impl Backtrace {
    /// Those of the stack that `rsp` points into, which is mapped from there to its end.
    pub fn from(rsp: usize) -> Backtrace {
        Backtrace { rsp }
    }

    /// Those of the code that calls this.
    #[inline(never)]
    pub fn here() -> Backtrace {
        let rsp: usize;
        // SAFETY: reads a register.
        unsafe { core::arch::asm!("mov {}, rsp", out(reg) rsp, options(nomem, nostack, preserves_flags)) };
        Backtrace { rsp }
    }
}

impl fmt::Display for Backtrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(top) = stack::top_of(self.rsp) else {
            return f.write_str(" (not on a stack that is known)");
        };
        // SAFETY: the words are on a stack, which is mapped up to its top.
        let words =
            (self.rsp.next_multiple_of(8)..top).step_by(8).map(|at| unsafe { (at as *const usize).read_volatile() });
        for address in words.filter(|&word| follows_call(word)).take(MOST) {
            write!(f, " {address:#x}")?;
        }
        Ok(())
    }
}

/// Whether the instruction before `address` is a call.
fn follows_call(address: usize) -> bool {
    const CALL_RELATIVE: u8 = 0xe8;
    const CALL_INDIRECT: u8 = 0xff;
    const LONGEST: usize = 7;
    let (start, end) = (&raw const __text_start as usize, &raw const __text_end as usize);
    if address < start + LONGEST || address >= end {
        return false;
    }
    // SAFETY: the kernel's code, as was just seen.
    let before = |distance: usize| unsafe { ((address - distance) as *const u8).read() };
    let indirect = |length: usize| before(length) == CALL_INDIRECT && before(length - 1) >> 3 & 7 == 2;
    before(5) == CALL_RELATIVE || [2, 3, 4, 6, 7].into_iter().any(indirect)
}
