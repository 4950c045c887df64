//! What every node holds, compared with what the writers were told.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use trilith::cli::configuration::ClientConfiguration;
use trilith::client::Scan;
use trilith::net::Consistency;
use trilith::types::{Index, NodeId};

use super::load::{Given, Journal, Told, record};
use super::order::{self, Kind, Operation};
use super::{PATIENCE, block_on, connect};

/// What a comparison went through.
#[derive(Debug)]
pub struct Checked {
    pub acknowledged: u64,
    /// Given, not acknowledged, and in the log all the same.
    pub unacknowledged_found: u64,
    /// Given, not acknowledged, and not in the log.
    pub unacknowledged_absent: u64,
    /// All nodes were compared up to there.
    pub settled: Index,
}

type Records = Vec<(Index, Bytes)>;

/// What a linearizable read has shown.
#[derive(Clone, Debug)]
pub struct Seen {
    pub begin: Instant,
    pub end: Instant,
    /// All records from here..
    pub from: Index,
    /// ..to here, this one not among them.
    pub next: Index,
    pub records: Vec<(Index, Bytes)>,
    /// What was committed when it was answered.
    pub shown: Index,
}

/// Reads every node by itself, and panics at the first difference.
pub fn compare(client: &ClientConfiguration, journals: &[Journal]) -> Checked {
    compare_with_reads(client, journals, &[])
}

/// The same, and what was read before was what is there.
pub fn compare_with_reads(client: &ClientConfiguration, journals: &[Journal], seen: &[Seen]) -> Checked {
    let told = journals.iter().flat_map(|journal| &journal.records).filter_map(|given| given.told.index());
    let highest = told.max().unwrap_or(Index::ZERO);
    // All nodes show at least what any of them had committed by now.
    let settled = client.nodes.iter().map(|node| settled(client, node.id, highest)).max().expect("there are nodes");
    let all: Vec<_> = client.nodes.iter().map(|node| contents(client, node.id, settled)).collect();
    let (first, map) = &all[0];
    for (node, (records, its_map)) in client.nodes.iter().zip(&all) {
        let same = records.iter().zip(first).all(|(one, other)| one == other) && records.len() == first.len();
        assert!(same, "oracle E: node {} and node {} differ", node.id, client.nodes[0].id);
        assert_eq!(its_map, map, "oracle E: the maps of node {} and of node {}", node.id, client.nodes[0].id);
    }
    against_reads(first, seen);
    Checked { settled, ..against_journals(first, journals, seen) }
}

/// Each read has shown exactly what stands there.
fn against_reads(records: &Records, seen: &[Seen]) {
    for read in seen {
        let place = |index: Index| records.partition_point(|(at, _)| *at < index);
        let stands = &records[place(read.from)..place(read.next.max(read.from))];
        assert!(stands == read.records, "a read of {}..{} has not shown what is there", read.from, read.next);
    }
}

/// Each acknowledged record at its index and once; each other one whole and once, or not at all; and each in its time.
fn against_journals(records: &Records, journals: &[Journal], seen: &[Seen]) -> Checked {
    let places = places(records, journals);
    let mut operations: Vec<Operation> = seen.iter().map(Seen::operation).collect();
    let (mut acknowledged, mut unacknowledged_absent) = (0, 0);
    for journal in journals {
        for (number, given) in (0..).zip(&journal.records) {
            let found = places.get(&(journal.writer, number)).copied();
            let name = format!("record {}:{number}", journal.writer);
            match given.told {
                Told::At(index, _) => assert_eq!(found, Some(index), "{name} was acknowledged at {index}"),
                Told::Absent => assert_eq!(found, None, "{name} was refused for good"),
                Told::Unknown => {}
            }
            acknowledged += u64::from(given.told.index().is_some());
            unacknowledged_absent += u64::from(found.is_none());
            operations.extend(found.map(|index| given.operation(index)));
        }
        let order: Vec<&Index> = places.range((journal.writer, 0)..(journal.writer + 1, 0)).map(|(_, at)| at).collect();
        assert!(!journal.is_pipeline || order.is_sorted(), "writer {}: not in the order given", journal.writer);
    }
    order::check(operations);
    let unacknowledged_found = places.len() as u64 - acknowledged;
    Checked { acknowledged, unacknowledged_found, unacknowledged_absent, settled: Index::ZERO }
}

