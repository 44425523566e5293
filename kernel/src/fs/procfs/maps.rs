//! `/proc/PID/maps`, `smaps` and `smaps_rollup`.

use mm::{Errno, PAGE_SIZE, VmaFlags, VmaInfo, VmaKind, VmaPages};

use crate::fs::inode::FileSystem;
use crate::fs::page::Text;
use crate::task::process::Space;

/// The column, counted from 0, in which names begin.
const NAME_COLUMN: usize = 73;

/// Writes a line for each VMA of `space`.
///
/// # Errors
/// `ENOMEM`.
pub fn write(space: &Space, text: &mut Text) -> Result<(), Errno> {
    let mut result = Ok(());
    space.for_each_vma(|vma| {
        if result.is_ok() {
            result = write_line(vma, text);
        }
    });
    result
}

/// What is mapped: a path, or what the memory is for; empty if there is nothing to say.
pub fn name_of(vma: &VmaInfo) -> &[u8] {
    match &vma.object {
        Some((_, name)) => name.as_bytes(),
        None => match vma.kind {
            VmaKind::Heap => b"[heap]",
            VmaKind::Stack => b"[stack]",
            VmaKind::Plain => b"",
        },
    }
}

/// The inode number of what is mapped; 0 if that is nothing.
pub fn number_of(vma: &VmaInfo) -> u64 {
    vma.object.as_ref().map_or(0, |(number, _)| *number)
}

/// Writes a line for each VMA of `space`, and what its pages and flags are.
///
/// # Errors
/// `ENOMEM`.
pub fn write_details(space: &Space, text: &mut Text) -> Result<(), Errno> {
    let mut result = Ok(());
    space.for_each_vma_with_pages(|vma, pages| {
        if result.is_ok() {
            result = write_line(vma, text).and_then(|()| write_pages(vma, pages, text));
        }
    });
    result
}

/// Writes what the pages of all VMAs of `space` are together.
///
/// # Errors
/// `ENOMEM`.
pub fn write_sums(space: &Space, text: &mut Text) -> Result<(), Errno> {
    let (mut sums, mut locked, mut range) = (VmaPages::default(), 0, None);
    space.for_each_vma_with_pages(|vma, pages| {
        sums += *pages;
        locked += locked_in(vma, pages);
        range = Some((range.map_or(vma.start, |(start, _)| start), vma.end));
    });
    let Some((start, end)) = range else { return Ok(()) };
    let begun = text.len();
    text.put(format_args!("{start:08x}-{end:08x} ---p 00000000 00:00 0 "))?;
    pad(begun, text)?;
    text.push(b"[rollup]\n")?;
    write_sizes(&sums, locked, text)
}

fn locked_in(vma: &VmaInfo, pages: &VmaPages) -> usize {
    if vma.flags.contains(VmaFlags::LOCKED) { pages.proportional } else { 0 }
}

fn write_pages(vma: &VmaInfo, pages: &VmaPages, text: &mut Text) -> Result<(), Errno> {
    write_size("Size", vma.end - vma.start, text)?;
    write_size("KernelPageSize", PAGE_SIZE, text)?;
    write_size("MMUPageSize", PAGE_SIZE, text)?;
    write_sizes(pages, locked_in(vma, pages), text)?;
    text.push(b"VmFlags: ")?;
    for code in vma.flags.codes() {
        text.put(format_args!("{code} "))?;
    }
    text.push(b"\n")
}

fn write_sizes(pages: &VmaPages, locked: usize, text: &mut Text) -> Result<(), Errno> {
    let sizes = [
        ("Rss", pages.resident),
        ("Pss", pages.proportional),
        ("Shared_Clean", pages.shared_clean),
        ("Shared_Dirty", pages.shared_dirty),
        ("Private_Clean", pages.private_clean),
        ("Private_Dirty", pages.private_dirty),
        ("Referenced", pages.referenced),
        ("Anonymous", pages.anonymous),
        ("KSM", pages.merged),
        ("AnonHugePages", pages.anonymous_huge),
        ("Swap", pages.swapped),
        ("Locked", locked),
    ];
    for (name, bytes) in sizes {
        write_size(name, bytes, text)?;
    }
    Ok(())
}

fn write_size(name: &str, bytes: usize, text: &mut Text) -> Result<(), Errno> {
    let kib = bytes / 1024;
    // Names and numbers have columns of their own.
    let width = 23_usize.saturating_sub(name.len());
    text.put(format_args!("{name}:{kib:width$} kB\n"))
}

/// `r`, `w`, `x` and `p` (private) or `s` (shared).
fn access(flags: VmaFlags) -> [char; 4] {
    let letter = |flag, letter| if flags.contains(flag) { letter } else { '-' };
    let sharing = if flags.contains(VmaFlags::MAY_SHARE) { 's' } else { 'p' };
    [letter(VmaFlags::READ, 'r'), letter(VmaFlags::WRITE, 'w'), letter(VmaFlags::EXEC, 'x'), sharing]
}

fn write_line(vma: &VmaInfo, text: &mut Text) -> Result<(), Errno> {
    let [read, write, execute, sharing] = access(vma.flags);
    let minor = if vma.object.is_some() { FileSystem::Tmpfs.device_minor() } else { 0 };
    let inode = number_of(vma);
    let offset = vma.offset;
    let begun = text.len();
    text.put(format_args!(
        "{:08x}-{:08x} {read}{write}{execute}{sharing} {offset:08x} 00:{minor:02x} {inode} ",
        vma.start, vma.end
    ))?;
    let name = name_of(vma);
    if !name.is_empty() {
        pad(begun, text)?;
        push_escaped(name, text)?;
    }
    text.push(b"\n")
}

/// Goes to the column of names, in the line that began at `begun`.
fn pad(begun: usize, text: &mut Text) -> Result<(), Errno> {
    for _ in text.len() - begun..NAME_COLUMN {
        text.push(b" ")?;
    }
    Ok(())
}

/// A name as one line: newlines are shown in octal.
fn push_escaped(name: &[u8], text: &mut Text) -> Result<(), Errno> {
    for (index, part) in name.split(|&byte| byte == b'\n').enumerate() {
        if index > 0 {
            text.push(b"\\012")?;
        }
        text.push(part)?;
    }
    Ok(())
}
