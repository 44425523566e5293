//! Linux-compatible memory management for x86-64 kernels.
#![cfg_attr(not(test), no_std)]
#![warn(missing_docs)]

mod addr;
mod errno;
mod flags;
mod platform;

pub use addr::*;
pub use errno::{Errno, OutOfMemory};
pub use flags::{MapFlags, MremapFlags, Prot, VmaFlags};
pub use platform::{CpuSet, MAX_CPUS, PhysAddr, Platform, TlbFlush};
