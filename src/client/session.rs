//! One session with the cluster: which of its numbers are under way, and what may be sent again.
//!
//! A slot is *certain* if every copy of it that was ever sent is known to have been refused: then it is not in the
//! log. Because a leader takes a session's numbers in order, everything behind a certain slot is not in the log
//! either, and never will be unless that slot is sent again. A command of the map that was refused because its session is
//! gone may be in the log all the same, where it is not run: it says nothing of those behind it.
//!
//! Where a slot and all behind it are certain, none of their numbers is known to anybody: if the time of one is over those
//! behind it take the numbers from there on. So a session outlasts a leader that has no room. The rule stands in
//! net/standing.rs, where the simulated clients have it from.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::time::Instant;

use super::error::Error;
use super::handle::WhenBusy;
use super::records::{Batches, Record};
use crate::codec::{COMMAND_HEAD_BYTES, put_command_head};
use crate::limits::{REQUEST_BYTES_MAX, SESSION_ANSWERS_MAX};
use crate::net::{Refusal, Standing, count_free};
use crate::types::{Command, Data, Index, RequestNumber, SessionId};

#[derive(Debug)]
pub(super) struct Session {
    id: SessionId,
    /// The number of the first slot: the lowest that has no answer. What the leader is told. Never falls.
    first: u64,
    /// One for each number from `first` on; at most [`SESSION_ANSWERS_MAX`].
    slots: VecDeque<Slot>,
    /// No slot with a lower number waits to be sent.
    cursor: u64,
    /// No new record enters: a number will never be sent, or the caller of one was told that its outcome is unknown.
    is_closing: bool,
    /// The cluster has forgotten the session: nothing more is sent.
    is_gone: bool,
    when_busy: WhenBusy,
    /// The leader had no room for one of its numbers, and whoever waits for it was told so.
    is_turned_away: bool,
    /// Records that are certainly not in the log and are to be sent in another session, in order.
    returned: Vec<Record>,
    /// The first failure that a caller was told, as it is said to those behind it: nothing of them is in the log.
    given_up: Option<Error>,
}

#[derive(Debug)]
struct Slot {
    record: Record,
    state: State,
    /// What is known of the copies that were sent. Counts as under way when it is done.
    standing: Standing,
    /// The caller was told that the outcome is unknown. It is sent again only for the sake of those behind it.
    is_told: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// To be sent, for the first time or again.
    Waiting,
    Sent {
        request: u64,
    },
    Done,
}

/// The numbers that one request carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Run {
    pub first: u64,
    pub count: usize,
}

/// What a node said of one command.
#[derive(Clone, Debug)]
pub(super) enum Told {
    Done { index: Index, answer: Option<Bytes> },
    Refused(Refusal),
}

/// What follows from an answer for those who look after the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    Progress,
    /// To be sent again, at once.
    Again,
    /// To be sent again, after a pause.
    Pause,
    /// This node does not know what an earlier leader has answered: it leads no more, or not yet.
    Doubt,
}

impl Session {
    pub fn new(id: SessionId, when_busy: WhenBusy) -> Session {
        Session {
            id,
            first: 1,
            slots: VecDeque::new(),
            cursor: 1,
            is_closing: false,
            is_gone: false,
            when_busy,
            is_turned_away: false,
            returned: Vec::new(),
            given_up: None,
        }
    }

    pub fn has_room(&self) -> bool {
        !self.is_closing && !self.is_gone && self.slots.len() < SESSION_ANSWERS_MAX
    }

    /// The leader had no room, and what it took before is not answered: nothing else enters.
    pub fn is_turned_away(&self) -> bool {
        self.is_turned_away
    }

    /// Gives a record the next number.
    pub fn push(&mut self, record: Record) {
        assert!(self.has_room(), "session {} takes no more", self.id);
        let state = State::Waiting;
        self.slots.push_back(Slot { record, state, standing: Standing::default(), is_told: false });
    }

    /// Nothing is to be tried any more once one was given up: all that are certainly not in the log are told so. What it was,
    /// if that is so.
    pub fn end_behind(&mut self, batches: &mut Batches) -> Option<&Error> {
        let error = self.given_up.as_ref()?;
        let at = self.slots.len() - self.count_free();
        let free = self.slots.split_off(at).into_iter().map(|slot| slot.record);
        free.chain(self.returned.drain(..)).for_each(|record| batches.failed(&record, error.clone()));
        Some(error)
    }

    /// While the leader's disk is full: one record alone, to learn whether it still is, if there is time for an answer until
    /// then. What would be under way at its caller's deadline could be in the log.
    pub fn next_attempt(&mut self, request: u64, answered_by: Instant) -> Option<(Run, Vec<Data>)> {
        let is_sent = |slot: &Slot| matches!(slot.state, State::Sent { .. });
        let first = self.slots.iter().find(|slot| slot.state == State::Waiting)?;
        let is_in_time = first.record.deadline >= answered_by || !first.standing.is_certain();
        if !is_in_time || self.slots.iter().any(is_sent) {
            return None;
        }
        self.next_run(request, 1)
    }

