use proptest::prelude::*;

use super::*;
use crate::frame::FrameKind;
use crate::sim::{self, SimPlatform};

const PAGE: u64 = PAGE_SIZE as u64;

/// Runs `test` and checks that every frame came back, slab memory apart.
fn without_leak(frames: usize, test: impl FnOnce(&Memory<SimPlatform>)) {
    let memory = sim::memory(1, frames);
    test(&memory);
    assert_eq!(memory.count_frames(FrameKind::Object), 0);
    assert_eq!(memory.count_frames(FrameKind::ObjectIndex), 0);
    assert_eq!(memory.arenas.objects.in_use(), 0);
}

fn read(object: &ObjectRef<'_, SimPlatform>, offset: u64, len: usize) -> Vec<u8> {
    let mut buffer = vec![0xee; len];
    let done = object.read(offset, &mut buffer);
    buffer.truncate(done);
    buffer
}

#[test]
fn a_new_object_is_empty() {
    without_leak(2048, |memory| {
        let object = memory.create_object(7, b"/tmp/x").unwrap();
        assert_eq!((object.id(), object.size(), object.pages()), (7, 0, 0));
        assert_eq!(object.name().as_bytes(), b"/tmp/x");
        assert_eq!(read(&object, 0, 10), b"");
        assert_eq!(object.raw().page(memory, 0, true), Err(ObjectError::BeyondEnd));
    });
}

#[test]
fn a_name_is_cut_off_after_255_bytes() {
    without_leak(2048, |memory| {
        let object = memory.create_object(1, &[b'a'; 300]).unwrap();
        assert_eq!(object.name().as_bytes(), [b'a'; 255]);
        object.set_name(b"b");
        assert_eq!(object.name().as_bytes(), b"b");
    });
}

#[test]
fn writes_are_read_back_across_pages() {
    without_leak(2048, |memory| {
        let object = memory.create_object(1, b"").unwrap();
        let data: Vec<u8> = (0..10_000u32).map(|i| (i % 251) as u8).collect();
        assert_eq!(object.write(PAGE - 5, &data), Ok(data.len()));
        assert_eq!(object.size(), PAGE - 5 + data.len() as u64);
        assert_eq!(object.pages(), 4);
        assert_eq!(read(&object, PAGE - 5, 20_000), data);
        assert_eq!(read(&object, 0, 10), [0; 10]);
        assert_eq!(read(&object, object.size(), 10), b"");
        assert_eq!(read(&object, u64::MAX, 10), b"");
    });
}

#[test]
fn a_small_object_takes_one_frame_and_no_index() {
    without_leak(2048, |memory| {
        let object = memory.create_object(1, b"").unwrap();
        object.write(0, b"hello").unwrap();
        assert_eq!(memory.count_frames(FrameKind::Object), 1);
        assert_eq!(memory.count_frames(FrameKind::ObjectIndex), 0);
    });
}

#[test]
fn holes_read_as_zeroes_and_take_no_memory() {
    without_leak(2048, |memory| {
        let object = memory.create_object(1, b"").unwrap();
        object.set_size(MAX_OBJECT_SIZE).unwrap();
        assert_eq!(object.pages(), 0);
        assert_eq!(read(&object, 1 << 40, 3), [0; 3]);
        object.write(1 << 40, b"x").unwrap();
        object.write(0, b"y").unwrap();
        assert_eq!(object.write(MAX_OBJECT_SIZE - 2, b"zzz"), Ok(2));
        assert_eq!(object.write(MAX_OBJECT_SIZE, b"z"), Err(ObjectError::TooLarge));
        assert_eq!(object.set_size(MAX_OBJECT_SIZE + 1), Err(ObjectError::TooLarge));
        assert_eq!(object.pages(), 3);
        assert_eq!(read(&object, (1 << 40) - 1, 3), b"\0x\0");
        assert_eq!(read(&object, 0, 2), b"y\0");
        assert_eq!(read(&object, MAX_OBJECT_SIZE - 2, 9), b"zz");
    });
}

#[test]
fn shrinking_cuts_the_last_page_for_good() {
    without_leak(2048, |memory| {
        let object = memory.create_object(1, b"").unwrap();
        object.write(0, &[7; 3 * PAGE_SIZE]).unwrap();
        object.set_size(PAGE + 10).unwrap();
        assert_eq!(object.pages(), 2);
        object.set_size(3 * PAGE).unwrap();
        assert_eq!(read(&object, PAGE, 12), [7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 0, 0]);
        assert_eq!(read(&object, 2 * PAGE, PAGE_SIZE), [0; PAGE_SIZE]);
        object.set_size(0).unwrap();
        assert_eq!(object.pages(), 0);
        assert_eq!(memory.count_frames(FrameKind::ObjectIndex), 0);
    });
}

#[test]
fn a_referenced_page_survives_truncation() {
    without_leak(2048, |memory| {
        let object = memory.create_object(1, b"").unwrap();
        object.write(PAGE, b"x").unwrap();
        let page = object.raw().page(memory, 1, false).unwrap().unwrap();
        assert_eq!(memory.frame(page).mapping(), object.raw().as_usize());
        assert_eq!(memory.frame(page).index(), 1);
        assert_eq!(memory.frame(page).refcount(), 2);
        object.set_size(0).unwrap();
        assert_eq!(memory.frame(page).mapping(), 0);
        assert_eq!(memory.frame(page).refcount(), 1);
        // SAFETY: the page is referenced.
        assert_eq!(unsafe { *memory.page_ptr(page) }, b'x');
        memory.put(page);
    });
}

