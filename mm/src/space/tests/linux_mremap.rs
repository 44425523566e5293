//! What Linux 7.3 does in mremap(2), said one at a time.
//!
//! Maps are in pages from [`BASE`]; pages are filled with 1, 2, 3, ...

use super::*;
use crate::{Errno, TASK_SIZE};

const TO: usize = BASE + 100 * PAGE;
const MOVE: usize = MAYMOVE | MREMAP_FIXED;

type Outcome = Result<usize, Errno>;

impl Process<'_> {
    fn mremap(&self, page: usize, old: usize, new: usize, flags: usize, to: usize) -> Outcome {
        let result = self.space.mremap(BASE + page * PAGE, old * PAGE, new * PAGE, flags, to);
        self.space.verify();
        result.map_err(Errno::from)
    }

    /// The values of some pages, from a page of the map on.
    fn values(&self, page: usize, pages: usize) -> Vec<u8> {
        (page..page + pages).map(|page| self.read(BASE + page * PAGE).unwrap()).collect()
    }
}

/// A process with so many pages at `BASE`, filled.
fn filled(pages: usize, test: impl FnOnce(&Process<'_>)) {
    on_machine(4096, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, pages);
        p.fill(BASE, pages);
        test(&p);
    });
}

#[test]
fn unknown_flags_are_einval_even_where_nothing_is_mapped() {
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        for flags in [8, 16, 32, 1 | 32, 1 << 40] {
            assert_eq!(p.mremap(0, 1, 1, flags, 0), Err(Errno::EINVAL));
        }
        assert_eq!(p.mremap(0, 1, 1, 0, 0), Err(Errno::EFAULT));
    });
}

#[test]
fn bad_addresses_and_lengths_are_einval() {
    filled(4, |p| {
        let mremap = |addr, old, new, flags, to| p.space.mremap(addr, old, new, flags, to).map_err(Errno::from);
        assert_eq!(mremap(BASE + 1, PAGE, PAGE, 0, 0), Err(Errno::EINVAL));
        assert_eq!(mremap(BASE, PAGE, 0, 0, 0), Err(Errno::EINVAL));
        assert_eq!(mremap(BASE, PAGE, usize::MAX - 100, 0, 0), Err(Errno::EINVAL));
        assert_eq!(mremap(BASE, PAGE, TASK_SIZE + PAGE, MAYMOVE, 0), Err(Errno::EINVAL));
        assert_eq!(mremap(BASE, PAGE, PAGE, MOVE, TO + 1), Err(Errno::EINVAL));
        assert_eq!(mremap(BASE, PAGE, PAGE, MOVE, TASK_SIZE), Err(Errno::EINVAL));
        assert_eq!(mremap(BASE, PAGE, PAGE, MREMAP_FIXED, TO), Err(Errno::EINVAL));
        assert_eq!(mremap(BASE, PAGE, PAGE, DONTUNMAP, TO), Err(Errno::EINVAL));
        assert_eq!(mremap(BASE, PAGE, 2 * PAGE, MAYMOVE | DONTUNMAP, TO), Err(Errno::EINVAL));
        assert_eq!(p.map(BASE), "[0-4 rw-p]");
    });
}

#[test]
fn dontunmap_lengths_are_compared_after_rounding() {
    filled(4, |p| {
        let flags = MAYMOVE | DONTUNMAP;
        assert!(p.space.mremap(BASE, 4 * PAGE - 1, 4 * PAGE, flags, 0).is_ok());
    });
}

#[test]
fn overlap_is_einval_and_so_is_the_same_address() {
    filled(4, |p| {
        for to in [BASE, BASE + 3 * PAGE, BASE - 3 * PAGE] {
            assert_eq!(p.mremap(0, 4, 4, MOVE, to), Err(Errno::EINVAL));
            assert_eq!(p.mremap(0, 4, 4, MAYMOVE | DONTUNMAP, to), Err(Errno::EINVAL));
        }
    });
}

