//! What `/proc/self` says of the arena, in words that are the same on each kernel.

use std::fmt::Write;
use std::fs;

use super::World;
use crate::sys::PAGE;

/// What kind of memory a line of `maps` is about.
fn backing(name: &str, offset: usize) -> String {
    match name {
        _ if name.starts_with("/memfd:") => format!(" file@{}", offset / PAGE),
        _ if name.starts_with("/dev/zero") => format!(" shm@{}", offset / PAGE),
        _ => String::new(),
    }
}

/// A line of `maps`, if it is one and about the arena or the heap: place, access,
/// backing. Holding the parts of one mapping only that are inside.
fn mapping(world: &World, line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let (range, access, offset) = (words.next()?, words.next()?, words.next()?);
    let (start, end) = range.split_once('-')?;
    let hex = |digits: &str| usize::from_str_radix(digits, 16).ok();
    let (start, end) = world.clip(hex(start)?, hex(end)?)?;
    let backing = backing(words.nth(2).unwrap_or_default(), hex(offset)?);
    Some(format!("{}-{} {access}{backing}", world.place(start), world.place(end)))
}

/// The mappings: `[3-5 rw-p][7-8 r--s file@2]`.
pub fn maps(world: &World, out: &mut String) {
    let text = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for line in text.lines() {
        if let Some(mapping) = mapping(world, line) {
            let _ = write!(out, "[{mapping}]");
        }
    }
}

/// The mappings with their flags, sorted, and how many private pages each has.
pub fn flags(world: &World, out: &mut String) {
    let Ok(text) = fs::read_to_string("/proc/self/smaps") else {
        return out.push_str("none");
    };
    let mut inside = false;
    for line in text.lines() {
        match line.split_once(':') {
            Some(("Anonymous", value)) if inside => {
                let kilobytes = value.trim().trim_end_matches(" kB").parse::<usize>().unwrap_or(usize::MAX);
                let _ = write!(out, "; {} private;", kilobytes / 4);
            }
            Some(("VmFlags", value)) if inside => {
                // Whether pages are tracked as soft-dirty is a matter of how Linux was configured.
                let mut codes: Vec<&str> = value.split_whitespace().filter(|code| *code != "sd").collect();
                codes.sort_unstable();
                codes.iter().for_each(|code| write!(out, " {code}").unwrap_or_default());
                out.push(']');
            }
            _ => {
                if let Some(mapping) = mapping(world, line) {
                    inside = true;
                    let _ = write!(out, "[{mapping}");
                } else if line.contains('-') && line.split(' ').next().is_some_and(|word| word.len() > 16) {
                    inside = false;
                }
            }
        }
    }
}

/// Totals of `status`, in pages.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Totals([usize; TOTALS.len()]);

const TOTALS: [&str; 6] = ["VmSize", "VmPeak", "VmLck", "VmData", "VmStk", "VmExe"];
/// Executable mappings: `VmExe` and `VmLib` together.
const LIB: &str = "VmLib";

impl Totals {
    /// As they are now.
    pub fn now() -> Totals {
        let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mut totals = Totals::default();
        for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let pages = || value.trim().trim_end_matches(" kB").parse::<usize>().unwrap_or(0) / 4;
            if let Some(i) = TOTALS.iter().position(|known| *known == name) {
                totals.0[i] += pages();
            } else if name == LIB {
                totals.0[TOTALS.len() - 1] += pages();
            }
        }
        totals
    }

    /// One of them.
    pub fn get(&self, name: &str) -> usize {
        TOTALS.iter().position(|known| *known == name).map_or(0, |i| self.0[i])
    }

    /// How they differ from what they were.
    pub fn since(&self, before: &Totals, out: &mut String) {
        for (i, name) in TOTALS.iter().enumerate() {
            let change = self.0[i].cast_signed() - before.0[i].cast_signed();
            let _ = write!(out, "{name} {change:+} ");
        }
    }
}
