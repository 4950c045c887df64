//! Bytes as what an honest node never says: real messages with one field changed, and messages that are made up around
//! what their receiver knows.

use super::choices::Choices;
use crate::limits::{INDEX_MAX, TERM_MAX};
use crate::raft::{Append, AppendOutcome, AppendReply, Base, Body, Message, Replica, Round};
use crate::sim::replicas::membership;
use crate::types::{Entry, Index, LogId, NodeId, Payload, Term};

/// An id that no history has as a member.
pub const STRANGER: NodeId = NodeId(99);

/// One field of a message becomes another: which and what, the bytes say.
pub fn change(bytes: &[u8], message: &mut Message) {
    change_message(&mut Choices::new(bytes), message);
}

pub(super) fn change_message(choices: &mut Choices<'_>, message: &mut Message) {
    match choices.below(6) {
        0 => message.from = sender(choices),
        1 => message.term = Term(near(choices, message.term.0)),
        _ => change_body(choices, &mut message.body),
    }
}

/// A message to this replica, in or near its term, about entries in or near its log.
pub(super) fn made_up(choices: &mut Choices<'_>, to: &Replica) -> Message {
    let status = to.status();
    let term = match choices.below(6) {
        0..=3 => status.hard_state.term,
        4 => status.hard_state.term.next(),
        _ => Term(near(choices, status.hard_state.term.0)),
    };
    let from = match status.leader.filter(|leader| *leader != to.id() && choices.below(2) == 0) {
        Some(leader) => leader,
        None => sender(choices),
    };
    Message { from, to: to.id(), term, body: made_up_body(choices, to) }
}

fn made_up_body(choices: &mut Choices<'_>, to: &Replica) -> Body {
    let round = Round(choices.below(40));
    match choices.below(12) {
        0 => Body::PreVote { next: to.status().hard_state.term.next(), last: place(choices, to) },
        1 => Body::PreVoteReply { next: to.status().hard_state.term.next(), granted: choices.below(3) > 0 },
        2 => Body::Vote { last: place(choices, to), transfer: choices.below(2) > 0 },
        3 => Body::VoteReply { granted: choices.below(3) > 0 },
        4 | 5 => {
            let previous = place(choices, to);
            let entries = entries_behind(choices, previous);
            Body::Append(Append { previous, entries, commit: place(choices, to).index, round })
        }
        6 => {
            let outcome = match choices.below(2) {
                0 => AppendOutcome::Matched { last: place(choices, to).index },
                _ => AppendOutcome::Rejected { previous: place(choices, to), hint: place(choices, to) },
            };
            Body::AppendReply(AppendReply { round, outcome })
        }
        7 => Body::Heartbeat { commit: place(choices, to).index, round },
        8 => Body::HeartbeatReply { round },
        9 => Body::ReadIndex { asked: choices.below(4) },
        10 => Body::ReadIndexReply { asked: choices.below(4), index: Some(place(choices, to).index) },
        _ => match choices.below(4) {
            0 => Body::StandNow,
            _ => {
                let point = place(choices, to);
                let begin_after = if choices.below(2) == 0 { point } else { place(choices, to) };
                Body::Snapshot { base: Base { point, begin_after }, round }
            }
        },
    }
}

/// An entry that the replica has, with its term or with another, or one a little behind its log.
fn place(choices: &mut Choices<'_>, of: &Replica) -> LogId {
    let status = of.status();
    let index = match choices.below(5) {
        0 => status.last.index,
        1 => status.commit,
        2 => Index(of.first_index().0 + choices.below(8)),
        3 => Index(status.last.index.0 + choices.below(8)),
        _ => Index(near(choices, status.commit.0)),
    };
    let held = of.term_at(index).unwrap_or(status.hard_state.term);
    LogId::new(if choices.below(4) > 0 { held } else { Term(near(choices, held.0)) }, index)
}

