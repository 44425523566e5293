//! Which pages are there: advice, locks, and accesses.

use super::*;

impl Space {
    /// An object has lost its pages from `size` on, and with them go private copies.
    pub fn cut_off(&mut self, number: usize, size: usize) {
        let beyond = |page: &&mut Page| page.object.is_some_and(|(object, index)| object == number && index >= size);
        for page in self.pages.values_mut().filter(beyond) {
            (page.private, page.lazy) = (None, false);
            page.written.is_gone();
        }
    }

    pub fn madvise(&mut self, machine: &Machine, areas: &[Area], addr: usize, len: usize, advice: usize) -> Result {
        use VmaFlags as F;
        let none = F::empty();
        let (set, clear) = match advice {
            0 => (none, F::RAND_READ | F::SEQ_READ),
            1 => (F::RAND_READ, F::SEQ_READ),
            2 => (F::SEQ_READ, F::RAND_READ),
            10 => (F::DONTCOPY, none),
            11 => (none, F::DONTCOPY),
            12 => (F::MERGEABLE, none),
            13 => (none, F::MERGEABLE),
            14 => (F::HUGEPAGE, F::NOHUGEPAGE),
            15 => (F::NOHUGEPAGE, F::HUGEPAGE),
            16 => (F::DONTDUMP, none),
            17 => (none, F::DONTDUMP),
            18 => (F::WIPEONFORK, none),
            19 => (none, F::WIPEONFORK),
            3 | 4 | 8 | 20 | 21 | 22 | 23 | 24 => (none, none),
            _ => return Err(Errno::EINVAL),
        };
        let pages = pages_up(len);
        if !addr.is_multiple_of(PAGE) || (len != 0 && pages == 0) || addr.checked_add(pages * PAGE).is_none() {
            return Err(Errno::EINVAL);
        }
        let range = addr / PAGE..addr / PAGE + pages;
        if matches!(advice, 22 | 23) {
            return self.populate(machine, range, advice == 23);
        }
        let mut result = Ok(0);
        let mut at = range.start;
        for (_, part) in parts(areas, range.clone()) {
            if part.start != at {
                result = Err(Errno::ENOMEM);
            }
            at = part.end;
            let page = self.pages[&part.start];
            let discards = matches!(advice, 4 | 8 | 10 | 18 | 24);
            if discards && page.has(F::SEALED) && page.anonymous() && !page.has(F::WRITE) {
                return Err(Errno::EPERM);
            }
            let refused = match advice {
                4 | 20 | 21 => page.has(F::LOCKED),
                8 => page.has(F::LOCKED) || !page.anonymous(),
                18 => !page.anonymous(),
                _ => false,
            };
            if refused {
                return Err(Errno::EINVAL);
            }
            for page in part {
                let page = self.pages.get_mut(&page).unwrap();
                if advice != 12 || !page.flags.intersects(F::SHARED | F::MAY_SHARE) {
                    page.flags = page.flags.difference(clear) | set;
                }
                if matches!(advice, 4 | 24) {
                    page.private = None;
                    page.written.is_gone();
                }
                page.lazy |= advice == 8 && page.private.is_some();
            }
        }
        if at < range.end {
            result = Err(Errno::ENOMEM);
        }
        result
    }

    fn populate(&mut self, machine: &Machine, range: Range<usize>, write: bool) -> Result {
        for at in range {
            let page = self.pages.get(&at).copied().ok_or(Errno::ENOMEM)?;
            if !page.has(if write { VmaFlags::WRITE } else { VmaFlags::READ }) {
                return Err(Errno::EINVAL);
            }
            if beyond_end(machine, &page) {
                return Err(Errno::EFAULT);
            }
            if write {
                self.touch(machine, at);
                self.pages.get_mut(&at).unwrap().written.is_written();
            }
        }
        Ok(0)
    }

    /// What a write does to a page before it changes its contents.
    fn touch(&mut self, machine: &Machine, at: usize) {
        let value = self.value(machine, at);
        let page = self.pages.get_mut(&at).unwrap();
        if !page.shared() {
            page.private = Some(value);
            page.written.is_written();
        }
    }

    pub fn mlock(&mut self, machine: &Machine, addr: usize, len: usize, on_fault: bool) -> Result {
        let range = lock_range(addr, len)?;
        let already = self.count_in(range.clone(), |page| page.has(VmaFlags::LOCKED));
        if !range.is_empty() && ((self.locked() + range.len() - already) as u64) > self.limits.memlock / PAGE as u64 {
            return Err(Errno::ENOMEM);
        }
        let mut lock = VmaFlags::LOCKED;
        lock.set(VmaFlags::LOCKONFAULT, on_fault);
        self.set_locked(range.clone(), lock)?;
        // What cannot be faulted in is locked all the same.
        if !on_fault {
            self.fill(machine, range)?;
        }
        Ok(0)
    }

