//! `trilith bench cluster --snapshot`: what it costs commits that all nodes make a snapshot of a large state.
//!
//! ```text
//!   fill ──▶ without ──▶ with ──▶ without ──▶ with ──▶ … ──▶ without        clients in a closed loop all the while
//!                        │  ordered, until the last node's is durable
//! ```
//!
//! What is with a snapshot is compared with what is without just before and just after, round by round, since a machine is
//! not as fast in one minute as in the next. The state is a map of large values that stay as they are, and among their
//! keys small ones that are overwritten all the time: so the tree is changed everywhere, and its size stays. The log is
//! trimmed after each round.

mod load;
mod memory;
mod report;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use super::Arguments as ClusterArguments;
use crate::cli::access;
use crate::cli::configuration::ClientConfiguration;
use crate::cli::dev::PATIENCE;
use crate::cli::exit::{Exit, Failure};
use crate::cli::local::LocalCluster;
use crate::cli::output::{self, Format};
use crate::client::Client;
use crate::limits::{SNAPSHOT_BYTES_PER_SECOND_DEFAULT, SNAPSHOT_BYTES_PER_SECOND_MAX, SNAPSHOT_BYTES_PER_SECOND_MIN};
use crate::net::{Change, NodeStatus, SnapshotMade};
use load::{Lanes, Phase, State};
use memory::Memory;
use report::{Node, Report, Round};

/// Between two looks at the nodes.
const LOOK: Duration = Duration::from_millis(100);
/// Beside what the rate allows, all nodes' snapshots together take no longer than this.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(300);

#[derive(Clone, Debug, clap::Args)]
pub struct SnapshotArguments {
    /// Measure what making snapshots costs, in a cluster of the bench's own: takes a few times `--state-mib` of disk for
    /// each node, and the state and a little more of memory
    #[arg(long)]
    pub snapshot: bool,
    /// Size of the state of which snapshots are made
    #[arg(long, requires = "snapshot", value_name = "MIB", default_value = "1024",
        value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub state_mib: u32,
    /// How often a snapshot is made; `--seconds` is the time without one before and after each
    #[arg(long, requires = "snapshot", value_name = "COUNT", default_value = "3",
        value_parser = clap::value_parser!(u16).range(1..=100))]
    pub rounds: u16,
    /// How fast each node writes its snapshot
    #[arg(long, requires = "snapshot", value_name = "BYTES", default_value_t = SNAPSHOT_BYTES_PER_SECOND_DEFAULT,
        value_parser = clap::value_parser!(u64).range(SNAPSHOT_BYTES_PER_SECOND_MIN..=SNAPSHOT_BYTES_PER_SECOND_MAX))]
    pub snapshot_bytes_per_second: u64,
}

/// Measures, and prints what came of it.
pub fn run(arguments: &ClusterArguments) -> Result<(), Failure> {
    if arguments.client.names_cluster() {
        return Err(Failure::new(
            Exit::Usage,
            "a state for a measurement would be put into a cluster that is there".to_owned(),
            "leave --client and TRILITH_CLIENT out: with --snapshot the bench makes a cluster of its own",
        ));
    }
    let report = measure(arguments)?;
    output::print(&match arguments.output {
        Format::Table => report.table(),
        Format::Json => report.json(),
    })
}

fn measure(arguments: &ClusterArguments) -> Result<Report, Failure> {
    let (in_flight, clients) = super::in_flight(arguments)?;
    let state = State::of(u64::from(arguments.snapshot.state_mib) << 20, arguments.bytes as usize);
    let (place, mut cluster) = super::own_cluster(arguments)?;
    // When they are made is for the bench to say.
    cluster.configure("snapshot_entries", 0)?;
    cluster.configure("snapshot_bytes", 0)?;
    cluster.configure("snapshot_bytes_per_second", arguments.snapshot.snapshot_bytes_per_second)?;
    let flush = super::flush_times(&place.path)?;
    cluster.start_all(PATIENCE)?;
    let rounds = access::block_on(rounds(arguments, &cluster, state, in_flight, clients))?;
    cluster.stop_all(PATIENCE)?;
    Ok(Report::new(arguments, state, (in_flight, clients), &flush, rounds))
}

/// What is asked and told beside the load.
struct Bench {
    admin: Client,
    lanes: Lanes,
    without: Duration,
    patience: Duration,
}

