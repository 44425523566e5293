//! Random arguments for every system call, until time is up.
//!
//! usage: `fuzz [--seconds N] [--seed N] [--round N] [--progress] [--verbose] [--anywhere]`
//!
//! Each round is a child process that makes some hundred calls, chosen and given
//! arguments by a generator that depends on the seed and the round alone; `--round`
//! repeats just one, `--progress` names each, and `--verbose` shows their calls. What a round does to itself
//! does not matter; that the kernel lives on, ends every round that is killed, and
//! does not lose memory, does. Exits with 1 if it does not.
//!
//! This would be no kindness to a machine that is used for anything else, so it
//! runs as the first process only, unless `--anywhere` says that it is meant.

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tests::arena::Arena;
use tests::rng::Rng;
use tests::sys::{self, *};

/// Calls of one round.
const CALLS: usize = 300;
/// How long a round may take before it is killed.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a killed round may take to be gone.
const GRACE: Duration = Duration::from_secs(20);
/// Where rounds may make files.
const DIRECTORY: &str = "/tmp/fuzz";
/// Free memory that may be missing at the end, in KiB: caches that grew to their
/// largest size, and stay.
const LEAK_LIMIT: usize = 64 << 10;
/// The highest system-call number tried, and then some.
const LAST_CALL: usize = 470;

struct Options {
    seconds: u64,
    seed: u64,
    round: Option<u64>,
    progress: bool,
    verbose: bool,
    anywhere: bool,
}

fn options() -> Option<Options> {
    let mut options = Options { seconds: 60, seed: 1, round: None, progress: false, verbose: false, anywhere: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seconds" => options.seconds = words.next()?.parse().ok()?,
            "--seed" => options.seed = words.next()?.parse().ok()?,
            "--round" => options.round = Some(words.next()?.parse().ok()?),
            "--progress" => options.progress = true,
            "--verbose" => options.verbose = true,
            "--anywhere" => options.anywhere = true,
            _ => return None,
        }
    }
    Some(options)
}

/// Calls that would end the experiment rather than belong to it.
fn is_excluded(number: usize) -> bool {
    // reboot, and what only waits for signals: pause, rt_sigsuspend, rt_sigtimedwait.
    const EXCLUDED: &[libc::c_long] =
        &[libc::SYS_reboot, libc::SYS_pause, libc::SYS_rt_sigsuspend, libc::SYS_rt_sigtimedwait];
    EXCLUDED.contains(&(number as libc::c_long))
}

/// Which calls the kernel has: those that do not answer ENOSYS to arguments that no
/// call can do anything with.
fn implemented() -> Vec<usize> {
    // These take no argument that could be wrong, do not return, or would wait.
    let always = [
        libc::SYS_fork,
        libc::SYS_vfork,
        libc::SYS_clone,
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_sched_yield,
        libc::SYS_futex,
    ]
    .map(|number| number as usize);
    (0..LAST_CALL)
        .filter(|&number| !is_excluded(number))
        .filter(|number| {
            if always.contains(number) {
                return true;
            }
            // In a child, since some succeed even so.
            let outcome = sys::in_child(|| {
                // SAFETY: ends this child, should the call wait for something.
                unsafe { libc::alarm(1) };
                let absent = sys::call(*number as libc::c_long, &[usize::MAX; 6]) == Err(Errno(libc::ENOSYS));
                i32::from(absent) * 99
            });
            outcome != Ok(Status::Exited(99))
        })
        .collect()
}

/// One round's state: what its arguments may refer to.
struct Round {
    random: Rng,
    arena: Arena,
    /// A page of random words, for pointers to structures and buffers.
    scratch: usize,
    /// Path names, as C strings.
    paths: Vec<std::ffi::CString>,
}

