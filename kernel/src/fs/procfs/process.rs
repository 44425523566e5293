//! The files in `/proc/PID` and `/proc/PID/task/TID`.

use alloc::sync::Arc;
use mm::{Errno, PAGE_SIZE, Platform, VmaFlags};

use super::tree::Node;
use super::{maps, system};
use crate::fs::File;
use crate::fs::dentry::Dentry;
use crate::fs::file::{FileOps, Seek};
use crate::fs::io::{Sink, Source, partial};
use crate::fs::page::Text;
use crate::memory::memory;
use crate::syscall::misc;
use crate::task::limits::{INFINITY, Resource};
use crate::task::process::{Process, Space, Usage};
use crate::task::signal::{SIGNAL_COUNT, SigSet, Signal};
use crate::task::table;
use crate::task::thread::Thread;

/// A file about a process or thread.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ProcessFile {
    /// `auxv`
    Auxv,
    /// `clear_refs`
    ClearRefs,
    /// `cmdline`
    CommandLine,
    /// `comm`
    Comm,
    /// `environ`
    Environment,
    /// `ksm_merging_pages`
    KsmMergingPages,
    /// `ksm_stat`
    KsmStat,
    /// `limits`
    Limits,
    /// `maps`
    Maps,
    /// `mem`
    Mem,
    /// `smaps`
    MapDetails,
    /// `smaps_rollup`
    MapSums,
    /// `mountinfo`
    MountInfo,
    /// `mounts`
    Mounts,
    /// `pagemap`
    PageMap,
    /// `stat`
    Stat,
    /// `statm`
    StatM,
    /// `status`
    Status,
}

impl ProcessFile {
    /// Permission bits.
    pub fn permissions(self) -> u32 {
        match self {
            ProcessFile::Auxv | ProcessFile::Environment | ProcessFile::PageMap => 0o400,
            ProcessFile::KsmMergingPages | ProcessFile::KsmStat => 0o400,
            ProcessFile::ClearRefs => 0o200,
            ProcessFile::Comm => 0o644,
            ProcessFile::Mem => 0o600,
            _ => 0o444,
        }
    }
}

/// The process `pid`.
fn process(pid: u32) -> Result<Arc<Process>, Errno> {
    table::process(pid).ok_or(Errno::ESRCH)
}

/// The address space of process `pid`; `None` if it has ended.
///
/// # Errors
/// `ESRCH` if there is no such process any more.
pub fn space_if_alive(pid: u32) -> Result<Option<Arc<Space>>, Errno> {
    process(pid).map(|process| process.space())
}

/// The address space of process `pid`.
///
/// # Errors
/// `ESRCH` if there is none any more.
pub fn space(pid: u32) -> Result<Arc<Space>, Errno> {
    process(pid)?.space().ok_or(Errno::ESRCH)
}

/// The thread `tid` of `process`; `None` for the first one of a process that
/// has none left.
fn thread(process: &Process, tid: u32) -> Result<Option<Arc<Thread>>, Errno> {
    match table::thread(tid) {
        Some(thread) if thread.process().pid() == process.pid() => Ok(Some(thread)),
        _ if tid == process.pid() => Ok(process.leader()),
        _ => Err(Errno::ESRCH),
    }
}

/// The open file `fd` of process `pid`.
///
/// # Errors
/// `ENOENT`.
pub fn file(pid: u32, fd: u32) -> Result<Arc<File>, Errno> {
    let files = table::process(pid).and_then(|process| process.files()).ok_or(Errno::ENOENT)?;
    files.get(fd as i32).map_err(|_| Errno::ENOENT)
}

/// The first descriptor of process `pid` from `from` up.
pub fn next_file(pid: u32, from: u32) -> Option<u32> {
    let files = table::process(pid)?.files()?;
    files.next(from as usize).map(|(fd, _)| fd as u32)
}

/// The first thread of process `pid` with a number from `from` up.
pub fn next_thread(pid: u32, from: u32) -> Option<u32> {
    table::process(pid)?.next_thread(from)
}

/// The permissions of the link for descriptor `fd`: how the file is open.
pub fn link_permissions(pid: u32, fd: u32) -> u32 {
    file(pid, fd).map_or(0, |file| {
        let read = if file.readable() { 0o400 } else { 0 };
        let write = if file.writable() { 0o200 } else { 0 };
        0o100 | read | write
    })
}

