//! Tests of the VMA tree and of merging, and the pictures they are drawn with.
//!
//! A picture has three rows, one character a page: which VMA (`a`, `b`, ... in
//! order; `.` is a hole), its flags (`w` for read and write, `r` for read,
//! `x` for read and execute), and its anon_vma (`1`, `2`, ... as they come;
//! `-` for none).

mod fork;
mod merge;
mod model;
mod modify;

use super::{Attributes, MergeWith, Needs, NewMapping, Spares, Vma, VmaTree, retire};
use crate::addr::{PAGE_SHIFT, PageRange};
use crate::flags::VmaFlags;
use crate::memory::Memory;
use crate::rmap::{self, AnonVma};
use crate::sim::{self, SimPlatform};
use crate::slab::Ref;

pub(crate) type Machine = Memory<SimPlatform>;
pub(crate) type Picture<'a> = [&'a str; 3];

/// The address that is page 0 of a picture.
pub(crate) const BASE: usize = 0x10_0000_0000;
pub(crate) const RW: VmaFlags = VmaFlags::READ.union(VmaFlags::WRITE);
pub(crate) const RO: VmaFlags = VmaFlags::READ;
pub(crate) const RX: VmaFlags = VmaFlags::READ.union(VmaFlags::EXEC);

pub(crate) fn addr(page: usize) -> usize {
    BASE + (page << PAGE_SHIFT)
}

pub(crate) fn pages(first: usize, end: usize) -> PageRange {
    PageRange::new(addr(first), addr(end)).expect("a range of pages")
}

/// The page index that a fresh VMA has at a page of the picture.
pub(crate) fn natural(page: usize) -> usize {
    addr(page) >> PAGE_SHIFT
}

pub(crate) fn anonymous(flags: VmaFlags) -> Attributes {
    Attributes { flags, object: None, name: 0 }
}

/// Runs a test with a machine of its own, and sees that it frees everything.
pub(crate) fn on_a_machine(test: impl FnOnce(&Machine)) {
    let memory = sim::memory(1, 4096);
    test(&memory);
    assert_eq!(in_use(&memory), [0; 4], "VMAs, chain links, anon_vmas, objects left");
}

/// How many VMAs, chain links, anon_vmas and objects there are.
pub(crate) fn in_use(memory: &Machine) -> [usize; 4] {
    let arenas = &memory.arenas;
    [arenas.vmas.in_use(), arenas.avcs.in_use(), arenas.anon_vmas.in_use(), arenas.objects.in_use()]
}

/// The VMAs of a process.
pub(crate) struct Process<'m> {
    pub(crate) memory: &'m Machine,
    pub(crate) tree: VmaTree,
}

