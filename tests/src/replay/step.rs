//! One step of a sequence, and its text: `mremap 3 2 2 maymove|fixed 17`.

use std::fmt;
use std::str::FromStr;

use crate::sys::PAGE;

/// A number that a step is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arg {
    /// Bytes at a scale of 1: whole pages are multiplied with the scale, and what is
    /// left is added. An address is counted from the arena's first byte.
    Scaled(usize),
    /// Just this number, wherever the arena is: bits, or an address or a length that
    /// makes no sense.
    Exact(usize),
}

impl Arg {
    /// `pages` whole pages, times the scale.
    pub fn pages(pages: usize) -> Arg {
        Arg::Scaled(pages * PAGE)
    }

    /// The number, with pages of `unit` bytes.
    pub fn bytes(self, unit: usize) -> usize {
        match self {
            Arg::Scaled(bytes) => bytes / PAGE * unit + bytes % PAGE,
            Arg::Exact(number) => number,
        }
    }
}

/// What an argument is, which decides how it is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An address.
    Place,
    /// A length, or an offset in the file.
    Length,
    /// A number as it is.
    Number,
    /// A set of bits with names.
    Bits(&'static [(&'static str, usize)]),
    /// One of several named values.
    OneOf(&'static [(&'static str, usize)]),
}

const PROT: Kind = Kind::Bits(&[("r", 1), ("w", 2), ("x", 4), ("sem", 8), ("down", 0x0100_0000), ("up", 0x0200_0000)]);
const MAP: Kind = Kind::Bits(&[
    ("shared", 1),
    ("private", 2),
    ("fixed", 0x10),
    ("low", 0x40),
    ("growsdown", 0x100),
    ("locked", 0x2000),
    ("noreserve", 0x4000),
    ("populate", 0x8000),
    ("nonblock", 0x1_0000),
    ("stack", 0x2_0000),
    ("noreplace", 0x10_0000),
]);
const REMAP: Kind = Kind::Bits(&[("maymove", 1), ("fixed", 2), ("dontunmap", 4)]);
const ADVICE: Kind = Kind::OneOf(&[
    ("normal", 0),
    ("random", 1),
    ("sequential", 2),
    ("willneed", 3),
    ("dontneed", 4),
    ("remove", 9),
    ("dontfork", 10),
    ("dofork", 11),
    ("hugepage", 14),
    ("nohugepage", 15),
    ("dontdump", 16),
    ("dodump", 17),
    ("wipeonfork", 18),
    ("keeponfork", 19),
    ("cold", 20),
    ("populate_read", 22),
    ("populate_write", 23),
    ("dontneed_locked", 24),
]);
const LOCK: Kind = Kind::Bits(&[("onfault", 1)]);
const LOCK_ALL: Kind = Kind::Bits(&[("current", 1), ("future", 2), ("onfault", 4)]);
const SYNC: Kind = Kind::Bits(&[("async", 1), ("invalidate", 2), ("sync", 4)]);
const FILE: Kind = Kind::OneOf(&[("rw", 0), ("ro", 1)]);
const LIMIT: Kind = Kind::OneOf(&[("data", 2), ("stack", 3), ("as", 9)]);

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident $text:literal [$($kind:expr),*],)*) => {
        /// What a step does.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Call {
            $($(#[$doc])* $name,)*
        }

        impl Call {
            const ALL: &[Call] = &[$(Call::$name,)*];

            fn name(self) -> &'static str {
                match self { $(Call::$name => $text,)* }
            }

            /// What its arguments are.
            pub fn kinds(self) -> &'static [Kind] {
                match self { $(Call::$name => &[$($kind),*],)* }
            }
        }
    };
}

use Kind::{Length, Number, Place};

calls! {
    /// Without a file.
    Mmap "mmap" [Place, Length, PROT, MAP],
    /// Of the file, at an offset.
    MmapFile "mmap_file" [Place, Length, PROT, MAP, Length, FILE],
    Munmap "munmap" [Place, Length],
    Mprotect "mprotect" [Place, Length, PROT],
    Mremap "mremap" [Place, Length, Length, REMAP, Place],
    Madvise "madvise" [Place, Length, ADVICE],
    Mlock "mlock" [Place, Length],
    Mlock2 "mlock2" [Place, Length, LOCK],
    Munlock "munlock" [Place, Length],
    MlockAll "mlockall" [LOCK_ALL],
    MunlockAll "munlockall" [],
    Mincore "mincore" [Place, Length],
    Msync "msync" [Place, Length, SYNC],
    Mseal "mseal" [Place, Length],
    /// The break so far behind where it was at first.
    Brk "brk" [Length],
    /// Loads a byte.
    Peek "peek" [Place],
    /// Stores a byte.
    Poke "poke" [Place, Number],
    /// Calls what is there, if it is a `ret` or cannot be read.
    Jump "jump" [Place],
    /// Stores the first and the last byte of each unit, until one faults.
    Fill "fill" [Place, Length, Number],
    /// Loads those bytes.
    Sum "sum" [Place, Length],
    /// Has the kernel copy from the file to memory.
    Pread "pread" [Place, Length, Length],
    /// The reverse.
    Pwrite "pwrite" [Place, Length, Length],
    /// Sets a limit to so much more than there is now; of the stack, to so much.
    Limit "limit" [LIMIT, Length],
    /// Removes that limit.
    Unlimit "unlimit" [LIMIT],
    /// Makes another process, which is the one that goes on.
    Fork "fork" [],
    /// Lets another process go on.
    Switch "switch" [],
    /// Ends this process, if it is neither the first nor a parent; its parent goes on.
    Exit "exit" [],
    /// Shows the mappings.
    Maps "maps" [],
    /// Shows the mappings with all their flags and how many private pages they have.
    Flags "flags" [],
    /// Shows the totals.
    Status "status" [],
}

