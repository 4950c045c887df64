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
//! # A state that outlives the process
//!
//! A machine in memory is fed from the newest snapshot on, or from the log's start. One that keeps its own durable state
//! gives [`StateMachine::durable`], and is fed from the entry behind the one that it has: nothing is applied again.
//!
//! ```text
//!   apply  apply  apply ──▶ commit(applied, kept): ONE transaction ──▶ answers leave
//!                                │ the machine's own changes
//!                                │ what the node keeps with them: sessions and their answers, configuration, digest
//!   start: recovered() ◀─────────╯ ──▶ applied again is only what lies behind it
//! ```
//!
//! - **One transaction.** What [`Durable::commit`] is given and what was applied since the commit before are durable
//!   together or not at all. A machine that keeps them apart runs a command a second time, or loses the answer to one.
//! - **The node's log comes first.** Only entries that are committed **and** durable in this node's own log are applied, so
//!   that the state is never ahead of the log that it is started with. If it is, the log has lost something: the node
//!   does not start, and has no voice.
//! - **A commit need not be durable when it returns.** Answers leave behind it and do not rest on it: the command is
//!   in the log, on the disks of a majority and of this node. After a crash the machine gives whichever commit it finds; it
//!   is fed what lies behind that, in the same order on top of the same sessions, and so comes to the same state and
//!   the same answers. What must hold is that commits become durable in their order. So a machine may
//!   flush each commit (then nothing that was answered is ever applied again), or every hundredth.
//! - It is called once for all that was applied in one turn of the node: up to some thousands of entries, one if that is
//!   all there is. It runs on the node's core thread: while it waits for a disk, so does all else that the node does, its
//!   heartbeats among it. A machine with a slow store returns before its flush, and flushes on a thread of its own.
//! - **Errors end the node**, with exit code 18 ([`Error::Failed`]) or 10 ([`Error::Corrupt`]), before any answer
//!   leaves that came of it. What was applied and not committed is applied again at the next start.
//! - **Snapshots** are for other nodes, and for a log that is to end where they begin. Without them nothing of the log is
//!   ever given up, and a node whose log begins later than its state (or a new one that joins where the log of the
//!   others does) cannot be helped: it says so. With them a durable machine takes another node's snapshot, too: what
//!   [`Restoring::finish`] gives is another state beside the one in use, and takes its place in the first commit that is
//!   made of it, which [`Commit::replaces`] all. Until then a restart must find the state before. A node's own start
//!   takes its own durable state, and a snapshot only where the log no longer reaches back to that.
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
    ///
    /// # Errors
    /// If what the state stands on failed: the node ends. Never of a command that cannot be carried out.
    fn apply(&mut self, id: LogId, command: &[u8]) -> Result<Bytes, Error>;

    /// Answers a question about the present state, without a change to it. The node has made sure that the state is
    /// as new as the client may expect. The answer must fit a wire frame
    /// ([`crate::limits::WIRE_FRAME_BYTES_MAX`]) with room for its head. What is applied and not committed yet is part of
    /// the state.
    ///
    /// # Errors
    /// As [`StateMachine::apply`].
    fn query(&self, query: &[u8]) -> Result<Bytes, Error>;

    /// The side of a machine whose state outlives the process; `None`, the default, of one in memory. Always the same.
    fn durable(&mut self) -> Option<&mut dyn Durable> {
        None
    }

    /// A checksum of the whole state, equal where the state is equal however it came about. May be slow: it is for
    /// comparing nodes, not for serving.
    fn digest(&self) -> Checksum;

    /// The state as it is now, to be written by another thread: in constant time, sharing what is not changed. `None`, the
    /// default, of a machine that can give none: its log is then kept whole.
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

/// What a machine does that keeps its own durable state: "A state that outlives the process" at the head of this module
/// is the contract.
pub trait Durable {
    /// What the last commit left; `None` where there was none. Called once, before anything is applied. What was
    /// applied behind that commit is gone.
    ///
    /// # Errors
    /// If it cannot be read: the node does not start.
    fn recovered(&mut self) -> Result<Option<Recovered>, Error>;

    /// Keeps all that was applied since the commit before, and what comes with it, in one transaction.
    ///
    /// # Errors
    /// If that failed: the node ends.
    fn commit(&mut self, commit: Commit<'_>) -> Result<(), Error>;
}

/// One transaction of a durable machine.
pub struct Commit<'a> {
    /// The last entry that was applied.
    pub applied: LogId,
    /// The state before goes, with all that was kept with it: this machine was made of a snapshot.
    pub replaces: bool,
    /// What has changed of what the node keeps with the state, each key once: under each key a value takes the place of
    /// the one before, or there is none any more. The bytes mean nothing to the machine.
    pub kept: &'a mut dyn Iterator<Item = (u64, Option<Bytes>)>,
}

/// What a durable machine found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// Of the last commit.
    pub applied: LogId,
    /// What was kept by it and all before it, in any order.
    pub kept: Vec<(u64, Bytes)>,
}

/// Why a machine cannot go on, or begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its store does not do what it should: the disk, most likely.
    #[error("the store of the state machine failed: {0}")]
    Failed(Box<dyn std::error::Error + Send + Sync>),
    /// Its store holds what was never written there.
    #[error("the store of the state machine is damaged: {0}")]
    Corrupt(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    pub fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::Failed(error.into())
    }

    pub fn corrupt(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::Corrupt(error.into())
    }
}

impl std::fmt::Debug for Commit<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Commit { applied, replaces, .. } = self;
        formatter.debug_struct("Commit").field("applied", applied).field("replaces", replaces).finish_non_exhaustive()
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
