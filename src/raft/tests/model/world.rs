//! One state of the model, and what becomes of it.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::raft::invariants::{Invariants, Violation};
use crate::raft::tests::cluster::{limits_default, membership};
use crate::raft::{
    Base, Body, Config, Event, Fetch, Index, Input, Message, Outgoing, Output, Persist, PersistNumber, ReadToken,
    Replica, Role,
};
use crate::sim::replica_disk::Disk;
use crate::types::{LogId, NodeId, Term};

use super::seen::{May, Print};
use super::{Bounds, canonical, dead, fingerprint};

/// Whatever must not be.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Wrong {
    #[error(transparent)]
    Rule(#[from] Violation),
    #[error("{node} hears what cannot be, and nobody lies: {what}")]
    Contradiction { node: NodeId, what: String },
    #[error("{node} answers read {token} at {index}, and {committed} was committed when it was asked")]
    StaleRead { node: NodeId, token: u64, index: Index, committed: Index },
    #[error("{first} and {second} agree at {index} and not before it")]
    LogsPart { first: NodeId, second: NodeId, index: Index },
    #[error("{first} and {second} have committed different entries at {index}")]
    CommittedDiffers { first: NodeId, second: NodeId, index: Index },
    #[error("a panic: {0}")]
    Panic(String),
}

/// A node between two actions. Nothing in it is changed once it is shared.
#[derive(Clone)]
pub struct Node {
    pub replica: Replica,
    pub disk: Disk,
    /// Handed out and not durable, in order.
    pub persists: VecDeque<Persist>,
    /// Messages that wait for a persist.
    held: Vec<Outgoing>,
    /// The snapshot that it was offered last, and has not.
    pub offered: Option<Base>,
    /// Its writes are done at any time; without it, and where disturbances are counted, they are what is done next.
    pub is_slow: bool,
    lives: u8,
    print: u128,
}

/// What may still happen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Left {
    pub elections: u8,
    pub entries: u8,
    pub crashes: u8,
    pub duplicates: u8,
    pub resends: u8,
    pub step_downs: u8,
    /// 255 is without end.
    pub heartbeats: u8,
    pub reads: u8,
    pub changes: u8,
    pub transfers: u8,
    pub compactions: u8,
    /// 255 is without end.
    pub disturbances: u8,
}

/// A message that may arrive.
#[derive(Clone)]
pub struct Travelling {
    pub print: u128,
    pub message: Arc<Message>,
}

/// A read that was asked for: where, and what was committed then.
#[derive(Clone, Copy, Hash)]
struct Asked {
    token: ReadToken,
    node: NodeId,
    committed: Index,
}

#[derive(Clone)]
pub struct World {
    pub nodes: Vec<Arc<Node>>,
    /// A set, in order of fingerprints.
    pub network: Vec<Travelling>,
    /// Those of them that arrive next, in this order, where disturbances are counted: the others are late.
    pub on_time: VecDeque<u128>,
    oracle: Arc<Invariants>,
    asked: Vec<Asked>,
    pub left: Left,
    /// How many of the first voters have taken part.
    pub touched: usize,
}

impl Left {
    /// Whether there is as much left of everything. Where no crash can follow any more writes take no step of their own, and
    /// where no election and no resend can, some messages can change nothing any more, and need not be late: then the same is
    /// not as near.
    pub fn covers(&self, other: &Left) -> bool {
        let kinds = |left: &Left| [left.crashes, left.elections, left.resends].map(|count| count > 0);
        let (own, others) = (self.counts(), other.counts());
        kinds(self) == kinds(other)
            && own.as_flattened().iter().zip(others.as_flattened()).all(|(own, others)| own >= others)
    }

    fn counts(&self) -> [[u8; 4]; 3] {
        // Whoever adds a field adds it here.
        let Left {
            elections,
            entries,
            crashes,
            duplicates,
            resends,
            step_downs,
            heartbeats,
            reads,
            changes,
            transfers,
            compactions,
            disturbances,
        } = *self;
        [
            [elections, entries, crashes, duplicates],
            [resends, step_downs, heartbeats, reads],
            [changes, transfers, compactions, disturbances],
        ]
    }
}

