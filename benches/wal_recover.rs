//! What recovery reads: every frame of a log of 64 MiB, with its checksums.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use trilith::disk::Directory;
use trilith::types::{GroupId, Place};
use trilith::wal::handle::{LOG_DIRECTORY, Options};
use trilith::wal::{Analysis, Source, Wal};

const GROUP: GroupId = GroupId(0);
const LOG_BYTES: usize = 64 << 20;
const RECORD_BYTES: usize = 1024;
const BATCH: usize = 256;

fn recover(criterion: &mut Criterion) {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory can be made");
    let path = home.path().join("wal");
    let (wal, _) = Wal::open(Options::new(&path)).expect("a log can be made");
    for _ in 0..LOG_BYTES / (RECORD_BYTES * BATCH) {
        let batch = (0..BATCH).map(|_| vec![7; RECORD_BYTES]);
        drop(wal.append_records(GROUP, batch).expect("the log takes it"));
    }
    wal.close().expect("the disk works");
    let source =
        Source { directory: LOG_DIRECTORY.to_owned(), identity: None, evidence: Place::START, exclusive: false };
    let mut group = criterion.benchmark_group("wal_recover");
    group.throughput(Throughput::Bytes(LOG_BYTES as u64));
    group.bench_function("64 MiB", |bencher| {
        bencher.iter(|| {
            let directory = Directory::open(&path).expect("it was made above");
            let analysis = Analysis::read(&directory, &source).expect("the disk works");
            assert!(analysis.damage().is_none());
            black_box(analysis.end)
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(std::time::Duration::from_secs(3));
    targets = recover
}
criterion_main!(benches);
