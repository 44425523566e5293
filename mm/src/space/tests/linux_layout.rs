//! Where Linux 7.3 puts mappings, how stacks grow, and what mmap(2),
//! munmap(2) and mprotect(2) refuse, said one at a time.

use super::*;
use crate::{Errno, PMD_SIZE, TASK_SIZE};

const NORESERVE: usize = 0x4000;
const NOREPLACE: usize = 0x10_0000;
const GROWSDOWN: usize = 0x100;
const IN_32_BITS: usize = 0x40;
const PLAIN: usize = PRIVATE | ANON;
/// The lowest address that may be mapped.
const LOWEST: usize = 0x1_0000;
/// Pages that stay free below a stack.
const GUARD_GAP: usize = 256;

/// mmap with the number that a program sees.
fn mmap(p: &Process<'_>, addr: usize, len: usize, prot: usize, flags: usize) -> Result<usize, Errno> {
    let result = p.mmap(addr, len, prot, flags);
    p.space.verify();
    result.map_err(Errno::from)
}

fn with_process(test: impl FnOnce(&Process<'_>)) {
    on_machine(4096, |mem| test(&Process::new(mem)));
}

#[test]
fn the_second_mapping_lands_directly_below_the_first() {
    with_process(|p| {
        let first = mmap(p, 0, 3 * PAGE, RW, PLAIN).unwrap();
        assert_eq!(mmap(p, 0, PAGE, READ, PLAIN), Ok(first - PAGE));
    });
}

#[test]
fn the_highest_hole_that_is_large_enough_is_taken() {
    with_process(|p| {
        let top = mmap(p, 0, 10 * PAGE, RW, PLAIN).unwrap();
        p.space.munmap(top + 7 * PAGE, PAGE).unwrap();
        p.space.munmap(top + PAGE, 2 * PAGE).unwrap();
        assert_eq!(mmap(p, 0, 2 * PAGE, READ, PLAIN), Ok(top + PAGE));
        assert_eq!(mmap(p, 0, 2 * PAGE, READ, PLAIN), Ok(top - 2 * PAGE));
        assert_eq!(mmap(p, 0, PAGE, READ, PLAIN), Ok(top + 7 * PAGE));
    });
}

#[test]
fn a_hint_is_rounded_down_to_its_page() {
    with_process(|p| assert_eq!(mmap(p, BASE + 8 * PAGE + 123, PAGE, RW, PLAIN), Ok(BASE + 8 * PAGE)));
}

#[test]
fn a_busy_hint_is_as_good_as_none() {
    with_process(|p| {
        let first = mmap(p, 0, PAGE, RW, PLAIN).unwrap();
        p.map_at(BASE, 4);
        assert_eq!(mmap(p, BASE + 3 * PAGE, PAGE, READ, PLAIN), Ok(first - PAGE));
        assert_eq!(mmap(p, BASE - PAGE, 2 * PAGE, READ, PLAIN), Ok(first - 3 * PAGE));
    });
}

#[test]
fn a_hint_too_low_is_raised_to_the_lowest_address() {
    with_process(|p| {
        assert_eq!(mmap(p, PAGE, PAGE, RW, PLAIN), Ok(LOWEST));
        assert_eq!(mmap(p, LOWEST - PAGE, PAGE, READ, PLAIN | NOREPLACE), Err(Errno::EPERM));
    });
}

#[test]
fn a_hint_in_the_first_page_is_none() {
    with_process(|p| {
        let first = mmap(p, 0, PAGE, RW, PLAIN).unwrap();
        assert_eq!(mmap(p, 1, PAGE, READ, PLAIN), Ok(first - PAGE));
    });
}

#[test]
fn a_hint_above_user_space_is_none() {
    with_process(|p| {
        let first = mmap(p, 0, PAGE, RW, PLAIN).unwrap();
        assert_eq!(mmap(p, TASK_SIZE, PAGE, READ, PLAIN), Ok(first - PAGE));
        assert_eq!(mmap(p, TASK_SIZE - PAGE, 2 * PAGE, READ, PLAIN), Ok(first - 3 * PAGE));
        assert_eq!(mmap(p, 1 << 60, PAGE, READ | 4, PLAIN), Ok(first - 4 * PAGE));
    });
}

#[test]
fn a_fixed_address_must_be_aligned() {
    with_process(|p| {
        assert_eq!(mmap(p, BASE + 1, PAGE, RW, PLAIN | FIXED), Err(Errno::EINVAL));
        assert_eq!(mmap(p, BASE + 1, PAGE, RW, PLAIN | NOREPLACE), Err(Errno::EINVAL));
    });
}

#[test]
fn a_fixed_address_above_user_space_is_enomem_and_so_is_its_last_page() {
    with_process(|p| {
        assert_eq!(mmap(p, TASK_SIZE, PAGE, RW, PLAIN | FIXED), Err(Errno::ENOMEM));
        assert_eq!(mmap(p, 0x7fff_ffff_f000, PAGE, RW, PLAIN | FIXED), Err(Errno::ENOMEM));
        assert_eq!(mmap(p, TASK_SIZE - PAGE, 2 * PAGE, RW, PLAIN | FIXED), Err(Errno::ENOMEM));
        assert_eq!(mmap(p, TASK_SIZE - PAGE, PAGE, RW, PLAIN | FIXED), Ok(TASK_SIZE - PAGE));
    });
}

#[test]
fn fixed_noreplace_onto_a_mapping_is_eexist() {
    with_process(|p| {
        p.map_at(BASE, 4);
        p.fill(BASE, 4);
        for (page, pages) in [(0, 4), (3, 1), (3, 4), (0, 1)] {
            let result = mmap(p, BASE + page * PAGE, pages * PAGE, RW, PLAIN | NOREPLACE);
            assert_eq!(result, Err(Errno::EEXIST));
        }
        assert_eq!(mmap(p, BASE + 4 * PAGE, PAGE, READ, PLAIN | NOREPLACE), Ok(BASE + 4 * PAGE));
        p.assert_filled(BASE, 4);
    });
}

#[test]
fn a_length_of_zero_is_einval_and_one_that_wraps_enomem() {
    with_process(|p| {
        for flags in [PLAIN, PLAIN | FIXED, PLAIN | NOREPLACE] {
            assert_eq!(mmap(p, BASE, 0, RW, flags), Err(Errno::EINVAL));
            for len in [usize::MAX, usize::MAX - PAGE + 2, TASK_SIZE + 1, 1 << 63] {
                assert_eq!(mmap(p, BASE, len, RW, flags | NORESERVE), Err(Errno::ENOMEM), "{len:#x}");
            }
        }
    });
}

#[test]
fn multiples_of_two_megabytes_are_aligned_where_the_kernel_chooses() {
    with_process(|p| {
        // So that the top is not aligned by itself.
        mmap(p, 0, PAGE, READ, PLAIN).unwrap();
        for len in [PMD_SIZE, 2 * PMD_SIZE, 16 * PMD_SIZE] {
            assert!(mmap(p, 0, len, RW, PLAIN | NORESERVE).unwrap().is_multiple_of(PMD_SIZE), "{len:#x}");
        }
    });
    for len in [PMD_SIZE + PAGE, PMD_SIZE / 2 * 3, 8 * PMD_SIZE + PAGE, PMD_SIZE - PAGE] {
        with_process(|p| {
            let first = mmap(p, 0, PAGE, READ, PLAIN).unwrap();
            assert_eq!(mmap(p, 0, len, RW, PLAIN | NORESERVE), Ok(first - len));
        });
    }
}

#[test]
fn mappings_in_32_bits_are_in_the_second_gigabyte() {
    with_process(|p| {
        let addr = mmap(p, 0, PAGE, RW, PLAIN | IN_32_BITS).unwrap();
        assert!((1 << 30..2 << 30).contains(&addr), "{addr:#x}");
    });
}

#[test]
fn unknown_protection_is_ignored_by_mmap_and_einval_for_mprotect() {
    with_process(|p| {
        assert_eq!(mmap(p, BASE, PAGE, RW | 0x100, PLAIN | FIXED), Ok(BASE));
        assert_eq!(p.space.mprotect(BASE, PAGE, RW | 0x100).map_err(Errno::from), Err(Errno::EINVAL));
    });
}

#[test]
fn unknown_flags_are_ignored_for_private_memory() {
    with_process(|p| assert_eq!(mmap(p, BASE, PAGE, RW, PLAIN | FIXED | 1 << 27), Ok(BASE)));
}

#[test]
fn an_offset_must_be_aligned() {
    with_process(|p| {
        let request = MmapRequest { addr: 0, len: PAGE, prot: RW, flags: PLAIN, file: None, offset: 100 };
        assert_eq!(p.space.mmap(request).map_err(Errno::from), Err(Errno::EINVAL));
    });
}

/// A stack of one page at `BASE`.
fn with_stack(test: impl FnOnce(&Process<'_>)) {
    with_process(|p| {
        mmap(p, BASE, PAGE, RW, PLAIN | FIXED | GROWSDOWN).unwrap();
        test(p);
    });
}

#[test]
fn a_stack_keeps_others_away_from_below_it_but_not_fixed_ones() {
    with_stack(|p| {
        let near = BASE - 2 * PAGE;
        assert_ne!(mmap(p, near, PAGE, READ, PLAIN), Ok(near));
        let far = BASE - 270 * PAGE;
        assert_eq!(mmap(p, far, PAGE, READ, PLAIN), Ok(far));
        assert_eq!(mmap(p, BASE - PAGE, PAGE, READ, PLAIN | FIXED), Ok(BASE - PAGE));
    });
}

#[test]
fn a_stack_grows_at_any_touch_in_the_hole_below() {
    with_stack(|p| {
        p.write(BASE - 200 * PAGE, 1).unwrap();
        assert_eq!(p.map(BASE), "[-200-1 rw-p]");
        p.read(BASE - 300 * PAGE).unwrap();
        assert_eq!(p.map(BASE), "[-300-1 rw-p]");
    });
}

#[test]
fn a_stack_does_not_grow_near_what_can_be_accessed() {
    with_stack(|p| {
        mmap(p, BASE - 300 * PAGE, PAGE, READ, PLAIN | FIXED).unwrap();
        let below_gap = BASE - (299 - GUARD_GAP + 1) * PAGE;
        assert!(p.write(below_gap, 1).is_err());
        p.write(below_gap + PAGE, 1).unwrap();
        assert_eq!(p.map(BASE), "[-300--299 r--p][-43-1 rw-p]");
    });
}

#[test]
fn a_stack_grows_up_to_what_cannot_be_accessed() {
    with_stack(|p| {
        mmap(p, BASE - 10 * PAGE, PAGE, 0, PLAIN | FIXED).unwrap();
        p.write(BASE - 9 * PAGE, 1).unwrap();
        assert_eq!(p.map(BASE), "[-10--9 ---p][-9-1 rw-p]");
    });
}

#[test]
fn the_heap_keeps_away_from_a_stack() {
    with_process(|p| {
        p.space.set_program_end(BASE);
        let stack = BASE + 400 * PAGE;
        mmap(p, stack, PAGE, RW, PLAIN | FIXED | GROWSDOWN).unwrap();
        // The heap has a page of its own to spare besides.
        let limit = stack - (GUARD_GAP + 1) * PAGE;
        assert_eq!(p.space.brk(limit + PAGE), BASE);
        assert_eq!(p.space.brk(limit), limit);
    });
}

#[test]
fn munmap_of_bad_ranges_is_einval_and_of_nothing_is_fine() {
    with_process(|p| {
        let munmap = |addr, len| p.space.munmap(addr, len).map_err(Errno::from);
        p.map_at(BASE, 4);
        for (addr, len) in [(BASE + 1, PAGE), (BASE, 0), (TASK_SIZE, PAGE), (BASE, TASK_SIZE), (BASE, usize::MAX)] {
            assert_eq!(munmap(addr, len), Err(Errno::EINVAL), "{addr:#x} {len:#x}");
        }
        assert_eq!(munmap(BASE + 100 * PAGE, PAGE), Ok(()));
        assert_eq!(munmap(BASE - 100 * PAGE, 101 * PAGE), Ok(()));
        assert_eq!(p.map(BASE), "[1-4 rw-p]");
    });
}

#[test]
fn munmap_rounds_its_length_up() {
    with_process(|p| {
        p.map_at(BASE, 4);
        p.space.munmap(BASE, 1).unwrap();
        p.space.munmap(BASE + 2 * PAGE, PAGE + 1).unwrap();
        assert_eq!(p.map(BASE), "[1-2 rw-p]");
    });
}

#[test]
fn mprotect_changes_what_is_before_a_hole_and_is_enomem() {
    with_process(|p| {
        p.map_at(BASE, 4);
        p.map_at(BASE + 6 * PAGE, 2);
        assert_eq!(p.space.mprotect(BASE, 8 * PAGE, READ).map_err(Errno::from), Err(Errno::ENOMEM));
        assert_eq!(p.map(BASE), "[0-4 r--p][6-8 rw-p]");
    });
}

#[test]
fn mprotect_of_a_hole_at_the_start_is_enomem_and_changes_nothing() {
    with_process(|p| {
        p.map_at(BASE + PAGE, 4);
        assert_eq!(p.space.mprotect(BASE, 5 * PAGE, READ).map_err(Errno::from), Err(Errno::ENOMEM));
        assert_eq!(p.map(BASE), "[1-5 rw-p]");
    });
}

#[test]
fn mprotect_of_no_length_is_fine_even_where_nothing_is_mapped() {
    with_process(|p| {
        assert_eq!(p.space.mprotect(BASE, 0, READ), Ok(()));
        assert_eq!(p.space.mprotect(BASE + 1, 0, READ).map_err(Errno::from), Err(Errno::EINVAL));
    });
}

#[test]
fn mprotect_of_a_range_that_wraps_is_enomem() {
    with_process(|p| {
        let len = usize::MAX - BASE - PAGE;
        assert_eq!(p.space.mprotect(BASE + 2 * PAGE, len, READ).map_err(Errno::from), Err(Errno::ENOMEM));
    });
}

#[test]
fn mprotect_to_grow_down_is_einval_where_nothing_does() {
    const PROT_GROWSDOWN: usize = 0x100_0000;
    with_stack(|p| {
        p.map_at(BASE + 10 * PAGE, 4);
        let result = p.space.mprotect(BASE + 10 * PAGE, PAGE, READ | PROT_GROWSDOWN);
        assert_eq!(result.map_err(Errno::from), Err(Errno::EINVAL));
        assert_eq!(p.space.mprotect(BASE, PAGE, READ | PROT_GROWSDOWN), Ok(()));
        assert_eq!(p.map(BASE), "[0-1 r--p][10-14 rw-p]");
    });
}

/// Three mappings of four pages each, which is as many as there may be.
fn at_the_limit_of_mappings(test: impl FnOnce(&Process<'_>)) {
    with_process(|p| {
        for at in [0, 10, 20] {
            p.map_at(BASE + at * PAGE, 4);
        }
        p.space.memory().sysctl().set_max_map_count(3);
        test(p);
    });
}

#[test]
fn at_the_limit_of_mappings_a_hole_in_one_is_enomem_and_changes_nothing() {
    at_the_limit_of_mappings(|p| {
        let munmap = |page, pages| p.space.munmap(BASE + page * PAGE, pages * PAGE).map_err(Errno::from);
        assert_eq!(munmap(1, 2), Err(Errno::ENOMEM));
        assert_eq!(p.map(BASE), "[0-4 rw-p][10-14 rw-p][20-24 rw-p]");
        // Ends, and whole mappings, make none more.
        assert_eq!(munmap(0, 1), Ok(()));
        assert_eq!(munmap(13, 8), Ok(()));
        assert_eq!(munmap(10, 3), Ok(()));
        assert_eq!(p.map(BASE), "[1-4 rw-p][21-24 rw-p]");
        // One below the limit there is room for one split.
        assert_eq!(munmap(2, 1), Ok(()));
        assert_eq!(p.map(BASE), "[1-2 rw-p][3-4 rw-p][21-24 rw-p]");
    });
}

#[test]
fn at_the_limit_of_mappings_a_split_is_enomem_and_changes_nothing() {
    at_the_limit_of_mappings(|p| {
        let protect = |page, pages| p.space.mprotect(BASE + page * PAGE, pages * PAGE, READ).map_err(Errno::from);
        assert_eq!(protect(0, 1), Err(Errno::ENOMEM));
        assert_eq!(p.space.mlock(BASE, PAGE, 0).map_err(Errno::from), Err(Errno::ENOMEM));
        assert_eq!(p.map(BASE), "[0-4 rw-p][10-14 rw-p][20-24 rw-p]");
        assert_eq!(protect(10, 4), Ok(()));
        p.space.munmap(BASE, 4 * PAGE).unwrap();
        assert_eq!(protect(20, 2), Ok(()));
        assert_eq!(p.map(BASE), "[10-14 r--p][20-22 r--p][22-24 rw-p]");
    });
}

#[test]
fn one_mapping_more_than_the_limit_can_be_made_and_no_second() {
    at_the_limit_of_mappings(|p| {
        assert_eq!(mmap(p, BASE + 30 * PAGE, PAGE, RW, PLAIN | FIXED), Ok(BASE + 30 * PAGE));
        assert_eq!(mmap(p, BASE + 40 * PAGE, PAGE, RW, PLAIN | FIXED), Err(Errno::ENOMEM));
        p.space.munmap(BASE, 4 * PAGE).unwrap();
        assert_eq!(mmap(p, BASE + 40 * PAGE, PAGE, RW, PLAIN | FIXED), Ok(BASE + 40 * PAGE));
    });
}
