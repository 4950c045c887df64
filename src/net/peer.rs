//! The other nodes: who they are, what waits for them, and who dials.
//!
//! For each pair of nodes there is one connection, which the lower id dials, again and again, with a growing wait in
//! between. What is sent to a node that is away is dropped and counted: Raft says it again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use quinn::Connection;
use tokio::runtime::Handle;

use crate::raft::message::{Body, Message};
use crate::random::Random;
use crate::types::{Incarnation, NodeId};

use super::close::CloseReason;
use super::context::{self, Context};
use super::outbox::{Outbox, Put};
use super::peer_link;
use super::peer_wire::{Hello, put_message};
use super::settings::{CONTROL_LANE_BYTES_MAX, LOG_LANE_BYTES_MAX, PEERS_MAX};

/// A handle on the links to all peers; clones share them.
#[derive(Clone, Debug)]
pub struct Peers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    context: Arc<Context>,
    endpoint: quinn::Endpoint,
    /// Where diallers run, so that the handle works from any thread.
    runtime: Handle,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Who may speak with this node; everyone with a node's certificate until it is told.
    members: Option<BTreeMap<NodeId, SocketAddr>>,
    peers: BTreeMap<NodeId, Arc<Peer>>,
    /// Nodes for which a dialler runs: one each.
    dialled: BTreeSet<NodeId>,
    dial_config: quinn::ClientConfig,
    /// Jitter of the waits.
    random: Random,
}

/// One other node.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: NodeId,
    /// Votes, heartbeats, replies, read indexes.
    pub(super) control: Outbox,
    /// AppendEntries, in order.
    pub(super) log: Outbox,
    /// The newest connection; an older one was closed when it came.
    pub(super) current: Mutex<Option<Connection>>,
    /// What it said of itself when it was last let in, in the life of this process.
    met: Mutex<Option<(Incarnation, u64)>>,
    /// Held by the link that runs, so that up and down are told in turn.
    pub(super) turn: tokio::sync::Mutex<()>,
}

impl Peers {
    pub(super) fn new(
        context: Arc<Context>,
        endpoint: quinn::Endpoint,
        dial_config: quinn::ClientConfig,
        seed: u64,
    ) -> Peers {
        let state = State {
            members: None,
            peers: BTreeMap::new(),
            dialled: BTreeSet::new(),
            dial_config,
            random: Random::seeded(seed),
        };
        Peers { shared: Arc::new(Shared { context, endpoint, runtime: Handle::current(), state: Mutex::new(state) }) }
    }

    /// Queues a message for its receiver; never blocks. Dropped and counted if there is no link, or too much waits.
    pub fn send(&self, message: &Message) {
        let peer = self.state().peers.get(&message.to).cloned();
        let put = peer.map_or(Put::Closed, |peer| {
            let (lane, bytes_max) = match message.body {
                Body::Append(_) => (&peer.log, LOG_LANE_BYTES_MAX),
                _ => (&peer.control, CONTROL_LANE_BYTES_MAX),
            };
            lane.put(bytes_max, |out| put_message(out, message))
        });
        if matches!(put, Put::Refused | Put::Closed) {
            self.shared.context.counters.messages_dropped.add();
        }
    }

    /// From now on, speaks with these nodes and no others; dials those with a higher id than its own.
    pub fn set_members(&self, members: impl IntoIterator<Item = (NodeId, SocketAddr)>) {
        let mut state = self.state();
        let local = self.shared.context.local.node;
        let members: BTreeMap<_, _> = members.into_iter().filter(|member| member.0 != local).collect();
        for peer in state.peers.values().filter(|peer| !members.contains_key(&peer.id)) {
            peer.disconnect(CloseReason::Stranger);
        }
        for id in members.keys().filter(|id| **id > local) {
            if state.dialled.insert(*id) {
                self.shared.runtime.spawn(dial_forever(self.clone(), *id));
            }
        }
        state.members = Some(members);
    }

