//! `epoll`: a kept list of files to poll.
//!
//! A wait looks at every file of the list; see [`super::poll`] for what makes
//! it look. Edge-triggered entries remember the stamp of the readiness they
//! reported last and stay silent until it has changed. An epoll instance
//! cannot itself be added to one.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use bitflags::bitflags;
use mm::Errno;

use super::dentry::Dentry;
use super::file::flags::O_RDWR;
use super::file::{File, FileOps};
use super::inode::{Body, FileSystem, Inode, S_IFDIR, S_IFMT, S_IFREG};
use super::poll::{self, Events, Readiness};
use crate::arch::irq::Mutex;

bitflags! {
    /// The part of `epoll_event.events` that says how to report.
    #[derive(Clone, Copy)]
    struct Mode: u32 {
        /// `EPOLLEXCLUSIVE`: wake one waiter; all are woken, which is allowed.
        const EXCLUSIVE = 1 << 28;
        /// `EPOLLWAKEUP`: about system sleep, which there is none of.
        const WAKEUP = 1 << 29;
        /// `EPOLLONESHOT`: report once, then wait for `EPOLL_CTL_MOD`.
        const ONESHOT = 1 << 30;
        /// `EPOLLET`: report changes only.
        const EDGE = 1 << 31;
    }
}

/// `struct epoll_event`: the events and the user's own word.
#[derive(Clone, Copy)]
pub struct Event {
    /// `EPOLL*`.
    pub events: u32,
    /// Passed through.
    pub data: u64,
}

/// What `epoll_ctl` does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Adds a file.
    Add(Event),
    /// Removes it.
    Remove,
    /// Changes its events.
    Modify(Event),
}

impl PartialEq for Event {
    fn eq(&self, other: &Event) -> bool {
        (self.events, self.data) == (other.events, other.data)
    }
}

impl Eq for Event {}

/// The list of one instance.
pub struct Epoll {
    interests: Mutex<Vec<Interest>>,
}

struct Interest {
    fd: i32,
    file: Weak<File>,
    event: Event,
    /// `ONESHOT` has fired.
    disabled: bool,
    /// The stamp last reported.
    reported: Option<u64>,
}

impl Interest {
    fn new(fd: i32, file: &Arc<File>, event: Event) -> Interest {
        Interest { fd, file: Arc::downgrade(file), event, disabled: false, reported: None }
    }

    fn is_for(&self, fd: i32, file: &Arc<File>) -> bool {
        self.fd == fd && core::ptr::eq(self.file.as_ptr(), Arc::as_ptr(file))
    }

    /// The event to report now, if there is one.
    fn check(&mut self, file: &File) -> Option<Event> {
        let mode = Mode::from_bits_truncate(self.event.events);
        let wanted = Events::from_bits_truncate(self.event.events) | Events::ERR | Events::HUP;
        let Readiness { events, stamp } = file.ops().poll(file);
        let events = events & wanted;
        if events.is_empty() || self.disabled {
            return None;
        }
        if mode.contains(Mode::EDGE) && self.reported == Some(stamp) {
            return None;
        }
        self.reported = Some(stamp);
        self.disabled = mode.contains(Mode::ONESHOT);
        Some(Event { events: events.bits(), data: self.event.data })
    }
}

impl Epoll {
    /// Changes the list.
    ///
    /// # Errors
    /// `EEXIST`, `ENOENT`; `EPERM` for a file that is always ready, `EINVAL`
    /// for an epoll instance, `ENOMEM`.
    pub fn change(&self, fd: i32, file: &Arc<File>, change: Change) -> Result<(), Errno> {
        if matches!(file.inode().mode() & S_IFMT, S_IFREG | S_IFDIR) {
            return Err(Errno::EPERM);
        }
        if file.ops().epoll().is_some() {
            return Err(Errno::EINVAL);
        }
        let mut interests = self.interests.lock();
        let index = interests.iter().position(|interest| interest.is_for(fd, file));
        match (change, index) {
            (Change::Add(_), Some(_)) => return Err(Errno::EEXIST),
            (Change::Add(event), None) => {
                interests.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
                interests.push(Interest::new(fd, file, event));
            }
            (Change::Modify(event), Some(index)) => {
                interests[index] = Interest::new(fd, file, event);
            }
            (Change::Remove, Some(index)) => {
                interests.remove(index);
            }
            (_, None) => return Err(Errno::ENOENT),
        }
        drop(interests);
        // Whoever waits on the list looks at it again.
        poll::changed();
        Ok(())
    }

    /// Appends to `events` what there is to report, up to its capacity.
    fn collect(&self, events: &mut Vec<Event>) {
        let mut interests = self.interests.lock();
        // Entries of files that have been closed everywhere go.
        interests.retain(|interest| interest.file.strong_count() > 0);
        for interest in interests.iter_mut() {
            if events.len() == events.capacity() {
                break;
            }
            if let Some(file) = interest.file.upgrade()
                && let Some(event) = interest.check(&file)
            {
                events.push(event);
            }
        }
        // What was reported goes to the end, so that all get their turn.
        let reported = events.len().min(interests.len());
        interests.rotate_left(reported);
    }

    /// Waits for up to `limit` events, until `deadline` (see [`poll::wait`]);
    /// none when that has passed.
    ///
    /// # Errors
    /// `ERESTARTSYS` if a signal arrived, `ENOMEM`.
    pub fn wait(&self, limit: usize, deadline: Option<u64>) -> Result<Vec<Event>, Errno> {
        const MOST: usize = 256;
        let mut events = Vec::new();
        events.try_reserve_exact(limit.min(MOST)).map_err(|_| Errno::ENOMEM)?;
        poll::wait(deadline, || {
            self.collect(&mut events);
            Ok((!events.is_empty()).then_some(()))
        })?;
        Ok(events)
    }
}

impl FileOps for Epoll {
    fn poll(&self, _: &File) -> Readiness {
        let interests = self.interests.lock();
        let ready = interests.iter().any(|interest| {
            let wanted = Events::from_bits_truncate(interest.event.events);
            interest
                .file
                .upgrade()
                .is_some_and(|file| !interest.disabled && file.ops().poll(&file).events.intersects(wanted))
        });
        let events = if ready { Events::IN | Events::RDNORM } else { Events::empty() };
        Readiness::always(events)
    }

    fn epoll(&self) -> Option<&Epoll> {
        Some(self)
    }
}

/// A new instance; `flags` are `open`'s.
///
/// # Errors
/// `ENOMEM`.
pub fn new_file(flags: u32) -> Result<Arc<File>, Errno> {
    let inode = Inode::new(FileSystem::Anonymous, 0o600, 1, Body::Anonymous)?;
    let dentry = Dentry::without_parent(b"anon_inode:[eventpoll]", inode)?;
    File::new(dentry, Epoll { interests: Mutex::new(Vec::new()) }, flags | O_RDWR)
}
