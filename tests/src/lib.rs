//! What the test programs share.
//!
//! Every program here is an ordinary static Linux executable: it runs on Linux,
//! which says what is right, and on this project's kernel, which has to do the
//! same. They talk to the kernel by system-call number ([`sys`]), because libc's
//! own wrappers filter arguments; they touch memory through [`mem`], which turns
//! a fault into a value; and they lay out their mappings in an [`arena::Arena`],
//! so that what they print does not depend on where things happen to be.

pub mod arena;
pub mod case;
pub mod maps;
pub mod mem;
pub mod replay;
pub mod rng;
pub mod sys;
