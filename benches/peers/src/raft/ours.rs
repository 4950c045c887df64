//! Our core.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::Bytes;
use trilith::limits;
use trilith::raft::{Config, Input, Limits, Message, Outgoing, Output, Persist, Replica, Restored, Role};
use trilith::types::{Data, Entry, HardState, Incarnation, Index, Member, Membership, NodeId, Payload};

use super::{Applied, Cluster, ELECTION_TICKS, HEARTBEAT_TICKS, KEPT_ENTRIES, NODES, PAYLOAD};

pub struct Ours {
    nodes: Vec<Node>,
    /// What is to be done now; its memory is used again.
    output: Output,
    network: VecDeque<Message>,
    leader: NodeId,
    data: Data,
    /// Hears nothing, and nothing is heard of it.
    silent: Option<NodeId>,
}

struct Node {
    replica: Replica,
    store: Store,
    applied: Applied,
    applied_to: Index,
}

/// A disk in memory.
#[derive(Default)]
struct Store {
    hard_state: HardState,
    entries: VecDeque<Entry>,
}

impl Store {
    fn write(&mut self, persist: Persist) {
        self.hard_state = persist.hard_state.unwrap_or(self.hard_state);
        let Some(first) = persist.entries.first() else { return };
        while self.entries.back().is_some_and(|last| last.id.index >= first.id.index) {
            self.entries.pop_back();
        }
        self.entries.extend(persist.entries);
        if self.entries.len() > 2 * KEPT_ENTRIES {
            self.entries.drain(..self.entries.len() - KEPT_ENTRIES);
        }
    }

    /// What memory does not have any more.
    fn read(&self, from: Index, last: Index) -> impl Iterator<Item = &Entry> {
        let first = self.entries.front().map_or(from, |entry| entry.id.index);
        self.entries.range((from.0 - first.0) as usize..(last.0 + 1 - first.0) as usize)
    }
}

impl Node {
    fn apply(&mut self, commit: Index) {
        let range = self.applied_to.next()..commit.next();
        let mut apply = |entry: &Entry| match &entry.payload {
            Payload::Data(data) => self.applied.apply(&data.bytes),
            _ => self.applied.apply(&[]),
        };
        match self.replica.cached(range) {
            Some(entries) => entries.for_each(&mut apply),
            None => self.store.read(self.applied_to.next(), commit).for_each(&mut apply),
        }
        self.applied_to = commit;
    }
}

impl Ours {
    pub fn elected() -> Ours {
        let nodes = (1..=NODES).map(|id| Node {
            replica: replica(NodeId(id)),
            store: Store::default(),
            applied: Applied::default(),
            applied_to: Index::ZERO,
        });
        let mut cluster = Ours {
            nodes: nodes.collect(),
            output: Output::default(),
            network: VecDeque::new(),
            leader: NodeId(0),
            data: Data::new(Bytes::copy_from_slice(PAYLOAD)),
            silent: None,
        };
        cluster.run_until_led();
        cluster
    }

    fn node(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0 as usize - 1]
    }

    /// Everything that an output asks for is done at once.
    fn carry_out(&mut self, id: NodeId) {
        let Ours { nodes, output, network, silent, .. } = self;
        let node = &mut nodes[id.0 as usize - 1];
        loop {
            if !node.replica.fill_output(output) {
                return;
            }
            for Outgoing { message, .. } in output.send.drain(..) {
                if Some(message.to) != *silent && Some(id) != *silent {
                    network.push_back(message);
                }
            }
            if let Some(commit) = output.commit {
                node.apply(commit);
                node.replica.handle(Input::Applied(commit));
            }
            if let Some(persist) = output.persist.take() {
                let number = persist.number;
                node.store.write(persist);
                node.replica.handle(Input::Durable(number));
            }
        }
    }

    fn deliver(&mut self) {
        while let Some(message) = self.network.pop_front() {
            let to = message.to;
            self.node(to).replica.handle(Input::Message(message));
            self.carry_out(to);
        }
    }

    fn tick(&mut self) {
        let silent = self.silent;
        for id in (1..=NODES).map(NodeId).filter(|id| Some(*id) != silent) {
            self.node(id).replica.handle(Input::Tick);
            self.carry_out(id);
        }
        self.deliver();
    }

    fn leader_now(&self) -> Option<NodeId> {
        let mut leading =
            self.nodes.iter().filter(|node| node.replica.role() == Role::Leader).map(|node| node.replica.id());
        leading.find(|id| Some(*id) != self.silent)
    }

    fn run_until_led(&mut self) {
        while self.leader_now().is_none() {
            self.tick();
        }
        self.leader = self.leader_now().expect("found above");
    }
}

impl Cluster for Ours {
    fn commit(&mut self, entries: usize) {
        let leader = self.leader;
        let payloads = vec![Payload::Data(self.data.clone()); entries];
        let range = self.node(leader).replica.propose(payloads).expect("what was before is committed");
        self.carry_out(leader);
        self.deliver();
        assert!(self.node(leader).replica.status().commit >= range.end.previous(), "all of it is committed");
    }

    fn elect(&mut self) {
        let old = self.leader;
        self.silent = Some(old);
        self.run_until_led();
        self.silent = None;
        let leader = self.leader;
        while self.node(old).replica.status().leader != Some(leader) {
            self.tick();
        }
        let status = self.node(leader).replica.status();
        assert_eq!(status.commit, status.last.index, "its first entry is committed");
    }

    fn applied(&mut self) -> Vec<Applied> {
        (0..2 * HEARTBEAT_TICKS).for_each(|_| self.tick());
        self.nodes.iter().map(|node| node.applied).collect()
    }
}

fn replica(id: NodeId) -> Replica {
    let member = |id: u64| Member {
        id: NodeId(id),
        incarnation: Incarnation(id),
        address: SocketAddr::from(([127, 0, 0, 1], id as u16)),
    };
    let membership = Membership {
        members: (1..=NODES).map(member).collect(),
        voters: (1..=NODES).map(NodeId).collect(),
        ..Membership::default()
    };
    let bytes = KEPT_ENTRIES * 192;
    let limits = Limits {
        window_bytes: limits::FOLLOWER_WINDOW_BYTES,
        window_messages: limits::FOLLOWER_WINDOW_MESSAGES,
        append_bytes_max: limits::APPEND_BYTES_MAX,
        append_entries_max: limits::APPEND_ENTRIES_MAX,
        uncommitted_bytes_max: bytes,
        cache_bytes_max: bytes,
        ration_bytes_min: limits::RATION_BYTES_PER_TICK_MIN,
    };
    let election_ticks = ELECTION_TICKS..2 * ELECTION_TICKS;
    let heartbeat_ticks = HEARTBEAT_TICKS;
    let config = Config { id, heartbeat_ticks, election_ticks, seed: id.0, limits };
    let restored = Restored::fresh(membership);
    Replica::new(config, restored)
}
