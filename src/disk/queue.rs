//! The hot path: writes in, completions out.

use super::buffer::Buffer;
use super::error::Error;

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

/// What became of a write.
#[derive(Debug)]
pub struct Completion {
    pub token: Token,
    /// Without an error: all bytes are written **and flushed**.
    pub result: Result<(), Error>,
    /// Comes back for use again: not before the kernel is done with it.
    pub buffer: Buffer,
}

/// Writes in flight. Nothing blocks: a full device shows as completions that do not come.
pub trait Queue {
    /// Hands a write to the disk. Panics if it is not aligned or its file is unknown: that is our bug.
    fn submit(&mut self, write: Write);

    /// The next completion, in the order in which they happened, which need not be that of submission.
    fn take(&mut self) -> Option<Completion>;
}
