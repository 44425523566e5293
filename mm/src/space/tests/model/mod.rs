//! What an address space is to a program: pages, each with rights and contents.
//!
//! Written from the manual pages and from what Linux was seen to do, not from
//! the code under test: every page is an entry of a map, and every operation a
//! loop over pages. It has no VMAs of its own; where their bounds decide what
//! happens (what may `mremap` cover, what may grow in place), it is told them
//! as [`Area`]s.

mod remap;
mod resident;
mod written;

use std::collections::BTreeMap;
use std::ops::Range;

pub use written::Written;

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
    /// Those may go, as `MADV_FREE` has been told and nothing was written since.
    pub lazy: bool,
    /// Whether writes to it would be told of, if it was asked for them now.
    pub written: Written,
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
            self.pages.insert(page, Page { flags, object, private: None, lazy: false, written: Written::NEW });
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
                page.written.is_gone();
            } else if page.private.is_none() {
                page.written.may_be_gone();
            }
        }
        child
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
