//! The other nodes: who they are, what waits for them, and who dials.
//!
//! For each pair of nodes there is one connection, which the lower id dials, again and again, with a growing wait in
//! between. The higher id dials at the longest wait, and is let in only by a lower one that does not know of it. What is
//! sent to a node that is away is dropped and counted: Raft says it again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::raft::message::{Body, Message};
use crate::random::Random;
use crate::types::{Incarnation, Index, Life, LogId, Member, NodeId, Term};

use super::answer_wire::Refusal;
use super::close::CloseReason;
use super::context::Context;
use super::endpoint::Facts;
use super::error::Error;
use super::forward_wire::{Forward, Forwarded, put_forward, put_forwarded};
use super::outbox::{Outbox, Put};
use super::peer_link;
use super::peer_wire::{Hello, put_message};
use super::settings::{
    CONTROL_LANE_BYTES_MAX, FORWARD_LANE_BYTES_MAX, FORWARDED_LANE_BYTES_MAX, LOG_LANE_BYTES_MAX, PEERS_MAX,
    UNKNOWN_BYTES_MAX,
};
use super::slot::Slot;
use super::snapshot_desk::{Sending, SnapshotQuestion};

/// Whom this node speaks with, and by which configuration.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Correspondents {
    /// The entry of the configuration in force.
    pub configuration: LogId,
    /// By rising id.
    pub members: Vec<Member>,
    /// The cluster is being born: a first member that was made anew is let in like the one before it.
    pub forming: bool,
}

impl Correspondents {
    fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// Which life of a node is meant, unless that is left open.
    fn named(&self, id: NodeId) -> Option<Incarnation> {
        self.member(id).map(|member| member.incarnation).filter(|incarnation| *incarnation != Incarnation::OPEN)
    }
}

/// Another node in the life in which it was heard last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KnownLife {
    pub incarnation: Incarnation,
    /// The highest boot number of that life: a lower one is that of an older copy.
    pub boot: u64,
    /// It has lost what it had acknowledged.
    pub has_lost: bool,
}

/// Why a request was not passed on: certainly, it stays where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotForwarded {
    /// There is no link to that node.
    NoLink,
    /// Too much waits for it.
    Full,
}

/// A handle on the links to all peers; clones share them.
#[derive(Clone, Debug)]
pub struct Peers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    context: Arc<Context>,
    endpoint: quinn::Endpoint,
    life: Life,
    /// Where diallers run, so that the handle works from any thread.
    runtime: Handle,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Who may speak with this node; everyone with a node's certificate until it is told.
    correspondents: Option<Correspondents>,
    peers: BTreeMap<NodeId, Arc<Peer>>,
    /// What is known of other nodes beyond the life of this process.
    known: BTreeMap<NodeId, KnownLife>,
    /// Nodes for which a dialler runs: one each.
    dialled: BTreeSet<NodeId>,
    dial_configs: DialConfigs,
    /// Jitter of the waits.
    random: Random,
}

/// How this node dials others.
#[derive(Clone, Debug)]
pub(super) struct DialConfigs {
    pub(super) link: quinn::ClientConfig,
    pub(super) snapshots: quinn::ClientConfig,
}

/// One other node.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: NodeId,
    /// Votes, heartbeats, replies, read indexes.
    pub(super) control: Outbox,
    /// AppendEntries, in order.
    pub(super) log: Outbox,
    /// Clients' requests that are passed on, and answers to those that came.
    pub(super) forward: Outbox,
    /// By which all of that goes.
    pub(super) link: Slot,
    /// By which it fetches a snapshot from here, and this node one from there.
    pub(super) snapshots_to: Slot,
    pub(super) snapshots_from: Slot,
    /// What it said of itself when it was last let in, in the life of this process.
    met: Mutex<Option<Met>>,
    /// The life that whoever sends means; that of nobody until it says so.
    spoken_to: AtomicU64,
    /// Held by the link that runs, so that up and down are told in turn.
    pub(super) turn: tokio::sync::Mutex<()>,
}

/// The life of a node that is spoken with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Met {
    incarnation: Incarnation,
    boot: u64,
    /// The latest configuration by which it is the one that counts: its own, or this node's.
    configuration: LogId,
}

