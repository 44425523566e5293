//! The kernel's half of every address space.
//!
//! ```text
//! ffff_8880_0000_0000  direct map of RAM, as large as pages come; rw-, never x
//! ffff_c900_0000_0000  window for what is mapped page by page:
//!                        +0        kernel stacks, a guard page below each
//!                        +128 GiB  heap
//!                        +256 GiB  device registers
//! ffff_ffff_8000_0000  kernel image: text r-x, constants r--, data rw-
//! ```
//!
//! Built once, at boot ([`build`]), before there is an `mm`; from then on the
//! top-level table does not change, so that each address space can have a copy
//! of its upper half. Pages of the window come and go through [`map`] and
//! [`unmap`]. All pages are global, so their translations belong to no PCID.
//!
//! Nothing is writable and executable at once, but for the frames
//! of the image, which no other mapping shows: the direct map has usable RAM only.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mm::{Errno, FrameKind, OwnedFrame, PAGE_SIZE, PMD_SIZE, PUD_SIZE, Pfn, PhysAddr, PhysRange, RootLoad};
use x86_64::VirtAddr;
use x86_64::instructions::tlb::{self, InvPcidCommand};
use x86_64::registers::control::{Cr0, Cr0Flags, Cr3, Cr4, Cr4Flags};
use x86_64::registers::model_specific::{Efer, EferFlags};
use x86_64::structures::paging::PageTableFlags;

use super::irq::IrqMutex;
use super::usercopy;
use crate::memory::{DIRECT_MAP, memory};

const WINDOW: usize = 0xffff_c900_0000_0000;
/// Where kernel stacks go.
pub const STACK_WINDOW: usize = WINDOW;
/// Bytes for kernel stacks.
pub const STACK_WINDOW_SIZE: usize = 16 << 30;
/// Where the heap goes.
pub const HEAP_WINDOW: usize = WINDOW + (128 << 30);
/// Bytes for the heap.
pub const HEAP_WINDOW_SIZE: usize = 64 << 30;
const DEVICE_WINDOW: usize = WINDOW + (256 << 30);

const ENTRIES: usize = 512;
const ADDRESS_MASK: u64 = 0x000f_ffff_ffff_f000;

/// Physical address of the top-level table.
static ROOT: AtomicU64 = AtomicU64::new(0);

/// Whether TLBs are tagged with PCIDs.
static PCIDS: AtomicBool = AtomicBool::new(false);

/// Guards the tables below the window, and hands out its device part.
static NEXT_DEVICE_PAGE: IrqMutex<usize> = IrqMutex::new(DEVICE_WINDOW);

/// Physical address of the top-level table, whose upper half every address
/// space shares and which is in use while no program is.
pub fn root() -> PhysAddr {
    PhysAddr::new_truncate(ROOT.load(Ordering::Relaxed))
}

/// Permissions of a page in the window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protection {
    /// Memory.
    ReadWrite,
    /// Registers of a device: neither cached nor merged.
    Device,
}

impl Protection {
    fn flags(self) -> PageTableFlags {
        let memory =
            PageTableFlags::PRESENT | PageTableFlags::WRITABLE | PageTableFlags::NO_EXECUTE | PageTableFlags::GLOBAL;
        match self {
            Protection::ReadWrite => memory,
            Protection::Device => memory | PageTableFlags::NO_CACHE | PageTableFlags::WRITE_THROUGH,
        }
    }
}

/// What a page-table walk needs new tables from: zeroed frames.
type TableSource<'a> = &'a mut dyn FnMut() -> Option<PhysAddr>;

fn table_entry(table: PhysAddr, index: usize) -> *mut u64 {
    (DIRECT_MAP + table.as_u64() as usize + index * 8) as *mut u64
}

fn index(addr: usize, level: usize) -> usize {
    addr >> (12 + 9 * level) & (ENTRIES - 1)
}

