//! Bytes as a history of a small cluster of replicas: what arrives, what is lost, doubled, written, who loses power,
//! who is asked for what. The rules of the protocol are looked at after each step, and in the end the cluster must
//! agree and serve.
//!
//! In a quarter of the inputs of [`raft_step`] copies of nodes are told what an honest node does not say (dishonest.rs).
//! The nodes themselves hear nothing of it, and keep all rules.

use std::collections::VecDeque;

use bytes::Bytes;

use super::choices::Choices;
use super::dishonest::{Treason, Victim};
use crate::raft::{Change, Changed, Input, Message, ReadToken};
use crate::sim::replicas::{Cluster, limits_default, limits_small, member};
use crate::types::{Data, Index, NodeId, Payload};

/// Bounds on what one input does.
const STEPS_MAX: usize = 3_000;
/// Members and former members together.
const NODES_MAX: u64 = 7;
/// Messages that are remembered, to be said again or changed.
const PAST_MAX: usize = 200;

/// What an input has done: shows that inputs reach what they are meant for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct History {
    /// Entries that are committed in the end.
    pub committed: u64,
    /// Nodes that lost their power.
    pub crashes: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Changes of members that were begun.
    pub changes: u64,
    /// The term in the end.
    pub term: u64,
    /// What copies of nodes were told.
    pub treason: Treason,
}

struct Run<'b> {
    cluster: Cluster,
    choices: Choices<'b>,
    changes_members: bool,
    /// What was said, the newest first; `None` where nobody lies.
    past: Option<VecDeque<Message>>,
    payload: u64,
    token: u64,
    done: History,
}

/// Bytes as a history of a cluster of one to five voters. Panics if a rule is broken.
pub fn raft_step(input: &[u8]) -> History {
    run(input, false)
}

/// The same with members that are added, promoted and removed, several at once, and new nodes.
pub fn config_change(input: &[u8]) -> History {
    run(input, true)
}

fn run(input: &[u8], changes_members: bool) -> History {
    let mut choices = Choices::new(input);
    let (size, flags) = (choices.below(5), choices.byte());
    let limits = if flags & 1 == 0 { limits_default() } else { limits_small() };
    let voters = [3, 1, 2, 4, 5][size as usize];
    let cluster = Cluster::new(voters, u64::from(flags >> 1 & 1), limits, flags.into());
    let past = (flags >= 0xc0 && !changes_members).then(VecDeque::new);
    let mut run = Run { cluster, choices, changes_members, past, payload: 0, token: 0, done: History::default() };
    if flags & 4 == 0 {
        // Most of what there is to see begins with a leader.
        run.cluster.run(100);
    }
    for _ in 0..STEPS_MAX {
        if run.choices.is_done() {
            break;
        }
        run.step();
    }
    run.converge();
    run.done
}

