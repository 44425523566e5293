//! The references to a frame.

use std::sync::Arc;

use mm::FrameKind;
use mm::parts::Record;

use crate::checker::{Cell, check, race};

/// A frame, and the contents of the page that it is.
struct Frame {
    record: Record,
    contents: Cell<u32>,
}

impl Frame {
    fn new() -> Arc<Frame> {
        Arc::new(Frame { record: Record::new(FrameKind::Anon), contents: Cell::new(0) })
    }

    /// Takes a reference away; if it was the last one, the frame becomes a page table.
    fn put(&self) {
        if self.record.release() {
            self.contents.write(1);
            self.record.claim(FrameKind::Table);
        }
    }
}

/// Invariant: nobody uses a frame anew before all are done with it that had a reference.
#[test]
fn the_last_reference_frees() {
    check(|| {
        let frame = Frame::new();
        frame.record.get();
        let read_and_put = |frame: &Frame| {
            assert_eq!(frame.contents.read(), 0);
            frame.put();
        };
        race(&frame, &[read_and_put, read_and_put]);
        assert_eq!((frame.contents.read(), frame.record.kind()), (1, FrameKind::Table));
    });
}

/// Invariant: who comes across a frame, and gets a reference, sees what it has been taken into use as,
/// and it stays that.
#[test]
fn who_comes_across_a_frame() {
    check(|| {
        let frame = Frame::new();
        race(
            &frame,
            &[
                |frame| frame.put(),
                |frame| {
                    if frame.record.try_get() {
                        let is_table = frame.record.kind() == FrameKind::Table;
                        assert_eq!(frame.contents.read(), u32::from(is_table));
                        frame.put();
                    }
                },
            ],
        );
    });
}

/// Invariant: who sees a page mapped sees where.
#[test]
fn a_page_is_mapped_where_its_record_says() {
    check(|| {
        let frame = Frame::new();
        race(
            &frame,
            &[|frame| frame.record.map(9, 7), |frame| assert!(matches!(frame.record.mapped_as(), None | Some((9, 7))))],
        );
    });
}
