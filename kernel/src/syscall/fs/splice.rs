//! Pages that go through pipes without being copied.

use mm::Errno;

use super::{Result, check_flags, usable};
use crate::fs::channel::Manner;
use crate::fs::io::{Sink, Source};
use crate::fs::pipe;

const SPLICE_F_MOVE: u32 = 1;
const SPLICE_F_NONBLOCK: u32 = 2;
const SPLICE_F_MORE: u32 = 4;
const SPLICE_F_GIFT: u32 = 8;

/// `vmsplice`: into the pipe with the user buffers of an `iovec` array, or, from the end that can only be read, into
/// them. Whether the file waits otherwise does not matter.
pub fn user_memory(fd: i32, list: usize, count: usize, flags: u32) -> Result<usize> {
    check_flags(flags, SPLICE_F_MOVE | SPLICE_F_NONBLOCK | SPLICE_F_MORE | SPLICE_F_GIFT)?;
    let nonblocking = flags & SPLICE_F_NONBLOCK != 0;
    let file = usable(fd)?;
    let channel = || file.ops().pipe().ok_or(Errno::EBADF);
    if file.writable() {
        let mut source = Source::user_vector(list, count)?;
        if source.remaining() == 0 { Ok(0) } else { pipe::lend(channel()?, &mut source, nonblocking) }
    } else {
        let mut sink = Sink::user_vector(list, count)?;
        if sink.remaining() == 0 { Ok(0) } else { channel()?.read(&mut sink, Manner { nonblocking, messages: false }) }
    }
}
