//! Each operation in many states, with each of its allocations failing in turn.
//!
//! Afterwards all is as it was before; and when the operation is tried again
//! it does what it would have done. The random operations of
//! [`property`](super::property) are put through the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use self::scenarios::SCENARIOS;
use super::snapshot::Snapshot;
use super::*;
use crate::space::verify_all;

mod scenarios;

/// What an operation that fails half way may have done.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Leaves {
    /// Nothing at all.
    Nothing,
    /// Nothing that a program could see: tables and anon_vmas for pages to
    /// come, pages of zeroes in objects, pages that have become copy-on-write.
    NothingVisible,
    /// What comes before the part that failed is done, as on Linux.
    Prefix,
}

type Failure = Result<(), SpaceError>;

struct Scenario {
    name: &'static str,
    leaves: Leaves,
    prepare: fn(&Process<'_>),
    operation: fn(&Process<'_>) -> Failure,
}

impl Scenario {
    /// Runs the scenario with its `nth` allocation failing. Returns false
    /// when it has not that many.
    fn run(&self, nth: usize, sites: &mut BTreeMap<(String, u32), bool>) -> bool {
        let mut fired = false;
        on_machine(4096, |mem| {
            let p = Process::new(mem);
            (self.prepare)(&p);
            verify_all(&[&p.space]);
            let before = Snapshot::of(&p.space);
            mem.fail_nth_allocation(nth);
            let result = (self.operation)(&p);
            fired = mem.allocation_failed();
            mem.fail_nth_allocation(0);
            verify_all(&[&p.space]);
            let name = self.name;
            assert!(fired || result.is_ok(), "{name}: {result:?} without a failure");
            if result.is_err() {
                let after = Snapshot::of(&p.space);
                match self.leaves {
                    Leaves::Nothing => assert_eq!(after, before, "{name}, allocation {nth}"),
                    Leaves::NothingVisible => {
                        assert_eq!(after.seen_by_a_program(), before.seen_by_a_program(), "{name}, allocation {nth}")
                    }
                    Leaves::Prefix => {}
                }
                let again = (self.operation)(&p);
                assert_eq!(again, Ok(()), "{name}, again after allocation {nth} failed");
                verify_all(&[&p.space]);
            }
            for (site, failed) in mem.allocation_sites() {
                *sites.entry((site.file().into(), site.line())).or_default() |= failed;
            }
        });
        fired
    }
}

/// A page goes to swap and comes back with the `nth` allocation failing, if there are so
/// many. Who finds no memory for a fault reclaims and does it again.
fn bring_back(nth: usize, sites: &mut BTreeMap<(String, u32), bool>) -> bool {
    let mem = machine(4096);
    mem.platform().swap().set_slots(64);
    mem.fail_nth_allocation(nth);
    let begun = mem.swap_on();
    let mut fired = mem.allocation_failed();
    assert_eq!(begun.is_err(), fired);
    mem.fail_nth_allocation(0);
    mem.swap_on().unwrap();
    let p = Process::new(&mem);
    p.map_at(BASE, 12);
    p.fill(BASE, 12);
    assert_eq!(mem.reclaim(12), 12);
    if !fired {
        // One was for the books.
        mem.fail_nth_allocation(nth - 1);
        p.assert_filled(BASE, 12);
        fired = mem.allocation_failed();
    }
    mem.fail_nth_allocation(0);
    verify_all(&[&p.space]);
    p.assert_filled(BASE, 12);
    for (site, failed) in mem.allocation_sites() {
        *sites.entry((site.file().into(), site.line())).or_default() |= failed;
    }
    fired
}

#[test]
fn an_operation_that_fails_leaves_everything_as_it_was() {
    let mut sites = BTreeMap::new();
    let mut failures = 0;
    let mut nth = 1;
    while bring_back(nth, &mut sites) {
        nth += 1;
    }
    assert!(nth > 2, "neither the books of swap nor a page were allocated");
    for scenario in SCENARIOS {
        let mut nth = 1;
        while scenario.run(nth, &mut sites) {
            nth += 1;
        }
        failures += nth - 1;
        assert!(nth < 300, "{}: no end", scenario.name);
    }
    let failed: BTreeSet<_> = sites.iter().filter(|(_, failed)| **failed).map(|(site, _)| site.clone()).collect();
    println!("{} scenarios, {failures} failures, {} allocation sites", SCENARIOS.len(), failed.len());
    let mut missed = sites_in_the_source();
    missed.retain(|site| !failed.contains(site) && !NEVER_REACHED.contains(&site.0.as_str()));
    assert!(missed.is_empty(), "sites whose failure is not tested: {missed:#?}");
}

/// Files with calls that nothing can make allocate: growth in place has all it
/// needs in the mapping that grows.
const NEVER_REACHED: &[&str] = &["mm/src/space/mremap/mod.rs"];

/// Calls in the source, tests aside, that allocate.
fn sites_in_the_source() -> BTreeSet<(String, u32)> {
    // The allocators themselves, and what happens before there is an address space.
    const NOT_OPERATIONS: &[&str] = &["memory.rs", "memory/", "frame/", "slab/", "sim", "vma/spares.rs"];
    const CALLS: &[&str] = &[
        "mem.alloc(",
        "mem.alloc_zeroed(",
        "mem.alloc_table(",
        "mem.alloc_singly(",
        "self.alloc(",
        "memory.alloc(",
        "memory.alloc_zeroed(",
        ".alloc(memory)",
        ".alloc(self)",
        "Spares::reserve(",
    ];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut sites = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() && !name.ends_with("tests") {
                folders.push(path);
            } else if path.is_file()
                && !name.ends_with("tests.rs")
                && !NOT_OPERATIONS.iter().any(|not| name.starts_with(not))
            {
                let text = std::fs::read_to_string(&path).unwrap();
                for (number, line) in text.lines().enumerate() {
                    let is_code = !line.trim_start().starts_with("//");
                    if is_code && CALLS.iter().any(|call| line.contains(call)) {
                        sites.insert((format!("mm/src/{name}"), number as u32 + 1));
                    }
                }
            }
        }
    }
    sites
}