async fn rounds(
    arguments: &ClusterArguments,
    cluster: &LocalCluster,
    state: State,
    in_flight: usize,
    clients: usize,
) -> Result<Vec<Round>, Failure> {
    let admin = ClientConfiguration::load(&cluster.admin_file())?;
    let writing_seconds = state.bytes * arguments.nodes / arguments.snapshot.snapshot_bytes_per_second;
    let patience = SNAPSHOT_PATIENCE + 4 * Duration::from_secs(writing_seconds);
    let admin = access::connect(&admin, patience).await?;
    let mut connected = Vec::new();
    for _ in 0..clients {
        connected.push(access::connect(&cluster.client()?, load::TIMEOUT).await?);
    }
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            state.fill(&connected).await?;
            let lanes = Lanes::start(&connected, state, in_flight);
            let without = Duration::from_secs(u64::from(arguments.seconds));
            let bench = Bench { admin, lanes, without, patience };
            let rounds = bench.rounds(usize::from(arguments.snapshot.rounds)).await;
            // A load that failed says more than what it made fail.
            bench.lanes.end().await.and(rounds)
        })
        .await
}

impl Bench {
    async fn rounds(&self, count: usize) -> Result<Vec<Round>, Failure> {
        // Not counted: the first seconds of a load.
        self.phase(self.without.min(Duration::from_secs(2))).await?;
        let (mut before, mut memory_before) = self.without().await?;
        let mut rounds = Vec::with_capacity(count);
        for _ in 0..count {
            let mut memory = Memory::of(&self.statuses().await);
            self.lanes.begin();
            let made = self.snapshot(&mut memory).await?;
            let with = self.lanes.take()?;
            self.trim().await?;
            let (after, memory_after) = self.without().await?;
            let nodes = made.into_iter().map(|(id, made)| Node {
                id: id.0,
                milliseconds: made.milliseconds,
                core_microseconds: made.core_microseconds,
                bytes: made.bytes,
                memory_before: memory_before.most(id),
                memory_during: memory.most(id),
            });
            rounds.push(Round { before, with, after: after.clone(), nodes: nodes.collect() });
            (before, memory_before) = (after, memory_after);
        }
        Ok(rounds)
    }

    async fn without(&self) -> Result<(Phase, Memory), Failure> {
        let mut memory = Memory::of(&self.statuses().await);
        self.lanes.begin();
        let end = Instant::now() + self.without;
        while Instant::now() < end {
            tokio::time::sleep(LOOK.min(end.saturating_duration_since(Instant::now()))).await;
            memory.look()?;
        }
        Ok((self.lanes.take()?, memory))
    }

    async fn phase(&self, time: Duration) -> Result<Phase, Failure> {
        self.lanes.begin();
        tokio::time::sleep(time).await;
        self.lanes.take()
    }

    /// From the order until the last node's is durable, and what it made superfluous is gone.
    async fn snapshot(&self, memory: &mut Memory) -> Result<Vec<(crate::types::NodeId, SnapshotMade)>, Failure> {
        let admin = self.admin.clone();
        let ordered = tokio::task::spawn_local(async move { admin.snapshot().await });
        let deadline = Instant::now() + self.patience;
        while !ordered.is_finished() {
            self.lanes.check()?;
            memory.look()?;
            tokio::time::sleep(LOOK).await;
        }
        let point = ordered.await.map_err(panicked)?.map_err(access::failure)?.point;
        loop {
            let statuses = self.statuses().await;
            let made: Vec<_> = statuses.iter().filter_map(|status| Some((status.id, status.snapshots.last?))).collect();
            if made.len() == memory.nodes() && made.iter().all(|(_, made)| made.point >= point) {
                tokio::time::sleep(Duration::from_secs(1)).await;
                return Ok(made);
            }
            if let Some(status) = statuses.iter().find(|status| !status.snapshots.failure.is_empty()) {
                let message = format!("node {}: {}", status.id, status.snapshots.failure);
                return Err(Failure::new(Exit::Other, message, "do what it says, and run this again"));
            }
            if Instant::now() > deadline {
                let message = format!("not all nodes have made the snapshot at {point} in {:?}", self.patience);
                return Err(Failure::new(Exit::Unavailable, message, "see the nodes' logs"));
            }
            self.lanes.check()?;
            memory.look()?;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Nothing of the log is needed any more: the disk is not to be filled by a measurement.
    async fn trim(&self) -> Result<(), Failure> {
        let last = self.statuses().await.iter().map(|status| status.commit).max().unwrap_or_default();
        self.admin.change(Change::Trim { first: last }).await.map_err(access::failure).map(drop)
    }

    async fn statuses(&self) -> Vec<NodeStatus> {
        self.admin.statuses().await.into_iter().filter_map(|(_, _, status)| status.ok()).collect()
    }
}

fn panicked(error: tokio::task::JoinError) -> Failure {
    Failure::new(Exit::Other, format!("a task of the bench ended: {error}"), "report this: it cannot happen")
}
