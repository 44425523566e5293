use super::*;
use crate::sim;

#[derive(Default)]
struct Thing {
    number: AtomicUsize,
    _rest: [usize; 10],
}

/// Larger than a frame.
struct Large {
    words: [AtomicUsize; 1000],
}

impl Default for Large {
    fn default() -> Large {
        Large { words: [const { AtomicUsize::new(3) }; 1000] }
    }
}

/// `count` objects, drawn for later.
fn drawn<'a, T: Default + Sync>(
    arena: &'a Arena<T>,
    memory: &Memory<sim::SimPlatform>,
    count: usize,
) -> Result<Reserve<'a, T>, OutOfMemory> {
    let mut reserve = arena.reserve();
    reserve.draw(memory, count)?;
    Ok(reserve)
}

#[test]
fn objects_are_distinct_and_reused() {
    let memory = sim::memory(1, 256);
    let arena = Arena::<Thing>::new();
    let all: Vec<_> = (0..500)
        .map(|number| {
            let thing = arena.alloc(&memory).unwrap();
            thing.number.store(number, Ordering::Relaxed);
            thing
        })
        .collect();
    assert_eq!(arena.in_use(), 500);
    let info = arena.info("thing");
    assert_eq!((info.name, info.in_use, info.per_chunk, info.chunk_pages), ("thing", 500, PAGE_SIZE / 96, 1));
    assert_eq!(info.total, 500usize.next_multiple_of(PAGE_SIZE / 96));
    for (number, thing) in all.iter().enumerate() {
        assert_eq!(thing.number.load(Ordering::Relaxed), number);
    }
    let frames = memory.count_frames(FrameKind::Slab);
    assert_eq!(frames, 500usize.div_ceil(PAGE_SIZE / 96));
    for &thing in &all {
        arena.free(&memory, thing);
    }
    assert_eq!(arena.in_use(), 0);
    for _ in 0..500 {
        arena.alloc(&memory).unwrap();
    }
    assert_eq!(memory.count_frames(FrameKind::Slab), frames);
}

#[test]
fn a_freed_object_stays_readable_and_is_handed_out_as_it_was() {
    let memory = sim::memory(1, 256);
    let arena = Arena::<Thing>::new();
    let thing = arena.alloc(&memory).unwrap();
    thing.number.store(42, Ordering::Relaxed);
    arena.free(&memory, thing);
    assert_eq!(thing.number.load(Ordering::Relaxed), 42);
    assert!(arena.alloc(&memory).unwrap() == thing);
}

#[test]
fn a_reference_goes_through_an_integer() {
    let memory = sim::memory(1, 256);
    let arena = Arena::<Thing>::new();
    let thing = arena.alloc(&memory).unwrap();
    assert_eq!(thing.as_usize() % 8, 0);
    // SAFETY: it comes from a reference, and the arena is there.
    assert!(unsafe { Ref::<Thing>::from_usize(thing.as_usize()) } == thing);
}

#[test]
fn large_objects_share_larger_chunks() {
    let memory = sim::memory(1, 256);
    let arena = Arena::<Large>::new();
    let objects: Vec<_> = (0..9).map(|_| arena.alloc(&memory).unwrap()).collect();
    assert!(objects.iter().all(|large| large.words[999].load(Ordering::Relaxed) == 3));
    assert_eq!(memory.count_frames(FrameKind::Slab), 32);
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "freed twice")]
fn freeing_twice_is_noticed() {
    let memory = sim::memory(1, 256);
    let arena = Arena::<Thing>::new();
    let thing = arena.alloc(&memory).unwrap();
    arena.free(&memory, thing);
    arena.free(&memory, thing);
}

#[test]
fn a_reserve_cannot_fail_and_returns_what_is_left() {
    let memory = sim::memory(1, 256);
    let arena = Arena::<Thing>::new();
    let mut reserve = drawn(&arena, &memory, 3).unwrap();
    assert_eq!(arena.in_use(), 3);
    memory.fail_nth_allocation(1);
    let taken = reserve.take().unwrap();
    assert_eq!(reserve.len(), 2);
    drop(reserve);
    assert_eq!(arena.in_use(), 1);
    arena.free(&memory, taken);
    assert_eq!(arena.in_use(), 0);

    let mut empty = drawn(&arena, &memory, 0).unwrap();
    assert!(empty.take().is_none());
}

