//! Resource limits (`getrlimit`, `setrlimit`, `prlimit64`).

use crate::arch::irq::IrqMutex;
use mm::Errno;

/// No limit.
pub const INFINITY: u64 = u64::MAX;

/// What is limited; the numbers are the ABI's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Resource {
    Cpu = 0,
    FileSize = 1,
    Data = 2,
    Stack = 3,
    Core = 4,
    ResidentSet = 5,
    Processes = 6,
    OpenFiles = 7,
    LockedMemory = 8,
    AddressSpace = 9,
    FileLocks = 10,
    PendingSignals = 11,
    MessageQueue = 12,
    Nice = 13,
    RealTimePriority = 14,
    RealTimeTime = 15,
}

/// How many there are.
const COUNT: usize = 16;

/// Most open files `RLIMIT_NOFILE` may ask for (`/proc/sys/fs/nr_open`).
const OPEN_FILES_MAX: u64 = 1 << 20;

impl Resource {
    const ALL: [Resource; COUNT] = [
        Resource::Cpu,
        Resource::FileSize,
        Resource::Data,
        Resource::Stack,
        Resource::Core,
        Resource::ResidentSet,
        Resource::Processes,
        Resource::OpenFiles,
        Resource::LockedMemory,
        Resource::AddressSpace,
        Resource::FileLocks,
        Resource::PendingSignals,
        Resource::MessageQueue,
        Resource::Nice,
        Resource::RealTimePriority,
        Resource::RealTimeTime,
    ];

    /// The resource numbered `number`.
    ///
    /// # Errors
    /// `EINVAL`: there is none.
    pub fn from_number(number: u32) -> Result<Resource, Errno> {
        Resource::ALL.get(number as usize).copied().ok_or(Errno::EINVAL)
    }
}

/// One limit, in the layout of `struct rlimit64`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Limit {
    /// What is enforced.
    pub soft: u64,
    /// What `soft` may be raised to.
    pub hard: u64,
}

impl Limit {
    const fn both(value: u64) -> Limit {
        Limit { soft: value, hard: value }
    }
}

/// The limits of one process.
pub struct Limits(IrqMutex<[Limit; COUNT]>);

impl Limits {
    /// What the first process has: Linux's defaults for root.
    pub const fn initial() -> Limits {
        let mut limits = [Limit::both(INFINITY); COUNT];
        limits[Resource::Stack as usize] = Limit { soft: 8 << 20, hard: INFINITY };
        limits[Resource::Core as usize] = Limit { soft: 0, hard: INFINITY };
        limits[Resource::OpenFiles as usize] = Limit { soft: 1024, hard: 4096 };
        limits[Resource::LockedMemory as usize] = Limit::both(8 << 20);
        limits[Resource::Processes as usize] = Limit::both(16384);
        limits[Resource::PendingSignals as usize] = Limit::both(16384);
        limits[Resource::MessageQueue as usize] = Limit::both(819_200);
        limits[Resource::Nice as usize] = Limit::both(0);
        limits[Resource::RealTimePriority as usize] = Limit::both(0);
        Limits(IrqMutex::new(limits))
    }

    /// A copy, for a child.
    pub fn fork(&self) -> Limits {
        Limits(IrqMutex::new(*self.0.lock()))
    }

    /// The limit of `resource`.
    pub fn get(&self, resource: Resource) -> Limit {
        self.0.lock()[resource as usize]
    }

    /// Changes the limit of `resource`, and returns what it was.
    ///
    /// # Errors
    /// `EINVAL`: the soft limit is above the hard one; `EPERM`: more open
    /// files than there may be.
    pub fn set(&self, resource: Resource, limit: Limit) -> Result<Limit, Errno> {
        if limit.soft > limit.hard {
            return Err(Errno::EINVAL);
        }
        if resource == Resource::OpenFiles && limit.hard > OPEN_FILES_MAX {
            return Err(Errno::EPERM);
        }
        Ok(core::mem::replace(&mut self.0.lock()[resource as usize], limit))
    }

    /// What concerns the address space.
    pub fn memory(&self) -> mm::Limits {
        let limits = self.0.lock();
        mm::Limits {
            address_space: limits[Resource::AddressSpace as usize].soft,
            data: limits[Resource::Data as usize].soft,
            stack: limits[Resource::Stack as usize].soft,
            memlock: limits[Resource::LockedMemory as usize].soft,
            // Every process is root's.
            low_addresses: true,
        }
    }
}
