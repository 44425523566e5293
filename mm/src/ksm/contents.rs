//! What is in a page: telling pages apart by a number, and byte by byte.
//!
//! Programs may write to a page while it is looked at. What is found then is good for nothing but to
//! be found again: pages are compared once more when nobody can write to them.

use crate::sync::point;
use crate::{Memory, PAGE_SIZE, Pfn, Platform};

/// Words of eight bytes in a page.
const WORDS: usize = PAGE_SIZE / 8;
/// Words that are taken in at once.
const LANES: usize = 4;
/// An odd number whose bits have no pattern: the fraction of the golden ratio.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

impl<P: Platform> Memory<P> {
    /// The words of a page that the caller has a reference to.
    fn words(&self, pfn: Pfn) -> impl Iterator<Item = u64> {
        let page = self.page_ptr(pfn).cast::<u64>();
        // SAFETY: the caller's reference keeps the page, which the direct map has as a whole
        // and aligned. The reads are volatile because others may write to it.
        (0..WORDS).map(move |word| unsafe { page.add(word).read_volatile() })
    }

    /// A number that pages with equal contents have in common, and others most likely not.
    pub(super) fn hash_page(&self, pfn: Pfn) -> u64 {
        let mut lanes: [u64; LANES] = [1, 2, 3, 4];
        for (place, word) in self.words(pfn).enumerate() {
            let lane = &mut lanes[place % LANES];
            *lane = (lane.rotate_left(29) ^ word).wrapping_mul(MIX);
        }
        let all = lanes.iter().fold(0_u64, |all, lane| (all.rotate_left(17) ^ lane).wrapping_mul(MIX));
        all ^ all >> 32
    }

    /// Whether two pages have the same contents.
    pub(super) fn pages_equal(&self, one: Pfn, other: Pfn) -> bool {
        point();
        one == other || self.words(one).eq(self.words(other))
    }
}
