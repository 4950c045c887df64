//! Three nodes as processes on this machine and a client in this one: what a record costs from the client's call to the
//! acknowledgement of a majority, flushed. `trilith bench cluster` measures the same under load, with quantiles.

mod connect;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use connect::connect;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use trilith::cli::local::{LocalCluster, LocalOptions};
use trilith::limits::SEGMENT_BYTES_DEFAULT;

const PATIENCE: Duration = Duration::from_secs(60);
const RECORD_BYTES: usize = 128;

fn replicate(criterion: &mut Criterion) {
    let home = tempfile::tempdir_in(".").expect("a directory can be made here");
    let options = LocalOptions { nodes: 3, segment_bytes: SEGMENT_BYTES_DEFAULT, io: None };
    let program = Path::new(env!("CARGO_BIN_EXE_trilith"));
    let mut cluster =
        LocalCluster::prepare(&home.path().join("cluster"), program, &options).expect("files can be made");
    cluster.start_all(PATIENCE).expect("the nodes serve");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let configuration = cluster.client().expect("client.toml was made");
    let client = runtime.block_on(connect(&configuration, PATIENCE));
    let mut group = criterion.benchmark_group("replicate");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for records in [1usize, 64, 1024] {
        let batch = vec![Bytes::from(vec![b'x'; RECORD_BYTES]); records];
        group.throughput(Throughput::Elements(records as u64));
        group.bench_with_input(BenchmarkId::new("append", records), &batch, |bencher, batch| {
            bencher.iter(|| {
                let appended = runtime.block_on(client.append_batch(batch.clone()));
                assert_eq!(appended.expect("a majority is up").len(), batch.len());
            });
        });
    }
    group.finish();
    drop(client);
    cluster.stop_all(PATIENCE).expect("the nodes end when asked to");
}

criterion_group!(benches, replicate);
criterion_main!(benches);
