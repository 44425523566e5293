//! The ELF header and the program headers.
//!
//! [`parse`] refuses what Linux's `execve` refuses with an error. What the segments
//! say is looked at when the program is loaded ([`Segment::check`]), which on Linux
//! is when the old program is gone.

use alloc::vec::Vec;
use mm::{Errno, TASK_SIZE, page_align_down, page_align_up};

use crate::memory::{try_filled, try_push};

/// Bytes of the file header.
const HEADER_SIZE: usize = 64;
/// Bytes of one program header.
pub const PROGRAM_HEADER_SIZE: usize = 56;
/// All program headers together are no larger than this (Linux's limit).
const TABLE_LIMIT: usize = 65536;

const TYPE_EXECUTABLE: u16 = 2;
const TYPE_SHARED: u16 = 3;
const MACHINE_X86_64: u16 = 62;

const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_GNU_STACK: u32 = 0x6474_e551;

/// Longest path of an interpreter.
const PATH_MAX: u64 = 4096;

/// A segment that is mapped, as the file has it.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Where it wants to be (before relocation), in bytes.
    pub address: usize,
    /// Bytes in memory.
    pub memory_size: usize,
    /// Where its contents are in the file, in bytes.
    pub offset: usize,
    /// Bytes in the file; the rest is zero.
    pub file_size: usize,
    /// May be read.
    pub read: bool,
    /// May be written.
    pub write: bool,
    /// May be executed.
    pub execute: bool,
    /// What its address is to be a multiple of.
    pub align: usize,
}

impl Segment {
    /// Checks that it is in user space (before relocation) and has room for its
    /// contents. What other functions here compute cannot overflow then.
    ///
    /// # Errors
    /// `EINVAL`.
    pub fn check(&self) -> Result<(), Errno> {
        let end = self.address.checked_add(self.memory_size).ok_or(Errno::EINVAL)?;
        if self.address < TASK_SIZE && end <= TASK_SIZE && self.file_size <= self.memory_size {
            Ok(())
        } else {
            Err(Errno::EINVAL)
        }
    }

    /// First byte of its first page.
    pub fn page_start(&self) -> usize {
        page_align_down(self.address)
    }

    /// End of its last page.
    pub fn page_end(&self) -> usize {
        page_align_up(self.address + self.memory_size)
    }
}

/// What the headers of a program say.
#[derive(Debug)]
pub struct Program {
    /// May be loaded anywhere (static-PIE, or an interpreter).
    pub relocatable: bool,
    /// Address of the first instruction (before relocation).
    pub entry: usize,
    /// The segments, in the order of the file and not checked.
    pub segments: Vec<Segment>,
    /// Address of the program headers in memory (before relocation); 0 if no segment has them.
    pub headers: usize,
    /// How many program headers there are.
    pub header_count: usize,
    /// The stack is to be executable.
    pub executable_stack: bool,
    /// Path of the interpreter that runs it, if it has one: offset and length
    /// in the file, the final NUL included.
    pub interpreter: Option<(usize, usize)>,
}

/// Something that bytes can be read from: the file.
pub trait Source {
    /// Reads bytes at `offset`; returns how many there were.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> usize;
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    let mut word = [0; 2];
    word.copy_from_slice(&bytes[at..at + 2]);
    u16::from_le_bytes(word)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// Reads and checks the headers of a program.
///
/// # Errors
/// `ENOEXEC`: not an ELF file for this machine, or a malformed one, such as one
/// that ends before its headers do. `ENOMEM`.
pub fn parse(file: &impl Source) -> Result<Program, Errno> {
    let mut header = [0; HEADER_SIZE];
    if file.read(0, &mut header) < HEADER_SIZE {
        return Err(Errno::ENOEXEC);
    }
    let kind = u16_at(&header, 16);
    // The machine tells class and byte order: Linux does not look at those.
    let is_program = header[..4] == *b"\x7fELF"
        && matches!(kind, TYPE_EXECUTABLE | TYPE_SHARED)
        && u16_at(&header, 18) == MACHINE_X86_64
        && usize::from(u16_at(&header, 54)) == PROGRAM_HEADER_SIZE;
    let count = usize::from(u16_at(&header, 56));
    if !is_program || count == 0 || count * PROGRAM_HEADER_SIZE > TABLE_LIMIT {
        return Err(Errno::ENOEXEC);
    }
    let table_at = u64_at(&header, 32);
    let mut table = try_filled(0u8, count * PROGRAM_HEADER_SIZE)?;
    if table_at.checked_add(table.len() as u64).is_none() {
        return Err(Errno::ENOEXEC);
    }
    if file.read(table_at, &mut table) < table.len() {
        return Err(Errno::ENOEXEC);
    }

    let mut program = Program {
        relocatable: kind == TYPE_SHARED,
        entry: u64_at(&header, 24) as usize,
        segments: Vec::new(),
        headers: 0,
        header_count: count,
        executable_stack: false,
        interpreter: None,
    };
    for entry in table.chunks_exact(PROGRAM_HEADER_SIZE) {
        match u32_at(entry, 0) {
            PT_LOAD => add_segment(&mut program, entry, table_at)?,
            PT_INTERP if program.interpreter.is_none() => {
                let (offset, size) = (u64_at(entry, 8), u64_at(entry, 32));
                if !(2..=PATH_MAX).contains(&size) {
                    return Err(Errno::ENOEXEC);
                }
                program.interpreter = Some((offset as usize, size as usize));
            }
            PT_GNU_STACK => program.executable_stack = u32_at(entry, 4) & 1 != 0,
            _ => {}
        }
    }
    Ok(program)
}

/// Adds what one `PT_LOAD` header describes.
fn add_segment(program: &mut Program, entry: &[u8], table_at: u64) -> Result<(), Errno> {
    let flags = u32_at(entry, 4);
    let (offset, address) = (u64_at(entry, 8), u64_at(entry, 16));
    let in_file = u64_at(entry, 32);
    let align = u64_at(entry, 48) as usize;
    if table_at.checked_sub(offset).is_some_and(|at| at < in_file) {
        program.headers = address.wrapping_add(table_at - offset) as usize;
    }
    let segment = Segment {
        address: address as usize,
        memory_size: u64_at(entry, 40) as usize,
        offset: offset as usize,
        file_size: in_file as usize,
        read: flags & 4 != 0,
        write: flags & 2 != 0,
        execute: flags & 1 != 0,
        align: if align.is_power_of_two() { align } else { 0 },
    };
    try_push(&mut program.segments, segment)
}
