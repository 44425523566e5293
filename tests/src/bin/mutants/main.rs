//! Breaks `mm` in one place after the other, and sees that its tests notice.
//!
//! What is broken is listed in `list.rs`, by hand: a flush left out, a lock out
//! of order, a page off by one, a step of a rollback gone, and more of that kind.
//! Each mutation is made to a copy of the sources, built, and tested with
//! `cargo test -p mm`. One that fails a test, or hangs, is caught; the names
//! of the tests are printed. One that survives is a hole in the tests, and an error.
//!
//! A mutation that makes a race, or an ordering too weak (`orderings.rs`), is for a model checker: the
//! scenario that it names has to fail.

mod list;
mod orderings;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;

use list::{Finder, MUTATIONS, Mutation, RACES};
use orderings::ORDERINGS;

/// Seconds that the tests may take; several times what all scenarios do together.
const TIME_LIMIT: &str = "1800";
/// All tests but the random operations, which take longest.
const QUICK: &[&str] = &["--", "--skip", "property"];
/// The random operations.
const RANDOM: &[&str] = &["--", "property"];
/// The unit tests.
const UNIT: &[&str] = &["--lib"];
/// The scenarios of the model checkers.
const SHUTTLE: &[&str] = &["--profile", "model", "--features", "shuttle", "--test", "model"];
const LOOM: &[&str] = &["--profile", "model", "--features", "loom", "--test", "loom"];
/// What `timeout` exits with when time is over.
const TIMED_OUT: i32 = 124;
/// What `cargo test` exits with when tests failed, and not the build.
const TESTS_FAILED: i32 = 101;

#[derive(Parser, Debug)]
#[command(version, about = "Sees that the tests of mm notice when it is broken")]
struct Cli {
    /// The root of the sources
    #[arg(long, default_value = ".")]
    source: PathBuf,
    /// Where the copy is made and built
    #[arg(long, default_value = "build/mutants")]
    work: PathBuf,
    /// Only mutations in whose description this occurs
    filter: Option<String>,
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let tree = cli.work.join("source");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    fs::create_dir_all(&tree)?;
    for part in ["Cargo.toml", "Cargo.lock", "mm", "kernel", "boot", "tests"] {
        copy(&cli.source.join(part), &tree.join(part)).with_context(|| format!("cannot copy {part}"))?;
    }
    let target = std::path::absolute(cli.work.join("target"))?;
    let tester = Tester { tree, target };

    let is_chosen = |mutation: &&Mutation| cli.filter.as_ref().is_none_or(|word| mutation.what.contains(word.as_str()));
    let chosen: Vec<_> = all().filter(is_chosen).collect();
    for suite in [UNIT, SHUTTLE, LOOM] {
        let finders: Vec<_> = chosen.iter().map(|mutation| mutation.finder).filter(|by| by.suite() == suite).collect();
        if finders.is_empty() {
            continue;
        }
        ensure!(tester.test(suite, &["--no-run"])?.status.success(), "the sources do not build as they are");
        // Without a name, which only unit tests are without, all.
        let tests: Vec<_> =
            ["--", "--exact"].into_iter().chain(finders.iter().filter_map(|by| by.scenario())).collect();
        ensure!(tester.test(suite, &tests)?.status.success(), "the tests fail with the sources as they are");
    }

    let (mut caught, mut survivors) = (0, Vec::new());
    for mutation in chosen {
        let start = Instant::now();
        let fate = tester.try_out(mutation)?;
        let seconds = start.elapsed().as_secs();
        match &fate {
            Some(by) => {
                caught += 1;
                println!("caught    {}  {seconds} s\n          by {by}", mutation.what);
            }
            None => {
                survivors.push(mutation.what);
                println!("SURVIVED  {}  {seconds} s", mutation.what);
            }
        }
    }
    println!("\n{caught} mutations caught, {} survived", survivors.len());
    Ok(if survivors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// All mutations.
fn all() -> impl Iterator<Item = &'static Mutation> {
    MUTATIONS.iter().chain(RACES).chain(ORDERINGS)
}

/// A copy of the sources, and where it is built.
struct Tester {
    tree: PathBuf,
    target: PathBuf,
}

impl Tester {
    fn test(&self, suite: &[&str], args: &[&str]) -> Result<Output> {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", TIME_LIMIT, "cargo", "test", "-p", "mm", "--target-dir"]);
        command.arg(&self.target).args(suite).args(args).current_dir(&self.tree);
        command.env("RUST_BACKTRACE", "0").output().context("cannot run cargo")
    }

