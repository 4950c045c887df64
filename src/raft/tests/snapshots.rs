//! Snapshots at one replica that is fed by hand: what may be said when, and what an offer cannot be.

use crate::raft::{
    Append, AppendOutcome, AppendReply, Base, Body, Change, Config, Contradicted, Event, Fetch, Input, Outgoing,
    Output, PersistNumber, Replica, Restored, Role, Round,
};
use crate::types::{Entry, HardState, Incarnation, Index, Life, LogId, Membership, NodeId, Payload, Term};

use super::cluster::{limits_default, limits_small, member, membership};
use super::follower::{append, follower, id};
use super::leader::{durable, from_peer, leader, reply};

fn base(point: LogId, begin_after: LogId) -> Base {
    Base { point, begin_after }
}

fn offer(term: u64, base: Base) -> Input {
    from_peer(2, term, Body::Snapshot { base, round: Round(1) })
}

fn installed(base: Base) -> Input {
    Input::Installed { base, membership: (LogId::ZERO, membership(3, 0)) }
}

fn offered(output: &Output) -> Option<Base> {
    output.events.iter().find_map(|event| match event {
        Event::SnapshotOffered { base, .. } => Some(*base),
        _ => None,
    })
}

/// What it says to hold, and the persist before which it does not say so.
fn held(output: &Output) -> Option<(u64, Option<u64>)> {
    output.send.iter().find_map(|Outgoing { message, after }| match &message.body {
        Body::AppendReply(AppendReply { outcome: AppendOutcome::Matched { last }, .. }) => {
            Some((last.0, after.map(|number| number.0)))
        }
        _ => None,
    })
}

/// Its log is 1..=5 of term 1, of which 4 are committed, all on the disk.
fn following() -> Replica {
    let mut replica = follower(1 << 20);
    replica.handle(append(2, LogId::ZERO, 1, 5, 4));
    replica.take_output();
    replica.handle(Input::Durable(PersistNumber(1)));
    replica
}

#[test]
pub fn nothing_is_said_of_a_snapshot_before_it_is_durable_that_it_counts() {
    let mut replica = following();
    let wanted = base(id(1, 20), id(1, 10));
    replica.handle(offer(1, wanted));
    let output = replica.take_output();
    assert_eq!((offered(&output), held(&output), output.persist), (Some(wanted), None, None));
    replica.handle(installed(wanted));
    let output = replica.take_output();
    let persist = output.persist.as_ref().expect("that it counts is to be durable");
    assert_eq!((persist.base, held(&output)), (Some(wanted), Some((10, Some(persist.number.0)))));
    assert_eq!((replica.status().last, replica.status().durable), (id(1, 10), LogId::ZERO));
    // An entry behind it waits for its own persist, which comes after that.
    replica.handle(append(2, id(1, 10), 1, 1, 11));
    let output = replica.take_output();
    assert_eq!((held(&output), output.commit), (Some((11, Some(3))), Some(Index(11))));
    replica.handle(Input::Durable(PersistNumber(2)));
    assert_eq!(replica.status().durable, id(1, 10));
    replica.handle(Input::Durable(PersistNumber(3)));
    assert_eq!(replica.status().durable, id(1, 11));
}

/// Fetching takes its time: what was offered may be of no use when it is there.
#[test]
pub fn what_the_log_has_meanwhile_is_not_installed() {
    for (point, begin_after) in [(id(1, 4), id(1, 3)), (id(1, 5), id(1, 5)), (id(1, 9), id(1, 4))] {
        let mut replica = following();
        assert!(!replica.wants(base(point, begin_after)));
        replica.handle(installed(base(point, begin_after)));
        let output = replica.take_output();
        assert_eq!((output.persist, replica.status().last, replica.status().commit), (None, id(1, 5), Index(4)));
    }
}

/// Writes of the log that has gone end after the installation: they prove nothing of the one that begins there.
#[test]
fn writes_of_the_log_before_prove_nothing() {
    let mut replica = following();
    replica.handle(append(2, id(1, 5), 1, 8, 4));
    assert_eq!(held(&replica.take_output()), Some((13, Some(2))));
    let wanted = base(id(2, 12), id(2, 12));
    replica.handle(offer(3, wanted));
    assert_eq!(offered(&replica.take_output()), Some(wanted), "it has another entry there");
    replica.handle(installed(wanted));
    let persist = replica.take_output().persist.expect("that it counts is to be durable").number;
    for number in 2..persist.0 {
        replica.handle(Input::Durable(PersistNumber(number)));
        assert_eq!((replica.status().last, replica.status().durable), (id(2, 12), LogId::ZERO), "{number}");
    }
    replica.handle(Input::Durable(persist));
    assert_eq!(replica.status().durable, id(2, 12));
}

