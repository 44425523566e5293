//! Does the steps of a sequence, in as many processes as it makes, one at a time.
//!
//! All processes go through the same list of steps; a page that they share says which
//! step is next and whose turn it is. So what happens is the same each time, with
//! parents and children taking turns wherever the sequence says so.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use super::report::{self, Totals};
use super::step::{Call, Step};
use super::{Arg, FILE, Sequence, World};
use crate::mem::{self, Fault};
use crate::sys::{self, Errno, PAGE, Result, Status};

/// What the processes of a sequence share. All zeroes is how it begins.
#[derive(Debug, Default)]
pub struct Shared {
    /// The process whose turn it is.
    turn: AtomicU32,
    /// The next step.
    step: AtomicU32,
    /// A bit for each process that lives, apart from the first.
    children: AtomicU32,
    /// A hash of all that was printed.
    hash: AtomicU64,
}

impl Shared {
    /// Shared memory of this process and those that it makes from now on.
    ///
    /// # Errors
    /// Those of mmap(2).
    pub fn new() -> Result<&'static Shared> {
        let shared = (libc::MAP_SHARED | libc::MAP_ANONYMOUS) as usize;
        let addr = sys::mmap(0, PAGE, sys::RW, shared)?;
        // SAFETY: a page of zeroes, which is a valid value, and stays mapped.
        Ok(unsafe { &*(addr as *const Shared) })
    }

    /// Back to the beginning.
    pub fn clear(&self) {
        self.turn.store(0, SeqCst);
        self.step.store(0, SeqCst);
        self.children.store(0, SeqCst);
        self.hash.store(0xcbf2_9ce4_8422_2325, SeqCst);
    }

    /// A hash of what the processes have printed.
    pub fn hash(&self) -> u64 {
        self.hash.load(SeqCst)
    }

    /// Gives the turn to `process`.
    fn pass(&self, process: u32) {
        self.turn.store(process, SeqCst);
        let _ = sys::call(libc::SYS_futex, &[&raw const self.turn as usize, 1, i32::MAX as usize]);
    }

    /// Sleeps a while, or until the turn is no longer `process`'s.
    fn sleep(&self, process: u32) {
        let patience = libc::timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        let word = &raw const self.turn as usize;
        let _ = sys::call(libc::SYS_futex, &[word, 0, process as usize, &raw const patience as usize]);
    }
}

/// The most processes at a time, and in all.
const PROCESSES: (u32, u32) = (3, 32);
/// Seconds after which a process is taken for hung.
const PATIENCE: u32 = 60;
/// `ret`.
const RETURN: u8 = 0xc3;

/// One process.
pub struct Actor<'s> {
    world: World,
    sequence: &'s Sequence,
    shared: &'static Shared,
    /// Open for reading and writing, and for reading only.
    files: [usize; 2],
    totals: Totals,
    /// Its number; 0 is the first.
    id: u32,
    parent: Option<u32>,
    /// Numbers and process ids.
    children: Vec<(u32, i32)>,
    show: Show,
    line: String,
}

/// What is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Show {
    /// Each step and what it came to; else only a hash of it is kept.
    pub steps: bool,
    /// All mappings after each step.
    pub every: bool,
}

/// What comes after a turn.
enum Next {
    /// It is this process's turn.
    Pass(u32),
    /// It is that of a child which has been told already.
    Wait,
    /// This process has ended.
    End,
}

