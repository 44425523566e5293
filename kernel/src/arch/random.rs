//! Random numbers, from the CPU where it makes them.
//!
//! A CPU without `rdrand` gives numbers that differ from boot to boot and look
//! random (the time-stamp counter, mixed), which is enough to spread address
//! spaces out, and no secret.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, _rdtsc};
use core::sync::atomic::{AtomicU64, Ordering};

const UNKNOWN: u64 = 0;
const MISSING: u64 = 1;
const PRESENT: u64 = 2;

/// Whether the CPU has `rdrand`.
static RDRAND: AtomicU64 = AtomicU64::new(UNKNOWN);
static STATE: AtomicU64 = AtomicU64::new(0);

/// 64 random bits.
pub fn next_u64() -> u64 {
    match RDRAND.load(Ordering::Relaxed) {
        PRESENT => from_cpu().unwrap_or_else(from_time),
        MISSING => from_time(),
        _ => {
            const CPUID1_ECX_RDRAND: u32 = 1 << 30;
            let present = __cpuid(1).ecx & CPUID1_ECX_RDRAND != 0;
            RDRAND.store(if present { PRESENT } else { MISSING }, Ordering::Relaxed);
            next_u64()
        }
    }
}

fn from_cpu() -> Option<u64> {
    // The processor's manual promises success within ten tries.
    (0..10).find_map(|_| {
        let (value, ok): (u64, u8);
        // SAFETY: only called when the CPU has the instruction.
        unsafe { asm!("rdrand {}", "setc {}", out(reg) value, out(reg_byte) ok, options(nostack, nomem)) };
        (ok != 0).then_some(value)
    })
}

/// The splitmix64 generator, stirred with the time at each step.
fn from_time() -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    // SAFETY: every x86-64 CPU has the instruction.
    let now = unsafe { _rdtsc() };
    let state = STATE.fetch_add(STEP ^ now.rotate_left(32), Ordering::Relaxed);
    let mut z = state.wrapping_add(now);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}
