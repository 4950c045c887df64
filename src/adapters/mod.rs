//! What lets other ecosystems stand on the log: each adapter behind a feature of its own, none on by default.
//!
//! ```text
//!   openraft ──▶ openraft::LogStorage ──▶ wal::Wal        feature `openraft`
//! ```
//!
//! # The contract
//!
//! - An adapter says "flushed" when the log says durable, and never before.
//! - It adds no file: all that it keeps is records in groups of the log, so that there is one order of what is durable,
//!   one flush for all, and one recovery.
//! - Its translation is a pure part, used by the threads and by the tests that cut the power under the bare core.

#[cfg(feature = "openraft")]
pub mod openraft;
