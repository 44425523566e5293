//! The life of anon_vmas, and walks.

use proptest::prelude::*;

use super::*;
use crate::flags::VmaFlags;
use crate::vma::tests::{Process, RO, RW, RX, in_use, natural, on_a_machine, pages};
use crate::vma::{MergeWith, NewMapping};

/// Which VMAs a walk for page indices meets, by their first page.
fn walked(anon_vma: Ref<AnonVma>, first: usize, last: usize) -> Vec<usize> {
    let mut met = Vec::new();
    AnonVma::walk(anon_vma, natural(first), natural(last), |vma| {
        met.push((vma.start() - pages(0, 1).start()) / 4096);
        true
    });
    met
}

#[test]
fn first_write_makes_one_and_the_last_unmap_frees_it() {
    on_a_machine(|memory| {
        let mut process = Process::draw(memory, ["aaaa", "wwww", "----"]);
        assert_eq!(in_use(memory), [1, 0, 0, 0]);
        process.touch(1);
        process.touch(2);
        process.expect(["aaaa", "wwww", "1111"]);
        assert_eq!(in_use(memory), [1, 1, 1, 0]);
        process.unmap(0, 3);
        assert_eq!(in_use(memory), [1, 1, 1, 0]);
        process.unmap(3, 4);
        assert_eq!(in_use(memory), [0; 4]);
    });
}

#[test]
fn adjacent_memory_shares_one() {
    on_a_machine(|memory| {
        let process = Process::draw(memory, ["aabb", "wwrr", "11--"]);
        process.touch(2);
        process.expect(["aabb", "wwrr", "1111"]);
        verify_all(process.tree.iter());
        let process = Process::draw(memory, ["aabb", "xxrr", "--11"]);
        process.touch(0);
        process.expect(["aabb", "xxrr", "1111"]);
    });
}

#[test]
fn next_is_preferred_to_previous() {
    on_a_machine(|memory| {
        let process = Process::draw(memory, ["aabbcc", "wwrrww", "11--22"]);
        process.touch(2);
        process.expect(["aabbcc", "wwrrww", "112222"]);
    });
}

#[test]
fn distant_or_different_memory_does_not_share() {
    on_a_machine(|memory| {
        let process = Process::draw(memory, ["aa.bb", "ww.rr", "11.--"]);
        process.touch(3);
        process.expect(["aa.bb", "ww.rr", "11.22"]);

        let mut process = Process::draw(memory, ["aa", "ww", "11"]);
        process.map(2, 4, RW | VmaFlags::LOCKED);
        process.touch(2);
        process.expect(["aabb", "wwww", "1122"]);

        // The page index does not go on.
        let mut process = Process::draw(memory, ["aa", "ww", "11"]);
        let elsewhere = process.detached(pages(2, 4), natural(9), process.at(0).attributes());
        process.insert(elsewhere);
        process.touch(2);
        process.expect(["aabb", "wwww", "1122"]);
    });
}

#[test]
fn shared_then_protected_alike_becomes_one() {
    on_a_machine(|memory| {
        let mut process = Process::draw(memory, ["aabb", "wwrr", "11--"]);
        process.touch(3);
        process.modify(2, 4, RW);
        process.expect(["aaaa", "wwww", "1111"]);
        assert_eq!(in_use(memory), [1, 1, 1, 0]);
    });
}

#[test]
fn preparing_without_memory_changes_nothing() {
    on_a_machine(|memory| {
        let process = Process::draw(memory, ["aa", "ww", "--"]);
        for nth in [1, 2] {
            memory.fail_nth_allocation(nth);
            assert_eq!(prepare(memory, process.at(0)), Err(crate::OutOfMemory));
            assert!(memory.allocation_failed());
            assert_eq!(in_use(memory), [1, 0, 0, 0]);
            process.expect(["aa", "ww", "--"]);
        }
        memory.fail_nth_allocation(0);
        process.touch(0);
    });
}

#[test]
fn threads_that_prepare_one_vma_agree() {
    on_a_machine(|memory| {
        for _ in 0..50 {
            let process = Process::draw(memory, ["aa", "ww", "--"]);
            let vma = process.at(0);
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| prepare(memory, vma).expect("memory"));
                }
            });
            process.expect(["aa", "ww", "11"]);
            verify_all(process.tree.iter());
            assert_eq!(in_use(memory), [1, 1, 1, 0]);
        }
    });
}

#[test]
fn walk_meets_what_covers_the_page() {
    on_a_machine(|memory| {
        let mut parent = Process::draw(memory, ["aaaa", "wwww", "1111"]);
        let root = parent.at(0).anon_vma().expect("written");
        let child = parent.fork();
        parent.modify(1, 2, RO);
        assert_eq!(walked(root, 1, 1), [0, 1]);
        assert_eq!(walked(root, 0, 0), [0, 0]);
        assert_eq!(walked(root, 3, 3), [0, 2]);
        assert_eq!(walked(root, 4, 9), [0usize; 0]);
        assert_eq!(walked(root, 0, 9), [0, 0, 1, 2]);
        let childs = child.at(0).anon_vma().expect("inherited");
        assert_eq!(walked(childs, 2, 2), [0]);
        drop(child);
        assert_eq!(walked(root, 2, 2), [2]);
    });
}

#[test]
fn walk_can_be_stopped() {
    on_a_machine(|memory| {
        let parent = Process::draw(memory, ["aa", "ww", "11"]);
        let _child = parent.fork();
        let root = parent.at(0).anon_vma().expect("written");
        let mut count = 0;
        AnonVma::walk(root, natural(0), natural(1), |_| {
            count += 1;
            false
        });
        assert_eq!(count, 1);
    });
}

