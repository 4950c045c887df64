//! Snapshots: what a state machine was at one entry of the log, in files that other nodes have byte for byte the same.
//!
//! ```text
//!   snapshot-GROUP-INDEX-TERM/          in the data directory
//!     chunks      the state, in chunks of 1 MiB
//!     manifest    of which cluster, group and entry; each chunk's checksum
//!
//!   making:     .making ──chunks, flush──▶ ──manifest, flush──▶ ──directory, flush──▶ rename ──root, flush──▶ whole
//!   receiving:  .receiving, manifest first ──chunks in any order──▶ all there, flush ──▶ rename ──root, flush──▶ whole
//!   going:      rename ──root, flush──▶ .removing ──▶ its files ──▶ itself
//! ```
//!
//! Nothing here knows a clock, a thread or a state machine: the state comes as a [`ChunkSource`], the disk as
//! [`crate::disk::Files`], and whoever runs a [`Builder`] does so a step at a time, as fast as it wants the disk to be busy
//! ([`run`] does it for a thread).
//!
//! # The contract
//!
//! - **A name without an ending is whole.** It is given when all that stands under it is flushed, and taken away, durably,
//!   before any of it goes. So a cut of power, wherever it falls, leaves an older snapshot or the newer one, each whole; all
//!   else has an ending, and is no snapshot.
//! - **Damage is told, and is never "no data".** [`list()`] says of each name what it is: whole, unfinished, damaged, of
//!   another cluster, of a newer format, unreadable. What is not whole is not used, and only what is unfinished is
//!   removed unless two newer ones are whole.
//! - **No chunk passes for another.** Its checksum is salted with cluster, group, point and number, so that a chunk of
//!   another snapshot, or in another place of this one, is a damaged one. [`Reader`] checks each as it is read, and
//!   [`Receiver`] each as it arrives.
//! - **The same state at the same point is the same bytes**, on each node: nothing in the files tells who made them. A
//!   transfer goes on where it broke off, also from another node, if the manifest is the same.
//! - **A rotten chunk comes back from another node** ([`mend`]): nothing is written over one that is right, and a cut of
//!   power leaves what was damaged damaged.
//! - After an error nothing is written any more; [`Builder::abandon`] removes what was made, so that the next one
//!   begins anew. A failed flush is never repeated.
//!
//! # Caveats
//!
//! A listing reads manifests and lengths alone: a whole snapshot may have a chunk that rotted, which shows when it is read,
//! or by [`verify`]. A start flushes the root first ([`settle`]): what is listed then stays.

#![forbid(unsafe_code)]

mod builder;
mod copying;
mod error;
mod listing;
mod manifest;
mod mending;
mod naming;
mod reader;
mod receiver;
mod removal;
pub mod run;
#[cfg(test)]
mod tests;

pub use builder::{Builder, ChunkSource, Step};
pub use copying::{Copying, copy};
pub use error::{Damage, Error};
pub use listing::{Condition, Found, Listing, list};
pub use manifest::{Description, FORMAT_VERSION, Manifest};
pub use mending::{Mended, mend, reopen};
pub use naming::Stage;
pub use reader::{BadChunk, Reader, verify};
pub use receiver::{Arrival, Receiver};
pub use removal::{Reach, remove, remove_superfluous, settle, superfluous};
