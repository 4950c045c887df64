//! What the tasks of one endpoint share, and what a finished handshake has proven.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use quinn::Connection;
use quinn::crypto::rustls::HandshakeData;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;

use super::client_wire::{CLIENT_PROTOCOL_VERSION, Welcome};
use super::close::CloseReason;
use super::counters::{Counter, Counters};
use super::identity::{ALPN_CLIENT, ALPN_PEER, ALPN_SNAPSHOT};
use super::inbox::Inbox;
use super::name::Name;
use super::peer_wire::Hello;
use super::pem;
use super::replies::Replies;
use super::settings::Settings;
use super::snapshot_desk::Desk;
use super::stream::StreamError;
use super::verifier::DiallerVerifier;

#[derive(Debug)]
pub(super) struct Context {
    pub(super) settings: Settings,
    /// What this node says of itself.
    pub(super) local: Hello,
    pub(super) inbox: Inbox,
    pub(super) replies: Replies,
    pub(super) counters: Arc<Counters>,
    /// Questions for this node's snapshots.
    pub(super) snapshots: Desk,
    pub(super) open: Arc<Registry>,
}

/// Which of the protocols a handshake agreed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Protocol {
    Peer,
    Snapshot,
    Client,
}

/// Who is at the other end, as TLS has proven.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Proven {
    pub(super) protocol: Protocol,
    pub(super) name: Name,
}

/// Every connection that has passed its handshake, so that a new revocation list reaches those that stand.
#[derive(Debug, Default)]
pub(super) struct Registry {
    connections: Mutex<BTreeMap<usize, Connection>>,
}

/// Takes its connection off the registry when dropped.
#[derive(Debug)]
pub(super) struct Registered {
    registry: Arc<Registry>,
    id: usize,
}

impl Context {
    /// What a client, or an administrator who fetches, is answered to the greeting.
    pub(super) fn welcome(&self) -> Welcome {
        Welcome {
            protocol_version: CLIENT_PROTOCOL_VERSION,
            cluster: self.local.cluster,
            node: self.local.node,
            incarnation: self.local.incarnation,
        }
    }

    /// Closes a connection for the reason that its streams ended with, and counts it.
    pub(super) fn close(&self, connection: &Connection, ended: &StreamError) {
        match ended {
            StreamError::Malformed(_) => self.counters.malformed.add(),
            StreamError::Slow => self.counters.slow.add(),
            StreamError::Ended | StreamError::Broken(_) | StreamError::Refused(_) => {}
        }
        tracing::debug!(address = %connection.remote_address(), "connection closed: {ended}");
        close(connection, ended.reason());
    }

    pub(super) fn refuse(&self, connection: &Connection, reason: CloseReason, counter: &Counter) {
        counter.add();
        tracing::warn!(address = %connection.remote_address(), "connection refused: {reason}");
        close(connection, reason);
    }
}

impl Proven {
    /// `None` if the handshake left open who or what, which our TLS settings do not allow.
    pub(super) fn by(connection: &Connection) -> Option<Proven> {
        let handshake = connection.handshake_data()?.downcast::<HandshakeData>().ok()?;
        let protocol = match handshake.protocol.as_deref()? {
            ALPN_PEER => Protocol::Peer,
            ALPN_SNAPSHOT => Protocol::Snapshot,
            ALPN_CLIENT => Protocol::Client,
            _ => return None,
        };
        let name = pem::name(chain(connection)?.first()?).ok()?;
        Some(Proven { protocol, name })
    }
}

impl Registry {
    pub(super) fn add(self: &Arc<Registry>, connection: &Connection) -> Registered {
        let id = connection.stable_id();
        self.connections().insert(id, connection.clone());
        Registered { registry: self.clone(), id }
    }

    /// Closes those that would not be accepted today.
    pub(super) fn verify(&self, verifier: &DiallerVerifier, counters: &Counters) {
        for connection in self.connections().values() {
            if !passes(connection, verifier) {
                counters.revoked.add();
                close(connection, CloseReason::Revoked);
            }
        }
    }

    fn connections(&self) -> MutexGuard<'_, BTreeMap<usize, Connection>> {
        self.connections.lock().expect("no holder of this lock can panic")
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.connections().remove(&self.id);
    }
}

pub(super) fn close(connection: &Connection, reason: CloseReason) {
    connection.close(reason.code(), b"");
}

fn passes(connection: &Connection, verifier: &DiallerVerifier) -> bool {
    let Some(chain) = chain(connection) else { return false };
    let Some((end_entity, intermediates)) = chain.split_first() else { return false };
    verifier.verify_client_cert(end_entity, intermediates, UnixTime::now()).is_ok()
}

fn chain(connection: &Connection) -> Option<Vec<CertificateDer<'static>>> {
    connection.peer_identity()?.downcast().ok().map(|chain| *chain)
}
