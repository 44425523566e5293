//! A guided tour of what a program can do with its address space.
//!
//! Shows the relevant lines of `/proc/self/maps` before and after each step, and
//! checks at each that the memory holds what it should. Exits with 1 if any check
//! fails. Runs on Linux just as well.

use std::fs;
use std::process::ExitCode;

use tests::maps;
use tests::mem::{self, Fault};
use tests::sys::{self, *};

/// Pages of address space that the tour plays in.
const STAGE: usize = 24;

/// What the tour writes into its pages.
const SEED: usize = 1;

struct Tour {
    /// Where the stage begins.
    base: usize,
    step: usize,
    checks: usize,
    failures: usize,
}

impl Tour {
    /// Address of page `page` of the stage.
    fn at(&self, page: usize) -> usize {
        self.base + page * PAGE
    }

    /// The lines of `/proc/self/maps` about the stage, as they are.
    fn show(&self, moment: &str) {
        println!("  {moment}");
        let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let mut shown = 0;
        for line in maps.lines() {
            let Some((start, end)) = range(line) else { continue };
            if start < self.at(STAGE) && self.base < end {
                println!("    {line}  {:>2} pages", (end - start) / PAGE);
                shown += 1;
            }
        }
        if shown == 0 {
            println!("    (nothing mapped)");
        }
    }

    /// One step: a title, the maps before, the calls that `act` makes, the maps after.
    fn step(&mut self, title: &str, act: impl FnOnce(&mut Tour)) {
        self.step += 1;
        println!("\n{}. {title}", self.step);
        self.show("before:");
        act(self);
    }

    /// Reports a call and its result, and then the maps.
    fn called(&mut self, call: &str, result: sys::Result, expected: usize) {
        match result {
            Ok(value) if value > PAGE => println!("  {call} = {value:#x}"),
            Ok(value) => println!("  {call} = {value}"),
            Err(error) => println!("  {call} failed: {error}"),
        }
        self.show("after:");
        if result != Ok(expected) {
            self.check("the call does what it should", false);
        }
    }

    fn check(&mut self, what: &str, holds: bool) {
        self.checks += 1;
        self.failures += usize::from(!holds);
        println!("  [{}] {what}", if holds { "ok" } else { "FAILED" });
    }

    /// Checks that pages `page..` hold what was written to pages `first..first + pages`.
    fn check_contents(&mut self, what: &str, page: usize, first: usize, pages: usize) {
        self.check(what, mem::holds(self.at(page), first, pages, SEED) == Ok(true));
    }

    fn check_zero(&mut self, what: &str, page: usize, pages: usize) {
        self.check(what, mem::is_zero(self.at(page), pages) == Ok(true));
    }

    /// Checks that reading the page is a fault with nothing mapped there.
    fn check_gone(&mut self, what: &str, page: usize) {
        let addr = self.at(page);
        self.check(what, mem::read(addr) == Err(Fault::unmapped(addr)));
    }
}

/// The addresses of a line of `/proc/self/maps`.
fn range(line: &str) -> Option<(usize, usize)> {
    let (start, end) = line.split(' ').next()?.split_once('-')?;
    Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
}

fn main() -> ExitCode {
    mem::catch_faults();
    println!("A tour of the address space of process {}, which begins as", std::process::id());
    for line in fs::read_to_string("/proc/self/maps").unwrap_or_default().lines() {
        println!("    {line}");
    }
    // The stage lies between two pages that stay inaccessible, so that nothing outside
    // merges with what is mapped on it.
    let room = sys::mmap(0, (STAGE + 2) * PAGE, NONE, ANON);
    let Ok(base) = room.map(|start| start + PAGE) else {
        println!("No room for a stage: {room:?}");
        return ExitCode::FAILURE;
    };
    let _ = sys::munmap(base, STAGE * PAGE);
    let mut tour = Tour { base, step: 0, checks: 0, failures: 0 };
    println!("The stage: {STAGE} free pages from {base:#x}.");

    map(&mut tour);
    protect(&mut tour);
    unmap(&mut tour);
    resize(&mut tour);
    relocate(&mut tour);
    leave_behind(&mut tour);
    join(&mut tour);
    clear(&mut tour);

    match tour.failures {
        0 => {
            println!("\nThe end: all {} checks hold.", tour.checks);
            ExitCode::SUCCESS
        }
        failures => {
            println!("\nThe end: {failures} of {} checks FAILED.", tour.checks);
            ExitCode::FAILURE
        }
    }
}

fn map(tour: &mut Tour) {
    tour.step("mmap: eight pages of private memory", |tour| {
        let base = tour.base;
        let result = sys::mmap(base, 8 * PAGE, RW, ANON | NOREPLACE);
        tour.called("mmap(page 0, 8 pages, PROT_READ|PROT_WRITE)", result, base);
        tour.check_zero("all of it reads as zeroes", 0, 8);
        let filled = mem::fill(base, 8, SEED);
        tour.check("all of it can be written", filled.is_ok());
        tour.check_contents("and holds what was written", 0, 0, 8);
    });
}

