//! `runner bench`: the benchmark on this kernel and on Linux, side by side.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::linux::{self, Linux};
use crate::process;

/// Rows in the order in which they are shown, and the most that each may cost here.
const TARGETS: &[(&str, Option<f64>)] = &[
    ("syscall_null", Some(100.0)),
    ("mmap_munmap_4k", Some(2400.0)),
    ("mmap_touch_munmap_4k", Some(4500.0)),
    ("fault_anon_write", Some(1200.0)),
    ("fault_anon_read", Some(500.0)),
    ("munmap_populated_page", Some(200.0)),
    ("mmap_populate_page", Some(900.0)),
    ("mprotect_4k_toggle", Some(900.0)),
    ("mprotect_split_merge", Some(2000.0)),
    ("mprotect_16m_per_page", Some(60.0)),
    ("madvise_dontneed_per_page", Some(200.0)),
    ("mremap_move_4k", Some(3000.0)),
    ("mremap_move_2m_aligned", Some(3000.0)),
    ("mremap_move_64m_aligned", Some(9000.0)),
    ("mremap_move_64m_misaligned", Some(330_000.0)),
    ("mremap_relocate_64m_aligned", Some(825_000.0)),
    ("mremap_move_1g_pud", Some(3000.0)),
    ("mremap_shrink_expand", Some(1500.0)),
    ("mremap_dontunmap_4k", Some(7000.0)),
    ("fault_with_200_vmas", None),
    ("mmap_munmap_with_200_vmas", None),
    ("fault_with_2000_vmas", None),
    ("mmap_munmap_with_2000_vmas", None),
    ("fault_with_20000_vmas", None),
    ("mmap_munmap_with_20000_vmas", None),
    ("fault_with_60000_vmas", Some(1300.0)),
    ("mmap_munmap_with_60000_vmas", Some(3500.0)),
    ("fork_exit_wait_16m", Some(600_000.0)),
    ("cow_fault", Some(2000.0)),
    ("fault_folio_64k_per_page", None),
    ("huge_fault_2m", None),
    ("huge_munmap_2m", None),
    ("huge_split_by_munmap", None),
    ("huge_collapse_2m", None),
    ("huge_fork_exit_wait_64m", None),
];

/// The machine: no fast string instructions, as if they had to be paid for word by word.
const CPU: &str = "max,-erms,-fsrm";
const MEMORY: &str = "3G";

#[derive(Args, Debug)]
pub struct BenchArgs {
    /// Compare with this version of Linux, such as 6.18, or with the newest; may be repeated
    #[arg(long = "linux", value_name = "VERSION", default_value = "newest")]
    linux: Vec<String>,
    /// Do not run this project's kernel
    #[arg(long)]
    only_linux: bool,
    /// Measure Linux again, even where there are figures from before
    #[arg(long)]
    fresh: bool,
    /// The program to run instead of `bench`; it prints the same rows
    #[arg(long)]
    program: Option<PathBuf>,
    /// Seconds that one run may take
    #[arg(long, default_value_t = 1800)]
    timeout: u64,
}

/// Figures by row; a row that a kernel does not know is missing.
pub type Figures = BTreeMap<String, f64>;

/// The figures that a benchmark has printed, one in a line after its name.
pub fn parse(text: &str) -> Result<Figures> {
    if !text.lines().any(|line| line == "DONE") {
        bail!("the benchmark did not come to its end:\n{text}");
    }
    let pair = |line: &str| {
        let (name, figure) = line.split_once(' ')?;
        Some((name.to_owned(), figure.parse().ok()?))
    };
    Ok(text.lines().filter_map(pair).collect())
}

/// The text of a figure, or a dash.
fn cell(figure: Option<f64>) -> String {
    figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.0}"))
}

/// Runs the benchmark on every kernel and prints the table.
pub fn run(args: &BenchArgs, places: &crate::Places) -> Result<()> {
    let program = args.program.clone().unwrap_or_else(|| places.guest("bench"));
    let timeout = Duration::from_secs(args.timeout);
    let mut columns = Vec::new();
    for wanted in &args.linux {
        let vmlinuz = linux::fetch(&places.script("fetch-linux.sh"), wanted)?;
        let version = linux::version(&vmlinuz);
        let figures = on_linux(args, places, &program, &vmlinuz, timeout)
            .with_context(|| format!("Linux {version} could not be measured"))?;
        columns.push((format!("Linux {version}"), figures));
    }
    let ours = if args.only_linux { None } else { Some(on_this_kernel(args, places, &program)?) };
    print(&columns, ours.as_ref());
    Ok(())
}

