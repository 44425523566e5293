//! Loading programs: 64-bit ELF executables for x86-64.
//!
//! [`header`] reads and checks the file's headers, [`load`] maps its segments,
//! [`stack`] builds what a program finds on its stack when it begins.

pub mod header;
pub mod load;
pub mod stack;
