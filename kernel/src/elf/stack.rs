//! The stack that a program begins with.
//!
//! ```text
//!     top      8 zero bytes
//!              path of the program
//!              environment strings
//!              argument strings
//!              ---- the stack is moved to its final place here ----
//!              platform string, 16 random bytes
//!              auxiliary vector
//!              environment pointers, 0
//!              argument pointers, 0
//!     rsp      argument count
//! ```
//!
//! The strings are copied first, while the caller's memory is still there, to
//! a temporary stack at the very top of the new address space.

use alloc::vec::Vec;
use mm::Errno;

use super::header::PROGRAM_HEADER_SIZE;
use super::load::Loaded;
use crate::arch::usercopy::{read_cstr, read_user};
use crate::memory::try_to_vec;
use crate::task::process::{Image, Space};

/// Longest single string, its NUL included (Linux's `MAX_ARG_STRLEN`).
const STRING_LIMIT: usize = 32 * mm::PAGE_SIZE;
/// All strings together may have at least this many bytes (`ARG_MAX`).
const TOTAL_AT_LEAST: u64 = 128 << 10;
/// And no more than this (three quarters of the default stack).
const TOTAL_AT_MOST: u64 = 6 << 20;
/// Most strings in one list.
const COUNT_LIMIT: usize = 0x7fff_ffff;

const PLATFORM: &[u8] = b"x86_64\0";
const RANDOM_BYTES: usize = 16;

/// A list of strings from whoever asks for the program.
#[derive(Clone, Copy, Debug)]
pub enum Strings<'a> {
    /// A null-terminated array of pointers, in user memory; address 0: none.
    User(usize),
    /// In the kernel, without NULs.
    Kernel(&'a [&'a [u8]]),
}

impl Strings<'_> {
    fn count(self) -> Result<usize, Errno> {
        match self {
            Strings::Kernel(strings) => Ok(strings.len()),
            Strings::User(0) => Ok(0),
            Strings::User(array) => {
                let mut count = 0;
                while read_user::<usize>(array.wrapping_add(count * 8))? != 0 {
                    count += 1;
                    if count > COUNT_LIMIT {
                        return Err(Errno::E2BIG);
                    }
                }
                Ok(count)
            }
        }
    }

    fn get(self, at: usize) -> Result<Vec<u8>, Errno> {
        match self {
            Strings::Kernel(strings) => try_to_vec(strings.get(at).copied().unwrap_or_default()),
            Strings::User(array) => {
                let pointer = read_user(array.wrapping_add(at * 8))?;
                read_cstr(pointer, STRING_LIMIT).map_err(|error| match error {
                    Errno::ENAMETOOLONG => Errno::E2BIG,
                    other => other,
                })
            }
        }
    }
}

/// The stack of an address space that is being filled.
pub struct StackBuilder<'a> {
    space: &'a Space,
    /// Where the next thing goes below.
    at: usize,
    /// Bytes that strings and pointers may still take.
    left: u64,
    path: usize,
    arg_count: usize,
    env_count: usize,
    args: (usize, usize),
    env: (usize, usize),
}

