//! Why a request was not carried out, or why nobody can say.

use std::sync::Arc;

use crate::codec;
use crate::limits::{REQUEST_RECORDS_MAX, SESSION_ANSWERS_MAX};
use crate::machine::command;
use crate::net::{self, Refusal};
use crate::types::{Index, NodeId};

/// What a caller is told. Everything but [`Error::OutcomeUnknown`] means: it did not happen, and will not.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No node took it in time.
    #[error("unavailable: {reason}")]
    Unavailable { reason: String },
    /// It was sent, and no answer came in time: it may have happened, or may happen yet.
    #[error("it was sent, but what became of it is unknown")]
    OutcomeUnknown,
    #[error("{bytes} bytes are over the limit of {max}")]
    TooLarge { bytes: usize, max: usize },
    #[error("the leader's disk is full")]
    NoSpace,
    /// A queue is full: this client's, or the leader's.
    #[error("too much is waiting")]
    Busy,
    #[error("records below {first} were trimmed")]
    Trimmed { first: Index },
    #[error("refused: {0}")]
    Refused(Refusal),
    #[error("the state machine refuses it: {0}")]
    Machine(command::Refusal),
    /// No node could be reached, and trying again cannot help: certificates do not fit.
    #[error("{0}")]
    NotTrusted(Arc<net::Error>),
    #[error("node {node} is not known: it is neither in the client's configuration nor a member")]
    UnknownNode { node: NodeId },
    #[error("the answer cannot be understood: {0}")]
    Answer(codec::Error),
    #[error("the answer is to another question")]
    WrongAnswer,
    #[error("{found} in one request: 1 to {max} are allowed")]
    Options { found: usize, max: usize },
}

impl Error {
    /// A node's refusal, as the caller is told.
    pub(super) fn from_refusal(refusal: &Refusal) -> Error {
        match refusal {
            Refusal::Busy => Error::Busy,
            Refusal::NoSpace => Error::NoSpace,
            Refusal::Trimmed { first } => Error::Trimmed { first: *first },
            Refusal::OutcomeUnknown => Error::OutcomeUnknown,
            Refusal::NotLeader { .. } | Refusal::Unavailable { .. } | Refusal::Gap { .. } => {
                Error::Unavailable { reason: refusal.to_string() }
            }
            Refusal::TooLarge { .. }
            | Refusal::SessionGone
            | Refusal::Malformed
            | Refusal::NotAllowed
            | Refusal::LeasesOff
            | Refusal::MapAlone
            | Refusal::Impossible { .. }
            | Refusal::SnapshotFailed { .. } => Error::Refused(refusal.clone()),
        }
    }

    pub(super) fn from_connection(error: net::Error) -> Error {
        match is_distrust(&error) {
            true => Error::NotTrusted(Arc::new(error)),
            false => Error::Unavailable { reason: error.to_string() },
        }
    }
}

/// Whether waiting cannot help: somebody has to look at certificates or configuration.
pub(super) fn is_distrust(error: &net::Error) -> bool {
    use net::CloseReason::{Revoked, WrongCluster, WrongRole, WrongVersion};
    match error {
        net::Error::Certificate(_) | net::Error::Handshake { .. } => true,
        net::Error::Closed { reason, .. } => matches!(reason, WrongCluster | WrongRole | WrongVersion | Revoked),
        _ => false,
    }
}

const _: () = assert!(super::REQUEST_RECORDS_DEFAULT <= REQUEST_RECORDS_MAX);
const _: () = assert!(super::REQUEST_RECORDS_DEFAULT <= SESSION_ANSWERS_MAX);
