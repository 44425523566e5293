//! The list of results, as it grows.

use std::time::Duration;

/// How a test ended.
#[derive(Debug)]
pub enum Verdict {
    Passed,
    /// With the reasons, a line each.
    Failed(Vec<String>),
}

/// Several tests that one run decides, under a heading.
#[derive(Debug)]
pub struct Group {
    pub title: String,
    pub results: Vec<(String, Verdict)>,
    pub took: Duration,
}

/// Counts results and prints them.
#[derive(Debug, Default)]
pub struct Report {
    passed: usize,
    failed: Vec<String>,
}

impl Report {
    /// Prints a group: one line if all is well, else the failures below it.
    pub fn add(&mut self, group: Group) {
        let failures = group.results.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Failed(_))).count();
        let count = group.results.len();
        self.passed += count - failures;
        let word = if failures == 0 { "ok" } else { "FAILED" };
        let number = if count == 1 { String::new() } else { format!(" ({} of {count})", count - failures) };
        println!("{word:<7} {}{number}  {:.1} s", group.title, group.took.as_secs_f32());
        for (name, verdict) in group.results {
            if let Verdict::Failed(reasons) = verdict {
                println!("        FAILED {name}");
                for reason in reasons {
                    println!("            {reason}");
                }
                self.failed.push(format!("{}: {name}", group.title));
            }
        }
    }

    /// Prints what failed once more, and the totals; returns whether all passed.
    pub fn finish(&self) -> bool {
        if !self.failed.is_empty() {
            println!("\nFailed:");
            self.failed.iter().for_each(|name| println!("  {name}"));
        }
        println!("\n{} passed, {} failed", self.passed, self.failed.len());
        self.failed.is_empty()
    }
}
