//! What can go wrong with a log: our caller, the world, the data.

use std::fmt;

use super::segment::{HeaderFault, Identity};
use crate::disk;
use crate::types::{GroupId, Index, SegmentNumber};

/// Why a log cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The world.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// The data: what had been acknowledged is damaged, or cannot be shown not to be.
    #[error("the log is damaged: {0}")]
    Damaged(Finding),
    #[error("segment {segment} belongs to {found}, expected {expected}")]
    WrongIdentity { segment: SegmentNumber, expected: Identity, found: Identity },
    #[error("segment {segment} has format version {found}; this program knows {known}")]
    NewerFormat { segment: SegmentNumber, found: u32, known: u32 },
    #[error("the directory {directory} holds no log")]
    Missing { directory: String },
    #[error("the directory {directory} holds a log already")]
    Exists { directory: String },
    #[error("the log has moved on since the read of group {group} from {wanted} was planned")]
    Stale { group: GroupId, wanted: Index },
    #[error("group {group} has entries from {first} on; {wanted} is trimmed")]
    Trimmed { group: GroupId, first: Index, wanted: Index },
}

/// Why an append is not taken. Nothing has happened then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    #[error("the batch takes {bytes} bytes in one frame, at most {max} fit")]
    TooLarge { bytes: usize, max: usize },
    #[error("the first index of the batch is {found}, expected at most {expected} and more than {before_first}")]
    Gap { found: Index, expected: Index, before_first: Index },
    #[error("index {found} is over the limit of {max}")]
    IndexTooLarge { found: Index, max: u64 },
    #[error("there are {max} groups already")]
    TooManyGroups { max: usize },
    #[error("the disk is full")]
    NoSpace,
    #[error("a write or a flush has failed; nothing more is written")]
    Poisoned,
}

/// How bad a finding is, and so what follows from it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// Repairable from what is there: one of two copies, a file that does not belong.
    Note,
    /// The end of the log was being written when the power went: by the fault model it had not been acknowledged.
    Torn,
    /// Not proven to have been acknowledged, not proven to have been torn. Treated as corrupt.
    Unclear,
    /// Had been acknowledged and is damaged.
    Corrupt,
}

/// Something that a reader of the log found, with its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    pub severity: Severity,
    /// The file, as [`disk::Files`] knows it.
    pub file: String,
    /// The first byte concerned, and the one behind the last.
    pub bytes: std::ops::Range<u64>,
    /// What is wrong.
    pub what: String,
    /// The entries concerned, as far as they are known: group and half-open range of indexes.
    pub entries: Vec<(GroupId, std::ops::Range<Index>)>,
}

impl fmt::Display for Severity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Severity::Note => "note",
            Severity::Torn => "torn",
            Severity::Unclear => "unclear",
            Severity::Corrupt => "corrupt",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { severity, file, bytes, what, entries } = self;
        write!(formatter, "{severity}: {file} bytes {}..{}: {what}", bytes.start, bytes.end)?;
        for (group, range) in entries {
            write!(formatter, "; group {group} entries {}..{}", range.start, range.end)?;
        }
        Ok(())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "cluster {} node {} incarnation {}", self.cluster, self.node, self.incarnation)
    }
}

impl Finding {
    pub(super) fn header(file: &str, bytes: u64, severity: Severity, fault: &HeaderFault) -> Finding {
        Finding {
            severity,
            file: file.to_owned(),
            bytes: 0..bytes,
            what: format!("segment header: {fault}"),
            entries: Vec::new(),
        }
    }
}
