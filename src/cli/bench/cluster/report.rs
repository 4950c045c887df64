//! What a run is told by: first what it depends on, then what came of it.

use std::path::Path;

use serde::Serialize;

use super::load::{Load, Measured};
use crate::cli::bench::surroundings::{BUILD, version_words};
use crate::cli::doctor;
use crate::cli::output::counted;
use crate::disk::FlushTimes;
use crate::net::NodeRole;

/// One JSON document.
#[derive(Debug, Serialize)]
pub struct Report {
    version: &'static str,
    build: &'static str,
    kernel: String,
    cores: usize,
    /// Of the bench's own cluster; of another one it is not known here.
    file_system: Option<String>,
    disk_fdatasync_microseconds: Option<f64>,
    disk_dsync_microseconds: Option<f64>,
    payload_bytes_per_record: usize,
    in_flight: usize,
    clients: usize,
    records_per_batch: usize,
    seconds: f64,
    records: u64,
    records_per_second: f64,
    payload_bytes_per_second: f64,
    p50_microseconds: f64,
    p99_microseconds: f64,
    p99_9_microseconds: f64,
    max_microseconds: f64,
    nodes: Vec<Node>,
}

/// A node's part, counted by itself at the completion of each flush.
#[derive(Debug, Serialize)]
struct Node {
    id: u64,
    is_leader: bool,
    io: String,
    sync_mode: String,
    flushes: u64,
    flushes_per_second: f64,
    records_per_flush: f64,
    disk_bytes_per_record: f64,
}

impl Report {
    pub fn new(directory: &Path, load: &Load, flush: Option<FlushTimes>, measured: Measured) -> Report {
        let seconds = measured.time.as_secs_f64();
        let quantile = |quantile| measured.latency.value_at_quantile(quantile) as f64 / 1000.0;
        let micro = |time: std::time::Duration| time.as_nanos() as f64 / 1000.0;
        let records_per_second = measured.records as f64 / seconds;
        Report {
            version: env!("CARGO_PKG_VERSION"),
            build: BUILD,
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            file_system: flush.as_ref().map(|_| doctor::file_system(directory)),
            disk_fdatasync_microseconds: flush.as_ref().map(|flush| micro(flush.fdatasync)),
            disk_dsync_microseconds: flush.as_ref().map(|flush| micro(flush.dsync)),
            payload_bytes_per_record: load.bytes,
            in_flight: load.in_flight,
            clients: load.clients,
            records_per_batch: load.batch,
            seconds,
            records: measured.records,
            records_per_second,
            payload_bytes_per_second: records_per_second * load.bytes as f64,
            p50_microseconds: quantile(0.5),
            p99_microseconds: quantile(0.99),
            p99_9_microseconds: quantile(0.999),
            max_microseconds: measured.latency.max() as f64 / 1000.0,
            nodes: nodes(&measured, seconds),
        }
    }

    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers and strings are JSON")
    }

    pub fn table(&self) -> String {
        let file_system = self.file_system.as_deref().unwrap_or("the cluster's own disks");
        let mut lines = vec![format!(
            "trilith     {}, Linux {}, {}, {file_system}",
            version_words(),
            self.kernel,
            counted(self.cores as u64, "core")
        )];
        if let (Some(fdatasync), Some(dsync)) = (self.disk_fdatasync_microseconds, self.disk_dsync_microseconds) {
            lines.push(format!(
                "disk alone  fdatasync {fdatasync:.1} us, dsync {dsync:.1} us (one written block, median)"
            ));
        }
        lines.push(format!(
            "load        {} of {} bytes in flight, {}, {} a request, {:.1} s",
            counted(self.in_flight as u64, "record"),
            self.payload_bytes_per_record,
            counted(self.clients as u64, "client"),
            self.records_per_batch,
            self.seconds
        ));
        lines.push(format!(
            "throughput  {:.0} records/s, {:.1} MiB/s",
            self.records_per_second,
            self.payload_bytes_per_second / f64::from(1 << 20)
        ));
        lines.push(format!(
            "latency     p50 {:.0} us, p99 {:.0} us, p99.9 {:.0} us, max {:.0} us",
            self.p50_microseconds, self.p99_microseconds, self.p99_9_microseconds, self.max_microseconds
        ));
        for node in &self.nodes {
            lines.push(format!(
                "node {:<6} {}{}, {}: {:.0} flushes/s, {:.1} records each, {:.0} bytes on disk a record",
                node.id,
                if node.is_leader { "leader, " } else { "" },
                node.io,
                node.sync_mode,
                node.flushes_per_second,
                node.records_per_flush,
                node.disk_bytes_per_record
            ));
        }
        lines.join("\n")
    }
}

fn nodes(measured: &Measured, seconds: f64) -> Vec<Node> {
    let both = measured.nodes.iter().filter_map(|(before, after)| before.as_ref().zip(after.as_ref()));
    both.map(|(before, after)| {
        let flushes = after.flushes.saturating_sub(before.flushes);
        let records = after.records.saturating_sub(before.records);
        let bytes = after.record_bytes.saturating_sub(before.record_bytes);
        Node {
            id: after.id.0,
            is_leader: after.role == NodeRole::Leader,
            io: after.io.clone(),
            sync_mode: after.sync_mode.clone(),
            flushes,
            flushes_per_second: flushes as f64 / seconds,
            records_per_flush: records as f64 / flushes.max(1) as f64,
            disk_bytes_per_record: bytes as f64 / records.max(1) as f64,
        }
    })
    .collect()
}
