//! What can go wrong with a log: our caller, the world, the data.

use std::fmt;

use super::frame::Run;
use super::group::GroupLog;
use super::handle::NODE_ALONE;
use super::record::RecordKind;
use super::recovery::Acknowledged;
use super::segment::{Identity, segment_number};
use crate::disk;
use crate::types::{GroupId, Index, LogId, SegmentNumber, Term};

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
    /// The segment's file is closed or holds something else. Whether the log gave it up, or somebody took it away, is for
    /// [`super::Log::judged`] to say; the cause is what it is in the second case.
    #[error("segment {segment} is gone since the read of group {group} from {wanted} was planned: {cause}")]
    Stale { group: GroupId, wanted: Index, segment: SegmentNumber, cause: Box<Error> },
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
    #[error("no segment can be made, mostly for want of space")]
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
    /// Whether somebody may have been told that what stood there is on disk; `None` where nothing is missing.
    pub acknowledged: Option<Acknowledged>,
    /// The records concerned, as far as their names are known.
    pub entries: Vec<LogIds>,
}

/// Consecutive records of one group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogIds {
    pub group: GroupId,
    /// Entries; or a cut, of which there is one.
    pub kind: RecordKind,
    pub first: Index,
    /// The index behind the last.
    pub end: Index,
    /// `None` if nothing that can be read tells it, and in a cut of an end, which has none.
    pub term: Option<Term>,
}

/// A word of a command line as a shell takes it, for commands that a person is told.
pub fn shell_quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+=:,@%".contains(&byte);
    match !word.is_empty() && word.bytes().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

impl Error {
    /// What to do about it.
    pub fn next_step(&self) -> String {
        match self {
            Error::Disk(error) => error.next_step().to_owned(),
            Error::Damaged(finding) => finding.next_step("DIR", false),
            Error::WrongIdentity { .. } => {
                "these files belong to another log, or to another life of it: put back what belongs here".to_owned()
            }
            Error::NewerFormat { .. } => "use the version that wrote it, or a newer one".to_owned(),
            Error::Missing { .. } => "check the path and the mount, and delete nothing".to_owned(),
            Error::Exists { .. } => "open it, or make the new one in another directory".to_owned(),
            Error::Stale { .. } => "read again".to_owned(),
            Error::Trimmed { first, .. } => format!("read from {first} on"),
        }
    }
}

