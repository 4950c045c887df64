//! A cluster of replicas alone: disks that forget what was not flushed, a network that does as it is told. For the
//! tests of the protocol and its fuzz targets; [`super::Simulation`] is whole nodes.
//!
//! The oracle looks at every output, every message that leaves and every restart.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::replica_disk::Disk;
use crate::limits;
use crate::raft::invariants::{Invariants, Violation};
use crate::raft::{
    Base, BootTime, Change, ChangeRefused, Changed, Config, Event, Fetch, Input, LeaseOptions, Limits, Message,
    Outgoing, Output, Persist, PersistNumber, ReadReady, ReadToken, Refused, Replica, Role,
};
use crate::types::{Incarnation, Index, Life, LogId, Member, Membership, NodeId, Payload};

/// As nodes have them.
pub fn limits_default() -> Limits {
    Limits {
        window_bytes: limits::FOLLOWER_WINDOW_BYTES,
        window_messages: limits::FOLLOWER_WINDOW_MESSAGES,
        append_bytes_max: limits::APPEND_BYTES_MAX,
        append_entries_max: limits::APPEND_ENTRIES_MAX,
        uncommitted_bytes_max: limits::UNCOMMITTED_BYTES_DEFAULT,
        cache_bytes_max: limits::TAIL_CACHE_BYTES_MAX,
        ration_bytes_min: limits::RATION_BYTES_PER_TICK_MIN,
    }
}

/// Small enough that windows fill, caches lose entries and proposals are refused.
pub fn limits_small() -> Limits {
    Limits {
        window_bytes: 8 * limits::ENTRY_OVERHEAD_BYTES,
        window_messages: 4,
        append_bytes_max: 3 * limits::ENTRY_OVERHEAD_BYTES,
        append_entries_max: 3,
        uncommitted_bytes_max: 12 * limits::ENTRY_OVERHEAD_BYTES,
        cache_bytes_max: 16 * limits::ENTRY_OVERHEAD_BYTES,
        ration_bytes_min: 3 * limits::ENTRY_OVERHEAD_BYTES as u64,
    }
}

/// A member with an address of its own.
pub fn member(id: u64) -> Member {
    Member {
        id: NodeId(id),
        incarnation: Incarnation(id),
        address: std::net::SocketAddr::from(([127, 0, 0, 1], id as u16)),
    }
}

/// Voters 1..=voters, then learners.
pub fn membership(voters: u64, learners: u64) -> Membership {
    Membership {
        members: (1..=voters + learners).map(member).collect(),
        voters: (1..=voters).map(NodeId).collect(),
        ..Membership::default()
    }
}

