//! `runner test`: what is run where, and what has to come of it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::Places;
use crate::differ;
use crate::elf;
use crate::linux::{self, Linux};
use crate::process::{self, Output};
use crate::report::{Group, Report, Verdict};
use crate::surroundings;
use crate::tap;
use crate::transcript;

#[derive(Args, Debug)]
pub struct TestArgs {
    /// Run only tests whose name contains one of these
    filter: Vec<String>,
    /// Only start machines with this firmware, bios or uefi
    #[arg(long)]
    firmware: Option<String>,
    /// Give every machine so many CPUs, rather than what each test asks for
    #[arg(long)]
    cpus: Option<u32>,
    /// Seconds that the fuzzer runs in the guest
    #[arg(long, default_value_t = 60)]
    fuzz: u64,
    /// The fuzzer's seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds that memory is tortured on two CPUs, and on four
    #[arg(long, default_value_t = 20)]
    torture: u64,
    /// Random sequences of memory operations that are compared with Linux
    #[arg(long, default_value_t = 20)]
    sequences: u64,
    /// The first one's seed; by default one that was never used before
    #[arg(long)]
    first: Option<u64>,
    /// Machines that run at once; the default is one for each of this machine's CPUs
    #[arg(long)]
    jobs: Option<usize>,
    /// List the tests and run none
    #[arg(long)]
    list: bool,
}

/// A machine to run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    firmware: &'static str,
    cpus: u32,
}

pub const BIOS: Machine = Machine { firmware: "bios", cpus: 1 };
const MATRIX: [Machine; 4] = [
    BIOS,
    Machine { firmware: "bios", cpus: 2 },
    Machine { firmware: "uefi", cpus: 1 },
    Machine { firmware: "uefi", cpus: 2 },
];

const TWO_CPUS: Machine = Machine { firmware: "bios", cpus: 2 };
const FOUR_CPUS: Machine = Machine { firmware: "bios", cpus: 4 };

/// A program with all that it is given.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    /// argv[1..].
    pub args: Vec<OsString>,
    env: Vec<String>,
    /// Files of the guest, and where they are here.
    pub files: Vec<(String, PathBuf)>,
    stdin: Option<PathBuf>,
    /// Options of the kernel.
    options: Vec<&'static str>,
    pub seconds: u64,
    /// Memory of the machine, as QEMU takes it.
    pub memory: &'static str,
    /// What is right is what the newest Linux does, in QEMU: this machine's own may be
    /// configured without.
    newest: bool,
}

impl Program {
    pub fn new(path: PathBuf, args: &[&str]) -> Program {
        let args = args.iter().map(OsString::from).collect();
        Program {
            path,
            args,
            env: Vec::new(),
            files: Vec::new(),
            stdin: None,
            options: vec!["verify", "watchdog=60"],
            seconds: 300,
            memory: "1G",
            newest: false,
        }
    }

    fn env(mut self, variables: &[&str]) -> Program {
        self.env = variables.iter().map(|variable| (*variable).to_owned()).collect();
        self
    }

    /// Runs it on the Linux that says what is right.
    fn on_oracle(&self, places: &Places) -> Result<Output> {
        if self.newest { self.on_newest_linux(places) } else { self.on_linux() }
    }

    /// Runs it in QEMU on the Linux that the newest selftests are of.
    fn on_newest_linux(&self, places: &Places) -> Result<Output> {
        let version = fs::read_link(places.build.join("debian/selftests/newest")).context("no selftests")?;
        let vmlinuz = linux::fetch(&places.script("fetch-linux.sh"), &version.to_string_lossy())?;
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let words = [format!("/{name}")];
        let args = self.args.iter().map(|arg| arg.to_string_lossy().into_owned());
        Linux {
            vmlinuz: &vmlinuz,
            init: &places.guest("init"),
            program: &self.path,
            args: &words.into_iter().chain(args).collect::<Vec<_>>(),
            memory: self.memory,
            cpu: linux::CPU,
            cpus: 1,
            icount: false,
            timeout: Duration::from_secs(self.seconds),
        }
        .run(&places.build.join("linux"))
    }

