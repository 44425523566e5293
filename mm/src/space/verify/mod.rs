//! What always holds in an address space that nobody is changing, checked.
//!
//! [`AddressSpace::verify`] looks at one address space, allocates nothing, and
//! can be called from a kernel's debugger. `verify_all` looks at all of a
//! machine's together, for what one alone cannot tell: that counts of mappings
//! are right, that the reverse mapping finds every mapping, and that nothing
//! is lost.

#[cfg(any(test, feature = "sim"))]
mod machine;
#[cfg(test)]
mod tests;

#[cfg(any(test, feature = "sim"))]
pub use machine::{find_mappings, verify_all};

use super::account::{Resident, ResidentKind, Totals};
use super::fault::page_protection;
use super::{AddressSpace, State};
use crate::paging::{Entry, EntryFlags, Visit};
use crate::rmap::AnonVma;
use crate::slab::Ref;
use crate::vma::Vma;
use crate::{Frame, FrameKind, PAGE_SIZE, Platform, TASK_SIZE, VmaFlags};

/// What relatives by fork, who may have the same pages, do meanwhile.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Relatives {
    /// Nothing, so the counts of all pages are what they are to be in the end.
    Still,
    /// They map and unmap pages.
    Busy,
}

impl<P: Platform> AddressSpace<'_, P> {
    /// Checks the address space from end to end: the tree of its VMAs, its page
    /// tables, that every page belongs to a VMA and is mapped as that allows,
    /// that each page's record says where the page is, and the counters.
    ///
    /// Nobody else may be changing the address space, or one that it shares
    /// pages with by fork.
    ///
    /// # Panics
    ///
    /// When something does not hold.
    pub fn verify(&self) {
        self.verify_beside(Relatives::Still);
    }

    /// [`verify`](Self::verify) while others, on other CPUs, may be changing address
    /// spaces that this one shares pages with: references to such a page are not
    /// compared with its mappings.
    ///
    /// # Panics
    ///
    /// When something does not hold.
    pub fn verify_beside_others(&self) {
        self.verify_beside(Relatives::Busy);
    }

    fn verify_beside(&self, relatives: Relatives) {
        let state = self.mmap.read();
        // Who merges has references to pages for a moment.
        let _nothing_merges = self.mem.keep_from_merging();
        state.vmas.verify();
        self.verify_totals(&state);
        let resident = Resident::default();
        self.core.tables.verify(self.mem, |visit| match visit {
            Visit::Table { pfn, start, end } => {
                let needed = state.vmas.find(start).is_some_and(|vma| vma.start() < end);
                assert!(needed, "{pfn:?}: a page table for {start:#x}..{end:#x}, where nothing is mapped");
            }
            Visit::Leaf { addr, entry, .. } => {
                let swapped = entry.swap_slot();
                let moving = entry.migrating().is_some() && relatives == Relatives::Busy;
                assert!(entry.maps_page() || swapped.is_some() || moving, "{entry:?} at {addr:#x}");
                let vma = state.vmas.lookup(addr);
                let Some(vma) = vma else {
                    panic!("a page at {addr:#x}, where nothing is mapped");
                };
                if let Some(slot) = swapped {
                    self.verify_swapped(vma, addr, slot);
                    resident.add(0, ResidentKind::Swapped, 1);
                    return;
                }
                if moving {
                    resident.add(0, ResidentKind::Anon, 1);
                    return;
                }
                let pages = entry.pfns().count();
                assert!(addr + pages * PAGE_SIZE <= vma.end(), "a huge page at {addr:#x} reaches beyond {vma:?}");
                for addr in (addr..).step_by(PAGE_SIZE).take(pages) {
                    if let Some(kind) = self.verify_page(vma, addr, entry.pte_for(addr), relatives) {
                        resident.add(0, kind, 1);
                    }
                }
            }
        });
        assert_eq!(
            (self.core.resident.anon(), self.core.resident.object(), self.core.resident.swapped()),
            (resident.anon(), resident.object(), resident.swapped()),
            "resident pages counted and found (private, objects', in swap)"
        );
    }

    /// Checks each VMA on its own, and the counters of their sizes.
    fn verify_totals(&self, state: &State) {
        let mut totals = Totals::default();
        for vma in state.vmas.iter() {
            let flags = vma.flags();
            assert_eq!(vma.space(), self.id(), "{vma:?} is another space's");
            assert!(vma.end() <= TASK_SIZE, "{vma:?} ends beyond user space");
            assert!(!flags.contains(VmaFlags::SHARED) || vma.object().is_some(), "{vma:?} shares nothing");
            verify_chain(vma);
            totals.add(flags, vma.pages());
            totals.lock(flags, vma.pages());
        }
        let peak = state.totals.peak;
        assert!(peak >= state.totals.total, "less at the peak than now");
        assert_eq!(state.totals, Totals { peak, ..totals }, "sizes of all VMAs");
    }

    /// Checks an entry that names a swap slot.
    fn verify_swapped(&self, vma: Ref<Vma>, addr: usize, slot: u32) {
        assert!(!vma.flags().contains(VmaFlags::SHARED), "a page in swap at {addr:#x} in {vma:?}, which is shared");
        assert!(vma.anon_vma().is_some(), "a page in swap at {addr:#x} in {vma:?}, which has no anon_vma");
        assert!(self.mem.swap().uses(slot) != 0, "slot {slot} is free, which has the page at {addr:#x} in {vma:?}");
    }

    /// Checks the entry that maps a page of `vma`, and the page's record.
    /// Returns as what it counts.
    fn verify_page(&self, vma: Ref<Vma>, addr: usize, entry: Entry, relatives: Relatives) -> Option<ResidentKind> {
        let flags = vma.flags();
        let shared = flags.contains(VmaFlags::MAY_SHARE);
        let fixed = EntryFlags::PRESENT | EntryFlags::PROT_NONE | EntryFlags::USER | EntryFlags::NO_EXEC;
        assert_eq!(entry.flags() & fixed, page_protection(flags), "protection of the page at {addr:#x} in {vma:?}");
        assert!(
            !entry.is_writable() || flags.contains(VmaFlags::WRITE),
            "the page at {addr:#x} in {vma:?} can be written"
        );
        assert!(!entry.is_writable() || entry.is_soft_dirty(), "a write to the page at {addr:#x} would not be noticed");
        if entry.is_special() {
            assert!(
                entry.pfn() == self.mem.zero_page() && !entry.is_writable(),
                "{entry:?} at {addr:#x} is not the zero page"
            );
            assert!(vma.object().is_none(), "the zero page at {addr:#x} in {vma:?} hides an object");
            return None;
        }
        let record = self.mem.frame(entry.pfn());
        match record.kind() {
            FrameKind::Anon if !shared && record.is_merged() => {
                assert!(!entry.is_writable(), "the merged page at {addr:#x} in {vma:?} can be written");
                assert!(flags.contains(VmaFlags::MERGEABLE), "a merged page at {addr:#x} in {vma:?}");
                verify_references("merged", record, record.pins(), addr, relatives);
            }
            FrameKind::Anon if !shared => {
                verify_anon(vma, addr, record, relatives);
                let exclusive = record.is_exclusive();
                assert!(
                    !exclusive || record.mapcount() <= 1,
                    "the page at {addr:#x} is exclusive, but is mapped elsewhere too: {record:?}"
                );
                assert!(
                    !entry.is_writable() || exclusive && !record.is_in_swap_cache(),
                    "the page at {addr:#x} can be written, but need not be its own: {record:?}"
                );
                assert!(
                    exclusive || record.pins() == 0,
                    "the page at {addr:#x} is pinned and not exclusive: {record:?}"
                );
            }
            FrameKind::Object => {
                verify_object(vma, addr, record, relatives);
                assert!(!entry.is_writable() || shared, "the object's page at {addr:#x} in {vma:?} can be written");
            }
            _ => panic!("{record:?} is mapped at {addr:#x} in {vma:?}"),
        }
        Some(ResidentKind::of(record))
    }
}