impl World {
    pub fn new(bounds: &Bounds) -> World {
        let mut oracle = Invariants::default();
        let ids = (1..=bounds.voters + bounds.learners).map(NodeId);
        let nodes = ids.map(|id| Arc::new(Node::start(id, Disk::default(), Index::ZERO, 0, bounds)));
        let nodes: Vec<Arc<Node>> = nodes.collect();
        for node in &nodes {
            oracle.started(&node.replica).expect("an empty node knows nothing");
        }
        let left = Left {
            elections: bounds.elections,
            entries: bounds.entries,
            crashes: bounds.crashes,
            duplicates: bounds.duplicates,
            resends: bounds.resends,
            step_downs: bounds.step_downs,
            heartbeats: bounds.heartbeats.unwrap_or(u8::MAX),
            reads: bounds.reads,
            changes: bounds.changes,
            transfers: bounds.transfers,
            compactions: bounds.compactions,
            disturbances: bounds.disturbances.unwrap_or(u8::MAX),
        };
        let on_time = VecDeque::new();
        World { nodes, network: Vec::new(), on_time, oracle: Arc::new(oracle), asked: Vec::new(), left, touched: 0 }
    }

    /// Stands for everything that matters for what can happen from here on.
    pub fn print(&self) -> Print {
        let nodes: Vec<u128> = self.nodes.iter().map(|node| node.print).collect();
        let core = fingerprint::of(&(nodes, &*self.oracle, &self.asked, &self.on_time, self.touched));
        let late = self.network.iter().map(|travelling| travelling.print).filter(|print| !self.on_time.contains(print));
        let mut late: Box<[u64]> = late.map(|print| print as u64).collect();
        late.sort_unstable();
        Print { core, may: May { arrive: late, left: self.left } }
    }

    /// Whether nothing is about to happen by itself, where disturbances are counted.
    pub fn is_at_rest(&self) -> bool {
        self.on_time.is_empty() && self.writes_next().is_none()
    }

    /// The node whose write is done next, where disturbances are counted.
    pub fn writes_next(&self) -> Option<NodeId> {
        self.ids().find(|id| !self.node(*id).is_slow && !self.node(*id).persists.is_empty())
    }

