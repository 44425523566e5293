//! The tree against a sorted map that is searched from end to end.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::vma::{GapRequest, STACK_GUARD_GAP};

/// Pages that a test plays with.
const PAGES: usize = 600;

#[derive(Clone, Debug)]
enum Step {
    Insert { first: usize, len: usize, grows_down: bool },
    Remove { at: usize },
    Resize { at: usize, first: usize, len: usize },
    Flags { at: usize, grows_down: bool },
    Find { page: usize },
    Gap { len: usize, low: usize, span: usize, align: u32, offset: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let page = 0..PAGES;
    prop_oneof![
        6 => (page.clone(), 1..12usize, prop::bool::weighted(0.03))
            .prop_map(|(first, len, grows_down)| Step::Insert { first, len, grows_down }),
        2 => page.clone().prop_map(|at| Step::Remove { at }),
        2 => (page.clone(), page.clone(), 1..20usize)
            .prop_map(|(at, first, len)| Step::Resize { at, first, len }),
        1 => (page.clone(), prop::bool::weighted(0.3))
            .prop_map(|(at, grows_down)| Step::Flags { at, grows_down }),
        1 => page.clone().prop_map(|page| Step::Find { page }),
        3 => (1..30usize, page, 0..PAGES, 0..4u32, 0..8usize)
            .prop_map(|(len, low, span, align, offset)| Step::Gap { len, low, span, align, offset }),
    ]
}

/// First page to end and whether it grows down.
type Model = BTreeMap<usize, (usize, bool)>;

fn free(model: &Model, first: usize, end: usize, but: Option<usize>) -> bool {
    model.iter().all(|(&start, &(stop, _))| Some(start) == but || stop <= first || end <= start)
}

/// The VMA at or after a page.
fn find(model: &Model, page: usize) -> Option<usize> {
    model.iter().find(|&(_, &(end, _))| page < end).map(|(&start, _)| start)
}

/// A gap, in bytes, and the VMA behind it, if that grows down: end of its guard gap
/// and its own end.
type Gap = (usize, usize, Option<(usize, usize)>);

/// All gaps in ascending order.
fn gaps(model: &Model) -> Vec<Gap> {
    let mut from = 0;
    let mut gaps = Vec::new();
    for (&start, &(end, grows_down)) in model {
        let guard = grows_down.then(|| (addr(start).saturating_sub(STACK_GUARD_GAP), addr(end)));
        gaps.push((from, addr(start), guard));
        from = addr(end);
    }
    gaps.push((from, usize::MAX, None));
    gaps
}

fn brute_force(model: &Model, request: &GapRequest, top_down: bool) -> Option<usize> {
    let mut fits = gaps(model)
        .into_iter()
        .map(|(start, end, guard)| (start.max(request.low), end.min(request.high), guard))
        .filter(|&(start, end, _)| start <= end && end - start >= request.len + request.align_mask);
    // One that hurts the guard gap of the VMA behind it moves the limit.
    if top_down {
        let (_, end, guard) = fits.next_back()?;
        if let Some((guarded, _)) = guard.filter(|&(guarded, _)| guarded < end) {
            return brute_force(model, &GapRequest { high: guarded, ..*request }, top_down);
        }
        let addr = end - request.len;
        Some(addr - (addr.wrapping_sub(request.align_offset) & request.align_mask))
    } else {
        let (start, _, guard) = fits.next()?;
        let addr = start + (request.align_offset.wrapping_sub(start) & request.align_mask);
        let end = addr + request.len + request.align_mask;
        if let Some((_, above)) = guard.filter(|&(guarded, _)| guarded < end) {
            return brute_force(model, &GapRequest { low: above, ..*request }, top_down);
        }
        Some(addr)
    }
}

fn down(grows_down: bool) -> VmaFlags {
    if grows_down { RW | VmaFlags::GROWSDOWN } else { RW }
}

fn run(process: &mut Process, model: &mut Model, step: &Step) {
    match *step {
        Step::Insert { first, len, grows_down } => {
            if free(model, first, first + len, None) {
                let vma = process.detached(pages(first, first + len), 0, anonymous(down(grows_down)));
                process.insert(vma);
                model.insert(first, (first + len, grows_down));
            }
        }
        Step::Remove { at } => {
            let Some(start) = find(model, at) else { return };
            model.remove(&start);
            let vma = process.at(start);
            process.tree.remove(vma);
            retire(process.memory, vma);
        }
        Step::Resize { at, first, len } => {
            let Some(start) = find(model, at) else { return };
            if free(model, first, first + len, Some(start)) && between(model, start, first) == 0 {
                process.tree.resize(process.at(start), pages(first, first + len));
                let (_, grows_down) = model.remove(&start).expect("it is there");
                model.insert(first, (first + len, grows_down));
            }
        }
        Step::Flags { at, grows_down } => {
            let Some(start) = find(model, at) else { return };
            process.tree.set_flags(process.at(start), down(grows_down));
            model.entry(start).and_modify(|entry| entry.1 = grows_down);
        }
        Step::Find { page } => {
            let found = process.tree.find(addr(page)).map(|vma| vma.start());
            assert_eq!(found, find(model, page).map(addr));
        }
        Step::Gap { len, low, span, align, offset } => {
            let request = GapRequest {
                len: len << PAGE_SHIFT,
                low: addr(low),
                high: addr(low + span),
                align_mask: ((1 << align) - 1) << PAGE_SHIFT,
                align_offset: offset << PAGE_SHIFT,
            };
            let tree = &process.tree;
            assert_eq!(tree.gap_top_down(&request), brute_force(model, &request, true), "{request:x?}");
            assert_eq!(tree.gap_bottom_up(&request), brute_force(model, &request, false), "{request:x?}");
        }
    }
}

/// How many VMAs lie between two pages that no VMA overlaps.
fn between(model: &Model, one: usize, two: usize) -> usize {
    let (low, high) = (one.min(two), one.max(two));
    model.keys().filter(|&&start| low < start && start < high).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn tree_does_what_a_sorted_map_does(steps in prop::collection::vec(step(), 1..300)) {
        on_a_machine(|memory| {
            let mut process = Process::new(memory);
            let mut model = Model::new();
            for step in &steps {
                run(&mut process, &mut model, step);
                process.tree.verify();
                let tree: Vec<_> = process.tree.iter().map(|vma| (vma.start(), vma.end())).collect();
                let expected: Vec<_> = model.iter().map(|(&start, &(end, _))| (addr(start), addr(end))).collect();
                assert_eq!(tree, expected);
            }
        });
    }
}

#[test]
fn empty_tree_has_room_at_both_ends() {
    on_a_machine(|memory| {
        let process = Process::new(memory);
        let request = GapRequest::new(0x3000, 0x1_0000, 0x10_0000);
        assert_eq!(process.tree.gap_top_down(&request), Some(0x10_0000 - 0x3000));
        assert_eq!(process.tree.gap_bottom_up(&request), Some(0x1_0000));
        assert_eq!(process.tree.find(0), None);
        assert_eq!(process.tree.gap_top_down(&GapRequest::new(0x10_0000, 0x1_0000, 0x10_0000)), None);
        assert_eq!(process.tree.gap_top_down(&GapRequest::new(0, 0, usize::MAX)), None);
    });
}

#[test]
fn stack_keeps_its_guard_gap() {
    on_a_machine(|memory| {
        let mut process = Process::new(memory);
        process.map(300, 310, down(true));
        let request = GapRequest::new(1 << PAGE_SHIFT, addr(0), addr(310));
        assert_eq!(process.tree.gap_top_down(&request), Some(addr(300 - 256 - 1)));
        assert_eq!(process.tree.gap_bottom_up(&request), Some(addr(0)));
        let close = GapRequest::new(1 << PAGE_SHIFT, addr(44), addr(310));
        assert_eq!(process.tree.gap_top_down(&close), None);
        assert_eq!(process.tree.gap_bottom_up(&close), None);
    });
}

#[test]
fn guard_gap_reaches_behind_what_is_in_it() {
    on_a_machine(|memory| {
        let mut process = Process::new(memory);
        process.map(100, 200, RW);
        process.map(500, 510, RW);
        process.map(600, 610, down(true));
        // Between the two there is room, but not for who was turned away below the stack.
        let top_down =
            |pages: usize| process.tree.gap_top_down(&GapRequest::new(pages << PAGE_SHIFT, addr(0), addr(610)));
        assert_eq!(top_down(50), Some(addr(344 - 50)));
        // Who does not fit there has never seen the stack.
        assert_eq!(top_down(150), Some(addr(350)));
    });
}

#[test]
fn tree_stays_balanced_in_order_and_in_reverse() {
    on_a_machine(|memory| {
        for reverse in [false, true] {
            let mut process = Process::new(memory);
            for number in 0..2000 {
                let first = 2 * if reverse { 2000 - number } else { number };
                process.map(first, first + 1, RW);
            }
            process.tree.verify();
            for number in (0..2000).step_by(2) {
                process.unmap(2 * (number + 1), 2 * (number + 1) + 1);
            }
            process.tree.verify();
        }
    });
}
