//! What a debugger may do to memory that the program itself may not access.

use super::*;
use crate::{ClearRefs, HugePages, MappedFile, PMD_SIZE};

fn peek(p: &Process<'_>, addr: usize) -> Result<u8, FaultError> {
    let mut byte = [0];
    p.space.peek(addr, &mut byte).map(|()| byte[0])
}

fn poke(p: &Process<'_>, addr: usize, value: u8) -> Result<(), FaultError> {
    p.space.poke(addr, &[value])
}

#[test]
fn private_memory_can_be_written_to_whatever_its_rights() {
    for prot in [READ, 0] {
        on_machine(512, |mem| {
            let p = filled(mem, 3);
            p.mmap(BASE + 3 * PAGE, 3 * PAGE, RW, PRIVATE | ANON | FIXED).unwrap();
            p.read(BASE + 3 * PAGE).unwrap();
            p.space.mprotect(BASE, 6 * PAGE, prot).unwrap();
            // A page that is there, the page of zeroes, and nothing yet.
            for (page, before) in [(0, 1), (3, 0), (4, 0)] {
                let addr = BASE + page * PAGE;
                assert_eq!(peek(&p, addr), Ok(before));
                poke(&p, addr, 77).unwrap();
                assert_eq!(peek(&p, addr), Ok(77));
                assert_eq!(p.write(addr, 5), Err(FaultError::AccessDenied));
                assert_eq!(p.read(addr).is_ok(), prot == READ);
            }
            assert_eq!(p.space.stats().rss_anon, 5);
            check(&[&p]);
            p.space.mprotect(BASE, 6 * PAGE, RW).unwrap();
            assert_eq!((p.read(BASE), p.read(BASE + 4 * PAGE), p.read(BASE + PAGE)), (Ok(77), Ok(77), Ok(2)));
            p.write(BASE, 5).unwrap();
            check(&[&p]);
        });
    }
}

#[test]
fn relatives_keep_what_is_theirs() {
    on_machine(512, |mem| {
        let p = filled(mem, 2);
        p.space.mprotect(BASE, 2 * PAGE, READ).unwrap();
        let child = p.fork().unwrap();
        poke(&p, BASE, 50).unwrap();
        poke(&child, BASE + PAGE, 60).unwrap();
        assert_eq!([&p, &child].map(|p| (p.read(BASE), p.read(BASE + PAGE))), [(Ok(50), Ok(2)), (Ok(1), Ok(60))]);
        check(&[&p, &child]);
    });
}

#[test]
fn a_private_mapping_of_a_file_gets_a_copy_and_a_shared_one_refuses() {
    on_machine(512, |mem| {
        let object = mem.create_object(1, b"file").unwrap();
        object.set_size(2 * PAGE as u64).unwrap();
        object.write(0, b"ab").unwrap();
        let p = Process::new(mem);
        let map = |flags| {
            let file = Some(MappedFile { object: &object, readable: true, writable: true });
            p.space.mmap(MmapRequest { addr: 0, len: 2 * PAGE, prot: READ, flags, file, offset: 0 }).unwrap()
        };
        let (private, shared) = (map(PRIVATE), map(SHARED));
        poke(&p, private, b'x').unwrap();
        assert_eq!((p.read(private), p.read(private + 1), p.read(shared)), (Ok(b'x'), Ok(b'b'), Ok(b'a')));
        assert_eq!(poke(&p, shared, b'x'), Err(FaultError::AccessDenied));
        assert_eq!(peek(&p, shared), Ok(b'a'));
        p.space.mprotect(shared, PAGE, RW).unwrap();
        poke(&p, shared, b'y').unwrap();
        assert_eq!((p.read(shared), p.read(private)), (Ok(b'y'), Ok(b'x')));
        assert_eq!(poke(&p, BASE, 1), Err(FaultError::NotMapped));
        check(&[&p]);
    });
}

#[test]
fn a_page_in_swap_comes_back_for_it() {
    const PAGEOUT: usize = 21;
    let mem = sim::memory_with_swap(1, 512, 64);
    let p = filled(&mem, 2);
    p.space.mprotect(BASE, 2 * PAGE, 0).unwrap();
    p.space.madvise(BASE, 2 * PAGE, PAGEOUT).unwrap();
    assert_eq!(p.space.stats().swapped, 2);
    poke(&p, BASE + 1, 9).unwrap();
    assert_eq!((peek(&p, BASE), peek(&p, BASE + 1), peek(&p, BASE + PAGE)), (Ok(1), Ok(9), Ok(2)));
    check(&[&p]);
}

#[test]
fn a_huge_page_stays_one_if_it_is_nobody_elses() {
    on_machine(8 * 512, |mem| {
        mem.sysctl().set_huge_pages(HugePages::Always);
        let at = BASE + PMD_SIZE;
        let p = Process::new(mem);
        p.mmap(at, PMD_SIZE, READ, PRIVATE | ANON | FIXED).unwrap();
        poke(&p, at + PAGE, 3).unwrap();
        assert_eq!(p.space.stats().rss_anon, 512);
        assert_eq!(p.write(at + PAGE, 1), Err(FaultError::AccessDenied));
        let child = p.fork().unwrap();
        poke(&child, at + PAGE, 4).unwrap();
        assert_eq!((p.read(at + PAGE), child.read(at + PAGE)), (Ok(3), Ok(4)));
        check(&[&p, &child]);
    });
}

#[test]
fn who_asks_what_was_written_to_hears_of_it() {
    on_machine(512, |mem| {
        let p = filled(mem, 2);
        p.space.mprotect(BASE, 2 * PAGE, READ).unwrap();
        p.space.clear_refs(ClearRefs::SoftDirty);
        poke(&p, BASE, 9).unwrap();
        peek(&p, BASE + PAGE).unwrap();
        let mut found = Vec::new();
        let range = PageRange::from_len(BASE, 2 * PAGE).unwrap();
        p.space.for_each_page(range, |page| found.push(page.soft_dirty));
        assert_eq!(found, [true, false]);
    });
}

#[test]
fn without_memory_nothing_has_been_written() {
    on_machine(512, |mem| {
        let p = filled(mem, 1);
        p.map_at(BASE + PAGE, 1);
        p.space.mprotect(BASE, 2 * PAGE, READ).unwrap();
        let child = p.fork().unwrap();
        for addr in [BASE, BASE + PAGE] {
            let before = peek(&p, addr);
            mem.fail_nth_allocation(1);
            assert_eq!(poke(&p, addr, 9), Err(FaultError::OutOfMemory));
            mem.fail_nth_allocation(0);
            assert_eq!(peek(&p, addr), before);
            poke(&p, addr, 9).unwrap();
            assert_eq!((peek(&p, addr), peek(&child, addr)), (Ok(9), before));
        }
        check(&[&p, &child]);
    });
}
