//! Answers on their way to clients: the core's handle.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use quinn::Connection;

use crate::limits::WIRE_FRAME_BYTES_MAX;

use super::answer_wire::{Records, Refusal, Response, ResponseBody, put_response};
use super::close::CloseReason;
use super::context;
use super::counters::Counters;
use super::inbox::{ClientKey, TailKey};
use super::outbox::{Outbox, Put};
use super::settings::{CLIENT_ANSWERS_BYTES_MAX, TAIL_RECORDS_BYTES_MAX};

/// Beyond what is unread at most, the last long answer included: for answers that say no more than that.
const SHORT_ANSWERS_BYTES: usize = WIRE_FRAME_BYTES_MAX + (256 << 10);

/// A handle; clones share what is connected.
#[derive(Clone, Debug)]
pub struct Replies {
    shared: Arc<Shared>,
}

/// Whether a tail takes more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TailState {
    Room,
    /// What was given is queued. Wait for [`super::Arrival::TailReady`].
    Full,
    /// What was given is dropped. The tail is closed.
    Gone,
}

#[derive(Debug)]
struct Shared {
    connected: Mutex<Connected>,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Connected {
    clients: BTreeMap<ClientKey, (Arc<Outbox>, Connection)>,
    tails: BTreeMap<TailKey, Arc<Outbox>>,
    /// The last number given to a client or a tail.
    last: u64,
}

impl Replies {
    pub(super) fn new(counters: Arc<Counters>) -> Replies {
        Replies { shared: Arc::new(Shared { connected: Mutex::default(), counters }) }
    }

    /// Queues an answer; never blocks. A client that has gone gets nothing. Where too much is unread, the answer is that
    /// the node is busy, which is short; one that leaves even those unread is closed.
    pub fn reply(&self, client: ClientKey, response: &Response) {
        let Some((outbox, connection)) = self.connected().clients.get(&client).cloned() else { return };
        let put = outbox.put(CLIENT_ANSWERS_BYTES_MAX, |out| put_response(out, response));
        if put != Put::Refused {
            return;
        }
        // What was submitted may have happened; what was asked is asked again.
        let refusal = match &response.body {
            ResponseBody::Submitted { .. } | ResponseBody::Changed { .. } => Refusal::OutcomeUnknown,
            // Short itself, and it says what did not happen: another refusal might not.
            ResponseBody::Refused(refusal) => refusal.clone(),
            _ => Refusal::Busy,
        };
        let short = Response { id: response.id, body: ResponseBody::Refused(refusal) };
        if outbox.put(CLIENT_ANSWERS_BYTES_MAX + SHORT_ANSWERS_BYTES, |out| put_response(out, &short)) == Put::Refused {
            self.shared.counters.clients_not_reading.add();
            context::close(&connection, CloseReason::NotReading);
            outbox.close();
        }
    }

    /// Queues records for a tail; never blocks. Panics if the tail was full and has not said that it has room: records
    /// would be lost in silence.
    pub fn tail(&self, tail: TailKey, records: Records) -> TailState {
        let Some(outbox) = self.connected().tails.get(&tail).cloned() else { return TailState::Gone };
        let response = Response { id: 0, body: ResponseBody::Records(records) };
        match outbox.put(TAIL_RECORDS_BYTES_MAX, |out| put_response(out, &response)) {
            Put::Queued => TailState::Room,
            Put::Full => TailState::Full,
            Put::Refused => panic!("a full tail was given more"),
            Put::Closed => TailState::Gone,
        }
    }

    /// Ends a tail's stream when all that is queued is written, and then the refusal, if there is one.
    pub fn end_tail(&self, tail: TailKey, refusal: Option<Refusal>) {
        let Some(outbox) = self.connected().tails.remove(&tail) else { return };
        if let Some(refusal) = refusal {
            let response = Response { id: 0, body: ResponseBody::Refused(refusal) };
            // The last frame is short, and comes once: it needs no room.
            outbox.put(usize::MAX, |out| put_response(out, &response));
        }
        outbox.end();
    }

    pub(super) fn add_client(&self, connection: &Connection) -> (ClientKey, Arc<Outbox>) {
        let outbox = Arc::new(Outbox::opened());
        let mut connected = self.connected();
        connected.last += 1;
        let key = ClientKey(connected.last);
        connected.clients.insert(key, (outbox.clone(), connection.clone()));
        (key, outbox)
    }

    pub(super) fn remove_client(&self, client: ClientKey) {
        self.connected().clients.remove(&client);
    }

    pub(super) fn add_tail(&self) -> (TailKey, Arc<Outbox>) {
        let outbox = Arc::new(Outbox::opened());
        let mut connected = self.connected();
        connected.last += 1;
        let key = TailKey(connected.last);
        connected.tails.insert(key, outbox.clone());
        (key, outbox)
    }

    pub(super) fn remove_tail(&self, tail: TailKey) {
        if let Some(outbox) = self.connected().tails.remove(&tail) {
            outbox.close();
        }
    }

    pub(super) fn clients(&self) -> usize {
        self.connected().clients.len()
    }

    fn connected(&self) -> MutexGuard<'_, Connected> {
        self.shared.connected.lock().expect("no holder of this lock can panic")
    }
}
