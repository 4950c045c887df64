//! What recovery reads: every frame of a log, with its checksums, beside what the disk gives to a plain sequential read
//! of the same files. Taken in turn, so that a slow hour of the disk shows in both.
//!
//! `WAL_RECOVER_MIB` sets the size of each log, 512 by default; `--test` only shows that it works.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use rustix::fs::{Mode, OFlags};
use trilith::cli::bench_header;
use trilith::disk::{Buffer, Directory};
use trilith::types::GroupId;
use trilith::wal::handle::{LOG_DIRECTORY, Options};
use trilith::wal::{Analysis, Source, Wal};

const GROUP: GroupId = GroupId(0);
const BATCH: usize = 1024;
const ROUNDS: usize = 7;
/// What the plain read asks for at once: the better of the two counts.
const READ_BYTES: [usize; 2] = [1 << 20, 4 << 20];

fn main() {
    let is_test = std::env::args().any(|argument| argument == "--test");
    let set = std::env::var("WAL_RECOVER_MIB").ok().and_then(|mib| mib.parse().ok());
    let (mib, rounds) = if is_test { (8, 1) } else { (set.unwrap_or(512), ROUNDS) };
    let mut criterion =
        Criterion::default().sample_size(10).measurement_time(Duration::from_secs(5)).configure_from_args();
    for record_bytes in [128, 1024] {
        let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory can be made");
        let path = home.path().join("wal");
        fill(&path, record_bytes, mib << 20);
        let bytes = measure(&path, record_bytes, rounds);
        scan(&mut criterion, &path, record_bytes, bytes);
    }
    criterion.final_summary();
}

/// The scan by itself, for criterion to compare with what it was before.
fn scan(criterion: &mut Criterion, path: &Path, record_bytes: usize, bytes: u64) {
    let mut group = criterion.benchmark_group("wal_recover");
    group.throughput(Throughput::Bytes(bytes));
    group.bench_function(BenchmarkId::new("scan", record_bytes), |bencher| {
        bencher.iter(|| black_box(analyse(path)));
    });
    group.finish();
}

/// The scan beside the disk, in turn; gives the bytes of the log.
fn measure(path: &Path, record_bytes: usize, rounds: usize) -> u64 {
    let (mut disk, mut scan, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut bytes, mut records) = (0, 0);
    for _ in 0..rounds {
        let plain = READ_BYTES.map(|at_once| read_plainly(&path.join(LOG_DIRECTORY), at_once));
        let plain = if plain[0].1 < plain[1].1 { plain[0] } else { plain[1] };
        let start = Instant::now();
        records = analyse(path);
        let seconds = start.elapsed().as_secs_f64();
        bytes = plain.0;
        disk.push(bytes as f64 / plain.1 / 1e9);
        scan.push(bytes as f64 / seconds / 1e9);
        ratios.push(plain.1 / seconds);
    }
    let scan = median(scan);
    let per_record = bytes as f64 / scan / records as f64;
    let (disk, ratio) = (median(disk), median(ratios));
    println!("record bytes | MiB | disk GB/s | scan GB/s | scan / disk | ns per record   (medians of {rounds} rounds)");
    println!("{record_bytes:12} | {:3} | {disk:9.2} | {scan:9.2} | {ratio:11.2} | {per_record:.0}", bytes >> 20);
    bytes
}

fn fill(path: &Path, record_bytes: usize, log_bytes: usize) {
    let (wal, opened) = Wal::open(Options::new(path)).expect("a log can be made");
    println!("{}", bench_header(path.parent().expect("it has one"), &opened).expect("the disk works"));
    for _ in 0..log_bytes / (record_bytes * BATCH) {
        let batch = (0..BATCH).map(|_| vec![7; record_bytes]);
        drop(wal.append_records(GROUP, batch).expect("the log takes it"));
    }
    wal.close().expect("the disk works");
}

/// Reads the log; gives its number of records.
fn analyse(path: &Path) -> u64 {
    let source = Source::from_outside(LOG_DIRECTORY);
    let directory = Directory::open(path).expect("it was made above");
    let analysis = Analysis::read(&directory, &source).expect("the disk works");
    assert!(analysis.damage().is_none());
    analysis.chain.iter().map(|segment| segment.records).sum()
}

/// Bytes of all segments, those that stand ready among them, which recovery reads too; and the seconds that one `pread`
/// after another takes for them, past the page cache.
fn read_plainly(directory: &Path, at_once: usize) -> (u64, f64) {
    let mut buffer = Buffer::zeroed(at_once);
    let start = Instant::now();
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory).expect("it was made above") {
        let path = entry.expect("it can be listed").path();
        let file = rustix::fs::open(&path, OFlags::RDONLY | OFlags::DIRECT, Mode::empty()).expect("it can be opened");
        let mut at = 0;
        loop {
            let count = rustix::io::pread(&file, &mut buffer[..], at).expect("the disk works");
            if count == 0 {
                break;
            }
            at += count as u64;
        }
        bytes += at;
    }
    (bytes, start.elapsed().as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
