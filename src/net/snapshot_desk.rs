//! Where questions for this node's snapshots wait for whoever reads the disk.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use super::name::Role;
use super::settings::{EXPORTS_SERVED_MAX, SNAPSHOTS_SERVED_MAX};
use super::snapshot_wire::{SnapshotAnswer, SnapshotRefusal, SnapshotRequest};
use crate::types::{LogId, NodeId};

/// A question, and the way back to who asked it. One that is dropped without an answer is told that nothing is here.
#[derive(Debug)]
pub struct SnapshotQuestion {
    /// Proven by the certificate: a member, or an administrator.
    pub from: Role,
    pub request: SnapshotRequest,
    answer: oneshot::Sender<(SnapshotAnswer, u64)>,
}

/// A snapshot that somebody fetches from this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sending {
    pub to: Role,
    pub point: LogId,
    /// Of the whole state, if whoever answers has told.
    pub bytes: u64,
    pub bytes_sent: u64,
    /// The first answer, and the last one.
    pub began: Instant,
    pub moved: Instant,
}

impl SnapshotQuestion {
    /// Whether whoever asked has gone: nothing needs to be read.
    pub fn is_moot(&self) -> bool {
        self.answer.is_closed()
    }

    /// Whoever asked may have gone since.
    pub fn answer(self, answer: SnapshotAnswer) {
        self.answer_of(answer, 0);
    }

    /// The same, of a snapshot whose state has so many bytes.
    pub fn answer_of(self, answer: SnapshotAnswer, state_bytes: u64) {
        drop(self.answer.send((answer, state_bytes)));
    }
}

/// Hands questions on, one at a time for each of the few that are served at once.
#[derive(Debug)]
pub(super) struct Desk {
    /// Who answers; none: nothing is here.
    answerer: Mutex<Option<Sender<SnapshotQuestion>>>,
    asked: Mutex<Asked>,
    seats_of_nodes: Arc<Semaphore>,
    /// Their own: a backup keeps no node waiting, and none of them keeps a backup waiting.
    seats_of_administrators: Arc<Semaphore>,
    sendings: Arc<Sendings>,
}

/// Who fetches what: told also of those for whom there is no seat, and before the disk is waited for.
#[derive(Debug, Default)]
struct Asked {
    /// Whose manifest each member has asked for last, since this was taken; so no more than there are members.
    points: BTreeMap<NodeId, LogId>,
    /// Who wants to know.
    woken: Option<Arc<Notify>>,
}

/// A place among those that are served, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    role: Role,
    number: u64,
    sendings: Arc<Sendings>,
    _permit: OwnedSemaphorePermit,
}

/// What goes out, by the numbers of the seats.
#[derive(Debug, Default)]
struct Sendings {
    next: AtomicU64,
    all: Mutex<BTreeMap<u64, Sending>>,
}

impl Default for Desk {
    fn default() -> Desk {
        Desk {
            answerer: Mutex::default(),
            asked: Mutex::default(),
            seats_of_nodes: Arc::new(Semaphore::new(SNAPSHOTS_SERVED_MAX)),
            seats_of_administrators: Arc::new(Semaphore::new(EXPORTS_SERVED_MAX)),
            sendings: Arc::default(),
        }
    }
}

impl Desk {
    pub(super) fn set_answerer(&self, answerer: Option<Sender<SnapshotQuestion>>) {
        *self.answerer.lock().expect("no holder of this lock can panic") = answerer;
    }

    pub(super) fn set_woken(&self, woken: Arc<Notify>) {
        self.asked().woken = Some(woken);
    }

    /// A member wants to know of the snapshot at this point, whatever it will be told.
    pub(super) fn note_asked(&self, node: NodeId, point: LogId) {
        let mut asked = self.asked();
        if let Some(woken) = asked.woken.clone() {
            asked.points.insert(node, point);
            woken.notify_one();
        }
    }

    pub(super) fn take_asked(&self) -> BTreeMap<NodeId, LogId> {
        std::mem::take(&mut self.asked().points)
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().expect("no holder of this lock can panic")
    }

    /// A place among those that are served, if one is free.
    pub(super) fn seat(&self, role: &Role) -> Option<Seat> {
        let seats = if role.is_admin() { &self.seats_of_administrators } else { &self.seats_of_nodes };
        let permit = seats.clone().try_acquire_owned().ok()?;
        let number = self.sendings.next.fetch_add(1, Ordering::Relaxed);
        Some(Seat { role: role.clone(), number, sendings: self.sendings.clone(), _permit: permit })
    }

    pub(super) async fn ask(&self, seat: &Seat, request: SnapshotRequest) -> SnapshotAnswer {
        let (answer, answered) = oneshot::channel();
        let question = SnapshotQuestion { from: seat.role.clone(), request, answer };
        match &*self.answerer.lock().expect("no holder of this lock can panic") {
            // One that has ended takes nothing, and the question is dropped, too.
            Some(answerer) => drop(answerer.send(question)),
            None => drop(question),
        }
        match answered.await {
            Ok((answer, state_bytes)) => {
                seat.note(request.snapshot().1, &answer, state_bytes);
                answer
            }
            Err(_) => SnapshotAnswer::Refused(SnapshotRefusal::NotHere),
        }
    }

    /// What is being sent.
    pub(super) fn sendings(&self) -> Vec<Sending> {
        self.sendings.all().values().cloned().collect()
    }
}

impl Sendings {
    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Sending>> {
        self.all.lock().expect("no holder of this lock can panic")
    }
}

impl Seat {
    /// An answer leaves: what is sent is at most what is under way ahead of what has arrived.
    fn note(&self, point: LogId, answer: &SnapshotAnswer, state_bytes: u64) {
        let bytes = match answer {
            SnapshotAnswer::Manifest(_) => 0,
            SnapshotAnswer::Chunk { bytes, .. } => bytes.len() as u64,
            SnapshotAnswer::Refused(_) => return,
        };
        let now = Instant::now();
        let new = || Sending { to: self.role.clone(), point, bytes: 0, bytes_sent: 0, began: now, moved: now };
        let mut all = self.sendings.all();
        let sending = all.entry(self.number).or_insert_with(new);
        if sending.point != point {
            *sending = new();
        }
        sending.bytes = state_bytes;
        sending.bytes_sent += bytes;
        sending.moved = now;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.sendings.all().remove(&self.number);
    }
}