/// The most arguments that a call has.
const MOST: usize = 6;

/// A call with its arguments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    pub call: Call,
    args: [Arg; MOST],
}

impl Step {
    /// `args` are as many as the call takes.
    pub fn new(call: Call, args: &[Arg]) -> Step {
        assert_eq!(args.len(), call.kinds().len(), "{}", call.name());
        let mut all = [Arg::Exact(0); MOST];
        all[..args.len()].copy_from_slice(args);
        Step { call, args: all }
    }

    pub fn args(&self) -> &[Arg] {
        &self.args[..self.call.kinds().len()]
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.call.name())?;
        for (arg, kind) in self.args().iter().zip(self.call.kinds()) {
            f.write_str(" ")?;
            match (*arg, kind) {
                (Arg::Scaled(bytes), _) => {
                    write!(f, "{}", bytes / PAGE)?;
                    if bytes % PAGE != 0 {
                        write!(f, "+{}", bytes % PAGE)?;
                    }
                }
                (Arg::Exact(number), Number) => write!(f, "{number}")?,
                (Arg::Exact(bits), Kind::Bits(names)) => write_bits(f, names, bits)?,
                (Arg::Exact(value), Kind::OneOf(names)) => match names.iter().find(|(_, known)| *known == value) {
                    Some((name, _)) => f.write_str(name)?,
                    None => write!(f, "{value}")?,
                },
                (Arg::Exact(number), Place | Length) => write!(f, "={number:#x}")?,
            }
        }
        Ok(())
    }
}

/// Names joined by `|`, and a number for the bits that have none; `-` for no bits.
fn write_bits(f: &mut fmt::Formatter<'_>, names: &[(&str, usize)], bits: usize) -> fmt::Result {
    let (mut left, mut separator) = (bits, "");
    for (name, bit) in names {
        if left & bit != 0 {
            write!(f, "{separator}{name}")?;
            (left, separator) = (left & !bit, "|");
        }
    }
    match (left, separator) {
        (0, "") => f.write_str("-"),
        (0, _) => Ok(()),
        (left, separator) => write!(f, "{separator}{left:#x}"),
    }
}

fn number(word: &str) -> Option<usize> {
    match word.strip_prefix("0x") {
        Some(digits) => usize::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

fn named(names: &[(&str, usize)], word: &str) -> Option<usize> {
    names.iter().find(|(name, _)| *name == word).map(|(_, value)| *value).or_else(|| number(word))
}

fn parse_arg(kind: Kind, word: &str) -> Option<Arg> {
    match kind {
        Place | Length => match word.strip_prefix('=') {
            Some(exact) => number(exact).map(Arg::Exact),
            None => {
                let (pages, rest) = word.split_once('+').unwrap_or((word, "0"));
                Some(Arg::Scaled(number(pages)? * PAGE + number(rest)?))
            }
        },
        Number => number(word).map(Arg::Exact),
        Kind::OneOf(names) => named(names, word).map(Arg::Exact),
        Kind::Bits(_) if word == "-" => Some(Arg::Exact(0)),
        Kind::Bits(names) => word.split('|').try_fold(0, |bits, name| Some(bits | named(names, name)?)).map(Arg::Exact),
    }
}

impl FromStr for Step {
    type Err = String;

    fn from_str(text: &str) -> Result<Step, String> {
        let mut words = text.split_whitespace();
        let name = words.next().unwrap_or_default();
        let known = Call::ALL.iter().find(|call| call.name() == name);
        let call = *known.ok_or_else(|| format!("no such step: {text}"))?;
        let mut args = Vec::new();
        for kind in call.kinds() {
            let arg = words.next().and_then(|word| parse_arg(*kind, word));
            args.push(arg.ok_or_else(|| format!("not the arguments of {name}: {text}"))?);
        }
        match words.next() {
            None => Ok(Step::new(call, &args)),
            Some(_) => Err(format!("too many arguments: {text}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Arg, Call, Step};
    use crate::sys::PAGE;

    #[test]
    fn text_and_step_are_the_same() {
        for text in [
            "mmap 3 2+7 r|w private|fixed",
            "mmap =0x0 =0xffffffffffffffff - private|0x40000000",
            "mmap_file 0 4 r shared 2 ro",
            "mremap 3 2 2 maymove|fixed 17",
            "madvise 1 1 dontneed",
            "madvise 1 1 77",
            "poke 12+4095 200",
            "fork",
        ] {
            assert_eq!(text.parse::<Step>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "frob 1", "munmap 1", "munmap 1 2 3", "mprotect 1 1 q", "munmap x 1"] {
            assert!(text.parse::<Step>().is_err(), "{text}");
        }
    }

    #[test]
    fn whole_pages_are_scaled() {
        assert_eq!(Arg::Scaled(3 * PAGE + 5).bytes(10 * PAGE), 30 * PAGE + 5);
        assert_eq!(Arg::Exact(3 * PAGE + 5).bytes(10 * PAGE), 3 * PAGE + 5);
        assert_eq!(Step::new(Call::Brk, &[Arg::pages(2)]).to_string(), "brk 2");
    }
}
