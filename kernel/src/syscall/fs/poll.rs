//! Waiting for files: `poll`, `select`, `epoll`.
//!
//! A wait that a signal ends is never restarted, as on Linux when there is a
//! handler: these calls return `EINTR`.

use alloc::sync::Arc;
use alloc::vec::Vec;
use mm::Errno;

use super::{Result, check_flags, files, install, usable};
use crate::arch::time::monotonic_ns;
use crate::arch::usercopy::{copy_from_user, copy_to_user, read_user, write_user};
use crate::fs::File;
use crate::fs::epoll::{self, Change, Event};
use crate::fs::file::flags::O_CLOEXEC;
use crate::fs::poll::{Events, wait};
use crate::task::limits::Resource;
use crate::task::signal::SigSet;
use crate::task::thread::current;

const NANOSECONDS: u64 = 1_000_000_000;

/// One file to look at and what for.
struct Watch {
    /// `None` for a descriptor that is to be ignored.
    file: Option<Arc<File>>,
    /// Whether there was a descriptor that is not open.
    invalid: bool,
    wanted: Events,
    found: Events,
}

impl Watch {
    fn look(&mut self) -> bool {
        self.found = match &self.file {
            Some(file) => {
                let wanted = self.wanted | Events::ERR | Events::HUP;
                file.ops().poll(file).events & wanted
            }
            None if self.invalid => Events::NVAL,
            None => Events::empty(),
        };
        !self.found.is_empty()
    }
}

/// Waits until there is something to report of any of `watches`, and returns
/// of how many there is.
fn wait_for(watches: &mut [Watch], deadline: Option<u64>) -> Result<usize> {
    let ready = wait(deadline, || {
        let count = watches.iter_mut().map(Watch::look).filter(|&found| found).count();
        Ok((count > 0).then_some(count))
    });
    interrupted(ready).map(|count| count.unwrap_or(0))
}

/// A wait that a signal has ended is over.
fn interrupted<T>(result: Result<T>) -> Result<T> {
    match result {
        Err(crate::errno::ERESTARTSYS) => Err(Errno::EINTR),
        result => result,
    }
}

/// The deadline `nanoseconds` from now.
fn after(nanoseconds: u64) -> u64 {
    monotonic_ns().saturating_add(nanoseconds)
}

/// The deadline that a timeout in milliseconds stands for; negative is never.
fn after_milliseconds(timeout: i32) -> Option<u64> {
    u64::try_from(timeout).ok().map(|timeout| after(timeout * 1_000_000))
}

/// The deadline that the `timespec` (or `timeval`, with `unit` 1000) at
/// `address` stands for; none for a null pointer.
fn after_user_time(address: usize, unit: u64) -> Result<Option<u64>> {
    if address == 0 {
        return Ok(None);
    }
    let [seconds, fraction]: [i64; 2] = read_user(address)?;
    let (Ok(seconds), Ok(fraction)) = (u64::try_from(seconds), u64::try_from(fraction)) else {
        return Err(Errno::EINVAL);
    };
    // `select` has always taken more than a second's worth of microseconds.
    if unit == 1 && fraction >= NANOSECONDS {
        return Err(Errno::EINVAL);
    }
    let time = seconds.saturating_mul(NANOSECONDS).saturating_add(fraction.saturating_mul(unit));
    Ok(Some(after(time)))
}

/// Tells the program how much of its timeout is left, as Linux does.
fn store_left(address: usize, deadline: Option<u64>, unit: u64) {
    if let Some(deadline) = deadline {
        let left = deadline.saturating_sub(monotonic_ns());
        let time = [(left / NANOSECONDS) as i64, (left % NANOSECONDS / unit) as i64];
        // A timeout in read-only memory is no error.
        let _ = write_user(address, time);
    }
}

/// Runs `call` with the signal mask at `address` in force, if there is one.
fn with_mask(address: usize, size: usize, call: impl FnOnce() -> Result<usize>) -> Result<usize> {
    if address == 0 {
        return call();
    }
    if size != 8 {
        return Err(Errno::EINVAL);
    }
    let mask = SigSet(read_user(address)?);
    crate::task::signal::with_mask(mask, call)
}

