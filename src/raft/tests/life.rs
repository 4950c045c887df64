//! Ids that are used again: whom a configuration means, whom a node speaks with, and when it is a member no more.

use crate::raft::{
    AppendOutcome, Body, Change, ChangeRefused, Config, Input, Message, Replica, Restored, Role, Round, Sender,
};
use crate::types::{HardState, Incarnation, Index, Life, LogId, Membership, NodeId, Term};

use super::cluster::{limits_default, membership};
use super::leader::{durable, from_peer, leader, reply};

const LATER: Incarnation = Incarnation(99);

/// Node 1 as it joins: its log holds a configuration in which its id votes alone, as this life.
fn joined(named: Incarnation, life: Life) -> Replica {
    let mut alone = membership(1, 0);
    alone.members[0].incarnation = named;
    let config =
        Config { id: NodeId(1), heartbeat_ticks: 5, election_ticks: 30..60, seed: 1, limits: limits_default() };
    let restored = Restored {
        hard_state: HardState { term: Term(1), vote: None },
        before_first: LogId::ZERO,
        terms: vec![(Index(1), Term(1))],
        last: LogId::new(Term(1), Index(1)),
        commit: Index::ZERO,
        snapshot: LogId::ZERO,
        memberships: vec![(Index::ZERO, Membership::default()), (Index(1), alone)],
        membership_term: Term::ZERO,
    };
    Replica::in_life(config, restored, life)
}

#[test]
fn a_node_stands_only_where_its_own_life_votes() {
    let later = Life { incarnation: LATER, is_first_member: false };
    let first = Life { incarnation: LATER, is_first_member: true };
    let cases = [
        (LATER, later, true),
        (Incarnation(1), later, false),
        (Incarnation::OPEN, later, false),
        (Incarnation::OPEN, first, true),
        (Incarnation(1), first, false),
    ];
    for (named, life, stands) in cases {
        let mut replica = joined(named, life);
        for _ in 0..200 {
            replica.handle(Input::Tick);
            durable(&mut replica);
        }
        assert_eq!(replica.status().role != Role::Follower, stands, "named {named}, {life:?}");
    }
}

/// Nothing is known of the members but that there are none yet.
#[test]
fn a_node_without_a_configuration_waits() {
    let life = Life { incarnation: LATER, is_first_member: false };
    let config =
        Config { id: NodeId(1), heartbeat_ticks: 5, election_ticks: 30..60, seed: 1, limits: limits_default() };
    let restored = Restored::fresh(Membership::default());
    let mut replica = Replica::in_life(config, restored, life);
    (0..200).for_each(|_| replica.handle(Input::Tick));
    assert!(replica.take_output().send.is_empty() && replica.correspondents().is_empty());
    assert!(replica.status().role == Role::Follower && !replica.is_removed());
}

/// A tick in which node 2 answers that it has all.
fn tick(replica: &mut Replica) {
    replica.handle(Input::Tick);
    durable(replica);
    let last = replica.status().last.index;
    replica.handle(from_peer(2, 4, reply(AppendOutcome::Matched { last })));
    durable(replica);
}

#[test]
fn who_was_removed_is_spoken_with_until_it_was_told() {
    let mut replica = leader();
    tick(&mut replica);
    replica.change(&[Change::Remove { node: NodeId(3) }]).expect("nothing is under way");
    let ids = |replica: &Replica| replica.correspondents().iter().map(|member| member.id.0).collect::<Vec<_>>();
    assert_eq!(ids(&replica), [2, 3], "it is appended");
    tick(&mut replica);
    tick(&mut replica);
    assert!(replica.membership().member(NodeId(3)).is_none() && replica.status().commit == replica.status().last.index);
    assert_eq!(ids(&replica), [2, 3], "it is committed, and node 3 does not know");
    (0..1000).for_each(|_| tick(&mut replica));
    assert_eq!(ids(&replica), [2], "there was time enough");
}

/// It gets its removal itself, and says so: that is no more than it says.
#[test]
pub fn who_was_removed_counts_no_more() {
    let mut replica = leader();
    tick(&mut replica);
    replica.change(&[Change::Remove { node: NodeId(3) }]).expect("nothing is under way");
    tick(&mut replica);
    let left = replica.status().last.index;
    assert!(!replica.membership().is_joint() && replica.status().commit < left, "nodes 1 and 2 vote");
    replica.handle(from_peer(3, 4, reply(AppendOutcome::Matched { last: left })));
    durable(&mut replica);
    assert!(replica.status().commit < left, "node 2 has not got it");
    tick(&mut replica);
    assert_eq!(replica.status().commit, left);
}

