//! Kernel stacks, each with an unmapped guard page below it.

use mm::Errno;

/// Bytes of a kernel stack, without its guard page.
pub const KERNEL_STACK_SIZE: usize = 32 * 1024;

/// One kernel stack, mapped while this exists.
#[derive(Debug)]
pub struct KernelStack {
    top: usize,
}

impl KernelStack {
    /// A stack of [`KERNEL_STACK_SIZE`] bytes.
    ///
    /// # Errors
    ///
    /// `ENOMEM` when there is no memory, or no room among the stacks.
    pub fn new() -> Result<KernelStack, Errno> {
        Err(Errno::ENOMEM)
    }

    /// The address just above the stack, 16-byte aligned.
    pub fn top(&self) -> usize {
        self.top
    }
}
