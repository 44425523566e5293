//! What is mapped, drawn, and mapped as drawn.
//!
//! ```text
//!   [1 2 3 4 5|a b . d e]         [x y]
//! ```
//!
//! are three mappings, the first two side by side. Each page of theirs shows what is
//! written in it, or a dot for zeroes. Two columns are a page.

use tests::arena::Arena;
use tests::case::Outcome;
use tests::sys::{self, RW, Result};
use tests::{check_eq, maps, mem};

/// Pages of the stage.
pub const PAGES: usize = 32;

/// Free address space, whose ends nothing merges with.
pub struct Stage {
    arena: Arena,
}

impl Stage {
    pub fn new() -> Result<Stage> {
        Ok(Stage { arena: Arena::new(PAGES)? })
    }

    /// Address of page `page`.
    pub fn at(&self, page: usize) -> usize {
        self.arena.at(page)
    }

    /// Maps from page `first` on as many pages as `contents` has characters, each with
    /// that written to it, but nothing to those with a dot.
    pub fn map(&self, first: usize, contents: &str) -> Outcome {
        self.arena.map(first, first + contents.len(), RW)?;
        self.write(first, contents)
    }

    /// Writes to pages from `first` on.
    pub fn write(&self, first: usize, contents: &str) -> Outcome {
        for (i, byte) in contents.bytes().enumerate().filter(|&(_, byte)| byte != b'.') {
            mem::write(self.at(first + i), byte)?;
            mem::write(self.at(first + i) + sys::PAGE - 1, byte)?;
        }
        Ok(())
    }

    /// Maps what a drawing shows, each mapping by one call, from left to right.
    pub fn map_drawing(&self, drawing: &str) -> Outcome {
        let mut rest = drawing;
        while let Some((before, after)) = rest.split_once('[') {
            let (inside, behind) = after.split_once(']').ok_or("no closing bracket")?;
            let column = drawing.len() - rest.len() + before.len();
            let contents: String = inside.chars().step_by(2).collect();
            self.map(column / 2, &contents)?;
            rest = behind;
        }
        check_eq!(self.drawing(), drawing);
        Ok(())
    }

    /// Moves `pages` pages, with flags.
    pub fn remap(&self, from: usize, pages: usize, new_pages: usize, flags: usize, to: usize) -> Outcome {
        check_eq!(self.arena.remap(from, from + pages, new_pages, sys::TO | flags, to)?, self.at(to));
        Ok(())
    }

    pub fn protect(&self, first: usize, last: usize, prot: usize) -> Outcome {
        self.arena.protect(first, last, prot)?;
        Ok(())
    }

    pub fn unmap(&self, first: usize, last: usize) -> Outcome {
        self.arena.unmap(first, last)?;
        Ok(())
    }

    /// What is mapped, by `/proc/self/maps`, and what is in it.
    pub fn drawing(&self) -> String {
        let mappings = maps::within(self.at(0), self.at(PAGES));
        let owner = |page: usize| mappings.iter().position(|m| (m.start..m.end).contains(&self.at(page)));
        let mut drawing = String::new();
        let mut last = None;
        for page in 0..=PAGES {
            let here = if page < PAGES { owner(page) } else { None };
            drawing.push(match (last, here) {
                (None, None) => ' ',
                (None, Some(_)) => '[',
                (Some(_), None) => ']',
                (Some(before), Some(after)) => {
                    if before == after {
                        ' '
                    } else {
                        '|'
                    }
                }
            });
            drawing.push(here.map_or(' ', |_| self.contents(page)));
            last = here;
        }
        drawing.trim_end().to_owned()
    }

    /// What is written in a page, at either end.
    fn contents(&self, page: usize) -> char {
        match (mem::read(self.at(page)), mem::read(self.at(page) + sys::PAGE - 1)) {
            (Ok(0), Ok(0)) => '.',
            (Ok(first), Ok(last)) if first == last && first.is_ascii_graphic() => char::from(first),
            _ => '?',
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.arena.unmap(0, PAGES);
    }
}
