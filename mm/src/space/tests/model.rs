//! What an address space is to a program: pages, each with rights and contents.
//!
//! Written from the manual pages and from what Linux was seen to do, not from
//! the code under test: every page is an entry of a map, and every operation a
//! loop over pages. It has no VMAs of its own; where their bounds decide what
//! happens (what may `mremap` cover, what may grow in place), it is told them
//! as [`Area`]s.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::{Errno, FaultError, Limits, PMD_SIZE, TASK_SIZE, VmaFlags};

const PAGE: usize = 4096;
const GUARD_PAGES: usize = 256;
const MIN_PAGE: usize = 16;
const END_PAGE: usize = TASK_SIZE / PAGE;

pub const MAY_ALL: VmaFlags = VmaFlags::MAY_READ.union(VmaFlags::MAY_WRITE).union(VmaFlags::MAY_EXEC);
const RWX: VmaFlags = VmaFlags::READ.union(VmaFlags::WRITE).union(VmaFlags::EXEC);

type Result<T = usize> = core::result::Result<T, Errno>;

/// Something that is mapped shared, or a file.
pub struct Object {
    /// 0 for shared memory without a name.
    pub id: u64,
    /// In pages.
    pub size: usize,
    pub contents: BTreeMap<usize, u64>,
}

/// All there is outside address spaces.
#[derive(Default)]
pub struct Machine {
    pub objects: Vec<Object>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Page {
    pub flags: VmaFlags,
    /// Number of an object and page of it.
    pub object: Option<(usize, usize)>,
    /// The private copy's contents, if there is one.
    pub private: Option<u64>,
}

impl Page {
    pub fn has(&self, flag: VmaFlags) -> bool {
        self.flags.contains(flag)
    }

    fn accessible(&self) -> bool {
        self.flags.intersects(RWX)
    }

    fn anonymous(&self) -> bool {
        self.object.is_none()
    }

    fn shared(&self) -> bool {
        self.has(VmaFlags::MAY_SHARE)
    }

    fn is_data(&self) -> bool {
        is_data(self.flags)
    }
}

fn is_data(flags: VmaFlags) -> bool {
    flags.contains(VmaFlags::WRITE) && !flags.intersects(VmaFlags::SHARED | VmaFlags::GROWSDOWN)
}

/// A VMA as it really is, in pages.
#[derive(Clone, Copy, Debug)]
pub struct Area {
    pub start: usize,
    pub end: usize,
    pub faulted: bool,
    pub grows_down: bool,
}

impl Area {
    fn guarded_start(&self) -> usize {
        if self.grows_down { self.start.saturating_sub(GUARD_PAGES) } else { self.start }
    }
}

fn area_at(areas: &[Area], page: usize) -> Option<Area> {
    areas.iter().copied().find(|area| area.start <= page && page < area.end)
}

/// The parts of VMAs that are in `range`.
fn parts(areas: &[Area], range: Range<usize>) -> Vec<(Area, Range<usize>)> {
    areas
        .iter()
        .filter(|area| !range.is_empty() && area.start < range.end && range.start < area.end)
        .map(|&area| (area, area.start.max(range.start)..area.end.min(range.end)))
        .collect()
}

fn pages_up(bytes: usize) -> usize {
    bytes.wrapping_add(PAGE - 1) / PAGE
}

/// `mmap`'s arguments, taken apart.
#[derive(Clone, Copy, Debug)]
pub struct Mmap {
    pub addr: usize,
    pub len: usize,
    pub prot: usize,
    pub shared: bool,
    /// Object and page.
    pub file: Option<(usize, usize)>,
    pub fixed: bool,
    pub no_replace: bool,
    pub locked: bool,
    pub no_reserve: bool,
    pub stack: bool,
    pub grows_down: bool,
}

#[derive(Clone)]
pub struct Space {
    pub pages: BTreeMap<usize, Page>,
    pub limits: Limits,
    /// What `mlockall(MCL_FUTURE)` adds.
    pub future: VmaFlags,
    /// In bytes.
    pub brk_start: usize,
    pub brk: usize,
    /// The page below which mappings are placed.
    pub base: usize,
}

impl Space {
    pub fn new(limits: Limits, base: usize, brk_start: usize) -> Space {
        Space { pages: BTreeMap::new(), limits, future: VmaFlags::empty(), brk_start, brk: brk_start, base }
    }

