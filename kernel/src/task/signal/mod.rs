//! Signals: what they are (here), what is pending, how they are sent, and how
//! they reach a handler.
//!
//! What always holds:
//! - A process's `state` lock is its "signal lock": it guards the shared
//!   pending queue, the list of threads and the stop and exit states.
//! - A thread's `blocked` mask is changed by that thread alone.
//! - A thread for which a deliverable signal is pending has
//!   [signal work](super::thread::Thread::has_signal_work) to do: it looks
//!   before it returns to user mode, and does not sleep interruptibly.

pub mod action;
pub mod deliver;
pub mod frame;
pub mod info;
pub mod pending;
pub mod send;

pub use action::{Action, Handlers};
pub use info::SigInfo;
pub use pending::Pending;
pub use send::with_mask;

/// How many signals there are; they are numbered from 1.
pub const SIGNAL_COUNT: usize = 64;

/// The first real-time signal: from here on signals queue.
pub const SIGRTMIN: u32 = 32;

/// A signal number, `1..=64`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Signal(u8);

macro_rules! signals {
    ($($name:ident = $number:literal,)*) => {
        #[allow(missing_docs)]
        impl Signal {
            $(pub const $name: Signal = Signal($number);)*
        }
    };
}

signals! {
    SIGHUP = 1, SIGQUIT = 3, SIGILL = 4, SIGTRAP = 5, SIGABRT = 6, SIGBUS = 7,
    SIGFPE = 8, SIGKILL = 9, SIGSEGV = 11, SIGPIPE = 13, SIGALRM = 14, SIGCHLD = 17,
    SIGCONT = 18, SIGSTOP = 19, SIGTSTP = 20, SIGTTIN = 21, SIGTTOU = 22, SIGURG = 23,
    SIGVTALRM = 26, SIGPROF = 27, SIGWINCH = 28, SIGSYS = 31,
}

impl Signal {
    /// The signal numbered `number`, if there is one.
    pub const fn new(number: usize) -> Option<Signal> {
        if number >= 1 && number <= SIGNAL_COUNT { Some(Signal(number as u8)) } else { None }
    }

    /// Its number, from 1.
    pub const fn number(self) -> u32 {
        self.0 as u32
    }

    /// Its place in a table, from 0.
    pub const fn index(self) -> usize {
        self.0 as usize - 1
    }

    /// The set of just this one.
    pub const fn set(self) -> SigSet {
        SigSet(1 << (self.0 - 1))
    }

    /// Whether it queues: several of it may be pending.
    pub const fn is_realtime(self) -> bool {
        self.0 as u32 >= SIGRTMIN
    }

    /// What happens to a process that has made no other arrangement.
    pub const fn default_action(self) -> DefaultAction {
        match self {
            Signal::SIGCHLD | Signal::SIGURG | Signal::SIGWINCH => DefaultAction::Ignore,
            Signal::SIGCONT => DefaultAction::Continue,
            Signal::SIGSTOP | Signal::SIGTSTP | Signal::SIGTTIN | Signal::SIGTTOU => DefaultAction::Stop,
            Signal::SIGQUIT
            | Signal::SIGILL
            | Signal::SIGTRAP
            | Signal::SIGABRT
            | Signal::SIGBUS
            | Signal::SIGFPE
            | Signal::SIGSEGV
            | Signal::SIGSYS
            | Signal(24 | 25) => DefaultAction::Core,
            _ => DefaultAction::Terminate,
        }
    }
}

/// What a signal does when its disposition is `SIG_DFL`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DefaultAction {
    /// The process ends.
    Terminate,
    /// The process ends; its status has the core-dump bit, though none is written.
    Core,
    /// Nothing.
    Ignore,
    /// All threads of the process stop.
    Stop,
    /// A stopped process goes on (which happened when the signal was sent).
    Continue,
}

/// A set of signals, as in the ABI: bit 0 is signal 1.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SigSet(pub u64);

impl SigSet {
    /// No signal.
    pub const EMPTY: SigSet = SigSet(0);
    /// What cannot be blocked, caught or ignored.
    pub const UNBLOCKABLE: SigSet = Signal::SIGKILL.set().union(Signal::SIGSTOP.set());
    /// The job-control stop signals, which `SIGCONT` cancels.
    pub const STOPS: SigSet =
        Signal::SIGSTOP.set().union(Signal::SIGTSTP.set()).union(Signal::SIGTTIN.set()).union(Signal::SIGTTOU.set());
    /// Caused by the instruction being executed; delivered before others.
    pub const SYNCHRONOUS: SigSet = Signal::SIGSEGV
        .set()
        .union(Signal::SIGBUS.set())
        .union(Signal::SIGILL.set())
        .union(Signal::SIGTRAP.set())
        .union(Signal::SIGFPE.set())
        .union(Signal::SIGSYS.set());

    /// Both sets together.
    pub const fn union(self, other: SigSet) -> SigSet {
        SigSet(self.0 | other.0)
    }

    /// What both have.
    pub const fn intersection(self, other: SigSet) -> SigSet {
        SigSet(self.0 & other.0)
    }

    /// This set without the members of `other`.
    pub const fn without(self, other: SigSet) -> SigSet {
        SigSet(self.0 & !other.0)
    }

    /// Whether `signal` is a member.
    pub const fn contains(self, signal: Signal) -> bool {
        self.0 & signal.set().0 != 0
    }

    /// Whether there is no member.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The member with the lowest number, those of [`SYNCHRONOUS`](Self::SYNCHRONOUS) first.
    pub const fn first(self) -> Option<Signal> {
        let urgent = self.intersection(SigSet::SYNCHRONOUS);
        let set = if urgent.is_empty() { self } else { urgent };
        Signal::new(if set.0 == 0 { 0 } else { set.0.trailing_zeros() as usize + 1 })
    }
}
