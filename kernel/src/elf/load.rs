//! Mapping a program's segments into an address space that nobody uses yet.
//!
//! Segments may lie in any order, and over each other: as on Linux a later one
//! replaces what is there, and only the first of a program may not.

use mm::{Errno, MapFlags, MappedFile, MmapRequest, PAGE_SIZE, Prot, TASK_SIZE, page_align_up};

use super::header::{Program, Segment, Source};
use crate::fs::Object;
use crate::task::process::Space;

/// A program in memory.
#[derive(Clone, Copy, Debug)]
pub struct Loaded {
    /// What was added to all addresses.
    pub bias: usize,
    /// Address of the first instruction.
    pub entry: usize,
    /// Address of the program headers, or 0.
    pub headers: usize,
    /// End of the last segment, in bytes: the heap begins behind it.
    pub end: usize,
    /// From the first executable byte to the last.
    pub code: (usize, usize),
}

impl Source for Object {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> usize {
        Object::read(self, offset, buffer)
    }
}

/// Maps `program`, whose contents are in `object`. `interpreter`: it is the
/// interpreter of another one, and goes where `mmap` puts it.
///
/// # Errors
/// What `mmap` returns; `EINVAL`: a segment is not in user space, has more contents
/// than room, or is not where its contents can be mapped. The address space is of no
/// use then.
pub fn load(space: &Space, program: &Program, object: &Object, interpreter: bool) -> Result<Loaded, Errno> {
    let segments = &program.segments;
    segments.iter().try_for_each(Segment::check)?;
    let bias = if program.relocatable { choose_bias(space, segments, interpreter)? } else { 0 };
    let mut loaded = Loaded {
        bias,
        entry: program.entry.wrapping_add(bias),
        headers: program.headers.wrapping_add(bias),
        end: segments.iter().map(|segment| segment.address + segment.memory_size).max().unwrap_or(0).wrapping_add(bias),
        code: (usize::MAX, 0),
    };
    if loaded.entry >= TASK_SIZE {
        return Err(Errno::EINVAL);
    }
    let mut placing = if interpreter { MapFlags::FIXED } else { MapFlags::FIXED_NOREPLACE };
    for segment in segments {
        map_segment(space, segment, object, bias, placing)?;
        placing = MapFlags::FIXED;
        if segment.execute {
            let start = segment.address.wrapping_add(bias);
            loaded.code.0 = loaded.code.0.min(start);
            loaded.code.1 = loaded.code.1.max(start + segment.file_size);
        }
    }
    if loaded.code.1 == 0 {
        loaded.code = (0, 0);
    }
    Ok(loaded)
}

/// What to add to the addresses of a program that can be anywhere.
fn choose_bias(space: &Space, segments: &[Segment], interpreter: bool) -> Result<usize, Errno> {
    let start = segments.iter().map(Segment::page_start).min().ok_or(Errno::EINVAL)?;
    let end = segments.iter().map(Segment::page_end).max().ok_or(Errno::EINVAL)?;
    let align = segments.iter().map(|segment| segment.align).max().unwrap_or(0).max(PAGE_SIZE);
    let place = if interpreter { find_room(space, end - start)? } else { space.pie_base() & !(align - 1) };
    Ok(place.wrapping_sub(start))
}

/// Where `mmap` would put `span` bytes. The place is still free afterwards.
fn find_room(space: &Space, span: usize) -> Result<usize, Errno> {
    let place = space.mmap(MmapRequest {
        addr: 0,
        len: span,
        prot: 0,
        flags: (MapFlags::PRIVATE | MapFlags::ANONYMOUS).bits() as usize,
        file: None,
        offset: 0,
    })?;
    space.munmap(place, span)?;
    Ok(place)
}

/// Maps one segment: the part with contents from the file, then zeroes.
///
/// ```text
///     | page            | page            | page            |
///     |    [contents....|.......][zeroes..|.............]   |
///     |<- mapped from the file  >|<- anonymous            ->|
/// ```
///
/// Whole pages of zeroes can be written, whatever the segment says, as on Linux.
fn map_segment(space: &Space, segment: &Segment, object: &Object, bias: usize, placing: MapFlags) -> Result<(), Errno> {
    let mut prot = Prot::empty();
    prot.set(Prot::READ, segment.read);
    prot.set(Prot::WRITE, segment.write);
    prot.set(Prot::EXEC, segment.execute);
    let flags = MapFlags::PRIVATE | placing;

    let start = segment.page_start().wrapping_add(bias);
    let end = segment.page_end().wrapping_add(bias);
    let contents_end = segment.address.wrapping_add(bias) + segment.file_size;
    let file_end = if segment.file_size == 0 { start } else { page_align_up(contents_end) };
    if file_end > start {
        let file = MappedFile { object, readable: true, writable: false };
        // Not a multiple of the page size where the two are not congruent: `EINVAL`.
        let offset = segment.offset.wrapping_sub(segment.address - segment.page_start());
        space.mmap(MmapRequest {
            addr: start,
            len: file_end - start,
            prot: prot.bits() as usize,
            flags: flags.bits() as usize,
            file: Some(file),
            offset,
        })?;
    }
    if end > file_end {
        let prot = prot & Prot::EXEC | Prot::READ | Prot::WRITE;
        // What was mapped just now may be replaced.
        let flags = if file_end > start { MapFlags::PRIVATE | MapFlags::FIXED } else { flags };
        space.mmap(MmapRequest {
            addr: file_end,
            len: end - file_end,
            prot: prot.bits() as usize,
            flags: (flags | MapFlags::ANONYMOUS).bits() as usize,
            file: None,
            offset: 0,
        })?;
    }
    // What the file has behind the contents must not show where zeroes belong.
    // A segment that cannot be written stays as it is, as on Linux.
    if file_end > start && segment.file_size < segment.memory_size && segment.write {
        let tail = file_end.saturating_sub(contents_end);
        clear(space, contents_end, tail)?;
    }
    Ok(())
}

/// Writes zeroes into less than a page.
fn clear(space: &Space, mut address: usize, mut len: usize) -> Result<(), Errno> {
    const ZEROES: [u8; 256] = [0; 256];
    while len > 0 {
        let piece = len.min(ZEROES.len());
        space.write_bytes(address, &ZEROES[..piece])?;
        address += piece;
        len -= piece;
    }
    Ok(())
}
