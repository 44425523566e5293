//! Bulk memory of the file system: single frames, and text built up in them.
//!
//! The kernel heap is for small objects. Whatever can grow with what a user
//! does (the bytes in a pipe, the text of `/proc/PID/maps`) is kept in frames
//! of [`mm::Memory`], which are given back when their owner is dropped.

use core::fmt;

use alloc::vec::Vec;
use mm::{Errno, FrameKind, OwnedFrame, PAGE_SIZE};

use crate::memory::memory;

/// One zeroed frame of kernel memory, given back on drop.
pub struct Page {
    /// `None` only while the page is being dropped.
    frame: Option<OwnedFrame>,
}

impl Page {
    /// Allocates a page of zeroes.
    ///
    /// # Errors
    /// `ENOMEM` if there is no free frame.
    pub fn new() -> Result<Page, Errno> {
        Ok(Page { frame: Some(memory().alloc_zeroed(FrameKind::Kernel)?) })
    }

    /// The page's bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.frame {
            // SAFETY: the direct map keeps every frame mapped and readable for
            // good; the frame is ours alone until drop, and `&self` keeps
            // `bytes_mut` away.
            Some(frame) => unsafe { core::slice::from_raw_parts(memory().page_ptr(frame.pfn()), PAGE_SIZE) },
            None => &[],
        }
    }

    /// The page's bytes, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match &self.frame {
            // SAFETY: as in `bytes`; the direct map is writable, and `&mut
            // self` makes this the only reference.
            Some(frame) => unsafe { core::slice::from_raw_parts_mut(memory().page_ptr(frame.pfn()), PAGE_SIZE) },
            None => &mut [],
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        if let Some(frame) = self.frame.take() {
            memory().free(frame);
        }
    }
}

/// Text of any length, written with [`core::fmt::Write`] and read by offset.
///
/// Running out of memory makes the `write!` fail; [`Text::build`] turns that
/// into `ENOMEM`.
#[derive(Default)]
pub struct Text {
    pages: Vec<Page>,
    len: usize,
}

impl Text {
    /// Runs `write` on an empty text and returns what it wrote.
    ///
    /// # Errors
    /// `ENOMEM` if the text did not fit into memory, otherwise what `write` returned.
    pub fn build(write: impl FnOnce(&mut Text) -> Result<(), Errno>) -> Result<Text, Errno> {
        let mut text = Text::default();
        write(&mut text)?;
        Ok(text)
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The longest piece of text that starts at byte `offset` and lies in one
    /// page; empty at the end and beyond it.
    pub fn chunk(&self, offset: usize) -> &[u8] {
        let start = offset % PAGE_SIZE;
        match self.pages.get(offset / PAGE_SIZE) {
            Some(page) if offset < self.len => {
                let end = PAGE_SIZE.min(start + (self.len - offset));
                &page.bytes()[start..end]
            }
            _ => &[],
        }
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// `ENOMEM`; part of `bytes` may have been appended.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), Errno> {
        while !bytes.is_empty() {
            let start = self.len % PAGE_SIZE;
            if start == 0 && self.len / PAGE_SIZE == self.pages.len() {
                self.pages.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
                self.pages.push(Page::new()?);
            }
            let count = bytes.len().min(PAGE_SIZE - start);
            let (now, later) = bytes.split_at(count);
            if let Some(page) = self.pages.get_mut(self.len / PAGE_SIZE) {
                page.bytes_mut()[start..start + count].copy_from_slice(now);
            }
            self.len += count;
            bytes = later;
        }
        Ok(())
    }

    /// Appends formatted text: `text.put(format_args!(…))`.
    ///
    /// # Errors
    /// `ENOMEM`, as [`push`](Text::push).
    pub fn put(&mut self, text: fmt::Arguments<'_>) -> Result<(), Errno> {
        // The only way in which formatting numbers and strings fails is `push`.
        fmt::write(self, text).map_err(|_| Errno::ENOMEM)
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes()).map_err(|_| fmt::Error)
    }
}
