//! What a run is told by: first what it depends on, then what came of it.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::disk::{self, Flushes};
use crate::engines::Kind;
use crate::run::Measured;
use crate::wal::Case;

/// What the figures depend on.
#[derive(Debug)]
pub struct Header {
    kernel: String,
    file_system: String,
    cores: usize,
    rounds: u16,
    time: Duration,
    are_flushes_counted: bool,
    about: BTreeMap<Kind, String>,
}

/// One round of one engine.
#[derive(Clone, Debug)]
pub struct Round {
    /// The disk's own flush just before.
    pub disk_us: f64,
    pub measured: Measured,
}

/// What one engine did in one case: its median round.
#[derive(Clone, Debug)]
pub struct Row {
    kind: Kind,
    case: Case,
    round: Round,
}

/// A row as scripts read it.
#[derive(Debug, Serialize)]
struct JsonRow {
    engine: &'static str,
    threads: usize,
    bytes: usize,
    in_flight: usize,
    entries_per_s: f64,
    bytes_per_s: f64,
    p50_us: f64,
    p99_us: f64,
}

impl Header {
    pub fn new(directory: &Path, rounds: u16, time: Duration) -> Header {
        Header {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            file_system: disk::file_system(directory),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            rounds,
            time,
            are_flushes_counted: Flushes::of(directory).is_some(),
            about: BTreeMap::new(),
        }
    }

    pub fn learn(&mut self, kind: Kind, about: &str) {
        self.about.entry(kind).or_insert_with(|| about.to_owned());
    }
}

impl fmt::Display for Header {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Header { kernel, file_system, cores, rounds, .. } = self;
        writeln!(formatter, "Linux {kernel}, {file_system}, {cores} cores")?;
        let seconds = self.time.as_secs_f64();
        writeln!(formatter, "{seconds} s each, {rounds} rounds in turn, of which the median; every append flushed")?;
        match self.are_flushes_counted {
            true => writeln!(formatter, "flushes as the device counts them, all processes together")?,
            false => {
                writeln!(formatter, "this device does not count what it is made to flush: nothing checks it here")?
            }
        }
        for (kind, about) in &self.about {
            writeln!(formatter, "{kind:<12} {about}")?;
        }
        Ok(())
    }
}

impl Row {
    /// Of an even number of rounds the slower one in the middle.
    pub fn median(kind: Kind, case: Case, mut rounds: Vec<Round>) -> Row {
        assert!(!rounds.is_empty(), "there is at least one round");
        rounds.sort_by(|left, right| left.measured.entries_per_s.total_cmp(&right.measured.entries_per_s));
        let round = rounds.swap_remove((rounds.len() - 1) / 2);
        Row { kind, case, round }
    }

    fn entries_per_s(&self) -> f64 {
        self.round.measured.entries_per_s
    }

    fn bytes_per_s(&self) -> f64 {
        self.entries_per_s() * self.case.bytes as f64
    }
}

pub fn json(rows: &[Row]) -> String {
    let rows: Vec<JsonRow> = rows.iter().map(json_row).collect();
    serde_json::to_string_pretty(&rows).expect("numbers and strings are JSON")
}

fn json_row(row: &Row) -> JsonRow {
    JsonRow {
        engine: row.kind.name(),
        threads: row.case.threads,
        bytes: row.case.bytes,
        in_flight: row.case.in_flight,
        entries_per_s: row.entries_per_s().round(),
        bytes_per_s: row.bytes_per_s().round(),
        p50_us: row.round.measured.p50_us,
        p99_us: row.round.measured.p99_us,
    }
}

pub fn table(rows: &[Row]) -> String {
    let mut out = String::new();
    for of_case in rows.chunk_by(|left, right| left.case == right.case) {
        case_table(&mut out, of_case).expect("a string takes what it is given");
    }
    out
}

fn case_table(out: &mut String, rows: &[Row]) -> fmt::Result {
    let best = |is_among: fn(Kind) -> bool| {
        rows.iter().filter(|row| is_among(row.kind)).map(Row::entries_per_s).reduce(f64::max)
    };
    let (floor, best_peer) = (best(|kind| kind == Kind::Floor), best(Kind::is_peer));
    writeln!(
        out,
        "{:<13} {:>11} {:>8} {:>9} {:>9} {:>9} {:>9} {:>8} {:>7} {:>10} {:>9} {:>8}",
        rows[0].case.to_string(),
        "entries/s",
        "MB/s",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "max us",
        "x floor",
        "x peer",
        "flushes/s",
        "per flush",
        "disk us"
    )?;
    for kind in Kind::ALL {
        match rows.iter().find(|row| row.kind == kind) {
            Some(row) => writeln!(out, "{}", row_text(row, floor, best_peer))?,
            None if rows[0].case.in_flight > 1 && kind.is_peer() => writeln!(out, "  {kind:<11} {:>11}", "–")?,
            None => {}
        }
    }
    writeln!(out)
}

fn row_text(row: &Row, floor: Option<f64>, best_peer: Option<f64>) -> String {
    let Measured { p50_us, p99_us, p999_us, max_us, flushes_per_s, .. } = &row.round.measured;
    let entries_per_s = row.entries_per_s();
    let ratio = |to: Option<f64>| to.map_or("–".to_owned(), |to| format!("{:.2}", entries_per_s / to));
    format!(
        "  {:<11} {entries_per_s:>11.0} {:>8.1} {p50_us:>9.1} {p99_us:>9.1} {p999_us:>9.1} {max_us:>9.1} {:>8} {:>7} {:>10} \
         {:>9} {:>8.1}",
        row.kind,
        row.bytes_per_s() / 1e6,
        ratio(floor),
        ratio(best_peer),
        flushes_per_s.map_or("–".to_owned(), |flushes| format!("{flushes:.0}")),
        flushes_per_s.map_or("–".to_owned(), |flushes| format!("{:.1}", entries_per_s / flushes.max(1.0))),
        row.round.disk_us,
    )
}
