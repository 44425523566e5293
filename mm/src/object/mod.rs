//! Memory objects: contents that several mappings share.
//!
//! An object is a sparse sequence of pages with a size in bytes: what stands
//! behind shared anonymous memory and memfds, and the contents of a file in
//! tmpfs (Linux: a shmem inode with its `address_space`). Pages come into
//! being, filled with zeroes, when they are written to or faulted in.
//!
//! What holds: no page lies at or beyond the end (its size, rounded up to a
//! page); bytes of the last page that a shrinking of the object cut off are
//! zero; each page's record names the object and the index as long as the page
//! is part of it. The object has one reference to each of its pages, and mappings
//! have their own. A page that the object loses goes from all page tables before
//! the operation is over ([`mappings`]).
//!
//! Objects are counted: an [`ObjectRef`] is one reference, and the crate's
//! VMAs keep others. The last one to go takes the contents along.

mod index;
mod mappings;

#[cfg(test)]
mod tests;

use core::fmt;
use core::ptr;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

use crate::addr::{PAGE_SHIFT, PAGE_SIZE, Pfn};
use crate::avl::Avl;
use crate::errno::{Errno, OutOfMemory};
use crate::frame::FrameKind;
use crate::interval::ByIndex;
use crate::memory::Memory;
use crate::platform::Platform;
use crate::slab::Ref;
use crate::space::Copies;
use crate::sync::{RwLock, SpinLock, point, rank};
use crate::vma::Vma;
use index::PageIndex;
pub(crate) use mappings::{MappingsLock, insert_mapping, remove_mapping};

/// The largest size of an object, in bytes: what a signed 64-bit offset reaches.
pub const MAX_OBJECT_SIZE: u64 = i64::MAX as u64;

/// What can go wrong with a memory object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ObjectError {
    /// No memory for a page.
    OutOfMemory,
    /// The size would exceed [`MAX_OBJECT_SIZE`].
    TooLarge,
    /// The page is beyond the end.
    BeyondEnd,
}

impl fmt::Display for ObjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ObjectError::OutOfMemory => "out of memory",
            ObjectError::TooLarge => "memory object too large",
            ObjectError::BeyondEnd => "beyond the end of the memory object",
        })
    }
}

impl core::error::Error for ObjectError {}

impl From<OutOfMemory> for ObjectError {
    fn from(_: OutOfMemory) -> ObjectError {
        ObjectError::OutOfMemory
    }
}

impl From<ObjectError> for Errno {
    /// What reading and writing a file reports.
    fn from(error: ObjectError) -> Errno {
        match error {
            // tmpfs is full when memory is.
            ObjectError::OutOfMemory => Errno::ENOSPC,
            ObjectError::TooLarge => Errno::EFBIG,
            ObjectError::BeyondEnd => Errno::EINVAL,
        }
    }
}

/// What `/proc/PID/maps` shows for a mapping of an object, up to 255 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ObjectName {
    len: u8,
    bytes: [u8; 255],
}

impl ObjectName {
    /// The name `bytes`, cut off after 255.
    pub fn new(bytes: &[u8]) -> ObjectName {
        let mut name = ObjectName::default();
        let len = bytes.len().min(name.bytes.len());
        name.bytes[..len].copy_from_slice(&bytes[..len]);
        name.len = len as u8;
        name
    }

