//! `mremap`: shrinking, expanding, moving.

use tests::arena::Arena;
use tests::case::Outcome;
use tests::mem::{self, Fault};
use tests::sys::{self, *};
use tests::{cases, check, check_eq};

cases!["mremap":
    same_size, shrink, shrink_across, expand_in_place, expand_merges_with_next, expand_blocked, expand_moves,
    expand_middle, fixed_moves, fixed_replaces, fixed_shrinks, fixed_expands, fixed_part, fixed_middle,
    fixed_overlap, fixed_keeps_holes, source_faults, not_mapped, past_the_end, old_length_zero,
    failure_keeps_destination, failure_keeps_tail, several_mappings, several_without_fixed, dontunmap,
    dontunmap_fixed, dontunmap_hint, dontunmap_untouched_next_to_itself, dontunmap_sizes, without_access,
    read_only, growsdown, aligned_2m, aligned_2m_with_neighbours, aligned_1g, misaligned, back_and_forth,
    partly_populated, zero_pages, after_fork, lengths_round_up, stack_cannot_be_lost, many_times,
];

const MB: usize = 1 << 20;

fn same_size() -> Outcome {
    let arena = Arena::new(8)?;
    arena.map(0, 4, RW)?;
    check_eq!(sys::mremap(arena.at(0), 4 * PAGE, 4 * PAGE, 0, 0)?, arena.at(0));
    check_eq!(sys::mremap(arena.at(1), PAGE, PAGE, MAYMOVE, 0)?, arena.at(1));
    check_eq!(arena.layout(), "[0-4 rw-]");
    Ok(())
}

fn shrink() -> Outcome {
    let arena = Arena::new(8)?;
    arena.map(0, 8, RW)?;
    arena.fill(0, 8, 1)?;
    check_eq!(sys::mremap(arena.at(0), 8 * PAGE, 3 * PAGE, 0, 0)?, arena.at(0));
    check_eq!(arena.layout(), "[0-3 rw-]");
    check!(arena.holds(0, 3, 1)?);
    check_eq!(mem::read(arena.at(3)), Err(Fault::unmapped(arena.at(3))));
    Ok(())
}

fn shrink_across() -> Outcome {
    // Where nothing moves, the old length may run over other mappings and holes.
    let arena = Arena::new(12)?;
    arena.map(0, 4, RW)?;
    arena.map(4, 6, R)?;
    arena.map(8, 10, RW)?;
    arena.fill(0, 4, 1)?;
    check_eq!(sys::mremap(arena.at(0), 9 * PAGE, 2 * PAGE, 0, 0)?, arena.at(0));
    check_eq!(arena.layout(), "[0-2 rw-][9-10 rw-]");
    check!(arena.holds(0, 2, 1)?);
    Ok(())
}

fn expand_in_place() -> Outcome {
    let arena = Arena::new(8)?;
    arena.map(0, 3, RW)?;
    arena.fill(0, 3, 1)?;
    check_eq!(sys::mremap(arena.at(0), 3 * PAGE, 6 * PAGE, 0, 0)?, arena.at(0));
    check_eq!(arena.layout(), "[0-6 rw-]");
    check!(arena.holds(0, 3, 1)? && mem::is_zero(arena.at(3), 3)?);
    arena.fill(3, 6, 2)?;
    check!(arena.holds(3, 6, 2)?);
    // From the middle, too, as long as the end is the mapping's.
    check_eq!(sys::mremap(arena.at(4), 2 * PAGE, 4 * PAGE, 0, 0)?, arena.at(4));
    check_eq!(arena.layout(), "[0-8 rw-]");
    Ok(())
}

fn expand_merges_with_next() -> Outcome {
    let arena = Arena::new(12)?;
    arena.map(0, 4, RW)?;
    arena.map(6, 10, RW)?;
    arena.fill(0, 4, 1)?;
    check_eq!(sys::mremap(arena.at(0), 4 * PAGE, 6 * PAGE, 0, 0)?, arena.at(0));
    check_eq!(arena.layout(), "[0-10 rw-]");
    check!(arena.holds(0, 4, 1)?);
    Ok(())
}