impl Round {
    fn new(seed: u64) -> sys::Result<Round> {
        let mut random = Rng::new(seed);
        let arena = Arena::new(4096)?;
        arena.map(0, 64, RW)?;
        let scratch = sys::mmap(0, 4 * PAGE, RW, ANON)?;
        for word in 0..2 * PAGE / 8 {
            let value = match random.below(3) {
                0 => random.number(),
                1 => random.below(64) as u64,
                _ => 0,
            };
            // SAFETY: the pages have just been mapped, and nothing else uses them.
            unsafe { ((scratch + 8 * word) as *mut u64).write(value) };
        }
        let names = ["", "/", ".", "..", "a", "b", "a/b", "d", "d/a", "/tmp", "/dev/null", "/dev/zero", "/proc"];
        let more = ["/proc/self/maps", "/proc/self/status", "/proc/self/exe", "/proc/self", "/proc/1", "//x//"];
        let long = "l".repeat(255);
        let paths = names.iter().chain(&more).copied().chain([long.as_str()]);
        let paths = paths.map(|name| std::ffi::CString::new(name).expect("no zero bytes")).collect();
        Ok(Round { random, arena, scratch, paths })
    }

    fn address(&mut self) -> usize {
        let page = self.random.below(200);
        match self.random.below(16) {
            0..=8 => self.arena.at(page),
            9 => self.arena.at(self.random.below(4096)),
            10 => self.arena.at(page) + self.random.below(PAGE),
            11 => self.random.pick(&[0, 1, PAGE, TASK_SIZE - PAGE, TASK_SIZE, 1 << 47, usize::MAX, 1 << 63]),
            12 => 0xffff_8000_0000_0000 + self.random.below(1 << 40),
            13 => self.random.number() as usize,
            14 => self.scratch + self.random.below(4 * PAGE),
            _ => 0,
        }
    }

    fn length(&mut self) -> usize {
        match self.random.below(8) {
            0..=4 => self.random.below(64) * PAGE,
            5 => self.random.below(3 * PAGE),
            6 => self.random.pick(&[0, 1, PAGE - 1, 1 << 21, 1 << 30, 1 << 47, usize::MAX, usize::MAX - PAGE]),
            _ => self.random.number() as usize >> self.random.below(64),
        }
    }

    fn flags(&mut self) -> usize {
        match self.random.below(4) {
            0 => self.random.below(8),
            1 => 1 << self.random.below(32),
            2 => (self.random.number() & self.random.number() & self.random.number()) as u32 as usize,
            _ => 0,
        }
    }

    /// Anything at all.
    fn argument(&mut self) -> usize {
        match self.random.below(12) {
            0 | 1 => self.random.below(16),
            2 => usize::MAX - self.random.below(4),
            3 => self.address(),
            4 => self.length(),
            5 => self.flags(),
            6 | 7 => self.scratch + 8 * self.random.below(64),
            8 => {
                let index = self.random.below(self.paths.len());
                self.paths[index].as_ptr() as usize
            }
            9 => std::process::id() as usize,
            10 => libc::AT_FDCWD as usize,
            _ => self.random.number() as usize >> self.random.below(64),
        }
    }

    /// Arguments of the kind that the call takes, where it is one about memory.
    fn sensible(&mut self, number: libc::c_long) -> Option<[usize; 6]> {
        let (addr, len) = (self.address(), self.length());
        let anonymous = ANON | self.random.pick(&[0, 0, FIXED, NOREPLACE, GROWSDOWN, POPULATE, NORESERVE, STACK, LOW]);
        Some(match number {
            libc::SYS_mmap => {
                let flags = if self.random.below(4) == 0 { self.flags() } else { anonymous };
                [addr, len, self.random.below(8), flags, self.random.below(12).wrapping_sub(2), 0]
            }
            libc::SYS_munmap => [addr, len, 0, 0, 0, 0],
            libc::SYS_mprotect => [addr, len, self.random.below(8), 0, 0, 0],
            libc::SYS_mremap => [addr, len, self.length(), self.random.below(32), self.address(), 0],
            libc::SYS_madvise => {
                let advice = self.random.pick(&[0, 1, 2, 3, 4, 4, 4, 8, 9, 10, 11, 14, 15, 18, 19, 20, 21, 22, 23]);
                [addr, len, advice, 0, 0, 0]
            }
            libc::SYS_brk => {
                [sys::brk(0).wrapping_add(self.random.below(1 << 20)).wrapping_sub(1 << 18), 0, 0, 0, 0, 0]
            }
            libc::SYS_mincore | libc::SYS_mlock | libc::SYS_munlock | libc::SYS_msync => {
                [addr, len, self.scratch, 0, 0, 0]
            }
            _ => return None,
        })
    }
}

