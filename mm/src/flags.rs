//! Flag words: of a VMA, and of the system calls that make and change one.
//!
//! The values of [`Prot`], [`MapFlags`] and [`MremapFlags`] are the Linux
//! x86-64 ABI's (`<asm-generic/mman-common.h>`, `<linux/mman.h>`). Those of
//! [`VmaFlags`] are our own; the two-letter codes are those of `VmFlags` in
//! `/proc/PID/smaps`.

use bitflags::bitflags;

bitflags! {
    /// What a VMA is and may become (Linux's `vm_flags_t`).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
    pub struct VmaFlags: u32 {
        /// `rd`: pages may be read.
        const READ = 1 << 0;
        /// `wr`: pages may be written.
        const WRITE = 1 << 1;
        /// `ex`: pages may be executed.
        const EXEC = 1 << 2;
        /// `sh`: changes are shared, with other mappings of the same object.
        const SHARED = 1 << 3;
        /// `mr`: `mprotect` may add [`READ`](Self::READ).
        const MAY_READ = 1 << 4;
        /// `mw`: `mprotect` may add [`WRITE`](Self::WRITE).
        const MAY_WRITE = 1 << 5;
        /// `me`: `mprotect` may add [`EXEC`](Self::EXEC).
        const MAY_EXEC = 1 << 6;
        /// `ms`: the mapping was made with `MAP_SHARED`.
        const MAY_SHARE = 1 << 7;
        /// `gd`: grows down on a fault below it (a stack).
        const GROWSDOWN = 1 << 8;
        /// `lo`: pages are locked in memory (`mlock`).
        const LOCKED = 1 << 9;
        /// `lf`: pages are locked when they are faulted in (`mlock2(MLOCK_ONFAULT)`).
        const LOCKONFAULT = 1 << 10;
        /// `de`: `mremap` may not expand it.
        const DONTEXPAND = 1 << 11;
        /// `dc`: not copied by `fork`.
        const DONTCOPY = 1 << 12;
        /// `dd`: not in a core dump.
        const DONTDUMP = 1 << 13;
        /// `ac`: its pages count against the commit limit.
        const ACCOUNT = 1 << 14;
        /// `nr`: swap space is not reserved for it.
        const NORESERVE = 1 << 15;
        /// `hg`: wants large folios.
        const HUGEPAGE = 1 << 16;
        /// `nh`: wants no large folios.
        const NOHUGEPAGE = 1 << 17;
        /// `mg`: KSM may merge its pages.
        const MERGEABLE = 1 << 18;
        /// `sr`: read sequentially.
        const SEQ_READ = 1 << 19;
        /// `rr`: read at random.
        const RAND_READ = 1 << 20;
        /// `wf`: reads as zeroes in a child.
        const WIPEONFORK = 1 << 21;
        /// `sd`: soft-dirty; new or changed since the last clearing.
        const SOFTDIRTY = 1 << 22;
        /// `sl`: sealed by `mseal`.
        const SEALED = 1 << 23;
        /// `pf`: frame numbers without folios (device memory).
        const PFNMAP = 1 << 24;
        /// A stack in the making: exec has not yet put it in its final place.
        const TEMP_STACK = 1 << 25;
        /// `dp`: may be dropped when memory is short (`MAP_DROPPABLE`); cannot be locked.
        const DROPPABLE = 1 << 26;

        /// The three access permissions.
        const ACCESS = Self::READ.bits() | Self::WRITE.bits() | Self::EXEC.bits();
        /// What `mprotect` may add.
        const MAY_ACCESS = Self::MAY_READ.bits() | Self::MAY_WRITE.bits() | Self::MAY_EXEC.bits();
        /// Both kinds of being locked (Linux's `VM_LOCKED_MASK`).
        const LOCKED_MASK = Self::LOCKED.bits() | Self::LOCKONFAULT.bits();
        /// Not ordinary memory: never merged, never relocated (Linux's `VM_SPECIAL`).
        const SPECIAL = Self::DONTEXPAND.bits() | Self::PFNMAP.bits();
        /// May differ between two VMAs that merge (Linux's `VM_IGNORE_MERGE`).
        const IGNORE_MERGE = Self::SOFTDIRTY.bits();
    }
}

