//! A connection by which one node fetches a snapshot from another: beside the link of the two, so that bulk delays nothing.
//! An administrator fetches one in the same way, for a backup.
//!
//! ```text
//!     who fetches, from a socket of its own       who has it
//!       Hello        ─────────────────────────▶   checks as on a link: certificate, cluster, version, member, life
//!                    ◀─────────────────────────   Hello (checked in the same way)
//!       questions    ─────────────────────────▶   one after the other, each checked again: members go
//!                    ◀─────────────────────────   answers, in their order
//!
//!     an administrator
//!       ClientHello  ─────────────────────────▶   checks the certificate's role, and the version
//!                    ◀─────────────────────────   Welcome
//!       questions, answers as above
//! ```
//!
//! Each connection has a congestion window and a task of its own, and quinn gives the turn to others after 20 datagrams. What
//! is under way is bounded by a small window, who is served by a number of seats; what arrives comes by another socket than
//! heartbeats, whose buffer in the kernel it cannot fill.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use quinn::{ClientConfig, Connection, SendStream};

use super::certificate::SERVER_NAME;
use super::client_wire::{self, CLIENT_PROTOCOL_VERSION, ClientHello};
use super::close::CloseReason;
use super::connection::{explain, outgoing_endpoint};
use super::context::{self, Protocol, Proven, Registered};
use super::error::Error;
use super::identity::{ALPN_SNAPSHOT, Identity};
use super::name::Role;
use super::peer::{Peer, Peers};
use super::peer_link::{check, refuse_or_close, send_hello};
use super::peer_wire::{self, Hello};
use super::settings::Settings;
use super::slot::Slot;
use super::snapshot_wire::{
    ANSWER_FRAME_BYTES_MAX, SnapshotAnswer, SnapshotRequest, put_snapshot_request, snapshot_answer,
};
use super::stream::{FrameReader, StreamError, within};
use crate::types::NodeId;

/// Asks one node for its snapshots. Dropped, it closes the connection.
#[derive(Debug)]
pub struct SnapshotLink {
    connection: Connection,
    send: SendStream,
    answers: FrameReader,
    /// Keeps the node's entry, so that the connection ends when that node may not be spoken with any more. None of an
    /// administrator's.
    member: Option<(Arc<Peer>, Registered)>,
}

impl Peers {
    /// Connects to a node that may have a snapshot. Runs on the present tokio runtime, which need not be that of the
    /// endpoint, and by a socket of its own.
    ///
    /// # Errors
    /// If there is no address of it, no connection, or one of the two does not speak with the other.
    pub async fn snapshot_link(&self, node: NodeId) -> Result<SnapshotLink, Error> {
        let context = self.context();
        let address = self.address_of(node).ok_or(Error::NoAddress { node })?;
        let connection = dial(self.snapshot_dial_config(), address, &context.settings).await?;
        let registered = context.open.add(&connection);
        let greeted = within(2 * context.settings.first_frame_timeout, greet(self, &connection, node)).await;
        match greeted {
            Ok((peer, send, answers)) => {
                Ok(SnapshotLink { connection, send, answers, member: Some((peer, registered)) })
            }
            Err(ended) => {
                let error = match &ended {
                    // Said by this end: the other one is not what it should be.
                    StreamError::Refused(reason) => Error::Refused { address, reason: *reason },
                    _ => {
                        let broken = connection.close_reason().unwrap_or(quinn::ConnectionError::TimedOut);
                        Error::from_connection(address, broken)
                    }
                };
                refuse_or_close(context, &connection, &ended);
                Err(error)
            }
        }
    }
}

impl SnapshotLink {
    /// Connects to the node at this address, for an administrator. Runs on the present tokio runtime.
    ///
    /// # Errors
    /// If there is no connection, if the other side is not that node, or if it does not serve who has this certificate:
    /// [`Error::Closed`] for [`CloseReason::WrongRole`].
    pub async fn for_administrator(
        identity: &Identity,
        node: NodeId,
        address: SocketAddr,
    ) -> Result<SnapshotLink, Error> {
        let settings = Settings::default();
        let mut config = quinn::ClientConfig::new(Arc::new(identity.client_config(ALPN_SNAPSHOT)?));
        config.transport_config(settings.snapshot_transport());
        let connection = dial(config, address, &settings).await?;
        match within(2 * settings.first_frame_timeout, introduce(&connection, node)).await {
            Ok((send, answers)) => Ok(SnapshotLink { connection, send, answers, member: None }),
            Err(StreamError::Slow) => Err(Error::HandshakeTimeout { address }),
            Err(ended) => Err(explain(&connection, ended)),
        }
    }

