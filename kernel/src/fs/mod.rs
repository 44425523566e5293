//! Files.

/// Sets up the root file system.
pub fn init() {}
