//! `mprotect`: access, contents, splits.

use tests::arena::Arena;
use tests::case::Outcome;
use tests::mem::{self, Fault};
use tests::sys::{self, *};
use tests::{cases, check, check_eq};

cases!["mprotect":
    takes_write, gives_write, takes_all, before_first_touch, splits_and_merges, splits_at_the_ends,
    across_mappings, hole_in_the_range, hole_at_the_start, empty_range, length_rounds_up, zero_page_to_write,
    all_combinations, large, growsdown_flag, only_part_is_touched,
];

fn takes_write() -> Outcome {
    let arena = Arena::new(4)?;
    arena.map(0, 4, RW)?;
    arena.fill(0, 4, 1)?;
    arena.protect(0, 4, R)?;
    check_eq!(mem::write(arena.at(1) + 3, 1), Err(Fault::denied(arena.at(1) + 3)));
    check!(arena.holds(0, 4, 1)?);
    Ok(())
}

fn gives_write() -> Outcome {
    let arena = Arena::new(4)?;
    arena.map(0, 4, R)?;
    check!(mem::is_zero(arena.at(0), 4)?);
    arena.protect(0, 4, RW)?;
    arena.fill(0, 4, 1)?;
    check!(arena.holds(0, 4, 1)?);
    Ok(())
}

fn takes_all() -> Outcome {
    let arena = Arena::new(4)?;
    arena.map(0, 4, RW)?;
    arena.fill(0, 4, 1)?;
    arena.protect(0, 4, NONE)?;
    check_eq!(mem::read(arena.at(2)), Err(Fault::denied(arena.at(2))));
    arena.protect(0, 4, RW)?;
    check!(arena.holds(0, 4, 1)?);
    Ok(())
}

fn before_first_touch() -> Outcome {
    let arena = Arena::new(4)?;
    arena.map(0, 4, NONE)?;
    arena.protect(0, 4, RW)?;
    check!(mem::is_zero(arena.at(0), 4)?);
    arena.fill(0, 4, 1)?;
    check!(arena.holds(0, 4, 1)?);
    Ok(())
}

fn splits_and_merges() -> Outcome {
    let arena = Arena::new(8)?;
    arena.map(0, 8, RW)?;
    arena.fill(0, 8, 1)?;
    arena.protect(3, 5, R)?;
    check_eq!(arena.layout(), "[0-3 rw-][3-5 r--][5-8 rw-]");
    arena.protect(3, 5, RW)?;
    check_eq!(arena.layout(), "[0-8 rw-]");
    check!(arena.holds(0, 8, 1)?);
    Ok(())
}

fn splits_at_the_ends() -> Outcome {
    let arena = Arena::new(8)?;
    arena.map(0, 8, RW)?;
    arena.fill(0, 8, 1)?;
    arena.protect(0, 2, R)?;
    arena.protect(6, 8, NONE)?;
    check_eq!(arena.layout(), "[0-2 r--][2-6 rw-][6-8 ---]");
    arena.protect(2, 6, R)?;
    check_eq!(arena.layout(), "[0-6 r--][6-8 ---]");
    arena.protect(6, 8, R)?;
    check_eq!(arena.layout(), "[0-8 r--]");
    check!(arena.holds(0, 8, 1)?);
    Ok(())
}

fn across_mappings() -> Outcome {
    let arena = Arena::new(12)?;
    arena.map(0, 4, RW)?;
    arena.map(4, 8, R)?;
    arena.map(8, 12, NONE)?;
    arena.fill(0, 4, 1)?;
    arena.protect(2, 10, R | X)?;
    check_eq!(arena.layout(), "[0-2 rw-][2-4 r-x][4-10 r-x][10-12 ---]");
    Ok(())
}

fn hole_in_the_range() -> Outcome {
    let arena = Arena::new(12)?;
    arena.map(0, 4, RW)?;
    arena.map(6, 10, RW)?;
    // What lies before the hole is changed all the same.
    check_eq!(arena.protect(2, 8, R), Err(Errno(libc::ENOMEM)));
    check_eq!(arena.layout(), "[0-2 rw-][2-4 r--][6-10 rw-]");
    Ok(())
}