    /// The name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl Default for ObjectName {
    fn default() -> ObjectName {
        ObjectName { len: 0, bytes: [0; 255] }
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

/// An object itself, in its arena.
#[derive(Default)]
pub(crate) struct Object {
    refcount: AtomicU32,
    id: AtomicU64,
    /// In bytes; changed with the lock of `pages` held.
    size: AtomicU64,
    /// Number of pages; changed with the lock of `pages` held.
    present: AtomicUsize,
    pages: SpinLock<PageIndex, { rank::OBJECT }>,
    name: SpinLock<ObjectName, { rank::OBJECT }>,
    /// The VMAs that map it, and their lock.
    mappings: Avl<ByIndex<Vma>>,
    mappings_lock: RwLock<(), { rank::MAPPINGS }>,
}

/// Whether the page in frame `pfn`, to which the caller has a reference, is one of
/// `object`. To be asked with the table locked that is to map it: if it is, then who takes
/// it out of the object finds it there later.
#[inline]
pub(crate) fn is_part_of<P: Platform>(memory: &Memory<P>, pfn: Pfn, object: Ref<Object>) -> bool {
    // The table may have been made just now, and who does not see it looks no further.
    fence(Ordering::SeqCst);
    point();
    memory.frame(pfn).mapping() == object.as_usize()
}

impl Object {
    /// The number its creator gave it.
    #[inline]
    pub(crate) fn id(&self) -> u64 {
        self.id.load(Ordering::Relaxed)
    }

    /// The size in bytes.
    #[inline]
    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    /// What `/proc/PID/maps` shows.
    pub(crate) fn name(&self) -> ObjectName {
        *self.name.lock()
    }
}

impl Ref<Object> {
    /// The page at `index` (in pages), with a reference for the caller to
    /// [`put`](Memory::put). A page that is missing is made when `create` says
    /// so, and else is `None`. The caller keeps the object alive meanwhile.
    ///
    /// # Errors
    ///
    /// [`ObjectError::BeyondEnd`], and [`ObjectError::OutOfMemory`] when a page
    /// could not be made.
    pub(crate) fn page<P: Platform>(
        self,
        memory: &Memory<P>,
        index: usize,
        create: bool,
    ) -> Result<Option<Pfn>, ObjectError> {
        let mut pages = self.pages.lock();
        if index as u64 >= self.size().div_ceil(PAGE_SIZE as u64) {
            return Err(ObjectError::BeyondEnd);
        }
        let page = match pages.get(memory, index) {
            None if create => Some(self.add_page(memory, &mut pages, index)?),
            page => page,
        };
        if let Some(pfn) = page {
            memory.get(pfn);
        }
        Ok(page)
    }

    /// Whether it has a page of its own at `index`.
    pub(crate) fn has_page<P: Platform>(self, memory: &Memory<P>, index: usize) -> bool {
        self.pages.lock().get(memory, index).is_some()
    }

    /// Adds a page of zeroes, with the index locked.
    fn add_page<P: Platform>(
        self,
        memory: &Memory<P>,
        pages: &mut PageIndex,
        index: usize,
    ) -> Result<Pfn, OutOfMemory> {
        let frame = memory.alloc_zeroed(FrameKind::Object)?;
        if let Err(error) = pages.insert(memory, index, frame.pfn()) {
            memory.free(frame);
            return Err(error);
        }
        let pfn = frame.into_raw();
        memory.frame(pfn).set_mapping(self.as_usize());
        memory.frame(pfn).set_index(index);
        self.present.fetch_add(1, Ordering::Relaxed);
        Ok(pfn)
    }

    /// Takes pages `first..end` out, and gives up the object's references to them.
    fn remove_pages<P: Platform>(self, memory: &Memory<P>, first: usize, end: usize) {
        let mut next = first;
        loop {
            // A few at a time, so that nobody waits for long.
            let mut removed = [Pfn(0); 32];
            let mut count = 0;
            let mut pages = self.pages.lock();
            while count < removed.len()
                && let Some((index, pfn)) = pages.next(memory, next)
                && index < end
            {
                pages.remove(memory, index);
                point();
                memory.frame(pfn).set_mapping(0);
                removed[count] = pfn;
                count += 1;
                next = index + 1;
            }
            self.present.fetch_sub(count, Ordering::Relaxed);
            drop(pages);
            for &pfn in &removed[..count] {
                memory.put(pfn);
            }
            if count < removed.len() {
                return;
            }
        }
    }

    /// Fills bytes `start..end`, which lie within one page, with zeroes.
    fn zero_within_page<P: Platform>(self, memory: &Memory<P>, start: u64, end: u64) {
        let (index, offset) = split(start);
        let pages = self.pages.lock();
        if let Some(pfn) = pages.get(memory, index) {
            // SAFETY: the range lies within the page, which stays as long as
            // the index is locked.
            unsafe { memory.page_ptr(pfn).add(offset).write_bytes(0, (end - start) as usize) };
        }
    }
}

/// A byte offset as a page index and an offset in that page.
fn split(offset: u64) -> (usize, usize) {
    ((offset >> PAGE_SHIFT) as usize, offset as usize % PAGE_SIZE)
}

impl<P: Platform> Memory<P> {
    /// Makes an object of size 0. `id` is for the creator's use (an inode
    /// number); `name` is what `/proc/PID/maps` shall show, up to 255 bytes.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub fn create_object(&self, id: u64, name: &[u8]) -> Result<ObjectRef<'_, P>, OutOfMemory> {
        let object = self.arenas.objects.alloc(self)?;
        object.id.store(id, Ordering::Relaxed);
        object.size.store(0, Ordering::Relaxed);
        *object.name.lock() = ObjectName::new(name);
        object.refcount.store(1, Ordering::Relaxed);
        Ok(ObjectRef { memory: self, object })
    }

    /// Adds a reference to an object, on behalf of someone who has one.
    pub(crate) fn get_object(&self, object: Ref<Object>) {
        let before = object.refcount.fetch_add(1, Ordering::Relaxed);
        debug_assert!(before != 0, "reference to a freed object");
    }

    /// Takes a reference away from an object, the caller's own; with the last
    /// one the object goes.
    pub(crate) fn put_object(&self, object: Ref<Object>) {
        // Release and acquire: what others did to the object happens before
        // its end.
        if object.refcount.fetch_sub(1, Ordering::AcqRel) == 1 {
            object.remove_pages(self, 0, usize::MAX);
            self.arenas.objects.free(self, object);
        }
    }
}

/// A reference to a memory object.
pub struct ObjectRef<'m, P: Platform> {
    memory: &'m Memory<P>,
    object: Ref<Object>,
}

