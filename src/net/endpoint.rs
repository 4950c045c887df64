//! A node's one UDP socket, for all protocols.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use quinn::{Connection, Incoming, TokioRuntime};
use tokio::sync::Semaphore;

use crate::types::{Incarnation, LogId, NodeId};

use super::client_link;
use super::close::CloseReason;
use super::context::{Context, Protocol, Proven, Registry};
use super::counters::{CounterValues, Counters};
use super::error::{CertificateError, Error};
use super::identity::{ALPN_PEER, ALPN_SNAPSHOT, Identity};
use super::inbox::Inbox;
use super::name::{Name, Role};
use super::peer::{DialConfigs, Peers};
use super::peer_link;
use super::peer_wire::{Hello, PEER_PROTOCOL_VERSION};
use super::replies::Replies;
use super::settings::{self, Settings};
use super::snapshot_desk::Desk;
use super::snapshot_service;

/// What a node says of itself beyond its certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    pub incarnation: Incarnation,
    /// Made with the cluster: where a configuration leaves the incarnation open, this node is meant.
    pub is_first_member: bool,
    pub boot: u64,
    /// Of all settings that must agree across the cluster.
    pub fingerprint: u64,
    /// For the jitter of waits between dials.
    pub seed: u64,
}

/// Listens, dials, and carries; dropped, it closes everything.
#[derive(Debug)]
pub struct Endpoint {
    endpoint: quinn::Endpoint,
    address: SocketAddr,
    context: Arc<Context>,
    peers: Peers,
}

/// How many may be under way or connected.
#[derive(Clone, Debug)]
struct Doors {
    handshakes: Arc<Semaphore>,
    clients: Arc<Semaphore>,
}

impl Endpoint {
    /// Binds the socket and begins to accept. Runs on the present tokio runtime.
    pub fn bind(identity: &Identity, address: SocketAddr, facts: Facts, settings: Settings) -> Result<Endpoint, Error> {
        let socket = UdpSocket::bind(address).map_err(|source| Error::Bind { address, source })?;
        Endpoint::with_socket(identity, socket, facts, settings)
    }

    /// The same with a socket that is bound already.
    pub fn with_socket(
        identity: &Identity,
        socket: UdpSocket,
        facts: Facts,
        settings: Settings,
    ) -> Result<Endpoint, Error> {
        let local = local_hello(identity, facts)?;
        let address = socket.local_addr().map_err(|source| bind_error(&socket, source))?;
        let server = server_config(identity, &settings)?;
        let dial = dial_configs(identity, &settings)?;
        let runtime = Arc::new(TokioRuntime);
        let endpoint = quinn::Endpoint::new(settings::node_endpoint_config(identity), Some(server), socket, runtime)
            .map_err(|source| Error::Bind { address, source })?;
        let counters = Arc::new(Counters::default());
        let doors = Doors {
            handshakes: Arc::new(Semaphore::new(settings.handshakes_max)),
            clients: Arc::new(Semaphore::new(settings.clients_max)),
        };
        let context = Arc::new(Context {
            settings,
            local,
            inbox: Inbox::default(),
            replies: Replies::new(counters.clone()),
            counters,
            snapshots: Desk::default(),
            open: Arc::new(Registry::default()),
        });
        let peers = Peers::new(context.clone(), endpoint.clone(), dial, facts);
        tokio::spawn(accept(endpoint.clone(), peers.clone(), doors));
        Ok(Endpoint { endpoint, address, context, peers })
    }

    /// Where it listens: the port that the system chose, if 0 was asked for.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    pub fn node(&self) -> NodeId {
        self.context.local.node
    }

    pub fn inbox(&self) -> Inbox {
        self.context.inbox.clone()
    }

    pub fn peers(&self) -> Peers {
        self.peers.clone()
    }

    pub fn replies(&self) -> Replies {
        self.context.replies.clone()
    }

    pub fn counters(&self) -> CounterValues {
        self.context.counters.read()
    }

    /// Clients connected now.
    pub fn clients(&self) -> usize {
        self.context.replies.clients()
    }

    /// Takes a renewed certificate, other authorities or a new revocation list. Connections that stand go on, unless
    /// theirs is not good any more. Refused if the name is another.
    pub fn reload(&self, identity: &Identity) -> Result<(), Error> {
        let local = Name { cluster: self.context.local.cluster, role: Role::Node(self.node()) };
        if *identity.name() != local {
            let (found, needed) = (identity.name().to_string(), local.to_string());
            return Err(CertificateError::WrongRole { found, needed }.into());
        }
        let server = server_config(identity, &self.context.settings)?;
        let dial = dial_configs(identity, &self.context.settings)?;
        let verifier = identity.dialler_verifier()?;
        self.endpoint.set_server_config(Some(server));
        self.peers.set_dial_configs(dial);
        self.context.open.verify(&verifier, &self.context.counters);
        Ok(())
    }

    /// Closes all connections and waits until the other sides were told.
    pub async fn close(self) {
        self.shut();
        self.endpoint.wait_idle().await;
    }

    fn shut(&self) {
        self.peers.stop();
        self.endpoint.close(CloseReason::Done.code(), b"");
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.shut();
    }
}

