//! Logs that are cut short, over real processes: a bound on the disk, and a follower that comes back too late for the log.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use trilith::cli::local::{LocalCluster, LocalOptions};
use trilith::client::{Client, ClientOptions, Scan};
use trilith::net::{Consistency, Identity, NodeStatus};
use trilith::types::{Index, NodeId};

use crate::member_waits::told;
use crate::processes::{PATIENCE, PROGRAM, Trial, beside_few, beside_one, block_on, connect, status, trilith};

pub const SEGMENT_BYTES: u64 = 512 << 10;
pub const RECORD_BYTES: u64 = 16 << 10;
/// Of records, of the tail for followers, and from one snapshot to the next.
const BOUND_BYTES: u64 = 1 << 20;
/// Written while a node has a snapshot made: all of them have one in each round.
const ROUND_BYTES: u64 = 2 << 20;
const ROUNDS: u64 = 10;
/// Of records, in a request.
const BATCH: u64 = 2;
/// docs/operations.md, *What is kept*: what was written since the older snapshot and in a second, and seven segments. In
/// frames of two such records, and segments of a dozen such frames, that is half as much again.
const DISK_BYTES_MAX: u64 = (2 * (BOUND_BYTES + ROUND_BYTES) + ROUND_BYTES) * 3 / 2 + 7 * SEGMENT_BYTES;
// Else a log that keeps everything would do.
const _: () = assert!(ROUNDS * ROUND_BYTES > DISK_BYTES_MAX);
pub const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

pub type Acknowledged = BTreeMap<Index, Bytes>;
pub type Map = Vec<(Bytes, Bytes)>;

/// Three nodes with small segments, not started.
pub fn prepared() -> Trial {
    let home = tempfile::tempdir().expect("a directory can be made");
    let options = LocalOptions { nodes: 3, segment_bytes: SEGMENT_BYTES, io: None };
    let cluster = LocalCluster::prepare(&home.path().join("cluster"), std::path::Path::new(PROGRAM), &options);
    Trial { cluster: cluster.unwrap_or_else(|failure| panic!("{failure}")), home }
}

fn started() -> Trial {
    let mut trial = prepared();
    let bound = BOUND_BYTES.to_string();
    let keys = ["retention_bytes", "follower_tail_bytes", "snapshot_bytes"].map(|key| (key, bound.as_str()));
    NODES.iter().for_each(|node| configure(&trial, *node, &keys));
    trial.start_all();
    trial
}

/// Other values for some keys.
pub fn configure(trial: &Trial, node: NodeId, keys: &[(&str, &str)]) {
    let file = trial.cluster.configuration_file(node);
    let text = std::fs::read_to_string(&file).expect("it was made");
    let set: String = keys.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
    let is_set = |line: &&str| keys.iter().any(|(key, _)| line.starts_with(&format!("{key} ")));
    let kept = text.lines().filter(|line| !is_set(line));
    std::fs::write(&file, kept.fold(set, |text, line| text + line + "\n")).expect("it can be written");
}

async fn connected(trial: &Trial) -> Client {
    let client = trial.cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
    let identity = Identity::load(&client.certificate, &client.key, &client.ca, None).expect("the files are there");
    let nodes = client.nodes.iter().map(|node| (node.id, node.address)).collect();
    Client::connect(ClientOptions { timeout: PATIENCE, ..ClientOptions::new(nodes, identity) }).await.expect("it leads")
}

