//! Parts of `mm` that rest on memory ordering, run by the model checker `loom`: with all
//! interleavings of the threads, and all stores that each load may see.
//!
//! A scenario has two or three threads, which go through it once. What they must not find is its
//! *invariant*. Most of it is said by a [`Cell`](checker::Cell): what is in it is accessed without an atomic, so
//! `loom` fails if it is written while others access it, or before all they did happens before.
//!
//! `docs/locking.md` lists for each scenario the orderings that it finds to be too weak, put
//! into the crate by `make mutants`.

mod checker;
mod frames;
mod litmus;
mod locks;
mod shootdowns;