fn local_hello(identity: &Identity, facts: Facts) -> Result<Hello, Error> {
    Ok(Hello {
        cluster: identity.name().cluster,
        node: identity.node()?,
        incarnation: facts.incarnation,
        boot: facts.boot,
        protocol_version: PEER_PROTOCOL_VERSION,
        fingerprint: facts.fingerprint,
        configuration: LogId::ZERO,
        receiver: None,
    })
}

fn bind_error(socket: &UdpSocket, source: std::io::Error) -> Error {
    let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
    Error::Bind { address: socket.local_addr().unwrap_or(unknown), source }
}

fn server_config(identity: &Identity, settings: &Settings) -> Result<quinn::ServerConfig, Error> {
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(identity.server_config()?));
    config.transport_config(settings.server_transport());
    settings::bound_strangers(&mut config);
    Ok(config)
}

fn dial_configs(identity: &Identity, settings: &Settings) -> Result<DialConfigs, Error> {
    let mut link = quinn::ClientConfig::new(Arc::new(identity.client_config(ALPN_PEER)?));
    link.transport_config(settings.dial_transport());
    let mut snapshots = quinn::ClientConfig::new(Arc::new(identity.client_config(ALPN_SNAPSHOT)?));
    snapshots.transport_config(settings.snapshot_transport());
    Ok(DialConfigs { link, snapshots })
}

/// Takes whoever knocks, within bounds, each in a task of its own.
async fn accept(endpoint: quinn::Endpoint, peers: Peers, doors: Doors) {
    while let Some(incoming) = endpoint.accept().await {
        let Ok(permit) = doors.handshakes.clone().try_acquire_owned() else {
            peers.context().counters.handshakes_refused.add();
            incoming.refuse();
            continue;
        };
        // Under pressure a knock counts only from an address that answers: a forged one costs no handshake.
        let crowded = doors.handshakes.available_permits() < peers.context().settings.handshakes_max / 2;
        if crowded && incoming.may_retry() && !incoming.remote_address_validated() {
            incoming.retry().expect("may_retry was asked");
            continue;
        }
        let (peers, clients) = (peers.clone(), doors.clients.clone());
        tokio::spawn(async move {
            if let Some((connection, proven)) = shake_hands(peers.context(), incoming).await {
                drop(permit);
                serve(peers, clients, connection, proven).await;
            }
        });
    }
}

async fn shake_hands(context: &Context, incoming: Incoming) -> Option<(Connection, Proven)> {
    let address = incoming.remote_address();
    let shaken = tokio::time::timeout(context.settings.handshake_timeout, incoming).await;
    let connection = match shaken {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            context.counters.handshakes_failed.add();
            let count = context.counters.read().handshakes_failed;
            // Strangers cost an operator few lines, however often they knock.
            if count.is_power_of_two() {
                tracing::warn!(%address, count, "handshake failed: {error}");
            }
            return None;
        }
        Err(_) => {
            context.counters.handshakes_failed.add();
            tracing::debug!(%address, "handshake not done in time");
            return None;
        }
    };
    match Proven::by(&connection) {
        Some(proven) => Some((connection, proven)),
        None => {
            context.refuse(&connection, CloseReason::WrongRole, &context.counters.roles_refused);
            None
        }
    }
}

/// Nothing that the other side sends is looked at before its role was found to go with the protocol.
async fn serve(peers: Peers, clients: Arc<Semaphore>, connection: Connection, proven: Proven) {
    let context = peers.context().clone();
    match (proven.protocol, proven.name.role) {
        (Protocol::Peer, Role::Node(id)) => peer_link::accept(&peers, connection, id).await,
        (Protocol::Snapshot, Role::Node(id)) => snapshot_service::serve_node(&peers, connection, id).await,
        (Protocol::Snapshot, Role::Admin(name)) => match clients.try_acquire_owned() {
            Ok(_permit) => snapshot_service::serve_administrator(&peers, connection, name).await,
            Err(_) => context.refuse(&connection, CloseReason::TooMany, &context.counters.connections_refused),
        },
        (Protocol::Peer | Protocol::Snapshot, _) => {
            context.refuse(&connection, CloseReason::WrongRole, &context.counters.roles_refused)
        }
        (Protocol::Client, role) => match clients.try_acquire_owned() {
            Ok(_permit) => client_link::serve(context, connection, role).await,
            Err(_) => context.refuse(&connection, CloseReason::TooMany, &context.counters.connections_refused),
        },
    }
}