#[test]
fn each_allocation_can_be_made_to_fail() {
    let memory = sim::memory(1, 256);
    let arena = Arena::<Thing>::new();
    for n in 1..=4 {
        memory.fail_nth_allocation(n);
        assert!(drawn(&arena, &memory, 4).is_err());
        assert!(memory.allocation_failed());
        assert_eq!(arena.in_use(), 0);
    }
    memory.fail_nth_allocation(5);
    assert!(drawn(&arena, &memory, 4).is_ok());
    assert!(!memory.allocation_failed());
}

#[test]
fn running_out_of_frames_is_an_error_that_goes_away() {
    let memory = sim::memory(1, 64);
    let arena = Arena::<Thing>::new();
    let hog: Vec<_> = std::iter::from_fn(|| memory.alloc(FrameKind::Kernel, 0).ok()).collect();
    assert_eq!(arena.alloc(&memory), Err(OutOfMemory));
    assert!(drawn(&arena, &memory, 1).is_err());
    hog.into_iter().for_each(|frame| memory.free(frame));
    assert!(arena.alloc(&memory).is_ok());
    // More than fits: nothing stays drawn.
    assert!(drawn(&arena, &memory, 100_000).is_err());
    assert_eq!(arena.in_use(), 1);
}

#[test]
fn each_cpu_has_free_slots_of_its_own() {
    let memory = sim::memory(2, 256);
    let arena = Arena::<Thing>::new();
    let of_cpu = |cpu| {
        sim::set_cpu(cpu);
        arena.alloc(&memory).unwrap()
    };
    let things = [of_cpu(0), of_cpu(1)];
    for (cpu, thing) in [1, 0].into_iter().zip(things) {
        sim::set_cpu(cpu);
        arena.free(&memory, thing);
    }
    // What one has freed comes back to that one.
    assert!([of_cpu(1), of_cpu(0)] == things);
    sim::set_cpu(0);
}

#[test]
fn a_magazine_keeps_no_more_than_it_has_room_for() {
    let memory = sim::memory(2, 256);
    let arena = Arena::<Thing>::new();
    let all: Vec<_> = (0..PAGE_SIZE / 96).map(|_| arena.alloc(&memory).unwrap()).collect();
    for &thing in &all {
        arena.free(&memory, thing);
    }
    let frames = memory.count_frames(FrameKind::Slab);
    // The other CPU has all the rest without a new chunk.
    sim::set_cpu(1);
    for _ in 0..all.len() - MAGAZINE {
        arena.alloc(&memory).unwrap();
    }
    assert_eq!(memory.count_frames(FrameKind::Slab), frames);
    assert_eq!(arena.in_use(), all.len() - MAGAZINE);
    sim::set_cpu(0);
}

#[test]
fn free_slots_of_other_cpus_are_found_when_memory_is_short() {
    let memory = sim::memory(3, 64);
    let arena = Arena::<Thing>::new();
    for cpu in 0..2 {
        sim::set_cpu(cpu);
        let thing = arena.alloc(&memory).unwrap();
        arena.free(&memory, thing);
    }
    let total = arena.info("thing").total;
    let hog: Vec<_> = std::iter::from_fn(|| memory.alloc(FrameKind::Kernel, 0).ok()).collect();
    sim::set_cpu(2);
    // Every one of them, one by one and at once.
    let all: Vec<_> = (0..total).map(|_| arena.alloc(&memory).unwrap()).collect();
    assert_eq!(arena.alloc(&memory), Err(OutOfMemory));
    assert_eq!(arena.in_use(), total);
    sim::set_cpu(0);
    all.into_iter().for_each(|thing| arena.free(&memory, thing));
    sim::set_cpu(1);
    assert!(drawn(&arena, &memory, total + 1).is_err());
    assert_eq!(arena.in_use(), 0);
    assert!(drawn(&arena, &memory, total).is_ok());
    assert_eq!(arena.in_use(), 0);
    sim::set_cpu(0);
    hog.into_iter().for_each(|frame| memory.free(frame));
}

#[test]
fn threads_share_an_arena() {
    let memory = sim::memory(4, 1024);
    let arena = Arena::<Thing>::new();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (memory, arena) = (&memory, &arena);
            scope.spawn(move || {
                sim::set_cpu(thread);
                for round in 0..50 {
                    let mark = thread * 1000 + round;
                    let mut reserve = drawn(arena, memory, 20).unwrap();
                    let mine: Vec<_> = std::iter::from_fn(|| reserve.take()).collect();
                    for thing in &mine {
                        thing.number.store(mark, Ordering::Relaxed);
                    }
                    std::thread::yield_now();
                    for &thing in &mine {
                        assert_eq!(thing.number.load(Ordering::Relaxed), mark);
                        arena.free(memory, thing);
                    }
                }
            });
        }
    });
    assert_eq!(arena.in_use(), 0);
}
