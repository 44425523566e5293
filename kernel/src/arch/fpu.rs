//! The program's FPU, SSE and AVX state.
//!
//! The kernel uses none of these registers. They are saved and loaded when
//! the CPU switches between threads ([`super::context`]), put on the user
//! stack for a signal handler, and taken back from there.
//!
//! With `XSAVE` the state has the standard (not compacted) format, whose size
//! the CPU tells; without it, it is the 512 bytes of `FXSAVE`.

use alloc::alloc::{alloc, dealloc};
use core::alloc::Layout;
use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count, _fxrstor64, _fxsave64};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags};

use super::usercopy;
use mm::Errno;

const LEGACY_SIZE: usize = 512;
const HEADER_SIZE: usize = 64;
/// Room for every state component this kernel enables (AVX-512 needs 2688).
const LARGEST_SIZE: usize = 2816;
const ALIGNMENT: usize = 64;

/// x87, SSE, AVX and the three parts of AVX-512. Not protection keys, whose
/// register the kernel would have to honour in its own accesses.
const SUPPORTED_FEATURES: u64 = 0b1110_0111;
const FEATURES_X87_SSE: u64 = 0b11;
const FEATURES_AVX: u64 = 0b100;

/// Where `FXSAVE` leaves 48 bytes to software, and signal frames say what they hold.
const SOFTWARE_BYTES: usize = 464;
const MXCSR_OFFSET: usize = 24;
const MXCSR_MASK_OFFSET: usize = 28;
const XSTATE_BV_OFFSET: usize = LEGACY_SIZE;
const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;
const DEFAULT_MXCSR_MASK: u32 = 0xffbf;

/// Enabled state components (`XCR0`); 0 when the CPU has no `XSAVE`.
static FEATURES: AtomicU64 = AtomicU64::new(0);
static SIZE: AtomicUsize = AtomicUsize::new(LEGACY_SIZE);
static MXCSR_MASK: AtomicU32 = AtomicU32::new(DEFAULT_MXCSR_MASK);

/// Bytes of the state of one thread.
pub fn size() -> usize {
    SIZE.load(Ordering::Relaxed)
}

/// The state components that programs may use (`XCR0`); 0 without `XSAVE`.
pub fn features() -> u64 {
    FEATURES.load(Ordering::Relaxed)
}

/// Turns the FPU on, on this CPU, and finds out what it has.
pub fn init() {
    // SAFETY: turns on native FPU errors and instructions, which only programs use.
    unsafe {
        Cr0::update(|flags| {
            flags.remove(Cr0Flags::EMULATE_COPROCESSOR | Cr0Flags::TASK_SWITCHED);
            flags.insert(Cr0Flags::MONITOR_COPROCESSOR | Cr0Flags::NUMERIC_ERROR);
        });
        Cr4::update(|flags| flags.insert(Cr4Flags::OSFXSR | Cr4Flags::OSXMMEXCPT_ENABLE));
    }
    const CPUID1_ECX_XSAVE: u32 = 1 << 26;
    if __cpuid(1).ecx & CPUID1_ECX_XSAVE != 0 {
        // SAFETY: the CPU has XSAVE, as CPUID said.
        unsafe { Cr4::update(|flags| flags.insert(Cr4Flags::OSXSAVE)) };
        let leaf = __cpuid_count(0xd, 0);
        let mut features = (u64::from(leaf.edx) << 32 | u64::from(leaf.eax)) & SUPPORTED_FEATURES;
        // AVX-512 comes as a whole, and on top of AVX, or not at all.
        if features & SUPPORTED_FEATURES != SUPPORTED_FEATURES {
            features &= FEATURES_X87_SSE | FEATURES_AVX;
        }
        set_xcr0(features);
        // EBX: bytes that the components now enabled need.
        let size = __cpuid_count(0xd, 0).ebx as usize;
        if size <= LARGEST_SIZE {
            FEATURES.store(features, Ordering::Relaxed);
            SIZE.store(size, Ordering::Relaxed);
        }
    }
    let mut image = Image([0; LARGEST_SIZE]);
    // SAFETY: the image is large enough and aligned; FXSAVE is there on every x86-64 CPU.
    unsafe { _fxsave64(image.0.as_mut_ptr()) };
    let mask = read_u32(&image.0, MXCSR_MASK_OFFSET);
    if mask != 0 {
        MXCSR_MASK.store(mask, Ordering::Relaxed);
    }
}

