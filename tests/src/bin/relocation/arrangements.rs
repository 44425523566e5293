//! What moves, what is there already, and what comes of it.

use tests::case::Outcome;
use tests::check_eq;
use tests::sys::{R, RW};

use crate::stage::Stage;
use crate::{MUST, RELOCATE};

/// A move, drawn.
pub struct Arrangement {
    pub title: &'static str,
    /// Maps what `before` shows.
    prepare: fn(&Stage, &str) -> Outcome,
    before: &'static str,
    /// The move, with these flags, and what else the title says.
    act: fn(&Stage, usize) -> Outcome,
    /// What is mapped then, if the flag is not among them.
    without: &'static str,
    /// What is mapped then, if it is.
    with: &'static str,
}

impl Arrangement {
    /// Draws and checks it; all of it, or only what needs no flag.
    pub fn run(&self, without: bool) -> Outcome {
        println!("   before   {}", self.before);
        self.check("without", 0, self.without)?;
        if !without {
            self.check("with", RELOCATE, self.with)?;
            self.check("strictly", MUST, self.with)?;
        }
        Ok(())
    }

    fn check(&self, how: &str, flags: usize, expected: &str) -> Outcome {
        let stage = Stage::new()?;
        (self.prepare)(&stage, self.before)?;
        (self.act)(&stage, flags)?;
        let after = stage.drawing();
        println!("   {how:<8} {after}");
        check_eq!(after, expected);
        Ok(())
    }
}

const DRAWN: fn(&Stage, &str) -> Outcome = Stage::map_drawing;

/// Five pages, from page 20 to page 5.
const FIVE: fn(&Stage, usize) -> Outcome = |stage, flags| stage.remap(20, 5, 5, flags, 5);

