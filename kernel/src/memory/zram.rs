//! Swap in compressed memory.
//!
//! A page is compressed with LZ4 and kept in a chunk of a frame. All chunks of a frame are
//! of one size: an n-th of it, for n from 2 to 16. A page that is the same word
//! over and over, of zeroes for instance, takes no chunk, and one that takes more
//! than half a frame however it is compressed is refused: it would be no gain.
//!
//! Room is made for a page when there is no free frame at all, so some are held in
//! reserve; each page that is stored frees one, which can be had instead.

use core::array;

use alloc::vec::Vec;
use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};
use mm::{Errno, FrameKind, OwnedFrame, PAGE_SIZE, PageBytes, SwapDevice, SwapError};

use super::{memory, try_filled};
use crate::arch::irq::Mutex;

/// A frame is divided into so many chunks at most.
const MOST_CHUNKS: usize = 16;
/// Frames held in reserve.
const RESERVE: usize = 8;
/// The end of a list.
const NONE: u32 = u32::MAX;

/// The swap device.
pub struct Zram {
    slots: u32,
    state: Mutex<State>,
}

/// Where the page of a slot is.
#[derive(Clone, Copy)]
enum Place {
    Nowhere,
    /// It is this word over and over.
    Same(u64),
    /// Compressed to `len` bytes, in that chunk of that one of the [`State::frames`].
    Chunk {
        frame: u32,
        chunk: u8,
        len: u16,
    },
}

/// A frame of chunks; a place for one if `owned` is none.
struct Chunks {
    owned: Option<OwnedFrame>,
    /// How many there are.
    count: u8,
    /// Which of them are in use.
    used: u16,
    /// The next frame with a free chunk of the same size, or the next free place.
    next: u32,
}

struct State {
    places: Vec<Place>,
    frames: Vec<Chunks>,
    /// The first frame with a free chunk, by the number of chunks.
    partial: [u32; MOST_CHUNKS + 1],
    /// The first place in `frames` that is free.
    free: u32,
    reserve: [Option<OwnedFrame>; RESERVE],
    table: CompressTable,
    buffer: [u8; get_maximum_output_size(PAGE_SIZE)],
}

impl Zram {
    /// A device of so many slots, which uses `frames` frames at most.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new(slots: u32, frames: usize) -> Result<Zram, Errno> {
        let mut all = Vec::new();
        all.try_reserve_exact(frames).map_err(|_| Errno::ENOMEM)?;
        for number in 1..=frames {
            let next = if number < frames { number as u32 } else { NONE };
            all.push(Chunks { owned: None, count: 0, used: 0, next });
        }
        let state = State {
            places: try_filled(Place::Nowhere, slots as usize + 1)?,
            frames: all,
            partial: [NONE; MOST_CHUNKS + 1],
            free: if frames == 0 { NONE } else { 0 },
            reserve: array::from_fn(|_| None),
            table: CompressTable::small(),
            buffer: [0; get_maximum_output_size(PAGE_SIZE)],
        };
        let zram = Zram { slots, state: Mutex::new(state) };
        zram.state.lock().fill_reserve();
        Ok(zram)
    }
}

impl SwapDevice for Zram {
    fn slots(&self) -> u32 {
        self.slots
    }

    fn store(&self, slot: u32, page: &PageBytes) -> Result<(), SwapError> {
        let same = same_word(page).map(Place::Same);
        let mut state = self.state.lock();
        let place = same.or_else(|| state.compress(page)).ok_or(SwapError::Full)?;
        *state.places.get_mut(slot as usize).ok_or(SwapError::Full)? = place;
        Ok(())
    }

    fn load(&self, slot: u32, page: &mut PageBytes) -> Result<(), SwapError> {
        self.state.lock().load(slot, page).ok_or(SwapError::Unreadable)
    }

    fn discard(&self, slot: u32) {
        self.state.lock().discard(slot);
    }
}

/// The word that a page consists of, if it is the same all over.
fn same_word(page: &PageBytes) -> Option<u64> {
    let (words, _) = page.as_chunks::<8>();
    let first = words.first()?;
    words.iter().all(|word| word == first).then(|| u64::from_ne_bytes(*first))
}

/// Bytes in one of `count` chunks.
const fn chunk_size(count: usize) -> usize {
    PAGE_SIZE / count
}

