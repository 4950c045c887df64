//! A client's end of a connection to one node.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bytes::BytesMut;
use quinn::{Connection, SendStream};

use crate::limits::{CLIENT_TIMEOUT_DEFAULT, REQUEST_BYTES_MAX, REQUEST_RECORDS_MAX, WIRE_FRAME_BYTES_MAX};
use crate::types::Index;

use super::answer_wire::{self, Records, Refusal, Response, ResponseBody};
use super::certificate::SERVER_NAME;
use super::client_wire::{self, CLIENT_PROTOCOL_VERSION, ClientHello, Request, RequestBody, TailRequest, Welcome};
use super::close::CloseReason;
use super::context;
use super::error::Error;
use super::identity::{ALPN_CLIENT, Identity};
use super::outbox::Outbox;
use super::settings::{self, Settings};
use super::stream::{FrameReader, StreamError, write_all};

/// Requests that wait to be sent before [`ClientConnection::send`] waits, too.
const REQUESTS_BYTES_MAX: usize = 8 << 20;

/// Sends requests and opens tails; clones share the connection. Dropping the last clone, or the [`Responses`], closes
/// it.
#[derive(Clone, Debug)]
pub struct ClientConnection {
    shared: Arc<Shared>,
}

/// The answers, in the order in which the node gave them.
#[derive(Debug)]
pub struct Responses {
    reader: FrameReader,
    connection: Connection,
}

/// Appended records from an index on, as they are committed.
#[derive(Debug)]
pub struct Tail {
    reader: FrameReader,
    connection: Connection,
    /// Open as long as records are wanted.
    _send: SendStream,
}

/// What a tail brings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TailItem {
    Records(Records),
    /// The last item: why there are no more.
    Refused(Refusal),
}

#[derive(Debug)]
struct Shared {
    connection: Connection,
    welcome: Welcome,
    outbox: Arc<Outbox>,
}

impl ClientConnection {
    /// Connects to a node and waits until it has accepted this identity. Runs on the present tokio runtime; not
    /// longer than the default time of a client.
    pub async fn connect(identity: &Identity, address: SocketAddr) -> Result<(ClientConnection, Responses), Error> {
        let connection = dial(identity, address).await?;
        match tokio::time::timeout(CLIENT_TIMEOUT_DEFAULT, greet(&connection)).await {
            Ok(Ok((welcome, send, reader))) => {
                let outbox = Arc::new(Outbox::opened());
                tokio::spawn(write_requests(outbox.clone(), send));
                let shared = Shared { connection: connection.clone(), welcome, outbox };
                Ok((ClientConnection { shared: Arc::new(shared) }, Responses { reader, connection }))
            }
            Ok(Err(error)) => Err(explain(&connection, error)),
            Err(_) => Err(Error::HandshakeTimeout { address }),
        }
    }

    /// Which node this is.
    pub fn welcome(&self) -> &Welcome {
        &self.shared.welcome
    }

    pub fn address(&self) -> SocketAddr {
        self.shared.connection.remote_address()
    }

    /// Queues a request; waits only while too much is queued. That it was queued does not mean that it was sent.
    pub async fn send(&self, request: &Request) -> Result<(), Error> {
        check_size(request)?;
        let encode = |out: &mut BytesMut| client_wire::put_request(out, request);
        match self.shared.outbox.put_when_room(REQUESTS_BYTES_MAX, encode).await {
            true => Ok(()),
            false => Err(self.ended()),
        }
    }

    /// Opens a tail.
    pub async fn tail(&self, from: Index) -> Result<Tail, Error> {
        let connection = self.shared.connection.clone();
        let mut out = BytesMut::new();
        client_wire::put_tail_request(&mut out, TailRequest { from });
        let opened = async {
            let (mut send, receive) = connection.open_bi().await?;
            send.write_chunk(out.freeze()).await?;
            Ok((send, receive))
        };
        let (send, receive) = opened.await.map_err(|error| explain(&connection, error))?;
        Ok(Tail { reader: FrameReader::of_member(receive, WIRE_FRAME_BYTES_MAX), connection, _send: send })
    }

    /// Closes the connection; requests without an answer have an unknown outcome.
    pub fn close(&self) {
        self.shared.outbox.close();
        context::close(&self.shared.connection, CloseReason::Done);
    }

    fn ended(&self) -> Error {
        explain(&self.shared.connection, StreamError::Ended)
    }
}

impl Responses {
    /// The next answer. Loses nothing if cancelled.
    pub async fn next(&mut self) -> Result<Response, Error> {
        let next = async {
            let frame = self.reader.next().await?;
            Ok(answer_wire::response(frame)?)
        };
        next.await.map_err(|error| explain(&self.connection, error))
    }
}

