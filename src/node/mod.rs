//! The node: joins log, protocol, state machine and network.
//!
//! ```text
//!   client's records ──▶ sessions (admission) ──▶ protocol, log ──▶ sessions (table) ──▶ state machine
//!                            │ known already                           │ first time? run it, keep the answer
//!                            ╰──▶ the first answer                     ╰──▶ the first answer
//! ```
//!
//! What decides is deterministic and does no I/O of its own ([`driver`], [`sessions`], [`transfer`]), so that the
//! simulator runs the very code that serves.

#![forbid(unsafe_code)]

pub mod driver;
pub mod run;
pub mod sessions;
pub mod transfer;
