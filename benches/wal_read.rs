//! Reads on a real disk: full segments in order, the tail from memory and from the disk, and one record by its index.

use std::hint::black_box;
use std::path::Path;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use trilith::cli::bench_header;
use trilith::types::{GroupId, Index};
use trilith::wal::{Wal, handle::Options};

const GROUP: GroupId = GroupId(0);
const RECORD_BYTES: usize = 1024;
/// Records in one append.
const BATCH: u64 = 64;
/// Four segments and more: the last is in use.
const RECORDS: u64 = 5 * (64 << 20) / RECORD_BYTES as u64;
const READ_BYTES: usize = 1 << 20;
/// What the tail cache has when it is on.
const TAIL_RECORDS: u64 = 8192;

fn filled(path: &Path, tail_cache_bytes: usize) -> Wal {
    let options = Options { tail_cache_bytes, ..Options::new(path) };
    let (wal, opened) = Wal::open(options).expect("a log can be made");
    println!("{}", bench_header(path.parent().expect("it has one"), &opened).expect("the disk works"));
    for _ in 0..RECORDS / BATCH {
        drop(wal.append_records(GROUP, (0..BATCH).map(|_| vec![7; RECORD_BYTES])).expect("the log takes it"));
    }
    wal.flush().wait().expect("the disk works");
    wal
}

/// Where the next read begins: over and over through a part of the log.
struct Walk {
    range: std::ops::Range<u64>,
    at: u64,
    stride: u64,
}

impl Walk {
    fn new(range: std::ops::Range<u64>, stride: u64) -> Walk {
        Walk { at: range.start, range, stride }
    }

    fn step(&mut self) -> Index {
        let at = self.at;
        self.at += self.stride;
        if self.at + self.stride > self.range.end {
            self.at = self.range.start + (self.at + self.stride - self.range.end) % 7;
        }
        Index(at)
    }
}

fn read(criterion: &mut Criterion) {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory can be made");
    let mut group = criterion.benchmark_group("wal_read");
    let sealed = 1..RECORDS / 2;
    let tail = RECORDS - TAIL_RECORDS..RECORDS;
    // A read of this many records fills its limit.
    let records = (READ_BYTES / (RECORD_BYTES + 64)) as u64;
    let cases = [
        ("full segments, 1 MiB", 0, sealed.clone(), records, READ_BYTES),
        ("full segments, one record", 0, sealed, 977, 1),
        ("tail on disk, 64 KiB", 0, tail.clone(), 60, 64 << 10),
        ("tail on disk, one record", 0, tail.clone(), 977, 1),
        ("tail in memory, 64 KiB", 64 << 20, tail.clone(), 60, 64 << 10),
        ("tail in memory, one record", 64 << 20, tail, 977, 1),
    ];
    let mut open: Option<(usize, Wal)> = None;
    for (name, tail_cache_bytes, range, stride, bytes_max) in cases {
        if open.as_ref().is_none_or(|(bytes, _)| *bytes != tail_cache_bytes) {
            let wal = filled(&home.path().join(tail_cache_bytes.to_string()), tail_cache_bytes);
            if let Some((_, before)) = open.replace((tail_cache_bytes, wal)) {
                before.close().expect("the disk works");
            }
        }
        let (_, wal) = open.as_ref().expect("it was opened above");
        let mut walk = Walk::new(range, stride);
        group.throughput(Throughput::Bytes((bytes_max.div_ceil(RECORD_BYTES + 64) * RECORD_BYTES) as u64));
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || walk.step(),
                |from| {
                    let read = wal.read(GROUP, from..Index(RECORDS + 1), bytes_max).expect("it is intact");
                    assert!(!read.is_empty());
                    black_box(read)
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
    if let Some((_, wal)) = open {
        wal.close().expect("the disk works");
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(3));
    targets = read
}
criterion_main!(benches);