/// Where a symbolic link of a process leads.
///
/// # Errors
/// `ENOENT`.
pub fn link_target(node: Node) -> Result<Arc<Dentry>, Errno> {
    let context = |pid| table::process(pid).and_then(|process| process.context()).ok_or(Errno::ENOENT);
    match node {
        Node::Exe(pid) => {
            let program = table::process(pid).and_then(|process| process.executable());
            program.map(|file| file.dentry().clone()).ok_or(Errno::ENOENT)
        }
        Node::Cwd(pid) => Ok(context(pid)?.current()),
        Node::RootLink(pid) => Ok(context(pid)?.root().clone()),
        Node::Fd { pid, fd } => Ok(file(pid, fd)?.dentry().clone()),
        _ => Err(Errno::EINVAL),
    }
}

/// The text of a file.
///
/// # Errors
/// `ESRCH` if the process is gone, `ENOMEM`.
pub fn text(pid: u32, tid: u32, file: ProcessFile) -> Result<Text, Errno> {
    let process = process(pid)?;
    let image = process.image();
    let space = process.space();
    Text::build(|text| match (file, &space) {
        (ProcessFile::CommandLine, Some(space)) => copy(space, image.args, text),
        (ProcessFile::Environment, Some(space)) => copy(space, image.env, text),
        (ProcessFile::Auxv, Some(space)) => copy(space, image.auxv, text),
        (ProcessFile::Maps, Some(space)) => maps::write(space, text),
        (ProcessFile::MapDetails, Some(space)) => maps::write_details(space, text),
        (ProcessFile::MapSums, Some(space)) => maps::write_sums(space, text),
        (ProcessFile::KsmMergingPages, Some(space)) => text.put(format_args!("{}\n", space.ksm_pages().merged)),
        (ProcessFile::KsmStat, Some(space)) => ksm_stat(space, text),
        (ProcessFile::Comm, _) => {
            put_name(&process, thread(&process, tid)?.as_deref(), text)?;
            text.push(b"\n")
        }
        (ProcessFile::Limits, _) => limits(&process, text),
        (ProcessFile::Mounts, _) => text.push(system::MOUNTS.as_bytes()),
        (ProcessFile::MountInfo, _) => text.push(system::MOUNT_INFO.as_bytes()),
        (ProcessFile::Stat, _) => stat(&process, thread(&process, tid)?.as_deref(), tid, pid == tid, text),
        (ProcessFile::StatM, _) => statm(space.as_deref(), text),
        (ProcessFile::Status, _) => status(&process, thread(&process, tid)?.as_deref(), tid, text),
        // A process that has exited has no memory to show.
        (_, None) => Ok(()),
        (ProcessFile::ClearRefs | ProcessFile::Mem | ProcessFile::PageMap, _) => Err(Errno::EINVAL),
    })
}

/// Names a thread: `comm` written to.
///
/// # Errors
/// `ESRCH` if it is gone.
pub fn set_name(pid: u32, tid: u32, name: &[u8]) -> Result<(), Errno> {
    let process = process(pid)?;
    thread(&process, tid)?.ok_or(Errno::ESRCH)?.set_name(name);
    Ok(())
}

/// Appends the bytes `range` of a process's memory.
fn copy(space: &Space, range: (usize, usize), text: &mut Text) -> Result<(), Errno> {
    let (mut at, end) = range;
    let mut buffer = [0; 256];
    while at < end {
        let count = (end - at).min(buffer.len());
        // What the process has unmapped of it ends the text.
        if space.read_bytes(at, &mut buffer[..count]).is_err() {
            break;
        }
        text.push(&buffer[..count])?;
        at += count;
    }
    Ok(())
}

fn put_name(process: &Process, thread: Option<&Thread>, text: &mut Text) -> Result<(), Errno> {
    let name = thread.map_or_else(|| process.name(), Thread::name);
    let len = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    text.push(&name[..len])
}

fn state(process: &Process, thread: Option<&Thread>) -> (char, &'static str) {
    match thread {
        Some(thread) if !process.is_zombie() => match thread.state_letter() {
            b'R' => ('R', "running"),
            b'T' => ('T', "stopped"),
            b'D' => ('D', "disk sleep"),
            b'Z' => ('Z', "zombie"),
            _ => ('S', "sleeping"),
        },
        _ => ('Z', "zombie"),
    }
}

