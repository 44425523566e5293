//! The atomics of those parts of the crate that are small, and rest on memory ordering:
//! the lock of a VMA, the references to a frame, and which CPUs use an address space.
//!
//! They are those of `core`. Built with the feature `loom`, they are made of that model
//! checker's, which has a load see whatever store its ordering allows, and not just the
//! last one.

#[cfg(not(feature = "loom"))]
pub use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};

#[cfg(feature = "loom")]
pub use self::model::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Unreal, begin, give_up};

#[cfg(feature = "loom")]
#[path = "atomic/loom.rs"]
mod model;
