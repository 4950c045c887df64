//! Standard output, for people and for scripts.

use std::io::{self, Write};

use super::exit::{Exit, Failure};

/// The form of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// One JSON document
    Json,
}

/// An answer in the form that was asked for.
pub fn shown<T: serde::Serialize>(answer: &T, table: impl FnOnce(&T) -> String, format: Format) -> String {
    match format {
        Format::Table => table(answer),
        Format::Json => serde_json::to_string_pretty(answer).expect("numbers and strings are JSON"),
    }
}

/// Writes an answer. A reader that went away (`| head`) has what it wanted.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::new(
            Exit::Other,
            format!("standard output: {error}"),
            "check where the output goes; nothing else was wrong",
        )),
    }
}

/// So many of these.
pub fn counted(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// Says on standard error what went wrong. That may lie on the very disk that is full or has failed: whether it can be
/// written must not decide how the process ends.
pub fn complain(text: &impl std::fmt::Display) {
    let mut out = io::stderr().lock();
    let _nobody_is_left_to_tell = writeln!(out, "{text}");
}