impl<'m, P: Platform> ObjectRef<'m, P> {
    /// The number that its creator gave it.
    pub fn id(&self) -> u64 {
        self.object.id()
    }

    /// The size in bytes.
    pub fn size(&self) -> u64 {
        self.object.size()
    }

    /// Pages that are there: what it takes of memory.
    pub fn pages(&self) -> usize {
        self.object.present.load(Ordering::Relaxed)
    }

    /// What `/proc/PID/maps` shows.
    pub fn name(&self) -> ObjectName {
        self.object.name()
    }

    /// Changes what `/proc/PID/maps` shows, up to 255 bytes.
    pub fn set_name(&self, name: &[u8]) {
        *self.object.name.lock() = ObjectName::new(name);
    }

    /// Sets the size, in bytes. What is beyond the new end goes; what the
    /// object gains reads as zeroes. Pages that go are mapped nowhere afterwards, nor are
    /// private copies of them: an access is [`FaultError::BeyondEnd`](crate::FaultError).
    ///
    /// Who lets several threads resize and write at the same time, without a
    /// lock as the inode's in Linux, may find written bytes to be zero.
    ///
    /// # Errors
    ///
    /// [`ObjectError::TooLarge`].
    pub fn set_size(&self, size: u64) -> Result<(), ObjectError> {
        if size > MAX_OBJECT_SIZE {
            return Err(ObjectError::TooLarge);
        }
        let pages = self.object.pages.lock();
        let before = self.object.size.swap(size, Ordering::Relaxed);
        drop(pages);
        if size < before {
            let end = size.next_multiple_of(PAGE_SIZE as u64);
            self.object.zero_within_page(self.memory, size, end);
            self.object.remove_pages(self.memory, split(end).0, usize::MAX);
            self.memory.unmap_object(self.object, split(end).0..usize::MAX, Copies::Go);
        }
        Ok(())
    }

    /// Makes bytes `start..end` read as zeroes and frees the pages in between
    /// (`FALLOC_FL_PUNCH_HOLE`), wherever they are mapped; but private copies stay. So does
    /// the size.
    pub fn punch_hole(&self, start: u64, end: u64) {
        let page = PAGE_SIZE as u64;
        let end = end.min(MAX_OBJECT_SIZE);
        if start >= end {
            return;
        }
        let inner = start.next_multiple_of(page)..end / page * page;
        if inner.start > inner.end {
            // Inside one page.
            self.object.zero_within_page(self.memory, start, end);
            return;
        }
        self.object.zero_within_page(self.memory, start, inner.start);
        self.object.zero_within_page(self.memory, inner.end, end);
        let inner = split(inner.start).0..split(inner.end).0;
        self.object.remove_pages(self.memory, inner.start, inner.end);
        self.memory.unmap_object(self.object, inner, Copies::Stay);
    }