impl Peers {
    pub(super) fn new(
        context: Arc<Context>,
        endpoint: quinn::Endpoint,
        dial_configs: DialConfigs,
        facts: Facts,
    ) -> Peers {
        let life = Life { incarnation: facts.incarnation, is_first_member: facts.is_first_member };
        let state = State {
            correspondents: None,
            peers: BTreeMap::new(),
            known: BTreeMap::new(),
            dialled: BTreeSet::new(),
            dial_configs,
            random: Random::seeded(facts.seed),
        };
        let (runtime, state) = (Handle::current(), Mutex::new(state));
        Peers { shared: Arc::new(Shared { context, endpoint, life, runtime, state }) }
    }

    /// Whoever sends has heard that this life of a node is up ([`Arrival::PeerUp`](super::Arrival::PeerUp)), and means it with
    /// all that it sends from now on. Until then it means the life before, of which it may have counted on what the next one
    /// does not have.
    pub fn means(&self, node: NodeId, life: Incarnation) {
        let peer = self.state().peers.get(&node).cloned();
        peer.into_iter().for_each(|peer| peer.spoken_to.store(life.0, Ordering::Release));
    }

    /// Queues a message for its receiver; never blocks. Dropped and counted if there is no link, if it is to another life of
    /// the receiver than is meant, or if too much waits.
    pub fn send(&self, message: &Message) {
        let peer = self.state().peers.get(&message.to).cloned();
        let put = peer.map_or(Put::Closed, |peer| {
            let (lane, bytes_max) = match message.body {
                Body::Append(_) => (&peer.log, LOG_LANE_BYTES_MAX),
                _ => (&peer.control, CONTROL_LANE_BYTES_MAX),
            };
            lane.put_for(peer.spoken_to(), bytes_max, |out| put_message(out, message))
        });
        if matches!(put, Put::Refused | Put::Closed) {
            self.shared.context.counters.messages_dropped.add();
        }
    }

    /// Queues a client's request for the node that leads; never blocks. If it is not queued it does not leave, now or
    /// later.
    pub fn forward(&self, to: NodeId, forward: &Forward) -> Result<(), NotForwarded> {
        let peer = self.state().peers.get(&to).cloned();
        let put = |peer: Arc<Peer>| peer.forward.put(FORWARD_LANE_BYTES_MAX, |out| put_forward(out, forward));
        match peer.map_or(Put::Closed, put) {
            Put::Queued | Put::Full => Ok(()),
            Put::Refused => Err(NotForwarded::Full),
            Put::Closed => Err(NotForwarded::NoLink),
        }
    }

    /// Queues the answer to a request that was passed on; never blocks. If its other end is slow to read, that the outcome
    /// is unknown takes its place. Dropped and counted if there is no link any more, which the other end notices, or
    /// nothing is read at all.
    pub fn forwarded(&self, to: NodeId, forwarded: &Forwarded) {
        let peer = self.state().peers.get(&to).cloned();
        let put =
            |peer: Arc<Peer>| match peer.forward.put(FORWARDED_LANE_BYTES_MAX, |out| put_forwarded(out, forwarded)) {
                Put::Refused => {
                    let unknown = Forwarded { id: forwarded.id, outcome: Err(Refusal::OutcomeUnknown) };
                    let bytes_max = FORWARDED_LANE_BYTES_MAX + UNKNOWN_BYTES_MAX;
                    peer.forward.put(bytes_max, |out| put_forwarded(out, &unknown))
                }
                put => put,
            };
        if matches!(peer.map_or(Put::Closed, put), Put::Refused | Put::Closed) {
            self.shared.context.counters.messages_dropped.add();
        }
    }

    /// From now on, speaks with these nodes, in these lives, and with those that know a later configuration and mean this
    /// node. A link to whoever is none of them any more is closed.
    pub fn set_correspondents(&self, correspondents: Correspondents) {
        let mut state = self.state();
        for peer in state.peers.values() {
            if let Some(reason) = peer.outdated_by(&correspondents) {
                peer.disconnect(reason);
            }
        }
        let local = self.shared.context.local.node;
        for id in correspondents.members.iter().map(|member| member.id).filter(|id| *id != local) {
            if state.dialled.insert(id) {
                self.shared.runtime.spawn(dial_forever(self.clone(), id));
            }
        }
        state.correspondents = Some(correspondents);
    }

