//! The VMAs of an address space: finding, making, merging, splitting them.
//!
//! A [`Vma`] is a range of pages that are all alike; a [`VmaTree`] has those of
//! one address space. Two neighbours that could be one VMA are one whenever an
//! operation makes them so, by the rules of `merge.rs`.
//!
//! # How an operation works
//!
//! With the mmap lock held for writing, find and *plan*, then *reserve*, then
//! *commit*. Only reserving can fail, and then nothing has changed:
//!
//! ```text
//! let plan = tree.plan_modify(vma, range, flags, name);
//! // limits: tree.len() + plan.needs().vmas() VMAs at most
//! let mut spares = Spares::reserve(memory, plan.needs())?;
//! // ... whatever else can fail ...
//! let vma = plan.commit(&mut tree, memory, &mut spares);
//! ```
//!
//! - *Map*: [`VmaTree::plan_map`] with a [`NewMapping`]. Where VMAs must be
//!   unmapped before there is a plan, reserve for the worst case:
//!   [`Needs::map`] and what the unmapping needs.
//! - *Change a range in one VMA*: [`VmaTree::plan_modify`].
//! - *Unmap*: reserve [`Needs::hole`] for the VMA that has it, if one has;
//!   [`VmaTree::split`] that at the hole's end. For each of the VMAs, unmap the
//!   pages; then [`VmaTree::cut`] one of which something stays, for the others
//!   [`VmaTree::remove`] and [`retire`].
//! - *Grow* a VMA (a stack) or shrink it: [`VmaTree::resize`]. To grow one and
//!   merge it with the next (`mremap`): map what is to be added, with the same
//!   attributes, the page index that goes on, and `copied_from` the VMA itself.
//! - *Move*: if all of a VMA moves and merges with no other where it goes
//!   ([`MapPlan::moves_whole`]), it stays the same VMA
//!   ([`MapPlan::commit_whole`]). Else reserve [`Needs::moved`] and map the new
//!   range with `copied_from`. Then look the source up again, for it may have
//!   become part of the new VMA, and unmap its range.
//! - *Move and leave an empty VMA behind* (`MREMAP_DONTUNMAP`): where all of one
//!   moves and merges with no other, a new one takes over its chain
//!   ([`MapPlan::commit_successor`]). Else map the new range with `copied_from`,
//!   and then, if all of it has moved, [`unlink`](crate::rmap::unlink) the
//!   source. Either way it is rebased ([`VmaTree::rebase`]).
//! - *First write fault* of a private VMA: [`prepare`](crate::rmap::prepare).
//! - *Fork*: for each VMA, reserve [`Needs::fork`], then
//!   [`VmaTree::append_fork`] to the child's tree.
//! - *Exit*: unmap all pages, then [`VmaTree::clear`].
//! - *Find room*: [`VmaTree::gap_top_down`], [`VmaTree::gap_bottom_up`].
//!
//! # What always holds
//!
//! - VMAs are not empty and do not overlap; tree, list, gaps and count agree
//!   ([`VmaTree::verify`] checks that).
//! - A VMA that is in a tree is attached; it has a reference to its object;
//!   its chain is as `rmap` describes.

mod area;
mod gap;
mod index;
mod map;
mod merge;
mod modify;
mod spares;
mod tree;

#[cfg(test)]
pub(crate) mod tests;

pub(crate) use area::{Attributes, STACK_GUARD_GAP, Vma};
pub(crate) use gap::GapRequest;
pub(crate) use index::{Miss, VmaIndex};
pub(crate) use map::{MapPlan, MergeWith, NewMapping, retire};
pub(crate) use spares::{Needs, Spares};
pub(crate) use tree::VmaTree;
