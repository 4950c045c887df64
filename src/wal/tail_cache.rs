//! The newest frames, kept in memory: the very buffers that they were written from.
//!
//! Whoever follows a log reads what was written a moment ago. A frame's buffer is not given back to the pool when its
//! write completes, but waits here until so many newer ones came that the bound is reached:
//!
//! ```text
//!   completed ──▶ push ──▶ [ frame 7 | frame 8 | ... | frame 31 ]      at most `bytes_max` of buffers
//!                 pool ◀── oldest ┘        └── shared with read plans
//! ```
//!
//! The cache only supplies bytes: what is live, and where it lies, the locator says. A frame is read from here by the
//! same code and with the same checksums as from the disk. A buffer that a reader holds is not written again: when its
//! frame goes from here, it is freed by the last reader instead of going to the pool. So what readers hold comes on top
//! of the bound, by at most [`PLAN_BYTES_MAX`] and one frame for each read that runs.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::frame::{FrameHead, Run};
use super::locator::Part;
use super::record::RecordKind;
use crate::disk::{Buffer, BufferPool};
use crate::limits::FRAME_BYTES_MAX;
use crate::types::{GroupId, Index, SegmentNumber};

/// Frames that one plan looks at: it is made while the log waits.
const PLAN_FRAMES_MAX: usize = 1024;
/// Frame bytes that one plan takes out, but for its last frame.
pub const PLAN_BYTES_MAX: usize = FRAME_BYTES_MAX;
/// A frame is kept in the buffer that it was built in unless that is so many times too large.
const WASTE_MAX: usize = 4;

/// See [`self`].
#[derive(Debug)]
pub struct TailCache {
    /// Durable, in order, without gaps.
    frames: VecDeque<Arc<CachedFrame>>,
    /// What their buffers take.
    bytes: usize,
    bytes_max: usize,
}

/// One durable frame.
#[derive(Debug)]
pub struct CachedFrame {
    pub segment: SegmentNumber,
    pub offset: u64,
    pub bytes: Buffer,
    own: Vec<Run>,
}

/// What the cache has of a part of a segment.
#[derive(Debug)]
pub struct Cached {
    /// The frames with wanted entries.
    pub frames: Vec<Arc<CachedFrame>>,
    /// From here on the cache has all that is wanted of the part, up to `end`.
    pub start: u64,
    pub end: u64,
}

/// What a plan has taken out of the cache so far: over all its parts it is bounded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    /// Looked at.
    frames: usize,
    /// Of the frames taken.
    bytes: usize,
}

impl Budget {
    pub fn is_spent(&self) -> bool {
        self.frames >= PLAN_FRAMES_MAX || self.bytes >= PLAN_BYTES_MAX
    }

    #[cfg(test)]
    pub fn frames(&self) -> usize {
        self.frames
    }
}

impl TailCache {
    /// Keeps nothing if `bytes_max` is 0.
    pub fn new(bytes_max: usize) -> TailCache {
        TailCache { frames: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Takes in the frame that has just become durable, and gives the buffers of the oldest back.
    pub fn push(&mut self, head: &FrameHead, own: Vec<Run>, buffer: Buffer, pool: &mut BufferPool) {
        if self.bytes_max == 0 {
            pool.put(buffer);
            return;
        }
        let is_next = |last: &Arc<CachedFrame>| last.place() < (head.segment, head.offset);
        assert!(self.frames.back().is_none_or(is_next), "frames become durable in order");
        let bytes = fitting(buffer, pool);
        self.bytes += bytes.capacity();
        self.frames.push_back(Arc::new(CachedFrame { segment: head.segment, offset: head.offset, bytes, own }));
        while self.bytes > self.bytes_max {
            let oldest = self.frames.pop_front().expect("what is counted is there");
            self.bytes -= oldest.bytes.capacity();
            if let Some(frame) = Arc::into_inner(oldest) {
                pool.put(frame.bytes);
            }
        }
    }

    /// The frames of a part that hold entries of a group from `from` on, as far as the plan's budget goes. None if it has
    /// none of them.
    pub fn cached(&self, part: &Part, (group, from): (GroupId, Index), budget: &mut Budget) -> Option<Cached> {
        let number = part.header.number;
        let first = self.frames.partition_point(|frame| frame.place() < (number, part.start));
        let start = self.frames.get(first).filter(|frame| frame.segment == number && frame.offset < part.end)?.offset;
        let mut cached = Cached { frames: Vec::new(), start, end: part.end };
        for frame in self.frames.range(first..) {
            if frame.segment != number || frame.offset >= part.end {
                break;
            }
            if budget.is_spent() {
                cached.end = frame.offset;
                break;
            }
            budget.frames += 1;
            if frame.holds(group, from..part.until) {
                budget.bytes += frame.bytes.len();
                cached.frames.push(Arc::clone(frame));
            }
            // The last entry of the part is here. One below it, written later, would have begun another part.
            if frame.runs_of(group).next_back().is_some_and(|run| run.end() >= part.until) {
                break;
            }
        }
        (!cached.frames.is_empty()).then_some(cached)
    }

    /// What its buffers take.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        assert_eq!(self.bytes, self.frames.iter().map(|frame| frame.bytes.capacity()).sum::<usize>());
        self.bytes
    }
}

impl CachedFrame {
    /// Whether any of these entries stands here and was not replaced in this very frame.
    pub fn holds(&self, group: GroupId, wanted: Range<Index>) -> bool {
        let mut end = wanted.end;
        self.runs_of(group).rev().any(|run| {
            let is_there = run.first.max(wanted.start) < run.end().min(end);
            end = end.min(run.first);
            is_there
        })
    }

    fn runs_of(&self, group: GroupId) -> impl DoubleEndedIterator<Item = &Run> {
        self.own.iter().filter(move |run| run.group == group && run.kind == RecordKind::Entry)
    }

    fn place(&self) -> (SegmentNumber, u64) {
        (self.segment, self.offset)
    }
}

/// The frame in a buffer that is not much larger than it.
fn fitting(buffer: Buffer, pool: &mut BufferPool) -> Buffer {
    if buffer.capacity() <= WASTE_MAX * buffer.len() {
        return buffer;
    }
    let mut copy = Buffer::with_capacity((2 * buffer.len()).next_power_of_two());
    copy.extend(&buffer);
    pool.put(buffer);
    copy
}
