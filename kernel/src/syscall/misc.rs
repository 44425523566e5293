//! System calls about the machine: its name, its memory, its randomness.
//!
//! Also capabilities: there is one user, root, who has all of them and cannot
//! give one up; `capset` checks its argument and changes nothing.

use mm::{Errno, FrameKind, PAGE_SIZE};

use crate::arch::irq::Mutex;
use crate::arch::time::monotonic_ns;
use crate::arch::usercopy::{copy_from_user, copy_to_user, read_user, write_user};
use crate::fs::device;
use crate::fs::io::Sink;
use crate::fs::small_text::SmallText;
use crate::memory::memory;
use crate::task::table;

type Result<T> = core::result::Result<T, Errno>;

/// `uname -s`: what programs check for.
pub const OS_TYPE: &str = "Linux";
/// `uname -r`: the Linux whose ABI this is.
pub const RELEASE: &str = "6.18.0-mm";
/// `uname -v`.
pub const VERSION: &str = "#1 SMP";
/// Number of the last capability (`CAP_CHECKPOINT_RESTORE`).
pub const LAST_CAPABILITY: u32 = 40;
/// All capabilities.
pub const ALL_CAPABILITIES: u64 = (1 << (LAST_CAPABILITY + 1)) - 1;

/// Bytes of a string of `struct utsname`, with its NUL.
const NAME_SIZE: usize = 65;

static HOST_NAME: Mutex<[u8; NAME_SIZE]> = Mutex::new(name(b"mm"));
static DOMAIN_NAME: Mutex<[u8; NAME_SIZE]> = Mutex::new(name(b"(none)"));

/// `text` as a string of `struct utsname`.
const fn name(text: &[u8]) -> [u8; NAME_SIZE] {
    let mut name = [0; NAME_SIZE];
    let mut index = 0;
    while index < text.len() && index < NAME_SIZE - 1 {
        name[index] = text[index];
        index += 1;
    }
    name
}

/// Executes system call `number` if it is one of these.
pub fn call(number: usize, args: &[usize; 6]) -> Option<Result<usize>> {
    let &[a, b, c, _, _, _] = args;
    Some(match number {
        63 => uname(a),
        99 => system_info(a),
        103 => system_log(a as i32),
        125 => get_capabilities(a, b),
        126 => set_capabilities(a, b),
        135 => personality(a as u32),
        170 => set_name(&HOST_NAME, a, b as i32),
        171 => set_name(&DOMAIN_NAME, a, b as i32),
        318 => random(a, b, c as u32),
        _ => return None,
    })
}

fn uname(to: usize) -> Result<usize> {
    let mut record = [0; 6 * NAME_SIZE];
    let host = *HOST_NAME.lock();
    let domain = *DOMAIN_NAME.lock();
    let fixed = [OS_TYPE, RELEASE, VERSION, "x86_64"].map(|text| name(text.as_bytes()));
    let fields = [&fixed[0], &host, &fixed[1], &fixed[2], &fixed[3], &domain];
    for (slot, field) in record.chunks_exact_mut(NAME_SIZE).zip(fields) {
        slot.copy_from_slice(field);
    }
    copy_to_user(to, &record)?;
    Ok(0)
}

/// The host's name.
pub fn host_name() -> SmallText {
    let name = *HOST_NAME.lock();
    let len = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    SmallText::new(format_args!("{}", name[..len].utf8_chunks().next().map_or("", |c| c.valid())))
}

/// Sets the host's name.
///
/// # Errors
/// `EINVAL` if it is too long.
pub fn set_host_name(text: &[u8]) -> Result<()> {
    if text.len() >= NAME_SIZE {
        return Err(Errno::EINVAL);
    }
    *HOST_NAME.lock() = name(text);
    Ok(())
}

fn set_name(which: &Mutex<[u8; NAME_SIZE]>, from: usize, len: i32) -> Result<usize> {
    let len = usize::try_from(len).ok().filter(|&len| len < NAME_SIZE).ok_or(Errno::EINVAL)?;
    let mut text = [0; NAME_SIZE];
    copy_from_user(&mut text[..len], from)?;
    *which.lock() = text;
    Ok(0)
}

/// `sysinfo`.
fn system_info(to: usize) -> Result<usize> {
    let memory = memory();
    let pages = [memory.total_frames(), memory.free_frames(), memory.count_frames(FrameKind::Object)];
    let mut words = [0_u64; 14];
    words[0] = monotonic_ns() / 1_000_000_000;
    for (word, count) in words[4..7].iter_mut().zip(pages) {
        *word = (count * PAGE_SIZE) as u64;
    }
    // Number of processes, a 16-bit field of its own.
    words[10] = table::process_count().min(usize::from(u16::MAX)) as u64;
    // The memory unit, 1 byte.
    words[13] = 1;
    let mut record = [0; 14 * 8];
    for (slot, word) in record.chunks_exact_mut(8).zip(words) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    copy_to_user(to, &record)?;
    Ok(0)
}

/// `syslog`: the kernel's log goes elsewhere, so there is never any of it here.
fn system_log(action: i32) -> Result<usize> {
    if (0..=10).contains(&action) { Ok(0) } else { Err(Errno::EINVAL) }
}

/// How many words of each set the version at `header` has.
fn capability_words(header: usize) -> Result<Option<usize>> {
    const VERSION_1: u32 = 0x1998_0330;
    const VERSION_2: u32 = 0x2007_1026;
    const VERSION_3: u32 = 0x2008_0522;
    match read_user::<u32>(header)? {
        VERSION_1 => Ok(Some(1)),
        VERSION_2 | VERSION_3 => Ok(Some(2)),
        _ => {
            write_user(header, VERSION_3)?;
            Ok(None)
        }
    }
}

fn get_capabilities(header: usize, data: usize) -> Result<usize> {
    let Some(words) = capability_words(header)? else {
        return if data == 0 { Ok(0) } else { Err(Errno::EINVAL) };
    };
    let pid: i32 = read_user(header.wrapping_add(4))?;
    match u32::try_from(pid) {
        Err(_) => return Err(Errno::EINVAL),
        Ok(0) => {}
        Ok(pid) => drop(table::thread(pid).ok_or(Errno::ESRCH)?),
    }
    for word in 0..words {
        let bits = (ALL_CAPABILITIES >> (32 * word)) as u32;
        // Effective, permitted, inheritable.
        write_user(data.wrapping_add(word * 12), [bits, bits, 0])?;
    }
    Ok(0)
}

fn set_capabilities(header: usize, data: usize) -> Result<usize> {
    let words = capability_words(header)?.ok_or(Errno::EINVAL)?;
    for word in 0..words {
        let _: [u32; 3] = read_user(data.wrapping_add(word * 12))?;
    }
    Ok(0)
}

/// `personality`: there is one, 0.
fn personality(wanted: u32) -> Result<usize> {
    const QUERY: u32 = u32::MAX;
    if wanted == 0 || wanted == QUERY { Ok(0) } else { Err(Errno::EINVAL) }
}

/// `getrandom`.
fn random(buffer: usize, len: usize, flags: u32) -> Result<usize> {
    const GRND_RANDOM: u32 = 2;
    const GRND_INSECURE: u32 = 4;
    const KNOWN: u32 = 7;
    let contradictory = GRND_RANDOM | GRND_INSECURE;
    if flags & !KNOWN != 0 || flags & contradictory == contradictory {
        return Err(Errno::EINVAL);
    }
    device::fill(&mut Sink::user(buffer, len)?, device::random_bytes)
}