    /// Sends a question; waits only while many are not read.
    pub async fn ask(&mut self, request: &SnapshotRequest) -> Result<(), Error> {
        let mut out = BytesMut::new();
        put_snapshot_request(&mut out, request);
        let sent = self.send.write_chunk(out.freeze()).await;
        sent.map_err(|error| explain(&self.connection, error.into()))
    }

    /// The answer to the oldest question that has none. Loses nothing if cancelled.
    pub async fn answer(&mut self) -> Result<SnapshotAnswer, Error> {
        let next = async { Ok(snapshot_answer(self.answers.next().await?)?) };
        next.await.map_err(|error| explain(&self.connection, error))
    }
}

impl Drop for SnapshotLink {
    fn drop(&mut self) {
        if let Some((peer, _)) = &self.member {
            peer.snapshots_from.forget(&self.connection);
        }
        context::close(&self.connection, CloseReason::Done);
    }
}

async fn dial(config: ClientConfig, address: SocketAddr, settings: &Settings) -> Result<Connection, Error> {
    let dialled = outgoing_endpoint(address)?.connect_with(config, address, SERVER_NAME);
    let connecting = dialled.map_err(|source| Error::Dial { address, source })?;
    match tokio::time::timeout(settings.handshake_timeout, connecting).await {
        Ok(connected) => connected.map_err(|source| Error::from_connection(address, source)),
        Err(_) => Err(Error::HandshakeTimeout { address }),
    }
}

/// An administrator's greeting.
async fn introduce(connection: &Connection, node: NodeId) -> Result<(SendStream, FrameReader), StreamError> {
    let (mut send, receive) = connection.open_bi().await?;
    let mut out = BytesMut::new();
    client_wire::put_client_hello(&mut out, ClientHello { protocol_version: CLIENT_PROTOCOL_VERSION });
    send.write_chunk(out.freeze()).await?;
    let mut answers = FrameReader::of_member(receive, ANSWER_FRAME_BYTES_MAX);
    let welcome = client_wire::welcome(&answers.next().await?)?;
    let proven = Proven::by(connection).map(|proven| (proven.protocol, proven.name.role));
    if proven != Some((Protocol::Snapshot, Role::Node(node))) || welcome.node != node {
        return Err(StreamError::Refused(CloseReason::WrongNode));
    }
    match welcome.protocol_version == CLIENT_PROTOCOL_VERSION {
        true => Ok((send, answers)),
        false => Err(StreamError::Refused(CloseReason::WrongVersion)),
    }
}

async fn greet(
    peers: &Peers,
    connection: &Connection,
    node: NodeId,
) -> Result<(Arc<Peer>, SendStream, FrameReader), StreamError> {
    let context = peers.context();
    let expected = Proven::by(connection)
        .is_some_and(|proven| proven.protocol == Protocol::Snapshot && proven.name.role == Role::Node(node));
    if !expected {
        return Err(StreamError::Refused(CloseReason::WrongNode));
    }
    let (mut send, receive) = connection.open_bi().await?;
    let mut answers = FrameReader::of_member(receive, ANSWER_FRAME_BYTES_MAX);
    send_hello(&mut send, &peers.hello_to(node)).await?;
    let hello = peer_wire::hello(&answers.first(context.settings.first_frame_timeout).await?)?;
    check(&context.local, &hello, node)?;
    let peer = hold(peers, connection, &hello, |peer| &peer.snapshots_from)?;
    Ok((peer, send, answers))
}

/// Lets the other one in, and makes the connection end when it may not be spoken with any more.
pub(super) fn hold(
    peers: &Peers,
    connection: &Connection,
    hello: &Hello,
    slot: impl Fn(&Peer) -> &Slot,
) -> Result<Arc<Peer>, StreamError> {
    let peer = peers.meet(hello).map_err(StreamError::Refused)?;
    slot(&peer).replace(connection);
    // Membership may have changed before the line above made the connection known to whoever changes it.
    peers.meet(hello).map_err(|reason| {
        slot(&peer).forget(connection);
        StreamError::Refused(reason)
    })
}
