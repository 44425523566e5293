//! Why an operation on an address space was refused, and the errno that becomes.

use core::fmt;

use crate::{Errno, OutOfMemory};

/// Why a change of an address space was refused.
///
/// Unless the operation says otherwise, nothing has changed then. Each
/// variant stands for one reason, so a log can tell them apart where Linux
/// has one errno for several; [`Errno::from`] gives the number that Linux
/// returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpaceError {
    /// An argument is malformed: alignment, length, flags. `EINVAL`.
    Invalid,
    /// The address names no suitable mapping. `EFAULT`.
    BadAddress,
    /// Frames, or room for the crate's own objects, ran out. `ENOMEM`.
    OutOfMemory,
    /// There is no free range of the size asked for. `ENOMEM`.
    NoRoom,
    /// A page of the range is not mapped. `ENOMEM`.
    NotMapped,
    /// The operation would exceed `vm.max_map_count`. `ENOMEM`.
    TooManyVmas,
    /// The operation would exceed `RLIMIT_AS`, `RLIMIT_DATA` or `RLIMIT_STACK`. `ENOMEM`.
    OverLimit,
    /// The operation would exceed what the overcommit mode allows. `ENOMEM`.
    Overcommitted,
    /// The operation would exceed `RLIMIT_MEMLOCK`. `EAGAIN`.
    OverLockLimit,
    /// Something is mapped where nothing may be replaced. `EEXIST`.
    Exists,
    /// Below `vm.mmap_min_addr`. `EPERM`.
    BelowMinimum,
    /// The mapping is sealed, or the caller may not do this. `EPERM`.
    NotPermitted,
    /// The mapping, or its file, does not allow this access. `EACCES`.
    AccessDenied,
    /// A flag that is known, but not for this kind of mapping. `EOPNOTSUPP`.
    Unsupported,
    /// The file cannot be mapped. `ENODEV`.
    NoDevice,
    /// Offset plus length exceeds what a file can have. `EOVERFLOW`.
    Overflow,
    /// Worth trying again. `EAGAIN`.
    TryAgain,
    /// A locked mapping is in the way. `EBUSY`.
    Busy,
}

impl From<SpaceError> for Errno {
    fn from(error: SpaceError) -> Errno {
        use SpaceError::*;
        match error {
            Invalid => Errno::EINVAL,
            BadAddress => Errno::EFAULT,
            OutOfMemory | NoRoom | NotMapped | TooManyVmas | OverLimit | Overcommitted => Errno::ENOMEM,
            OverLockLimit | TryAgain => Errno::EAGAIN,
            Exists => Errno::EEXIST,
            BelowMinimum | NotPermitted => Errno::EPERM,
            AccessDenied => Errno::EACCES,
            Unsupported => Errno::EOPNOTSUPP,
            NoDevice => Errno::ENODEV,
            Overflow => Errno::EOVERFLOW,
            Busy => Errno::EBUSY,
        }
    }
}

impl From<OutOfMemory> for SpaceError {
    fn from(_: OutOfMemory) -> SpaceError {
        SpaceError::OutOfMemory
    }
}

impl fmt::Display for SpaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use SpaceError::*;
        f.write_str(match self {
            Invalid => "invalid argument",
            BadAddress => "address not in a suitable mapping",
            OutOfMemory => "out of memory",
            NoRoom => "no free range large enough",
            NotMapped => "range is not mapped throughout",
            TooManyVmas => "too many mappings",
            OverLimit => "over a resource limit",
            Overcommitted => "over the commit limit",
            OverLockLimit => "over the limit of locked memory",
            Exists => "something is mapped there",
            BelowMinimum => "below the lowest address that may be mapped",
            NotPermitted => "sealed, or not permitted",
            AccessDenied => "access not allowed by the mapping or its file",
            Unsupported => "flag not supported for this mapping",
            NoDevice => "file cannot be mapped",
            Overflow => "offset and length too large",
            TryAgain => "try again",
            Busy => "busy",
        })
    }
}

impl core::error::Error for SpaceError {}

/// Why a page fault could not be resolved; says which signal it becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultError {
    /// Nothing is mapped at the address: `SIGSEGV`, `SEGV_MAPERR`.
    NotMapped,
    /// The mapping does not allow the access: `SIGSEGV`, `SEGV_ACCERR`.
    AccessDenied,
    /// The page lies beyond the end of the mapped object: `SIGBUS`, `BUS_ADRERR`.
    BeyondEnd,
    /// No frame could be had.
    OutOfMemory,
    /// The page is in swap and cannot be read: `SIGBUS`, `BUS_ADRERR`.
    Unreadable,
}

impl fmt::Display for FaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FaultError::NotMapped => "nothing is mapped there",
            FaultError::AccessDenied => "the mapping does not allow the access",
            FaultError::BeyondEnd => "beyond the end of the mapped object",
            FaultError::OutOfMemory => "out of memory",
            FaultError::Unreadable => "the page cannot be read from swap",
        })
    }
}

impl core::error::Error for FaultError {}

impl From<OutOfMemory> for FaultError {
    fn from(_: OutOfMemory) -> FaultError {
        FaultError::OutOfMemory
    }
}

impl From<FaultError> for Errno {
    /// As a copy to or from user memory reports it.
    fn from(_: FaultError) -> Errno {
        Errno::EFAULT
    }
}
