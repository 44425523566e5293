//! Where the bytes of a channel wait: a ring of pages.
//!
//! Positions count bytes since the beginning; who has the ring knows which of them are there. Most
//! pages are the ring's own, allocated when they are first needed, and kept. But a program can
//! [lend](Ring::lend) it one of its own: then what the program writes there is what is read, until
//! it is. Such a page is whole, and is given back when all of it has been read.

use mm::{Errno, FaultAccess, PAGE_SIZE};

use super::io::{Sink, Source, partial};
use super::page::Page;
use crate::memory::pins::{self, Pin};
use crate::task::Space;

const PAGES: usize = 16;
/// How much a ring holds, in bytes.
pub const CAPACITY: usize = PAGES * PAGE_SIZE;

/// A page of the ring: the lent one, if there is one, or its own.
struct Slot {
    own: Option<Page>,
    lent: Option<Pin>,
}

/// The pages, those of positions that are a multiple of [`CAPACITY`] first.
pub struct Ring([Slot; PAGES]);

/// How many bytes from position `at` on, at most `limit`, are in one page, where they begin in it, and its number.
fn part(at: u64, limit: usize) -> (usize, usize, usize) {
    let start = at as usize % PAGE_SIZE;
    (at as usize / PAGE_SIZE % PAGES, start, limit.min(PAGE_SIZE - start))
}

impl Ring {
    /// A ring without pages.
    pub fn new() -> Ring {
        Ring([const { Slot { own: None, lent: None } }; PAGES])
    }

    /// Copies up to `limit` bytes, from position `at` on, which are there.
    ///
    /// # Errors
    /// `EFAULT` if not all could be stored that the first page has.
    pub fn copy_out(&self, at: u64, sink: &mut Sink<'_>, limit: usize) -> Result<usize, Errno> {
        let mut done = 0;
        loop {
            let (slot, start, count) = part(at + done as u64, (limit - done).min(sink.remaining()));
            if count == 0 {
                return Ok(done);
            }
            match self.0[slot].copy_out(sink, start, count) {
                Ok(moved) if moved < count => return partial(done, Errno::EFAULT),
                Ok(count) => done += count,
                Err(error) => return partial(done, error),
            }
        }
    }

    /// Copies up to `limit` bytes to position `at`, and where they go there is room.
    ///
    /// # Errors
    /// `EFAULT` if not all could be read that the first page has room for, `ENOMEM`.
    pub fn copy_in(&mut self, at: u64, source: &mut Source<'_>, limit: usize) -> Result<usize, Errno> {
        let mut done = 0;
        loop {
            let (slot, start, count) = part(at + done as u64, (limit - done).min(source.remaining()));
            if count == 0 {
                return Ok(done);
            }
            match self.0[slot].copy_in(source, start, count) {
                Ok(moved) if moved < count => return partial(done, Errno::EFAULT),
                Ok(count) => done += count,
                Err(error) => return partial(done, error),
            }
        }
    }

    /// Takes up to `limit` bytes of user memory to position `at`, where there is room for them: as pages that `space`
    /// lends where a whole one meets a whole one of the ring, else as copies.
    ///
    /// # Errors
    /// `EFAULT` if the first page cannot be read, `ENOMEM`.
    pub fn lend(&mut self, at: u64, source: &mut Source<'_>, limit: usize, space: &Space) -> Result<usize, Errno> {
        let mut done = 0;
        while let Some((addr, len)) = source.user_piece() {
            let (slot, start, count) = part(at + done as u64, (limit - done).min(len));
            let slot = &mut self.0[slot];
            let moved = match count {
                0 => break,
                PAGE_SIZE => space.pin(addr, FaultAccess::READ).map_err(pins::error).map(|pin| {
                    slot.lent = Some(pin);
                    source.skip_user_piece();
                    PAGE_SIZE
                }),
                _ => slot.copy_in(source, start, count),
            };
            match moved {
                Ok(moved) => done += moved,
                Err(error) => return partial(done, error),
            }
        }
        Ok(done)
    }

    /// Gives back the lent pages of which `count` bytes from position `at` on were the rest.
    pub fn give_back(&mut self, at: u64, count: usize) {
        let page = |at: u64| at as usize / PAGE_SIZE;
        for page in page(at)..page(at + count as u64) {
            self.0[page % PAGES].lent = None;
        }
    }
}

impl Slot {
    /// Copies `count` bytes from `start` on, or fewer if the sink faults.
    fn copy_out(&self, sink: &mut Sink<'_>, start: usize, count: usize) -> Result<usize, Errno> {
        match (&self.lent, &self.own) {
            (Some(pin), _) => sink.put_pinned(pin, start, count),
            (None, Some(page)) => sink.put(&page.bytes()[start..start + count]),
            (None, None) => Ok(0),
        }
    }

    /// Fills `count` bytes from `start` on, or fewer if the source faults.
    fn copy_in(&mut self, source: &mut Source<'_>, start: usize, count: usize) -> Result<usize, Errno> {
        source.take(&mut self.own()?.bytes_mut()[start..start + count])
    }

    /// The ring's own page, to be written to. If one is lent its end still has to be read: what is written
    /// comes after that.
    fn own(&mut self) -> Result<&mut Page, Errno> {
        let page = match &mut self.own {
            Some(page) => page,
            none => none.insert(Page::new()?),
        };
        if let Some(pin) = self.lent.take() {
            pin.read(0, page.bytes_mut());
        }
        Ok(page)
    }
}