/// Of two that are left one is dead: nothing could be committed, not even the way back.
#[test]
fn a_change_that_would_stop_the_cluster_is_not_begun() {
    let mut replica = leader();
    (0..100).for_each(|_| tick(&mut replica));
    let removed = replica.change(&[Change::Remove { node: NodeId(2) }]);
    assert_eq!(removed, Err(ChangeRefused::TooFewHeard), "node 3 was never heard");
    assert!(replica.change(&[Change::Remove { node: NodeId(3) }]).is_ok());
}

/// Until it is committed it may come back.
#[test]
fn a_leader_that_removes_itself_knows_when_it_is_removed() {
    let mut replica = leader();
    tick(&mut replica);
    let remove = [Change::Remove { node: NodeId(1) }];
    assert_eq!(replica.change(&remove), Err(ChangeRefused::TooFewHeard), "node 3 was not heard in this term");
    let last = replica.status().last.index;
    replica.handle(from_peer(3, 4, reply(AppendOutcome::Matched { last })));
    replica.change(&remove).expect("nothing is under way");
    assert!(!replica.is_removed());
    for _ in 0..3 {
        tick(&mut replica);
        let last = replica.status().last.index;
        replica.handle(from_peer(3, 4, reply(AppendOutcome::Matched { last })));
        durable(&mut replica);
    }
    assert!(replica.is_removed());
}

/// The names that are committed are those of its former life, and whoever was to name this one is gone: where all have to
/// agree it may be the only one whose log all would elect.
#[test]
fn a_first_member_made_anew_may_stand_before_it_is_named() {
    let mut named = membership(3, 0);
    named.forming = true;
    let life = Life { incarnation: LATER, is_first_member: true };
    let restored = Restored {
        hard_state: HardState { term: Term(1), vote: None },
        before_first: LogId::ZERO,
        terms: vec![(Index(1), Term(1))],
        last: LogId::new(Term(1), Index(1)),
        commit: Index(1),
        snapshot: LogId::ZERO,
        memberships: vec![(Index::ZERO, named.clone()), (Index(1), named)],
        membership_term: Term::ZERO,
    };
    let config =
        Config { id: NodeId(1), heartbeat_ticks: 5, election_ticks: 30..60, seed: 1, limits: limits_default() };
    let mut replica = Replica::in_life(config, restored, life);
    (0..100).for_each(|_| replica.handle(Input::Tick));
    assert_eq!(replica.status().role, Role::PreCandidate);
    assert!(!replica.is_removed());
}

#[test]
pub fn of_two_lives_the_later_configuration_decides() {
    let replica = joined(LATER, Life { incarnation: Incarnation(1), is_first_member: true });
    let says = |incarnation, term, index| {
        let configuration = LogId::new(Term(term), Index(index));
        replica.hears(NodeId(1), Sender { incarnation: Incarnation(incarnation), boot: 1, configuration })
    };
    // The configuration in force here is entry 1@1.
    assert!(says(LATER.0, 0, 0) && says(LATER.0, 1, 1) && says(LATER.0, 1, 2));
    assert!(!says(7, 0, 0) && !says(7, 1, 1) && says(7, 1, 2) && says(7, 2, 1));
}

/// It knows a later configuration, in which it has a place of its own. Here it would be counted for the life before it, whose
/// vote and entries it does not have: by two such votes a leader would lack what is committed.
#[test]
fn what_another_life_promises_is_not_counted_for_the_one_that_is_named() {
    let replica = joined(LATER, Life { incarnation: Incarnation(1), is_first_member: true });
    let heard = |incarnation, body| {
        let configuration = LogId::new(Term(1), Index(2));
        let message = Message { from: NodeId(1), to: replica.id(), term: Term(2), body };
        replica.hears_message(&message, Sender { incarnation: Incarnation(incarnation), boot: 1, configuration })
    };
    let vote = || Body::VoteReply { granted: true };
    let would_vote = || Body::PreVoteReply { next: Term(2), granted: true };
    let confirmed = || Body::HeartbeatReply { round: Round(1) };
    let leads = || Body::Heartbeat { commit: Index(0), round: Round(1) };
    assert!([vote(), would_vote(), confirmed(), leads()].into_iter().all(|body| heard(LATER.0, body)));
    assert!([vote(), would_vote(), confirmed()].into_iter().all(|body| !heard(7, body)));
    assert!(heard(7, leads()), "a leader brings the later configuration");
}
