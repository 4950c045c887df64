//! `trilith snapshot export`: a backup of a cluster that runs.
//!
//! ```text
//!   order a snapshot, or take the newest ──▶ its point ──▶ chunks, from whichever node has it ──▶ DIR/snapshot-...
//! ```
//!
//! The same command again goes on where an earlier one was broken off, as long as a node has that snapshot.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::builder::RangedU64ValueParser;
use serde::Serialize;

use super::locked::Locked;
use super::{failure_of_snapshot, reading};
use crate::cli::access;
use crate::cli::cluster::snapshots::Snapshot;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output;
use crate::cli::progress::Meter;
use crate::client::Client;
use crate::disk::Files;
use crate::limits::{
    SNAPSHOT_BYTES_PER_SECOND_MAX, SNAPSHOT_BYTES_PER_SECOND_MIN, SNAPSHOT_FETCH_BYTES_PER_SECOND_DEFAULT,
};
use crate::net::{Identity, NodeRole, NodeStatus};
use crate::node::run::fetching::{Export, FetchError, FetchOptions};
use crate::node::transfer::Unfit;
use crate::snapshot::{self, Condition, Found, Manifest, Receiver, Stage};
use crate::types::{ClusterId, GroupId, LogId, NodeId};

/// While nothing comes, the nodes are looked at anew after so long, and it is given up after so long.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(60);
/// Who has not said anything for so long is asked last: a node that is gone costs no more than this, however many are.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);
const SHOW_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The directory of the backup: not there yet, or empty, or what an export has left that was broken off
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
    /// Take the newest snapshot that the cluster has, instead of ordering one: what was written since is not in it
    #[arg(long)]
    newest: bool,
    /// Fetch no faster than this
    #[arg(long, value_name = "BYTES", default_value_t = SNAPSHOT_FETCH_BYTES_PER_SECOND_DEFAULT, value_parser = rate())]
    bytes_per_second: u64,
    #[command(flatten)]
    order: Snapshot,
}

/// What was fetched, as it goes into the JSON document.
#[derive(Serialize)]
struct Answer {
    directory: String,
    name: String,
    cluster: String,
    index: u64,
    term: u64,
    bytes: u64,
    chunks: u32,
    /// Those that were sent for this; the others had come by an earlier export.
    chunks_received: u64,
    contains: &'static str,
    lacks: &'static str,
}

const CONTAINS: &str = "the key-value map, the sessions, and who the members were, as of that entry";
const LACKS: &str = "records that were appended (`trilith log`): they are in the log alone";

/// Where it goes.
struct Target {
    locked: Locked,
    /// What an earlier export has left.
    begun: Option<Manifest>,
}

type Node = (NodeId, SocketAddr, Option<NodeStatus>);

fn rate() -> RangedU64ValueParser<u64> {
    clap::value_parser!(u64).range(SNAPSHOT_BYTES_PER_SECOND_MIN..=SNAPSHOT_BYTES_PER_SECOND_MAX)
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let identity = access::identity(&arguments.order.client.configuration()?)?;
    // Before a snapshot is ordered: to find out afterwards that there is no place for it would be a pity.
    let locked = Locked::take(&arguments.directory)?;
    let mut target = match look(arguments, &locked, identity.name().cluster) {
        Ok(begun) => Target { locked, begun },
        Err(failure) => {
            locked.give_up();
            return Err(failure);
        }
    };
    let exported = access::block_on(target.fill(arguments, &identity));
    match exported {
        Ok(told) => output::print(&told),
        Err(failure) => {
            target.locked.give_up();
            Err(failure)
        }
    }
}