    /// The message that arrives next, likewise.
    pub fn arrives_next(&self) -> Option<&Travelling> {
        let first = self.on_time.front()?;
        Some(self.network.iter().find(|travelling| travelling.print == *first).expect("it is under way"))
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize - 1]
    }

    pub fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (1..=self.nodes.len() as u64).map(NodeId)
    }

    /// Voters that have not taken part are all alike: only the first of them does something. An order in which messages
    /// arrive makes them different.
    pub fn is_represented(&self, id: NodeId, bounds: &Bounds) -> bool {
        bounds.disturbances.is_some() || id.0 > bounds.voters || id.0 as usize <= self.touched + 1
    }

    pub fn committed(&self) -> Index {
        self.oracle.committed()
    }

    /// Lets a node do something, and carries out what follows from it.
    pub fn with_node(&mut self, id: NodeId, bounds: &Bounds, act: impl FnOnce(&mut Node)) -> Result<(), Wrong> {
        if id.0 <= bounds.voters {
            self.touched = self.touched.max(id.0 as usize);
        }
        let mut node = Node::clone(self.node(id));
        act(&mut node);
        self.settle(&mut node, bounds)?;
        while self.left.crashes == 0 && !bounds.slow_disks && !node.persists.is_empty() {
            self.write(&mut node, bounds)?;
            self.settle(&mut node, bounds)?;
        }
        node.finish(bounds);
        self.nodes[id.0 as usize - 1] = Arc::new(node);
        self.forget_dead_messages(bounds);
        self.forget_history();
        self.compare_logs(id)
    }

    /// Another life of a node, from what is on its disk.
    pub fn restart(&mut self, id: NodeId, kept: usize, remembers: bool, bounds: &Bounds) -> Result<(), Wrong> {
        let old = self.node(id);
        let mut disk = old.disk.clone();
        old.persists.iter().take(kept).for_each(|persist| disk.write(persist));
        let status = old.replica.status();
        // What a state machine that is durable of its own may have taken.
        let commit = if remembers { status.commit.min(status.durable.index) } else { Index::ZERO };
        let node = Node::start(id, disk, commit, old.lives + 1, bounds);
        Arc::make_mut(&mut self.oracle).started(&node.replica)?;
        self.nodes[id.0 as usize - 1] = Arc::new(node);
        self.asked.retain(|asked| asked.node != id);
        self.forget_dead_messages(bounds);
        self.forget_history();
        self.compare_logs(id)
    }

    /// The oldest persist of a node is done.
    pub fn persist(&mut self, id: NodeId, bounds: &Bounds) -> Result<(), Wrong> {
        let mut node = Node::clone(self.node(id));
        self.write(&mut node, bounds)?;
        self.nodes[id.0 as usize - 1] = Arc::new(node);
        self.with_node(id, bounds, |_| ())
    }

    fn write(&mut self, node: &mut Node, bounds: &Bounds) -> Result<(), Wrong> {
        let persist = node.persists.pop_front().expect("there is one");
        node.disk.write(&persist);
        self.release(node, persist.number, bounds)?;
        node.replica.handle(Input::Durable(persist.number));
        Ok(())
    }

    /// A read is asked for, if the node takes it. False if it does not.
    pub fn read(&mut self, id: NodeId, bounds: &Bounds) -> Result<bool, Wrong> {
        let token = ReadToken(self.left.reads.into());
        let mut taken = false;
        self.asked.push(Asked { token, node: id, committed: self.committed() });
        self.with_node(id, bounds, |node| taken = node.replica.read(token).is_ok())?;
        Ok(taken)
    }

    /// Whether there is something to make a snapshot of, and nothing under way that may take its place.
    pub fn may_compact(&self, id: NodeId) -> bool {
        let node = self.node(id);
        let status = node.replica.status();
        node.persists.is_empty() && status.commit.min(status.durable.index) >= node.replica.first_index()
    }

    pub fn compact(&mut self, id: NodeId, bounds: &Bounds) -> Result<(), Wrong> {
        self.with_node(id, bounds, |node| {
            let status = node.replica.status();
            let last = status.commit.min(status.durable.index);
            assert!(node.disk.take_snapshot(last, &membership(bounds.voters, bounds.learners)), "it is the newest");
            let before_first = node.disk.compact(last).expect("it is behind the log's beginning");
            node.replica.handle(Input::SnapshotMade { point: before_first });
            node.replica.handle(Input::Compacted { before_first });
        })
    }

    /// Whoever has the snapshot gives it. False if nobody has it any more.
    pub fn install(&mut self, id: NodeId, bounds: &Bounds) -> Result<bool, Wrong> {
        let base = self.node(id).offered.expect("it was offered one");
        let taken = self.nodes.iter().filter_map(|node| node.disk.snapshot.as_ref());
        let Some(membership) = taken.into_iter().find(|taken| taken.point == base.point).map(|t| t.membership.clone())
        else {
            return Ok(false);
        };
        self.with_node(id, bounds, |node| {
            node.offered = None;
            if node.replica.wants(base) {
                node.disk.received.insert(base.point, membership.clone());
            }
            node.replica.handle(Input::Installed { base, membership });
        })?;
        Ok(true)
    }

    fn settle(&mut self, node: &mut Node, bounds: &Bounds) -> Result<(), Wrong> {
        loop {
            let output = node.replica.take_output();
            let fetches = self.carry_out(node, output, bounds)?;
            if fetches.is_empty() {
                return Ok(());
            }
            for Fetch { peer, from, last, .. } in fetches {
                let entries = node.disk.entries_from(from).iter();
                let entries = entries.take_while(|entry| entry.id.index <= last).cloned().collect();
                node.replica.handle(Input::Fetched { peer, from, entries });
            }
        }
    }

    fn carry_out(&mut self, node: &mut Node, output: Output, bounds: &Bounds) -> Result<Vec<Fetch>, Wrong> {
        let id = node.replica.id();
        Arc::make_mut(&mut self.oracle).took(&node.replica, &output)?;
        let Output { persist, send, commit: _, reads_ready, reads_refused, fetch, events } = output;
        for event in &events {
            match event {
                Event::Contradiction(contradiction) => {
                    return Err(Wrong::Contradiction { node: id, what: contradiction.to_string() });
                }
                Event::SnapshotOffered { base, .. } => node.offered = Some(*base),
                _ => {}
            }
        }
        node.persists.extend(persist);
        node.held.extend(send);
        for ready in reads_ready {
            let place = self.asked.iter().position(|asked| asked.token == ready.token && asked.node == id);
            let Asked { committed, .. } =
                self.asked.remove(place.expect("a read is answered once, where it was asked"));
            if ready.index < committed {
                return Err(Wrong::StaleRead { node: id, token: ready.token.0, index: ready.index, committed });
            }
        }
        self.asked.retain(|asked| !reads_refused.contains(&asked.token));
        self.release(node, PersistNumber(0), bounds)?;
        Ok(fetch)
    }

    /// What may leave once `durable` is goes to the network.
    fn release(&mut self, node: &mut Node, durable: PersistNumber, bounds: &Bounds) -> Result<(), Wrong> {
        let (leaving, held): (Vec<_>, Vec<_>) = std::mem::take(&mut node.held)
            .into_iter()
            .partition(|outgoing| outgoing.after.is_none_or(|n| n <= durable));
        node.held = held;
        for Outgoing { message, .. } in leaving {
            let oracle = Arc::make_mut(&mut self.oracle);
            oracle.sent(&message)?;
            oracle.sent_over_disk(&message, &node.replica, node.disk.hard_state, |index| node.disk.term_at(index))?;
            self.send(canonical::message(message, bounds), bounds);
        }
        Ok(())
    }

    fn send(&mut self, message: Message, bounds: &Bounds) {
        let print = fingerprint::of(&message);
        if bounds.disturbances.is_some() && !self.on_time.contains(&print) {
            self.on_time.push_back(print);
        }
        if let Err(place) = self.network.binary_search_by_key(&print, |travelling| travelling.print) {
            self.network.insert(place, Travelling { print, message: Arc::new(message) });
        }
    }

    pub fn take_message(&mut self, print: u128) {
        self.network.retain(|travelling| travelling.print != print);
        self.be_late(print);
    }

    /// It does not arrive next: from here on at any time, or never.
    pub fn be_late(&mut self, print: u128) {
        self.on_time.retain(|next| *next != print);
    }

    fn forget_dead_messages(&mut self, bounds: &Bounds) {
        let network = std::mem::take(&mut self.network);
        self.network =
            network.into_iter().filter(|travelling| dead::may_matter(self, &travelling.message, bounds)).collect();
        let World { network, on_time, .. } = self;
        on_time.retain(|print| network.iter().any(|travelling| travelling.print == *print));
    }

    /// What the oracle remembers and can show nothing any more.
    fn forget_history(&mut self) {
        let World { nodes, network, oracle, left, .. } = self;
        let messages = || network.iter().map(|travelling| &*travelling.message);
        let is_held =
            |id: LogId| nodes.iter().any(|node| node.holds(id)) || messages().any(|message| names(message, id));
        let floor = |id: NodeId| nodes[id.0 as usize - 1].floor();
        Arc::make_mut(oracle).forget(floor, left.crashes > 0, is_held);
    }

    /// Log matching and state machine safety, from what is there, whatever the oracle remembers.
    fn compare_logs(&self, id: NodeId) -> Result<(), Wrong> {
        let (own, first) = (&self.node(id).replica, id);
        for second in self.ids().filter(|other| *other != id) {
            let other = &self.node(second).replica;
            let (mine, theirs) = (own.status(), other.status());
            let last = mine.last.index.min(theirs.last.index);
            let mut agrees = false;
            let first_of_both = own.first_index().max(other.first_index());
            for index in (first_of_both.0..=last.0).rev().map(Index) {
                let same = own.term_at(index) == other.term_at(index);
                if agrees && !same {
                    return Err(Wrong::LogsPart { first, second, index: index.next() });
                }
                if !same && index <= mine.commit.min(theirs.commit) {
                    return Err(Wrong::CommittedDiffers { first, second, index });
                }
                agrees |= same;
            }
        }
        Ok(())
    }
}