impl Tail {
    /// The next records. Loses nothing if cancelled.
    pub async fn next(&mut self) -> Result<TailItem, Error> {
        let next = async {
            let frame = self.reader.next().await?;
            match answer_wire::response(frame)?.body {
                ResponseBody::Records(records) => Ok(TailItem::Records(records)),
                ResponseBody::Refused(refusal) => Ok(TailItem::Refused(refusal)),
                _ => Err(StreamError::Refused(CloseReason::Malformed)),
            }
        };
        next.await.map_err(|error| explain(&self.connection, error))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.outbox.close();
        context::close(&self.connection, CloseReason::Done);
    }
}

impl Drop for Responses {
    fn drop(&mut self) {
        context::close(&self.connection, CloseReason::Done);
    }
}

async fn dial(identity: &Identity, address: SocketAddr) -> Result<Connection, Error> {
    let settings = Settings::default();
    let endpoint = outgoing_endpoint(address)?;
    let mut config = quinn::ClientConfig::new(Arc::new(identity.client_config(ALPN_CLIENT)?));
    config.transport_config(settings.dial_transport());
    let dialled = endpoint.connect_with(config, address, SERVER_NAME);
    let connecting = dialled.map_err(|source| Error::Dial { address, source })?;
    match tokio::time::timeout(settings.handshake_timeout, connecting).await {
        Ok(connected) => connected.map_err(|source| Error::from_connection(address, source)),
        Err(_) => Err(Error::HandshakeTimeout { address }),
    }
}

/// A socket of its own, on the present runtime, for dialling this address.
pub(super) fn outgoing_endpoint(address: SocketAddr) -> Result<quinn::Endpoint, Error> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let bound = |source| Error::Bind { address: any, source };
    let socket = std::net::UdpSocket::bind(any).map_err(bound)?;
    let runtime = Arc::new(quinn::TokioRuntime);
    quinn::Endpoint::new(settings::client_endpoint_config(), None, socket, runtime).map_err(bound)
}

async fn greet(connection: &Connection) -> Result<(Welcome, SendStream, FrameReader), StreamError> {
    let (mut send, receive) = connection.open_bi().await?;
    let mut out = BytesMut::new();
    client_wire::put_client_hello(&mut out, ClientHello { protocol_version: CLIENT_PROTOCOL_VERSION });
    send.write_chunk(out.freeze()).await?;
    let mut reader = FrameReader::of_member(receive, WIRE_FRAME_BYTES_MAX);
    let welcome = client_wire::welcome(&reader.next().await?)?;
    match welcome.protocol_version == CLIENT_PROTOCOL_VERSION {
        true => Ok((welcome, send, reader)),
        false => Err(StreamError::Refused(CloseReason::WrongVersion)),
    }
}

async fn write_requests(outbox: Arc<Outbox>, mut send: SendStream) {
    // If the stream breaks, whoever waits for answers learns why; here it is enough to take no more.
    if let Err(ended) = write_all(&outbox, &mut send).await {
        tracing::debug!("no more requests are sent: {ended}");
    }
    outbox.close();
}

fn check_size(request: &Request) -> Result<(), Error> {
    let (found, max) = match &request.body {
        RequestBody::Submit { commands } | RequestBody::SubmitAnywhere { commands }
            if commands.len() > REQUEST_RECORDS_MAX =>
        {
            return Err(Error::TooManyCommands { found: commands.len(), max: REQUEST_RECORDS_MAX });
        }
        RequestBody::Submit { commands } | RequestBody::SubmitAnywhere { commands } => {
            (commands.iter().map(|command| command.bytes.len()).sum(), REQUEST_BYTES_MAX)
        }
        RequestBody::Query { query, .. } => (query.len(), REQUEST_BYTES_MAX),
        RequestBody::Read { .. } | RequestBody::Status | RequestBody::Change(_) => (0, REQUEST_BYTES_MAX),
    };
    match found <= max {
        true => Ok(()),
        false => Err(Error::RequestTooLarge { found, max }),
    }
}

/// The connection knows better than the stream why it ended.
pub(super) fn explain(connection: &Connection, error: StreamError) -> Error {
    let address = connection.remote_address();
    match (error, connection.close_reason()) {
        (StreamError::Malformed(source), _) => {
            context::close(connection, CloseReason::Malformed);
            Error::Malformed { address, source }
        }
        (StreamError::Refused(reason), _) => Error::Closed { address, reason },
        (_, Some(source)) => Error::from_connection(address, source),
        (_, None) => Error::Ended { address },
    }
}
