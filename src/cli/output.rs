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
