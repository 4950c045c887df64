//! Why no snapshot came.

use std::time::Duration;

use crate::codec;
use crate::net;
use crate::node::transfer::{Asked, Unfit};
use crate::snapshot;
use crate::types::{LogId, NodeId};

/// Why an order for a snapshot was not carried out. What has come of it stays, unless the disk failed.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Never told: whoever ended it knows.
    #[error("the snapshot is not wanted any more, or the node ends")]
    Interrupted,
    #[error("no node gives the snapshot at {point}: {asked}")]
    Nowhere { point: LogId, asked: Asked },
    #[error("the leader has not all of the snapshot at {point}, nor has anybody who is reached: {asked}; {last}")]
    Left { point: LogId, asked: Asked, last: String },
    #[error("the snapshot at {point} does not come: {last}; nothing new for {patience:?}")]
    Stuck { point: LogId, patience: Duration, last: String },
    /// Nodes fetch from each other, and administrators from nodes; nobody else.
    #[error("node {node} does not let this certificate fetch snapshots: {source}")]
    NotAllowed { node: NodeId, source: net::Error },
    /// The disk, also that it is full, or what stands in the directory.
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    #[error("the snapshot at {point} is whole, and holds no state that this program reads: {source}")]
    State { point: LogId, source: codec::Error },
}

impl FetchError {
    /// Whether nodes may have later what none of them gives now: they make the same snapshot one after the other, mend their
    /// own, and come back.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            FetchError::Stuck { .. } => true,
            FetchError::Nowhere { asked, .. } => {
                asked.0.iter().any(|(_, unfit)| matches!(unfit, Unfit::NotHere | Unfit::Damaged { .. }))
            }
            _ => false,
        }
    }

    /// Whether the next order goes on where this one ended: nobody said that there is no such snapshot any more, and it is
    /// not what stands in the directory, or in the snapshot, that is in the way.
    pub fn goes_on(&self) -> bool {
        match self {
            FetchError::Stuck { .. } | FetchError::Interrupted => true,
            FetchError::Snapshot(error) => error.is_no_space(),
            FetchError::Nowhere { .. }
            | FetchError::Left { .. }
            | FetchError::NotAllowed { .. }
            | FetchError::State { .. } => false,
        }
    }

    /// The same, of who looked again and again for so long.
    pub fn after(self, patience: Duration) -> FetchError {
        match self {
            FetchError::Stuck { point, last, .. } => FetchError::Stuck { point, patience, last },
            other => other,
        }
    }

    /// What to do about it.
    pub fn next_step(&self) -> String {
        match self {
            FetchError::Interrupted => "nothing".to_owned(),
            FetchError::Nowhere { .. } => {
                "the leader offers one again; if that does not help, make a new snapshot with \
                                           `trilith cluster snapshot` and see what the nodes named say about theirs"
                    .to_owned()
            }
            FetchError::Left { .. } => "nothing: it fetches the one that the leader offers".to_owned(),
            FetchError::Stuck { .. } => {
                "check that the other nodes run and are reached; it goes on where it is with the leader's next offer"
                    .to_owned()
            }
            FetchError::NotAllowed { .. } => {
                "use a certificate of an administrator: `trilith cert admin NAME` makes one".to_owned()
            }
            FetchError::Snapshot(error) if error.is_no_space() => {
                "make room: the whole snapshot has to fit. It is fetched with the leader's next offer".to_owned()
            }
            FetchError::Snapshot(error) => error.next_step(),
            FetchError::State { .. } => "use the program that the other nodes run".to_owned(),
        }
    }
}
