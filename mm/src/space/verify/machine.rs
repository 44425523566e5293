//! Checks across all address spaces of a machine.

use std::collections::{HashMap, HashSet};

use crate::frame::Frame;
use crate::ksm;
use crate::object::Object;
use crate::paging::Visit;
use crate::rmap::{self, AnonVma};
use crate::slab::Ref;
use crate::vma::Vma;
use crate::{AddressSpace, FrameKind, PAGE_SIZE, Pfn, Platform, VmaFlags};

/// Where a page is mapped: address space and address.
type Place = (usize, usize);

/// Checks all address spaces of one machine, each on its own as
/// [`AddressSpace::verify`] does, and together: that no two have a page table
/// in common, that a page counts as many mappings as it has and its reverse
/// mapping finds exactly those, that pages, tables and the crate's own objects
/// are all accounted for, and the commit charge.
///
/// `spaces` are all that there are. Nobody is changing them.
///
/// # Panics
///
/// When something does not hold.
pub fn verify_all<P: Platform>(spaces: &[&AddressSpace<'_, P>]) {
    let Some(first) = spaces.first() else { return };
    let mem = first.mem;
    let mut vmas: Vec<Ref<Vma>> = Vec::new();
    let mut tables: HashSet<Pfn> = HashSet::new();
    let mut places: HashMap<Pfn, Vec<Place>> = HashMap::new();
    let mut swapped: HashMap<u32, u32> = HashMap::new();
    for space in spaces {
        space.verify();
        vmas.extend(space.mmap.read().vmas.iter());
        let mut own = |pfn| assert!(tables.insert(pfn), "{pfn:?}: a page table in two places");
        own(Pfn::containing(space.root()));
        space.core.tables.verify(mem, |visit| match visit {
            Visit::Table { pfn, .. } => own(pfn),
            Visit::Leaf { addr, entry, .. } if !entry.maps_page() => {
                assert_eq!(entry.migrating(), None, "the page at {addr:#x} is not where it was being moved to");
                *swapped.entry(entry.swap_slot().unwrap_or(0)).or_default() += 1;
            }
            Visit::Leaf { addr, entry, .. } if !entry.is_special() => {
                for (i, pfn) in entry.pfns().enumerate() {
                    places.entry(pfn).or_default().push((space.id(), addr + i * PAGE_SIZE));
                }
            }
            Visit::Leaf { .. } => {}
        });
    }
    rmap::verify_all(vmas.iter().copied());
    verify_objects(mem, &vmas);
    assert_eq!(mem.arenas.spaces.in_use(), spaces.len(), "address spaces lost");
    for (&slot, &entries) in &swapped {
        assert_eq!(mem.swap().uses(slot), entries, "entries that name slot {slot}");
    }
    let swap = mem.swap_stats();
    assert_eq!(swap.used, swapped.len(), "slots lost");

    let mut anon = 0;
    let mut merged = HashSet::new();
    for (&pfn, places) in &places {
        let record = mem.frame(pfn);
        assert_eq!(record.mapcount() as usize, places.len(), "{record:?} is mapped at {places:x?}");
        if record.kind() == FrameKind::Anon {
            anon += 1;
            let mut found = walk(mem, &vmas, pfn);
            let mut places = places.clone();
            found.sort_unstable();
            places.sort_unstable();
            if record.is_merged() {
                merged.insert(pfn);
            }
            // Places where the page is not are found as well.
            found.retain(|place| places.binary_search(place).is_ok());
            assert_eq!(found, places, "where the reverse mapping finds {record:?}, and where it is");
        } else {
            let mut found = walk_object(&vmas, record);
            found.retain(|place| places.contains(place));
            assert_eq!(found.len(), places.len(), "where {record:?}'s object finds it, and where it is");
        }
    }
    ksm::verify(mem, &merged);
    let mapped_and_cached = places.keys().filter(|&&pfn| mem.frame(pfn).is_in_swap_cache()).count();
    assert_eq!(mem.count_frames(FrameKind::Anon), anon + swap.cached - mapped_and_cached, "private pages lost");
    let spare: usize = spaces.iter().map(|space| space.core.tables.huge_leaves()).sum();
    assert_eq!(mem.count_frames(FrameKind::Table), tables.len() + spare, "page tables lost");
    let charged = |vma: &&Ref<Vma>| vma.flags().contains(VmaFlags::ACCOUNT);
    let committed: usize = vmas.iter().filter(charged).map(|vma| vma.pages()).sum();
    assert_eq!(mem.committed(), committed, "commit charge");
}

/// Where the reverse mapping says that a private page may be.
fn walk<P: Platform>(mem: &crate::Memory<P>, vmas: &[Ref<Vma>], pfn: Pfn) -> Vec<Place> {
    let mut found = Vec::new();
    walk_private(mem, pfn, |vma, addr| {
        assert!(vmas.contains(&vma), "{vma:?} is nobody's");
        found.push((vma.space(), addr));
        true
    });
    found
}

/// Where the object that a page belongs to says that it may be.
fn walk_object(vmas: &[Ref<Vma>], record: &Frame) -> Vec<Place> {
    let mut found = Vec::new();
    let Some(object) = vmas.iter().find_map(|vma| vma.object().filter(|one| one.as_usize() == record.mapping())) else {
        return found;
    };
    let index = record.index();
    object.for_each_mapping(index, index, |vma| {
        assert!(vmas.contains(&vma), "{vma:?} is nobody's");
        found.extend(vma.address_of(index).map(|addr| (vma.space(), addr)));
    });
    found
}

/// Calls `f` with every VMA that may map the private page, merged or not, in the frame `pfn`.
fn walk_private<P: Platform>(mem: &crate::Memory<P>, pfn: Pfn, f: impl FnMut(Ref<Vma>, usize) -> bool) -> bool {
    if mem.frame(pfn).is_merged() { mem.walk_merged(pfn, f) } else { AnonVma::walk_page(mem.frame(pfn), f) }
}

/// Where the reverse mapping finds the private page in the frame `pfn` mapped: for each
/// mapping which of the `spaces`, and the address. Others may be changing them. `None` if
/// there is no private page.
pub fn find_mappings<P: Platform>(spaces: &[&AddressSpace<'_, P>], pfn: Pfn) -> Option<Vec<(usize, usize)>> {
    let mem = spaces.first()?.mem;
    let mut found = Vec::new();
    let has_page = walk_private(mem, pfn, |vma, addr| {
        // While the VMA is chained its page tables stay: who frees them unchains it first.
        if let Some(which) = spaces.iter().position(|space| space.id() == vma.space()) {
            let entry = spaces[which].core.tables.lookup(mem, addr);
            if entry.is_some_and(|entry| entry.is_counted() && entry.pfn_for(addr) == pfn) {
                found.push((which, addr));
            }
        }
        true
    });
    has_page.then_some(found)
}

/// Checks that the crate's own objects are those that the VMAs need.
fn verify_objects<P: Platform>(mem: &crate::Memory<P>, vmas: &[Ref<Vma>]) {
    let links: usize = vmas.iter().map(|vma| vma.chain_len()).sum();
    let mut anon_vmas = HashSet::new();
    for &vma in vmas {
        for anon_vma in AnonVma::chain_of(vma) {
            anon_vmas.insert(anon_vma);
            anon_vmas.insert(AnonVma::root(anon_vma));
        }
    }
    let mut by_object: HashMap<Ref<Object>, Vec<Ref<Vma>>> = HashMap::new();
    for &vma in vmas {
        if let Some(object) = vma.object() {
            by_object.entry(object).or_default().push(vma);
        }
    }
    by_object.iter().for_each(|(object, vmas)| object.verify_mappings(vmas));
    let arenas = &mem.arenas;
    assert_eq!(arenas.vmas.in_use(), vmas.len(), "VMAs lost");
    assert_eq!(arenas.avcs.in_use(), links, "chain links lost");
    assert_eq!(arenas.anon_vmas.in_use(), anon_vmas.len(), "anon_vmas lost");
}