fn expand_blocked() -> Outcome {
    let arena = Arena::new(8)?;
    arena.map(0, 3, RW)?;
    arena.map(4, 5, R)?;
    arena.fill(0, 3, 1)?;
    check_eq!(sys::mremap(arena.at(0), 3 * PAGE, 5 * PAGE, 0, 0), Err(Errno(libc::ENOMEM)));
    check_eq!(arena.layout(), "[0-3 rw-][4-5 r--]");
    check_eq!(sys::mremap(arena.at(0), 3 * PAGE, 4 * PAGE, 0, 0)?, arena.at(0));
    check_eq!(arena.layout(), "[0-4 rw-][4-5 r--]");
    Ok(())
}

fn expand_moves() -> Outcome {
    let arena = Arena::new(8)?;
    arena.map(0, 3, RW)?;
    arena.map(3, 4, R)?;
    arena.fill(0, 3, 1)?;
    let addr = sys::mremap(arena.at(0), 3 * PAGE, 5 * PAGE, MAYMOVE, 0)?;
    check!(mem::holds(addr, 0, 3, 1)? && mem::is_zero(addr + 3 * PAGE, 2)?);
    // It may have found room in the arena, but not where it was.
    check_eq!(mem::read(arena.at(0)), Err(Fault::unmapped(arena.at(0))));
    check!(arena.layout().contains("[3-4 r--]"));
    Ok(())
}

fn expand_middle() -> Outcome {
    let arena = Arena::new(8)?;
    arena.map(0, 8, RW)?;
    arena.fill(0, 8, 1)?;
    let addr = sys::mremap(arena.at(2), 2 * PAGE, 20 * PAGE, MAYMOVE, 0)?;
    check_eq!(arena.layout(), "[0-2 rw-][4-8 rw-]");
    check!(mem::holds(addr, 2, 2, 1)? && mem::is_zero(addr + 2 * PAGE, 18)?);
    Ok(())
}

fn fixed_moves() -> Outcome {
    let arena = Arena::new(16)?;
    arena.map(0, 4, RW)?;
    arena.fill(0, 4, 1)?;
    check_eq!(arena.remap(0, 4, 4, TO, 8)?, arena.at(8));
    check_eq!(arena.layout(), "[8-12 rw-]");
    check!(arena.holds(8, 12, 1)?);
    check_eq!(mem::read(arena.at(0)), Err(Fault::unmapped(arena.at(0))));
    check_eq!(mem::write(arena.at(3), 1), Err(Fault::unmapped(arena.at(3))));
    Ok(())
}

fn fixed_replaces() -> Outcome {
    let arena = Arena::new(16)?;
    arena.map(0, 4, RW)?;
    arena.map(6, 14, R)?;
    arena.fill(0, 4, 1)?;
    arena.remap(0, 4, 4, TO, 8)?;
    check_eq!(arena.layout(), "[6-8 r--][8-12 rw-][12-14 r--]");
    check!(arena.holds(8, 12, 1)?);
    Ok(())
}

fn fixed_shrinks() -> Outcome {
    let arena = Arena::new(16)?;
    arena.map(0, 6, RW)?;
    arena.fill(0, 6, 1)?;
    check_eq!(arena.remap(0, 6, 2, TO, 8)?, arena.at(8));
    check_eq!(arena.layout(), "[8-10 rw-]");
    check!(arena.holds(8, 10, 1)?);
    Ok(())
}

