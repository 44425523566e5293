//! `/proc/PID/pagemap`: a 64-bit word for each page of the address space.

use alloc::sync::Arc;
use mm::{Errno, FrameKind, MappedPage, PAGE_SIZE, PageRange, TASK_SIZE};

use super::process;
use crate::fs::File;
use crate::fs::file::{FileOps, Seek};
use crate::fs::io::{Sink, Source, partial};
use crate::task::process::Space;

/// Bytes of a word.
const WORD: usize = 8;
/// Words that one step makes.
const BATCH: usize = 64;

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

    /// The words of `range`, which is no longer than a batch.
    fn words(&self, range: PageRange) -> [u64; BATCH] {
        let mut words = [0; BATCH];
        self.0.for_each_page(range, |page| {
            if let Some(word) = words.get_mut((page.addr - range.start()) / PAGE_SIZE) {
                *word = word_of(page);
            }
        });
        self.0.for_each_swapped(range, |addr, slot| {
            if let Some(word) = words.get_mut((addr - range.start()) / PAGE_SIZE) {
                // The number of the device, of which there is one, has the lowest bits.
                *word = SWAPPED | u64::from(slot) << 5;
            }
        });
        words
    }
}

fn word_of(page: &MappedPage) -> u64 {
    let flag = |set, flag| if set { flag } else { 0 };
    PRESENT
        | flag(page.kind == FrameKind::Object, FILE)
        | flag(page.kind != FrameKind::Zero && page.sharers == 1, EXCLUSIVE)
        | page.pfn.0 as u64
}

impl FileOps for PageMap {
    fn read(&self, _: &File, sink: &mut Sink<'_>, offset: u64) -> Result<usize, Errno> {
        if !offset.is_multiple_of(WORD as u64) || !sink.remaining().is_multiple_of(WORD) {
            return Err(Errno::EINVAL);
        }
        let mut page = usize::try_from(offset / WORD as u64).map_err(|_| Errno::EINVAL)?;
        let mut done = 0;
        while sink.remaining() > 0 && page < TASK_SIZE / PAGE_SIZE {
            let count = (sink.remaining() / WORD).min(BATCH).min(TASK_SIZE / PAGE_SIZE - page);
            let Some(range) = PageRange::new(page * PAGE_SIZE, (page + count) * PAGE_SIZE) else { break };
            for word in &self.words(range)[..count] {
                match sink.put(&word.to_ne_bytes()) {
                    Ok(count) => done += count,
                    Err(error) => return partial(done, error),
                }
            }
            page += count;
        }
        Ok(done)
    }

    fn write(&self, _: &File, _: &mut Source<'_>, _offset: u64) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }

    fn seek(&self, _: &File) -> Seek {
        Seek::To(0)
    }
}
