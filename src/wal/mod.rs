//! The segmented log: what is acknowledged is here, and stays here.
//!
//! A core without I/O of its own. Appends go in and get a ticket; writes come out as effects; completions go in and
//! move the durable end:
//!
//! ```text
//!  append ─▶ queue ─▶ frame ─▶ Effect::Write ──▶ disk::Queue
//!                       │ (everything that waited           │
//!                       │  is the next frame)               ▼
//!  durable_ticket ◀── contiguous completed prefix ◀── completed
//!
//!  Effect::Prepare ──▶ prepare(), anywhere ──▶ prepared     (segments zero-filled ahead of use)
//!  Effect::Remove ──▶ remove(), anywhere ──▶ removed     (segments that nobody needs)
//!  plan_read ──▶ ReadPlan::run(), anywhere
//!  take_copy ──▶ ReadPlan::run(), anywhere ──▶ copy_read  (what alone keeps old segments in use)
//! ```
//!
//! # The contract
//!
//! - A ticket at or below [`Log::durable_ticket`] is on disk, and so is everything before it. Nothing is said of any
//!   other.
//! - An append is one frame or part of one: it is there whole after a crash, or not at all.
//! - After an error of a write or a flush the log is poisoned: nothing more is written.
//! - Effects are carried out in any order and at any speed; the log hands out no write that must wait for another.
//!
//! # Where to read what
//!
//! Bytes, from small to large: `record`, `frame`, `sections` with the `outline`, `body` (building and verifying),
//! `salvage`, `encoded`, `segment`. Writing: `log`, `naming`, `flight`, `cover`, `rotation`, `given_up`, `copying`. Reading:
//! `locator`, `plan`, `tail_cache`, `reader` with `ahead`, `stretch` and `taken`, `scan` with its `window`; `followed`
//! is told to those who follow. Recovery: `recovery` is the table by which faults are judged, `chain` and `walk` gather
//! the facts, `sealed` those that a seal tells, `dead` says which of them do not matter, `analysis` is their sum,
//! within the bound of `surplus`, `resume` acts on it, `rewrite` where reads may tell what is in memory alone; `audit`
//! is the same walk over an open log. For tools: `contents` gives every record in order, `repair` mends what recovery
//! refuses, `loss` says what that costs. Around the core: `handle`, the threads that make it the public [`Wal`].

mod ahead;
mod analysis;
mod audit;
mod body;
mod chain;
mod contents;
mod copying;
mod cover;
mod dead;
mod encoded;
mod error;
mod flight;
mod followed;
mod frame;
mod given_up;
mod group;
pub mod handle;
mod locator;
mod log;
mod loss;
mod mutants;
mod naming;
mod outline;
mod plan;
mod reader;
mod record;
mod recovery;
pub mod repair;
mod resume;
mod retention;
mod rewrite;
mod rotation;
mod salvage;
mod scan;
mod sealed;
mod sections;
mod segment;
mod stretch;
mod surplus;
mod tail_cache;
mod taken;
#[cfg(test)]
mod tests;
mod walk;
mod window;

pub use analysis::{Analysis, ChainSegment, Reading, Source, SpareSegment};
pub use audit::{Checked, Extent};
pub use contents::{Piece, contents};
pub use error::{Error, Finding, LogIds, Refused, Severity, shell_quoted};
pub use flight::LARGE_IN_FLIGHT_MAX;
pub use frame::batch_bytes_max;
pub use given_up::{Remove, remove};
pub use group::GroupLog;
pub use handle::Wal;
pub use log::{Counters, Effect, Log, Options, Poisoned, Ticket};
pub use loss::{Loss, Lost};
pub use plan::ReadPlan;
pub use reader::ReadBuffer;
pub use record::{RecordHead, RecordKind, entry_record_bytes, record_bytes};
pub use recovery::{Acknowledged, Evidence, Fault, Judgement, Site, Verdict, judge};
pub use resume::{Recovery, more_findings};
pub use retention::Kept;
pub use rotation::{Room, Supply};
pub use segment::{FORMAT_VERSION, FRAMES_START, Fill, Identity, Prepare, SegmentHeader, prepare, segment_name};
