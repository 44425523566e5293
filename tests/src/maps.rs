//! `/proc/self/maps`, parsed.

use std::fs;

/// One line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mapping {
    pub start: usize,
    pub end: usize,
    /// Such as `rw-p`.
    pub access: String,
    pub name: String,
}

fn parse(line: &str) -> Option<Mapping> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let access = words.next()?.to_owned();
    let name = words.skip(3).collect::<Vec<_>>().join(" ");
    Some(Mapping {
        start: usize::from_str_radix(start, 16).ok()?,
        end: usize::from_str_radix(end, 16).ok()?,
        access,
        name,
    })
}

/// The mappings of this process, in the order of the file.
pub fn all() -> Vec<Mapping> {
    let text = fs::read_to_string("/proc/self/maps").expect("/proc/self/maps can be read");
    text.lines().map(|line| parse(line).unwrap_or_else(|| panic!("odd line in maps: {line}"))).collect()
}

/// Those that have a byte in `start..end`.
pub fn within(start: usize, end: usize) -> Vec<Mapping> {
    all().into_iter().filter(|mapping| mapping.start < end && start < mapping.end).collect()
}
