//! What the kernel counts, in `/proc`: that relocation is what happened, and that nothing
//! else counts otherwise than after an ordinary move.

use std::fs;

use tests::arena::Arena;
use tests::case::Outcome;
use tests::sys::{self, PAGE, RW, TO};
use tests::{cases, check, check_eq, mem};

use crate::stage::Stage;
use crate::{MUST, RELOCATE};

cases!["counts": relocated, merged_without, fallen_back, only_what_is_there, accounts];

/// A number in `/proc/vmstat`.
fn event(name: &str) -> Result<u64, Box<dyn std::error::Error>> {
    let text = fs::read_to_string("/proc/vmstat")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.ok_or_else(|| format!("no {name} in /proc/vmstat"))?.parse()?)
}

/// Objects of a kind that are in use, by `/proc/slabinfo`.
pub fn objects(name: &str) -> Result<u64, Box<dyn std::error::Error>> {
    let text = fs::read_to_string("/proc/slabinfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let count = line.and_then(|line| line.split_whitespace().next());
    Ok(count.ok_or_else(|| format!("no {name} in /proc/slabinfo"))?.parse()?)
}

/// How much `act` adds to a number in `/proc/vmstat`.
fn added(name: &str, act: impl FnOnce() -> Outcome) -> Result<u64, Box<dyn std::error::Error>> {
    let before = event(name)?;
    act()?;
    Ok(event(name)? - before)
}

fn prepared() -> Result<Stage, Box<dyn std::error::Error>> {
    let stage = Stage::new()?;
    stage.map_drawing("[1 2 3 4 5]                             [a . c . e]")?;
    Ok(stage)
}

fn relocated() -> Outcome {
    let stage = prepared()?;
    check_eq!(added("mremap_relocated", || stage.remap(20, 5, 5, RELOCATE, 10))?, 1);
    check_eq!(added("mremap_relocated_pages", || stage.remap(10, 5, 5, MUST, 5))?, 3);
    Ok(())
}

fn merged_without() -> Outcome {
    let stage = Stage::new()?;
    stage.map_drawing("[1 2 3 4 5 6 7 8]")?;
    stage.remap(5, 3, 3, 0, 20)?;
    let before = event("mremap_relocated")?;
    check_eq!(added("mremap_relocate_merged", || stage.remap(20, 3, 3, MUST, 5))?, 1);
    check_eq!(event("mremap_relocated")?, before);
    Ok(())
}

fn fallen_back() -> Outcome {
    let stage = prepared()?;
    let status = sys::in_child(|| {
        let forked = added("mremap_relocate_fail_forked", || stage.remap(20, 5, 5, RELOCATE, 5));
        i32::from(!forked.is_ok_and(|forked| forked == 1))
    })?;
    check_eq!(status, sys::Status::Exited(0));
    let shared = (libc::MAP_SHARED | libc::MAP_ANONYMOUS) as usize | sys::FIXED;
    sys::mmap(stage.at(26), PAGE, RW, shared)?;
    check_eq!(added("mremap_relocate_fail_not_anon", || stage.remap(26, 1, 1, RELOCATE, 28))?, 1);
    Ok(())
}

fn only_what_is_there() -> Outcome {
    // 256 MiB, and a page in each of 16.
    let (len, step) = (256 << 20, 16 << 20);
    let (from, to) = (Arena::aligned(len / PAGE, 1 << 21)?, Arena::aligned(len / PAGE, 1 << 21)?);
    from.map_with(0, len / PAGE, RW, sys::NORESERVE)?;
    for offset in (0..len).step_by(step) {
        mem::write(from.at(0) + offset, (offset / step) as u8 + 1)?;
    }
    let pages = added("mremap_relocated_pages", || {
        check_eq!(sys::mremap(from.at(0), len, len, TO | MUST, to.at(0))?, to.at(0));
        Ok(())
    })?;
    check_eq!(pages, 16);
    for offset in (0..len).step_by(step) {
        check_eq!(mem::read(to.at(0) + offset)?, (offset / step) as u8 + 1);
    }
    Ok(())
}

/// Lines of `/proc/self/status` that count memory.
fn accounts_now() -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let text = fs::read_to_string("/proc/self/status")?;
    let wanted = ["VmPeak", "VmSize", "VmLck", "VmHWM", "VmRSS", "VmData", "VmStk"];
    Ok(text.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name))).map(str::to_owned).collect())
}

fn accounts() -> Outcome {
    let stage = prepared()?;
    sys::call(libc::SYS_mlock, &[stage.at(20), 5 * PAGE])?;
    stage.remap(20, 5, 5, 0, 10)?;
    // Reading the file takes memory, too; but no more when it is read again.
    accounts_now()?;
    let ordinarily = accounts_now()?;
    for (from, to) in [(10, 20), (20, 5), (5, 26), (26, 5)] {
        stage.remap(from, 5, 5, MUST, to)?;
        check_eq!(accounts_now()?, ordinarily);
    }
    check!(ordinarily.iter().any(|line| line.starts_with("VmLck") && line.contains("20 kB")));
    Ok(())
}