pub fn poll(list: usize, count: usize, timeout: i32) -> Result<usize> {
    poll_until(list, count, after_milliseconds(timeout))
}

/// `ppoll`.
pub fn poll_masked(list: usize, count: usize, timeout: usize, mask: usize, mask_size: usize) -> Result<usize> {
    let deadline = after_user_time(timeout, 1)?;
    let result = with_mask(mask, mask_size, || poll_until(list, count, deadline));
    store_left(timeout, deadline, 1);
    result
}

fn poll_until(list: usize, count: usize, deadline: Option<u64>) -> Result<usize> {
    const SIZE: usize = 8;
    let count = count as u32 as usize;
    if count as u64 > current().process().limit(Resource::OpenFiles) {
        return Err(Errno::EINVAL);
    }
    let table = files()?;
    let mut watches = Vec::new();
    watches.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
    for index in 0..count {
        let address = list.wrapping_add(index * SIZE);
        let fd: i32 = read_user(address)?;
        let wanted: u16 = read_user(address.wrapping_add(4))?;
        let file = table.get_usable(fd).ok();
        watches.push(Watch {
            invalid: fd >= 0 && file.is_none(),
            file,
            wanted: Events::from_bits_truncate(wanted.into()),
            found: Events::empty(),
        });
    }
    let ready = wait_for(&mut watches, deadline)?;
    for (index, watch) in watches.iter().enumerate() {
        let address = list.wrapping_add(index * SIZE + 6);
        write_user(address, watch.found.bits() as u16)?;
    }
    Ok(ready)
}

/// One of `select`'s sets of descriptors.
struct FdSet {
    address: usize,
    bits: Vec<u8>,
    /// What makes a descriptor ready for this set.
    ready: Events,
    /// What is asked for.
    wanted: Events,
}

impl FdSet {
    fn read(address: usize, bytes: usize, wanted: Events, ready: Events) -> Result<FdSet> {
        let mut bits = Vec::new();
        bits.try_reserve_exact(bytes).map_err(|_| Errno::ENOMEM)?;
        bits.resize(bytes, 0);
        if address != 0 {
            copy_from_user(&mut bits, address)?;
        }
        Ok(FdSet { address, bits, ready, wanted })
    }

    fn has(&self, fd: usize) -> bool {
        self.bits[fd / 8] & 1 << (fd % 8) != 0
    }

    fn clear(&mut self, fd: usize) {
        self.bits[fd / 8] &= !(1 << (fd % 8));
    }

    fn write(&self) -> Result<()> {
        match self.address {
            0 => Ok(()),
            address => copy_to_user(address, &self.bits),
        }
    }
}

pub fn select(count: i32, read: usize, write: usize, except: usize, timeout: usize) -> Result<usize> {
    let deadline = after_user_time(timeout, 1000)?;
    let result = select_until(count, [read, write, except], deadline);
    store_left(timeout, deadline, 1000);
    result
}

/// `pselect6`; `mask` is the address of an address and a size.
pub fn select_masked(
    count: i32,
    read: usize,
    write: usize,
    except: usize,
    timeout: usize,
    mask: usize,
) -> Result<usize> {
    let deadline = after_user_time(timeout, 1)?;
    let [mask, mask_size] = if mask == 0 { [0; 2] } else { read_user(mask)? };
    let result = with_mask(mask, mask_size, || select_until(count, [read, write, except], deadline));
    store_left(timeout, deadline, 1);
    result
}

