//! State machines: what a replicated log is for.
//!
//! A node feeds its machine the committed commands in the order of the log. Every node does so with the same
//! commands, so every machine is in the same state at the same index, if it is deterministic:
//!
//! ```text
//!   committed entry ──▶ sessions: run it? ──▶ apply(5@3, command) ──▶ answer ──▶ client
//!                                                 │ state
//!   read index reached ──────────────────────▶ query(query) ────────▶ answer ──▶ client
//! ```
//!
//! [`Map`] is the one built in: an ordered key-value map. Whoever builds a database brings another.
//!
//! # The contract, for those who write a machine
//!
//! - **Deterministic.** State and answer follow from the state before and the command, from nothing else: no clock,
//!   no random number, no order of a hash map, no address, no configuration that may differ between nodes. A command
//!   that cannot be carried out gets an answer that says so, the same on every node.
//! - **Total.** Bytes come from clients. `apply` and `query` take any and do not panic: a panic stops every node at
//!   the same entry.
//! - **Once.** Entries come in the order of their index, each at most once in the life of a state. That a client
//!   sent a command twice is settled before it gets here.
//! - **Only what is committed** comes here; nothing is ever taken back.
//! - Answers to commands are kept for clients that ask again: small ones are kept longer.
//!
//! - **Snapshots.** [`StateMachine::snapshot`] is called between two entries, on the thread that applies, and must cost
//!   next to nothing: it gives a handle to the state as it is now, which another thread writes down while the machine goes
//!   on. Equal states give equal bytes, whatever commands led to them and on whichever node, so that nodes can repair
//!   their snapshots from each other.
//!
//! A machine whose state outlives the process writes the entry's name with the state, in one transaction, and says
//! it in [`StateMachine::applied`]; it is then fed from the entry behind that on. One in memory is fed from the
//! newest snapshot, or from the log's start. This version refuses to start with one that has applied anything: the
//! answers of its sessions would be missing.
//!
//! # Caveats
//!
//! A program that gives another answer to the same command than an older one does is another machine: both must not
//! serve in one cluster at a time.

#![forbid(unsafe_code)]

pub mod command;
mod encoding;
mod map;

#[cfg(test)]
mod tests;

pub use map::Map;

use bytes::{Bytes, BytesMut};

use crate::checksum::Checksum;
use crate::codec;
use crate::limits::RECORD_BYTES_MAX;
use crate::types::LogId;

/// A deterministic state that is driven by the log. The contract stands at the head of this module.
pub trait StateMachine {
    /// Carries out the command of the committed entry `id`, and gives the answer for the client. `command` is what
    /// the client sent, at most [`crate::limits::RECORD_BYTES_MAX`] bytes; what is to be kept of it is copied.
    /// An answer of more than [`crate::limits::SESSION_ANSWER_BYTES_MAX`] does not reach the client: it hears that the
    /// outcome is unknown.
    fn apply(&mut self, id: LogId, command: &[u8]) -> Bytes;

    /// Answers a question about the present state, without a change to it. The node has made sure that the state is
    /// as new as the client may expect. The answer must fit a wire frame
    /// ([`crate::limits::WIRE_FRAME_BYTES_MAX`]) with room for its head.
    fn query(&self, query: &[u8]) -> Bytes;

    /// The last entry whose effect would be there after a restart. [`LogId::ZERO`] for a state in memory.
    fn applied(&self) -> LogId {
        LogId::ZERO
    }

    /// Whether the state outlives the process. Such a one is fed only what is on this node's own disk, so that it is
    /// never ahead of the log that it is started with.
    fn is_durable(&self) -> bool {
        false
    }

    /// A checksum of the whole state, equal where the state is equal however it came about. May be slow: it is for
    /// comparing nodes, not for serving.
    fn digest(&self) -> Checksum;

    /// The state as it is now, to be written by another thread: in constant time, sharing what is not changed. `None`, the
    /// default, of a machine that keeps its own durable state, or can give none: its log is then kept whole.
    fn snapshot(&self) -> Option<Box<dyn Snapshot>> {
        None
    }

    /// Makes a machine of the bytes that such a snapshot gave, beside this one, which goes on. `None` where
    /// [`StateMachine::snapshot`] is.
    fn restoring(&self) -> Option<Box<dyn Restoring<Self>>>
    where
        Self: Sized,
    {
        None
    }
}

/// A state as it was between two entries. What it shares with the machine is given up where it is dropped: on the thread
/// that wrote it.
pub trait Snapshot: Send {
    /// Appends the next bytes of the encoding: as many as are at hand, and at most [`SNAPSHOT_PIECE_BYTES_MAX`]. False, and
    /// nothing, once all were given.
    fn encode_next(&mut self, out: &mut BytesMut) -> bool;
}

/// A state on its way back from its encoding.
pub trait Restoring<M>: Send {
    /// The next bytes, cut anywhere.
    ///
    /// # Errors
    /// If these are no bytes that a snapshot gave. Then nothing comes of it.
    fn add(&mut self, bytes: &[u8]) -> Result<(), codec::Error>;

    /// Those were all.
    ///
    /// # Errors
    /// If more should have come, or these are no bytes that a snapshot gave.
    fn finish(self: Box<Self>) -> Result<M, codec::Error>;
}

/// What one call of [`Snapshot::encode_next`] gives at most: two records.
pub const SNAPSHOT_PIECE_BYTES_MAX: usize = 2 * RECORD_BYTES_MAX;
