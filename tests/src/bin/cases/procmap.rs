//! `PROCMAP_QUERY`: the same as `/proc/self/maps`, one mapping at a time.

use std::fs::File;
use std::os::fd::AsRawFd;

use tests::arena::Arena;
use tests::case::Outcome;
use tests::maps::{self, Mapping};
use tests::sys::{self, *};
use tests::{cases, check_eq};

cases!["procmap": all_mappings, covering_only, with_permissions, errors];

const PROCMAP_QUERY: usize = 0xc068_6611;
const READABLE: u64 = 1;
const WRITABLE: u64 = 2;
const COVERING_OR_NEXT: u64 = 0x10;
const FILE_BACKED: u64 = 0x20;

/// `struct procmap_query`.
#[derive(Default)]
#[repr(C)]
struct Query {
    size: u64,
    flags: u64,
    addr: u64,
    start: u64,
    end: u64,
    vma_flags: u64,
    page_size: u64,
    offset: u64,
    inode: u64,
    dev_major: u32,
    dev_minor: u32,
    name_size: u32,
    build_id_size: u32,
    name_addr: u64,
    build_id_addr: u64,
}

impl Query {
    fn new(addr: usize, flags: u64) -> Query {
        Query { size: size_of::<Query>() as u64, flags, addr: addr as u64, ..Query::default() }
    }

    /// Asks the kernel.
    fn ask(&mut self, maps: &File) -> sys::Result {
        sys::call(libc::SYS_ioctl, &[maps.as_raw_fd() as usize, PROCMAP_QUERY, &raw mut *self as usize])
    }
}

fn open() -> std::io::Result<File> {
    File::open("/proc/self/maps")
}

/// The mapping at `addr` or the next one, with its name.
fn next(maps: &File, addr: usize) -> Option<Mapping> {
    let mut name = [0_u8; 300];
    let mut query = Query::new(addr, COVERING_OR_NEXT);
    query.name_addr = name.as_mut_ptr() as u64;
    query.name_size = name.len() as u32;
    query.ask(maps).ok()?;
    let flag = |bit, letter| if query.vma_flags & bit != 0 { letter } else { '-' };
    let sharing = if query.vma_flags & 8 != 0 { 's' } else { 'p' };
    let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
    Some(Mapping {
        start: query.start as usize,
        end: query.end as usize,
        access: [flag(1, 'r'), flag(2, 'w'), flag(4, 'x'), sharing].iter().collect(),
        name: String::from_utf8_lossy(name).into_owned(),
    })
}

fn all_mappings() -> Outcome {
    let maps = open()?;
    let expected = maps::all();
    let mut found = Vec::with_capacity(expected.len() + 8);
    let mut addr = 0;
    while let Some(mapping) = next(&maps, addr) {
        addr = mapping.end;
        found.push(mapping);
    }
    // Linux answers for what programs have mapped; `maps` shows one thing more.
    let expected: Vec<_> = expected.into_iter().filter(|mapping| mapping.name != "[vsyscall]").collect();
    check_eq!(found, expected);
    Ok(())
}

fn covering_only() -> Outcome {
    let arena = Arena::new(8)?;
    arena.map(2, 4, RW)?;
    let maps = open()?;
    check_eq!(Query::new(arena.at(1), 0).ask(&maps), Err(Errno(libc::ENOENT)));
    let mut query = Query::new(arena.at(3) + 5, 0);
    check_eq!(query.ask(&maps), Ok(0));
    check_eq!((query.start as usize, query.end as usize), (arena.at(2), arena.at(4)));
    check_eq!((query.vma_flags, query.page_size, query.inode), (READABLE | WRITABLE, 4096, 0));
    check_eq!((query.dev_major, query.dev_minor, query.name_size, query.build_id_size), (0, 0, 0, 0));
    Ok(())
}

fn with_permissions() -> Outcome {
    let arena = Arena::new(8)?;
    arena.map(1, 2, R)?;
    arena.map(3, 4, RW)?;
    let maps = open()?;
    let mut query = Query::new(arena.at(0), COVERING_OR_NEXT | WRITABLE);
    check_eq!(query.ask(&maps), Ok(0));
    check_eq!(query.start as usize, arena.at(3));
    check_eq!(Query::new(arena.at(1), WRITABLE).ask(&maps), Err(Errno(libc::ENOENT)));
    check_eq!(Query::new(arena.at(3), FILE_BACKED).ask(&maps), Err(Errno(libc::ENOENT)));
    let mut program = Query::new(0, COVERING_OR_NEXT | FILE_BACKED);
    check_eq!(program.ask(&maps), Ok(0));
    check_eq!(program.inode != 0, true);
    Ok(())
}

fn errors() -> Outcome {
    let maps = open()?;
    let einval = Err(Errno(libc::EINVAL));
    check_eq!(Query::new(0, 0x40).ask(&maps), einval);
    check_eq!(Query { size: 15, ..Query::new(0, COVERING_OR_NEXT) }.ask(&maps), einval);
    check_eq!(Query { size: 4097, ..Query::new(0, COVERING_OR_NEXT) }.ask(&maps), Err(Errno(libc::E2BIG)));
    check_eq!(Query { name_size: 5, ..Query::new(0, COVERING_OR_NEXT) }.ask(&maps), einval);
    check_eq!(Query { build_id_addr: 5, ..Query::new(0, COVERING_OR_NEXT) }.ask(&maps), einval);
    check_eq!(Query::new(usize::MAX, COVERING_OR_NEXT).ask(&maps), Err(Errno(libc::ENOENT)));
    let mut name = [0_u8; 2];
    let mut query = Query::new(0, COVERING_OR_NEXT | FILE_BACKED);
    query.name_addr = name.as_mut_ptr() as u64;
    query.name_size = name.len() as u32;
    check_eq!(query.ask(&maps), Err(Errno(libc::ENAMETOOLONG)));
    // A shorter structure, of an older program, gets what it has room for.
    let mut query = Query { size: 40, end: 7, vma_flags: 99, ..Query::new(0, COVERING_OR_NEXT) };
    check_eq!(query.ask(&maps), Ok(0));
    check_eq!(query.end > 7, true);
    check_eq!(query.vma_flags, 99);
    Ok(())
}
