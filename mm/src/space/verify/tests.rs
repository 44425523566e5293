//! That the checks notice what they are there for.

use crate::paging::EntryFlags;
use crate::space::tests::{BASE, PAGE, Process, machine};
use crate::space::verify_all;
use crate::{FrameKind, VmaFlags};

/// Runs `break_it` on a sound process with four private pages and expects the
/// check to notice.
fn notices(what: &str, break_it: impl FnOnce(&Process<'_>)) {
    let mem = machine(1024);
    let p = Process::new(&mem);
    p.map_at(BASE, 4);
    p.fill(BASE, 4);
    verify_all(&[&p.space]);
    break_it(&p);
    let check = std::panic::AssertUnwindSafe(|| verify_all(&[&p.space]));
    let caught = std::panic::catch_unwind(check).expect_err("not noticed");
    let message = caught.downcast_ref::<String>().expect("a message");
    assert!(message.contains(what), "{message:?} is not about {what:?}");
    // What is broken cannot be taken down in order.
    std::mem::forget(p);
    std::mem::forget(mem);
}

fn record<'p>(p: &'p Process<'_>, page: usize) -> &'p crate::Frame {
    let entry = p.space.core.tables.lookup(p.space.mem, BASE + page * PAGE);
    p.space.mem.frame(entry.expect("a page").pfn())
}

#[test]
fn a_wrong_index() {
    notices("index of the private page", |p| record(p, 1).set_index(7));
}

#[test]
fn a_page_without_an_anon_vma() {
    notices("has no anon_vma", |p| record(p, 1).set_mapping(0));
}

#[test]
fn a_mapping_that_is_not_counted() {
    notices("references to the private page", |p| {
        record(p, 3).dec_mapcount();
    });
}

#[test]
fn a_mapping_of_nothing() {
    notices("references to the private page", |p| {
        record(p, 3).inc_mapcount();
    });
}

#[test]
fn a_page_outside_of_every_vma() {
    notices("where nothing is mapped", |p| {
        let slot = p.space.core.tables.lock_pte(p.space.mem, BASE).expect("a table");
        let entry = slot.take();
        drop(slot);
        let slot = p.space.core.tables.lock_pte(p.space.mem, BASE + 8 * PAGE);
        slot.expect("a table").set(entry);
    });
}

#[test]
fn a_page_that_can_be_written_against_the_vma() {
    notices("can be written", |p| {
        let mut state = p.space.mmap.write();
        let vma = state.vmas.lookup(BASE).expect("a VMA");
        let flags = vma.flags() - VmaFlags::WRITE;
        state.vmas.set_flags(vma, flags);
        // Which is data no more.
        state.totals.data = 0;
    });
}

#[test]
fn a_page_that_may_be_executed_against_the_vma() {
    notices("protection of the page", |p| {
        let slot = p.space.core.tables.lock_pte(p.space.mem, BASE).expect("a table");
        slot.update(|entry| entry.without(EntryFlags::NO_EXEC));
    });
}

#[test]
fn counters_that_are_off_by_one() {
    notices("sizes of all VMAs", |p| p.space.mmap.write().totals.locked += 1);
    notices("sizes of all VMAs", |p| p.space.mmap.write().totals.data -= 1);
    notices("commit charge", |p| p.space.mem.recharge_commit(1));
    notices("resident pages", |p| {
        p.space.core.resident.sub(super::ResidentKind::Anon, 1);
    });
}

#[test]
fn a_lost_page() {
    notices("private pages lost", |p| {
        let frame = p.space.mem.alloc(FrameKind::Anon, 0).expect("a frame");
        frame.into_raw();
    });
}

#[test]
fn a_lost_page_table() {
    notices("page tables lost", |p| {
        let frame = p.space.mem.alloc(FrameKind::Table, 0).expect("a frame");
        frame.into_raw();
    });
}

#[test]
fn a_page_table_for_nothing() {
    notices("where nothing is mapped", |p| {
        let slot = p.space.core.tables.lock_pte_alloc(p.space.mem, 2 * BASE);
        drop(slot.expect("memory"));
    });
}

#[test]
fn beside_others_only_what_they_cannot_change_is_verified() {
    let mem = machine(1024);
    let p = Process::new(&mem);
    p.map_at(BASE, 4);
    p.fill(BASE, 4);
    // As a relative does that copies the page.
    record(&p, 1).get();
    p.space.verify_beside_others();
    let check = std::panic::AssertUnwindSafe(|| p.space.verify());
    std::panic::catch_unwind(check).expect_err("a reference too many is not noticed");
    assert!(!record(&p, 1).release());
    p.space.verify();
    record(&p, 2).set_index(7);
    let check = std::panic::AssertUnwindSafe(|| p.space.verify_beside_others());
    std::panic::catch_unwind(check).expect_err("a wrong index is not noticed");
    // What is broken cannot be taken down in order.
    std::mem::forget(p);
    std::mem::forget(mem);
}