fn ksm_stat(space: &Space, text: &mut Text) -> Result<(), Errno> {
    let pages = space.ksm_pages();
    let answer = |yes| if yes { "yes" } else { "no" };
    let mut mergeable = false;
    space.for_each_vma(|vma| mergeable |= vma.flags.contains(VmaFlags::MERGEABLE));
    text.put(format_args!(
        "ksm_rmap_items {}\nksm_zero_pages {}\nksm_merging_pages {}\nksm_process_profit {}\n\
         ksm_merge_any: {}\nksm_mergeable: {}\n",
        pages.merged,
        pages.zero,
        pages.merged,
        ((pages.merged + pages.zero) * PAGE_SIZE) as i64,
        answer(space.memory_merge()),
        answer(mergeable),
    ))
}

fn limits(process: &Process, text: &mut Text) -> Result<(), Errno> {
    let lines = [
        ("Max cpu time", Resource::Cpu, "seconds"),
        ("Max file size", Resource::FileSize, "bytes"),
        ("Max data size", Resource::Data, "bytes"),
        ("Max stack size", Resource::Stack, "bytes"),
        ("Max core file size", Resource::Core, "bytes"),
        ("Max resident set", Resource::ResidentSet, "bytes"),
        ("Max processes", Resource::Processes, "processes"),
        ("Max open files", Resource::OpenFiles, "files"),
        ("Max locked memory", Resource::LockedMemory, "bytes"),
        ("Max address space", Resource::AddressSpace, "bytes"),
        ("Max file locks", Resource::FileLocks, "locks"),
        ("Max pending signals", Resource::PendingSignals, "signals"),
        ("Max msgqueue size", Resource::MessageQueue, "bytes"),
        ("Max nice priority", Resource::Nice, ""),
        ("Max realtime priority", Resource::RealTimePriority, ""),
        ("Max realtime timeout", Resource::RealTimeTime, "us"),
    ];
    let header = ("Limit", "Soft Limit", "Hard Limit", "Units");
    text.put(format_args!("{:25} {:20} {:20} {:10}\n", header.0, header.1, header.2, header.3))?;
    for (name, resource, unit) in lines {
        text.put(format_args!("{name:25} "))?;
        let limit = process.limits().get(resource);
        for value in [limit.soft, limit.hard] {
            match value {
                INFINITY => text.put(format_args!("{:20} ", "unlimited"))?,
                value => text.put(format_args!("{value:<20} "))?,
            }
        }
        match unit {
            "" => text.push(b"\n")?,
            unit => text.put(format_args!("{unit:10}\n"))?,
        }
    }
    Ok(())
}

fn statm(space: Option<&Space>, text: &mut Text) -> Result<(), Errno> {
    let Some(space) = space else {
        return text.push(b"0 0 0 0 0 0 0\n");
    };
    let stats = space.stats();
    text.put(format_args!(
        "{} {} {} {} 0 {} 0\n",
        stats.total_vm,
        stats.rss_anon + stats.rss_shmem,
        stats.rss_shmem,
        stats.exec_vm,
        stats.data_vm + stats.stack_vm,
    ))
}

/// Sets of signals as `stat` and `status` show them.
struct Signals {
    pending: SigSet,
    shared_pending: SigSet,
    blocked: SigSet,
    ignored: SigSet,
    caught: SigSet,
}

impl Signals {
    fn of(process: &Process, thread: Option<&Thread>) -> Signals {
        let handlers = process.handlers();
        let (mut ignored, mut caught) = (0, 0);
        for number in 1..=SIGNAL_COUNT {
            let Some(signal) = Signal::new(number) else { continue };
            match handlers.get(signal).handler {
                0 => {}
                1 => ignored |= signal.set().0,
                _ => caught |= signal.set().0,
            }
        }
        Signals {
            pending: thread.map_or(SigSet(0), Thread::pending_signals),
            shared_pending: process.pending_signals(),
            blocked: thread.map_or(SigSet(0), Thread::blocked),
            ignored: SigSet(ignored),
            caught: SigSet(caught),
        }
    }
}

/// Nanoseconds as the hundredths of a second that `stat` counts in.
fn ticks(nanoseconds: u64) -> u64 {
    nanoseconds / 10_000_000
}