fn select_until(count: i32, sets: [usize; 3], deadline: Option<u64>) -> Result<usize> {
    let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?;
    let table = files()?;
    // Beyond what the table has room for nothing is looked at, nor touched.
    let count = count.min(table.capacity());
    // Whole words, as the program's sets are made of them.
    let bytes = count.div_ceil(64) * 8;
    let [read, write, except] = sets;
    let input = Events::IN | Events::RDNORM;
    let output = Events::OUT | Events::WRNORM;
    let mut sets = [
        FdSet::read(read, bytes, input, input | Events::HUP | Events::ERR)?,
        FdSet::read(write, bytes, output, output | Events::ERR)?,
        FdSet::read(except, bytes, Events::PRI, Events::PRI)?,
    ];
    let mut descriptors = Vec::new();
    let mut watches = Vec::new();
    for fd in 0..count {
        let wanted = sets.iter().filter(|set| set.has(fd)).fold(Events::empty(), |all, set| all | set.wanted);
        if wanted.is_empty() {
            continue;
        }
        let file = Some(table.get_usable(fd as i32)?);
        descriptors.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        watches.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        descriptors.push(fd);
        watches.push(Watch { file, invalid: false, wanted, found: Events::empty() });
    }
    wait_for(&mut watches, deadline)?;
    let mut ready = 0;
    for (&fd, watch) in descriptors.iter().zip(&watches) {
        for set in &mut sets {
            if !set.has(fd) {
                continue;
            }
            if watch.found.intersects(set.ready) {
                ready += 1;
            } else {
                set.clear(fd);
            }
        }
    }
    for set in &sets {
        set.write()?;
    }
    Ok(ready)
}

pub fn epoll_create(size: i32, flags: u32) -> Result<usize> {
    check_flags(flags, O_CLOEXEC)?;
    if size <= 0 {
        return Err(Errno::EINVAL);
    }
    install(epoll::new_file(0)?, flags & O_CLOEXEC != 0)
}

/// Bytes of `struct epoll_event`, which is packed.
const EVENT_SIZE: usize = 12;

pub fn epoll_control(epoll: i32, operation: u32, fd: i32, event: usize) -> Result<usize> {
    const ADD: u32 = 1;
    const REMOVE: u32 = 2;
    const MODIFY: u32 = 3;
    let read_event = || -> Result<Event> {
        let events = read_user(event)?;
        Ok(Event { events, data: read_user(event.wrapping_add(4))? })
    };
    let change = match operation {
        ADD => Change::Add(read_event()?),
        REMOVE => Change::Remove,
        MODIFY => Change::Modify(read_event()?),
        _ => return Err(Errno::EINVAL),
    };
    let (epoll, file) = (usable(epoll)?, usable(fd)?);
    epoll.ops().epoll().ok_or(Errno::EINVAL)?.change(fd, &file, change)?;
    Ok(0)
}

fn epoll_wait_until(epoll: i32, events: usize, count: i32, deadline: Option<u64>) -> Result<usize> {
    let count = usize::try_from(count).ok().filter(|&count| count > 0).ok_or(Errno::EINVAL)?;
    let file = usable(epoll)?;
    let epoll = file.ops().epoll().ok_or(Errno::EINVAL)?;
    let found = interrupted(epoll.wait(count, deadline))?;
    for (index, event) in found.iter().enumerate() {
        let mut record = [0; EVENT_SIZE];
        record[..4].copy_from_slice(&event.events.to_le_bytes());
        record[4..].copy_from_slice(&event.data.to_le_bytes());
        copy_to_user(events.wrapping_add(index * EVENT_SIZE), &record)?;
    }
    Ok(found.len())
}

pub fn epoll_wait(epoll: i32, events: usize, count: i32, timeout: i32) -> Result<usize> {
    epoll_wait_until(epoll, events, count, after_milliseconds(timeout))
}

/// `epoll_pwait`.
pub fn epoll_wait_masked(
    epoll: i32,
    events: usize,
    count: i32,
    timeout: i32,
    mask: usize,
    mask_size: usize,
) -> Result<usize> {
    with_mask(mask, mask_size, || epoll_wait(epoll, events, count, timeout))
}

/// `epoll_pwait2`.
pub fn epoll_wait_timespec(
    epoll: i32,
    events: usize,
    count: i32,
    timeout: usize,
    mask: usize,
    mask_size: usize,
) -> Result<usize> {
    let deadline = after_user_time(timeout, 1)?;
    with_mask(mask, mask_size, || epoll_wait_until(epoll, events, count, deadline))
}
