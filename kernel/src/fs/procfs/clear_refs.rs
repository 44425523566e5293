//! `/proc/PID/clear_refs`: forgets which pages have been used, or written to.

use core::num::IntErrorKind;

use mm::{ClearRefs, Errno};

use super::process;
use crate::fs::File;
use crate::fs::file::{FileOps, Seek};
use crate::fs::io::{Sink, Source};

/// Characters of a write that count.
const LONGEST: usize = 12;

/// The file of process `pid`.
pub struct ClearRefsFile(pub u32);

/// What a number stands for.
fn meaning(text: &[u8]) -> Result<ClearRefs, Errno> {
    let text = core::str::from_utf8(text).map_err(|_| Errno::EINVAL)?;
    match text.trim_matches(['\0', ' ', '\t', '\n', '\r', '\x0b', '\x0c']).parse::<i32>() {
        Ok(1) => Ok(ClearRefs::All),
        Ok(2) => Ok(ClearRefs::Anonymous),
        Ok(3) => Ok(ClearRefs::Mapped),
        Ok(4) => Ok(ClearRefs::SoftDirty),
        Ok(5) => Ok(ClearRefs::PeakResident),
        Err(error) if matches!(error.kind(), IntErrorKind::PosOverflow | IntErrorKind::NegOverflow) => {
            Err(Errno::ERANGE)
        }
        _ => Err(Errno::EINVAL),
    }
}

impl FileOps for ClearRefsFile {
    fn read(&self, _: &File, _: &mut Sink<'_>, _offset: u64) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }

    fn write(&self, _: &File, source: &mut Source<'_>, _offset: u64) -> Result<usize, Errno> {
        let mut buffer = [0; LONGEST];
        let count = source.take(&mut buffer)?;
        let what = meaning(&buffer[..count])?;
        if let Some(space) = process::space_if_alive(self.0)? {
            space.clear_refs(what);
        }
        Ok(count)
    }

    fn seek(&self, _: &File) -> Seek {
        Seek::To(0)
    }
}
