//! All that can be observed of an address space, to compare before and after.

use super::PAGE;
use crate::paging::{Entry, EntryFlags, Visit};
use crate::sim::SimPlatform;
use crate::{AddressSpace, FrameKind, VmaFlags};

/// What a program, `/proc` and the reverse mapping could tell apart.
///
/// Not part of it: memory of the crate's own that stays allocated for later
/// (arenas keep theirs, and so do page tables where something is mapped), whether a
/// page is a part of a huge one, and whether an entry was used or written through.
#[derive(Clone, PartialEq, Debug)]
pub struct Snapshot {
    pub vmas: Vec<VmaState>,
    pub pages: Vec<PageState>,
    /// Counters that are in pages, by name.
    counters: Vec<(&'static str, usize)>,
}

#[derive(Clone, PartialEq, Debug)]
pub struct VmaState {
    start: usize,
    end: usize,
    flags: VmaFlags,
    pgoff: usize,
    object: usize,
    pub anon_vma: usize,
}

#[derive(Clone, PartialEq, Debug)]
pub struct PageState {
    addr: usize,
    pub entry: Entry,
    mapping: usize,
    index: usize,
    contents: u64,
}

impl Snapshot {
    pub fn of(space: &AddressSpace<'_, SimPlatform>) -> Snapshot {
        let mem = space.mem;
        let state = space.mmap.read();
        let vmas = state.vmas.iter().map(|vma| VmaState {
            start: vma.start(),
            end: vma.end(),
            flags: vma.flags(),
            pgoff: vma.pgoff(),
            object: vma.object().map_or(0, |object| object.as_usize()),
            anon_vma: vma.anon_vma().map_or(0, |anon_vma| anon_vma.as_usize()),
        });
        let vmas = vmas.collect();
        drop(state);
        let mut pages = Vec::new();
        space.core.tables.verify(mem, |visit| {
            let Visit::Leaf { addr, entry, .. } = visit else { return };
            for (i, pfn) in entry.pfns().enumerate() {
                let (addr, record) = (addr + i * PAGE, mem.frame(pfn));
                pages.push(PageState {
                    addr,
                    entry: entry.pte_for(addr).without(EntryFlags::ACCESSED | EntryFlags::DIRTY),
                    mapping: record.mapping(),
                    index: record.index(),
                    contents: sum(mem.page_ptr(pfn)),
                });
            }
        });
        let stats = space.stats();
        let counters = vec![
            ("total", stats.total_vm),
            ("peak", stats.peak_vm),
            ("data", stats.data_vm),
            ("stack", stats.stack_vm),
            ("exec", stats.exec_vm),
            ("locked", stats.locked_vm),
            ("resident private", stats.rss_anon),
            ("resident of objects", stats.rss_shmem),
            ("end of the heap", stats.brk),
            ("committed", mem.committed()),
            ("private frames", mem.count_frames(FrameKind::Anon)),
            ("frames of objects", mem.count_frames(FrameKind::Object)),
        ];
        Snapshot { vmas, pages, counters }
    }

    /// The same, but for what no program can see: which anon_vma a VMA has,
    /// whether a page has to be copied by the next write, and pages of zeroes
    /// that an object has gained.
    pub fn seen_by_a_program(mut self) -> Snapshot {
        for vma in &mut self.vmas {
            vma.anon_vma = 0;
        }
        for page in &mut self.pages {
            page.entry = page.entry.without(EntryFlags::WRITE);
        }
        self.counters.retain(|(name, _)| *name != "frames of objects");
        self
    }
}

fn sum(page: *const u8) -> u64 {
    let words = page.cast::<u64>();
    // SAFETY: the page is one of the simulated RAM, which stays, and nobody
    // writes to it now.
    let words = unsafe { core::slice::from_raw_parts(words, PAGE / 8) };
    words.iter().fold(0, |sum, word| sum.rotate_left(7) ^ word)
}