fn hole_at_the_start() -> Outcome {
    let arena = Arena::new(12)?;
    arena.map(2, 4, RW)?;
    check_eq!(arena.protect(0, 4, R), Err(Errno(libc::ENOMEM)));
    check_eq!(arena.layout(), "[2-4 rw-]");
    Ok(())
}

fn empty_range() -> Outcome {
    let arena = Arena::new(4)?;
    check_eq!(arena.protect(1, 1, R)?, 0);
    Ok(())
}

fn length_rounds_up() -> Outcome {
    let arena = Arena::new(4)?;
    arena.map(0, 4, RW)?;
    sys::mprotect(arena.at(1), 1, R)?;
    check_eq!(arena.layout(), "[0-1 rw-][1-2 r--][2-4 rw-]");
    Ok(())
}

fn zero_page_to_write() -> Outcome {
    // A page that was only read must not become writable zeroes for everybody.
    let arena = Arena::new(4)?;
    arena.map(0, 4, RW)?;
    check!(mem::is_zero(arena.at(0), 4)?);
    arena.protect(0, 4, R)?;
    arena.protect(0, 4, RW)?;
    mem::write(arena.at(1), 9)?;
    check_eq!(mem::read(arena.at(0))?, 0);
    check_eq!(mem::read(arena.at(1))?, 9);
    let other = sys::mmap(0, PAGE, RW, ANON)?;
    check_eq!(mem::read(other)?, 0);
    Ok(())
}

fn all_combinations() -> Outcome {
    const RET: u8 = 0xc3;
    let addr = sys::mmap(0, PAGE, RW, ANON)?;
    mem::write(addr, RET)?;
    for from in 0..8 {
        for to in 0..8 {
            sys::mprotect(addr, PAGE, from)?;
            sys::mprotect(addr, PAGE, to)?;
            let denied = Err(Fault::denied(addr));
            // On x86-64 what can be written or executed can be read; and without
            // protection keys PROT_EXEC alone allows reading too.
            if to == 0 {
                check_eq!(mem::read(addr), denied.map(|()| 0));
            } else if to != X {
                check_eq!(mem::read(addr), Ok(RET));
            }
            // With protection keys a violation of PROT_EXEC alone has another code.
            match mem::write(addr, RET) {
                Err(fault) if to == X => check_eq!((fault.signal, fault.addr), (libc::SIGSEGV, addr)),
                written => check_eq!(written, if to & W != 0 { Ok(()) } else { denied }),
            }
            check_eq!(mem::execute(addr), if to & X != 0 { Ok(()) } else { denied });
        }
    }
    Ok(())
}

fn large() -> Outcome {
    const PAGES: usize = 3000;
    let arena = Arena::new(PAGES)?;
    arena.map(0, PAGES, RW)?;
    arena.fill(0, PAGES, 1)?;
    arena.protect(0, PAGES, R)?;
    for page in (0..PAGES).step_by(97) {
        check_eq!(mem::write(arena.at(page), 1), Err(Fault::denied(arena.at(page))));
    }
    arena.protect(0, PAGES, RW)?;
    check!(arena.holds(0, PAGES, 1)?);
    arena.fill(0, PAGES, 2)?;
    check!(arena.holds(0, PAGES, 2)?);
    Ok(())
}

fn growsdown_flag() -> Outcome {
    const PROT_GROWSDOWN: usize = 0x0100_0000;
    let arena = Arena::new(600)?;
    arena.map(0, 2, RW)?;
    check_eq!(arena.protect(0, 2, R | PROT_GROWSDOWN), Err(Errno(libc::EINVAL)));
    arena.map_with(590, 600, RW, GROWSDOWN)?;
    // Down to the start of the mapping, whatever the address.
    arena.protect(595, 596, R | PROT_GROWSDOWN)?;
    check_eq!(arena.layout(), "[0-2 rw-][590-596 r--][596-600 rw-]");
    Ok(())
}

fn only_part_is_touched() -> Outcome {
    let arena = Arena::new(16)?;
    arena.map(0, 16, RW)?;
    for page in (0..16).step_by(3) {
        mem::write(arena.at(page), 1 + page as u8)?;
    }
    arena.protect(0, 16, R)?;
    for page in 0..16 {
        check_eq!(mem::read(arena.at(page))?, if page % 3 == 0 { 1 + page as u8 } else { 0 });
    }
    Ok(())
}
