//! The only door to files.
//!
//! Two halves, both traits, so that everything above runs on real files, on a simulated disk, or on one that fails
//! on purpose:
//!
//! ```text
//!   start, recovery, preparation              the hot path
//!   ───────────────────────────▶ Files        ────────────▶ Queue
//!     create, open, read, sync,                 submit(Write) ... take(Completion)
//!     rename, map: done on return               a completion without error is on the disk
//! ```
//!
//! What both promise:
//! - A [`Write`] that completes without an error is **flushed**: it is there after a cut of power. Nothing is said of
//!   one that has not completed, and nothing of the order in which writes in flight reach the disk.
//! - A short write is finished, EINTR and EAGAIN without a byte moved are resubmitted; every other error is final.
//!   **No write and no flush is ever retried after an error**: the kernel may have dropped the data and cleared the
//!   error. Whoever gets an [`Error`] from a write must stop writing.
//! - Names are relative to the directory that was opened, of at most two parts, never from outside; links are not
//!   followed.
//!
//! [`Directory`] is the real [`Files`]; [`UringQueue`] and [`BlockingQueue`] are the real [`Queue`]s, and [`probe()`] says
//! which one to use and why. [`crate::sim::disk`] is both, in memory.
//!
//! Invariants:
//! - A file is written by one process at a time: each open file description that is written through carries the lock,
//!   so that a request which a dead process left in the kernel keeps the next process out (open_file.rs).
//! - A bounded number of files is held open (table.rs), however many ids there are.
//! - A buffer comes back only when the kernel is done with it; that of a write that timed out never does.
//! - A flush covers writes that completed at full length before it was asked for.
//!
//! Caveats: a completion can come long before it is taken, and a hung disk is noticed only when [`Queue::take`] is called
//! or timers run, so call it at each tick. A process that reads a mapped file which a foreign program has cut, or which
//! the device cannot give, ends with [`MAP_FAILED_EXIT`] and a line that names the file (mapping.rs).
//!
//! `unsafe` lives in this folder and nowhere else.

mod ahead;
mod blocking;
mod buffer;
mod choice;
mod choose;
mod directory;
mod error;
mod mapping;
mod measure;
pub(crate) mod name;
mod open_file;
mod pages;
mod probe;
mod queue;
mod seam;
mod table;
#[cfg(test)]
mod tests;
mod transfer;
mod uring;

pub use ahead::Ahead;
pub use blocking::{Begun, BlockingQueue, ThreadWriter};
pub use buffer::{Buffer, BufferPool};
pub use choice::{Backend, IoChoice, SyncMode, UnknownChoice};
pub use choose::{Chosen, DEPTH_TRIED, choose};
pub use directory::Directory;
pub use error::{Error, Operation};
pub use mapping::{MAP_FAILED_EXIT, Map};
pub use measure::{FlushTimes, Ground, Pace, Surface, Way, measure_flush};
pub use probe::{ProbeError, Probed, probe};
pub use queue::{Completion, FileId, Queue, Token, WRITES_QUEUED_MAX, Write};
#[cfg(test)]
pub(crate) use seam::{Fault, Seam};
pub use uring::{Runtime, UringQueue, sleep};

/// Reads that one [`Ahead`] has under way at most.
pub const READS_AHEAD_MAX: usize = 2;

/// What start, recovery and preparation need of files. Every call is done when it returns, and blocks until then.
///
/// Reads go past the page cache where the file system can (`O_DIRECT`), so that they tell what the disk holds.
pub trait Files {
    /// The read-only view of a file that [`Files::map`] gives.
    type Map: std::ops::Deref<Target = [u8]>;

    /// The names in a directory (`""` is the root), sorted, directories and files alike.
    fn list(&self, directory: &str) -> Result<Vec<String>, Error>;

    /// Makes a directory, and its entry durable. It is no error if it exists.
    fn create_directory(&self, directory: &str) -> Result<(), Error>;

    /// Makes a file that must not exist yet, for reading and writing. Its entry is not durable before
    /// [`Files::sync_directory`].
    fn create(&self, name: &str) -> Result<FileId, Error>;