/// What is there of a snapshot that was begun. Nothing may be written over.
fn look(arguments: &Arguments, locked: &Locked, cluster: ClusterId) -> Result<Option<Manifest>, Failure> {
    let (files, shown) = (&locked.files, arguments.directory.display());
    let listing = snapshot::list(files, None).map_err(|error| failure_of_snapshot(&error))?;
    let unfinished = |stage: Stage| {
        let is_of = move |found: &&Found| matches!(&found.condition, Condition::Unfinished(of) if *of == stage);
        listing.found.iter().filter(is_of)
    };
    let ours: Vec<&str> =
        unfinished(Stage::Receiving).chain(unfinished(Stage::Removing)).map(|found| found.name.as_str()).collect();
    let names = files.list("").map_err(|error| reading::disk_failure(&error))?;
    if let Some(other) = names.iter().find(|name| !ours.contains(&name.as_str())) {
        return Err(Failure::new(
            Exit::Usage,
            format!("{shown} is not empty: it holds {other}"),
            match listing.whole(GroupId::CLUSTER).next_back() {
                Some(_) => format!(
                    "that is a whole snapshot (`trilith snapshot verify {shown}`), and stays as it is: for another backup \
                     name a directory that is not there yet"
                ),
                None => "name a directory that is not there yet: a backup is never written over something".to_owned(),
            },
        ));
    }
    for found in unfinished(Stage::Removing) {
        snapshot::remove(files, &found.name).map_err(|error| failure_of_snapshot(&error))?;
    }
    let begun = match unfinished(Stage::Receiving).next_back() {
        Some(found) => Receiver::begun(files, found.group, found.point).map_err(|error| failure_of_snapshot(&error))?,
        None => None,
    };
    match begun.as_ref().map(|manifest| manifest.description.cluster).filter(|found| *found != cluster) {
        None => Ok(begun),
        Some(found) => Err(Failure::new(
            Exit::WrongIdentity,
            format!("{shown} holds a part of a backup of cluster {found}, and this is cluster {cluster}"),
            "name another directory",
        )),
    }
}

impl Target {
    /// Fetches the snapshot that it is to be, and gives what there is to tell.
    async fn fill(&mut self, arguments: &Arguments, identity: &Identity) -> Result<String, Failure> {
        // No leader is needed for what is there already.
        let client = arguments.order.client.start()?;
        let mut meter = Meter::new();
        let options = FetchOptions {
            bytes_per_second: arguments.bytes_per_second,
            patience: LOOK_INTERVAL,
            ..FetchOptions::new(identity.name().cluster)
        };
        loop {
            let point = self.point(arguments, &client, &mut meter).await?;
            let export = Export::new(&self.locked.files, identity, options);
            match fetch(&export, &client, point, &mut meter).await {
                Ok(manifest) => return Ok(answer(arguments, &manifest, &export)),
                Err(error) if self.begun.is_some() && is_gone(&error) => {
                    meter.say(&format!("no node has the snapshot at {point} any more: it begins anew"));
                    self.begun = None;
                }
                Err(error) => return Err(failure(&error)),
            }
        }
    }

    /// Which snapshot it is to be.
    async fn point(&self, arguments: &Arguments, client: &Client, meter: &mut Meter) -> Result<LogId, Failure> {
        if let Some(begun) = &self.begun {
            let point = begun.description.point;
            meter.say(&format!(
                "goes on with the snapshot at {point} that an earlier export has begun: what was written since is not in \
                 it (remove {} to begin anew)",
                arguments.directory.display()
            ));
            return Ok(point);
        }
        if !arguments.newest {
            return Ok(arguments.order.ordered(meter).await?.point);
        }
        newest(&nodes(client, LogId::ZERO).await, meter)
    }
}

/// The newest snapshot of those who have answered. Of the others it is said that nothing is known.
fn newest(nodes: &[Node], meter: &Meter) -> Result<LogId, Failure> {
    let patience = ANSWER_PATIENCE;
    for (node, address, _) in nodes.iter().filter(|(.., status)| status.is_none()) {
        meter.say(&format!(
            "node {node} at {address} has not answered within {patience:?}: it may have a newer snapshot"
        ));
    }
    let last = |(.., status): &Node| status.as_ref()?.snapshots.last.map(|made| made.point);
    nodes.iter().filter_map(last).max_by_key(|point| point.index).ok_or_else(|| {
        let (message, next) = match nodes.iter().any(|(.., status)| status.is_some()) {
            true => ("no node that answers has a snapshot".to_owned(), "leave --newest out: then one is ordered"),
            false => (
                format!("no node has answered within {patience:?}: which snapshot is the newest is not known"),
                "check that the nodes run and are reached: `trilith cluster status` tells of each why it does not answer",
            ),
        };
        Failure::new(Exit::Unavailable, message, next)
    })
}