#[test]
fn pages_are_made_only_on_demand() {
    without_leak(2048, |memory| {
        let object = memory.create_object(1, b"").unwrap();
        object.set_size(PAGE + 1).unwrap();
        assert_eq!(object.raw().page(memory, 1, false), Ok(None));
        let page = object.raw().page(memory, 1, true).unwrap().unwrap();
        assert_eq!(object.raw().page(memory, 1, false), Ok(Some(page)));
        assert_eq!(object.raw().page(memory, 2, true), Err(ObjectError::BeyondEnd));
        assert_eq!(object.pages(), 1);
        memory.put(page);
        memory.put(page);
    });
}

#[test]
fn the_last_reference_takes_the_contents_along() {
    without_leak(2048, |memory| {
        let object = memory.create_object(1, b"").unwrap();
        object.write(5 << 30, b"far").unwrap();
        let other = object.clone();
        assert!(other == object);
        let raw = object.raw();
        memory.get_object(raw);
        drop((object, other));
        assert_eq!(memory.count_frames(FrameKind::Object), 1);
        memory.put_object(raw);
        assert_eq!(memory.count_frames(FrameKind::Object), 0);
    });
}

#[test]
fn every_allocation_failure_leaves_the_object_as_it_was() {
    without_leak(2048, |memory| {
        let mut failures = 0;
        for n in 1.. {
            let object = memory.create_object(1, b"").unwrap();
            object.write(3 * PAGE, b"old").unwrap();
            memory.fail_nth_allocation(n);
            let result = object.write(1 << 45, b"new");
            let failed = memory.allocation_failed();
            memory.fail_nth_allocation(0);
            assert_eq!(read(&object, 3 * PAGE, 3), b"old");
            if !failed {
                assert_eq!(result, Ok(3));
                assert_eq!(read(&object, 1 << 45, 3), b"new");
                break;
            }
            assert_eq!(result, Err(ObjectError::OutOfMemory));
            assert_eq!((object.size(), object.pages()), (3 * PAGE + 3, 1));
            assert_eq!(object.raw().pages.lock().next(memory, 4), None);
            failures += 1;
        }
        // The page; three more levels above the one there was; three nodes of
        // the new branch.
        assert_eq!(failures, 1 + 3 + 3);
    });
}

#[test]
fn a_write_that_runs_out_of_memory_is_short() {
    without_leak(256, |memory| {
        let object = memory.create_object(1, b"").unwrap();
        let data = vec![1; 256 * PAGE_SIZE];
        let done = object.write(0, &data).unwrap();
        assert!(done > 200 * PAGE_SIZE && done < data.len(), "{done}");
        assert_eq!(object.size(), done as u64);
        assert_eq!(object.write(done as u64, b"x"), Err(ObjectError::OutOfMemory));
    });
}

#[test]
fn threads_share_an_object() {
    without_leak(4096, |memory| {
        let object = memory.create_object(1, b"").unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4u8 {
                let object = object.clone();
                scope.spawn(move || {
                    for i in 0..200 {
                        let offset = (i * 4 + u64::from(thread)) * 1000;
                        object.write(offset, &[thread + 1; 1000]).unwrap();
                        assert_eq!(read(&object, offset, 1000), [thread + 1; 1000]);
                    }
                });
            }
        });
        for i in 0..800 {
            assert_eq!(read(&object, i * 1000, 1000), [(i % 4) as u8 + 1; 1000]);
        }
    });
}

#[derive(Clone, Debug)]
enum Op {
    Write { offset: u64, len: usize, byte: u8 },
    Resize(u64),
    Punch { start: u64, len: u64 },
    Read { offset: u64, len: usize },
}

fn ops() -> impl Strategy<Value = Op> {
    const SPAN: u64 = 600 * PAGE;
    prop_oneof![
        (0..SPAN, 0..9000usize, 1..255u8).prop_map(|(offset, len, byte)| Op::Write { offset, len, byte }),
        (0..SPAN).prop_map(Op::Resize),
        (0..SPAN, 0..SPAN / 4).prop_map(|(start, len)| Op::Punch { start, len }),
        (0..SPAN, 0..9000usize).prop_map(|(offset, len)| Op::Read { offset, len }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn an_object_behaves_like_a_vector_of_bytes(ops in prop::collection::vec(ops(), 1..40)) {
        without_leak(2048, |memory| {
            let object = memory.create_object(1, b"").unwrap();
            let mut model: Vec<u8> = Vec::new();
            for op in ops {
                match op {
                    Op::Write { offset, len, byte } => {
                        assert_eq!(object.write(offset, &vec![byte; len]), Ok(len));
                        let end = offset as usize + len;
                        if len > 0 {
                            model.resize(model.len().max(end), 0);
                        }
                        model.get_mut(offset as usize..end).unwrap_or_default().fill(byte);
                    }
                    Op::Resize(size) => {
                        object.set_size(size).unwrap();
                        model.resize(size as usize, 0);
                    }
                    Op::Punch { start, len } => {
                        object.punch_hole(start, start + len);
                        let end = model.len().min((start + len) as usize);
                        model.get_mut(start as usize..end).unwrap_or_default().fill(0);
                    }
                    Op::Read { offset, len } => {
                        let start = model.len().min(offset as usize);
                        let end = model.len().min(offset as usize + len);
                        assert_eq!(read(&object, offset, len), model[start..end]);
                    }
                }
                assert_eq!(object.size(), model.len() as u64);
            }
            assert_eq!(read(&object, 0, model.len() + 1), model);
            let mut present = 0;
            let mut next = 0;
            while let Some((index, _)) = object.raw().pages.lock().next(memory, next) {
                assert!((index as u64) < object.size().div_ceil(PAGE));
                present += 1;
                next = index + 1;
            }
            assert_eq!(object.pages(), present);
        });
    }
}
