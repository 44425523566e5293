//! `/proc/PID/pagemap`: a 64-bit word for each page of the address space.

use alloc::sync::Arc;
use mm::{Errno, FrameKind, MappedPage, PAGE_SIZE, PageRange, PageState, TASK_SIZE};

use super::{process, words};
use crate::fs::File;
use crate::fs::file::{FileOps, Seek};
use crate::fs::io::{Sink, Source};
use crate::task::process::Space;

const SOFT_DIRTY: u64 = 1 << 55;
const EXCLUSIVE: u64 = 1 << 56;
const FILE: u64 = 1 << 61;
const SWAPPED: u64 = 1 << 62;
const PRESENT: u64 = 1 << 63;

/// Keeps the address space that the process had when the file was opened.
pub struct PageMap(Arc<Space>);

impl PageMap {
    /// The pages of process `pid`.
    ///
    /// # Errors
    /// `ESRCH` if it has none (any more).
    pub fn of(pid: u32) -> Result<PageMap, Errno> {
        process::space(pid).map(PageMap)
    }

    /// Makes the words of the pages from number `first` on.
    fn fill(&self, first: usize, words: &mut [u64]) {
        let Some(range) = PageRange::new(first * PAGE_SIZE, (first + words.len()) * PAGE_SIZE) else { return };
        let number = |addr: usize| (addr - range.start()) / PAGE_SIZE;
        self.0.for_each_page_state(range, |state| {
            let (addr, word) = match state {
                PageState::SoftDirty(part) => {
                    let words = words.get_mut(number(part.start())..number(part.end())).unwrap_or_default();
                    return words.fill(SOFT_DIRTY);
                }
                PageState::Mapped(page) => (page.addr, word_of(page)),
                // The number of the device, of which there is one, has the lowest bits.
                &PageState::Swapped { addr, slot, soft_dirty } => {
                    (addr, SWAPPED | flag(soft_dirty, SOFT_DIRTY) | u64::from(slot) << 5)
                }
            };
            if let Some(place) = words.get_mut(number(addr)) {
                *place |= word;
            }
        });
    }
}

fn flag(set: bool, flag: u64) -> u64 {
    if set { flag } else { 0 }
}

fn word_of(page: &MappedPage) -> u64 {
    PRESENT
        | flag(page.soft_dirty, SOFT_DIRTY)
        | flag(page.kind == FrameKind::Object, FILE)
        | flag(page.kind != FrameKind::Zero && page.sharers == 1, EXCLUSIVE)
        | page.pfn.0 as u64
}

impl FileOps for PageMap {
    fn read(&self, _: &File, sink: &mut Sink<'_>, offset: u64) -> Result<usize, Errno> {
        words::read(sink, offset, TASK_SIZE / PAGE_SIZE, |first, words| self.fill(first, words))
    }

    fn write(&self, _: &File, _: &mut Source<'_>, _offset: u64) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }

    fn seek(&self, _: &File) -> Seek {
        Seek::To(0)
    }
}