    pub fn count(&self, f: impl Fn(&Page) -> bool) -> usize {
        self.pages.values().filter(|page| f(page)).count()
    }

    fn count_in(&self, range: Range<usize>, f: impl Fn(&Page) -> bool) -> usize {
        self.pages.range(range).filter(|(_, page)| f(page)).count()
    }

    pub fn data(&self) -> usize {
        self.count(Page::is_data)
    }

    pub fn locked(&self) -> usize {
        self.count(|page| page.has(VmaFlags::LOCKED))
    }

    fn free(&self, range: Range<usize>) -> bool {
        self.pages.range(range).next().is_none()
    }

    fn sealed(&self, range: Range<usize>) -> bool {
        self.count_in(range, |page| page.has(VmaFlags::SEALED)) != 0
    }

    fn unmap(&mut self, range: Range<usize>) {
        let keys: Vec<usize> = self.pages.range(range).map(|(&key, _)| key).collect();
        for key in keys {
            self.pages.remove(&key);
        }
    }

    fn may_expand(&self, flags: VmaFlags, more: usize) -> bool {
        let within = |have: usize, limit: u64| ((have + more) as u64) <= limit / PAGE as u64;
        within(self.pages.len(), self.limits.address_space)
            && (!is_data(flags) || within(self.data(), self.limits.data))
    }

    fn may_lock(&self, flags: VmaFlags, more: usize) -> bool {
        !flags.contains(VmaFlags::LOCKED) || ((self.locked() + more) as u64) <= self.limits.memlock / PAGE as u64
    }

    /// The page that a mapping is placed at.
    fn place(&self, areas: &[Area], addr: usize, pages: usize, fixed: bool, anonymous: bool) -> Result {
        if pages > END_PAGE {
            return Err(Errno::ENOMEM);
        }
        if fixed {
            return if addr > (END_PAGE - pages) * PAGE {
                Err(Errno::ENOMEM)
            } else if !addr.is_multiple_of(PAGE) {
                Err(Errno::EINVAL)
            } else if addr / PAGE < MIN_PAGE {
                Err(Errno::EPERM)
            } else {
                Ok(addr / PAGE)
            };
        }
        if addr >= PAGE {
            let hint = (addr / PAGE).max(MIN_PAGE);
            let next = areas.iter().find(|area| hint < area.end);
            if hint + pages <= END_PAGE && next.is_none_or(|next| hint + pages <= next.guarded_start()) {
                return Ok(hint);
            }
        }
        let huge = PMD_SIZE / PAGE;
        if anonymous
            && addr < PAGE
            && pages.is_multiple_of(huge)
            && let Some(end) = self.highest_gap(areas, pages + huge)
        {
            return Ok((end - pages) / huge * huge);
        }
        let end = self.highest_gap(areas, pages).ok_or(Errno::ENOMEM)?;
        Ok(end - pages)
    }

    /// The end of the highest gap of so many pages. A stack above the gap, whose guard
    /// gap would be hurt, lowers the limit for all gaps.
    fn highest_gap(&self, areas: &[Area], pages: usize) -> Option<usize> {
        let mut limit = self.base;
        for i in (0..=areas.len()).rev() {
            let start = if i == 0 { 0 } else { areas[i - 1].end }.max(MIN_PAGE);
            let next = areas.get(i);
            let end = next.map_or(limit, |next| next.start.min(limit));
            if end.checked_sub(start) < Some(pages) {
                continue;
            }
            limit = next.map_or(end, |next| next.guarded_start().min(end));
            if limit.checked_sub(start) >= Some(pages) {
                return Some(limit);
            }
        }
        None
    }