fn entries_behind(choices: &mut Choices<'_>, previous: LogId) -> Vec<Entry> {
    let count = choices.below(4);
    let behind = |ahead| LogId::new(previous.term, Index(previous.index.0.saturating_add(ahead)));
    let mut entries: Vec<Entry> =
        (1..=count).map(|ahead| Entry { id: behind(ahead), payload: Payload::Noop }).collect();
    if choices.below(4) == 0 {
        change_entries(choices, &mut entries);
    }
    entries
}

fn sender(choices: &mut Choices<'_>) -> NodeId {
    [NodeId(1), NodeId(2), NodeId(3), NodeId(4), STRANGER][choices.below(5) as usize]
}

/// A number near this one, or at an end.
fn near(choices: &mut Choices<'_>, number: u64) -> u64 {
    let away = 1 + choices.below(5);
    let ways = [
        number.wrapping_add(1),
        number.wrapping_sub(1),
        number.wrapping_add(away),
        number.wrapping_sub(away),
        0,
        INDEX_MAX,
        TERM_MAX + 1,
        u64::MAX,
    ];
    ways[choices.below(ways.len() as u64) as usize]
}

fn change_id(choices: &mut Choices<'_>, id: &mut LogId) {
    match choices.below(2) {
        0 => id.index = Index(near(choices, id.index.0)),
        _ => id.term = Term(near(choices, id.term.0)),
    }
}

fn change_entries(choices: &mut Choices<'_>, entries: &mut Vec<Entry>) {
    if entries.is_empty() {
        return entries.push(Entry { id: LogId::new(Term(1), Index(1)), payload: Payload::Noop });
    }
    let at = choices.below(entries.len() as u64) as usize;
    match choices.below(6) {
        0 => drop(entries.remove(at)),
        1 => entries.push(entries[at].clone()),
        2 => change_id(choices, &mut entries[at].id),
        3 => entries[at].id.term = Term(entries[at].id.term.0.saturating_sub(1)),
        4 => entries[at].payload = Payload::Membership(Box::default()),
        _ => entries[at].payload = Payload::Membership(membership(1 + choices.below(19), 0).into()),
    }
}

fn change_body(choices: &mut Choices<'_>, body: &mut Body) {
    match body {
        Body::PreVote { next, last } => match choices.below(2) {
            0 => *next = Term(near(choices, next.0)),
            _ => change_id(choices, last),
        },
        Body::PreVoteReply { next, granted } => match choices.below(2) {
            0 => *next = Term(near(choices, next.0)),
            _ => *granted ^= true,
        },
        Body::Vote { last, transfer } => match choices.below(2) {
            0 => change_id(choices, last),
            _ => *transfer ^= true,
        },
        Body::VoteReply { granted } => *granted ^= true,
        Body::Append(append) => match choices.below(4) {
            0 => change_id(choices, &mut append.previous),
            1 => append.commit = Index(near(choices, append.commit.0)),
            2 => append.round.0 = near(choices, append.round.0),
            _ => change_entries(choices, &mut append.entries),
        },
        Body::AppendReply(reply) if choices.below(5) == 0 => reply.round.0 = near(choices, reply.round.0),
        Body::AppendReply(reply) => match &mut reply.outcome {
            AppendOutcome::Matched { last } => *last = Index(near(choices, last.0)),
            AppendOutcome::Rejected { previous, hint } => match choices.below(2) {
                0 => change_id(choices, previous),
                _ => change_id(choices, hint),
            },
        },
        Body::Heartbeat { commit, round } => match choices.below(2) {
            0 => *commit = Index(near(choices, commit.0)),
            _ => round.0 = near(choices, round.0),
        },
        Body::HeartbeatReply { round } => round.0 = near(choices, round.0),
        Body::ReadIndex { asked } => *asked = near(choices, *asked),
        Body::ReadIndexReply { asked, index } => match choices.below(2) {
            0 => *asked = near(choices, *asked),
            _ => *index = Some(Index(near(choices, index.unwrap_or_default().0))),
        },
        Body::StandNow => *body = Body::VoteReply { granted: true },
        Body::Snapshot { base, round } => match choices.below(3) {
            0 => change_id(choices, &mut base.point),
            1 => change_id(choices, &mut base.begin_after),
            _ => round.0 = near(choices, round.0),
        },
    }
}
