//! What no peer may say: each kind by hand, and what is left of a replica that has heard it.

use crate::limits::{INDEX_MAX, TERM_MAX};
use crate::raft::{
    Append, AppendOutcome, Body, Contradicted, Contradiction, Event, Input, Output, PersistNumber, ReadToken, Refused,
    Replica, Round, Unsound,
};
use crate::types::{Entry, Index, LogId, Membership, NodeId, Payload, Term};

use super::cluster::membership;
use super::follower::{append, follower, id};
use super::leader::{from_peer, leader, reply};

/// Of term 1, with 1@1 to 3@1 from leader 2. Two of them are committed.
fn following() -> Replica {
    let mut replica = follower(1 << 20);
    replica.handle(append(2, LogId::ZERO, 1, 3, 2));
    replica.take_output();
    replica
}

/// The same in term 2, where leader 3 has put 3@2 in place of 3@1.
fn following_anew() -> Replica {
    let mut replica = following();
    replica.handle(append(3, id(1, 2), 2, 1, 2));
    replica.take_output();
    replica
}

fn sent(from: u64, term: u64, previous: LogId, entries: Vec<(LogId, Payload)>) -> Input {
    let entries = entries.into_iter().map(|(id, payload)| Entry { id, payload }).collect();
    from_peer(from, term, Body::Append(Append { previous, entries, commit: Index(0), round: Round(1) }))
}

fn names(from: u64, term: u64, previous: LogId, ids: &[LogId]) -> Input {
    sent(from, term, previous, ids.iter().map(|id| (*id, Payload::Noop)).collect())
}

fn configuration(change: impl FnOnce(&mut Membership)) -> Input {
    let mut changed = membership(3, 0);
    change(&mut changed);
    sent(2, 1, id(1, 3), vec![(id(1, 4), Payload::Membership(changed.into()))])
}

fn heartbeat(from: u64, commit: u64) -> Input {
    from_peer(from, 1, Body::Heartbeat { commit: Index(commit), round: Round(1) })
}

/// It says so, once, and nothing else for ever.
fn check_end(mut replica: Replica, input: Input, what: Contradicted) {
    let Input::Message(message) = &input else { panic!("a message") };
    let (peer, shown) = (message.from, format!("{message:?}"));
    replica.handle(input);
    let term = replica.status().hard_state.term;
    let said = Contradiction { peer, term, what };
    let output = replica.take_output();
    assert_eq!(output.events.last(), Some(&Event::Contradiction(said)), "{shown}");
    assert!(output.persist.is_none() && output.send.is_empty() && output.commit.is_none(), "{shown}: {output:?}");
    assert!(!said.next_step().is_empty());
    for _ in 0..200 {
        replica.handle(Input::Tick);
    }
    replica.handle(append(2, id(1, 3), 9, 1, 2));
    assert_eq!(replica.propose(vec![Payload::Noop]), Err(Refused::NotLeader { leader: None }));
    assert_eq!(replica.read(ReadToken(1)), Err(Refused::NotLeader { leader: None }));
    assert_eq!(replica.transfer(NodeId(2)), Err(Refused::NotLeader { leader: None }));
    let Output { persist, send, events, .. } = replica.take_output();
    assert!(persist.is_none() && send.is_empty() && events.is_empty(), "{shown}");
}

#[test]
fn who_leads() {
    let two = |leader| Contradicted::TwoLeaders { leader: NodeId(leader) };
    check_end(following(), append(3, id(1, 3), 1, 0, 0), two(2));
    check_end(following(), heartbeat(3, 0), two(2));
    check_end(leader(), append(2, id(3, 12), 4, 0, 0), two(1));
}

#[test]
fn what_is_committed_and_what_was_sent() {
    let committed = |said, held| Contradicted::CommittedDiffers { said, held };
    check_end(following(), names(3, 2, id(2, 1), &[]), committed(id(2, 1), id(1, 1)));
    check_end(following(), names(3, 2, LogId::ZERO, &[id(2, 1)]), committed(id(2, 1), id(1, 1)));
    check_end(following(), names(3, 2, id(1, 1), &[id(2, 2)]), committed(id(2, 2), id(1, 2)));
    let sent = |said, held| Contradicted::SentDiffers { said, held };
    check_end(following_anew(), names(3, 2, id(1, 2), &[id(1, 3)]), sent(id(1, 3), id(2, 3)));
    check_end(following_anew(), names(3, 2, id(1, 3), &[]), sent(id(1, 3), id(2, 3)));
}

