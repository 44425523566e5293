//! Sockets: connected pairs, as `socketpair` makes them, and nothing else.
//!
//! Each direction is a [`Channel`], which carries a stream of bytes or, for the
//! other two types, messages.

use core::sync::atomic::{AtomicBool, Ordering};

use alloc::sync::Arc;
use mm::Errno;

use super::channel::{Channel, Manner, PIPE_BUF};
use super::dentry::Dentry;
use super::file::flags::O_RDWR;
use super::file::{File, FileOps};
use super::inode::{Body, FileSystem, Inode, S_IFSOCK};
use super::io::{Sink, Source};
use super::poll::{Events, Readiness};
use super::small_text::SmallText;
use crate::arch::usercopy::write_user;

/// What a socket carries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `SOCK_STREAM`: bytes.
    Stream,
    /// `SOCK_DGRAM` and `SOCK_SEQPACKET`: messages.
    Messages,
}

/// One end of a pair.
pub struct Socket {
    kind: Kind,
    incoming: Arc<Channel>,
    outgoing: Arc<Channel>,
    /// This end takes part in the two directions (until `shutdown`).
    receives: AtomicBool,
    sends: AtomicBool,
}

impl Socket {
    fn new(kind: Kind, incoming: &Arc<Channel>, outgoing: &Arc<Channel>) -> Socket {
        incoming.open(true, false);
        outgoing.open(false, true);
        Socket {
            kind,
            incoming: incoming.clone(),
            outgoing: outgoing.clone(),
            receives: AtomicBool::new(true),
            sends: AtomicBool::new(true),
        }
    }

    fn manner(&self, nonblocking: bool) -> Manner {
        Manner { nonblocking, messages: self.kind == Kind::Messages }
    }

    /// Receives what is there, waiting for something unless `nonblocking`; 0
    /// once the other end is closed.
    ///
    /// # Errors
    /// Those of [`Channel::read`].
    pub fn receive(&self, sink: &mut Sink<'_>, nonblocking: bool) -> Result<usize, Errno> {
        if !self.receives.load(Ordering::Relaxed) {
            return Ok(0);
        }
        self.incoming.read(sink, self.manner(nonblocking))
    }

    /// Sends all of `source`. Unless `quiet`, `SIGPIPE` comes with `EPIPE`.
    ///
    /// # Errors
    /// Those of [`Channel::write`].
    pub fn send(&self, source: &mut Source<'_>, nonblocking: bool, quiet: bool) -> Result<usize, Errno> {
        let result = if self.sends.load(Ordering::Relaxed) {
            self.outgoing.write(source, self.manner(nonblocking))
        } else {
            Err(Errno::EPIPE)
        };
        if result == Err(Errno::EPIPE) && !quiet && self.kind == Kind::Stream {
            super::send_sigpipe();
        }
        result
    }

    /// Ends receiving, sending, or both.
    pub fn shut_down(&self, receiving: bool, sending: bool) {
        if receiving && self.receives.swap(false, Ordering::Relaxed) {
            self.incoming.close(true, false);
        }
        if sending && self.sends.swap(false, Ordering::Relaxed) {
            self.outgoing.close(false, true);
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.shut_down(true, true);
    }
}

impl FileOps for Socket {
    fn read(&self, file: &File, sink: &mut Sink<'_>, _offset: u64) -> Result<usize, Errno> {
        self.receive(sink, file.nonblocking())
    }

    fn write(&self, file: &File, source: &mut Source<'_>, _offset: u64) -> Result<usize, Errno> {
        self.send(source, file.nonblocking(), false)
    }

    fn poll(&self, _: &File) -> Readiness {
        // The stamps first: a change after that is another stamp.
        let stamp = self.incoming.stamp().wrapping_add(self.outgoing.stamp());
        let ended = self.incoming.writers() == 0 || !self.receives.load(Ordering::Relaxed);
        let unheard = self.outgoing.readers() == 0 || !self.sends.load(Ordering::Relaxed);
        let mut events = Events::empty();
        events.set(Events::IN | Events::RDNORM, ended || self.incoming.len() > 0);
        events.set(Events::RDHUP, ended);
        events.set(Events::HUP, ended && unheard);
        events.set(Events::OUT | Events::WRNORM, unheard || self.outgoing.room() >= PIPE_BUF);
        Readiness { events, stamp }
    }

    fn ioctl(&self, _: &File, request: u32, argument: usize) -> Result<usize, Errno> {
        const FIONREAD: u32 = 0x541b;
        match request {
            FIONREAD => {
                write_user(argument, self.incoming.len() as i32)?;
                Ok(0)
            }
            _ => Err(Errno::ENOTTY),
        }
    }

    fn socket(&self) -> Option<&Socket> {
        Some(self)
    }
}

/// A connected pair; `flags` are `open`'s.
///
/// # Errors
/// `ENOMEM`.
pub fn new_pair(kind: Kind, flags: u32) -> Result<(Arc<File>, Arc<File>), Errno> {
    let (one, other) = (Channel::new()?, Channel::new()?);
    let file = |socket| {
        let inode = Inode::new(FileSystem::Anonymous, S_IFSOCK | 0o777, 1, Body::Anonymous)?;
        let name = SmallText::new(format_args!("socket:[{}]", inode.number));
        let dentry = Dentry::without_parent(name.as_bytes(), inode)?;
        File::new(dentry, socket, flags | O_RDWR)
    };
    // Both ends first: an end that is alone would see the other as closed.
    let (first, second) = (Socket::new(kind, &one, &other), Socket::new(kind, &other, &one));
    Ok((file(first)?, file(second)?))
}
