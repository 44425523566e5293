//! New mappings, and what they become part of.

use super::*;

/// Draws, maps `first..end` as fresh memory, and compares.
#[track_caller]
fn mapping(before: Picture, first: usize, end: usize, flags: VmaFlags, after: Picture) {
    on_a_machine(|memory| {
        let mut process = Process::draw(memory, before);
        process.map(first, end, flags);
        process.expect(after);
    });
}

#[test]
fn alone() {
    mapping(["....", "....", "...."], 1, 3, RW, [".aa.", ".ww.", ".--."]);
}

#[test]
fn next_to_others_with_other_flags() {
    mapping(["aa..bb", "rr..xx", "--..--"], 2, 4, RW, ["aabbcc", "rrwwxx", "------"]);
}

#[test]
fn after_previous() {
    mapping(["aa..bb", "ww..rr", "--..--"], 2, 4, RW, ["aaaabb", "wwwwrr", "------"]);
}

#[test]
fn before_next() {
    mapping(["aa..bb", "rr..ww", "--..--"], 2, 4, RW, ["aabbbb", "rrwwww", "------"]);
}

#[test]
fn between_both() {
    mapping(["aa..bb", "ww..ww", "--..--"], 2, 4, RW, ["aaaaaa", "wwwwww", "------"]);
}

#[test]
fn not_adjacent() {
    mapping(["aa....bb", "ww....ww", "--....--"], 3, 5, RW, ["aa.bb.cc", "ww.ww.ww", "--.--.--"]);
}

#[test]
fn after_written() {
    mapping(["aa..bb", "ww..rr", "11..22"], 2, 4, RW, ["aaaabb", "wwwwrr", "111122"]);
}

#[test]
fn before_written() {
    mapping(["aa..bb", "rr..ww", "11..22"], 2, 4, RW, ["aabbbb", "rrwwww", "112222"]);
}

#[test]
fn between_written_and_not() {
    mapping(["aa..bb", "ww..ww", "11..--"], 2, 4, RW, ["aaaaaa", "wwwwww", "111111"]);
}

#[test]
fn between_not_written_and_written() {
    mapping(["aa..bb", "ww..ww", "--..11"], 2, 4, RW, ["aaaaaa", "wwwwww", "111111"]);
}

#[test]
fn between_both_of_one_anon_vma() {
    mapping(["aa..bb", "ww..ww", "11..11"], 2, 4, RW, ["aaaaaa", "wwwwww", "111111"]);
}

#[test]
fn between_two_anon_vmas_goes_to_the_previous() {
    mapping(["aa..bb", "ww..ww", "11..22"], 2, 4, RW, ["aaaabb", "wwwwww", "111122"]);
}

#[test]
fn page_index_must_go_on() {
    on_a_machine(|memory| {
        let mut process = Process::new(memory);
        // Written elsewhere, pages 0..2 are indexed as if 100 pages higher.
        let elsewhere = process.detached(pages(0, 2), natural(100), anonymous(RW));
        process.insert(elsewhere);
        process.map(2, 4, RW);
        process.expect(["aabb", "wwww", "----"]);
        let mut new = NewMapping {
            range: pages(4, 6),
            pgoff: natural(5),
            attributes: anonymous(RW),
            copied_from: None,
            merge: MergeWith::Any,
            space: 7,
        };
        process.map_new(&new);
        process.expect(["aabbcc", "wwwwww", "------"]);
        new.range = pages(6, 8);
        new.pgoff = natural(7);
        process.map_new(&new);
        process.expect(["aabbcccc", "wwwwwwww", "--------"]);
    });
}

#[test]
fn attributes_must_be_equal() {
    on_a_machine(|memory| {
        let one = memory.create_object(1, b"one").expect("memory");
        let two = memory.create_object(2, b"two").expect("memory");
        let mut process = Process::new(memory);
        let attributes = [
            anonymous(RW),
            anonymous(RW | VmaFlags::LOCKED),
            Attributes { name: 1, ..anonymous(RW) },
            Attributes { object: Some(one.raw()), ..anonymous(RW) },
            Attributes { object: Some(two.raw()), ..anonymous(RW) },
            anonymous(RW | VmaFlags::DONTEXPAND),
            anonymous(RW | VmaFlags::DONTEXPAND),
        ];
        for (page, attributes) in attributes.into_iter().enumerate() {
            process.map_new(&NewMapping {
                range: pages(page, page + 1),
                pgoff: natural(page),
                attributes,
                copied_from: None,
                merge: MergeWith::Any,
                space: 7,
            });
        }
        process.expect(["abcdefg", "wwwwwww", "-------"]);
    });
}

