//! One connection between two nodes: greeting, then messages both ways on three streams. The lower id dials, as a rule.
//!
//! ```text
//!     dialler                                acceptor
//!       control: Hello  ───────────────────▶   checks certificate = claim, cluster, version, settings, membership
//!                ◀───────────────────  Hello   (the dialler checks the same)
//!       log: LogStream  ───────────────────▶
//!       forward: ForwardStream  ───────────▶
//!       control, log: messages ◀───────────▶   until one side closes
//!       forward: clients' requests, answers ◀─▶
//! ```

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use quinn::{Connection, ConnectionError, SendStream};

use crate::types::NodeId;

use super::certificate::SERVER_NAME;
use super::close::CloseReason;
use super::context::{Context, Protocol, Proven};
use super::error::Error;
use super::forward_wire::{self, FORWARD_FRAME_BYTES_MAX, ForwardMessage};
use super::inbox::{Arrival, Share};
use super::name::Role;
use super::peer::{Peer, Peers};
use super::peer_wire::{self, Hello, PEER_FRAME_BYTES_MAX};
use super::settings;
use super::stream::{FrameReader, StreamError, within, write_all};

/// Votes and heartbeats go before entries.
const CONTROL_PRIORITY: i32 = 10;

/// A connection whose greeting is done.
struct Link {
    connection: Connection,
    /// What the other side said of itself, checked.
    hello: Hello,
    control: (SendStream, FrameReader),
    log: (SendStream, FrameReader),
    forward: (SendStream, FrameReader),
}

/// Dials a node and serves the link until it ends. An error means that there was none.
pub(super) async fn dial(peers: &Peers, id: NodeId, address: SocketAddr) -> Result<(), Error> {
    let context = peers.context();
    let dialled = peers.endpoint().connect_with(peers.dial_config(), address, SERVER_NAME);
    let connecting = dialled.map_err(|source| Error::Dial { address, source })?;
    let connection = match tokio::time::timeout(context.settings.handshake_timeout, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(source)) => {
            context.counters.handshakes_failed.add();
            return Err(Error::from_connection(address, source));
        }
        Err(_) => {
            context.counters.handshakes_failed.add();
            return Err(Error::HandshakeTimeout { address });
        }
    };
    let _registered = context.open.add(&connection);
    match within(2 * context.settings.first_frame_timeout, greet(peers, &connection, id)).await {
        Ok(link) => {
            run(peers, link).await;
            Ok(())
        }
        Err(ended) => {
            // Why the other side ended it is known only until this side ends it, too.
            let broken = connection.close_reason().unwrap_or(quinn::ConnectionError::LocallyClosed);
            tell_refused(context, id, &connection, &ended).await;
            refuse_or_close(context, &connection, &ended);
            Err(Error::from_connection(address, broken))
        }
    }
}

/// Serves a node that has dialled and whose certificate is that of node `id`.
pub(super) async fn accept(peers: &Peers, connection: Connection, id: NodeId) {
    let context = peers.context();
    let _registered = context.open.add(&connection);
    settings::widen_for_peer(&connection);
    match within(2 * context.settings.first_frame_timeout, welcome(peers, &connection, id)).await {
        Ok(link) => run(peers, link).await,
        Err(ended) => {
            tell_refused(context, id, &connection, &ended).await;
            refuse_or_close(context, &connection, &ended);
        }
    }
}

async fn greet(peers: &Peers, connection: &Connection, id: NodeId) -> Result<Link, StreamError> {
    let context = peers.context();
    let expected = Proven::by(connection)
        .is_some_and(|proven| proven.protocol == Protocol::Peer && proven.name.role == Role::Node(id));
    if !expected {
        return Err(StreamError::Refused(CloseReason::WrongNode));
    }
    let (mut control_send, receive) = connection.open_bi().await?;
    let mut control = FrameReader::of_member(receive, PEER_FRAME_BYTES_MAX);
    send_hello(&mut control_send, &peers.hello_to(id)).await?;
    let hello = peer_wire::hello(&control.first(context.settings.first_frame_timeout).await?)?;
    check(&context.local, &hello, id)?;
    peers.meet(&hello).map_err(StreamError::Refused)?;
    let (mut log_send, receive) = connection.open_bi().await?;
    let mut out = BytesMut::new();
    peer_wire::put_log_stream(&mut out);
    log_send.write_chunk(out.split().freeze()).await?;
    let log = (log_send, FrameReader::of_member(receive, PEER_FRAME_BYTES_MAX));
    let (mut forward_send, receive) = connection.open_bi().await?;
    forward_wire::put_forward_stream(&mut out);
    forward_send.write_chunk(out.split().freeze()).await?;
    let forward = (forward_send, FrameReader::of_member(receive, FORWARD_FRAME_BYTES_MAX));
    Ok(Link { connection: connection.clone(), hello, control: (control_send, control), log, forward })
}

