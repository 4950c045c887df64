//! Trilith: a replicated write-ahead log that other databases stand on.
//!
//! A **node** keeps a log on its own disk, agrees with its peers on what is in it, and acknowledges a record when a
//! majority has it on disk, flushed.
//!
//! ```text
//!  client ── QUIC stream ──▶ net ──▶ node::driver ──▶ raft::Replica ──▶ Output
//!                                        ▲                                │ persist ─▶ superblock, wal ─▶ disk
//!                                        │                                │ send ────▶ net ─▶ followers
//!                                        └── Durable(n), messages ◀───────┘
//!  commit = a majority is durable ──▶ sessions, machine ──▶ answer to the client
//! ```
//!
//! # Where to start
//!
//! - To **embed the log** alone: [`wal::Wal`].
//! - To **talk to a cluster**: [`client::Client`].
//! - To **test storage** of your own against cuts of power: [`sim::disk`].
//! - To **understand** it: [`wal`] for what is on disk, [`raft`] for the protocol, [`node::driver`] for how they meet.
//!   Each folder opens with its contract. docs/design.md is the contract between the folders.
//!
//! # What is deterministic
//!
//! [`raft`], [`wal`], [`superblock`], [`snapshot`], [`machine`], [`node::driver`] and [`sim`] know no clock, no thread, no socket and
//! no randomness but a seed: the simulator runs the very code that serves.

#![deny(unsafe_op_in_unsafe_fn)]
#![warn(missing_debug_implementations)]

pub mod adapters;
pub mod checksum;
pub mod cli;
pub mod client;
pub mod codec;
pub mod disk;
pub mod limits;
pub mod machine;
mod mutant;
pub mod net;
pub mod node;
pub mod raft;
pub mod random;
pub mod sim;
pub mod snapshot;
pub mod superblock;
pub mod types;
pub mod wal;

/// The README's examples are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
