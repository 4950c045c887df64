//! Requests outside of sessions: reads, questions, changes to the cluster.

use std::collections::{BTreeMap, VecDeque};

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::error::Error;
use crate::net::{Change, Refusal, RequestBody, ResponseBody};

/// One request with the one who waits for its answer.
#[derive(Debug)]
pub(super) struct Ask {
    pub body: RequestBody,
    pub deadline: Instant,
    pub sender: oneshot::Sender<Result<ResponseBody, Error>>,
    /// Bounds how many wait.
    pub room: OwnedSemaphorePermit,
    /// How often it was refused for the moment, and until when it waits because of that.
    pub refusals: Refusals,
}

/// What one request was refused for so far. It outlasts connections: the node that refuses may be the only one that is
/// found.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusals {
    count: u32,
    until: Option<Instant>,
    /// What the node said that does not lead.
    not_leader: Option<Error>,
    /// It is a change, and was sent once without an answer that says what became of it: it may have happened.
    may_have_happened: bool,
}

impl Refusals {
    /// What is told of a request that waits, for which waiting does not help.
    fn told(&self, reason: &Error) -> Error {
        match self.may_have_happened {
            true => Error::OutcomeUnknown,
            false => self.not_leader.clone().unwrap_or_else(|| reason.clone()),
        }
    }
}

/// All that have no answer. Their number is bounded by those who hand them in.
#[derive(Debug, Default)]
pub(super) struct Asks {
    waiting: VecDeque<Ask>,
    sent: BTreeMap<u64, Ask>,
    /// None is due before this; `None` while there is none.
    due: Option<Instant>,
}

/// What follows from a refusal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Answered {
    /// Somebody was told.
    Told,
    /// It waits again.
    Again(Refusal),
    /// Nobody asked.
    Unknown,
}

impl Asks {
    pub fn push(&mut self, ask: Ask) {
        self.due = Some(self.due.map_or(ask.deadline, |due| due.min(ask.deadline)));
        self.waiting.push_back(ask);
    }

    /// The next one to send.
    pub fn send(&mut self, request: u64, now: Instant) -> Option<RequestBody> {
        let may_go = |ask: &Ask| ask.refusals.until.is_none_or(|until| until <= now);
        let ask = self.waiting.remove(self.waiting.iter().position(may_go)?)?;
        let body = ask.body.clone();
        self.sent.insert(request, ask);
        Some(body)
    }

    /// With `tells_busy` whoever asked a leader that is busy is told so, and asks again of its own.
    pub fn answer(
        &mut self,
        request: u64,
        body: ResponseBody,
        tells_busy: bool,
        again_at: impl FnOnce(u32) -> Instant,
    ) -> Answered {
        let Some(mut ask) = self.sent.remove(&request) else { return Answered::Unknown };
        let told = match body {
            ResponseBody::Refused(refusal)
                if (may_pass(&refusal) && !(tells_busy && refusal == Refusal::Busy))
                    || (is_unknown(&refusal) && may_repeat(&ask.body)) =>
            {
                ask.refusals.until = Some(again_at(ask.refusals.count));
                ask.refusals.count += 1;
                ask.refusals.may_have_happened |= is_unknown(&refusal) && is_change(&ask.body);
                if let Refusal::NotLeader { .. } = refusal {
                    ask.refusals.not_leader = Some(Error::from_refusal(&refusal));
                }
                self.waiting.push_front(ask);
                return Answered::Again(refusal);
            }
            ResponseBody::Refused(refusal) => Err(Error::from_refusal(&refusal)),
            body => Ok(body),
        };
        tell(ask, told);
        Answered::Told
    }

    /// The connection is lost. What may be repeated is asked again; of another change the outcome is unknown.
    pub fn lost(&mut self) {
        for (_, mut ask) in std::mem::take(&mut self.sent).into_iter().rev() {
            ask.refusals.may_have_happened |= is_change(&ask.body);
            match may_repeat(&ask.body) {
                true => self.waiting.push_front(ask),
                false => tell(ask, Err(Error::OutcomeUnknown)),
            }
        }
    }

    pub fn expire(&mut self, now: Instant, reason: &Error) {
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        let is_late = |ask: &Ask| ask.deadline <= now;
        for ask in std::mem::take(&mut self.waiting) {
            match is_late(&ask) {
                true => {
                    let error = ask.refusals.told(reason);
                    tell(ask, Err(error));
                }
                false => self.waiting.push_back(ask),
            }
        }
        let late: Vec<u64> = self.sent.iter().filter(|(_, ask)| is_late(ask)).map(|(request, _)| *request).collect();
        for request in late {
            let ask = self.sent.remove(&request).expect("found above");
            let error = match ask.body {
                RequestBody::Change(_) => Error::OutcomeUnknown,
                _ => Error::Unavailable { reason: "no answer came in time".to_owned() },
            };
            tell(ask, Err(error));
        }
        self.due = self.waiting.iter().chain(self.sent.values()).map(|ask| ask.deadline).min();
    }

    /// A wait that is over is forgotten.
    pub fn end_pauses(&mut self, now: Instant) {
        for ask in &mut self.waiting {
            ask.refusals.until = ask.refusals.until.filter(|until| now < *until);
        }
    }

    /// Tells all that wait to be sent that waiting cannot help.
    pub fn refuse_waiting(&mut self, error: &Error) {
        for ask in self.waiting.drain(..) {
            let told = if ask.refusals.may_have_happened { Error::OutcomeUnknown } else { error.clone() };
            tell(ask, Err(told));
        }
    }

    /// When to look for those whose time has come, to be told or to be sent again.
    pub fn due(&self) -> Option<Instant> {
        self.waiting.iter().filter_map(|ask| ask.refusals.until).chain(self.due).min()
    }

    pub fn is_any_sent(&self) -> bool {
        !self.sent.is_empty()
    }

    pub fn is_any_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

fn is_change(body: &RequestBody) -> bool {
    matches!(body, RequestBody::Change(_))
}

/// Whether the same question may be answered a little later, or by another node.
fn may_pass(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::NotLeader { .. } | Refusal::Busy | Refusal::Unavailable { .. })
}

/// Whatever became of it: what changes nothing, a change of the members, of which what is so already is answered so, and a
/// snapshot, of which one more does no harm.
fn may_repeat(body: &RequestBody) -> bool {
    !matches!(body, RequestBody::Change(change) if !matches!(change, Change::Members(_) | Change::Snapshot))
}

fn is_unknown(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::OutcomeUnknown)
}

fn tell(ask: Ask, told: Result<ResponseBody, Error>) {
    // Whoever asked may not want to know any more.
    let _ = ask.sender.send(told);
    drop(ask.room);
}