/// Two of them, and one output: the later counts.
#[test]
fn of_two_snapshots_before_one_output_the_later_is_persisted() {
    let mut replica = following();
    let (first, second) = (base(id(1, 10), id(1, 10)), base(id(1, 20), id(1, 15)));
    replica.handle(installed(first));
    replica.handle(append(2, id(1, 10), 1, 2, 0));
    replica.handle(installed(second));
    let persist = replica.take_output().persist.expect("that it counts is to be durable");
    assert_eq!((persist.base, persist.entries), (Some(second), vec![]));
    assert_eq!((replica.status().commit, replica.first_index()), (Index(15), Index(16)));
}

#[test]
fn an_offer_that_cannot_be_ends_the_replica() {
    for (offered, what) in [
        (base(id(1, 9), id(2, 3)), Contradicted::OutOfOrder { before: id(2, 3), id: id(1, 9) }),
        (base(id(1, 9), id(1, 10)), Contradicted::OutOfOrder { before: id(1, 10), id: id(1, 9) }),
        (base(id(2, 9), id(1, 9)), Contradicted::OutOfOrder { before: id(1, 9), id: id(2, 9) }),
        (base(id(9, 9), id(1, 9)), Contradicted::TermAhead { id: id(9, 9) }),
        (base(id(3, 9), id(2, 4)), Contradicted::CommittedDiffers { said: id(2, 4), held: id(1, 4) }),
        (base(id(2, 4), id(1, 3)), Contradicted::CommittedDiffers { said: id(2, 4), held: id(1, 4) }),
        (base(id(1, u64::MAX), id(1, 9)), Contradicted::OutOfRange { number: u64::MAX }),
    ] {
        let mut replica = following();
        replica.handle(offer(3, offered));
        let events = replica.take_output().events;
        let found = events.iter().find_map(|event| match event {
            Event::Contradiction(contradiction) => Some(contradiction.what),
            _ => None,
        });
        assert_eq!(found, Some(what), "{offered:?}");
    }
}

/// What a snapshot holds is not applied, so it does not wait for the state machine: appends up to its point are taken however
/// many they are.
#[test]
fn a_log_up_to_a_snapshots_point_does_not_wait_for_the_state_machine() {
    let mut replica = follower(limits_small().cache_bytes_max);
    replica.handle(installed(base(id(1, 1_000), id(1, 10))));
    let mut last = id(1, 10);
    while last.index < Index(1_000) {
        replica.handle(append(2, last, 1, 10, 1_000));
        let next = LogId::new(Term(1), last.index.plus(10));
        let persist = replica.take_output().persist.expect("they are new").number;
        assert_eq!(replica.status().last, next, "it takes them");
        replica.handle(Input::Durable(persist));
        last = next;
    }
}

/// A restart between the two: the machine's state is that of the snapshot, and the log ends before.
#[test]
fn a_restart_before_the_log_has_got_to_the_snapshot() {
    let config =
        Config { id: NodeId(1), heartbeat_ticks: 5, election_ticks: 30..60, seed: 1, limits: limits_default() };
    let restored = Restored {
        hard_state: HardState { term: Term(3), vote: None },
        before_first: id(2, 10),
        terms: vec![(Index(11), Term(2))],
        last: id(2, 12),
        commit: Index(10),
        snapshot: id(3, 20),
        memberships: vec![(Index(15), membership(3, 0))],
        membership_term: Term(3),
    };
    let mut replica = Replica::new(config, restored);
    assert_eq!(replica.membership_id(), id(3, 15));
    // It does not win against those who have what is committed, and grants them its vote.
    replica.handle(from_peer(2, 4, Body::Vote { last: id(3, 20), transfer: false }));
    let granted = durable(&mut replica).send.iter().any(|out| out.message.body == Body::VoteReply { granted: true });
    assert!(granted);
    replica.handle(append(2, id(2, 12), 4, 2, 14));
    assert_eq!(replica.status().commit, Index(14));
}

