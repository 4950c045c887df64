//! A node's end of a client's connection: one stream for requests and answers, and a stream for each tail.

use std::sync::Arc;

use bytes::BytesMut;
use quinn::{Connection, RecvStream, SendStream};
use tokio::task::JoinSet;

use super::answer_wire::{Refusal, Response, ResponseBody};
use super::client_wire::{
    self, CLIENT_FRAME_BYTES_MAX, CLIENT_PROTOCOL_VERSION, ClientStream, RequestBody, TailRequest,
};
use super::close::CloseReason;
use super::context::Context;
use super::inbox::{Arrival, ClientKey, Share, TailKey};
use super::name::Role;
use super::outbox::Outbox;
use super::settings;
use super::stream::{FrameReader, StreamError, within, write_all};

/// A client's first frame, and the only one on a tail's stream, is short.
const FIRST_FRAME_BYTES_MAX: usize = 64;

/// Serves a client until it goes, or gives a reason to be closed.
pub(super) async fn serve(context: Arc<Context>, connection: Connection, role: Role) {
    let _registered = context.open.add(&connection);
    let accepted = within(
        2 * context.settings.first_frame_timeout,
        accept_requests(&context, &connection, CLIENT_FRAME_BYTES_MAX),
    )
    .await;
    match accepted {
        Ok((send, requests)) => {
            settings::widen_for_client(&connection, context.replies.clients() + 1);
            run(&context, &connection, &role, send, requests).await;
        }
        Err(ended) => context.close(&connection, &ended),
    }
}

/// The stream for requests, after the greeting.
pub(super) async fn accept_requests(
    context: &Context,
    connection: &Connection,
    frame_bytes_max: usize,
) -> Result<(SendStream, FrameReader), StreamError> {
    let within = context.settings.first_frame_timeout;
    let accepted = tokio::time::timeout(within, connection.accept_bi()).await;
    let (mut send, receive) = accepted.map_err(|_| StreamError::Slow)??;
    let mut requests = FrameReader::of_client(receive, frame_bytes_max);
    match client_wire::client_stream(&requests.first(within).await?)? {
        ClientStream::Requests(hello) if hello.protocol_version == CLIENT_PROTOCOL_VERSION => {}
        ClientStream::Requests(_) | ClientStream::Tail(_) => {
            return Err(StreamError::Refused(CloseReason::WrongVersion));
        }
    }
    let mut out = BytesMut::new();
    client_wire::put_welcome(&mut out, &context.welcome());
    send.write_chunk(out.freeze()).await?;
    Ok((send, requests))
}

async fn run(
    context: &Arc<Context>,
    connection: &Connection,
    role: &Role,
    mut send: SendStream,
    mut requests: FrameReader,
) {
    context.counters.clients_up.add();
    let (key, outbox) = context.replies.add_client(connection);
    let mut tails = JoinSet::new();
    let ended = tokio::select! {
        ended = read_requests(context, key, role, &mut requests) => ended,
        ended = write_all(&outbox, &mut send) => ended.err().unwrap_or(StreamError::Ended),
        ended = accept_tails(context, connection, &mut tails) => ended,
    };
    context.close(connection, &ended);
    context.replies.remove_client(key);
    // The tails' streams have ended with the connection: each task tells the core so, and is done.
    while tails.join_next().await.is_some() {}
    context.inbox.push_one(Share::Client, Arrival::ClientGone { client: key }).await;
}

/// Moves requests into the inbox, all of one read at once.
async fn read_requests(context: &Context, client: ClientKey, role: &Role, requests: &mut FrameReader) -> StreamError {
    let mut arrivals = Vec::new();
    loop {
        let bytes = match take_requests(context, client, role, requests, &mut arrivals) {
            Ok(bytes) => bytes,
            Err(ended) => return ended,
        };
        context.inbox.push(Share::Client, &mut arrivals, bytes).await;
        if let Err(ended) = requests.fill().await {
            return ended;
        }
    }
}

/// Everything that has arrived whole, and how many bytes it is.
fn take_requests(
    context: &Context,
    client: ClientKey,
    role: &Role,
    requests: &mut FrameReader,
    arrivals: &mut Vec<Arrival>,
) -> Result<usize, StreamError> {
    let mut bytes = 0;
    while let Some(frame) = requests.take()? {
        bytes += frame.body.len();
        let request = client_wire::request(frame)?;
        if matches!(request.body, RequestBody::Change(_)) && !role.is_admin() {
            let body = ResponseBody::Refused(Refusal::NotAllowed);
            context.replies.reply(client, &Response { id: request.id, body });
            continue;
        }
        arrivals.push(Arrival::Client { client, request });
    }
    Ok(bytes)
}

async fn accept_tails(context: &Arc<Context>, connection: &Connection, tails: &mut JoinSet<()>) -> StreamError {
    loop {
        tokio::select! {
            accepted = connection.accept_bi() => match accepted {
                Ok((send, receive)) => {
                    tails.spawn(serve_tail(context.clone(), connection.clone(), send, receive));
                }
                Err(error) => return error.into(),
            },
            Some(_) = tails.join_next() => {}
        }
    }
}

async fn serve_tail(context: Arc<Context>, connection: Connection, mut send: SendStream, receive: RecvStream) {
    let mut reader = FrameReader::of_client(receive, FIRST_FRAME_BYTES_MAX);
    let ended = match tail_request(&context, &mut reader).await {
        Ok(request) => run_tail(&context, request, &mut send, &mut reader).await,
        Err(ended) => ended,
    };
    match ended {
        StreamError::Malformed(_) | StreamError::Slow => context.close(&connection, &ended),
        StreamError::Ended | StreamError::Broken(_) | StreamError::Refused(_) => reader.stop(CloseReason::Done),
    }
}

async fn tail_request(context: &Context, reader: &mut FrameReader) -> Result<TailRequest, StreamError> {
    let first = reader.first(context.settings.first_frame_timeout).await?;
    match client_wire::client_stream(&first)? {
        ClientStream::Tail(request) => Ok(request),
        ClientStream::Requests(_) => Err(StreamError::Refused(CloseReason::TooMany)),
    }
}

async fn run_tail(
    context: &Context,
    request: TailRequest,
    send: &mut SendStream,
    reader: &mut FrameReader,
) -> StreamError {
    let (key, outbox) = context.replies.add_tail();
    context.inbox.push_one(Share::Client, Arrival::TailOpened { tail: key, from: request.from }).await;
    let ended = tokio::select! {
        ended = write_tail(context, key, &outbox, send) => ended.err().unwrap_or(StreamError::Ended),
        // Nothing more is to come but the end of the stream.
        ended = reader.fill() => ended.err().unwrap_or(StreamError::Refused(CloseReason::Malformed)),
    };
    context.replies.remove_tail(key);
    context.inbox.push_one(Share::Client, Arrival::TailClosed { tail: key }).await;
    ended
}

/// QUIC's flow control holds the writer back, the writer the outbox, and the outbox the core.
async fn write_tail(
    context: &Context,
    key: TailKey,
    outbox: &Outbox,
    send: &mut SendStream,
) -> Result<(), StreamError> {
    while let Some(taken) = outbox.take().await {
        send.write_chunk(taken.bytes).await?;
        if taken.was_full {
            context.inbox.push_one(Share::Client, Arrival::TailReady { tail: key }).await;
        }
    }
    // The stream may have been stopped by the reader: then there is nobody to tell.
    let _ = send.finish();
    Ok(())
}