fn set_xcr0(features: u64) {
    // SAFETY: `features` are components that the CPU says it has; x87 is always among them.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") features as u32, in("edx") (features >> 32) as u32,
            options(nostack, nomem, preserves_flags));
    }
}

/// A state image with the alignment that the instructions want.
#[repr(C, align(64))]
struct Image([u8; LARGEST_SIZE]);

/// Fills `image` with the state of a program that has just started.
fn write_initial(image: &mut [u8]) {
    const INITIAL_CONTROL_WORD: u16 = 0x37f;
    const INITIAL_MXCSR: u32 = 0x1f80;
    image.fill(0);
    image[..2].copy_from_slice(&INITIAL_CONTROL_WORD.to_le_bytes());
    image[MXCSR_OFFSET..][..4].copy_from_slice(&INITIAL_MXCSR.to_le_bytes());
    if features() != 0 {
        image[XSTATE_BV_OFFSET..][..8].copy_from_slice(&FEATURES_X87_SSE.to_le_bytes());
    }
}

/// The FPU state of a thread, on the heap.
#[derive(Debug)]
pub struct FpuState {
    image: NonNull<u8>,
}

// SAFETY: owns its memory, like a box.
unsafe impl Send for FpuState {}
// SAFETY: changes only through `&mut`.
unsafe impl Sync for FpuState {}

impl FpuState {
    fn layout() -> Result<Layout, Errno> {
        Layout::from_size_align(size(), ALIGNMENT).map_err(|_| Errno::ENOMEM)
    }

    /// The state a program starts with.
    ///
    /// # Errors
    ///
    /// `ENOMEM` when the heap has no room.
    pub fn new() -> Result<FpuState, Errno> {
        let layout = Self::layout()?;
        // SAFETY: the size is not zero.
        let image = NonNull::new(unsafe { alloc(layout) }).ok_or(Errno::ENOMEM)?;
        // SAFETY: as many bytes as were just allocated, made valid before they become a slice.
        unsafe { image.write_bytes(0, size()) };
        let mut state = FpuState { image };
        write_initial(state.bytes_mut());
        Ok(state)
    }

    /// The state that the CPU has now: the current thread's, for a new thread
    /// that starts as its copy.
    ///
    /// # Errors
    ///
    /// `ENOMEM` when the heap has no room.
    pub fn capture() -> Result<FpuState, Errno> {
        let mut state = FpuState::new()?;
        state.save();
        Ok(state)
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: allocated with this size, initialised, owned.
        unsafe { core::slice::from_raw_parts_mut(self.image.as_ptr(), size()) }
    }

    /// Stores the CPU's state here.
    pub fn save(&mut self) {
        save_to(self.image.as_ptr());
    }

    /// Loads this into the CPU.
    pub fn restore(&self) {
        // Written by `save_to` or `write_initial`, hence what the CPU accepts.
        restore_from(self.image.as_ptr());
    }
}

impl Drop for FpuState {
    fn drop(&mut self) {
        if let Ok(layout) = Self::layout() {
            // SAFETY: allocated with the same layout.
            unsafe { dealloc(self.image.as_ptr(), layout) };
        }
    }
}

/// `image` has `size()` bytes and is 64-byte aligned.
fn save_to(image: *mut u8) {
    let features = features();
    if features == 0 {
        // SAFETY: the caller's image is large enough and aligned.
        unsafe { _fxsave64(image) };
        return;
    }
    // SAFETY: as above; XSAVE is enabled, and needs `size()` bytes for these features.
    unsafe {
        asm!("xsave64 [{}]", in(reg) image, in("eax") features as u32, in("edx") (features >> 32) as u32,
            options(nostack, preserves_flags));
    }
}

/// `image` has `size()` bytes, is 64-byte aligned and holds a state that the CPU accepts.
fn restore_from(image: *const u8) {
    let features = features();
    if features == 0 {
        // SAFETY: the caller vouches for the image; the registers are the program's.
        unsafe { _fxrstor64(image) };
        return;
    }
    // SAFETY: as above.
    unsafe {
        asm!("xrstor64 [{}]", in(reg) image, in("eax") features as u32, in("edx") (features >> 32) as u32,
            options(nostack, preserves_flags));
    }
}

/// Gives the CPU the state a program starts with.
pub fn reset() {
    let mut image = Image([0; LARGEST_SIZE]);
    write_initial(&mut image.0[..size()]);
    restore_from(image.0.as_ptr());
}

