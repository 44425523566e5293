//! Changing a part of a VMA: the eight ways to merge, and the splits.

use super::*;

/// Draws, changes the flags of `first..end`, and compares.
#[track_caller]
fn modifying(before: Picture, first: usize, end: usize, flags: VmaFlags, after: Picture) {
    on_a_machine(|memory| {
        let mut process = Process::draw(memory, before);
        process.modify(first, end, flags);
        process.expect(after);
        rmap::verify_all(process.tree.iter());
    });
}

#[test]
fn case_1_between_both() {
    modifying(["aabbcc", "wwrrww", "------"], 2, 4, RW, ["aaaaaa", "wwwwww", "------"]);
}

#[test]
fn case_2_whole_into_previous() {
    modifying(["aabbcc", "wwrrxx", "------"], 2, 4, RW, ["aaaabb", "wwwwxx", "------"]);
}

#[test]
fn case_3_whole_into_next() {
    modifying(["aabbcc", "xxrrww", "------"], 2, 4, RW, ["aabbbb", "xxwwww", "------"]);
}

#[test]
fn case_4_end_into_next() {
    modifying(["aaaabb", "rrrrww", "------"], 2, 4, RW, ["aabbbb", "rrwwww", "------"]);
}

#[test]
fn case_5_start_into_previous() {
    modifying(["aabbbb", "wwrrrr", "------"], 2, 4, RW, ["aaaabb", "wwwwrr", "------"]);
}

#[test]
fn case_6_whole_into_previous_before_a_hole() {
    modifying(["aabb.cc", "wwrr.ww", "----.--"], 2, 4, RW, ["aaaa.bb", "wwww.ww", "----.--"]);
}

#[test]
fn case_7_whole_into_next_after_a_hole() {
    modifying(["aa.bbcc", "ww.rrww", "--.----"], 3, 5, RW, ["aa.bbbb", "ww.wwww", "--.----"]);
}

#[test]
fn case_8_whole_into_neither() {
    modifying(["aa.bb.cc", "ww.rr.ww", "--.--.--"], 3, 5, RW, ["aa.bb.cc", "ww.ww.ww", "--.--.--"]);
}

#[test]
fn middle_is_split_twice() {
    modifying(["aaaaaa", "wwwwww", "------"], 2, 4, RO, ["aabbcc", "wwrrww", "------"]);
    modifying(["aaaaaa", "wwwwww", "111111"], 2, 4, RO, ["aabbcc", "wwrrww", "111111"]);
}

#[test]
fn start_and_end_are_split_once() {
    modifying(["aaaa", "wwww", "1111"], 0, 2, RO, ["aabb", "rrww", "1111"]);
    modifying(["aaaa", "wwww", "1111"], 2, 4, RO, ["aabb", "wwrr", "1111"]);
}

#[test]
fn start_does_not_merge_with_next_nor_end_with_previous() {
    modifying(["aabbbbcc", "xxrrrrww", "--------"], 2, 4, RW, ["aabbccdd", "xxwwrrww", "--------"]);
    modifying(["aabbbbcc", "wwrrrrxx", "--------"], 4, 6, RW, ["aabbccdd", "wwrrwwxx", "--------"]);
}

#[test]
fn split_and_merged_again() {
    on_a_machine(|memory| {
        for anon in ["------", "111111"] {
            let mut process = Process::draw(memory, ["aaaaaa", "wwwwww", anon]);
            process.modify(2, 4, RO);
            process.expect(["aabbcc", "wwrrww", anon]);
            process.modify(2, 4, RW);
            process.expect(["aaaaaa", "wwwwww", anon]);
            rmap::verify_all(process.tree.iter());
        }
    });
}

#[test]
fn case_1_with_one_anon_vma() {
    for anon in ["1111--", "11--11", "--1111", "11----", "--11--", "----11", "111111"] {
        modifying(["aabbcc", "wwrrww", anon], 2, 4, RW, ["aaaaaa", "wwwwww", "111111"]);
    }
}

#[test]
fn case_1_with_two_anon_vmas() {
    // The range goes where it can; the previous one comes first.
    modifying(["aabbcc", "wwrrww", "11--22"], 2, 4, RW, ["aaaabb", "wwwwww", "111122"]);
    modifying(["aabbcc", "wwrrww", "111122"], 2, 4, RW, ["aaaabb", "wwwwww", "111122"]);
    modifying(["aabbcc", "wwrrww", "112222"], 2, 4, RW, ["aabbbb", "wwwwww", "112222"]);
    modifying(["aabbcc", "wwrrww", "1122--"], 2, 4, RW, ["aabbbb", "wwwwww", "112222"]);
    modifying(["aabbcc", "wwrrww", "--1122"], 2, 4, RW, ["aaaabb", "wwwwww", "111122"]);
    modifying(["aabbcc", "wwrrww", "112233"], 2, 4, RW, ["aabbcc", "wwwwww", "112233"]);
}

#[test]
fn parts_hand_their_chain_over() {
    modifying(["aaaabb", "rrrrww", "1111--"], 2, 4, RW, ["aabbbb", "rrwwww", "111111"]);
    modifying(["aabbbb", "wwrrrr", "--1111"], 2, 4, RW, ["aaaabb", "wwwwrr", "111111"]);
    modifying(["aaaabb", "rrrrww", "----11"], 2, 4, RW, ["aabbbb", "rrwwww", "--1111"]);
    modifying(["aabbbb", "wwrrrr", "11----"], 2, 4, RW, ["aaaabb", "wwwwrr", "1111--"]);
}

