//! What the program `cases` prints, cut into its cases.

/// One case: its name, whether it says `ok`, and all that it printed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub name: String,
    pub ok: bool,
    pub lines: Vec<String>,
}

/// Cuts a transcript: a case ends with the line `ok NAME` or `FAILED NAME: …`.
pub fn parse(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut lines = Vec::new();
    for line in text.lines() {
        let verdict = match line.split_once(' ') {
            Some(("ok", name)) => Some((name, true)),
            Some(("FAILED", rest)) => Some((rest.split(':').next().unwrap_or(rest), false)),
            _ => None,
        };
        lines.push(line.to_owned());
        if let Some((name, ok)) = verdict {
            entries.push(Entry { name: name.to_owned(), ok, lines: std::mem::take(&mut lines) });
        }
    }
    entries
}

/// The first places where two texts differ, as lines of a report; at most `limit` of them.
pub fn differences<S: AsRef<str>>(expected: &[S], found: &[S], limit: usize) -> Vec<String> {
    let mut report = Vec::new();
    for i in 0..expected.len().max(found.len()) {
        let (left, right) = (expected.get(i).map(AsRef::as_ref), found.get(i).map(AsRef::as_ref));
        if left != right {
            if report.len() >= 2 * limit {
                report.push("…".to_owned());
                break;
            }
            report.push(format!("Linux:       {}", left.unwrap_or("(nothing)")));
            report.push(format!("this kernel: {}", right.unwrap_or("(nothing)")));
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use super::{differences, parse};

    #[test]
    fn output_belongs_to_the_verdict_after_it() {
        let entries = parse("x\ny\nok a/b\nok a/c\n  why\nFAILED a/d: Ok(Exited(1))\nlost");
        let names: Vec<_> = entries.iter().map(|entry| (entry.name.as_str(), entry.ok)).collect();
        assert_eq!(names, [("a/b", true), ("a/c", true), ("a/d", false)]);
        assert_eq!(entries[0].lines, ["x", "y", "ok a/b"]);
        assert_eq!(entries[2].lines.len(), 2);
    }

    #[test]
    fn differences_are_shown_side_by_side_and_limited() {
        assert!(differences(&["a", "b"], &["a", "b"], 3).is_empty());
        let report = differences(&["a", "b"], &["a", "c", "d"], 3);
        assert_eq!(report.len(), 4);
        assert_eq!(report[1], "this kernel: c");
        assert_eq!(differences(&["1", "2", "3"], &["4", "5", "6"], 1).len(), 3);
    }
}
