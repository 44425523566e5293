//! Where the bytes of a read go, and where those of a write come from.
//!
//! File operations do not care whether the other side is one user buffer, a
//! list of them, or the kernel itself: they [`put`](Sink::put) bytes into a
//! [`Sink`] or [`take`](Source::take) them from a [`Source`]. User memory is
//! copied piece by piece, no piece crossing a page boundary, so an operation
//! that meets an unmapped page has moved exactly the bytes before it, as on
//! Linux.

use alloc::vec::Vec;
use mm::{Errno, PAGE_SIZE, TASK_SIZE};

use crate::arch::usercopy::{copy_from_user, copy_to_user, read_user};
use crate::memory::pins::Pin;
use crate::task;

/// The most bytes one call transfers (Linux's `MAX_RW_COUNT`).
pub const MAX_TRANSFER: usize = 0x7fff_f000;
/// The most pieces of one vectored call (`UIO_MAXIOV`).
const MAX_PIECES: usize = 1024;

/// After how many bytes a transfer lets other threads run.
const STRIDE: usize = 64 * 1024;

/// How much of a pinned page is copied at a time.
const PINNED_STEP: usize = 512;

/// What a call that moved `done` bytes before it met `error` returns.
pub fn partial(done: usize, error: Errno) -> Result<usize, Errno> {
    if done > 0 { Ok(done) } else { Err(error) }
}

/// To be called by a long transfer that has moved `done` bytes, `step` of them
/// just now, with no spin lock held: lets other threads run every now and then.
/// Says whether to end early, because the process is to exit.
pub fn should_stop(done: usize, step: usize) -> bool {
    done / STRIDE != (done - step) / STRIDE && task::between_steps()
}

/// A range of user memory, in bytes.
#[derive(Clone, Copy)]
struct Piece {
    base: usize,
    len: usize,
}

/// What is left of a list of user buffers.
struct Pieces {
    current: Piece,
    rest: Vec<Piece>,
    /// Index in `rest` of the piece after `current`.
    next: usize,
    remaining: usize,
}

impl Pieces {
    /// One buffer.
    fn single(base: usize, len: usize) -> Result<Pieces, Errno> {
        let len = len.min(MAX_TRANSFER);
        check_range(base, len)?;
        Ok(Pieces { current: Piece { base, len }, rest: Vec::new(), next: 0, remaining: len })
    }

    /// The buffers of the `struct iovec` array of `count` elements at `list`.
    fn vector(list: usize, count: usize) -> Result<Pieces, Errno> {
        if count > MAX_PIECES {
            return Err(Errno::EINVAL);
        }
        let mut rest = Vec::new();
        rest.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
        let mut remaining = 0;
        for index in 0..count {
            let [base, len]: [usize; 2] = read_user(list.wrapping_add(index * 16))?;
            if len > isize::MAX as usize {
                return Err(Errno::EINVAL);
            }
            check_range(base, len)?;
            let len = len.min(MAX_TRANSFER - remaining);
            remaining += len;
            rest.push(Piece { base, len });
        }
        Ok(Pieces { current: Piece { base: 0, len: 0 }, rest, next: 0, remaining })
    }

    /// The next bytes, at most `limit` of them, that lie in one buffer and in
    /// one page.
    fn chunk(&mut self, limit: usize) -> Option<Piece> {
        while self.current.len == 0 {
            self.current = *self.rest.get(self.next)?;
            self.next += 1;
        }
        let Piece { base, len } = self.current;
        let len = len.min(limit).min(PAGE_SIZE - base % PAGE_SIZE);
        (len > 0).then_some(Piece { base, len })
    }

    /// Steps over `count` bytes of the current buffer.
    fn advance(&mut self, count: usize) {
        self.current.base += count;
        self.current.len -= count;
        self.remaining -= count;
    }
}

/// Whether `len` bytes at `base` are user addresses at all.
fn check_range(base: usize, len: usize) -> Result<(), Errno> {
    match base.checked_add(len) {
        Some(end) if end <= TASK_SIZE => Ok(()),
        _ => Err(Errno::EFAULT),
    }
}

/// Where the bytes of a read go.
pub struct Sink<'a>(SinkKind<'a>);

enum SinkKind<'a> {
    User(Pieces),
    Kernel(&'a mut [u8]),
}

