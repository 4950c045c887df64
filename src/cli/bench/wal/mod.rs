//! `trilith bench wal`: threads that append to a log, each with so many appends in flight.
//!
//! With one in flight a thread blocks for each append, as a simple program does; with more it keeps a queue of
//! pending appends and waits for the oldest, as a pipelined one does. A latency is that of one append, from the call
//! to the moment at which its thread sees that it is durable.
//!
//! The disk is measured by itself in the same directory, before the log and behind it: the flush of one block, and
//! writes of 1 MiB in the very way in which the log writes them, as many in flight.
//!
//! With `--read-mb-per-second` a reader reads older segments every other second, and the report tells the seconds with
//! it from those without.

mod load;
mod reading;
mod report;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::place::{Place, disk_failure};
use super::refused;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::{self, Format};
use crate::disk::{self, Directory, FlushTimes, Ground, IoChoice, ProbeError, Surface, SyncMode, Way, measure_flush};
use crate::limits::{
    BLOCK_BYTES, RECORD_BYTES_MAX, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SEGMENTS_READY, SEGMENTS_SPARE,
    WRITES_IN_FLIGHT_MAX,
};
use crate::wal::handle::{self, LOG_DIRECTORY, Options, Recovery};
use crate::wal::{LARGE_IN_FLIGHT_MAX, Wal};
use load::{Load, Measured};
use report::Report;

#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Where the log's directory is made, and removed at the end
    #[arg(long, alias = "dir", value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// Payload of a record
    #[arg(long, value_name = "BYTES", default_value = "128",
        value_parser = clap::value_parser!(u32).range(1..=RECORD_BYTES_MAX as i64))]
    bytes: u32,
    /// Records in one append
    #[arg(long, value_name = "RECORDS", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: u16,
    /// Threads that append
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// Appends that each thread keeps in flight: 1 blocks for each
    #[arg(long, value_name = "APPENDS", default_value = "1",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    in_flight: u32,
    /// How long is measured
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u16).range(1..=3600))]
    seconds: u16,
    /// Records that are appended in all, without a warm-up, however long it takes: for profilers, which count instead of
    /// measuring time
    #[arg(long, conflicts_with = "seconds", value_parser = clap::value_parser!(u64).range(1..))]
    records: Option<u64>,
    /// The way to the disk: auto, uring, blocking
    #[arg(long, value_name = "WAY", default_value = "auto")]
    io: IoChoice,
    /// How a write is flushed: dsync, fdatasync, or auto for what this disk is faster with
    #[arg(long, value_name = "MODE", default_value = "auto", value_parser = sync_mode)]
    sync: Sync,
    /// Writes of the log on their way to the disk at once, 1 to 8; what suits this disk, if not given
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..=WRITES_IN_FLIGHT_MAX as i64))]
    writes_in_flight: Option<u8>,
    /// Size of the log's segments, a multiple of 4096
    #[arg(long, value_name = "BYTES", default_value = "67108864",
        value_parser = clap::value_parser!(u64).range(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX))]
    segment_bytes: u64,
    /// End before the first segment is full, so that no other is prepared meanwhile: take large segments for it
    #[arg(long)]
    within_segment: bool,
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

/// What was asked for; none is left to the log.
#[derive(Clone, Copy, Debug)]
struct Sync(Option<SyncMode>);

fn sync_mode(word: &str) -> Result<Sync, String> {
    match word {
        "auto" => Ok(Sync(None)),
        word => match word.parse() {
            Ok(mode) => Ok(Sync(Some(mode))),
            Err(_) => Err("it is none of auto, dsync, fdatasync".to_owned()),
        },
    }
}

impl Arguments {
    /// The segments that a log makes at its birth are ready before it.
    fn warm_up(&self) -> Duration {
        if self.records.is_some() || self.within_segment {
            return Duration::ZERO;
        }
        (Duration::from_secs(u64::from(self.seconds)) / 4).min(Duration::from_secs(1))
    }
}

/// What the disk does by itself.
pub(super) struct Alone {
    flush: FlushTimes,
    /// Bytes per second, written by 1 MiB as the log writes: before it and behind it.
    bytes_per_second: [f64; 2],
}

/// A write of the disk alone, the file that it goes to, and how long.
const WRITE_BYTES: usize = 1 << 20;
const SURFACE_BYTES: u64 = 64 << 20;
const SURFACE_TIME: Duration = Duration::from_millis(250);
/// How long the segments that a log makes at its birth may take.
const PREPARED_WITHIN: Duration = Duration::from_secs(120);

/// Measures, and prints what came of it.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let report = measure(arguments)?;
    output::print(&match arguments.output {
        Format::Table => report.table(),
        Format::Json => report.json(),
    })
}