async fn welcome(peers: &Peers, connection: &Connection, id: NodeId) -> Result<Link, StreamError> {
    let context = peers.context();
    let (mut control_send, mut control) = accept_stream(context, connection, PEER_FRAME_BYTES_MAX).await?;
    let hello = peer_wire::hello(&control.first(context.settings.first_frame_timeout).await?)?;
    check(&context.local, &hello, id)?;
    if peers.is_dialler_to(&hello) {
        return Err(StreamError::Refused(CloseReason::WrongNode));
    }
    peers.meet(&hello).map_err(StreamError::Refused)?;
    send_hello(&mut control_send, &peers.hello_to(id)).await?;
    let (log_send, mut log) = accept_stream(context, connection, PEER_FRAME_BYTES_MAX).await?;
    peer_wire::log_stream(&log.first(context.settings.first_frame_timeout).await?)?;
    let (forward_send, mut forward) = accept_stream(context, connection, FORWARD_FRAME_BYTES_MAX).await?;
    forward_wire::forward_stream(&forward.first(context.settings.first_frame_timeout).await?)?;
    let (control, log, forward) = ((control_send, control), (log_send, log), (forward_send, forward));
    Ok(Link { connection: connection.clone(), hello, control, log, forward })
}

async fn accept_stream(
    context: &Context,
    connection: &Connection,
    frame_bytes_max: usize,
) -> Result<(SendStream, FrameReader), StreamError> {
    let accepted = tokio::time::timeout(context.settings.first_frame_timeout, connection.accept_bi()).await;
    let (send, receive) = accepted.map_err(|_| StreamError::Slow)??;
    Ok((send, FrameReader::of_member(receive, frame_bytes_max)))
}

pub(super) async fn send_hello(stream: &mut SendStream, hello: &Hello) -> Result<(), StreamError> {
    // A stream that is closed already says so at the write below.
    let _ = stream.set_priority(CONTROL_PRIORITY);
    let mut out = BytesMut::new();
    peer_wire::put_hello(&mut out, hello);
    Ok(stream.write_chunk(out.freeze()).await?)
}

/// Compares a claim with the certificate and with ourselves.
pub(super) fn check(local: &Hello, claim: &Hello, proven: NodeId) -> Result<(), StreamError> {
    let refuse = |reason| Err(StreamError::Refused(reason));
    if claim.cluster != local.cluster {
        return refuse(CloseReason::WrongCluster);
    }
    if claim.node != proven || claim.node == local.node {
        return refuse(CloseReason::WrongNode);
    }
    if claim.protocol_version != local.protocol_version {
        return refuse(CloseReason::WrongVersion);
    }
    if !claim.agrees(local) {
        return refuse(CloseReason::WrongFingerprint);
    }
    Ok(())
}

/// Tells the core that a node has a reason against this one, if it does.
async fn tell_refused(context: &Context, node: NodeId, connection: &Connection, ended: &StreamError) {
    let reason = match (ended, connection.close_reason()) {
        // This end has said it: the other speaks with another life of this node.
        (StreamError::Refused(reason), _) => Some(*reason).filter(|reason| *reason == CloseReason::AnotherLife),
        (_, Some(ConnectionError::ApplicationClosed(close))) => {
            Some(CloseReason::from_code(close.error_code)).filter(|reason| reason.is_against_node())
        }
        _ => None,
    };
    if let Some(reason) = reason {
        context.inbox.push_one(Share::Peer, Arrival::Refused { node, reason }).await;
    }
}

pub(super) fn refuse_or_close(context: &Context, connection: &Connection, ended: &StreamError) {
    match ended {
        StreamError::Refused(reason) => context.refuse(connection, *reason, &context.counters.hellos_refused),
        _ => context.close(connection, ended),
    }
}