#[test]
fn nothing_mapped_is_efault() {
    filled(4, |p| {
        assert_eq!(p.mremap(10, 4, 8, MAYMOVE, 0), Err(Errno::EFAULT));
        assert_eq!(p.mremap(10, 4, 4, MOVE, TO), Err(Errno::EFAULT));
    });
}

#[test]
fn shrinking_and_doing_nothing_may_name_more_than_the_mapping() {
    filled(4, |p| {
        assert_eq!(p.mremap(0, 100, 100, 0, 0), Ok(BASE));
        assert_eq!(p.mremap(0, 100, 4, 0, 0), Ok(BASE));
        assert_eq!(p.map(BASE), "[0-4 rw-p]");
        assert_eq!(p.mremap(1, 100, 1, 0, 0), Ok(BASE + PAGE));
        assert_eq!(p.map(BASE), "[0-2 rw-p]");
    });
}

#[test]
fn growing_more_than_the_mapping_has_is_efault_and_leaves_the_destination() {
    filled(4, |p| {
        p.map_at(TO, 8);
        p.fill(TO, 8);
        assert_eq!(p.mremap(2, 4, 8, MOVE, TO), Err(Errno::EFAULT));
        assert_eq!(p.mremap(2, 4, 8, MAYMOVE, 0), Err(Errno::EFAULT));
        p.assert_filled(TO, 8);
        p.assert_filled(BASE, 4);
    });
}

#[test]
fn a_shrinking_move_of_more_than_the_mapping_keeps_is_efault_and_leaves_all() {
    filled(4, |p| {
        p.mmap(BASE + 4 * PAGE, 4 * PAGE, READ, PRIVATE | ANON | FIXED).unwrap();
        p.map_at(TO, 8);
        p.fill(TO, 8);
        // What is kept, six pages, is not one mapping.
        assert_eq!(p.mremap(0, 8, 6, MOVE, TO), Err(Errno::EFAULT));
        assert_eq!(p.map(BASE), "[0-4 rw-p][4-8 r--p][100-108 rw-p]");
        p.assert_filled(TO, 8);
        // Three pages are.
        assert_eq!(p.mremap(0, 8, 3, MOVE, TO), Ok(TO));
        assert_eq!(p.map(BASE), "[100-103 rw-p][103-108 rw-p]");
        assert_eq!(p.values(100, 8), [1, 2, 3, 4, 5, 6, 7, 8]);
    });
}

#[test]
fn growing_in_place_closes_a_hole_and_merges_with_what_comes_next() {
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 4);
        p.map_at(BASE + 8 * PAGE, 4);
        assert_eq!(p.mremap(0, 4, 8, 0, 0), Ok(BASE));
        assert_eq!(p.map(BASE), "[0-12 rw-p]");
    });
}

#[test]
fn growing_without_room_is_enomem_unless_it_may_move() {
    filled(4, |p| {
        p.mmap(BASE + 4 * PAGE, PAGE, READ, PRIVATE | ANON | FIXED).unwrap();
        assert_eq!(p.mremap(0, 4, 5, 0, 0), Err(Errno::ENOMEM));
        // A range that ends before its mapping does cannot grow in place either.
        assert_eq!(p.mremap(0, 2, 3, 0, 0), Err(Errno::ENOMEM));
        let to = p.mremap(0, 2, 3, MAYMOVE, 0).unwrap();
        p.assert_filled(to, 2);
        p.assert_zero(to + 2 * PAGE, 1);
        assert_eq!(p.values(2, 2), [3, 4]);
    });
}

#[test]
fn old_length_zero_maps_shared_memory_a_second_time() {
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        p.mmap(BASE, 4 * PAGE, RW, SHARED | ANON | FIXED).unwrap();
        p.fill(BASE, 4);
        assert_eq!(p.mremap(0, 0, 4, 0, 0), Err(Errno::ENOMEM));
        let second = p.mremap(0, 0, 4, MAYMOVE, 0).unwrap();
        p.assert_filled(second, 4);
        // From the page that is named on.
        assert_eq!(p.mremap(2, 0, 2, MOVE, TO), Ok(TO));
        p.write(TO, 77).unwrap();
        assert_eq!(p.values(0, 4), [1, 2, 77, 4]);
    });
}

