//! The rules of the papers, one test for each, in our words.
//!
//! `s5_2_…` is a rule of section 5.2 of "In Search of an Understandable Consensus Algorithm" (the extended version),
//! `d4_1_…` one of section 4.1 of Ongaro's dissertation, "Consensus: Bridging Theory and Practice". A test says the
//! rule in its name and shows it at the smallest thing that has it: one replica that is fed by hand, or a cluster where
//! the rule is about several. The scripts tell the same in larger situations; these say which rule it is that broke.
//!
//! Of section 7 there is what the core has: logs that begin after a snapshot, and what is said of them. Duplicate commands (section 8) are seen
//! above the core: `s8_…` in the tests of sessions and of the driver.

pub mod elections;
pub mod members;
pub mod replication;
mod serving;
mod snapshots;

use crate::raft::{
    Append, AppendOutcome, AppendReply, Body, Config, Input, Message, Outgoing, Replica, Restored, Role, Round,
};
use crate::types::{Entry, HardState, Index, LogId, Membership, NodeId, Payload, Term};

use super::cluster::{Cluster, limits_default, membership};
use super::leader::from_peer;

fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), Index(index))
}

/// What a node has durably: the entries after `before_first` have these terms.
fn restored(before_first: LogId, terms: &[u64], term: u64, members: Membership) -> Restored {
    let mut runs: Vec<(Index, Term)> = Vec::new();
    let mut last = before_first;
    for term in terms.iter().map(|term| Term(*term)) {
        last = LogId::new(term, last.index.next());
        if runs.last().is_none_or(|run| run.1 != term) {
            runs.push((last.index, term));
        }
    }
    let commit = before_first.index;
    let hard_state = HardState { term: Term(term), vote: None };
    Restored {
        hard_state,
        before_first,
        terms: runs,
        last,
        commit,
        snapshot: LogId::ZERO,
        memberships: vec![(Index::ZERO, members)],
        membership_term: Term::ZERO,
    }
}

fn start(seed: u64, restored: Restored) -> Replica {
    let config = Config { id: NodeId(1), heartbeat_ticks: 5, election_ticks: 30..60, seed, limits: limits_default() };
    Replica::new(config, restored)
}

/// Node 1 of three, whose entries have these terms.
fn node(terms: &[u64], term: u64) -> Replica {
    start(1, restored(LogId::ZERO, terms, term, membership(3, 0)))
}

/// What it says until it has nothing more to say, its disk doing everything at once.
fn settle(replica: &mut Replica) -> Vec<Message> {
    let mut messages = Vec::new();
    loop {
        let output = replica.take_output();
        messages.extend(output.send.into_iter().map(|outgoing| outgoing.message));
        match output.persist {
            Some(persist) => replica.handle(Input::Durable(persist.number)),
            None => return messages,
        }
    }
}

/// What it says when it hears this.
fn hear(replica: &mut Replica, from: u64, term: u64, body: Body) -> Vec<Message> {
    replica.handle(from_peer(from, term, body));
    settle(replica)
}

fn tick(replica: &mut Replica, count: u32) -> Vec<Message> {
    let mut messages = Vec::new();
    for _ in 0..count {
        replica.handle(Input::Tick);
        messages.extend(settle(replica));
    }
    messages
}

/// It hears nobody until it asks for votes, and node 2 would give it one.
fn stand(replica: &mut Replica) -> Vec<Message> {
    let term = replica.status().hard_state.term;
    while replica.status().role == Role::Follower {
        tick(replica, 1);
    }
    hear(replica, 2, term.0, Body::PreVoteReply { next: term.next(), granted: true })
}

/// Node 2 elects it.
fn lead(replica: &mut Replica) -> Vec<Message> {
    stand(replica);
    let term = role_is(replica, Role::Candidate);
    let messages = hear(replica, 2, term, Body::VoteReply { granted: true });
    role_is(replica, Role::Leader);
    messages
}

/// Its term.
fn role_is(replica: &Replica, role: Role) -> u64 {
    let status = replica.status();
    assert_eq!(status.role, role);
    status.hard_state.term.0
}

/// A leader of three with these entries, its no-op, and all of it committed.
fn settled_leader(terms: &[u64], term: u64) -> Replica {
    let mut replica = node(terms, term);
    lead(&mut replica);
    let last = replica.status().last.index;
    matched(&mut replica, 2, last.0);
    assert_eq!(replica.status().commit, last);
    replica
}

/// A follower says that it holds the log up to here.
fn matched(leader: &mut Replica, peer: u64, last: u64) -> Vec<Message> {
    let term = leader.status().hard_state.term.0;
    hear(leader, peer, term, reply(AppendOutcome::Matched { last: Index(last) }))
}

fn reply(outcome: AppendOutcome) -> Body {
    Body::AppendReply(AppendReply { round: Round(0), outcome })
}

fn append(previous: LogId, ids: &[LogId], commit: u64) -> Body {
    let entries = ids.iter().map(|id| Entry { id: *id, payload: Payload::Noop }).collect();
    Body::Append(Append { previous, entries, commit: Index(commit), round: Round(0) })
}

fn heartbeat() -> Body {
    Body::Heartbeat { commit: Index::ZERO, round: Round(1) }
}

fn vote(last: LogId) -> Body {
    Body::Vote { last, transfer: false }
}

/// The terms of its entries from the first to the last.
fn terms(replica: &Replica) -> Vec<u64> {
    let indexes = replica.first_index().0..=replica.status().last.index.0;
    indexes.map(|index| replica.term_at(Index(index)).expect("within the log").0).collect()
}

fn to(messages: &[Message], peer: u64) -> impl Iterator<Item = &Body> {
    messages.iter().filter(move |message| message.to == NodeId(peer)).map(|message| &message.body)
}

fn has(messages: &[Message], peer: u64, wanted: impl Fn(&Body) -> bool) -> bool {
    to(messages, peer).any(wanted)
}

/// The answer to an append.
fn outcome(messages: &[Message]) -> Option<AppendOutcome> {
    messages.iter().find_map(|message| match &message.body {
        Body::AppendReply(reply) => Some(reply.outcome),
        _ => None,
    })
}

fn granted(messages: &[Message]) -> Option<bool> {
    messages.iter().find_map(|message| match message.body {
        Body::VoteReply { granted } | Body::PreVoteReply { granted, .. } => Some(granted),
        _ => None,
    })
}

/// What was said without waiting for the disk.
fn at_once(sent: &[Outgoing]) -> Vec<&Body> {
    sent.iter().filter(|outgoing| outgoing.after.is_none()).map(|outgoing| &outgoing.message.body).collect()
}

/// Three nodes, led by node 1, at rest.
fn led_cluster() -> Cluster {
    let mut cluster = Cluster::new(3, 0, limits_default(), 1);
    elect(&mut cluster, 1);
    cluster
}

/// Time passes at this node alone until it leads.
fn elect(cluster: &mut Cluster, node: u64) {
    for _ in 0..600 {
        if cluster.replica(NodeId(node)).status().role == Role::Leader {
            return;
        }
        cluster.input(NodeId(node), Input::Tick);
        cluster.settle_all();
    }
    panic!("{node} is not elected");
}

/// So long that this node would vote for another.
fn give_up_leader(cluster: &mut Cluster, node: u64) {
    (0..30).for_each(|_| cluster.input(NodeId(node), Input::Tick));
}

fn cut(cluster: &mut Cluster, one: u64, other: u64) {
    cluster.cut.extend([(NodeId(one), NodeId(other)), (NodeId(other), NodeId(one))]);
}
