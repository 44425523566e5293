//! Random sequences of memory operations, on the Linux that this runs on and on this
//! kernel: `runner replay`, and a part of `runner test`.
//!
//! The program `replay` prints a line for each sequence. Where the lines differ, the
//! sequence is cut off after the first step that does, then made shorter as far as the two
//! still differ, many candidates to a machine.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use clap::Args;
use tests::replay::{self, Sequence};

use crate::Places;
use crate::process::Output;
use crate::shrink::shrink;
use crate::suite::{BIOS, Program};
use crate::transcript;

#[derive(Args, Debug)]
pub struct ReplayArgs {
    /// Go on for as long as this
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Stop after as many seeds as this, whatever the time
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed; by default one that was never used before
    #[arg(long)]
    first: Option<u64>,
    /// Steps of each sequence
    #[arg(long, default_value_t = STEPS)]
    steps: usize,
    /// Sequences that one machine is started for
    #[arg(long, default_value_t = 40)]
    batch: u64,
    /// Compare this file, of one sequence or several, and no random ones
    #[arg(long)]
    file: Option<PathBuf>,
    /// Show differences, but do not look for the shortest sequences that have them
    #[arg(long)]
    keep_long: bool,
}

/// Steps of each sequence, unless told otherwise.
pub const STEPS: usize = 2000;

/// A seed that differs from run to run.
pub fn fresh_seed() -> u64 {
    // Microseconds of some years.
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |age| age.as_micros() as u64 % (1 << 48))
}

/// The program with these arguments.
pub fn program(places: &Places, args: &[&str]) -> Program {
    let mut program = Program::new(places.guest("replay"), args);
    program.seconds = 900;
    // Whether a mapping may be as large as all memory is no question here.
    program.memory = "2G";
    program
}

/// Runs until the time is over or something differs.
pub fn run(args: &ReplayArgs, places: &Places) -> Result<ExitCode> {
    let differ = Differ::new(places)?;
    if let Some(path) = &args.file {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let text = if text.starts_with("== ") { text } else { format!("== {}\n{text}", path.display()) };
        return differ.compare_file(&text, !args.keep_long);
    }
    let mut next = args.first.unwrap_or_else(fresh_seed);
    let end = args.seeds.map(|count| next.saturating_add(count));
    let (start, mut done) = (Instant::now(), 0);
    println!("seeds from {next}, {} steps each", args.steps);
    loop {
        let count = end.map_or(args.batch, |end| args.batch.min(end - next));
        let over = end.is_none() && start.elapsed() > Duration::from_secs(args.seconds);
        if over || count == 0 {
            println!("{done} sequences, {} steps, no difference", done * args.steps as u64);
            return Ok(ExitCode::SUCCESS);
        }
        let differing = differ.compare_seeds(next, count, args.steps)?;
        done += count;
        if !differing.is_empty() {
            let names: Vec<String> = differing.iter().map(u64::to_string).collect();
            println!("{done} sequences; these differ: {}", names.join(" "));
            let sequence = replay::generate(differing[0], args.steps);
            let name = format!("seed-{}", differing[0]);
            for line in differ.explain(&name, &sequence, !args.keep_long)? {
                println!("{line}");
            }
            return Ok(ExitCode::FAILURE);
        }
        println!("{done} sequences, {} s", start.elapsed().as_secs());
        next += count;
    }
}

/// Runs the program on both kernels.
pub struct Differ<'p> {
    places: &'p Places,
    /// For files that the program reads.
    scratch: PathBuf,
}

/// Where the program finds its file, on both kernels.
const GUEST_FILE: &str = "/tmp/replay.txt";

