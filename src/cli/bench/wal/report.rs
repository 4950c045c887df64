//! What a run is told by: first what it depends on, then what came of it.

use std::fmt::{self, Write};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::load::{Measured, Turns};
use super::{Alone, Arguments};
use crate::cli::bench::surroundings::{Io, Surroundings, flush_words};
use crate::cli::output::counted;
use crate::wal::LARGE_IN_FLIGHT_MAX;
use crate::wal::handle::Recovery;

/// One JSON document.
#[derive(Debug, Serialize)]
pub struct Report {
    #[serde(flatten)]
    surroundings: Surroundings,
    /// The disk's own time for one block, median: `pwrite` and `fdatasync`, and a write through `O_DSYNC`.
    disk_fdatasync_microseconds: f64,
    disk_dsync_microseconds: f64,
    /// The disk's own pace by writes of 1 MiB in the way in which the log writes, before the run and behind it; so many
    /// of them in flight.
    disk_writes_in_flight: usize,
    disk_bytes_per_second_before: f64,
    disk_bytes_per_second_behind: f64,
    #[serde(flatten)]
    io: Io,
    segment_bytes: u64,
    payload_bytes_per_record: u32,
    threads: u16,
    in_flight_per_thread: u32,
    records_per_append: u16,
    warm_up_seconds: f64,
    seconds: f64,
    records: u64,
    records_per_second: f64,
    payload_bytes_per_second: f64,
    latency_microseconds: Latency,
    /// The longest time in which no append became durable.
    longest_gap_microseconds: f64,
    flushes_per_second: f64,
    records_per_flush: f64,
    payload_bytes: u64,
    /// Frames with headers and padding.
    disk_bytes: u64,
    disk_bytes_per_payload_byte: f64,
    disk_bytes_per_second: f64,
    /// Of what the disk does by itself, the mean of before and behind.
    share_of_disk: f64,
    segments: u64,
    /// Of those, how many were used before they had been filled with zeros.
    unzeroed_segments: u64,
    tail_cache_bytes: u64,
    /// With `--read-mb-per-second`: what the turns without a reader and those with one gave.
    reading: Option<Reading>,
}

#[derive(Debug, Serialize)]
struct Reading {
    wanted_bytes_per_second: u64,
    read_bytes_per_second: f64,
    without: Side,
    with: Side,
}

#[derive(Debug, Serialize)]
struct Side {
    records_per_second: f64,
    latency_microseconds: Latency,
}

#[derive(Debug, Serialize)]
struct Latency {
    p50: f64,
    p99: f64,
    p99_9: f64,
    max: f64,
}

