//! Reads a directory without changing anything in it.

use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::cli::exit::{Exit, Failure};
use crate::disk::{self, Directory, Files, Operation};
use crate::superblock::{self, Inspection};
use crate::types::{NodeId, Place};
use crate::wal::handle::{LOG_DIRECTORY, NODE_ALONE, has_entries};
use crate::wal::{self, Acknowledged, Analysis, Finding, Identity, Severity, Source};

/// How often a directory is read that changes while it is read, and how long a write in flight is given.
pub const ATTEMPTS: usize = 3;
pub const PAUSE: Duration = Duration::from_millis(200);
/// How long the writes of a superblock are given.
const WRITING: Duration = Duration::from_millis(20);

/// Whose directory it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A log by itself.
    Alone,
    Node(NodeId),
}

/// What a directory holds.
#[derive(Debug)]
pub struct Reading {
    pub directory: String,
    pub kind: Option<Kind>,
    /// None if it is damaged, or gone: then a finding says how.
    pub superblock: Option<Inspection>,
    pub analysis: Analysis,
    /// Those of the log and of the superblock.
    pub findings: Vec<Finding>,
    /// Those of the log that are counted alone: none is worse than any that was told instead.
    pub findings_more: u64,
}

impl Reading {
    pub fn take(path: &Path) -> Result<Reading, Failure> {
        Reading::take_with_files(path).map(|(reading, _)| reading)
    }

    /// With the files that the analysis names.
    pub fn take_with_files(path: &Path) -> Result<(Reading, Directory), Failure> {
        let shown = path.display().to_string();
        let (mut reading, mut directory) = attempt(path, &shown)?;
        if !reading.findings.is_empty() {
            // A frame that is being written looks torn, and so does a block of the superblock; what is still there after
            // a while is.
            thread::sleep(PAUSE);
            let again = attempt(path, &shown)?;
            directory = again.1;
            let first = std::mem::replace(&mut reading, again.0);
            reading.leave_what_lasts(&first);
        }
        Ok((reading, directory))
    }

    /// Leaves of this look's findings those that an earlier one had, too.
    fn leave_what_lasts(&mut self, first: &Reading) {
        let own = self.findings.len() - self.analysis.findings.len();
        self.findings.truncate(own);
        self.findings.retain(|new| first.findings.iter().any(|old| old.is_where(new)));
        self.analysis.leave_what_lasts(&first.analysis);
        self.findings.extend(self.analysis.findings.iter().cloned());
        self.findings_more = self.analysis.findings_more();
    }

    /// A line that says how many findings are counted alone, if there are any.
    pub fn more(&self) -> Option<String> {
        wal::more_findings(self.findings_more)
    }

    /// That the whole log is gone.
    pub fn log_lost(&self) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.file == LOG_DIRECTORY)
    }

    /// The worst that was found.
    pub fn severity(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    pub fn kind(&self) -> &'static str {
        match self.kind {
            Some(Kind::Alone) => "a log by itself",
            Some(Kind::Node(_)) => "a node's directory",
            None => "a directory whose superblock is damaged",
        }
    }
}

/// Segments that are renamed between two calls are looked for again.
fn attempt(path: &Path, shown: &str) -> Result<(Reading, Directory), Failure> {
    let mut attempts = 1;
    loop {
        let directory = Directory::open(path).map_err(|error| no_directory(shown, &error))?;
        match read(&directory, shown) {
            Err(Stop::Disk(error)) if error.kind() == io::ErrorKind::NotFound && attempts < ATTEMPTS => attempts += 1,
            Err(Stop::Disk(error)) => return Err(cannot_read(&error)),
            Err(Stop::Failure(failure)) => return Err(failure),
            Ok(reading) => return Ok((reading, directory)),
        }
    }
}

enum Stop {
    Disk(disk::Error),
    Failure(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Failure(failure)
    }
}

/// One that is written while its blocks are read looks damaged.
pub fn inspect_superblock(directory: &Directory) -> Result<Inspection, superblock::Error> {
    for _ in 1..ATTEMPTS {
        match superblock::inspect(directory) {
            Err(superblock::Error::Damaged { .. }) => thread::sleep(WRITING),
            said => return said,
        }
    }
    superblock::inspect(directory)
}