    /// Opens a file for reading and for writing, and takes its lock: an error of kind
    /// [`std::io::ErrorKind::WouldBlock`] means that another process has it.
    fn open(&self, name: &str) -> Result<FileId, Error>;

    /// Opens a file for reading, without a lock.
    fn open_read(&self, name: &str) -> Result<FileId, Error>;

    /// The file's length in bytes.
    fn length(&self, file: FileId) -> Result<u64, Error>;

    /// Fills `buffer` from `offset` on. Past the end of the file is an error of kind
    /// [`std::io::ErrorKind::UnexpectedEof`]; a file that was closed since is one of kind
    /// [`std::io::ErrorKind::NotFound`], because a reader on another thread may have a plan for it. Offset and length need not be aligned; aligned, with
    /// a buffer that is, too, is faster.
    fn read(&self, file: FileId, offset: u64, buffer: &mut [u8]) -> Result<(), Error>;

    /// What reads for a caller while that one works. None where whoever wants to read does it himself, as on a simulated
    /// disk; nothing but speed depends on it.
    fn ahead(&self) -> Option<Ahead> {
        None
    }

    /// Writes all of `bytes`. Not durable before [`Files::sync`].
    fn write(&self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), Error>;

    /// Writes zeros over `offset..offset + bytes`: blocks that are written, not a hole, so that writing them again
    /// needs no journal. The file grows as needed. Not durable before [`Files::sync`].
    fn zero(&self, file: FileId, offset: u64, bytes: u64) -> Result<(), Error>;

    /// Gives a new file `bytes` of room that read as zero, without writing them. Not durable before [`Files::sync`].
    fn allocate(&self, file: FileId, bytes: u64) -> Result<(), Error>;

    /// Whether some of a file may be room that was never written, which reads as zero: [`Files::allocate`] leaves such. Where
    /// the file system does not tell, there is none; nothing but speed depends on it.
    fn has_holes(&self, _file: FileId) -> bool {
        false
    }

    /// Says that the hot path will come for a file whose room is there already: it stays open until then, as one does that
    /// [`Files::zero`] or [`Files::allocate`] was called for.
    fn expect_writes(&self, _file: FileId) -> Result<(), Error> {
        Ok(())
    }

    /// Flushes a file's data and length (fdatasync).
    fn sync(&self, file: FileId) -> Result<(), Error>;

    /// Replaces `to` by `from`. Not durable before [`Files::sync_directory`]. Open files keep their id.
    fn rename(&self, from: &str, to: &str) -> Result<(), Error>;

    /// Removes a file, or a directory that is empty. Not durable before [`Files::sync_directory`].
    fn remove(&self, name: &str) -> Result<(), Error>;

    /// Makes creates, renames and removals in a directory durable.
    fn sync_directory(&self, directory: &str) -> Result<(), Error>;

    /// A read-only view of a whole file. The file must not shrink while it lives. What it shows may be in the page cache
    /// alone, and older than what a read past the cache gives: whoever finds no sense in it asks [`Files::read`].
    ///
    /// # Errors
    /// With kind [`std::io::ErrorKind::NotFound`] if the file was closed since, as for [`Files::read`]; also if too many
    /// files are mapped.
    fn map(&self, file: FileId) -> Result<Self::Map, Error>;

    /// Says that this part of a view will be looked at next. What the page cache lacks of it is fetched in one go, and nothing
    /// around it; nothing but speed depends on it.
    fn expect(&self, _map: &Self::Map, _part: std::ops::Range<usize>) {}

    /// Bytes that can still be written before the disk is full.
    fn free_bytes(&self) -> Result<u64, Error>;

    /// Whether reads go past the page cache and so tell what the disk holds. Where they do not, what was read may be
    /// in memory alone: the kernel takes a page for clean after a flush that failed.
    fn reads_past_cache(&self) -> bool;

    /// Closes a file. Writes in flight to it must have completed.
    fn close(&self, file: FileId);
}

/// What a write is told that was not tried, because one before it failed.
pub(crate) fn poisoned() -> std::io::Error {
    std::io::Error::other("an earlier write or flush failed, and none is tried after that")
}