    pub fn mmap(&mut self, machine: &mut Machine, areas: &[Area], request: Mmap) -> Result {
        if request.len == 0 {
            return Err(Errno::EINVAL);
        }
        let pages = pages_up(request.len);
        if pages == 0 {
            return Err(Errno::ENOMEM);
        }
        let private_anonymous = !request.shared && request.file.is_none();
        let fixed = request.fixed || request.no_replace;
        let start = self.place(areas, request.addr, pages, fixed, private_anonymous)?;
        let range = start..start + pages;
        if request.no_replace && !self.free(range.clone()) {
            return Err(Errno::EEXIST);
        }
        let mut flags = VmaFlags::from_bits_truncate(request.prot as u32 & 7) | MAY_ALL;
        let pairs = [
            (request.locked, VmaFlags::LOCKED),
            (request.no_reserve, VmaFlags::NORESERVE),
            (request.stack, VmaFlags::NOHUGEPAGE),
            (request.grows_down, VmaFlags::GROWSDOWN),
            (request.shared, VmaFlags::SHARED | VmaFlags::MAY_SHARE),
        ];
        for (wanted, flag) in pairs {
            flags.set(flag, wanted || self.future.contains(flag));
        }
        flags |= self.future;
        if !self.may_lock(flags, pages) {
            return Err(Errno::EAGAIN);
        }
        if request.grows_down && !private_anonymous {
            return Err(Errno::EINVAL);
        }
        if self.sealed(range.clone()) {
            return Err(Errno::EPERM);
        }
        if !self.may_expand(flags, pages - self.count_in(range.clone(), |_| true)) {
            return Err(Errno::ENOMEM);
        }
        if !flags.intersects(VmaFlags::SHARED | VmaFlags::NORESERVE) && flags.contains(VmaFlags::WRITE) {
            flags |= VmaFlags::ACCOUNT;
        }
        let object = match request.file {
            None if request.shared => {
                machine.objects.push(Object { id: 0, size: pages, contents: BTreeMap::new() });
                Some((machine.objects.len() - 1, 0))
            }
            file => file,
        };
        self.unmap(range.clone());
        for page in range {
            let object = object.map(|(number, first)| (number, first + page - start));
            self.pages.insert(page, Page { flags, object, private: None });
        }
        Ok(start * PAGE)
    }

    pub fn munmap(&mut self, addr: usize, len: usize) -> Result {
        if !addr.is_multiple_of(PAGE) || len == 0 || addr > TASK_SIZE || len > TASK_SIZE - addr {
            return Err(Errno::EINVAL);
        }
        let range = addr / PAGE..addr / PAGE + pages_up(len);
        if self.sealed(range.clone()) {
            return Err(Errno::EPERM);
        }
        self.unmap(range);
        Ok(0)
    }

    pub fn mprotect(&mut self, machine: &Machine, areas: &[Area], addr: usize, len: usize, prot: usize) -> Result {
        if !addr.is_multiple_of(PAGE) {
            return Err(Errno::EINVAL);
        }
        if len == 0 {
            return Ok(0);
        }
        let end = addr.wrapping_add(pages_up(len) * PAGE);
        if end <= addr {
            return Err(Errno::ENOMEM);
        }
        if prot & !15 != 0 {
            return Err(Errno::EINVAL);
        }
        let access = VmaFlags::from_bits_truncate(prot as u32 & 7);
        let range = addr / PAGE..end / PAGE;
        let mut at = range.start;
        for (area, part) in parts(areas, range.clone()) {
            if part.start != at {
                return Err(Errno::ENOMEM);
            }
            at = part.end;
            self.protect(machine, area, part, access)?;
        }
        if at < range.end {
            return Err(Errno::ENOMEM);
        }
        Ok(0)
    }