#[test]
fn what_is_held() {
    let last = id(4, 13);
    let matched = from_peer(2, 4, reply(AppendOutcome::Matched { last: Index(14) }));
    check_end(leader(), matched, Contradicted::MatchedBeyond { said: Index(14), last });
    let ahead = |said| Contradicted::RoundAhead { said: Round(said), newest: Round(0) };
    check_end(leader(), from_peer(2, 4, Body::HeartbeatReply { round: Round(7) }), ahead(7));
    let last = id(1, 3);
    check_end(following(), heartbeat(2, 4), Contradicted::AcknowledgedBeyond { said: Index(4), last });
}

#[test]
fn what_an_append_is() {
    let (last, order) = (id(1, 3), |before, id| Contradicted::OutOfOrder { before, id });
    check_end(following(), names(2, 1, last, &[id(1, 5)]), order(last, id(1, 5)));
    check_end(following(), names(2, 1, last, &[id(1, 3)]), order(last, id(1, 3)));
    check_end(following_anew(), names(3, 2, id(2, 3), &[id(1, 4)]), order(id(2, 3), id(1, 4)));
    check_end(following(), names(2, 1, last, &[id(2, 4)]), Contradicted::TermAhead { id: id(2, 4) });
    check_end(following(), names(2, 1, id(2, 3), &[]), Contradicted::TermAhead { id: id(2, 3) });
    let none = |why| Contradicted::Configuration { id: id(1, 4), why };
    check_end(following(), configuration(|changed| changed.voters.clear()), none(Unsound::NobodyVotes));
    let stranger = configuration(|changed| changed.voters_outgoing.extend([NodeId(9)]));
    check_end(following(), stranger, none(Unsound::VoterNotMember(NodeId(9))));
    check_end(following(), configuration(|changed| changed.members.reverse()), none(Unsound::NotInOrder));
    check_end(following(), configuration(|changed| *changed = membership(16, 0)), none(Unsound::TooMany(16)));
}

#[test]
fn numbers_behind_which_there_is_none() {
    let beyond = |number| Contradicted::OutOfRange { number };
    let (index, term) = (INDEX_MAX + 1, TERM_MAX + 1);
    check_end(following(), heartbeat(2, index), beyond(index));
    check_end(following(), names(2, 1, id(1, u64::MAX), &[id(1, 0)]), beyond(u64::MAX));
    check_end(following(), from_peer(3, term, Body::StandNow), beyond(term));
    check_end(following(), from_peer(3, 1, Body::PreVote { next: Term(term), last: LogId::ZERO }), beyond(term));
    check_end(leader(), from_peer(2, 4, reply(AppendOutcome::Matched { last: Index(index) })), beyond(index));
}

/// A read that was confirmed in the same breath is not served, and not forgotten.
#[test]
fn a_read_is_refused_with_the_last_words() {
    let mut replica = leader();
    replica.handle(from_peer(2, 4, reply(AppendOutcome::Matched { last: Index(13) })));
    replica.read(ReadToken(1)).expect("it leads");
    replica.take_output();
    replica.handle(from_peer(2, 4, Body::HeartbeatReply { round: Round(1) }));
    replica.read(ReadToken(2)).expect("it leads");
    replica.handle(append(3, id(3, 12), 4, 0, 0));
    let output = replica.take_output();
    assert_eq!((output.reads_ready.len(), output.reads_refused.len()), (0, 2));
    replica.handle(Input::Durable(PersistNumber(1)));
}

/// What a leader did not begin its log with was never asked for: the follower is probed at the log's start.
#[test]
fn a_match_below_the_log_is_probed_again_at_its_start() {
    let mut replica = leader();
    replica.handle(from_peer(2, 4, reply(AppendOutcome::Matched { last: Index(5) })));
    for _ in 0..30 {
        replica.handle(Input::Tick);
        replica.handle(from_peer(2, 4, Body::HeartbeatReply { round: Round(0) }));
        replica.take_output();
    }
}
