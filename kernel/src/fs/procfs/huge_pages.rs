//! The files of `/sys`: what can be set of memory management there.

use mm::{Errno, HugePages, PMD_SIZE};

use crate::fs::page::Text;
use crate::memory::memory;

/// A file in `/sys/kernel/mm`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Attribute {
    /// `transparent_hugepage/enabled`
    Enabled,
    /// `transparent_hugepage/hpage_pmd_size`
    PageSize,
    /// `transparent_hugepage/use_zero_page`: a read fault makes a page of its own.
    ZeroPage,
}

/// What `transparent_hugepage/enabled` can be.
const HUGE_PAGES: [(&str, HugePages); 3] =
    [("always", HugePages::Always), ("madvise", HugePages::Madvise), ("never", HugePages::Never)];

impl Attribute {
    /// Whether it can be changed.
    pub fn is_writable(self) -> bool {
        matches!(self, Attribute::Enabled)
    }

    /// Writes the value, with a newline, into `text`.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn show(self, text: &mut Text) -> Result<(), Errno> {
        let number = match self {
            Attribute::Enabled => return show_choice(&HUGE_PAGES, memory().sysctl().huge_pages(), text),
            Attribute::PageSize => PMD_SIZE,
            Attribute::ZeroPage => 0,
        };
        text.put(format_args!("{number}\n"))
    }

    /// Sets the value that `line` spells.
    ///
    /// # Errors
    /// `EACCES` if it cannot be changed, `EINVAL` if there is no such value.
    pub fn store(self, line: &[u8]) -> Result<(), Errno> {
        match self {
            Attribute::Enabled => memory().sysctl().set_huge_pages(choice(&HUGE_PAGES, line)?),
            _ => return Err(Errno::EACCES),
        }
        Ok(())
    }
}

/// Writes all that a setting can be, with what it is in brackets.
fn show_choice<T: Copy + PartialEq>(choices: &[(&str, T)], is: T, text: &mut Text) -> Result<(), Errno> {
    for (number, &(name, value)) in choices.iter().enumerate() {
        let space = if number == 0 { "" } else { " " };
        let (open, close) = if value == is { ("[", "]") } else { ("", "") };
        text.put(format_args!("{space}{open}{name}{close}"))?;
    }
    text.push(b"\n")
}

/// What of that `line` names.
fn choice<T: Copy>(choices: &[(&str, T)], line: &[u8]) -> Result<T, Errno> {
    let found = choices.iter().find(|(name, _)| name.as_bytes() == line.trim_ascii());
    found.map(|&(_, value)| value).ok_or(Errno::EINVAL)
}
