//! `runner scaling`: what a second CPU is worth, here and on Linux.
//!
//! The program `scaling` runs with one thread on a machine with one CPU, then with two
//! on two, which QEMU emulates at the same time. These figures are of real time, so
//! they depend on what else the host does; each is the median of several runs, which take
//! turns, on CPUs of the host that are kept [steady](Steady).

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use crate::bench::{Figures, parse};
use crate::host::Steady;
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
    /// Runs of which the median counts
    #[arg(long, default_value_t = 5)]
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
    let _steady = Steady::new();
    let mut columns = Vec::new();
    if let Some(vmlinuz) = &vmlinuz {
        let [one, two] = medians(args, |cpus| on_linux(args, places, vmlinuz, cpus))?;
        columns.push((format!("Linux {}", linux::version(vmlinuz)), one, two));
    }
    let [one, two] = medians(args, |cpus| on_this_kernel(args, places, cpus))?;
    columns.push(("this kernel".to_owned(), one, two));
    print(&columns);
    Ok(())
}

/// The median figure of each row, in operations per second, on one CPU and on two.
fn medians(args: &ScalingArgs, run: impl Fn(u32) -> Result<Figures>) -> Result<[Figures; 2]> {
    let mut all = [BTreeMap::new(), BTreeMap::new()];
    for _ in 0..args.runs.max(1) {
        for (cpus, all) in (1..).zip(&mut all) {
            for (name, figure) in run(cpus)? {
                all.entry(name).or_insert_with(Vec::new).push(figure);
            }
        }
    }
    Ok(all.map(|rows| rows.into_iter().filter_map(|(name, figures)| Some((name, median(figures)?))).collect()))
}

fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}

fn words(args: &ScalingArgs, cpus: u32) -> [String; 2] {
    [cpus.to_string(), args.rounds.to_string()]
}

fn on_linux(args: &ScalingArgs, places: &Places, vmlinuz: &Path, cpus: u32) -> Result<Figures> {
    let [threads, rounds] = words(args, cpus);
    let run = || {
        Linux {
            vmlinuz,
            init: &places.guest("init"),
            program: &places.guest("scaling"),
            args: &["/scaling".to_owned(), threads.clone(), rounds.clone()],
            memory: MEMORY,
            cpu: CPU,
            cpus,
            icount: false,
            timeout: Duration::from_secs(args.timeout),
        }
        .run(&places.build.join("linux"))
    };
    // QEMU may run an instruction on one CPU that Linux is patching on another, and Linux does not survive that.
    let output = run().or_else(|_| run()).or_else(|_| run())?;
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
