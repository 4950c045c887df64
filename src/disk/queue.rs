//! The hot path: writes in, completions out.

use super::buffer::Buffer;
use super::error::Error;
use crate::limits::BLOCK_BYTES;

/// Writes submitted and not yet taken that any queue carries: more is a submitter without a bound.
pub const WRITES_QUEUED_MAX: usize = 64;

/// An open file, within the directory that opened it. Never used again for another file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct FileId(pub u64);

/// What the submitter calls a write; it comes back with the completion. The queue reads nothing into it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Token(pub u64);

/// One contiguous write and its flush.
#[derive(Debug)]
pub struct Write {
    pub token: Token,
    pub file: FileId,
    /// A multiple of [`crate::limits::BLOCK_BYTES`], and so is the buffer's length.
    pub offset: u64,
    pub buffer: Buffer,
}

impl Write {
    /// Panics if the write is not aligned: that is our bug.
    pub(crate) fn check(&self) {
        assert!(self.offset.is_multiple_of(BLOCK_BYTES as u64), "a write at offset {} is not aligned", self.offset);
        assert!(self.buffer.len().is_multiple_of(BLOCK_BYTES), "a write of {} bytes is not aligned", self.buffer.len());
        assert!(!self.buffer.is_empty(), "a write of nothing");
    }
}

/// What became of a write.
#[derive(Debug)]
pub struct Completion {
    pub token: Token,
    /// Without an error: all bytes are written **and flushed**.
    pub result: Result<(), Error>,
    /// Comes back for use again: not before the kernel is done with it. Where a write timed out the kernel is not,
    /// and this is another, empty one.
    pub buffer: Buffer,
}

/// Writes in flight. Nothing blocks: a full device shows as completions that do not come.
pub trait Queue {
    /// Hands a write to the disk. Panics if it is not aligned, if its file is unknown, or if there are
    /// [`WRITES_QUEUED_MAX`] already: that is our bug.
    fn submit(&mut self, write: Write);

    /// Sees to it that the kernel has what was submitted. To be called when the submitter comes round again, having
    /// let others run: a queue whose requests leave when the thread parks is told by it that the thread may not have.
    fn hand_over(&mut self) {}

    /// The next completion, in the order in which they happened, which need not be that of submission.
    fn take(&mut self) -> Option<Completion>;
}
