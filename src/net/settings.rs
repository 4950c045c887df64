//! The bounds and times of the transport, and quinn's settings for a data centre.

use std::sync::Arc;
use std::time::Duration;

use quinn::{EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;

use super::identity::Identity;

use crate::limits::{FORWARD_BYTES_MAX, MEMBERS_MAX};

/// Streams that a client may have open: one for requests, the others tails.
pub const CLIENT_STREAMS_MAX: usize = 17;
/// A peer's streams: control, log, and requests that are passed on.
const PEER_STREAMS: u32 = 3;
/// Nodes that are spoken with: members, and as many that come and go.
pub const PEERS_MAX: usize = 2 * MEMBERS_MAX;

/// Answers that wait for one client. One that is behind by more does not read, and is closed.
pub const CLIENT_ANSWERS_BYTES_MAX: usize = 16 << 20;
/// Records that wait for one tail before the core is told to stop.
pub const TAIL_RECORDS_BYTES_MAX: usize = 1 << 20;
/// Messages that wait for one peer, per stream.
pub const CONTROL_LANE_BYTES_MAX: usize = 1 << 20;
pub const LOG_LANE_BYTES_MAX: usize = 16 << 20;
/// Requests that are passed on to a peer and wait for its stream. Answers to its own may wait beside them.
pub const FORWARD_LANE_BYTES_MAX: usize = FORWARD_BYTES_MAX;
pub const FORWARDED_LANE_BYTES_MAX: usize = 16 << 20;
/// Beyond it, for telling of answers that found no room.
pub const UNKNOWN_BYTES_MAX: usize = 1 << 20;

// Neither fills the window that control and log share with it.
const _: () = assert!(FORWARD_LANE_BYTES_MAX < FORWARDED_LANE_BYTES_MAX);
const _: () = assert!(STREAM_WINDOW_BYTES < PEER_WINDOW_BYTES);

/// The receive window of one stream; a connection's own window is at most as large for clients.
const STREAM_WINDOW_BYTES: u32 = 16 << 20;
/// What one peer may have sent ahead of being read, and what may be sent to it ahead of being acknowledged.
const PEER_WINDOW_BYTES: u32 = 32 << 20;
/// The same for one client: a request at its bound.
const CLIENT_WINDOW_BYTES_MAX: u32 = 4 << 20;
const CLIENT_WINDOW_BYTES_MIN: u32 = 128 << 10;
/// What the windows of all clients share.
const CLIENT_WINDOWS_BYTES: u64 = 128 << 20;
/// What may be under way of a snapshot that is fetched: two chunks, so that one is read while another comes, and little
/// stands in the way of what matters more.
const SNAPSHOT_WINDOW_BYTES: u32 = 2 << 20;
/// Questions that may be under way.
const SNAPSHOT_QUESTIONS_BYTES: u64 = 64 << 10;
/// Nodes to which snapshots are sent at once. The others are told that this one is busy.
pub const SNAPSHOTS_SERVED_MAX: usize = 2;
/// Administrators to which snapshots are sent at once, beside those nodes.
pub const EXPORTS_SERVED_MAX: usize = 1;
/// Handshakes that quinn holds for the accept loop.
const INCOMING_MAX: usize = 256;
const INCOMING_BYTES_MAX: u64 = 4 << 20;

/// Packets grow to this where the path allows it (loopback, jumbo frames): ten of them are still one UDP segment
/// offload of less than 64 KiB.
const PACKET_BYTES_MAX: u16 = 6400;

/// What an operator or a test may want otherwise.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A handshake takes at most this.
    pub handshake_timeout: Duration,
    /// The first frame of a stream, after the handshake or the stream's opening, comes within this.
    pub first_frame_timeout: Duration,
    /// A connection on which nothing at all arrives for this long is dead.
    pub idle_timeout: Duration,
    pub keep_alive: Duration,
    /// A node that fetches a snapshot, and asks nothing or reads nothing for so long, has to come again.
    pub snapshot_idle_timeout: Duration,
    /// Handshakes under way at once.
    pub handshakes_max: usize,
    /// Clients connected at once.
    pub clients_max: usize,
    /// The first wait before a peer is dialled again; doubles up to `dial_delay_max`, with jitter.
    pub dial_delay_min: Duration,
    pub dial_delay_max: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            handshake_timeout: Duration::from_secs(2),
            first_frame_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_millis(2500),
            keep_alive: Duration::from_millis(500),
            snapshot_idle_timeout: Duration::from_secs(10),
            handshakes_max: 128,
            clients_max: 1024,
            dial_delay_min: Duration::from_millis(20),
            dial_delay_max: Duration::from_secs(1),
        }
    }
}

