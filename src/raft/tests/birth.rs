//! How a cluster is born, and how none is born where it must not be.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::cluster::Cluster;
use crate::raft::{Body, ChangeRefused, Input, Replica, Sender};
use crate::random::Random;
use crate::types::{Data, Incarnation, Index, LogId, Membership, NodeId, Payload, Term};

const ALL: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
/// Some of the longest election timeouts.
const LONG: u32 = 1_000;

fn is_born(cluster: &Cluster, id: NodeId) -> bool {
    cluster.runs(id) && !cluster.replica(id).membership().forming
}

/// The last entry on a node's disk that names all first members.
fn named_on_disk(cluster: &Cluster, id: NodeId) -> Option<&Membership> {
    let memberships = cluster.nodes[&id].disk.entries.iter().rev().filter_map(|entry| match &entry.payload {
        Payload::Membership(membership) => Some(&**membership),
        _ => None,
    });
    let is_named =
        |membership: &&Membership| membership.members.iter().all(|member| member.incarnation != Incarnation::OPEN);
    memberships.filter(is_named).find(|membership| membership.forming)
}

/// What must hold when a leader serves for the first time: the lives are named on every disk. (Whoever is lost while the
/// last of the others writes that down is lost after its birth, and named with the life that it had.)
fn check_birth(cluster: &Cluster) {
    let born = cluster.nodes.keys().find(|id| is_born(cluster, **id)).expect("called when there is one");
    for member in &cluster.replica(*born).membership().members {
        let node = &cluster.nodes[&member.id];
        if member.incarnation == node.incarnation {
            let named = named_on_disk(cluster, member.id).expect("the lives are named on every disk");
            assert_eq!(named.members, cluster.replica(*born).membership().members, "on {}", member.id);
        }
    }
}

#[test]
pub fn a_cluster_is_born_when_each_life_is_named_on_every_disk() {
    for seed in 0..20 {
        for voters in [1, 2, 3, 5] {
            let mut cluster = Cluster::unborn(voters, seed);
            cluster.meet_all();
            let born = |cluster: &Cluster| cluster.nodes.keys().any(|id| is_born(cluster, *id));
            while !born(&cluster) {
                let ids: Vec<NodeId> = cluster.nodes.keys().copied().collect();
                ids.into_iter().for_each(|id| cluster.input(id, Input::Tick));
                // One step of a disk or of a message at a time: the birth is seen when it happens.
                for _ in 0..10_000 {
                    let waiting = cluster.nodes.iter().find(|(_, node)| !node.persists.is_empty()).map(|(id, _)| *id);
                    match (waiting, cluster.network.pop_front()) {
                        _ if born(&cluster) => break,
                        (Some(id), message) => {
                            cluster.network.extend(message);
                            cluster.persist(id);
                        }
                        (None, Some(message)) => drop(cluster.deliver(message)),
                        (None, None) => break,
                    }
                }
            }
            check_birth(&cluster);
            cluster.run(200);
            assert!(cluster.nodes.keys().all(|id| is_born(&cluster, *id)), "{voters} voters, seed {seed}");
        }
    }
}

#[test]
pub fn without_one_of_its_first_members_nothing_is_decided() {
    let mut cluster = Cluster::unborn(3, 1);
    cluster.crash(NodeId(3), 0);
    cluster.meet_all();
    cluster.run(LONG);
    assert_eq!(cluster.leader(), None);
    for id in [NodeId(1), NodeId(2)] {
        assert_eq!(cluster.replica(id).not_met().collect::<Vec<_>>(), [NodeId(3)], "it says who is missing");
    }
    cluster.start(NodeId(3));
    cluster.run(LONG);
    let leader = cluster.leader().expect("all are there");
    assert!(!is_born(&cluster, leader), "nobody is named whom nobody has met");
    assert_eq!(cluster.change(leader, &[]), Err(ChangeRefused::Forming));
    cluster.meet_all();
    cluster.run(200);
    assert!(ALL.iter().all(|id| is_born(&cluster, *id)));
    assert_eq!(cluster.replica(leader).not_met().count(), 0);
    // From now on it is as any other: a majority goes on.
    cluster.crash(NodeId(3), 0);
    cluster.run(200);
    let leader = cluster.leader().expect("two of three");
    let data = Payload::Data(Data::new(Bytes::from_static(b"x")));
    let range = cluster.propose(leader, vec![data]).expect("it leads");
    cluster.run(10);
    assert!(cluster.replica(leader).status().commit >= range.start);
}

/// After its first members have named each other, each in turn is lost and made anew: while the cluster is being born
/// it is named anew.
#[test]
fn a_first_member_that_is_lost_before_the_birth_is_made_anew() {
    for lost in ALL {
        let mut cluster = Cluster::unborn(3, 7);
        cluster.run(200);
        let leader = cluster.leader().expect("all are there");
        // The names are on all disks but one.
        let last = *ALL.iter().rfind(|id| **id != leader && **id != lost).expect("three members");
        cluster.stalled.insert(last);
        cluster.meet_all();
        cluster.run(5);
        assert!(named_on_disk(&cluster, lost).is_some());
        cluster.make_anew(lost);
        cluster.stalled.clear();
        cluster.meet_all();
        cluster.run(LONG);
        assert!(ALL.iter().all(|id| is_born(&cluster, *id)), "{lost} was lost");
        let lives = &cluster.replica(last).membership().members;
        let lives: Vec<u64> = lives.iter().map(|member| member.incarnation.0).collect();
        let expected = ALL.map(|id| if id == lost { id.0 + 100 } else { id.0 });
        assert_eq!(lives, expected);
    }
}