fn fixed_expands() -> Outcome {
    let arena = Arena::new(16)?;
    arena.map(0, 3, RW)?;
    arena.fill(0, 3, 1)?;
    check_eq!(arena.remap(0, 3, 7, TO, 8)?, arena.at(8));
    check_eq!(arena.layout(), "[8-15 rw-]");
    check!(arena.holds(8, 11, 1)? && mem::is_zero(arena.at(11), 4)?);
    Ok(())
}

fn fixed_part() -> Outcome {
    let arena = Arena::new(16)?;
    arena.map(0, 8, RW)?;
    arena.fill(0, 8, 1)?;
    arena.remap(0, 3, 3, TO, 10)?;
    check_eq!(arena.layout(), "[3-8 rw-][10-13 rw-]");
    check!(mem::holds(arena.at(3), 3, 5, 1)? && mem::holds(arena.at(10), 0, 3, 1)?);
    Ok(())
}

fn fixed_middle() -> Outcome {
    let arena = Arena::new(16)?;
    arena.map(0, 8, RW)?;
    arena.fill(0, 8, 1)?;
    arena.remap(3, 5, 2, TO, 10)?;
    check_eq!(arena.layout(), "[0-3 rw-][5-8 rw-][10-12 rw-]");
    check!(mem::holds(arena.at(10), 3, 2, 1)? && mem::holds(arena.at(5), 5, 3, 1)?);
    Ok(())
}

fn fixed_overlap() -> Outcome {
    let arena = Arena::new(16)?;
    arena.map(4, 8, RW)?;
    arena.fill(4, 8, 1)?;
    for to in [4, 5, 7, 1, 3] {
        check_eq!(arena.remap(4, 8, 4, TO, to), Err(Errno(libc::EINVAL)));
    }
    check_eq!(arena.layout(), "[4-8 rw-]");
    check!(arena.holds(4, 8, 1)?);
    Ok(())
}

fn fixed_keeps_holes() -> Outcome {
    // Pages that were never touched are still zero behind the move.
    let arena = Arena::new(32)?;
    arena.map(0, 8, RW)?;
    mem::write(arena.at(5), 42)?;
    arena.map(16, 24, RW)?;
    arena.fill(16, 24, 7)?;
    arena.remap(0, 8, 8, TO, 16)?;
    check!(mem::is_zero(arena.at(16), 5)? && mem::is_zero(arena.at(22), 2)?);
    check_eq!(mem::read(arena.at(21))?, 42);
    Ok(())
}

fn source_faults() -> Outcome {
    // The old place can be mapped anew, and has nothing of the old contents.
    let arena = Arena::new(16)?;
    arena.map(0, 4, RW)?;
    arena.fill(0, 4, 1)?;
    arena.remap(0, 4, 4, TO, 8)?;
    arena.map(0, 4, RW)?;
    check!(mem::is_zero(arena.at(0), 4)?);
    arena.fill(0, 4, 2)?;
    check!(arena.holds(8, 12, 1)? && arena.holds(0, 4, 2)?);
    Ok(())
}

fn not_mapped() -> Outcome {
    let arena = Arena::new(16)?;
    check_eq!(arena.remap(0, 1, 2, MAYMOVE, 8), Err(Errno(libc::EFAULT)));
    check_eq!(arena.remap(0, 1, 1, TO, 8), Err(Errno(libc::EFAULT)));
    arena.map(1, 3, RW)?;
    check_eq!(arena.remap(0, 2, 2, TO, 8), Err(Errno(libc::EFAULT)));
    check_eq!(arena.layout(), "[1-3 rw-]");
    Ok(())
}

fn past_the_end() -> Outcome {
    let arena = Arena::new(24)?;
    arena.map(0, 4, RW)?;
    arena.map(4, 8, R)?;
    // Growing needs a range inside one mapping.
    check_eq!(arena.remap(2, 6, 8, MAYMOVE, 0), Err(Errno(libc::EFAULT)));
    check_eq!(arena.remap(6, 10, 8, MAYMOVE, 0), Err(Errno(libc::EFAULT)));
    check_eq!(arena.remap(2, 6, 8, TO, 12), Err(Errno(libc::EFAULT)));
    check_eq!(arena.layout(), "[0-4 rw-][4-8 r--]");
    Ok(())
}

