//! Files that are arrays of 64-bit words: one for each page, or for each frame.

use mm::Errno;

use crate::fs::io::{Sink, partial};

/// Bytes of a word.
const WORD: usize = 8;
/// Words that are made at once, at most.
const BATCH: usize = 64;

/// Reads from the byte `offset` on of a file of `count` words. `fill(first, words)` makes
/// the words from number `first` on, which are 0 before.
///
/// # Errors
/// `EINVAL` unless whole words are asked for; what the sink fails with.
pub fn read(
    sink: &mut Sink<'_>,
    offset: u64,
    count: usize,
    mut fill: impl FnMut(usize, &mut [u64]),
) -> Result<usize, Errno> {
    if !offset.is_multiple_of(WORD as u64) || !sink.remaining().is_multiple_of(WORD) {
        return Err(Errno::EINVAL);
    }
    let mut at = usize::try_from(offset / WORD as u64).map_err(|_| Errno::EINVAL)?;
    let mut done = 0;
    while sink.remaining() > 0 && at < count {
        let mut batch = [0; BATCH];
        let words = &mut batch[..(sink.remaining() / WORD).min(BATCH).min(count - at)];
        fill(at, words);
        for word in &*words {
            match sink.put(&word.to_ne_bytes()) {
                Ok(count) => done += count,
                Err(error) => return partial(done, error),
            }
        }
        at += words.len();
    }
    Ok(done)
}
