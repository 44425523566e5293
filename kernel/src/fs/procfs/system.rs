//! The files in `/proc` that are about the machine.

use mm::{Errno, FrameKind, PAGE_SIZE};

use crate::arch::cpu;
use crate::arch::time::monotonic_ns;
use crate::fs::page::Text;
use crate::memory::memory;
use crate::syscall::misc;
use crate::task::table;

/// A file about the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SystemFile {
    /// `cpuinfo`
    CpuInfo,
    /// `filesystems`
    FileSystems,
    /// `loadavg`
    LoadAverage,
    /// `meminfo`
    MemInfo,
    /// `stat`
    Stat,
    /// `uptime`
    Uptime,
    /// `version`
    Version,
    /// `cmdline`: empty, the kernel has none.
    CommandLine,
}

/// What `/proc/PID/mounts` lists.
pub const MOUNTS: &str = "tmpfs / tmpfs rw 0 0\nproc /proc proc rw 0 0\n";
/// What `/proc/PID/mountinfo` lists.
pub const MOUNT_INFO: &str = "1 1 0:1 / / rw - tmpfs tmpfs rw\n2 1 0:2 / /proc rw - proc proc rw\n";

impl SystemFile {
    /// The file's text.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn text(self) -> Result<Text, Errno> {
        Text::build(|text| match self {
            SystemFile::CpuInfo => cpu_info(text),
            SystemFile::FileSystems => text.push(b"nodev\ttmpfs\nnodev\tproc\nnodev\tpipefs\n"),
            SystemFile::LoadAverage => {
                let count = table::process_count();
                text.put(format_args!("0.00 0.00 0.00 1/{count} {count}\n"))
            }
            SystemFile::MemInfo => mem_info(text),
            SystemFile::Stat => stat(text),
            SystemFile::Uptime => {
                let hundredths = monotonic_ns() / 10_000_000;
                let (seconds, rest) = (hundredths / 100, hundredths % 100);
                text.put(format_args!("{seconds}.{rest:02} 0.00\n"))
            }
            SystemFile::Version => {
                text.put(format_args!("{} version {} {}\n", misc::OS_TYPE, misc::RELEASE, misc::VERSION))
            }
            SystemFile::CommandLine => text.push(b"\n"),
        })
    }
}

fn mem_info(text: &mut Text) -> Result<(), Errno> {
    let memory = memory();
    let of = |kind| memory.count_frames(kind);
    let (total, free) = (memory.total_frames(), memory.free_frames());
    let objects = of(FrameKind::Object);
    // Nothing can be had back from files that live in memory, so what is
    // available is what is free.
    let lines = [
        ("MemTotal:       ", total),
        ("MemFree:        ", free),
        ("MemAvailable:   ", free),
        ("Buffers:        ", 0),
        ("Cached:         ", objects),
        ("SwapCached:     ", 0),
        ("SwapTotal:      ", 0),
        ("SwapFree:       ", 0),
        ("AnonPages:      ", of(FrameKind::Anon)),
        ("Shmem:          ", objects),
        ("Slab:           ", of(FrameKind::Slab)),
        ("KernelStack:    ", of(FrameKind::Kernel)),
        ("PageTables:     ", of(FrameKind::Table)),
        ("CommitLimit:    ", memory.commit_limit()),
        ("Committed_AS:   ", memory.committed()),
    ];
    for (label, pages) in lines {
        let kib = pages * (PAGE_SIZE / 1024);
        text.put(format_args!("{label}{kib:8} kB\n"))?;
    }
    text.put(format_args!("HugePages_Total:   {:5}\n", 0))?;
    text.put(format_args!("HugePages_Free:    {:5}\n", 0))?;
    text.put(format_args!("Hugepagesize:   {:8} kB\n", 2048))
}

fn cpu_info(text: &mut Text) -> Result<(), Errno> {
    for cpu in 0..cpu::count() {
        text.put(format_args!(
            "processor\t: {cpu}\nvendor_id\t: GenuineIntel\nmodel name\t: QEMU virtual CPU\n\
             flags\t\t: fpu tsc msr pae cx8 apic sep pge cmov pat clflush mmx fxsr sse sse2 \
             syscall nx lm constant_tsc\naddress sizes\t: 40 bits physical, 48 bits virtual\n\n"
        ))?;
    }
    Ok(())
}

fn stat(text: &mut Text) -> Result<(), Errno> {
    let uptime = monotonic_ns() / 1_000_000_000;
    let booted = crate::arch::time::realtime_ns() / 1_000_000_000 - uptime;
    let cpus = cpu::count();
    text.put(format_args!("cpu  0 0 0 {} 0 0 0 0 0 0\n", uptime * 100 * cpus as u64))?;
    for cpu in 0..cpus {
        text.put(format_args!("cpu{cpu} 0 0 0 {} 0 0 0 0 0 0\n", uptime * 100))?;
    }
    text.put(format_args!("intr 0\nctxt 0\nbtime {booted}\n"))?;
    text.put(format_args!("processes {}\nprocs_running 1\nprocs_blocked 0\n", table::process_count()))
}