    /// Copies what is at `offset` into `buffer`, and says how many bytes that
    /// are: fewer than asked for only at the end.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let mut done = 0;
        while done < buffer.len() {
            let position = offset.saturating_add(done as u64);
            let (index, within) = split(position);
            // The page is looked up first: when it is missing because the
            // object has just shrunk, the size says so too.
            let page = self.object.page(self.memory, index, false);
            let left = self.size().saturating_sub(position);
            let len = (buffer.len() - done).min(PAGE_SIZE - within);
            let len = left.min(len as u64) as usize;
            let target = &mut buffer[done..done + len];
            match page {
                Ok(Some(pfn)) => {
                    let source = self.memory.page_ptr(pfn).wrapping_add(within).cast_const();
                    // SAFETY: `within + len` is at most a page, and our
                    // reference keeps that page; the buffer is no page of an
                    // object, being borrowed exclusively.
                    unsafe { ptr::copy_nonoverlapping(source, target.as_mut_ptr(), len) };
                    self.memory.put(pfn);
                }
                Ok(None) => target.fill(0),
                Err(_) => break,
            }
            if len == 0 {
                break;
            }
            done += len;
        }
        done
    }

    /// Copies `data` to `offset`, and says how many bytes that were: fewer than
    /// all when memory ran out. The object grows as needed.
    ///
    /// # Errors
    ///
    /// [`ObjectError::OutOfMemory`] and [`ObjectError::TooLarge`] when nothing
    /// could be written.
    pub fn write(&self, offset: u64, data: &[u8]) -> Result<usize, ObjectError> {
        let room = MAX_OBJECT_SIZE.saturating_sub(offset);
        if room == 0 && !data.is_empty() {
            return Err(ObjectError::TooLarge);
        }
        let data = &data[..(data.len() as u64).min(room) as usize];
        let mut done = 0;
        while done < data.len() {
            let position = offset + done as u64;
            let len = (data.len() - done).min(PAGE_SIZE - split(position).1);
            match self.write_within_page(position, &data[done..done + len]) {
                Ok(()) => done += len,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(done)
    }

    /// Writes to one page; contents and size change together.
    fn write_within_page(&self, position: u64, data: &[u8]) -> Result<(), OutOfMemory> {
        let (index, within) = split(position);
        let mut pages = self.object.pages.lock();
        let pfn = match pages.get(self.memory, index) {
            Some(pfn) => pfn,
            None => self.object.add_page(self.memory, &mut pages, index)?,
        };
        let target = self.memory.page_ptr(pfn).wrapping_add(within);
        // SAFETY: the caller keeps to one page, which stays as long as the
        // index is locked; `data` is no page of an object, being borrowed.
        unsafe { ptr::copy_nonoverlapping(data.as_ptr(), target, data.len()) };
        self.object.size.fetch_max(position + data.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// The object itself; the reference stays with `self`.
    pub(crate) fn raw(&self) -> Ref<Object> {
        self.object
    }
}

impl<P: Platform> Clone for ObjectRef<'_, P> {
    fn clone(&self) -> Self {
        self.memory.get_object(self.object);
        ObjectRef { memory: self.memory, object: self.object }
    }
}

impl<P: Platform> Drop for ObjectRef<'_, P> {
    fn drop(&mut self) {
        self.memory.put_object(self.object);
    }
}

impl<P: Platform> PartialEq for ObjectRef<'_, P> {
    /// Whether both are the same object.
    fn eq(&self, other: &Self) -> bool {
        self.object == other.object
    }
}

impl<P: Platform> Eq for ObjectRef<'_, P> {}

impl<P: Platform> fmt::Debug for ObjectRef<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectRef")
            .field("id", &self.id())
            .field("name", &self.name())
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}