impl<'p> Differ<'p> {
    pub fn new(places: &'p Places) -> Result<Differ<'p>> {
        // Of its own, so that several can be at work.
        let scratch = places.build.join("replay").join(std::process::id().to_string());
        fs::create_dir_all(&scratch)?;
        Ok(Differ { places, scratch: fs::canonicalize(scratch)? })
    }

    /// The program with these arguments, on Linux and here, at the same time.
    fn both(&self, args: &[&str], file: Option<&Path>) -> Result<(Output, Output)> {
        let mut here = program(self.places, args);
        let mut linux = here.clone();
        if let Some(file) = file {
            here.files.push((GUEST_FILE.to_owned(), file.to_owned()));
            let path = file.to_string_lossy();
            let name = |word: &&str| if *word == GUEST_FILE { path.to_string() } else { (*word).to_owned() };
            linux.args = args.iter().map(|word| name(word).into()).collect();
        }
        let (linux, here) = thread::scope(|scope| {
            let linux = scope.spawn(|| linux.on_linux());
            (linux.join(), here.on_this_kernel(BIOS, self.places))
        });
        let linux = linux.map_err(|_| anyhow::anyhow!("no result of Linux"))??;
        if linux.status != 0 {
            bail!("replay fails on Linux: {}{}", linux.text(), linux.stderr);
        }
        Ok((linux, here?))
    }

    /// Names of the sequences that do not come to the same.
    fn differing(&self, args: &[&str], file: Option<&Path>) -> Result<Vec<String>> {
        let (linux, here) = self.both(args, file)?;
        let found = here.text();
        let found: HashMap<&str, &str> = found.lines().filter_map(|line| line.rsplit_once(": ")).collect();
        let text = linux.text();
        let mut names = Vec::new();
        let mut complete = true;
        for (name, hash) in text.lines().filter_map(|line| line.rsplit_once(": ")) {
            match found.get(name) {
                Some(same) if *same == hash => {}
                Some(_) => names.push(name.to_owned()),
                // The machine died of the first that is missing; the others did not run.
                None if complete => {
                    complete = false;
                    names.push(name.to_owned());
                }
                None => {}
            }
        }
        Ok(names)
    }

    /// Those of `count` seeds from `first` that do not come to the same.
    ///
    /// # Errors
    /// If the program cannot be run.
    pub fn compare_seeds(&self, first: u64, count: u64, steps: usize) -> Result<Vec<u64>> {
        let words = [first, count, steps as u64].map(|number| number.to_string());
        let names = self.differing(&["seeds", &words[0], &words[1], &words[2]], None)?;
        Ok(names.iter().filter_map(|name| name.strip_prefix("seed ")?.parse().ok()).collect())
    }

    /// Those of several sequences that do not come to the same.
    ///
    /// # Errors
    /// If the program cannot be run.
    pub fn compare_texts(&self, text: &str) -> Result<Vec<String>> {
        self.differing(&["file", GUEST_FILE], Some(&self.write("several.txt", text)?))
    }

    /// Compares, and shows what differs.
    fn compare_file(&self, text: &str, shorten: bool) -> Result<ExitCode> {
        let differing = self.compare_texts(text)?;
        println!("{} sequences, {} differ", replay::split(text).len(), differing.len());
        for (name, text) in replay::split(text).into_iter().filter(|(name, _)| differing.iter().any(|d| d == name)) {
            let sequence: Sequence = text.parse().map_err(anyhow::Error::msg)?;
            for line in self.explain(name, &sequence, shorten)? {
                println!("{line}");
            }
        }
        Ok(if differing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Lines that show a sequence that does not come to the same, as short as it can be,
    /// and where the two kernels differ. The sequence is kept in a file.
    ///
    /// # Errors
    /// If the program cannot be run.
    pub fn explain(&self, name: &str, sequence: &Sequence, shorten: bool) -> Result<Vec<String>> {
        let mut sequence = sequence.clone();
        let (mut report, step) = self.difference(&sequence)?;
        if report.is_empty() {
            // Showing the mappings after each step hides it; so leave all as it is.
            return Ok(vec![format!("{name} differs, but not if looked at closely")]);
        }
        if shorten {
            sequence.steps.truncate(step.saturating_add(1));
            let scale = sequence.scale;
            sequence.steps = shrink(sequence.steps, |lists| {
                let text =
                    |(i, steps): (usize, &Vec<_>)| format!("== c{i}\n{}", Sequence { scale, steps: steps.clone() });
                let text: String = lists.iter().enumerate().map(text).collect();
                let file = self.write("candidates.txt", &text)?;
                let differing = self.differing(&["file", GUEST_FILE, "--every"], Some(&file))?;
                Ok((0..lists.len()).map(|i| differing.contains(&format!("c{i}"))).collect())
            })?;
            report = self.difference(&sequence)?.0;
        }
        let kept = self.write(&format!("{}.txt", name.replace(['/', ' '], "-")), &sequence.to_string())?;
        let mut lines = vec![format!("{name} differs, {} steps (in {}):", sequence.steps.len(), kept.display())];
        lines.extend(sequence.to_string().lines().take(60).map(|line| format!("  {line}")));
        lines.extend(report);
        Ok(lines)
    }

    /// How the two kernels differ in a sequence, and in which step first.
    fn difference(&self, sequence: &Sequence) -> Result<(Vec<String>, usize)> {
        let file = self.write("one.txt", &format!("== one\n{sequence}"))?;
        let (linux, here) = self.both(&["file", GUEST_FILE, "--steps", "--every"], Some(&file))?;
        // The last line has a hash that is of no use here.
        let lines = |output: &Output| {
            output.text().lines().filter(|line| !line.starts_with("one: 0")).map(str::to_owned).collect()
        };
        let (expected, found): (Vec<String>, Vec<String>) = (lines(&linux), lines(&here));
        let mut report = transcript::differences(&expected, &found, 3);
        let same = expected.iter().zip(&found).take_while(|(left, right)| left == right).count();
        if here.status != 0 && !report.is_empty() {
            report.extend(here.stderr.lines().rev().take(12).map(|line| format!("| {line}")));
        }
        let number = |line: &String| line.split(' ').next()?.parse::<usize>().ok();
        let steps: Vec<usize> = expected.iter().take(same + 1).filter_map(number).collect();
        Ok((report, steps.last().copied().unwrap_or(usize::MAX)))
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.scratch.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(path)
    }
}