/// Calls that make another process or thread, which must not go on with the round.
const SPAWNING: &[libc::c_long] = &[libc::SYS_fork, libc::SYS_vfork, libc::SYS_clone, libc::SYS_clone3];

/// What the child of one round does.
fn play(seed: u64, calls: &[usize], verbose: bool) -> i32 {
    extern "C" fn nothing(_: i32) {}
    // Whatever goes wrong in the preparations, the round is just a shorter one.
    let _ = sys::call(libc::SYS_setsid, &[]);
    let limit = libc::rlimit { rlim_cur: 256 << 20, rlim_max: 256 << 20 };
    let files = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
    let tick = libc::timeval { tv_sec: 0, tv_usec: 50_000 };
    let timer = libc::itimerval { it_interval: tick, it_value: tick };
    // SAFETY: limits and a timer of this child, given by valid pointers; the handler does nothing.
    unsafe {
        libc::setrlimit(libc::RLIMIT_AS, &raw const limit);
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const files);
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut());
        libc::syscall(libc::SYS_setitimer, libc::ITIMER_REAL, &raw const timer, 0);
    }
    let _ = fs::create_dir(DIRECTORY);
    let _ = std::env::set_current_dir(DIRECTORY);
    if !verbose && let Ok(null) = sys::call(libc::SYS_openat, &[0, c"/dev/null".as_ptr() as usize, 2]) {
        for descriptor in 0..3 {
            let _ = sys::call(libc::SYS_dup2, &[null, descriptor]);
        }
    }
    let Ok(mut round) = Round::new(seed) else { return 0 };
    let memory = [
        libc::SYS_mmap,
        libc::SYS_munmap,
        libc::SYS_mprotect,
        libc::SYS_mremap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_brk,
        libc::SYS_mincore,
    ];
    for _ in 0..CALLS {
        let number = if round.random.below(2) == 0 {
            round.random.pick(&memory)
        } else {
            round.random.pick(calls) as libc::c_long
        };
        let mostly = round.random.below(8) > 0;
        let mut arguments = match round.sensible(number) {
            Some(arguments) if mostly => arguments,
            _ => std::array::from_fn(|_| round.argument()),
        };
        spare_the_judge(number, &mut arguments);
        if verbose {
            eprintln!("call {number} {arguments:x?}");
        }
        let result = sys::call(number, &arguments);
        if verbose {
            eprintln!("  {result:x?}");
        }
        if SPAWNING.contains(&number) && result == Ok(0) {
            let _ = sys::call(libc::SYS_exit_group, &[0]);
        }
    }
    0
}

/// Calls whose first argument names a process or thread, and those whose second does.
const FIRST_NAMES_PROCESS: &[libc::c_long] = &[
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_prlimit64,
    libc::SYS_pidfd_open,
    libc::SYS_process_vm_writev,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setattr,
    libc::SYS_setpgid,
];
const SECOND_NAMES_PROCESS: &[libc::c_long] =
    &[libc::SYS_tgkill, libc::SYS_rt_tgsigqueueinfo, libc::SYS_setpriority, libc::SYS_ptrace];

