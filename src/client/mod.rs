//! The client: finds the leader, keeps many requests in flight, and sees to it that each record is in the log once.
//!
//! ```text
//!   append, put, read, ..        one per caller, any number of callers
//!        │  ▲
//!        ▼  │ outcomes
//!      Link task ── Core: fresh records ─▶ Session (numbers, slots) ─▶ requests ──▶ connection to the leader
//!        │                                   ▲                                          │
//!        │                                   └────────── answers, refusals, loss ◀──────┘
//!        └── Search: who leads? (a probe for each node, when there is no connection or the leader is silent)
//! ```
//!
//! # The contract
//!
//! - Records of one caller are appended in the order in which they were given. What has queued up while the task was
//!   busy leaves in one request; many requests are in flight.
//! - Whatever was sent and has no answer is sent again, in order and under the same numbers, to whoever leads next:
//!   so it is in the log once. A caller whose time ends first is told [`Error::OutcomeUnknown`] if a copy may be in
//!   the log, and [`Error::Unavailable`], [`Error::Busy`] or [`Error::NoSpace`] if certainly none is, now or later.
//! - Everything that waits is bounded: records by [`ClientOptions::queue_bytes_max`], questions by number. A caller who
//!   finds it full waits, and is told [`Error::Busy`] when the time is up. A leader bounds what waits there, and refuses
//!   the rest at once: by default that is sent again until the time is up ([`WhenBusy`]).
//! - A leader whose disk is full is sent one record at a time, to learn whether there is room again, and nothing shortly
//!   before its caller's time is over (2.5 s, or a quarter of [`ClientOptions::timeout`] if that is less): then the caller is
//!   told [`Error::NoSpace`]. If a leader takes longer than that for its answer, as it may where its disk hangs, the outcome
//!   is unknown.
//! - Reads, questions, changes of the members, orders of snapshots and [`Tail`]s are repeated freely; other changes to the
//!   cluster never.
//!
//! # Invariants
//!
//! - The numbers of a session are given once, but those of which every copy was refused, with nothing behind them under way.
//!   A record that was refused for good ends the session, and those behind it, which cannot be in the log without it, go
//!   into the next one (session.rs).
//! - A record whose caller was told that its outcome is unknown is sent again only while one behind it in the same
//!   session still has time; no new record enters such a session.
//!
//! # Caveats
//!
//! A [`Tail`] follows one node at a time and shows what that node has applied: one that is cut off from the others
//! shows nothing new until it is not. A client is bound to the tokio runtime on which it was made.

#![forbid(unsafe_code)]

mod asks;
mod core;
mod directory;
mod error;
mod handle;
mod link;
mod looks;
mod map;
mod node;
mod records;
mod search;
mod session;
mod tail;

pub use error::Error;
pub use handle::{Client, ClientOptions, WhenBusy};
pub use looks::Looks;
pub use map::{Scan, Scanned};
pub use node::NodeClient;
pub use records::{Appended, Outcomes};
pub use tail::Tail;

use std::time::Duration;

use crate::limits::RECORD_BYTES_MAX;
use crate::net::{READ_BYTES_MAX, ResponseBody};

/// Records in one request, unless told otherwise.
pub const REQUEST_RECORDS_DEFAULT: usize = 64;
/// What may wait in a client, unless told otherwise.
pub const QUEUE_BYTES_DEFAULT: usize = 64 << 20;
/// Questions that may wait in a client.
pub const ASKS_MAX: usize = 4096;

/// A node that does not take a connection within this is passed over for the next.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of records asked for at once.
const REQUEST_BYTES: u32 = 1 << 20;

const _: () = assert!(REQUEST_BYTES as usize <= READ_BYTES_MAX && REQUEST_BYTES as usize >= RECORD_BYTES_MAX);

/// The error in a body that should have been another.
fn wrong_answer(body: ResponseBody) -> Error {
    match body {
        ResponseBody::Refused(refusal) => Error::from_refusal(&refusal),
        _ => Error::WrongAnswer,
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_cluster;
#[cfg(test)]
mod tests_session;
