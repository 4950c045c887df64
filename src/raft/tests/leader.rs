//! One leader, fed by hand: what it makes of answers that are late, wrong, or come from below its log.

use bytes::Bytes;

use crate::raft::{
    Append, AppendOutcome, AppendReply, Body, Config, Event, Fetch, Input, Message, Output, Persist, PersistNumber,
    ReadToken, Refused, Replica, Restored, Role, Round,
};
use crate::types::{Data, Entry, HardState, Index, LogId, NodeId, Payload, Term};

use super::cluster::{limits_default, membership};

fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), Index(index))
}

pub fn from_peer(peer: u64, term: u64, body: Body) -> Input {
    Input::Message(Message { from: NodeId(peer), to: NodeId(1), term: Term(term), body })
}

pub fn reply(outcome: AppendOutcome) -> Body {
    Body::AppendReply(AppendReply { round: Round(0), outcome })
}

/// Of three, in term 4. Its log begins after 10@2 and ends with the no-op 13@4.
pub fn leader() -> Replica {
    let config =
        Config { id: NodeId(1), heartbeat_ticks: 5, election_ticks: 30..60, seed: 1, limits: limits_default() };
    let restored = Restored {
        hard_state: HardState { term: Term(3), vote: None },
        before_first: id(2, 10),
        terms: vec![(Index(11), Term(3))],
        last: id(3, 12),
        commit: Index(10),
        snapshot: LogId::ZERO,
        memberships: vec![(Index(4), membership(3, 0))],
        membership_term: Term::ZERO,
    };
    let mut replica = Replica::new(config, restored);
    while replica.status().role == Role::Follower {
        replica.handle(Input::Tick);
    }
    replica.handle(from_peer(2, 3, Body::PreVoteReply { next: Term(4), granted: true }));
    durable(&mut replica);
    replica.handle(from_peer(2, 4, Body::VoteReply { granted: true }));
    assert_eq!(replica.status().role, Role::Leader);
    durable(&mut replica);
    replica
}

/// The others commit without this disk: what waits for it alone has a bound, and there is room again when it is done.
#[test]
fn a_leader_whose_disk_lags_takes_no_more_than_twice_its_cache() {
    let mut leader = leader();
    let payload = Payload::Data(Data::new(Bytes::from(vec![0; 4 << 10])));
    let (mut taken, mut last_persist) = (0, PersistNumber(0));
    let refused = loop {
        if let Err(refused) = leader.propose(vec![payload.clone()]) {
            break refused;
        }
        taken += 1;
        assert!(taken * (4 << 10) <= 3 * limits_default().cache_bytes_max, "what waits has no bound");
        last_persist = leader.take_output().persist.map_or(last_persist, |persist| persist.number);
        for peer in [2, 3] {
            let last = leader.status().last.index;
            leader.handle(from_peer(peer, 4, reply(AppendOutcome::Matched { last })));
        }
        assert_eq!(leader.status().commit, leader.status().last.index, "the others have it");
        leader.handle(Input::Applied(leader.status().commit));
    };
    assert_eq!(refused, Refused::Busy);
    assert!(taken * (4 << 10) > limits_default().cache_bytes_max && !leader.has_room(0));
    leader.handle(Input::Durable(last_persist));
    assert!(leader.has_room(0) && leader.propose(vec![payload]).is_ok());
}

/// Take the output and carry its persist out.
pub fn durable(replica: &mut Replica) -> Output {
    let output = replica.take_output();
    if let Some(Persist { number, .. }) = output.persist {
        replica.handle(Input::Durable(number));
    }
    output
}

/// Where a follower is probed, or after what entries are sent to it.
fn sent_after(output: &Output, peer: u64) -> Vec<(LogId, usize)> {
    let to_peer = output.send.iter().filter(|outgoing| outgoing.message.to == NodeId(peer));
    to_peer
        .filter_map(|outgoing| match &outgoing.message.body {
            Body::Append(append) => Some((append.previous, append.entries.len())),
            _ => None,
        })
        .collect()
}

/// A node that is ahead tells its term in answer to a question of term 3. Its sender comes to lead in term 4 itself,
/// and the answer arrives late, or again: it confirmed a round that was begun after it was given, and so reads that
/// could be stale.
#[test]
fn an_answer_to_rounds_of_an_older_term_confirms_nothing_in_the_next() {
    let round = Round(50);
    let append = Append { previous: id(3, 12), entries: Vec::new(), commit: Index::ZERO, round };
    for question in [Body::Heartbeat { commit: Index::ZERO, round }, Body::Append(append)] {
        let mut ahead = leader();
        ahead.take_output();
        ahead.handle(from_peer(2, 3, question));
        let bodies = ahead.take_output().send.into_iter().map(|outgoing| outgoing.message.body);
        let is_answer = |body: &Body| matches!(body, Body::HeartbeatReply { .. } | Body::AppendReply(_));
        let answers: Vec<Body> = bodies.filter(is_answer).collect();
        let [answer] = answers.as_slice() else { panic!("{answers:?}") };

        let mut leader = leader();
        leader.handle(from_peer(2, 4, reply(AppendOutcome::Matched { last: Index(13) })));
        leader.read(ReadToken(1)).unwrap();
        durable(&mut leader);
        leader.handle(from_peer(2, 4, answer.clone()));
        assert!(leader.take_output().reads_ready.is_empty(), "{answer:?}");
        leader.handle(from_peer(2, 4, Body::HeartbeatReply { round: Round(1) }));
        assert_eq!(leader.take_output().reads_ready.len(), 1);
    }
}

