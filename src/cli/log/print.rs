//! Records and indexes on standard output.

use std::io::{self, Write};

use serde::Serialize;

use crate::cli::exit::{Exit, Failure};
use crate::net::Records;
use crate::types::Index;

/// The form of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Format {
    /// Index, tab, and the bytes as they are
    Text,
    /// One JSON object to a line
    Json,
}

/// Lines for whoever reads; one who went away (`| head`) has what they wanted.
pub struct Lines<W: Write> {
    out: io::BufWriter<W>,
    is_gone: bool,
}

#[derive(Serialize)]
struct Shown<'a> {
    index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record_hex: Option<String>,
}

impl Lines<io::Stdout> {
    pub fn stdout() -> Lines<io::Stdout> {
        Lines::to(io::stdout())
    }
}

impl<W: Write> Lines<W> {
    pub fn to(out: W) -> Lines<W> {
        Lines { out: io::BufWriter::new(out), is_gone: false }
    }

    /// Nobody reads any more.
    pub fn is_gone(&self) -> bool {
        self.is_gone
    }

    pub fn indexes(&mut self, indexes: &[Index]) -> Result<(), Failure> {
        self.write(|out| indexes.iter().try_for_each(|index| writeln!(out, "{index}")))
    }

    pub fn records(&mut self, records: &Records, format: Format) -> Result<(), Failure> {
        self.write(|out| records.records.iter().try_for_each(|(index, record)| put_record(out, *index, record, format)))
    }

    /// Whole answers reach the reader at once.
    fn write(&mut self, put: impl FnOnce(&mut io::BufWriter<W>) -> io::Result<()>) -> Result<(), Failure> {
        if self.is_gone {
            return Ok(());
        }
        match put(&mut self.out).and_then(|()| self.out.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.is_gone = true;
                Ok(())
            }
            Err(error) => Err(Failure::new(
                Exit::Other,
                format!("standard output: {error}"),
                "check where the output goes; nothing else was wrong",
            )),
        }
    }
}

fn put_record(out: &mut impl Write, index: Index, record: &[u8], format: Format) -> io::Result<()> {
    match format {
        Format::Text => {
            write!(out, "{index}\t")?;
            out.write_all(record)?;
        }
        Format::Json => {
            let text = std::str::from_utf8(record).ok();
            let shown = Shown { index: index.0, record: text, record_hex: text.is_none().then(|| hex(record)) };
            serde_json::to_writer(&mut *out, &shown)?;
        }
    }
    out.write_all(b"\n")
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