impl<'s> Actor<'s> {
    /// Prepares this process for a sequence: nothing of it may be in use but what the
    /// actor uses.
    ///
    /// # Errors
    /// Whatever the preparations fail with.
    pub fn new(sequence: &'s Sequence, shared: &'static Shared, show: Show) -> Result<Actor<'s>> {
        // Large folios are a matter of speed, but show in what is resident.
        let _ = sys::call(libc::SYS_prctl, &[libc::PR_SET_THP_DISABLE as usize, 1]);
        mem::catch_faults();
        let file = file()?;
        let path = format!("/proc/self/fd/{file}\0");
        let at = libc::AT_FDCWD as usize;
        let read_only = sys::call(libc::SYS_openat, &[at, path.as_ptr() as usize, libc::O_RDONLY as usize])?;
        let world = World::build(sequence.scale)?;
        Ok(Actor {
            world,
            sequence,
            shared,
            files: [file, read_only],
            totals: Totals::now(),
            id: 0,
            parent: None,
            children: Vec::new(),
            show,
            line: String::with_capacity(PAGE),
        })
    }

    /// Does the sequence, and returns with what this process exits.
    pub fn run(&mut self) -> i32 {
        // SAFETY: sets a timer whose default action ends this process.
        unsafe { libc::alarm(PATIENCE) };
        loop {
            self.await_turn();
            match self.play() {
                Next::Pass(process) => self.shared.pass(process),
                Next::Wait => {}
                Next::End => {
                    if let Some(parent) = self.parent {
                        self.shared.pass(parent);
                    }
                    return 0;
                }
            }
        }
    }

    /// Waits for this process's turn. One that has passed it on by ending is reaped.
    fn await_turn(&mut self) {
        loop {
            let turn = self.shared.turn.load(SeqCst);
            let lived = self.shared.children.load(SeqCst);
            let ended = |id: u32| turn == self.id && lived & 1 << id == 0;
            if let Some(i) = self.children.iter().position(|(id, _)| ended(*id)) {
                let (id, pid) = self.children.swap_remove(i);
                match sys::wait(pid) {
                    Ok(Status::Exited(0)) => {}
                    other => self.print(&format!("process {id} ended: {other:?}")),
                }
                continue;
            }
            if turn == self.id {
                return;
            }
            self.shared.sleep(turn);
            self.look_after(turn);
        }
    }

    /// Takes the turn of a child that died with it.
    fn look_after(&mut self, turn: u32) {
        let Some(i) = self.children.iter().position(|(id, _)| *id == turn) else {
            return;
        };
        let mut status = 0i32;
        let pid = self.children[i].1 as usize;
        let nohang = libc::WNOHANG as usize;
        if let Ok(1..) = sys::call(libc::SYS_wait4, &[pid, &raw mut status as usize, nohang, 0]) {
            self.children.swap_remove(i);
            // It may have ended in peace, just now.
            if self.shared.turn.load(SeqCst) == turn {
                self.print(&format!("process {turn} died: {status:#x}"));
                self.shared.children.fetch_and(!(1 << turn), SeqCst);
                self.shared.turn.store(self.id, SeqCst);
            }
        }
    }

    /// Does steps until another process goes on.
    fn play(&mut self) -> Next {
        loop {
            let i = self.shared.step.load(SeqCst) as usize;
            let Some(step) = self.sequence.steps.get(i).copied() else {
                return self.finish();
            };
            self.shared.step.store(i as u32 + 1, SeqCst);
            self.line.clear();
            let _ = if self.show.steps {
                write!(self.line, "{i} [{}] {step}: ", self.id)
            } else {
                write!(self.line, "{i} ")
            };
            let next = self.perform(&step);
            if let Some(Next::Wait) = next {
                return Next::Wait;
            }
            self.line.push('\n');
            self.emit();
            if self.show.every && next.is_none() && !matches!(step.call, Call::Maps | Call::Flags) {
                self.line.push_str("    ");
                report::flags(&self.world, &mut self.line);
                self.line.push('\n');
                self.emit();
            }
            if let Some(next) = next {
                return next;
            }
        }
    }

    /// After the last step: shows all there is, lets children do the same, and ends.
    fn finish(&mut self) -> Next {
        if let Some((child, _)) = self.children.last() {
            return Next::Pass(*child);
        }
        self.line.clear();
        for call in [Call::Maps, Call::Flags, Call::Status] {
            self.perform(&Step::new(call, &[]));
            self.line.push('\n');
        }
        for first in [0, super::ARENA / 2 - 32, super::ARENA - 64] {
            self.sum(Arg::pages(first), Arg::pages(64));
        }
        self.line.push('\n');
        self.emit();
        self.end()
    }

    fn end(&mut self) -> Next {
        self.shared.children.fetch_and(!(1 << self.id), SeqCst);
        Next::End
    }

    /// Prints a line of its own.
    fn print(&mut self, text: &str) {
        self.line.clear();
        self.line.push_str(text);
        self.line.push('\n');
        self.emit();
    }

    /// Prints what is in `line`, or hashes it.
    fn emit(&mut self) {
        if self.show.steps {
            let mut bytes = self.line.as_bytes();
            while !bytes.is_empty() {
                match sys::call(libc::SYS_write, &[1, bytes.as_ptr() as usize, bytes.len()]) {
                    Ok(count @ 1..) => bytes = &bytes[count..],
                    Err(Errno(libc::EINTR)) => {}
                    _ => sys::exit(3),
                }
            }
        } else {
            let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
            let hash = self.line.as_bytes().iter().fold(self.shared.hash(), hash);
            self.shared.hash.store(hash, SeqCst);
        }
        self.line.clear();
    }

    /// Does a step and notes what it came to.
    fn perform(&mut self, step: &Step) -> Option<Next> {
        let unit = self.world.unit();
        let args = step.args();
        let place = |i: usize| self.world.addr(args[i]);
        let value = |i: usize| args[i].bytes(unit);
        let result = match step.call {
            Call::Mmap => {
                let result = sys::mmap(place(0), value(1), value(2), value(3) | libc::MAP_ANONYMOUS as usize);
                return self.located(result);
            }
            Call::MmapFile => {
                let file = self.files[value(5) & 1];
                let result = sys::call(libc::SYS_mmap, &[place(0), value(1), value(2), value(3), file, value(4)]);
                return self.located(result);
            }
            Call::Mremap => {
                let result = sys::mremap(place(0), value(1), value(2), value(3), place(4));
                return self.located(result);
            }
            Call::Munmap => sys::munmap(place(0), value(1)),
            Call::Mprotect => sys::mprotect(place(0), value(1), value(2)),
            Call::Madvise => sys::call(libc::SYS_madvise, &[place(0), value(1), value(2)]),
            Call::Mlock => sys::call(libc::SYS_mlock, &[place(0), value(1)]),
            Call::Mlock2 => sys::call(libc::SYS_mlock2, &[place(0), value(1), value(2)]),
            Call::Munlock => sys::call(libc::SYS_munlock, &[place(0), value(1)]),
            Call::MlockAll => sys::call(libc::SYS_mlockall, &[value(0)]),
            Call::MunlockAll => sys::call(libc::SYS_munlockall, &[]),
            Call::Msync => sys::call(libc::SYS_msync, &[place(0), value(1), value(2)]),
            Call::Mseal => sys::call(libc::SYS_mseal, &[place(0), value(1), 0]),
            Call::Pread => sys::call(libc::SYS_pread64, &[self.files[0], place(0), value(1), value(2)]),
            Call::Pwrite => sys::call(libc::SYS_pwrite64, &[self.files[0], place(0), value(1), value(2)]),
            Call::Brk => {
                let brk = sys::brk(self.world.brk(value(0)));
                return self.located(Ok(brk));
            }
            Call::Mincore => return self.mincore(place(0), value(1)),
            Call::Peek => return self.accessed(mem::read(place(0)).map(usize::from)),
            Call::Poke => return self.accessed(mem::write(place(0), value(1) as u8).map(|()| 0)),
            Call::Jump => return self.jump(place(0)),
            Call::Fill => return self.fill(args[0], args[1], value(2)),
            Call::Sum => return self.sum(args[0], args[1]),
            Call::Limit => self.limit(value(0), Some(value(1))),
            Call::Unlimit => self.limit(value(0), None),
            Call::Fork => return self.fork(),
            Call::Switch => return self.switch(),
            Call::Exit => return self.exit(),
            Call::Maps => {
                report::maps(&self.world, &mut self.line);
                return None;
            }
            Call::Flags => {
                report::flags(&self.world, &mut self.line);
                return None;
            }
            Call::Status => {
                Totals::now().since(&self.totals, &mut self.line);
                return None;
            }
        };
        let _ = match result {
            Ok(number) => write!(self.line, "{number}"),
            Err(error) => write!(self.line, "{error}"),
        };
        None
    }

    /// Notes an address or an error.
    fn located(&mut self, result: Result) -> Option<Next> {
        match result {
            Ok(addr) => self.line.push_str(&self.world.place(addr)),
            Err(error) => {
                let _ = write!(self.line, "{error}");
            }
        }
        None
    }

    /// Notes what an access came to.
    fn accessed(&mut self, result: std::result::Result<usize, Fault>) -> Option<Next> {
        let _ = match result {
            Ok(number) => write!(self.line, "{number}"),
            Err(fault) => {
                let at = self.world.place(fault.addr);
                write!(self.line, "signal {} code {} at {at}", fault.signal, fault.code)
            }
        };
        None
    }

    fn mincore(&mut self, addr: usize, len: usize) -> Option<Next> {
        // Long enough for whatever is asked of the arena; what does not fit is refused.
        let mut bytes = vec![0xffu8; super::ARENA * self.sequence.scale];
        if len.div_ceil(PAGE) > bytes.len() && len < isize::MAX as usize {
            self.line.push_str("skipped");
            return None;
        }
        let result = sys::call(libc::SYS_mincore, &[addr, len, bytes.as_mut_ptr() as usize]);
        if let Err(error) = result {
            let _ = write!(self.line, "{error}");
            return None;
        }
        // Runs of equal bits: `3+ 2- 1+`.
        bytes.truncate(len.div_ceil(PAGE));
        for run in bytes.chunk_by(|left, right| left & 1 == right & 1) {
            let _ = write!(self.line, "{}{} ", run.len(), if run[0] & 1 == 1 { '+' } else { '-' });
        }
        None
    }

    fn jump(&mut self, addr: usize) -> Option<Next> {
        match mem::read(addr) {
            Ok(byte) if byte != RETURN => {
                self.line.push_str("skipped");
                None
            }
            _ => self.accessed(mem::execute(addr).map(|()| 0)),
        }
    }

    /// The first and the last byte of each unit of a range.
    fn edges(&self, place: Arg, len: Arg) -> impl Iterator<Item = usize> + use<> {
        let (start, unit) = (self.world.addr(place), self.world.unit());
        (0..len.bytes(unit) / unit).flat_map(move |i| [start + i * unit, start + (i + 1) * unit - 1])
    }

    fn fill(&mut self, place: Arg, len: Arg, value: usize) -> Option<Next> {
        for (i, addr) in self.edges(place, len).enumerate() {
            // One value in four is a `ret`, so that there is something to jump to.
            let byte = if (value + i).is_multiple_of(4) { RETURN } else { (value + i) as u8 };
            if let Err(fault) = mem::write(addr, byte) {
                let _ = write!(self.line, "{i}, ");
                return self.accessed(Err(fault));
            }
        }
        self.line.push_str("all");
        None
    }

    /// Notes runs of equal bytes and faults: `3*17 2*(signal 11 code 1)`.
    fn sum(&mut self, place: Arg, len: Arg) -> Option<Next> {
        let found: Vec<_> =
            self.edges(place, len).map(|addr| mem::read(addr).map_err(|fault| (fault.signal, fault.code))).collect();
        for run in found.chunk_by(|left, right| left == right) {
            let count = run.len();
            let _ = match run[0] {
                Ok(byte) => write!(self.line, "{count}*{byte} "),
                Err((signal, code)) => write!(self.line, "{count}*(signal {signal} code {code}) "),
            };
        }
        None
    }

    /// Allows `more` bytes more than there are of `resource`, or any number; of the
    /// stack, `more` bytes.
    fn limit(&self, resource: usize, more: Option<usize>) -> Result {
        let now = match resource {
            9 => Totals::now().get("VmSize") * PAGE,
            2 => Totals::now().get("VmData") * PAGE,
            _ => 0,
        };
        let soft = more.map_or(libc::RLIM_INFINITY, |more| (now + more) as u64);
        let limit = libc::rlimit { rlim_cur: soft, rlim_max: libc::RLIM_INFINITY };
        sys::call(libc::SYS_prlimit64, &[0, resource, &raw const limit as usize, 0])
    }

    fn fork(&mut self) -> Option<Next> {
        let living = self.shared.children.load(SeqCst);
        let id = (1..PROCESSES.1).find(|id| living & 1 << id == 0).unwrap_or(PROCESSES.1);
        if living.count_ones() + 1 >= PROCESSES.0 {
            self.line.push_str("skipped");
            return None;
        }
        self.shared.children.fetch_or(1 << id, SeqCst);
        self.shared.turn.store(id, SeqCst);
        // SAFETY: a process with one thread.
        match unsafe { libc::fork() } {
            -1 => {
                self.shared.children.fetch_and(!(1 << id), SeqCst);
                self.shared.turn.store(self.id, SeqCst);
                self.line.push_str("failed");
                None
            }
            0 => {
                // SAFETY: as in `run`.
                unsafe { libc::alarm(PATIENCE) };
                self.parent = Some(self.id);
                self.id = id;
                self.children.clear();
                let _ = write!(self.line, "process {id}");
                None
            }
            pid => {
                // The child goes on, and says so.
                self.children.push((id, pid));
                Some(Next::Wait)
            }
        }
    }

    fn switch(&mut self) -> Option<Next> {
        // The first process is always there.
        let living = self.shared.children.load(SeqCst) | 1;
        let after = (self.id + 1..PROCESSES.1).chain(0..=self.id);
        let next = after.into_iter().find(|id| living & 1 << id != 0).unwrap_or(self.id);
        let _ = write!(self.line, "process {next}");
        if next == self.id { None } else { Some(Next::Pass(next)) }
    }

    fn exit(&mut self) -> Option<Next> {
        if self.parent.is_none() || !self.children.is_empty() {
            self.line.push_str("skipped");
            return None;
        }
        self.line.push_str("gone");
        Some(self.end())
    }
}

/// A file of [`FILE`] pages with something in each.
fn file() -> Result {
    let file = sys::call(libc::SYS_memfd_create, &[c"file".as_ptr() as usize, 0])?;
    let mut page = [0u8; PAGE];
    for i in 0..FILE {
        page.fill(i as u8 + 1);
        sys::call(libc::SYS_pwrite64, &[file, page.as_ptr() as usize, PAGE, i * PAGE])?;
    }
    Ok(file)
}