impl Refused {
    /// What to do about it.
    pub fn next_step(&self) -> &'static str {
        match self {
            Refused::TooLarge { .. } => {
                "append fewer records at once or smaller ones, or make the log with larger segments"
            }
            Refused::Gap { .. } => {
                "ask the log where the group begins and ends (`Wal::group`), and go on from an index in between"
            }
            Refused::IndexTooLarge { .. } => "name the entries from a lower index on",
            Refused::TooManyGroups { .. } => "use a group that is there, or another log",
            Refused::NoSpace => {
                "free space on this file system, or purge; appends are then taken again by themselves. \
                 `Wal::preparation_error` says what stands in the way"
            }
            Refused::Poisoned => {
                "ask for the cause (`Wal::failure`), mend it, and open the log again: it shows what is there"
            }
        }
    }
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
        let Finding { severity, file, bytes, what, acknowledged, entries } = self;
        write!(formatter, "{severity}: {file} bytes {}..{}: {what}", bytes.start, bytes.end)?;
        for ids in entries {
            write!(formatter, "; {ids}")?;
        }
        match acknowledged {
            Some(acknowledged) => write!(formatter, "; acknowledged: {acknowledged}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for LogIds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LogIds { group, kind, first, term, .. } = self;
        write!(formatter, "group {group} ")?;
        match (kind, term.zip(self.last())) {
            (RecordKind::Truncate, _) => write!(formatter, "cut from {first} on"),
            (RecordKind::Purge, Some((_, last))) => write!(formatter, "purge up to {last}"),
            (RecordKind::Purge, None) => write!(formatter, "purge up to {first}"),
            (RecordKind::Entry, Some((term, last))) if last.index > *first => {
                write!(formatter, "entries {} to {last}", LogId::new(term, *first))
            }
            (RecordKind::Entry, Some((_, last))) => write!(formatter, "entry {last}"),
            (RecordKind::Entry, None) if self.end == first.next() => write!(formatter, "entry {first}, term not known"),
            (RecordKind::Entry, None) => {
                write!(formatter, "entries {first} to {}, terms not known", self.end.previous())
            }
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity { cluster, node, incarnation } = self;
        match *node == NODE_ALONE {
            true => write!(formatter, "cluster {cluster}, no node, incarnation {incarnation}"),
            false => write!(formatter, "cluster {cluster} node {node} incarnation {incarnation}"),
        }
    }
}

impl LogIds {
    /// What a run of a frame's directory names.
    pub(super) fn of(run: &Run) -> LogIds {
        let term = (run.kind != RecordKind::Truncate).then_some(run.term);
        LogIds { group: run.group, kind: run.kind, first: run.first, end: run.end(), term }
    }

    /// Entries of which the terms are not known.
    pub(super) fn unnamed(group: GroupId, range: std::ops::Range<Index>) -> LogIds {
        LogIds { group, kind: RecordKind::Entry, first: range.start, end: range.end, term: None }
    }

    /// The name of the last, if its term is known.
    pub fn last(&self) -> Option<LogId> {
        Some(LogId::new(self.term?, self.end.previous()))
    }

    /// The same under their terms, as far as `log` knows them.
    fn named(self, log: &GroupLog) -> Vec<LogIds> {
        if self.term.is_some() || (self.group, self.kind) != (log.group, RecordKind::Entry) {
            return vec![self];
        }
        let mut named: Vec<LogIds> = Vec::new();
        let mut at = self.first;
        while at < self.end {
            let run = log.terms.partition_point(|&(first, _)| first <= at);
            let behind = log.terms.get(run).map_or(self.end, |&(first, _)| first.min(self.end));
            let term = log.id_at(at).filter(|id| id.index > log.before_first.index).map(|id| id.term);
            named.push(LogIds { first: at, end: behind, term, ..self });
            at = behind;
        }
        named
    }
}

impl Finding {
    /// What to do about it. `directory` is the one that holds the log's directory, as the person knows it; `is_member`:
    /// others hold what was committed.
    pub fn next_step(&self, directory: &str, is_member: bool) -> String {
        let directory = shell_quoted(directory);
        match self.severity {
            Severity::Note => format!(
                "nothing: it is mended in passing or does no harm; `trilith wal repair {directory}` says what it can mend"
            ),
            Severity::Torn => {
                "nothing: these bytes were never acknowledged, and the next start cuts them off".to_owned()
            }
            Severity::Unclear | Severity::Corrupt => {
                let rest = match is_member {
                    true => {
                        "the node does not start on it, and the others serve while they are a majority; they hold \
                             these entries if they were committed"
                    }
                    false => "keep a copy of the directory; `trilith wal dump` shows what can still be read",
                };
                format!(
                    "delete nothing: {rest}. `trilith wal repair {directory}` says what a cut would lose, and changes \
                     nothing"
                )
            }
        }
    }

    /// The segment that it is about.
    pub fn segment(&self) -> Option<SegmentNumber> {
        self.file.rsplit('/').next().and_then(segment_number)
    }

    /// Whether it is about the place of another.
    pub fn is_where(&self, other: &Finding) -> bool {
        self.bytes.start == other.bytes.start && self.file == other.file
    }

    /// Gives the entries their terms, as far as `log` knows them.
    pub(super) fn name_by(&mut self, log: &GroupLog) {
        self.entries = std::mem::take(&mut self.entries).into_iter().flat_map(|ids| ids.named(log)).collect();
    }

    /// A segment whose header cannot be trusted: what it held is not known, unless its twin tells.
    pub(super) fn header(file: &str, bytes: u64, severity: Severity, what: String) -> Finding {
        Finding {
            severity,
            file: file.to_owned(),
            bytes: 0..bytes,
            what,
            acknowledged: (severity > Severity::Note).then_some(Acknowledged::Unknown),
            entries: Vec::new(),
        }
    }
}