impl<'m> Process<'m> {
    pub(crate) fn new(memory: &'m Machine) -> Process<'m> {
        Process { memory, tree: VmaTree::default() }
    }

    /// A process with the VMAs of a picture.
    pub(crate) fn draw(memory: &'m Machine, picture: Picture) -> Process<'m> {
        let mut process = Process::new(memory);
        let [names, flags, anon] = picture.map(str::as_bytes);
        assert!(names.len() == flags.len() && names.len() == anon.len(), "rows of different lengths");
        let mut owners: [Option<Ref<Vma>>; 256] = [None; 256];
        let mut first = 0;
        while first < names.len() {
            let mut end = first + 1;
            while end < names.len() && names[end] == names[first] {
                end += 1;
            }
            if names[first] != b'.' {
                let flags = match flags[first] {
                    b'w' => RW,
                    b'r' => RO,
                    b'x' => RX,
                    other => panic!("flags {:?}?", other as char),
                };
                let digit = anon[first] as usize;
                let vma = process.detached(pages(first, end), natural(first), anonymous(flags));
                match owners[digit] {
                    _ if digit == usize::from(b'-') => {}
                    None => {
                        // In no tree, it has no neighbour to share with.
                        rmap::prepare(memory, vma).expect("memory");
                        owners[digit] = Some(vma);
                    }
                    Some(owner) => process.chain_like(owner, vma),
                }
                process.insert(vma);
            }
            first = end;
        }
        process.expect(picture);
        process
    }

    /// Puts a VMA where it belongs.
    pub(crate) fn insert(&mut self, vma: Ref<Vma>) {
        let next = self.tree.find(vma.start());
        let prev = self.tree.before(next);
        self.tree.insert_between(prev, next, vma);
    }

    /// A VMA that is in no tree yet.
    pub(crate) fn detached(&self, range: PageRange, pgoff: usize, attributes: Attributes) -> Ref<Vma> {
        let mut spares = self.spares(Needs::map(None));
        super::map::create(&self.tree, self.memory, &mut spares, range, pgoff, &attributes, 7)
    }

    pub(crate) fn chain_like(&self, old: Ref<Vma>, new: Ref<Vma>) {
        let mut spares = self.spares(Needs::split(old));
        let root = AnonVma::root(old.anon_vma().expect("an anon_vma"));
        rmap::copy_chain(&root.lock(), &mut spares, old, new);
    }

    pub(crate) fn spares(&self, needs: Needs) -> Spares<'m> {
        Spares::reserve(self.memory, needs).expect("memory")
    }

    /// The VMA that has a page.
    pub(crate) fn at(&self, page: usize) -> Ref<Vma> {
        self.tree.lookup(addr(page)).expect("a VMA")
    }

    /// Write-faults a page.
    pub(crate) fn touch(&self, page: usize) {
        rmap::prepare(self.memory, self.at(page)).expect("memory");
    }

    /// Maps fresh anonymous memory.
    pub(crate) fn map(&mut self, first: usize, end: usize, flags: VmaFlags) -> Ref<Vma> {
        self.map_new(&NewMapping {
            range: pages(first, end),
            pgoff: natural(first),
            attributes: anonymous(flags),
            copied_from: None,
            merge: MergeWith::Any,
            space: 7,
        })
    }

    /// Maps a place for pages of `source` to move to, as `mremap` does.
    pub(crate) fn copy(&mut self, source: Ref<Vma>, first: usize, end: usize, from: usize) -> Ref<Vma> {
        let pgoff = match source.anon_vma() {
            Some(_) => source.index_of(addr(from)),
            None => natural(first),
        };
        self.map_new(&NewMapping {
            range: pages(first, end),
            pgoff,
            attributes: source.attributes(),
            copied_from: Some(source),
            merge: MergeWith::Any,
            space: 7,
        })
    }

    pub(crate) fn map_new(&mut self, new: &NewMapping) -> Ref<Vma> {
        let plan = self.tree.plan_map(new);
        let mut spares = self.spares(plan.needs());
        let limit = self.tree.len() + plan.needs().vmas();
        let vma = plan.commit(&mut self.tree, self.memory, &mut spares);
        assert!(self.tree.len() <= limit);
        assert!(vma.start() <= new.range.start() && new.range.end() <= vma.end());
        vma
    }

    /// Changes the flags of a range in one VMA.
    pub(crate) fn modify(&mut self, first: usize, end: usize, flags: VmaFlags) -> Ref<Vma> {
        let vma = self.at(first);
        let plan = self.tree.plan_modify(vma, pages(first, end), flags, vma.name());
        let limit = self.tree.len() + plan.needs().vmas();
        let mut spares = self.spares(plan.needs());
        let vma = plan.commit(&mut self.tree, self.memory, &mut spares);
        assert!(self.tree.len() <= limit);
        assert!(vma.start() <= addr(first) && addr(end) <= vma.end());
        assert_eq!(vma.flags(), flags);
        vma
    }

    /// What splitting at both ends of a range needs.
    pub(crate) fn edges(&self, range: PageRange) -> Needs {
        let cut = |addr: usize| match self.tree.lookup(addr) {
            Some(vma) if vma.start() < addr => Needs::split(vma),
            _ => Needs::NONE,
        };
        cut(range.start()) + cut(range.end())
    }

    pub(crate) fn unmap(&mut self, first: usize, end: usize) {
        let range = pages(first, end);
        let mut spares = self.spares(self.edges(range));
        for cut in [range.start(), range.end()] {
            if let Some(vma) = self.tree.lookup(cut)
                && vma.start() < cut
            {
                self.tree.split(self.memory, vma, cut, &mut spares);
            }
        }
        for vma in self.tree.overlapping(range.start(), range.end()) {
            self.tree.remove(vma);
            retire(self.memory, vma);
        }
    }

    pub(crate) fn fork(&self) -> Process<'m> {
        let mut child = Process::new(self.memory);
        for vma in self.tree.iter() {
            let mut spares = self.spares(Needs::fork(vma));
            child.tree.append_fork(self.memory, vma, vma.flags(), 8, &mut spares);
        }
        child
    }

    /// Checks everything, and that the picture is this. The rows may be
    /// shorter or longer than what is mapped.
    #[track_caller]
    pub(crate) fn expect(&self, picture: Picture) {
        self.tree.verify();
        rmap::verify(self.tree.iter());
        let mut rows = [String::new(), String::new(), String::new()];
        let mut anon_vmas = Vec::new();
        for (number, vma) in self.tree.iter().enumerate() {
            let first = (vma.start() - BASE) >> PAGE_SHIFT;
            let end = (vma.end() - BASE) >> PAGE_SHIFT;
            let anon = match vma.anon_vma() {
                None => '-',
                Some(anon_vma) => {
                    let known = anon_vmas.iter().position(|&known| known == anon_vma);
                    let index = known.unwrap_or(anon_vmas.len());
                    if known.is_none() {
                        anon_vmas.push(anon_vma);
                    }
                    (b'1' + index as u8) as char
                }
            };
            let flags = match vma.flags() & VmaFlags::ACCESS {
                RW => 'w',
                RO => 'r',
                RX => 'x',
                _ => '?',
            };
            let name = (b'a' + number as u8) as char;
            for (row, char) in rows.iter_mut().zip([name, flags, anon]) {
                row.extend(std::iter::repeat_n('.', first - row.len()));
                row.extend(std::iter::repeat_n(char, end - first));
            }
        }
        let trim = |row: &str| row.trim_end_matches('.').to_owned();
        assert_eq!(rows.map(|row| trim(&row)), picture.map(trim));
    }
}

impl Drop for Process<'_> {
    fn drop(&mut self) {
        self.tree.clear(self.memory);
    }
}
