//! What fork does to VMAs, and to how they merge afterwards.

use super::*;

/// Checks the VMAs of a whole family.
fn verify_family(family: &[&Process]) {
    for process in family {
        process.tree.verify();
    }
    rmap::verify_all(family.iter().flat_map(|process| process.tree.iter()));
}

#[test]
fn child_looks_like_its_parent() {
    on_a_machine(|memory| {
        let picture = ["aabb..cc", "wwrr..xx", "11--..22"];
        let parent = Process::draw(memory, picture);
        let child = parent.fork();
        child.expect(picture);
        parent.expect(picture);
        verify_family(&[&parent, &child]);
        assert_ne!(child.at(0).anon_vma(), parent.at(0).anon_vma());
        assert_eq!(child.at(0).space(), 8);
        assert_eq!(child.at(0).chain_len(), 2);
        assert_eq!(child.at(2).chain_len(), 0);
    });
}

#[test]
fn wiped_memory_starts_anew() {
    on_a_machine(|memory| {
        let mut parent = Process::draw(memory, ["aa", "ww", "11"]);
        parent.modify(0, 2, RW | VmaFlags::WIPEONFORK);
        let child = parent.fork();
        child.expect(["aa", "ww", "--"]);
        verify_family(&[&parent, &child]);
    });
}

#[test]
fn childs_memory_does_not_merge_with_fresh_memory_but_the_parents_does() {
    on_a_machine(|memory| {
        let mut parent = Process::draw(memory, ["aa", "ww", "11"]);
        let mut child = parent.fork();
        child.map(2, 4, RW);
        child.expect(["aabb", "wwww", "11--"]);
        parent.map(2, 4, RW);
        parent.expect(["aaaa", "wwww", "1111"]);
        child.map(4, 6, RW);
        child.expect(["aabbbb", "wwwwww", "11----"]);
        verify_family(&[&parent, &child]);
    });
}

#[test]
fn childs_memory_does_not_take_in_fresh_memory_on_a_change() {
    // The neighbour was never written; before or after the inherited VMA.
    on_a_machine(|memory| {
        let parent = Process::draw(memory, ["..aa..", "..ww..", "..11.."]);
        let mut child = parent.fork();
        child.map(0, 2, RO);
        child.map(4, 6, RO);
        child.modify(2, 4, RO);
        child.expect(["aabbcc", "rrrrrr", "--11--"]);
        child.modify(2, 4, RW);
        child.modify(0, 2, RW);
        child.modify(4, 6, RW);
        child.expect(["aabbcc", "wwwwww", "--11--"]);
        verify_family(&[&parent, &child]);
    });
}

#[test]
fn inherited_parts_merge_with_each_other() {
    on_a_machine(|memory| {
        let parent = Process::draw(memory, ["aaaaaa", "wwwwww", "111111"]);
        let mut child = parent.fork();
        child.modify(2, 4, RO);
        child.expect(["aabbcc", "wwrrww", "111111"]);
        child.modify(2, 4, RW);
        child.expect(["aaaaaa", "wwwwww", "111111"]);
        verify_family(&[&parent, &child]);
    });
}

#[test]
fn inherited_memory_moved_next_to_fresh_memory_stays_apart() {
    // Companion of CVE-2026-23077: the copied VMA is a forked child's.
    on_a_machine(|memory| {
        for (first, end, after) in
            [(0, 2, ["aabb..cc", "wwww..ww", "11--..11"]), (4, 6, ["..aabbcc", "..wwwwww", "..--1111"])]
        {
            let parent = Process::draw(memory, ["......aa", "......ww", "......11"]);
            let mut child = parent.fork();
            child.map(2, 4, RW);
            let source = child.at(6);
            child.map_new(&NewMapping {
                range: pages(first, end),
                pgoff: natural(first),
                attributes: source.attributes(),
                copied_from: Some(source),
                merge: MergeWith::NotSource,
                space: 8,
            });
            child.expect(after);
            verify_family(&[&parent, &child]);
        }
    });
}

#[test]
fn neighbours_share_only_in_the_parent() {
    on_a_machine(|memory| {
        let mut parent = Process::draw(memory, ["aa", "ww", "11"]);
        let mut child = parent.fork();
        for (process, anon) in [(&mut parent, "1111"), (&mut child, "1122")] {
            process.map(2, 4, RO);
            process.touch(2);
            process.expect(["aabb", "wwrr", anon]);
        }
        parent.modify(2, 4, RW);
        parent.expect(["aaaa", "wwww", "1111"]);
        child.modify(2, 4, RW);
        child.expect(["aabb", "wwww", "1122"]);
        verify_family(&[&parent, &child]);
    });
}

#[test]
fn several_generations_end_in_any_order() {
    on_a_machine(|memory| {
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]] {
            let first = Process::draw(memory, ["aaaa", "wwww", "1111"]);
            let second = first.fork();
            let third = second.fork();
            let mut fourth = third.fork();
            fourth.modify(1, 2, RO);
            let mut family = [Some(first), Some(second), Some(third), Some(fourth)];
            for index in order {
                verify_family(&family.iter().flatten().collect::<Vec<_>>());
                family[index] = None;
            }
            assert_eq!(in_use(memory), [0; 4]);
        }
    });
}

#[test]
fn chains_do_not_grow_with_the_generations() {
    // Each process forks and goes: a daemon that restarts itself.
    on_a_machine(|memory| {
        let mut process = Process::draw(memory, ["aa", "ww", "11"]);
        for generation in 0..20 {
            let child = process.fork();
            verify_family(&[&process, &child]);
            drop(process);
            process = child;
            verify_family(&[&process]);
            assert!(process.at(0).chain_len() <= 3, "generation {generation}");
        }
    });
}

#[test]
fn an_anon_vma_is_not_reused_while_somebody_uses_it() {
    // CVE-2022-42703: the parent keeps one part, the child reuses nothing.
    on_a_machine(|memory| {
        let mut first = Process::draw(memory, ["aaaa", "wwww", "1111"]);
        let second = first.fork();
        first.unmap(0, 2);
        let third = second.fork();
        verify_family(&[&first, &second, &third]);
        let used: Vec<_> = [&first, &second, &third].iter().map(|p| p.at(2).anon_vma()).collect();
        assert!(used[0] != used[1] && used[1] != used[2] && used[0] != used[2]);
        drop(second);
        // The second process's may serve the third one's child now.
        let fourth = third.fork();
        verify_family(&[&first, &third, &fourth]);
        assert_eq!(fourth.at(2).anon_vma(), used[1]);
        // The part that the first has lost is the fourth's, too.
        assert_eq!(fourth.at(0).anon_vma(), used[1]);
        let fifth = fourth.fork();
        verify_family(&[&first, &third, &fourth, &fifth]);
        assert!(!used.contains(&fifth.at(0).anon_vma()));
    });
}

#[test]
fn fork_needs_what_it_says() {
    on_a_machine(|memory| {
        let first = Process::draw(memory, ["aa", "ww", "11"]);
        let second = first.fork();
        assert_eq!(Needs::fork(first.at(0)), Needs { vmas: 1, avcs: 2, anon_vmas: 1 });
        assert_eq!(Needs::fork(second.at(0)), Needs { vmas: 1, avcs: 3, anon_vmas: 1 });
    });
}
