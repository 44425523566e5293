//! Linux-compatible memory management for x86-64 kernels.
//!
//! Everything between "here is some RAM" and "here is what the process sees":
//! physical frames, four-level page tables, VMAs with Linux's rules for
//! merging and splitting them, reverse mapping, and the system calls mmap,
//! munmap, mprotect, mremap, brk, madvise, mlock and fork on top, errno by
//! errno as on Linux.
//!
//! # Embedding
//!
//! A kernel implements one trait, [`Platform`]: where the direct map is, which
//! CPU this is, how TLBs are flushed. It makes one [`Memory`] from its RAM, and
//! an [`AddressSpace`] for each process. A page fault goes to
//! [`AddressSpace::handle_fault`], a system call to the method of that name.
//! The crate keeps no global state and executes no privileged instruction, so
//! it runs in a test as it does in a kernel:
//!
//! ```
//! use mm::{
//!     AddressSpace, CpuSet, FaultAccess, Limits, Memory, MmapRequest, PhysAddr, PhysRange,
//!     Platform, TlbFlush,
//! };
//!
//! /// Physical address 0x100000 is the first byte of an ordinary allocation.
//! struct Machine {
//!     ram: usize,
//! }
//! const RAM_START: u64 = 0x10_0000;
//! const RAM_SIZE: usize = 4 << 20;
//!
//! // SAFETY: the direct map is linear and covers all RAM; nothing here ever
//! // runs with these page tables, so there is no TLB; there is one CPU.
//! unsafe impl Platform for Machine {
//!     fn phys_to_virt(&self, phys: PhysAddr) -> *mut u8 {
//!         core::ptr::with_exposed_provenance_mut(self.ram + (phys.as_u64() - RAM_START) as usize)
//!     }
//!     fn current_cpu(&self) -> usize {
//!         0
//!     }
//!     fn cpu_count(&self) -> usize {
//!         1
//!     }
//!     fn flush_tlb(&self, _targets: CpuSet, _flush: TlbFlush) {}
//!     fn relax(&self) {}
//!     fn random(&self) -> u64 {
//!         4 // chosen by fair dice roll
//!     }
//! }
//!
//! let layout = std::alloc::Layout::from_size_align(RAM_SIZE, 4096)?;
//! // SAFETY: the size is not 0.
//! let ram = unsafe { std::alloc::alloc(layout) }.expose_provenance();
//! let whole = PhysRange {
//!     start: PhysAddr::new(RAM_START),
//!     end: PhysAddr::new(RAM_START + RAM_SIZE as u64),
//! };
//! // SAFETY: the RAM is ours alone, and stays.
//! let memory = unsafe { Memory::new(Machine { ram }, &[whole], None) }?;
//!
//! let space = AddressSpace::new(&memory, Limits::default())?;
//! let addr = space.mmap(MmapRequest {
//!     addr: 0,
//!     len: 2 << 20,
//!     prot: 3,     // PROT_READ | PROT_WRITE
//!     flags: 0x22, // MAP_PRIVATE | MAP_ANONYMOUS
//!     file: None,
//!     offset: 0,
//! })?;
//! space.handle_fault(addr, FaultAccess::WRITE)?; // what the trap handler calls
//! space.write_bytes(addr, b"hello")?;
//! let moved = space.mremap(addr, 2 << 20, 4 << 20, 1, 0)?; // MREMAP_MAYMOVE
//! let mut text = [0; 5];
//! space.read_bytes(moved, &mut text)?;
//! assert_eq!(&text, b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What holds
//!
//! - **Failure**: an operation that returns an error has changed nothing, and
//!   no lack of memory panics.
//! - **TLB**: when an operation returns, no CPU can use a translation that it
//!   removed, and no frame was reused before that was so.
//! - **Locks**: may be taken in this order only: the mmap lock of an address
//!   space, the lock of merged pages, the lock of a VMA, the lock of a private page, those of anon_vma roots
//!   (at most two, by address), the lock of an object's pages, those of page tables
//!   (at most two, by frame number), that of the swap slots, those of the allocators.
//!   None sleeps; none may be taken by an interrupt handler.
//!
//! # Features
//!
//! - `sim`: the simulated machine of the crate's own tests (`mm::sim`), with `std`.
//! - `fault-injection`: `Memory::fail_nth_allocation`.
//! - `shuttle`: threads on that machine go on when the model checker `shuttle` says so.
//! - `loom`: the atomics of some parts are the model checker `loom`'s; nothing but its tests runs.
#![cfg_attr(not(any(test, feature = "sim")), no_std)]
#![warn(missing_docs)]

mod addr;
mod avl;
mod errno;
mod flags;
mod frame;
mod interval;
mod ksm;
mod memory;
mod migrate;
mod object;
mod paging;
#[cfg(feature = "loom")]
#[doc(hidden)]
pub mod parts;
mod platform;
mod reclaim;
mod rmap;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
mod slab;
mod space;
mod swap;
mod sync;
mod vma;

pub use addr::*;
pub use errno::{Errno, OutOfMemory};
pub use flags::{MapFlags, MremapFlags, Prot, VmaFlags};
pub use frame::{Frame, FrameKind, InitError, MAX_ORDER, OwnedFrame};
pub use ksm::{KsmPages, KsmStats};
pub use memory::{
    Defrag, Event, FOLIO_ORDERS, FolioPolicy, FolioStats, HugePages, Memory, Overcommit, PhysRange, Sysctl,
};
pub use object::{MAX_OBJECT_SIZE, ObjectError, ObjectName, ObjectRef};
pub use paging::{CpuFlush, CpuTlb, RootLoad};
pub use platform::{CpuSet, MAX_CPUS, PhysAddr, Platform, TlbFlush};
pub use slab::SlabInfo;
pub use space::{
    AddressSpace, ClearRefs, CollapseLimits, CollapseScan, FaultAccess, FaultError, Limits, MappedFile, MappedPage,
    MmapRequest, PageState, PinnedPage, SpaceError, SpaceStats, VmaInfo, VmaKind, VmaPages,
};
#[cfg(any(test, feature = "sim"))]
pub use space::{find_mappings, verify_all};
pub use swap::{MAX_SWAP_SLOTS, PageBytes, SwapDevice, SwapError, SwapStats};
#[doc(hidden)]
pub use sync::lock_order;
#[cfg(feature = "shuttle")]
#[doc(hidden)]
pub use sync::vma_lock;
pub use sync::{locks_held, track_locks};
