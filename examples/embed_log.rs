//! A log inside of a program of your own: append, come back, read.
//!
//!     cargo run --example embed_log [DIRECTORY]

use std::path::PathBuf;
use std::process::ExitCode;

use trilith::types::{Entry, GroupId, Index, Payload};
use trilith::wal::Wal;
use trilith::wal::handle::{Error, Options, Pending, Unsaved};

/// Several logs can share a directory, and its flushes; this program has one.
const GROUP: GroupId = GroupId(0);

fn main() -> ExitCode {
    let Err(Failure(error, next)) = run() else { return ExitCode::SUCCESS };
    eprintln!("error: {error}\nnext: {next}");
    ExitCode::FAILURE
}

/// What is wrong, and what to do about it: every error of the log says both.
struct Failure(String, String);

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure(error.to_string(), error.next_step())
    }
}

impl From<Unsaved> for Failure {
    fn from(unsaved: Unsaved) -> Failure {
        Failure(unsaved.to_string(), unsaved.next_step().to_owned())
    }
}

fn run() -> Result<(), Failure> {
    let directory = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("embed_log"), PathBuf::from);
    let mut options = Options::new(directory);
    // Small segments, since this is a small log.
    options.segment_bytes = 1 << 20;

    let (wal, opened) = Wal::open(options.clone())?;
    println!("{}", if opened.created { "a new log" } else { "a log that was here before" });
    append(&wal)?;
    wal.close()?;

    let (wal, opened) = Wal::open(options)?;
    let group = &opened.groups[0];
    println!("opened again: entries {} to {}", group.first(), group.last.index);
    let entries = wal.read(GROUP, Index(1002)..group.last.index.next(), 1 << 20)?;
    for entry in &entries {
        println!("{}: {}", entry.id.index, text(entry));
    }
    Ok(wal.close()?)
}

fn append(wal: &Wal) -> Result<(), Unsaved> {
    // One by one: when `wait` returns, the record is on the disk.
    let indexes = wal.append_records(GROUP, ["first"])?.wait()?;
    println!("durable at index {}", indexes.start);

    // Many at once: one flush serves all that wait for it. A `Pending` is a future as well.
    let pending: Vec<Pending> =
        (0..1000).map(|number| wal.append_records(GROUP, [format!("record {number}")])).collect::<Result<_, _>>()?;
    let last = pending.into_iter().next_back().expect("a thousand were appended").wait()?;
    println!("durable up to index {}", last.start);

    // A batch is there whole after a crash, or not at all.
    let batch = wal.append_records(GROUP, ["debit", "credit"])?.wait()?;
    println!("a batch of {} records", batch.end.0 - batch.start.0);
    Ok(())
}

fn text(entry: &Entry) -> String {
    match &entry.payload {
        Payload::Data(data) => String::from_utf8_lossy(&data.bytes).into_owned(),
        other => format!("{other:?}"),
    }
}