#[test]
fn old_length_zero_onto_itself_is_efault_and_leaves_the_mapping() {
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        p.mmap(BASE, 4 * PAGE, RW, SHARED | ANON | FIXED).unwrap();
        p.fill(BASE, 4);
        for pages in [1, 2] {
            assert_eq!(p.mremap(1, 0, pages, MOVE, BASE + PAGE), Err(Errno::EFAULT));
            assert_eq!(p.values(0, 4), [1, 2, 3, 4]);
        }
    });
}

#[test]
fn old_length_zero_of_private_memory_is_einval() {
    filled(4, |p| {
        assert_eq!(p.mremap(0, 0, 4, MAYMOVE, 0), Err(Errno::EINVAL));
        assert_eq!(p.mremap(0, 0, 4, MOVE, TO), Err(Errno::EINVAL));
    });
}

#[test]
fn below_the_lowest_address_is_eperm() {
    filled(4, |p| {
        assert_eq!(p.mremap(0, 4, 4, MOVE, 0x1000), Err(Errno::EPERM));
        p.assert_filled(BASE, 4);
    });
}

#[test]
fn several_mappings_move_with_the_gaps_between_them() {
    filled(4, |p| {
        p.mmap(BASE + 6 * PAGE, 2 * PAGE, READ, PRIVATE | ANON | FIXED).unwrap();
        // Opposite the gap, and behind.
        p.mmap(TO + 4 * PAGE, 2 * PAGE, 4, PRIVATE | ANON | FIXED).unwrap();
        p.mmap(TO + 8 * PAGE, 2 * PAGE, 4, PRIVATE | ANON | FIXED).unwrap();
        assert_eq!(p.mremap(0, 10, 10, MOVE, TO), Ok(TO));
        assert_eq!(p.map(TO), "[0-4 rw-p][4-6 --xp][6-8 r--p][8-10 --xp]");
        p.assert_filled(TO, 4);
    });
}

#[test]
fn several_mappings_move_only_fixed_and_with_equal_lengths() {
    filled(4, |p| {
        p.mmap(BASE + 4 * PAGE, 2 * PAGE, READ, PRIVATE | ANON | FIXED).unwrap();
        assert_eq!(p.mremap(0, 6, 7, MOVE, TO), Err(Errno::EFAULT));
        assert_eq!(p.mremap(0, 6, 6, MAYMOVE | DONTUNMAP, 0), Err(Errno::EFAULT));
        assert_eq!(p.mremap(0, 6, 6, MAYMOVE, 0), Ok(BASE));
        assert_eq!(p.mremap(0, 6, 6, MOVE | DONTUNMAP, TO), Ok(TO));
        assert_eq!(p.map(BASE), "[0-4 rw-p][4-6 r--p][100-104 rw-p][104-106 r--p]");
        p.assert_zero(BASE, 6);
    });
}

#[test]
fn a_range_of_several_mappings_must_not_start_with_a_gap() {
    filled(4, |p| {
        p.map_at(BASE + 6 * PAGE, 2);
        assert_eq!(p.mremap(4, 4, 4, MOVE, TO), Err(Errno::EFAULT));
        assert_eq!(p.mremap(20, 4, 4, MOVE, TO), Err(Errno::EFAULT));
    });
}

#[test]
fn several_mappings_of_which_one_is_sealed_stay_all_where_they_are() {
    // Linux moves those before the sealed one; see docs.
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 4);
        p.fill(BASE, 4);
        p.space.mseal(BASE + 2 * PAGE, PAGE, 0).unwrap();
        assert_eq!(p.mremap(0, 4, 4, MOVE, TO), Err(Errno::EPERM));
        p.assert_filled(BASE, 4);
    });
}

#[test]
fn a_sealed_destination_is_eperm_even_when_there_is_no_room_for_a_second_mapping() {
    filled(4, |p| {
        p.space.mseal(BASE + 2 * PAGE, PAGE, 0).unwrap();
        p.space.set_limits(Limits { address_space: 4 * PAGE as u64, ..Limits::default() });
        assert_eq!(p.mremap(0, 1, 1, MOVE | DONTUNMAP, BASE + 2 * PAGE), Err(Errno::EPERM));
        assert_eq!(p.mremap(0, 1, 1, MOVE | DONTUNMAP, TO), Err(Errno::ENOMEM));
    });
}

