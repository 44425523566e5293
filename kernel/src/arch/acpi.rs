//! Which CPUs there are: what the firmware's ACPI tables say.
//!
//! Only looked at early in the boot, while the bootloader's address space is in
//! use: it has all of physical memory, the kernel's own has RAM only.

use core::fmt;
use core::pin::Pin;
use core::ptr::NonNull;

use acpi::madt::{Madt, MadtEntry};
use acpi::{AcpiHandler, AcpiTables, PhysicalMapping};
use mm::MAX_CPUS;

use crate::memory::DIRECT_MAP;

/// In the flags of a CPU: it can be used.
const ENABLED: u32 = 1;

/// The numbers of the CPUs' local APICs, in the order of the tables.
#[derive(Clone, Copy)]
pub struct ApicIds {
    ids: [u32; MAX_CPUS],
    len: usize,
}

impl ApicIds {
    /// None.
    pub const fn none() -> ApicIds {
        ApicIds { ids: [0; MAX_CPUS], len: 0 }
    }

    /// The numbers.
    pub fn as_slice(&self) -> &[u32] {
        &self.ids[..self.len]
    }

    fn add(&mut self, id: u32) {
        if !self.as_slice().contains(&id)
            && let Some(slot) = self.ids.get_mut(self.len)
        {
            *slot = id;
            self.len += 1;
        }
    }
}

impl fmt::Debug for ApicIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}

/// Physical memory as the bootloader maps it.
#[derive(Clone, Copy)]
struct Mapped;

impl AcpiHandler for Mapped {
    unsafe fn map_physical_region<T>(&self, address: usize, size: usize) -> PhysicalMapping<Self, T> {
        let at = NonNull::new((DIRECT_MAP + address) as *mut T).unwrap_or(NonNull::dangling());
        // SAFETY: all of physical memory is mapped there, as the caller of `cpus` promises.
        unsafe { PhysicalMapping::new(address, at, size, size, *self) }
    }

    fn unmap_physical_region<T>(_region: &PhysicalMapping<Self, T>) {}
}

/// The local APICs of the usable CPUs; none if the tables cannot be read.
///
/// # Safety
///
/// `rsdp` is the physical address of the firmware's tables, and physical memory
/// is mapped at [`DIRECT_MAP`].
pub unsafe fn cpus(rsdp: u64) -> ApicIds {
    let mut cpus = ApicIds::none();
    // SAFETY: as the caller promises.
    let Ok(tables) = (unsafe { AcpiTables::from_rsdp(Mapped, rsdp as usize) }) else { return cpus };
    let Ok(madt) = tables.find_table::<Madt>() else { return cpus };
    let madt: Pin<&Madt> = madt.get();
    for entry in madt.entries() {
        match entry {
            MadtEntry::LocalApic(apic) if apic.flags & ENABLED != 0 => cpus.add(apic.apic_id.into()),
            MadtEntry::LocalX2Apic(apic) if apic.flags & ENABLED != 0 => cpus.add(apic.x2apic_id),
            _ => {}
        }
    }
    cpus
}