impl<'a> StackBuilder<'a> {
    /// A temporary stack in `space`, with nothing on it. `limit` is the soft
    /// limit of the stack's size.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new(space: &'a Space, limit: u64, executable: bool) -> Result<StackBuilder<'a>, Errno> {
        let top = space.map_stack(executable)?;
        let left = (limit / 4).clamp(TOTAL_AT_LEAST, TOTAL_AT_MOST);
        Ok(StackBuilder { space, at: top - 8, left, path: 0, arg_count: 0, env_count: 0, args: (0, 0), env: (0, 0) })
    }

    fn take(&mut self, bytes: usize) -> Result<(), Errno> {
        self.left = self.left.checked_sub(bytes as u64).ok_or(Errno::E2BIG)?;
        Ok(())
    }

    fn push(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        self.at -= bytes.len();
        self.space.write_bytes(self.at, bytes)?;
        Ok(self.at)
    }

    fn push_string(&mut self, string: &[u8]) -> Result<usize, Errno> {
        self.take(string.len() + 1)?;
        self.push(&[0])?;
        self.push(string)
    }

    /// Copies the strings.
    ///
    /// # Errors
    /// `E2BIG`: too much. `EFAULT`: from a bad address. `ENOMEM`.
    pub fn push_strings(
        &mut self,
        path: &[u8],
        args: Strings<'_>,
        env: Strings<'_>,
        before_args: &[&[u8]],
        skip_args: usize,
    ) -> Result<(), Errno> {
        let given = args.count()?.saturating_sub(skip_args);
        self.arg_count = before_args.len() + given;
        self.env_count = env.count()?;
        self.take(self.arg_count.saturating_add(self.env_count).saturating_mul(8))?;

        self.path = self.push_string(path)?;
        self.env.1 = self.at;
        for at in (0..self.env_count).rev() {
            self.push_string(&env.get(at)?)?;
        }
        self.env.0 = self.at;
        self.args.1 = self.at;
        for at in (0..given).rev() {
            self.push_string(&args.get(skip_args + at)?)?;
        }
        for string in before_args.iter().rev() {
            self.push_string(string)?;
        }
        // Linux gives a program at least an empty name.
        if self.arg_count == 0 {
            self.push_string(b"")?;
            self.arg_count = 1;
        }
        self.args.0 = self.at;
        Ok(())
    }

    /// Moves the stack to its final place.
    ///
    /// # Errors
    /// `ENOMEM`; the address space is of no use then.
    pub fn settle(&mut self) -> Result<(), Errno> {
        let down = self.space.finalize_stack()?;
        for address in
            [&mut self.at, &mut self.path, &mut self.args.0, &mut self.args.1, &mut self.env.0, &mut self.env.1]
        {
            *address -= down;
        }
        Ok(())
    }

    /// Adds what comes below the strings. Returns where everything is;
    /// `stack` in there is the program's `rsp`.
    ///
    /// # Errors
    /// `ENOMEM`, `EFAULT`: the stack cannot grow that far.
    pub fn finish(
        mut self,
        loaded: &Loaded,
        header_count: usize,
        interpreter: Option<&Loaded>,
    ) -> Result<Image, Errno> {
        self.at &= !15;
        let platform = self.push(PLATFORM)?;
        let mut random = [0; RANDOM_BYTES];
        for bytes in random.chunks_exact_mut(8) {
            let word = mm::Platform::random(crate::memory::memory().platform());
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let random = self.push(&random)?;
        let vector = auxiliary_vector(&[
            (AT_HWCAP, hardware_capabilities()),
            (AT_PAGESZ, mm::PAGE_SIZE as u64),
            (AT_CLKTCK, 100),
            (AT_PHDR, loaded.headers as u64),
            (AT_PHENT, PROGRAM_HEADER_SIZE as u64),
            (AT_PHNUM, header_count as u64),
            (AT_BASE, interpreter.map_or(0, |interpreter| interpreter.bias as u64)),
            (AT_FLAGS, 0),
            (AT_ENTRY, loaded.entry as u64),
            (AT_UID, 0),
            (AT_EUID, 0),
            (AT_GID, 0),
            (AT_EGID, 0),
            (AT_SECURE, 0),
            (AT_RANDOM, random as u64),
            (AT_HWCAP2, HWCAP2),
            (AT_EXECFN, self.path as u64),
            (AT_PLATFORM, platform as u64),
            (AT_MINSIGSTKSZ, crate::task::signal::frame::size() as u64),
        ]);

        let words = 1 + self.arg_count + 1 + self.env_count + 1 + vector.len();
        let rsp = (self.at - words * 8) & !15;
        let mut writer = Writer { space: self.space, at: rsp };
        writer.word(self.arg_count as u64)?;
        writer.pointers(self.args.0, self.arg_count)?;
        writer.pointers(self.env.0, self.env_count)?;
        let auxv = writer.at;
        for word in vector {
            writer.word(word)?;
        }
        Ok(Image { args: self.args, env: self.env, stack: rsp, code: loaded.code, auxv: (auxv, writer.at) })
    }
}

/// Writes words upwards.
struct Writer<'a> {
    space: &'a Space,
    at: usize,
}

impl Writer<'_> {
    fn word(&mut self, word: u64) -> Result<(), Errno> {
        self.space.write_bytes(self.at, &word.to_le_bytes())?;
        self.at += 8;
        Ok(())
    }

    /// Pointers to `count` strings that follow each other from `string` on, and a null one.
    fn pointers(&mut self, mut string: usize, count: usize) -> Result<(), Errno> {
        for _ in 0..count {
            self.word(string as u64)?;
            string = self.end_of_string(string)? + 1;
        }
        self.word(0)
    }

    /// Where the NUL of the string at `address` is.
    fn end_of_string(&self, mut address: usize) -> Result<usize, Errno> {
        const CHUNK: usize = 64;
        loop {
            // Up to a multiple of the chunk: never beyond the stack's last page.
            let len = CHUNK - address % CHUNK;
            let mut chunk = [0; CHUNK];
            self.space.read_bytes(address, &mut chunk[..len])?;
            match chunk[..len].iter().position(|&byte| byte == 0) {
                Some(at) => return Ok(address + at),
                None => address += len,
            }
        }
    }
}

const AT_NULL: u64 = 0;
const AT_PHDR: u64 = 3;
const AT_PHENT: u64 = 4;
const AT_PHNUM: u64 = 5;
const AT_PAGESZ: u64 = 6;
const AT_BASE: u64 = 7;
const AT_FLAGS: u64 = 8;
const AT_ENTRY: u64 = 9;
const AT_UID: u64 = 11;
const AT_EUID: u64 = 12;
const AT_GID: u64 = 13;
const AT_EGID: u64 = 14;
const AT_PLATFORM: u64 = 15;
const AT_HWCAP: u64 = 16;
const AT_CLKTCK: u64 = 17;
const AT_SECURE: u64 = 23;
const AT_RANDOM: u64 = 25;
const AT_HWCAP2: u64 = 26;
const AT_EXECFN: u64 = 31;
const AT_MINSIGSTKSZ: u64 = 51;

/// `HWCAP2_FSGSBASE` would be bit 1; programs here must use `arch_prctl`.
const HWCAP2: u64 = 0;
/// How many entries the vector has, the last (`AT_NULL`) not counted.
const AUXILIARY_ENTRIES: usize = 19;

/// `EDX` of CPUID leaf 1.
fn hardware_capabilities() -> u64 {
    u64::from(core::arch::x86_64::__cpuid(1).edx)
}

fn auxiliary_vector(entries: &[(u64, u64); AUXILIARY_ENTRIES]) -> [u64; 2 * AUXILIARY_ENTRIES + 2] {
    let mut vector = [AT_NULL; 2 * AUXILIARY_ENTRIES + 2];
    for (pair, (kind, value)) in vector.chunks_exact_mut(2).zip(entries) {
        pair[0] = *kind;
        pair[1] = *value;
    }
    vector
}