/// What is about to happen where [`Cluster::run`] and [`Cluster::settle_all`] decide, for those who look on.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    Tick(NodeId),
    Persist(NodeId, &'a Persist),
    Fetch(NodeId, &'a Fetch),
    Apply(NodeId, Index),
    Message(&'a Message),
    Install(NodeId, Base),
}

/// One member: its process, if it runs, and its disk.
#[derive(Debug)]
pub struct Node {
    pub incarnation: Incarnation,
    pub replica: Option<Replica>,
    pub disk: Disk,
    /// Handed out and not yet durable, in order.
    pub persists: VecDeque<Persist>,
    /// Messages that wait for a persist.
    pub held: Vec<Outgoing>,
    pub fetches: VecDeque<Fetch>,
    /// The snapshot that was offered last and is to be fetched, and by whom.
    pub offered: Option<(NodeId, Base)>,
    /// A state beyond the log: it takes the place of the present one when the log has got there.
    pub state_waits: Option<Index>,
    /// The state machine survives: it is durable of its own.
    pub applied: Index,
    pub commit: Index,
    starts: u64,
    /// With leases: what its clock shows.
    pub clock: BootTime,
}

#[derive(Debug)]
pub struct Cluster {
    pub nodes: BTreeMap<NodeId, Node>,
    /// In order of sending.
    pub network: VecDeque<Message>,
    /// Who does not reach whom.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    /// Who has a link to whom, in the present lives of both; everybody to everybody where it is not told.
    pub links: Option<BTreeSet<(NodeId, NodeId)>>,
    /// Whose disks finish no flush.
    pub stalled: BTreeSet<NodeId>,
    /// Who fetches snapshots for as long as [`Cluster::install`] is not called.
    pub fetches_long: BTreeSet<NodeId>,
    /// Which messages are lost besides.
    pub loses: fn(&Message) -> bool,
    /// For nodes that are started from now on. A tick is then 10 ms of the node's own clock.
    pub leases: Option<LeaseOptions>,
    pub oracle: Invariants,
    /// Snapshots that took the place of a log.
    pub installed: u64,
    pub born_with: Membership,
    pub limits: Limits,
    pub seed: u64,
    /// What happened since it was last looked at: node and event.
    pub events: Vec<(NodeId, Event)>,
    pub reads_ready: Vec<(NodeId, ReadReady)>,
    pub reads_refused: Vec<(NodeId, ReadToken)>,
    /// Asked and not answered: where, and what was committed then.
    pub reads_open: BTreeMap<ReadToken, (NodeId, Index)>,
}

impl Cluster {
    pub fn new(voters: u64, learners: u64, limits: Limits, seed: u64) -> Cluster {
        let mut cluster = Cluster::empty(membership(voters, learners), limits, seed);
        for id in (1..=voters + learners).map(NodeId) {
            cluster.add(id);
        }
        cluster
    }

    /// First members that do not know each other yet.
    pub fn unborn(voters: u64, seed: u64) -> Cluster {
        let mut born_with = Membership { forming: true, ..membership(voters, 0) };
        born_with.members.iter_mut().for_each(|member| member.incarnation = Incarnation::OPEN);
        let mut cluster = Cluster::empty(born_with, limits_default(), seed);
        (1..=voters).for_each(|id| cluster.add(NodeId(id)));
        cluster
    }

    fn empty(born_with: Membership, limits: Limits, seed: u64) -> Cluster {
        Cluster {
            nodes: BTreeMap::new(),
            network: VecDeque::new(),
            cut: BTreeSet::new(),
            links: None,
            stalled: BTreeSet::new(),
            fetches_long: BTreeSet::new(),
            loses: |_| false,
            leases: None,
            oracle: Invariants::default(),
            installed: 0,
            born_with,
            limits,
            seed,
            events: Vec::new(),
            reads_ready: Vec::new(),
            reads_refused: Vec::new(),
            reads_open: BTreeMap::new(),
        }
    }

    /// Start a node with an empty disk.
    pub fn add(&mut self, id: NodeId) {
        let node = Node {
            incarnation: Incarnation(id.0),
            replica: None,
            disk: Disk::default(),
            persists: VecDeque::new(),
            held: Vec::new(),
            fetches: VecDeque::new(),
            offered: None,
            state_waits: None,
            applied: Index::ZERO,
            commit: Index::ZERO,
            starts: 0,
            clock: BootTime::default(),
        };
        self.nodes.insert(id, node);
        self.start(id);
    }

    /// Start a node from what its disk holds.
    pub fn start(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a member");
        assert!(node.replica.is_none(), "{id} runs");
        node.starts += 1;
        let config = config(id, self.seed ^ (id.0 << 32) ^ node.starts, self.limits);
        let life = node.life();
        // A state machine that is durable of its own takes only what is durable here.
        node.state_waits = node.disk.point().filter(|point| *point > node.applied);
        let restored = node.disk.restored(node.applied, &self.born_with);
        let commit = restored.commit;
        let replica = Replica::in_life(config, restored, life);
        let replica = match self.leases {
            Some(leases) => replica.with_leases(leases),
            None => replica,
        };
        check(self.oracle.started(&replica));
        node.commit = commit;
        node.replica = Some(replica);
    }

    /// A node's directory is lost and made anew, and nothing of the life before is on its way any more.
    pub fn make_anew(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a member");
        let incarnation = Incarnation(node.incarnation.0 + 100);
        let others = self.nodes.iter().filter(|(other, _)| **other != id);
        let kept = others.map(|(_, node)| node.disk.last().index.0).max().unwrap_or(0);
        self.oracle.made_anew(id, Index(kept));
        self.network.retain(|message| message.from != id && message.to != id);
        self.reads_open.retain(|_, (asked_at, _)| *asked_at != id);
        self.links.iter_mut().for_each(|links| links.retain(|(first, second)| *first != id && *second != id));
        self.nodes.remove(&id);
        self.add(id);
        let node = self.nodes.get_mut(&id).expect("added");
        node.incarnation = incarnation;
        node.replica = None;
        self.start(id);
    }

    /// These two have a link.
    pub fn meet(&mut self, first: NodeId, second: NodeId) {
        for (node, other) in [(first, second), (second, first)] {
            if self.runs(node) && self.runs(other) {
                let incarnation = self.nodes[&other].incarnation;
                self.links.iter_mut().for_each(|links| links.extend([(node, other)]));
                self.input(node, Input::Met { node: other, incarnation });
            }
        }
    }

    /// Everybody who runs has a link to everybody who runs.
    pub fn meet_all(&mut self) {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for (at, &first) in ids.iter().enumerate() {
            ids[at + 1..].iter().for_each(|&second| self.meet(first, second));
        }
    }

    /// Cut the power: what was not durable is gone, but for the first `kept` persists, which nobody has heard of.
    pub fn crash(&mut self, id: NodeId, kept: usize) {
        let node = self.nodes.get_mut(&id).expect("a member");
        node.replica = None;
        for persist in node.persists.drain(..).take(kept) {
            node.disk.write(&persist);
        }
        node.held.clear();
        node.fetches.clear();
        node.offered = None;
        self.reads_open.retain(|_, (asked_at, _)| *asked_at != id);
    }

    pub fn runs(&self, id: NodeId) -> bool {
        self.nodes[&id].replica.is_some()
    }

    pub fn replica(&self, id: NodeId) -> &Replica {
        self.nodes[&id].replica.as_ref().expect("it runs")
    }

    pub fn replica_mut(&mut self, id: NodeId) -> &mut Replica {
        self.nodes.get_mut(&id).and_then(|node| node.replica.as_mut()).expect("it runs")
    }

    /// Who leads in the highest term.
    pub fn leader(&self) -> Option<NodeId> {
        let running = self.nodes.values().filter_map(|node| node.replica.as_ref());
        let leaders = running.filter(|replica| replica.status().role == Role::Leader);
        leaders.max_by_key(|replica| replica.status().hard_state.term).map(Replica::id)
    }

    /// What is committed anywhere.
    pub fn committed(&self) -> Index {
        self.oracle.committed()
    }

    /// An input and its output at once.
    pub fn input(&mut self, id: NodeId, input: Input) {
        self.replica_mut(id).handle(input);
        self.settle(id);
    }

    /// Time passes at one node, as its own clock shows it.
    pub fn tick(&mut self, id: NodeId) {
        if self.leases.is_some() {
            let node = self.nodes.get_mut(&id).expect("a member");
            node.clock.0 += limits::TICK;
            let reading = node.clock;
            self.input(id, Input::Clock(reading));
        }
        self.input(id, Input::Tick);
    }

    pub fn propose(&mut self, id: NodeId, payloads: Vec<Payload>) -> Result<std::ops::Range<Index>, Refused> {
        let result = self.replica_mut(id).propose(payloads);
        self.settle(id);
        result
    }

    pub fn change(&mut self, id: NodeId, wanted: &[Change]) -> Result<Changed, ChangeRefused> {
        let result = self.replica_mut(id).change(wanted);
        self.settle(id);
        result
    }

    pub fn read(&mut self, id: NodeId, token: ReadToken) -> Result<(), Refused> {
        let committed = self.oracle.committed();
        let result = self.replica_mut(id).read(token);
        if result.is_ok() {
            self.reads_open.insert(token, (id, committed));
        }
        self.settle(id);
        result
    }

    /// Take the output and carry it out as far as it does not need the disk.
    pub fn settle(&mut self, id: NodeId) {
        let output = self.replica_mut(id).take_output();
        let replica = self.nodes[&id].replica.as_ref().expect("it runs");
        check(self.oracle.took(replica, &output));
        let Output { persist, send, commit, reads_ready, reads_refused, fetch, events } = output;
        let contradiction = events.iter().find(|event| matches!(event, Event::Contradiction(_)));
        assert_eq!(contradiction, None, "{id} hears what cannot be, and nobody lies");
        let lost = events.iter().find(|event| matches!(event, Event::VoiceLost { .. }));
        assert_eq!(lost, None, "{id} takes a voice, and nobody has lost anything");
        let node = self.nodes.get_mut(&id).expect("a member");
        let mut offers = events.iter().filter_map(|event| match event {
            Event::SnapshotOffered { from, base } => Some((*from, *base)),
            _ => None,
        });
        node.offered = offers.next_back().or(node.offered);
        node.persists.extend(persist);
        node.fetches.extend(fetch);
        node.commit = commit.unwrap_or(node.commit);
        node.held.extend(send);
        self.events.extend(events.into_iter().map(|event| (id, event)));
        for ready in reads_ready {
            let (asked_at, committed) = self.reads_open.remove(&ready.token).expect("a read is answered once");
            assert_eq!(asked_at, id, "a read is answered where it was asked");
            assert!(ready.index >= committed, "{ready:?} is older than {committed}, committed when it was asked");
            self.reads_ready.push((id, ready));
        }
        for token in reads_refused {
            assert!(self.reads_open.remove(&token).is_some(), "a read is answered once");
            self.reads_refused.push((id, token));
        }
        self.release(id, PersistNumber(0));
    }

    /// The oldest persist of a node becomes durable.
    pub fn persist(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a member");
        if let Some(persist) = node.persists.pop_front() {
            self.finish(id, &persist);
        }
    }

    fn finish(&mut self, id: NodeId, persist: &Persist) {
        self.nodes.get_mut(&id).expect("a member").disk.write(persist);
        self.release(id, persist.number);
        self.input(id, Input::Durable(persist.number));
    }

    /// Hand to the network what may leave once `durable` is.
    fn release(&mut self, id: NodeId, durable: PersistNumber) {
        let node = self.nodes.get_mut(&id).expect("a member");
        let held = std::mem::take(&mut node.held);
        let (leaving, held): (Vec<_>, Vec<_>) = held.into_iter().partition(|outgoing| match outgoing.after {
            None => true,
            Some(after) => after <= durable,
        });
        node.held = held;
        for Outgoing { message, .. } in leaving {
            let replica = node.replica.as_ref().expect("it runs");
            let (disk, hard_state) = (&node.disk, node.disk.hard_state);
            check(self.oracle.sent(&message));
            check(self.oracle.sent_over_disk(&message, replica, hard_state, |index| disk.term_at(index)));
            self.network.push_back(message);
        }
    }

    /// Let the state machine take what is committed and durable here, up to `count` entries.
    pub fn apply(&mut self, id: NodeId, count: u64) {
        if let Some(last) = self.applicable(id, count) {
            let node = self.nodes.get_mut(&id).expect("a member");
            (node.applied, node.state_waits) = (last.max(node.applied), None);
            self.input(id, Input::Applied(last));
        }
    }

    fn applicable(&self, id: NodeId, count: u64) -> Option<Index> {
        let node = &self.nodes[&id];
        let durable = node.replica.as_ref()?.status().durable.index;
        let present = node.commit.min(durable);
        if let Some(point) = node.state_waits {
            return Some(point).filter(|point| *point <= present);
        }
        let last = present.min(node.applied.plus(count));
        Some(last).filter(|last| *last > node.applied)
    }

    /// Answer the oldest fetch from the disk.
    pub fn fetch(&mut self, id: NodeId, fails: bool) {
        let node = self.nodes.get_mut(&id).expect("a member");
        let Some(Fetch { peer, from, last, bytes_max }) = node.fetches.pop_front() else { return };
        let mut bytes = 0;
        let stored = node.disk.entries_from(from).iter().take_while(|entry| entry.id.index <= last);
        let fitting = stored.take_while(|entry| {
            let first = bytes == 0;
            bytes += entry.payload.data_bytes() + limits::ENTRY_OVERHEAD_BYTES;
            first || bytes <= bytes_max
        });
        let entries = if fails { Vec::new() } else { fitting.cloned().collect() };
        self.input(id, Input::Fetched { peer, from, entries });
    }

    /// A node makes a snapshot of what it has applied. False if it has one of that, or waits for a state.
    pub fn snapshot(&mut self, id: NodeId) -> bool {
        let node = self.nodes.get_mut(&id).expect("a member");
        let is_made = node.state_waits.is_none() && node.disk.take_snapshot(node.applied, &self.born_with);
        if is_made {
            let point = node.disk.snapshot.as_ref().expect("just made").point;
            self.input(id, Input::SnapshotMade { point });
        }
        is_made
    }

    /// A node's log begins after this entry from now on, or after the last before it that may go.
    pub fn compact(&mut self, id: NodeId, index: Index) {
        let node = self.nodes.get_mut(&id).expect("a member");
        // What is not carried out yet may take the place of the whole log.
        let is_stable = node.persists.is_empty() && node.state_waits.is_none();
        let last = index.min(node.disk.point().unwrap_or_default()).min(node.commit).min(node.disk.last().index);
        if is_stable && let Some(before_first) = node.disk.compact(last) {
            self.input(id, Input::Compacted { before_first });
        }
    }

    /// The snapshot that a node was offered has arrived.
    pub fn install(&mut self, id: NodeId) {
        if let Some((base, membership)) = self.fetch_snapshot(id) {
            self.finish_install(id, base, membership);
        }
    }

    /// What a node was offered, if whoever offered it runs and has it still.
    pub fn fetch_snapshot(&mut self, id: NodeId) -> Option<(Base, (LogId, Membership))> {
        let (from, base) = self.nodes.get_mut(&id).and_then(|node| node.offered.take())?;
        let taken = self.nodes.get(&from).filter(|node| node.replica.is_some())?.disk.snapshot.as_ref();
        taken.filter(|taken| taken.point == base.point).map(|taken| (base, taken.membership.clone()))
    }

    /// It is whole and durable here, whatever has become of the log meanwhile.
    pub fn finish_install(&mut self, id: NodeId, base: Base, membership: (LogId, Membership)) {
        let node = self.nodes.get_mut(&id).expect("a member");
        node.disk.received.insert(base.point, membership.clone());
        if node.replica.as_ref().is_some_and(|replica| replica.wants(base)) {
            node.state_waits = Some(base.point.index).filter(|point| *point > node.applied);
            self.installed += 1;
        }
        self.input(id, Input::Installed { base, membership });
    }

    /// Deliver a message, unless the network or its receiver is down.
    pub fn deliver(&mut self, message: Message) -> bool {
        let arrives = self.arrives(&message);
        if arrives {
            self.input(message.to, Input::Message(message));
        }
        arrives
    }

    pub fn arrives(&self, message: &Message) -> bool {
        self.nodes.contains_key(&message.to)
            && self.runs(message.to)
            && !self.cut.contains(&(message.from, message.to))
            && self.links.as_ref().is_none_or(|links| links.contains(&(message.from, message.to)))
            && !(self.loses)(message)
    }

    /// Disks, state machines and the network do everything they have to do, until nothing is left.
    pub fn settle_all(&mut self) {
        self.settle_all_watched(&mut |_, _| ());
    }

    /// The same; `look` is called before each step.
    pub fn settle_all_watched(&mut self, look: &mut impl FnMut(&mut Cluster, Step<'_>)) {
        let ids: Vec<NodeId> = self.nodes.keys().copied().filter(|id| self.runs(*id)).collect();
        for _ in 0..100_000 {
            let mut busy = false;
            for &id in &ids {
                while let Some(persist) = self.next_persist(id) {
                    look(self, Step::Persist(id, &persist));
                    self.finish(id, &persist);
                    busy = true;
                }
                while let Some(fetch) = self.nodes[&id].fetches.front().copied() {
                    look(self, Step::Fetch(id, &fetch));
                    self.fetch(id, false);
                    busy = true;
                }
                let offered = self.nodes[&id].offered.filter(|_| !self.fetches_long.contains(&id));
                if let Some((_, base)) = offered {
                    look(self, Step::Install(id, base));
                    self.install(id);
                    busy = true;
                }
                if let Some(last) = self.applicable(id, u64::MAX >> 1) {
                    look(self, Step::Apply(id, last));
                    self.apply(id, u64::MAX >> 1);
                }
            }
            for _ in 0..self.network.len() {
                let message = self.network.pop_front().expect("as many as were counted");
                look(self, Step::Message(&message));
                self.deliver(message);
                busy = true;
            }
            if !busy {
                return;
            }
        }
        panic!("the cluster never comes to rest");
    }

    /// Handed over to be finished, if the disk goes on.
    fn next_persist(&mut self, id: NodeId) -> Option<Persist> {
        if self.stalled.contains(&id) {
            return None;
        }
        self.nodes.get_mut(&id).expect("a member").persists.pop_front()
    }

    /// Ticks on all nodes, each followed by rest.
    pub fn run(&mut self, ticks: u32) {
        self.run_watched(ticks, &mut |_, _| ());
    }

    /// The same; `look` is called before each step.
    pub fn run_watched(&mut self, ticks: u32, look: &mut impl FnMut(&mut Cluster, Step<'_>)) {
        for _ in 0..ticks {
            let ids: Vec<NodeId> = self.nodes.keys().copied().filter(|id| self.runs(*id)).collect();
            for id in ids {
                look(self, Step::Tick(id));
                self.tick(id);
            }
            self.settle_all_watched(look);
        }
    }
}

impl Node {
    pub fn life(&self) -> Life {
        Life { incarnation: self.incarnation, is_first_member: true }
    }
}

/// As nodes have it.
pub fn config(id: NodeId, seed: u64, limits: Limits) -> Config {
    Config { id, heartbeat_ticks: 5, election_ticks: 30..60, seed, limits }
}

/// Panics if a rule was broken.
pub fn check(result: Result<(), Violation>) {
    if let Err(violation) = result {
        panic!("{violation}");
    }
}