impl Node {
    fn start(id: NodeId, disk: Disk, commit: Index, lives: u8, bounds: &Bounds) -> Node {
        let config = Config {
            id,
            heartbeat_ticks: canonical::HEARTBEAT_TICKS,
            election_ticks: canonical::ELECTION_TICKS,
            seed: 0,
            limits: limits_default(),
        };
        let restored = disk.restored(commit, &membership(bounds.voters, bounds.learners));
        let mut replica = Replica::new(config, restored);
        let lives_that_matter = if bounds.reads > 0 { lives } else { 0 };
        canonical::number_questions(&mut replica, lives_that_matter);
        let (persists, held) = (VecDeque::new(), Vec::new());
        let mut node =
            Node { replica, disk, persists, held, offered: None, is_slow: false, lives: lives_that_matter, print: 0 };
        // Becoming one is told, and needs nothing to be done.
        let first = node.replica.take_output();
        assert!(first.persist.is_none() && first.send.is_empty(), "a start does nothing");
        node.finish(bounds);
        node
    }

    fn finish(&mut self, bounds: &Bounds) {
        self.replica.make_canonical(bounds);
        let base = self.replica.renumber_persists();
        canonical::renumber(self.persists.make_contiguous(), &mut self.held, base);
        // What is offered and not wanted any more is as good as not offered.
        self.offered = self.offered.filter(|base| self.replica.wants(*base));
        self.is_slow &= !self.persists.is_empty();
        let essence = canonical::Essence(&self.replica);
        let rest = (self.offered, self.is_slow, self.lives);
        self.print = fingerprint::of(&(essence, &self.disk, &self.persists, &self.held, rest));
    }