fn read(directory: &Directory, shown: &str) -> Result<Reading, Stop> {
    let mut findings = Vec::new();
    let superblock = match inspect_superblock(directory) {
        Ok(inspection) => {
            if !inspection.found.are_intact() {
                let what = format!("blocks of the superblock are damaged ({})", inspection.found);
                findings.push(superblock_finding(Severity::Note, what));
            }
            Some(inspection)
        }
        Err(superblock::Error::NotFormatted) if has_entries(directory) => {
            let what = "the log has entries, and its superblock is gone".to_owned();
            findings.push(Finding { bytes: 0..0, ..superblock_finding(Severity::Corrupt, what) });
            None
        }
        Err(superblock::Error::NotFormatted) => return Err(not_formatted(directory, shown).into()),
        Err(error @ superblock::Error::NewerFormat { .. }) => return Err(newer(error.to_string()).into()),
        Err(superblock::Error::Disk(error)) => return Err(Stop::Disk(error)),
        Err(error) => {
            let what = match error {
                superblock::Error::Damaged { blocks, .. } => format!("the superblock is damaged ({blocks})"),
                other => other.to_string(),
            };
            findings.push(superblock_finding(Severity::Corrupt, what));
            None
        }
    };
    let state = superblock.as_ref().map(|inspection| &inspection.state);
    let source = source(superblock.as_ref(), false);
    let analysis = match Analysis::read(directory, &source) {
        Err(wal::Error::Disk(error))
            if error.operation == Operation::List && error.kind() == io::ErrorKind::NotFound =>
        {
            Analysis::empty(source.identity, source.evidence.segment.next())
        }
        said => said.map_err(|error| log_error(error, shown))?,
    };
    if analysis.chain.is_empty() && analysis.damage().is_none() {
        findings.push(segments_gone(source.evidence));
    }
    findings.extend(analysis.findings.iter().cloned());
    let node = state.map(|state| state.node).or(analysis.identity.map(|identity| identity.node));
    let kind = node.map(|node| if node == NODE_ALONE { Kind::Alone } else { Kind::Node(node) });
    let (directory, findings_more) = (shown.to_owned(), analysis.findings_more());
    Ok(Reading { directory, kind, superblock, analysis, findings, findings_more })
}

/// Where the log lies, and what the superblock says of it.
pub fn source(superblock: Option<&Inspection>, exclusive: bool) -> Source {
    let state = superblock.map(|inspection| &inspection.state);
    let identity = |state: &superblock::State| Identity {
        cluster: state.cluster,
        node: state.node,
        incarnation: state.incarnation,
    };
    Source {
        directory: LOG_DIRECTORY.to_owned(),
        identity: state.map(identity),
        evidence: state.map_or(Place::START, |state| state.durable_end),
        exclusive,
        reading: wal::Reading::Everything,
    }
}

fn superblock_finding(severity: Severity, what: String) -> Finding {
    Finding {
        severity,
        file: superblock::FILE_NAME.to_owned(),
        bytes: 0..4 * crate::limits::BLOCK_BYTES as u64,
        what,
        acknowledged: (severity > Severity::Note).then_some(Acknowledged::Yes),
        entries: Vec::new(),
    }
}

fn segments_gone(evidence: Place) -> Finding {
    Finding {
        severity: Severity::Corrupt,
        file: LOG_DIRECTORY.to_owned(),
        bytes: 0..0,
        what: match evidence == Place::START {
            true => "its segments are gone".to_owned(),
            false => format!("the log had reached {evidence}, and its segments are gone"),
        },
        acknowledged: Some(Acknowledged::Yes),
        entries: Vec::new(),
    }
}

fn log_error(error: wal::Error, shown: &str) -> Stop {
    match error {
        wal::Error::Disk(error) => Stop::Disk(error),
        wal::Error::NewerFormat { .. } => newer(error.to_string()).into(),
        wal::Error::WrongIdentity { .. } => Failure::new(
            Exit::WrongIdentity,
            format!("{shown}: {error}"),
            "take the files of the other log out of the directory; each has a number that its own log misses",
        )
        .into(),
        other => Failure::new(Exit::Corrupt, format!("{shown}: {other}"), "keep a copy of the directory").into(),
    }
}

fn newer(message: String) -> Failure {
    Failure::new(Exit::NewerFormat, message, "use the version that wrote the directory, or a later one")
}

fn no_directory(shown: &str, error: &disk::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Failure::new(
            Exit::WrongIdentity,
            format!("{shown} is no directory"),
            "name the directory of a node or of a log: the one that holds `superblock`",
        ),
        _ => cannot_read(error),
    }
}

fn not_formatted(directory: &Directory, shown: &str) -> Failure {
    let names = directory.list("").unwrap_or_default();
    let next = match names.iter().any(|name| name.ends_with(".segment")) {
        true => "name the directory above: the one that holds `superblock`",
        false => "name the directory of a node or of a log; a node's is made with `trilith init`",
    };
    Failure::new(Exit::WrongIdentity, format!("{shown} holds no superblock: it is not formatted"), next)
}

fn cannot_read(error: &disk::Error) -> Failure {
    Failure::new(Exit::Other, error.to_string(), "see that this user may read the directory, and the kernel's log")
}
