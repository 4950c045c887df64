//! `trilith bench wal`: threads that append to a log, each with so many appends in flight.
//!
//! With one in flight a thread blocks for each append, as a simple program does; with more it keeps a queue of
//! pending appends and waits for the oldest, as a pipelined one does. A latency is that of one append, from the call
//! to the moment at which its thread sees that it is durable.
//!
//! With `--read-mb-per-second` a reader reads older segments every other second, and the report tells the seconds with
//! it from those without.

mod load;
mod reading;
mod report;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::exit::{Exit, Failure};
use crate::cli::output::{self, Format};
use crate::disk::{self, Directory, FlushTimes, IoChoice, ProbeError, measure_flush};
use crate::limits::{RECORD_BYTES_MAX, WRITES_IN_FLIGHT_MAX};
use crate::wal::Wal;
use crate::wal::handle::{self, Options, Recovery};
use load::Load;
use report::Report;

#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Where the log's directory is made, and removed at the end
    #[arg(long, value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// Payload of a record
    #[arg(long, value_name = "BYTES", default_value = "128",
        value_parser = clap::value_parser!(u32).range(1..=RECORD_BYTES_MAX as i64))]
    bytes: u32,
    /// Threads that append
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// Appends that each thread keeps in flight: 1 blocks for each
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    in_flight: u32,
    /// Records in one append
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: u16,
    /// How long is measured
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u16).range(1..=3600))]
    seconds: u16,
    /// The way to the disk: auto, uring, blocking
    #[arg(long, default_value = "auto")]
    io: IoChoice,
    /// Writes on their way to the disk at once
    #[arg(long, default_value = "1",
        value_parser = clap::value_parser!(u8).range(1..=WRITES_IN_FLIGHT_MAX as i64))]
    depth: u8,
    /// Read so much of the log's older segments meanwhile, every other second, and show what that costs; 0 for nothing
    #[arg(long, value_name = "MB", default_value = "0", value_parser = clap::value_parser!(u16).range(0..=10_000))]
    read_mb_per_second: u16,
    /// How much of what was written last stays in memory for readers
    #[arg(long, value_name = "MIB", default_value = "8", value_parser = clap::value_parser!(u16).range(0..=4096))]
    tail_cache_mib: u16,
    /// How to print the result
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

/// Measures, and prints what came of it.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let report = measure(arguments)?;
    output::print(&match arguments.output {
        Format::Table => report.table(),
        Format::Json => report.json(),
    })
}

fn measure(arguments: &Arguments) -> Result<Report, Failure> {
    let place = Place::make(&arguments.directory)?;
    let directory = Directory::open(&place.path).map_err(|error| disk_failure(&error))?;
    let flush = measure_flush(&directory).map_err(|error| disk_failure(&error))?;
    drop(directory);
    let options = Options {
        io: arguments.io,
        writes_in_flight: usize::from(arguments.depth),
        tail_cache_bytes: usize::from(arguments.tail_cache_mib) << 20,
        ..Options::new(place.path.join("wal"))
    };
    let (wal, opened) = Wal::open(options).map_err(|error| open_failure(&error))?;
    let report = load(arguments, &wal, &opened, &flush)?;
    wal.close().map_err(|error| open_failure(&error))?;
    Ok(report)
}

fn load(arguments: &Arguments, wal: &Wal, opened: &Recovery, flush: &FlushTimes) -> Result<Report, Failure> {
    let time = Duration::from_secs(u64::from(arguments.seconds));
    let load = Load {
        bytes: arguments.bytes as usize,
        threads: usize::from(arguments.threads),
        in_flight: arguments.in_flight as usize,
        batch: usize::from(arguments.batch),
        // The segments that a log makes at its birth are ready then.
        warm_up: (time / 4).min(Duration::from_secs(1)),
        time,
        read_bytes_per_second: u64::from(arguments.read_mb_per_second) * 1_000_000,
    };
    let measured = load.run(wal).map_err(|error| {
        Failure::new(Exit::DiskFailed, error.to_string(), "see the kernel's log; nothing but the bench's own is lost")
    })?;
    Ok(Report::new(arguments, opened, flush, &measured))
}

/// The directory of one run, gone when it is dropped.
struct Place {
    path: PathBuf,
}

impl Place {
    fn make(below: &Path) -> Result<Place, Failure> {
        let path = below.join(format!("trilith-bench-{}", std::process::id()));
        std::fs::create_dir(&path).map_err(|error| {
            let message = format!("{}: no directory can be made: {error}", path.display());
            Failure::new(Exit::Usage, message, "name a directory that this user may write to: --directory DIR")
        })?;
        Ok(Place { path })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("warning: {} stays behind: {error}", self.path.display());
        }
    }
}

fn disk_failure(error: &disk::Error) -> Failure {
    match error.is_no_space() {
        true => Failure::new(Exit::NoSpace, error.to_string(), "free some space, or name another --directory"),
        false => Failure::new(Exit::DiskFailed, error.to_string(), "see the kernel's log"),
    }
}

fn open_failure(error: &handle::Error) -> Failure {
    match error {
        handle::Error::Io(ProbeError::Refused { cause, remedy }) => {
            Failure::new(Exit::IoUringRefused, format!("io_uring cannot be used: {cause}"), *remedy)
        }
        handle::Error::Disk(error) => disk_failure(error),
        handle::Error::Log(crate::wal::Error::Disk(error)) => disk_failure(error),
        other => Failure::new(Exit::Other, other.to_string(), "run it again in another --directory"),
    }
}