impl<'a> Sink<'a> {
    /// `len` bytes of user memory at `base`.
    ///
    /// # Errors
    /// `EFAULT` if that is not in user space.
    pub fn user(base: usize, len: usize) -> Result<Sink<'static>, Errno> {
        Ok(Sink(SinkKind::User(Pieces::single(base, len)?)))
    }

    /// The user buffers of an `iovec` array.
    ///
    /// # Errors
    /// `EINVAL` for too many or negative lengths, `EFAULT`, `ENOMEM`.
    pub fn user_vector(list: usize, count: usize) -> Result<Sink<'static>, Errno> {
        Ok(Sink(SinkKind::User(Pieces::vector(list, count)?)))
    }

    /// Memory of the kernel's own.
    pub fn kernel(buffer: &'a mut [u8]) -> Sink<'a> {
        Sink(SinkKind::Kernel(buffer))
    }

    /// How many bytes still fit.
    pub fn remaining(&self) -> usize {
        match &self.0 {
            SinkKind::User(pieces) => pieces.remaining,
            SinkKind::Kernel(buffer) => buffer.len(),
        }
    }

    /// Appends as much of `bytes` as fits and can be stored, and returns how
    /// much that was.
    ///
    /// # Errors
    /// `EFAULT` if not even the first byte could be stored.
    pub fn put(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        match &mut self.0 {
            SinkKind::User(pieces) => {
                let mut done = 0;
                while let Some(chunk) = pieces.chunk(bytes.len() - done) {
                    let piece = &bytes[done..done + chunk.len];
                    if let Err(error) = copy_to_user(chunk.base, piece) {
                        return partial(done, error);
                    }
                    pieces.advance(chunk.len);
                    done += chunk.len;
                }
                Ok(done)
            }
            SinkKind::Kernel(buffer) => {
                let count = bytes.len().min(buffer.len());
                let (now, later) = core::mem::take(buffer).split_at_mut(count);
                now.copy_from_slice(&bytes[..count]);
                *buffer = later;
                Ok(count)
            }
        }
    }

    /// The same with `count` bytes of a pinned page, from byte `start` on. There can be no reference to them, as
    /// the program may write to them meanwhile.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn put_pinned(&mut self, pin: &Pin, start: usize, count: usize) -> Result<usize, Errno> {
        let mut done = 0;
        while done < count {
            let mut buffer = [0; PINNED_STEP];
            let len = pin.read(start + done, &mut buffer[..PINNED_STEP.min(count - done)]);
            match self.put(&buffer[..len]) {
                Ok(0) => break,
                Ok(moved) => done += moved,
                Err(error) => return partial(done, error),
            }
        }
        Ok(done)
    }
}

/// Where the bytes of a write come from.
pub struct Source<'a>(SourceKind<'a>);

enum SourceKind<'a> {
    User(Pieces),
    Kernel(&'a [u8]),
}

impl<'a> Source<'a> {
    /// `len` bytes of user memory at `base`.
    ///
    /// # Errors
    /// `EFAULT` if that is not in user space.
    pub fn user(base: usize, len: usize) -> Result<Source<'static>, Errno> {
        Ok(Source(SourceKind::User(Pieces::single(base, len)?)))
    }

    /// The user buffers of an `iovec` array.
    ///
    /// # Errors
    /// `EINVAL` for too many or negative lengths, `EFAULT`, `ENOMEM`.
    pub fn user_vector(list: usize, count: usize) -> Result<Source<'static>, Errno> {
        Ok(Source(SourceKind::User(Pieces::vector(list, count)?)))
    }

    /// Memory of the kernel's own.
    pub fn kernel(bytes: &'a [u8]) -> Source<'a> {
        Source(SourceKind::Kernel(bytes))
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        match &self.0 {
            SourceKind::User(pieces) => pieces.remaining,
            SourceKind::Kernel(bytes) => bytes.len(),
        }
    }

    /// Removes the next bytes, as many as there are, can be read and fit into
    /// `buffer`, and returns how many that was.
    ///
    /// # Errors
    /// `EFAULT` if not even the first byte could be read.
    pub fn take(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        match &mut self.0 {
            SourceKind::User(pieces) => {
                let mut done = 0;
                while let Some(chunk) = pieces.chunk(buffer.len() - done) {
                    let piece = &mut buffer[done..done + chunk.len];
                    if let Err(error) = copy_from_user(piece, chunk.base) {
                        return partial(done, error);
                    }
                    pieces.advance(chunk.len);
                    done += chunk.len;
                }
                Ok(done)
            }
            SourceKind::Kernel(bytes) => {
                let count = bytes.len().min(buffer.len());
                let (now, later) = bytes.split_at(count);
                buffer[..count].copy_from_slice(now);
                *bytes = later;
                Ok(count)
            }
        }
    }

    /// Where the next bytes are that lie in one user buffer and in one page, and how many that is.
    pub fn user_piece(&mut self) -> Option<(usize, usize)> {
        match &mut self.0 {
            SourceKind::User(pieces) => pieces.chunk(usize::MAX).map(|piece| (piece.base, piece.len)),
            SourceKind::Kernel(_) => None,
        }
    }

    /// Steps over the piece that [`user_piece`](Self::user_piece) has returned.
    pub fn skip_user_piece(&mut self) {
        if let SourceKind::User(pieces) = &mut self.0
            && let Some(piece) = pieces.chunk(usize::MAX)
        {
            pieces.advance(piece.len);
        }
    }

    /// Steps over the rest, as a device that swallows everything does.
    pub fn skip_all(&mut self) -> usize {
        let count = self.remaining();
        match &mut self.0 {
            SourceKind::User(pieces) => {
                pieces.remaining = 0;
                pieces.current.len = 0;
                pieces.next = pieces.rest.len();
            }
            SourceKind::Kernel(bytes) => *bytes = &[],
        }
        count
    }
}
