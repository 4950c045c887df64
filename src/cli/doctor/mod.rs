//! `trilith doctor`: what this machine offers to a log, and what to change.
//!
//! ```text
//!   readings (/proc, /sys, system calls) ──▶ judge: a Finding each ──▶ table or JSON, exit code
//! ```
//!
//! A finding is *ok*, *warn* (works, but slower or less safely than it could) or *bad* (a log here would lose data or
//! not run). Every finding that is not ok names what to do. Reading and judging are apart, so that each verdict is
//! tested without the machine that deserves it.

mod judge;
mod readings;
mod report;

use std::path::{Path, PathBuf};

use super::exit::{Exit, Failure};
use super::output::{self, Format};
use judge::judge;
use readings::Readings;
use report::Verdict;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The directory that is to hold the log
    #[arg(long, alias = "dir", value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// How to print the findings
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

/// Prints the findings; it is a failure if one is bad.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let readings = Readings::take(&arguments.directory)?;
    let findings = judge(&readings);
    output::print(&match arguments.output {
        Format::Table => report::table(&findings),
        Format::Json => report::json(&findings),
    })?;
    let bad: Vec<&str> =
        findings.iter().filter(|finding| finding.verdict == Verdict::Bad).map(|finding| finding.name).collect();
    if bad.is_empty() {
        return Ok(());
    }
    let message = format!("this machine is not fit for a log: {}", bad.join(", "));
    Err(Failure::new(Exit::Other, message, "do what is written beside each finding, and run `trilith doctor` again"))
}

/// The name of the file system that a directory lies on.
pub fn file_system(directory: &Path) -> String {
    match readings::file_system(directory) {
        Ok(magic) => judge::file_system(magic).value,
        Err(_) => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests;
