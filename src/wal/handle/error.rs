//! What can go wrong around the log: opening it, appending to it, waiting for it.

use std::sync::Arc;

use crate::disk::{self, ProbeError};
use crate::superblock;
use crate::types::{GroupId, Index, LogId, NodeId, Place};
use crate::wal;

/// Why a log cannot be opened, read or closed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what}")]
    Options { what: String },
    #[error("{directory} holds no log")]
    Missing { directory: String },
    #[error("{directory} holds {name:?}, and no log: a log is made in a directory of its own")]
    NotEmpty { directory: String, name: String },
    #[error("{directory} is in use by another process or another handle")]
    InUse { directory: String },
    #[error("{directory} belongs to node {node} of a cluster, and is no log by itself")]
    OfNode { directory: String, node: NodeId },
    /// What had been acknowledged is damaged, or might be: nothing was cut and nothing was changed.
    #[error("the log in {directory} is damaged: {finding}; next: {}", finding.next_step(directory, false))]
    Damaged { directory: String, finding: Box<wal::Finding> },
    /// The superblock is there and what it speaks of is not.
    #[error("the log in {directory} is damaged: it had reached {evidence}, and its segments are gone")]
    LogLost { directory: String, evidence: Place },
    #[error("the log in {directory} is damaged: it has entries, and its superblock is gone")]
    SuperblockLost { directory: String },
    #[error(transparent)]
    Superblock(Box<superblock::Error>),
    #[error(transparent)]
    Io(ProbeError),
    #[error(transparent)]
    Log(wal::Error),
    #[error(transparent)]
    Disk(disk::Error),
    /// Entries that an iterator had given have ended: it would go on with those of another history.
    #[error("group {group} was truncated at {from} behind its reader")]
    Truncated { group: GroupId, from: Index },
    /// The log failed while it was open.
    #[error(transparent)]
    Failed(#[from] OutcomeUnknown),
}

/// Why an append is not taken. Nothing has happened then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Log(wal::Refused),
    #[error("entry {next} cannot come after {before}: indexes rise one by one, terms never fall")]
    Order { before: LogId, next: LogId },
    #[error("the batch changes its term more than {max} times")]
    TooManyTerms { max: usize },
    #[error("{bytes} bytes wait for the disk, at most {max} may")]
    Busy { bytes: usize, max: usize },
    #[error("the log is being closed")]
    Closed,
}

/// The disk failed before this was known to be durable: after the next start it is there, or it is not.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the outcome is unknown, the log is poisoned: {0}")]
pub struct OutcomeUnknown(pub Arc<disk::Error>);

/// Why an append that was to be durable is not known to be.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Unsaved {
    /// It has not happened.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It may have happened.
    #[error(transparent)]
    OutcomeUnknown(#[from] OutcomeUnknown),
}

/// Why nothing becomes durable any more.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Ended {
    #[error("the log is closed")]
    Closed,
    #[error(transparent)]
    Failed(#[from] OutcomeUnknown),
}

impl From<wal::Refused> for Refused {
    fn from(refused: wal::Refused) -> Refused {
        Refused::Log(refused)
    }
}

impl Error {
    /// Another process has a file: that is a state of affairs, and no fault of the disk.
    pub(super) fn disk(error: disk::Error, directory: &str) -> Error {
        if error.is_locked() { Error::InUse { directory: directory.to_owned() } } else { Error::Disk(error) }
    }

    pub(super) fn superblock(error: superblock::Error, directory: &str) -> Error {
        match error {
            superblock::Error::Disk(error) => Error::disk(error, directory),
            other => Error::Superblock(Box::new(other)),
        }
    }

    pub(super) fn log(error: wal::Error, directory: &str) -> Error {
        match error {
            wal::Error::Disk(error) => Error::disk(error, directory),
            wal::Error::Damaged(finding) => {
                Error::Damaged { directory: directory.to_owned(), finding: Box::new(finding) }
            }
            other => Error::Log(other),
        }
    }
}
