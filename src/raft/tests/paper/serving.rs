//! Clients and the leader: section 8, handing over (dissertation 3.10), reads (6.3 and 6.4).

use crate::raft::{Body, Event, Input, Output, ReadReady, ReadToken, Refused, Replica, Role, Round};
use crate::types::{Index, NodeId, Payload};

use super::super::leader::from_peer;
use super::{elect, has, hear, heartbeat, lead, led_cluster, matched, node, role_is, settle, settled_leader, tick};

const READ: ReadToken = ReadToken(7);

/// Output with the disk done, for what is not a message.
fn take(replica: &mut Replica) -> Output {
    let output = replica.take_output();
    if let Some(persist) = &output.persist {
        replica.handle(Input::Durable(persist.number));
    }
    output
}

/// The newest round that it asks its followers about.
fn round(output: &Output) -> Option<Round> {
    let rounds = output.send.iter().filter_map(|outgoing| match outgoing.message.body {
        Body::Heartbeat { round, .. } => Some(round),
        _ => None,
    });
    rounds.max()
}

#[test]
fn s8_who_does_not_lead_names_who_does() {
    let mut follower = node(&[], 1);
    let refused = |leader| Err(Refused::NotLeader { leader });
    assert_eq!(follower.propose(vec![Payload::Noop]), refused(None));
    hear(&mut follower, 2, 1, heartbeat());
    assert_eq!(follower.propose(vec![Payload::Noop]), refused(Some(NodeId(2))));
}

#[test]
fn s8_no_read_before_an_entry_of_the_term_is_committed() {
    let mut leader = node(&[1, 1], 1);
    lead(&mut leader);
    leader.read(READ).expect("it leads");
    let output = take(&mut leader);
    assert_eq!((round(&output), output.reads_ready), (None, vec![]));
    leader.handle(from_peer(2, 2, super::reply(crate::raft::AppendOutcome::Matched { last: Index(3) })));
    assert!(round(&take(&mut leader)).is_some());
}

#[test]
fn d6_4_a_read_is_served_at_the_commit_index_that_it_found_when_a_majority_has_confirmed_the_leader() {
    let mut leader = settled_leader(&[], 0);
    leader.read(READ).expect("it leads");
    let asked = take(&mut leader);
    assert_eq!(asked.reads_ready, []);
    // Meanwhile another entry is committed: the read need not see it.
    leader.propose(vec![Payload::Noop]).expect("it leads");
    take(&mut leader);
    matched(&mut leader, 2, 2);
    leader.handle(from_peer(3, 1, Body::HeartbeatReply { round: round(&asked).expect("a round") }));
    assert_eq!(take(&mut leader).reads_ready, [ReadReady { token: READ, index: Index(1) }]);
}

#[test]
fn d6_4_what_was_asked_before_the_read_confirms_nothing() {
    let mut leader = settled_leader(&[], 0);
    let before = tick(&mut leader, 5);
    let older = before.iter().find_map(|message| match message.body {
        Body::Heartbeat { round, .. } => Some(round),
        _ => None,
    });
    leader.read(READ).expect("it leads");
    take(&mut leader);
    leader.handle(from_peer(2, 1, Body::HeartbeatReply { round: older.expect("a heartbeat") }));
    assert_eq!(take(&mut leader).reads_ready, []);
}

#[test]
fn d6_4_one_round_serves_all_reads_that_wait_for_it() {
    let mut leader = settled_leader(&[], 0);
    (0..100).for_each(|number| leader.read(ReadToken(number)).expect("it leads"));
    let asked = take(&mut leader);
    assert_eq!(asked.send.len(), 2);
    leader.handle(from_peer(2, 1, Body::HeartbeatReply { round: round(&asked).expect("a round") }));
    assert_eq!(take(&mut leader).reads_ready.len(), 100);
}

#[test]
fn d6_4_a_leader_that_was_replaced_serves_no_read() {
    let mut leader = settled_leader(&[], 0);
    leader.read(READ).expect("it leads");
    take(&mut leader);
    leader.handle(from_peer(2, 2, Body::HeartbeatReply { round: Round(0) }));
    let output = take(&mut leader);
    assert_eq!((output.reads_ready, output.reads_refused), (vec![], vec![READ]));
}

#[test]
fn d6_4_a_follower_asks_its_leader_for_the_index() {
    let mut cluster = led_cluster();
    cluster.read(NodeId(3), READ).expect("it knows the leader");
    cluster.settle_all();
    assert_eq!(cluster.reads_ready, [(NodeId(3), ReadReady { token: READ, index: Index(1) })]);
}

#[test]
fn d3_10_who_hands_over_takes_no_more_proposals() {
    let mut leader = settled_leader(&[], 0);
    leader.transfer(NodeId(2)).expect("it is a voter");
    assert_eq!(leader.propose(vec![Payload::Noop]), Err(Refused::TransferPending));
}

#[test]
fn d3_10_the_other_is_asked_to_stand_when_it_has_the_whole_log() {
    let mut leader = settled_leader(&[], 0);
    leader.propose(vec![Payload::Noop]).expect("it leads");
    settle(&mut leader);
    leader.transfer(NodeId(2)).expect("it is a voter");
    let stand_now = |body: &Body| *body == Body::StandNow;
    assert!(!has(&settle(&mut leader), 2, stand_now));
    assert!(has(&matched(&mut leader, 2, 2), 2, stand_now));
}

#[test]
fn d3_10_who_is_asked_stands_at_once_although_the_leader_is_heard() {
    let mut follower = node(&[1], 1);
    hear(&mut follower, 2, 1, heartbeat());
    let requests = hear(&mut follower, 2, 1, Body::StandNow);
    assert_eq!(role_is(&follower, Role::Candidate), 2);
    assert!(has(&requests, 3, |body| matches!(body, Body::Vote { transfer: true, .. })));
    // But not because of anybody else.
    let mut follower = node(&[1], 1);
    hear(&mut follower, 2, 1, heartbeat());
    assert_eq!(hear(&mut follower, 3, 1, Body::StandNow), []);
}

#[test]
fn d3_10_what_does_not_come_to_pass_within_an_election_timeout_is_given_up() {
    let mut leader = settled_leader(&[], 0);
    leader.transfer(NodeId(3)).expect("it is a voter");
    for _ in 0..60 {
        let term = role_is(&leader, Role::Leader);
        hear(&mut leader, 2, term, Body::HeartbeatReply { round: Round(0) });
        assert!(leader.propose(vec![Payload::Noop]).is_err());
        tick(&mut leader, 1);
    }
    tick(&mut leader, 1);
    assert!(leader.propose(vec![Payload::Noop]).is_ok());
}

#[test]
fn d3_10_leadership_goes_over_in_a_term_and_without_a_timeout() {
    let mut cluster = led_cluster();
    cluster.events.clear();
    cluster.replica_mut(NodeId(1)).transfer(NodeId(3)).expect("it is a voter");
    cluster.settle(NodeId(1));
    cluster.settle_all();
    assert_eq!(role_is(cluster.replica(NodeId(3)), Role::Leader), 2);
    let asked = |event: &Event| matches!(event, Event::RoleChanged { role: Role::PreCandidate, .. });
    assert!(!cluster.events.iter().any(|(_, event)| asked(event)));
    elect(&mut cluster, 3);
}
