//! `trilith snapshot verify`: what is wrong with snapshots, and what to do about it.

use std::path::Path;

use serde::Serialize;

use super::inspect::{Shown, line};
use super::reading::{self, Reading};
use crate::cli::exit::Failure;
use crate::cli::output::{self, Format};
use crate::snapshot::{Found, Manifest};

/// The answer, as it goes into the JSON document.
#[derive(Debug, Serialize)]
struct Answer {
    directory: String,
    /// `ok` or `damaged`.
    result: &'static str,
    /// Those whose every chunk was read.
    snapshots: u64,
    chunks: u64,
    bytes: u64,
    findings: Vec<Shown>,
}

/// Prints the answer; it is a failure if something is wrong.
pub fn run(directory: &Path, format: Format) -> Result<(), Failure> {
    let files = reading::open(directory)?;
    let reading = Reading::take(&files, directory.display().to_string(), true)?;
    output::print(&text(&reading, format))?;
    judge(&reading)
}

pub fn text(reading: &Reading, format: Format) -> String {
    let whole: Vec<&Manifest> = reading.listing.found.iter().filter_map(Found::manifest).collect();
    let answer = Answer {
        directory: reading.directory.clone(),
        result: if reading.findings.is_empty() { "ok" } else { "damaged" },
        snapshots: whole.len() as u64,
        chunks: whole.iter().map(|manifest| u64::from(manifest.chunks())).sum(),
        bytes: whole.iter().map(|manifest| manifest.bytes).sum(),
        findings: reading.findings.iter().map(Shown::of).collect(),
    };
    output::shown(&answer, Answer::table, format)
}

/// The failure that the worst finding is.
pub fn judge(reading: &Reading) -> Result<(), Failure> {
    let Some(worst) = reading.worst(|_| true) else { return Ok(()) };
    let count = output::counted(reading.findings.len() as u64, "finding");
    let message = format!("{}: {count}, the worst: {}: {}", reading.directory, worst.name, worst.what);
    Err(Failure::new(worst.exit, message, worst.next_step.clone()))
}

impl Answer {
    fn table(&self) -> String {
        let (snapshots, chunks) = (output::counted(self.snapshots, "snapshot"), output::counted(self.chunks, "chunk"));
        let mut out = format!("{}: {}: {snapshots}, {chunks}, {} bytes\n", self.directory, self.result, self.bytes);
        self.findings.iter().for_each(|finding| finding.print(&mut out));
        line(&mut out, format_args!(""));
        out
    }
}
