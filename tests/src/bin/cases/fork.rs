//! `fork`: copy on write, in every direction.

use tests::arena::Arena;
use tests::case::Outcome;
use tests::mem::{self, Fault};
use tests::sys::{self, *};
use tests::{cases, check, check_eq};

cases!["fork":
    child_sees_contents, child_writes_are_its_own, parent_writes_are_its_own, three_generations, siblings,
    many_pages, untouched_and_zero_pages, access_is_inherited, child_unmaps, child_maps_over, layout_is_inherited,
    growsdown_is_inherited, last_owner_writes, child_dies_of_fault, kernel_copies_break_sharing, many_children,
    break_is_inherited,
];

/// Does the work in a child; it must succeed there.
fn child(work: impl FnOnce() -> Outcome) -> Outcome {
    let status = sys::in_child(|| match work() {
        Ok(()) => 0,
        Err(reason) => {
            println!("  in the child: {reason}");
            1
        }
    })?;
    check_eq!(status, Status::Exited(0));
    Ok(())
}

/// An arena with 16 written pages.
fn written() -> std::result::Result<Arena, Box<dyn std::error::Error>> {
    let arena = Arena::new(64)?;
    arena.map(0, 16, RW)?;
    arena.fill(0, 16, 1)?;
    Ok(arena)
}

fn child_sees_contents() -> Outcome {
    let arena = written()?;
    child(|| {
        check!(arena.holds(0, 16, 1)?);
        Ok(())
    })
}

fn child_writes_are_its_own() -> Outcome {
    let arena = written()?;
    child(|| {
        arena.fill(0, 16, 2)?;
        check!(arena.holds(0, 16, 2)?);
        Ok(())
    })?;
    check!(arena.holds(0, 16, 1)?);
    Ok(())
}

fn parent_writes_are_its_own() -> Outcome {
    let arena = written()?;
    let mut ends = [0i32; 2];
    sys::call(libc::SYS_pipe2, &[ends.as_mut_ptr() as usize, 0])?;
    let pid = sys::spawn(|| {
        // Looks only after the parent has written.
        let mut byte = 0u8;
        let told = sys::call(libc::SYS_read, &[ends[0] as usize, &raw mut byte as usize, 1]);
        i32::from(!(told == Ok(1) && arena.holds(0, 16, 1) == Ok(true)))
    })?;
    arena.fill(0, 16, 2)?;
    sys::call(libc::SYS_write, &[ends[1] as usize, b"!".as_ptr() as usize, 1])?;
    check_eq!(sys::wait(pid)?, Status::Exited(0));
    check!(arena.holds(0, 16, 2)?);
    Ok(())
}

fn three_generations() -> Outcome {
    let arena = written()?;
    child(|| {
        arena.fill(0, 8, 2)?;
        child(|| {
            check!(arena.holds(0, 8, 2)? && mem::holds(arena.at(8), 8, 8, 1)?);
            arena.fill(0, 16, 3)?;
            child(|| {
                check!(arena.holds(0, 16, 3)?);
                arena.fill(4, 12, 4)?;
                Ok(())
            })?;
            check!(arena.holds(0, 16, 3)?);
            Ok(())
        })?;
        check!(arena.holds(0, 8, 2)? && mem::holds(arena.at(8), 8, 8, 1)?);
        Ok(())
    })?;
    check!(arena.holds(0, 16, 1)?);
    Ok(())
}

fn siblings() -> Outcome {
    let arena = written()?;
    let mut children = Vec::new();
    for seed in 2..8 {
        children.push(sys::spawn(|| {
            let before = arena.holds(0, 16, 1) == Ok(true);
            let after = arena.fill(0, 16, seed).is_ok() && arena.holds(0, 16, seed) == Ok(true);
            i32::from(!(before && after))
        })?);
    }
    for pid in children {
        check_eq!(sys::wait(pid)?, Status::Exited(0));
    }
    check!(arena.holds(0, 16, 1)?);
    Ok(())
}

fn many_pages() -> Outcome {
    const PAGES: usize = 5000;
    let arena = Arena::new(PAGES)?;
    arena.map(0, PAGES, RW)?;
    arena.fill(0, PAGES, 1)?;
    child(|| {
        check!(arena.holds(0, PAGES, 1)?);
        for page in (0..PAGES).step_by(3) {
            mem::write(arena.at(page), 0)?;
        }
        Ok(())
    })?;
    check!(arena.holds(0, PAGES, 1)?);
    Ok(())
}

fn untouched_and_zero_pages() -> Outcome {
    let arena = Arena::new(16)?;
    arena.map(0, 16, RW)?;
    check!(mem::is_zero(arena.at(0), 8)?);
    child(|| {
        check!(mem::is_zero(arena.at(0), 16)?);
        arena.fill(0, 16, 2)?;
        Ok(())
    })?;
    check!(mem::is_zero(arena.at(0), 16)?);
    Ok(())
}