fn stat(process: &Process, thread: Option<&Thread>, tid: u32, whole: bool, text: &mut Text) -> Result<(), Errno> {
    let usage = match thread {
        Some(thread) if !whole => Usage::of_thread(thread),
        _ => process.usage(),
    };
    let children = process.children_usage();
    let image = process.image();
    let signals = Signals::of(process, thread);
    let space = process.space();
    let stats = space.as_ref().map(|space| space.stats());
    let (vsize, rss) =
        stats.as_ref().map_or((0, 0), |stats| (stats.total_vm * PAGE_SIZE, stats.rss_anon + stats.rss_shmem));
    text.put(format_args!("{tid} ("))?;
    put_name(process, thread, text)?;
    text.put(format_args!(
        ") {} {} {} {} 0 -1 0 {} 0 0 0 ",
        state(process, thread).0,
        process.parent_pid(),
        process.group(),
        process.session(),
        usage.faults,
    ))?;
    text.put(format_args!(
        "{} {} {} {} 20 0 {} 0 {} ",
        ticks(usage.user),
        ticks(usage.system),
        ticks(children.user),
        ticks(children.system),
        process.thread_count(),
        ticks(process.started()),
    ))?;
    let code = image.code;
    text.put(format_args!(
        "{vsize} {rss} {} {} {} {} 0 0 ",
        process.limit(Resource::ResidentSet),
        code.0,
        code.1,
        image.stack,
    ))?;
    // The sets of ordinary signals only, as 31-bit numbers.
    let low = |set: SigSet| set.0 & 0x7fff_ffff;
    text.put(format_args!(
        "{} {} {} {} 0 0 0 17 0 0 0 0 0 0 ",
        low(signals.pending),
        low(signals.blocked),
        low(signals.ignored),
        low(signals.caught),
    ))?;
    text.put(format_args!(
        "0 0 {} {} {} {} {} 0\n",
        stats.as_ref().map_or(0, |stats| stats.brk_start),
        image.args.0,
        image.args.1,
        image.env.0,
        image.env.1,
    ))
}

fn status(process: &Process, thread: Option<&Thread>, tid: u32, text: &mut Text) -> Result<(), Errno> {
    text.push(b"Name:\t")?;
    put_name(process, thread, text)?;
    let umask = process.context().map_or(0, |context| context.umask());
    let (letter, word) = state(process, thread);
    let pid = process.pid();
    text.put(format_args!(
        "\nUmask:\t{umask:04o}\nState:\t{letter} ({word})\nTgid:\t{pid}\nNgid:\t0\nPid:\t{tid}\n\
         PPid:\t{}\nTracerPid:\t0\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nFDSize:\t{}\nGroups:\t \n",
        process.parent_pid(),
        process.files().map_or(0, |files| files.capacity()),
    ))?;
    text.put(format_args!(
        "NStgid:\t{pid}\nNSpid:\t{tid}\nNSpgid:\t{}\nNSsid:\t{}\nKthread:\t0\n",
        process.group(),
        process.session(),
    ))?;
    if let Some(space) = process.space() {
        memory_status(&space, process.image().code, text)?;
    }
    text.put(format_args!("CoreDumping:\t0\nTHP_enabled:\t0\nThreads:\t{}\n", process.thread_count()))?;
    let signals = Signals::of(process, thread);
    text.put(format_args!("SigQ:\t0/{}\n", process.limit(Resource::PendingSignals)))?;
    let sets = [
        ("SigPnd", signals.pending),
        ("ShdPnd", signals.shared_pending),
        ("SigBlk", signals.blocked),
        ("SigIgn", signals.ignored),
        ("SigCgt", signals.caught),
    ];
    for (name, set) in sets {
        text.put(format_args!("{name}:\t{:016x}\n", set.0))?;
    }
    let all = misc::ALL_CAPABILITIES;
    for (name, capabilities) in [("CapInh", 0), ("CapPrm", all), ("CapEff", all), ("CapBnd", all), ("CapAmb", 0)] {
        text.put(format_args!("{name}:\t{capabilities:016x}\n"))?;
    }
    text.put(format_args!("NoNewPrivs:\t{}\nSeccomp:\t0\nSeccomp_filters:\t0\n", u32::from(process.no_new_privs()),))?;
    cpus_allowed(thread.map_or(1, |thread| thread.affinity().0), text)?;
    let usage = match thread {
        Some(thread) => Usage::of_thread(thread),
        None => process.usage(),
    };
    text.put(format_args!(
        "Mems_allowed:\t1\nMems_allowed_list:\t0\n\
         voluntary_ctxt_switches:\t{}\nnonvoluntary_ctxt_switches:\t{}\n",
        usage.voluntary, usage.involuntary,
    ))
}

