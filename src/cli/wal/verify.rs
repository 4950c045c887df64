//! `trilith wal verify`: what is wrong with a log, and what to do about it.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::reading::{Kind, Reading};
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::{self, Format};
use crate::superblock;
use crate::wal::{Finding, Severity};

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
    payload_bytes: u64,
    findings: Vec<Shown>,
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
    acknowledged: Option<&'static str>,
    next_step: String,
}

/// Entries that are concerned, half-open.
#[derive(Debug, Serialize)]
struct Entries {
    group: u32,
    first: u64,
    end: u64,
}

/// Prints the answer; it is a failure if something is torn, corrupt or unclear.
pub fn run(directory: &Path, format: Format) -> Result<(), Failure> {
    let reading = Reading::take(directory)?;
    output::print(&text(&reading, format))?;
    judge(&reading)
}

pub fn text(reading: &Reading, format: Format) -> String {
    let answer = Answer::of(reading);
    match format {
        Format::Table => answer.table(),
        Format::Json => serde_json::to_string_pretty(&answer).expect("numbers and strings are JSON"),
    }
}

pub fn judge(reading: &Reading) -> Result<(), Failure> {
    let Some(worst) = reading.findings.iter().max_by_key(|finding| finding.severity) else { return Ok(()) };
    let message = format!("{}: {worst}", reading.directory);
    match worst.severity {
        Severity::Note => Ok(()),
        Severity::Torn => Err(Failure::new(Exit::TornTail, message, next_step(reading, worst))),
        Severity::Unclear | Severity::Corrupt => Err(Failure::new(Exit::Corrupt, message, next_step(reading, worst))),
    }
}

fn next_step(reading: &Reading, finding: &Finding) -> String {
    let directory = &reading.directory;
    let is_node = matches!(reading.kind, Some(Kind::Node(_)));
    match finding.severity {
        Severity::Note => {
            format!("nothing: it is mended in passing or does no harm; `trilith wal repair {directory}` says what it can mend")
        }
        Severity::Torn => "nothing: these bytes were never acknowledged, and the next start cuts them off".to_owned(),
        Severity::Unclear | Severity::Corrupt if finding.file == superblock::FILE_NAME => match is_node {
            true => "keep the directory: the others serve while they are a majority. Do not make it anew under the same id: \
                     it would vote twice"
                .to_owned(),
            false => "delete nothing: the entries stand in the segments, and `trilith wal dump` shows them; keep a copy of \
                      the directory"
                .to_owned(),
        },
        Severity::Unclear | Severity::Corrupt => {
            let rest = match is_node {
                true => "the node does not start on it, and the others serve while they are a majority; they hold these \
                         entries if they were committed",
                false => "keep a copy of the directory; `trilith wal dump` shows what can still be read",
            };
            format!("delete nothing: {rest}. `trilith wal repair {directory}` says what a cut would lose, and changes nothing")
        }
    }
}

/// Whether somebody had been told that it is on the disk, as far as can be known.
fn acknowledged(severity: Severity) -> Option<&'static str> {
    match severity {
        Severity::Note => None,
        Severity::Torn => Some("no"),
        Severity::Unclear => Some("unknown"),
        Severity::Corrupt => Some("yes"),
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
            payload_bytes: chain.iter().map(|segment| segment.payload_bytes).sum(),
            findings: reading.findings.iter().map(|finding| Shown::of(reading, finding)).collect(),
        }
    }

    fn table(&self) -> String {
        let Answer { directory, kind, result, segments, frames, records, payload_bytes, .. } = self;
        let mut out = format!(
            "{directory}: {kind}\n{result}: {segments} segments, {frames} frames, {records} records, \
             {payload_bytes} payload bytes\n"
        );
        for finding in &self.findings {
            out.push_str(&format!("{finding}\n"));
        }
        out
    }
}

impl Shown {
    pub fn of(reading: &Reading, finding: &Finding) -> Shown {
        let entries = finding.entries.iter().map(|(group, range)| Entries {
            group: group.0,
            first: range.start.0,
            end: range.end.0,
        });
        Shown {
            severity: finding.severity.to_string(),
            file: finding.file.clone(),
            start: finding.bytes.start,
            end: finding.bytes.end,
            what: finding.what.clone(),
            entries: entries.collect(),
            acknowledged: acknowledged(finding.severity),
            next_step: next_step(reading, finding),
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shown { severity, file, start, end, what, entries, acknowledged, next_step } = self;
        write!(formatter, "{severity}: {file} bytes {start}..{end}: {what}")?;
        for Entries { group, first, end } in entries {
            write!(formatter, "; group {group} entries {first}..{end}")?;
        }
        if let Some(acknowledged) = acknowledged {
            write!(formatter, "\n  acknowledged: {acknowledged}")?;
        }
        write!(formatter, "\n  next: {next_step}")
    }
}
