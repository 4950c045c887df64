//! What a person sees of a snapshot on its way, over real processes: in the status of both nodes, and beside the command that
//! waits for it.

use std::process::Output;
use std::time::{Duration, Instant};

use trilith::cli::local::{LocalCluster, LocalOptions};
use trilith::net::{NodeStatus, SnapshotReader};
use trilith::types::{Member, NodeId};

use crate::member_waits::{order, told};
use crate::processes::{PATIENCE, PROGRAM, Trial, alone, block_on, status, trilith};
use crate::snapshots::{check, connected, last, put, view};

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
/// Small, so that what the snapshots hold can go from the log.
const SEGMENT_BYTES: u64 = 2 << 20;
/// Half a MiB each: at a MiB a second they take about eight seconds.
const KEYS: u64 = 16;
const SLOWLY_BYTES_PER_SECOND: u64 = 1 << 20;

/// A node alone whose log begins behind its newest snapshot, and the files of one that is to join it, slowly.
fn with_a_late_member() -> (Trial, Member) {
    let home = tempfile::tempdir().expect("a directory can be made");
    let options = LocalOptions { nodes: 1, segment_bytes: SEGMENT_BYTES, io: None };
    let cluster = LocalCluster::prepare(&home.path().join("cluster"), std::path::Path::new(PROGRAM), &options);
    let mut trial = Trial { cluster: cluster.unwrap_or_else(|failure| panic!("{failure}")), home };
    configure(&trial, "follower_tail_bytes", 0);
    trial.start_all();
    for keys in [0..KEYS / 2, KEYS / 2..KEYS] {
        put(&trial, keys);
        told(&order(&trial, &["snapshot", "--timeout", "30"]), 0, &[]);
        let before = last(&view(&trial, ONE)).to_string();
        told(&trilith(&trial.cluster.admin_file(), &["log", "trim", "--before", &before]), 0, &[]);
    }
    // What may go is looked for once a second.
    std::thread::sleep(Duration::from_secs(3));
    let later = trial.cluster.prepare_later(TWO, SEGMENT_BYTES).unwrap_or_else(|failure| panic!("{failure}"));
    configure(&trial, "snapshot_fetch_bytes_per_second", SLOWLY_BYTES_PER_SECOND);
    trial.start_node(TWO);
    (trial, later)
}

fn configure(trial: &Trial, key: &str, value: u64) {
    trial.cluster.configure(key, value).unwrap_or_else(|failure| panic!("{failure}"));
}

fn add(trial: &Trial, member: &Member) -> Output {
    let [incarnation, address] = [member.incarnation.to_string(), member.address.to_string()];
    order(trial, &["add", "2", "--incarnation", &incarnation, "--address", &address, "--wait", "60"])
}

/// One look after the other at both nodes, until the snapshot is the second one's state.
fn looked_at(trial: &Trial) -> Vec<[NodeStatus; 2]> {
    let client = trial.cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
    let (deadline, mut looks) = (Instant::now() + PATIENCE, Vec::new());
    loop {
        assert!(Instant::now() < deadline, "it does not come: {looks:?}");
        // The second one is reached once it is a member, or by whoever knows its port.
        if let (Some(one), Some(two)) = (status(&client, ONE), status_of_two(trial)) {
            let is_there = two.snapshots.last.is_some();
            looks.push([one, two]);
            if is_there {
                return looks;
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn status_of_two(trial: &Trial) -> Option<NodeStatus> {
    let statuses = block_on(async { connected(trial).await.statuses().await });
    statuses.into_iter().find_map(|(node, _, status)| if node == TWO { status.ok() } else { None })
}

#[test]
fn a_fetch_is_seen_while_it_goes_on_at_both_ends_and_beside_the_command_that_waits_for_it() {
    let _alone = alone();
    let (mut trial, member) = with_a_late_member();
    let (added, looks, table, document) = std::thread::scope(|scope| {
        let adding = scope.spawn(|| add(&trial, &member));
        let looking = scope.spawn(|| looked_at(&trial));
        // In the midst of it.
        let deadline = Instant::now() + PATIENCE;
        let table = loop {
            let shown = String::from_utf8(order(&trial, &["status"]).stdout).expect("it is text");
            // At first nothing has moved yet.
            let moves = |line: &&str| line.contains(" MiB/s, for ");
            let is_seen = |what: &str| shown.lines().filter(moves).any(|line| line.contains(what));
            if is_seen("fetches a snapshot at") && is_seen("sends a snapshot at") {
                break shown;
            }
            assert!(Instant::now() < deadline, "{shown}");
        };
        let document = order(&trial, &["status", "-o", "json"]).stdout;
        (adding.join().expect("no panic"), looking.join().expect("no panic"), table, document)
    });
    told(&added, 0, &["node 2 fetches the snapshot at", "from node 1", "bytes (", "node 2 votes"]);
    assert!(table.contains(" from node 1: ") && table.contains(" to node 2: "), "{table}");
    let document: serde_json::Value = serde_json::from_slice(&document).expect("it is JSON");
    let of = |node: usize, key: &str| document["nodes"][node]["snapshots"][key].clone();
    assert_eq!((&of(1, "fetching")["from"], &of(0, "sending")[0]["to_node"]), (&1.into(), &2.into()), "{document}");

    let fetched: Vec<_> = looks.iter().filter_map(|[_, two]| two.snapshots.fetching).collect();
    let known: Vec<_> = fetched.iter().filter(|fetching| fetching.bytes > 0).collect();
    let mut here: Vec<u64> = known.iter().map(|fetching| fetching.bytes_here).collect();
    assert!(here.is_sorted(), "{here:?}");
    here.dedup();
    assert!(here.len() >= 4, "it is seen to move: {here:?}");
    let first = known.first().expect("it was seen");
    assert!(first.bytes > (KEYS / 2) << 20 >> 1 && here.iter().all(|here| *here <= first.bytes), "{first:?}");
    assert!(known.iter().all(|fetching| fetching.from == ONE && fetching.quiet_milliseconds < 3000), "{known:?}");
    assert!(fetched.is_sorted_by_key(|fetching| fetching.milliseconds), "{fetched:?}");
    let sent: Vec<_> = looks.iter().flat_map(|[one, _]| &one.snapshots.sending).collect();
    assert!(sent.iter().all(|sending| sending.to == SnapshotReader::Node(TWO)), "{sent:?}");
    assert!(sent.is_sorted_by_key(|sending| sending.bytes_sent), "{sent:?}");
    assert!(sent.iter().any(|sending| sending.bytes == first.bytes && sending.bytes_sent > 1 << 20), "{sent:?}");

    // And when it is over nothing of it is shown.
    let client = trial.cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
    let deadline = Instant::now() + PATIENCE;
    while status(&client, ONE).is_none_or(|one| !one.snapshots.sending.is_empty())
        || status_of_two(&trial).is_none_or(|two| two.snapshots.fetching.is_some())
    {
        assert!(Instant::now() < deadline, "it is shown for ever");
        std::thread::sleep(Duration::from_millis(100));
    }
    check(&trial, KEYS);
    trial.cluster.stop_all(PATIENCE).unwrap_or_else(|failure| panic!("{failure}"));
}
