//! What a run is told by.

use std::fmt::Write;

use serde::Serialize;

use super::{Case, Kind};

/// The form of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// A list of rows
    Json,
}

/// One case, with the rates of all rounds of each core.
#[derive(Debug)]
pub struct Row {
    case: Case,
    cores: Vec<(Kind, Vec<f64>)>,
}

/// A row as scripts read it.
#[derive(Debug, Serialize)]
struct JsonRow {
    case: Case,
    core: Kind,
    per_s: f64,
    per_s_min: f64,
    per_s_max: f64,
}

impl Row {
    pub fn of(case: Case, mut cores: Vec<(Kind, Vec<f64>)>) -> Row {
        cores.iter_mut().for_each(|(_, rates)| rates.sort_by(f64::total_cmp));
        Row { case, cores }
    }

    fn json(&self) -> impl Iterator<Item = JsonRow> + '_ {
        self.cores.iter().map(|(core, rates)| JsonRow {
            case: self.case,
            core: *core,
            per_s: median(rates).round(),
            per_s_min: rates[0].round(),
            per_s_max: rates[rates.len() - 1].round(),
        })
    }
}

pub fn show(rows: &[Row], format: Format) -> String {
    match format {
        Format::Table => table(rows),
        Format::Json => {
            let rows: Vec<JsonRow> = rows.iter().flat_map(Row::json).collect();
            serde_json::to_string_pretty(&rows).expect("numbers and strings are JSON")
        }
    }
}

fn table(rows: &[Row]) -> String {
    let mut out = String::from(
        "three replicas in one thread, storage in memory, 128 bytes; medians (least to most) per second\n\n\
         case                                  trilith                          raft-rs      ratio\n",
    );
    for row in rows {
        let name = match row.case {
            Case::Batch(entries) => format!("{entries} at once"),
            Case::Elections => "elections".to_owned(),
        };
        let of = |kind: Kind| row.cores.iter().find(|(core, _)| *core == kind).map(|(_, rates)| rates);
        let shown = |kind: Kind| of(kind).map_or("–".to_owned(), |rates| spread(rates));
        let ratio = of(Kind::Trilith).zip(of(Kind::RaftRs)).map(|(ours, theirs)| median(ours) / median(theirs));
        let ratio = ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
        let (ours, theirs) = (shown(Kind::Trilith), shown(Kind::RaftRs));
        writeln!(out, "{name:<12} {ours:>32} {theirs:>32} {ratio:>10}").expect("a string takes what it is given");
    }
    out
}

fn spread(sorted: &[f64]) -> String {
    format!("{:.0} ({:.0} to {:.0})", median(sorted), sorted[0], sorted[sorted.len() - 1])
}

/// Of an even number the slower one in the middle.
fn median(sorted: &[f64]) -> f64 {
    sorted[(sorted.len() - 1) / 2]
}