impl State {
    /// Compresses a page into a chunk.
    fn compress(&mut self, page: &PageBytes) -> Option<Place> {
        let len = compress_into_with_table(page, &mut self.buffer, &mut self.table).ok()?;
        let count = (PAGE_SIZE / len.max(1)).min(MOST_CHUNKS);
        if count < 2 {
            return None;
        }
        let (frame, chunk) = self.take_chunk(count)?;
        let bytes = self.frames.get_mut(frame as usize)?.chunk(chunk)?;
        bytes.get_mut(..len)?.copy_from_slice(self.buffer.get(..len)?);
        Some(Place::Chunk { frame, chunk, len: len as u16 })
    }

    fn load(&mut self, slot: u32, page: &mut PageBytes) -> Option<()> {
        match *self.places.get(slot as usize)? {
            Place::Nowhere => None,
            Place::Same(word) => {
                let (words, _) = page.as_chunks_mut::<8>();
                words.fill(word.to_ne_bytes());
                Some(())
            }
            Place::Chunk { frame, chunk, len } => {
                let bytes = self.frames.get_mut(frame as usize)?.chunk(chunk)?.get(..len as usize)?;
                let len = decompress_into(bytes, page).ok()?;
                (len == PAGE_SIZE).then_some(())
            }
        }
    }

    fn discard(&mut self, slot: u32) {
        let Some(place) = self.places.get_mut(slot as usize) else { return };
        if let Place::Chunk { frame, chunk, .. } = core::mem::replace(place, Place::Nowhere) {
            self.give_chunk(frame, chunk);
        }
    }

    /// Takes a free chunk of a frame of `count`: the frame's number and the chunk's.
    fn take_chunk(&mut self, count: usize) -> Option<(u32, u8)> {
        if self.partial[count] == NONE {
            self.add_frame(count)?;
        }
        let number = self.partial[count];
        let frame = self.frames.get_mut(number as usize)?;
        let chunk = frame.used.trailing_ones() as u8;
        frame.used |= 1 << chunk;
        if frame.is_full() {
            self.partial[count] = frame.next;
            frame.next = NONE;
        }
        Some((number, chunk))
    }

    /// Divides another frame into `count` chunks.
    fn add_frame(&mut self, count: usize) -> Option<()> {
        self.fill_reserve();
        let number = self.free;
        let place = self.frames.get_mut(number as usize)?;
        place.owned = self.reserve.iter_mut().find_map(Option::take);
        place.owned.as_ref()?;
        self.free = place.next;
        place.count = count as u8;
        place.used = 0;
        place.next = NONE;
        self.partial[count] = number;
        Some(())
    }

    /// Gives a chunk back, and its frame if that was the last one in use.
    fn give_chunk(&mut self, number: u32, chunk: u8) {
        let Some(frame) = self.frames.get_mut(number as usize) else { return };
        let count = frame.count as usize;
        let was_full = frame.is_full();
        frame.used &= !(1 << chunk);
        if frame.used != 0 {
            if was_full {
                frame.next = self.partial[count];
                self.partial[count] = number;
            }
            return;
        }
        let (owned, next) = (frame.owned.take(), frame.next);
        frame.next = self.free;
        self.free = number;
        if !was_full {
            self.unlink(count, number, next);
        }
        if let Some(owned) = owned {
            memory().free(owned);
        }
    }

    /// Takes a frame, after which comes `next`, off the list of those with free chunks.
    fn unlink(&mut self, count: usize, number: u32, next: u32) {
        if self.partial[count] == number {
            self.partial[count] = next;
            return;
        }
        let mut at = self.partial[count];
        while let Some(frame) = self.frames.get_mut(at as usize) {
            if frame.next == number {
                frame.next = next;
                return;
            }
            at = frame.next;
        }
    }

    /// Takes frames into reserve, as far as there are any.
    fn fill_reserve(&mut self) {
        for place in self.reserve.iter_mut().filter(|place| place.is_none()) {
            *place = memory().alloc(FrameKind::Kernel, 0).ok();
        }
    }
}

impl Chunks {
    fn is_full(&self) -> bool {
        self.used.count_ones() == u32::from(self.count)
    }

    /// The bytes of a chunk.
    fn chunk(&mut self, chunk: u8) -> Option<&mut [u8]> {
        let owned = self.owned.as_mut()?;
        let size = chunk_size(self.count as usize);
        // SAFETY: the frame is owned, borrowed with `self`, and its whole page is in
        // the direct map.
        let page = unsafe { &mut *memory().page_ptr(owned.pfn()).cast::<PageBytes>() };
        page.chunks_exact_mut(size).nth(chunk as usize)
    }
}
