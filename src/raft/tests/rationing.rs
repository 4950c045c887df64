//! Who lacks much and comes back while clients write: how fast it is sent what it lacks, counted in entries.

use bytes::Bytes;

use super::cluster::{Cluster, config, limits_default};
use crate::limits::ENTRY_OVERHEAD_BYTES;
use crate::raft::{Change, Limits};
use crate::types::{Data, Index, NodeId, Payload};

const LEADER: NodeId = NodeId(1);
/// Who comes back.
const BEHIND: NodeId = NodeId(3);
/// What an entry counts.
const ENTRY_BYTES: usize = 100;

/// Memory has some fifty entries, and a read brings five. No more are on their way than who gets them takes at once.
fn limits() -> Limits {
    Limits {
        window_messages: 4,
        append_bytes_max: 5 * ENTRY_BYTES,
        uncommitted_bytes_max: 50 * ENTRY_BYTES,
        cache_bytes_max: 50 * ENTRY_BYTES,
        ration_bytes_min: ENTRY_BYTES as u64,
        ..limits_default()
    }
}

fn propose(cluster: &mut Cluster, count: usize) {
    let data = || Payload::Data(Data::new(Bytes::from_static(&[b'x'; ENTRY_BYTES - ENTRY_OVERHEAD_BYTES])));
    for _ in 0..count {
        // Where a majority is missing there is room for some only.
        let _ = cluster.propose(LEADER, vec![data()]);
    }
}

/// One tick in which clients write so many entries.
fn tick(cluster: &mut Cluster, count: usize) {
    propose(cluster, count);
    cluster.settle_all();
    cluster.run(1);
}

fn cut(cluster: &mut Cluster, node: NodeId) {
    let others: Vec<NodeId> = cluster.nodes.keys().copied().filter(|other| *other != node).collect();
    cluster.cut.extend(others.into_iter().flat_map(|other| [(node, other), (other, node)]));
}

/// Node 1 leads, clients write so many entries in a tick, and node 3 lacks so many when it comes back.
fn comes_back(voters: u64, limits: Limits, missing: usize, count: usize) -> Cluster {
    let mut cluster = Cluster::new(voters, 0, limits, 1);
    cluster.run(100);
    if cluster.leader() != Some(LEADER) {
        let leader = cluster.leader().expect("they elect one");
        cluster.replica_mut(leader).transfer(LEADER).expect("it is a voter");
        cluster.run(5);
    }
    assert_eq!(cluster.leader(), Some(LEADER));
    cut(&mut cluster, BEHIND);
    for _ in 0..missing / 10 {
        propose(&mut cluster, 10);
        cluster.settle_all();
    }
    // What clients wrote before counts no more.
    (0..300).for_each(|_| tick(&mut cluster, count));
    cluster.cut.clear();
    cluster
}

fn lacks(cluster: &Cluster) -> u64 {
    let held = cluster.replica(BEHIND).status().last.index;
    cluster.replica(LEADER).status().last.index.0 - held.0
}

/// After how many ticks it lacks nothing.
fn ticks_to_catch_up(cluster: &mut Cluster, count: usize, ticks_max: usize) -> Option<usize> {
    (1..=ticks_max).find(|_| {
        tick(cluster, count);
        lacks(cluster) == 0
    })
}

/// Found by the next heartbeat, or by its answer.
const FOUND_TICKS: usize = 25;

#[test]
pub fn who_lacks_much_gets_half_as_much_again_as_clients_write() {
    for count in [2, 6, 20] {
        let mut cluster = comes_back(3, limits(), 4000, count);
        (0..FOUND_TICKS).for_each(|_| tick(&mut cluster, count));
        let before = lacks(&cluster);
        (0..100).for_each(|_| tick(&mut cluster, count));
        let gained = before - lacks(&cluster);
        let wanted = 100 * count as u64 / 2;
        assert!(gained.abs_diff(wanted) <= 10, "of {before} it gained {gained}, with {count} a tick");
    }
}

/// However unevenly they write: it gets there, and then lacks nothing any more.
#[test]
pub fn who_is_rationed_comes_nearer_always() {
    for (every, count) in [(1, 1), (3, 5), (10, 20), (40, 40)] {
        let mut cluster = comes_back(3, limits(), 400, 1);
        let mut before = lacks(&cluster);
        for round in 0.. {
            for number in 0..200 {
                tick(&mut cluster, if number % every == 0 { count } else { 0 });
            }
            let now = lacks(&cluster);
            if now == 0 {
                break;
            }
            assert!(now < before, "round {round}: {now} after {before}, with {count} in {every} ticks");
            before = now;
        }
    }
}