    /// What is remembered of other nodes, whatever became of the process that met them. A link to one that is found to have
    /// lost what it had acknowledged is closed.
    pub fn set_known(&self, lives: impl IntoIterator<Item = (NodeId, KnownLife)>) {
        let mut state = self.state();
        state.known = lives.into_iter().collect();
        for (id, peer) in &state.peers {
            if let Some(known) = state.known.get(id).filter(|known| known.has_lost)
                && peer.is_met_in(known.incarnation)
            {
                peer.disconnect(CloseReason::LostAcknowledged);
            }
        }
    }

    /// From now on, questions for this node's snapshots go there; without one, nothing is here. There are never more of
    /// them under way than nodes are served at once.
    pub fn answer_snapshots(&self, answerer: Option<Sender<SnapshotQuestion>>) {
        self.shared.context.snapshots.set_answerer(answerer);
    }

    /// From now on this is notified when a member asks which snapshot this node has, and it is known of which it asked.
    pub fn wake_when_snapshots_are_asked_for(&self, woken: Arc<Notify>) {
        self.shared.context.snapshots.set_woken(woken);
    }

    /// What members have asked for since this was called last, each of them last: they fetch that, from here or from others.
    /// Also those that were told that this node is busy. Chunks alone are not told.
    pub fn take_snapshots_asked_for(&self) -> BTreeMap<NodeId, LogId> {
        self.shared.context.snapshots.take_asked()
    }

    /// The snapshots of this node that are being sent.
    pub fn sendings(&self) -> Vec<Sending> {
        self.shared.context.snapshots.sendings()
    }

