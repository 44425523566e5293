//! mmap(2).

use super::account::{Charge, is_accountable};
use super::munmap::Tables;
use super::place::Placement;
use super::{AddressSpace, SpaceError, State};
use crate::object::{MAX_OBJECT_SIZE, ObjectRef};
use crate::vma::{Attributes, MergeWith, Needs, NewMapping, Spares};
use crate::{MapFlags, Overcommit, PAGE_SHIFT, PageRange, Platform, Prot, VmaFlags, is_page_aligned, page_align_up};

/// A file, as mmap(2) gets it: the object with its contents, and how the file
/// was opened.
pub struct MappedFile<'a, 'm, P: Platform> {
    /// The contents.
    pub object: &'a ObjectRef<'m, P>,
    /// Opened for reading; without it nothing can be mapped.
    pub readable: bool,
    /// Opened for writing; without it a shared mapping cannot be written.
    pub writable: bool,
}

/// The arguments of mmap(2), as the user gave them.
pub struct MmapRequest<'a, 'm, P: Platform> {
    /// Hint, or with `MAP_FIXED` the address, in bytes.
    pub addr: usize,
    /// In bytes; rounded up to pages.
    pub len: usize,
    /// `PROT_*`; bits that mean nothing are ignored.
    pub prot: usize,
    /// `MAP_*`.
    pub flags: usize,
    /// What is mapped; `None` for anonymous memory.
    pub file: Option<MappedFile<'a, 'm, P>>,
    /// Where in the file, in bytes.
    pub offset: usize,
}

/// `MAP_TYPE`: the bits of the flags that say shared or private.
const TYPE_MASK: usize = 0xf;
const TYPE_SHARED: usize = 1;
const TYPE_PRIVATE: usize = 2;
const TYPE_SHARED_VALIDATE: usize = 3;
/// `MAP_DROPPABLE`.
const TYPE_DROPPABLE: usize = 8;
/// Of `MAP_SHARED_VALIDATE`: `MAP_ABOVE4G`, `MAP_UNINITIALIZED` and the bits of
/// `MAP_HUGE_2MB` and `MAP_HUGE_1GB`, which mean nothing here.
const UNUSED_FLAGS: usize = 0x7c00_0080;
/// What `MAP_SHARED_VALIDATE` takes (Linux's `LEGACY_MAP_MASK`; nothing here
/// supports `MAP_SYNC`). `MAP_FIXED_NOREPLACE` is younger and not in it.
const LEGACY_FLAGS: usize = TYPE_SHARED
    | TYPE_PRIVATE
    | UNUSED_FLAGS
    | (MapFlags::FIXED.bits()
        | MapFlags::ANONYMOUS.bits()
        | MapFlags::DENYWRITE.bits()
        | MapFlags::EXECUTABLE.bits()
        | MapFlags::LOCKED.bits()
        | MapFlags::NORESERVE.bits()
        | MapFlags::POPULATE.bits()
        | MapFlags::NONBLOCK.bits()
        | MapFlags::STACK.bits()
        | MapFlags::HUGETLB.bits()
        | MapFlags::GROWSDOWN.bits()
        | MapFlags::MAP_32BIT.bits()) as usize;

impl<'m, P: Platform> AddressSpace<'m, P> {
    /// Maps memory and returns where, in bytes.
    ///
    /// # Errors
    ///
    /// As mmap(2), in Linux's order of checks: `Invalid`, `NoRoom`,
    /// `Overflow`, `TooManyVmas`, `BelowMinimum`, `Exists`, `OverLockLimit`,
    /// `AccessDenied`, `Unsupported`, `OverLimit`, `Overcommitted`,
    /// `NotPermitted` (a sealed mapping is in the way), `OutOfMemory`. Nothing
    /// has changed then; what was mapped at a fixed address still is.
    pub fn mmap(&self, request: MmapRequest<'_, 'm, P>) -> Result<usize, SpaceError> {
        self.mem.reclaiming(|| self.try_mmap(&request))
    }