/// The exceptions that are pending and not masked, of the x87 unit or (`simd`)
/// of SSE: bits 0 to 5, as in both status registers.
pub fn pending_exceptions(simd: bool) -> u32 {
    const EXCEPTIONS: u32 = 0x3f;
    let mut image = Image([0; LARGEST_SIZE]);
    save_to(image.0.as_mut_ptr());
    let (flags, masks) = if simd {
        let mxcsr = read_u32(&image.0, MXCSR_OFFSET);
        (mxcsr, mxcsr >> 7)
    } else {
        // The control word, then the status word.
        let words = read_u32(&image.0, 0);
        (words >> 16, words)
    };
    flags & !masks & EXCEPTIONS
}

/// Bytes that the state takes in a signal frame.
pub fn signal_frame_size() -> usize {
    if features() == 0 { LEGACY_SIZE } else { size() + size_of::<u32>() }
}

/// Stores the CPU's state at user address `addr`, as the `struct _fpstate` of a
/// signal frame, with what makes it known as an extended one.
///
/// # Errors
///
/// `EFAULT` when the memory cannot be written, `EINVAL` when `addr` is not
/// 64-byte aligned.
pub fn write_signal_frame(addr: usize) -> Result<(), Errno> {
    if !addr.is_multiple_of(ALIGNMENT) {
        return Err(Errno::EINVAL);
    }
    let mut image = Image([0; LARGEST_SIZE]);
    save_to(image.0.as_mut_ptr());
    let software = &mut image.0[SOFTWARE_BYTES..LEGACY_SIZE];
    software.fill(0);
    let size = size();
    if features() != 0 {
        // struct _fpx_sw_bytes: magic1, extended_size, xfeatures, xstate_size.
        software[0..4].copy_from_slice(&MAGIC1.to_le_bytes());
        software[4..8].copy_from_slice(&(signal_frame_size() as u32).to_le_bytes());
        software[8..16].copy_from_slice(&features().to_le_bytes());
        software[16..20].copy_from_slice(&(size as u32).to_le_bytes());
        usercopy::copy_to_user(addr + size, &MAGIC2.to_le_bytes())?;
    }
    usercopy::copy_to_user(addr, &image.0[..size])
}

/// Loads the CPU's state from user address `addr`, where
/// [`write_signal_frame`] stored one and the program may have changed it. For
/// `addr` 0: the state a program starts with.
///
/// Whatever the bytes, the result is a state that the CPU accepts: bits it has
/// not are cleared. A frame without the marks of an extended one restores x87
/// and SSE only, and the rest becomes initial.
///
/// # Errors
///
/// `EFAULT` when the memory cannot be read.
pub fn read_signal_frame(addr: usize) -> Result<(), Errno> {
    if addr == 0 {
        reset();
        return Ok(());
    }
    let mut image = Image([0; LARGEST_SIZE]);
    usercopy::copy_from_user(&mut image.0[..LEGACY_SIZE], addr)?;
    if features() != 0 {
        let size = size();
        let software = &image.0[SOFTWARE_BYTES..LEGACY_SIZE];
        let marked = read_u32(software, 0) == MAGIC1
            && read_u32(software, 16) as usize == size
            && addr.checked_add(size).is_some_and(|end| usercopy::read_user(end) == Ok(MAGIC2));
        let mut components = FEATURES_X87_SSE;
        if marked {
            usercopy::copy_from_user(&mut image.0[LEGACY_SIZE..size], addr + LEGACY_SIZE)?;
            components = read_u64(&image.0, XSTATE_BV_OFFSET) & features();
        }
        image.0[LEGACY_SIZE..LEGACY_SIZE + HEADER_SIZE].fill(0);
        image.0[XSTATE_BV_OFFSET..][..8].copy_from_slice(&components.to_le_bytes());
    }
    let mxcsr = read_u32(&image.0, MXCSR_OFFSET) & MXCSR_MASK.load(Ordering::Relaxed);
    image.0[MXCSR_OFFSET..][..4].copy_from_slice(&mxcsr.to_le_bytes());
    restore_from(image.0.as_ptr());
    Ok(())
}

/// The little-endian number at `offset`, which must be in range.
fn read_u32(bytes: &[u8], offset: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[offset..][..4]);
    u32::from_le_bytes(number)
}

/// The little-endian number at `offset`, which must be in range.
fn read_u64(bytes: &[u8], offset: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[offset..][..8]);
    u64::from_le_bytes(number)
}