#[test]
fn sealed_memory_is_eperm_even_when_nothing_is_to_be_done() {
    filled(4, |p| {
        p.space.mseal(BASE, 4 * PAGE, 0).unwrap();
        assert_eq!(p.mremap(0, 4, 4, 0, 0), Err(Errno::EPERM));
        assert_eq!(p.mremap(0, 4, 2, 0, 0), Err(Errno::EPERM));
        assert_eq!(p.mremap(0, 4, 8, MAYMOVE, 0), Err(Errno::EPERM));
        p.map_at(TO, 4);
        assert_eq!(p.space.mremap(TO, 4 * PAGE, 4 * PAGE, MOVE, BASE), Err(SpaceError::NotPermitted));
    });
}

#[test]
fn dontunmap_leaves_an_empty_mapping_that_is_as_new() {
    filled(4, |p| {
        assert_eq!(p.mremap(0, 4, 4, MOVE | DONTUNMAP, TO), Ok(TO));
        p.assert_filled(TO, 4);
        p.assert_zero(BASE, 4);
        // It merges with fresh memory beside it: its page offset was reset.
        p.map_at(BASE + 4 * PAGE, 2);
        assert_eq!(p.map(BASE), "[0-6 rw-p][100-104 rw-p]");
    });
}

#[test]
fn dontunmap_without_fixed_takes_the_address_as_a_hint() {
    filled(4, |p| {
        assert_eq!(p.mremap(0, 4, 4, MAYMOVE | DONTUNMAP, TO), Ok(TO));
        // Busy now, so it goes elsewhere.
        let other = p.mremap(0, 4, 4, MAYMOVE | DONTUNMAP, TO).unwrap();
        assert!(other != TO && other != BASE);
        p.assert_filled(TO, 4);
    });
}

#[test]
fn dontunmap_of_shared_memory_leaves_the_contents() {
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        p.mmap(BASE, 4 * PAGE, RW, SHARED | ANON | FIXED).unwrap();
        p.fill(BASE, 4);
        let to = p.mremap(0, 4, 4, MAYMOVE | DONTUNMAP, 0).unwrap();
        p.assert_filled(BASE, 4);
        p.assert_filled(to, 4);
    });
}

#[test]
fn dontunmap_does_not_merge_with_its_own_source() {
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 4);
        let to = BASE + 4 * PAGE;
        assert_eq!(p.mremap(0, 4, 4, MOVE | DONTUNMAP, to), Ok(to));
        assert_eq!(p.map(BASE), "[0-4 rw-p][4-8 rw-p]");
    });
}

#[test]
fn dontunmap_unlocks_what_it_leaves_and_counts_right() {
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        p.mmap(BASE, 8 * PAGE, RW, PRIVATE | ANON | FIXED | 0x2000).unwrap();
        assert_eq!(p.space.stats().locked_vm, 8);
        assert_eq!(p.mremap(2, 4, 4, MOVE | DONTUNMAP, TO), Ok(TO));
        let locked = |vma: &crate::VmaInfo| vma.flags.contains(VmaFlags::LOCKED);
        let mut map = Vec::new();
        p.space.for_each_vma(|vma| map.push((vma.start.wrapping_sub(BASE) / PAGE, locked(vma))));
        assert_eq!(map, [(0, true), (2, false), (6, true), (100, true)]);
        assert_eq!(p.space.stats().locked_vm, 8);
        assert_eq!(p.space.stats().total_vm, 12);
    });
}

#[test]
fn a_locked_mapping_that_grows_is_populated() {
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        p.mmap(BASE, 2 * PAGE, RW, PRIVATE | ANON | FIXED | 0x2000).unwrap();
        assert_eq!(p.mremap(0, 2, 6, 0, 0), Ok(BASE));
        assert_eq!(p.space.stats().rss_anon, 6);
        assert_eq!(p.mremap(0, 6, 9, MOVE, TO), Ok(TO));
        assert_eq!(p.space.stats().rss_anon, 9);
        assert_eq!(p.space.stats().locked_vm, 9);
    });
}