    /// Whether a link to this node stands.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.state().peers.get(&node).is_some_and(|peer| peer.control.is_open())
    }

    /// The members that this node speaks with, without itself.
    pub fn others(&self) -> Vec<NodeId> {
        let (state, local) = (self.state(), self.shared.context.local.node);
        let members = state.correspondents.iter().flat_map(|known| &known.members);
        members.map(|member| member.id).filter(|id| *id != local).collect()
    }

    pub(super) fn stop(&self) {
        self.set_correspondents(Correspondents {
            configuration: LogId::new(Term(u64::MAX), Index(u64::MAX)),
            members: Vec::new(),
            forming: false,
        });
    }

    pub(super) fn set_dial_configs(&self, configs: DialConfigs) {
        self.state().dial_configs = configs;
    }

    /// What this node says of itself to another one.
    pub(super) fn hello_to(&self, id: NodeId) -> Hello {
        let state = self.state();
        let correspondents = state.correspondents.as_ref();
        Hello {
            configuration: correspondents.map_or(LogId::ZERO, |known| known.configuration),
            receiver: correspondents.and_then(|known| known.member(id)).map(|member| member.incarnation),
            ..self.shared.context.local
        }
    }

    /// Whether it is for this node to dial that one: it has the lower id, and knows as much of the other as that does.
    pub(super) fn is_dialler_to(&self, hello: &Hello) -> bool {
        let state = self.state();
        let is_lower = self.shared.context.local.node < hello.node;
        let is_known =
            |known: &Correspondents| known.member(hello.node).is_some() && hello.configuration <= known.configuration;
        is_lower && state.correspondents.as_ref().is_none_or(is_known)
    }

    /// The node with this id, unless there are too many.
    fn peer(state: &mut State, id: NodeId) -> Result<Arc<Peer>, CloseReason> {
        if !state.peers.contains_key(&id) && state.peers.len() >= PEERS_MAX {
            // Those that nothing else holds have no link.
            state.peers.retain(|_, peer| Arc::strong_count(peer) > 1);
            if state.peers.len() >= PEERS_MAX {
                return Err(CloseReason::TooMany);
            }
        }
        Ok(state.peers.entry(id).or_insert_with(|| Arc::new(Peer::new(id))).clone())
    }

    /// Whether this node's own configuration has that one, whatever it says of itself. Before there is one, everybody is.
    pub(super) fn lists(&self, node: NodeId) -> bool {
        let state = self.state();
        state.correspondents.as_ref().is_none_or(|known| known.member(node).is_some())
    }

    /// Lets a node in that has said who it is: one that is a member for this node, or for which this node is one; in
    /// the life that is meant, and not at an earlier moment of that life. What it had promised would be forgotten. Who
    /// knows an older configuration may mean an earlier life of this node: it is brought what it lacks.
    pub(super) fn meet(&self, hello: &Hello) -> Result<Arc<Peer>, CloseReason> {
        let mut state = self.state();
        let unknown = Correspondents::default();
        let known = state.correspondents.as_ref().unwrap_or(&unknown);
        let is_behind = hello.configuration < known.configuration && known.named(hello.node) == Some(hello.incarnation);
        if !is_behind && hello.receiver.is_some_and(|named| !self.shared.life.is_named_by(named)) {
            return Err(CloseReason::AnotherLife);
        }
        let knows_more = hello.receiver.is_some() && hello.configuration > known.configuration;
        let named = known.named(hello.node).filter(|_| !knows_more);
        let is_member = state.correspondents.is_none() || known.member(hello.node).is_some();
        if !is_member && !knows_more {
            return Err(CloseReason::Stranger);
        }
        if named.is_some_and(|named| named != hello.incarnation) {
            return Err(CloseReason::WrongIncarnation);
        }
        if let Some(known) = state.known.get(&hello.node).filter(|known| known.incarnation == hello.incarnation) {
            match known {
                KnownLife { has_lost: true, .. } => return Err(CloseReason::LostAcknowledged),
                KnownLife { boot, .. } if hello.boot < *boot => return Err(CloseReason::OlderBoot),
                KnownLife { .. } => {}
            }
        }
        let counts_since = if named.is_some() { known.configuration } else { LogId::ZERO };
        let forming = known.forming;
        let peer = Peers::peer(&mut state, hello.node)?;
        peer.meet(hello, counts_since, forming)?;
        Ok(peer)
    }

    /// With these members of any life, by the configuration before the log.
    #[cfg(test)]
    pub(super) fn set_members(&self, members: impl IntoIterator<Item = (NodeId, SocketAddr)>) {
        let member = |(id, address)| Member { id, incarnation: Incarnation::OPEN, address };
        let members = members.into_iter().map(member).collect();
        self.set_correspondents(Correspondents { members, ..Correspondents::default() });
    }

    #[cfg(test)]
    pub(super) fn known(&self, id: NodeId) -> Arc<Peer> {
        self.state().peers[&id].clone()
    }

    pub(super) fn context(&self) -> &Arc<Context> {
        &self.shared.context
    }

    pub(super) fn endpoint(&self) -> &quinn::Endpoint {
        &self.shared.endpoint
    }

    pub(super) fn dial_config(&self) -> quinn::ClientConfig {
        self.state().dial_configs.link.clone()
    }

    pub(super) fn snapshot_dial_config(&self) -> quinn::ClientConfig {
        self.state().dial_configs.snapshots.clone()
    }

    /// Where to find a node: where the configuration says, or else where the link to it leads.
    pub(super) fn address_of(&self, id: NodeId) -> Option<SocketAddr> {
        let state = self.state();
        let known = state.correspondents.as_ref().and_then(|known| known.member(id));
        let linked = || state.peers.get(&id)?.link.current().map(|connection| connection.remote_address());
        known.map(|member| member.address).or_else(linked)
    }

    /// Where to dial a node, or `None` when it is not to be dialled any more; then its dialler has to end.
    fn dial_address(&self, id: NodeId) -> Option<SocketAddr> {
        let mut state = self.state();
        let known = state.correspondents.as_ref().and_then(|known| known.member(id));
        let address = known.map(|member| member.address);
        if address.is_none() {
            state.dialled.remove(&id);
        }
        address
    }

    /// Between half of `delay` and all of it.
    fn jittered(&self, delay: Duration) -> Duration {
        let half = (delay.as_micros() as u64 / 2).max(1);
        Duration::from_micros(half + self.state().random.below(half))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("no holder of this lock can panic")
    }
}

