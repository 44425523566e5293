//! `futex`.

use mm::Errno;

use super::time::Timespec;
use super::{Args, Result};
use crate::arch::time;
use crate::task::futex::{self, MATCH_ANY, WakeOp};

const FUTEX_WAIT: u32 = 0;
const FUTEX_WAKE: u32 = 1;
const FUTEX_REQUEUE: u32 = 3;
const FUTEX_CMP_REQUEUE: u32 = 4;
const FUTEX_WAKE_OP: u32 = 5;
const FUTEX_WAIT_BITSET: u32 = 9;
const FUTEX_WAKE_BITSET: u32 = 10;

const FUTEX_PRIVATE_FLAG: u32 = 128;
const FUTEX_CLOCK_REALTIME: u32 = 256;

/// How many to wake or move: the ABI has it as a signed number.
fn count(value: u64) -> core::result::Result<usize, Errno> {
    usize::try_from(value as i32).map_err(|_| Errno::EINVAL)
}

pub fn futex(args: &Args) -> Result {
    let [address, operation, value, fourth, second, sixth] = *args;
    let (address, second) = (address as usize, second as usize);
    let operation = operation as u32;
    let private = operation & FUTEX_PRIVATE_FLAG != 0;
    let realtime = operation & FUTEX_CLOCK_REALTIME != 0;
    let command = operation & !(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME);
    if realtime && !matches!(command, FUTEX_WAIT_BITSET) {
        return Err(Errno::ENOSYS);
    }
    match command {
        FUTEX_WAIT => {
            let deadline = match fourth {
                0 => None,
                timeout => {
                    let duration = Timespec::read(timeout as usize)?.to_duration()?;
                    Some(time::monotonic_ns().saturating_add(duration))
                }
            };
            futex::wait(address, private, value as u32, MATCH_ANY, deadline, deadline.is_some())
        }
        FUTEX_WAIT_BITSET => {
            let deadline = match fourth {
                0 => None,
                timeout => {
                    let moment = Timespec::read(timeout as usize)?.to_duration()?;
                    Some(if realtime { super::time::realtime_to_monotonic(moment) } else { moment })
                }
            };
            futex::wait(address, private, value as u32, sixth as u32, deadline, false)
        }
        // Linux wakes one when asked for none, or for a negative number.
        FUTEX_WAKE => futex::wake(address, private, (value as i32).max(1) as usize, MATCH_ANY),
        FUTEX_WAKE_BITSET => futex::wake(address, private, (value as i32).max(1) as usize, sixth as u32),
        FUTEX_REQUEUE => futex::requeue(address, second, private, count(value)?, count(fourth)?, None),
        FUTEX_CMP_REQUEUE => {
            let expected = Some(sixth as u32);
            futex::requeue(address, second, private, count(value)?, count(fourth)?, expected)
        }
        FUTEX_WAKE_OP => {
            let op = WakeOp::decode(sixth as u32)?;
            let (first_count, second_count) = ((value as i32).max(1) as usize, (fourth as i32).max(1) as usize);
            futex::wake_op(address, second, private, first_count, second_count, op)
        }
        _ => Err(Errno::ENOSYS),
    }
}
