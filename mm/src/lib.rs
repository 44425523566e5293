//! Linux-compatible memory management for x86-64 kernels.
#![cfg_attr(not(any(test, feature = "sim")), no_std)]
#![warn(missing_docs)]

mod addr;
mod avl;
mod errno;
mod flags;
mod frame;
mod memory;
mod object;
mod paging;
mod platform;
#[allow(dead_code, unused_imports)]
mod rmap;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
mod slab;
mod space;
mod sync;
#[allow(dead_code, unused_imports)]
mod vma;

pub use addr::*;
pub use errno::{Errno, OutOfMemory};
pub use flags::{MapFlags, MremapFlags, Prot, VmaFlags};
pub use frame::{Frame, FrameKind, InitError, MAX_ORDER, OwnedFrame};
pub use memory::{Memory, Overcommit, PhysRange, Sysctl};
pub use object::{MAX_OBJECT_SIZE, ObjectError, ObjectName, ObjectRef};
pub use platform::{CpuSet, MAX_CPUS, PhysAddr, Platform, TlbFlush};
pub use space::{
    AddressSpace, FaultAccess, FaultError, Limits, MappedFile, MmapRequest, SpaceError, SpaceStats,
    VmaInfo, VmaKind,
};