fn protect(tour: &mut Tour) {
    tour.step("mprotect: pages 2 and 3 become read-only, one mapping becomes three", |tour| {
        let addr = tour.at(2);
        let result = sys::mprotect(addr, 2 * PAGE, R);
        tour.called("mprotect(page 2, 2 pages, PROT_READ)", result, 0);
        tour.check("a write there is refused: SEGV_ACCERR", mem::write(addr, 0) == Err(Fault::denied(addr)));
        tour.check_contents("the contents are still there", 0, 0, 8);
    });
    tour.step("mprotect again: writable as before, and one mapping again", |tour| {
        let result = sys::mprotect(tour.at(2), 2 * PAGE, RW);
        tour.called("mprotect(page 2, 2 pages, PROT_READ|PROT_WRITE)", result, 0);
        let filled = mem::fill(tour.base, 8, SEED);
        tour.check("all of it can be written", filled.is_ok());
    });
}

fn unmap(tour: &mut Tour) {
    tour.step("munmap: a hole in the middle", |tour| {
        let result = sys::munmap(tour.at(3), 2 * PAGE);
        tour.called("munmap(page 3, 2 pages)", result, 0);
        tour.check_gone("the hole is not there any more: SEGV_MAPERR", 3);
        tour.check_contents("what is below it is", 0, 0, 3);
        tour.check_contents("what is above it is", 5, 5, 3);
    });
}

fn resize(tour: &mut Tour) {
    tour.step("mremap in place: the upper mapping grows from three pages to five", |tour| {
        let addr = tour.at(5);
        let result = sys::mremap(addr, 3 * PAGE, 5 * PAGE, 0, 0);
        tour.called("mremap(page 5, 3 pages, 5 pages, 0)", result, addr);
        tour.check_contents("the old pages hold what they held", 5, 5, 3);
        tour.check_zero("the new ones are zeroes", 8, 2);
    });
    tour.step("mremap in place: and shrinks to two", |tour| {
        let addr = tour.at(5);
        let result = sys::mremap(addr, 5 * PAGE, 2 * PAGE, 0, 0);
        tour.called("mremap(page 5, 5 pages, 2 pages, 0)", result, addr);
        tour.check_contents("what is left holds what it held", 5, 5, 2);
        tour.check_gone("the rest is gone", 7);
    });
}

fn relocate(tour: &mut Tour) {
    tour.step("mremap moved: the lower mapping goes elsewhere, and its contents with it", |tour| {
        let (from, to) = (tour.at(0), tour.at(12));
        let result = sys::mremap(from, 3 * PAGE, 3 * PAGE, TO, to);
        tour.called("mremap(page 0, 3 pages, 3 pages, MREMAP_MAYMOVE|MREMAP_FIXED, page 12)", result, to);
        tour.check_contents("the contents are at the new place", 12, 0, 3);
        tour.check_gone("nothing is at the old one", 0);
    });
}

fn leave_behind(tour: &mut Tour) {
    tour.step("MREMAP_DONTUNMAP: the pages move, the mapping stays behind empty", |tour| {
        let (from, to) = (tour.at(12), tour.at(18));
        let result = sys::mremap(from, 3 * PAGE, 3 * PAGE, DONTUNMAP | TO, to);
        tour.called("mremap(page 12, 3 pages, 3 pages, …FIXED|MREMAP_DONTUNMAP, page 18)", result, to);
        tour.check_contents("the contents are at the new place", 18, 0, 3);
        tour.check_zero("the old place reads as zeroes", 12, 3);
        let written = mem::write(tour.at(12), 7);
        tour.check("and can be written", written.is_ok());
        tour.check_contents("without a trace at the new one", 18, 0, 3);
    });
}

fn join(tour: &mut Tour) {
    tour.step("MREMAP_RELOCATE_ANON, which Linux does not have: what moves becomes one with its neighbour", |tour| {
        let (from, to) = (tour.at(18), tour.at(7));
        let result = sys::mremap(from, 3 * PAGE, 3 * PAGE, TO | 8, to);
        if result == Err(Errno(libc::EINVAL)) {
            println!("  this kernel does not have it either");
            return;
        }
        tour.called("mremap(page 18, 3 pages, 3 pages, …FIXED|MREMAP_RELOCATE_ANON, page 7)", result, to);
        tour.check_contents("the contents are at the new place", 7, 0, 3);
        tour.check_contents("beside what was there", 5, 5, 2);
        tour.check("and all of it is one mapping", maps::within(tour.at(5), tour.at(10)).len() == 1);
        tour.check_gone("nothing is at the old one", 18);
    });
}

fn clear(tour: &mut Tour) {
    tour.step("munmap: all of it, holes included, at once", |tour| {
        let result = sys::munmap(tour.base, STAGE * PAGE);
        tour.called("munmap(page 0, 24 pages)", result, 0);
        tour.check_gone("nothing is left", 18);
    });
}
