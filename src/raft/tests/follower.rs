//! One follower, fed by hand with what no correct leader of today would send it in this order.

use crate::limits;
use crate::raft::{
    Append, AppendOutcome, Body, Config, Input, Message, Outgoing, Output, PersistNumber, Replica, Restored, Round,
};
use crate::types::{Entry, HardState, Index, LogId, NodeId, Payload, Term};

use super::cluster::{limits_default, membership};

pub fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), Index(index))
}

pub fn follower(cache_bytes_max: usize) -> Replica {
    let mut limits = limits_default();
    limits.cache_bytes_max = cache_bytes_max;
    limits.uncommitted_bytes_max = limits.uncommitted_bytes_max.min(cache_bytes_max);
    let config = Config { id: NodeId(1), heartbeat_ticks: 5, election_ticks: 30..60, seed: 1, limits };
    let restored = Restored::fresh(membership(3, 0));
    Replica::new(config, restored)
}

/// An append of entries of one term.
pub fn append(from: u64, previous: LogId, term: u64, count: u64, commit: u64) -> Input {
    let entry = |index| Entry { id: id(term, index), payload: Payload::Noop };
    let entries = (previous.index.0 + 1..=previous.index.0 + count).map(entry).collect();
    let body = Body::Append(Append { previous, entries, commit: Index(commit), round: Round(1) });
    Input::Message(Message { from: NodeId(from), to: NodeId(1), term: Term(term), body })
}

/// The answer to an append and the persist it waits for.
fn answer(output: &Output) -> Option<(AppendOutcome, Option<u64>)> {
    output.send.iter().find_map(|Outgoing { message, after }| match &message.body {
        Body::AppendReply(reply) => Some((reply.outcome, after.map(|number| number.0))),
        _ => None,
    })
}

fn matched(last: u64, after: Option<u64>) -> Option<(AppendOutcome, Option<u64>)> {
    Some((AppendOutcome::Matched { last: Index(last) }, after))
}

/// A-B-A: index 2 is written in term 1 and again in term 2, with both writes in flight.
#[test]
fn an_answer_waits_for_the_write_of_its_own_term() {
    let mut replica = follower(1 << 20);
    replica.handle(append(2, LogId::ZERO, 1, 2, 0));
    assert_eq!(answer(&replica.take_output()), matched(2, Some(1)));
    replica.handle(append(3, id(1, 1), 2, 1, 0));
    assert_eq!(answer(&replica.take_output()), matched(2, Some(2)));
    replica.handle(Input::Durable(PersistNumber(1)));
    assert_eq!(replica.status().durable, id(1, 1));
    assert_eq!(replica.status().last, id(2, 2));
    replica.handle(Input::Durable(PersistNumber(2)));
    assert_eq!(replica.status().durable, id(2, 2));
}

/// The same with the very entry of term 1 in its place again, since who led in term 1 leads in term 3; of term 3 a
/// heartbeat is heard first. The first write writes what is in the log at last, and proves nothing: two writes come
/// after it.
#[test]
pub fn a_write_says_nothing_about_the_same_entry_that_is_written_again() {
    let mut replica = follower(1 << 20);
    replica.handle(append(2, LogId::ZERO, 1, 2, 0));
    assert_eq!(answer(&replica.take_output()), matched(2, Some(1)));
    replica.handle(append(3, id(1, 1), 2, 1, 0));
    assert_eq!(answer(&replica.take_output()), matched(2, Some(2)));
    let hears = |body| Input::Message(Message { from: NodeId(2), to: NodeId(1), term: Term(3), body });
    replica.handle(hears(Body::Heartbeat { commit: Index::ZERO, round: Round(1) }));
    assert_eq!(replica.take_output().persist.map(|persist| (persist.number, persist.entries)), {
        Some((PersistNumber(3), vec![]))
    });
    let entries = [id(1, 2), id(3, 3)].map(|id| Entry { id, payload: Payload::Noop }).to_vec();
    let again = Append { previous: id(1, 1), entries, commit: Index::ZERO, round: Round(1) };
    replica.handle(hears(Body::Append(again)));
    assert_eq!(answer(&replica.take_output()), matched(3, Some(4)));
    for number in [1, 2, 3] {
        replica.handle(Input::Durable(PersistNumber(number)));
        assert_eq!(replica.status().durable, id(1, 1), "{number}");
    }
    replica.handle(Input::Durable(PersistNumber(4)));
    assert_eq!(replica.status().durable, id(3, 3));
}

/// Entries that are in the log and not yet on disk are not durable because they come twice.
#[test]
fn a_doubled_append_waits_for_the_first_write() {
    let mut replica = follower(1 << 20);
    replica.handle(append(2, LogId::ZERO, 1, 2, 0));
    replica.take_output();
    replica.handle(append(2, LogId::ZERO, 1, 2, 0));
    let output = replica.take_output();
    assert_eq!(answer(&output), matched(2, Some(1)));
    assert_eq!(output.persist, None);
    replica.handle(Input::Durable(PersistNumber(1)));
    replica.handle(append(2, LogId::ZERO, 1, 2, 0));
    assert_eq!(answer(&replica.take_output()), matched(2, None));
}

/// Many appends before one output are one persist and one answer.
#[test]
fn appends_share_a_persist_and_an_answer() {
    let mut replica = follower(1 << 20);
    for index in 0..5 {
        replica.handle(append(2, id(u64::from(index > 0), index), 1, 1, 0));
    }
    let output = replica.take_output();
    assert_eq!(output.send.len(), 1);
    assert_eq!(answer(&output), matched(5, Some(1)));
    assert_eq!(output.persist.map(|persist| persist.entries.len()), Some(5));
}

/// The commit index in an append says nothing about entries that may not be the leader's.
#[test]
pub fn commit_stops_at_what_matches_the_leader() {
    let mut replica = follower(1 << 20);
    replica.handle(append(2, LogId::ZERO, 1, 5, 0));
    replica.handle(append(3, id(1, 1), 2, 0, 4));
    assert_eq!(replica.status().commit, Index(1));
}

/// A state machine that does not keep up bounds what is taken from the leader.
#[test]
fn a_full_follower_takes_no_more() {
    let mut replica = follower(4 * limits::ENTRY_OVERHEAD_BYTES);
    let mut last = LogId::ZERO;
    for index in 1..20 {
        replica.handle(append(2, last, 1, 1, index));
        last = replica.status().last;
    }
    assert_eq!(last, id(1, 9), "one entry beyond twice the bound");
    assert_eq!(answer(&replica.take_output()), matched(9, Some(1)));
    replica.handle(Input::Durable(PersistNumber(1)));
    replica.handle(Input::Applied(Index(9)));
    replica.handle(append(2, last, 1, 1, 9));
    assert_eq!(replica.status().last, id(1, 10));
}

/// A log that begins after a snapshot has everything before it, whatever a leader probes.
#[test]
fn a_log_after_a_snapshot_matches_below_its_start() {
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
    replica.handle(append(2, id(1, 5), 3, 0, 0));
    assert_eq!(answer(&replica.take_output()), matched(10, None));
    replica.handle(append(2, id(3, 20), 4, 0, 0));
    let rejected = AppendOutcome::Rejected { previous: id(3, 20), hint: id(3, 12) };
    assert_eq!(answer(&replica.take_output()), Some((rejected, Some(1))));
}