/// The entry for `addr` in its table of `level` (0: that of 4 KiB pages, 3: the
/// top). Tables on the way that are missing come from `tables`; `None` when
/// that has none, or a larger page is in the way.
///
/// # Safety
///
/// `root` is a top-level table whose tables all lie in the direct map, and no
/// one else changes it meanwhile.
unsafe fn walk(root: PhysAddr, addr: usize, level: usize, tables: TableSource<'_>) -> Option<*mut u64> {
    let mut table = root;
    for above in (level + 1..4).rev() {
        let entry = table_entry(table, index(addr, above));
        // SAFETY: in a table, hence in the direct map.
        let mut value = unsafe { entry.read() };
        if value & PageTableFlags::PRESENT.bits() == 0 {
            let new = tables()?;
            value = new.as_u64() | (PageTableFlags::PRESENT | PageTableFlags::WRITABLE).bits();
            // SAFETY: as above.
            unsafe { entry.write(value) };
        } else if above < 3 && value & PageTableFlags::HUGE_PAGE.bits() != 0 {
            return None;
        }
        table = PhysAddr::new_truncate(value & ADDRESS_MASK);
    }
    Some(table_entry(table, index(addr, level)))
}

/// The borders that the linker script draws through the kernel image.
mod image {
    unsafe extern "C" {
        pub static __text_start: u8;
        pub static __text_end: u8;
        pub static __rodata_start: u8;
        pub static __rodata_end: u8;
        pub static __data_start: u8;
        pub static __data_end: u8;
    }
}

/// Builds the kernel's tables: the direct map of `ram`, the kernel image as
/// the tables now in use have it, but for the page `guard`, and the window,
/// still empty.
///
/// Returns the top-level table, or `None` when `tables` ran out of frames.
///
/// # Safety
///
/// The bootloader's tables are in use; they have all of RAM at [`DIRECT_MAP`].
/// `tables` returns zeroed frames that no one else uses.
pub unsafe fn build(ram: &[PhysRange], guard: usize, tables: TableSource<'_>) -> Option<PhysAddr> {
    let root = tables()?;
    for range in ram {
        // SAFETY: `root` is new, and made of frames from `tables`.
        unsafe { map_direct(root, *range, tables)? };
    }

    use PageTableFlags as F;
    let text = (&raw const image::__text_start as usize, &raw const image::__text_end as usize, F::empty());
    let rodata = (&raw const image::__rodata_start as usize, &raw const image::__rodata_end as usize, F::NO_EXECUTE);
    let data =
        (&raw const image::__data_start as usize, &raw const image::__data_end as usize, F::NO_EXECUTE | F::WRITABLE);
    let (boot_root, _) = Cr3::read();
    for (start, end, flags) in [text, rodata, data] {
        for page in (start..end).step_by(PAGE_SIZE).filter(|&page| page != guard) {
            // SAFETY: the bootloader's tables lie in RAM; 4 KiB pages are what it maps the image with.
            let frame = unsafe { walk(boot_root.start_address(), page, 0, &mut || None)?.read() } & ADDRESS_MASK;
            // SAFETY: as for the direct map.
            let entry = unsafe { walk(root, page, 0, tables)? };
            // SAFETY: `walk` returns entries of tables.
            unsafe { entry.write(frame | (flags | F::PRESENT | F::GLOBAL).bits()) };
        }
    }

    // The window's part of the top-level table, so that it never changes again.
    // SAFETY: as for the direct map.
    unsafe { walk(root, WINDOW, 2, tables)? };
    Some(root)
}

/// Maps `range` at its place in the direct map, with the largest pages that fit.
///
/// # Safety
///
/// As for [`walk`].
unsafe fn map_direct(root: PhysAddr, range: PhysRange, tables: TableSource<'_>) -> Option<()> {
    const CPUID_EXTENDED_EDX_1G_PAGES: u32 = 1 << 26;
    let has_1g = __cpuid(0x8000_0001).edx & CPUID_EXTENDED_EDX_1G_PAGES != 0;
    let flags = Protection::ReadWrite.flags();
    let (mut at, end) = (range.start.as_u64() as usize, range.end.as_u64() as usize);
    while at < end {
        let fits = |size: usize| at.is_multiple_of(size) && end - at >= size;
        let (level, size) = match () {
            () if has_1g && fits(PUD_SIZE) => (2, PUD_SIZE),
            () if fits(PMD_SIZE) => (1, PMD_SIZE),
            () => (0, PAGE_SIZE),
        };
        let huge = if level > 0 { PageTableFlags::HUGE_PAGE } else { PageTableFlags::empty() };
        // SAFETY: as the caller promises.
        let entry = unsafe { walk(root, DIRECT_MAP + at, level, tables)? };
        // SAFETY: `walk` returns entries of tables.
        unsafe { entry.write(at as u64 | (flags | huge).bits()) };
        at += size;
    }
    Some(())
}

