use std::time::Duration;

use hdrhistogram::Histogram;
use trilith::cli::Exit;

use crate::engines::Kind;
use crate::load::{Load, Seen};
use crate::run::{Measured, check_flushes};
use crate::table::{self, Round, Row};
use crate::wal::Case;

const BLOCKING: Case = Case { threads: 8, bytes: 128, in_flight: 1 };
const PIPELINED: Case = Case { threads: 2, bytes: 128, in_flight: 512 };

fn round(entries_per_s: f64) -> Round {
    let about = String::new();
    let measured = Measured {
        about,
        acknowledged: 1,
        entries_per_s,
        p50_us: 1.0,
        p99_us: 2.0,
        p999_us: 3.0,
        max_us: 4.0,
        flushes_per_s: Some(1000.0),
    };
    Round { disk_us: 80.0, measured }
}

fn row(kind: Kind, case: Case, entries_per_s: f64) -> Row {
    Row::median(kind, case, vec![round(entries_per_s)])
}

/// What eight blocking threads saw of a device that was sent so many flushes.
fn judge(entries: u64, flushes: Option<u64>) -> Result<(), Exit> {
    let mut latency = Histogram::new(3).expect("three digits are allowed");
    latency.record_n(1000, entries).expect("it grows by itself");
    let seen = Seen { time: Duration::from_secs(1), acknowledged: entries, latency, flushes };
    let load = Load { threads: 8, bytes: 128, in_flight: 1, warm_up: Duration::ZERO, time: Duration::from_secs(1) };
    check_flushes(Kind::Walrus, &load, &seen).map_err(|failure| failure.exit)
}

#[test]
fn a_flush_is_worth_no_more_than_what_was_on_its_way() {
    assert_eq!(judge(8000, Some(1000)), Ok(()));
    // One flush may have begun before the first reading of the counter.
    assert_eq!(judge(8008, Some(1000)), Ok(()));
    assert_eq!(judge(8009, Some(1000)), Err(Exit::Corrupt));
    assert_eq!(judge(8009, Some(0)), Err(Exit::Corrupt));
    // A device that does not count says nothing.
    assert_eq!(judge(8009, None), Ok(()));
}

#[test]
fn of_rounds_in_any_order_the_median_counts() {
    let rounds = [500.0, 100.0, 300.0].map(round).to_vec();
    let row = Row::median(Kind::Floor, BLOCKING, rounds);
    assert!(table::json(&[row]).contains("\"entries_per_s\": 300.0"));
}

#[test]
fn ratios_are_to_the_floor_and_to_the_best_peer_of_the_same_case() {
    let rows = [
        row(Kind::Floor, BLOCKING, 1000.0),
        row(Kind::Okaywal, BLOCKING, 400.0),
        row(Kind::Walrus, BLOCKING, 200.0),
        row(Kind::Trilith, BLOCKING, 500.0),
        row(Kind::Trilith, PIPELINED, 9000.0),
    ];
    let text = table::table(&rows);
    let columns = |nth: usize| -> Vec<&str> {
        let line = text.lines().filter(|line| line.trim().starts_with("trilith")).nth(nth);
        line.expect("one line for each row").split_whitespace().collect()
    };
    assert_eq!(columns(0)[5..7], ["0.50", "1.25"]);
    assert_eq!(columns(1)[5..7], ["–", "–"], "no floor and no peer in that case");
    let lacking = text.lines().filter(|line| line.ends_with("–") && line.trim().starts_with("okaywal")).count();
    assert_eq!(lacking, 1, "a peer without pipelining has a line that says so:\n{text}");
}

#[test]
fn a_row_for_scripts_has_these_keys_and_no_others() {
    let text = table::json(&[row(Kind::RaftEngine, PIPELINED, 10.0)]);
    let rows: Vec<serde_json::Map<String, serde_json::Value>> = serde_json::from_str(&text).expect("a list of objects");
    let mut keys: Vec<&str> = rows[0].keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["bytes", "bytes_per_s", "engine", "entries_per_s", "in_flight", "p50_us", "p99_us", "threads"]);
    assert_eq!(rows[0]["engine"], "raft-engine");
    assert_eq!(rows[0]["bytes_per_s"], 1280.0);
}