    fn try_mmap(&self, request: &MmapRequest<'_, 'm, P>) -> Result<usize, SpaceError> {
        let &MmapRequest { addr, prot, flags: raw, .. } = request;
        if !is_page_aligned(request.offset) || request.len == 0 {
            return Err(SpaceError::Invalid);
        }
        let len = match page_align_up(request.len) {
            0 => return Err(SpaceError::NoRoom),
            len => len,
        };
        if (request.offset >> PAGE_SHIFT).checked_add(len >> PAGE_SHIFT).is_none() {
            return Err(SpaceError::Overflow);
        }
        let flags = MapFlags::from_bits_truncate(raw as u32);
        let sysctl = self.mem.sysctl();

        let mut state = self.mmap.write();
        if state.vmas.len() > sysctl.max_map_count() {
            return Err(SpaceError::TooManyVmas);
        }
        let anonymous = request.file.is_none() && raw & TYPE_MASK == TYPE_PRIVATE;
        let want = Placement::new(addr, len, flags, anonymous);
        let start = state.place(want, sysctl.mmap_min_addr(), self.limits.get().low_addresses)?;
        let range = PageRange::from_len(start, len).ok_or(SpaceError::NoRoom)?;
        if flags.contains(MapFlags::FIXED_NOREPLACE) && state.vmas.overlaps(range) {
            return Err(SpaceError::Exists);
        }
        let mut vma_flags = self.vma_flags(&state, prot, flags);
        if vma_flags.contains(VmaFlags::LOCKED) {
            state.totals.may_lock(self.limits.get(), range.pages())?;
        }
        // No file is larger (Linux's `MAX_LFS_FILESIZE`).
        if request.file.is_some() && request.offset.checked_add(len).is_none_or(|end| end > isize::MAX as usize) {
            return Err(SpaceError::Overflow);
        }
        vma_flags = state.mergeable(check_type(request, raw, vma_flags)?);

        // A shared mapping of nothing gets an object of its own.
        let shared_memory = match request.file {
            None if vma_flags.contains(VmaFlags::SHARED) => {
                let object = self.mem.create_object(0, b"/dev/zero (deleted)")?;
                object.set_size(len as u64).map_err(|_| SpaceError::NoRoom)?;
                Some(object)
            }
            _ => None,
        };
        let object = request.file.as_ref().map(|file| file.object).or(shared_memory.as_ref());
        let pgoff = match (&request.file, object) {
            (Some(_), _) => request.offset >> PAGE_SHIFT,
            (None, Some(_)) => 0,
            (None, None) => start >> PAGE_SHIFT,
        };
        let attributes = Attributes { flags: vma_flags, object: object.map(ObjectRef::raw), name: 0 };
        self.map(&mut state, range, pgoff, attributes)?;
        let populate = vma_flags.contains(VmaFlags::LOCKED)
            || flags & (MapFlags::POPULATE | MapFlags::NONBLOCK) == MapFlags::POPULATE;
        drop(state);
        if populate {
            // As on Linux, what cannot be populated faults later.
            self.populate(range);
        }
        Ok(start)
    }

    /// The VMA flags that `prot` and `flags` amount to, before the kind of
    /// mapping is known.
    fn vma_flags(&self, state: &State, prot: usize, flags: MapFlags) -> VmaFlags {
        let pairs = [
            (MapFlags::GROWSDOWN, VmaFlags::GROWSDOWN),
            (MapFlags::LOCKED, VmaFlags::LOCKED),
            (MapFlags::STACK, VmaFlags::NOHUGEPAGE),
        ];
        let mut result = Prot::from_bits_truncate(prot as u32).vma_flags() | VmaFlags::MAY_ACCESS | state.new_vma_flags;
        for (from, to) in pairs {
            if flags.contains(from) {
                result |= to;
            }
        }
        // With strict accounting everything is reserved, whatever is asked for.
        if flags.contains(MapFlags::NORESERVE) && !(self.mem.sysctl().overcommit() == Overcommit::Never) {
            result |= VmaFlags::NORESERVE;
        }
        result
    }