/// What these nodes say, as soon as all of them answer and it is so.
pub fn until(trial: &Trial, nodes: &[NodeId], what: &str, is_so: impl Fn(&[NodeStatus]) -> bool) -> Vec<NodeStatus> {
    let client = trial.cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let said: Vec<NodeStatus> = nodes.iter().filter_map(|node| status(&client, *node)).collect();
        if said.len() == nodes.len() && is_so(&said) {
            return said;
        }
        assert!(Instant::now() < deadline, "{what}: {said:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn points(said: &[NodeStatus]) -> Vec<Index> {
    said.iter().map(|status| status.snapshots.last.map_or(Index::ZERO, |last| last.point.index)).collect()
}

/// Writes, and waits until each of these nodes has another snapshot.
pub fn round(trial: &Trial, nodes: &[NodeId], acknowledged: &mut Acknowledged) {
    let before = points(&until(trial, nodes, "they answer", |_| true));
    block_on(async {
        let client = connected(trial).await;
        for _ in 0..ROUND_BYTES / RECORD_BYTES / BATCH {
            let record = |number: u64| {
                let number = acknowledged.len() as u64 + number;
                Bytes::from([&number.to_le_bytes()[..], &[number as u8; RECORD_BYTES as usize]].concat())
            };
            let records: Vec<Bytes> = (0..BATCH).map(record).collect();
            let indexes = client.append_batch(records.clone()).await.expect("it is taken");
            acknowledged.extend(indexes.into_iter().zip(records));
        }
        let round = Bytes::from(format!("round {}", acknowledged.len()));
        client.put(round.clone(), round).await.expect("it is taken");
    });
    until(trial, nodes, "each has another snapshot", |said| {
        points(said).iter().zip(&before).all(|(now, before)| now > before)
    });
}

/// Of a node's log.
pub fn disk_bytes(trial: &Trial, node: NodeId) -> u64 {
    let files = std::fs::read_dir(trial.cluster.data_directory(node).join("log")).expect("it is there");
    let bytes = |file: std::io::Result<std::fs::DirEntry>| match file.and_then(|file| file.metadata()) {
        Ok(metadata) => metadata.len(),
        // It was renamed, or removed, just now.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => panic!("it can be looked at: {error}"),
    };
    files.map(bytes).sum()
}

/// All that was acknowledged and is kept, and the map.
pub fn held(trial: &Trial, node: NodeId, to: Index) -> (Index, Acknowledged, Map) {
    let client = trial.cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
    block_on(async {
        let mut connection = connect(&client, node, PATIENCE).await.expect("it answers");
        let first = connection.status().await.expect("it answers").first;
        let (mut from, mut all) = (first, Acknowledged::new());
        while from <= to {
            let read = connection.read(from, Some(to.next()), Consistency::Stale).await.expect("it answers");
            assert!(read.next > from, "node {node} has nothing at {from} of {to}");
            (from, all) = (read.next, all.into_iter().chain(read.records).collect());
        }
        let whole = Scan { from: Bytes::new(), to: None, limit: u32::MAX };
        (first, all, connection.scan(whole, Consistency::Stale).await.expect("it answers").entries)
    })
}

#[test]
fn a_log_has_a_bound_and_who_comes_back_too_late_for_it_gets_the_snapshot() {
    let _share = beside_one();
    let mut trial = started();
    let mut acknowledged = Acknowledged::new();
    for _ in 0..ROUNDS {
        round(&trial, &NODES, &mut acknowledged);
        let used = NODES.map(|node| disk_bytes(&trial, node));
        println!("{} bytes acknowledged, {used:?} in the logs", acknowledged.len() as u64 * RECORD_BYTES);
        assert!(used.iter().all(|used| *used <= DISK_BYTES_MAX), "{used:?} of {DISK_BYTES_MAX}");
    }
    let written = acknowledged.len() as u64 * RECORD_BYTES;
    assert!(written >= 20 * BOUND_BYTES, "{written}");

    let leader = trial.leader();
    let away = NODES.into_iter().find(|node| *node != leader).expect("there are three");
    let others = NODES.map(|node| if node == away { leader } else { node });
    trial.kill(away);
    let last_held = *acknowledged.last_key_value().expect("some").0;
    for _ in 0..3 {
        round(&trial, &others, &mut acknowledged);
    }
    until(&trial, &others, "all that it has is trimmed", |said| said.iter().all(|status| status.first > last_held));
    // What is purged is looked for once a second.
    std::thread::sleep(Duration::from_secs(2));
    trial.start_node(away);
    let highest = *acknowledged.last_key_value().expect("some").0;
    let said = until(&trial, &NODES, "it comes back", |said| said.iter().all(|status| status.applied >= highest));
    assert!(trial.log(away).contains("another node's snapshot is this node's state"), "{}", trial.log(away));
    let to = said.iter().map(|status| status.applied).min().expect("three");
    let (first, records, map) = held(&trial, leader, to);
    let kept = acknowledged.range(first..).map(|(index, record)| (*index, record.clone()));
    assert!(records == kept.collect(), "what was acknowledged is there, and nothing else");
    assert!(records.len() as u64 * RECORD_BYTES >= BOUND_BYTES && map.len() as u64 == ROUNDS + 3);
    for node in NODES {
        let (its_first, its_records, its_map) = held(&trial, node, to);
        let both = first.max(its_first);
        assert!(its_records.range(both..).eq(records.range(both..)), "node {node} has the same records");
        assert_eq!(its_map, map, "node {node}");
    }
    trial.cluster.stop_all(PATIENCE).unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn a_cluster_for_the_map_alone_takes_no_records() {
    let _share = beside_few();
    let mut trial = Trial::prepare(1, None);
    configure(&trial, NodeId(1), &[("retention", "\"snapshot\"")]);
    trial.start_all();
    let client = trial.cluster.client_file();
    told(&trilith(&client, &["kv", "put", "colour", "blue"]), 0, &[]);
    let records = trial.home.path().join("records");
    std::fs::write(&records, "one\ntwo\n").expect("the ground is ours");
    let refused = trilith(&client, &["log", "append", records.to_str().expect("UTF-8")]);
    told(&refused, 2, &["keeps its log for the map alone", "set `retention` to \"all\" on all nodes"]);
    told(&trilith(&client, &["kv", "get", "colour"]), 0, &[]);
}