/// Turns on what page tables rely on: no-execute, write protection of
/// read-only pages for the kernel too, global pages, and, where the CPU has
/// them, SMEP, SMAP and UMIP. Lets programs ask for alignment checks.
pub fn enable_protection() {
    const CPUID7_EBX_SMEP: u32 = 1 << 7;
    const CPUID7_EBX_SMAP: u32 = 1 << 20;
    const CPUID7_ECX_UMIP: u32 = 1 << 2;
    let features = if __cpuid(0).eax >= 7 { Some(__cpuid_count(7, 0)) } else { None };
    let (ebx, ecx) = features.map_or((0, 0), |leaf| (leaf.ebx, leaf.ecx));
    let mut cr4 = Cr4Flags::PAGE_GLOBAL;
    cr4.set(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION, ebx & CPUID7_EBX_SMEP != 0);
    cr4.set(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION, ebx & CPUID7_EBX_SMAP != 0);
    cr4.set(Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION, ecx & CPUID7_ECX_UMIP != 0);
    // SAFETY: the CPU has all of these; they only forbid what the kernel does not do.
    unsafe {
        Efer::update(|flags| flags.insert(EferFlags::NO_EXECUTE_ENABLE));
        Cr0::update(|flags| flags.insert(Cr0Flags::WRITE_PROTECT | Cr0Flags::ALIGNMENT_MASK));
        Cr4::update(|flags| flags.insert(cr4));
    }
    usercopy::set_smap(cr4.contains(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION));
}

/// Makes `root`, which [`build`] returned, what [`root`] returns.
pub fn set_root(root: PhysAddr) {
    ROOT.store(root.as_u64(), Ordering::Relaxed);
}

/// Where in physical memory the kernel's address `addr` is.
pub fn translate(addr: usize) -> Option<PhysAddr> {
    let mut table = root();
    for level in (0..4).rev() {
        // SAFETY: an entry of a table of the kernel's.
        let value = unsafe { table_entry(table, index(addr, level)).read() };
        let flags = PageTableFlags::from_bits_truncate(value);
        if !flags.contains(PageTableFlags::PRESENT) {
            return None;
        }
        let target = value & ADDRESS_MASK;
        if level == 0 || level < 3 && flags.contains(PageTableFlags::HUGE_PAGE) {
            let offset = addr & ((PAGE_SIZE << (9 * level)) - 1);
            return Some(PhysAddr::new_truncate(target + offset as u64));
        }
        table = PhysAddr::new_truncate(target);
    }
    None
}

/// Turns PCIDs on, if the CPU has them and `invpcid`. Says whether it has.
///
/// The table in use is the kernel's own, loaded without flags.
pub fn enable_pcids() -> bool {
    const CPUID1_ECX_PCID: u32 = 1 << 17;
    const CPUID7_EBX_INVPCID: u32 = 1 << 10;
    let leaf_7 = if __cpuid(0).eax >= 7 { __cpuid_count(7, 0).ebx } else { 0 };
    let has = __cpuid(1).ecx & CPUID1_ECX_PCID != 0 && leaf_7 & CPUID7_EBX_INVPCID != 0;
    if has {
        // SAFETY: the CPU has it, and the PCID in use is 0, as it must be.
        unsafe { Cr4::update(|flags| flags.insert(Cr4Flags::PCID)) };
        PCIDS.store(true, Ordering::Relaxed);
    }
    has
}

/// Loads a top-level table.
///
/// # Safety
///
/// Its upper half is the kernel's, and it stays a page table while it is loaded.
/// A PCID other than 0 is used only if PCIDs are on, and what is kept under it
/// is what the table says.
pub unsafe fn load(load: RootLoad) {
    const CR3_KEEP: u64 = 1 << 63;
    let keep = if load.keep { CR3_KEEP } else { 0 };
    let value = load.root.as_u64() | u64::from(load.pcid) | keep;
    // SAFETY: the kernel is mapped there as it is here.
    unsafe { asm!("mov cr3, {}", in(reg) value, options(nostack, preserves_flags)) };
}

