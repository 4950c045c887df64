//! Where all records are kept: snapshots are made all the same, and no record goes because of one.

use trilith::types::{Index, NodeId};

use crate::member_waits::{order, told};
use crate::processes::{PATIENCE, beside_one};
use crate::purging::{
    Acknowledged, NODES, RECORD_BYTES, SEGMENT_BYTES, configure, disk_bytes, held, prepared, round, until,
};

const LATER: NodeId = NodeId(4);
/// Of what is written, in all.
const SEGMENTS: u64 = 22;
/// A snapshot is made after so many bytes, and so many are kept for followers that lag: next to nothing, so that all that
/// is kept is kept because nobody trimmed it.
const KEYS: [(&str, &str); 2] = [("snapshot_bytes", "1048576"), ("follower_tail_bytes", "0")];

#[test]
fn no_record_goes_because_of_a_snapshot_and_who_joins_gets_all_of_them_from_the_log() {
    let _share = beside_one();
    let mut trial = prepared();
    NODES.iter().for_each(|node| configure(&trial, *node, &KEYS));
    trial.start_all();
    let mut acknowledged = Acknowledged::new();
    let mut rounds = 0;
    while acknowledged.len() as u64 * RECORD_BYTES < SEGMENTS * SEGMENT_BYTES {
        round(&trial, &NODES, &mut acknowledged);
        rounds += 1;
        if rounds % 2 == 0 {
            NODES.iter().for_each(|node| trial.kill(*node));
            trial.start_all();
        }
    }
    let written = acknowledged.len() as u64 * RECORD_BYTES;
    assert!(written > 20 * SEGMENT_BYTES && rounds >= 5, "{written} bytes in {rounds} rounds");
    // What might go is looked for once a second.
    std::thread::sleep(std::time::Duration::from_secs(2));
    let highest = *acknowledged.last_key_value().expect("some").0;
    let is_all_applied = |said: &[trilith::net::NodeStatus]| said.iter().all(|status| status.applied >= highest);
    let said = until(&trial, &NODES, "all is applied", is_all_applied);
    assert!(said.iter().all(|status| status.first == Index::FIRST), "{said:?}");
    let made: Vec<Index> = said.iter().map(|status| status.snapshots.last.expect("one was made").point.index).collect();
    assert!(made.iter().all(|point| *point > Index(highest.0 / 2)), "snapshots at {made:?} of {highest}");
    for node in NODES {
        assert!(disk_bytes(&trial, node) > written, "node {node} has all of it on its disk");
        assert_eq!(crate::snapshots::names(&trial, node).len(), 2, "node {node}");
        check(&held(&trial, node, highest), &acknowledged, node);
    }

    // By log, from the first entry on: no snapshot takes the place of what nobody trimmed.
    let member = trial.cluster.prepare_later(LATER, SEGMENT_BYTES).unwrap_or_else(|failure| panic!("{failure}"));
    configure(&trial, LATER, &KEYS);
    let [incarnation, address] = [member.incarnation.to_string(), member.address.to_string()];
    told(
        &order(&trial, &["add", "4", "--incarnation", &incarnation, "--address", &address, "--learner"]),
        0,
        &["node 4 is a learner"],
    );
    let file = trial.cluster.client_file();
    let mut known = std::fs::read_to_string(&file).expect("it is there");
    known.push_str(&format!("\n[[node]]\nid = 4\naddress = \"{address}\"\n"));
    std::fs::write(&file, known).expect("it is ours");
    trial.start_node(LATER);
    let said = until(&trial, &[LATER], "it has all of it", is_all_applied);
    assert_eq!(said[0].first, Index::FIRST);
    check(&held(&trial, LATER, highest), &acknowledged, LATER);
    assert!(!trial.log(LATER).contains("another node's snapshot is this node's state"), "{}", trial.log(LATER));
    println!("{} records, {written} bytes, on each of four nodes; snapshots at {made:?}", acknowledged.len());
    trial.cluster.stop_all(PATIENCE).unwrap_or_else(|failure| panic!("{failure}"));
}

fn check((first, records, _): &(Index, Acknowledged, crate::purging::Map), acknowledged: &Acknowledged, node: NodeId) {
    assert_eq!(*first, Index::FIRST, "node {node}");
    assert!(records == acknowledged, "node {node}: what was acknowledged is there, and nothing else");
}
