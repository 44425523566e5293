//! Which names there are in `/proc` and `/sys`.

use super::huge_pages::HugePagesFile;
use super::ksm::KsmFile;
use super::process::{self, ProcessFile};
use super::sysctl::Sysctl;
use super::system::SystemFile;
use crate::fs::inode::{S_IFDIR, S_IFLNK, S_IFREG};
use crate::fs::small_text::SmallText;
use crate::task::table;

/// What a name in `/proc` or `/sys` stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// `/proc`
    Root,
    /// `self`
    SelfLink,
    /// `thread-self`
    ThreadSelfLink,
    /// `mounts`
    MountsLink,
    /// A file about the machine.
    System(SystemFile),
    /// `sys`
    Sys,
    /// `sys/vm`
    SysVm,
    /// `sys/kernel`
    SysKernel,
    /// `sys/fs`
    SysFs,
    /// A setting below `sys`.
    Sysctl(Sysctl),
    /// `/sys`
    SysfsRoot,
    /// `/sys/kernel`
    SysfsKernel,
    /// `/sys/kernel/debug`
    SysfsDebug,
    /// `/sys/kernel/debug/gup_test`
    GupTest,
    /// `/sys/kernel/mm`
    SysfsMm,
    /// `/sys/kernel/mm/transparent_hugepage`
    SysfsHugePages,
    /// `/sys/kernel/mm/transparent_hugepage/khugepaged`
    SysfsKhugepaged,
    /// `/sys/kernel/mm/transparent_hugepage/hugepages-*kB`, by the order of such pages.
    SysfsFolios(u8),
    /// `stats` there.
    SysfsFolioStats(u8),
    /// A file there, or below.
    HugePages(HugePagesFile),
    /// `/sys/kernel/mm/ksm`
    SysfsKsm,
    /// A file there.
    Ksm(KsmFile),
    /// `PID`
    Process(u32),
    /// `PID/task`
    Tasks(u32),
    /// `PID/task/TID`
    Task {
        /// Process.
        pid: u32,
        /// Thread.
        tid: u32,
    },
    /// A file about a process or thread.
    ProcessFile {
        /// Process.
        pid: u32,
        /// Thread; the process's first one in the process's own directory.
        tid: u32,
        /// Which file.
        file: ProcessFile,
    },
    /// `PID/exe`
    Exe(u32),
    /// `PID/cwd`
    Cwd(u32),
    /// `PID/root`
    RootLink(u32),
    /// `PID/fd`
    Fds(u32),
    /// `PID/fd/N`
    Fd {
        /// Process.
        pid: u32,
        /// Descriptor.
        fd: u32,
    },
    /// `PID/fdinfo`
    FdInfos(u32),
    /// `PID/fdinfo/N`
    FdInfo {
        /// Process.
        pid: u32,
        /// Descriptor.
        fd: u32,
    },
}

