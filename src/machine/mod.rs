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
mod map;

#[cfg(test)]
mod tests;

pub use map::Map;

use bytes::Bytes;

use crate::checksum::Checksum;
use crate::types::LogId;

/// A deterministic state that is driven by the log. The contract stands at the head of this module.
pub trait StateMachine {
    /// Carries out the command of the committed entry `id`, and gives the answer for the client. `command` is what
    /// the client sent, at most [`crate::limits::RECORD_BYTES_MAX`] bytes; what is to be kept of it is copied.
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
}
