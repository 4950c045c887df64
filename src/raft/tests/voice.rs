//! Followers that come back without what they had acknowledged: they count for nothing any more, and late words of those
//! that have lost nothing are not taken for it.

use crate::raft::{
    AppendOutcome, AppendReply, Body, Change, ChangeRefused, Event, Input, Replica, Role, Round, Sender,
};
use crate::types::{Incarnation, Index, LogId, NodeId, Payload, Term};

use super::leader::{durable, from_peer, leader, reply};

/// What node 2 says in a round.
fn says(round: u64, outcome: AppendOutcome) -> Input {
    from_peer(2, 4, Body::AppendReply(AppendReply { round: Round(round), outcome }))
}

fn lacks(previous: (u64, u64), hint: (u64, u64)) -> AppendOutcome {
    let id = |(index, term)| LogId::new(Term(term), Index(index));
    AppendOutcome::Rejected { previous: id(previous), hint: id(hint) }
}

fn losses(replica: &mut Replica) -> Vec<Event> {
    let events = durable(replica).events;
    events.into_iter().filter(|event| matches!(event, Event::VoiceLost { .. })).collect()
}

/// It leads with 14, which node 2 has acknowledged in round 0, and another round has begun.
fn acknowledged() -> Replica {
    let mut replica = leader();
    replica.propose(vec![Payload::Noop]).expect("it leads");
    durable(&mut replica);
    replica.handle(says(0, AppendOutcome::Matched { last: Index(14) }));
    assert_eq!(replica.status().commit, Index(14));
    (0..10).for_each(|_| replica.handle(Input::Tick));
    assert_eq!(losses(&mut replica), []);
    replica
}

#[test]
fn who_comes_back_without_what_it_acknowledged_has_no_voice() {
    for (previous, hint) in [((14, 4), (13, 4)), ((14, 4), (12, 3)), ((14, 4), (0, 0)), ((15, 4), (13, 4))] {
        let mut replica = acknowledged();
        replica.propose(vec![Payload::Noop]).expect("it leads");
        replica.handle(says(1, lacks(previous, hint)));
        let (acknowledged, holds) = (LogId::new(Term(4), Index(14)), LogId::new(Term(hint.1), Index(hint.0)));
        assert_eq!(losses(&mut replica), [Event::VoiceLost { peer: NodeId(2), acknowledged, holds }]);
        assert!(!replica.hears(NodeId(2), Sender { incarnation: Incarnation(2), boot: 9, configuration: LogId::ZERO }));
        // Neither what it acknowledges now, nor that it hears this leader.
        replica.handle(says(1, AppendOutcome::Matched { last: Index(15) }));
        durable(&mut replica);
        assert_eq!(replica.status().commit, Index(14), "one of three is no majority");
        for _ in 0..70 {
            replica.handle(Input::Tick);
            replica.handle(from_peer(2, 4, Body::HeartbeatReply { round: Round(1) }));
        }
        assert_eq!(replica.status().role, Role::Follower, "nobody whose word counts was heard");
    }
}

/// The entry that it acknowledged has gone from the leader's log: that it lacks it shows all the same.
#[test]
fn who_lost_what_the_leaders_log_has_no_more_has_no_voice() {
    for (hint, has_lost) in [((13, 4), true), ((12, 3), true), ((14, 4), false)] {
        let mut replica = acknowledged();
        replica.propose(vec![Payload::Noop; 3]).expect("it leads");
        durable(&mut replica);
        replica.handle(from_peer(3, 4, reply(AppendOutcome::Matched { last: Index(17) })));
        replica.handle(Input::Applied(Index(17)));
        durable(&mut replica);
        let before_first = LogId::new(Term(4), Index(16));
        replica.handle(Input::SnapshotMade { point: before_first });
        replica.handle(Input::Compacted { before_first });
        durable(&mut replica);
        (0..5).for_each(|_| replica.handle(Input::Tick));
        durable(&mut replica);
        replica.handle(says(2, lacks((17, 4), hint)));
        assert_eq!(losses(&mut replica).len(), usize::from(has_lost), "{hint:?}");
    }
}