/// The CPUs that there are of the set `cpus`, as a mask and as a list.
fn cpus_allowed(cpus: u64, text: &mut Text) -> Result<(), Errno> {
    let count = memory().platform().cpu_count().min(64);
    let cpus = cpus & u64::MAX.checked_shr(64 - count as u32).unwrap_or(0);
    text.put(format_args!("Cpus_allowed:\t{cpus:x}\nCpus_allowed_list:\t"))?;
    let is_allowed = |cpu: usize| cpu < count && cpus & 1 << cpu != 0;
    let mut separator = "";
    let mut cpu = 0;
    while cpu < count {
        if !is_allowed(cpu) {
            cpu += 1;
            continue;
        }
        let last = (cpu..count).take_while(|&next| is_allowed(next)).last().unwrap_or(cpu);
        match last {
            _ if last == cpu => text.put(format_args!("{separator}{cpu}"))?,
            _ => text.put(format_args!("{separator}{cpu}-{last}"))?,
        }
        separator = ",";
        cpu = last + 1;
    }
    text.push(b"\n")
}

fn memory_status(space: &Space, code: (usize, usize), text: &mut Text) -> Result<(), Errno> {
    let stats = space.stats();
    // The program's own code; what else is executable counts as libraries.
    let program = code.1.next_multiple_of(PAGE_SIZE).saturating_sub(code.0 & !(PAGE_SIZE - 1));
    let program = (program / PAGE_SIZE).min(stats.exec_vm);
    let lines = [
        ("VmPeak", stats.peak_vm),
        ("VmSize", stats.total_vm),
        ("VmLck", stats.locked_vm),
        ("VmPin", 0),
        ("VmHWM", stats.peak_rss),
        ("VmRSS", stats.rss_anon + stats.rss_shmem),
        ("RssAnon", stats.rss_anon),
        ("RssFile", 0),
        ("RssShmem", stats.rss_shmem),
        ("VmData", stats.data_vm),
        ("VmStk", stats.stack_vm),
        ("VmExe", program),
        ("VmLib", stats.exec_vm - program),
        ("VmPTE", stats.tables),
        ("VmSwap", stats.swapped),
        ("HugetlbPages", 0),
    ];
    for (name, pages) in lines {
        let kib = pages * (PAGE_SIZE / 1024);
        text.put(format_args!("{name}:\t{kib:8} kB\n"))?;
    }
    Ok(())
}

/// The text of `fdinfo/FD`.
///
/// # Errors
/// `ENOENT` if it was closed, `ENOMEM`.
pub fn fd_info(pid: u32, fd: u32) -> Result<Text, Errno> {
    let file = file(pid, fd)?;
    let position = file.position()?;
    Text::build(|text| {
        text.put(format_args!(
            "pos:\t{position}\nflags:\t0{:o}\nmnt_id:\t1\nino:\t{}\n",
            file.flags(),
            file.inode().number,
        ))
    })
}

/// `/proc/PID/mem`: the memory of a process, at offsets that are addresses.
/// Keeps the address space that the process had when it was opened.
pub struct Memory(Arc<Space>);

impl Memory {
    /// The memory of process `pid`.
    ///
    /// # Errors
    /// `ESRCH` if it has none (any more).
    pub fn of(pid: u32) -> Result<Memory, Errno> {
        process(pid)?.space().map(Memory).ok_or(Errno::ESRCH)
    }

    /// How many bytes at `address` one step moves: up to the end of the page.
    fn step(address: usize, left: usize, buffer: &[u8]) -> usize {
        left.min(buffer.len()).min(PAGE_SIZE - address % PAGE_SIZE)
    }
}

impl FileOps for Memory {
    fn read(&self, _: &File, sink: &mut Sink<'_>, offset: u64) -> Result<usize, Errno> {
        let mut buffer = [0; 512];
        let mut done = 0;
        while sink.remaining() > 0 {
            let address = (offset as usize).saturating_add(done);
            let count = Memory::step(address, sink.remaining(), &buffer);
            if self.0.peek(address, &mut buffer[..count]).is_err() {
                return partial(done, Errno::EIO);
            }
            match sink.put(&buffer[..count]) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) => return partial(done, error),
            }
        }
        Ok(done)
    }

    fn write(&self, _: &File, source: &mut Source<'_>, offset: u64) -> Result<usize, Errno> {
        let mut buffer = [0; 512];
        let mut done = 0;
        while source.remaining() > 0 {
            let address = (offset as usize).saturating_add(done);
            let count = Memory::step(address, source.remaining(), &buffer);
            let count = match source.take(&mut buffer[..count]) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) => return partial(done, error),
            };
            if self.0.poke(address, &buffer[..count]).is_err() {
                return partial(done, Errno::EIO);
            }
            done += count;
        }
        Ok(done)
    }

    fn seek(&self, _: &File) -> Seek {
        Seek::To(0)
    }
}