#[test]
fn walk_finds_a_moved_page_at_both_places() {
    on_a_machine(|memory| {
        let mut process = Process::draw(memory, ["aa", "ww", "11"]);
        let source = process.at(0);
        let root = source.anon_vma().expect("written");
        process.copy(source, 8, 10, 0);
        process.expect(["aa......bb", "ww......ww", "11......11"]);
        assert_eq!(walked(root, 1, 1), [0, 8], "the old place first, as a mover relies on");
        process.unmap(0, 2);
        assert_eq!(walked(root, 1, 1), [8]);
        verify_all(process.tree.iter());
    });
}

#[test]
fn moved_away_wholly_the_source_starts_anew() {
    on_a_machine(|memory| {
        let mut process = Process::draw(memory, ["aa..bb", "ww..ww", "11..--"]);
        let source = process.at(0);
        process.map_new(&NewMapping {
            range: pages(2, 4),
            pgoff: natural(2),
            attributes: source.attributes(),
            copied_from: Some(source),
            merge: MergeWith::NotSource,
            space: 7,
        });
        process.expect(["aabbbb", "wwwwww", "111111"]);
        unlink(memory, source);
        process.tree.rebase(source, natural(0));
        process.expect(["aabbbb", "wwwwww", "--1111"]);
        verify_all(process.tree.iter());
        // Pages that were moved keep their anon_vma when the source goes.
        process.unmap(0, 2);
        assert_eq!(in_use(memory), [1, 1, 1, 0]);
    });
}

#[test]
fn mapping_word_names_the_anon_vma() {
    on_a_machine(|memory| {
        let process = Process::draw(memory, ["aa", "ww", "11"]);
        let anon_vma = process.at(0).anon_vma().expect("written");
        let word = AnonVma::to_mapping(anon_vma);
        // SAFETY: one word is of `to_mapping`, the other has its lowest bit clear.
        let (named, none) = unsafe { (AnonVma::from_mapping(word), AnonVma::from_mapping(0x1000)) };
        assert_eq!(named, Some(anon_vma));
        assert_eq!(none, None);
        assert!(AnonVma::root(anon_vma) == anon_vma);
    });
}

#[derive(Clone, Debug)]
enum Step {
    Map(usize, usize, VmaFlags),
    Unmap(usize, usize),
    Modify(usize, usize, VmaFlags),
    Touch(usize),
    Move(usize, usize),
    Fork,
    Exit,
}

fn step() -> impl Strategy<Value = Step> {
    let page = 0..32usize;
    let flags = prop_oneof![3 => Just(RW), 2 => Just(RO), 1 => Just(RX)];
    prop_oneof![
        3 => (page.clone(), 1..8usize, flags.clone()).prop_map(|(first, len, flags)| Step::Map(first, len, flags)),
        2 => (page.clone(), 1..6usize).prop_map(|(first, len)| Step::Unmap(first, len)),
        4 => (page.clone(), 1..8usize, flags).prop_map(|(first, len, flags)| Step::Modify(first, len, flags)),
        4 => page.clone().prop_map(Step::Touch),
        2 => (page.clone(), page).prop_map(|(from, to)| Step::Move(from, to)),
        1 => Just(Step::Fork),
        1 => Just(Step::Exit),
    ]
}

/// Takes a step in process `at`; the others may be its relatives.
fn run<'m>(family: &mut Vec<Process<'m>>, at: usize, step: &Step) {
    let count = family.len();
    let index = at % count;
    let process = &mut family[index];
    match *step {
        Step::Map(first, len, flags) => {
            process.unmap(first, first + len);
            process.map(first, first + len, flags);
        }
        Step::Unmap(first, len) => process.unmap(first, first + len),
        Step::Modify(first, len, flags) => {
            for page in first..first + len {
                if let Some(vma) = process.tree.lookup(pages(page, page + 1).start())
                    && vma.flags() != flags
                {
                    let end = (vma.end() - pages(0, 1).start()) / 4096;
                    process.modify(page, end.min(first + len), flags);
                }
            }
        }
        Step::Touch(page) => {
            if process.tree.lookup(pages(page, page + 1).start()).is_some() {
                process.touch(page);
            }
        }
        Step::Move(from, to) => {
            let Some(source) = process.tree.lookup(pages(from, from + 1).start()) else {
                return;
            };
            let first = (source.start() - pages(0, 1).start()) / 4096;
            let len = source.pages();
            if to < first + len && first < to + len {
                return;
            }
            process.unmap(to, to + len);
            let source = process.at(first);
            let new = process.copy(source, to, to + len, first);
            assert!(new.start() <= pages(to, to + 1).start());
            process.unmap(first, first + len);
        }
        Step::Fork if count < 5 => {
            let child = process.fork();
            family.push(child);
        }
        Step::Exit if count > 1 => {
            family.swap_remove(index);
        }
        Step::Fork | Step::Exit => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn families_keep_every_invariant(steps in prop::collection::vec((0..5usize, step()), 1..120)) {
        on_a_machine(|memory| {
            let mut family = vec![Process::new(memory)];
            for (at, step) in &steps {
                run(&mut family, *at, step);
                for process in &family {
                    process.tree.verify();
                }
                verify_all(family.iter().flat_map(|process| process.tree.iter()));
            }
        });
    }
}
