//! `trilith cluster snapshot`, and what `status` says of snapshots.

use std::pin::pin;
use std::time::Duration;

use serde::Serialize;

use super::moving::{self, ShownFetching, ShownMaking, ShownSending};
use crate::cli::Failure;
use crate::cli::access::{self, ClientArguments, Seconds, parse_timeout};
use crate::cli::output::{self, Format};
use crate::cli::progress::Meter;
use crate::client::Client;
use crate::net::{NodeRole, NodeStatus, SnapshotMade, SnapshotStatus};

/// While a snapshot is waited for, nodes are asked how far it is.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// No longer than this is one waited for that does not answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// Flags of every command that has a snapshot made.
#[derive(Debug, clap::Args)]
pub struct Snapshot {
    /// How long to wait until the leader's is durable
    #[arg(long, value_name = "SECONDS", value_parser = parse_timeout, default_value_t = Seconds(Duration::from_secs(600)))]
    wait: Seconds,
    /// How to print the answer
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
    #[command(flatten)]
    pub client: ClientArguments,
}

/// A snapshot in `-o json`.
#[derive(Serialize)]
pub struct ShownSnapshot {
    index: u64,
    term: u64,
    bytes: u64,
    milliseconds: u64,
    core_microseconds: u64,
}

/// What `status -o json` says of a node's snapshots.
#[derive(Serialize)]
pub struct ShownSnapshots {
    last: Option<ShownSnapshot>,
    making: Option<ShownMaking>,
    fetching: Option<ShownFetching>,
    sending: Vec<ShownSending>,
    failure: String,
}

impl Snapshot {
    pub fn run(&self) -> Result<(), Failure> {
        access::block_on(async {
            let made = self.ordered(&mut Meter::new()).await?;
            output::print(&match self.output {
                Format::Table => line(&made),
                Format::Json => serde_json::to_string_pretty(&shown_snapshot(made)).expect("numbers are JSON"),
            })
        })
    }

    /// Has every node make a snapshot and waits for the leader's; shows how far that is.
    pub async fn ordered(&self, meter: &mut Meter) -> Result<SnapshotMade, Failure> {
        let client = self.client.connect_for(self.wait.0).await?;
        watched(&client, meter).await
    }
}

async fn watched(client: &Client, meter: &mut Meter) -> Result<SnapshotMade, Failure> {
    let mut ordered = pin!(client.snapshot());
    loop {
        tokio::select! {
            made = &mut ordered => return made.map_err(access::failure),
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
        let statuses = tokio::select! {
            made = &mut ordered => return made.map_err(access::failure),
            statuses = client.statuses_within(ANSWER_PATIENCE) => statuses,
        };
        let leading = statuses.iter().filter_map(|(.., status)| status.as_ref().ok());
        let leading = leading.filter(|status| status.role == NodeRole::Leader).max_by_key(|status| status.term);
        if let Some((status, making)) = leading.and_then(|status| Some((status, status.snapshots.making?))) {
            meter.show(&format!("node {} writes the snapshot at {}", status.id, making.point), making.bytes, None);
        }
    }
}

pub fn shown(snapshots: &SnapshotStatus) -> ShownSnapshots {
    ShownSnapshots {
        last: snapshots.last.map(shown_snapshot),
        making: snapshots.making.map(ShownMaking::from),
        fetching: snapshots.fetching.map(ShownFetching::from),
        sending: snapshots.sending.iter().map(ShownSending::from).collect(),
        failure: snapshots.failure.clone(),
    }
}

/// What stands below a node's line in the table, a line each.
pub fn lines(status: &NodeStatus) -> Vec<String> {
    let SnapshotStatus { last, failure, .. } = &status.snapshots;
    let mut lines = Vec::new();
    lines.extend(last.as_ref().map(|made| format!("has {}", line(made))));
    lines.extend(moving::lines(status));
    lines.extend((!failure.is_empty()).then(|| format!("says of its snapshots: {failure}")));
    lines.into_iter().map(|line| format!("    node {} {line}\n", status.id)).collect()
}

fn line(made: &SnapshotMade) -> String {
    let SnapshotMade { point, bytes, milliseconds, .. } = made;
    let took = if *milliseconds > 0 { format!(", made in {milliseconds} ms") } else { String::new() };
    format!("a snapshot at {point}, {bytes} bytes{took}")
}

fn shown_snapshot(made: SnapshotMade) -> ShownSnapshot {
    let SnapshotMade { point, bytes, milliseconds, core_microseconds } = made;
    ShownSnapshot { index: point.index.0, term: point.term.0, bytes, milliseconds, core_microseconds }
}