pub(super) fn measure(arguments: &Arguments) -> Result<Report, Failure> {
    let segment_bytes = arguments.segment_bytes;
    if !segment_bytes.is_multiple_of(BLOCK_BYTES as u64) {
        let message = format!("--segment-bytes {segment_bytes} is no multiple of {BLOCK_BYTES}");
        return Err(Failure::new(Exit::Usage, message, "take 67108864, which is 64 MiB, or another multiple"));
    }
    let place = Place::make(&arguments.directory)?;
    let directory = Directory::open(&place.path).map_err(|error| disk_failure(&error))?;
    let flush = measure_flush(&directory).map_err(|error| disk_failure(&error))?;
    let options = Options {
        io: arguments.io,
        sync_mode: arguments.sync.0,
        writes_in_flight: arguments.writes_in_flight.map(usize::from),
        segment_bytes,
        tail_cache_bytes: usize::from(arguments.tail_cache_mib) << 20,
        ..Options::new(place.path.join("wal"))
    };
    let (wal, opened) = Wal::open(options).map_err(|error| open_failure(&error))?;
    wait_until_prepared(&place.path.join("wal").join(LOG_DIRECTORY))?;
    let before = bytes_per_second(&directory, &opened)?;
    let measured = load(arguments, &wal)?;
    wal.close().map_err(|error| open_failure(&error))?;
    let behind = bytes_per_second(&directory, &opened)?;
    let alone = Alone { flush, bytes_per_second: [before, behind] };
    Ok(Report::new(arguments, &opened, &alone, &measured))
}

/// What the disk takes in the way in which this log writes large frames, on blocks that were written before.
fn bytes_per_second(directory: &Directory, opened: &Recovery) -> Result<f64, Failure> {
    let (backend, sync_mode, depth) = (opened.io.backend, opened.sync_mode, LARGE_IN_FLIGHT_MAX);
    let pace = || -> Result<f64, disk::Error> {
        let made = Surface::make(directory, Ground::Written, SURFACE_BYTES)?;
        let (mut surface, _) = made.expect("every disk has written blocks");
        let pace = surface.run(Way::Queue { backend, sync_mode, depth }, WRITE_BYTES, SURFACE_TIME)?;
        Ok(pace.writes_per_second() * WRITE_BYTES as f64)
    };
    pace().map_err(|error| disk_failure(&error))
}

/// The segments that a log makes at its birth are made beside its first appends: a measurement begins behind them.
fn wait_until_prepared(log: &Path) -> Result<(), Failure> {
    let start = Instant::now();
    while start.elapsed() < PREPARED_WITHIN {
        let names = std::fs::read_dir(log).and_then(|entries| {
            entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<Result<Vec<_>, _>>()
        });
        let names = names.map_err(|error| {
            Failure::new(Exit::Other, format!("{}: {error}", log.display()), "leave the bench's directory alone")
        })?;
        if names.iter().filter(|name| name.ends_with(".segment")).count() > SEGMENTS_READY + SEGMENTS_SPARE {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let message = format!("no segments stand ready after {PREPARED_WITHIN:?}");
    Err(Failure::new(Exit::NoSpace, message, "free some space, or take smaller ones: --segment-bytes BYTES"))
}

fn load(arguments: &Arguments, wal: &Wal) -> Result<Measured, Failure> {
    let time = Duration::from_secs(u64::from(arguments.seconds));
    let load = Load {
        bytes: arguments.bytes as usize,
        threads: usize::from(arguments.threads),
        in_flight: arguments.in_flight as usize,
        batch: usize::from(arguments.batch),
        warm_up: arguments.warm_up(),
        time: arguments.records.map_or(time, |_| Duration::MAX),
        records: arguments.records,
        // Frames that are on their way when it is seen still fit.
        written_bytes_max: arguments.within_segment.then_some(arguments.segment_bytes / 4 * 3),
        read_bytes_per_second: u64::from(arguments.read_mb_per_second) * 1_000_000,
    };
    load.run(wal).map_err(|error| {
        let next = format!("{}; nothing but the bench's own is lost", error.next_step());
        Failure::new(Exit::DiskFailed, error.to_string(), next)
    })
}

fn open_failure(error: &handle::Error) -> Failure {
    match error {
        handle::Error::Io(error @ ProbeError::Refused { .. }) => refused(error),
        handle::Error::Disk(error) => disk_failure(error),
        handle::Error::Log(crate::wal::Error::Disk(error)) => disk_failure(error),
        other => Failure::new(Exit::Other, other.to_string(), other.next_step()),
    }
}
