//! What can go wrong between openraft and the log.

use crate::types::{GroupId, LogId};
use crate::wal::handle::{self, OutcomeUnknown};

/// Why a call of openraft was not carried out. openraft stops its node at any of them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("Raft log {found} is over the limit: a log on disk holds the Raft logs 0 to {max}")]
    TooManyLogs { found: u32, max: u32 },
    #[error("{what} {found} is over the limit of {max}")]
    OverLimit { what: &'static str, found: u64, max: u64 },
    #[error("entry {found} leaves a hole: the next one has index {expected}")]
    Hole { found: u64, expected: u64 },
    #[error("entry {index} takes {bytes} bytes in one frame, at most {max} fit")]
    TooLarge { index: u64, bytes: usize, max: usize },
    #[error("entries from {from} on cannot be truncated: those up to {purged} are purged, and so committed")]
    Purged { from: u64, purged: u64 },
    #[error("{what} cannot be serialised: {reason}")]
    Encode { what: &'static str, reason: String },
    /// The record is intact, and none that this adapter wrote, or its types have changed since.
    #[error("record {id} of group {group} is no {what}: {reason}")]
    Record { group: GroupId, id: LogId, what: &'static str, reason: String },
    #[error("record {id} of group {group} has format version {found}; this program knows {known}")]
    NewerFormat { group: GroupId, id: LogId, found: u8, known: u8 },
    /// The log was changed past the adapter.
    #[error("group {group} begins behind {before_first}, and no purge of openraft's says so")]
    Lost { group: GroupId, before_first: LogId },
    #[error(transparent)]
    Refused(#[from] handle::Refused),
    #[error(transparent)]
    Log(Box<handle::Error>),
    #[error(transparent)]
    OutcomeUnknown(#[from] OutcomeUnknown),
}

impl From<handle::Error> for Error {
    fn from(error: handle::Error) -> Error {
        Error::Log(Box::new(error))
    }
}
