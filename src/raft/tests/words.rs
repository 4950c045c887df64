//! Messages and persists as one line each, for scripts and traces.

use crate::raft::{AppendOutcome, Base, Body, Message, Persist};
use crate::types::{HardState, NodeId};

pub fn show(message: &Message) -> String {
    let Message { from, to, term, body } = message;
    let body = match body {
        Body::PreVote { next, last } => format!("PreVote for term {next}, last {last}"),
        Body::PreVoteReply { next, granted } => format!("PreVoteReply for term {next}: {}", yes_or_no(*granted)),
        Body::Vote { last, transfer } => format!("Vote, last {last}{}", if *transfer { ", transfer" } else { "" }),
        Body::VoteReply { granted } => format!("VoteReply: {}", yes_or_no(*granted)),
        Body::Append(append) => {
            let entries: Vec<String> = append.entries.iter().map(|entry| entry.id.to_string()).collect();
            let (previous, commit, round) = (append.previous, append.commit, append.round.0);
            format!("Append after {previous} [{}] commit {commit} round {round}", entries.join(" "))
        }
        Body::AppendReply(reply) => match reply.outcome {
            AppendOutcome::Matched { last } => format!("AppendReply matched {last} round {}", reply.round.0),
            AppendOutcome::Rejected { previous, hint } => {
                format!("AppendReply rejects {previous}, hint {hint} round {}", reply.round.0)
            }
        },
        Body::Heartbeat { commit, round } => format!("Heartbeat commit {commit} round {}", round.0),
        Body::HeartbeatReply { round } => format!("HeartbeatReply round {}", round.0),
        Body::ReadIndex { .. } => "ReadIndex".into(),
        Body::ReadIndexReply { index, .. } => {
            format!("ReadIndexReply {}", index.map_or("none".into(), |index| index.to_string()))
        }
        Body::StandNow => "StandNow".into(),
        Body::Snapshot { base: Base { point, begin_after }, round } => {
            format!("Snapshot at {point}, log after {begin_after} round {}", round.0)
        }
    };
    format!("{from}→{to} term {term} {body}")
}

pub fn show_persist(id: NodeId, persist: &Persist) -> String {
    let hard_state = persist.hard_state.map(show_hard_state);
    let entries = persist.entries.iter().map(|entry| entry.id.to_string());
    let base = persist.base.map(|base| format!("snapshot {}, log after {}", base.point, base.begin_after));
    let parts: Vec<String> = hard_state.into_iter().chain(base).chain(entries).collect();
    format!("{id} persists {}: {}", persist.number.0, parts.join(" "))
}

pub fn show_hard_state(hard_state: HardState) -> String {
    let vote = hard_state.vote.map_or("-".into(), |vote| vote.to_string());
    format!("term {} vote {vote}", hard_state.term)
}

fn yes_or_no(granted: bool) -> &'static str {
    if granted { "yes" } else { "no" }
}
