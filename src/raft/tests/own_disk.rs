//! A disk that stalls, where a script cannot say it: what is lost is one kind of message.

use bytes::Bytes;

use super::cluster::{Cluster, limits_default};
use crate::raft::{Body, Event, Input, Message, Role, Round};
use crate::types::{Data, NodeId, Payload, Term};

const LEADER: NodeId = NodeId(1);

fn propose(cluster: &mut Cluster) {
    let data = Payload::Data(Data::new(Bytes::from_static(b"x")));
    cluster.propose(LEADER, vec![data]).expect("it leads");
}

/// Node 1 leads three, at rest.
fn led() -> Cluster {
    let mut cluster = Cluster::new(3, 0, limits_default(), 1);
    // Until one tick more than the longest election timeout: somebody leads, and is made to be node 1.
    cluster.run(100);
    if cluster.leader() != Some(LEADER) {
        let leader = cluster.leader().expect("three nodes elect one");
        cluster.replica_mut(leader).transfer(LEADER).expect("it is a voter");
        cluster.run(5);
    }
    assert_eq!(cluster.leader(), Some(LEADER));
    cluster
}

/// Two flushes are always under way at the leader, begun by turns, so that one ends every `half_ticks` and each takes
/// twice that. When it hands over, if it does.
fn hands_over_after(half_ticks: u32) -> Option<u32> {
    let mut cluster = led();
    cluster.stalled.insert(LEADER);
    cluster.events.clear();
    propose(&mut cluster);
    propose(&mut cluster);
    (1..200).find(|tick| {
        cluster.run(1);
        let hands_over = |(id, event): &(NodeId, Event)| *id == LEADER && matches!(event, Event::DiskStalls { .. });
        if cluster.events.iter().any(hands_over) {
            return true;
        }
        if tick % half_ticks == 0 {
            cluster.persist(LEADER);
            propose(&mut cluster);
        }
        false
    })
}

/// It is the age of the oldest flush that counts, not the time since one ended. The second of the two that are there at
/// first is more than 15 ticks old in the 16th.
#[test]
pub fn flushes_that_overlap_and_take_too_long_are_a_stall() {
    assert_eq!(hands_over_after(11), Some(16));
    assert_eq!(hands_over_after(8), Some(16));
    assert_eq!(hands_over_after(7), None);
}

/// The disk of all three stands still for half a second; when it goes on the others are heard of some ticks before this
/// node's own flush.
#[test]
pub fn a_shared_disk_that_goes_on_here_last_costs_no_leadership() {
    for later in 1..=3 {
        let mut cluster = led();
        cluster.stalled.extend([1, 2, 3].map(NodeId));
        cluster.events.clear();
        (0..3).for_each(|_| propose(&mut cluster));
        cluster.run(50);
        cluster.stalled = [LEADER].into();
        [2, 3].map(NodeId).into_iter().for_each(|node| cluster.persist(node));
        cluster.run(later);
        cluster.stalled.clear();
        cluster.persist(LEADER);
        cluster.run(100);
        let stalls = cluster.events.iter().filter(|(_, event)| matches!(event, Event::DiskStalls { .. }));
        assert_eq!(stalls.count(), 0, "{later} ticks later");
        assert_eq!(cluster.leader(), Some(LEADER));
    }
}

/// The disks of all owe as much: each persist waits for 30 ticks behind others.
#[test]
fn nobody_hands_over_where_all_are_overloaded_alike() {
    let mut cluster = led();
    cluster.stalled.extend([1, 2, 3].map(NodeId));
    cluster.events.clear();
    for tick in 0..1000 {
        propose(&mut cluster);
        if tick >= 60 || tick % 2 == 0 {
            [1, 2, 3].map(NodeId).into_iter().for_each(|node| cluster.persist(node));
        }
        cluster.run(1);
    }
    let stalls = cluster.events.iter().filter(|(_, event)| matches!(event, Event::DiskStalls { .. }));
    assert_eq!(stalls.count(), 0);
    assert_eq!(cluster.leader(), Some(LEADER));
    assert!(cluster.replica(LEADER).status().commit.0 > 900);
}

#[test]
fn a_leader_whose_disk_stalls_steps_down_if_nobody_takes_over_and_does_not_stand() {
    let mut cluster = led();
    let term = cluster.replica(LEADER).status().hard_state.term;
    cluster.stalled.insert(LEADER);
    // The follower is asked to stand, and never hears it.
    cluster.loses = |message| matches!(message.body, Body::StandNow);
    cluster.events.clear();
    for _ in 0..16 {
        propose(&mut cluster);
        cluster.run(1);
    }
    let stalls = |cluster: &Cluster| -> Vec<Option<NodeId>> {
        let told = cluster.events.iter().filter(|(id, _)| *id == LEADER);
        told.filter_map(|(_, event)| if let Event::DiskStalls { to } = event { Some(*to) } else { None }).collect()
    };
    let asked = stalls(&cluster);
    assert!(matches!(asked.as_slice(), [Some(_)]), "{asked:?}");
    // It leads on until the time for that is over.
    cluster.run(60);
    assert_eq!(stalls(&cluster), [asked[0]]);
    assert_eq!(cluster.replica(LEADER).status().role, Role::Leader);
    cluster.run(1);
    assert_eq!(stalls(&cluster), [asked[0], None]);
    // Another leads soon, and the one with the stalled disk disturbs nobody.
    cluster.run(130);
    let leader = cluster.leader().expect("two of three go on");
    assert_ne!(leader, LEADER);
    let after = cluster.replica(leader).status().hard_state.term;
    cluster.run(1000);
    assert_eq!(cluster.leader(), Some(leader));
    assert_eq!(cluster.replica(leader).status().hard_state.term, after);
    assert!(after > term);
    // With its disk it is a member like others.
    cluster.stalled.clear();
    cluster.run(10);
    let (last, here) = (cluster.replica(leader).status().last, cluster.replica(LEADER).status());
    assert_eq!((here.durable, here.leader), (last, Some(leader)));
}