impl Peer {
    fn new(id: NodeId) -> Peer {
        Peer {
            id,
            control: Outbox::default(),
            log: Outbox::default(),
            forward: Outbox::default(),
            link: Slot::default(),
            snapshots_to: Slot::default(),
            snapshots_from: Slot::default(),
            met: Mutex::default(),
            spoken_to: AtomicU64::new(Incarnation::OPEN.0),
            turn: tokio::sync::Mutex::default(),
        }
    }

    fn spoken_to(&self) -> Option<Incarnation> {
        Some(Incarnation(self.spoken_to.load(Ordering::Acquire))).filter(|life| *life != Incarnation::OPEN)
    }

    /// `counts_since` is the configuration by which this node means the life that says hello. In a cluster that is
    /// `forming` the newest that comes is meant.
    fn meet(&self, hello: &Hello, counts_since: LogId, forming: bool) -> Result<(), CloseReason> {
        let mut met = self.met.lock().expect("no holder of this lock can panic");
        let configuration = hello.configuration.max(counts_since);
        match *met {
            Some(other)
                if other.incarnation != hello.incarnation && configuration <= other.configuration && !forming =>
            {
                return Err(CloseReason::WrongIncarnation);
            }
            Some(same) if same.incarnation == hello.incarnation && same.boot > hello.boot => {
                return Err(CloseReason::OlderBoot);
            }
            _ => {}
        }
        let known = met.filter(|known| known.incarnation == hello.incarnation);
        let configuration = known.map_or(configuration, |known| known.configuration.max(configuration));
        *met = Some(Met { incarnation: hello.incarnation, boot: hello.boot, configuration });
        Ok(())
    }

    fn is_met_in(&self, incarnation: Incarnation) -> bool {
        let met = *self.met.lock().expect("no holder of this lock can panic");
        met.is_some_and(|met| met.incarnation == incarnation)
    }

    /// Why the link to this node has to end where these are spoken with.
    fn outdated_by(&self, correspondents: &Correspondents) -> Option<CloseReason> {
        let met = (*self.met.lock().expect("no holder of this lock can panic"))?;
        if met.configuration > correspondents.configuration {
            return None;
        }
        match correspondents.member(self.id) {
            None => Some(CloseReason::Stranger),
            Some(_) => {
                let named = correspondents.named(self.id)?;
                (named != met.incarnation).then_some(CloseReason::WrongIncarnation)
            }
        }
    }

    /// Ends all connections to it.
    fn disconnect(&self, reason: CloseReason) {
        for slot in [&self.link, &self.snapshots_to, &self.snapshots_from] {
            slot.close(reason);
        }
    }
}

/// Keeps a link to a node for as long as it is spoken with.
async fn dial_forever(peers: Peers, id: NodeId) {
    let (delay_min, delay_max) = {
        let settings = &peers.context().settings;
        (settings.dial_delay_min, settings.dial_delay_max)
    };
    let is_lower = id < peers.context().local.node;
    let mut delay = delay_min;
    let mut told = String::new();
    while let Some(address) = peers.dial_address(id) {
        if is_lower {
            // It dials, if it knows of this node: then there is a link by the time that is over.
            tokio::time::sleep(peers.jittered(delay_max)).await;
            if peers.is_up(id) {
                continue;
            }
        }
        match peer_link::dial(&peers, id, address).await {
            Ok(()) => {
                delay = delay_min;
                told.clear();
            }
            // It dials by itself, or is not there now.
            Err(error) if is_lower && !is_refusal(&error) => {}
            Err(error) => warn_once(id, error.to_string(), &mut told),
        }
        tokio::time::sleep(peers.jittered(delay)).await;
        delay = (delay * 2).min(delay_max);
    }
}

/// Whether the other side has a reason against this node, and not only against being dialled by it.
fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Closed { reason, .. } if *reason != CloseReason::WrongNode)
}

/// Tells the operator each new reason, and not each attempt.
fn warn_once(id: NodeId, reason: String, told: &mut String) {
    if reason != *told {
        tracing::warn!(node = %id, "no link, dialled until there is one: {reason}");
        *told = reason;
    }
}