    /// The lowest numbers that wait, as the commands of a request; at most `records_max`.
    pub fn next_run(&mut self, request: u64, records_max: usize) -> Option<(Run, Vec<Data>)> {
        if self.is_gone {
            return None;
        }
        let start = (self.cursor.max(self.first) - self.first) as usize;
        let skipped = self.slots.range(start..).position(|slot| slot.state == State::Waiting);
        let Some(skipped) = skipped else {
            self.cursor = self.first + self.slots.len() as u64;
            return None;
        };
        let start = start + skipped;
        let (count, bytes) = self.measure(start, records_max);
        let commands = self.encode(start, count, bytes);
        for slot in self.slots.range_mut(start..start + count) {
            slot.state = State::Sent { request };
            slot.standing.sent();
        }
        let first = self.first + start as u64;
        self.cursor = first + count as u64;
        Some((Run { first, count }, commands))
    }

    /// Takes a node's word on one number of a request. An answer to an older copy says nothing new.
    pub fn settle(&mut self, number: u64, request: u64, told: Told, batches: &mut Batches) -> Effect {
        let Some(at) = number.checked_sub(self.first) else { return Effect::Again };
        let Some(slot) = self.slots.get_mut(at as usize) else { return Effect::Again };
        if slot.state != (State::Sent { request }) {
            return Effect::Again;
        }
        match told {
            Told::Done { index, answer } => {
                if !slot.is_told {
                    batches.done(&slot.record, index, answer);
                }
                slot.state = State::Done;
                slot.record.body = Bytes::new();
                self.drop_done();
                Effect::Progress
            }
            Told::Refused(refusal) => {
                slot.state = State::Waiting;
                slot.standing.refused(&refusal, slot.record.service);
                self.cursor = self.cursor.min(number);
                self.refused(at as usize, refusal, batches)
            }
        }
    }

    /// The connection is lost: what was under way is not known.
    pub fn lost(&mut self) {
        for slot in &mut self.slots {
            if matches!(slot.state, State::Sent { .. }) {
                slot.state = State::Waiting;
                slot.standing.lost();
            }
        }
        self.cursor = self.first;
    }

    /// Tells the callers of what is too late; those whose numbers are free, so much earlier.
    pub fn expire(&mut self, now: Instant, early: Duration, reason: &Error, batches: &mut Batches) {
        self.expire_free(now + early, reason, batches);
        let mut at = 0;
        while at < self.slots.len() {
            if self.slots[at].is_live() && self.slots[at].record.deadline <= now {
                self.give_up(at, reason.clone(), batches);
            }
            at += 1;
        }
    }

    /// Whether nothing more can come of this session; then [`Session::dissolve`] it.
    pub fn is_over(&self) -> bool {
        let is_sent = |slot: &Slot| matches!(slot.state, State::Sent { .. });
        match self.is_gone {
            true => !self.slots.iter().any(is_sent),
            false => self.is_closing && !self.slots.iter().any(Slot::is_live),
        }
    }

    /// Ends the session: gives back the records that are certainly not in the log; of the others the outcome is
    /// unknown. And what is to be said of those behind the first that failed, if one has.
    pub fn dissolve(mut self, batches: &mut Batches) -> (Vec<Record>, Option<Error>) {
        assert!(self.is_over(), "session {} is in use", self.id);
        let mut ends_log = false;
        let mut kept = Vec::new();
        for slot in self.slots {
            ends_log |= slot.standing.ends_log();
            match slot.is_live() {
                true if ends_log || slot.standing.is_certain() => kept.push(slot.record),
                true => {
                    self.given_up.get_or_insert_with(|| behind(&Error::OutcomeUnknown));
                    batches.failed(&slot.record, Error::OutcomeUnknown);
                }
                false => {}
            }
        }
        kept.append(&mut self.returned);
        (kept, self.given_up)
    }

    /// The earliest time at which somebody must be told something, as [`Session::expire`] does.
    pub fn due(&self, early: Duration) -> Option<Instant> {
        let free_from = self.slots.len() - self.count_free();
        let other = self.slots.range(..free_from).find(|slot| slot.is_live()).map(|slot| slot.record.deadline);
        let free = self.slots.get(free_from).map(|slot| slot.record.deadline - early);
        [other, free].into_iter().flatten().min()
    }

    /// How many slots at the end have numbers of which no copy is under way, nor in the log.
    fn count_free(&self) -> usize {
        count_free(self.slots.iter().rev().take_while(|slot| slot.is_live()).map(|slot| slot.standing))
    }