impl Run<'_> {
    fn any_node(&mut self) -> NodeId {
        let at = self.choices.below(self.cluster.nodes.len() as u64) as usize;
        *self.cluster.nodes.keys().nth(at).expect("below their count")
    }

    fn step(&mut self) {
        let node = self.any_node();
        if !self.cluster.runs(node) {
            return self.cluster.start(node);
        }
        if self.past.is_some() && self.choices.below(8) == 0 {
            return self.betray(node);
        }
        match self.choices.below(20) {
            0 => self.ticks(node),
            1 => self.cluster.run(1 + self.choices.below(40) as u32),
            2 | 3 => self.cluster.persist(node),
            4 => self.cluster.fetch(node, self.payload % 5 == 4),
            5 => self.cluster.apply(node, 3),
            6 => self.propose(node),
            7 => self.read(node),
            8 => {
                let to = self.any_node();
                let _refused_or_not = self.cluster.replica_mut(node).transfer(to);
                self.cluster.settle(node);
            }
            9 => self.crash(node),
            10 => self.cut(node),
            11 => self.cluster.cut.clear(),
            12 => self.message(|_, _| ()),
            13 => self.message(|cluster, message| {
                cluster.network.push_back(message.clone());
                cluster.deliver(message);
            }),
            14 | 15 if self.changes_members => self.change(node),
            14 => self.snapshot(node),
            _ => self.message(|cluster, message| {
                cluster.deliver(message);
            }),
        }
    }

    /// One, a heartbeat's, up to an election's.
    fn ticks(&mut self, node: NodeId) {
        let count = [1, 5, 30, 60][self.choices.below(4) as usize];
        (0..count).for_each(|_| self.cluster.input(node, Input::Tick));
    }

    fn propose(&mut self, node: NodeId) {
        let node = self.cluster.leader().filter(|_| self.choices.byte() > 20).unwrap_or(node);
        let count = 1 + self.choices.below(4);
        let payloads = (0..count).map(|_| {
            self.payload += 1;
            Payload::Data(Data::new(Bytes::copy_from_slice(&self.payload.to_le_bytes())))
        });
        let payloads = payloads.collect();
        let _refused_or_not = self.cluster.propose(node, payloads);
    }

    fn snapshot(&mut self, node: NodeId) {
        match self.choices.below(3) {
            0 => drop(self.cluster.snapshot(node)),
            1 => {
                let last = self.cluster.nodes[&node].applied.0.saturating_sub(self.choices.below(8));
                self.cluster.compact(node, Index(last));
            }
            _ => self.cluster.install(node),
        }
    }

    fn read(&mut self, node: NodeId) {
        self.token += 1;
        let _refused_or_not = self.cluster.read(node, ReadToken(self.token));
    }

    fn crash(&mut self, node: NodeId) {
        let pending = self.cluster.nodes[&node].persists.len() as u64;
        let kept = self.choices.below(pending.min(255) + 1) as usize;
        self.cluster.crash(node, kept);
        self.done.crashes += 1;
    }

    fn cut(&mut self, node: NodeId) {
        let other = self.any_node();
        self.cluster.cut.insert((node, other));
    }

    /// Any message that is under way: mostly one of the oldest.
    fn message(&mut self, act: impl FnOnce(&mut Cluster, Message)) {
        let count = self.cluster.network.len() as u64;
        if count > 0 {
            let at = self.choices.below(count.min(256)) as usize;
            let message = self.cluster.network.remove(at).expect("within the queue");
            if let Some(past) = &mut self.past {
                past.push_front(message.clone());
                past.truncate(PAST_MAX);
            }
            act(&mut self.cluster, message);
        }
    }

    /// A copy of this node is told anything, what is under way among it.
    fn betray(&mut self, node: NodeId) {
        let mut past = self.past.clone().unwrap_or_default();
        past.extend(self.cluster.network.iter().take(PAST_MAX).cloned());
        self.done.treason += Victim::of(&self.cluster, node).live(&mut self.choices, &past);
    }

    /// Two bits for each node: nothing, add or remove, promote, add to be promoted.
    fn change(&mut self, node: NodeId) {
        let node = self.cluster.leader().unwrap_or(node);
        let membership = self.cluster.replica(node).membership().clone();
        let (low, high) = (self.choices.byte(), self.choices.byte());
        let mut wanted = Vec::new();
        for other in (1..=NODES_MAX).map(NodeId) {
            let bits = u16::from_le_bytes([low, high]) >> (2 * other.0 - 2) & 3;
            let is_member = membership.member(other).is_some();
            match bits {
                0 => {}
                1 if is_member => wanted.push(Change::Remove { node: other }),
                2 => wanted.push(Change::Promote { node: other }),
                _ => wanted.push(Change::Add { member: member(other.0), promote: bits == 3 }),
            }
        }
        let Ok(Changed::Begun { .. }) = self.cluster.change(node, &wanted) else { return };
        self.done.changes += 1;
        for change in wanted {
            if !self.cluster.nodes.contains_key(&change.node()) {
                self.cluster.add(change.node());
            }
        }
    }

    /// Everything works from here on: the members have the same log, committed, and serve.
    fn converge(&mut self) {
        let ids: Vec<NodeId> = self.cluster.nodes.keys().copied().collect();
        self.cluster.cut.clear();
        for &id in ids.iter().filter(|id| self.cluster.nodes[id].replica.is_none()).collect::<Vec<_>>() {
            self.cluster.start(id);
        }
        self.cluster.settle_all();
        self.cluster.run(600);
        let leader = self.cluster.leader().expect("a leader is elected");
        let membership = self.cluster.replica(leader).membership().clone();
        assert!(!membership.is_joint() && membership.promoting.is_empty(), "what was begun is ended: {membership:?}");
        let proposed = self.cluster.propose(leader, vec![Payload::SnapshotPoint]).expect("the leader serves");
        self.cluster.run(30);
        for id in membership.members.iter().map(|member| member.id) {
            let status = self.cluster.replica(id).status();
            assert_eq!(status.commit, proposed.start, "{id} has everything: {status:?}");
            let (own, leaders) = (&self.cluster.nodes[&id].disk, &self.cluster.nodes[&leader].disk);
            let both = own.before_first.max(leaders.before_first).index.next();
            assert_eq!(own.entries_from(both), leaders.entries_from(both), "logs are equal");
            assert_eq!(own.last(), leaders.last());
        }
        assert!(self.cluster.reads_open.is_empty(), "a read hangs: {:?}", self.cluster.reads_open);
        self.done.committed = self.cluster.oracle.committed().0;
        self.done.reads = self.cluster.reads_ready.len() as u64;
        self.done.term = self.cluster.replica(leader).status().hard_state.term.0;
        assert!(Index(self.done.committed) >= proposed.start, "what is committed was seen");
    }
}
