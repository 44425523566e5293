//! The settings in `/proc/sys`.

use mm::{Errno, Overcommit};

use crate::arch::irq::Mutex;
use crate::fs::channel;
use crate::fs::page::Text;
use crate::fs::table::MAX_DESCRIPTORS;
use crate::memory::memory;
use crate::syscall::misc;

/// A setting.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sysctl {
    /// `vm/compact_memory`: what is written there has memory compacted.
    CompactMemory,
    /// `vm/max_map_count`
    MaxMapCount,
    /// `vm/mmap_min_addr`
    MmapMinAddr,
    /// `vm/nr_hugepages`: there are none.
    HugePages,
    /// `vm/overcommit_memory`
    OvercommitMemory,
    /// `vm/overcommit_ratio`
    OvercommitRatio,
    /// `kernel/cap_last_cap`
    LastCapability,
    /// `kernel/hostname`
    HostName,
    /// `kernel/osrelease`
    OsRelease,
    /// `kernel/ostype`
    OsType,
    /// `kernel/pid_max`
    PidMax,
    /// `kernel/randomize_va_space`
    RandomizeVaSpace,
    /// `kernel/version`
    Version,
    /// `fs/file-max`
    FileMax,
    /// `fs/nr_open`
    NrOpen,
    /// `fs/pipe-max-size`
    PipeMaxSize,
}

/// Writes are made one at a time.
static WRITER: Mutex<()> = Mutex::new(());

impl Sysctl {
    /// Whether it can be changed.
    pub fn is_writable(self) -> bool {
        matches!(
            self,
            Sysctl::CompactMemory
                | Sysctl::MaxMapCount
                | Sysctl::MmapMinAddr
                | Sysctl::OvercommitMemory
                | Sysctl::OvercommitRatio
                | Sysctl::RandomizeVaSpace
                | Sysctl::HostName
        )
    }

    /// Whether it has a value.
    pub fn is_readable(self) -> bool {
        self != Sysctl::CompactMemory
    }

    /// The permissions of the file.
    pub fn permissions(self) -> u32 {
        let of = |yes, bits| if yes { bits } else { 0 };
        of(self.is_readable(), 0o444) | of(self.is_writable(), 0o200)
    }

    /// Writes the value, with a newline, into `text`.
    ///
    /// # Errors
    /// `EACCES` if it has none, `ENOMEM`.
    pub fn show(self, text: &mut Text) -> Result<(), Errno> {
        let settings = memory().sysctl();
        let number = match self {
            Sysctl::CompactMemory => return Err(Errno::EACCES),
            Sysctl::MaxMapCount => settings.max_map_count(),
            Sysctl::MmapMinAddr => settings.mmap_min_addr(),
            Sysctl::HugePages => 0,
            Sysctl::OvercommitMemory => match settings.overcommit() {
                Overcommit::Heuristic => 0,
                Overcommit::Always => 1,
                Overcommit::Never => 2,
            },
            Sysctl::OvercommitRatio => settings.overcommit_ratio(),
            Sysctl::LastCapability => misc::LAST_CAPABILITY as usize,
            Sysctl::PidMax => crate::task::table::PID_MAX as usize,
            Sysctl::RandomizeVaSpace => settings.randomize_va_space() as usize,
            Sysctl::FileMax => memory().total_frames(),
            Sysctl::NrOpen => MAX_DESCRIPTORS,
            Sysctl::PipeMaxSize => channel::CAPACITY,
            Sysctl::OsRelease => return text.put(format_args!("{}\n", misc::RELEASE)),
            Sysctl::OsType => return text.put(format_args!("{}\n", misc::OS_TYPE)),
            Sysctl::Version => return text.put(format_args!("{}\n", misc::VERSION)),
            Sysctl::HostName => {
                text.push(misc::host_name().as_bytes())?;
                return text.push(b"\n");
            }
        };
        text.put(format_args!("{number}\n"))
    }

    /// Sets the value that `line` spells.
    ///
    /// # Errors
    /// `EACCES` if it cannot be changed, `EINVAL` if the value is no number or
    /// not allowed.
    pub fn store(self, line: &[u8]) -> Result<(), Errno> {
        let number = || {
            let text = core::str::from_utf8(line).map_err(|_| Errno::EINVAL)?;
            let number = text.trim().parse::<usize>().map_err(|_| Errno::EINVAL)?;
            let most = if self == Sysctl::MmapMinAddr { mm::TASK_SIZE } else { i32::MAX as usize };
            if number <= most { Ok(number) } else { Err(Errno::EINVAL) }
        };
        if self == Sysctl::CompactMemory {
            if number()? != 1 {
                return Err(Errno::EINVAL);
            }
            memory().compact_all();
            return Ok(());
        }
        let _writer = WRITER.lock();
        let settings = memory().sysctl();
        match self {
            Sysctl::HostName => return misc::set_host_name(line),
            Sysctl::MaxMapCount => settings.set_max_map_count(number()?),
            Sysctl::MmapMinAddr => settings.set_mmap_min_addr(number()?),
            Sysctl::OvercommitMemory => settings.set_overcommit(match number()? {
                0 => Overcommit::Heuristic,
                1 => Overcommit::Always,
                2 => Overcommit::Never,
                _ => return Err(Errno::EINVAL),
            }),
            Sysctl::OvercommitRatio => settings.set_overcommit_ratio(number()?),
            Sysctl::RandomizeVaSpace => match number()? {
                mode @ 0..=2 => settings.set_randomize_va_space(mode as u32),
                _ => return Err(Errno::EINVAL),
            },
            _ => return Err(Errno::EACCES),
        }
        Ok(())
    }
}
