//! What a process has arranged for each signal (`rt_sigaction`).

use super::{DefaultAction, SIGNAL_COUNT, SigSet, Signal};
use crate::arch::irq::IrqMutex;
use alloc::sync::Arc;
use mm::Errno;

/// `SIG_DFL`, as a handler address.
pub const SIG_DFL: u64 = 0;
/// `SIG_IGN`, as a handler address.
pub const SIG_IGN: u64 = 1;

/// No `SIGCHLD` when a child stops.
pub const SA_NOCLDSTOP: u64 = 1;
/// Children are not kept as zombies.
pub const SA_NOCLDWAIT: u64 = 2;
/// [`Action::restorer`] is set; the only way to return from a handler on x86-64.
pub const SA_RESTORER: u64 = 0x0400_0000;
/// The handler runs on the alternate stack.
pub const SA_ONSTACK: u64 = 0x0800_0000;
/// Interrupted calls start again.
pub const SA_RESTART: u64 = 0x1000_0000;
/// The signal is not blocked while its handler runs.
pub const SA_NODEFER: u64 = 0x4000_0000;
/// Back to `SIG_DFL` when the handler is entered.
pub const SA_RESETHAND: u64 = 0x8000_0000;
/// Flags with a meaning; `rt_sigaction` drops the rest, as Linux does.
pub const SA_KNOWN: u64 = SA_NOCLDSTOP
    | SA_NOCLDWAIT
    | 4 // SA_SIGINFO
    | SA_RESTORER
    | SA_ONSTACK
    | SA_RESTART
    | SA_NODEFER
    | SA_RESETHAND
    | 0x800; // SA_EXPOSE_TAGBITS

/// One signal's arrangement: the kernel's `struct sigaction`, in its layout.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub struct Action {
    /// Address of the handler, or [`SIG_DFL`], or [`SIG_IGN`].
    pub handler: u64,
    /// `SA_*`.
    pub flags: u64,
    /// Where the handler returns to.
    pub restorer: u64,
    /// Blocked, besides, while the handler runs.
    pub mask: u64,
}

/// What comes of a signal.
#[derive(Clone, Copy, Debug)]
pub enum Disposition {
    /// Nothing.
    Ignore,
    /// As [`Signal::default_action`] says, which is not "ignore" here.
    Default(DefaultAction),
    /// The handler in the action is entered.
    Handle(Action),
}

impl Action {
    /// What comes of `signal` with this arrangement.
    pub const fn disposition(self, signal: Signal) -> Disposition {
        match self.handler {
            SIG_IGN => Disposition::Ignore,
            SIG_DFL => match signal.default_action() {
                DefaultAction::Ignore => Disposition::Ignore,
                other => Disposition::Default(other),
            },
            _ => Disposition::Handle(self),
        }
    }

    /// Whether `signal` vanishes when it is sent.
    pub const fn ignores(self, signal: Signal) -> bool {
        matches!(self.disposition(signal), Disposition::Ignore)
    }
}

/// The arrangements of a process for all signals; shared with `CLONE_SIGHAND`.
pub struct Handlers(IrqMutex<[Action; SIGNAL_COUNT]>);

impl Handlers {
    /// All signals with their defaults.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new() -> Result<Arc<Handlers>, Errno> {
        const DEFAULT: Action = Action { handler: SIG_DFL, flags: 0, restorer: 0, mask: 0 };
        Arc::try_new(Handlers(IrqMutex::new([DEFAULT; SIGNAL_COUNT]))).map_err(|_| Errno::ENOMEM)
    }

    /// A copy of its own, for a forked child.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn fork(&self) -> Result<Arc<Handlers>, Errno> {
        let copy = *self.0.lock();
        Arc::try_new(Handlers(IrqMutex::new(copy))).map_err(|_| Errno::ENOMEM)
    }

    /// The arrangement for `signal`.
    pub fn get(&self, signal: Signal) -> Action {
        self.0.lock()[signal.index()]
    }

    /// Changes the arrangement for `signal` and returns what it was.
    pub fn set(&self, signal: Signal, mut action: Action) -> Action {
        action.flags &= SA_KNOWN;
        action.mask &= !SigSet::UNBLOCKABLE.0;
        core::mem::replace(&mut self.0.lock()[signal.index()], action)
    }

    /// Back to the default, when a `SA_RESETHAND` handler is entered or a
    /// forced signal finds no way to its handler.
    pub fn reset(&self, signal: Signal) {
        self.0.lock()[signal.index()] = Action::default();
    }

    /// What exec does: handlers go, what is ignored stays ignored.
    pub fn reset_for_exec(&self) {
        for action in self.0.lock().iter_mut() {
            let handler = if action.handler == SIG_IGN { SIG_IGN } else { SIG_DFL };
            *action = Action { handler, ..Action::default() };
        }
    }
}
