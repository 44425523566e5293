//! `runner scaling`: what a second CPU is worth, here and on Linux.
//!
//! The program `scaling` runs with one thread on a machine with one CPU, then with two
//! on two, which QEMU emulates at the same time. These figures are of real time, so
//! they depend on what else the host does; each is the best of several runs.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use crate::bench::{Figures, parse};
use crate::linux::{self, Linux};
use crate::{Places, process};

/// Rows, and how much two threads on two CPUs are to do at least, compared with one.
const ROWS: &[(&str, Option<f64>)] = &[
    ("faults_own_range", Some(1.8)),
    ("faults_shared_range", Some(1.6)),
    ("mmap_touch_munmap_4k", None),
    ("mmap_touch_munmap_64k", None),
    ("mmap_touch_munmap_1m", Some(1.5)),
];

const CPU: &str = "max,-erms,-fsrm";
const MEMORY: &str = "1G";

#[derive(Args, Debug)]
pub struct ScalingArgs {
    /// Compare with this version of Linux, such as 6.18, or with the newest
    #[arg(long, default_value = "newest")]
    linux: String,
    /// Do not run Linux
    #[arg(long)]
    only_this: bool,
    /// Runs of which the best counts
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Short rounds in each run
    #[arg(long, default_value_t = 300)]
    rounds: usize,
    /// Seconds that one run may take
    #[arg(long, default_value_t = 300)]
    timeout: u64,
}

/// Measures on every kernel and prints the table.
pub fn run(args: &ScalingArgs, places: &Places) -> Result<()> {
    let script = places.script("fetch-linux.sh");
    let vmlinuz = if args.only_this { None } else { Some(linux::fetch(&script, &args.linux)?) };
    let mut columns = Vec::new();
    if let Some(vmlinuz) = &vmlinuz {
        let measure = |cpus: u32| best(args, || on_linux(args, places, vmlinuz, cpus));
        columns.push((format!("Linux {}", linux::version(vmlinuz)), measure(1)?, measure(2)?));
    }
    let measure = |cpus: u32| best(args, || on_this_kernel(args, places, cpus));
    columns.push(("this kernel".to_owned(), measure(1)?, measure(2)?));
    print(&columns);
    Ok(())
}

/// The best figure of each row, in operations per second.
fn best(args: &ScalingArgs, run: impl Fn() -> Result<Figures>) -> Result<Figures> {
    let mut best = Figures::new();
    for _ in 0..args.runs.max(1) {
        for (name, figure) in run()? {
            let slot = best.entry(name).or_insert(figure);
            *slot = slot.max(figure);
        }
    }
    Ok(best)
}

fn words(args: &ScalingArgs, cpus: u32) -> [String; 2] {
    [cpus.to_string(), args.rounds.to_string()]
}

fn on_linux(args: &ScalingArgs, places: &Places, vmlinuz: &Path, cpus: u32) -> Result<Figures> {
    let [threads, rounds] = words(args, cpus);
    let output = Linux {
        vmlinuz,
        init: &places.guest("init"),
        program: &places.guest("scaling"),
        args: &["/scaling".to_owned(), threads, rounds],
        memory: MEMORY,
        cpu: CPU,
        cpus,
        icount: false,
        timeout: Duration::from_secs(args.timeout),
    }
    .run(&places.build.join("linux"))?;
    parse(&output.text())
}

fn on_this_kernel(args: &ScalingArgs, places: &Places, cpus: u32) -> Result<Figures> {
    let mut command = Command::new(&places.boot);
    command.arg("run").arg("--images").arg(&places.images);
    command.args(["--firmware", "bios", "--smp", &cpus.to_string(), "--mem", MEMORY, "--cpu", CPU]);
    command.args(["--stdin", "null", "--timeout", &args.timeout.to_string(), "--"]);
    command.arg(places.guest("scaling")).args(words(args, cpus));
    let limit = Duration::from_secs(args.timeout + 30);
    let output = process::run(&mut command, limit).with_context(|| format!("cannot run {}", places.boot.display()))?;
    parse(&output.text().replace("\r\n", "\n")).with_context(|| output.stderr)
}

fn print(columns: &[(String, Figures, Figures)]) {
    print!("{:<24}", "operations per second");
    for (name, ..) in columns {
        print!(" {:>34}", format!("{name}: 1 CPU, 2, ratio"));
    }
    println!(" {:>9}", "at least");
    for (row, target) in ROWS {
        print!("{row:<24}");
        for (_, one, two) in columns {
            match (one.get(*row), two.get(*row)) {
                (Some(one), Some(two)) => print!(" {one:>14.0} {two:>12.0} {:>6.2}", two / one),
                _ => print!(" {:>34}", "-"),
            }
        }
        println!(" {:>9}", target.map_or_else(|| "-".to_owned(), |target| format!("{target:.1}")));
    }
}