fn access_is_inherited() -> Outcome {
    let arena = written()?;
    arena.protect(4, 8, R)?;
    arena.protect(8, 12, NONE)?;
    child(|| {
        check_eq!(mem::write(arena.at(5), 1), Err(Fault::denied(arena.at(5))));
        check_eq!(mem::read(arena.at(9)), Err(Fault::denied(arena.at(9))));
        arena.protect(4, 12, RW)?;
        check!(arena.holds(0, 16, 1)?);
        arena.fill(0, 16, 2)?;
        Ok(())
    })?;
    check_eq!(mem::read(arena.at(9)), Err(Fault::denied(arena.at(9))));
    arena.protect(8, 12, R)?;
    check!(arena.holds(0, 16, 1)?);
    Ok(())
}

fn child_unmaps() -> Outcome {
    let arena = written()?;
    child(|| {
        arena.unmap(0, 16)?;
        check_eq!(mem::read(arena.at(0)), Err(Fault::unmapped(arena.at(0))));
        Ok(())
    })?;
    check!(arena.holds(0, 16, 1)?);
    arena.fill(0, 16, 2)?;
    check!(arena.holds(0, 16, 2)?);
    Ok(())
}

fn child_maps_over() -> Outcome {
    let arena = written()?;
    child(|| {
        arena.map(4, 8, RW)?;
        check!(mem::is_zero(arena.at(4), 4)?);
        check!(arena.holds(0, 4, 1)?);
        Ok(())
    })?;
    check_eq!(arena.layout(), "[0-16 rw-]");
    check!(arena.holds(0, 16, 1)?);
    Ok(())
}

fn layout_is_inherited() -> Outcome {
    let arena = Arena::new(64)?;
    for i in 0..16 {
        arena.map(4 * i, 4 * i + 2, [R, RW, NONE, R | X][i % 4])?;
    }
    let layout = arena.layout();
    child(|| {
        check_eq!(arena.layout(), layout);
        Ok(())
    })
}

fn growsdown_is_inherited() -> Outcome {
    let arena = Arena::new(1024)?;
    arena.map_with(1000, 1002, RW, GROWSDOWN)?;
    child(|| {
        mem::write(arena.at(900), 1)?;
        check_eq!(arena.layout(), "[900-1002 rw-]");
        Ok(())
    })?;
    check_eq!(arena.layout(), "[1000-1002 rw-]");
    Ok(())
}

fn last_owner_writes() -> Outcome {
    // After the other side has gone the pages are the only owner's again.
    let arena = written()?;
    for seed in 2..10 {
        child(|| Ok(()))?;
        arena.fill(0, 16, seed)?;
        check!(arena.holds(0, 16, seed)?);
    }
    Ok(())
}

fn child_dies_of_fault() -> Outcome {
    let arena = written()?;
    let status = sys::in_child(|| {
        // SAFETY: restores a default action.
        unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
        let _ = arena.fill(0, 16, 2);
        let _ = mem::write(arena.at(40), 1);
        0
    })?;
    check_eq!(status, Status::Killed(libc::SIGSEGV));
    check!(arena.holds(0, 16, 1)?);
    Ok(())
}

fn kernel_copies_break_sharing() -> Outcome {
    let arena = written()?;
    child(|| {
        sys::call(libc::SYS_getrandom, &[arena.at(0), 16, 0])?;
        // The kernel wrote to the child's copy, not to the shared page.
        Ok(())
    })?;
    check!(arena.holds(0, 16, 1)?);
    Ok(())
}

fn many_children() -> Outcome {
    let arena = written()?;
    for round in 0..200 {
        let status = sys::in_child(|| {
            let _ = mem::write(arena.at(round % 16), 0);
            (round % 100) as i32
        })?;
        check_eq!(status, Status::Exited((round % 100) as i32));
    }
    check!(arena.holds(0, 16, 1)?);
    Ok(())
}

fn break_is_inherited() -> Outcome {
    let start = sys::brk(0).next_multiple_of(PAGE);
    check_eq!(sys::brk(start + 4 * PAGE), start + 4 * PAGE);
    mem::fill(start, 4, 1)?;
    child(|| {
        check_eq!(sys::brk(0), start + 4 * PAGE);
        check!(mem::holds(start, 0, 4, 1)?);
        check_eq!(sys::brk(start), start);
        Ok(())
    })?;
    check_eq!(sys::brk(0), start + 4 * PAGE);
    check!(mem::holds(start, 0, 4, 1)?);
    Ok(())
}