    /// Runs it on the Linux that this program runs on.
    pub fn on_linux(&self) -> Result<Output> {
        let path = fs::canonicalize(&self.path).with_context(|| format!("no {}", self.path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut command = Command::new(&path);
        command.arg0(format!("/{name}")).args(&self.args).env_clear().current_dir("/");
        command.envs(self.env.iter().filter_map(|variable| variable.split_once('=')));
        command.stdin(match &self.stdin {
            Some(file) => Stdio::from(fs::File::open(file)?),
            None => Stdio::null(),
        });
        surroundings::usual(&mut command);
        Ok(process::run(&mut command, Duration::from_secs(self.seconds))?)
    }

    /// Runs it on this kernel.
    pub fn on_this_kernel(&self, machine: Machine, places: &Places) -> Result<Output> {
        let mut command = Command::new(&places.boot);
        command.arg("run").arg("--images").arg(&places.images);
        command.args(["--firmware", machine.firmware, "--smp", &machine.cpus.to_string(), "--mem", self.memory]);
        command.args(["--timeout", &self.seconds.to_string(), "--stdin"]);
        match &self.stdin {
            Some(file) => command.arg(file),
            None => command.arg("null"),
        };
        for option in &self.options {
            command.args(["--option", option]);
        }
        for variable in &self.env {
            command.arg("--env").arg(variable);
        }
        for (guest, host) in &self.files {
            let mut mapping = OsString::from(guest);
            mapping.push("=");
            mapping.push(host);
            command.arg("--file").arg(mapping);
        }
        command.arg("--").arg(&self.path).args(&self.args);
        let limit = Duration::from_secs(self.seconds + 60);
        let mut output =
            process::run(&mut command, limit).with_context(|| format!("cannot run {}", places.boot.display()))?;
        output.stdout = String::from_utf8_lossy(&output.stdout).replace("\r\n", "\n").into_bytes();
        Ok(output)
    }
}

/// What has to come of a run.
#[derive(Clone, Debug)]
enum Expect {
    /// The cases of the program `cases`, each the same as on Linux.
    Cases,
    /// Status and output of Linux.
    Same,
    /// This status, and output that has these lines.
    Shows(i32, Vec<&'static str>),
    /// The kernel says this, and ends the machine.
    Dies(&'static str),
    /// Status 0 here and on Linux, whatever is printed.
    Succeeds,
    /// The checks of a selftest of Linux's, each as on Linux; these may fail.
    Checks(Vec<&'static str>),
    /// A line `NAME: RESULT` for each of many things, as on Linux; but this for these names.
    Lines(Vec<(&'static str, &'static str)>),
}

#[derive(Clone, Debug)]
struct Test {
    name: String,
    program: Program,
    machine: Machine,
    expect: Expect,
}

/// Results of programs on Linux: each runs there once, but see [`oracle`].
type Oracle = Mutex<HashMap<String, Arc<OnceLock<std::result::Result<Output, String>>>>>;

/// What the test's program does on Linux. Some selftests choose addresses by the time of day, and fail there too if
/// those are bad ones: they run once more, as what they check cannot be compared otherwise.
fn oracle(cache: &Oracle, test: &Test, places: &Places) -> std::result::Result<Output, String> {
    let key = format!("{:?}", test.program);
    let slot = Arc::clone(cache.lock().unwrap_or_else(|e| e.into_inner()).entry(key).or_default());
    let run = || test.program.on_oracle(places).map_err(|error| format!("on Linux: {error:#}"));
    let result = slot.get_or_init(|| match run() {
        Ok(first) if first.status != 0 && matches!(test.expect, Expect::Checks(_)) => run(),
        first => first,
    });
    result.clone()
}

/// Runs the tests; fails if any of them does.
pub fn run(args: &TestArgs, places: &Places) -> Result<ExitCode> {
    let scratch = places.build.join("tests");
    fs::create_dir_all(&scratch)?;
    let mut tests = collect(args, places, &fs::canonicalize(scratch)?)?;
    tests.retain(|test| {
        (args.filter.is_empty() || args.filter.iter().any(|word| test.name.contains(word)))
            && args.firmware.as_ref().is_none_or(|firmware| firmware == test.machine.firmware)
    });
    if args.list {
        tests.iter().for_each(|test| println!("{}", test.name));
        return Ok(ExitCode::SUCCESS);
    }
    if tests.is_empty() {
        bail!("no test has such a name");
    }
    let jobs = args.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, Into::into));
    let (oracles, next) = (Oracle::default(), AtomicUsize::new(0));
    let (sender, results) = mpsc::channel();
    let mut report = Report::default();
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let (sender, tests, oracles, next) = (sender.clone(), &tests, &oracles, &next);
            scope.spawn(move || {
                while let Some(test) = tests.get(next.fetch_add(1, Relaxed)) {
                    let start = Instant::now();
                    let results = check(test, places, oracles);
                    let group = Group { title: test.name.clone(), results, took: start.elapsed() };
                    if sender.send(group).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        results.iter().for_each(|group| report.add(group));
    });
    Ok(if report.finish() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Selftests of the newest Linux, and those of their checks that may fail here: one
/// needs `userfaultfd`, without which it fails on Linux as well.
const NEWEST_SELFTESTS: [(&str, &[&str]); 7] = [
    ("mremap_test", &["mremap move multiple invalid vmas"]),
    ("mremap_dontunmap", &[]),
    ("map_fixed_noreplace", &[]),
    ("map_populate", &[]),
    ("mlock2-tests", &[]),
    ("mlock-random-test", &[]),
    ("madv_populate", &[]),
];

/// Every test there is.
fn collect(args: &TestArgs, places: &Places, scratch: &Path) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    let mut add = |name: &str, program: &Program, machine: Machine, expect: Expect| {
        let machine = Machine { cpus: args.cpus.unwrap_or(machine.cpus), ..machine };
        let name = format!("{name} [{}, {} CPU]", machine.firmware, machine.cpus);
        // With `--cpus`, machines that differ in their CPUs only are the same.
        if !tests.iter().any(|test: &Test| test.name == name) {
            tests.push(Test { name, program: program.clone(), machine, expect });
        }
    };

    // The long ones first, so that they do not come alone at the end.
    let words = [args.fuzz, args.seed].map(|number| number.to_string());
    let mut fuzz = Program::new(places.guest("fuzz"), &["--seconds", &words[0], "--seed", &words[1]]);
    fuzz.seconds = args.fuzz * 10 + 120;
    add("fuzz", &fuzz, BIOS, Expect::Shows(0, vec!["fuzz: ok"]));
    let first = args.first.unwrap_or_else(differ::fresh_seed);
    let words = [first, args.sequences, differ::STEPS as u64].map(|number| number.to_string());
    let random = differ::program(places, &["seeds", &words[0], &words[1], &words[2]]);
    add(&format!("replay of random steps, seeds from {first}"), &random, BIOS, Expect::Lines(Vec::new()));
    let kept = differ::program(places, &["kept"]);
    add("replay of what has differed", &kept, BIOS, Expect::Lines(Vec::new()));
    let words = [args.torture, args.seed].map(|number| number.to_string());
    let mut torture = Program::new(places.guest("torture"), &["--seconds", &words[0], "--seed", &words[1]]);
    torture.seconds = args.torture * 2 + 120;
    for machine in [TWO_CPUS, FOUR_CPUS] {
        add("torture", &torture, machine, Expect::Succeeds);
        let with_swap = Program { options: vec!["swap", "watchdog=60"], ..torture.clone() };
        add("torture with swap", &with_swap, machine, Expect::Succeeds);
    }
    let mut cases = Program::new(places.guest("cases"), &["all"]);
    cases.seconds = 900;
    for machine in MATRIX {
        add("cases", &cases, machine, Expect::Cases);
    }
    let mut fixed = Program::new(places.build.join("exec/cases"), &["all"]);
    fixed.seconds = 900;
    add("cases at a fixed address", &fixed, BIOS, Expect::Cases);

    let tour = Program::new(places.guest("tour"), &[]);
    let threads = Program::new(places.guest("threads"), &["one", "two words", ""]).env(&["NAME=value"]);
    for machine in MATRIX {
        add("tour", &tour, machine, Expect::Succeeds);
        add("threads in Rust", &threads, machine, Expect::Same);
    }
    add("threads in Rust", &threads, FOUR_CPUS, Expect::Same);
    let relocation = Program::new(places.guest("relocation"), &[]);
    for machine in MATRIX.into_iter().chain([FOUR_CPUS]) {
        let shown = vec!["[1 2 3 4 5 a b c d e 6 7 8 9 0]", "Everything is as it should be."];
        add("relocation", &relocation, machine, Expect::Shows(0, shown));
    }
    let without = Program::new(places.guest("relocation"), &["without"]);
    add("relocation without the flag", &without, BIOS, Expect::Same);
    let fixed_threads = Program { path: places.build.join("exec/threads"), ..threads.clone() };
    add("threads in Rust at a fixed address", &fixed_threads, BIOS, Expect::Same);

    let input = scratch.join("input");
    fs::write(&input, (0..500).map(|i| format!("line {i} of the input\n")).collect::<String>())?;
    for libc in ["glibc", "musl"] {
        let path = places.build.join("c").join(libc).join("libc");
        let program = Program::new(path, &["a", "b c"]).env(&["HOME=/", "LANG=C"]);
        let program = Program { stdin: Some(input.clone()), ..program };
        for machine in MATRIX {
            add(&format!("C with {libc}"), &program, machine, Expect::Same);
        }
        for name in ["files", "channels", "procfs", "processes", "signals", "threads", "timers", "futexes"] {
            // That one takes threads from the library's hands, which only glibc endures.
            if name == "futexes" && libc == "musl" {
                continue;
            }
            let program = Program::new(places.build.join("c").join(libc).join(name), &[]);
            add(&format!("{name} with {libc}"), &program, BIOS, Expect::Same);
            if ["threads", "futexes", "processes"].contains(&name) {
                add(&format!("{name} with {libc}"), &program, FOUR_CPUS, Expect::Same);
            }
        }
        let several = Program::new(places.build.join("c").join(libc).join("smp"), &[]);
        for machine in [TWO_CPUS, FOUR_CPUS] {
            let shown = vec!["at the same time: ok", "stale translations: ok", "interrupted calls: ok"];
            add(&format!("what takes several CPUs with {libc}"), &several, machine, Expect::Shows(0, shown));
        }
    }

    // More than there is memory for.
    let mut swap = Program::new(places.build.join("c/glibc/swap"), &["4"]);
    (swap.memory, swap.options) = ("96M", vec!["swap", "watchdog=60"]);
    for machine in [BIOS, TWO_CPUS, FOUR_CPUS] {
        let shown = vec!["ok read again", "ok the child's is its own", "ok threads find what they wrote"];
        add("swap", &swap, machine, Expect::Shows(0, shown));
    }

    for libc in ["glibc", "musl"] {
        let path = places.build.join("c").join(libc).join("soft_dirty");
        let soft_dirty = Program { newest: true, ..Program::new(path, &[]) };
        for machine in [BIOS, TWO_CPUS] {
            add(&format!("soft-dirty pages with {libc}"), &soft_dirty, machine, Expect::Same);
        }
        let path = places.build.join("c").join(libc).join("lending");
        let lending = Program { newest: true, ..Program::new(path, &[]) };
        add(&format!("memory lent to pipes with {libc}"), &lending, BIOS, Expect::Same);
    }

    let mut pins = Program::new(places.build.join("c/glibc/pins"), &[]);
    pins.options = vec!["swap", "verify"];
    for machine in [BIOS, TWO_CPUS] {
        let shown = vec!["ok is not shared with one", "ok the other stays where it is", "ok or their pipes are gone"];
        add("pinned pages", &pins, machine, Expect::Shows(0, shown));
    }

    for libc in ["glibc", "musl"] {
        let path = places.build.join("c").join(libc).join("folios");
        let folios = Program { newest: true, ..Program::new(path, &[]) };
        for machine in [BIOS, FOUR_CPUS] {
            add(&format!("large folios with {libc}"), &folios, machine, Expect::Same);
        }
    }

    let huge = Program::new(places.build.join("c/glibc/huge"), &[]);
    for machine in MATRIX.into_iter().chain([FOUR_CPUS]) {
        add("huge pages", &huge, machine, Expect::Shows(0, vec!["all is well"]));
    }

    // Pages that are moved to other frames meanwhile.
    let mut compact = Program::new(places.build.join("c/glibc/compact"), &["100"]);
    (compact.memory, compact.options) = ("96M", vec!["watchdog=60"]);
    for machine in [BIOS, TWO_CPUS, FOUR_CPUS] {
        let shown = vec!["ok there are more large blocks", "ok what was written was read by all", "ok no page is lost"];
        add("compaction", &compact, machine, Expect::Shows(0, shown));
    }

    let selftest = |version: &str, name: &str| {
        let mut program = Program::new(places.build.join("debian/selftests").join(version).join("bin").join(name), &[]);
        program.seconds = 600;
        program
    };
    // Of Linux's selftest one check is skipped: it needs `userfaultfd`.
    let ksm = Program::new(places.build.join("c/glibc/ksm"), &[]);
    let selftest_of_ksm = selftest("newest", "ksm_functional_tests");
    for machine in [BIOS, TWO_CPUS, FOUR_CPUS] {
        let shown = vec!["ok equal pages are one", "ok a write makes a copy", "ok all is given back at once"];
        add("equal pages", &ksm, machine, Expect::Shows(0, shown));
        let shown = vec!["# Totals: pass:9 fail:0 xfail:0 xpass:0 skip:1 error:0"];
        add("selftest ksm_functional_tests of the newest Linux", &selftest_of_ksm, machine, Expect::Shows(0, shown));
    }

    let busybox = PathBuf::from("/bin/busybox");
    let shell = |script: &str| Program::new(busybox.clone(), &["sh", "-c", script]);
    let listing = shell("echo $(expr 6 \\* 7); ls /; cat /proc/self/maps");
    let shown = vec!["42", "dev", "proc", "tmp", "[stack]", "[heap]", "/busybox"];
    for machine in MATRIX {
        add("busybox: a listing", &listing, machine, Expect::Shows(0, shown.clone()));
    }
    let scripts = [
        ("a pipeline", "i=0; while [ $i -lt 30 ]; do echo $i; i=$((i+1)); done | grep 1 | sort -r | head -5"),
        ("an exit status", "exit 42"),
        ("a signal", "kill -9 $$"),
        (
            "files",
            "cd /tmp && d=t$$ && mkdir $d && echo a >$d/x && cp $d/x $d/y && cat $d/*; ls -1 $d; rm -r $d; ls -d $d 2>/dev/null || echo gone",
        ),
        ("background jobs", "sleep 0.1 & sleep 0.05 & wait; echo done; (exit 3); echo $?"),
        ("a here document", "cat <<X\nfirst\nsecond\nX\ntrap 'echo bye' EXIT"),
        (
            "checksums",
            "dd if=/dev/zero bs=1k count=300 2>/dev/null | md5sum; seq 1 2000 | sha256sum; seq 1 500 | tac | tail -3",
        ),
    ];
    for (name, script) in scripts {
        add(&format!("busybox: {name}"), &shell(script), BIOS, Expect::Same);
    }
    let reading = Program { stdin: Some(input), ..shell("read a; echo \"[$a]\"; wc; echo $#") };
    add("busybox: its input", &reading, BIOS, Expect::Same);

    for name in ["mremap_test", "mremap_dontunmap", "map_fixed_noreplace", "map_populate"] {
        add(&format!("selftest {name} of Linux 6.1"), &selftest("6.1", name), BIOS, Expect::Succeeds);
    }
    for (name, lacking) in NEWEST_SELFTESTS {
        let expect = Expect::Checks(lacking.to_vec());
        add(&format!("selftest {name} of the newest Linux"), &selftest("newest", name), BIOS, expect);
    }
    // What is skipped needs `mbind` and `userfaultfd`.
    let shown = vec!["ok 1 SIGSEGV", "ok 2 SIGSEGV", "ok 5 SIGSEGV", "pass:3 fail:0 xfail:0 xpass:0 skip:3 error:0"];
    add("selftest mkdirty of the newest Linux", &selftest("newest", "mkdirty"), BIOS, Expect::Shows(0, shown));
    let soft_dirty = Program { newest: true, ..selftest("newest", "soft-dirty") };
    add("selftest soft-dirty of the newest Linux", &soft_dirty, BIOS, Expect::Checks(Vec::new()));
    // What is skipped wants a huge page of zeroes.
    let mut cow = selftest("newest", "cow");
    cow.options.push("swap");
    for machine in [BIOS, FOUR_CPUS] {
        let shown = vec!["# Totals: pass:637 fail:0 xfail:0 xpass:0 skip:3 error:0"];
        add("selftest cow of the newest Linux", &cow, machine, Expect::Shows(0, shown));
    }
    // The one that is skipped needs probes of user space; for the one that fails see docs/linux.md.
    let failed = "not ok 17 merge.anon_and_page_offset_mismatch_memfd";
    let shown = vec![failed, "# Totals: pass:23 fail:1 xfail:0 xpass:0 skip:1 error:0"];
    add("selftest merge of the newest Linux", &selftest("newest", "merge"), BIOS, Expect::Shows(1, shown));
    bad_programs(places, scratch, &mut add)?;
    for (hang, machine, message) in [
        ("hang-lock", TWO_CPUS, "does not leave the kernel"),
        // With another one, that may notice first.
        ("hang-interrupt-lock", BIOS, "waits with interrupts disabled"),
        ("hang-silently", TWO_CPUS, "takes no interrupts"),
    ] {
        let program = Program { options: vec![hang, "watchdog=2"], ..shell("exit 0") };
        add(&format!("watchdog: {hang}"), &program, machine, Expect::Dies(message));
    }
    Ok(tests)
}

/// Executables that are none: as the first program, and by `execve` from another.
fn bad_programs(places: &Places, scratch: &Path, add: &mut impl FnMut(&str, &Program, Machine, Expect)) -> Result<()> {
    let directory = scratch.join("elf");
    fs::create_dir_all(&directory)?;
    let mut execute = Program::new(places.guest("cases"), &["exec"]);
    let mut refused = Vec::new();
    for sample in elf::samples() {
        let path = directory.join(sample.name);
        fs::write(&path, &sample.content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(sample.mode))?;
        // The same path here and in the guest, so that the arguments are the same.
        let name = path.to_string_lossy().into_owned();
        execute.args.push(OsString::from(&name));
        execute.files.push((name, path));
        refused.extend(sample.refused.map(|error| (sample.name, error)));
    }
    execute.args.push(OsString::from(&directory));
    add("bad executables", &execute, BIOS, Expect::Lines(refused));

    // As the first program one that cannot be executed ends the machine with 126.
    let direct = [
        ("good", 7),
        ("empty", 126),
        ("text", 126),
        ("half_a_header", 126),
        ("class_32", 126),
        ("data_truncated", 128 + libc::SIGBUS),
        ("descending", 7),
        ("overlap_partial", 128 + libc::SIGSEGV),
        ("kernel_space", 128 + libc::SIGSEGV),
        ("entry_not_mapped", 128 + libc::SIGSEGV),
    ];
    for (name, status) in direct {
        let program = Program::new(directory.join(name), &[]);
        add(&format!("first program: {name}"), &program, BIOS, Expect::Shows(status, Vec::new()));
    }
    // Names that the root directory has already.
    let named = scratch.join("named");
    fs::create_dir_all(&named)?;
    for name in ["dev", "proc", "tmp"] {
        fs::copy(directory.join("good"), named.join(name))?;
        let program = Program::new(named.join(name), &[]);
        add(&format!("first program: called {name}"), &program, BIOS, Expect::Shows(7, Vec::new()));
    }
    Ok(())
}

/// What starts the machine says so that the kernel died.
const DIED: i32 = 123;

/// Runs a test and judges it.
fn check(test: &Test, places: &Places, oracles: &Oracle) -> Vec<(String, Verdict)> {
    let one = |verdict: Verdict| vec![("the run".to_owned(), verdict)];
    let failed = |reasons: Vec<String>| one(Verdict::Failed(reasons));
    let here = match test.program.on_this_kernel(test.machine, places) {
        Ok(output) => output,
        Err(error) => return failed(vec![format!("{error:#}")]),
    };
    let mut complaints = log_complaints(&here);
    match &test.expect {
        Expect::Cases => match oracle(oracles, test, places) {
            Ok(linux) => compare_cases(&linux, &here, complaints),
            Err(reason) => failed(vec![reason]),
        },
        Expect::Same | Expect::Succeeds => match oracle(oracles, test, places) {
            Ok(linux) => {
                let same = matches!(test.expect, Expect::Same);
                if same {
                    let (expected, found) = (linux.text(), here.text());
                    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
                    complaints.extend(transcript::differences(&lines(&expected), &lines(&found), 5));
                } else if linux.status != 0 {
                    complaints.push(format!("it exits with {} on Linux", linux.status));
                }
                if here.status != linux.status {
                    complaints.push(format!("status {}, and {} on Linux", here.status, linux.status));
                    complaints.extend(tail(&here));
                }
                one(verdict(complaints))
            }
            Err(reason) => failed(vec![reason]),
        },
        Expect::Dies(message) => {
            let said = here.stderr.lines().any(|line| line.contains(message));
            let complaint = || format!("status {}, and it should die with: {message}", here.status);
            complaints = if here.status == DIED && said { Vec::new() } else { vec![complaint()] };
            if !complaints.is_empty() {
                complaints.extend(tail(&here));
            }
            one(verdict(complaints))
        }
        Expect::Shows(status, lines) => {
            let text = here.text();
            complaints.extend(lines.iter().filter(|line| !text.contains(**line)).map(|line| format!("no {line}")));
            if here.status != *status {
                complaints.push(format!("status {}, not {status}", here.status));
            }
            if !complaints.is_empty() {
                complaints.extend(tail(&here));
            }
            one(verdict(complaints))
        }
        Expect::Checks(lacking) => match oracle(oracles, test, places) {
            Ok(linux) => {
                let mut results = tap::compare(&linux.text(), &here.text(), lacking);
                if linux.status != 0 || results.is_empty() {
                    complaints.push(format!("on Linux it exits with {} after {} checks", linux.status, results.len()));
                }
                if here.status != 0 {
                    complaints.push(format!("exits with {}", here.status));
                    complaints.extend(tail(&here));
                }
                results.push(("the whole run".to_owned(), verdict(complaints)));
                results
            }
            Err(reason) => failed(vec![reason]),
        },
        Expect::Lines(refused) => match oracle(oracles, test, places) {
            Ok(linux) => compare_lines(&linux, &here, refused, complaints),
            Err(reason) => failed(vec![reason]),
        },
    }
}

fn verdict(complaints: Vec<String>) -> Verdict {
    if complaints.is_empty() { Verdict::Passed } else { Verdict::Failed(complaints) }
}

/// What `boot run` has to say about the kernel, if it is nothing good.
fn log_complaints(output: &Output) -> Vec<String> {
    const TROUBLE: i32 = 125;
    let spoken = output.stderr.lines().filter(|line| line.starts_with("boot: ") || line.contains("panic"));
    if [DIED, process::TIMED_OUT, TROUBLE].contains(&output.status) || output.stderr.contains("panicked") {
        spoken.map(str::to_owned).collect()
    } else {
        Vec::new()
    }
}

/// The last lines of what was printed and logged.
fn tail(output: &Output) -> Vec<String> {
    let last = |text: &str| -> Vec<String> {
        let lines: Vec<&str> = text.lines().collect();
        lines.iter().rev().take(8).rev().map(|line| format!("| {line}")).collect()
    };
    last(&output.text()).into_iter().chain(last(&output.stderr)).collect()
}

/// Judges each case of two transcripts.
fn compare_cases(linux: &Output, here: &Output, complaints: Vec<String>) -> Vec<(String, Verdict)> {
    let (expected, found) = (transcript::parse(&linux.text()), transcript::parse(&here.text()));
    let mut results = Vec::new();
    for entry in &expected {
        let reasons = match found.iter().find(|other| other.name == entry.name) {
            None => vec!["did not run".to_owned()],
            Some(other) if !other.ok => other.lines.iter().rev().take(6).rev().cloned().collect(),
            // A Linux older than what is expected here does not know everything.
            Some(_) if !entry.ok => Vec::new(),
            Some(other) => transcript::differences(&entry.lines, &other.lines, 5),
        };
        results.push((entry.name.clone(), verdict(reasons)));
    }
    if here.status != 0 && here.status != 1 {
        let mut reasons = complaints;
        reasons.push(format!("ended with status {}", here.status));
        reasons.extend(tail(here));
        results.push(("the whole run".to_owned(), Verdict::Failed(reasons)));
    }
    results
}

/// Judges each line `NAME: RESULT` of the results of executing many programs.
fn compare_lines(
    linux: &Output,
    here: &Output,
    refused: &[(&str, &str)],
    mut complaints: Vec<String>,
) -> Vec<(String, Verdict)> {
    let lines = |text: &str| -> Vec<(String, String)> {
        let pairs = text.lines().filter_map(|line| line.split_once(": "));
        pairs.map(|(name, result)| (name.to_owned(), result.to_owned())).collect()
    };
    let found: HashMap<String, String> = lines(&here.text()).into_iter().collect();
    let mut results = Vec::new();
    for (name, on_linux) in lines(&linux.text()) {
        let expected = match refused.iter().find(|(refused, _)| *refused == name) {
            Some((_, error)) => format!("execve: {error}"),
            None => on_linux,
        };
        let reasons = match found.get(&name) {
            Some(result) if *result == expected => Vec::new(),
            Some(result) => vec![format!("{result}, not {expected}")],
            None => vec!["did not run".to_owned()],
        };
        results.push((name, verdict(reasons)));
    }
    if here.status != 0 {
        complaints.push(format!("ended with status {}", here.status));
        complaints.extend(tail(here));
        results.push(("the whole run".to_owned(), Verdict::Failed(complaints)));
    }
    results
}
