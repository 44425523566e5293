//! Going through all frames, again and again, for pages that equal others.

use core::sync::atomic::Ordering;

use super::merge::Candidate;
use super::tree::MergedPage;
use super::{KsmGuard, KsmNode};
use crate::frame::copy_page;
use crate::slab::Ref;
use crate::{FrameKind, Memory, OutOfMemory, Pfn, Platform};

/// For each page that a scan may look at it goes past so many frames at most that have none.
const FRAMES_PER_PAGE: usize = 256;

impl<P: Platform> Memory<P> {
    /// Looks at the next `budget` pages of mergeable memory, and merges what equals others.
    /// Returns how many pages it looked at. What there is no memory for is left for the next pass.
    ///
    /// For a kernel's own thread. May be called wherever a page fault may be.
    pub fn ksm_scan(&self, budget: usize) -> usize {
        if !self.ksm.is_in_use() {
            return 0;
        }
        let (first, span) = self.frame_span();
        let mut scanned = 0;
        for _ in 0..budget.saturating_mul(FRAMES_PER_PAGE) {
            let hand = self.ksm.hand.fetch_add(1, Ordering::Relaxed) % span;
            let pfn = Pfn(first.0 + hand);
            let record = self.frame(pfn);
            if record.kind() == FrameKind::Anon && record.refcount() != 0 {
                let seen =
                    if record.is_merged() { self.forget_origins(pfn) } else { self.scan_page(pfn).unwrap_or(true) };
                scanned += usize::from(seen);
            }
            if hand + 1 == span {
                self.end_pass();
            }
            if scanned == budget {
                break;
            }
        }
        self.lock_ksm().passes.scanned += scanned as u64;
        scanned
    }

    /// Forgets what has been found out of pages that have not been merged, and begins again.
    pub fn ksm_forget(&self) {
        if self.ksm.is_in_use() {
            let mut trees = self.lock_ksm();
            trees.clear_unstable(self);
            trees.passes.forget();
            self.ksm.hand.store(0, Ordering::Relaxed);
        }
    }

    /// All frames have been gone through.
    fn end_pass(&self) {
        let mut trees = self.lock_ksm();
        trees.passes.next();
        trees.clear_unstable(self);
        for node in trees.all_stable() {
            if self.merged_page(node).is_none() {
                trees.remove_stable(self, node);
            }
        }
    }

    /// Takes out the origins of a merged page that lead to no entry any more. Returns whether there
    /// is such a page.
    fn forget_origins(&self, pfn: Pfn) -> bool {
        let _trees = self.lock_ksm();
        let record = self.frame(pfn);
        if !record.try_get() {
            return false;
        }
        let page = MergedPage::new(self, pfn);
        let Some(node) = KsmNode::of(record) else { return false };
        node.retain_origins(self, |origin| {
            let mut found = false;
            origin.walk(|vma, addr| {
                self.with_mapping(vma, addr, page.pfn, |_, _| found = true);
                !found
            });
            found
        });
        true
    }

    /// Merges the page in the frame `pfn` with its equal, if it has one. Returns whether it
    /// could be merged at all.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`]; the page is as it was.
    fn scan_page(&self, pfn: Pfn) -> Result<bool, OutOfMemory> {
        let mut trees = self.lock_ksm();
        let Some(page) = Candidate::new(self, pfn).filter(Candidate::is_mergeable) else { return Ok(false) };
        let hash = self.hash_page(pfn);
        if let Some((node, merged)) = self.find_stable(&mut trees, hash, pfn)
            && page.merge(node, &merged)?
        {
            return Ok(true);
        }
        if page.record.replace_checksum(hash as u32) != hash as u32 {
            trees.passes.unstable += 1;
            return Ok(true);
        }
        if self.sysctl().ksm_use_zero_pages() && self.pages_equal(pfn, self.zero_page()) && page.merge_with_zeroes() {
            return Ok(true);
        }
        match trees.unstable(hash) {
            Some(node) => self.merge_two(&mut trees, &page, node)?,
            None => {
                let node = self.arenas.ksm_nodes.alloc(self)?;
                trees.add_unstable(node, hash, pfn);
            }
        }
        Ok(true)
    }

    /// The merged page with the contents of the page in the frame `pfn`, if there is one which may
    /// be shared further.
    fn find_stable(&self, trees: &mut KsmGuard<'_>, hash: u64, pfn: Pfn) -> Option<(Ref<KsmNode>, MergedPage<'_, P>)> {
        let limit = self.sysctl().ksm_max_page_sharing();
        let mut next = trees.stable(hash);
        while let Some(node) = next.next() {
            let Some(merged) = self.merged_page(node) else {
                trees.remove_stable(self, node);
                next = trees.stable(hash);
                continue;
            };
            if (merged.record().mapcount() as usize) < limit && self.pages_equal(pfn, merged.pfn) {
                return Some((node, merged));
            }
        }
        None
    }

    /// Merges `page` with that of `node`, in the unstable tree, if it is as it was and its equal. If not
    /// it takes its place.
    fn merge_two(
        &self,
        trees: &mut KsmGuard<'_>,
        page: &Candidate<'_, P>,
        node: Ref<KsmNode>,
    ) -> Result<(), OutOfMemory> {
        let other = (node.pfn() != page.pfn).then(|| Candidate::new(self, node.pfn())).flatten();
        let other = other.filter(|other| other.is_mergeable() && self.pages_equal(other.pfn, page.pfn));
        let Some(other) = other else {
            node.set_pfn(page.pfn);
            return Ok(());
        };
        let Some(merged) = self.make_merged(page.pfn, node)? else { return Ok(()) };
        trees.make_stable(node, merged.pfn);
        let done = [&other, page].map(|page| page.merge(node, &merged).unwrap_or(false));
        if done == [false, false] {
            trees.remove_stable(self, node);
        }
        Ok(())
    }

    /// A page that is to be the merged one of `node`, with the contents of the page in the frame `pfn`, to
    /// which the caller has a reference. `None` if those are not what they were.
    fn make_merged(&self, pfn: Pfn, node: Ref<KsmNode>) -> Result<Option<MergedPage<'_, P>>, OutOfMemory> {
        let frame = self.alloc(FrameKind::Anon, 0)?;
        // SAFETY: both are whole pages of the direct map; the new one is owned, the other one kept
        // by the caller's reference. What others write to it meanwhile may or may not be copied.
        unsafe { copy_page(self.page_ptr(pfn), self.page_ptr(frame.pfn())) };
        if self.hash_page(frame.pfn()) != node.hash() {
            self.free(frame);
            return Ok(None);
        }
        let record = self.frame(frame.pfn());
        record.set_mapping(KsmNode::to_mapping(node));
        record.set_merged();
        Ok(Some(MergedPage::new(self, frame.into_raw())))
    }
}
