//! `trilith wal inspect`: what a log holds.

use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use super::reading::{Kind, Reading};
use super::verify::Shown;
use crate::cli::exit::Failure;
use crate::cli::output::{self, Format};
use crate::superblock::{Condition, Conditions, Inspection};
use crate::types::{GroupId, Index};
use crate::wal::{Analysis, ChainSegment, GroupLog};

/// The answer, as it goes into the JSON document.
#[derive(Debug, Serialize)]
pub struct Answer {
    directory: String,
    kind: &'static str,
    cluster: Option<String>,
    /// None for a log by itself.
    node: Option<u64>,
    incarnation: Option<String>,
    superblock: Option<Superblock>,
    segments: Vec<Segment>,
    groups: Vec<Group>,
    /// Groups that have live entries in the oldest segment, and so keep it and all behind it from being used again; none
    /// of the one in use.
    pinned_by: Vec<u32>,
    /// Segments that stand ready or wait to be used again.
    spare_segments: Vec<u64>,
    /// Segments that damage keeps from joining the log; `wal dump` shows what stands in them.
    unreachable_segments: Vec<u64>,
    findings: Vec<Shown>,
    /// So many more were counted alone.
    findings_more: u64,
    /// The same for people.
    #[serde(skip)]
    more: Option<String>,
}

#[derive(Debug, Serialize)]
struct Superblock {
    boot: u64,
    durable_end: End,
    blocks: Vec<Block>,
    /// The blocks for people.
    #[serde(skip)]
    found: String,
}

#[derive(Debug, Serialize)]
struct End {
    segment: u64,
    offset: u64,
    frame: u64,
}

#[derive(Debug, Serialize)]
struct Block {
    intact: bool,
    /// The highest is the newest; none of a block that is not intact.
    copy: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Segment {
    number: u64,
    state: &'static str,
    frames: u64,
    records: u64,
    record_bytes: u64,
    used_bytes: u64,
    bytes: u64,
    opened: String,
    groups: Vec<Range>,
}

/// Entries of a group, half-open.
#[derive(Debug, Serialize)]
struct Range {
    group: u32,
    first: u64,
    end: u64,
}

#[derive(Debug, Serialize)]
struct Group {
    group: u32,
    first: u64,
    last: String,
    terms: usize,
}

/// Prints the answer.
pub fn run(directory: &Path, format: Format) -> Result<(), Failure> {
    let reading = Reading::take(directory)?;
    output::print(&text(&reading, format))
}

pub fn text(reading: &Reading, format: Format) -> String {
    let answer = Answer::of(reading);
    output::shown(&answer, Answer::table, format)
}

impl Answer {
    fn of(reading: &Reading) -> Answer {
        let analysis = &reading.analysis;
        let identity = analysis.identity;
        let group = |log: &crate::wal::GroupLog| Group {
            group: log.group.0,
            first: log.first().0,
            last: log.last.to_string(),
            terms: log.terms.len(),
        };
        Answer {
            directory: reading.directory.clone(),
            kind: reading.kind(),
            cluster: identity.map(|identity| identity.cluster.to_string()),
            node: match reading.kind {
                Some(Kind::Node(node)) => Some(node.0),
                Some(Kind::Alone) | None => None,
            },
            incarnation: identity.map(|identity| identity.incarnation.to_string()),
            superblock: reading.superblock.as_ref().map(Superblock::of),
            segments: analysis.chain.iter().map(|segment| Segment::of(reading, segment)).collect(),
            groups: analysis.groups.values().map(group).collect(),
            pinned_by: pinned_by(analysis),
            spare_segments: analysis.spare.iter().map(|spare| spare.header.number.0).collect(),
            unreachable_segments: analysis.unjoined.iter().map(|(header, _)| header.number.0).collect(),
            findings: reading.findings.iter().map(|finding| Shown::of(reading, finding)).collect(),
            findings_more: reading.findings_more,
            more: reading.more(),
        }
    }