/// All of them.
pub const ALL: &[Arrangement] = &[
    Arrangement {
        title: "Written memory moves behind memory that was never written to",
        prepare: DRAWN,
        before: "[. . . . .]                             [a b c d e]",
        act: FIVE,
        without: "[. . . . .|a b c d e]",
        with: "[. . . . . a b c d e]",
    },
    Arrangement {
        title: "In front of memory that was never written to",
        prepare: DRAWN,
        before: "                    [. . . . .]         [a b c d e]",
        act: FIVE,
        without: "          [a b c d e|. . . . .]",
        with: "          [a b c d e . . . . .]",
    },
    Arrangement {
        title: "Between two that were never written to",
        prepare: DRAWN,
        before: "[. . . . .]         [. . . . .]         [a b c d e]",
        act: FIVE,
        without: "[. . . . .|a b c d e|. . . . .]",
        with: "[. . . . . a b c d e . . . . .]",
    },
    Arrangement {
        title: "Behind memory that was written to",
        prepare: DRAWN,
        before: "[1 2 3 4 5]                             [a b c d e]",
        act: FIVE,
        without: "[1 2 3 4 5|a b c d e]",
        with: "[1 2 3 4 5 a b c d e]",
    },
    Arrangement {
        title: "In front of memory that was written to",
        prepare: DRAWN,
        before: "                    [6 7 8 9 0]         [a b c d e]",
        act: FIVE,
        without: "          [a b c d e|6 7 8 9 0]",
        with: "          [a b c d e 6 7 8 9 0]",
    },
    Arrangement {
        title: "Between one that was written to and one that was not",
        prepare: DRAWN,
        before: "[1 2 3 4 5]         [. . . . .]         [a b c d e]",
        act: FIVE,
        without: "[1 2 3 4 5|a b c d e|. . . . .]",
        with: "[1 2 3 4 5 a b c d e . . . . .]",
    },
    Arrangement {
        title: "Between one that was not written to and one that was",
        prepare: DRAWN,
        before: "[. . . . .]         [6 7 8 9 0]         [a b c d e]",
        act: FIVE,
        without: "[. . . . .|a b c d e|6 7 8 9 0]",
        with: "[. . . . . a b c d e 6 7 8 9 0]",
    },
    Arrangement {
        title: "Between two that were written to each on its own: they never merge, so with the latter",
        prepare: DRAWN,
        before: "[1 2 3 4 5]         [6 7 8 9 0]         [a b c d e]",
        act: FIVE,
        without: "[1 2 3 4 5|a b c d e|6 7 8 9 0]",
        with: "[1 2 3 4 5|a b c d e 6 7 8 9 0]",
    },
    Arrangement {
        title: "Into the hole in one that was written to as a whole",
        prepare: |stage, before| {
            stage.map_drawing("[1 2 3 4 5 x x x x x 6 7 8 9 0]         [a b c d e]")?;
            stage.unmap(5, 10)?;
            check_eq!(stage.drawing(), before);
            Ok(())
        },
        before: "[1 2 3 4 5]         [6 7 8 9 0]         [a b c d e]",
        act: FIVE,
        without: "[1 2 3 4 5|a b c d e|6 7 8 9 0]",
        with: "[1 2 3 4 5 a b c d e 6 7 8 9 0]",
    },
    Arrangement {
        title: "To where nothing is; what is mapped and written beside it comes later",
        prepare: DRAWN,
        before: "                                        [a b c d e]",
        act: |stage, flags| {
            FIVE(stage, flags)?;
            stage.map(0, "12345")?;
            stage.map(10, "67890")
        },
        without: "[1 2 3 4 5|a b c d e|6 7 8 9 0]",
        with: "[1 2 3 4 5 a b c d e 6 7 8 9 0]",
    },
    Arrangement {
        title: "A part of a mapping",
        prepare: DRAWN,
        before: "[1 2 3 4 5]                             [v w a b c d e y z]",
        act: |stage, flags| stage.remap(22, 5, 5, flags, 5),
        without: "[1 2 3 4 5|a b c d e]                   [v w]         [y z]",
        with: "[1 2 3 4 5 a b c d e]                   [v w]         [y z]",
    },
    Arrangement {
        title: "The front of a mapping, behind its back",
        prepare: DRAWN,
        before: "[a b c d e 1 2 3 4 5 6]",
        act: |stage, flags| stage.remap(0, 5, 5, flags, 11),
        without: "          [1 2 3 4 5 6|a b c d e]",
        with: "          [1 2 3 4 5 6 a b c d e]",
    },
    Arrangement {
        title: "Two parts of different mappings, side by side",
        prepare: DRAWN,
        before: "                    [a b x x]           [y c d e y]",
        act: |stage, flags| {
            stage.remap(10, 2, 2, flags, 2)?;
            stage.remap(21, 3, 3, flags, 4)
        },
        without: "    [a b|c d e]         [x x]           [y]     [y]",
        with: "    [a b c d e]         [x x]           [y]     [y]",
    },
    Arrangement {
        title: "In some of the pages nothing was ever written",
        prepare: DRAWN,
        before: "[1 . 3 . 5]         [. 7 . 9 .]         [. b . d .]",
        act: FIVE,
        without: "[1 . 3 . 5|. b . d .|. 7 . 9 .]",
        with: "[1 . 3 . 5|. b . d . . 7 . 9 .]",
    },
    Arrangement {
        title: "Made read-only before it moves, and writable again at its new place",
        prepare: DRAWN,
        before: "[1 2 3 4 5]                             [a b c d e]",
        act: |stage, flags| {
            stage.protect(20, 25, R)?;
            FIVE(stage, flags)?;
            check_eq!(stage.drawing(), "[1 2 3 4 5|a b c d e]");
            stage.protect(5, 10, RW)
        },
        without: "[1 2 3 4 5|a b c d e]",
        with: "[1 2 3 4 5 a b c d e]",
    },
    Arrangement {
        title: "Split in three by mprotect before all of it moves, and then writable again",
        prepare: |stage, before| {
            stage.map_drawing("[1 2 3 4 5]                             [a b c d e]")?;
            stage.protect(22, 23, R)?;
            check_eq!(stage.drawing(), before);
            Ok(())
        },
        before: "[1 2 3 4 5]                             [a b|c|d e]",
        act: |stage, flags| {
            FIVE(stage, flags)?;
            stage.protect(7, 8, RW)
        },
        without: "[1 2 3 4 5|a b c d e]",
        with: "[1 2 3 4 5 a b c d e]",
    },
    Arrangement {
        title: "Split by mprotect after it has moved, across both, and writable again",
        prepare: DRAWN,
        before: "[1 2 3 4 5]                             [a b c d e]",
        act: |stage, flags| {
            FIVE(stage, flags)?;
            stage.protect(3, 7, R)?;
            stage.protect(3, 7, RW)
        },
        without: "[1 2 3 4 5|a b c d e]",
        with: "[1 2 3 4 5 a b c d e]",
    },
    Arrangement {
        title: "It grows as it moves",
        prepare: DRAWN,
        before: "[1 2 3 4 5]                             [a b c d e]",
        act: |stage, flags| stage.remap(20, 5, 8, flags, 5),
        without: "[1 2 3 4 5|a b c d e . . .]",
        with: "[1 2 3 4 5 a b c d e . . .]",
    },
    Arrangement {
        title: "It shrinks as it moves",
        prepare: DRAWN,
        before: "[1 2 3 4 5]                             [a b c d e]",
        act: |stage, flags| stage.remap(20, 5, 3, flags, 5),
        without: "[1 2 3 4 5|a b c]",
        with: "[1 2 3 4 5 a b c]",
    },
    Arrangement {
        title: "With MREMAP_DONTUNMAP: the mapping stays, without its pages",
        prepare: DRAWN,
        before: "[1 2 3 4 5]                             [a b c d e]",
        act: |stage, flags| stage.remap(20, 5, 5, flags | tests::sys::DONTUNMAP, 5),
        without: "[1 2 3 4 5|a b c d e]                   [. . . . .]",
        with: "[1 2 3 4 5 a b c d e]                   [. . . . .]",
    },
    Arrangement {
        title: "Next to where it was",
        prepare: DRAWN,
        before: "[1 2 3 4 5]         [a b c d e]",
        act: |stage, flags| stage.remap(10, 5, 5, flags, 5),
        without: "[1 2 3 4 5|a b c d e]",
        with: "[1 2 3 4 5 a b c d e]",
    },
    Arrangement {
        title: "With MREMAP_DONTUNMAP, next to itself: never one with what it left",
        prepare: DRAWN,
        before: "[1 2 3 4 5]         [a b c d e]",
        act: |stage, flags| stage.remap(10, 5, 5, flags | tests::sys::DONTUNMAP, 5),
        without: "[1 2 3 4 5|a b c d e|. . . . .]",
        with: "[1 2 3 4 5 a b c d e|. . . . .]",
    },
    Arrangement {
        title: "Over what is there, in the middle of it",
        prepare: DRAWN,
        before: "[1 2 3 4 5 x x x x x 6 7 8 9 0]         [a b c d e]",
        act: FIVE,
        without: "[1 2 3 4 5|a b c d e|6 7 8 9 0]",
        with: "[1 2 3 4 5 a b c d e 6 7 8 9 0]",
    },
    Arrangement {
        title: "Several mappings with the gaps between them",
        prepare: DRAWN,
        before: "[1 2 3 4 5]                             [a b]   [d e]",
        act: |stage, flags| {
            stage.map(13, "67")?;
            stage.remap(20, 6, 6, flags, 5)
        },
        without: "[1 2 3 4 5|a b]   [d e]   [6 7]",
        with: "[1 2 3 4 5 a b]   [d e]   [6 7]",
    },
    Arrangement {
        title: "Away, and back to where it came from",
        prepare: DRAWN,
        before: "[1 2 3 4 5 a b c d e 6 7 8 9 0]",
        act: |stage, flags| {
            stage.remap(5, 5, 5, flags, 20)?;
            stage.remap(20, 5, 5, flags, 5)
        },
        without: "[1 2 3 4 5 a b c d e 6 7 8 9 0]",
        with: "[1 2 3 4 5 a b c d e 6 7 8 9 0]",
    },
    Arrangement {
        title: "Never written to: it merges as it is",
        prepare: DRAWN,
        before: "[1 2 3 4 5]         [6 7 8 9 0]         [. . . . .]",
        act: FIVE,
        without: "[1 2 3 4 5 . . . . .|6 7 8 9 0]",
        with: "[1 2 3 4 5 . . . . .|6 7 8 9 0]",
    },
    Arrangement {
        title: "A thousand steps through free space, the last to its neighbours",
        prepare: DRAWN,
        before: "[1 2 3 4 5]         [. . . . .]                     [a b c d e]",
        act: |stage, flags| {
            let mut at = 26;
            for step in 0..999 {
                let to = [16, 21, 26][step % 3];
                stage.remap(at, 5, 5, flags, to)?;
                at = to;
            }
            stage.remap(at, 5, 5, flags, 5)
        },
        without: "[1 2 3 4 5|a b c d e|. . . . .]",
        with: "[1 2 3 4 5 a b c d e . . . . .]",
    },
];
