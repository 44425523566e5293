//! The check of the order of locks, by those that are held.
//!
//! In host tests, and wherever the crate is built with the feature `sim`, they are known
//! for each thread. In a kernel that is built with debug assertions they are known
//! for each CPU, once the kernel has said how to tell which one executes
//! ([`track_locks`]); then its debugger may ask for them ([`locks_held`]). Otherwise
//! nothing is known or checked; nor under `loom`, which has all threads on one of the host's.

#[cfg_attr(feature = "loom", path = "order/nobody.rs")]
#[cfg_attr(all(any(test, feature = "sim"), not(feature = "loom")), path = "order/threads.rs")]
#[cfg_attr(all(debug_assertions, not(any(test, feature = "sim"))), path = "order/cpus.rs")]
#[cfg_attr(not(any(test, feature = "sim", debug_assertions)), path = "order/nobody.rs")]
mod holders;

use super::rank;

/// The names of the ranks.
const NAMES: [&str; 15] = [
    "mmap",
    "merging",
    "VMA",
    "prepare",
    "folio",
    "object mappings",
    "anon_vma root",
    "object",
    "page-table",
    "swap",
    "magazine",
    "arena",
    "frame list",
    "frame pool",
    "CPU",
];

/// From now on the order is checked, in a build that does: `current_cpu` returns the
/// number of the CPU that executes the call. While a CPU holds a lock of the crate it
/// goes on with nothing else, interrupt handlers apart.
pub fn track_locks(current_cpu: fn() -> usize) {
    holders::track(current_cpu);
}

/// Calls `f` with what each lock is for that CPU `cpu` holds or waits for, and with the
/// lock's address. For a kernel that has stopped: what the CPU does meanwhile may be
/// seen or not.
pub fn locks_held(cpu: usize, mut f: impl FnMut(&str, usize)) {
    holders::for_each_of(cpu, |rank, address| f(NAMES[rank as usize % NAMES.len()], address));
}

/// A lock is held, or waited for, as long as this exists.
pub(crate) struct Held(holders::Token);

impl Held {
    /// `lock` is going to be waited for.
    ///
    /// # Panics
    ///
    /// If the holder has one that comes later in the order.
    #[inline(always)]
    pub(super) fn wait_for<L>(rank: u8, lock: &L) -> Held {
        let address = core::ptr::from_ref(lock) as usize;
        holders::for_each(|other, at| {
            // Those of page tables are in the records of their frames, so
            // the order of addresses is that of frames.
            let ordered = rank == rank::PAGE_TABLE || rank == rank::ANON_VMA_ROOT;
            let next = ordered && other == rank && at < address;
            let (name, under) = (NAMES[rank as usize], NAMES[other as usize]);
            assert!(other < rank || next, "{name} lock taken under {under} lock");
        });
        Held(holders::add(rank, address))
    }

    /// `lock` has been taken, or will be without waiting.
    #[inline(always)]
    pub(super) fn hold<L>(rank: u8, lock: &L) -> Held {
        Held(holders::add(rank, core::ptr::from_ref(lock) as usize))
    }
}

impl Drop for Held {
    #[inline(always)]
    fn drop(&mut self) {
        holders::remove(&self.0);
    }
}