/// Where each record stands, all of them whole and once.
fn places(records: &Records, journals: &[Journal]) -> BTreeMap<(usize, u64), Index> {
    assert!(records.is_sorted_by(|one, next| one.0 < next.0), "indexes rise");
    let mut places: BTreeMap<(usize, u64), Index> = BTreeMap::new();
    for (index, bytes) in records {
        let (writer, number) = name(bytes);
        let journal = journals.iter().find(|journal| journal.writer == writer);
        let given = journal.map_or(0, |journal| journal.records.len() as u64);
        assert!(number < given, "index {index}: record {number} of writer {writer} was never given");
        assert!(bytes == record(writer, number).as_bytes(), "index {index}: record {writer}:{number} is not whole");
        let before = places.insert((writer, number), *index);
        assert!(before.is_none(), "record {writer}:{number} is at {index}, and at {before:?}");
    }
    places
}

impl Given {
    fn operation(&self, index: Index) -> Operation {
        let end = if let Told::At(_, end) = self.told { Some(end) } else { None };
        Operation { begin: self.begin, end, kind: Kind::Append(index) }
    }
}

impl Seen {
    fn operation(&self) -> Operation {
        Operation { begin: self.begin, end: Some(self.end), kind: Kind::Read(self.shown) }
    }
}

fn name(bytes: &Bytes) -> (usize, u64) {
    let text = std::str::from_utf8(bytes).expect("a record is text");
    let mut parts = text.split(':');
    let mut next = || parts.next().unwrap_or_else(|| panic!("no record of ours: {text:?}"));
    let (writer, number) = (next(), next());
    (writer.parse().expect("a writer"), number.parse().expect("a number"))
}

/// What a node has committed, once it has come as far as `highest` and stands still.
fn settled(client: &ClientConfiguration, node: NodeId, highest: Index) -> Index {
    let deadline = Instant::now() + PATIENCE;
    let mut last = None;
    loop {
        let status = super::status(client, node);
        let seen = status.as_ref().map(|status| (status.last.index, status.commit));
        if let Some((end, commit)) = seen
            && end == commit
            && commit >= highest
            && last == seen
        {
            return commit;
        }
        last = seen;
        assert!(Instant::now() < deadline, "node {node} has not come to {highest}: {status:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// All records of a node and its map, read from it alone, once it has applied `to`.
fn contents(client: &ClientConfiguration, node: NodeId, to: Index) -> (Records, Vec<(Bytes, Bytes)>) {
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
        let whole = Scan { from: Bytes::new(), to: None, limit: u32::MAX };
        let map = connection.scan(whole, Consistency::Stale).await.expect("the node answers");
        assert_eq!(map.next, None, "the map fits one answer");
        (all, map.entries)
    })
}

#[test]
fn a_record_that_is_lost_moved_doubled_cut_or_strange_is_found() {
    let whole: Records = (0..4).map(|number| (Index(10 + number), Bytes::from(record(0, number)))).collect();
    // The last one was given and not acknowledged.
    let now = Instant::now();
    let told = |number: u64| if number < 3 { Told::At(Index(10 + number), now) } else { Told::Unknown };
    let given = (0..4).map(|number| Given { begin: now, told: told(number) }).collect();
    let journals = [Journal { writer: 0, is_pipeline: true, records: given }];
    let found = |records: Records| {
        std::panic::catch_unwind(|| against_journals(&records, &journals, &[])).map_err(|_| "found").map(drop)
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

#[test]
fn a_record_that_was_refused_and_is_there_is_found_and_so_is_a_read_that_showed_something_else() {
    let all: Records = (0..2).map(|number| (Index(10 + number), Bytes::from(record(0, number)))).collect();
    let now = Instant::now();
    let journal = |told| Journal { writer: 0, is_pipeline: false, records: vec![Given { begin: now, told }; 2] };
    let refused = |told| std::panic::catch_unwind(|| against_journals(&all, &[journal(told)], &[])).is_err();
    assert!(!refused(Told::Unknown));
    assert!(refused(Told::Absent));
    let is_fine = |from, next, shown: &[(Index, Bytes)]| {
        let records = shown.to_vec();
        let seen = Seen { begin: now, end: now, from: Index(from), next: Index(next), records, shown: Index(next) };
        std::panic::catch_unwind(|| against_reads(&all, &[seen])).is_ok()
    };
    assert!(is_fine(11, 12, &all[1..]) && is_fine(1, 11, &all[..1]) && is_fine(12, 12, &[]));
    assert!(!is_fine(11, 12, &[]), "one is left out");
    assert!(!is_fine(12, 13, &all[1..]), "one is not there");
    assert!(!is_fine(10, 12, &[all[1].clone(), all[0].clone()]), "another order");
}
