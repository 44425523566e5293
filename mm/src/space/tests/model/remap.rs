//! mremap(2) and brk(2), page by page.

use super::*;

impl Space {
    pub fn mremap(
        &mut self,
        areas: &[Area],
        addr: usize,
        old_len: usize,
        new_len: usize,
        flags: usize,
        new_addr: usize,
    ) -> Result {
        let (may_move, fixed, dont_unmap) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
        let (old, new) = (pages_up(old_len), pages_up(new_len));
        let aligned = addr.is_multiple_of(PAGE);
        if flags & !7 != 0 || !aligned || new == 0 || new > END_PAGE {
            return Err(Errno::EINVAL);
        }
        let start = addr / PAGE;
        if fixed || dont_unmap {
            let to = new_addr / PAGE;
            if !new_addr.is_multiple_of(PAGE)
                || new_addr > TASK_SIZE - new * PAGE
                || !may_move
                || (dont_unmap && old != new)
                || (start + old > to && to + new > start)
            {
                return Err(Errno::EINVAL);
            }
        }
        if fixed && old == new {
            return self.move_all(areas, start..start + old, new_addr / PAGE, dont_unmap);
        }
        let area = area_at(areas, start).ok_or(Errno::EFAULT)?;
        let page = self.pages[&start];
        if page.has(VmaFlags::SEALED) {
            return Err(Errno::EPERM);
        }
        if !fixed && !dont_unmap && new <= old {
            let tail = start + new..start + old;
            if tail.end > END_PAGE && !tail.is_empty() {
                return Err(Errno::EINVAL);
            }
            if self.sealed(tail.clone()) {
                return Err(Errno::EPERM);
            }
            self.unmap(tail);
            return Ok(addr);
        }
        if old == 0 && !page.shared() {
            return Err(Errno::EINVAL);
        }
        if old.min(new) > area.end - start {
            return Err(Errno::EFAULT);
        }
        if new > old {
            if !self.may_lock(page.flags, new - old) {
                return Err(Errno::EAGAIN);
            }
            if !self.may_expand(page.flags, new - old) {
                return Err(Errno::ENOMEM);
            }
        }
        if !fixed && !dont_unmap {
            let tail = area.end..area.end + new.saturating_sub(old);
            if area.end - start == old && tail.end <= END_PAGE && self.free(tail.clone()) {
                self.extend(start, tail);
                return Ok(addr);
            }
            if !may_move {
                return Err(Errno::ENOMEM);
            }
        }
        let hint = if fixed || dont_unmap { new_addr } else { 0 };
        let to = self.place(areas, hint, new, fixed, page.anonymous())?;
        if (to..to + new).contains(&start) {
            return Err(Errno::EFAULT);
        }
        let tail = start + new.min(old)..start + old;
        if (fixed && self.sealed(to..to + new)) || self.sealed(tail.clone()) {
            return Err(Errno::EPERM);
        }
        if tail.end > END_PAGE && !tail.is_empty() {
            return Err(Errno::EINVAL);
        }
        if dont_unmap && !self.may_expand(page.flags, old) {
            return Err(Errno::ENOMEM);
        }
        self.unmap(to..to + new);
        self.unmap(tail);
        self.move_pages(start..start + old.min(new), to, dont_unmap || old == 0);
        if old == 0 {
            self.pages.insert(to, page.like());
        }
        let moved = old.min(new).max(1);
        self.extend(to, to + moved..to + new);
        Ok(to * PAGE)
    }

    /// Adds `tail` behind what is like the page `like`.
    fn extend(&mut self, like: usize, tail: Range<usize>) {
        let page = self.pages[&like];
        for at in tail {
            let object = page.object.map(|(number, index)| (number, index + at - like));
            self.pages.insert(at, Page { object, ..page.like() });
        }
    }

    fn move_pages(&mut self, from: Range<usize>, to: usize, keep: bool) {
        for page in from.clone() {
            let mut moved = self.pages[&page];
            moved.written.moves(moved.private.is_some());
            self.pages.insert(to + page - from.start, moved);
            if keep {
                let left = self.pages.get_mut(&page).unwrap();
                left.private = None;
                left.written.is_gone();
                left.flags -= VmaFlags::LOCKED | VmaFlags::LOCKONFAULT;
            } else {
                self.pages.remove(&page);
            }
        }
    }

    fn move_all(&mut self, areas: &[Area], from: Range<usize>, to: usize, keep: bool) -> Result {
        area_at(areas, from.start).ok_or(Errno::EFAULT)?;
        let parts = parts(areas, from.clone());
        // Stronger than Linux, which moves what comes before.
        for (_, part) in &parts {
            let target = to + part.start - from.start;
            if self.sealed(part.clone()) || self.sealed(target..target + part.len()) {
                return Err(Errno::EPERM);
            }
        }
        let beside: Vec<_> = parts_beside(areas, to..to + from.len()).collect();
        if parts.len() > 1 || beside.iter().any(|area| area.contains(&from.start)) {
            // What comes there may merge with what is, before the next one replaces a part of both; or
            // with what it comes from.
            let all = parts.iter().map(|(_, part)| part.clone()).chain(beside);
            for page in all.flatten().collect::<Vec<_>>() {
                self.pages.get_mut(&page).unwrap().written.passes_through();
            }
        }
        for (_, part) in parts {
            let target = to + part.start - from.start;
            if target < MIN_PAGE {
                return Err(Errno::EPERM);
            }
            if keep && !self.may_expand(self.pages[&part.start].flags, part.len()) {
                return Err(Errno::ENOMEM);
            }
            self.unmap(target..target + part.len());
            self.move_pages(part, target, keep);
        }
        Ok(to * PAGE)
    }

    /// Returns the end of the heap.
    pub fn brk(&mut self, areas: &[Area], addr: usize) -> usize {
        if self.try_brk(areas, addr).is_some() {
            self.brk = addr;
        }
        self.brk
    }

    fn try_brk(&mut self, areas: &[Area], addr: usize) -> Option<()> {
        let grown = addr.checked_sub(self.brk_start)?;
        if grown as u64 > self.limits.data || addr > TASK_SIZE {
            return None;
        }
        let (old, new) = (pages_up(self.brk), pages_up(addr));
        if new <= old {
            let tail = new..old;
            if !tail.is_empty() && (self.free(tail.clone()) || self.sealed(tail.clone())) {
                return None;
            }
            self.unmap(tail);
            return Some(());
        }
        let flags = VmaFlags::READ | VmaFlags::WRITE | VmaFlags::ACCOUNT | MAY_ALL | self.future;
        let next = areas.iter().find(|area| old < area.end);
        if next.is_some_and(|next| new + 1 > next.guarded_start())
            || !self.may_lock(flags, new - old)
            || !self.may_expand(flags, new - old)
        {
            return None;
        }
        for page in old..new {
            let page_of_heap = Page { flags, object: None, private: None, lazy: false, written: Written::NEW };
            self.pages.insert(page, page_of_heap);
        }
        Some(())
    }
}

/// The VMAs that have a page of `range`, or one beside it.
fn parts_beside(areas: &[Area], range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let (start, end) = (range.start.saturating_sub(1), range.end + 1);
    areas.iter().filter(move |area| area.start < end && start < area.end).map(|area| area.start..area.end)
}
