//! One append and its flush on a real disk: a lone record, a batch, a large record.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use trilith::cli::bench_header;
use trilith::types::{GroupId, LogId};
use trilith::wal::{Wal, handle::Options};

const GROUP: GroupId = GroupId(0);
/// Appends after which what lies before goes, so that the disk does not fill.
const APPENDS_PER_PURGE: u64 = 1000;

fn append(criterion: &mut Criterion) {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory can be made");
    let (wal, opened) = Wal::open(Options::new(home.path().join("wal"))).expect("a log can be made");
    println!("{}", bench_header(home.path(), &opened).expect("the disk works"));
    let mut group = criterion.benchmark_group("wal_append");
    for (name, records, bytes) in [("128", 1, 128), ("64x128", 64, 128), ("16384", 1, 16_384)] {
        group.throughput(Throughput::Bytes((records * bytes) as u64));
        let record = vec![7u8; bytes];
        let mut appends = 0;
        group.bench_with_input(BenchmarkId::from_parameter(name), &records, |bencher, &records| {
            bencher.iter(|| {
                let batch = (0..records).map(|_| record.clone());
                let pending = wal.append_records(GROUP, batch).expect("the log takes it");
                appends += 1;
                if appends % APPENDS_PER_PURGE == 0 {
                    purge(&wal);
                }
                black_box(pending.wait().expect("the disk works"))
            });
        });
    }
    group.finish();
    wal.close().expect("the disk works");
}

fn purge(wal: &Wal) {
    let last: LogId = wal.group(GROUP).expect("something was appended").last;
    drop(wal.purge_prefix(GROUP, last).expect("the log takes it"));
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(3));
    targets = append
}
criterion_main!(benches);
