//! Where questions for this node's snapshots wait for whoever reads the disk.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::settings::SNAPSHOTS_SERVED_MAX;
use super::snapshot_wire::{SnapshotAnswer, SnapshotRefusal, SnapshotRequest};
use crate::types::NodeId;

/// A question, and the way back to who asked it. One that is dropped without an answer is told that nothing is here.
#[derive(Debug)]
pub struct SnapshotQuestion {
    /// Proven by its certificate, and a member.
    pub from: NodeId,
    pub request: SnapshotRequest,
    answer: oneshot::Sender<SnapshotAnswer>,
}

impl SnapshotQuestion {
    /// Whether whoever asked has gone: nothing needs to be read.
    pub fn is_moot(&self) -> bool {
        self.answer.is_closed()
    }

    /// Whoever asked may have gone since.
    pub fn answer(self, answer: SnapshotAnswer) {
        drop(self.answer.send(answer));
    }
}

/// Hands questions on, one at a time for each of the few that are served at once.
#[derive(Debug)]
pub(super) struct Desk {
    /// Who answers; none: nothing is here.
    answerer: Mutex<Option<Sender<SnapshotQuestion>>>,
    seats: Arc<Semaphore>,
}

impl Default for Desk {
    fn default() -> Desk {
        Desk { answerer: Mutex::default(), seats: Arc::new(Semaphore::new(SNAPSHOTS_SERVED_MAX)) }
    }
}

impl Desk {
    pub(super) fn set_answerer(&self, answerer: Option<Sender<SnapshotQuestion>>) {
        *self.answerer.lock().expect("no holder of this lock can panic") = answerer;
    }

    /// A place among those that are served, if one is free.
    pub(super) fn seat(&self) -> Option<OwnedSemaphorePermit> {
        self.seats.clone().try_acquire_owned().ok()
    }

    pub(super) async fn ask(&self, from: NodeId, request: SnapshotRequest) -> SnapshotAnswer {
        let (answer, answered) = oneshot::channel();
        let question = SnapshotQuestion { from, request, answer };
        match &*self.answerer.lock().expect("no holder of this lock can panic") {
            // One that has ended takes nothing, and the question is dropped, too.
            Some(answerer) => drop(answerer.send(question)),
            None => drop(question),
        }
        answered.await.unwrap_or(SnapshotAnswer::Refused(SnapshotRefusal::NotHere))
    }
}
