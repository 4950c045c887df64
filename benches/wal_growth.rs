//! What a record costs in a log that grows, what a start takes of memory and time, and what records take on the disk.
//!
//! `WAL_GROWTH_RECORDS` sets the largest log, 10,000,000 by default (1.7 GB); each start is a process of its own.
//! `--test` only shows that it works.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Instant;

use trilith::cli::bench_header;
use trilith::types::{GroupId, Index};
use trilith::wal::Wal;
use trilith::wal::handle::Options;

const GROUP: GroupId = GroupId(0);
const RECORD_BYTES: usize = 128;
const BATCH: usize = 64;
const IN_FLIGHT: usize = 512;
const READS: u64 = 200;
const READ_BYTES: usize = 1 << 20;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.as_slice() {
        [_, flag, path] if flag == "--start" => start(Path::new(path)),
        _ => {
            let is_test = arguments.iter().any(|argument| argument == "--test");
            let set = std::env::var("WAL_GROWTH_RECORDS").ok().and_then(|text| text.parse().ok());
            grow(if is_test { 100_000 } else { set.unwrap_or(10_000_000) });
            space(if is_test { 10 } else { 1 });
        }
    }
}

fn grow(largest: u64) {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory can be made");
    let path = home.path().join("wal");
    let (wal, opened) = Wal::open(Options::new(&path)).expect("a log can be made");
    println!("{}", bench_header(home.path(), &opened).expect("the disk works"));
    wal.close().expect("the disk works");
    println!("records | append ns | read all ns | one read us | MiB in memory | start s | MiB at start");
    let mut records = 0;
    for milestone in [100_000, 1_000_000, 10_000_000, 25_000_000] {
        if milestone > largest {
            return;
        }
        let (wal, _) = Wal::open(Options::new(&path)).expect("a log can be made");
        let (before, begun) = (records, Instant::now());
        append(&wal, milestone - records);
        records = milestone;
        let append_ns = begun.elapsed().as_nanos() as f64 / (records - before) as f64;
        let read_ns = read_all(&wal) / records as f64;
        let one_us = read_somewhere(&wal, records);
        let memory = memory_mib("VmRSS");
        wal.close().expect("the disk works");
        let this = std::env::current_exe().expect("it runs");
        let said = std::process::Command::new(this).arg("--start").arg(&path).output().expect("it can be started");
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        let said = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        println!("{records} | {append_ns:.0} | {read_ns:.0} | {one_us:.0} | {memory} | {said}");
    }
}

/// Batches, many in flight.
fn append(wal: &Wal, records: u64) {
    let mut waiting = VecDeque::new();
    for _ in 0..records.div_ceil(BATCH as u64) {
        if waiting.len() == IN_FLIGHT {
            let oldest: trilith::wal::handle::Pending = waiting.pop_front().expect("it is not empty");
            oldest.wait().expect("the disk works");
        }
        let batch = (0..BATCH).map(|_| vec![7; RECORD_BYTES]);
        waiting.push_back(wal.append_records(GROUP, batch).expect("the log takes it"));
    }
    for pending in waiting {
        pending.wait().expect("the disk works");
    }
}

/// Nanoseconds for all records from the first on.
fn read_all(wal: &Wal) -> f64 {
    let begun = Instant::now();
    let mut next = Index::FIRST;
    let end = wal.group(GROUP).expect("something was appended").last.index.next();
    while next < end {
        let found = wal.read(GROUP, next..end, READ_BYTES).expect("it is there");
        next = found.last().expect("there is more").id.index.next();
    }
    begun.elapsed().as_nanos() as f64
}

/// Microseconds for one record, anywhere.
fn read_somewhere(wal: &Wal, records: u64) -> f64 {
    let begun = Instant::now();
    for at in 0..READS {
        let index = Index(1 + at.wrapping_mul(0x9e37_79b9_7f4a_7c15) % records);
        let found = wal.read(GROUP, index..index.next(), 1).expect("it is there");
        assert_eq!(found.len(), 1);
    }
    begun.elapsed().as_micros() as f64 / READS as f64
}

/// Opens a log; says how long it took and the most memory that was in use.
fn start(path: &Path) {
    let begun = Instant::now();
    let (wal, _) = Wal::open(Options::new(path)).expect("the log opens");
    println!("{:.2} | {}", begun.elapsed().as_secs_f64(), memory_mib("VmHWM"));
    wal.close().expect("the disk works");
}

fn memory_mib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find(|line| line.starts_with(field)).expect("Linux has it");
    let kib = line.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok()).expect("a number of KiB");
    kib >> 10
}

/// Payload bytes against bytes of frames.
fn space(divisor: usize) {
    println!("load of {RECORD_BYTES} B records | records | payload bytes | frame bytes | bytes per payload byte");
    for (load, threads, in_flight, appends) in
        [("1 thread", 1, 1, 2_000), ("64 threads", 64, 1, 300), ("2 threads, 512 in flight", 2, 512, 200_000)]
    {
        let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory can be made");
        let (wal, _) = Wal::open(Options::new(home.path().join("wal"))).expect("a log can be made");
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| singly(&wal, in_flight, appends / divisor));
            }
        });
        let counters = wal.counters();
        wal.close().expect("the disk works");
        let payload = counters.records * RECORD_BYTES as u64;
        let ratio = counters.written_bytes as f64 / payload as f64;
        println!("{load} | {} | {payload} | {} | {ratio:.2}", counters.records, counters.written_bytes);
    }
}

fn singly(wal: &Wal, in_flight: usize, appends: usize) {
    let mut waiting = VecDeque::new();
    for _ in 0..appends {
        if waiting.len() == in_flight {
            let oldest: trilith::wal::handle::Pending = waiting.pop_front().expect("it is not empty");
            oldest.wait().expect("the disk works");
        }
        waiting.push_back(wal.append_records(GROUP, [vec![7; RECORD_BYTES]]).expect("the log takes it"));
    }
    for pending in waiting {
        pending.wait().expect("the disk works");
    }
}