/// From whichever node has it, for as long as it comes or may come.
async fn fetch(export: &Export<'_>, client: &Client, point: LogId, meter: &mut Meter) -> Result<Manifest, FetchError> {
    let (mut received, mut news) = (0, Instant::now());
    loop {
        let nodes = nodes(client, point).await;
        let addresses: Vec<(NodeId, SocketAddr)> = nodes.iter().map(|(node, address, _)| (*node, *address)).collect();
        let error = match shown(export, point, &addresses, meter).await {
            Err(error @ (FetchError::Nowhere { .. } | FetchError::Stuck { .. })) => error,
            ended => return ended,
        };
        if export.chunks_received() > received {
            (received, news) = (export.chunks_received(), Instant::now());
        }
        // The others make it later than the leader; who does not answer may be back soon.
        let may_have_it = |(.., status): &Node| status.as_ref().is_none_or(|status| !is_past(status, point));
        let is_over = match &error {
            FetchError::Nowhere { .. } => !nodes.iter().any(may_have_it),
            // Whoever has it restarts, or sends to another administrator, or the network is gone.
            _ => false,
        };
        if news.elapsed() >= PATIENCE || is_over {
            return Err(error.after(PATIENCE));
        }
        meter.say(&format!("{error}; looking again"));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn shown(
    export: &Export<'_>,
    point: LogId,
    nodes: &[(NodeId, SocketAddr)],
    meter: &mut Meter,
) -> Result<Manifest, FetchError> {
    let mut bringing = std::pin::pin!(export.bring(GroupId::CLUSTER, point, nodes));
    loop {
        tokio::select! {
            ended = &mut bringing => return ended,
            () = tokio::time::sleep(SHOW_INTERVAL) => {}
        }
        if let Some(progress) = export.progress().filter(|progress| progress.bytes > 0) {
            let what = format!("snapshot at {point} from node {}", progress.from);
            meter.show(&what, progress.bytes_here, Some(progress.bytes));
        }
    }
}

/// All nodes: first who has it, the leader first among those, and last who does not answer.
async fn nodes(client: &Client, point: LogId) -> Vec<Node> {
    let statuses = client.statuses_within(ANSWER_PATIENCE).await.into_iter();
    let mut nodes: Vec<Node> = statuses.map(|(node, address, status)| (node, address, status.ok())).collect();
    nodes.sort_by_key(|(_, _, status)| match status {
        Some(status) => (!is_past(status, point), status.role != NodeRole::Leader, false),
        None => (true, true, true),
    });
    nodes
}

/// A node's newest snapshot is this one, or a newer one: it has it, or does not make it any more.
fn is_past(status: &NodeStatus, point: LogId) -> bool {
    status.snapshots.last.is_some_and(|last| last.point.index >= point.index)
}

/// All nodes say that they have it no more, or never had it.
fn is_gone(error: &FetchError) -> bool {
    matches!(error, FetchError::Nowhere { asked, .. } if asked.0.iter().all(|(_, unfit)| *unfit == Unfit::NotHere))
}

fn failure(error: &FetchError) -> Failure {
    let exit = match error {
        FetchError::Snapshot(error) => return failure_of_snapshot(error),
        FetchError::NotAllowed { .. } => Exit::Certificate,
        FetchError::Nowhere { .. } if is_gone(error) => {
            return Failure::new(
                Exit::Unavailable,
                error.to_string(),
                "newer ones took its place: run it again, and one more is ordered",
            );
        }
        FetchError::Nowhere { .. } => Exit::Corrupt,
        FetchError::Stuck { .. } => {
            return Failure::new(
                Exit::Unavailable,
                error.to_string(),
                "check that the nodes run and are reached, and that no other export keeps them busy: a node sends to one \
                 administrator at a time. The same command goes on where it is",
            );
        }
        // Nobody leads an export.
        FetchError::Interrupted | FetchError::Left { .. } | FetchError::State { .. } => Exit::Other,
    };
    Failure::new(exit, error.to_string(), error.next_step())
}

fn answer(arguments: &Arguments, manifest: &Manifest, export: &Export<'_>) -> String {
    let of = &manifest.description;
    let answer = Answer {
        directory: arguments.directory.display().to_string(),
        name: of.name(),
        cluster: of.cluster.to_string(),
        index: of.point.index.0,
        term: of.point.term.0,
        bytes: manifest.bytes,
        chunks: manifest.chunks(),
        chunks_received: export.chunks_received(),
        contains: CONTAINS,
        lacks: LACKS,
    };
    output::shown(&answer, |answer| table(answer, of.point), arguments.order.output)
}

fn table(answer: &Answer, point: LogId) -> String {
    let Answer { directory, cluster, bytes, chunks, chunks_received, contains, lacks, .. } = answer;
    let chunks = output::counted(u64::from(*chunks), "chunk");
    format!(
        "{directory}: a snapshot of cluster {cluster} at entry {point}, {bytes} bytes in {chunks}, {chunks_received} of \
         them sent now\nin it: {contains}\nnot in it: {lacks}\ncheck it now and then:\n  trilith snapshot verify \
         {directory}\nand begin a new cluster with it:\n  trilith snapshot restore {directory} --config NODE.toml"
    )
}