fn old_length_zero() -> Outcome {
    let arena = Arena::new(16)?;
    arena.map(0, 4, RW)?;
    check_eq!(arena.remap(0, 0, 4, MAYMOVE, 0), Err(Errno(libc::EINVAL)));
    check_eq!(arena.remap(0, 0, 4, TO, 8), Err(Errno(libc::EINVAL)));
    check_eq!(arena.layout(), "[0-4 rw-]");
    Ok(())
}

fn failure_keeps_destination() -> Outcome {
    let arena = Arena::new(24)?;
    arena.map(0, 4, RW)?;
    arena.map(12, 20, R)?;
    check!(mem::is_zero(arena.at(12), 8)?);
    check_eq!(arena.remap(2, 6, 6, TO, 12), Err(Errno(libc::EFAULT)));
    check_eq!(arena.remap(0, 4, 4, TO | 64, 12), Err(Errno(libc::EINVAL)));
    check_eq!(arena.layout(), "[0-4 rw-][12-20 r--]");
    Ok(())
}

fn failure_keeps_tail() -> Outcome {
    let arena = Arena::new(24)?;
    arena.map(0, 2, RW)?;
    arena.map(2, 6, R)?;
    arena.map(12, 20, R)?;
    // The part that is kept crosses mappings.
    check_eq!(arena.remap(0, 6, 4, TO, 12), Err(Errno(libc::EFAULT)));
    check_eq!(arena.layout(), "[0-2 rw-][2-6 r--][12-20 r--]");
    Ok(())
}

fn several_mappings() -> Outcome {
    // Moved one by one, gaps included; what is opposite a gap stays.
    let arena = Arena::new(40)?;
    arena.map(0, 4, RW)?;
    arena.map(4, 6, R)?;
    arena.map(8, 12, RW)?;
    arena.fill(0, 4, 1)?;
    arena.fill(8, 12, 2)?;
    arena.map(20, 34, R | X)?;
    check_eq!(arena.remap(0, 14, 14, TO, 20)?, arena.at(20));
    check_eq!(arena.layout(), "[20-24 rw-][24-26 r--][26-28 r-x][28-32 rw-][32-34 r-x]");
    check!(arena.holds(20, 24, 1)? && arena.holds(28, 32, 2)?);
    Ok(())
}

fn several_without_fixed() -> Outcome {
    let arena = Arena::new(40)?;
    arena.map(0, 4, RW)?;
    arena.map(4, 6, R)?;
    check_eq!(arena.remap(0, 6, 7, MAYMOVE, 0), Err(Errno(libc::EFAULT)));
    check_eq!(arena.remap(0, 6, 6, MAYMOVE, 0)?, arena.at(0));
    check_eq!(arena.remap(0, 6, 6, DONTUNMAP, 20), Err(Errno(libc::EFAULT)));
    check_eq!(arena.layout(), "[0-4 rw-][4-6 r--]");
    Ok(())
}

fn dontunmap() -> Outcome {
    let arena = Arena::new(8)?;
    arena.map(0, 4, RW)?;
    arena.fill(0, 4, 1)?;
    let addr = sys::mremap(arena.at(0), 4 * PAGE, 4 * PAGE, DONTUNMAP, 0)?;
    check!(addr != arena.at(0));
    check!(mem::holds(addr, 0, 4, 1)?);
    check!(arena.layout().starts_with("[0-4 rw-]"));
    check!(mem::is_zero(arena.at(0), 4)?);
    arena.fill(0, 4, 2)?;
    check!(mem::holds(addr, 0, 4, 1)? && arena.holds(0, 4, 2)?);
    Ok(())
}