    /// Of those with free numbers whose time is over, the callers are told; those behind them take their numbers.
    fn expire_free(&mut self, now: Instant, reason: &Error, batches: &mut Batches) {
        let free_from = self.slots.len() - self.count_free();
        if self.slots.range(free_from..).all(|slot| now < slot.record.deadline) {
            return;
        }
        self.given_up.get_or_insert_with(|| behind(reason));
        for slot in self.slots.split_off(free_from) {
            match slot.record.deadline <= now {
                true => batches.failed(&slot.record, reason.clone()),
                false => self.slots.push_back(slot),
            }
        }
    }

    fn measure(&self, start: usize, records_max: usize) -> (usize, usize) {
        let (mut count, mut bytes) = (0, 0);
        for slot in self.slots.range(start..).take(records_max) {
            let more = COMMAND_HEAD_BYTES + slot.record.body.len();
            if slot.state != State::Waiting || bytes + more > REQUEST_BYTES_MAX {
                break;
            }
            count += 1;
            bytes += more;
        }
        assert!(count > 0, "one record fits a request");
        (count, bytes)
    }

    /// All commands of a request in one allocation.
    fn encode(&self, start: usize, count: usize, bytes: usize) -> Vec<Data> {
        let mut buffer = BytesMut::with_capacity(bytes);
        let numbered = self.slots.range(start..start + count).zip(self.first + start as u64..);
        let encode = |(slot, number): (&Slot, u64)| {
            let command = Command {
                service: slot.record.service,
                session: self.id,
                number: RequestNumber(number),
                lowest_unanswered: RequestNumber(self.first),
            };
            put_command_head(&mut buffer, &command);
            buffer.put_slice(&slot.record.body);
            Data::new(buffer.split().freeze())
        };
        numbered.map(encode).collect()
    }

    fn refused(&mut self, at: usize, refusal: Refusal, batches: &mut Batches) -> Effect {
        let effect = match refusal {
            Refusal::Gap { expected } if expected < self.first => Effect::Doubt,
            Refusal::Gap { .. } => Effect::Again,
            Refusal::Busy if self.when_busy == WhenBusy::Tell => {
                self.is_turned_away = true;
                self.give_up(at, Error::Busy, batches);
                self.returned.drain(..).for_each(|record| batches.failed(&record, Error::Busy));
                return self.without_caller(at);
            }
            Refusal::Busy
            | Refusal::NoSpace
            | Refusal::Unavailable { .. }
            | Refusal::NotLeader { .. }
            | Refusal::OutcomeUnknown => Effect::Pause,
            Refusal::SessionGone => {
                self.is_gone = true;
                Effect::Again
            }
            Refusal::TooLarge { .. }
            | Refusal::Malformed
            | Refusal::NotAllowed
            | Refusal::LeasesOff
            | Refusal::MapAlone
            | Refusal::Impossible { .. }
            | Refusal::SnapshotFailed { .. }
            | Refusal::Trimmed { .. } => {
                self.give_up(at, Error::from_refusal(&refusal), batches);
                return self.without_caller(at);
            }
        };
        if self.slots[at].is_told && self.slots[at].standing.ends_log() {
            self.cut_off(at);
        }
        effect
    }

    /// What follows for a number that was given up: if it is still there others need it, and it was refused a moment ago.
    fn without_caller(&self, at: usize) -> Effect {
        if at < self.slots.len() { Effect::Pause } else { Effect::Again }
    }

    /// Tells the caller of a slot that is not waited for any longer: `error`, if it is certain that it holds.
    fn give_up(&mut self, at: usize, error: Error, batches: &mut Batches) {
        self.is_closing = true;
        let slot = &mut self.slots[at];
        let (is_certain, ends_log) = (slot.standing.is_certain(), slot.standing.ends_log());
        if slot.is_live() {
            let error = if is_certain { error } else { Error::OutcomeUnknown };
            self.given_up.get_or_insert_with(|| behind(&error));
            batches.failed(&slot.record, error);
            slot.is_told = true;
        }
        if ends_log {
            self.cut_off(at);
        }
    }

    /// A slot that ends the log is never sent again: what stands behind it is not in the log, and needs other numbers.
    fn cut_off(&mut self, at: usize) {
        assert!(self.slots[at].standing.ends_log(), "what may be in the log cannot be taken back");
        let behind = self.slots.split_off(at);
        let mut records: Vec<Record> = behind.into_iter().filter(Slot::is_live).map(|slot| slot.record).collect();
        records.append(&mut self.returned);
        self.returned = records;
        self.is_closing = true;
    }

    fn drop_done(&mut self) {
        while self.slots.front().is_some_and(|slot| slot.state == State::Done) {
            self.slots.pop_front();
            self.first += 1;
        }
    }
}

/// What is told of one that is certainly not in the log, behind one that failed so.
fn behind(error: &Error) -> Error {
    match error {
        Error::OutcomeUnknown => {
            Error::Unavailable { reason: "what became of a record before it is unknown".to_owned() }
        }
        other => other.clone(),
    }
}

impl Slot {
    /// Its caller still waits.
    fn is_live(&self) -> bool {
        self.state != State::Done && !self.is_told
    }
}