impl Settings {
    /// For those who dial this node. What a client may use holds until it has proven to be a peer.
    pub(super) fn server_transport(&self) -> Arc<TransportConfig> {
        let mut transport = self.transport();
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(CLIENT_STREAMS_MAX as u32))
            .receive_window(VarInt::from_u32(CLIENT_WINDOW_BYTES_MIN))
            .send_window(u64::from(CLIENT_WINDOW_BYTES_MAX));
        Arc::new(transport)
    }

    /// For dialling: the other side opens no streams.
    pub(super) fn dial_transport(&self) -> Arc<TransportConfig> {
        let mut transport = self.transport();
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .receive_window(VarInt::from_u32(PEER_WINDOW_BYTES))
            .send_window(u64::from(PEER_WINDOW_BYTES));
        Arc::new(transport)
    }

    /// For fetching a snapshot.
    pub(super) fn snapshot_transport(&self) -> Arc<TransportConfig> {
        let mut transport = self.transport();
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .stream_receive_window(VarInt::from_u32(SNAPSHOT_WINDOW_BYTES))
            .receive_window(VarInt::from_u32(SNAPSHOT_WINDOW_BYTES))
            .send_window(SNAPSHOT_QUESTIONS_BYTES);
        Arc::new(transport)
    }

    fn transport(&self) -> TransportConfig {
        let mut mtu = MtuDiscoveryConfig::default();
        mtu.upper_bound(PACKET_BYTES_MAX);
        let mut transport = TransportConfig::default();
        let idle = IdleTimeout::try_from(self.idle_timeout).expect("an idle timeout is seconds, not centuries");
        transport
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
            .max_idle_timeout(Some(idle))
            .keep_alive_interval(Some(self.keep_alive))
            .initial_rtt(Duration::from_millis(1))
            .mtu_discovery_config(Some(mtu))
            .datagram_receive_buffer_size(None);
        transport
    }
}

/// Raises the bounds of a connection that was accepted to those of a peer.
pub(super) fn widen_for_peer(connection: &quinn::Connection) {
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(PEER_STREAMS));
    connection.set_receive_window(VarInt::from_u32(PEER_WINDOW_BYTES));
    connection.set_send_window(u64::from(PEER_WINDOW_BYTES));
}

/// Bounds a connection by which another node fetches a snapshot.
pub(super) fn narrow_for_snapshots(connection: &quinn::Connection) {
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(1));
    connection.set_send_window(u64::from(SNAPSHOT_WINDOW_BYTES));
}

/// Gives a client its share of what all clients' windows may take, `clients` being how many there are.
pub(super) fn widen_for_client(connection: &quinn::Connection, clients: usize) {
    let share = (CLIENT_WINDOWS_BYTES / (clients as u64).max(1)) as u32;
    let window = share.clamp(CLIENT_WINDOW_BYTES_MIN, CLIENT_WINDOW_BYTES_MAX);
    connection.set_receive_window(VarInt::from_u32(window));
}

/// A client's socket.
pub(super) fn client_endpoint_config() -> EndpointConfig {
    bounded(EndpointConfig::default())
}

/// A node's socket. Connection ids and reset tokens follow from its key: a node that was killed and is back answers the
/// packets of its earlier life with a reset that the other side believes, which then dials anew at once, instead of
/// waiting for the idle timeout.
pub(super) fn node_endpoint_config(identity: &Identity) -> EndpointConfig {
    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, &identity.derived(b"trilith: stateless reset"));
    let derived = identity.derived(b"trilith: connection ids");
    let id_key = u64::from_le_bytes(*derived.first_chunk().expect("32 bytes hold 8"));
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(id_key)));
    bounded(config)
}

fn bounded(mut config: EndpointConfig) -> EndpointConfig {
    config.max_udp_payload_size(PACKET_BYTES_MAX).expect("the size lies in quinn's range");
    config
}

/// What a server allows before anyone has proven anything.
pub(super) fn bound_strangers(config: &mut quinn::ServerConfig) {
    let mut tokens = quinn::ValidationTokenConfig::default();
    tokens.sent(0);
    config
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX / INCOMING_MAX as u64)
        .incoming_buffer_size_total(INCOMING_BYTES_MAX)
        .validation_token_config(tokens)
        .migration(false);
}
