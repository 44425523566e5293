//! QEMU's `fw_cfg`: named blobs that the host hands to the guest.
//!
//! Blobs are read through the device's DMA interface, straight to where they
//! are wanted. The device takes physical addresses, so a buffer is passed to
//! it page by page.

use core::sync::atomic::{Ordering, fence};

use mm::{PAGE_SIZE, PhysAddr};
use x86_64::instructions::port::Port;

use crate::arch::irq::IrqMutex;
use crate::arch::paging;

const SELECTOR_PORT: u16 = 0x510;
const DATA_PORT: u16 = 0x511;
/// The high half of a request's address; the low half, at the next port, starts it.
const DMA_PORT: u16 = 0x514;

const ITEM_SIGNATURE: u16 = 0x00;
const ITEM_INTERFACES: u16 = 0x01;
const ITEM_DIRECTORY: u16 = 0x19;
const SIGNATURE: [u8; 4] = *b"QEMU";
const INTERFACE_DMA: u8 = 1 << 1;

const DMA_ERROR: u32 = 1 << 0;
const DMA_READ: u32 = 1 << 1;
const DMA_SKIP: u32 = 1 << 2;
const DMA_SELECT: u32 = 1 << 3;

/// Bytes of a directory entry: size, selector, two reserved bytes, name.
const ENTRY_SIZE: usize = 64;
const NAME_OFFSET: usize = 8;

/// A request to the device; numbers are big-endian.
#[repr(C, align(16))]
struct Request {
    control: u32,
    length: u32,
    address: u64,
}

/// Where requests are written; the lock also keeps the selected item selected.
static REQUEST: IrqMutex<Request> = IrqMutex::new(Request { control: 0, length: 0, address: 0 });

/// Whether the device is there, with its DMA interface.
fn is_present() -> bool {
    let mut selector = Port::<u16>::new(SELECTOR_PORT);
    let mut data = Port::<u8>::new(DATA_PORT);
    let _device = REQUEST.lock();
    // SAFETY: selecting an item and reading it byte by byte touches no memory;
    // without the device the ports read as ones.
    let (signature, interfaces) = unsafe {
        selector.write(ITEM_SIGNATURE);
        let signature = [(); 4].map(|()| data.read());
        selector.write(ITEM_INTERFACES);
        (signature, data.read())
    };
    signature == SIGNATURE && interfaces & INTERFACE_DMA != 0
}

impl Request {
    /// Has the device carry out one request. Returns whether it did.
    fn perform(&mut self, control: u32, length: u32, address: PhysAddr) -> bool {
        let Some(request) = paging::translate(&raw const *self as usize) else {
            return false;
        };
        let control_field = &raw mut self.control;
        // SAFETY: our own field, which the device writes too.
        unsafe { control_field.write_volatile(control.to_be()) };
        self.length = length.to_be();
        self.address = address.as_u64().to_be();
        fence(Ordering::SeqCst);
        // SAFETY: the request lies at this physical address, and what it tells
        // the device to write are `length` bytes at `address`, which is the
        // caller's buffer.
        unsafe {
            Port::<u32>::new(DMA_PORT).write(((request.as_u64() >> 32) as u32).to_be());
            Port::<u32>::new(DMA_PORT + 4).write((request.as_u64() as u32).to_be());
        }
        fence(Ordering::SeqCst);
        loop {
            // SAFETY: as above.
            let state = u32::from_be(unsafe { control_field.read_volatile() });
            if state & DMA_ERROR != 0 {
                return false;
            }
            if state == 0 {
                return true;
            }
            core::hint::spin_loop();
        }
    }

    /// Selects `item` and skips its first `offset` bytes.
    fn select(&mut self, item: u16, offset: u32) -> bool {
        self.perform(u32::from(item) << 16 | DMA_SELECT | DMA_SKIP, offset, PhysAddr::zero())
    }

    /// Reads on into all of `buffer`.
    fn read(&mut self, mut buffer: &mut [u8]) -> bool {
        while !buffer.is_empty() {
            let addr = buffer.as_ptr() as usize;
            let (piece, rest) = buffer.split_at_mut(buffer.len().min(PAGE_SIZE - addr % PAGE_SIZE));
            buffer = rest;
            let done = paging::translate(addr).is_some_and(|phys| self.perform(DMA_READ, piece.len() as u32, phys));
            if !done {
                return false;
            }
        }
        true
    }
}

/// A blob.
#[derive(Clone, Copy, Debug)]
pub struct File {
    selector: u16,
    size: u32,
}

impl File {
    /// Bytes it has.
    pub fn size(&self) -> usize {
        self.size as usize
    }

    /// Copies the bytes from `offset` on to all of `buffer`. Returns false,
    /// and leaves `buffer` in part unwritten, when it has not that many.
    #[must_use]
    pub fn read_at(&self, offset: usize, buffer: &mut [u8]) -> bool {
        let fits = offset.checked_add(buffer.len()).is_some_and(|end| end <= self.size());
        let mut request = REQUEST.lock();
        fits && request.select(self.selector, offset as u32) && request.read(buffer)
    }
}

/// The blob called `name`, such as `opt/mm/program`.
pub fn find(name: &str) -> Option<File> {
    if !is_present() {
        return None;
    }
    let mut request = REQUEST.lock();
    let mut count = [0; 4];
    if !(request.select(ITEM_DIRECTORY, 0) && request.read(&mut count)) {
        return None;
    }
    let mut entry = [0; ENTRY_SIZE];
    for _ in 0..u32::from_be_bytes(count) {
        if !request.read(&mut entry) {
            return None;
        }
        let [s0, s1, s2, s3, i0, i1, ..] = entry;
        let stored = entry[NAME_OFFSET..].split(|&byte| byte == 0).next();
        if stored == Some(name.as_bytes()) {
            let size = u32::from_be_bytes([s0, s1, s2, s3]);
            return Some(File { selector: u16::from_be_bytes([i0, i1]), size });
        }
    }
    None
}
