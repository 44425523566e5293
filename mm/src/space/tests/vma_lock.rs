//! Faults that take the lock of their VMA, and those that have to take the mmap lock.

use super::*;
use crate::slab::Ref;
use crate::space::fault::Fallback;
use crate::vma::{Miss, Vma};

/// The VMA at `addr`.
fn vma_at(p: &Process<'_>, addr: usize) -> Ref<Vma> {
    p.space.mmap.read().vmas.lookup(addr).expect("a VMA")
}

/// What comes of a fault for writing without the mmap lock.
fn fault(p: &Process<'_>, addr: usize) -> Result<Result<(), FaultError>, Fallback> {
    p.space.fault_in_vma(addr, FaultAccess::WRITE)
}

/// What comes of locking a VMA that a walk to `addr` has come to.
fn lock_found(p: &Process<'_>, vma: Ref<Vma>, addr: usize) -> Result<(), Miss> {
    p.space.mmap.index().lock(vma, addr, p.space.id(), || p.space.reader_slot()).map(drop)
}

fn is_mapped(p: &Process<'_>, addr: usize) -> bool {
    p.space.core.tables.lookup(p.space.mem, addr).is_some()
}

#[test]
fn a_fault_needs_no_mmap_lock() {
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 4);
        p.fill(BASE, 1);
        let _writer = p.space.mmap.write();
        // This would wait for ever if it took the lock.
        assert_eq!(p.write(BASE + PAGE, 7), Ok(()));
        assert_eq!(p.read(BASE + PAGE), Ok(7));
        assert_eq!(p.read(BASE + 2 * PAGE), Ok(0));
    });
}

#[test]
fn an_access_that_is_denied_needs_no_mmap_lock() {
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 4);
        p.fill(BASE, 1);
        assert_eq!(p.space.mprotect(BASE, 4 * PAGE, READ), Ok(()));
        assert_eq!(fault(&p, BASE), Ok(Err(FaultError::AccessDenied)));
    });
}

#[test]
fn the_first_write_takes_the_mmap_lock() {
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 4);
        assert_eq!(fault(&p, BASE), Err(Fallback::FirstWrite));
        assert_eq!(p.space.handle_fault(BASE, FaultAccess::WRITE), Ok(()));
        assert_eq!(fault(&p, BASE + PAGE), Ok(Ok(())));
        let shared = BASE + 8 * PAGE;
        assert_eq!(p.mmap(shared, PAGE, RW, SHARED | ANON | FIXED), Ok(shared));
        assert_eq!(fault(&p, shared), Ok(Ok(())), "nothing is private here");
    });
}

#[test]
fn where_no_vma_is_the_mmap_lock_tells() {
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        assert_eq!(fault(&p, BASE), Err(Fallback::NotFound));
        assert_eq!(p.space.handle_fault(BASE, FaultAccess::WRITE), Err(FaultError::NotMapped));
        let top = p.space.map_stack(false).unwrap();
        let below = top - 4 * PAGE;
        assert_eq!(fault(&p, below), Err(Fallback::NotFound));
        assert_eq!(p.space.handle_fault(below, FaultAccess::WRITE), Ok(()), "the stack grows");
        assert_eq!(fault(&p, below + PAGE), Ok(Ok(())));
    });
}

#[test]
fn a_writer_keeps_faults_out_of_the_vma_it_changes_and_no_other() {
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        let other = BASE + 16 * PAGE;
        p.map_at(BASE, 4);
        p.map_at(other, 4);
        p.fill(BASE, 1);
        p.fill(other, 1);
        let vma = vma_at(&p, BASE);
        {
            let mut state = p.space.mmap.write();
            state.vmas.lock_vma(vma);
            assert_eq!(fault(&p, BASE + PAGE), Err(Fallback::Missed(Miss::Locked)));
            assert_eq!(fault(&p, other + PAGE), Ok(Ok(())));
        }
        assert_eq!(fault(&p, BASE + PAGE), Ok(Ok(())), "released with the mmap lock");
    });
}

#[test]
fn a_new_vma_is_locked_until_it_is_complete() {
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 4);
        p.fill(BASE, 1);
        let vma = vma_at(&p, BASE);
        let mut state = p.space.mmap.write();
        let mut spares = crate::vma::Spares::reserve(mem, crate::vma::Needs::split(vma)).unwrap();
        let upper = state.vmas.split(mem, vma, BASE + 2 * PAGE, &mut spares);
        assert_eq!(lock_found(&p, upper, BASE + 2 * PAGE), Err(Miss::Locked));
        assert_eq!(lock_found(&p, vma, BASE), Err(Miss::Locked));
        drop(state);
        assert_eq!(lock_found(&p, upper, BASE + 2 * PAGE), Ok(()));
        assert_eq!(lock_found(&p, upper, BASE), Err(Miss::Changed), "the wrong half");
        assert_eq!(lock_found(&p, vma, BASE), Ok(()));
    });
}

