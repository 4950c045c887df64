//! A connection by which one node fetches a snapshot from another: beside the link of the two, so that bulk delays nothing.
//!
//! ```text
//!     who fetches, from a socket of its own       who has it
//!       Hello        ─────────────────────────▶   checks as on a link: certificate, cluster, version, member, life
//!                    ◀─────────────────────────   Hello (checked in the same way)
//!       questions    ─────────────────────────▶   one after the other, each checked again: members go
//!                    ◀─────────────────────────   answers, in their order
//! ```
//!
//! Each connection has a congestion window and a task of its own, and quinn gives the turn to others after 20 datagrams. What
//! is under way is bounded by a small window, who is served by a number of seats; what arrives comes by another socket than
//! heartbeats, whose buffer in the kernel it cannot fill.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use quinn::{Connection, SendStream};

use super::certificate::SERVER_NAME;
use super::close::CloseReason;
use super::connection::{explain, outgoing_endpoint};
use super::context::{self, Protocol, Proven, Registered};
use super::error::Error;
use super::name::Role;
use super::peer::{Peer, Peers};
use super::peer_link::{check, refuse_or_close, send_hello};
use super::peer_wire::{self, Hello};
use super::settings;
use super::slot::Slot;
use super::snapshot_wire::{
    ANSWER_FRAME_BYTES_MAX, REQUEST_FRAME_BYTES_MAX, SnapshotAnswer, SnapshotRefusal, SnapshotRequest,
    put_snapshot_answer, put_snapshot_request, snapshot_answer, snapshot_request,
};
use super::stream::{FrameReader, StreamError, within};
use crate::types::NodeId;

/// Asks one node for its snapshots. Dropped, it closes the connection.
#[derive(Debug)]
pub struct SnapshotLink {
    connection: Connection,
    send: SendStream,
    answers: FrameReader,
    /// Keeps the node's entry, so that the connection ends when that node may not be spoken with any more.
    peer: Arc<Peer>,
    _registered: Registered,
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
        let connection = dial(self, address).await?;
        let registered = context.open.add(&connection);
        let greeted = within(2 * context.settings.first_frame_timeout, greet(self, &connection, node)).await;
        match greeted {
            Ok((peer, send, answers)) => Ok(SnapshotLink { connection, send, answers, peer, _registered: registered }),
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
        self.peer.snapshots_from.forget(&self.connection);
        context::close(&self.connection, CloseReason::Done);
    }
}

async fn dial(peers: &Peers, address: SocketAddr) -> Result<Connection, Error> {
    let context = peers.context();
    let dialled = outgoing_endpoint(address)?.connect_with(peers.snapshot_dial_config(), address, SERVER_NAME);
    let connecting = dialled.map_err(|source| Error::Dial { address, source })?;
    match tokio::time::timeout(context.settings.handshake_timeout, connecting).await {
        Ok(connected) => connected.map_err(|source| Error::from_connection(address, source)),
        Err(_) => Err(Error::HandshakeTimeout { address }),
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
fn hold(
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

/// Serves a node that has dialled and whose certificate is that of node `id`.
pub(super) async fn accept(peers: &Peers, connection: Connection, id: NodeId) {
    let context = peers.context();
    let _registered = context.open.add(&connection);
    settings::narrow_for_snapshots(&connection);
    let welcomed = within(2 * context.settings.first_frame_timeout, welcome(peers, &connection, id)).await;
    let ended = match welcomed {
        Ok((peer, hello, send, questions)) => {
            let ended = tokio::select! {
                ended = serve(peers, &hello, send, questions) => ended,
                // Also while a question waits for a disk that hangs: else the seat would stay taken.
                closed = connection.closed() => closed.into(),
            };
            peer.snapshots_to.forget(&connection);
            ended
        }
        Err(ended) => ended,
    };
    refuse_or_close(context, &connection, &ended);
}

async fn welcome(
    peers: &Peers,
    connection: &Connection,
    id: NodeId,
) -> Result<(Arc<Peer>, Hello, SendStream, FrameReader), StreamError> {
    let context = peers.context();
    let (mut send, receive) = connection.accept_bi().await?;
    let mut questions = FrameReader::of_client(receive, REQUEST_FRAME_BYTES_MAX);
    let hello = peer_wire::hello(&questions.first(context.settings.first_frame_timeout).await?)?;
    check(&context.local, &hello, id)?;
    let peer = hold(peers, connection, &hello, |peer| &peer.snapshots_to)?;
    if let Err(broken) = send_hello(&mut send, &peers.hello_to(id)).await {
        peer.snapshots_to.forget(connection);
        return Err(broken);
    }
    Ok((peer, hello, send, questions))
}

/// Answers until the other side goes, asks nothing for long, or does not read.
async fn serve(peers: &Peers, hello: &Hello, mut send: SendStream, mut questions: FrameReader) -> StreamError {
    let context = peers.context();
    let idle = context.settings.snapshot_idle_timeout;
    let mut seat = None;
    loop {
        let asked = match within(idle, questions.next()).await {
            Ok(frame) => snapshot_request(&frame),
            // Nothing is wrong with it: it comes again when it wants something.
            Err(StreamError::Slow) => return StreamError::Ended,
            Err(ended) => return ended,
        };
        let request = match asked {
            Ok(request) => request,
            Err(malformed) => return malformed.into(),
        };
        // Its words are as old as the connection.
        if let Err(reason) = peers.meet(hello) {
            return StreamError::Refused(reason);
        }
        seat = seat.or_else(|| context.snapshots.seat());
        // Who says to know a later configuration may be new, or no member at all: that is for one to say who knows it.
        let answer = match seat.as_ref().filter(|_| peers.lists(hello.node)) {
            Some(_) => context.snapshots.ask(hello.node, request).await,
            None => SnapshotAnswer::Refused(SnapshotRefusal::Busy),
        };
        match within(idle, write(&mut send, answer)).await {
            Ok(()) => {}
            Err(StreamError::Slow) => return StreamError::Refused(CloseReason::NotReading),
            Err(ended) => return ended,
        }
    }
}

async fn write(send: &mut SendStream, answer: SnapshotAnswer) -> Result<(), StreamError> {
    let mut out = BytesMut::new();
    put_snapshot_answer(&mut out, &answer);
    // One copy is enough while QUIC takes it.
    drop(answer);
    Ok(send.write_chunk(out.freeze()).await?)
}
