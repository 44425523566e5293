//! Output of Linux's selftests: the Test Anything Protocol, a line for each check.

use crate::report::Verdict;

/// How a check went; the later the better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Outcome {
    Failed,
    Skipped,
    Passed,
}

/// A line `ok NUMBER NAME`, or `not ok …`.
#[derive(PartialEq, Eq, Debug)]
struct Check<'a> {
    number: &'a str,
    name: &'a str,
    outcome: Outcome,
}

impl Check<'_> {
    fn parse(line: &str) -> Option<Check<'_>> {
        let (line, passed) = match line.strip_prefix("not ") {
            Some(line) => (line, false),
            None => (line, true),
        };
        let (number, name) = line.strip_prefix("ok ")?.split_once(' ')?;
        number.parse::<u32>().ok()?;
        let skipped = name.strip_prefix("# SKIP");
        let outcome = match (passed, skipped) {
            (false, _) => Outcome::Failed,
            (true, Some(_)) => Outcome::Skipped,
            (true, None) => Outcome::Passed,
        };
        Some(Check { number, name: skipped.unwrap_or(name).trim(), outcome })
    }
}

/// Judges each check of a run here: it has to go as well as on Linux, or better. One whose
/// name is among `lacking` needs something that is not there, and may fail.
pub fn compare(linux: &str, here: &str, lacking: &[&str]) -> Vec<(String, Verdict)> {
    let found: Vec<Check> = here.lines().filter_map(Check::parse).collect();
    let judge = |expected: Check| {
        let outcome = found.iter().find(|check| check.number == expected.number).map(|check| check.outcome);
        let verdict = match outcome {
            Some(outcome) if outcome >= expected.outcome || lacking.contains(&expected.name) => Verdict::Passed,
            Some(outcome) => Verdict::Failed(vec![format!("{outcome:?}, on Linux {:?}", expected.outcome)]),
            None => Verdict::Failed(vec!["did not run".to_owned()]),
        };
        (expected.name.to_owned(), verdict)
    };
    linux.lines().filter_map(Check::parse).map(judge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINUX: &str = "TAP version 13\n1..4\nok 1 first\n# remark\nok 2 second one\n\
                         not ok 3 third\nok 4 # SKIP fourth: no reason\n# Totals: pass:2 fail:1\n";

    fn failed(here: &str, lacking: &[&str]) -> Vec<String> {
        let results = compare(LINUX, here, lacking);
        assert_eq!(results.len(), 4);
        results.into_iter().filter(|(_, verdict)| matches!(verdict, Verdict::Failed(_))).map(|(name, _)| name).collect()
    }

    #[test]
    fn the_same_or_better_is_right() {
        assert!(failed(LINUX, &[]).is_empty());
        assert!(failed("ok 1 first\nok 2 second one\nok 3 third\nok 4 fourth\n", &[]).is_empty());
    }

    #[test]
    fn what_fails_or_is_left_out_is_wrong() {
        assert_eq!(failed("ok 1 # SKIP first\nnot ok 2 second one\n", &[]).len(), 4);
        let here = "ok 1 first\nnot ok 2 second one\nnot ok 3 third\nok 4 # SKIP fourth\n";
        assert_eq!(failed(here, &[]), ["second one"]);
        assert!(failed(here, &["second one"]).is_empty());
    }
}
