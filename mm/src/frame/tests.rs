use super::*;
use crate::sim;

#[test]
fn a_block_goes_and_comes_back() {
    let memory = sim::memory(1, 4096);
    let free = memory.free_frames();
    let frame = memory.alloc(FrameKind::Anon, 0).unwrap();
    assert_eq!(memory.frame(frame.pfn()).kind(), FrameKind::Anon);
    assert_eq!(memory.frame(frame.pfn()).refcount(), 1);
    assert_eq!(memory.free_frames(), free - 1);
    assert_eq!(memory.count_frames(FrameKind::Anon), 1);
    memory.free(frame);
    assert_eq!(memory.free_frames(), free);
}