    /// Puts a new VMA, or an extension of its neighbours, in the place of
    /// whatever is in `range`. Linux's `mmap_region`: prepares all, then does it.
    ///
    /// The flags get [`ACCOUNT`](VmaFlags::ACCOUNT) here, where it applies, and
    /// [`SOFTDIRTY`](VmaFlags::SOFTDIRTY). The
    /// VMA takes a reference of its own to the object.
    pub(super) fn map(
        &self,
        state: &mut State,
        range: PageRange,
        pgoff: usize,
        mut attributes: Attributes,
    ) -> Result<(), SpaceError> {
        let removal = self.plan_unmap(state, range)?;
        let pages = range.pages();
        state.totals.may_expand(self.limits.get(), attributes.flags, pages - removal.pages)?;
        // What the replaced mappings were charged with is charged until the
        // commit gives it back.
        let accountable = is_accountable(attributes.flags);
        let charge = Charge::new(self.mem, if accountable { pages - removal.charged } else { 0 })?;
        if accountable {
            attributes.flags |= VmaFlags::ACCOUNT;
        }
        // What was there before, or was not, is not what is there now.
        attributes.flags |= VmaFlags::SOFTDIRTY;
        let new = NewMapping { range, pgoff, attributes, copied_from: None, merge: MergeWith::Any, space: self.id() };
        if removal.pages == 0 {
            let plan = state.vmas.plan_map_before(&new, removal.next);
            let mut spares = Spares::reserve(self.mem, plan.needs())?;
            charge.keep();
            plan.commit(&mut state.vmas, self.mem, &mut spares);
        } else {
            let mut spares = Spares::reserve(self.mem, removal.needs + Needs::map(None))?;
            charge.keep();
            if accountable {
                self.mem.recharge_commit(removal.charged);
            }
            self.unmap_commit(state, range, Tables::Free, &mut spares);
            state.vmas.plan_map(&new).commit(&mut state.vmas, self.mem, &mut spares);
        }
        state.totals.add(attributes.flags, pages);
        state.totals.lock(attributes.flags, pages);
        Ok(())
    }
}

/// Checks that the kind of mapping fits the file and the flags, and completes
/// the VMA flags (the middle of Linux's `do_mmap`).
fn check_type<P: Platform>(
    request: &MmapRequest<'_, '_, P>,
    raw: usize,
    mut flags: VmaFlags,
) -> Result<VmaFlags, SpaceError> {
    let grows = flags.contains(VmaFlags::GROWSDOWN);
    let kind = raw & TYPE_MASK;
    let Some(file) = &request.file else {
        return match kind {
            TYPE_SHARED if grows => Err(SpaceError::Invalid),
            TYPE_SHARED => Ok(flags | VmaFlags::SHARED | VmaFlags::MAY_SHARE),
            TYPE_PRIVATE => Ok(flags),
            TYPE_DROPPABLE => droppable(raw, flags),
            _ => Err(SpaceError::Invalid),
        };
    };
    let last_offset = MAX_OBJECT_SIZE.checked_sub(page_align_up(request.len) as u64);
    if last_offset.is_none_or(|last| (request.offset as u64) >> PAGE_SHIFT > last >> PAGE_SHIFT) {
        return Err(SpaceError::Overflow);
    }
    match kind {
        TYPE_SHARED | TYPE_SHARED_VALIDATE => {
            if kind == TYPE_SHARED_VALIDATE && raw & !LEGACY_FLAGS != 0 {
                return Err(SpaceError::Unsupported);
            }
            if flags.contains(VmaFlags::WRITE) && !file.writable {
                return Err(SpaceError::AccessDenied);
            }
            flags |= VmaFlags::SHARED | VmaFlags::MAY_SHARE;
            if !file.writable {
                flags -= VmaFlags::MAY_WRITE | VmaFlags::SHARED;
            }
        }
        TYPE_PRIVATE => {}
        _ => return Err(SpaceError::Invalid),
    }
    if !file.readable {
        return Err(SpaceError::AccessDenied);
    }
    if grows { Err(SpaceError::Invalid) } else { Ok(flags) }
}

/// Completes the flags of memory that may be dropped: neither locked, reserved,
/// inherited nor dumped.
fn droppable(raw: usize, flags: VmaFlags) -> Result<VmaFlags, SpaceError> {
    let refused = (MapFlags::LOCKED | MapFlags::HUGETLB).bits() as usize;
    if raw & refused != 0 || flags.contains(VmaFlags::GROWSDOWN) {
        return Err(SpaceError::Invalid);
    }
    let added = VmaFlags::DROPPABLE | VmaFlags::NORESERVE | VmaFlags::WIPEONFORK | VmaFlags::DONTDUMP;
    Ok(flags.difference(VmaFlags::LOCKED_MASK) | added)
}