fn dontunmap_fixed() -> Outcome {
    let arena = Arena::new(16)?;
    arena.map(0, 6, RW)?;
    arena.fill(0, 6, 1)?;
    arena.map(10, 12, R)?;
    check_eq!(arena.remap(1, 5, 4, DONTUNMAP | TO, 9)?, arena.at(9));
    check_eq!(arena.layout(), "[0-6 rw-][9-13 rw-]");
    check!(mem::holds(arena.at(9), 1, 4, 1)?);
    check!(mem::is_zero(arena.at(1), 4)?);
    check!(mem::holds(arena.at(0), 0, 1, 1)? && mem::holds(arena.at(5), 5, 1, 1)?);
    Ok(())
}

fn dontunmap_hint() -> Outcome {
    let arena = Arena::new(16)?;
    arena.map(0, 2, RW)?;
    arena.fill(0, 2, 1)?;
    // Free: taken. Busy: elsewhere.
    check_eq!(arena.remap(0, 2, 2, DONTUNMAP, 8)?, arena.at(8));
    arena.fill(0, 2, 2)?;
    let addr = sys::mremap(arena.at(0), 2 * PAGE, 2 * PAGE, DONTUNMAP, arena.at(8))?;
    check!(addr != arena.at(8));
    check!(arena.holds(8, 10, 1)? && mem::holds(addr, 0, 2, 2)?);
    Ok(())
}

fn dontunmap_untouched_next_to_itself() -> Outcome {
    let arena = Arena::new(8)?;
    arena.map(0, 4, RW)?;
    check_eq!(arena.remap(0, 4, 4, DONTUNMAP | TO, 4)?, arena.at(4));
    // Linux before 7.3 merges the two.
    let merged = arena.layout() == "[0-8 rw-]" && sys::release() < (7, 3);
    check!(merged || arena.layout() == "[0-4 rw-][4-8 rw-]");
    Ok(())
}

fn dontunmap_sizes() -> Outcome {
    let arena = Arena::new(16)?;
    arena.map(0, 4, RW)?;
    check_eq!(arena.remap(0, 2, 4, DONTUNMAP, 8), Err(Errno(libc::EINVAL)));
    check_eq!(arena.remap(0, 4, 2, DONTUNMAP, 8), Err(Errno(libc::EINVAL)));
    check_eq!(sys::mremap(arena.at(0), PAGE, PAGE, DONTUNMAP & !MAYMOVE, 0), Err(Errno(libc::EINVAL)));
    // Equal once they are rounded up.
    check_eq!(sys::mremap(arena.at(0), PAGE - 1, PAGE, DONTUNMAP | TO, arena.at(8))?, arena.at(8));
    Ok(())
}

fn without_access() -> Outcome {
    let arena = Arena::new(16)?;
    arena.map(0, 4, RW)?;
    arena.fill(0, 4, 1)?;
    arena.protect(0, 4, NONE)?;
    arena.remap(0, 4, 4, TO, 8)?;
    check_eq!(arena.layout(), "[8-12 ---]");
    check_eq!(mem::read(arena.at(8)), Err(Fault::denied(arena.at(8))));
    arena.protect(8, 12, R)?;
    check!(arena.holds(8, 12, 1)?);
    Ok(())
}

fn read_only() -> Outcome {
    let arena = Arena::new(16)?;
    arena.map(0, 4, RW)?;
    arena.fill(0, 4, 1)?;
    arena.protect(0, 4, R)?;
    arena.remap(0, 4, 6, TO, 8)?;
    check_eq!(arena.layout(), "[8-14 r--]");
    check_eq!(mem::write(arena.at(9), 1), Err(Fault::denied(arena.at(9))));
    check!(arena.holds(8, 12, 1)? && mem::is_zero(arena.at(12), 2)?);
    Ok(())
}

