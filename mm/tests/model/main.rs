//! Races in `mm`, run by the model checker `shuttle`: the crate itself, on the
//! simulated machine, through its public interface.
//!
//! A scenario is one race of two or three threads, each on a CPU of its own.
//! What the threads may find, while they run and afterwards, is its
//! *invariant*, which stands at its test; in the end all books balance
//! (`verify_all`) and no frame is lost, in every scenario. Programs see memory
//! through TLBs that keep what they have until they are told.
//!
//! `docs/locking.md` lists for each scenario a bug, put into the crate by `make
//! mutants`, that it finds.

mod compaction;
mod faults;
mod folios;
mod huge;
mod locks;
mod machine;
mod merges;
mod migration;
mod moves;
mod pins;
mod reclaim;
mod reuse;
mod taken;
mod trees;
mod truncation;
mod walks;
mod written;
