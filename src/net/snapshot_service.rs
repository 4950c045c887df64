//! A node's end of a connection by which its snapshots are fetched: by another node, or by an administrator.
//!
//! Plain clients are not served: a snapshot holds all that the cluster knows, also whose sessions there are.

use std::sync::Arc;

use bytes::BytesMut;
use quinn::{Connection, SendStream};

use super::client_link::accept_requests;
use super::close::CloseReason;
use super::name::Role;
use super::peer::{Peer, Peers};
use super::peer_link::{check, refuse_or_close, send_hello};
use super::peer_wire::{self, Hello};
use super::settings;
use super::snapshot_link::hold;
use super::snapshot_wire::{
    REQUEST_FRAME_BYTES_MAX, SnapshotAnswer, SnapshotRefusal, SnapshotRequest, put_snapshot_answer, snapshot_request,
};
use super::stream::{FrameReader, StreamError, within};
use crate::types::NodeId;

/// Who fetches.
enum Guest {
    /// What it said of itself when the connection was new.
    Node(Hello),
    /// By the name in the certificate.
    Administrator(String),
}

/// Serves a node that has dialled and whose certificate is that of node `id`.
pub(super) async fn serve_node(peers: &Peers, connection: Connection, id: NodeId) {
    let context = peers.context();
    let _registered = context.open.add(&connection);
    settings::narrow_for_snapshots(&connection);
    let welcomed = within(2 * context.settings.first_frame_timeout, welcome_node(peers, &connection, id)).await;
    let ended = match welcomed {
        Ok((peer, hello, send, questions)) => {
            let ended = serve_until_closed(peers, &connection, &Guest::Node(hello), send, questions).await;
            peer.snapshots_to.forget(&connection);
            ended
        }
        Err(ended) => ended,
    };
    refuse_or_close(context, &connection, &ended);
}

/// Serves an administrator who has dialled.
pub(super) async fn serve_administrator(peers: &Peers, connection: Connection, name: String) {
    let context = peers.context();
    let _registered = context.open.add(&connection);
    settings::narrow_for_snapshots(&connection);
    let accepted = accept_requests(context, &connection, REQUEST_FRAME_BYTES_MAX);
    let welcomed = within(2 * context.settings.first_frame_timeout, accepted).await;
    let ended = match welcomed {
        Ok((send, questions)) => {
            tracing::info!(admin = name, "an administrator fetches snapshots");
            serve_until_closed(peers, &connection, &Guest::Administrator(name), send, questions).await
        }
        Err(ended) => ended,
    };
    refuse_or_close(context, &connection, &ended);
}

async fn welcome_node(
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

async fn serve_until_closed(
    peers: &Peers,
    connection: &Connection,
    guest: &Guest,
    send: SendStream,
    questions: FrameReader,
) -> StreamError {
    tokio::select! {
        ended = serve(peers, guest, send, questions) => ended,
        // Also while a question waits for a disk that hangs: else the seat would stay taken.
        closed = connection.closed() => closed.into(),
    }
}

/// Answers until the other side goes, asks nothing for long, or does not read.
async fn serve(peers: &Peers, guest: &Guest, mut send: SendStream, mut questions: FrameReader) -> StreamError {
    let context = peers.context();
    let idle = context.settings.snapshot_idle_timeout;
    let role = guest.role();
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
        if let Err(reason) = guest.check(peers) {
            return StreamError::Refused(reason);
        }
        let is_listed = guest.is_listed(peers);
        if let (Guest::Node(hello), SnapshotRequest::Manifest { point, .. }, true) = (guest, request, is_listed) {
            context.snapshots.note_asked(hello.node, point);
        }
        seat = seat.or_else(|| context.snapshots.seat(&role));
        let answer = match seat.as_ref().filter(|_| is_listed) {
            Some(seat) => context.snapshots.ask(seat, request).await,
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

impl Guest {
    fn role(&self) -> Role {
        match self {
            Guest::Node(hello) => Role::Node(hello.node),
            Guest::Administrator(name) => Role::Admin(name.clone()),
        }
    }

    /// Before each question: a node's words are as old as the connection. An administrator whose certificate is revoked
    /// is closed by whoever learns of that.
    fn check(&self, peers: &Peers) -> Result<(), CloseReason> {
        match self {
            Guest::Node(hello) => peers.meet(hello).map(drop),
            Guest::Administrator(_) => Ok(()),
        }
    }

    /// Who says to know a later configuration may be new, or no member at all: that is for one to say who knows it.
    fn is_listed(&self, peers: &Peers) -> bool {
        match self {
            Guest::Node(hello) => peers.lists(hello.node),
            Guest::Administrator(_) => true,
        }
    }
}
