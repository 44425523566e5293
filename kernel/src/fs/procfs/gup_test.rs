//! `/sys/kernel/debug/gup_test`: pins memory of the program that asks, for as long as it wants, and shows what is
//! in the pinned pages (of Linux's `CONFIG_GUP_TEST` the part that is about pins that last).
//!
//! The pins are the open file's: one set at a time, dropped with it at the latest.

use alloc::vec::Vec;
use mm::{Errno, FaultAccess, PAGE_SIZE};

use crate::arch::usercopy::read_user;
use crate::errno::EINTR;
use crate::fs::File;
use crate::fs::file::FileOps;
use crate::fs::io::{Sink, should_stop};
use crate::fs::sleep_lock::SleepLock;
use crate::memory::pins::{self, Pin};
use crate::memory::try_push;
use crate::task::thread::current;

/// `_IOW('g', 7, struct { u64 addr, size; u32 flags; })`: pins pages.
const START: u32 = 0x4018_6707;
/// `_IO('g', 8)`: drops the pins.
const STOP: u32 = 0x6708;
/// `_IOW('g', 9, u64)`: copies what is in them to an address.
const READ: u32 = 0x4008_6709;

/// Pin them as a write does.
const USE_WRITE: u32 = 1;
/// As fast as possible, which makes no difference.
const USE_FAST: u32 = 2;

/// One that is open.
pub struct GupTest {
    pins: SleepLock<Vec<Pin>>,
}

impl GupTest {
    /// Without pins.
    pub fn new() -> GupTest {
        GupTest { pins: SleepLock::new(Vec::new()) }
    }

    fn start(&self, argument: usize) -> Result<(), Errno> {
        let mut pins = self.pins.lock()?;
        if !pins.is_empty() {
            return Err(Errno::EINVAL);
        }
        let [addr, size, flags]: [usize; 3] = read_user(argument)?;
        let flags = flags as u32;
        let is_whole = (addr | size).is_multiple_of(PAGE_SIZE);
        if flags & !(USE_WRITE | USE_FAST) != 0 || !is_whole || size == 0 || size > isize::MAX as usize {
            return Err(Errno::EINVAL);
        }
        let access = if flags & USE_WRITE != 0 { FaultAccess::WRITE } else { FaultAccess::READ };
        *pins = pin_all(addr, size, access)?;
        Ok(())
    }

    fn read_to(&self, argument: usize) -> Result<(), Errno> {
        let pins = self.pins.lock()?;
        if pins.is_empty() {
            return Err(Errno::EINVAL);
        }
        let to: usize = read_user(argument)?;
        for (number, pin) in pins.iter().enumerate() {
            let mut sink = Sink::user(to.wrapping_add(number * PAGE_SIZE), PAGE_SIZE)?;
            if sink.put_pinned(pin, 0, PAGE_SIZE)? < PAGE_SIZE {
                return Err(Errno::EFAULT);
            }
            if should_stop((number + 1) * PAGE_SIZE, PAGE_SIZE) {
                return Err(EINTR);
            }
        }
        Ok(())
    }
}

/// Pins each page of `size` bytes from `addr` on, or none.
fn pin_all(addr: usize, size: usize, access: FaultAccess) -> Result<Vec<Pin>, Errno> {
    let space = current().process().space().ok_or(Errno::EFAULT)?;
    let mut pins = Vec::new();
    for done in (0..size).step_by(PAGE_SIZE) {
        let page = addr.checked_add(done).ok_or(Errno::EFAULT)?;
        try_push(&mut pins, space.pin_longterm(page, access).map_err(pins::error)?)?;
        if should_stop(done + PAGE_SIZE, PAGE_SIZE) {
            return Err(EINTR);
        }
    }
    Ok(pins)
}

impl FileOps for GupTest {
    fn ioctl(&self, _: &File, request: u32, argument: usize) -> Result<usize, Errno> {
        match request {
            START => self.start(argument)?,
            STOP => self.pins.lock()?.clear(),
            READ => self.read_to(argument)?,
            _ => return Err(Errno::EINVAL),
        }
        Ok(0)
    }
}