/// Keeps a round from doing something to the process that judges it.
fn spare_the_judge(number: libc::c_long, arguments: &mut [usize; 6]) {
    let own = std::process::id() as usize;
    for (calls, index) in [(FIRST_NAMES_PROCESS, 0), (SECOND_NAMES_PROCESS, 1)] {
        // 1 is that process, -1 everyone.
        if calls.contains(&number) && matches!(arguments[index] as i32, 1 | -1) {
            arguments[index] = own;
        }
    }
}

/// How a round ended.
enum End {
    Itself,
    Died,
    Stopped,
    Stuck,
}

fn run_round(seed: u64, calls: &[usize], verbose: bool) -> sys::Result<End> {
    let pid = sys::spawn(|| play(seed, calls, verbose))?;
    let start = Instant::now();
    let mut killed = false;
    loop {
        let mut status = 0i32;
        let nohang = libc::WNOHANG as usize;
        match sys::call(libc::SYS_wait4, &[pid as usize, &raw mut status as usize, nohang, 0]) {
            Ok(0) | Err(Errno(libc::EINTR)) => {}
            Ok(_) if killed => return Ok(End::Stopped),
            Ok(_) if libc::WIFSIGNALED(status) => return Ok(End::Died),
            Ok(_) => return Ok(End::Itself),
            Err(error) => return Err(error),
        }
        if !killed && start.elapsed() > PATIENCE {
            sys::call(libc::SYS_kill, &[pid as usize, libc::SIGKILL as usize])?;
            killed = true;
        }
        if start.elapsed() > PATIENCE + GRACE {
            return Ok(End::Stuck);
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// Waits for what the rounds have left to this process as its children.
fn reap() {
    while let Ok(1..) = sys::call(libc::SYS_wait4, &[usize::MAX, 0, libc::WNOHANG as usize, 0]) {}
}

/// Free memory in KiB.
fn free_memory() -> usize {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("MemFree:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        eprintln!("usage: fuzz [--seconds N] [--seed N] [--round N] [--progress] [--verbose] [--anywhere]");
        return ExitCode::from(2);
    };
    if std::process::id() != 1 && !options.anywhere {
        eprintln!("fuzz: not the first process of a machine of its own; see --anywhere");
        return ExitCode::from(2);
    }
    let calls = implemented();
    println!("fuzz: seed {}, {} system calls, {} s", options.seed, calls.len(), options.seconds);
    let start = Instant::now();
    let (mut round, mut ends) = (options.round.unwrap_or(0), [0usize; 3]);
    let mut free_before = free_memory();
    while start.elapsed().as_secs() < options.seconds {
        let seed = options.seed.wrapping_mul(1_000_003).wrapping_add(round);
        if options.progress {
            println!("round {round}, {} KiB free", free_memory());
        }
        match run_round(seed, &calls, options.verbose) {
            Ok(End::Itself) => ends[0] += 1,
            Ok(End::Died) => ends[1] += 1,
            Ok(End::Stopped) => ends[2] += 1,
            Ok(End::Stuck) => {
                println!("fuzz: FAILED: round {round} cannot be killed");
                return ExitCode::FAILURE;
            }
            Err(error) => {
                println!("fuzz: FAILED: round {round} cannot be started or awaited: {error}");
                return ExitCode::FAILURE;
            }
        }
        reap();
        if options.round.is_some() {
            break;
        }
        round += 1;
        if round == 50 {
            // Caches are warm now.
            free_before = free_memory();
        }
    }
    let _ = fs::remove_dir_all(DIRECTORY);
    std::thread::sleep(Duration::from_millis(100));
    reap();
    let lost = free_before.saturating_sub(free_memory());
    let [finished, died, stopped] = ends;
    println!("fuzz: {round} rounds: {finished} finished, {died} died, {stopped} were stopped; {lost} KiB fewer free");
    if lost > LEAK_LIMIT {
        println!("fuzz: FAILED: memory is lost");
        return ExitCode::FAILURE;
    }
    println!("fuzz: ok");
    ExitCode::SUCCESS
}