#[test]
fn a_late_answer_makes_no_node_stand_whose_disk_stalls() {
    let mut cluster = Cluster::new(3, 0, limits_default(), 1);
    let message = |term: u64, body: Body| Message { from: NodeId(2), to: LEADER, term: Term(term), body };
    let mut likely = cluster.replica(LEADER).clone();
    let until_timeout = (1..=60).find(|_| {
        likely.handle(Input::Tick);
        likely.status().role == Role::PreCandidate
    });
    let until_timeout = until_timeout.expect("nobody leads");
    let tick = |cluster: &mut Cluster, ticks: u32| (0..ticks).for_each(|_| cluster.input(LEADER, Input::Tick));
    tick(&mut cluster, until_timeout - 10);
    // A term that is to be made durable, and never is.
    cluster.input(LEADER, Input::Message(message(1, Body::HeartbeatReply { round: Round::default() })));
    tick(&mut cluster, 10);
    assert_eq!(cluster.replica(LEADER).status().role, Role::PreCandidate, "it stalls for 10 ticks alone");
    tick(&mut cluster, 6);
    cluster.input(LEADER, Input::Message(message(1, Body::PreVoteReply { next: Term(2), granted: true })));
    assert_eq!(cluster.replica(LEADER).status().role, Role::Follower);
    assert_eq!(cluster.replica(LEADER).status().hard_state.term, Term(1));
}

/// Clients of node 1 wait for a segment that does not come: whom it asked to lead, so far.
fn asked(cluster: &mut Cluster, node: NodeId, ticks: u32) -> Vec<NodeId> {
    cluster.events.clear();
    for _ in 0..ticks {
        cluster.run(1);
        cluster.replica_mut(node).leave_hanging_segment();
    }
    let told = cluster.events.iter().filter(|(id, _)| *id == node);
    told.filter_map(|(_, event)| if let Event::SegmentHangs { to } = event { Some(*to) } else { None }).collect()
}

#[test]
fn a_leader_whose_segments_hang_hands_over_once_and_who_was_asked_does_not_pass_it_on() {
    let mut cluster = led();
    // That it leads was handed to it, too; 600 ticks of ten longest timeouts from then on.
    assert_eq!(asked(&mut cluster, LEADER, 500), []);
    cluster.run(100);
    let term = cluster.replica(LEADER).status().hard_state.term;
    let to = asked(&mut cluster, LEADER, 20);
    assert_eq!(to, [NodeId(2)]);
    let next = cluster.leader().expect("it has taken over");
    assert_eq!((next, cluster.replica(next).status().hard_state.term), (to[0], Term(term.0 + 1)));
    // Its disk hangs as well, which nobody can know.
    assert_eq!(asked(&mut cluster, next, 500), []);
    assert_eq!(cluster.leader(), Some(next));
    cluster.run(100);
    assert_eq!(asked(&mut cluster, next, 20), [NodeId(3)], "not back to where it came from");
    // A follower has nothing to hand over.
    let follower = [1, 2, 3].map(NodeId).into_iter().find(|node| cluster.leader() != Some(*node)).unwrap();
    assert_eq!(asked(&mut cluster, follower, 700), []);
}

#[test]
fn a_leader_whose_segments_hang_stays_where_no_majority_without_it_holds_everything() {
    let mut cluster = led();
    cluster.run(600);
    cluster.stalled.extend([2, 3].map(NodeId));
    propose(&mut cluster);
    assert_eq!(asked(&mut cluster, LEADER, 100), [], "their disks do not take what it has");
    cluster.stalled = [NodeId(3)].into();
    cluster.persist(NodeId(2));
    assert_eq!(asked(&mut cluster, LEADER, 20), [], "one is no majority of three");
    cluster.stalled.clear();
    cluster.persist(NodeId(3));
    assert_eq!(asked(&mut cluster, LEADER, 20).len(), 1);
    // Nobody hears that it is to lead: it leads on, and takes what comes.
    let mut cluster = led();
    cluster.run(600);
    cluster.loses = |message| matches!(message.body, Body::StandNow);
    assert_eq!(asked(&mut cluster, LEADER, 500), [NodeId(2)], "at most once in ten longest timeouts");
    assert_eq!(asked(&mut cluster, LEADER, 200), [NodeId(3)], "who did not take over is not asked again before others");
    assert_eq!(cluster.leader(), Some(LEADER));
    cluster.run(100);
    let before = cluster.committed();
    propose(&mut cluster);
    cluster.run(2);
    assert_eq!(cluster.committed(), before.next());
}
