//! What can go wrong between nodes, with the place and the next step.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::codec;
use crate::types::{ClusterId, NodeId};

use super::close::CloseReason;

/// A certificate, a key or a list cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("cannot use {path}: {source}", path = .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(
        "the key file {path} has mode {mode:04o}: others can read it. Run `chmod 600` on it, and make a new key if \
         others had access",
        path = .path.display()
    )]
    OpenKeyFile { path: PathBuf, mode: u32 },
    #[error("no {what} in PEM form found; `trilith cert` makes one")]
    NoPem { what: &'static str },
    #[error("this is no X.509 certificate")]
    NotACertificate,
    #[error("this certificate is not that of a cluster's authority; give the one that `trilith cert ca` made")]
    NotAnAuthority,
    #[error("the key does not belong to the certificate; give the pair that was made together")]
    KeyMismatch,
    #[error("a certificate carries exactly one URI name, found {found}; `trilith cert` makes such certificates")]
    NotOneName { found: usize },
    #[error(
        "{uri:?} is no name of a node, client or administrator (trilith://CLUSTER/node/ID, /client/NAME, /admin/NAME)"
    )]
    BadName { uri: String },
    #[error("{role:?} cannot be in a certificate: ids count from 1, names are 1 to 64 of A-Z a-z 0-9 . _ -")]
    BadRole { role: String },
    #[error("the certificate is for {found}, and this needs one for {needed}")]
    WrongRole { found: String, needed: String },
    #[error("the certificate belongs to cluster {found}, not to {expected}")]
    WrongCluster { found: ClusterId, expected: ClusterId },
    #[error("cannot make the certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("the authority's certificates or the revocation list cannot be used: {0}")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
    #[error("certificate and key cannot be used for TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// A connection cannot be made, or has ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on {address}: {source}; choose another address or stop what uses it")]
    Bind { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("no address of node {node} is known here: it is no member, and no link to it stands")]
    NoAddress { node: NodeId },
    #[error("cannot dial {address}: {source}")]
    Dial { address: SocketAddr, source: quinn::ConnectError },
    #[error("no handshake with {address} in time; is a node running there?")]
    HandshakeTimeout { address: SocketAddr },
    /// The other side, or this one, refused before anything was said.
    #[error(
        "{address} and this process do not trust each other: {source}; compare the certificates with `trilith cert show`"
    )]
    Handshake { address: SocketAddr, source: quinn::ConnectionError },
    #[error("{address} closed the connection: {reason}")]
    Closed { address: SocketAddr, reason: CloseReason },
    #[error("this node does not speak with the one at {address}; what that is told: {reason}")]
    Refused { address: SocketAddr, reason: CloseReason },
    #[error("the connection to {address} broke: {source}")]
    Broken { address: SocketAddr, source: quinn::ConnectionError },
    #[error("{address} ended the stream")]
    Ended { address: SocketAddr },
    #[error("{address} sent what is no valid message: {source}")]
    Malformed { address: SocketAddr, source: codec::Error },
    #[error("a request of {found} bytes is over the limit of {max}")]
    RequestTooLarge { found: usize, max: usize },
    #[error("{found} commands in a request are over the limit of {max}")]
    TooManyCommands { found: usize, max: usize },
}

impl Error {
    /// What a connection's end means, as an error with its place.
    pub(super) fn from_connection(address: SocketAddr, source: quinn::ConnectionError) -> Error {
        match source {
            quinn::ConnectionError::ApplicationClosed(close) => {
                Error::Closed { address, reason: CloseReason::from_code(close.error_code) }
            }
            source if is_of_tls(&source) => Error::Handshake { address, source },
            source => Error::Broken { address, source },
        }
    }
}

/// Whether TLS ended it, on either side. All else passes: a node that is about to end, or that has too many at its
/// door, refuses a connection too, and says nothing about certificates by it.
fn is_of_tls(source: &quinn::ConnectionError) -> bool {
    let code = match source {
        quinn::ConnectionError::TransportError(error) => error.code,
        quinn::ConnectionError::ConnectionClosed(close) => close.error_code,
        _ => return false,
    };
    TLS_ALERTS.contains(&u64::from(code))
}

/// Codes that carry an alert of TLS (RFC 9001, section 4.8).
const TLS_ALERTS: std::ops::Range<u64> = 0x100..0x200;