/// Of the same round, or of one before: it may have been sent before the acknowledgement came.
#[test]
fn what_was_said_before_it_was_acknowledged_shows_nothing() {
    let mut replica = leader();
    replica.propose(vec![Payload::Noop]).expect("it leads");
    durable(&mut replica);
    (0..10).for_each(|_| replica.handle(Input::Tick));
    durable(&mut replica);
    replica.handle(says(1, AppendOutcome::Matched { last: Index(14) }));
    for round in 0..=2 {
        replica.handle(says(round, lacks((13, 4), (12, 3))));
        assert_eq!(losses(&mut replica), [], "round {round}");
    }
    (0..5).for_each(|_| replica.handle(Input::Tick));
    durable(&mut replica);
    // It has all that it acknowledged, and not yet what came after.
    replica.handle(says(3, lacks((15, 4), (14, 4))));
    assert_eq!(losses(&mut replica), []);
    replica.handle(says(3, lacks((15, 4), (13, 4))));
    assert_eq!(losses(&mut replica).len(), 1);
}

/// The way back: the life that has lost is removed, and another one added.
#[test]
fn another_life_of_it_has_a_voice() {
    let mut replica = acknowledged();
    replica.handle(says(1, lacks((14, 4), (13, 4))));
    assert_eq!(losses(&mut replica).len(), 1);
    let three = |replica: &mut Replica| {
        let last = replica.status().last.index;
        replica.handle(from_peer(3, 4, reply(AppendOutcome::Matched { last })));
        durable(replica);
    };
    three(&mut replica);
    for _ in 0..3 {
        let removed = replica.change(&[Change::Remove { node: NodeId(2) }]);
        assert!(!matches!(removed, Err(ChangeRefused::TooFewHeard)), "without it there is a majority");
        durable(&mut replica);
        three(&mut replica);
    }
    let mut member = super::cluster::membership(2, 0).members.remove(1);
    assert!(replica.hears(NodeId(2), Sender { incarnation: Incarnation(99), boot: 1, configuration: LogId::ZERO }));
    member.incarnation = Incarnation(99);
    replica.change(&[Change::Add { member, promote: false }]).expect("nothing is under way");
    durable(&mut replica);
    three(&mut replica);
    let last = replica.status().last.index;
    replica.handle(says(0, AppendOutcome::Matched { last }));
    for _ in 0..3 {
        replica.handle(Input::Tick);
        three(&mut replica);
        replica.handle(says(0, AppendOutcome::Matched { last }));
    }
    assert!(replica.change(&[Change::Promote { node: NodeId(2) }]).is_ok(), "it is heard, and has caught up");
}

/// Nothing waits to be sent to it, and it is asked all the same, before it is told what it holds.
#[test]
fn on_a_new_link_a_follower_is_asked_for_what_it_acknowledged() {
    let mut replica = acknowledged();
    replica.handle(Input::Met { node: NodeId(2), incarnation: Incarnation(2) });
    let output = durable(&mut replica);
    let probe = output.send.iter().find_map(|outgoing| match &outgoing.message.body {
        Body::Append(append) if outgoing.message.to == NodeId(2) => Some((append.previous, append.round)),
        _ => None,
    });
    let Some((previous, round)) = probe else { panic!("{output:?}") };
    assert_eq!(previous, LogId::new(Term(4), Index(14)));
    let told = |replica: &mut Replica| {
        (0..5).for_each(|_| replica.handle(Input::Tick));
        let sent = durable(replica).send;
        sent.iter().find_map(|outgoing| match outgoing.message.body {
            Body::Heartbeat { commit, .. } if outgoing.message.to == NodeId(2) => Some(commit),
            _ => None,
        })
    };
    assert_eq!(told(&mut replica), Some(Index::ZERO));
    // What it said on the link before.
    replica.handle(says(round.0 - 1, AppendOutcome::Matched { last: Index(14) }));
    assert_eq!(told(&mut replica), Some(Index::ZERO));
    let mut lost = replica.clone();
    replica.handle(says(round.0, AppendOutcome::Matched { last: Index(14) }));
    assert_eq!(told(&mut replica), Some(Index(14)));
    lost.handle(says(round.0, lacks((14, 4), (13, 4))));
    assert_eq!(losses(&mut lost).len(), 1);
}

/// An entry that this leader's own disk does not hold yet: what node 2 has said of it is not counted any more.
#[test]
fn what_was_acknowledged_and_lost_is_not_counted_afterwards() {
    for has_lost in [false, true] {
        let mut replica = leader();
        replica.propose(vec![Payload::Noop]).expect("it leads");
        let persist = replica.take_output().persist.expect("an entry is to be written");
        replica.handle(says(0, AppendOutcome::Matched { last: Index(14) }));
        (0..10).for_each(|_| replica.handle(Input::Tick));
        replica.take_output();
        if has_lost {
            replica.handle(says(1, lacks((14, 4), (12, 3))));
        }
        replica.handle(Input::Durable(persist.number));
        assert_eq!(replica.status().commit, Index(if has_lost { 13 } else { 14 }));
    }
}