/// Checks the chain of anon_vmas of one VMA.
fn verify_chain(vma: Ref<Vma>) {
    let Some(own) = vma.anon_vma() else {
        assert_eq!(vma.chain_len(), 0, "{vma:?} is chained, but has no anon_vma");
        return;
    };
    let root = AnonVma::root(own);
    assert!(AnonVma::chain_of(vma).all(|member| AnonVma::root(member) == root), "{vma:?} is chained to two families");
    assert!(AnonVma::chain_of(vma).any(|member| member == own), "{vma:?} is not chained to its anon_vma");
    assert_eq!(AnonVma::chain_of(vma).last(), Some(root), "{vma:?}: the root is not the oldest");
}

/// Checks that the record of a private page leads back to where it is mapped.
fn verify_anon(vma: Ref<Vma>, addr: usize, record: &Frame, relatives: Relatives) {
    // SAFETY: only `AnonVma::to_mapping` sets the mapping of a private page.
    let anon_vma = unsafe { AnonVma::from_mapping(record.mapping()) };
    let Some(anon_vma) = anon_vma else {
        panic!("the private page at {addr:#x} in {vma:?} has no anon_vma");
    };
    assert!(
        AnonVma::chain_of(vma).any(|member| member == anon_vma),
        "{vma:?} is not chained to the anon_vma of its page at {addr:#x}"
    );
    assert_eq!(record.index(), vma.index_of(addr), "index of the private page at {addr:#x} in {vma:?}");
    let others = u32::from(record.is_in_swap_cache()) + record.pins();
    verify_references("private", record, others, addr, relatives);
}

/// Checks that a page has as many references as it has mappings and `others`.
fn verify_references(whose: &str, record: &Frame, others: u32, addr: usize, relatives: Relatives) {
    let (references, mappings) = (record.refcount(), record.mapcount());
    match relatives {
        Relatives::Still => {
            assert_eq!(references, mappings + others, "references to the {whose} page at {addr:#x}, and uses of it")
        }
        // Those of the mapping that was found, at least.
        Relatives::Busy => {
            assert!(references != 0 && mappings != 0, "the {whose} page at {addr:#x} is free: {record:?}")
        }
    }
}

/// Checks that a page of an object is that of the VMA's object, in its place.
fn verify_object(vma: Ref<Vma>, addr: usize, record: &Frame, relatives: Relatives) {
    let Some(object) = vma.object() else {
        panic!("an object's page at {addr:#x} in {vma:?}");
    };
    let (mapping, index) = (record.mapping(), record.index());
    // Who takes a page from the object has not come here yet.
    let lost = mapping == 0 && relatives == Relatives::Busy;
    if !lost {
        // It may be lost just now.
        let index = if relatives == Relatives::Busy { vma.index_of(addr) } else { index };
        assert_eq!(
            (mapping, index),
            (object.as_usize(), vma.index_of(addr)),
            "object and index of the page at {addr:#x} in {vma:?}"
        );
    }
    verify_references("object's", record, u32::from(mapping != 0) + record.pins(), addr, relatives);
}