#[test]
fn growing_locked_memory_over_the_limit_is_eagain() {
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        p.mmap(BASE, 2 * PAGE, RW, PRIVATE | ANON | FIXED | 0x2000).unwrap();
        p.space.set_limits(Limits { memlock: 4 * PAGE as u64, ..Limits::default() });
        assert_eq!(p.mremap(0, 2, 5, MAYMOVE, 0), Err(Errno::EAGAIN));
        assert_eq!(p.mremap(0, 2, 4, MAYMOVE, 0), Ok(BASE));
    });
}

#[test]
fn growing_over_the_limits_of_address_space_and_data_is_enomem() {
    filled(4, |p| {
        let limit = 6 * PAGE as u64;
        p.space.set_limits(Limits { address_space: limit, ..Limits::default() });
        assert_eq!(p.mremap(0, 4, 7, MAYMOVE, 0), Err(Errno::ENOMEM));
        // For a moment a mapping that stays counts twice.
        assert_eq!(p.mremap(0, 4, 4, MOVE | DONTUNMAP, TO), Err(Errno::ENOMEM));
        assert_eq!(p.mremap(0, 4, 4, MOVE, TO), Ok(TO));
        p.space.set_limits(Limits { data: limit, ..Limits::default() });
        assert_eq!(p.mremap(100, 4, 7, MAYMOVE, 0), Err(Errno::ENOMEM));
    });
}

#[test]
fn a_move_does_not_raise_the_peaks() {
    filled(8, |p| {
        let peak = p.space.stats().peak_vm;
        p.mremap(0, 8, 8, MOVE, TO).unwrap();
        assert_eq!(p.space.stats().peak_vm, peak);
        assert_eq!(p.space.stats().peak_rss, 8);
    });
}

#[test]
fn moved_written_memory_merges_only_where_it_came_from() {
    // ```text
    //   aaaa----        written, in one piece
    //   aa  ----  aa    one half moved away: does not merge with what is there
    //   aaaa----        moved back: one piece again
    // ```
    filled(4, |p| {
        p.map_at(TO - 2 * PAGE, 2);
        assert_eq!(p.mremap(2, 2, 2, MOVE, TO), Ok(TO));
        assert_eq!(p.map(TO), "[-100--98 rw-p][-2-0 rw-p][0-2 rw-p]");
        let back = BASE + 2 * PAGE;
        assert_eq!(p.space.mremap(TO, 2 * PAGE, 2 * PAGE, MOVE, back), Ok(back));
        assert_eq!(p.map(BASE), "[0-4 rw-p][98-100 rw-p]");
        p.assert_filled(BASE, 4);
    });
}

#[test]
fn moved_unwritten_memory_merges_anywhere() {
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 4);
        p.map_at(TO - 2 * PAGE, 2);
        p.map_at(TO + 2 * PAGE, 2);
        assert_eq!(p.mremap(1, 2, 2, MOVE, TO), Ok(TO));
        assert_eq!(p.map(TO), "[-100--99 rw-p][-97--96 rw-p][-2-4 rw-p]");
    });
}

#[test]
fn what_moves_may_merge_its_source_with_written_memory_before_the_source_goes() {
    // ```text
    //   uuuuu.......wwww     u unwritten, w written; one page of u moves and grows
    //   uuuuu*******wwww     into the hole: all is one
    //   uu.wwwwwwwwwwwww     and then has a hole, the ends of which share an anon_vma
    // ```
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        p.map_at(BASE, 5);
        p.map_at(BASE + 12 * PAGE, 4);
        p.fill(BASE + 12 * PAGE, 4);
        let target = BASE + 5 * PAGE;
        assert_eq!(p.mremap(2, 1, 7, MOVE, target), Ok(target));
        assert_eq!(p.map(BASE), "[0-2 rw-p][3-16 rw-p]");
        p.assert_filled(BASE + 12 * PAGE, 4);
    });
}

