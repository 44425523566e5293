//! What is counted, and TLB flushes that there are or are not.

use super::*;
use crate::Event;

const EXEC: usize = 4;

/// Which events `f` made, and how often.
fn events(mem: &Memory<SimPlatform>, f: impl FnOnce()) -> Vec<(Event, u64)> {
    let counts = || Event::ALL.map(|event| mem.events(event));
    let before = counts();
    f();
    let made = Event::ALL.into_iter().zip(counts()).zip(before);
    made.map(|((event, now), before)| (event, now - before)).filter(|&(_, count)| count != 0).collect()
}

#[test]
fn faults_count_by_how_they_were_resolved() {
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 8);
        let fault = |page: usize, access| p.space.handle_fault(BASE + page * PAGE, access);
        let made = events(mem, || assert_eq!(fault(0, FaultAccess::WRITE), Ok(())));
        assert_eq!(made, [(Event::FaultFirstWrite, 1)]);
        let made = events(mem, || {
            for page in 1..8 {
                assert_eq!(fault(page, FaultAccess::WRITE), Ok(()));
            }
        });
        assert_eq!(made, [(Event::FaultVmaLocked, 7)]);
        let made = events(mem, || assert_eq!(fault(8, FaultAccess::READ), Err(FaultError::NotMapped)));
        assert_eq!(made, [(Event::FaultVmaNotFound, 1)]);
    });
}

#[test]
fn flushes_count_by_what_they_are_for() {
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 8);
        p.fill(BASE, 8);
        let made = events(mem, || p.space.mprotect(BASE, 4 * PAGE, READ).unwrap());
        assert_eq!(made, [(Event::FlushProtect, 1)]);
        let made = events(mem, || p.space.munmap(BASE, 4 * PAGE).unwrap());
        assert_eq!(made, [(Event::FlushUnmap, 1)]);
        let child = p.space.fork();
        let made = events(mem, || p.write(BASE + 4 * PAGE, 1).unwrap());
        assert_eq!(made, [(Event::FaultVmaLocked, 1), (Event::FlushCopy, 1)]);
        drop(child);
        let made = events(mem, || drop(p.space.fork().unwrap()));
        assert_eq!(made, [(Event::FlushFork, 1)]);
        let made = events(mem, || {
            p.space.mremap(BASE + 4 * PAGE, PAGE, PAGE, MAYMOVE | MREMAP_FIXED, 2 * BASE).unwrap();
        });
        assert!(made.contains(&(Event::FlushMove, 1)), "{made:?}");
    });
}

#[test]
fn a_permission_that_is_added_needs_no_flush() {
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 8);
        p.fill(BASE, 8);
        let protect = |prot| p.space.mprotect(BASE, 8 * PAGE, prot).unwrap();
        protect(0);
        let made = events(mem, || {
            protect(READ);
            protect(RW);
            protect(RW | EXEC);
        });
        assert_eq!(made, [], "nothing to be forgotten");
        p.assert_filled(BASE, 8);
        p.write(BASE, 9).unwrap();
        // Nor does a page that becomes writable, being nobody else's any more.
        drop(p.fork().unwrap());
        let made = events(mem, || p.write(BASE, 10).unwrap());
        assert_eq!(made, [(Event::FaultVmaLocked, 1)]);
        for less in [RW, READ, 0] {
            let made = events(mem, || protect(less));
            assert_eq!(made, [(Event::FlushProtect, 1)], "down to {less}");
        }
    });
}

#[test]
fn only_cpus_that_run_the_address_space_are_flushed() {
    let mem = sim::memory(4, 1024);
    let p = Process::new(&mem);
    p.space.activate(2);
    p.map_at(BASE, 4);
    p.fill(BASE, 4);
    mem.platform().record_flushes();
    p.space.munmap(BASE, 2 * PAGE).unwrap();
    p.space.deactivate(2);
    p.space.munmap(BASE + 2 * PAGE, PAGE).unwrap();
    p.space.deactivate(0);
    p.space.munmap(BASE + 3 * PAGE, PAGE).unwrap();
    let targets: Vec<u64> = mem.platform().take_flushes().iter().map(|(targets, _)| targets.0).collect();
    assert_eq!(targets, [0b101, 0b1], "none where nobody runs it");
}
