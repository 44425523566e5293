//! Does random sequences of memory operations, and says what came of each.
//!
//! `replay seeds FIRST COUNT STEPS` does one sequence for each seed, `replay file PATH`
//! those of a file (see [`tests::replay`]), and `replay kept` those that once came to
//! something else than on Linux. For each it prints a line with a hash of all results;
//! with `--steps` each step and its result, with `--every` also all mappings after each
//! step. What it prints on one kernel it has to print on another.
//!
//! Each sequence is done by a child process, in which no allocator may ask the kernel for
//! memory: it would be part of the experiment. So this program has an allocator of its
//! own, which hands out a static array.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::fs;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tests::replay::{self, Actor, Sequence, Shared, Show};
use tests::sys::{self, Status};

/// Room for all that is ever allocated, in bytes.
const ROOM: usize = 96 << 20;

/// Hands out memory from the bottom up. Only what was handed out last is taken back,
/// or grows in place.
struct Stack {
    used: AtomicUsize,
    room: UnsafeCell<[u8; ROOM]>,
}

// SAFETY: parts of the room are handed out once, which an atomic sees to.
unsafe impl Sync for Stack {}

#[global_allocator]
static ALLOCATOR: Stack = Stack { used: AtomicUsize::new(0), room: UnsafeCell::new([0; ROOM]) };

impl Stack {
    fn start(&self) -> usize {
        self.room.get() as usize
    }
}

// SAFETY: each block is a part of the room that no other block has.
unsafe impl GlobalAlloc for Stack {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let fit = |used: usize| {
            let at = (self.start() + used).next_multiple_of(layout.align()) - self.start();
            at.checked_add(layout.size()).filter(|end| *end <= ROOM).map(|end| (at, end))
        };
        match self.used.fetch_update(Relaxed, Relaxed, |used| fit(used).map(|(_, end)| end)) {
            Ok(used) => fit(used).map_or(std::ptr::null_mut(), |(at, _)| {
                // SAFETY: `at` is inside the array.
                unsafe { self.room.get().cast::<u8>().add(at) }
            }),
            Err(_) => std::ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let at = block as usize - self.start();
        // Nothing comes of it unless the block is the last one.
        let _ = self.used.compare_exchange(at + layout.size(), at, Relaxed, Relaxed);
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let at = block as usize - self.start();
        let fits = at.checked_add(size).filter(|end| *end <= ROOM);
        if let Some(end) = fits
            && self.used.compare_exchange(at + layout.size(), end, Relaxed, Relaxed).is_ok()
        {
            return block;
        }
        // SAFETY: the size is not 0, as the caller promises, and the alignment was good before.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                new.copy_from_nonoverlapping(block, layout.size().min(size));
            }
            new
        }
    }
}

/// Does one sequence in a child process and prints the line about it.
fn run(name: &str, shared: &'static Shared, show: Show, sequence: impl FnOnce() -> Result<Sequence, String>) {
    shared.clear();
    if show.steps {
        println!("== {name}");
    }
    let status = sys::in_child(|| {
        let sequence = match sequence() {
            Ok(sequence) => sequence,
            Err(reason) => {
                println!("{name}: {reason}");
                return 2;
            }
        };
        match Actor::new(&sequence, shared, show) {
            Ok(mut actor) => actor.run(),
            Err(error) => {
                println!("{name}: the address space cannot be filled: {error}");
                2
            }
        }
    });
    match status {
        Ok(Status::Exited(0)) => println!("{name}: {:016x}", shared.hash()),
        other => println!("{name}: {other:?}"),
    }
}

/// Does all sequences of a file.
fn run_all(text: &str, shared: &'static Shared, show: Show) {
    for (name, text) in replay::split(text) {
        run(name, shared, show, || text.parse());
    }
}

fn work(words: &[String]) -> Option<()> {
    let show =
        Show { steps: words.iter().any(|word| word == "--steps"), every: words.iter().any(|word| word == "--every") };
    let words: Vec<&str> = words.iter().map(String::as_str).filter(|word| !word.starts_with("--")).collect();
    let shared = Shared::new().ok()?;
    match words[..] {
        ["seeds", first, count, steps] => {
            let (first, count, steps): (u64, u64, usize) =
                (first.parse().ok()?, count.parse().ok()?, steps.parse().ok()?);
            for seed in first..first + count {
                run(&format!("seed {seed}"), shared, show, || Ok(replay::generate(seed, steps)));
            }
        }
        ["file", path] => run_all(&fs::read_to_string(path).ok()?, shared, show),
        ["kept"] => run_all(replay::KEPT, shared, show),
        _ => return None,
    }
    Some(())
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match work(&words) {
        Some(()) => ExitCode::SUCCESS,
        None => {
            eprintln!("usage: replay (seeds FIRST COUNT STEPS | file PATH | kept) [--steps] [--every]");
            ExitCode::from(2)
        }
    }
}
