//! `trilith wal verify`: what is wrong with a log, and what to do about it.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::reading::{Kind, Reading};
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::{self, Format};
use crate::superblock;
use crate::types::LogId;
use crate::wal::handle::{self, LOG_DIRECTORY};
use crate::wal::{Acknowledged, Finding, LogIds, RecordKind, Severity};

/// The answer, as it goes into the JSON document.
#[derive(Debug, Serialize)]
struct Answer {
    directory: String,
    kind: &'static str,
    /// `ok`, `torn` or `corrupt`.
    result: &'static str,
    segments: usize,
    frames: u64,
    records: u64,
    record_bytes: u64,
    findings: Vec<Shown>,
    /// So many more were counted alone.
    findings_more: u64,
    /// The same for people.
    #[serde(skip)]
    more: Option<String>,
}

/// A finding with what to do about it.
#[derive(Debug, Serialize)]
pub struct Shown {
    severity: String,
    /// Within the directory.
    file: String,
    /// The bytes concerned, half-open.
    start: u64,
    end: u64,
    what: String,
    entries: Vec<Entries>,
    /// `yes`, `no` or `unknown`; none where nothing is missing.
    acknowledged: Option<String>,
    /// How that is known, for people.
    #[serde(skip)]
    why: Option<&'static str>,
    next_step: String,
    /// The entries for people.
    #[serde(skip)]
    ids: String,
}

/// Records that are concerned, half-open.
#[derive(Debug, Serialize)]
struct Entries {
    group: u32,
    /// `entry`, `truncate` or `purge`.
    kind: &'static str,
    first: u64,
    end: u64,
    /// None if nothing readable tells it; then there are no ids either.
    term: Option<u64>,
    first_id: Option<String>,
    last_id: Option<String>,
}

/// Prints the answer; it is a failure if something is torn, corrupt or unclear.
pub fn run(directory: &Path, format: Format) -> Result<(), Failure> {
    let reading = Reading::take(directory)?;
    output::print(&text(&reading, format))?;
    judge(&reading)
}

pub fn text(reading: &Reading, format: Format) -> String {
    let answer = Answer::of(reading);
    output::shown(&answer, Answer::table, format)
}

pub fn judge(reading: &Reading) -> Result<(), Failure> {
    let Some(worst) = reading.findings.iter().max_by_key(|finding| finding.severity) else { return Ok(()) };
    let findings = output::counted(reading.findings.len() as u64 + reading.findings_more, "finding");
    let worst_is = Shown::of(reading, worst).place();
    let message = format!("{}: {findings}, the worst: {worst_is}", reading.directory);
    match worst.severity {
        Severity::Note => Ok(()),
        Severity::Torn => Err(Failure::new(Exit::TornTail, message, next_step(reading, worst))),
        Severity::Unclear | Severity::Corrupt => Err(Failure::new(Exit::Corrupt, message, next_step(reading, worst))),
    }
}

/// What to do about a finding of this directory.
pub fn next_step(reading: &Reading, finding: &Finding) -> String {
    let directory = &reading.directory;
    let is_node = matches!(reading.kind, Some(Kind::Node(_)));
    match finding.severity {
        Severity::Corrupt if finding.file == LOG_DIRECTORY => match is_node {
            true => "delete nothing: put the directory `log` back, or mount it; the others serve while they are a majority. \
                     Do not make it anew under the same id: it would vote twice"
                .to_owned(),
            false => "delete nothing: put the directory `log` back, or mount it".to_owned(),
        },
        Severity::Corrupt if finding.file == superblock::FILE_NAME && finding.bytes.is_empty() => {
            handle::Error::SuperblockLost { directory: directory.clone() }.next_step()
        }
        Severity::Unclear | Severity::Corrupt if finding.file == superblock::FILE_NAME => match is_node {
            true => "keep the directory: the others serve while they are a majority. Do not make it anew under the same id: \
                     it would vote twice"
                .to_owned(),
            false => "delete nothing: the entries stand in the segments, and `trilith wal dump` shows them; keep a copy of \
                      the directory"
                .to_owned(),
        },
        _ => finding.next_step(directory, is_node),
    }
}

impl Answer {
    fn of(reading: &Reading) -> Answer {
        let chain = &reading.analysis.chain;
        Answer {
            directory: reading.directory.clone(),
            kind: reading.kind(),
            result: match reading.severity() {
                None | Some(Severity::Note) => "ok",
                Some(Severity::Torn) => "torn",
                Some(Severity::Unclear | Severity::Corrupt) => "corrupt",
            },
            segments: chain.len(),
            frames: chain.iter().map(|segment| segment.frames).sum(),
            records: chain.iter().map(|segment| segment.records).sum(),
            record_bytes: chain.iter().map(|segment| segment.record_bytes).sum(),
            findings: reading.findings.iter().map(|finding| Shown::of(reading, finding)).collect(),
            findings_more: reading.findings_more,
            more: reading.more(),
        }
    }

    fn table(&self) -> String {
        let Answer { directory, kind, result, record_bytes, .. } = self;
        let counts = [(self.segments as u64, "segment"), (self.frames, "frame"), (self.records, "record")];
        let [segments, frames, records] = counts.map(|(count, what)| output::counted(count, what));
        let mut out =
            format!("{directory}: {kind}\n{result}: {segments}, {frames}, {records}, {record_bytes} record bytes\n");
        for finding in &self.findings {
            out.push_str(&format!("{finding}\n"));
        }
        out.extend(self.more.iter().map(|more| format!("{more}\n")));
        out
    }
}

impl Shown {
    pub fn of(reading: &Reading, finding: &Finding) -> Shown {
        Shown {
            severity: finding.severity.to_string(),
            file: finding.file.clone(),
            start: finding.bytes.start,
            end: finding.bytes.end,
            what: finding.what.clone(),
            entries: finding.entries.iter().map(Entries::of).collect(),
            acknowledged: finding.acknowledged.map(|acknowledged| acknowledged.to_string()),
            why: finding.acknowledged.filter(|_| finding.file != superblock::FILE_NAME).map(Acknowledged::why),
            next_step: next_step(reading, finding),
            ids: finding.entries.iter().map(|ids| format!("; {ids}")).collect(),
        }
    }
}

impl Shown {
    /// In short: how bad it is, and where.
    pub fn place(&self) -> String {
        let Shown { severity, file, start, .. } = self;
        format!("{severity} in {file} at {start}")
    }

    pub fn with_next_step(self, next_step: &str) -> Shown {
        Shown { next_step: next_step.to_owned(), ..self }
    }
}

impl Entries {
    fn of(ids: &LogIds) -> Entries {
        Entries {
            group: ids.group.0,
            kind: match ids.kind {
                RecordKind::Entry => "entry",
                RecordKind::Truncate => "truncate",
                RecordKind::Purge => "purge",
            },
            first: ids.first.0,
            end: ids.end.0,
            term: ids.term.map(|term| term.0),
            first_id: ids.term.map(|term| LogId::new(term, ids.first).to_string()),
            last_id: ids.last().map(|last| last.to_string()),
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shown { severity, file, start, end, what, ids, acknowledged, why, next_step, .. } = self;
        write!(formatter, "{severity}: {file} bytes {start}..{end}: {what}{ids}")?;
        match (acknowledged, why) {
            (Some(acknowledged), Some(why)) => write!(formatter, "\n  acknowledged: {acknowledged} ({why})")?,
            (Some(acknowledged), None) => write!(formatter, "\n  acknowledged: {acknowledged}")?,
            (None, _) => {}
        }
        write!(formatter, "\n  next: {next_step}")
    }
}