    fn protect(&mut self, machine: &Machine, area: Area, range: Range<usize>, access: VmaFlags) -> Result<()> {
        let pages = range.len();
        let first = self.pages[&range.start];
        let old = first.flags;
        let mut new = old.difference(RWX) | access;
        let may = [
            (VmaFlags::READ, VmaFlags::MAY_READ),
            (VmaFlags::WRITE, VmaFlags::MAY_WRITE),
            (VmaFlags::EXEC, VmaFlags::MAY_EXEC),
        ];
        if may.iter().any(|&(is, may)| access.contains(is) && !old.contains(may)) {
            return Err(Errno::EACCES);
        }
        if old.contains(VmaFlags::SEALED) {
            return Err(Errno::EPERM);
        }
        if new == old {
            return Ok(());
        }
        if access.contains(VmaFlags::WRITE) {
            if self.may_expand(old, pages) && !self.may_expand(new, pages) {
                return Err(Errno::ENOMEM);
            }
            let exempt = VmaFlags::ACCOUNT | VmaFlags::WRITE | VmaFlags::SHARED | VmaFlags::NORESERVE;
            if !old.intersects(exempt) {
                new |= VmaFlags::ACCOUNT;
            }
        } else if first.anonymous() && !area.faulted {
            new -= VmaFlags::ACCOUNT;
        }
        for page in range.clone() {
            self.pages.get_mut(&page).unwrap().flags = new;
        }
        let becomes_writable = VmaFlags::WRITE | VmaFlags::SHARED | VmaFlags::LOCKED;
        if old & becomes_writable == VmaFlags::LOCKED && access.contains(VmaFlags::WRITE) {
            let _ = self.fill(machine, range);
        }
        Ok(())
    }

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
            self.pages.insert(to, Page { private: None, ..page });
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
            self.pages.insert(at, Page { object, private: None, ..page });
        }
    }

    fn move_pages(&mut self, from: Range<usize>, to: usize, keep: bool) {
        for page in from.clone() {
            let moved = self.pages[&page];
            self.pages.insert(to + page - from.start, moved);
            if keep {
                let left = self.pages.get_mut(&page).unwrap();
                left.private = None;
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

    pub fn madvise(&mut self, machine: &Machine, areas: &[Area], addr: usize, len: usize, advice: usize) -> Result {
        use VmaFlags as F;
        let none = F::empty();
        let (set, clear) = match advice {
            0 => (none, F::RAND_READ | F::SEQ_READ),
            1 => (F::RAND_READ, F::SEQ_READ),
            2 => (F::SEQ_READ, F::RAND_READ),
            10 => (F::DONTCOPY, none),
            11 => (none, F::DONTCOPY),
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
                page.flags = page.flags.difference(clear) | set;
                if matches!(advice, 4 | 24) {
                    page.private = None;
                }
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
            self.pages.insert(page, Page { flags, object: None, private: None });
        }
        Some(())
    }

    pub fn mseal(&mut self, areas: &[Area], addr: usize, len: usize) -> Result {
        let pages = pages_up(len);
        if !addr.is_multiple_of(PAGE) || (len != 0 && pages == 0) {
            return Err(Errno::EINVAL);
        }
        let range = addr / PAGE..addr / PAGE + pages;
        let mapped: usize = parts(areas, range.clone()).iter().map(|(_, part)| part.len()).sum();
        if mapped != range.len() {
            return Err(Errno::ENOMEM);
        }
        for page in range {
            self.pages.get_mut(&page).unwrap().flags |= VmaFlags::SEALED;
        }
        Ok(0)
    }

    pub fn fork(&self) -> Space {
        let mut child = self.clone();
        child.future = VmaFlags::empty();
        child.pages.retain(|_, page| !page.has(VmaFlags::DONTCOPY));
        for page in child.pages.values_mut() {
            page.flags -= VmaFlags::LOCKED_MASK;
            if page.has(VmaFlags::WIPEONFORK) {
                page.private = None;
            }
        }
        child
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
            match page.object {
                Some((number, index)) if page.shared() => {
                    machine.objects[number].contents.insert(index, value);
                }
                _ => self.pages.get_mut(&at).unwrap().private = Some(value),
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
            self.pages.insert(page, Page { private: None, ..top });
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

#[derive(Clone, Copy, Debug)]
pub enum Access {
    Read,
    Write(u64),
    Execute,
}

pub fn beyond_end(machine: &Machine, page: &Page) -> bool {
    page.object.is_some_and(|(number, index)| index >= machine.objects[number].size)
}

/// The pages that mlock(2) means.
fn lock_range(addr: usize, len: usize) -> Result<Range<usize>> {
    let start = addr / PAGE;
    let pages = pages_up(len.wrapping_add(addr % PAGE));
    match (start * PAGE).checked_add(pages * PAGE) {
        Some(_) => Ok(start..start + pages),
        None => Err(Errno::EINVAL),
    }
}
