//! raft-rs.

use std::collections::VecDeque;

use ::raft::eraftpb::{Entry, Message, MessageType};
use ::raft::storage::MemStorage;
use ::raft::{Config, RawNode, StateRole};
use bytes::Bytes;
use slog::{Discard, Logger, o};

use super::{Applied, Cluster, ELECTION_TICKS, HEARTBEAT_TICKS, KEPT_ENTRIES, NODES, PAYLOAD};

pub struct Theirs {
    nodes: Vec<Node>,
    network: VecDeque<Message>,
    leader: u64,
    data: Bytes,
    /// Hears nothing, and nothing is heard of it.
    silent: Option<u64>,
}

struct Node {
    raw: RawNode<MemStorage>,
    applied: Applied,
    applied_to: u64,
    /// Storage begins behind this entry.
    compacted_to: u64,
}

impl Theirs {
    pub fn elected() -> Theirs {
        let nodes =
            (1..=NODES).map(|id| Node { raw: node(id), applied: Applied::default(), applied_to: 0, compacted_to: 0 });
        let mut cluster = Theirs {
            nodes: nodes.collect(),
            network: VecDeque::new(),
            leader: 0,
            data: Bytes::copy_from_slice(PAYLOAD),
            silent: None,
        };
        cluster.run_until_led();
        cluster
    }

    fn node(&mut self, id: u64) -> &mut Node {
        &mut self.nodes[id as usize - 1]
    }

    /// Everything that a node asks for is done at once.
    fn carry_out(&mut self, id: u64) {
        let Theirs { nodes, network, silent, .. } = self;
        let node = &mut nodes[id as usize - 1];
        let mut send = |messages: Vec<Message>| {
            for message in messages {
                if Some(message.to) != *silent && Some(id) != *silent {
                    network.push_back(message);
                }
            }
        };
        while node.raw.has_ready() {
            let mut ready = node.raw.ready();
            send(ready.take_messages());
            node.apply(ready.take_committed_entries());
            if !ready.entries().is_empty() {
                node.raw.mut_store().wl().append(ready.entries()).expect("storage in memory takes what comes next");
            }
            if let Some(hard_state) = ready.hs() {
                node.raw.mut_store().wl().set_hardstate(hard_state.clone());
            }
            send(ready.take_persisted_messages());
            let mut light = node.raw.advance(ready);
            if let Some(commit) = light.commit_index() {
                node.raw.mut_store().wl().mut_hard_state().commit = commit;
            }
            send(light.take_messages());
            node.apply(light.take_committed_entries());
            node.raw.advance_apply();
            node.compact();
        }
    }

    fn deliver(&mut self) {
        while let Some(message) = self.network.pop_front() {
            let to = message.to;
            self.node(to).raw.step(message).expect("peers say what can be");
            self.carry_out(to);
        }
    }

    fn tick(&mut self) {
        let silent = self.silent;
        for id in (1..=NODES).filter(|id| Some(*id) != silent) {
            self.node(id).raw.tick();
            self.carry_out(id);
        }
        self.deliver();
    }

    fn leader_now(&self) -> Option<u64> {
        let rafts = self.nodes.iter().map(|node| &node.raw.raft);
        let mut leading = rafts.filter(|raft| raft.state == StateRole::Leader).map(|raft| raft.id);
        leading.find(|id| Some(*id) != self.silent)
    }

    fn run_until_led(&mut self) {
        while self.leader_now().is_none() {
            self.tick();
        }
        self.leader = self.leader_now().expect("found above");
    }
}

impl Node {
    fn apply(&mut self, entries: Vec<Entry>) {
        if let Some(last) = entries.last() {
            self.applied_to = last.index;
        }
        entries.iter().for_each(|entry| self.applied.apply(&entry.data));
    }

    fn compact(&mut self) {
        let kept = KEPT_ENTRIES as u64;
        if self.applied_to > self.compacted_to + 2 * kept {
            self.compacted_to = self.applied_to - kept;
            let compacted = self.raw.mut_store().wl().compact(self.compacted_to);
            compacted.expect("what is dropped was applied");
        }
    }
}

impl Cluster for Theirs {
    /// As one message with all entries, which is the fastest that it takes.
    fn commit(&mut self, entries: usize) {
        let leader = self.leader;
        let entries = vec![Entry { data: self.data.clone(), ..Entry::default() }; entries];
        let mut propose = Message { from: leader, to: leader, entries: entries.into(), ..Message::default() };
        propose.set_msg_type(MessageType::MsgPropose);
        let node = self.node(leader);
        node.raw.step(propose).expect("what was before is committed");
        let last = node.raw.raft.raft_log.last_index();
        self.carry_out(leader);
        self.deliver();
        assert!(self.node(leader).raw.raft.raft_log.committed >= last, "all of it is committed");
    }

    fn elect(&mut self) {
        let old = self.leader;
        self.silent = Some(old);
        self.run_until_led();
        self.silent = None;
        let leader = self.leader;
        while self.node(old).raw.raft.leader_id != leader {
            self.tick();
        }
        let log = &self.node(leader).raw.raft.raft_log;
        assert_eq!(log.committed, log.last_index(), "its first entry is committed");
    }

    fn applied(&mut self) -> Vec<Applied> {
        (0..2 * HEARTBEAT_TICKS).for_each(|_| self.tick());
        self.nodes.iter().map(|node| node.applied).collect()
    }
}

fn node(id: u64) -> RawNode<MemStorage> {
    let config = Config {
        id,
        election_tick: ELECTION_TICKS as usize,
        heartbeat_tick: HEARTBEAT_TICKS as usize,
        max_size_per_msg: 2 << 20,
        max_inflight_msgs: 256,
        check_quorum: true,
        pre_vote: true,
        skip_bcast_commit: true,
        ..Config::default()
    };
    let voters: Vec<u64> = (1..=NODES).collect();
    let storage = MemStorage::new_with_conf_state((voters, Vec::new()));
    RawNode::new(&config, storage, &Logger::root(Discard, o!())).expect("the configuration is sound")
}