    /// Which tests notice the mutation; `None` if none does.
    fn try_out(&self, mutation: &Mutation) -> Result<Option<String>> {
        let path = self.tree.join(mutation.file);
        let original = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        fs::write(&path, mutation.apply(&original)?)?;
        let suite = mutation.finder.suite();
        let built = self.test(suite, &["--no-run"])?;
        let mut fate = None;
        if built.status.success() {
            fate = Some(match mutation.finder.scenario() {
                Some(scenario) => self.test(suite, &["--", "--exact", scenario])?,
                None => {
                    let quick = self.test(suite, QUICK)?;
                    if quick.status.success() { self.test(suite, RANDOM)? } else { quick }
                }
            });
        }
        fs::write(&path, original)?;
        let Some(run) = fate else {
            bail!("does not build: {}\n{}", mutation.what, String::from_utf8_lossy(&built.stderr));
        };
        Ok(match run.status.code() {
            Some(0) => None,
            Some(TIMED_OUT) => Some("hanging".into()),
            Some(TESTS_FAILED) => Some(failures(&run)?),
            other => bail!("cargo ended with {other:?}: {}", mutation.what),
        })
    }
}

/// The name of the first test that failed, or of the signal that ended all of them.
fn failures(run: &Output) -> Result<String> {
    let stdout = String::from_utf8_lossy(&run.stdout);
    let failed: Vec<_> =
        stdout.lines().filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED")).collect();
    let stderr = String::from_utf8_lossy(&run.stderr);
    let signal = || stderr.lines().find_map(|line| Some(line.split_once("(signal: ")?.1.trim_end_matches(')')));
    match failed[..] {
        [] => signal().map(String::from).with_context(|| format!("no test failed, but cargo did:\n{stderr}")),
        [one] => Ok(one.into()),
        [first, ..] => Ok(format!("{first} and {} more", failed.len() - 1)),
    }
}

/// Copies a file, or a directory with all that is in it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            copy(&from.join(&name), &to.join(&name))?;
        }
    } else {
        fs::copy(from, to)?;
    }
    Ok(())
}

impl Finder {
    /// What Cargo is told to find the tests.
    fn suite(self) -> &'static [&'static str] {
        match self {
            Finder::Units => UNIT,
            Finder::Shuttle(_) => SHUTTLE,
            Finder::Loom(_) => LOOM,
        }
    }

    /// The one that has to fail; none if any may.
    fn scenario(self) -> Option<&'static str> {
        match self {
            Finder::Units => None,
            Finder::Shuttle(scenario) | Finder::Loom(scenario) => Some(scenario),
        }
    }
}

impl Mutation {
    /// The text of the file with the mutation made.
    fn apply(&self, text: &str) -> Result<String> {
        let count = text.matches(self.find).count();
        ensure!(count == 1, "{}: `{}` occurs {count} times in {}", self.what, self.find, self.file);
        ensure!(self.find != self.replace, "{}: changes nothing", self.what);
        Ok(text.replacen(self.find, self.replace, 1))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_mutation_applies_to_the_sources() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for mutation in all() {
            let text = fs::read_to_string(root.join(mutation.file)).unwrap();
            mutation.apply(&text).unwrap();
        }
    }

    #[test]
    fn every_scenario_of_the_model_checkers_finds_one() {
        for (directory, suite) in [("model", SHUTTLE), ("loom", LOOM)] {
            let of_suite = all().filter(|mutation| mutation.finder.suite() == suite);
            let named: BTreeSet<_> = of_suite.filter_map(|mutation| mutation.finder.scenario()).collect();
            let found = scenarios(directory);
            assert_eq!(named, found.iter().map(String::as_str).collect());
        }
    }

    /// The tests in the modules of a directory.
    fn scenarios(directory: &str) -> BTreeSet<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mm/tests").join(directory);
        let mut scenarios = BTreeSet::new();
        for entry in fs::read_dir(root).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let module = path.file_stem().unwrap().to_str().unwrap();
            for test in text.split("#[test]\nfn ").skip(1) {
                scenarios.insert(format!("{module}::{}", test.split('(').next().unwrap()));
            }
        }
        scenarios
    }

    #[test]
    fn there_are_at_least_twenty_five() {
        assert!(MUTATIONS.len() >= 25);
    }
}
