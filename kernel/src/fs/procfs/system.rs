//! The files in `/proc` that are about the machine.

use mm::{Errno, Event, FrameKind, PAGE_SIZE, PMD_SIZE};

use crate::arch::cpu;
use crate::arch::time::monotonic_ns;
use crate::fs::page::Text;
use crate::memory::memory;
use crate::syscall::misc;
use crate::task::table;

/// A file about the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SystemFile {
    /// `buddyinfo`
    BuddyInfo,
    /// `cpuinfo`
    CpuInfo,
    /// `filesystems`
    FileSystems,
    /// `kpagecount`, which is no text
    FrameCounts,
    /// `kpageflags`, likewise
    FrameFlags,
    /// `loadavg`
    LoadAverage,
    /// `meminfo`
    MemInfo,
    /// `stat`
    Stat,
    /// `swaps`
    Swaps,
    /// `uptime`
    Uptime,
    /// `version`
    Version,
    /// `vmstat`
    VmStat,
    /// `slabinfo`
    SlabInfo,
    /// `cmdline`: empty, the kernel has none.
    CommandLine,
}

/// What `/proc/PID/mounts` lists.
pub const MOUNTS: &str = "tmpfs / tmpfs rw 0 0\nproc /proc proc rw 0 0\nsysfs /sys sysfs rw 0 0\n";
/// What `/proc/PID/mountinfo` lists.
pub const MOUNT_INFO: &str = "1 1 0:1 / / rw - tmpfs tmpfs rw\n2 1 0:2 / /proc rw - proc proc rw\n\
    3 1 0:4 / /sys rw - sysfs sysfs rw\n";

impl SystemFile {
    /// The file's text.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn text(self) -> Result<Text, Errno> {
        Text::build(|text| match self {
            SystemFile::BuddyInfo => buddy_info(text),
            SystemFile::CpuInfo => cpu_info(text),
            SystemFile::FileSystems => text.push(b"nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\nnodev\tpipefs\n"),
            SystemFile::FrameCounts | SystemFile::FrameFlags => Err(Errno::EINVAL),
            SystemFile::LoadAverage => {
                let count = table::process_count();
                text.put(format_args!("0.00 0.00 0.00 1/{count} {count}\n"))
            }
            SystemFile::MemInfo => mem_info(text),
            SystemFile::Stat => stat(text),
            SystemFile::Swaps => swaps(text),
            SystemFile::Uptime => {
                let hundredths = monotonic_ns() / 10_000_000;
                let (seconds, rest) = (hundredths / 100, hundredths % 100);
                text.put(format_args!("{seconds}.{rest:02} 0.00\n"))
            }
            SystemFile::Version => {
                text.put(format_args!("{} version {} {}\n", misc::OS_TYPE, misc::RELEASE, misc::VERSION))
            }
            SystemFile::VmStat => vm_stat(text),
            SystemFile::SlabInfo => slab_info(text),
            SystemFile::CommandLine => text.push(b"\n"),
        })
    }
}

fn mem_info(text: &mut Text) -> Result<(), Errno> {
    let memory = memory();
    let of = |kind| memory.count_frames(kind);
    let (total, free) = (memory.total_frames(), memory.free_frames());
    let objects = of(FrameKind::Object);
    let swap = memory.swap_stats();
    // Nothing can be had back from files that live in memory, so what is
    // available is what is free.
    let lines = [
        ("MemTotal:       ", total),
        ("MemFree:        ", free),
        ("MemAvailable:   ", free),
        ("Buffers:        ", 0),
        ("Cached:         ", objects),
        ("SwapCached:     ", swap.cached),
        ("SwapTotal:      ", swap.total),
        ("SwapFree:       ", swap.total - swap.used),
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
    let huge = memory.huge_leaves() * (PMD_SIZE / 1024);
    text.put(format_args!("AnonHugePages:  {huge:8} kB\n"))?;
    text.put(format_args!("HugePages_Total:   {:5}\n", 0))?;
    text.put(format_args!("HugePages_Free:    {:5}\n", 0))?;
    text.put(format_args!("Hugepagesize:   {:8} kB\n", 2048))
}

/// What there is of Linux's: kinds of pages, and then what happened, which is this
/// kernel's own for the most part: faults by their locks, shootdowns, relocations.
fn vm_stat(text: &mut Text) -> Result<(), Errno> {
    let memory = memory();
    let of = |kind| memory.count_frames(kind);
    let pages = [
        ("nr_free_pages", memory.free_frames()),
        ("nr_anon_pages", of(FrameKind::Anon)),
        ("nr_file_pages", of(FrameKind::Object)),
        ("nr_shmem", of(FrameKind::Object)),
        ("nr_slab_unreclaimable", of(FrameKind::Slab)),
        ("nr_page_table_pages", of(FrameKind::Table)),
        ("nr_anon_transparent_hugepages", memory.huge_leaves()),
    ];
    for (name, pages) in pages {
        text.put(format_args!("{name} {pages}\n"))?;
    }
    for event in Event::ALL {
        text.put(format_args!("{} {}\n", event.name(), memory.events(event)))?;
    }
    Ok(())
}

fn slab_info(text: &mut Text) -> Result<(), Errno> {
    text.push(
        b"slabinfo - version: 2.1\n\
          # name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> \
          : tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>\n",
    )?;
    for slab in memory().slabs() {
        let chunks = slab.total.div_ceil(slab.per_chunk);
        text.put(format_args!(
            "{:<17} {:6} {:6} {:6} {:4} {:4} : tunables    0    0    0 : slabdata {chunks:6} {chunks:6}      0\n",
            slab.name, slab.in_use, slab.total, slab.size, slab.per_chunk, slab.chunk_pages
        ))?;
    }
    Ok(())
}

fn buddy_info(text: &mut Text) -> Result<(), Errno> {
    text.put(format_args!("Node 0, zone {:>8} ", "DMA32"))?;
    for count in memory().free_blocks() {
        text.put(format_args!("{count:6} "))?;
    }
    text.push(b"\n")
}

fn swaps(text: &mut Text) -> Result<(), Errno> {
    text.push(b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")?;
    let swap = memory().swap_stats();
    if swap.total == 0 {
        return Ok(());
    }
    let kib = |pages: usize| pages * (PAGE_SIZE / 1024);
    let (size, used) = (kib(swap.total), kib(swap.used));
    text.put(format_args!("{:<40}partition\t{size}\t\t{used}\t\t100\n", "/dev/zram0"))
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