/// Carries messages until the link ends, after an older link to the same node has.
async fn run(peers: &Peers, link: Link) {
    let context = peers.context();
    let Link { connection, hello, control, log, forward } = link;
    let peer = match peers.meet(&hello) {
        Ok(peer) => peer,
        Err(reason) => return context.refuse(&connection, reason, &context.counters.hellos_refused),
    };
    peer.link.replace(&connection);
    // Membership may have changed before the line above made the connection known to whoever changes it.
    if let Err(reason) = peers.meet(&hello) {
        peer.link.forget(&connection);
        return context.refuse(&connection, reason, &context.counters.hellos_refused);
    }
    let _turn = peer.turn.lock().await;
    context.counters.peers_up.add();
    peer.control.open_for(hello.incarnation);
    peer.log.open_for(hello.incarnation);
    peer.forward.open();
    context.inbox.push_one(Share::Peer, Arrival::PeerUp { hello }).await;
    let ended = exchange(context, &peer, &hello, control, log, forward).await;
    peer.control.close();
    peer.log.close();
    peer.forward.close();
    peer.link.forget(&connection);
    tell_refused(context, hello.node, &connection, &ended).await;
    context.close(&connection, &ended);
    context.inbox.push_one(Share::Peer, Arrival::PeerDown { node: hello.node }).await;
}

async fn exchange(
    context: &Arc<Context>,
    peer: &Peer,
    hello: &Hello,
    (mut control_send, mut control): (SendStream, FrameReader),
    (mut log_send, mut log): (SendStream, FrameReader),
    (mut forward_send, mut forward): (SendStream, FrameReader),
) -> StreamError {
    tokio::select! {
        ended = read_messages(context, hello, &mut control) => ended,
        ended = read_messages(context, hello, &mut log) => ended,
        ended = read_forwards(context, hello, &mut forward) => ended,
        ended = write_all(&peer.control, &mut control_send) => ended.err().unwrap_or(StreamError::Ended),
        ended = write_all(&peer.log, &mut log_send) => ended.err().unwrap_or(StreamError::Ended),
        ended = write_all(&peer.forward, &mut forward_send) => ended.err().unwrap_or(StreamError::Ended),
    }
}

/// Moves messages into the inbox, all of one read at once.
async fn read_messages(context: &Context, hello: &Hello, reader: &mut FrameReader) -> StreamError {
    let mut arrivals = Vec::new();
    loop {
        let bytes = match take_messages(context, hello, reader, &mut arrivals) {
            Ok(bytes) => bytes,
            Err(ended) => return ended,
        };
        context.inbox.push(Share::Peer, &mut arrivals, bytes).await;
        if let Err(ended) = reader.fill().await {
            return ended;
        }
    }
}

fn take_messages(
    context: &Context,
    hello: &Hello,
    reader: &mut FrameReader,
    arrivals: &mut Vec<Arrival>,
) -> Result<usize, StreamError> {
    let mut bytes = 0;
    let sender = hello.sender();
    while let Some(frame) = reader.take()? {
        bytes += frame.body.len();
        let message = peer_wire::message(frame)?;
        if message.from != hello.node || message.to != context.local.node {
            return Err(StreamError::Refused(CloseReason::WrongNode));
        }
        arrivals.push(Arrival::Peer { sender, message });
    }
    Ok(bytes)
}

/// As [`read_messages`], on the stream for what clients asked of other nodes. It has the clients' share of the inbox, so that
/// it cannot keep votes out: while that is full this stream waits, and no other.
async fn read_forwards(context: &Context, hello: &Hello, reader: &mut FrameReader) -> StreamError {
    let mut arrivals = Vec::new();
    loop {
        let bytes = match take_forwards(hello, reader, &mut arrivals) {
            Ok(bytes) => bytes,
            Err(ended) => return ended,
        };
        context.inbox.push(Share::Client, &mut arrivals, bytes).await;
        if let Err(ended) = reader.fill().await {
            return ended;
        }
    }
}

fn take_forwards(hello: &Hello, reader: &mut FrameReader, arrivals: &mut Vec<Arrival>) -> Result<usize, StreamError> {
    let mut bytes = 0;
    let from = hello.node;
    let sender = hello.sender();
    while let Some(frame) = reader.take()? {
        bytes += frame.body.len();
        arrivals.push(match forward_wire::forward_message(frame)? {
            ForwardMessage::Forward(forward) => Arrival::Forward { from, sender, forward },
            ForwardMessage::Forwarded(forwarded) => Arrival::Forwarded { from, forwarded },
        });
    }
    Ok(bytes)
}
