//! What the random sequences consist of.

use std::ops::Range;

use proptest::prelude::*;

use super::{FILE_PAGES, HUGE_WINDOW, MAX_PROCESSES, WINDOWS};
use crate::space::tests::PAGE;
use crate::{ClearRefs, FOLIO_ORDERS, FolioPolicy, HugePages};

/// Where an operation takes place.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// So many pages into a window.
    Window(usize, usize),
    /// So many pages into the n-th VMA, from its start or from its end.
    Vma(usize, isize),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum How {
    Fixed,
    NoReplace,
    Hint,
    Anywhere,
}

#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Private,
    Shared,
    /// Number, first page, shared.
    File(usize, usize, bool),
}

/// A length in pages, and how many bytes it falls short of that.
#[derive(Clone, Copy, Debug)]
pub struct Len(pub usize, pub usize);

impl Len {
    pub fn bytes(self) -> usize {
        (self.0 * PAGE).saturating_sub(self.1)
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Op {
    Mmap {
        at: Place,
        len: Len,
        prot: usize,
        kind: Kind,
        how: How,
        /// Of `MAP_LOCKED`, `MAP_NORESERVE`, `MAP_POPULATE`, `MAP_STACK`, `MAP_GROWSDOWN`.
        flags: usize,
    },
    Munmap(Place, Len),
    Mprotect(Place, Len, usize),
    Mremap {
        at: Place,
        old: Len,
        new: Len,
        flags: usize,
        to: Place,
    },
    Madvise(Place, Len, usize),
    Mlock(Place, Len, bool),
    Munlock(Place, Len),
    Mlockall(usize),
    Munlockall,
    Mseal(Place, Len),
    Brk(Place),
    Limit(usize, u64),
    Write(Place, usize),
    Read(Place, usize),
    Execute(Place),
    WriteFile(usize, usize),
    /// To so many pages.
    Truncate(usize, usize),
    /// A hole: first page, and how many.
    PunchHole(usize, usize, usize),
    /// Of so many frames.
    Reclaim(usize),
    /// Of one in so many of the process's pages, to other frames.
    Migrate(usize),
    /// `MADV_COLLAPSE`.
    Collapse(Place, Len),
    /// Where faults make huge pages.
    HugePages(HugePages),
    /// Where they make folios of that order.
    Folios(u8, FolioPolicy),
    Compact,
    /// A look at so many pages for equal ones.
    Merge(usize),
    ClearRefs(ClearRefs),
    Fork,
    Exit,
    Switch(usize),
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        3 => (0..WINDOWS.len(), 0..32usize).prop_map(|(window, page)| Place::Window(window, page)),
        1 => (0..WINDOWS.len()).prop_map(|window| Place::Window(window, 0)),
        1 => huge_place(),
        4 => (any::<usize>(), 0..4isize).prop_map(|(vma, page)| Place::Vma(vma, page)),
        2 => (any::<usize>(), -6..0isize).prop_map(|(vma, page)| Place::Vma(vma, page)),
    ]
}

/// Where huge pages are, most often at the start of one.
fn huge_place() -> impl Strategy<Value = Place> {
    let page = prop_oneof![3 => Just(0usize), 1 => Just(512), 1 => 0..1536usize];
    page.prop_map(|page| Place::Window(HUGE_WINDOW, page))
}

fn len() -> impl Strategy<Value = Len> {
    let pages = prop_oneof![
        1 => Just(0usize),
        30 => 1..12usize,
        10 => 12..40usize,
        2 => prop_oneof![Just(512), Just(513), Just(1024), 500..530usize],
    ];
    let slack = prop_oneof![6 => Just(0usize), 1 => Just(1), 1 => Just(PAGE - 1)];
    (pages, slack).prop_map(|(pages, slack)| Len(pages, slack))
}

fn prot() -> impl Strategy<Value = usize> {
    prop_oneof![6 => Just(3usize), 2 => Just(1), 1 => Just(0), 1 => 0..8usize]
}

fn kind() -> impl Strategy<Value = Kind> {
    let file = (0..2usize, 0..30usize, any::<bool>());
    prop_oneof![
        7 => Just(Kind::Private),
        2 => Just(Kind::Shared),
        2 => file.prop_map(|(file, page, shared)| Kind::File(file, page, shared)),
    ]
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![
        4 => Just(How::Fixed),
        1 => Just(How::NoReplace),
        1 => Just(How::Hint),
        2 => Just(How::Anywhere),
    ]
}

fn map_flags() -> impl Strategy<Value = usize> {
    let flag = |flag: usize, weight: f64| prop::bool::weighted(weight).prop_map(move |set| if set { flag } else { 0 });
    (flag(0x2000, 0.1), flag(0x4000, 0.1), flag(0x8000, 0.2), flag(0x2_0000, 0.05), flag(0x100, 0.05))
        .prop_map(|(a, b, c, d, e)| a | b | c | d | e)
}

/// Sometimes with `MREMAP_RELOCATE_ANON`, which no program sees in what it has mapped.
fn mremap_flags(others: Range<usize>) -> impl Strategy<Value = usize> {
    let relocate = prop::bool::weighted(0.3);
    (others, relocate).prop_map(|(flags, relocate)| if relocate && flags & 1 != 0 { flags | 8 } else { flags })
}

pub fn op() -> impl Strategy<Value = Op> {
    let advice = prop_oneof![
        4 => Just(4usize),
        1 => Just(24),
        3 => prop_oneof![Just(8usize), Just(20), Just(21)],
        2 => 22..24usize,
        2 => Just(14),
        2 => 12..14usize,
        4 => prop_oneof![0..25usize, Just(26)],
    ];
    let limit = prop_oneof![2 => Just(u64::MAX), 1 => 0..400u64, 1 => 0..40u64];
    prop_oneof![
        16 => (place(), len(), prot(), kind(), how(), map_flags())
            .prop_map(|(at, len, prot, kind, how, flags)| Op::Mmap { at, len, prot, kind, how, flags }),
        1 => (huge_place(), (1..3usize).prop_map(|n| Len(512 * n, 0))).prop_map(|(at, len)| Op::Mmap {
            at,
            len,
            prot: 3,
            kind: Kind::Private,
            how: How::Fixed,
            flags: 0,
        }),
        1 => (huge_place(), huge_place(), mremap_flags(3..4)).prop_map(|(at, to, flags)| Op::Mremap {
            at,
            old: Len(512, 0),
            new: Len(512, 0),
            flags,
            to,
        }),
        2 => (huge_place(), 1..12usize).prop_map(|(at, pages)| Op::Write(at, pages)),
        7 => (place(), len()).prop_map(|(at, len)| Op::Munmap(at, len)),
        9 => (place(), len(), prot()).prop_map(|(at, len, prot)| Op::Mprotect(at, len, prot)),
        // Equal lengths, which is what most flags ask for.
        10 => (place(), len(), mremap_flags(0..8), place())
            .prop_map(|(at, len, flags, to)| Op::Mremap { at, old: len, new: len, flags, to }),
        8 => (place(), len(), len(), mremap_flags(0..4), place())
            .prop_map(|(at, old, new, flags, to)| Op::Mremap { at, old, new, flags, to }),
        1 => (place(), len(), len(), prop_oneof![0..9usize, Just(32)], place())
            .prop_map(|(at, old, new, flags, to)| Op::Mremap { at, old, new, flags, to }),
        6 => (place(), len(), advice).prop_map(|(at, len, advice)| Op::Madvise(at, len, advice)),
        3 => (place(), len(), any::<bool>()).prop_map(|(at, len, on_fault)| Op::Mlock(at, len, on_fault)),
        2 => (place(), len()).prop_map(|(at, len)| Op::Munlock(at, len)),
        1 => (place(), len()).prop_map(|(at, len)| Op::Mseal(at, len)),
        1 => (0..9usize).prop_map(Op::Mlockall),
        1 => Just(Op::Munlockall),
        3 => (0..48usize).prop_map(|page| Op::Brk(Place::Window(5, page))),
        1 => (0..4usize, limit).prop_map(|(which, pages)| Op::Limit(which, pages)),
        20 => (place(), 1..12usize).prop_map(|(at, pages)| Op::Write(at, pages)),
        8 => (place(), 1..12usize).prop_map(|(at, pages)| Op::Read(at, pages)),
        1 => place().prop_map(Op::Execute),
        5 => prop_oneof![1..8usize, 8..64usize, Just(10_000)].prop_map(Op::Reclaim),
        4 => (1..4usize).prop_map(Op::Migrate),
        4 => (prop_oneof![huge_place(), place()], prop_oneof![Just(Len(512, 0)), Just(Len(1024, 0)), len()])
            .prop_map(|(at, len)| Op::Collapse(at, len)),
        1 => prop_oneof![Just(HugePages::Always), Just(HugePages::Madvise), Just(HugePages::Never)]
            .prop_map(Op::HugePages),
        3 => (FOLIO_ORDERS, prop_oneof![Just(FolioPolicy::Never), Just(FolioPolicy::Always), Just(FolioPolicy::Inherit)])
            .prop_map(|(order, policy)| Op::Folios(order, policy)),
        1 => Just(Op::Compact),
        4 => prop_oneof![1 => 1..16usize, 2 => Just(150)].prop_map(Op::Merge),
        4 => prop_oneof![3 => Just(ClearRefs::SoftDirty), 1 => Just(ClearRefs::All)].prop_map(Op::ClearRefs),
        1 => (0..2usize, 0..FILE_PAGES).prop_map(|(file, page)| Op::WriteFile(file, page)),
        2 => (0..2usize, 0..=FILE_PAGES).prop_map(|(file, pages)| Op::Truncate(file, pages)),
        1 => (0..2usize, 0..FILE_PAGES, 1..8usize)
            .prop_map(|(file, first, pages)| Op::PunchHole(file, first, pages)),
        4 => Just(Op::Fork),
        2 => Just(Op::Exit),
        4 => (0..MAX_PROCESSES).prop_map(Op::Switch),
    ]
}
