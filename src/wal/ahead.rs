//! How far a reader of a mapped segment asks for what it will touch.
//!
//! A page that is touched before it was asked for brings with it whatever the device reads ahead, and its reader waits: 8 MiB
//! on some disks, around the one page, while the log writes there. So the reader asks before, for what it is about to
//! touch and little else.

use std::ops::Range;

use crate::limits::BLOCK_BYTES;

/// Asked for at once by whoever looks for a frame: doubles as long as he does not find it. What is asked for ends at a
/// multiple of it: each time costs a call of the kernel.
const STEP_BYTES_MIN: u64 = 64 << 10;
const STEP_BYTES_MAX: u64 = 1 << 20;

/// What was asked for of one map, by one read.
#[derive(Debug)]
pub struct Ahead {
    /// Everything that matters before this was asked for.
    end: u64,
    step_bytes: u64,
    /// Nothing is asked for from here on.
    limit: u64,
}

impl Ahead {
    pub fn new(limit: u64) -> Ahead {
        Ahead { end: 0, step_bytes: STEP_BYTES_MIN, limit }
    }

    /// A frame's head is looked at, and so much is wanted from there on, if that is known; gives what to ask for.
    pub fn reach(&mut self, at: u64, wanted_bytes: Option<u64>) -> Option<Range<u64>> {
        if at + BLOCK_BYTES as u64 <= self.end {
            return None;
        }
        let step_bytes = wanted_bytes.map_or(self.step_bytes, |wanted| wanted.clamp(STEP_BYTES_MIN, STEP_BYTES_MAX));
        self.step_bytes = (self.step_bytes * 2).min(STEP_BYTES_MAX);
        self.expect(at..at + step_bytes)
    }

    /// This will be looked at; gives what of it is still to be asked for.
    pub fn expect(&mut self, range: Range<u64>) -> Option<Range<u64>> {
        if range.end <= self.end || range.is_empty() {
            return None;
        }
        let asked = range.start.max(self.end)..range.end.next_multiple_of(STEP_BYTES_MIN).min(self.limit);
        if asked.is_empty() {
            return None;
        }
        self.end = asked.end;
        Some(asked)
    }
}