/// A leader's window to a follower that it gives up lies before the log's start.
#[test]
fn who_is_overtaken_by_the_logs_start_is_probed_there_and_offered_the_snapshot() {
    let mut leader = leader();
    leader.handle(from_peer(2, 4, reply(AppendOutcome::Matched { last: Index(13) })));
    leader.handle(from_peer(3, 4, reply(AppendOutcome::Matched { last: Index(10) })));
    // Entries 11 and 12 of an earlier life are on the disk alone.
    let fetch = Fetch { peer: NodeId(3), from: Index(11), last: Index(13), bytes_max: 2 << 20 };
    assert_eq!(durable(&mut leader).fetch, [fetch]);
    leader.handle(Input::Applied(Index(13)));
    leader.handle(Input::SnapshotMade { point: id(4, 13) });
    leader.handle(Input::Compacted { before_first: id(3, 12) });
    let previous = |output: &Output| {
        output.send.iter().find_map(|out| match &out.message.body {
            Body::Append(append) if out.message.to == NodeId(3) => Some((append.previous, append.round)),
            _ => None,
        })
    };
    let Some((probed, round)) = previous(&durable(&mut leader)) else { panic!("it is probed") };
    assert_eq!(probed, id(3, 12));
    // What was read for it comes too late.
    let entries = vec![crate::types::Entry { id: id(3, 11), payload: Payload::Noop }];
    leader.handle(Input::Fetched { peer: NodeId(3), from: Index(11), entries });
    assert_eq!(durable(&mut leader).send.len(), 0);
    let outcome = AppendOutcome::Rejected { previous: probed, hint: id(2, 10) };
    leader.handle(from_peer(3, 4, Body::AppendReply(AppendReply { round, outcome })));
    let output = durable(&mut leader);
    let sent = output.send.iter().find_map(|out| match out.message.body {
        Body::Snapshot { base, .. } => Some(base),
        _ => None,
    });
    assert_eq!(sent, Some(base(id(4, 13), id(3, 12))), "{output:?}");
    assert!(output.events.is_empty(), "nobody has lost its voice: {:?}", output.events);
    // It holds the log's beginning: the rest is sent.
    leader.handle(from_peer(3, 4, reply(AppendOutcome::Matched { last: Index(12) })));
    assert_eq!(previous(&durable(&mut leader)).map(|(previous, _)| previous), Some(id(3, 12)));
}

/// It had acknowledged less than the snapshot brought: its log is emptied, and it has lost nothing.
#[test]
fn a_log_that_an_installation_emptied_has_lost_no_voice() {
    let mut leader = leader();
    leader.handle(from_peer(2, 4, reply(AppendOutcome::Matched { last: Index(13) })));
    durable(&mut leader);
    for (round, hint) in [(1, id(4, 13)), (2, id(4, 13))] {
        (0..5).for_each(|_| leader.handle(Input::Tick));
        durable(&mut leader);
        let outcome = AppendOutcome::Rejected { previous: id(4, 14), hint };
        leader.handle(from_peer(2, 4, Body::AppendReply(AppendReply { round: Round(round), outcome })));
        let events = durable(&mut leader).events;
        assert!(!events.iter().any(|event| matches!(event, Event::VoiceLost { .. })), "{events:?}");
    }
}

/// Who is silent takes nothing, and whoever leads anew finds out anew who needs what.
#[test]
fn a_silent_follower_is_offered_nothing() {
    let mut leader = leader();
    leader.handle(from_peer(2, 4, reply(AppendOutcome::Matched { last: Index(13) })));
    durable(&mut leader);
    leader.handle(Input::Applied(Index(13)));
    leader.handle(Input::SnapshotMade { point: id(4, 13) });
    leader.handle(Input::Compacted { before_first: id(4, 13) });
    let Output { send, .. } = durable(&mut leader);
    let round = send.iter().find_map(|out| match &out.message.body {
        Body::Append(append) if out.message.to == NodeId(3) => Some(append.round),
        _ => None,
    });
    let outcome = AppendOutcome::Rejected { previous: id(4, 13), hint: LogId::ZERO };
    let round = round.expect("it is probed at the log's start");
    leader.handle(from_peer(3, 4, Body::AppendReply(AppendReply { round, outcome })));
    let mut offers = Vec::new();
    for tick in 0..120 {
        let output = durable(&mut leader);
        let is_offer = |out: &Outgoing| matches!(out.message.body, Body::Snapshot { .. });
        offers.extend(output.send.iter().any(is_offer).then_some(tick));
        leader.handle(Input::Tick);
        leader.handle(from_peer(2, 4, Body::HeartbeatReply { round: Round(0) }));
    }
    assert_eq!(leader.status().role, Role::Leader);
    assert_eq!(offers, [0, 20], "it was heard at 0 last");
    leader.handle(from_peer(3, 4, Body::HeartbeatReply { round: Round(0) }));
    assert!(durable(&mut leader).send.iter().any(|out| matches!(out.message.body, Body::Snapshot { .. })));
}

