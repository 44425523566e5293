//! Executables that are wrong in one way each, made by hand.

/// A file to be executed, and what is special about it.
#[derive(Debug)]
pub struct Sample {
    pub name: &'static str,
    pub content: Vec<u8>,
    pub mode: u32,
    /// What `execve` says here, where that is not what comes of it on Linux.
    pub refused: Option<&'static str>,
}

/// Samples that are refused here with another result than on Linux.
///
/// There is no mode for 32-bit programs; neither has Linux one without `CONFIG_IA32_EMULATION`.
const REFUSED: &[(&str, &str)] = &[("class_32", "ENOEXEC")];

const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const R: u32 = 4;
const W: u32 = 2;
const X: u32 = 1;

/// Where the programs' code is linked to.
const BASE: u64 = 0x40_0000;
/// Size of the ELF header, in bytes.
const HEADER: u64 = 64;
/// Size of a program header, in bytes.
const SEGMENT: u64 = 56;

/// `exit_group(7)`: mov edi, 7; mov eax, 231; syscall.
const EXIT_7: &[u8] = &[0xbf, 7, 0, 0, 0, 0xb8, 231, 0, 0, 0, 0x0f, 0x05];
/// The same after a load from 0x500000: `mov al, [0x500000]`, …
const LOAD_THEN_EXIT_7: &[u8] = &[0x8a, 0x04, 0x25, 0, 0, 0x50, 0, 0xbf, 7, 0, 0, 0, 0xb8, 231, 0, 0, 0, 0x0f, 0x05];

/// A program header.
#[derive(Clone, Copy)]
struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    addr: u64,
    file_size: u64,
    memory_size: u64,
    align: u64,
}

impl Segment {
    /// All of the first page of the file, executable, where it belongs.
    fn code() -> Segment {
        Segment { kind: PT_LOAD, flags: R | X, offset: 0, addr: BASE, file_size: 4096, memory_size: 4096, align: 4096 }
    }

    fn data(addr: u64, offset: u64, file_size: u64, memory_size: u64) -> Segment {
        Segment { kind: PT_LOAD, flags: R | W, offset, addr, file_size, memory_size, align: 4096 }
    }
}

/// An executable with these segments, whose code follows the headers; two pages long.
struct Elf {
    segments: Vec<Segment>,
    code: &'static [u8],
    /// 2 is ET_EXEC, 3 is ET_DYN.
    kind: u16,
    entry: Option<u64>,
}

impl Elf {
    fn new(segments: &[Segment]) -> Elf {
        Elf { segments: segments.to_vec(), code: EXIT_7, kind: 2, entry: None }
    }

    fn bytes(&self) -> Vec<u8> {
        let headers = HEADER + SEGMENT * self.segments.len() as u64;
        let entry = self.entry.unwrap_or(BASE + headers);
        let mut out = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        out.extend(self.kind.to_le_bytes());
        out.extend(62u16.to_le_bytes());
        out.extend(1u32.to_le_bytes());
        for field in [entry, HEADER, 0] {
            out.extend(field.to_le_bytes());
        }
        out.extend(0u32.to_le_bytes());
        for field in [HEADER as u16, SEGMENT as u16, self.segments.len() as u16, 64, 0, 0] {
            out.extend(field.to_le_bytes());
        }
        for s in &self.segments {
            out.extend(s.kind.to_le_bytes());
            out.extend(s.flags.to_le_bytes());
            for field in [s.offset, s.addr, s.addr, s.file_size, s.memory_size, s.align] {
                out.extend(field.to_le_bytes());
            }
        }
        out.extend(self.code);
        out.resize(8192, 0);
        out
    }
}

/// Overwrites bytes at `offset`.
fn patched(mut content: Vec<u8>, offset: usize, bytes: &[u8]) -> Vec<u8> {
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
    content
}

/// A program for 32-bit machines: `exit(7)` by `int 0x80`.
fn thirty_two_bits() -> Vec<u8> {
    const BASE: u32 = 0x804_8000;
    const HEADERS: u32 = 52 + 32;
    // mov ebx, 7; mov eax, 1; int 0x80
    let code = [0xbb, 7, 0, 0, 0, 0xb8, 1, 0, 0, 0, 0xcd, 0x80];
    let mut out = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // ET_EXEC, EM_386.
    for field in [2u16, 3] {
        out.extend(field.to_le_bytes());
    }
    for field in [1, BASE + HEADERS, 52, 0, 0] {
        out.extend(u32::to_le_bytes(field));
    }
    for field in [52u16, 32, 1, 40, 0, 0] {
        out.extend(field.to_le_bytes());
    }
    let size = HEADERS + code.len() as u32;
    for field in [PT_LOAD, 0, BASE, BASE, size, size, R | X, 4096] {
        out.extend(field.to_le_bytes());
    }
    out.extend(code);
    out
}

