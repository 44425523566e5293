//! Mapping a program's segments into an address space that nobody uses yet.

use mm::{Errno, MapFlags, MappedFile, MmapRequest, PAGE_SIZE, Prot, page_align_up};

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

    fn size(&self) -> u64 {
        Object::size(self)
    }
}

/// Maps `program`, whose contents are in `object`. `interpreter`: it is the
/// interpreter of another one, and goes where `mmap` puts it.
///
/// # Errors
/// What `mmap` returns; `EINVAL`: a segment is in the way of another mapping.
/// The address space is of no use then.
pub fn load(space: &Space, program: &Program, object: &Object, interpreter: bool) -> Result<Loaded, Errno> {
    let (Some(first), Some(last)) = (program.segments.first(), program.segments.last()) else {
        return Err(Errno::ENOEXEC);
    };
    let span = last.page_end() - first.page_start();
    let bias = if !program.relocatable {
        0
    } else {
        let align = program.segments.iter().map(|segment| segment.align).max();
        let align = align.unwrap_or(0).max(PAGE_SIZE);
        let place = if interpreter { find_room(space, span)? } else { space.pie_base() & !(align - 1) };
        place.wrapping_sub(first.page_start())
    };
    let mut loaded = Loaded {
        bias,
        entry: program.entry.wrapping_add(bias),
        headers: program.headers.map_or(0, |address| address.wrapping_add(bias)),
        end: last.address.wrapping_add(bias) + last.memory_size,
        code: (usize::MAX, 0),
    };
    for segment in &program.segments {
        map_segment(space, segment, object, bias)?;
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
fn map_segment(space: &Space, segment: &Segment, object: &Object, bias: usize) -> Result<(), Errno> {
    let mut prot = Prot::empty();
    prot.set(Prot::READ, segment.read);
    prot.set(Prot::WRITE, segment.write);
    prot.set(Prot::EXEC, segment.execute);
    let prot = prot.bits() as usize;
    let fixed = (MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE).bits() as usize;

    let start = segment.page_start().wrapping_add(bias);
    let end = segment.page_end().wrapping_add(bias);
    let contents_end = segment.address.wrapping_add(bias) + segment.file_size;
    let file_end = if segment.file_size == 0 { start } else { page_align_up(contents_end) };
    if file_end > start {
        let file = MappedFile { object, readable: true, writable: false };
        let offset = segment.offset - (segment.address - segment.page_start());
        space.mmap(MmapRequest { addr: start, len: file_end - start, prot, flags: fixed, file: Some(file), offset })?;
    }
    if end > file_end {
        space.mmap(MmapRequest {
            addr: file_end,
            len: end - file_end,
            prot,
            flags: fixed | MapFlags::ANONYMOUS.bits() as usize,
            file: None,
            offset: 0,
        })?;
    }
    // What the file has behind the contents must not show where zeroes belong.
    // A segment that cannot be written stays as it is, as on Linux.
    if segment.file_size < segment.memory_size && segment.write {
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
