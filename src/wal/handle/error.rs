//! What can go wrong around the log: opening it, appending to it, waiting for it.
//!
//! A message says what is wrong and where; `next_step` what to do about it. docs/operations.md lists them all.

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
    #[error("the log in {directory} is damaged: {finding}")]
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
    /// Written as it is, it would be damage to whoever reads it.
    #[error("entry {entry} could not be read back: {fault}")]
    Payload { entry: LogId, fault: &'static str },
    #[error("the log takes no more at the moment: {bytes} bytes wait for the disk, there is room for {max}")]
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

impl Error {
    /// What to do about it.
    pub fn next_step(&self) -> String {
        let step = match self {
            Error::Options { .. } => "correct the option that the message names",
            Error::Missing { .. } => "check the path and the mount; with `create` a log is made there",
            Error::NotEmpty { .. } => "name a directory that is empty, or that is not there yet",
            Error::InUse { .. } => {
                "stop the other process, or close the other handle and drop its tails; the end of a process may take as \
                 long as its last write"
            }
            Error::OfNode { .. } => "start that node with `trilith node`, or give the log a directory of its own",
            Error::Damaged { directory, finding } => return finding.next_step(directory, false),
            Error::LogLost { directory, .. } => {
                return format!(
                    "delete nothing: put the directory `log` back, or mount it; `trilith wal verify {}` says what is \
                     missing",
                    wal::shell_quoted(directory)
                );
            }
            Error::SuperblockLost { .. } => {
                "delete nothing: put the file `superblock` back; a log with entries is never made anew"
            }
            Error::Superblock(error) => return superblock_step(error),
            Error::Io(ProbeError::Refused { remedy, .. }) => {
                return format!("{remedy}; or open it with `IoChoice::Auto`");
            }
            Error::Io(ProbeError::Disk(error)) | Error::Disk(error) => error.next_step(),
            Error::Log(error) => return error.next_step(),
            Error::Truncated { from, .. } => return format!("read anew from {from} on: what stood there has ended"),
            Error::Failed(unknown) => unknown.next_step(),
        };
        step.to_owned()
    }
}

fn superblock_step(error: &superblock::Error) -> String {
    let step = match error {
        superblock::Error::NotFormatted => "check the path and the mount",
        superblock::Error::AlreadyFormatted => "open what is there",
        superblock::Error::Damaged { .. } => {
            "delete nothing: `trilith wal verify` says what is damaged, and `trilith wal repair` what can be mended"
        }
        superblock::Error::NewerFormat { .. } => "use the version that wrote it, or a newer one",
        superblock::Error::WrongCluster { .. } | superblock::Error::WrongNode { .. } => {
            "check that this is the directory that was meant"
        }
        superblock::Error::Disk(error) => error.next_step(),
    };
    step.to_owned()
}

impl Refused {
    /// What to do about it.
    pub fn next_step(&self) -> &'static str {
        match self {
            Refused::Log(refused) => refused.next_step(),
            Refused::Order { .. } => "name the entries of an append one after the other, in terms that do not fall",
            Refused::TooManyTerms { .. } => "append in several batches",
            Refused::Payload { .. } => {
                "make data with `Data::new`; list a configuration's members by rising id, its voters among them"
            }
            Refused::Busy { .. } => {
                "append again a little later (`Wal::with_room` waits for that), or let appends wait (`WhenFull::Block`)"
            }
            Refused::Closed => "open the log again",
        }
    }
}

impl OutcomeUnknown {
    /// What to do about it.
    pub fn next_step(&self) -> &'static str {
        if self.0.is_no_space() {
            return "free space on this file system, then open the log again: it shows what is there";
        }
        "find the cause (kernel log, SMART), then open the log again: it shows what is there"
    }
}

impl Unsaved {
    /// What to do about it.
    pub fn next_step(&self) -> &'static str {
        match self {
            Unsaved::Refused(refused) => refused.next_step(),
            Unsaved::OutcomeUnknown(unknown) => unknown.next_step(),
        }
    }
}

impl Ended {
    /// What to do about it.
    pub fn next_step(&self) -> &'static str {
        match self {
            Ended::Closed => Refused::Closed.next_step(),
            Ended::Failed(unknown) => unknown.next_step(),
        }
    }
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
