//! What every node holds, compared with what the writers were told.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use trilith::cli::configuration::ClientConfiguration;
use trilith::net::Consistency;
use trilith::types::{Index, NodeId};

use super::load::{Journal, record};
use super::{PATIENCE, block_on, connect};

/// What a comparison went through.
#[derive(Debug)]
pub struct Checked {
    pub acknowledged: u64,
    /// Given, not acknowledged, and in the log all the same.
    pub unacknowledged_found: u64,
    /// Given, not acknowledged, and not in the log.
    pub unacknowledged_absent: u64,
}

type Records = Vec<(Index, Bytes)>;

/// Reads every node by itself, and panics at the first difference.
pub fn compare(client: &ClientConfiguration, journals: &[Journal]) -> Checked {
    let highest = journals.iter().flat_map(|journal| &journal.indexes).max().copied().unwrap_or(0);
    // All nodes show at least what any of them had committed by now.
    let settled = client.nodes.iter().map(|node| settled(client, node.id, highest)).max().expect("there are nodes");
    let all: Vec<Records> = client.nodes.iter().map(|node| records(client, node.id, settled)).collect();
    for (node, records) in client.nodes.iter().zip(&all) {
        let same = records.iter().zip(&all[0]).all(|(one, other)| one == other) && records.len() == all[0].len();
        assert!(same, "node {} and node {} differ", node.id, client.nodes[0].id);
    }
    against_journals(&all[0], journals)
}

/// Each acknowledged record at its index and once; each other one whole and once, or not at all.
fn against_journals(records: &Records, journals: &[Journal]) -> Checked {
    assert!(records.is_sorted_by(|one, next| one.0 < next.0), "indexes rise");
    let mut places: BTreeMap<(usize, u64), Index> = BTreeMap::new();
    for (index, bytes) in records {
        let (writer, number) = name(bytes);
        let given = journals.iter().find(|journal| journal.writer == writer).map_or(0, |journal| journal.given);
        assert!(number < given, "index {index}: record {number} of writer {writer} was never given");
        assert!(bytes == record(writer, number).as_bytes(), "index {index}: record {writer}:{number} is not whole");
        let before = places.insert((writer, number), *index);
        assert!(before.is_none(), "record {writer}:{number} is at {index}, and at {before:?}");
    }
    for journal in journals {
        for (number, index) in (0..).zip(&journal.indexes) {
            let found = places.get(&(journal.writer, number));
            let lost = format!("record {}:{number} was acknowledged at {index}", journal.writer);
            assert_eq!(found, Some(&Index(*index)), "{lost}");
        }
        let order: Vec<&Index> = places.range((journal.writer, 0)..(journal.writer + 1, 0)).map(|(_, at)| at).collect();
        assert!(order.is_sorted(), "writer {}: not in the order given", journal.writer);
    }
    let given: u64 = journals.iter().map(|journal| journal.given).sum();
    let acknowledged: u64 = journals.iter().map(|journal| journal.indexes.len() as u64).sum();
    let found = places.len() as u64 - acknowledged;
    let unacknowledged_absent = given - acknowledged - found;
    Checked { acknowledged, unacknowledged_found: found, unacknowledged_absent }
}

fn name(bytes: &Bytes) -> (usize, u64) {
    let text = std::str::from_utf8(bytes).expect("a record is text");
    let mut parts = text.split(':');
    let mut next = || parts.next().unwrap_or_else(|| panic!("no record of ours: {text:?}"));
    let (writer, number) = (next(), next());
    (writer.parse().expect("a writer"), number.parse().expect("a number"))
}

/// What a node has committed, once it has come as far as `highest` and stands still.
fn settled(client: &ClientConfiguration, node: NodeId, highest: u64) -> Index {
    let deadline = Instant::now() + PATIENCE;
    let mut last = None;
    loop {
        let status = super::status(client, node);
        let seen = status.as_ref().map(|status| (status.last.index, status.commit));
        if let Some((end, commit)) = seen
            && end == commit
            && commit.0 >= highest
            && last == seen
        {
            return commit;
        }
        last = seen;
        assert!(Instant::now() < deadline, "node {node} has not come to {highest}: {status:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// All records of a node, read from it alone, once it has applied `to`.
fn records(client: &ClientConfiguration, node: NodeId, to: Index) -> Records {
    block_on(async {
        let mut connection = connect(client, node, PATIENCE).await.expect("the node answers");
        while connection.status().await.expect("the node answers").applied < to {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let (mut from, end) = (Index(1), Index(to.0 + 1));
        let mut all = Records::new();
        while from < end {
            let read = connection.read(from, Some(end), Consistency::Stale).await.expect("the node answers");
            all.extend(read.records);
            if read.next == from {
                break;
            }
            from = read.next;
        }
        all
    })
}

#[test]
fn a_record_that_is_lost_moved_doubled_cut_or_strange_is_found() {
    let whole: Records = (0..4).map(|number| (Index(10 + number), Bytes::from(record(0, number)))).collect();
    // The last one was given and not acknowledged.
    let journals = [Journal { writer: 0, given: 4, indexes: vec![10, 11, 12] }];
    let found = |records: Records| {
        std::panic::catch_unwind(|| against_journals(&records, &journals)).map_err(|_| "found").map(drop)
    };
    let changed = |change: fn(&mut Records)| {
        let mut records = whole.clone();
        change(&mut records);
        found(records)
    };
    assert_eq!(changed(|_| {}), Ok(()));
    assert_eq!(changed(|records| drop(records.pop())), Ok(()), "it was not acknowledged");
    let damages: [fn(&mut Records); 6] = [
        |records| drop(records.remove(1)),
        |records| records[2].0 = Index(14),
        |records| records.push((Index(14), records[3].1.clone())),
        |records| records[3].1 = records[3].1.slice(..records[3].1.len() - 1),
        |records| records[3].1 = Bytes::from(record(0, 4)),
        |records| records.swap(0, 1),
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        assert_eq!(changed(damage), Err("found"), "damage {number}");
    }
}