impl VmaFlags {
    /// The two-letter codes of the flags, as `VmFlags` in `/proc/PID/smaps` shows them.
    pub fn codes(self) -> impl Iterator<Item = &'static str> {
        const CODES: [(VmaFlags, &str); 26] = [
            (VmaFlags::READ, "rd"),
            (VmaFlags::WRITE, "wr"),
            (VmaFlags::EXEC, "ex"),
            (VmaFlags::SHARED, "sh"),
            (VmaFlags::MAY_READ, "mr"),
            (VmaFlags::MAY_WRITE, "mw"),
            (VmaFlags::MAY_EXEC, "me"),
            (VmaFlags::MAY_SHARE, "ms"),
            (VmaFlags::GROWSDOWN, "gd"),
            (VmaFlags::PFNMAP, "pf"),
            (VmaFlags::LOCKED, "lo"),
            (VmaFlags::SEQ_READ, "sr"),
            (VmaFlags::RAND_READ, "rr"),
            (VmaFlags::DONTCOPY, "dc"),
            (VmaFlags::DONTEXPAND, "de"),
            (VmaFlags::LOCKONFAULT, "lf"),
            (VmaFlags::ACCOUNT, "ac"),
            (VmaFlags::NORESERVE, "nr"),
            (VmaFlags::WIPEONFORK, "wf"),
            (VmaFlags::DONTDUMP, "dd"),
            (VmaFlags::SOFTDIRTY, "sd"),
            (VmaFlags::HUGEPAGE, "hg"),
            (VmaFlags::NOHUGEPAGE, "nh"),
            (VmaFlags::MERGEABLE, "mg"),
            (VmaFlags::DROPPABLE, "dp"),
            (VmaFlags::SEALED, "sl"),
        ];
        CODES.iter().filter(move |(flag, _)| self.contains(*flag)).map(|(_, code)| *code)
    }
}

bitflags! {
    /// `PROT_*`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
    pub struct Prot: u32 {
        /// Pages may be read.
        const READ = 1;
        /// Pages may be written (and, on x86-64, read).
        const WRITE = 2;
        /// Pages may be executed (and, on x86-64, read).
        const EXEC = 4;
        /// Accepted and ignored, as on Linux x86-64.
        const SEM = 8;
        /// `mprotect` only: extend the change to the start of a growing-down VMA.
        const GROWSDOWN = 0x0100_0000;
        /// `mprotect` only: for growing-up VMAs, of which x86-64 has none.
        const GROWSUP = 0x0200_0000;
    }
}

impl Prot {
    /// The VMA permissions that these protections ask for (Linux's
    /// `calc_vm_prot_bits`); other bits are ignored.
    pub const fn vma_flags(self) -> VmaFlags {
        VmaFlags::from_bits_truncate(self.bits() & 7)
    }
}

bitflags! {
    /// `MAP_*`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
    pub struct MapFlags: u32 {
        /// Changes are shared.
        const SHARED = 0x01;
        /// Changes are private: copy on write.
        const PRIVATE = 0x02;
        /// With [`SHARED`](Self::SHARED): unknown flags are an error (`MAP_SHARED_VALIDATE` is both bits).
        const FIXED = 0x10;
        /// Not backed by a file.
        const ANONYMOUS = 0x20;
        /// Between 1 GiB and 2 GiB.
        const MAP_32BIT = 0x40;
        /// Grows down; for stacks.
        const GROWSDOWN = 0x0100;
        /// Ignored.
        const DENYWRITE = 0x0800;
        /// Ignored.
        const EXECUTABLE = 0x1000;
        /// Locked, as by `mlock`.
        const LOCKED = 0x2000;
        /// Not counted against the commit limit.
        const NORESERVE = 0x4000;
        /// Faulted in at once.
        const POPULATE = 0x8000;
        /// With [`POPULATE`](Self::POPULATE): only what needs no input/output.
        const NONBLOCK = 0x1_0000;
        /// For a thread's stack: no large folios.
        const STACK = 0x2_0000;
        /// Huge pages from the pool.
        const HUGETLB = 0x4_0000;
        /// Synchronous page faults (DAX only).
        const SYNC = 0x8_0000;
        /// Like [`FIXED`](Self::FIXED), but fails where something is mapped.
        const FIXED_NOREPLACE = 0x10_0000;
    }
}

bitflags! {
    /// `MREMAP_*`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
    pub struct MremapFlags: u32 {
        /// May be moved.
        const MAYMOVE = 1;
        /// To exactly the new address; what is there goes.
        const FIXED = 2;
        /// The source stays, empty.
        const DONTUNMAP = 4;
        /// If it moves, its pages are to belong to the new address, as if they had been
        /// mapped there, so that it can merge with what is there. Posted for Linux in
        /// 2025 and never merged.
        const RELOCATE_ANON = 8;
        /// The same, but a move for which that cannot be done is an error.
        const MUST_RELOCATE_ANON = 16;
    }
}
