//! The figures, as tables for people and as a document for scripts.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use super::{Preparation, Row, SIZES_BYTES, SURFACE_BYTES};
use crate::cli::bench::median;
use crate::cli::bench::surroundings::Surroundings;
use crate::disk::{Chosen, Pace, Probed};

/// One JSON document.
#[derive(Debug, Serialize)]
pub struct Report {
    #[serde(flatten)]
    surroundings: Surroundings,
    io: String,
    io_reason: String,
    direct: bool,
    /// What a log made here would choose, and why.
    chosen_sync_mode: String,
    chosen_writes_in_flight: usize,
    chosen_by: String,
    writes: Vec<Writes>,
    preparations: Vec<Prepared>,
}

/// Writes of one size in one way; medians of the turns.
#[derive(Debug, Serialize)]
struct Writes {
    way: String,
    bytes: usize,
    microseconds: f64,
    writes_per_second: f64,
    bytes_per_second: f64,
}

#[derive(Debug, Serialize)]
struct Prepared {
    way: &'static str,
    /// None where kernel, file system or disk do not know it.
    bytes_per_second: Option<f64>,
    /// The first write of a block, through O_DSYNC.
    first_write_4096_microseconds: Option<f64>,
    first_write_1048576_microseconds: Option<f64>,
}

impl Report {
    pub fn new(
        surroundings: Surroundings,
        probed: Probed,
        chosen: Chosen,
        rows: &[Row],
        preparations: &[Preparation],
    ) -> Report {
        Report {
            surroundings,
            io: probed.backend.to_string(),
            io_reason: probed.reason,
            direct: probed.direct,
            chosen_sync_mode: chosen.sync_mode.to_string(),
            chosen_writes_in_flight: chosen.writes_in_flight,
            chosen_by: chosen.to_string(),
            writes: rows.iter().flat_map(writes).collect(),
            preparations: preparations.iter().map(prepared).collect(),
        }
    }

    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers and strings are JSON")
    }

    pub fn table(&self) -> String {
        let mut out = String::new();
        let mut line = |text: String| writeln!(out, "{text}").expect("a string takes what it is given");
        line(format!("trilith      {}", self.surroundings.line()));
        let cache = if self.direct { "O_DIRECT" } else { "page cache" };
        line(format!("io           {}, {cache} ({})", self.io, self.io_reason));
        line(format!("a log here   {}", self.chosen_by));
        line(String::new());
        line(format!("{:<38}{:>26}{:>26}{:>26}", "a write and its flush", "4 KiB", "64 KiB", "1 MiB"));
        for ways in self.writes.chunks(SIZES_BYTES.len()) {
            line(ways.iter().fold(format!("{:<38}", ways[0].way), |text, writes| text + &writes.cell()));
        }
        line(String::new());
        let heads = ["prepare 64 MiB ahead of use", "", "first write: 4 KiB", "1 MiB"];
        line(format!("{:<38}{:>16}{:>24}{:>16}", heads[0], heads[1], heads[2], heads[3]));
        self.preparations.iter().for_each(|prepared| line(prepared.line()));
        out
    }
}

impl Writes {
    fn cell(&self) -> String {
        let rate = match self.bytes_per_second / f64::from(1 << 20) {
            mebibytes if self.bytes > SIZES_BYTES[0] => format!("{mebibytes:.0} MiB/s"),
            _ => format!("{:.0}/s", self.writes_per_second),
        };
        format!("{:>10.0} us {rate:>12}", self.microseconds)
    }
}

impl Prepared {
    fn line(&self) -> String {
        let Some(bytes_per_second) = self.bytes_per_second else {
            return format!("{:<38}{:>16}", self.way, "not here");
        };
        let pace = format!("{:.0} MiB/s", bytes_per_second / f64::from(1 << 20));
        let microseconds = |time: Option<f64>| time.map_or(String::new(), |time| format!("{time:.0} us"));
        let first = [self.first_write_4096_microseconds, self.first_write_1048576_microseconds].map(microseconds);
        format!("{:<38}{pace:>16}{:>24}{:>16}", self.way, first[0], first[1])
    }
}

fn writes(row: &Row) -> impl Iterator<Item = Writes> {
    SIZES_BYTES.iter().zip(&row.paces).map(|(&bytes, paces)| {
        let writes_per_second = median(paces.iter().map(Pace::writes_per_second));
        Writes {
            way: row.name.clone(),
            bytes,
            microseconds: median_microseconds(paces),
            writes_per_second,
            bytes_per_second: writes_per_second * bytes as f64,
        }
    })
}

fn prepared(preparation: &Preparation) -> Prepared {
    let is_known = !preparation.times.is_empty();
    let rate = |time: &Duration| SURFACE_BYTES as f64 / time.as_secs_f64();
    Prepared {
        way: preparation.name,
        bytes_per_second: is_known.then(|| median(preparation.times.iter().map(rate))),
        first_write_4096_microseconds: is_known.then(|| median_microseconds(&preparation.blocks)),
        first_write_1048576_microseconds: is_known.then(|| median_microseconds(&preparation.mebibytes)),
    }
}

fn median_microseconds(paces: &[Pace]) -> f64 {
    median(paces.iter().map(|pace| pace.median.as_nanos() as f64 / 1000.0))
}

/// Zero if there is none.
fn median(figures: impl Iterator<Item = f64>) -> f64 {
    median::median(figures).unwrap_or(0.0)
}
