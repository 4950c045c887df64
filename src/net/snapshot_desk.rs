//! Where questions for this node's snapshots wait for whoever reads the disk.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::name::Role;
use super::settings::{EXPORTS_SERVED_MAX, SNAPSHOTS_SERVED_MAX};
use super::snapshot_wire::{SnapshotAnswer, SnapshotRefusal, SnapshotRequest};

/// A question, and the way back to who asked it. One that is dropped without an answer is told that nothing is here.
#[derive(Debug)]
pub struct SnapshotQuestion {
    /// Proven by the certificate: a member, or an administrator.
    pub from: Role,
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
    seats_of_nodes: Arc<Semaphore>,
    /// Their own: a backup keeps no node waiting, and none of them keeps a backup waiting.
    seats_of_administrators: Arc<Semaphore>,
}

impl Default for Desk {
    fn default() -> Desk {
        Desk {
            answerer: Mutex::default(),
            seats_of_nodes: Arc::new(Semaphore::new(SNAPSHOTS_SERVED_MAX)),
            seats_of_administrators: Arc::new(Semaphore::new(EXPORTS_SERVED_MAX)),
        }
    }
}

impl Desk {
    pub(super) fn set_answerer(&self, answerer: Option<Sender<SnapshotQuestion>>) {
        *self.answerer.lock().expect("no holder of this lock can panic") = answerer;
    }

    /// A place among those that are served, if one is free.
    pub(super) fn seat(&self, role: &Role) -> Option<OwnedSemaphorePermit> {
        let seats = if role.is_admin() { &self.seats_of_administrators } else { &self.seats_of_nodes };
        seats.clone().try_acquire_owned().ok()
    }

    pub(super) async fn ask(&self, from: Role, request: SnapshotRequest) -> SnapshotAnswer {
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