type Entry = (&'static str, Node);

const ROOT: [Entry; 18] = [
    ("buddyinfo", Node::System(SystemFile::BuddyInfo)),
    ("cpuinfo", Node::System(SystemFile::CpuInfo)),
    ("filesystems", Node::System(SystemFile::FileSystems)),
    ("kpagecount", Node::System(SystemFile::FrameCounts)),
    ("kpageflags", Node::System(SystemFile::FrameFlags)),
    ("loadavg", Node::System(SystemFile::LoadAverage)),
    ("meminfo", Node::System(SystemFile::MemInfo)),
    ("mounts", Node::MountsLink),
    ("self", Node::SelfLink),
    ("slabinfo", Node::System(SystemFile::SlabInfo)),
    ("stat", Node::System(SystemFile::Stat)),
    ("swaps", Node::System(SystemFile::Swaps)),
    ("sys", Node::Sys),
    ("thread-self", Node::ThreadSelfLink),
    ("uptime", Node::System(SystemFile::Uptime)),
    ("version", Node::System(SystemFile::Version)),
    ("vmstat", Node::System(SystemFile::VmStat)),
    ("cmdline", Node::System(SystemFile::CommandLine)),
];

const SYS: [Entry; 3] = [("fs", Node::SysFs), ("kernel", Node::SysKernel), ("vm", Node::SysVm)];

const SYS_VM: [Entry; 6] = [
    ("compact_memory", Node::Sysctl(Sysctl::CompactMemory)),
    ("max_map_count", Node::Sysctl(Sysctl::MaxMapCount)),
    ("mmap_min_addr", Node::Sysctl(Sysctl::MmapMinAddr)),
    ("nr_hugepages", Node::Sysctl(Sysctl::HugePages)),
    ("overcommit_memory", Node::Sysctl(Sysctl::OvercommitMemory)),
    ("overcommit_ratio", Node::Sysctl(Sysctl::OvercommitRatio)),
];

const SYS_KERNEL: [Entry; 7] = [
    ("cap_last_cap", Node::Sysctl(Sysctl::LastCapability)),
    ("hostname", Node::Sysctl(Sysctl::HostName)),
    ("osrelease", Node::Sysctl(Sysctl::OsRelease)),
    ("ostype", Node::Sysctl(Sysctl::OsType)),
    ("pid_max", Node::Sysctl(Sysctl::PidMax)),
    ("randomize_va_space", Node::Sysctl(Sysctl::RandomizeVaSpace)),
    ("version", Node::Sysctl(Sysctl::Version)),
];

const SYS_FS: [Entry; 3] = [
    ("file-max", Node::Sysctl(Sysctl::FileMax)),
    ("nr_open", Node::Sysctl(Sysctl::NrOpen)),
    ("pipe-max-size", Node::Sysctl(Sysctl::PipeMaxSize)),
];

const SYSFS_ROOT: [Entry; 1] = [("kernel", Node::SysfsKernel)];

const SYSFS_KERNEL: [Entry; 2] = [("debug", Node::SysfsDebug), ("mm", Node::SysfsMm)];

const SYSFS_DEBUG: [Entry; 1] = [("gup_test", Node::GupTest)];

const SYSFS_MM: [Entry; 2] = [("ksm", Node::SysfsKsm), ("transparent_hugepage", Node::SysfsHugePages)];

const SYSFS_HUGE_PAGES: [Entry; 14] = [
    ("defrag", Node::HugePages(HugePagesFile::Defrag)),
    ("enabled", Node::HugePages(HugePagesFile::Enabled)),
    ("hpage_pmd_size", Node::HugePages(HugePagesFile::PmdSize)),
    ("hugepages-1024kB", Node::SysfsFolios(8)),
    ("hugepages-128kB", Node::SysfsFolios(5)),
    ("hugepages-16kB", Node::SysfsFolios(2)),
    ("hugepages-2048kB", Node::SysfsFolios(9)),
    ("hugepages-256kB", Node::SysfsFolios(6)),
    ("hugepages-32kB", Node::SysfsFolios(3)),
    ("hugepages-512kB", Node::SysfsFolios(7)),
    ("hugepages-64kB", Node::SysfsFolios(4)),
    ("khugepaged", Node::SysfsKhugepaged),
    ("shmem_enabled", Node::HugePages(HugePagesFile::ShmemEnabled)),
    ("use_zero_page", Node::HugePages(HugePagesFile::UseZeroPage)),
];

const SYSFS_KHUGEPAGED: [Entry; 9] = [
    ("alloc_sleep_millisecs", Node::HugePages(HugePagesFile::AllocSleep)),
    ("defrag", Node::HugePages(HugePagesFile::CollapseDefrag)),
    ("full_scans", Node::HugePages(HugePagesFile::FullScans)),
    ("max_ptes_none", Node::HugePages(HugePagesFile::MaxNone)),
    ("max_ptes_shared", Node::HugePages(HugePagesFile::MaxShared)),
    ("max_ptes_swap", Node::HugePages(HugePagesFile::MaxSwapped)),
    ("pages_collapsed", Node::HugePages(HugePagesFile::PagesCollapsed)),
    ("pages_to_scan", Node::HugePages(HugePagesFile::PagesToScan)),
    ("scan_sleep_millisecs", Node::HugePages(HugePagesFile::ScanSleep)),
];

const ORDERS: usize = 10;

/// What there is for each order.
const SYSFS_FOLIOS: [[Entry; 2]; ORDERS] = {
    let mut entries = [[("", Node::SysfsHugePages); 2]; ORDERS];
    let mut order = 0;
    while order < ORDERS {
        entries[order] = [
            ("enabled", Node::HugePages(HugePagesFile::FolioEnabled(order as u8))),
            ("stats", Node::SysfsFolioStats(order as u8)),
        ];
        order += 1;
    }
    entries
};

const SYSFS_FOLIO_STATS: [[Entry; 2]; ORDERS] = {
    let mut entries = [[("", Node::SysfsHugePages); 2]; ORDERS];
    let mut order = 0;
    while order < ORDERS {
        entries[order] = [
            ("anon_fault_alloc", Node::HugePages(HugePagesFile::FolioFaults(order as u8))),
            ("anon_fault_fallback", Node::HugePages(HugePagesFile::FolioFallbacks(order as u8))),
        ];
        order += 1;
    }
    entries
};

const SYSFS_KSM: [Entry; 15] = [
    ("full_scans", Node::Ksm(KsmFile::FullScans)),
    ("general_profit", Node::Ksm(KsmFile::GeneralProfit)),
    ("ksm_zero_pages", Node::Ksm(KsmFile::ZeroPages)),
    ("max_page_sharing", Node::Ksm(KsmFile::MaxPageSharing)),
    ("pages_scanned", Node::Ksm(KsmFile::PagesScanned)),
    ("pages_shared", Node::Ksm(KsmFile::PagesShared)),
    ("pages_sharing", Node::Ksm(KsmFile::PagesSharing)),
    ("pages_to_scan", Node::Ksm(KsmFile::PagesToScan)),
    ("pages_unshared", Node::Ksm(KsmFile::PagesUnshared)),
    ("pages_volatile", Node::Ksm(KsmFile::PagesVolatile)),
    ("run", Node::Ksm(KsmFile::Run)),
    ("sleep_millisecs", Node::Ksm(KsmFile::SleepMillisecs)),
    ("stable_node_chains", Node::Ksm(KsmFile::StableNodeChains)),
    ("stable_node_dups", Node::Ksm(KsmFile::StableNodeDups)),
    ("use_zero_pages", Node::Ksm(KsmFile::UseZeroPages)),
];

/// The files of a process; a thread's directory has the same.
const PROCESS_FILES: [(&str, ProcessFile); 18] = [
    ("auxv", ProcessFile::Auxv),
    ("clear_refs", ProcessFile::ClearRefs),
    ("cmdline", ProcessFile::CommandLine),
    ("comm", ProcessFile::Comm),
    ("environ", ProcessFile::Environment),
    ("ksm_merging_pages", ProcessFile::KsmMergingPages),
    ("ksm_stat", ProcessFile::KsmStat),
    ("limits", ProcessFile::Limits),
    ("maps", ProcessFile::Maps),
    ("mem", ProcessFile::Mem),
    ("mountinfo", ProcessFile::MountInfo),
    ("mounts", ProcessFile::Mounts),
    ("pagemap", ProcessFile::PageMap),
    ("smaps", ProcessFile::MapDetails),
    ("smaps_rollup", ProcessFile::MapSums),
    ("stat", ProcessFile::Stat),
    ("statm", ProcessFile::StatM),
    ("status", ProcessFile::Status),
];

/// The other names in a process's directory, in listing order. The last one,
/// which leads to the threads, is not in the directory of a thread.
const PROCESS_OTHERS: [&str; 6] = ["cwd", "exe", "fd", "fdinfo", "root", "task"];

fn process_other(pid: u32, name: &[u8]) -> Option<Node> {
    match name {
        b"cwd" => Some(Node::Cwd(pid)),
        b"exe" => Some(Node::Exe(pid)),
        b"fd" => Some(Node::Fds(pid)),
        b"fdinfo" => Some(Node::FdInfos(pid)),
        b"root" => Some(Node::RootLink(pid)),
        b"task" => Some(Node::Tasks(pid)),
        _ => None,
    }
}

fn process_entry(pid: u32, tid: u32, name: &[u8]) -> Option<Node> {
    let found = PROCESS_FILES.iter().find(|(known, _)| known.as_bytes() == name);
    match found {
        Some(&(_, file)) => Some(Node::ProcessFile { pid, tid, file }),
        None => process_other(pid, name),
    }
}

/// A decimal number as `/proc` writes it: no sign, no leading zeroes.
pub fn parse_number(text: &[u8]) -> Option<u32> {
    if text.first() == Some(&b'0') && text.len() > 1 {
        return None;
    }
    core::str::from_utf8(text).ok()?.parse().ok()
}

/// What a table has for an order.
fn of_order(table: &'static [[Entry; 2]; ORDERS], order: u8) -> &'static [Entry] {
    table.get(usize::from(order)).map_or(&[], |entries| entries)
}

impl Node {
    /// The static entries of this directory.
    fn entries(self) -> &'static [Entry] {
        match self {
            Node::Root => &ROOT,
            Node::Sys => &SYS,
            Node::SysVm => &SYS_VM,
            Node::SysKernel => &SYS_KERNEL,
            Node::SysFs => &SYS_FS,
            Node::SysfsRoot => &SYSFS_ROOT,
            Node::SysfsKernel => &SYSFS_KERNEL,
            Node::SysfsDebug => &SYSFS_DEBUG,
            Node::SysfsMm => &SYSFS_MM,
            Node::SysfsHugePages => &SYSFS_HUGE_PAGES,
            Node::SysfsKhugepaged => &SYSFS_KHUGEPAGED,
            Node::SysfsFolios(order) => of_order(&SYSFS_FOLIOS, order),
            Node::SysfsFolioStats(order) => of_order(&SYSFS_FOLIO_STATS, order),
            Node::SysfsKsm => &SYSFS_KSM,
            _ => &[],
        }
    }

    /// What `name` stands for in this directory.
    pub fn child(self, name: &[u8]) -> Option<Node> {
        let fixed = self.entries().iter().find(|(known, _)| known.as_bytes() == name);
        if let Some(&(_, node)) = fixed {
            return Some(node);
        }
        match self {
            Node::Root => {
                let tid = parse_number(name)?;
                // A thread's number leads to its process's directory too, as
                // on Linux, though only processes are listed.
                let pid = match table::process(tid) {
                    Some(process) => process.pid(),
                    None => table::thread(tid)?.process().pid(),
                };
                Some(Node::Process(pid))
            }
            Node::Process(pid) => process_entry(pid, pid, name),
            Node::Task { pid, tid } => process_entry(pid, tid, name).filter(|node| *node != Node::Tasks(pid)),
            Node::Tasks(pid) => {
                let tid = parse_number(name)?;
                let thread = table::thread(tid)?;
                (thread.process().pid() == pid).then_some(Node::Task { pid, tid })
            }
            Node::Fds(pid) => {
                let fd = parse_number(name)?;
                process::file(pid, fd).ok().map(|_| Node::Fd { pid, fd })
            }
            Node::FdInfos(pid) => {
                let fd = parse_number(name)?;
                process::file(pid, fd).ok().map(|_| Node::FdInfo { pid, fd })
            }
            _ => None,
        }
    }

    /// The first entry of this directory at position `from` or behind it: its
    /// position, name and node. Numbers come after names.
    pub fn next_child(self, from: u64) -> Option<(u64, SmallText, Node)> {
        let fixed = self.entries();
        if let Some(&(name, node)) = fixed.get(from as usize) {
            return Some((from, SmallText::new(format_args!("{name}")), node));
        }
        // Numbered entries: position is the count of fixed ones plus the number.
        let first = from.saturating_sub(fixed.len() as u64);
        let numbered = |number: u32, node| {
            let name = SmallText::new(format_args!("{number}"));
            Some((fixed.len() as u64 + u64::from(number), name, node))
        };
        let number = u32::try_from(first).ok()?;
        match self {
            Node::Root => {
                let process = table::next_process(number, |_| true)?;
                numbered(process.pid(), Node::Process(process.pid()))
            }
            Node::Process(pid) | Node::Task { pid, .. } => {
                let (tid, others) = match self {
                    Node::Task { tid, .. } => (tid, &PROCESS_OTHERS[..PROCESS_OTHERS.len() - 1]),
                    _ => (pid, &PROCESS_OTHERS[..]),
                };
                let name = match PROCESS_FILES.get(number as usize) {
                    Some((name, _)) => name,
                    None => *others.get(number as usize - PROCESS_FILES.len())?,
                };
                let node = process_entry(pid, tid, name.as_bytes())?;
                Some((from, SmallText::new(format_args!("{name}")), node))
            }
            Node::Tasks(pid) => {
                let tid = process::next_thread(pid, number)?;
                numbered(tid, Node::Task { pid, tid })
            }
            Node::Fds(pid) => {
                let fd = process::next_file(pid, number)?;
                numbered(fd, Node::Fd { pid, fd })
            }
            Node::FdInfos(pid) => {
                let fd = process::next_file(pid, number)?;
                numbered(fd, Node::FdInfo { pid, fd })
            }
            _ => None,
        }
    }

    /// Whether it is in `/sys`, and not in `/proc`.
    pub fn is_in_sysfs(self) -> bool {
        matches!(
            self,
            Node::SysfsRoot
                | Node::SysfsKernel
                | Node::SysfsDebug
                | Node::GupTest
                | Node::SysfsMm
                | Node::SysfsHugePages
                | Node::SysfsKhugepaged
                | Node::SysfsFolios(_)
                | Node::SysfsFolioStats(_)
                | Node::SysfsKsm
                | Node::HugePages(_)
                | Node::Ksm(_)
        )
    }

    /// Type and permissions.
    pub fn mode(self) -> u32 {
        match self {
            Node::Root
            | Node::Sys
            | Node::SysVm
            | Node::SysKernel
            | Node::SysFs
            | Node::SysfsRoot
            | Node::SysfsKernel
            | Node::SysfsMm
            | Node::SysfsHugePages
            | Node::SysfsKhugepaged
            | Node::SysfsFolios(_)
            | Node::SysfsFolioStats(_)
            | Node::SysfsKsm
            | Node::Process(_)
            | Node::Tasks(_)
            | Node::Task { .. } => S_IFDIR | 0o555,
            Node::Fds(_) | Node::FdInfos(_) => S_IFDIR | 0o500,
            Node::SysfsDebug => S_IFDIR | 0o700,
            Node::GupTest => S_IFREG | 0o600,
            Node::SelfLink
            | Node::ThreadSelfLink
            | Node::MountsLink
            | Node::Exe(_)
            | Node::Cwd(_)
            | Node::RootLink(_) => S_IFLNK | 0o777,
            Node::Fd { pid, fd } => S_IFLNK | process::link_permissions(pid, fd),
            Node::System(SystemFile::FrameCounts | SystemFile::FrameFlags) => S_IFREG | 0o400,
            Node::System(_) => S_IFREG | 0o444,
            Node::Sysctl(setting) => S_IFREG | setting.permissions(),
            Node::HugePages(file) => S_IFREG | if file.is_writable() { 0o644 } else { 0o444 },
            Node::Ksm(file) => S_IFREG | if file.is_writable() { 0o644 } else { 0o444 },
            Node::FdInfo { .. } => S_IFREG | 0o444,
            Node::ProcessFile { file, .. } => S_IFREG | file.permissions(),
        }
    }

    /// The inode number: the same whenever the same name is looked up.
    pub fn number(self) -> u64 {
        let of = |kind: u64, pid: u32, rest: u32| kind << 52 | u64::from(pid) << 26 | u64::from(rest) | 1 << 60;
        match self {
            Node::Root => 1,
            Node::SelfLink => 2,
            Node::ThreadSelfLink => 3,
            Node::MountsLink => 4,
            Node::Sys => 5,
            Node::SysVm => 6,
            Node::SysKernel => 7,
            Node::SysFs => 8,
            // Another file system, with numbers of its own.
            Node::SysfsRoot => 1,
            Node::SysfsKernel => 2,
            Node::SysfsMm => 3,
            Node::SysfsHugePages => 4,
            Node::SysfsKhugepaged => 8,
            Node::SysfsFolios(order) => 0x10 + u64::from(order),
            Node::SysfsFolioStats(order) => 0x20 + u64::from(order),
            Node::HugePages(file) => 0x100 + file.number(),
            Node::SysfsKsm => 5,
            Node::SysfsDebug => 6,
            Node::GupTest => 7,
            Node::Ksm(file) => 0x200 + file as u64,
            Node::System(file) => 0x100 + file as u64,
            Node::Sysctl(setting) => 0x200 + setting as u64,
            Node::Process(pid) => of(1, pid, 0),
            Node::Tasks(pid) => of(2, pid, 0),
            Node::Task { pid, tid } => of(3, pid, tid),
            Node::ProcessFile { pid, tid, file } => of(16 + file as u64, pid, tid),
            Node::Exe(pid) => of(4, pid, 0),
            Node::Cwd(pid) => of(5, pid, 0),
            Node::RootLink(pid) => of(6, pid, 0),
            Node::Fds(pid) => of(7, pid, 0),
            Node::Fd { pid, fd } => of(8, pid, fd),
            Node::FdInfos(pid) => of(9, pid, 0),
            Node::FdInfo { pid, fd } => of(10, pid, fd),
        }
    }
}
