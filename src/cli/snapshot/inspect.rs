//! `trilith snapshot inspect`: which snapshots there are.

use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use super::reading::{self, Finding, Reading};
use crate::cli::exit::Failure;
use crate::cli::output::{self, Format};
use crate::snapshot::{Condition, Found, Manifest, Stage};

/// The answer, as it goes into the JSON document.
#[derive(Debug, Serialize)]
pub struct Answer {
    directory: String,
    /// As the superblock says; none if this is no node's directory.
    cluster: Option<String>,
    snapshots: Vec<Snapshot>,
    /// Names that begin as a snapshot's and are none.
    strange: Vec<String>,
    findings: Vec<Shown>,
}

#[derive(Debug, Serialize)]
struct Snapshot {
    name: String,
    group: u32,
    point: String,
    /// `whole`, `being made`, `being received`, `being removed`, `damaged`, `foreign`, `newer` or `unreadable`.
    condition: &'static str,
    /// None if it is not whole.
    manifest: Option<Content>,
}

#[derive(Debug, Serialize)]
struct Content {
    cluster: String,
    bytes: u64,
    chunks: u32,
    log_start: u64,
    configuration: String,
    members: Vec<u64>,
    voters: Vec<u64>,
}

/// A finding with what to do about it.
#[derive(Debug, Serialize)]
pub struct Shown {
    name: String,
    what: String,
    next_step: String,
    exit_code: u8,
}

/// Prints the answer.
pub fn run(directory: &Path, format: Format) -> Result<(), Failure> {
    let files = reading::open(directory)?;
    let reading = Reading::take(&files, directory.display().to_string(), false)?;
    output::print(&text(&reading, format))
}

pub fn text(reading: &Reading, format: Format) -> String {
    let answer = Answer::of(reading);
    output::shown(&answer, Answer::table, format)
}

impl Answer {
    fn of(reading: &Reading) -> Answer {
        Answer {
            directory: reading.directory.clone(),
            cluster: reading.cluster.map(|cluster| cluster.to_string()),
            snapshots: reading.listing.found.iter().map(Snapshot::of).collect(),
            strange: reading.listing.strange.clone(),
            findings: reading.findings.iter().map(Shown::of).collect(),
        }
    }

    fn table(&self) -> String {
        let count = output::counted(self.snapshots.len() as u64, "snapshot");
        let mut out = format!("{}: {count}\n", self.directory);
        self.cluster.iter().for_each(|cluster| line(&mut out, format_args!("cluster {cluster}")));
        let head = ["group", "point", "condition", "bytes", "chunks", "log start", "configuration", "members"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(self.snapshots.iter().map(Snapshot::row));
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        out.push('\n');
        for row in &rows {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            line(&mut out, format_args!("{}", cells.join("  ").trim_end()));
        }
        out.push('\n');
        self.strange.iter().for_each(|name| line(&mut out, format_args!("no snapshot by its name: {name}")));
        line(&mut out, format_args!("findings:{}", if self.findings.is_empty() { " none" } else { "" }));
        self.findings.iter().for_each(|finding| finding.print(&mut out));
        out
    }
}

impl Snapshot {
    fn of(found: &Found) -> Snapshot {
        let condition = match &found.condition {
            Condition::Whole(_) | Condition::Unfinished(Stage::Whole) => "whole",
            Condition::Unfinished(Stage::Making) => "being made",
            Condition::Unfinished(Stage::Receiving) => "being received",
            Condition::Unfinished(Stage::Removing) => "being removed",
            Condition::Damaged(_) => "damaged",
            Condition::Foreign { .. } => "foreign",
            Condition::Newer { .. } => "newer",
            Condition::Unreadable(_) => "unreadable",
        };
        let manifest = found.manifest().map(Content::of);
        let (name, group, point) = (found.name.clone(), found.group.0, found.point.to_string());
        Snapshot { name, group, point, condition, manifest }
    }

    fn row(&self) -> Vec<String> {
        let mut row = vec![self.group.to_string(), self.point.clone(), self.condition.to_owned()];
        match &self.manifest {
            Some(Content { bytes, chunks, log_start, configuration, members, .. }) => {
                let members: Vec<String> = members.iter().map(u64::to_string).collect();
                row.extend([bytes.to_string(), chunks.to_string(), log_start.to_string(), configuration.clone()]);
                row.push(members.join(" "));
            }
            None => row.extend(std::iter::repeat_n(String::new(), 5)),
        }
        row
    }
}

impl Content {
    fn of(manifest: &Manifest) -> Content {
        let description = &manifest.description;
        Content {
            cluster: description.cluster.to_string(),
            bytes: manifest.bytes,
            chunks: manifest.chunks(),
            log_start: description.log_start.0,
            configuration: description.membership_id.to_string(),
            members: description.membership.members.iter().map(|member| member.id.0).collect(),
            voters: description.membership.voters.iter().map(|id| id.0).collect(),
        }
    }
}

impl Shown {
    pub fn of(finding: &Finding) -> Shown {
        Shown {
            name: finding.name.clone(),
            what: finding.what.clone(),
            next_step: finding.next_step.clone(),
            exit_code: finding.exit as u8,
        }
    }

    pub fn print(&self, out: &mut String) {
        line(out, format_args!("{}: {}\n  next: {}", self.name, self.what, self.next_step));
    }
}

pub fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a string takes what it is given");
}