fn growsdown() -> Outcome {
    let arena = Arena::new(1024)?;
    arena.map_with(300, 302, RW, GROWSDOWN)?;
    arena.fill(300, 302, 1)?;
    arena.remap(300, 302, 2, TO, 1000)?;
    check!(arena.holds(1000, 1002, 1)?);
    // It still grows, at its new place.
    mem::write(arena.at(990), 1)?;
    check_eq!(arena.layout(), "[990-1002 rw-]");
    Ok(())
}

/// Moves `len` bytes between places aligned to `align`, `skew` bytes off at the
/// destination, there and back, and checks every page.
fn move_far(len: usize, align: usize, skew: usize) -> Outcome {
    let pages = len / PAGE;
    let from = Arena::aligned(pages, align)?;
    let to = Arena::aligned(pages + skew / PAGE, align)?;
    from.map(0, pages, RW)?;
    from.fill(0, pages, 1)?;
    let target = to.at(0) + skew;
    check_eq!(sys::mremap(from.at(0), len, len, TO, target)?, target);
    check!(mem::holds(target, 0, pages, 1)?);
    for page in [0, pages / 2, pages - 1] {
        check_eq!(mem::read(from.at(page)), Err(Fault::unmapped(from.at(page))));
    }
    mem::fill(target, pages, 2)?;
    check_eq!(sys::mremap(target, len, len, TO, from.at(0))?, from.at(0));
    check!(from.holds(0, pages, 2)?);
    check_eq!(mem::read(target), Err(Fault::unmapped(target)));
    Ok(())
}

fn aligned_2m() -> Outcome {
    move_far(8 * MB, 2 * MB, 0)
}

fn aligned_2m_with_neighbours() -> Outcome {
    // The ends of source and destination share page tables with others.
    let arena = Arena::aligned(4096, 2 * MB)?;
    arena.map(0, 1536, RW)?;
    arena.fill(0, 1536, 1)?;
    arena.map(2048, 2148, R)?;
    arena.map(3400, 3500, RW)?;
    arena.fill(3400, 3500, 2)?;
    // Pages 100..1336 to 2148..3384: congruent modulo 2 MiB.
    check_eq!(arena.remap(100, 1336, 1236, TO, 2148)?, arena.at(2148));
    check!(mem::holds(arena.at(2148), 100, 1236, 1)?);
    check!(mem::holds(arena.at(0), 0, 100, 1)? && mem::holds(arena.at(1336), 1336, 200, 1)?);
    check!(mem::is_zero(arena.at(2048), 100)? && arena.holds(3400, 3500, 2)?);
    check_eq!(arena.layout(), "[0-100 rw-][1336-1536 rw-][2048-2148 r--][2148-3384 rw-][3400-3500 rw-]");
    Ok(())
}

fn aligned_1g() -> Outcome {
    let pages = 1 << 18;
    let from = Arena::aligned(pages, 1 << 30)?;
    let to = Arena::aligned(pages, 1 << 30)?;
    from.map_with(0, pages, RW, NORESERVE)?;
    for page in (0..pages).step_by(1009) {
        mem::write(from.at(page), (page % 251) as u8)?;
    }
    check_eq!(sys::mremap(from.at(0), 1 << 30, 1 << 30, TO, to.at(0))?, to.at(0));
    for page in (0..pages).step_by(1009) {
        check_eq!(mem::read(to.at(page))?, (page % 251) as u8);
        check_eq!(mem::read(from.at(page)), Err(Fault::unmapped(from.at(page))));
    }
    check_eq!(mem::read(to.at(1))?, 0);
    Ok(())
}

fn misaligned() -> Outcome {
    move_far(8 * MB, 2 * MB, PAGE)?;
    move_far(3 * MB, 2 * MB, MB + 3 * PAGE)
}