#[test]
fn written_memory_moved_to_before_unwritten_memory_keeps_its_reverse_mapping() {
    // CVE-2026-23077: the anon_vma of what merges must go along.
    filled(4, |p| {
        assert_eq!(p.mremap(0, 4, 4, MOVE, TO), Ok(TO));
        p.map_at(BASE + 4 * PAGE, 4);
        let flags = MOVE | DONTUNMAP;
        assert_eq!(p.space.mremap(TO, 4 * PAGE, 4 * PAGE, flags, BASE), Ok(BASE));
        assert_eq!(p.map(BASE), "[0-8 rw-p][100-104 rw-p]");
        p.space.munmap(TO, 4 * PAGE).unwrap();
        crate::space::verify_all(&[&p.space]);
        p.assert_filled(BASE, 4);
    });
}

#[test]
fn a_move_needs_room_for_four_more_mappings_and_one_more_if_it_leaves_the_source() {
    filled(4, |p| {
        let limit = |extra: usize| p.space.memory().sysctl().set_max_map_count(1 + extra);
        limit(3);
        assert_eq!(p.mremap(0, 2, 2, MOVE, TO), Err(Errno::ENOMEM));
        assert_eq!(p.mremap(0, 4, 2, 0, 0), Err(Errno::ENOMEM));
        limit(4);
        assert_eq!(p.mremap(0, 4, 4, MOVE | DONTUNMAP, TO), Err(Errno::ENOMEM));
        assert_eq!(p.mremap(0, 4, 4, MOVE, TO), Ok(TO));
        limit(5);
        assert_eq!(p.mremap(100, 4, 4, MOVE | DONTUNMAP, BASE), Ok(BASE));
    });
}

#[test]
fn at_the_limit_of_mappings_a_move_onto_others_is_enomem_and_changes_nothing() {
    // CVE-2004-0077: the target must not be half unmapped.
    filled(4, |p| {
        p.map_at(TO, 8);
        p.fill(TO, 8);
        p.space.memory().sysctl().set_max_map_count(5);
        assert_eq!(p.mremap(1, 2, 2, MOVE, TO + 3 * PAGE), Err(Errno::ENOMEM));
        p.assert_filled(BASE, 4);
        p.assert_filled(TO, 8);
        p.space.memory().sysctl().set_max_map_count(6);
        assert_eq!(p.mremap(1, 2, 2, MOVE, TO + 3 * PAGE), Ok(TO + 3 * PAGE));
        assert_eq!(p.values(100, 8), [1, 2, 3, 2, 3, 6, 7, 8]);
    });
}

#[test]
fn a_shrinking_move_keeps_its_pages_when_the_tail_is_the_last_in_its_tables() {
    // ```text
    //        512 GiB
    //   [aaaa|bbbbbbbb]   ....[    ]     b goes, and with it the tables above
    //                                    the boundary, but for the target's
    // ```
    on_machine(1024, |mem| {
        let p = Process::new(mem);
        let boundary: usize = 1 << 39;
        let start = boundary - 4 * PAGE;
        p.map_at(start, 12);
        p.fill(start, 12);
        let to = boundary + (1 << 30);
        assert_eq!(p.space.mremap(start, 12 * PAGE, 4 * PAGE, MOVE, to), Ok(to));
        crate::space::verify_all(&[&p.space]);
        p.assert_filled(to, 4);
        assert_eq!(p.map(to), "[0-4 rw-p]");
    });
}

#[test]
fn a_move_may_make_its_source_part_of_a_neighbour_that_has_pages() {
    // ```text
    //   [aa]  [sstt]     a is written to, s and t are not: moved in between,
    //   [aass]  [tt]     s makes all one VMA, in which its old place is a hole
    // ```
    filled(2, |p| {
        p.map_at(BASE + 4 * PAGE, 4);
        assert_eq!(p.mremap(4, 2, 2, MOVE, BASE + 2 * PAGE), Ok(BASE + 2 * PAGE));
        assert_eq!(p.map(BASE), "[0-4 rw-p][6-8 rw-p]");
        p.assert_filled(BASE, 2);
    });
}
