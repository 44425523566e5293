//! What `/proc` says of a range that nobody changes meanwhile, while the rest of the
//! address space changes.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

use tests::sys::{PAGE, R, W};

use crate::check;
use crate::exact::Page;
use crate::report;

/// `/proc/self/maps` has each mapped page, with its access, and no other.
pub fn check_maps(base: usize, pages: &[Page]) {
    let mut text = String::new();
    let result = File::open("/proc/self/maps").and_then(|mut file| file.read_to_string(&mut text));
    check!(result.is_ok(), "/proc/self/maps: {result:?}");
    let mut seen = vec![false; pages.len()];
    for line in text.lines() {
        let Some((start, end, access)) = parse(line) else {
            report::wrong(format_args!("odd line in maps: {line}"));
        };
        for (number, page) in pages.iter().enumerate() {
            let addr = base + number * PAGE;
            if (start..end).contains(&addr) {
                let access = access.as_bytes();
                let same = page.mapped
                    && (access[0] == b'r') == (page.prot & R != 0)
                    && (access[1] == b'w') == (page.prot & W != 0);
                check!(same, "in maps is {line}, and the page at {addr:#x} is {page:?}");
                seen[number] = true;
            }
        }
    }
    for (number, page) in pages.iter().enumerate() {
        check!(seen[number] == page.mapped, "not in maps: {:#x}, {page:?}", base + number * PAGE);
    }
}

fn parse(line: &str) -> Option<(usize, usize, &str)> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let number = |digits| usize::from_str_radix(digits, 16).ok();
    Some((number(start)?, number(end)?, words.next()?))
}

/// `/proc/self/pagemap` says of some pages from `first` on that they have memory, if they must.
pub fn check_pagemap(base: usize, pages: &[Page], first: usize) {
    const PRESENT_OR_SWAPPED: u64 = 0b11 << 62;
    let mut bytes = [0; 64 * 8];
    let offset = (base / PAGE + first) * 8;
    let read = File::open("/proc/self/pagemap").and_then(|file| file.read_at(&mut bytes, offset as u64));
    let Ok(read) = read else {
        report::wrong(format_args!("/proc/self/pagemap: {read:?}"));
    };
    for (page, entry) in pages[first..].iter().zip(bytes[..read].as_chunks().0) {
        let there = u64::from_ne_bytes(*entry) & PRESENT_OR_SWAPPED != 0;
        check!(there || !page.present, "in pagemap is {entry:x?}, and the page is {page:?}");
    }
}
