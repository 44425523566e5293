//! Scheduling: one policy, `SCHED_OTHER`, and where a thread may run.

use alloc::sync::Arc;
use mm::{CpuSet, Errno};

use super::time::Timespec;
use super::{Args, Result};
use crate::arch::cpu;
use crate::arch::usercopy::{copy_from_user, copy_to_user, read_user, write_user};
use crate::task::thread::{Thread, current};
use crate::task::{sched, table};

/// Bytes of the CPU mask that the kernel keeps.
const MASK_SIZE: usize = 8;
/// `SCHED_OTHER`.
const SCHED_OTHER: u64 = 0;
/// `SCHED_BATCH`, `SCHED_IDLE`: accepted, and treated as the one policy.
const SCHED_BATCH: u64 = 3;
const SCHED_IDLE: u64 = 5;
/// `SCHED_FIFO`, `SCHED_RR`: real time, which there is none of.
const SCHED_FIFO: u64 = 1;
const SCHED_RR: u64 = 2;

fn thread(tid: u64) -> core::result::Result<Arc<Thread>, Errno> {
    match tid as i32 {
        0 => Ok(current().to_arc()),
        tid if tid < 0 => Err(Errno::EINVAL),
        tid => table::thread(tid as u32).ok_or(Errno::ESRCH),
    }
}

pub fn sched_yield() -> Result {
    sched::yield_now();
    Ok(0)
}

pub fn sched_getaffinity(args: &Args) -> Result {
    let [tid, size, address, ..] = *args;
    let size = size as u32 as usize;
    if size < MASK_SIZE || !size.is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    let mask = thread(tid)?.affinity().0 & cpu::online().0;
    write_user(address as usize, mask)?;
    Ok(MASK_SIZE)
}

pub fn sched_setaffinity(args: &Args) -> Result {
    let [tid, size, address, ..] = *args;
    let mut bytes = [0; MASK_SIZE];
    let len = (size as u32 as usize).min(MASK_SIZE);
    copy_from_user(&mut bytes[..len], address as usize)?;
    let thread = thread(tid)?;
    let mask = u64::from_le_bytes(bytes) & cpu::online().0;
    if mask == 0 {
        return Err(Errno::EINVAL);
    }
    sched::set_affinity(&thread, CpuSet(mask));
    Ok(0)
}

pub fn getcpu(args: &Args) -> Result {
    let [id, node, ..] = *args;
    if id != 0 {
        write_user(id as usize, cpu::id() as u32)?;
    }
    if node != 0 {
        write_user(node as usize, 0u32)?;
    }
    Ok(0)
}

pub fn sched_getscheduler(args: &Args) -> Result {
    thread(args[0])?;
    Ok(SCHED_OTHER as usize)
}

pub fn sched_setscheduler(args: &Args) -> Result {
    let [tid, policy, parameters, ..] = *args;
    if parameters == 0 || policy as i32 <= -1 {
        return Err(Errno::EINVAL);
    }
    check_parameters(parameters)?;
    thread(tid)?;
    match policy {
        SCHED_OTHER | SCHED_BATCH | SCHED_IDLE => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

/// `struct sched_param` holds a priority, which is 0 without real time.
fn check_parameters(address: u64) -> core::result::Result<(), Errno> {
    match read_user::<u32>(address as usize)? {
        0 => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}

pub fn sched_getparam(args: &Args) -> Result {
    if args[1] == 0 {
        return Err(Errno::EINVAL);
    }
    thread(args[0])?;
    copy_to_user(args[1] as usize, &0u32.to_le_bytes())?;
    Ok(0)
}

pub fn sched_setparam(args: &Args) -> Result {
    if args[1] == 0 {
        return Err(Errno::EINVAL);
    }
    check_parameters(args[1])?;
    thread(args[0])?;
    Ok(0)
}

pub fn sched_get_priority_max(args: &Args) -> Result {
    match args[0] {
        SCHED_OTHER | SCHED_BATCH | SCHED_IDLE => Ok(0),
        SCHED_FIFO | SCHED_RR => Ok(99),
        _ => Err(Errno::EINVAL),
    }
}

pub fn sched_get_priority_min(args: &Args) -> Result {
    match args[0] {
        SCHED_OTHER | SCHED_BATCH | SCHED_IDLE => Ok(0),
        SCHED_FIFO | SCHED_RR => Ok(1),
        _ => Err(Errno::EINVAL),
    }
}

pub fn sched_rr_get_interval(args: &Args) -> Result {
    thread(args[0])?;
    Timespec::from_ns(sched::SLICE_NS).write(args[1] as usize)?;
    Ok(0)
}

/// All threads have nice value 0, which the system call returns as 20.
pub fn getpriority(args: &Args) -> Result {
    if args[0] as i32 > 2 || (args[0] as i32) < 0 {
        return Err(Errno::EINVAL);
    }
    Ok(20)
}

/// Accepted, without effect: round robin has no priorities.
pub fn setpriority(args: &Args) -> Result {
    if args[0] as i32 > 2 || (args[0] as i32) < 0 {
        return Err(Errno::EINVAL);
    }
    Ok(0)
}

/// Only what needs no memory barrier on another CPU: the query (nothing is
/// supported) and errors.
pub fn membarrier(args: &Args) -> Result {
    const MEMBARRIER_CMD_QUERY: u64 = 0;
    match (args[0], args[1]) {
        (MEMBARRIER_CMD_QUERY, 0) => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

/// Restartable sequences: as of a Linux built without them, which every C
/// library is prepared for.
pub fn rseq() -> Result {
    Err(Errno::ENOSYS)
}
