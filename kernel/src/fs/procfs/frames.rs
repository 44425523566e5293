//! `/proc/kpagecount` and `/proc/kpageflags`: a 64-bit word for each frame of memory.

use mm::{Errno, Frame, FrameKind, Pfn};

use super::words;
use crate::fs::File;
use crate::fs::file::{FileOps, Seek};
use crate::fs::io::{Sink, Source};
use crate::memory::memory;

/// Bits of `<linux/kernel-page-flags.h>`.
mod flag {
    pub const UP_TO_DATE: u64 = 1 << 3;
    pub const SLAB: u64 = 1 << 7;
    pub const BUDDY: u64 = 1 << 10;
    pub const MAPPED: u64 = 1 << 11;
    pub const ANON: u64 = 1 << 12;
    pub const SWAP_CACHE: u64 = 1 << 13;
    pub const SWAP_BACKED: u64 = 1 << 14;
    pub const NO_PAGE: u64 = 1 << 20;
    pub const KSM: u64 = 1 << 21;
    pub const ZERO_PAGE: u64 = 1 << 24;
    pub const PAGE_TABLE: u64 = 1 << 26;
}

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameFile {
    /// `kpagecount`: how often the frame is mapped.
    Count,
    /// `kpageflags`: what it is.
    Flags,
}

impl FrameFile {
    fn word(self, frame: &Frame) -> u64 {
        match self {
            FrameFile::Count => u64::from(frame.mapcount()),
            FrameFile::Flags => flags(frame),
        }
    }
}

fn flags(frame: &Frame) -> u64 {
    let given = |condition, flag| if condition { flag } else { 0 };
    let mapped = given(frame.mapcount() != 0, flag::MAPPED);
    match frame.kind() {
        FrameKind::Anon => {
            let kept = given(!frame.is_lazy_free(), flag::SWAP_BACKED);
            let cached = given(frame.is_in_swap_cache(), flag::SWAP_CACHE);
            let merged = given(frame.is_merged(), flag::KSM);
            flag::UP_TO_DATE | flag::ANON | mapped | kept | cached | merged
        }
        FrameKind::Object => flag::UP_TO_DATE | flag::SWAP_BACKED | mapped,
        FrameKind::Table => flag::PAGE_TABLE,
        FrameKind::Slab => flag::SLAB,
        FrameKind::Free => flag::BUDDY,
        FrameKind::Zero => flag::ZERO_PAGE,
        FrameKind::Reserved => flag::NO_PAGE,
        FrameKind::Kernel | FrameKind::ObjectIndex => 0,
    }
}

impl FileOps for FrameFile {
    fn read(&self, _: &File, sink: &mut Sink<'_>, offset: u64) -> Result<usize, Errno> {
        words::read(sink, offset, memory().end_frame().0, |first, words| {
            for (pfn, word) in (first..).zip(words) {
                *word = self.word(memory().frame(Pfn(pfn)));
            }
        })
    }

    fn write(&self, _: &File, _: &mut Source<'_>, _offset: u64) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }

    fn seek(&self, _: &File) -> Seek {
        Seek::To(0)
    }
}