/// Loads the kernel's own table, of which no program's translations come.
pub fn load_own() {
    // SAFETY: it has all that the kernel uses, and stays.
    unsafe { load(RootLoad { root: root(), pcid: 0, keep: false }) };
}

/// Drops all translations of the address space in use from this CPU's TLB.
#[inline]
pub fn flush_loaded() {
    let (root, pcid) = Cr3::read_raw();
    // SAFETY: loads what is loaded; the kernel's own translations are global and stay.
    unsafe { Cr3::write_raw(root, pcid) };
}

/// Maps a frame at `addr` in the window, where nothing is.
///
/// # Errors
///
/// `ENOMEM` when there is no memory for a page table.
///
/// # Safety
///
/// `addr` is a page in the window that is the caller's to use.
pub unsafe fn map(addr: usize, frame: PhysAddr, protection: Protection) -> Result<(), Errno> {
    let _tables = NEXT_DEVICE_PAGE.lock();
    // SAFETY: the lock is held, and the caller's page is in the window.
    unsafe { map_locked(addr, frame, protection) }
}

/// # Safety
///
/// As for [`map`]; the lock of the tables is held.
unsafe fn map_locked(addr: usize, frame: PhysAddr, protection: Protection) -> Result<(), Errno> {
    let mut tables = || Some(memory().alloc_zeroed(FrameKind::Kernel).ok()?.into_raw().addr());
    // SAFETY: the kernel's own tables; the lock keeps others away.
    let entry = unsafe { walk(root(), addr, 0, &mut tables) }.ok_or(Errno::ENOMEM)?;
    // SAFETY: an entry of a table. It was empty, hence in no TLB.
    unsafe { entry.write(frame.as_u64() | protection.flags().bits()) };
    Ok(())
}

/// Drops this CPU's translations of the pages `range` (bytes) in the window.
pub(super) fn flush_kernel_pages(range: Range<usize>) {
    if PCIDS.load(Ordering::Relaxed) {
        // `invlpg` would do if it did not spare global pages on some CPUs with
        // PCIDs, as Linux knows of them; and this is rare.
        // SAFETY: PCIDs are on only where there is `invpcid`.
        unsafe { tlb::flush_pcid(InvPcidCommand::All) };
    } else {
        for page in range.step_by(PAGE_SIZE) {
            tlb::flush(VirtAddr::new_truncate(page as u64));
        }
    }
}

/// Takes the page at `addr` in the window out again, and returns its frame, if
/// one was mapped. TLBs may still know of it: the frame, and the page, may be
/// used again only after [`super::shootdown::flush_kernel`].
///
/// # Safety
///
/// [`map`] mapped it, to a frame the caller then owned, and no one uses it any more.
pub unsafe fn unmap(addr: usize) -> Option<OwnedFrame> {
    let _tables = NEXT_DEVICE_PAGE.lock();
    // SAFETY: the kernel's own tables; the lock keeps others away.
    let entry = unsafe { walk(root(), addr, 0, &mut || None)? };
    // SAFETY: an entry of a table.
    let value = unsafe { entry.replace(0) };
    if value & PageTableFlags::PRESENT.bits() == 0 {
        return None;
    }
    // SAFETY: the caller gives up the mapping, and with it the frame.
    Some(unsafe { OwnedFrame::from_raw(Pfn::containing(PhysAddr::new_truncate(value & ADDRESS_MASK)), 0) })
}

/// Maps one page of device registers for good and returns where.
///
/// # Errors
///
/// `ENOMEM` when there is no memory for a page table.
///
/// # Safety
///
/// There are registers at `frame`, not memory.
pub unsafe fn map_device(frame: PhysAddr) -> Result<usize, Errno> {
    let mut next = NEXT_DEVICE_PAGE.lock();
    // SAFETY: the page is handed out for the first time.
    unsafe { map_locked(*next, frame, Protection::Device)? };
    let addr = *next;
    *next += PAGE_SIZE;
    Ok(addr)
}