    /// Faults in what has been locked.
    pub fn fill(&mut self, machine: &Machine, range: Range<usize>) -> Result<()> {
        for at in range {
            let Some(page) = self.pages.get(&at).copied() else {
                continue;
            };
            if page.has(VmaFlags::LOCKONFAULT) {
                continue;
            }
            if !page.accessible() || beyond_end(machine, &page) {
                return Err(Errno::ENOMEM);
            }
            if page.has(VmaFlags::WRITE) {
                self.touch(machine, at);
            }
        }
        Ok(())
    }

    pub fn munlock(&mut self, addr: usize, len: usize) -> Result {
        self.set_locked(lock_range(addr, len)?, VmaFlags::empty())?;
        Ok(0)
    }

    fn set_locked(&mut self, range: Range<usize>, lock: VmaFlags) -> Result<()> {
        for page in range {
            let page = self.pages.get_mut(&page).ok_or(Errno::ENOMEM)?;
            page.flags = page.flags.difference(VmaFlags::LOCKED_MASK) | lock;
        }
        Ok(())
    }

    pub fn mlockall(&mut self, flags: usize) -> Result {
        if flags & !7 != 0 || flags & 3 == 0 {
            return Err(Errno::EINVAL);
        }
        if flags & 1 != 0 && (self.pages.len() * PAGE) as u64 > self.limits.memlock {
            return Err(Errno::ENOMEM);
        }
        let mut lock = VmaFlags::LOCKED;
        lock.set(VmaFlags::LOCKONFAULT, flags & 4 != 0);
        self.future = VmaFlags::empty();
        if flags & 2 != 0 {
            self.future = lock;
        }
        if flags & 1 != 0 {
            for page in self.pages.values_mut() {
                page.flags = page.flags.difference(VmaFlags::LOCKED_MASK) | lock;
            }
        }
        Ok(0)
    }

    pub fn munlockall(&mut self) {
        self.future = VmaFlags::empty();
        for page in self.pages.values_mut() {
            page.flags -= VmaFlags::LOCKED_MASK;
        }
    }

    /// Whether the program may access the byte at `addr`, and if not, why. A
    /// write says what it writes. Stacks grow by that.
    pub fn access(
        &mut self,
        machine: &mut Machine,
        areas: &[Area],
        addr: usize,
        access: Access,
    ) -> core::result::Result<(), FaultError> {
        let at = addr / PAGE;
        if !self.pages.contains_key(&at) && !self.grow_stack(areas, at) {
            return Err(FaultError::NotMapped);
        }
        let page = self.pages[&at];
        let allowed = match access {
            Access::Read | Access::Execute => page.accessible(),
            Access::Write(_) => page.has(VmaFlags::WRITE),
        };
        if !allowed {
            return Err(FaultError::AccessDenied);
        }
        // A private copy does not depend on the object any more.
        if beyond_end(machine, &page) && page.private.is_none() {
            return Err(FaultError::BeyondEnd);
        }
        // Only a page that is there can be one that is not for execution.
        if matches!(access, Access::Execute) && !page.has(VmaFlags::EXEC) {
            return Err(FaultError::AccessDenied);
        }
        if let Access::Write(value) = access {
            self.pages.get_mut(&at).unwrap().written.is_written();
            match page.object {
                Some((number, index)) if page.shared() => {
                    machine.objects[number].contents.insert(index, value);
                }
                _ => {
                    let page = self.pages.get_mut(&at).unwrap();
                    (page.private, page.lazy) = (Some(value), false);
                }
            }
        }
        Ok(())
    }

    fn grow_stack(&mut self, areas: &[Area], at: usize) -> bool {
        let Some(number) = areas.iter().position(|area| at < area.end) else {
            return false;
        };
        let stack = areas[number];
        if !stack.grows_down || at < MIN_PAGE {
            return false;
        }
        let top = self.pages[&stack.start];
        if let Some(prev) = number.checked_sub(1).map(|prev| areas[prev]) {
            let accessible = self.pages[&prev.start].accessible();
            if !prev.grows_down && accessible && at - prev.end < GUARD_PAGES {
                return false;
            }
        }
        let more = stack.start - at;
        if ((stack.end - at) * PAGE) as u64 > self.limits.stack
            || !self.may_expand(top.flags, more)
            || !self.may_lock(top.flags, more)
        {
            return false;
        }
        for page in at..stack.start {
            self.pages.insert(page, top.like());
        }
        true
    }

    /// What a page that can be read contains.
    pub fn value(&self, machine: &Machine, at: usize) -> u64 {
        let page = &self.pages[&at];
        let behind = page.object.and_then(|(number, index)| machine.objects[number].contents.get(&index).copied());
        page.private.or(behind).unwrap_or(0)
    }
}