    fn table(&self) -> String {
        let mut out = format!("{}: {}\n", self.directory, self.kind);
        if let (Some(cluster), Some(incarnation)) = (&self.cluster, &self.incarnation) {
            let node = self.node.map_or(String::new(), |node| format!(", node {node}"));
            line(&mut out, format_args!("cluster {cluster}{node}, incarnation {incarnation}"));
        }
        if let Some(Superblock { boot, durable_end: End { segment, offset, frame }, found, .. }) = &self.superblock {
            let end = format!("segment {segment} offset {offset} frame {frame}");
            line(&mut out, format_args!("superblock: boot {boot}, durable up to {end}; {found}"));
        }
        let head = ["segment", "state", "frames", "records", "record bytes", "used bytes", "opened", "entries"];
        let rows: Vec<Vec<String>> = self.segments.iter().map(Segment::row).collect();
        out.push_str(&columns(&head, &rows));
        let row = |group: &Group| {
            vec![group.group.to_string(), group.first.to_string(), group.last.clone(), group.terms.to_string()]
        };
        let rows: Vec<Vec<String>> = self.groups.iter().map(row).collect();
        out.push_str(&columns(&["group", "first", "last", "terms"], &rows));
        if let (Some(oldest), [first, rest @ ..]) = (self.segments.first(), self.pinned_by.as_slice()) {
            let others: String = rest.iter().map(|group| format!(", group {group}")).collect();
            line(&mut out, format_args!("\noldest segment {}: pinned by group {first}{others}", oldest.number));
        }
        line(&mut out, format_args!("\nspare segments: {}", listed(&self.spare_segments)));
        if !self.unreachable_segments.is_empty() {
            line(&mut out, format_args!("unreachable segments: {}", listed(&self.unreachable_segments)));
        }
        line(&mut out, format_args!("findings:{}", if self.findings.is_empty() { " none" } else { "" }));
        self.findings.iter().for_each(|finding| line(&mut out, format_args!("{finding}")));
        self.more.iter().for_each(|more| line(&mut out, format_args!("{more}")));
        out
    }
}

impl Superblock {
    fn of(inspection: &Inspection) -> Superblock {
        let end = inspection.state.durable_end;
        let Conditions(blocks) = &inspection.found;
        let copies = blocks.map(|block| match block {
            Condition::Intact { copy } => Some(copy),
            _ => None,
        });
        Superblock {
            boot: inspection.state.boot,
            durable_end: End { segment: end.segment.0, offset: end.offset, frame: end.frame.0 },
            blocks: copies.iter().map(|&copy| Block { intact: copy.is_some(), copy }).collect(),
            found: match copies[0].filter(|_| copies.iter().all(|copy| *copy == copies[0])) {
                Some(copy) => format!("all four blocks intact, copy {copy}"),
                None => inspection.found.to_string(),
            },
        }
    }
}

impl Segment {
    fn of(reading: &Reading, segment: &ChainSegment) -> Segment {
        let number = segment.header.number;
        Segment {
            number: number.0,
            state: if segment.is_sealed { "sealed" } else { "open" },
            frames: segment.frames,
            records: segment.records,
            record_bytes: segment.record_bytes,
            used_bytes: segment.end,
            bytes: segment.header.bytes,
            opened: time_of(segment.open.wall_clock_milliseconds),
            groups: ranges(reading, segment),
        }
    }

    fn row(&self) -> Vec<String> {
        let range = |range: &Range| format!("{}: {}..{}", range.group, range.first, range.end);
        vec![
            self.number.to_string(),
            self.state.to_owned(),
            self.frames.to_string(),
            self.records.to_string(),
            self.record_bytes.to_string(),
            self.used_bytes.to_string(),
            self.opened.clone(),
            self.groups.iter().map(range).collect::<Vec<_>>().join(", "),
        ]
    }
}

/// By the rule by which the log gives segments up.
fn pinned_by(analysis: &Analysis) -> Vec<u32> {
    let Some(oldest) = analysis.locator.segments().next().filter(|_| analysis.chain.len() > 1) else {
        return Vec::new();
    };
    let is_live = |group: &GroupId| {
        let first = analysis.groups.get(group).map_or(Index::FIRST, GroupLog::first);
        analysis.locator.may_hold(oldest, *group, first)
    };
    oldest.highest.keys().copied().filter(is_live).map(|group| group.0).collect()
}

/// From where each group stood when the segment was opened, or was cut back to, to its highest index in it.
fn ranges(reading: &Reading, segment: &ChainSegment) -> Vec<Range> {
    let locator = &reading.analysis.locator;
    let number = segment.header.number;
    let Some(index) = locator.segments().find(|index| index.header.number == number) else { return Vec::new() };
    let first = |group: GroupId| {
        let start = segment.open.groups.iter().find(|start| start.group == group);
        let sparse = index.sparse.iter().filter(|entry| entry.group == group).map(|entry| entry.first);
        let first = start.map(|start| start.last.index.next()).or(sparse.min()).unwrap_or(Index::FIRST);
        index.lowest.get(&group).map_or(first, |&from| from.min(first))
    };
    let range =
        |(&group, highest): (&GroupId, &Index)| Range { group: group.0, first: first(group).0, end: highest.next().0 };
    index.highest.iter().map(range).collect()
}

/// In UTC.
fn time_of(milliseconds: u64) -> String {
    let seconds = i64::try_from(milliseconds / 1000).unwrap_or(i64::MAX);
    match time::OffsetDateTime::from_unix_timestamp(seconds) {
        Ok(at) => {
            let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
            format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", at.hour(), at.minute(), at.second())
        }
        Err(_) => format!("{milliseconds} ms"),
    }
}

fn listed(numbers: &[u64]) -> String {
    let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
    if numbers.is_empty() { "none".to_owned() } else { numbers.join(" ") }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a string takes what it is given");
}

/// A table below an empty line.
fn columns(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|&word| word.to_owned()).collect();
    let all: Vec<&Vec<String>> = std::iter::once(&head).chain(rows).collect();
    let width = |column: usize| all.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut out = "\n".to_owned();
    for row in all {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        line(&mut out, format_args!("{}", cells.collect::<Vec<_>>().join("  ").trim_end()));
    }
    out
}