#[test]
fn object_mappings_merge_and_keep_one_reference() {
    on_a_machine(|memory| {
        let object = memory.create_object(1, b"file").expect("memory");
        let mut process = Process::new(memory);
        let attributes = Attributes { object: Some(object.raw()), ..anonymous(RO) };
        for page in [0, 2, 1, 5] {
            process.map_new(&NewMapping {
                range: pages(page, page + 1),
                pgoff: page,
                attributes,
                copied_from: None,
                merge: MergeWith::Any,
                space: 7,
            });
        }
        process.expect(["aaa..b", "rrr..r", "---..-"]);
        drop(object);
        assert_eq!(in_use(memory), [2, 0, 0, 1]);
        process.unmap(1, 6);
        assert_eq!(in_use(memory), [1, 0, 0, 1]);
        process.unmap(0, 1);
        assert_eq!(in_use(memory), [0; 4]);
    });
}

#[test]
fn soft_dirtiness_is_no_obstacle_and_sticks() {
    on_a_machine(|memory| {
        let mut process = Process::new(memory);
        process.map(0, 2, RW | VmaFlags::SOFTDIRTY);
        process.map(2, 4, RW);
        process.expect(["aaaa", "wwww", "----"]);
        assert_eq!(process.at(0).flags(), RW | VmaFlags::SOFTDIRTY);
        process.map(5, 6, RW);
        process.map(4, 5, RW);
        assert_eq!(process.at(5).flags(), RW | VmaFlags::SOFTDIRTY);
    });
}

// What `mremap` does: the range is to have the pages of a VMA that is
// somewhere else, with the index that they have there. In these tests that is
// where they belong, as when VMAs are moved away and back again.

/// Draws, moves pages of the VMA at `from` to `first..end`, and compares. Only
/// maps the new place: what is left of the source is for `mremap` to see to.
#[track_caller]
fn copying(before: Picture, from: usize, first: usize, end: usize, after: Picture) {
    on_a_machine(|memory| {
        let mut process = Process::draw(memory, before);
        let source = process.at(from);
        let pgoff = natural(first);
        process.map_new(&NewMapping {
            range: pages(first, end),
            pgoff,
            attributes: source.attributes(),
            copied_from: Some(source),
            merge: MergeWith::Any,
            space: 7,
        });
        process.expect(after);
        rmap::verify_all(process.tree.iter());
    });
}

#[test]
fn copied_alone_is_chained_like_its_source() {
    copying(["....aa", "....ww", "....11"], 4, 1, 3, [".aa.bb", ".ww.ww", ".11.11"]);
}

#[test]
fn copied_into_unwritten_next() {
    // CVE-2026-23077: the next VMA must get the anon_vma of the pages.
    copying(["..aa..bb", "..ww..ww", "..--..11"], 6, 0, 2, ["aaaa..bb", "wwww..ww", "1111..11"]);
}

#[test]
fn copied_into_unwritten_previous() {
    copying(["aa....bb", "ww....ww", "--....11"], 6, 2, 4, ["aaaa..bb", "wwww..ww", "1111..11"]);
}

#[test]
fn copied_between_two_unwritten() {
    copying(["aa..bb..cc", "ww..ww..ww", "--..--..11"], 8, 2, 4, ["aaaaaa..bb", "wwwwww..ww", "111111..11"]);
}

#[test]
fn copied_between_unwritten_and_its_own() {
    copying(["aa..bb..cc", "ww..ww..ww", "--..11..11"], 8, 2, 4, ["aaaaaa..bb", "wwwwww..ww", "111111..11"]);
    copying(["aa..bb..cc", "ww..ww..ww", "11..--..11"], 8, 2, 4, ["aaaaaa..bb", "wwwwww..ww", "111111..11"]);
}

#[test]
fn copied_next_to_another_anon_vma() {
    copying(["aa..bb..cc", "ww..ww..ww", "11..22..33"], 8, 2, 4, ["aabbcc..dd", "wwwwww..ww", "112233..22"]);
}

#[test]
fn copied_between_another_and_unwritten() {
    copying(["aa..bb..cc", "ww..ww..ww", "11..--..22"], 8, 2, 4, ["aabbbb..cc", "wwwwww..ww", "112222..22"]);
}

#[test]
fn copied_but_the_source_stays_apart() {
    on_a_machine(|memory| {
        for (merge, after) in
            [(MergeWith::Any, ["aaaa", "wwww", "----"]), (MergeWith::NotSource, ["aabb", "wwww", "----"])]
        {
            let mut process = Process::draw(memory, ["aa", "ww", "--"]);
            let source = process.at(0);
            process.map_new(&NewMapping {
                range: pages(2, 4),
                pgoff: natural(2),
                attributes: source.attributes(),
                copied_from: Some(source),
                merge,
                space: 7,
            });
            process.expect(after);
        }
    });
}
