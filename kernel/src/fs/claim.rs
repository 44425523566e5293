//! A program's file is not written while it is being executed.
//!
//! A regular file of the tree counts who has claimed it: up for each open file
//! that may write it, down for each that is executed. A claim that contradicts
//! one there is fails with `ETXTBSY`. Memfds know no claims: on Linux too, the
//! descriptor that `memfd_create` returns does not keep its file from being
//! executed.

use core::sync::atomic::{AtomicI32, Ordering};

use alloc::sync::Arc;
use mm::Errno;

use super::inode::{Body, FileSystem, Inode};

/// The claims on a file: above 0 that many writers, below 0 executions.
pub type Claims = AtomicI32;

/// One claim, held while this exists.
pub struct Claim {
    inode: Arc<Inode>,
    /// What the claim added.
    step: i32,
}

impl Claim {
    /// To write the file. `None`: it is of a kind that needs no claim.
    ///
    /// # Errors
    /// `ETXTBSY` while it is executed.
    pub fn to_write(inode: &Arc<Inode>) -> Result<Option<Claim>, Errno> {
        Claim::new(inode, 1)
    }

    /// To execute the file. `None`: it is of a kind that needs no claim.
    ///
    /// # Errors
    /// `ETXTBSY` while it is open for writing.
    pub fn to_execute(inode: &Arc<Inode>) -> Result<Option<Claim>, Errno> {
        Claim::new(inode, -1)
    }

    fn new(inode: &Arc<Inode>, step: i32) -> Result<Option<Claim>, Errno> {
        let Some(claims) = claims(inode) else { return Ok(None) };
        // Both kinds push away from 0, so one that would come nearer contradicts.
        claims
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
                if count * step < 0 { None } else { count.checked_add(step) }
            })
            .map_err(|_| Errno::ETXTBSY)?;
        Ok(Some(Claim { inode: inode.clone(), step }))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(claims) = claims(&self.inode) {
            claims.fetch_sub(self.step, Ordering::AcqRel);
        }
    }
}

fn claims(inode: &Inode) -> Option<&Claims> {
    match &inode.body {
        Body::Regular(file) if inode.file_system == FileSystem::Tmpfs => Some(file.claims()),
        _ => None,
    }
}
