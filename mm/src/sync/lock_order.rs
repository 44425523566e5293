//! Shows that the compiler checks the order of locks where it can: where one is taken
//! under another that is at hand, as [`SpinLock::lock_under`] takes it. (Everywhere
//! else the rank checker does, in a build that has it.)
//!
//! The rank is part of the type. From outside in is right:
//!
//! ```
//! use mm::lock_order::{SpinLock, rank};
//!
//! let lists = SpinLock::<(), { rank::FRAME_LISTS }>::new(());
//! let pool = SpinLock::<(), { rank::FRAME_POOL }>::new(());
//! let held = lists.lock();
//! pool.lock_under(&held);
//! ```
//!
//! The other way round is no program:
//!
//! ```compile_fail,E0080
//! use mm::lock_order::{SpinLock, rank};
//!
//! let lists = SpinLock::<(), { rank::FRAME_LISTS }>::new(());
//! let pool = SpinLock::<(), { rank::FRAME_POOL }>::new(());
//! let held = pool.lock();
//! lists.lock_under(&held);
//! ```
//!
//! Nor are two of one rank, which have no order:
//!
//! ```compile_fail,E0080
//! use mm::lock_order::{SpinLock, rank};
//!
//! let magazines = [(); 2].map(SpinLock::<(), { rank::MAGAZINE }>::new);
//! let held = magazines[0].lock();
//! magazines[1].lock_under(&held);
//! ```
//!
//! For one that is held for reading or writing it is the same:
//!
//! ```
//! use mm::lock_order::{RwLock, SpinLock, rank};
//!
//! let prepare = SpinLock::<(), { rank::PREPARE }>::new(());
//! let root = RwLock::<(), { rank::ANON_VMA_ROOT }>::new(());
//! root.write_under(&prepare.lock());
//! ```
//!
//! ```compile_fail,E0080
//! use mm::lock_order::{RwLock, SpinLock, rank};
//!
//! let prepare = SpinLock::<(), { rank::PREPARE }>::new(());
//! let root = RwLock::<(), { rank::ANON_VMA_ROOT }>::new(());
//! prepare.lock_under(&root.read());
//! ```
//!
//! And it does not help to let go of the outer one first:
//!
//! ```compile_fail,E0382
//! use mm::lock_order::{SpinLock, rank};
//!
//! let lists = SpinLock::<(), { rank::FRAME_LISTS }>::new(());
//! let pool = SpinLock::<(), { rank::FRAME_POOL }>::new(());
//! let held = lists.lock();
//! drop(held);
//! pool.lock_under(&held);
//! ```

pub use super::{RwLock, SpinLock, rank};
