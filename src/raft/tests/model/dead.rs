//! Which messages under way can change nothing any more, at any time, so that states that differ in them alone are one.

use crate::raft::progress::Mode;
use crate::raft::replica::State;
use crate::raft::{AppendOutcome, Body, Message, Role};
use crate::types::{Index, Term};

use super::Bounds;
use super::world::{Node, World};

/// Whether this message could still change something.
pub fn may_matter(world: &World, message: &Message, bounds: &Bounds) -> bool {
    if message.to.0 as usize > world.nodes.len() {
        return false;
    }
    let node = world.node(message.to);
    // A restart may take back a term, but none that is on the disk.
    let durable = node.disk.hard_state.term;
    if message.term > durable {
        return true;
    }
    if message.term < durable {
        return matters_though_it_is_old(world, message, durable);
    }
    let is_settled = node.replica.term() == durable;
    let is = |role: Role| !is_settled || node.role() == role;
    let no_crash = world.left.crashes == 0;
    let rounds_matter = bounds.has_rounds() || world.left.resends > 0;
    match &message.body {
        // Who is refused gives up, and can do nothing then that a candidate cannot.
        Body::VoteReply { granted } => *granted && is(Role::Candidate),
        Body::Vote { .. } => match node.disk.hard_state.vote {
            None => true,
            Some(vote) => vote == message.from && !no_crash,
        },
        Body::AppendReply(reply) => is(Role::Leader) && (rounds_matter || is_news(node, message, reply.outcome)),
        Body::HeartbeatReply { .. } => rounds_matter && is(Role::Leader),
        Body::Append(append) if is_settled && no_crash && !rounds_matter => {
            let last = append.previous.index.plus(append.entries.len() as u64);
            !knows(node, message, last, append.commit)
        }
        Body::Heartbeat { commit, .. } if is_settled && no_crash && !rounds_matter => {
            !knows(node, message, *commit, *commit)
        }
        Body::PreVoteReply { next, .. } => *next > durable,
        _ => true,
    }
}

/// All that comes of it is an answer with a higher term; an answer means nothing at all.
fn matters_though_it_is_old(world: &World, message: &Message, durable: Term) -> bool {
    match message.body {
        Body::VoteReply { .. }
        | Body::AppendReply(_)
        | Body::HeartbeatReply { .. }
        | Body::ReadIndexReply { .. }
        | Body::Snapshot { .. }
        | Body::StandNow => false,
        Body::PreVoteReply { next, .. } => next > durable,
        Body::PreVote { .. } => true,
        Body::Vote { .. } | Body::Append(_) | Body::Heartbeat { .. } | Body::ReadIndex { .. } => {
            let newest = world.nodes.iter().map(|node| node.replica.term()).max();
            let is_informed = newest == Some(world.node(message.from).disk.hard_state.term);
            world.left.elections > 0 || !is_informed
        }
    }
}

/// A match that the leader knows ends a probe, at most, which the probe's own answer does as well.
fn is_news(node: &Node, message: &Message, outcome: AppendOutcome) -> bool {
    let State::Leader(leading) = &node.replica.state else { return true };
    let AppendOutcome::Matched { last } = outcome else { return true };
    let Some(progress) = leading.progress.value(&message.from) else { return false };
    last > progress.matched || progress.mode != Mode::Replicate
}

/// It follows the sender, holds what is sent, knows what is committed of it, and has said so before.
fn knows(node: &Node, message: &Message, last: Index, commit: Index) -> bool {
    let State::Follower(following) = &node.replica.state else { return false };
    node.replica.leader == Some(message.from)
        && last <= following.verified
        && commit.min(following.verified) <= node.replica.commit
}