/// Figures of Linux: those in the cache, if the benchmark is still the same.
fn on_linux(
    args: &BenchArgs,
    places: &crate::Places,
    program: &Path,
    vmlinuz: &Path,
    timeout: Duration,
) -> Result<Figures> {
    let cache = vmlinuz.with_file_name("bench.txt");
    let key = format!("# {:016x}\n", checksum(&fs::read(program)?));
    if !args.fresh
        && let Ok(text) = fs::read_to_string(&cache)
        && let Some(rows) = text.strip_prefix(&key)
    {
        return parse(rows);
    }
    eprintln!("Measuring Linux {} …", linux::version(vmlinuz));
    let output = Linux {
        vmlinuz,
        init: &places.guest("init"),
        program,
        args: &["/bench".to_owned()],
        memory: MEMORY,
        cpu: CPU,
        cpus: 1,
        icount: true,
        timeout,
    }
    .run(&places.build.join("linux"))?;
    let figures = parse(&output.text())?;
    fs::write(&cache, key + &output.text())?;
    Ok(figures)
}

/// FNV-1a: tells one build of the benchmark from another.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

fn on_this_kernel(args: &BenchArgs, places: &crate::Places, program: &Path) -> Result<Figures> {
    eprintln!("Measuring this kernel …");
    let mut command = Command::new(&places.boot);
    command.arg("run").arg("--images").arg(&places.images);
    command.args(["--firmware", "bios", "--smp", "1", "--mem", MEMORY, "--cpu", CPU, "--icount"]);
    // What a call costs depends on which page tables a mapping shares: always the same.
    command
        .args(["--option", "norandom", "--stdin", "null", "--timeout", &args.timeout.to_string(), "--"])
        .arg(program);
    let limit = Duration::from_secs(args.timeout + 30);
    let output = process::run(&mut command, limit).with_context(|| format!("cannot run {}", places.boot.display()))?;
    parse(&output.text().replace("\r\n", "\n")).with_context(|| output.stderr)
}

fn print(columns: &[(String, Figures)], ours: Option<&Figures>) {
    print!("{:<28}", "instructions per operation");
    for (name, _) in columns {
        print!(" {name:>14}");
    }
    println!(" {:>12} {:>7} {:>10}", "this kernel", "ratio", "at most");
    let mut over = 0;
    let known = |name: &str| TARGETS.iter().any(|(target, _)| *target == name);
    let other = columns.iter().flat_map(|(_, figures)| figures.keys()).chain(ours.into_iter().flat_map(Figures::keys));
    let other: std::collections::BTreeSet<&String> = other.filter(|name| !known(name)).collect();
    let rows = TARGETS.iter().copied().chain(other.into_iter().map(|name| (name.as_str(), None)));
    for (name, target) in rows {
        print!("{name:<28}");
        for (_, figures) in columns {
            print!(" {:>14}", cell(figures.get(name).copied()));
        }
        let own = ours.and_then(|figures| figures.get(name).copied());
        let first = columns.first().and_then(|(_, figures)| figures.get(name).copied());
        let ratio = match (own, first) {
            (Some(own), Some(linux)) if linux > 0.0 => format!("{:.2}", own / linux),
            _ => "-".to_owned(),
        };
        let missed = matches!((own, target), (Some(own), Some(target)) if own > target);
        over += usize::from(missed);
        println!(" {:>12} {ratio:>7} {:>10}{}", cell(own), cell(target), if missed { "  over" } else { "" });
    }
    if ours.is_some() {
        println!("\n{over} rows are over their target.");
    }
}

#[cfg(test)]
mod tests {
    use super::{cell, parse};

    #[test]
    fn rows_are_read_and_notes_are_not() {
        let figures = parse("a 12.50\nb unsupported EINVAL\nc 3.00\nDONE\n").unwrap();
        assert_eq!(figures.get("a"), Some(&12.5));
        assert_eq!(figures.get("b"), None);
        assert_eq!(figures.len(), 2);
    }

    #[test]
    fn half_a_run_is_no_result() {
        assert!(parse("a 12.50\n").is_err());
    }

    #[test]
    fn figures_are_rounded() {
        assert_eq!(cell(Some(1234.56)), "1235");
        assert_eq!(cell(None), "-");
    }
}