#[test]
pub fn nobody_is_rationed_where_clients_write_little() {
    for (every, count) in [(1, 0), (20, 1)] {
        let mut cluster = comes_back(3, limits(), 1000, 0);
        let caught_up = (1..=FOUND_TICKS).find(|number| {
            tick(&mut cluster, if number % every == 0 { count } else { 0 });
            lacks(&cluster) == 0
        });
        assert!(caught_up.is_some(), "{} are lacking", lacks(&cluster));
    }
}

/// Its majority was node 2. That one is silent, or its disk stalls, or this one's: node 3 gets all at once as soon as that
/// is noticed, long before it would count that clients cannot write any more.
#[test]
pub fn who_is_needed_is_not_rationed() {
    let breaks: [fn(&mut Cluster); 3] = [
        |cluster| cut(cluster, NodeId(2)),
        |cluster| _ = cluster.stalled.insert(NodeId(2)),
        |cluster| _ = cluster.stalled.insert(LEADER),
    ];
    for (case, breaks) in breaks.into_iter().enumerate() {
        let mut cluster = comes_back(3, limits(), 4000, 20);
        (0..FOUND_TICKS).for_each(|_| tick(&mut cluster, 20));
        assert!(lacks(&cluster) > 3000);
        breaks(&mut cluster);
        let patience_ticks = config(LEADER, 0, limits()).election_ticks.start as usize;
        let caught_up = ticks_to_catch_up(&mut cluster, 20, patience_ticks + 2);
        assert!(caught_up.is_some(), "case {case}: {} are lacking", lacks(&cluster));
    }
}

/// Of five voters two are to go. The others, of which one is silent, need node 3, though of the five a majority is there.
#[test]
pub fn who_is_needed_in_one_half_of_a_joint_configuration_is_not_rationed() {
    let mut cluster = comes_back(5, limits(), 4000, 20);
    (0..FOUND_TICKS).for_each(|_| tick(&mut cluster, 20));
    cut(&mut cluster, NodeId(2));
    // Of the five nobody else is missed.
    (0..50).for_each(|_| tick(&mut cluster, 20));
    assert!(lacks(&cluster) > 2000);
    let remove = |id| Change::Remove { node: NodeId(id) };
    cluster.change(LEADER, &[remove(4), remove(5)]).expect("it may be");
    assert!(cluster.replica(LEADER).membership().is_joint());
    assert!(ticks_to_catch_up(&mut cluster, 20, 2).is_some(), "{} are lacking", lacks(&cluster));
}

/// A snapshot has what it lacks: the log may lose that, unless it is said that it stays.
#[test]
pub fn who_lacks_what_may_go_is_not_rationed() {
    for (kept_from, is_rationed) in [(None, false), (Some(Index(1)), true), (Some(Index(3000)), false)] {
        let mut cluster = comes_back(3, limits(), 2000, 4);
        assert!(cluster.snapshot(LEADER));
        cluster.replica_mut(LEADER).keeps_from(kept_from);
        let caught_up = ticks_to_catch_up(&mut cluster, 4, FOUND_TICKS);
        assert_eq!(caught_up.is_none(), is_rationed, "kept from {kept_from:?}: {} are lacking", lacks(&cluster));
    }
}

#[test]
pub fn who_is_to_lead_is_not_rationed() {
    let mut cluster = comes_back(3, limits(), 2000, 20);
    (0..FOUND_TICKS).for_each(|_| tick(&mut cluster, 20));
    assert!(lacks(&cluster) > 1000);
    cluster.replica_mut(LEADER).transfer(BEHIND).expect("it is a voter");
    cluster.run(3);
    assert_eq!(cluster.leader(), Some(BEHIND));
}

/// Three minutes are enough: after them it gets all at once. Those in which it was silent are not counted.
#[test]
pub fn nobody_is_rationed_for_ever() {
    let limits = Limits { ration_bytes_min: 16, ..limits() };
    // An entry in five ticks, and so three for it in ten.
    let mut cluster = comes_back(3, limits, 4000, 0);
    cut(&mut cluster, BEHIND);
    (0..1000).for_each(|number| tick(&mut cluster, usize::from(number % 5 == 0)));
    cluster.cut.clear();
    let mut lacked = Vec::new();
    while lacked.last() != Some(&0) && lacked.len() < 20_000 {
        tick(&mut cluster, usize::from(lacked.len() % 5 == 0));
        lacked.push(lacks(&cluster));
    }
    // It counted as silent so late.
    let patience_ticks = config(LEADER, 0, limits).election_ticks.start as usize;
    let awaited = 18_000 - patience_ticks..18_000 + FOUND_TICKS;
    assert!(awaited.contains(&lacked.len()), "after {} ticks", lacked.len());
    assert!(lacked[lacked.len() - 2] > 1000, "{} were lacking before", lacked[lacked.len() - 2]);
}