#[test]
fn a_vma_that_was_removed_is_not_taken_for_one() {
    on_machine(1024, |mem| {
        let (p, q) = (Process::new(mem), Process::new(mem));
        p.map_at(BASE, 4);
        p.fill(BASE, 1);
        // What the other locks looks released: its sections have lower numbers.
        for _ in 0..10 {
            p.map_at(3 * BASE, 4);
            assert_eq!(p.space.munmap(3 * BASE, 4 * PAGE), Ok(()));
        }
        let stale = vma_at(&p, BASE);
        assert_eq!(lock_found(&p, stale, BASE), Ok(()));
        assert_eq!(p.space.munmap(BASE, 4 * PAGE), Ok(()));
        assert_eq!(lock_found(&p, stale, BASE), Err(Miss::Changed), "detached");

        p.map_at(2 * BASE, 4);
        assert_eq!(vma_at(&p, 2 * BASE), stale, "used again");
        assert_eq!(lock_found(&p, stale, BASE), Err(Miss::Changed), "elsewhere");
        assert_eq!(lock_found(&p, stale, 2 * BASE), Ok(()));
        assert_eq!(p.space.munmap(2 * BASE, 4 * PAGE), Ok(()));

        q.map_at(BASE, 4);
        assert_eq!(vma_at(&q, BASE), stale, "used again");
        assert_eq!(lock_found(&p, stale, BASE), Err(Miss::Changed), "another address space's");
        assert_eq!(lock_found(&q, stale, BASE), Ok(()));
    });
}

#[test]
fn a_walk_that_goes_astray_ends() {
    on_machine(1024, |mem| {
        let (p, q) = (Process::new(mem), Process::new(mem));
        p.map_at(BASE, 4);
        p.fill(BASE, 1);
        q.map_at(3 * BASE, 4);
        {
            // What the walk starts at leaves the tree, and is the other's by then.
            let mut state = p.space.mmap.write();
            let vma = state.vmas.lookup(BASE).unwrap();
            state.vmas.lock_vma(vma);
            p.space.unmap(&mut state, PageRange::new(BASE, BASE + 4 * PAGE).unwrap()).unwrap();
            let of_q = || {
                q.map_at(BASE, 4);
                vma_at(&q, BASE)
            };
            let reused = std::thread::scope(|scope| scope.spawn(of_q).join().unwrap());
            assert_eq!(reused, vma, "used again");
            let fault = p.space.fault_in_vma(BASE, FaultAccess::READ);
            assert!(matches!(fault, Err(Fallback::Missed(_))), "{fault:?}");
            assert!(!is_mapped(&p, BASE));
        }
        assert_eq!(p.space.handle_fault(BASE, FaultAccess::READ), Err(FaultError::NotMapped));
    });
}

/// Holds the lock of the VMA at `BASE` as a fault in it would, while `change` runs
/// in another thread, and checks that `change` does not get to what it wants to
/// change before the lock is released.
fn waits_for_the_fault(change: impl Fn(&Process<'_>) + Sync) {
    on_machine(4096, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 4);
        p.fill(BASE, 4);
        let before = p.map(BASE);
        let entry = || p.space.core.tables.lookup(mem, BASE);
        let present = entry();
        let found = p.space.mmap.index().find(BASE).unwrap();
        let fault = p.space.mmap.index().lock(found, BASE, p.space.id(), || p.space.reader_slot()).ok().unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| change(&p));
            // Once the writer waits, nobody else gets the lock.
            while lock_found(&p, found, BASE) == Ok(()) && !writer.is_finished() {
                std::thread::yield_now();
            }
            for _ in 0..100 {
                std::thread::yield_now();
                assert!(!writer.is_finished());
                assert!(found.is_attached() && found.contains(BASE));
                assert_eq!(entry(), present, "changed under a fault");
            }
            drop(fault);
            writer.join().unwrap();
        });
        assert!(p.map(BASE) != before || entry() != present, "nothing was changed");
    });
}

#[test]
fn munmap_waits_for_faults() {
    waits_for_the_fault(|p| p.space.munmap(BASE, 4 * PAGE).unwrap());
    waits_for_the_fault(|p| p.space.munmap(BASE + PAGE, PAGE).unwrap());
}

#[test]
fn mprotect_waits_for_faults() {
    waits_for_the_fault(|p| p.space.mprotect(BASE, 4 * PAGE, READ).unwrap());
    waits_for_the_fault(|p| p.space.mprotect(BASE, PAGE, READ).unwrap());
}

#[test]
fn mremap_waits_for_faults() {
    let to = 2 * BASE;
    let fixed = MAYMOVE | MREMAP_FIXED;
    waits_for_the_fault(|p| assert_eq!(p.space.mremap(BASE, 4 * PAGE, 4 * PAGE, fixed, to), Ok(to)));
    waits_for_the_fault(|p| assert_eq!(p.space.mremap(BASE, 2 * PAGE, 2 * PAGE, fixed, to), Ok(to)));
    waits_for_the_fault(|p| assert_eq!(p.space.mremap(BASE, 4 * PAGE, 4 * PAGE, MAYMOVE | DONTUNMAP, to), Ok(to)));
    waits_for_the_fault(|p| {
        // It is what the move replaces.
        p.map_at(to, 4);
        assert_eq!(p.space.mremap(to, 4 * PAGE, 4 * PAGE, fixed, BASE), Ok(BASE));
    });
}

#[test]
fn fork_waits_for_faults() {
    waits_for_the_fault(|p| drop(p.fork().unwrap()));
}

#[test]
fn a_mapping_that_merges_waits_for_faults() {
    waits_for_the_fault(|p| {
        p.map_at(BASE + 4 * PAGE, 4);
    });
}
