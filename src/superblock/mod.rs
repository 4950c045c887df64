//! The superblock: the little that a node must never forget, in a file of its own.
//!
//! It holds who the node is (cluster, id, incarnation), how often it was started, what the log's disk was found to
//! do best, for each group term, vote, snapshot and log start, and how often the others were started. The log does not need it to be read, but a node
//! without it has no voice: it could vote twice.
//!
//! ```text
//!   file `superblock`, 16 KiB:   | block 0 | block 1 | block 2 | block 3 |
//!                                 ╰───── pair A ────╯ ╰───── pair B ────╯
//!   save n:   write A, flush ──▶ write B, flush ──▶ n is durable: now the node may speak
//! ```
//!
//! # The contract
//!
//! - **What was spoken is never lost.** A save is durable when both pairs hold it, so at any instant, also in the
//!   middle of a torn write, at least one pair is intact, equal, and at least as new as everything that was spoken.
//! - [`load`] uses the file if either pair is intact and equal, and takes the highest intact copy. That may be one
//!   that was never spoken: to adopt a vote that nobody has heard of is safe, to forget one is not. What it does in
//!   each case stands as data in `recovery.rs`.
//! - Before [`load`] returns, all four blocks are brought to that state, with the boot number raised: the pair that is
//!   broken, or was written last, first, each pair flushed. A crash in its middle is one more crash, and so is a flush
//!   that failed in an earlier life, whose pair may be in the page cache alone.
//! - [`Writer`] does no I/O: it gives [`crate::disk::Write`]s and takes completions, one write in flight at a time.
//!   Saves that come meanwhile go out together with the next one. After an error it gives no write any more.
//!
//! # Invariants (asserted at each save)
//!
//! Identity and first membership never change. Boot number, durable end and each group's term never fall. Within a
//! term a vote changes once, from nobody. A group never goes. Of a life of another node the boot number never falls, and a
//! loss is never forgotten.
//!
//! # Caveats
//!
//! A file put back from an older copy is intact; what betrays it is outside (a term in the log above the one here, a
//! boot number below the highest that peers have met). Three damaged blocks, or one in each pair, leave the node
//! without a voice even if one intact block is left: it may be older than what was spoken.

#![forbid(unsafe_code)]

mod block;
mod recovery;
mod state;
mod store;
mod writer;

#[cfg(test)]
mod tests;

pub use block::FORMAT_VERSION;
pub use recovery::{Condition, Conditions};
pub use state::{Error, Group, Met, State};
pub use store::{Inspection, Loaded, format, inspect, load, mark_no_voice, mark_removed, mend};
pub use writer::{SaveNumber, Writer};

/// The file's name in the data directory.
pub const FILE_NAME: &str = "superblock";
/// A file with this name beside the superblock says that the node has lost what it had acknowledged: it has no voice.
pub const NO_VOICE_NAME: &str = "no-voice";
/// A file with this name says that the node was removed from its cluster: it is never started again.
pub const REMOVED_NAME: &str = "removed";