/// Every sample. The first is good, and exits with 7.
pub fn samples() -> Vec<Sample> {
    let code = Segment::code();
    let good = || Elf::new(&[code]).bytes();
    let with = |segment: Segment| Elf::new(&[code, segment]).bytes();
    let loading = |segment: Segment| Elf { code: LOAD_THEN_EXIT_7, ..Elf::new(&[code, segment]) }.bytes();
    let entry = |entry: u64| Elf { entry: Some(entry), ..Elf::new(&[code]) }.bytes();
    let interpreter = |size: u64| {
        let segment = Segment { kind: PT_INTERP, offset: 4096, file_size: size, ..code };
        patched(Elf::new(&[segment, code]).bytes(), 4096, b"/nowhere\0")
    };
    let five = 0x50_0000;
    let kernel = 0xffff_8000_0000_0000;
    let entry_in_data = Elf { entry: Some(five), ..Elf::new(&[code, Segment::data(five, 4096, 100, 100)]) };
    let all = [
        ("good", good()),
        ("empty", Vec::new()),
        ("text", b"This is no program.\n".to_vec()),
        ("one_byte", vec![0x7f]),
        ("only_magic", b"\x7fELF".to_vec()),
        ("half_a_header", good()[..32].to_vec()),
        ("only_header", good()[..64].to_vec()),
        ("half_the_segments", good()[..100].to_vec()),
        ("class_32", thirty_two_bits()),
        ("class_unknown", patched(good(), 4, &[9])),
        ("machine_arm", patched(good(), 18, &183u16.to_le_bytes())),
        ("type_relocatable", patched(good(), 16, &1u16.to_le_bytes())),
        ("type_core", patched(good(), 16, &4u16.to_le_bytes())),
        ("no_segments", patched(good(), 56, &0u16.to_le_bytes())),
        ("many_segments", patched(good(), 56, &u16::MAX.to_le_bytes())),
        ("segment_size_odd", patched(good(), 54, &55u16.to_le_bytes())),
        ("segments_far_away", patched(good(), 32, &(1u64 << 40).to_le_bytes())),
        ("segments_before_start", patched(good(), 32, &u64::MAX.to_le_bytes())),
        ("nothing_to_load", Elf::new(&[Segment { kind: 4, ..code }]).bytes()),
        ("code_truncated", good()[..64 + 56].to_vec()),
        ("data_truncated", loading(Segment::data(five, 8192, 4096, 4096))),
        ("data_far_beyond_end", loading(Segment::data(five, 1 << 30, 4096, 4096))),
        ("data_half_there", loading(Segment::data(five, 4096, 8192, 8192))),
        ("bss", loading(Segment::data(five, 4096, 0, 4096))),
        ("bss_after_data", loading(Segment::data(five, 4096, 100, 40_000))),
        ("empty_segment", with(Segment::data(five, 4096, 0, 0))),
        ("overlap_same", with(Segment { flags: R | X, ..Segment::code() })),
        ("overlap_hides_code", with(Segment::data(BASE, 4096, 4096, 4096))),
        ("overlap_partial", with(Segment::data(BASE + 2048, 2048, 4096, 4096))),
        ("descending", Elf::new(&[Segment::data(five, 4096, 4096, 4096), code]).bytes()),
        ("kernel_space", with(Segment::data(kernel, 4096, 4096, 4096))),
        ("top_of_kernel", with(Segment::data(u64::MAX - 4095, 4096, 4096, 4096))),
        ("into_kernel", with(Segment::data(0x7fff_ffff_e000, 4096, 4096, 16_384))),
        ("not_canonical", with(Segment::data(1 << 47, 4096, 4096, 4096))),
        ("memory_huge", with(Segment::data(five, 4096, 4096, 1 << 46))),
        ("memory_beyond", with(Segment::data(five, 4096, 4096, 1 << 62))),
        ("memory_wraps", with(Segment::data(five, 4096, 4096, u64::MAX - 100))),
        ("file_larger_than_memory", with(Segment::data(five, 4096, 4096, 100))),
        ("file_size_wraps", with(Segment::data(five, 4096, u64::MAX - 100, u64::MAX))),
        ("offset_not_congruent", with(Segment::data(five + 100, 4096, 100, 100))),
        ("offset_wraps", with(Segment::data(five, u64::MAX - 4095, 4096, 4096))),
        ("align_odd", with(Segment { align: 3, ..Segment::data(five, 4096, 100, 100) })),
        ("entry_null", entry(0)),
        ("entry_not_mapped", entry(0x123_4567)),
        ("entry_kernel", entry(kernel)),
        ("entry_not_canonical", entry(1 << 63 | 5)),
        ("entry_in_data", entry_in_data.bytes()),
        ("interpreter_missing", interpreter(9)),
        ("interpreter_not_terminated", interpreter(8)),
        ("interpreter_empty", interpreter(0)),
        ("interpreter_huge", interpreter(1 << 40)),
        ("script_without_interpreter", b"#!/nowhere\n".to_vec()),
        ("script_empty", b"#!\n".to_vec()),
    ];
    let refused = |name| REFUSED.iter().find(|(refused, _)| *refused == name).map(|(_, error)| *error);
    let sample = |(name, content)| Sample { name, content, mode: 0o755, refused: refused(name) };
    let mut samples: Vec<Sample> = all.into_iter().map(sample).collect();
    samples.push(Sample { name: "not_executable", content: good(), mode: 0o644, refused: None });
    samples
}