/// What was to go to the life before counts on what its disk held.
#[test]
fn what_has_not_left_for_a_first_member_never_leaves_for_its_next_life() {
    let mut cluster = Cluster::unborn(3, 7);
    cluster.run(200);
    let leader = cluster.leader().expect("all are there");
    // The names are on all disks but one.
    let others: Vec<NodeId> = ALL.into_iter().filter(|id| *id != leader).collect();
    let (lost, stalled) = (others[0], others[1]);
    cluster.stalled.insert(stalled);
    cluster.meet_all();
    cluster.run(5);
    let mut replica = cluster.replica(leader).clone();
    assert!(replica.membership().forming);
    let counts = |replica: &mut Replica| {
        let counts = |body: &Body| matches!(body, Body::Heartbeat { commit, .. } if *commit > Index::ZERO);
        let sent = replica.take_output().send.into_iter().map(|outgoing| outgoing.message);
        sent.filter(|message| counts(&message.body)).map(|message| message.to).collect::<Vec<_>>()
    };
    while counts(&mut replica.clone()).is_empty() {
        replica.handle(Input::Tick);
    }
    assert!(counts(&mut replica.clone()).contains(&lost));
    replica.handle(Input::Met { node: lost, incarnation: Incarnation(lost.0 + 100) });
    assert_eq!(counts(&mut replica), [stalled]);
}

/// A supervisor has emptied and made anew two directories of three: the third names other lives, and has no link to them.
#[test]
fn a_majority_made_anew_is_no_new_cluster() {
    let mut cluster = Cluster::unborn(3, 3);
    cluster.meet_all();
    cluster.run(200);
    assert!(ALL.iter().all(|id| is_born(&cluster, *id)));
    cluster.make_anew(NodeId(2));
    cluster.make_anew(NodeId(3));
    let pairs = [(1, 2), (1, 3), (2, 1), (3, 1)].map(|(from, to)| (NodeId(from), NodeId(to)));
    cluster.cut.extend(pairs);
    cluster.meet(NodeId(2), NodeId(3));
    cluster.run(10 * LONG);
    assert_eq!(cluster.leader(), None);
    for id in [NodeId(2), NodeId(3)] {
        assert_eq!(cluster.replica(id).status().commit, Index::ZERO);
        assert_eq!(cluster.replica(id).not_met().collect::<Vec<_>>(), [NodeId(1)]);
    }
}

/// Who missed the end of the birth hears those who were added after it, and a node that joins hears on while its log
/// passes through the birth.
#[test]
fn who_is_left_in_the_birth_hears_what_came_later() {
    let mut cluster = Cluster::unborn(3, 1);
    let sender = |term, index| Sender {
        incarnation: Incarnation(44),
        boot: 1,
        configuration: LogId::new(Term(term), Index(index)),
    };
    let later = NodeId(4);
    let replica = cluster.replica_mut(NodeId(3));
    assert!(!replica.hears(later, sender(0, 0)), "nobody has met it");
    assert!(replica.hears(later, sender(1, 9)));
    replica.handle(Input::Met { node: later, incarnation: Incarnation::OPEN });
    assert!(!replica.hears(later, sender(0, 0)), "nobody is called so");
    replica.handle(Input::Met { node: later, incarnation: Incarnation(44) });
    assert!(replica.hears(later, sender(0, 0)));
}

/// A node that was added anew under its old id finds its former life, a voter, in the log: that is not this one.
#[test]
fn a_node_does_not_stand_for_its_former_life() {
    let mut cluster = Cluster::new(1, 0, super::cluster::limits_default(), 1);
    cluster.make_anew(NodeId(1));
    cluster.run(LONG);
    assert_eq!(cluster.leader(), None);
}

/// Births under loss, crashes and directories that are lost: whenever the first leader is about to serve, the lives are
/// named on every disk.
#[test]
fn random_births_hold() {
    let mut made_anew = 0;
    for seed in 0..300 {
        let mut random = Random::seeded(seed);
        let voters = *random.pick(&[1, 2, 3, 3, 4, 5]);
        let mut cluster = Cluster::unborn(voters, random.next_u64());
        cluster.links = Some(BTreeSet::new());
        let any = |random: &mut Random| NodeId(1 + random.below(voters));
        let mut is_over = false;
        for step in 0..20_000 {
            let id = any(&mut random);
            match random.below(1000) {
                0 if cluster.runs(id) => cluster.crash(id, random.below(2) as usize),
                1 => {
                    cluster.make_anew(id);
                    made_anew += 1;
                }
                0..20 if !cluster.runs(id) => {
                    cluster.start(id);
                    cluster.meet_all();
                }
                20..60 => cluster.meet(id, any(&mut random)),
                60..200 if cluster.runs(id) => cluster.input(id, Input::Tick),
                200..500 if cluster.runs(id) => cluster.persist(id),
                500..1000 => {
                    if let Some(message) = cluster.network.pop_front() {
                        match random.below(20) {
                            0 => {}
                            1 => cluster.network.push_back(message),
                            _ => drop(cluster.deliver(message)),
                        }
                    }
                }
                _ => {}
            }
            if cluster.nodes.keys().any(|id| is_born(&cluster, *id)) {
                check_birth(&cluster);
                is_over = step > 0;
                break;
            }
        }
        if !is_over {
            let ids: Vec<NodeId> = cluster.nodes.keys().copied().collect();
            ids.into_iter()
                .filter(|id| !cluster.runs(*id))
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|id| cluster.start(id));
            cluster.meet_all();
            cluster.run(LONG);
        }
        assert!(cluster.nodes.keys().any(|id| is_born(&cluster, *id)), "seed {seed}");
    }
    assert!(made_anew > 300, "{made_anew}");
}