/// A new link, or a snapshot that the leader did not have when it was asked first: the follower is asked again, and what it
/// lacks is offered.
#[test]
fn who_is_found_to_lack_the_beginning_again_is_offered_the_snapshot_again() {
    let is_offered = |output: &Output| output.send.iter().any(|out| matches!(out.message.body, Body::Snapshot { .. }));
    let mut leader = leader();
    leader.handle(from_peer(2, 4, reply(AppendOutcome::Matched { last: Index(13) })));
    durable(&mut leader);
    let lacks = |leader: &mut Replica, previous| {
        let outcome = AppendOutcome::Rejected { previous, hint: LogId::ZERO };
        let round = Round(u64::from(previous.index < Index(12)));
        let reply = Body::AppendReply(AppendReply { round, outcome });
        leader.handle(from_peer(3, 4, reply.clone()));
        durable(leader)
    };
    assert!(!is_offered(&lacks(&mut leader, id(3, 12))));
    let output = lacks(&mut leader, id(2, 10));
    assert_eq!((is_offered(&output), output.events), (false, vec![Event::SnapshotNeeded { peer: NodeId(3) }]));
    leader.handle(Input::Applied(Index(13)));
    leader.handle(Input::SnapshotMade { point: id(4, 13) });
    for _ in 0..3 {
        leader.handle(Input::Met { node: NodeId(3), incarnation: crate::types::Incarnation(3) });
        let output = durable(&mut leader);
        let round = output.send.iter().find_map(|out| match &out.message.body {
            Body::Append(append) if append.previous == id(2, 10) => Some(append.round),
            _ => None,
        });
        let round = round.expect("it is asked");
        let outcome = AppendOutcome::Rejected { previous: id(2, 10), hint: LogId::ZERO };
        leader.handle(from_peer(3, 4, Body::AppendReply(AppendReply { round, outcome })));
        let output = durable(&mut leader);
        assert_eq!((is_offered(&output), output.events), (true, vec![]));
    }
}

/// A configuration that does not name this node, though it was a member: it knows that, and goes.
#[test]
fn a_snapshot_without_this_node_says_that_it_was_removed() {
    let mut replica = following();
    let others = Membership {
        members: membership(3, 0).members.split_off(1),
        voters: [NodeId(2), NodeId(3)].into(),
        ..Membership::default()
    };
    replica.handle(Input::Installed { base: base(id(1, 20), id(1, 15)), membership: (id(1, 18), others) });
    assert!(!replica.is_removed(), "its entry is not committed here yet");
    replica.handle(append(2, id(1, 15), 1, 5, 20));
    assert!(replica.is_removed());
}

/// Of a member that only an entry spoke of which was never committed nothing is remembered: it may be added yet. Who was a
/// member and is none may not.
#[test]
fn who_was_never_a_member_is_none_that_was_removed() {
    for (commit, is_refused) in [(4, false), (6, true)] {
        let config =
            Config { id: NodeId(1), heartbeat_ticks: 5, election_ticks: 30..60, seed: 1, limits: limits_default() };
        let life = Life { incarnation: Incarnation(1), is_first_member: true };
        let mut replica = Replica::in_life(config, Restored::fresh(membership(3, 0)), life);
        replica.handle(append(2, LogId::ZERO, 1, 5, 4));
        let entry = Entry { id: id(1, 6), payload: Payload::Membership(membership(3, 1).into()) };
        let body = Append { previous: id(1, 5), entries: vec![entry], commit: Index(commit), round: Round(1) };
        replica.handle(from_peer(2, 1, Body::Append(body)));
        let wanted = base(id(1, 20), id(1, 15));
        replica.handle(Input::Installed { base: wanted, membership: (id(1, 18), membership(3, 0)) });
        let added = Change::Add { member: member(4), promote: false };
        assert_eq!(replica.refuse_removed(&[added]).is_err(), is_refused, "committed up to {commit}");
    }
}
