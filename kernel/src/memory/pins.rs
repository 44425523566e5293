//! Pages of programs that the kernel keeps while the programs go on.

use mm::{Errno, FaultError, PinnedPage};

use super::KernelPlatform;

/// One of them, given back on drop.
pub type Pin = PinnedPage<'static, KernelPlatform>;

/// What a call returns that cannot have such a page.
pub fn error(error: FaultError) -> Errno {
    match error {
        FaultError::OutOfMemory => Errno::ENOMEM,
        _ => error.into(),
    }
}