#[test]
fn parts_with_another_anon_vma_are_split_off() {
    modifying(["aaaabb", "rrrrww", "111122"], 2, 4, RW, ["aabbcc", "rrwwww", "111122"]);
    modifying(["aabbbb", "wwrrrr", "112222"], 2, 4, RW, ["aabbcc", "wwwwrr", "112222"]);
}

#[test]
fn special_memory_never_merges() {
    on_a_machine(|memory| {
        let mut process = Process::draw(memory, ["aabb", "wwww", "----"]);
        process.modify(0, 2, RW | VmaFlags::PFNMAP);
        process.modify(2, 4, RW | VmaFlags::PFNMAP);
        process.expect(["aabb", "wwww", "----"]);
    });
}

#[test]
fn a_new_name_splits_and_the_old_one_merges() {
    on_a_machine(|memory| {
        let mut process = Process::draw(memory, ["aaaa", "wwww", "----"]);
        for (name, after) in [(1, ["aabb", "wwww", "----"]), (0, ["aaaa", "wwww", "----"])] {
            let plan = process.tree.plan_modify(process.at(2), pages(2, 4), RW, name);
            let mut spares = process.spares(plan.needs());
            let vma = plan.commit(&mut process.tree, memory, &mut spares);
            assert_eq!(vma.name(), name);
            process.expect(after);
        }
    });
}

#[test]
fn growing_down_moves_the_gap() {
    on_a_machine(|memory| {
        let mut process = Process::new(memory);
        process.map(0, 1, RW);
        process.map(600, 610, RW);
        process.modify(604, 610, RW | VmaFlags::GROWSDOWN);
        process.modify(600, 604, RW | VmaFlags::GROWSDOWN);
        assert_eq!(process.tree.len(), 2);
        let request = crate::vma::GapRequest::new(1 << PAGE_SHIFT, addr(0), addr(610));
        assert_eq!(process.tree.gap_top_down(&request), Some(addr(600 - 257)));
    });
}

#[test]
fn several_vmas_in_turn_with_what_the_edges_need() {
    on_a_machine(|memory| {
        let mut process = Process::draw(memory, ["aaaabbccccdddd", "wwwwrrwwwwxxxx", "1111--2222----"]);
        let range = pages(2, 12);
        let mut spares = process.spares(process.edges(range));
        let mut from = range.start();
        while from < range.end() {
            let vma = process.tree.lookup(from).expect("no hole");
            let part = PageRange::new(from, vma.end().min(range.end())).expect("a range");
            let plan = process.tree.plan_modify(vma, part, RO, 0);
            let vma = plan.commit(&mut process.tree, memory, &mut spares);
            from = vma.end().min(range.end());
        }
        // The first part has no read-only neighbour but the second VMA, and
        // the third has another anon_vma than the first.
        process.expect(["aabbbbccccccdd", "wwrrrrrrrrrrxx", "111111222222--"]);
    });
}

#[test]
fn resizing_keeps_the_index_of_what_stays() {
    on_a_machine(|memory| {
        let mut process = Process::draw(memory, ["..aaaa..", "..wwww..", "..1111.."]);
        let vma = process.at(2);
        let index = vma.index_of(addr(3));
        for (first, end) in [(3, 6), (3, 4), (0, 4), (0, 8), (2, 7)] {
            process.tree.resize(vma, pages(first, end));
            process.tree.verify();
            rmap::verify_all(process.tree.iter());
            assert_eq!(vma.range(), pages(first, end));
            assert_eq!(vma.index_of(addr(3)), index);
            assert_eq!(vma.address_of(index), Some(addr(3)));
        }
        assert_eq!(vma.address_of(vma.index_of(addr(7))), None);
        assert_eq!(vma.address_of(vma.index_of(addr(1))), None);
    });
}

#[test]
fn growing_to_meet_the_next() {
    on_a_machine(|memory| {
        let mut process = Process::draw(memory, ["aa..bb", "ww..ww", "11..--"]);
        let vma = process.at(0);
        let grown = process.copy(vma, 2, 4, 2);
        assert_eq!(grown, vma);
        process.expect(["aaaaaa", "wwwwww", "111111"]);
    });
}

#[test]
fn unmapping_cuts_at_both_ends() {
    on_a_machine(|memory| {
        let mut process = Process::draw(memory, ["aaaabbcccc", "wwwwrrwwww", "1111--1111"]);
        process.unmap(2, 8);
        process.expect(["aa......bb", "ww......ww", "11......11"]);
        rmap::verify_all(process.tree.iter());
        process.unmap(0, 2);
        rmap::verify_all(process.tree.iter());
        assert_eq!(in_use(memory), [1, 1, 1, 0]);
    });
}

#[test]
fn running_out_of_memory_changes_nothing() {
    on_a_machine(|memory| {
        let process = Process::draw(memory, ["aaaaaa", "wwwwww", "111111"]);
        let plan = process.tree.plan_modify(process.at(0), pages(2, 4), RO, 0);
        let before = in_use(memory);
        for nth in 1.. {
            memory.fail_nth_allocation(nth);
            let spares = Spares::reserve(memory, plan.needs());
            memory.fail_nth_allocation(0);
            if spares.is_ok() {
                assert_eq!(nth, 5, "two VMAs and two chain links");
                break;
            }
            assert_eq!(in_use(memory), before);
        }
        assert_eq!(in_use(memory), before);
    });
}
