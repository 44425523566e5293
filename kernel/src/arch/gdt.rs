//! Segments and the task state segment: the remains of x86 segmentation that
//! long mode insists on, one set per CPU.

use core::cell::UnsafeCell;
use core::mem::size_of;

use x86_64::instructions::segmentation::{CS, DS, ES, FS, GS, SS, Segment};
use x86_64::instructions::tables::{lgdt, load_tss};
use x86_64::structures::DescriptorTablePointer;
use x86_64::structures::gdt::SegmentSelector;
use x86_64::structures::tss::TaskStateSegment;
use x86_64::{PrivilegeLevel, VirtAddr};

/// Code segment of the kernel; `syscall` expects the data segment just above.
pub const KERNEL_CODE_SELECTOR: u16 = 0x10;
/// Data segment of the kernel.
pub const KERNEL_DATA_SELECTOR: u16 = 0x18;
/// What `sysret` counts from: data 8 above, 64-bit code 16 above, as
/// [`super::trap::USER_DATA_SELECTOR`] and [`super::trap::USER_CODE_SELECTOR`] are.
pub const SYSRET_SELECTOR: u16 = 0x23;
const TSS_SELECTOR: u16 = 0x40;

const CODE: u64 = 0x00af_9b00_0000_ffff;
const DATA: u64 = 0x00cf_9300_0000_ffff;
const USER: u64 = 3 << 45;

/// Interrupt stacks of their own, for exceptions that can strike while the
/// current stack is not usable. Indices as the IDT counts them, from 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum InterruptStack {
    /// For #DF.
    DoubleFault = 1,
    /// For NMI.
    NonMaskable = 2,
    /// For #MC.
    MachineCheck = 3,
    /// For #DB.
    Debug = 4,
}

const INTERRUPT_STACKS: usize = 4;
const INTERRUPT_STACK_SIZE: usize = 8192;

#[repr(align(16))]
struct Stack(#[expect(dead_code, reason = "only its address is used")] [u8; INTERRUPT_STACK_SIZE]);

/// One CPU's descriptor table, task state and interrupt stacks.
pub struct Segments {
    gdt: UnsafeCell<[u64; 10]>,
    tss: UnsafeCell<TaskStateSegment>,
    stacks: UnsafeCell<[Stack; INTERRUPT_STACKS]>,
}

// SAFETY: only the CPU whose segments they are changes them, in `load` and
// `set_kernel_stack`; the fields are otherwise the processor's own.
unsafe impl Sync for Segments {}

impl Segments {
    /// Segments that no CPU uses yet.
    pub const fn new() -> Segments {
        Segments {
            gdt: UnsafeCell::new([0, 0, CODE, DATA, 0, DATA | USER, CODE | USER, 0, 0, 0]),
            tss: UnsafeCell::new(TaskStateSegment::new()),
            stacks: UnsafeCell::new([const { Stack([0; INTERRUPT_STACK_SIZE]) }; INTERRUPT_STACKS]),
        }
    }

    /// Makes these the segments of the CPU that calls this.
    ///
    /// # Safety
    ///
    /// No other CPU uses them, and this one has not loaded them before.
    /// Interrupts are disabled. `GS` is not in use yet: its base becomes 0.
    pub unsafe fn load(&'static self) {
        // SAFETY: the caller promises that no one else uses them.
        let (gdt, tss) = unsafe { (&mut *self.gdt.get(), &mut *self.tss.get()) };
        let mut stacks = [VirtAddr::zero(); 7];
        for (index, slot) in stacks[..INTERRUPT_STACKS].iter_mut().enumerate() {
            let top = self.stacks.get() as usize + (index + 1) * INTERRUPT_STACK_SIZE;
            *slot = VirtAddr::new_truncate(top as u64);
        }
        tss.interrupt_stack_table = stacks;
        let base = core::ptr::from_ref(tss) as u64;
        let limit = size_of::<TaskStateSegment>() as u64 - 1;
        const PRESENT_TSS: u64 = 0x89 << 40;
        gdt[8] = limit | (base & 0xff_ffff) << 16 | PRESENT_TSS | (base >> 24 & 0xff) << 56;
        gdt[9] = base >> 32;

        let pointer = DescriptorTablePointer {
            limit: (size_of::<[u64; 10]>() - 1) as u16,
            base: VirtAddr::from_ptr(self.gdt.get()),
        };
        let data = SegmentSelector(KERNEL_DATA_SELECTOR);
        let null = SegmentSelector::new(0, PrivilegeLevel::Ring0);
        // SAFETY: the table lives for `'static` and has valid descriptors at
        // all of these selectors.
        unsafe {
            lgdt(&pointer);
            CS::set_reg(SegmentSelector(KERNEL_CODE_SELECTOR));
            SS::set_reg(data);
            DS::set_reg(null);
            ES::set_reg(null);
            FS::set_reg(null);
            GS::set_reg(null);
            load_tss(SegmentSelector(TSS_SELECTOR));
        }
    }

    /// Sets the stack that traps from user mode start on.
    ///
    /// # Safety
    ///
    /// These are the segments of the CPU that calls this. `top` is the top of
    /// a kernel stack that stays while it is set.
    pub unsafe fn set_kernel_stack(&self, top: usize) {
        let tss = self.tss.get();
        // SAFETY: only this CPU touches it; the field may be unaligned.
        unsafe { (&raw mut (*tss).privilege_stack_table[0]).write_unaligned(VirtAddr::new_truncate(top as u64)) };
    }
}