impl Report {
    pub fn new(arguments: &Arguments, opened: &Recovery, alone: &Alone, measured: &Measured) -> Report {
        let (seconds, counters) = (measured.time.as_secs_f64(), measured.counters);
        let payload_bytes = counters.records * u64::from(arguments.bytes);
        let latency_microseconds = Latency::of(&measured.latency);
        let reading = measured.turns.as_ref().map(|turns| Reading::new(arguments, turns));
        let disk_bytes_per_second = counters.written_bytes as f64 / seconds;
        let [before, behind] = alone.bytes_per_second;
        Report {
            surroundings: Surroundings::of(&arguments.directory),
            disk_fdatasync_microseconds: microseconds(alone.flush.fdatasync),
            disk_dsync_microseconds: microseconds(alone.flush.dsync),
            disk_writes_in_flight: LARGE_IN_FLIGHT_MAX,
            disk_bytes_per_second_before: before,
            disk_bytes_per_second_behind: behind,
            io: Io::of(opened),
            segment_bytes: arguments.segment_bytes,
            payload_bytes_per_record: arguments.bytes,
            threads: arguments.threads,
            in_flight_per_thread: arguments.in_flight,
            records_per_append: arguments.batch,
            warm_up_seconds: arguments.warm_up().as_secs_f64(),
            seconds,
            records: counters.records,
            records_per_second: counters.records as f64 / seconds,
            payload_bytes_per_second: payload_bytes as f64 / seconds,
            latency_microseconds,
            longest_gap_microseconds: microseconds(measured.longest_gap),
            flushes_per_second: counters.flushes as f64 / seconds,
            records_per_flush: counters.records as f64 / counters.flushes.max(1) as f64,
            payload_bytes,
            disk_bytes: counters.written_bytes,
            disk_bytes_per_payload_byte: counters.written_bytes as f64 / payload_bytes.max(1) as f64,
            disk_bytes_per_second,
            share_of_disk: disk_bytes_per_second / ((before + behind) / 2.0).max(1.0),
            segments: counters.segments,
            unzeroed_segments: counters.unzeroed_segments,
            tail_cache_bytes: u64::from(arguments.tail_cache_mib) << 20,
            reading,
        }
    }

    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers and strings are JSON")
    }

    pub fn table(&self) -> String {
        let mut out = String::new();
        let mut row = |name: &str, value: String| {
            writeln!(out, "{name:<14}{value}").expect("a string takes what it is given");
        };
        row("trilith", self.surroundings.line());
        row("disk alone", flush_words(self.disk_fdatasync_microseconds, self.disk_dsync_microseconds));
        let disk = [self.disk_bytes_per_second_before, self.disk_bytes_per_second_behind].map(mebibytes);
        let depth = self.disk_writes_in_flight;
        row(
            "",
            format!(
                "1 MiB as the log writes, {depth} in flight: {:.0} MiB/s before, {:.0} MiB/s behind",
                disk[0], disk[1]
            ),
        );
        row("io", self.io.line());
        let segment = mebibytes(self.segment_bytes as f64);
        row(
            "load",
            format!(
                "{} x {} in flight x {} of {} bytes, {:.1} s behind {:.2} s of warm-up",
                counted(self.threads.into(), "thread"),
                self.in_flight_per_thread,
                counted(self.records_per_append.into(), "record"),
                self.payload_bytes_per_record,
                self.seconds,
                self.warm_up_seconds
            ),
        );
        let tail = mebibytes(self.tail_cache_bytes as f64);
        row("log", format!("segments of {segment} MiB, a tail cache of {tail} MiB"));
        let payload = mebibytes(self.payload_bytes_per_second);
        row("throughput", format!("{:.0} records/s, {payload:.1} MiB/s", self.records_per_second));
        row("latency", self.latency_microseconds.to_string());
        row(
            "longest gap",
            format!("{:.1} ms without an append that became durable", self.longest_gap_microseconds / 1000.0),
        );
        row("flushes", format!("{:.0}/s, {:.1} records each", self.flushes_per_second, self.records_per_flush));
        row(
            "space",
            format!(
                "{} payload bytes in {} bytes on disk: {:.2} for each",
                self.payload_bytes, self.disk_bytes, self.disk_bytes_per_payload_byte
            ),
        );
        let written = mebibytes(self.disk_bytes_per_second);
        row("to the disk", format!("{written:.1} MiB/s, {:.2} of what it does alone", self.share_of_disk));
        row(
            "segments",
            format!("{} opened, {} of them before they were zeroed", self.segments, self.unzeroed_segments),
        );
        if let Some(reading) = &self.reading {
            for (name, side) in [("nobody reads", &reading.without), ("somebody does", &reading.with)] {
                row(name, format!("{:.0} records/s, {}", side.records_per_second, side.latency_microseconds));
            }
            let (wanted, read) = (reading.wanted_bytes_per_second as f64 / 1e6, reading.read_bytes_per_second / 1e6);
            row("reader", format!("{read:.1} MB/s of {wanted:.0} wanted, from older segments, every other second"));
        }
        out
    }
}

fn mebibytes(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Latency {
        let quantile = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Latency {
            p50: quantile(0.5),
            p99: quantile(0.99),
            p99_9: quantile(0.999),
            max: histogram.max() as f64 / 1000.0,
        }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Latency { p50, p99, p99_9, max } = self;
        write!(formatter, "p50 {p50:.1} us, p99 {p99:.1} us, p99.9 {p99_9:.1} us, max {max:.1} us")
    }
}

impl Reading {
    fn new(arguments: &Arguments, [without, with]: &[Turns; 2]) -> Reading {
        let side = |turns: &Turns| Side {
            records_per_second: turns.records as f64 / turns.time.as_secs_f64().max(f64::EPSILON),
            latency_microseconds: Latency::of(&turns.latency),
        };
        Reading {
            wanted_bytes_per_second: u64::from(arguments.read_mb_per_second) * 1_000_000,
            read_bytes_per_second: with.read_bytes as f64 / with.time.as_secs_f64().max(f64::EPSILON),
            without: side(without),
            with: side(with),
        }
    }
}

fn microseconds(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1000.0
}
