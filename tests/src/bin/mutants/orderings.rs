//! Orderings that are too weak, for the model checker `loom`.
//!
//! Interleavings do not show them, nor does the CPU that tests run on: x86 has most of them
//! stronger than they are asked for.

use super::list::{Finder, Mutation};

const LOCK: &str = "mm/src/sync/vma_lock.rs";
const TABLES: &str = "mm/src/paging/mod.rs";
const PCID: &str = "mm/src/paging/pcid.rs";
const FRAME: &str = "mm/src/frame/mod.rs";
const CHECKER: &str = "mm/src/sync/atomic/loom.rs";

const fn ordering(
    scenario: &'static str,
    what: &'static str,
    file: &'static str,
    find: &'static str,
    replace: &'static str,
) -> Mutation {
    Mutation { what, file, find, replace, finder: Finder::Loom(scenario) }
}

/// By the scenario that finds them.
pub const ORDERINGS: &[Mutation] = &[
    ordering(
        "locks::reader_and_writer",
        "ordering: a reader may look for the writer before it is counted",
        LOCK,
        "self.readers.fetch_add(1, Ordering::SeqCst)",
        "self.readers.fetch_add(1, Ordering::AcqRel)",
    ),
    ordering(
        "locks::reader_and_writer",
        "ordering: a reader that is counted may miss the writer",
        LOCK,
        "if self.section.load(Ordering::SeqCst) >=",
        "if self.section.load(Ordering::Acquire) >=",
    ),
    ordering(
        "locks::reader_and_writer",
        "ordering: a reader sees that a section is over, and not what was done in it",
        LOCK,
        "if self.section.load(Ordering::SeqCst) >= current.load(Ordering::Acquire)",
        "if self.section.load(Ordering::SeqCst) >= current.load(Ordering::Relaxed)",
    ),
    ordering(
        "locks::reader_and_writer",
        "ordering: a reader may still read when it has left",
        LOCK,
        "self.readers.fetch_sub(1, Ordering::Release)",
        "self.readers.fetch_sub(1, Ordering::Relaxed)",
    ),
    ordering(
        "locks::reader_and_writer",
        "ordering: a writer may look for readers before it says that it is there",
        LOCK,
        "self.section.store(section, Ordering::SeqCst)",
        "self.section.store(section, Ordering::Release)",
    ),
    ordering(
        "locks::reader_and_writer",
        "ordering: a writer may miss a reader that is counted",
        LOCK,
        "self.readers.load(Ordering::SeqCst)",
        "self.readers.load(Ordering::Acquire)",
    ),
    ordering(
        "locks::readers_and_writer",
        "ordering: a writer may not see that the lock has spread",
        LOCK,
        "        if self.is_spread.load(Ordering::SeqCst) {\n            self.wait_for_slots",
        "        if self.is_spread.load(Ordering::Acquire) {\n            self.wait_for_slots",
    ),
    ordering(
        "locks::readers_and_writer",
        "ordering: a reader in a slot sees that a section is over, and not what was done in it",
        LOCK,
        "if self.section.load(Ordering::SeqCst) < current.load(Ordering::Acquire)",
        "if self.section.load(Ordering::SeqCst) < current.load(Ordering::Relaxed)",
    ),
    ordering(
        "locks::reader_in_a_slot_and_writer",
        "ordering: a reader may look for the writer before it is in its slot",
        LOCK,
        "lock.address(), Ordering::SeqCst, Ordering::Relaxed",
        "lock.address(), Ordering::AcqRel, Ordering::Relaxed",
    ),
    ordering(
        "locks::reader_in_a_slot_and_writer",
        "ordering: a reader in a slot may miss the writer",
        LOCK,
        "if self.section.load(Ordering::SeqCst) <",
        "if self.section.load(Ordering::Acquire) <",
    ),
    ordering(
        "locks::reader_in_a_slot_and_writer",
        "ordering: a writer may miss a reader in a slot",
        LOCK,
        "self.0.load(Ordering::SeqCst) == lock.address()",
        "self.0.load(Ordering::Acquire) == lock.address()",
    ),
    ordering(
        "locks::readers_in_slots_and_writer",
        "ordering: a writer may see a slot empty before the reader has read",
        LOCK,
        "self.0.load(Ordering::SeqCst) == lock.address()",
        "self.0.load(Ordering::Relaxed) == lock.address()",
    ),
    ordering(
        "locks::readers_of_one_slot_and_writer",
        "ordering: a reader may still read when it has left its slot",
        LOCK,
        "self.0.store(0, Ordering::Release)",
        "self.0.store(0, Ordering::Relaxed)",
    ),
    ordering(
        "shootdowns::shootdown_and_switch",
        "ordering: a CPU may read the generation before it is among the active ones",
        TABLES,
        "self.active.fetch_or(CpuSet::single(cpu).0, Ordering::SeqCst)",
        "self.active.fetch_or(CpuSet::single(cpu).0, Ordering::AcqRel)",
    ),
    ordering(
        "shootdowns::shootdown_and_switch",
        "ordering: a CPU that is among the active ones may miss a flush",
        PCID,
        "self.generation.load(Ordering::SeqCst)",
        "self.generation.load(Ordering::Acquire)",
    ),
    ordering(
        "shootdowns::shootdown_and_switch",
        "ordering: a CPU may still use translations when it is not among the active ones any more",
        TABLES,
        "self.active.fetch_and(!CpuSet::single(cpu).0, Ordering::SeqCst)",
        "self.active.fetch_and(!CpuSet::single(cpu).0, Ordering::Relaxed)",
    ),
    ordering(
        "shootdowns::shootdown_and_access",
        "ordering: who flushes may ask which CPUs are active before the flush is counted",
        PCID,
        "self.generation.fetch_add(1, Ordering::SeqCst)",
        "self.generation.fetch_add(1, Ordering::AcqRel)",
    ),
    ordering(
        "shootdowns::shootdown_and_access",
        "ordering: who flushes may miss a CPU that is among the active ones",
        PCID,
        "CpuSet(self.active.load(Ordering::SeqCst))",
        "CpuSet(self.active.load(Ordering::Acquire))",
    ),
    ordering(
        "shootdowns::two_evict_and_one_flushes",
        "ordering: who flushes for all may miss what others have emptied",
        TABLES,
        "self.stale.fetch_add(1, Ordering::Release)",
        "self.stale.fetch_add(1, Ordering::Relaxed)",
    ),
    ordering(
        "shootdowns::two_evict_and_one_flushes",
        "ordering: who flushes for all may count what it has not seen emptied",
        TABLES,
        "let stale = self.stale.load(Ordering::Acquire);",
        "let stale = self.stale.load(Ordering::Relaxed);",
    ),
    ordering(
        "shootdowns::two_evict_and_one_flushes",
        "ordering: that all is flushed may be said before it is",
        TABLES,
        "self.flushed.fetch_max(stale, Ordering::Release)",
        "self.flushed.fetch_max(stale, Ordering::Relaxed)",
    ),
    ordering(
        "shootdowns::two_evict_and_one_flushes",
        "ordering: who sees that another one has flushed may be ahead of that",
        TABLES,
        "self.flushed.load(Ordering::Acquire)",
        "self.flushed.load(Ordering::Relaxed)",
    ),
    ordering(
        "frames::the_last_reference_frees",
        "ordering: a frame may still be read when the reference has been put",
        FRAME,
        "self.refcount.fetch_sub(1, Ordering::AcqRel)",
        "self.refcount.fetch_sub(1, Ordering::Acquire)",
    ),
    ordering(
        "frames::the_last_reference_frees",
        "ordering: who puts the last reference may use the frame before others are done",
        FRAME,
        "self.refcount.fetch_sub(1, Ordering::AcqRel)",
        "self.refcount.fetch_sub(1, Ordering::Release)",
    ),
    ordering(
        "frames::who_comes_across_a_frame",
        "ordering: who comes across a frame may not see what it has become",
        FRAME,
        "fetch_update(Ordering::Acquire, Ordering::Relaxed, more)",
        "fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)",
    ),
    ordering(
        "frames::who_comes_across_a_frame",
        "ordering: a frame may be in use before its record says as what",
        FRAME,
        "// Release: who comes across the frame sees what it is.\n        self.refcount.store(1, Ordering::Release)",
        "// Release: who comes across the frame sees what it is.\n        self.refcount.store(1, Ordering::Relaxed)",
    ),
    ordering(
        "frames::a_page_is_mapped_where_its_record_says",
        "ordering: a page may be mapped before its record says where",
        FRAME,
        "self.mapcount.store(1, Ordering::Release)",
        "self.mapcount.store(1, Ordering::Relaxed)",
    ),
    ordering(
        "frames::a_page_is_mapped_where_its_record_says",
        "ordering: who sees a page mapped may not see where",
        FRAME,
        "self.mapcount.load(Ordering::Acquire)",
        "self.mapcount.load(Ordering::Relaxed)",
    ),
    ordering(
        "litmus::store_and_load",
        "ordering: loom takes SeqCst loads for those that acquire",
        CHECKER,
        "!(order == Ordering::SeqCst && self.is_overwritten(store, self.last_seq_cst))",
        "order != Ordering::SeqCst || store != usize::MAX",
    ),
    ordering(
        "litmus::modify_and_load",
        "ordering: loom takes SeqCst operations for those that acquire and release",
        CHECKER,
        "self.history.lock().execute(store, f(old), order, Some(seen));",
        "self.history.lock().execute(store, f(old), Ordering::AcqRel, Some(seen));",
    ),
    ordering(
        "litmus::stores_seen_by_two",
        "ordering: loom knows no order of SeqCst stores by two threads",
        CHECKER,
        "before.is_seq_cst && after.is_seq_cst || ",
        "",
    ),
    ordering(
        "litmus::message",
        "ordering: loom takes all loads for such that acquire",
        CHECKER,
        "let seen = self.place.load(order);",
        "let seen = self.place.load(Ordering::SeqCst);",
    ),
];