    /// Whether a link to this node stands.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.state().peers.get(&node).is_some_and(|peer| peer.control.is_open())
    }

    pub(super) fn stop(&self) {
        self.set_members([]);
    }

    pub(super) fn set_dial_config(&self, config: quinn::ClientConfig) {
        self.state().dial_config = config;
    }

    /// The node with this id, unless it is none of ours or there are too many.
    pub(super) fn admit(&self, id: NodeId) -> Result<Arc<Peer>, CloseReason> {
        let mut state = self.state();
        if state.members.as_ref().is_some_and(|members| !members.contains_key(&id)) {
            return Err(CloseReason::Stranger);
        }
        if !state.peers.contains_key(&id) && state.peers.len() >= PEERS_MAX {
            // Those that nothing else holds have no link.
            state.peers.retain(|_, peer| Arc::strong_count(peer) > 1);
            if state.peers.len() >= PEERS_MAX {
                return Err(CloseReason::TooMany);
            }
        }
        Ok(state.peers.entry(id).or_insert_with(|| Arc::new(Peer::new(id))).clone())
    }

    /// As [`Peers::admit`], of a node that has said who it is: not another life of it than the one that was met, and not
    /// an earlier moment of that life. What it had promised would be forgotten.
    pub(super) fn meet(&self, hello: &Hello) -> Result<Arc<Peer>, CloseReason> {
        let peer = self.admit(hello.node)?;
        peer.meet(hello)?;
        Ok(peer)
    }

    pub(super) fn context(&self) -> &Arc<Context> {
        &self.shared.context
    }

    pub(super) fn endpoint(&self) -> &quinn::Endpoint {
        &self.shared.endpoint
    }

    pub(super) fn dial_config(&self) -> quinn::ClientConfig {
        self.state().dial_config.clone()
    }

    /// Where to dial a node, or `None` when it is not to be dialled any more; then its dialler has to end.
    fn dial_address(&self, id: NodeId) -> Option<SocketAddr> {
        let mut state = self.state();
        let address = state.members.as_ref().and_then(|members| members.get(&id).copied());
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
            current: Mutex::default(),
            met: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    fn meet(&self, hello: &Hello) -> Result<(), CloseReason> {
        let mut met = self.met.lock().expect("no holder of this lock can panic");
        match *met {
            Some((incarnation, _)) if incarnation != hello.incarnation => Err(CloseReason::WrongIncarnation),
            Some((_, boot)) if boot > hello.boot => Err(CloseReason::OlderBoot),
            _ => {
                *met = Some((hello.incarnation, hello.boot));
                Ok(())
            }
        }
    }

    /// Makes this the node's connection; an older one is closed.
    pub(super) fn replace(&self, connection: &Connection) {
        let old = self.current().replace(connection.clone());
        if let Some(old) = old {
            context::close(&old, CloseReason::Replaced);
        }
    }

    /// Forgets the connection, unless a newer one has taken its place.
    pub(super) fn forget(&self, connection: &Connection) {
        let mut current = self.current();
        if current.as_ref().is_some_and(|newest| newest.stable_id() == connection.stable_id()) {
            *current = None;
        }
    }

    fn disconnect(&self, reason: CloseReason) {
        if let Some(connection) = self.current().as_ref() {
            context::close(connection, reason);
        }
    }

    fn current(&self) -> MutexGuard<'_, Option<Connection>> {
        self.current.lock().expect("no holder of this lock can panic")
    }
}

/// Keeps a link to a node with a higher id for as long as it is a member.
async fn dial_forever(peers: Peers, id: NodeId) {
    let (delay_min, delay_max) = {
        let settings = &peers.context().settings;
        (settings.dial_delay_min, settings.dial_delay_max)
    };
    let mut delay = delay_min;
    let mut told = String::new();
    while let Some(address) = peers.dial_address(id) {
        match peer_link::dial(&peers, id, address).await {
            Ok(()) => {
                delay = delay_min;
                told.clear();
            }
            Err(error) => warn_once(id, error.to_string(), &mut told),
        }
        tokio::time::sleep(peers.jittered(delay)).await;
        delay = (delay * 2).min(delay_max);
    }
}

/// Tells the operator each new reason, and not each attempt.
fn warn_once(id: NodeId, reason: String, told: &mut String) {
    if reason != *told {
        tracing::warn!(node = %id, "no link, dialled until there is one: {reason}");
        *told = reason;
    }
}