#[test]
fn a_follower_below_the_log_needs_a_snapshot_and_is_not_probed_in_a_circle() {
    let mut replica = leader();
    replica.handle(from_peer(2, 4, reply(AppendOutcome::Rejected { previous: id(3, 12), hint: id(1, 5) })));
    assert_eq!(sent_after(&durable(&mut replica), 2), vec![(id(2, 10), 0)]);
    let outcome = AppendOutcome::Rejected { previous: id(2, 10), hint: id(1, 5) };
    // Each answer to a probe begins a round, of which the next probe is.
    let rejected = Body::AppendReply(AppendReply { round: Round(1), outcome });
    replica.handle(from_peer(2, 4, rejected.clone()));
    let output = durable(&mut replica);
    assert_eq!(output.events, vec![Event::SnapshotNeeded { peer: NodeId(2) }]);
    assert_eq!(sent_after(&output, 2), vec![]);
    replica.handle(from_peer(2, 4, rejected));
    assert_eq!(durable(&mut replica).events, vec![]);
    // It has got the snapshot.
    replica.handle(from_peer(2, 4, reply(AppendOutcome::Matched { last: Index(10) })));
    let fetch = Fetch { peer: NodeId(2), from: Index(11), last: Index(13), bytes_max: 2 << 20 };
    assert_eq!(durable(&mut replica).fetch, vec![fetch]);
}

#[test]
fn fetched_entries_are_checked_before_they_are_sent() {
    let entry = |term, index| Entry { id: id(term, index), payload: Payload::Noop };
    let fetched = |entries| Input::Fetched { peer: NodeId(2), from: Index(11), entries };
    let asked = || {
        let mut replica = leader();
        replica.handle(from_peer(2, 4, reply(AppendOutcome::Matched { last: Index(10) })));
        let output = durable(&mut replica);
        assert_eq!((output.fetch.len(), sent_after(&output, 2)), (1, vec![]));
        replica
    };
    let mut replica = asked();
    replica.handle(fetched(vec![entry(3, 11), entry(3, 12)]));
    let output = durable(&mut replica);
    assert_eq!(sent_after(&output, 2), vec![(id(2, 10), 2), (id(3, 12), 1)]);
    for wrong in [vec![entry(2, 11)], vec![entry(3, 12)], vec![entry(3, 11), entry(4, 12)]] {
        let mut replica = asked();
        replica.handle(fetched(wrong));
        let output = durable(&mut replica);
        assert_eq!(sent_after(&output, 2), vec![]);
        assert_eq!(output.fetch.len(), 1, "asked again");
    }
    // What cannot be read now is asked for again with the next heartbeat, not at once.
    let mut replica = asked();
    replica.handle(fetched(vec![]));
    assert_eq!(durable(&mut replica).fetch, vec![]);
    (0..5).for_each(|_| replica.handle(Input::Tick));
    assert_eq!(durable(&mut replica).fetch.len(), 1);
}

#[test]
pub fn answers_of_another_term_or_from_strangers_mean_nothing() {
    let mut replica = leader();
    for (peer, term) in [(2, 3), (9, 4)] {
        replica.handle(from_peer(peer, term, reply(AppendOutcome::Matched { last: Index(13) })));
        replica.handle(from_peer(peer, term, Body::HeartbeatReply { round: Round(7) }));
    }
    assert_eq!(replica.status().commit, Index(10));
    replica.handle(from_peer(2, 4, reply(AppendOutcome::Matched { last: Index(13) })));
    assert_eq!(replica.status().commit, Index(13));
}

#[test]
fn a_round_that_began_before_the_read_does_not_confirm_it() {
    let mut replica = leader();
    replica.handle(from_peer(2, 4, reply(AppendOutcome::Matched { last: Index(13) })));
    (0..5).for_each(|_| replica.handle(Input::Tick));
    replica.read(ReadToken(1)).expect("it leads");
    let output = replica.take_output();
    let rounds = output.send.iter().filter_map(|outgoing| match outgoing.message.body {
        Body::Heartbeat { round, .. } => Some(round),
        _ => None,
    });
    let newest = rounds.max().expect("a round for the read");
    assert_eq!(newest, Round(2));
    replica.handle(from_peer(2, 4, Body::HeartbeatReply { round: Round(1) }));
    assert_eq!(replica.take_output().reads_ready, vec![]);
    replica.handle(from_peer(2, 4, Body::HeartbeatReply { round: newest }));
    assert_eq!(replica.take_output().reads_ready.len(), 1);
}

#[test]
fn proposals_are_refused_when_too_much_is_uncommitted() {
    let mut replica = leader();
    let payload = || Payload::Data(crate::types::Data::new(bytes::Bytes::from(vec![0; 1 << 20])));
    let mut taken = 0;
    while replica.propose(vec![payload()]).is_ok() {
        taken += 1;
    }
    assert_eq!(replica.propose(vec![payload()]), Err(Refused::Busy));
    assert_eq!(taken, 63, "64 MiB less what entries cost besides");
    replica.take_output();
    replica.handle(Input::Durable(PersistNumber(3)));
    replica.handle(from_peer(2, 4, reply(AppendOutcome::Matched { last: Index(13 + 63) })));
    assert!(replica.propose(vec![payload()]).is_ok());
}
