//! Sequences of memory operations that are done on two kernels and compared.
//!
//! A [`Sequence`] is made of a seed ([`generate()`]) or read from a file. A [`World`]
//! is an address space in which nothing is free but an arena and some room for the
//! heap, so that wherever the kernel puts a mapping it puts it there: all addresses
//! are counted from the arena and come out the same on each kernel. An [`Actor`] does
//! the steps, one after the other, in as many processes as they ask for, and writes
//! down what each came to.

mod actor;
mod generate;
mod report;
mod step;
mod world;

use std::fmt;
use std::str::FromStr;

pub use actor::{Actor, Shared, Show};
pub use generate::generate;
pub use step::{Arg, Call, Step};
pub use world::World;

/// Pages (times the scale) of the arena.
pub const ARENA: usize = 1024;
/// Pages that the heap can grow by.
pub const HEAP: usize = 64;
/// Pages of the file.
pub const FILE: usize = 48;

/// Sequences that once came to something else than on Linux, each as short as could be:
/// a file for [`split`].
pub const KEPT: &str = include_str!("kept.txt");

/// Steps, and how large a page of theirs is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sequence {
    /// Pages of 4 KiB that each page of an address or a length stands for.
    pub scale: usize,
    pub steps: Vec<Step>,
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.scale != 1 {
            writeln!(f, "scale {}", self.scale)?;
        }
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

impl FromStr for Sequence {
    type Err = String;

    /// Reads a step per line; what follows a `#` is ignored.
    fn from_str(text: &str) -> Result<Sequence, String> {
        let mut sequence = Sequence { scale: 1, steps: Vec::new() };
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            match line.strip_prefix("scale ") {
                _ if line.is_empty() => {}
                Some(scale) => sequence.scale = scale.parse().map_err(|_| format!("no scale: {line}"))?,
                None => sequence.steps.push(line.parse()?),
            }
        }
        if sequence.scale == 0 { Err("a scale of 0".to_owned()) } else { Ok(sequence) }
    }
}

/// Cuts a file of several sequences, each after a line `== NAME`, into names and texts.
pub fn split(text: &str) -> Vec<(&str, &str)> {
    let pieces = text.strip_prefix("== ").into_iter().flat_map(|text| text.split("\n== "));
    pieces.map(|piece| piece.split_once('\n').unwrap_or((piece, ""))).collect()
}

#[cfg(test)]
mod tests {
    use super::{KEPT, Sequence, generate, split};

    #[test]
    fn a_sequence_is_what_its_text_says() {
        for seed in 0..20 {
            let sequence = generate(seed, 300);
            assert_eq!(sequence.steps.len(), 300);
            assert_eq!(sequence.to_string().parse(), Ok(sequence));
        }
    }

    #[test]
    fn the_same_seed_makes_the_same_sequence() {
        assert_eq!(generate(7, 50), generate(7, 50));
        assert_ne!(generate(7, 50), generate(8, 50));
    }

    #[test]
    fn comments_are_ignored() {
        let sequence: Sequence = "# why\nscale 512\n\nfork # now\n".parse().unwrap();
        assert_eq!((sequence.scale, sequence.steps.len()), (512, 1));
        assert!("scale 0".parse::<Sequence>().is_err());
    }

    #[test]
    fn what_is_kept_can_be_read() {
        assert!(!split(KEPT).is_empty());
        for (name, text) in split(KEPT) {
            assert!(text.parse::<Sequence>().is_ok_and(|sequence| !sequence.steps.is_empty()), "{name}");
        }
    }

    #[test]
    fn files_are_cut_at_their_headers() {
        assert_eq!(split("== a\nfork\nexit\n== b\nmaps\n"), [("a", "fork\nexit"), ("b", "maps\n")]);
        assert_eq!(split("fork\n"), []);
    }
}