    pub fn print(&self) -> u128 {
        self.print
    }

    /// Neither this life of it, nor the next, nor a message of its that waits is of an earlier term.
    fn floor(&self) -> Term {
        let held = self.held.iter().map(|outgoing| outgoing.message.term);
        held.fold(self.disk.hard_state.term.min(self.replica.term()), Term::min)
    }

    /// Whether this entry is in its log, on its disk, on the way there, or in what it is about to send.
    fn holds(&self, id: LogId) -> bool {
        let written = self.persists.iter().flat_map(|persist| &persist.entries);
        self.replica.term_at(id.index) == Some(id.term)
            || self.disk.term_at(id.index) == Some(id.term)
            || written.into_iter().any(|entry| entry.id == id)
            || self.held.iter().any(|outgoing| names(&outgoing.message, id))
    }

    pub fn role(&self) -> Role {
        self.replica.role()
    }
}

/// Whether this message brings this entry.
fn names(message: &Message, id: LogId) -> bool {
    matches!(&message.body, Body::Append(append) if append.entries.iter().any(|entry| entry.id == id))
}

impl World {
    /// One line on each node.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            let status = node.replica.status();
            let terms: Vec<String> = (1..=status.last.index.0)
                .filter_map(|i| node.replica.term_at(Index(i)))
                .map(|t: Term| t.to_string())
                .collect();
            let vote = status.hard_state.vote.map_or("-".to_owned(), |vote| vote.to_string());
            let (id, term, role, commit) = (node.replica.id(), status.hard_state.term, status.role, status.commit);
            let disk = node.disk.entries.len();
            text += &format!(
                "  {id}: {role:?} term {term} vote {vote} log [{}] on disk {disk} commit {commit}\n",
                terms.join(" ")
            );
        }
        text
    }
}
