//! QUIC, and nothing of it outside this folder: who may speak, and how messages travel.
//!
//! ```text
//!      other nodes            clients, administrators
//!           │ trilith-peer/1       │ trilith-client/1        one UDP socket, TLS 1.3, both sides certified
//!           ▼                      ▼
//!     ┌──────────────── Endpoint ───────────────┐
//!     │  peer_link             client_link      │   one task per connection reads, one Outbox per stream is written
//!     └─────┬──────▲───────────────┬──────▲─────┘
//!           ▼      │               ▼      │
//!         Inbox  Peers           Inbox  Replies         the core's side: never blocks, bounded in bytes
//! ```
//!
//! # The contract
//!
//! - The core drains the [`Inbox`] whole, and answers through [`Peers`] and [`Replies`]. What it says goes to an
//!   outbox, encoded, and all that has gathered there is one write; what arrives in one read is one push. So the cost
//!   of a wake-up is shared by everything that waited for it.
//! - `from` of a message is proven: by the certificate, which must agree with the greeting, which must agree with the
//!   message. Incarnation, boot number and configuration are claims.
//! - Two nodes speak if one is a member for the other, and means this life of it. Each names in its greeting the life of
//!   the other that its configuration has, and the index of that configuration: of two that say different things the
//!   later one is right. So a node that was down while the members changed is found by those who know more, one that
//!   was removed is told so, and nobody speaks with another life of a node than it means. Where a configuration leaves
//!   the life open (a cluster's first one), the one that was met first in this process's life counts.
//! - The lower id dials. The higher one does, too, from time to time, while there is no link: the lower one may not
//!   know of it yet, and only then takes such a link.
//! - A link brings messages in order on each of its three streams, and may lose what was under way when it broke. What
//!   was taken for a link goes by no other: a request that is passed on arrives once or not at all.
//!   [`Arrival::PeerUp`] and [`Arrival::PeerDown`] come in turn.
//! - A snapshot is fetched by a connection of its own ([`SnapshotLink`]), which whoever fetches dials from a socket of its
//!   own. The same nodes may speak by it as by a link; each question is checked again, and the connection ends with the
//!   right to it. Administrators may fetch, too, at a seat of their own; clients may not: a snapshot holds everything. What is
//!   asked goes to whoever reads the disk ([`Peers::answer_snapshots`]), never to the core. Which one a member asks for is
//!   noted before that, for whoever keeps it ([`Peers::take_snapshots_asked_for`]).
//! - Payloads keep the memory of their frame, and that of the receive buffer (64 KiB and more) only where the frame is a
//!   quarter of it or more: what a cache counts is within four times of what it holds.
//! - Checksums of entries and commands were verified when they arrive.
//!
//! # Invariants
//!
//! - No byte of a stream is looked at before the certificate's chain, cluster and role were found good for the
//!   protocol; no frame's length is believed before it was compared with its limit.
//! - Whatever queues is bounded: the inbox by shares, so that clients cannot keep votes out; an outbox by bytes;
//!   windows, streams, handshakes and connections by settings.rs.
//! - A payload, a key or a name of a client is never logged.
//!
//! # Caveats
//!
//! A certificate that expires while its connection stands is noticed at the next [`Endpoint::reload`]. With a
//! revocation list, a certificate whose issuer the list does not cover is refused: the file holds one list for each
//! authority.

mod answer_wire;
pub mod certificate;
mod client_link;
mod client_wire;
mod close;
mod connection;
mod context;
mod counters;
mod endpoint;
mod error;
mod forward_wire;
mod identity;
mod inbox;
mod name;
mod outbox;
mod peer;
mod peer_link;
mod peer_wire;
pub mod pem;
mod replies;
mod settings;
mod slot;
mod snapshot_desk;
mod snapshot_link;
mod snapshot_service;
mod snapshot_status_wire;
mod snapshot_wire;
mod standing;
mod status_wire;
mod stream;
mod verifier;
mod wire;

pub use answer_wire::{READ_BYTES_MAX, Records, Refusal, Response, ResponseBody, SubmitResult, put_response, response};
pub use client_wire::{
    CLIENT_PROTOCOL_VERSION, Change, ClientHello, ClientStream, Consistency, MemberChange, Request, RequestBody,
    TailRequest, Welcome, client_stream, put_client_hello, put_request, put_tail_request, put_welcome, request,
    welcome,
};
pub use close::CloseReason;
pub use connection::{ClientConnection, Responses, Tail, TailItem};
pub use counters::CounterValues;
pub use endpoint::{Endpoint, Facts};
pub use error::{CertificateError, Error};
pub use forward_wire::{
    Forward, ForwardId, ForwardMessage, Forwarded, forward_message, forward_stream, put_forward, put_forward_stream,
    put_forwarded,
};
pub use identity::{ALPN_CLIENT, ALPN_PEER, ALPN_SNAPSHOT, Identity};
pub use inbox::{Arrival, ClientKey, Inbox, TailKey};
pub use name::{Name, Role};
pub use peer::{Correspondents, KnownLife, NotForwarded, Peers};
pub use peer_wire::{Hello, PEER_PROTOCOL_VERSION, hello, log_stream, message, put_hello, put_log_stream, put_message};
pub use replies::{Replies, TailState};
pub use settings::Settings;
pub use snapshot_desk::{Sending, SnapshotQuestion};
pub use snapshot_link::SnapshotLink;
pub use snapshot_status_wire::{
    SnapshotFetching, SnapshotMade, SnapshotMaking, SnapshotReader, SnapshotSending, SnapshotStatus,
};
pub use snapshot_wire::{
    MANIFEST_BYTES_MAX, SnapshotAnswer, SnapshotRefusal, SnapshotRequest, put_snapshot_answer, put_snapshot_request,
    snapshot_answer, snapshot_request,
};
pub use standing::{Standing, count_free};
pub use status_wire::{NodeRole, NodeStatus};
pub use wire::{FRAME_HEAD_BYTES, Frame, FrameBuffer, put_frame};

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_client;
#[cfg(test)]
mod tests_lives;
#[cfg(test)]
mod tests_peer;
#[cfg(test)]
mod tests_raw;
#[cfg(test)]
mod tests_snapshot;
#[cfg(test)]
mod tests_trust;
#[cfg(test)]
mod tests_wire;