fn back_and_forth() -> Outcome {
    let arena = Arena::aligned(2048, 2 * MB)?;
    arena.map(0, 512, RW)?;
    arena.fill(0, 512, 1)?;
    let mut from = 0;
    for to in [1024, 510, 1030, 3, 1536, 700, 0] {
        arena.remap(from, from + 512, 512, TO, to)?;
        check!(arena.holds(to, to + 512, 1)?);
        from = to;
    }
    check_eq!(arena.layout(), "[0-512 rw-]");
    Ok(())
}

fn partly_populated() -> Outcome {
    let arena = Arena::aligned(4096, 2 * MB)?;
    arena.map(0, 1500, RW)?;
    for page in (0..1500).step_by(7) {
        mem::write(arena.at(page), 1 + (page % 250) as u8)?;
    }
    arena.remap(0, 1500, 1500, TO, 2048)?;
    for page in 0..1500 {
        let expected = if page % 7 == 0 { 1 + (page % 250) as u8 } else { 0 };
        check_eq!(mem::read(arena.at(2048 + page))?, expected);
    }
    Ok(())
}

fn zero_pages() -> Outcome {
    let arena = Arena::new(16)?;
    arena.map(0, 4, RW)?;
    check!(mem::is_zero(arena.at(0), 4)?);
    arena.remap(0, 4, 4, TO, 8)?;
    check!(mem::is_zero(arena.at(8), 4)?);
    mem::write(arena.at(9), 1)?;
    check_eq!(mem::read(arena.at(8))?, 0);
    Ok(())
}

fn after_fork() -> Outcome {
    let arena = Arena::new(32)?;
    arena.map(0, 8, RW)?;
    arena.fill(0, 8, 1)?;
    let status = sys::in_child(|| {
        let moved = arena.remap(0, 8, 8, TO, 16) == Ok(arena.at(16));
        let same = arena.holds(16, 24, 1) == Ok(true);
        let written = arena.fill(16, 24, 2).is_ok() && arena.holds(16, 24, 2) == Ok(true);
        i32::from(!(moved && same && written))
    })?;
    check_eq!(status, Status::Exited(0));
    check_eq!(arena.layout(), "[0-8 rw-]");
    check!(arena.holds(0, 8, 1)?);
    Ok(())
}

fn lengths_round_up() -> Outcome {
    let arena = Arena::new(16)?;
    arena.map(0, 4, RW)?;
    check_eq!(sys::mremap(arena.at(0), 3 * PAGE + 1, PAGE + 1, 0, 0)?, arena.at(0));
    check_eq!(arena.layout(), "[0-2 rw-]");
    check_eq!(sys::mremap(arena.at(0), PAGE + 7, 2 * PAGE + 7, 0, 0)?, arena.at(0));
    check_eq!(arena.layout(), "[0-3 rw-]");
    Ok(())
}

fn stack_cannot_be_lost() -> Outcome {
    // Refused by the parameters, long before the stack would be in danger.
    let local = 0u8;
    let here = &raw const local as usize & !(PAGE - 1);
    check_eq!(sys::mremap(here, PAGE, 0, MAYMOVE, 0), Err(Errno(libc::EINVAL)));
    check_eq!(sys::mremap(here, PAGE, TASK_SIZE + PAGE, MAYMOVE, 0), Err(Errno(libc::EINVAL)));
    check_eq!(sys::mremap(here, PAGE, PAGE, TO, here), Err(Errno(libc::EINVAL)));
    Ok(())
}

fn many_times() -> Outcome {
    let arena = Arena::new(4096)?;
    arena.map(0, 3, RW)?;
    arena.fill(0, 3, 1)?;
    let mut random = tests::rng::Rng::new(7);
    let mut at = 0;
    for _ in 0..500 {
        let to = random.below(4093);
        if to.abs_diff(at) >= 3 {
            arena.remap(at, at + 3, 3, TO, to)?;
            at = to;
        }
    }
    check!(arena.holds(at, at + 3, 1)?);
    check_eq!(arena.layout(), format!("[{at}-{} rw-]", at + 3));
    Ok(())
}
